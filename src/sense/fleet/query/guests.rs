//! Answers about many guests: the list, `find`, `versions`.

use super::find::{self, PackageFilter};
use super::view::FleetView;
use super::{AnswerPage, FleetAnswer, States, is_of_os, os_of};
use crate::report::evr;
use crate::sense::fleet::ids::PackedIds;
use crate::sense::fleet::row::GuestState;
use crate::store::TxError;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Guests in one answer.
const MOST_GUESTS: usize = 50_000;

/// A guest on one line.
#[derive(Serialize)]
pub struct GuestLine {
    vm: String,
    os: String,
    os_name: String,
    packages: u32,
    agent: String,
    report: String,
    changed_at: String,
    seen_at: String,
    /// As `afferent status` has it; `None` when no service runs.
    state: Option<&'static str>,
    kernel_running: Option<String>,
    kernel_installed: Option<String>,
    reboot_needed: Option<String>,
    provenance: Option<String>,
}

impl GuestLine {
    pub(super) fn new(vm: &str, state: &GuestState<'_>, states: States<'_>) -> Self {
        let fact = |name| state.fact(name).map(str::to_owned);
        Self {
            vm: vm.to_owned(),
            os: os_of(state),
            os_name: state.os_name.to_owned(),
            packages: state.packages,
            agent: state.agent_version.to_owned(),
            report: state.key.to_string(),
            changed_at: state.changed_at.to_string(),
            seen_at: state.seen_at.to_string(),
            state: states(vm),
            kernel_running: fact("kernel_running"),
            kernel_installed: fact("kernel_installed"),
            reboot_needed: fact("reboot_needed"),
            provenance: fact("provenance"),
        }
    }
}

/// How much of the roster an answer is about.
#[derive(Default, Serialize)]
pub(super) struct RosterShare {
    /// Guests of the roster whose report was looked at.
    #[serde(skip)]
    stored: usize,
    /// Those of which none is stored yet; 0 when no service runs.
    not_stored: usize,
}

impl RosterShare {
    pub(super) fn of(&mut self, guests: usize) {
        self.not_stored = guests.saturating_sub(self.stored);
    }
}

/// Guests of one page, in the order of their ids.
struct PageOf<'a, T> {
    page: &'a AnswerPage,
    rows: Vec<T>,
    next: Option<String>,
    /// The guest of the last row.
    last: String,
}

impl<'a, T> PageOf<'a, T> {
    fn new(page: &'a AnswerPage) -> Self {
        Self {
            page,
            rows: Vec::new(),
            next: None,
            last: String::new(),
        }
    }

    /// Takes a guest along if it is of this page. Guests behind the page are looked at as well: they count.
    fn add(&mut self, vm: &str, row: impl FnOnce() -> T) {
        if self.page.after.as_deref().is_some_and(|after| vm <= after) || self.next.is_some() {
            return;
        }
        if self.rows.len() == self.page.limit.unwrap_or(MOST_GUESTS).min(MOST_GUESTS) {
            self.next = Some(std::mem::take(&mut self.last));
            return;
        }
        self.rows.push(row());
        vm.clone_into(&mut self.last);
    }

    /// Whether an answer without a limit is full.
    fn is_full(&self) -> ControlFlow<()> {
        match self.next.is_some() && self.page.limit.is_none() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// The guests.
#[derive(Serialize)]
pub struct GuestsAnswer {
    guests: Vec<GuestLine>,
    #[serde(flatten)]
    pub(super) roster: RosterShare,
    /// Behind this guest the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(super) fn list(
    view: &FleetView,
    os: Option<&str>,
    states: States<'_>,
    page: &AnswerPage,
) -> Result<FleetAnswer, TxError> {
    let (mut guests, mut roster) = (PageOf::new(page), RosterShare::default());
    view.guests(None, |vm, state| {
        roster.stored += usize::from(states(vm).is_some());
        if is_of_os(os, &state) {
            guests.add(vm, || GuestLine::new(vm, &state, states));
        }
        guests.is_full()
    })?;
    Ok(FleetAnswer::Guests(GuestsAnswer {
        guests: guests.rows,
        roster,
        next: guests.next,
    }))
}

/// What `find` looks for.
pub(super) struct Wanted<'a> {
    pub(super) package: PackageFilter,
    pub(super) arch: Option<&'a str>,
    pub(super) os: Option<&'a str>,
    pub(super) not: bool,
    pub(super) running: bool,
}

/// A package that a guest has.
#[derive(Clone, Serialize)]
pub(super) struct FoundPackage {
    name: String,
    version: String,
    arch: String,
}

/// A guest that was found.
#[derive(Serialize)]
pub(super) struct FoundGuest {
    vm: String,
    os: String,
    /// Those that match; with `--not`, those of the name.
    packages: Vec<FoundPackage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel_running: Option<String>,
}

/// The guests that were found.
#[derive(Serialize)]
pub struct FindAnswer {
    guests: Vec<FoundGuest>,
    /// Guests that were looked at.
    looked_at: usize,
    #[serde(flatten)]
    pub(super) roster: RosterShare,
    /// Guests whose agent does not say which kernel runs, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<usize>,
    /// Behind this guest the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Packages of one name, by id.
#[derive(Default)]
struct Named {
    packages: BTreeMap<u32, (FoundPackage, bool)>,
    /// One bit an id, from `first` on: guests have hundreds of ids, of which hardly one is here.
    bits: Vec<u64>,
    first: u32,
}

impl Named {
    fn new(packages: BTreeMap<u32, (FoundPackage, bool)>) -> Self {
        let first = packages.first_key_value().map_or(0, |(id, _)| *id);
        let last = packages.last_key_value().map_or(0, |(id, _)| *id);
        let mut bits = vec![0; (last - first) as usize / 64 + 1];
        for id in packages.keys() {
            bits[(id - first) as usize / 64] |= 1 << ((id - first) % 64);
        }
        Self {
            packages,
            bits,
            first,
        }
    }

    /// Those that are in a guest's list.
    fn of<'n>(&'n self, ids: &[u8]) -> impl Iterator<Item = &'n (FoundPackage, bool)> {
        let is_here = move |id: &u32| {
            let bit = id.checked_sub(self.first);
            bit.is_some_and(|bit| {
                let word = self.bits.get(bit as usize / 64);
                word.is_some_and(|word| word & (1 << (bit % 64)) != 0)
            })
        };
        let ids = PackedIds::new(ids).filter(move |id| is_here(id));
        ids.filter_map(|id| self.packages.get(&id))
    }
}

/// The packages of a name, with whether each matches.
fn named(
    view: &FleetView,
    name: &str,
    arch: Option<&str>,
    matches: impl Fn(&str) -> bool,
) -> Result<Named, TxError> {
    let mut packages = BTreeMap::new();
    view.packages(|id, package| {
        if package.name == name && arch.is_none_or(|arch| arch == package.arch) {
            let found = FoundPackage {
                name: package.name.to_owned(),
                version: package.version.to_owned(),
                arch: package.arch.to_owned(),
            };
            packages.insert(id, (found, matches(package.version)));
        }
    })?;
    Ok(Named::new(packages))
}

pub(super) fn find(
    view: &FleetView,
    wanted: &Wanted<'_>,
    states: States<'_>,
    page: &AnswerPage,
) -> Result<FleetAnswer, TxError> {
    let package = &wanted.package;
    let matches = |version: &str| package.matches_version(version);
    let named = named(view, &package.name, wanted.arch, matches)?;
    let (mut guests, mut looked_at, mut unknown) = (PageOf::new(page), 0, 0);
    let mut roster = RosterShare::default();
    view.guests(None, |vm, state| {
        roster.stored += usize::from(states(vm).is_some());
        if !is_of_os(wanted.os, &state) {
            return ControlFlow::Continue(());
        }
        looked_at += 1;
        let mut is_found = named.of(state.ids).any(|(_, matches)| *matches);
        let kernel = state.fact("kernel_running").filter(|_| wanted.running);
        if wanted.running && is_found {
            unknown += usize::from(kernel.is_none());
            is_found = kernel.is_some_and(|kernel| !runs_newest(kernel, named.of(state.ids)));
        }
        if is_found != wanted.not {
            let shown = named
                .of(state.ids)
                .filter(|(_, matches)| *matches || wanted.not);
            guests.add(vm, || FoundGuest {
                vm: vm.to_owned(),
                os: os_of(&state),
                packages: shown.map(|(package, _)| package.clone()).collect(),
                kernel_running: kernel.map(str::to_owned),
            });
        }
        guests.is_full()
    })?;
    Ok(FleetAnswer::Find(FindAnswer {
        guests: guests.rows,
        looked_at,
        roster,
        unknown: wanted.running.then_some(unknown),
        next: guests.next,
    }))
}

/// Whether this kernel is the newest of those installed.
fn runs_newest<'a>(
    kernel: &str,
    installed: impl Iterator<Item = &'a (FoundPackage, bool)>,
) -> bool {
    let versions = installed.map(|(package, _)| package.version.as_str());
    let newest = versions.max_by(|a, b| evr::compare_versions(a, b));
    newest.is_some_and(|newest| find::runs(kernel, newest))
}

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

pub(super) fn versions(view: &FleetView, name: &str) -> Result<FleetAnswer, TxError> {
    let named = named(view, name, None, |_| true)?;
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    view.guests(None, |_, state| {
        let packages = named.of(state.ids).map(|(package, _)| package);
        let mut seen: Vec<(&str, &str)> = packages
            .map(|package| (package.version.as_str(), package.arch.as_str()))
            .collect();
        // The same from two repositories is one version.
        seen.sort_unstable();
        seen.dedup();
        for key in seen {
            *counts.entry(key).or_default() += 1;
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
