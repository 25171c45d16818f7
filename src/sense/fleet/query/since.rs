//! What changed in a guest from a report that a sink accepted to a later one, as the change log has it.
//!
//! ```text
//! newest row ─previous─► row of the later report ─► ... ─► row of the accepted one
//!                        └── steps, which lead from the one to the other ──┘
//! ```
//!
//! - A report is found by its key and digest, which never stand for two contents. A guest that goes back to a
//!   snapshot has the same report more than once: of these the newest counts that was seen before the sink
//!   accepted it.
//! - There are no steps where a row between is missing or of another epoch, at the first report of another
//!   machine, and beyond [`MOST_STEPS`].

use super::view::FleetView;
use crate::clock::WallTime;
use crate::report::diff::ChangeSet;
use crate::report::net_change::{NetChange, classify};
use crate::report::{Digest, PackageView, ReportKey, ReportView, Trigger, VmId};
use crate::sense::fleet::package::StoredPackage;
use crate::sense::fleet::row::ChangeRow;
use crate::store::{Store, StoreError, TxError};
use std::collections::HashMap;
use std::sync::Arc;

/// Most steps between two reports.
pub const MOST_STEPS: usize = 256;

/// Most rows behind the later report, which came while it was on its way.
const MOST_NEWER: usize = 256;

/// The change log, for those who deliver.
#[derive(Clone)]
pub struct ChangeLog(Arc<Store>);

/// A report, by what never stands for two contents.
pub type ReportName = (ReportKey, Digest);

/// One change of a guest.
#[derive(Debug)]
pub struct ChangeStep {
    /// When the later report was seen.
    pub at: WallTime,
    /// The earlier report.
    pub from: ReportName,
    /// The later one.
    pub to: ReportName,
    /// Why its scan ran.
    pub trigger: Trigger,
    packages: ChangeSet<u32>,
}

/// Changes of a guest that follow one another, the oldest first, with their packages.
#[derive(Debug, Default)]
pub struct ChangePath {
    steps: Vec<ChangeStep>,
    packages: HashMap<u32, Vec<u8>>,
}

impl ChangeLog {
    /// That of this file.
    pub fn new(store: Arc<Store>) -> Self {
        Self(store)
    }

    /// What leads from the report that a sink accepted at a time to the other one; `None`: the log does not reach
    /// back that far. Reads the guest's rows and the packages in them alone. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn path(
        &self,
        vm: &VmId,
        (from, accepted_at): (ReportName, WallTime),
        to: ReportName,
    ) -> Result<Option<ChangePath>, StoreError> {
        read(&self.0, vm, (from, accepted_at), to)
    }

    /// Whether the log has something of the guest that was seen after this time. Blocks.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn has_row_after(&self, vm: &VmId, time: WallTime) -> Result<bool, StoreError> {
        self.0.read(|tx| {
            let view = FleetView::open(tx)?;
            let newest = view.guest(vm.as_str(), |state| Ok(state.newest_change))?;
            let Some(newest) = newest.flatten() else {
                return Ok(false);
            };
            let at = view.change(newest, |row| row.at)?;
            Ok(at.is_some_and(|at| at > time))
        })
    }
}

fn read(
    store: &Store,
    vm: &VmId,
    from: (ReportName, WallTime),
    to: ReportName,
) -> Result<Option<ChangePath>, StoreError> {
    store.read(|tx| {
        let view = FleetView::open(tx)?;
        match steps(&view, vm, from, to)? {
            Some(steps) => ChangePath::read(&view, steps),
            None => Ok(None),
        }
    })
}

/// The steps, without their packages.
fn steps(
    view: &FleetView,
    vm: &VmId,
    (from, accepted_at): (ReportName, WallTime),
    to: ReportName,
) -> Result<Option<Vec<ChangeStep>>, TxError> {
    let newest = view.guest(vm.as_str(), |state| Ok(state.newest_change))?;
    let (mut next, mut newer, mut is_reached) = (newest.flatten(), 0, false);
    let (mut steps, mut reaches) = (Vec::new(), None);
    while let Some(number) = next {
        let read = view.change(number, |row| (Row::of(&row), row.previous))?;
        let Some((row, previous)) = read else {
            // Removed by now: the row behind it says from which report it leads on.
            let oldest = steps.last();
            if oldest.is_some_and(|step: &ChangeStep| step.from == from) {
                reaches = Some(steps.len());
            }
            break;
        };
        next = previous;
        is_reached |= row.name == Some(to);
        if !is_reached {
            newer += 1;
            if newer > MOST_NEWER {
                break;
            }
            continue;
        }
        if row.name == Some(from) {
            reaches = Some(steps.len());
            if row.at <= accepted_at {
                break;
            }
        }
        match row.step {
            Some(step) if steps.len() < MOST_STEPS => steps.push(step),
            _ => {
                // What was found so far was seen after the sink accepted it: it may have taken something else before,
                // whose acceptance was lost. The guest's first row is another matter: there was nothing before it.
                if previous.is_some() {
                    reaches = None;
                }
                break;
            }
        }
    }
    Ok(reaches.map(|reaches| {
        steps.truncate(reaches);
        steps.reverse();
        steps
    }))
}

/// A row of the change log.
struct Row {
    at: WallTime,
    /// The later report, where the row names it.
    name: Option<ReportName>,
    /// What leads to it; `None`: nothing does.
    step: Option<ChangeStep>,
}

impl Row {
    fn of(row: &ChangeRow<'_>) -> Self {
        let name = row.digest.map(|digest| (row.key, digest));
        let from = row.from.filter(|from| from.epoch == row.key.epoch);
        let from = from.zip(row.from_digest);
        let step = name.zip(from).zip(row.event.clone().set());
        Self {
            at: row.at,
            name,
            step: step.map(|((to, from), packages)| ChangeStep {
                at: row.at,
                from,
                to,
                trigger: row.trigger,
                packages,
            }),
        }
    }
}

impl ChangePath {
    /// `None`: a package cannot be read.
    fn read(view: &FleetView, steps: Vec<ChangeStep>) -> Result<Option<Self>, TxError> {
        let sets = steps.iter().map(|step| &step.packages);
        let ids = sets.flat_map(|set| set.gone().chain(set.came()));
        let mut ids: Vec<u32> = ids.copied().collect();
        ids.sort_unstable();
        ids.dedup();
        let packages: HashMap<u32, Vec<u8>> = view.package_rows(&ids)?.into_iter().collect();
        let mut rows = packages.values();
        let is_whole =
            packages.len() == ids.len() && rows.all(|row| StoredPackage::read(row).is_ok());
        Ok(is_whole.then_some(Self { steps, packages }))
    }

    /// The changes, the oldest first.
    pub fn steps(&self) -> &[ChangeStep] {
        &self.steps
    }

    /// What changed in one step.
    pub fn changes(&self, step: &ChangeStep) -> ChangeSet<PackageView<'_>> {
        step.packages.clone().map(|id| self.package(id))
    }

    /// What changed in all steps together; `now` is the later report.
    pub fn net(&self, now: &ReportView<'_>) -> ChangeSet<PackageView<'_>> {
        let mut net = NetChange::default();
        for step in &self.steps {
            net.add(&step.packages);
        }
        let (gone, came) = net.gone_and_came();
        let views = |ids: Vec<u32>| ids.into_iter().map(|id| self.package(id)).collect();
        classify(views(gone), views(came), &now.packages)
    }

    /// A package of the path. All were there, and could be read, when it was read.
    fn package(&self, id: u32) -> PackageView<'_> {
        let row = self.packages.get(&id);
        let package = row.and_then(|row| StoredPackage::read(row).ok());
        package.unwrap_or_default().view()
    }
}

#[cfg(test)]
mod tests;
