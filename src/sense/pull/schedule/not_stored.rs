//! Guests whose reports this sensor's disk refused: how often they are asked, and who is asked first when it
//! takes reports again.
//!
//! Their number says how seldom each is asked, so that the disk is tried some ten times a second at most and
//! never less than twice a minute. Each report that it takes brings two of them forward: all are asked soon
//! where there is room again, and few in vain where there was room for one.

use crate::clock::backoff::Backoff;
use crate::report::VmId;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// How many guests are asked in a second, once their backoff is at its ceiling.
const ATTEMPTS_PER_SECOND: u64 = 10;

/// The ceiling of the backoff is at least this.
const SHORTEST_CEILING: Duration = Duration::from_secs(30);

/// Guests that are asked again when a report was stored.
const BROUGHT_FORWARD: usize = 2;

/// The guests, the longest waiting first.
#[derive(Default)]
pub(super) struct NotStored {
    turns: HashMap<VmId, u64>,
    by_turn: BTreeMap<u64, VmId>,
    next_turn: u64,
}

impl NotStored {
    /// The report of a guest was refused: it is the last in turn.
    pub(super) fn insert(&mut self, vm: &VmId) {
        self.remove(vm);
        self.turns.insert(vm.clone(), self.next_turn);
        self.by_turn.insert(self.next_turn, vm.clone());
        self.next_turn += 1;
    }

    /// A guest is none of them any more.
    pub(super) fn remove(&mut self, vm: &VmId) {
        if let Some(turn) = self.turns.remove(vm) {
            self.by_turn.remove(&turn);
        }
    }

    /// Takes the next ones out.
    pub(super) fn take(&mut self) -> Vec<VmId> {
        let next = std::iter::from_fn(|| self.by_turn.pop_first().map(|(_, vm)| vm));
        let taken: Vec<VmId> = next.take(BROUGHT_FORWARD).collect();
        for vm in &taken {
            self.turns.remove(vm);
        }
        taken
    }

    /// The backoff of each, in place of `failing`.
    pub(super) fn backoff(&self, failing: Backoff) -> Backoff {
        let guests = self.turns.len() as u64;
        let ceiling = Duration::from_secs(guests / ATTEMPTS_PER_SECOND);
        let highest = failing.ceiling.max(SHORTEST_CEILING);
        Backoff {
            ceiling: ceiling.clamp(SHORTEST_CEILING, highest),
            ..failing
        }
    }
}
