//! Budgets of priority: how often each guest's reports may overtake others.

use super::policy::QueuePolicy;
use super::slot::Class;
use crate::clock::token_bucket::TokenBucket;
use crate::report::VmId;
use std::collections::HashMap;
use std::time::Instant;

/// The budgets of all guests. In any time t the reports of a guest overtake others at most as often as
/// its bucket holds tokens, and once more for each token that the bucket gains in t.
pub(super) struct Budgets {
    saved: f64,
    per_second: f64,
    of: HashMap<VmId, TokenBucket>,
}

impl Budgets {
    /// Full buckets.
    pub(super) fn new(policy: &QueuePolicy) -> Self {
        Self {
            saved: f64::from(policy.priorities),
            per_second: 1.0 / policy.priority_every.as_secs_f64(),
            of: HashMap::new(),
        }
    }

    /// Takes a token, if there is one: over its guest's budget a report is routine.
    pub(super) fn spend(&mut self, vm: &VmId, now: Instant) -> Class {
        match self.bucket(vm, now).take(now) {
            true => Class::Reactive,
            false => Class::Routine,
        }
    }

    /// After a send, the bucket holds at most one token less than its burst: tokens gained while the
    /// report waited must not let one more follow at once.
    pub(super) fn cap_after_send(&mut self, vm: &VmId, now: Instant) {
        let others = self.saved - 1.0;
        self.bucket(vm, now).leave(others, now);
    }

    /// The guest left.
    pub(super) fn forget(&mut self, vm: &VmId) {
        self.of.remove(vm);
    }

    fn bucket(&mut self, vm: &VmId, now: Instant) -> &mut TokenBucket {
        let full = || TokenBucket::full(self.saved, self.per_second, now);
        self.of.entry(vm.clone()).or_insert_with(full)
    }
}
