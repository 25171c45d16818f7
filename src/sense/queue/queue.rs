//! The order of delivery: which pending document is sent next. Pure policy.
//!
//! ```text
//!             admit + durable           select                   ack
//! report ───────────────────────► R ─┐
//!                     (place kept) T ─┴─► in flight ─────────────────► gone
//!                                  ▲          │ nack          newer one came? ─► tail
//!                                  └─ backoff ◄┘ ── refused, pulled, refused ─► dead letter
//! ```
//!
//! A guest has at most one slot, which holds its newest report. A slot waits in ring R (reactive),
//! in ring T (routine), or in both; a newer report takes over every place its guest has. Reactive
//! reports go first, four to one while both wait, and each guest has a small budget of them, so
//! that neither a patch wave nor a noisy guest keeps the others from Central. A dead letter is tried once
//! more when its guest is pulled in full at the refresh interval, and at once when it reports other
//! content. Where Central's rate
//! limit is known, routine reports leave a reserve of it for the next reactive ones.
//!
//! The queue is bounded by the fleet: one slot a guest, full or not.

use super::budgets::Budgets;
use super::policy::{QueuePolicy, Rate};
use super::rate_limit::RateLimit;
use super::rings::Rings;
use super::slot::{Arrival, Class, Nack, Slot, State, fresh, taken_over};
use crate::report::{Trigger, VmId};
use crate::sense::queue::table::{DocumentId, QueuePlace};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Send this one; it is in flight from now on.
    Send(VmId, DocumentId),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something happens.
    Idle,
}

/// All slots, in order.
pub struct Queue {
    policy: QueuePolicy,
    slots: HashMap<VmId, Slot>,
    rings: Rings,
    backing_off: BTreeSet<(Instant, VmId)>,
    in_flight: usize,
    credit: u32,
    budgets: Budgets,
    limit: RateLimit,
    /// Slots whose row on disk is no longer what it should be.
    changed: BTreeSet<VmId>,
}

impl Queue {
    /// An empty queue.
    pub fn new(policy: QueuePolicy, now: Instant) -> Self {
        Self {
            budgets: Budgets::new(&policy),
            limit: RateLimit::new(policy.rate, now),
            policy,
            slots: HashMap::new(),
            rings: Rings::default(),
            backing_off: BTreeSet::new(),
            in_flight: 0,
            credit: 0,
            changed: BTreeSet::new(),
        }
    }

    /// Puts back a slot as it was stored. What was in flight is queued again, at its place.
    pub fn restore(&mut self, vm: VmId, mut slot: Slot) {
        self.rings.remember(slot.place);
        match slot.state {
            State::Backoff(until) => drop(self.backing_off.insert((until, vm.clone()))),
            State::Dead => {}
            State::Queued | State::InFlight => self.rings.enter(&vm, slot.place),
        }
        if slot.state == State::InFlight {
            slot.state = State::Queued;
        }
        self.slots.insert(vm, slot);
    }

    /// Prepares the arrival of a report, before it is made durable: draws its place, and takes one
    /// of its guest's priorities if it needs a new place among the reactive ones.
    pub fn admit(
        &mut self,
        vm: &VmId,
        report: DocumentId,
        trigger: Trigger,
        wanted: Class,
        now: Instant,
    ) -> Arrival {
        let class = match wanted {
            Class::Routine => Class::Routine,
            Class::Reactive if self.waits_among_reactive(vm) => Class::Reactive,
            Class::Reactive => self.budgets.spend(vm, now),
        };
        Arrival {
            report,
            class,
            seq: self.rings.draw(),
            trigger,
            is_reactive: wanted == Class::Reactive,
            of_former: false,
        }
    }

    fn waits_among_reactive(&self, vm: &VmId) -> bool {
        self.slots.get(vm).is_some_and(|slot| match slot.state {
            State::Queued => slot.place.reactive.is_some(),
            State::InFlight => slot.newer.is_some_and(|n| n.class == Class::Reactive),
            State::Backoff(_) => slot.place.reactive.is_some(),
            State::Dead => false,
        })
    }

    /// Where the guest's slot will stand after `arrival`; what is written with the report.
    pub fn place_of(&self, vm: &VmId, arrival: &Arrival) -> QueuePlace {
        match self.slots.get(vm) {
            Some(slot) if slot.state == State::Queued || slot.is_deferred() => {
                taken_over(slot.place, arrival)
            }
            Some(slot) if slot.report == arrival.report && slot.state != State::Dead => slot.place,
            _ => fresh(arrival),
        }
    }

    /// The report is durable: it stands in the queue from now on.
    pub fn enqueue(&mut self, vm: &VmId, arrival: Arrival) {
        let place = self.place_of(vm, &arrival);
        let Some(slot) = self.slots.get_mut(vm) else {
            let slot = Slot::new(&arrival, place);
            self.slots.insert(vm.clone(), slot);
            self.rings.enter(vm, place);
            return;
        };
        if slot.report == arrival.report {
            slot.of_former = arrival.of_former;
        }
        match slot.state {
            State::InFlight => {
                // The same document again is no newer one; and the answer to it is still to come.
                let class = match slot.newer {
                    Some(newer) if newer.class == Class::Reactive => Class::Reactive,
                    _ => arrival.class,
                };
                slot.newer =
                    (slot.report != arrival.report).then_some(Arrival { class, ..arrival });
            }
            // Delivery found it on disk before it arrived here: what it is due is its place.
            State::Queued if slot.report == arrival.report => {
                slot.place = place;
                slot.is_reactive |= arrival.is_reactive;
                self.rings.enter(vm, place);
            }
            // The refresh of a report that was refused: it is tried once more.
            State::Dead if slot.report == arrival.report => {
                slot.state = State::Queued;
                slot.place = fresh(&arrival);
                let place = slot.place;
                self.rings.enter(vm, place);
            }
            // The full report that was asked for because this one was refused.
            State::Backoff(until) if slot.report == arrival.report && slot.is_refused() => {
                self.backing_off.remove(&(until, vm.clone()));
                slot.state = State::Queued;
                slot.place = fresh(&arrival);
                let place = slot.place;
                self.rings.enter(vm, place);
            }
            _ if slot.report == arrival.report => {}
            State::Queued => {
                slot.take_on(&arrival, place);
                self.rings.enter(vm, place);
            }
            // A deferral is not about the older report, but about the guest, or this sensor.
            State::Backoff(until) if slot.is_deferred() => {
                slot.take_on(&arrival, place);
                slot.state = State::Backoff(until);
            }
            State::Backoff(until) => {
                slot.take_on(&arrival, place);
                self.backing_off.remove(&(until, vm.clone()));
                self.rings.enter(vm, place);
            }
            State::Dead => {
                slot.take_on(&arrival, place);
                self.rings.enter(vm, place);
            }
        }
    }

    /// Decides what to send now.
    pub fn select(&mut self, now: Instant) -> Selection {
        self.end_backoffs(now);
        if self.in_flight >= self.policy.in_flight {
            return Selection::Idle;
        }
        let (reactive, routine) = self.waiting();
        let class = match (reactive, routine) {
            (0, 0) => return self.wake_at_backoff(None),
            (0, _) => Class::Routine,
            (_, 0) => Class::Reactive,
            _ if self.credit < self.policy.weight => Class::Reactive,
            _ => Class::Routine,
        };
        if let Err(at) = self.limit.take(reactive == 0, now) {
            return self.wake_at_backoff(at);
        }
        if reactive > 0 && routine > 0 {
            self.credit = match class {
                Class::Reactive => self.credit + 1,
                Class::Routine => 0,
            };
        }
        let head = self.rings.head(class).cloned();
        let Some((vm, slot)) = head.and_then(|vm| Some((vm.clone(), self.slots.get_mut(&vm)?)))
        else {
            return Selection::Idle;
        };
        slot.state = State::InFlight;
        let (place, report) = (slot.place, slot.report);
        self.rings.leave(place);
        self.in_flight += 1;
        if place.reactive.is_some() {
            self.budgets.cap_after_send(&vm, now);
        }
        Selection::Send(vm, report)
    }

    fn wake_at_backoff(&self, at: Option<Instant>) -> Selection {
        let backoff = self.backing_off.first().map(|(until, _)| *until);
        match (at, backoff) {
            (Some(a), Some(b)) => Selection::At(a.min(b)),
            (Some(at), None) | (None, Some(at)) => Selection::At(at),
            (None, None) => Selection::Idle,
        }
    }

    fn end_backoffs(&mut self, now: Instant) {
        while self
            .backing_off
            .first()
            .is_some_and(|(until, _)| *until <= now)
        {
            let Some((_, vm)) = self.backing_off.pop_first() else {
                return;
            };
            let Some(slot) = self.slots.get(&vm) else {
                continue;
            };
            let place = if slot.is_deferred() {
                self.rings.tail_of_each(slot.place)
            } else if slot.is_reactive && !slot.demoted {
                let class = self.budgets.spend(&vm, now);
                self.rings.tail(class)
            } else {
                self.rings.tail(Class::Routine)
            };
            self.requeue(&vm, place);
        }
    }

    /// Queues a slot anew, at a place behind all others.
    fn requeue(&mut self, vm: &VmId, place: QueuePlace) {
        if let Some(slot) = self.slots.get_mut(vm) {
            slot.state = State::Queued;
            slot.place = place;
            self.rings.enter(vm, place);
            self.changed.insert(vm.clone());
        }
    }

    /// Central has this report. Returns whether it was the one in flight.
    pub fn ack(&mut self, vm: &VmId, report: DocumentId) -> bool {
        let Some(slot) = self.take_in_flight(vm, report) else {
            return false;
        };
        match slot.newer.take() {
            Some(newer) => self.renew(vm, &newer),
            None => drop(self.slots.remove(vm)),
        }
        true
    }

    /// Central does not have this report. Returns whether it was the one in flight. `jitter` is uniform
    /// in 0..1.
    pub fn nack(
        &mut self,
        vm: &VmId,
        report: DocumentId,
        nack: Nack,
        now: Instant,
        jitter: f64,
    ) -> bool {
        let backoff = self.policy.backoff;
        let Some(slot) = self.take_in_flight(vm, report) else {
            return false;
        };
        if let Some(newer) = slot.newer.take() {
            self.renew(vm, &newer);
            return true;
        }
        slot.attempts += 1;
        slot.place = QueuePlace::default();
        // What fails without a refusal of its content may succeed another time.
        let is_refused_again = nack == Nack::Refused && slot.demoted;
        slot.demoted |= nack == Nack::Refused;
        if is_refused_again {
            slot.state = State::Dead;
        } else {
            // What was refused waits for the full report; that of a guest that cannot be pulled does not come.
            let until = match nack {
                Nack::Refused => now + backoff.ceiling,
                Nack::Failed => now + backoff.full_jitter(slot.attempts, jitter),
            };
            slot.state = State::Backoff(until);
            self.backing_off.insert((until, vm.clone()));
        }
        self.changed.insert(vm.clone());
        true
    }

    /// This report was not sent, or Central was too busy for it: it returns to its place and nothing
    /// is counted. Returns whether it was the one in flight.
    pub fn requeue_same_place(&mut self, vm: &VmId, report: DocumentId) -> bool {
        let Some(slot) = self.take_in_flight(vm, report) else {
            return false;
        };
        slot.state = State::Queued;
        let is_another = slot.goes_on_with_newer();
        let place = slot.place;
        self.rings.enter(vm, place);
        if is_another {
            self.changed.insert(vm.clone());
        }
        true
    }

    /// Central deferred this report: it is not sent before `until`, then from the tail of each ring it
    /// was in. Nothing is counted. Returns whether it was the one in flight.
    pub fn defer_until(&mut self, vm: &VmId, report: DocumentId, until: Instant) -> bool {
        let Some(slot) = self.take_in_flight(vm, report) else {
            return false;
        };
        slot.goes_on_with_newer();
        slot.state = State::Backoff(until);
        self.backing_off.insert((until, vm.clone()));
        self.changed.insert(vm.clone());
        true
    }

    /// Central takes no reports of this guest: it waits, longer each time, and goes to the tail of each
    /// ring it was in. A newer one takes that over. `jitter` is uniform in 0..1. Says whether it was the one
    /// in flight.
    pub fn forbid(&mut self, vm: &VmId, report: DocumentId, now: Instant, jitter: f64) -> bool {
        let backoff = self.policy.forbidden;
        let Some(slot) = self.take_in_flight(vm, report) else {
            return false;
        };
        slot.goes_on_with_newer();
        slot.attempts += 1;
        let until = now + backoff.half_jitter(slot.attempts, jitter);
        slot.state = State::Backoff(until);
        self.backing_off.insert((until, vm.clone()));
        self.changed.insert(vm.clone());
        true
    }

    /// Something is wrong with Central, or with this report alone: the next probe must be another's.
    /// It goes to the tail of each ring it was in, and nothing is counted. Says whether it was the one in
    /// flight.
    pub fn requeue_last(&mut self, vm: &VmId, report: DocumentId) -> bool {
        let Some(slot) = self.take_in_flight(vm, report) else {
            return false;
        };
        match slot.newer.take() {
            Some(newer) => self.renew(vm, &newer),
            None => {
                let place = slot.place;
                let place = self.rings.tail_of_each(place);
                self.requeue(vm, place);
            }
        }
        true
    }

    /// The disk holds `found` in place of the report that was to be sent: a write that seemed to fail did
    /// not, or its arrival is still to come. It takes the place of the other.
    pub fn replace_in_flight(
        &mut self,
        vm: &VmId,
        report: DocumentId,
        found: DocumentId,
        trigger: Trigger,
    ) -> bool {
        let Some(slot) = self.slots.get_mut(vm) else {
            return false;
        };
        let is_in_flight = slot.state == State::InFlight && slot.report == report;
        if is_in_flight && slot.newer.is_none() {
            (slot.report, slot.trigger) = (found, trigger);
            (slot.attempts, slot.demoted) = (0, false);
            self.changed.insert(vm.clone());
            return self.requeue_same_place(vm, found);
        }
        self.requeue_same_place(vm, report)
    }

    /// Central's rate limit is another one from now on.
    pub fn set_rate(&mut self, rate: Option<Rate>, now: Instant) {
        if self.policy.rate != rate {
            self.policy.rate = rate;
            self.limit = RateLimit::new(rate, now);
        }
    }

    /// Central rejected a report over its rate limit: the mirror of its bucket is emptied, too.
    pub fn rate_limited(&mut self, now: Instant) {
        self.limit.drain(now);
    }

    /// The slot, if exactly this report is in flight from it; it is not any more.
    fn take_in_flight(&mut self, vm: &VmId, report: DocumentId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(vm)?;
        if slot.state != State::InFlight || slot.report != report {
            return None;
        }
        self.in_flight -= 1;
        Some(slot)
    }

    /// The newer report that came during the flight goes to the tail.
    fn renew(&mut self, vm: &VmId, newer: &Arrival) {
        if let Some(slot) = self.slots.get_mut(vm) {
            slot.take_on(newer, QueuePlace::default());
        }
        let place = self.rings.tail(newer.class);
        self.requeue(vm, place);
    }

    /// Forgets a slot whose report is not there: damaged, or lost with the file it was in.
    pub fn discard(&mut self, vm: &VmId) {
        let Some(slot) = self.slots.remove(vm) else {
            return;
        };
        match slot.state {
            State::Queued => self.rings.leave(slot.place),
            State::Backoff(until) => drop(self.backing_off.remove(&(until, vm.clone()))),
            State::InFlight => self.in_flight -= 1,
            State::Dead => {}
        }
        self.changed.remove(vm);
    }

    /// Another machine has the guest's name: what is here is about the former one.
    pub fn disown(&mut self, vm: &VmId) {
        if let Some(slot) = self.slots.get_mut(vm) {
            slot.of_former = true;
            if let Some(newer) = &mut slot.newer {
                newer.of_former = true;
            }
        }
    }

    /// A dead letter is tried again, at somebody's request. Says whether there was one.
    pub fn revive(&mut self, vm: &VmId) -> bool {
        let dead = |slot: &&mut Slot| slot.state == State::Dead;
        let Some(slot) = self.slots.get_mut(vm).filter(dead) else {
            return false;
        };
        (slot.attempts, slot.demoted) = (0, false);
        let place = self.rings.tail(Class::Routine);
        self.requeue(vm, place);
        true
    }

    /// Slots whose rows must be written again; each is given once.
    pub fn take_changed(&mut self) -> BTreeSet<VmId> {
        std::mem::take(&mut self.changed)
    }

    /// A guest's slot.
    pub fn slot(&self, vm: &VmId) -> Option<&Slot> {
        self.slots.get(vm)
    }

    /// All slots, in no order.
    pub fn slots(&self) -> impl Iterator<Item = (&VmId, &Slot)> {
        self.slots.iter()
    }

    /// Reactive and routine reports that wait; one that waits in both rings counts in both.
    pub fn waiting(&self) -> (usize, usize) {
        (self.rings.reactive.len(), self.rings.routine.len())
    }

    /// Deliveries under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How long the last routine report waits at most, if nothing more comes and Central keeps
    /// its word; `None` when no rate is configured.
    pub fn worst_case_wait(&self) -> Option<Duration> {
        let waiting = u32::try_from(self.rings.routine.len()).unwrap_or(u32::MAX);
        let dispatches = f64::from(waiting) * f64::from(self.policy.weight + 1);
        self.limit.time_for(dispatches)
    }

    /// Forgets the budget of a guest that left.
    pub fn forget_budget(&mut self, vm: &VmId) {
        self.budgets.forget(vm);
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
