//! Answers about versions: those of one package, and of how many versions each package is.

use super::guests::MOST_GUESTS;
use super::id_map::IdMap;
use super::named::NamedPackages;
use super::view::FleetView;
use super::{AnswerPage, FleetAnswer, is_of_os};
use crate::report::evr;
use crate::sense::fleet::ids::PackedIds;
use crate::store::TxError;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

/// A version of a package.
#[derive(Serialize)]
pub(super) struct VersionLine {
    version: String,
    arch: String,
    guests: u64,
}

/// The versions of a package, the newest first.
#[derive(Serialize)]
pub struct VersionsAnswer {
    name: String,
    versions: Vec<VersionLine>,
}

/// The versions of one package, on guests of this OS.
pub(super) fn of_package(
    view: &FleetView,
    name: &str,
    os: Option<&str>,
) -> Result<FleetAnswer, TxError> {
    let named = NamedPackages::read(view, name, None, |_| true)?;
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut seen: Vec<(&str, &str)> = Vec::new();
    view.guests(None, |_, state| {
        if is_of_os(os, &state) {
            seen.clear();
            let packages = named.of(state.ids).map(|package| &package.shown);
            seen.extend(packages.map(|package| (&*package.version, &*package.arch)));
            // The same from two repositories is one version.
            seen.sort_unstable();
            seen.dedup();
            for key in &seen {
                *counts.entry(*key).or_default() += 1;
            }
        }
        ControlFlow::Continue(())
    })?;
    let lines = counts
        .into_iter()
        .map(|((version, arch), guests)| VersionLine {
            version: version.to_owned(),
            arch: arch.to_owned(),
            guests,
        });
    let mut versions: Vec<VersionLine> = lines.collect();
    versions.sort_by(|a, b| evr::compare_versions(&b.version, &a.version));
    Ok(FleetAnswer::Versions(VersionsAnswer {
        name: name.to_owned(),
        versions,
    }))
}

/// How far the versions of a package are apart.
#[derive(Serialize)]
pub(super) struct DriftLine {
    name: String,
    /// How many versions guests have of it.
    versions: u64,
    /// Guests that have it.
    guests: u64,
    /// The highest of these versions.
    newest: String,
    /// Guests that have it, but not in that version.
    behind: u64,
}

/// The packages of the fleet, those of most versions first.
#[derive(Serialize)]
pub struct DriftAnswer {
    packages: Vec<DriftLine>,
    /// Guests that were looked at.
    looked_at: usize,
    /// Behind this place the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A place in that order: `VERSIONS:NAME`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct DriftPlace {
    versions: Reverse<u64>,
    name: String,
}

impl DriftPlace {
    fn of(line: &DriftLine) -> Self {
        Self {
            versions: Reverse(line.versions),
            name: line.name.clone(),
        }
    }
}

impl std::str::FromStr for DriftPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "is not `next` of the page before";
        let (versions, name) = text.split_once(':').ok_or(wrong)?;
        let is_number = versions.bytes().all(|byte| byte.is_ascii_digit());
        let versions = versions.parse().ok().filter(|_| is_number).ok_or(wrong)?;
        Ok(Self {
            versions: Reverse(versions),
            name: name.to_owned(),
        })
    }
}

impl std::fmt::Display for DriftPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.versions.0, self.name)
    }
}

/// Guests that have something, each counted once.
#[derive(Default)]
struct GuestCount {
    guests: u64,
    /// The number of the guest that was counted last; guests are numbered from 1.
    last: usize,
}

impl GuestCount {
    fn add(&mut self, guest: usize) {
        if self.last != guest {
            self.last = guest;
            self.guests += 1;
        }
    }
}

/// A version of a package name, whatever its architecture or repository.
struct CountedVersion {
    version: String,
    name: usize,
    count: GuestCount,
}

/// How many versions of each package guests of this OS have.
pub(super) fn drift(
    view: &FleetView,
    os: Option<&str>,
    page: &AnswerPage,
) -> Result<FleetAnswer, TxError> {
    let after = page.after.as_deref().map(str::parse::<DriftPlace>);
    let after = match after.transpose() {
        Ok(after) => after,
        Err(error) => return Ok(FleetAnswer::usage(&format!("cursor: {error}"))),
    };
    let (lines, looked_at) = count(view, os)?;
    let mut places: Vec<(DriftPlace, DriftLine)> = lines
        .into_iter()
        .map(|line| (DriftPlace::of(&line), line))
        .collect();
    places.retain(|(place, _)| after.as_ref().is_none_or(|after| place > after));
    places.sort_by(|(a, _), (b, _)| a.cmp(b));
    let most = page.limit.unwrap_or(MOST_GUESTS).min(MOST_GUESTS);
    let is_more = places.len() > most;
    places.truncate(most);
    let last = places.last().filter(|_| is_more);
    let next = last.map(|(place, _)| place.to_string());
    Ok(FleetAnswer::Drift(DriftAnswer {
        packages: places.into_iter().map(|(_, line)| line).collect(),
        looked_at,
        next,
    }))
}

fn count(view: &FleetView, os: Option<&str>) -> Result<(Vec<DriftLine>, usize), TxError> {
    let mut names: HashMap<String, usize> = HashMap::new();
    let mut known: HashMap<(usize, String), usize> = HashMap::new();
    // The version of each package.
    let mut packages: IdMap<usize> = IdMap::new();
    view.packages(|id, package| {
        let next = names.len();
        let name = *names.entry(package.name.to_owned()).or_insert(next);
        let next = known.len();
        let version = known.entry((name, package.version.to_owned()));
        packages.push(id, *version.or_insert(next));
    })?;
    let mut versions: Vec<Option<CountedVersion>> = known.iter().map(|_| None).collect();
    for ((name, version), at) in known {
        let count = GuestCount::default();
        if let Some(place) = versions.get_mut(at) {
            *place = Some(CountedVersion {
                version,
                name,
                count,
            });
        }
    }
    let mut versions: Vec<CountedVersion> = versions.into_iter().flatten().collect();
    let mut of_names: Vec<GuestCount> = names.iter().map(|_| GuestCount::default()).collect();
    let mut guest = 0;
    view.guests(None, |_, state| {
        if is_of_os(os, &state) {
            guest += 1;
            for id in PackedIds::new(state.ids) {
                let version = packages.get(id).and_then(|at| versions.get_mut(*at));
                let Some(version) = version else {
                    continue;
                };
                version.count.add(guest);
                if let Some(name) = of_names.get_mut(version.name) {
                    name.add(guest);
                }
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok((lines(names, &of_names, &versions), guest))
}

/// One line a name that a guest has.
fn lines(
    names: HashMap<String, usize>,
    of_names: &[GuestCount],
    versions: &[CountedVersion],
) -> Vec<DriftLine> {
    let mut of_name: Vec<(u64, Option<&CountedVersion>)> = vec![(0, None); of_names.len()];
    for version in versions.iter().filter(|version| version.count.guests > 0) {
        let Some((number, newest)) = of_name.get_mut(version.name) else {
            continue;
        };
        *number += 1;
        if newest.is_none_or(|held| evr::compare_versions(&held.version, &version.version).is_lt())
        {
            *newest = Some(version);
        }
    }
    let lines = names.into_iter().filter_map(|(name, at)| {
        let (versions, newest) = *of_name.get(at)?;
        let (newest, guests) = (newest?, of_names.get(at)?.guests);
        Some(DriftLine {
            name,
            versions,
            guests,
            newest: newest.version.clone(),
            behind: guests.saturating_sub(newest.count.guests),
        })
    });
    lines.collect()
}
