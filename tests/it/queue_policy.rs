//! The policy of the pending queue in virtual time: two days of a thousand guests.
//!
//! The code that decides is the sensor's own, and most rows only change its numbers; two simpler lines
//! stand beside it, for what it is not. Central takes 0.03 reports a second and 20 at once; every guest
//! refreshes every 4 h and changes about monthly; there are two patch waves of 30 guests in ten minutes,
//! 5 guests that change every 200 s, and 5 that Central always refuses.

use afferent::clock;
use afferent::clock::token_bucket::TokenBucket;
use afferent::report::{Epoch, Generation, Report, ReportKey, Trigger, VmId};
use afferent::sense::queue::policy::{QueuePolicy, Rate};
use afferent::sense::queue::queue::{Queue, Selection};
use afferent::sense::queue::slot::{Class, Nack};
use afferent::sense::queue::table::DocumentId;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

const GUESTS: u32 = 1_000;
const NOISY: u32 = 5;
/// Seconds between two changes of a noisy guest.
const NOISE: f64 = 200.0;
const REFUSED: u32 = 5;
const WAVE: usize = 30;
const LASTS: Duration = Duration::from_secs(48 * 3600);
const REFRESH: Duration = Duration::from_secs(4 * 3600);
const MONTH: f64 = 30.0 * 24.0 * 3600.0;
const SLA: Duration = Duration::from_secs(300);
const SEED: u64 = 7;

/// A report that a guest makes, and when.
struct Event {
    at: Duration,
    guest: u32,
    reactive: bool,
}

/// What came of a policy.
#[derive(Debug)]
struct Outcome {
    /// Percent of changes that were delivered within [`SLA`], those of noisy guests left out.
    in_sla: f64,
    /// Guests of which nothing was delivered.
    never: usize,
    /// Percent of all deliveries that were of noisy guests.
    noisy: f64,
}

fn central() -> Rate {
    Rate {
        per_second: 0.03,
        burst: 20.0,
        reserve: 0.0,
    }
}

/// The sensor's own policy without a budget per guest and without a reserve.
fn plain() -> QueuePolicy {
    QueuePolicy {
        rate: Some(central()),
        priorities: 1_000_000,
        ..QueuePolicy::default()
    }
}

/// The sensor's own policy without a reserve for urgent reports.
fn budget() -> QueuePolicy {
    QueuePolicy {
        priorities: QueuePolicy::default().priorities,
        ..plain()
    }
}

/// The sensor's own policy, with the reserve that the sensor makes of `burst`.
fn shipped() -> QueuePolicy {
    QueuePolicy {
        rate: Some(Rate {
            reserve: central().burst * Rate::RESERVE,
            ..central()
        }),
        ..budget()
    }
}

fn of_queue(policy: &QueuePolicy, has_classes: bool) -> Outcome {
    let start = clock::now();
    simulate(
        Box::new(SensorQueue::new(policy, has_classes, start)),
        start,
    )
}

fn of_line(due: Due) -> Outcome {
    let start = clock::now();
    simulate(Box::new(ByDue::new(due, &plain(), central(), start)), start)
}

/// Loss prevented: a change that Central learns of an hour later, because refreshes are in front of it.
#[test]
fn the_shipped_policy_delivers_changes_in_time_and_every_guest_is_delivered() {
    let shipped = of_queue(&shipped(), true);
    assert!(shipped.in_sla > 85.0, "{shipped:?}");
    assert_eq!(shipped.never, 0, "{shipped:?}");
}

#[test]
fn a_budget_per_guest_bounds_noisy_guests_and_a_reserve_keeps_room_for_changes() {
    let (plain, budget) = (of_queue(&plain(), true), of_queue(&budget(), true));
    assert!(plain.noisy > 75.0, "{plain:?}");
    assert!(budget.noisy < 60.0, "{budget:?}");
    assert!(budget.in_sla > plain.in_sla + 5.0, "{plain:?} {budget:?}");
    let shipped = of_queue(&shipped(), true);
    assert!(
        shipped.in_sla > budget.in_sla + 20.0,
        "{budget:?} {shipped:?}"
    );
}

/// What the policy is not, and why.
#[test]
fn strict_priority_starves_guests_and_one_line_for_all_is_late() {
    let strict = QueuePolicy {
        weight: u32::MAX,
        ..plain()
    };
    let strict = of_queue(&strict, true);
    assert!(strict.never > 100, "{strict:?}");
    let fifo = of_queue(&plain(), false);
    assert!(fifo.in_sla < 1.0, "{fifo:?}");
    let newest_last = of_line(when_it_last_came);
    assert!(
        newest_last.in_sla < 1.0 && newest_last.never > 100,
        "{newest_last:?}"
    );
    let by_deadline = of_line(earliest_deadline);
    assert!(by_deadline.in_sla < 10.0, "{by_deadline:?}");
}

/// Everything that happens, in order.
fn events() -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut events = Vec::new();
    for guest in 0..GUESTS {
        let mut add = |seconds: f64, reactive| {
            events.push(Event {
                at: Duration::from_secs_f64(seconds),
                guest,
                reactive,
            });
        };
        let mut refresh = random.f64() * REFRESH.as_secs_f64();
        while refresh < LASTS.as_secs_f64() {
            add(refresh, false);
            refresh += REFRESH.as_secs_f64();
        }
        let mut change = -MONTH * (1.0 - random.f64()).ln();
        while change < LASTS.as_secs_f64() {
            add(change, true);
            change -= MONTH * (1.0 - random.f64()).ln();
        }
        if guest < NOISY {
            let mut change = random.f64() * NOISE;
            while change < LASTS.as_secs_f64() {
                add(change, true);
                change += NOISE;
            }
        }
    }
    for hour in [10.0, 30.0] {
        for guest in random.choose_multiple(NOISY..GUESTS, WAVE) {
            events.push(Event {
                at: Duration::from_secs_f64(hour * 3600.0 + random.f64() * 600.0),
                guest,
                reactive: true,
            });
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

fn simulate(mut line: Box<dyn Line>, start: Instant) -> Outcome {
    let events = events();
    // The oldest change of each guest that Central does not have.
    let mut changed: HashMap<u32, Instant> = HashMap::new();
    let mut delivered = vec![false; GUESTS as usize];
    let mut random = fastrand::Rng::with_seed(SEED);
    let (mut waits, mut sent, mut sent_noisy) = (Vec::new(), 0_u32, 0_u32);
    let mut now = start;
    let mut events = events.iter().peekable();
    while now < start + LASTS {
        while let Some(event) = events.next_if(|event| start + event.at <= now) {
            if event.reactive {
                changed.entry(event.guest).or_insert(now);
            }
            line.arrive(event.guest, event.reactive, now);
        }
        let mut wake = None;
        loop {
            match line.next(now) {
                Turn::Send(guest) => {
                    sent += 1;
                    sent_noisy += u32::from(guest < NOISY);
                    if let Some(since) = changed.remove(&guest)
                        && guest >= NOISY
                    {
                        waits.push(now - since);
                    }
                    delivered[guest as usize] = true;
                    if (NOISY..NOISY + REFUSED).contains(&guest) {
                        line.refused(guest, now, random.f64());
                    } else {
                        line.accepted(guest);
                    }
                }
                Turn::At(at) => {
                    wake = Some(at);
                    break;
                }
                Turn::Idle => break,
            }
        }
        let event = events.peek().map(|event| start + event.at);
        now = match (event, wake) {
            (Some(event), Some(wake)) => event.min(wake),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => break,
        };
    }
    // What still waits when the two days are over counts as late as it is.
    let end = start + LASTS;
    let late = changed.iter().filter(|(guest, _)| **guest >= NOISY);
    let late = late.map(|(_, since)| end.saturating_duration_since(*since));
    waits.extend(late.filter(|wait| *wait > SLA));
    let in_time = waits.iter().filter(|wait| **wait <= SLA).count();
    Outcome {
        in_sla: 100.0 * in_time as f64 / waits.len() as f64,
        never: delivered.iter().filter(|delivered| !**delivered).count(),
        noisy: 100.0 * f64::from(sent_noisy) / f64::from(sent),
    }
}

/// Who goes next. What is sent is answered before the next one is.
trait Line {
    fn arrive(&mut self, guest: u32, is_change: bool, now: Instant);
    fn next(&mut self, now: Instant) -> Turn;
    fn accepted(&mut self, guest: u32);
    fn refused(&mut self, guest: u32, now: Instant, jitter: f64);
}

enum Turn {
    Send(u32),
    At(Instant),
    Idle,
}

/// The sensor's own.
struct SensorQueue {
    queue: Queue,
    /// Whether what changed is urgent.
    classes: bool,
    vms: Vec<VmId>,
    numbers: HashMap<VmId, u32>,
    generations: Vec<u32>,
}

impl SensorQueue {
    fn new(policy: &QueuePolicy, classes: bool, start: Instant) -> Self {
        let vms: Vec<VmId> = (0..GUESTS)
            .map(|n| format!("vm-{n}").parse().expect("a VM id"))
            .collect();
        Self {
            queue: Queue::new(policy.clone(), start),
            classes,
            numbers: vms.iter().cloned().zip(0..).collect(),
            generations: vec![0; vms.len()],
            vms,
        }
    }

    fn sent(&self, guest: u32) -> (&VmId, DocumentId) {
        let vm = &self.vms[guest as usize];
        (vm, self.queue.slot(vm).expect("it was sent").report)
    }
}

impl Line for SensorQueue {
    fn arrive(&mut self, guest: u32, is_change: bool, now: Instant) {
        let vm = &self.vms[guest as usize];
        let generation = &mut self.generations[guest as usize];
        *generation += u32::from(is_change || *generation == 0);
        let (trigger, wanted) = match is_change {
            true if self.classes => (Trigger::Reactive, Class::Reactive),
            true => (Trigger::Reactive, Class::Routine),
            false => (Trigger::Scheduled, Class::Routine),
        };
        let report = known(*generation);
        let arrival = self.queue.admit(vm, report, trigger, wanted, now);
        self.queue.enqueue(vm, arrival);
    }

    fn next(&mut self, now: Instant) -> Turn {
        match self.queue.select(now) {
            Selection::Send(vm, _) => Turn::Send(self.numbers[&vm]),
            Selection::At(at) => Turn::At(at),
            Selection::Idle => Turn::Idle,
        }
    }

    fn accepted(&mut self, guest: u32) {
        let (vm, report) = self.sent(guest);
        self.queue.ack(&vm.clone(), report);
    }

    fn refused(&mut self, guest: u32, now: Instant, jitter: f64) {
        let (vm, report) = self.sent(guest);
        let vm = vm.clone();
        self.queue.nack(&vm, report, Nack::Refused, now, jitter);
    }
}

/// One line for all, in the order of a time that is given to each report: what the sensor's queue is
/// compared with. Retries, dead letters and Central's rate are as there.
struct ByDue {
    due: Due,
    places: Vec<Place>,
    /// Refusals of the newest report of each guest.
    attempts: Vec<u32>,
    waiting: BTreeSet<(Instant, u32)>,
    backing_off: BTreeSet<(Instant, u32)>,
    bucket: TokenBucket,
    policy: QueuePolicy,
}

/// When a report that comes `now` is due; from when the one was that waits already, if one does, and
/// whether its guest changed.
type Due = fn(waiting: Option<Instant>, is_change: bool, now: Instant) -> Instant;

/// Each newer report loses the place of the older one.
fn when_it_last_came(_: Option<Instant>, _: bool, now: Instant) -> Instant {
    now
}

/// A change within its SLA, anything else before the next refresh.
fn earliest_deadline(waiting: Option<Instant>, is_change: bool, now: Instant) -> Instant {
    let due = now + if is_change { SLA } else { REFRESH };
    waiting.map_or(due, |waiting| waiting.min(due))
}

#[derive(Clone, Copy)]
enum Place {
    Nowhere,
    Waiting(Instant),
    BackingOff(Instant),
}

impl ByDue {
    fn new(due: Due, policy: &QueuePolicy, central: Rate, start: Instant) -> Self {
        Self {
            due,
            places: vec![Place::Nowhere; GUESTS as usize],
            attempts: vec![0; GUESTS as usize],
            waiting: BTreeSet::new(),
            backing_off: BTreeSet::new(),
            bucket: TokenBucket::full(central.burst, central.per_second, start),
            policy: policy.clone(),
        }
    }

    fn wait(&mut self, guest: u32, due: Instant) {
        self.waiting.insert((due, guest));
        self.places[guest as usize] = Place::Waiting(due);
    }
}

impl Line for ByDue {
    fn arrive(&mut self, guest: u32, is_change: bool, now: Instant) {
        if is_change {
            self.attempts[guest as usize] = 0;
        }
        let due = match self.places[guest as usize] {
            Place::BackingOff(_) if !is_change => return,
            Place::Waiting(due) => {
                self.waiting.remove(&(due, guest));
                (self.due)(Some(due), is_change, now)
            }
            Place::BackingOff(until) => {
                self.backing_off.remove(&(until, guest));
                (self.due)(None, is_change, now)
            }
            Place::Nowhere => (self.due)(None, is_change, now),
        };
        self.wait(guest, due);
    }

    fn next(&mut self, now: Instant) -> Turn {
        while let Some((until, guest)) = self.backing_off.first().copied()
            && until <= now
        {
            self.backing_off.pop_first();
            let due = (self.due)(None, false, now);
            self.wait(guest, due);
        }
        let retry = self.backing_off.first().map(|(until, _)| *until);
        let token = match self.waiting.is_empty() {
            true => None,
            false => self.bucket.when(1.0, now),
        };
        if token.is_some_and(|at| at <= now)
            && let Some((_, guest)) = self.waiting.pop_first()
        {
            self.bucket.take(now);
            self.places[guest as usize] = Place::Nowhere;
            return Turn::Send(guest);
        }
        let wake = token.into_iter().chain(retry).min();
        wake.map_or(Turn::Idle, Turn::At)
    }

    fn accepted(&mut self, guest: u32) {
        self.attempts[guest as usize] = 0;
    }

    fn refused(&mut self, guest: u32, now: Instant, jitter: f64) {
        let attempts = &mut self.attempts[guest as usize];
        *attempts += 1;
        let until = now + self.policy.backoff.full_jitter(*attempts, jitter);
        self.backing_off.insert((until, guest));
        self.places[guest as usize] = Place::BackingOff(until);
    }
}

fn known(generation: u32) -> DocumentId {
    DocumentId {
        key: ReportKey {
            epoch: Epoch::new(1),
            generation: Generation::new(generation).expect("not 0"),
        },
        digest: Report::default().digest(),
        facts: None,
    }
}
