//! Guests whose name another libvirt domain has taken: nothing that is known of the former machine passes for
//! this one, neither what its agent reported nor what Central accepts, also while a document of it is under way.

use super::pending::Pending;
use super::state::PendingState;
use super::table::GuestRow;
use crate::report::VmId;
use std::sync::Arc;
use uuid::Uuid;

/// What is found when a source says which domain a guest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainNote {
    /// It is the one that is known, or may well be.
    SameMachine,
    /// It is another machine than the one that had the name.
    AnotherMachine,
}

impl Pending {
    /// Notes which domain a guest is, in `row` and on disk. If it is another than before, the row begins anew,
    /// and documents of the former machine are still delivered, but count for nothing.
    pub fn note_domain(&self, vm: &VmId, domain: Uuid, row: &mut Arc<GuestRow>) -> DomainNote {
        let mut is_another = false;
        for sink in &self.sinks {
            let before = sink.state().domains.insert(vm.clone(), domain);
            let before = before.or(row.domain);
            is_another |= before.is_some_and(|before| before != domain);
        }
        if row.domain == Some(domain) && !is_another {
            return DomainNote::SameMachine;
        }
        let is_new = **row == GuestRow::default();
        if is_another {
            for sink in &self.sinks {
                sink.state().begin_anew(vm);
            }
            // Keys of an agent that counts no generations go on, so that none comes twice.
            *row = Arc::new(GuestRow {
                tokens: row.tokens,
                ..GuestRow::default()
            });
        }
        Arc::make_mut(row).domain = Some(domain);
        // Of a guest that is new there is nothing to tell apart: its first report brings the domain along.
        if !is_new {
            self.learn(vm, GuestRow::clone(row));
        }
        match is_another {
            true => DomainNote::AnotherMachine,
            false => DomainNote::SameMachine,
        }
    }
}

impl PendingState {
    /// Whether a document that was pulled from this domain is about a machine that is no more.
    pub(super) fn is_of_former(&self, vm: &VmId, domain: Option<Uuid>) -> bool {
        let now = self.domains.get(vm);
        now.is_some_and(|now| domain.is_some_and(|domain| domain != *now))
    }

    /// Another machine has this name.
    fn begin_anew(&mut self, vm: &VmId) {
        self.queue.disown(vm);
        self.forget_accepted(vm);
    }
}

#[cfg(test)]
mod tests;
