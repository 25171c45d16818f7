//! The pending documents of one sink: in which order they are sent, and what became of them.
//!
//! ```text
//! next: the document to send now ──► read: its content ──► settled: what became of it
//! ```
//!
//! A slot leaves the disk only when its sink took the document, and the document with the last slot that needs it.
//! Everything runs on one thread; the lock is held for one step of the policy and never across a wait.

use super::policy::{LONGEST_DEFERRAL, QueuePolicy, Rate};
use super::queue::Selection;
use super::settlement::{FullPull, Settlement};
use super::slot::{Arrival, Class, Nack, Slot, State};
use super::state::{Detail, PendingState, Precedent};
use super::table::{
    self, DocumentId, PendingChange, SlotRow, StoredEnvelope, StoredPending, StoredSink,
};
use super::writer::StoreWriter;
use crate::clock::{self, WallClock, WallTime};
use crate::report::{ReportSummary, VmId};
use crate::sense::sink_name::SinkName;
use crate::store::{Store, StoreError};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;
use uuid::Uuid;

/// The pending documents of one sink, and the way to their file.
pub struct SinkQueue {
    name: SinkName,
    state: Mutex<PendingState>,
    pub(super) writer: StoreWriter,
    store: Arc<Store>,
    wall: WallClock,
    /// Notified when something may be sent that could not be before.
    pub ready: Notify,
}

/// What delivery does now.
#[derive(Debug, PartialEq, Eq)]
pub enum NextDelivery {
    /// Send this document; it is in flight from now on.
    Send(Dispatch),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until [`SinkQueue::ready`].
    Idle,
}

/// A document to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch {
    /// The guest.
    pub vm: VmId,
    /// Which document.
    pub report: DocumentId,
    /// It was pulled because its guest changed.
    pub is_reactive: bool,
    /// How it stands to what was accepted before.
    pub precedent: Precedent,
    /// It was pending when the sensor started.
    pub is_restored: bool,
    /// It was sent before, and that failed or was refused.
    pub is_retry: bool,
}

impl Dispatch {
    /// Every word of [`Dispatch::may_repeat`].
    pub const REPEATS: [&'static str; 4] = ["refresh", "went_back", "restart", "retry"];

    /// Why Central may have had its content, or its key, before; `None` where it has not.
    pub fn may_repeat(&self) -> Option<&'static str> {
        match self.precedent {
            Precedent::Same => Some("refresh"),
            // Facts that changed alone come behind the report of their key.
            Precedent::Back if self.report.facts.is_none() => Some("went_back"),
            _ if self.is_restored => Some("restart"),
            _ => self.is_retry.then_some("retry"),
        }
    }
}

impl SinkQueue {
    /// Restores the queue from the store; documents keep their places.
    pub(super) fn new(
        name: SinkName,
        policy: QueuePolicy,
        store: Arc<Store>,
        writer: StoreWriter,
        wall: WallClock,
        stored: &StoredPending,
    ) -> Self {
        let (now, time) = (clock::now(), wall.now());
        let (retries, forbidden) = (policy.backoff.ceiling, policy.forbidden.ceiling);
        let StoredSink { slots, accepted } = stored.sink(&name);
        let mut state = PendingState::new(policy, accepted, now);
        let domains = stored.guests.iter();
        state.domains = domains
            .filter_map(|(vm, row)| Some((vm.clone(), row.domain?)))
            .collect();
        let unknown = stored.guests.iter();
        let unknown: HashSet<&VmId> = unknown
            .filter(|(_, row)| row.known.is_none())
            .map(|(vm, _)| vm)
            .collect();
        for (vm, row) in &slots {
            let stands = if row.dead.is_some() {
                State::Dead
            } else if row.place.is_none() || row.not_before > time {
                // Neither a clock that was set back nor one that was ahead delays a document for longer.
                let longest = match row.place.is_none() {
                    true => retries,
                    false => LONGEST_DEFERRAL.max(forbidden),
                };
                State::Backoff(now + row.not_before.since(time).min(longest))
            } else {
                State::Queued
            };
            state.details.insert(vm.clone(), row.into());
            let mut slot = Slot::stored(row.report, row.trigger, row.place, stands);
            (slot.attempts, slot.demoted) = (row.attempts, row.demoted);
            (slot.of_former, slot.is_restored) = (unknown.contains(vm), true);
            state.queue.restore(vm.clone(), slot);
        }
        Self {
            name,
            state: Mutex::new(state),
            writer,
            store,
            wall,
            ready: Notify::new(),
        }
    }

    /// Its sink.
    pub fn name(&self) -> &SinkName {
        &self.name
    }

    /// The state, to be looked at.
    pub fn state(&self) -> MutexGuard<'_, PendingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the arrival of a document; gives the row to be written with it.
    pub(super) fn admit(
        &self,
        vm: &VmId,
        summary: &ReportSummary,
        class: Class,
    ) -> (Arrival, SlotRow) {
        let report = DocumentId::from(summary);
        let now = clock::now();
        let mut state = self.state();
        let arrival = state.queue.admit(vm, report, summary.trigger, class, now);
        let before = state.details.get(vm);
        let mut detail = Detail {
            generated_at: summary.generated_at,
            since: before.map_or_else(|| self.wall.now(), |detail| detail.since),
            packages: summary.packages,
            last_error: None,
        };
        let place = state.queue.place_of(vm, &arrival);
        let row = match state.queue.slot(vm) {
            // The same again: what was held against it stays.
            Some(slot) if slot.report == report => {
                detail.last_error = before.and_then(|detail| detail.last_error.clone());
                self.row_of(slot, &detail)
            }
            _ => {
                let slot = Slot::stored(report, summary.trigger, place, State::Queued);
                self.row_of(&slot, &detail)
            }
        };
        (arrival, row)
    }

    /// The document is durable, under `row`: it stands in the queue.
    pub(super) fn enqueue(
        &self,
        vm: &VmId,
        mut arrival: Arrival,
        row: &SlotRow,
        domain: Option<Uuid>,
    ) {
        let mut state = self.state();
        arrival.of_former = state.is_of_former(vm, domain);
        state.details.insert(vm.clone(), row.into());
        // While the commit was under way the older document may have been delivered, and its place
        // with it.
        let moved = state.queue.place_of(vm, &arrival) != row.place;
        state.queue.enqueue(vm, arrival);
        if moved {
            self.write_row(&state, vm);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Its documents are gone with the file they were in.
    pub(super) fn lose_all(&self) {
        let mut state = self.state();
        let all: Vec<VmId> = state.queue.slots().map(|(vm, _)| vm.clone()).collect();
        for vm in all {
            state.queue.discard(&vm);
        }
        state.details.clear();
    }

    /// The sink's rate limit is another one from now on.
    pub fn set_rate(&self, rate: Option<Rate>, now: Instant) {
        self.state().queue.set_rate(rate, now);
        self.ready.notify_one();
    }

    /// Decides what to send now.
    pub fn next(&self, now: Instant) -> NextDelivery {
        let mut state = self.state();
        let next = match state.queue.select(now) {
            Selection::Send(vm, report) => {
                let slot = state.queue.slot(&vm);
                NextDelivery::Send(Dispatch {
                    is_reactive: slot.is_some_and(|slot| slot.is_reactive),
                    precedent: state.precedent(&vm, report),
                    is_restored: slot.is_some_and(|slot| slot.is_restored),
                    is_retry: slot.is_some_and(|slot| slot.attempts > 0),
                    vm,
                    report,
                })
            }
            Selection::At(at) => NextDelivery::At(at),
            Selection::Idle => NextDelivery::Idle,
        };
        self.write_changed(&mut state);
        next
    }

    /// Reads the pending document of a guest. Blocks.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn read(&self, vm: &VmId) -> Result<Option<StoredEnvelope>, StoreError> {
        table::read(&self.store, vm)
    }

    /// What became of the document that [`SinkQueue::next`] gave; `said` is kept for people. Says when the guest
    /// must be pulled in full, if it must: its document is gone, or was refused for the first time.
    pub fn settled(
        &self,
        vm: &VmId,
        report: DocumentId,
        settlement: Settlement,
        said: Option<String>,
    ) -> Option<FullPull> {
        let now = clock::now();
        let mut state = self.state();
        if let (Some(said), Some(detail)) = (said, state.details.get_mut(vm)) {
            detail.last_error = Some(said);
        }
        let mut full_pull = None;
        match settlement {
            Settlement::Accepted | Settlement::Skipped => {
                let slot = state.queue.slot(vm);
                let is_former = slot.is_some_and(|slot| slot.of_former);
                if state.queue.ack(vm, report) {
                    let counts =
                        settlement == Settlement::Accepted && report.facts.is_none() && !is_former;
                    let at = counts.then(|| self.wall.now());
                    if let Some(at) = at {
                        state.accept(vm, report, at);
                    }
                    let (sink, vm) = (self.name.clone(), vm.clone());
                    let clear = PendingChange::Clear {
                        sink,
                        vm,
                        report,
                        at,
                    };
                    self.writer.note(clear);
                }
            }
            Settlement::Damaged => {
                state.queue.discard(vm);
                full_pull = Some(FullPull::AtOnce);
            }
            Settlement::Refused => {
                let jitter = fastrand::f64();
                state.queue.nack(vm, report, Nack::Refused, now, jitter);
                let slot = state.queue.slot(vm);
                let is_dead = slot.is_none_or(|slot| slot.state == State::Dead);
                full_pull = (!is_dead).then_some(FullPull::AfterPause);
            }
            Settlement::Failed => {
                let jitter = fastrand::f64();
                state.queue.nack(vm, report, Nack::Failed, now, jitter);
            }
            Settlement::RateLimited(pause) => {
                state.queue.rate_limited(now);
                state.queue.defer_until(vm, report, now + pause);
            }
            Settlement::Deferred(pause) => {
                state.queue.defer_until(vm, report, now + pause);
            }
            Settlement::Forbidden => {
                state.queue.forbid(vm, report, now, fastrand::f64());
            }
            Settlement::Last => {
                state.queue.requeue_last(vm, report);
            }
            Settlement::SamePlace => {
                state.queue.requeue_same_place(vm, report);
            }
            Settlement::Replaced(found) => {
                let held = DocumentId::from(&*found);
                let queue = &mut state.queue;
                if queue.replace_in_flight(vm, report, held, found.trigger)
                    && let Some(detail) = state.details.get_mut(vm)
                {
                    (detail.generated_at, detail.packages) = (found.generated_at, found.packages);
                }
            }
        }
        if state.queue.slot(vm).is_none() {
            state.details.remove(vm);
            self.forget_departed(&mut state, vm);
        }
        self.write_changed(&mut state);
        full_pull
    }

    /// Nothing is left to be delivered of a guest: if it left the roster, nothing is kept of it either.
    pub(super) fn forget_departed(&self, state: &mut PendingState, vm: &VmId) {
        if state.present.as_ref().is_some_and(|all| !all.contains(vm)) {
            state.forget(vm);
            self.writer.note(PendingChange::Forget { vm: vm.clone() });
        }
    }

    pub(super) fn write_changed(&self, state: &mut PendingState) {
        for vm in state.queue.take_changed() {
            self.write_row(state, &vm);
        }
    }

    fn write_row(&self, state: &PendingState, vm: &VmId) {
        if let (Some(slot), Some(detail)) = (state.queue.slot(vm), state.details.get(vm)) {
            self.writer.note(PendingChange::Move {
                sink: self.name.clone(),
                vm: vm.clone(),
                slot: self.row_of(slot, detail),
            });
        }
    }

    fn row_of(&self, slot: &Slot, detail: &Detail) -> SlotRow {
        let not_before = match slot.state {
            State::Backoff(until) => {
                let wait = until.saturating_duration_since(clock::now());
                self.wall.now().after(wait)
            }
            State::Queued | State::InFlight | State::Dead => WallTime::default(),
        };
        let last_error = detail.last_error.clone();
        SlotRow {
            report: slot.report,
            trigger: slot.trigger,
            generated_at: detail.generated_at,
            since: detail.since,
            packages: detail.packages,
            place: slot.place,
            attempts: slot.attempts,
            not_before,
            demoted: slot.demoted,
            dead: (slot.state == State::Dead)
                .then(|| last_error.clone().unwrap_or_else(|| "refused".into())),
            last_error,
        }
    }
}
