//! Answers about one guest or two: its packages now or at an earlier time, its history, its difference to
//! another one; and guests with all their packages, for programs.

use super::changes::{self, ChangeLine, Raw};
use super::guests::GuestLine;
use super::view::FleetView;
use super::{FleetAnswer, States, os_of};
use crate::clock::WallTime;
use crate::report::diff;
use crate::sense::fleet::ids;
use crate::sense::fleet::package::StoredPackage;
use crate::sense::fleet::row::ChangeEvent;
use crate::store::TxError;
use crate::wire::change_document::PackageChanges;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Rows of its history that are shown of a guest, the newest.
const MOST_HISTORY: usize = 100;

/// Guests in one page of an export: with all their packages, about 8 MB.
const MOST_EXPORTED: usize = 50;

/// An installed package with everything that is known about it.
#[derive(Serialize)]
pub(super) struct PackageLine {
    name: String,
    version: String,
    arch: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    module: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    repo: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    vendor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    license: String,
}

impl PackageLine {
    fn new(package: &StoredPackage<'_>) -> Self {
        let source = package.source;
        Self {
            name: package.name.to_owned(),
            version: package.version.to_owned(),
            arch: package.arch.to_owned(),
            source: source.map_or_else(String::new, |s| format!("{}-{}", s.name, s.version)),
            module: package.module.to_owned(),
            repo: package.repo.to_owned(),
            vendor: package.vendor.to_owned(),
            license: package.license.to_owned(),
        }
    }
}

/// A guest with its packages and history.
#[derive(Serialize)]
pub struct ShowAnswer {
    #[serde(flatten)]
    guest: GuestLine,
    facts: BTreeMap<String, String>,
    /// The time that was asked for.
    at: Option<String>,
    /// The packages of the guest, at that time.
    installed: Vec<PackageLine>,
    /// Rows of the change log, the newest first.
    history: Vec<ChangeLine>,
    /// Whether there are more of them.
    more_history: bool,
}

pub(super) fn show(
    view: &FleetView,
    vm: &str,
    at: Option<WallTime>,
    states: States<'_>,
) -> Result<FleetAnswer, TxError> {
    let known = view.guest(vm, |state| {
        let facts = state.facts.iter();
        let facts = facts.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Ok((
            GuestLine::new(vm, &state, states),
            facts.collect::<BTreeMap<_, _>>(),
            ids::unpack(state.ids).unwrap_or_default(),
            state.newest_change,
        ))
    })?;
    let Some((guest, facts, mut list, newest)) = known else {
        return Ok(FleetAnswer::unknown(vm));
    };
    if let Some(at) = at {
        list = match replay(view, list, newest, at)? {
            Ok(list) => list,
            Err(error) => return Ok(FleetAnswer::usage(&format!("{vm}: {error}"))),
        };
    }
    let (history, more_history) = history(view, newest)?;
    Ok(FleetAnswer::Show(Box::new(ShowAnswer {
        guest,
        facts,
        at: at.map(|at| at.to_string()),
        installed: lines(view, &list)?,
        history: changes::resolve(view, history)?,
        more_history,
    })))
}

/// The packages as they were at a time: the changes after it are taken back, the newest first.
fn replay(
    view: &FleetView,
    mut list: Vec<u32>,
    newest: Option<u64>,
    at: WallTime,
) -> Result<Result<Vec<u32>, String>, TxError> {
    let mut next = newest;
    let mut reaches = None;
    while let Some(number) = next {
        let row = view.change(number, |row| (row.at, row.previous, row.event))?;
        let Some((then, previous, event)) = row else {
            let from = reaches.map_or_else(|| "now".to_owned(), |from: WallTime| from.to_string());
            return Ok(Err(format!("the change log reaches back to {from} only")));
        };
        if then <= at {
            return Ok(Ok(list));
        }
        let Some(set) = event.set() else {
            return Ok(Err(format!("its first report is of {then}")));
        };
        for id in set.came() {
            if let Some(at) = list.iter().position(|held| held == id) {
                list.swap_remove(at);
            }
        }
        list.extend(set.gone());
        (reaches, next) = (Some(then), previous);
    }
    let from = reaches.map_or_else(|| "now".to_owned(), |from| from.to_string());
    Ok(Err(format!("the change log reaches back to {from} only")))
}

fn history(view: &FleetView, newest: Option<u64>) -> Result<(Vec<Raw>, bool), TxError> {
    let (mut rows, mut next) = (Vec::new(), newest);
    while let Some(number) = next {
        if rows.len() == MOST_HISTORY {
            return Ok((rows, true));
        }
        let row = view.change(number, |row| {
            let is_same = row.event == ChangeEvent::default();
            (row.previous, (!is_same).then(|| Raw::new(number, row)))
        })?;
        let Some((previous, row)) = row else {
            break;
        };
        rows.extend(row);
        next = previous;
    }
    Ok((rows, false))
}

/// The packages of a list, by name.
fn lines(view: &FleetView, list: &[u32]) -> Result<Vec<PackageLine>, TxError> {
    let rows = view.package_rows(list)?;
    let mut packages: Vec<StoredPackage<'_>> = rows
        .iter()
        .filter_map(|(_, bytes)| StoredPackage::read(bytes).ok())
        .collect();
    packages.sort_by_key(|package| (package.name, package.arch, package.version));
    Ok(packages.iter().map(PackageLine::new).collect())
}

/// The difference of two guests: what leads from the first to the second.
#[derive(Serialize)]
pub struct DiffAnswer {
    from: String,
    to: String,
    #[serde(flatten)]
    packages: PackageChanges,
}

pub(super) fn diff(view: &FleetView, from: &str, to: &str) -> Result<FleetAnswer, TxError> {
    let list = |vm: &str| view.guest(vm, |state| Ok(ids::unpack(state.ids).unwrap_or_default()));
    let Some(old) = list(from)? else {
        return Ok(FleetAnswer::unknown(from));
    };
    let Some(new) = list(to)? else {
        return Ok(FleetAnswer::unknown(to));
    };
    let (old, new) = (view.package_rows(&old)?, view.package_rows(&new)?);
    fn views(rows: &[(u32, Vec<u8>)]) -> Vec<crate::report::PackageView<'_>> {
        let packages = rows
            .iter()
            .filter_map(|(_, bytes)| StoredPackage::read(bytes).ok());
        packages.map(|package| package.view()).collect()
    }
    let (old, new) = (views(&old), views(&new));
    let set = diff::diff(&old, &new).map(Clone::clone);
    Ok(FleetAnswer::Diff(DiffAnswer {
        from: from.to_owned(),
        to: to.to_owned(),
        packages: (&set).into(),
    }))
}

/// A guest with all its packages.
#[derive(Serialize)]
pub(super) struct ExportedGuest {
    vm: String,
    os: String,
    report: String,
    seen_at: String,
    facts: BTreeMap<String, String>,
    packages: Vec<PackageLine>,
}

/// A page of an export.
#[derive(Serialize)]
pub struct ExportAnswer {
    guests: Vec<ExportedGuest>,
    /// Behind this guest the next page begins; `None`: it was the last one.
    next: Option<String>,
}

pub(super) fn export(
    view: &FleetView,
    vm: Option<&str>,
    after: Option<&str>,
) -> Result<FleetAnswer, TxError> {
    let (mut found, mut next) = (Vec::new(), None);
    let mut take = |vm: &str, state: &crate::sense::fleet::row::GuestState<'_>| {
        let facts = state.facts.iter();
        let guest = ExportedGuest {
            vm: vm.to_owned(),
            os: os_of(state),
            report: state.key.to_string(),
            seen_at: state.seen_at.to_string(),
            facts: facts
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            packages: Vec::new(),
        };
        found.push((guest, ids::unpack(state.ids).unwrap_or_default()));
        found.len()
    };
    match vm {
        Some(vm) => {
            if view.guest(vm, |state| Ok(take(vm, &state)))?.is_none() {
                return Ok(FleetAnswer::unknown(vm));
            }
        }
        None => view.guests(after, |vm, state| match take(vm, &state) {
            MOST_EXPORTED => {
                next = Some(vm.to_owned());
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?,
    }
    let mut guests = Vec::with_capacity(found.len());
    for (guest, list) in found {
        let packages = lines(view, &list)?;
        guests.push(ExportedGuest { packages, ..guest });
    }
    Ok(FleetAnswer::Export(ExportAnswer { guests, next }))
}
