//! The two rings of the queue: who waits where, in the order in which they came.

use super::slot::{Class, place_in};
use crate::report::VmId;
use crate::sense::queue::table::QueuePlace;
use std::collections::BTreeMap;

/// Ring R (reactive) and ring T (routine); lower places go first.
#[derive(Debug, Default)]
pub(super) struct Rings {
    pub(super) reactive: BTreeMap<u64, VmId>,
    pub(super) routine: BTreeMap<u64, VmId>,
    next_seq: u64,
}

impl Rings {
    /// A place that nobody had before, behind all others.
    pub(super) fn draw(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// A place at the tail of the ring of this class.
    pub(super) fn tail(&mut self, class: Class) -> QueuePlace {
        place_in(class, self.draw())
    }

    /// Places at the tail of each ring in which `place` is one.
    pub(super) fn tail_of_each(&mut self, place: QueuePlace) -> QueuePlace {
        QueuePlace {
            reactive: place.reactive.map(|_| self.draw()),
            routine: place.routine.map(|_| self.draw()),
        }
    }

    /// Places up to this one were given before.
    pub(super) fn remember(&mut self, place: QueuePlace) {
        for seq in [place.reactive, place.routine].into_iter().flatten() {
            self.next_seq = self.next_seq.max(seq + 1);
        }
    }

    pub(super) fn enter(&mut self, vm: &VmId, place: QueuePlace) {
        if let Some(seq) = place.reactive {
            self.reactive.insert(seq, vm.clone());
        }
        if let Some(seq) = place.routine {
            self.routine.insert(seq, vm.clone());
        }
    }

    pub(super) fn leave(&mut self, place: QueuePlace) {
        place.reactive.map(|seq| self.reactive.remove(&seq));
        place.routine.map(|seq| self.routine.remove(&seq));
    }

    /// Who goes first in the ring of this class.
    pub(super) fn head(&self, class: Class) -> Option<&VmId> {
        let ring = match class {
            Class::Reactive => &self.reactive,
            Class::Routine => &self.routine,
        };
        ring.first_key_value().map(|(_, vm)| vm)
    }
}
