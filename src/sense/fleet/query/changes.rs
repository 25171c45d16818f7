//! Answers from the change log.

use super::FleetAnswer;
use super::view::FleetView;
use crate::clock::WallTime;
use crate::report::PackageView;
use crate::report::diff::{ChangeSet, Replacement};
use crate::sense::fleet::package::StoredPackage;
use crate::sense::fleet::row::{ChangeEvent, ChangeRow};
use crate::sense::recent::Acceptance;
use crate::store::TxError;
use crate::wire::change_document::PackageChanges;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

/// Changes in one answer.
const MOST_CHANGES: usize = 1000;

/// Which changes are asked for; `None` is all.
pub(super) struct ChangeFilter<'a> {
    pub(super) since: Option<WallTime>,
    pub(super) vm: Option<&'a str>,
    pub(super) package: Option<&'a str>,
    pub(super) after: Option<u64>,
}

/// A row of the change log.
#[derive(Serialize)]
pub struct ChangeLine {
    /// Behind this number the next page begins.
    pub(in crate::sense) number: u64,
    at: String,
    vm: String,
    report: String,
    /// The report before; absent in a baseline.
    from: Option<String>,
    trigger: &'static str,
    /// Sinks that accepted the report lately.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accepted: Vec<Acceptance>,
    /// Packages of a first report.
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<u32>,
    #[serde(flatten)]
    packages: PackageChanges,
}

impl ChangeLine {
    /// Takes what sinks accepted of this change out of `accepted`, which is by guest and report.
    pub(in crate::sense) fn note_accepted(
        &mut self,
        accepted: &mut HashMap<(String, String), Vec<Acceptance>>,
    ) {
        let key = (self.vm.clone(), self.report.clone());
        self.accepted = accepted.remove(&key).unwrap_or_default();
    }
}

/// Rows of the change log, oldest first.
#[derive(Serialize)]
pub struct ChangesAnswer {
    pub(in crate::sense) changes: Vec<ChangeLine>,
    /// Behind this number there is more, or will be.
    pub(in crate::sense) next: Option<u64>,
    /// Whether there is more now.
    pub(in crate::sense) more: bool,
}

/// A row whose packages are not looked up yet.
pub(super) struct Raw {
    number: u64,
    at: WallTime,
    vm: String,
    report: String,
    from: Option<String>,
    trigger: &'static str,
    event: ChangeEvent,
}

impl Raw {
    pub(super) fn new(number: u64, row: ChangeRow<'_>) -> Self {
        Self {
            number,
            at: row.at,
            vm: row.vm.to_owned(),
            report: row.key.to_string(),
            from: row.from.map(|from| from.to_string()),
            trigger: row.trigger.as_str(),
            event: row.event,
        }
    }
}

pub(super) fn list(
    view: &FleetView,
    wanted: &ChangeFilter<'_>,
    limit: Option<usize>,
) -> Result<FleetAnswer, TxError> {
    let most = limit.unwrap_or(MOST_CHANGES).min(MOST_CHANGES);
    let after = match (wanted.after, wanted.since) {
        (None, Some(since)) => view.first_change_since(since)?,
        (after, _) => after,
    };
    let named: Option<HashSet<u32>> = match wanted.package {
        None => None,
        Some(name) => {
            let mut ids = HashSet::new();
            view.packages_of(name, |id, _| {
                ids.insert(id);
            })?;
            Some(ids)
        }
    };
    let (mut rows, mut next, mut more) = (Vec::new(), after, false);
    view.changes(after, |number, row| {
        if rows.len() == most {
            more = true;
            return ControlFlow::Break(());
        }
        next = Some(number);
        let is_wanted = is_change(&row.event)
            && wanted.since.is_none_or(|since| row.at >= since)
            && wanted.vm.is_none_or(|vm| row.vm == vm)
            && named.as_ref().is_none_or(|ids| touches(&row.event, ids));
        if is_wanted {
            rows.push(Raw::new(number, row));
        }
        ControlFlow::Continue(())
    })?;
    Ok(FleetAnswer::Changes(ChangesAnswer {
        changes: resolve(view, rows)?,
        next,
        more,
    }))
}

/// The newest change, and the number of the newest row.
pub(super) fn newest(view: &FleetView) -> Result<(Option<ChangeLine>, Option<u64>), TxError> {
    let (mut newest, mut last) = (Vec::new(), None);
    view.changes_backwards(|number, row| {
        last = last.or(Some(number));
        if !is_change(&row.event) {
            return ControlFlow::Continue(());
        }
        newest.push(Raw::new(number, row));
        ControlFlow::Break(())
    })?;
    Ok((resolve(view, newest)?.pop(), last))
}

/// A baseline is none, nor a report with the same packages as the one before.
fn is_change(event: &ChangeEvent) -> bool {
    matches!(event, ChangeEvent::Changes { .. }) && *event != ChangeEvent::default()
}

fn touches(event: &ChangeEvent, ids: &HashSet<u32>) -> bool {
    let set = event.clone().set();
    set.is_some_and(|set| set.gone().chain(set.came()).any(|id| ids.contains(id)))
}

/// Looks up the packages of all rows, each once.
pub(super) fn resolve(view: &FleetView, rows: Vec<Raw>) -> Result<Vec<ChangeLine>, TxError> {
    let mut ids: Vec<u32> = Vec::new();
    for row in &rows {
        if let Some(set) = row.event.clone().set() {
            ids.extend(set.gone().chain(set.came()));
        }
    }
    ids.sort_unstable();
    ids.dedup();
    let packages: HashMap<u32, Vec<u8>> = view.package_rows(&ids)?.into_iter().collect();
    let package = |id: u32| {
        let bytes = packages.get(&id)?;
        StoredPackage::read(bytes).ok()
    };
    Ok(rows.into_iter().map(|row| line(row, &package)).collect())
}

fn line<'p>(row: Raw, package: &impl Fn(u32) -> Option<StoredPackage<'p>>) -> ChangeLine {
    let baseline = match row.event {
        ChangeEvent::Baseline(packages) => Some(packages),
        ChangeEvent::Changes { .. } => None,
    };
    let set = row.event.set().unwrap_or_default();
    let set = views(set, package);
    ChangeLine {
        number: row.number,
        at: row.at.to_string(),
        vm: row.vm,
        report: row.report,
        from: row.from,
        trigger: row.trigger,
        accepted: Vec::new(),
        baseline,
        packages: (&set).into(),
    }
}

/// The packages of a change set, as far as they can be read.
fn views<'p>(
    set: ChangeSet<u32>,
    package: &impl Fn(u32) -> Option<StoredPackage<'p>>,
) -> ChangeSet<PackageView<'p>> {
    let one = |ids: Vec<u32>| {
        let packages = ids.into_iter().filter_map(package);
        packages.map(|package| package.view()).collect()
    };
    let pair = |pairs: Vec<Replacement<u32>>| {
        let pairs = pairs.into_iter().filter_map(|pair| {
            Some(Replacement {
                from: package(pair.from)?.view(),
                to: package(pair.to)?.view(),
            })
        });
        pairs.collect()
    };
    ChangeSet {
        added: one(set.added),
        removed: one(set.removed),
        upgraded: pair(set.upgraded),
        downgraded: pair(set.downgraded),
        changed: pair(set.changed),
    }
}
