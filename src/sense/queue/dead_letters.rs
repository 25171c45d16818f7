//! Dead letters: reports that were refused for good, until their guest's next report or an operator's act.

use super::pending::Pending;
use super::sink_queue::SinkQueue;
use super::slot::{Slot, State};
use super::table::{DocumentId, PendingChange};
use crate::clock::WallTime;
use crate::report::VmId;
use std::collections::BTreeSet;

/// Where the newest document of a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// On disk here: it is sent to a sink when its turn comes.
    Pending,
    /// A sink refused it for good, and every other has it.
    DeadLetter,
    /// Every sink has it.
    Delivered,
}

impl Pending {
    /// Where the newest document of a guest is of which one was stored.
    pub fn whereabouts(&self, vm: &VmId) -> Whereabouts {
        let mut found = Whereabouts::Delivered;
        for sink in &self.sinks {
            match sink.state().queue.slot(vm).map(|slot| slot.state) {
                None => {}
                Some(State::Dead) => found = Whereabouts::DeadLetter,
                Some(State::Queued | State::Backoff(_) | State::InFlight) => {
                    return Whereabouts::Pending;
                }
            }
        }
        found
    }

    /// Whether no sink takes this very content of the guest: one refused it for good, and every other did, too, or
    /// has it.
    pub fn is_dead_letter(&self, vm: &VmId, report: DocumentId) -> bool {
        let mut is_refused = false;
        for sink in &self.sinks {
            let state = sink.state();
            match state.queue.slot(vm) {
                Some(slot) if slot.state == State::Dead && slot.has_content_of(report) => {
                    is_refused = true;
                }
                Some(_) => return false,
                None => {
                    let accepted = state.accepted(vm);
                    if accepted.is_none_or(|(accepted, _)| accepted != report) {
                        return false;
                    }
                }
            }
        }
        is_refused
    }

    /// Sends dead letters again, all or one guest's; gives their number.
    pub fn revive(&self, vm: Option<&VmId>) -> usize {
        self.sinks.iter().map(|sink| sink.revive(vm)).sum()
    }

    /// Ends the dead letters of a guest: they are gone from the disk, too. Gives their number.
    /// `is_departed`: one that was refused and waits to be pulled again is a dead letter, too.
    pub fn drop_dead(&self, vm: &VmId, is_departed: bool) -> usize {
        let sinks = self.sinks.iter();
        sinks.filter(|sink| sink.drop_dead(vm, is_departed)).count()
    }

    /// Guests whose report was refused, and has been waiting since before this time.
    pub fn refused_since_before(&self, time: WallTime) -> BTreeSet<VmId> {
        let sinks = self.sinks.iter();
        sinks
            .flat_map(|sink| sink.refused_since_before(time))
            .collect()
    }
}

impl SinkQueue {
    fn revive(&self, vm: Option<&VmId>) -> usize {
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

    fn drop_dead(&self, vm: &VmId, is_departed: bool) -> bool {
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
            sink: self.name().clone(),
            vm: vm.clone(),
            report,
        });
        self.forget_departed(&mut state, vm);
        true
    }

    fn refused_since_before(&self, time: WallTime) -> Vec<VmId> {
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
