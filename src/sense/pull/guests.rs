//! The guests that are pulled: where each is, what is known of it, and when it is asked next.

use super::agent::AgentInfo;
use super::failure::Failure;
use super::schedule::{Ask, Schedule, Timing};
use crate::clock::WallTime;
use crate::report::{GuestId, VmId};
use crate::sense::queue::table::GuestRow;
use crate::sense::roster::RosterEntry;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::task::{AbortHandle, Id};
use uuid::Uuid;

/// All guests of the roster, as pulling keeps them and `status` shows them.
pub struct GuestTable {
    /// Who is asked next.
    pub schedule: Schedule,
    /// In boxes: a table of ten thousand has six thousand places to spare.
    pub(super) guests: HashMap<VmId, Box<Guest>>,
}

/// A guest of the roster.
pub struct Guest {
    /// Where it is.
    pub entry: Arc<RosterEntry>,
    /// What is known of it; shared with the exchange that most guests are always in.
    pub row: Arc<GuestRow>,
    /// Whether it answered since the start.
    pub has_answered: bool,
    /// What its agent said of itself since the start.
    pub agent: Option<Box<AgentInfo>>,
    /// What went wrong last time.
    pub failure: Option<Failure>,
    /// Which machine was here before, if another is now.
    pub before: Option<MachineBefore>,
    /// The exchange with it, while there is one.
    pub(super) exchange: Option<AbortHandle>,
    /// What it is being asked for.
    pub asked: Option<Ask>,
}

/// A machine in whose place there is another: one with another machine-id answers, or the domain of this
/// name is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineBefore {
    /// The machine that answered last.
    pub guest_id: Option<GuestId>,
    /// UUID of its domain, if another domain has the name now.
    pub domain: Option<Uuid>,
    /// When that was seen.
    pub until: WallTime,
}

impl Guest {
    /// A guest that was not asked yet.
    pub(super) fn new(entry: Arc<RosterEntry>, row: Arc<GuestRow>) -> Self {
        Self {
            entry,
            row,
            has_answered: false,
            agent: None,
            failure: None,
            before: None,
            exchange: None,
            asked: None,
        }
    }

    /// Whether this exchange is the one with the guest, and not one that was given up.
    pub(super) fn is_in(&self, exchange: Id) -> bool {
        self.exchange.as_ref().is_some_and(|it| it.id() == exchange)
    }

    /// The exchange has ended.
    pub(super) fn ended(&mut self) {
        (self.exchange, self.asked) = (None, None);
    }
}

impl GuestTable {
    /// No guests yet; guests get `timing` when they come.
    pub fn new(timing: Timing) -> Self {
        Self {
            schedule: Schedule::new(timing),
            guests: HashMap::new(),
        }
    }

    /// With these guests, which were not asked yet.
    #[cfg(test)]
    pub(in crate::sense) fn of(timing: Timing, entries: Vec<RosterEntry>) -> Self {
        let guests = entries.into_iter().map(|entry| {
            let guest = Guest::new(Arc::new(entry), Arc::default());
            (guest.entry.vm.clone(), Box::new(guest))
        });
        Self {
            schedule: Schedule::new(timing),
            guests: guests.collect(),
        }
    }

    /// A guest.
    pub fn guest(&self, vm: &VmId) -> Option<&Guest> {
        self.guests.get(vm).map(Box::as_ref)
    }

    /// All guests, in no order.
    pub fn guests(&self) -> impl Iterator<Item = (&VmId, &Guest)> {
        self.guests.iter().map(|(vm, guest)| (vm, guest.as_ref()))
    }

    /// Forgets a guest and gives up the exchange with it.
    pub(super) fn remove(&mut self, vm: &VmId) -> Option<Box<Guest>> {
        self.schedule.remove(vm);
        let guest = self.guests.remove(vm)?;
        if let Some(exchange) = &guest.exchange {
            exchange.abort();
        }
        Some(guest)
    }
}
