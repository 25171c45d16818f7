//! What must hold of the queue whatever happens in whatever order: random events, and a simple model
//! beside the queue that remembers what must be true.

use super::super::policy::Rate;
use super::tests::{arrive, known, vm};
use super::*;
use crate::clock;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashSet};

const GUESTS: u8 = 6;

#[derive(Clone, Copy, Debug)]
enum Op {
    Arrive { guest: u8, reactive: bool },
    Repeat { guest: u8 },
    Select,
    Answer { which: usize, answer: Answer },
    Stray { guest: u8, generation: u32 },
    Pass { seconds: u16 },
    Supplant { which: usize },
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Ack,
    Nack(Nack),
    PutBack,
    Hold { seconds: u16 },
    RequeueLast,
}

/// Loss prevented: a report that is never sent, sent when a newer one is there, sent twice at
/// once, or that keeps others from being sent.
#[test]
fn the_invariants_hold_in_any_order_of_events() {
    let config = ProptestConfig::with_cases(2000);
    let rate = proptest::option::of((0.1..2.0f64, 1u8..8, 0u8..8));
    proptest!(config, |(rate in rate, ops in proptest::collection::vec(op(), 1..200))| {
        let rate = rate.map(|(per_second, burst, reserve)| Rate {
            per_second,
            burst: burst.into(),
            reserve: reserve.into(),
        });
        let mut world = World::new(QueuePolicy { in_flight: 3, rate, ..QueuePolicy::default() });
        for op in ops {
            world.step(op);
            world.check();
        }
        world.settle();
    });
}

/// Loss prevented: routine reports starve, or a patch wave keeps reactive ones waiting.
#[test]
fn everybody_goes_within_the_dispatches_that_its_rank_allows() {
    proptest!(|(arrivals in proptest::collection::vec((0u16..60, any::<bool>()), 1..80), more in proptest::collection::vec((60u16..200, any::<bool>()), 0..80))| {
        let now = clock::now();
        let mut queue = Queue::new(QueuePolicy::default(), now);
        for (guest, reactive) in arrivals {
            arrive(&mut queue, &vm(guest), 1, reactive, now);
        }
        let ranks = |ring: &BTreeMap<u64, VmId>| -> HashMap<VmId, usize> {
            ring.values().cloned().zip(1..).collect()
        };
        let (reactive, routine) = (ranks(&queue.rings.reactive), ranks(&queue.rings.routine));
        let weight = queue.policy.weight as usize;
        let mut more = more.into_iter();
        for dispatched in 1.. {
            if let Some((guest, reactive)) = more.next() {
                arrive(&mut queue, &vm(guest), 1, reactive, now);
            }
            let Selection::Send(vm, report) = queue.select(now) else { break };
            if let Some(rank) = reactive.get(&vm) {
                prop_assert!(dispatched <= rank + rank.div_ceil(weight));
            } else if let Some(rank) = routine.get(&vm) {
                prop_assert!(dispatched <= rank * (weight + 1));
            }
            queue.ack(&vm, report);
        }
        prop_assert!(queue.slots.is_empty());
    });
}

/// Loss prevented: people are told of a wait that is exceeded, or routine reports never get past
/// the reserve.
#[test]
fn nobody_waits_longer_than_the_worst_case_that_is_shown() {
    let counts = (1u16..40, 0u16..40, 0.1..5.0f64, 1u8..20, 0.0..1.0f64);
    proptest!(|((routine, reactive, per_second, burst, reserve) in counts)| {
        let start = clock::now();
        let burst = f64::from(burst);
        let rate = Rate { per_second, burst, reserve: burst * reserve };
        let mut queue = Queue::new(QueuePolicy { rate: Some(rate), ..QueuePolicy::default() }, start);
        queue.rate_limited(start);
        for guest in 0..routine {
            arrive(&mut queue, &vm(guest), 1, false, start);
        }
        for guest in 0..reactive {
            arrive(&mut queue, &vm(1000 + guest), 1, true, start);
        }
        let shown = queue.worst_case_wait().unwrap();
        // A millisecond more for each wait that is rounded up.
        let worst = start + shown + Duration::from_millis(u64::from(routine + reactive) + 1);
        let mut now = start;
        while queue.waiting() != (0, 0) {
            match queue.select(now) {
                Selection::Send(vm, report) => {
                    let is_routine = queue.slot(&vm).unwrap().place.routine.is_some();
                    prop_assert!(!is_routine || now <= worst, "{:?} > {shown:?}", now - start);
                    queue.ack(&vm, report);
                }
                Selection::At(at) => now = at,
                Selection::Idle => prop_assert!(false, "idle while there is work"),
            }
        }
    });
}

/// The queue, and a simple model beside it that remembers what must be true.
struct World {
    queue: Queue,
    now: Instant,
    generations: HashMap<VmId, u32>,
    /// Newest report that Central has not accepted.
    unaccepted: HashMap<VmId, DocumentId>,
    in_flight: Vec<(VmId, DocumentId)>,
    last_sent: HashMap<VmId, u32>,
    /// Reports that were refused.
    refused: HashSet<(VmId, u32)>,
    /// When reports went ahead as reactive ones, and how many restarts there had been.
    reactive_sent: HashMap<VmId, Vec<(Instant, u32)>>,
    restarts: u32,
}

impl World {
    fn new(policy: QueuePolicy) -> Self {
        let now = clock::now();
        Self {
            queue: Queue::new(policy, now),
            now,
            generations: HashMap::new(),
            unaccepted: HashMap::new(),
            in_flight: Vec::new(),
            last_sent: HashMap::new(),
            refused: HashSet::new(),
            reactive_sent: HashMap::new(),
            restarts: 0,
        }
    }

    #[allow(clippy::needless_pass_by_value, reason = "an operation is done once")]
    fn step(&mut self, op: Op) {
        match op {
            Op::Arrive { guest, reactive } => {
                let vm = vm(guest.into());
                let generation = self.generations.entry(vm.clone()).or_default();
                *generation += 1;
                arrive(&mut self.queue, &vm, *generation, reactive, self.now);
                self.unaccepted.insert(vm, known(*generation));
            }
            Op::Repeat { guest } => {
                // A full report that is asked for again comes only while nothing newer did.
                let vm = vm(guest.into());
                if let Some(report) = self.unaccepted.get(&vm) {
                    let generation = report.key.generation.get();
                    arrive(&mut self.queue, &vm, generation, false, self.now);
                }
            }
            Op::Select => self.select(),
            Op::Answer { which, answer } => self.answer(which, answer),
            Op::Stray { guest, generation } => {
                let (vm, report) = (vm(guest.into()), known(generation));
                if !self.in_flight.contains(&(vm.clone(), report)) {
                    let before = self.picture();
                    assert!(!self.queue.ack(&vm, report));
                    assert!(!self.queue.nack(&vm, report, Nack::Refused, self.now, 0.5));
                    assert!(!self.queue.requeue_same_place(&vm, report));
                    assert!(!self.queue.defer_until(&vm, report, self.now));
                    assert!(!self.queue.requeue_last(&vm, report));
                    assert!(!self.queue.forbid(&vm, report, self.now, 0.5));
                    assert!(!self.queue.replace_in_flight(
                        &vm,
                        report,
                        known(9),
                        Trigger::Reactive
                    ));
                    assert_eq!(before, self.picture(), "a stray answer changed something");
                }
            }
            Op::Pass { seconds } => self.now += Duration::from_secs(seconds.into()),
            Op::Supplant { which } => self.replace_in_flight(which),
            Op::Restart => self.restart(),
        }
    }

    fn select(&mut self) {
        let free = self.in_flight.len() < self.queue.policy.in_flight;
        let next = self.queue.select(self.now);
        let (reactive, routine) = self.queue.waiting();
        match next {
            Selection::Send(vm, report) => {
                assert!(free, "over the limit");
                assert_eq!(self.unaccepted.get(&vm), Some(&report), "not the newest");
                let generation = report.key.generation.get();
                let last = self.last_sent.insert(vm.clone(), generation);
                assert!(last.is_none_or(|last| last <= generation), "went back");
                assert!(
                    self.in_flight.iter().all(|(other, _)| *other != vm),
                    "twice"
                );
                if self.queue.slot(&vm).unwrap().place.reactive.is_some() {
                    self.cap_after_send(&vm);
                }
                self.in_flight.push((vm, report));
            }
            Selection::At(_) | Selection::Idle => {
                let waiting = (reactive, routine) != (0, 0);
                assert!(
                    !free || !waiting || self.lacks_tokens(reactive),
                    "idle while there is work"
                );
            }
        }
    }

    /// Whether Central's limit, or the reserve of it, forbids what waits.
    fn lacks_tokens(&self, reactive: usize) -> bool {
        self.queue
            .limit
            .clone()
            .take(reactive == 0, self.now)
            .is_err()
    }

    /// In any time t at most 3 + t/300 s; a restart forgets budgets.
    fn cap_after_send(&mut self, vm: &VmId) {
        let sent = self.reactive_sent.entry(vm.clone()).or_default();
        sent.push((self.now, self.restarts));
        for (n, (then, restarts)) in sent.iter().enumerate() {
            let more = (self.now - *then).as_secs() / 300;
            let most = 3 * (1 + self.restarts - restarts) as usize + more as usize;
            assert!(sent.len() - n <= most, "{vm} went ahead too often");
        }
    }

    /// It went ahead, and Central did not take it into account.
    fn went_in_vain(&mut self, vm: &VmId) {
        if self.queue.slot(vm).unwrap().place.reactive.is_some() {
            self.reactive_sent.get_mut(vm).unwrap().pop();
        }
    }

    fn replace_in_flight(&mut self, which: usize) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = which % self.in_flight.len();
        let (vm, report) = self.in_flight.swap_remove(at);
        self.went_in_vain(&vm);
        let is_newest = self.unaccepted.get(&vm) == Some(&report);
        let found = match is_newest {
            true => {
                let generation = self.generations.get_mut(&vm).unwrap();
                *generation += 1;
                known(*generation)
            }
            false => self.unaccepted[&vm],
        };
        self.unaccepted.insert(vm.clone(), found);
        assert!(
            self.queue
                .replace_in_flight(&vm, report, found, Trigger::Scheduled)
        );
    }

    fn answer(&mut self, which: usize, answer: Answer) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = which % self.in_flight.len();
        let (vm, report) = self.in_flight.swap_remove(at);
        match answer {
            Answer::Ack => {
                assert!(self.queue.ack(&vm, report));
                if self.unaccepted.get(&vm) == Some(&report) {
                    self.unaccepted.remove(&vm);
                }
            }
            Answer::Nack(nack) => {
                assert!(self.queue.nack(&vm, report, nack, self.now, 0.7));
                let of = (vm, report.key.generation.get());
                let is_dead = self.queue.slot(&of.0).unwrap().state == State::Dead;
                let is_second = nack == Nack::Refused && self.refused.contains(&of);
                assert!(
                    !is_dead || is_second,
                    "a dead letter without a second refusal"
                );
                if nack == Nack::Refused {
                    self.refused.insert(of);
                }
            }
            Answer::PutBack => {
                self.went_in_vain(&vm);
                assert!(self.queue.requeue_same_place(&vm, report));
            }
            Answer::Hold { seconds } => {
                self.went_in_vain(&vm);
                let until = self.now + Duration::from_secs(seconds.into());
                assert!(self.queue.defer_until(&vm, report, until));
            }
            Answer::RequeueLast => {
                self.went_in_vain(&vm);
                assert!(self.queue.requeue_last(&vm, report));
            }
        }
    }

    /// What a kill and a start do: rows are what was last written, in flight is forgotten.
    fn restart(&mut self) {
        let mut queue = Queue::new(self.queue.policy.clone(), self.now);
        for (vm, slot) in std::mem::take(&mut self.queue.slots) {
            let newest = slot.newest();
            let newer = slot.newer;
            let mut stored = slot;
            if let Some(newer) = newer {
                // Its row was written with it.
                stored.take_on(&newer, fresh(&newer));
                stored.newer = None;
            }
            assert_eq!(stored.report, newest);
            queue.restore(vm, stored);
        }
        // What was in flight may be sent again.
        for (vm, _) in std::mem::take(&mut self.in_flight) {
            if queue.slots[&vm].place.reactive.is_some() {
                self.reactive_sent.entry(vm).or_default().pop();
            }
        }
        self.restarts += 1;
        self.queue = queue;
    }

    fn check(&self) {
        let queue = &self.queue;
        assert!(queue.slots.len() <= usize::from(GUESTS));
        assert_eq!(queue.in_flight, self.in_flight.len());
        for (vm, report) in &self.unaccepted {
            let slot = queue.slots.get(vm).expect("a report without a slot");
            assert_eq!(slot.newest(), *report);
        }
        assert_eq!(queue.slots.len(), self.unaccepted.len());
        for (vm, slot) in &queue.slots {
            let in_ring = |ring: &BTreeMap<u64, VmId>, seq: Option<u64>| {
                seq.is_some_and(|seq| ring.get(&seq) == Some(vm))
            };
            let in_rings = in_ring(&queue.rings.reactive, slot.place.reactive)
                || in_ring(&queue.rings.routine, slot.place.routine);
            match slot.state {
                State::Queued => assert!(in_rings),
                State::Backoff(until) => {
                    assert!(queue.backing_off.contains(&(until, vm.clone())));
                }
                State::InFlight | State::Dead => assert!(!in_rings),
            }
        }
        let entries = queue.rings.reactive.len() + queue.rings.routine.len();
        let places = |slot: &Slot| {
            let place = slot.place;
            usize::from(place.reactive.is_some()) + usize::from(place.routine.is_some())
        };
        let queued = queue.slots.values().filter(|s| s.state == State::Queued);
        assert_eq!(entries, queued.map(places).sum::<usize>());
    }

    /// Given time and a willing Central, everything but dead letters is delivered.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.select();
            while !self.in_flight.is_empty() {
                self.answer(0, Answer::Ack);
            }
            self.now += Duration::from_secs(10);
        }
        self.check();
        let all_dead = |slot: &Slot| slot.state == State::Dead;
        assert!(self.queue.slots.values().all(all_dead));
    }

    fn picture(&self) -> String {
        let slots: BTreeMap<_, _> = self.queue.slots.iter().collect();
        format!(
            "{slots:?} {:?} {:?}",
            self.queue.rings.reactive, self.queue.rings.routine
        )
    }
}

fn op() -> impl Strategy<Value = Op> {
    let guest = 0..GUESTS;
    let answer = prop_oneof![
        4 => Just(Answer::Ack),
        2 => Just(Answer::Nack(Nack::Failed)),
        2 => Just(Answer::Nack(Nack::Refused)),
        1 => Just(Answer::PutBack),
        1 => (0u16..400).prop_map(|seconds| Answer::Hold { seconds }),
        1 => Just(Answer::RequeueLast),
    ];
    prop_oneof![
        4 => (guest.clone(), any::<bool>()).prop_map(|(guest, reactive)| Op::Arrive { guest, reactive }),
        1 => guest.clone().prop_map(|guest| Op::Repeat { guest }),
        6 => Just(Op::Select),
        5 => (0usize..3, answer).prop_map(|(which, answer)| Op::Answer { which, answer }),
        1 => (guest, 1u32..5).prop_map(|(guest, generation)| Op::Stray { guest, generation }),
        2 => (0u16..400).prop_map(|seconds| Op::Pass { seconds }),
        1 => (0usize..3).prop_map(|which| Op::Supplant { which }),
        1 => Just(Op::Restart),
    ]
}
