//! The state of the pending documents of one sink: their queue, and beside it what the order does not depend on.

use super::policy::QueuePolicy;
use super::queue::Queue;
use super::table::{DocumentId, SlotRow};
use crate::clock::WallTime;
use crate::report::{ReportKey, VmId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;
use uuid::Uuid;

/// The queue, and beside it what the order does not depend on.
pub struct PendingState {
    pub(super) queue: Queue,
    pub(super) details: HashMap<VmId, Detail>,
    /// What was accepted last of each guest, and when.
    accepted: HashMap<VmId, (DocumentId, WallTime)>,
    /// The highest key that was accepted, of guests that went back to a lower one.
    highest: HashMap<VmId, ReportKey>,
    /// Which libvirt domain guests are, of those of which a source says so.
    pub(super) domains: HashMap<VmId, Uuid>,
    /// Guests in the roster; `None` until all of it was read.
    pub(super) present: Option<Arc<HashSet<VmId>>>,
}

/// How a report relates to what was accepted of its guest before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedent {
    /// None of them had its key.
    New,
    /// It is the one that was accepted last: a refresh.
    Same,
    /// One may have had its key, and another one was accepted since: the guest went back.
    Back,
}

fn goes_back(highest: ReportKey, key: ReportKey) -> bool {
    key.epoch == highest.epoch && key.generation <= highest.generation
}

/// What people want to know of a pending document.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// When the agent made it.
    pub generated_at: WallTime,
    /// Since when the guest has something undelivered.
    pub since: WallTime,
    /// Packages in it.
    pub packages: u32,
    /// What the last attempt said.
    pub last_error: Option<String>,
}

impl From<&SlotRow> for Detail {
    fn from(row: &SlotRow) -> Self {
        Self {
            generated_at: row.generated_at,
            since: row.since,
            packages: row.packages,
            last_error: row.dead.clone().or_else(|| row.last_error.clone()),
        }
    }
}

impl PendingState {
    /// Nothing pending.
    pub(super) fn new(
        policy: QueuePolicy,
        accepted: HashMap<VmId, (DocumentId, WallTime)>,
        now: Instant,
    ) -> Self {
        Self {
            queue: Queue::new(policy, now),
            details: HashMap::new(),
            accepted,
            highest: HashMap::new(),
            domains: HashMap::new(),
            present: None,
        }
    }

    /// Order and state of the documents.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What people want to know of a guest's pending document.
    pub fn detail(&self, vm: &VmId) -> Option<&Detail> {
        self.details.get(vm)
    }

    /// What was accepted last of a guest, and when.
    pub fn accepted(&self, vm: &VmId) -> Option<(DocumentId, WallTime)> {
        self.accepted.get(vm).copied()
    }

    /// How a report relates to what was accepted of the guest before.
    pub(super) fn precedent(&self, vm: &VmId, report: DocumentId) -> Precedent {
        match self.accepted(vm) {
            Some((accepted, _)) if accepted == report => Precedent::Same,
            Some((accepted, _)) => {
                let highest = self.highest.get(vm).copied().unwrap_or(accepted.key);
                match goes_back(highest, report.key) {
                    true => Precedent::Back,
                    false => Precedent::New,
                }
            }
            None => Precedent::New,
        }
    }

    pub(super) fn accept(&mut self, vm: &VmId, report: DocumentId, at: WallTime) {
        let before = self.accepted.insert(vm.clone(), (report, at));
        if let Some((before, _)) = before {
            let highest = self.highest.get(vm).copied().unwrap_or(before.key);
            match goes_back(highest, report.key) {
                true => self.highest.insert(vm.clone(), highest),
                false => self.highest.remove(vm),
            };
        }
    }

    /// A guest left the roster.
    pub(super) fn forget(&mut self, vm: &VmId) {
        self.forget_accepted(vm);
        // Under the same name another domain may come while a document of this one is under way.
        if self.queue.slot(vm).is_none() {
            self.domains.remove(vm);
        }
    }

    /// What Central has of a guest says nothing any more.
    pub(super) fn forget_accepted(&mut self, vm: &VmId) {
        self.queue.forget_budget(vm);
        self.accepted.remove(vm);
        self.highest.remove(vm);
    }
}
