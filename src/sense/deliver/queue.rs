//! What goes to Central next: the policy of the pending queue, without any IO.
//!
//! ```text
//!             admit + durable           select                   ack
//! report ───────────────────────► R ─┐
//!                     (place kept) T ─┴─► in flight ─────────────────► gone
//!                                  ▲          │ nack          newer one came? ─► tail
//!                                  └─ backoff ◄┘ ── 8 times, or for good ─► dead letter
//! ```
//!
//! A guest has at most one slot, which holds its newest report. A slot waits in ring R (reactive),
//! in ring T (routine), or in both; a newer report takes over every place its guest has. Reactive
//! reports go first, four to one while both wait, and each guest has a small budget of them, so
//! that neither a patch wave nor a noisy guest keeps the others from Central. Where Central's rate
//! limit is known, routine reports leave a reserve of it for the next reactive ones.
//!
//! The queue is bounded by the fleet: one slot a guest, full or not.

use super::policy::Policy;
use super::slot::{Arrival, Class, Nack, Slot, State, fresh, place_in, taken_over};
use crate::report::{Trigger, VmId};
use crate::sense::bucket::Bucket;
use crate::store::pending_table::{Known, Place};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this one; it is in flight from now on.
    Send(VmId, Known),
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something happens.
    Idle,
}

/// All slots, in order.
pub struct Queue {
    policy: Policy,
    slots: HashMap<VmId, Slot>,
    reactive: BTreeMap<u64, VmId>,
    routine: BTreeMap<u64, VmId>,
    backing_off: BTreeSet<(Instant, VmId)>,
    in_flight: usize,
    credit: u32,
    next_seq: u64,
    budgets: HashMap<VmId, Bucket>,
    central: Option<Bucket>,
    /// Slots whose row on disk is no longer what it should be.
    changed: BTreeSet<VmId>,
}

impl Queue {
    /// An empty queue.
    pub fn new(policy: Policy, now: Instant) -> Self {
        let central = policy
            .rate
            .map(|rate| Bucket::full(rate.burst, rate.per_second, now));
        Self {
            policy,
            slots: HashMap::new(),
            reactive: BTreeMap::new(),
            routine: BTreeMap::new(),
            backing_off: BTreeSet::new(),
            in_flight: 0,
            credit: 0,
            next_seq: 0,
            budgets: HashMap::new(),
            central,
            changed: BTreeSet::new(),
        }
    }

    /// Puts back a slot as it was stored. What was in flight is queued again, at its place.
    pub fn restore(&mut self, vm: VmId, mut slot: Slot) {
        for seq in [slot.place.reactive, slot.place.routine]
            .into_iter()
            .flatten()
        {
            self.next_seq = self.next_seq.max(seq + 1);
        }
        match slot.state {
            State::Backoff(until) => drop(self.backing_off.insert((until, vm.clone()))),
            State::Dead => {}
            State::Queued | State::InFlight => self.enter_rings(&vm, slot.place),
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
        report: Known,
        trigger: Trigger,
        wanted: Class,
        now: Instant,
    ) -> Arrival {
        let class = match wanted {
            Class::Routine => Class::Routine,
            Class::Reactive if self.waits_among_reactive(vm) => Class::Reactive,
            Class::Reactive => self.spend(vm, now),
        };
        Arrival {
            report,
            class,
            seq: self.draw(),
            trigger,
        }
    }

    fn waits_among_reactive(&self, vm: &VmId) -> bool {
        self.slots.get(vm).is_some_and(|slot| match slot.state {
            State::Queued => slot.place.reactive.is_some(),
            State::InFlight => slot.newer.is_some_and(|n| n.class == Class::Reactive),
            State::Backoff(_) | State::Dead => false,
        })
    }

    fn spend(&mut self, vm: &VmId, now: Instant) -> Class {
        let policy = &self.policy;
        let budget = self.budgets.entry(vm.clone()).or_insert_with(|| {
            let per_second = 1.0 / policy.priority_every.as_secs_f64();
            Bucket::full(f64::from(policy.priorities), per_second, now)
        });
        if budget.take(now) {
            Class::Reactive
        } else {
            Class::Routine
        }
    }

    fn draw(&mut self) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        seq
    }

    /// Where the guest's slot will stand after `arrival`; what is written with the report.
    pub fn place_of(&self, vm: &VmId, arrival: &Arrival) -> Place {
        match self.slots.get(vm) {
            Some(slot) if slot.report == arrival.report => slot.place,
            Some(slot) if slot.state == State::Queued => taken_over(slot.place, arrival),
            _ => fresh(arrival),
        }
    }

    /// The report is durable: it stands in the queue from now on.
    pub fn enqueue(&mut self, vm: &VmId, arrival: Arrival) {
        let place = self.place_of(vm, &arrival);
        let Some(slot) = self.slots.get_mut(vm) else {
            let slot = Slot {
                report: arrival.report,
                trigger: arrival.trigger,
                state: State::Queued,
                place,
                attempts: 0,
                demoted: false,
                newer: None,
            };
            self.slots.insert(vm.clone(), slot);
            self.enter_rings(vm, place);
            return;
        };
        match slot.state {
            State::InFlight => {
                // The same again is no news; and the answer to it is still to come.
                let class = match slot.newer {
                    Some(newer) if newer.class == Class::Reactive => Class::Reactive,
                    _ => arrival.class,
                };
                slot.newer =
                    (slot.report != arrival.report).then_some(Arrival { class, ..arrival });
            }
            _ if slot.report == arrival.report => {}
            State::Queued => {
                slot.take_on(&arrival, place);
                self.enter_rings(vm, place);
            }
            State::Backoff(until) => {
                slot.take_on(&arrival, place);
                self.backing_off.remove(&(until, vm.clone()));
                self.enter_rings(vm, place);
            }
            State::Dead => {
                slot.take_on(&arrival, place);
                self.enter_rings(vm, place);
            }
        }
    }

    fn enter_rings(&mut self, vm: &VmId, place: Place) {
        if let Some(seq) = place.reactive {
            self.reactive.insert(seq, vm.clone());
        }
        if let Some(seq) = place.routine {
            self.routine.insert(seq, vm.clone());
        }
    }

    fn leave_rings(&mut self, place: Place) {
        place.reactive.map(|seq| self.reactive.remove(&seq));
        place.routine.map(|seq| self.routine.remove(&seq));
    }

    /// Decides what to send now.
    pub fn select(&mut self, now: Instant) -> Next {
        self.end_backoffs(now);
        if self.in_flight >= self.policy.in_flight {
            return Next::Idle;
        }
        let from_reactive = match (self.reactive.is_empty(), self.routine.is_empty()) {
            (true, true) => return self.wake_at_backoff(None),
            (false, false) => self.credit < self.policy.weight,
            (reactive_empty, _) => !reactive_empty,
        };
        let alone = self.reactive.is_empty();
        if let (Some(central), Some(rate)) = (&mut self.central, self.policy.rate) {
            let needed = if alone { rate.reserve + 1.0 } else { 1.0 };
            match central.when(needed.min(rate.burst), now) {
                Some(at) if at <= now => drop(central.take(now)),
                at => return self.wake_at_backoff(at),
            }
        }
        let both = !self.reactive.is_empty() && !self.routine.is_empty();
        if both {
            self.credit = if from_reactive { self.credit + 1 } else { 0 };
        }
        let ring = if from_reactive {
            &self.reactive
        } else {
            &self.routine
        };
        let vm = ring.first_key_value().map(|(_, vm)| vm.clone());
        let Some((vm, slot)) = vm.and_then(|vm| Some((vm.clone(), self.slots.get_mut(&vm)?)))
        else {
            return Next::Idle;
        };
        slot.state = State::InFlight;
        let (place, report) = (slot.place, slot.report);
        self.leave_rings(place);
        self.in_flight += 1;
        Next::Send(vm, report)
    }

    fn wake_at_backoff(&self, at: Option<Instant>) -> Next {
        let backoff = self.backing_off.first().map(|(until, _)| *until);
        match (at, backoff) {
            (Some(a), Some(b)) => Next::At(a.min(b)),
            (Some(at), None) | (None, Some(at)) => Next::At(at),
            (None, None) => Next::Idle,
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
            let urgent = self
                .slots
                .get(&vm)
                .is_some_and(|slot| slot.trigger == Trigger::Reactive && !slot.demoted);
            let class = if urgent {
                self.spend(&vm, now)
            } else {
                Class::Routine
            };
            self.requeue(&vm, class);
        }
    }

    /// Queues a slot anew, behind all others of its class.
    fn requeue(&mut self, vm: &VmId, class: Class) {
        let place = place_in(class, self.draw());
        if let Some(slot) = self.slots.get_mut(vm) {
            slot.state = State::Queued;
            slot.place = place;
            self.enter_rings(vm, place);
            self.changed.insert(vm.clone());
        }
    }

    /// Central has this report. Says whether it was the one in flight.
    pub fn ack(&mut self, vm: &VmId, report: Known) -> bool {
        let Some(slot) = self.land(vm, report) else {
            return false;
        };
        match slot.newer.take() {
            Some(newer) => self.renew(vm, &newer),
            None => drop(self.slots.remove(vm)),
        }
        true
    }

    /// Central does not have this report. Says whether it was the one in flight. `dice` is uniform
    /// in 0..1.
    pub fn nack(&mut self, vm: &VmId, report: Known, nack: Nack, now: Instant, dice: f64) -> bool {
        let (limit, backoff) = (self.policy.attempts, self.policy.backoff);
        let Some(slot) = self.land(vm, report) else {
            return false;
        };
        if let Some(newer) = slot.newer.take() {
            self.renew(vm, &newer);
            return true;
        }
        slot.attempts += 1;
        slot.demoted |= nack != Nack::Failed;
        slot.place = Place::default();
        if nack == Nack::ForGood || slot.attempts >= limit {
            slot.state = State::Dead;
        } else {
            let until = now + backoff.full_jitter(slot.attempts, dice);
            slot.state = State::Backoff(until);
            self.backing_off.insert((until, vm.clone()));
        }
        self.changed.insert(vm.clone());
        true
    }

    /// This report was not sent, or Central was too busy for it: it goes back to its place and
    /// nothing is counted. Says whether it was the one in flight.
    pub fn put_back(&mut self, vm: &VmId, report: Known) -> bool {
        let Some(slot) = self.land(vm, report) else {
            return false;
        };
        slot.state = State::Queued;
        if let Some(newer) = slot.newer.take() {
            let place = taken_over(slot.place, &newer);
            slot.take_on(&newer, place);
            self.changed.insert(vm.clone());
        }
        if let Some(place) = self.slots.get(vm).map(|slot| slot.place) {
            self.enter_rings(vm, place);
        }
        true
    }

    /// Central said that it gets too much: the mirror of its bucket is empty, too.
    pub fn rate_limited(&mut self, now: Instant) {
        if let Some(central) = &mut self.central {
            central.drain(now);
        }
    }

    /// The slot, if exactly this report is in flight from it; it is not any more.
    fn land(&mut self, vm: &VmId, report: Known) -> Option<&mut Slot> {
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
            slot.take_on(newer, Place::default());
        }
        self.requeue(vm, newer.class);
    }

    /// Forgets a slot whose report is not there: damaged, or lost with the file it was in.
    pub fn discard(&mut self, vm: &VmId) {
        let Some(slot) = self.slots.remove(vm) else {
            return;
        };
        match slot.state {
            State::Queued => self.leave_rings(slot.place),
            State::Backoff(until) => drop(self.backing_off.remove(&(until, vm.clone()))),
            State::InFlight => self.in_flight -= 1,
            State::Dead => {}
        }
        self.changed.remove(vm);
    }

    /// A dead letter is tried again, at somebody's request. Says whether there was one.
    pub fn revive(&mut self, vm: &VmId) -> bool {
        let dead = |slot: &&mut Slot| slot.state == State::Dead;
        let Some(slot) = self.slots.get_mut(vm).filter(dead) else {
            return false;
        };
        (slot.attempts, slot.demoted) = (0, false);
        self.requeue(vm, Class::Routine);
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
        (self.reactive.len(), self.routine.len())
    }

    /// Deliveries under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How long the last routine report waits at most, if nothing more comes and Central keeps
    /// its word; `None` when no rate is configured.
    pub fn worst_case_wait(&self) -> Option<Duration> {
        let rate = self.policy.rate?;
        let waiting = u32::try_from(self.routine.len()).unwrap_or(u32::MAX);
        let dispatches = f64::from(waiting) * f64::from(self.policy.weight + 1);
        Duration::try_from_secs_f64((dispatches + rate.reserve) / rate.per_second).ok()
    }

    /// Forgets the budget of a guest that left.
    pub fn forget_budget(&mut self, vm: &VmId) {
        self.budgets.remove(vm);
    }
}
