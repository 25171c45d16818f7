//! Dead letters: reports that were refused for good, until their guest's next report or an operator's act.

use super::pending::Pending;
use super::slot::{Slot, State};
use super::table::PendingChange;
use crate::clock::WallTime;
use crate::report::VmId;

impl Pending {
    /// Sends dead letters again, all or one guest's; gives their number.
    pub fn revive(&self, vm: Option<&VmId>) -> usize {
        let mut state = self.state();
        let dead: Vec<VmId> = state
            .queue
            .slots()
            .filter(|(id, slot)| slot.state == State::Dead && vm.is_none_or(|vm| vm == *id))
            .map(|(id, _)| id.clone())
            .collect();
        for vm in &dead {
            state.queue.revive(vm);
        }
        self.write_changed(&mut state);
        drop(state);
        self.ready.notify_one();
        dead.len()
    }

    /// Ends the dead letter of a guest: it is gone from the disk, too. Says whether there was one.
    /// `is_departed`: one that was refused and waits to be pulled again is a dead letter, too.
    pub fn drop_dead(&self, vm: &VmId, is_departed: bool) -> bool {
        let mut state = self.state();
        let ends = |slot: &&Slot| match slot.state {
            State::Dead => true,
            State::Backoff(_) => is_departed && slot.demoted,
            State::Queued | State::InFlight => false,
        };
        let dead = state.queue.slot(vm).filter(ends);
        let Some(report) = dead.map(|slot| slot.report) else {
            return false;
        };
        state.queue.discard(vm);
        state.details.remove(vm);
        self.writer.note(PendingChange::Drop {
            vm: vm.clone(),
            report,
        });
        self.forget_departed(&mut state, vm);
        true
    }

    /// Guests whose report was refused, and has been waiting since before this time.
    pub fn refused_since_before(&self, time: WallTime) -> Vec<VmId> {
        let state = self.state();
        let is_old = |vm: &VmId| state.detail(vm).is_some_and(|detail| detail.since < time);
        let is_refused = |slot: &Slot| slot.demoted || slot.state == State::Dead;
        let slots = state.queue.slots();
        let refused = slots.filter(|(_, slot)| is_refused(slot));
        refused
            .map(|(vm, _)| vm)
            .filter(|vm| is_old(vm))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests;
