//! The schedule of pulls: which guest is due next, and what it is asked for. Pure policy.
//!
//! A guest that can hold a wait is always in one, so that a change arrives at once; the others are
//! polled. A guest that fails is asked ever more rarely, a guest that answers too often is slowed
//! down, and every guest is asked for a full report at the refresh interval, whatever it answers.

mod not_stored;

use self::not_stored::NotStored;
use crate::clock::backoff::Backoff;
use crate::clock::token_bucket::TokenBucket;
use crate::report::VmId;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// Exchanges with a guest in quick succession, and how many a second after that.
const PACE: (f64, f64) = (10.0, 1.0);

/// A wait is not cut shorter than this for a full report that is due sooner: a guest that answers it
/// with nothing new must not look as if it had not waited.
const SHORTEST_WAIT: Duration = Duration::from_secs(2);

/// A guest that got what it lacked for a report has one after about this time.
const SOON: Duration = Duration::from_secs(1);

/// Guests that are asked first in a second, of those that may hold a wait: a restart of the sensor hides
/// changes for no longer than the number of guests over this.
const FIRST_ASKS: u32 = 200;

/// Guests that are asked first at once before that counts.
const FIRST_ASKS_AT_ONCE: u32 = 20;

/// After a restart, the guests that are polled are all asked within this time, or a third of the poll interval
/// if that is less.
const LONGEST_FIRST_WAVE: Duration = Duration::from_secs(20 * 60);

/// The numbers of the schedule.
#[derive(Clone, Debug)]
pub struct Timing {
    /// Between two polls of a guest that cannot hold a wait.
    pub poll: Duration,
    /// After which a full report is asked for, whatever is known.
    pub refresh: Duration,
    /// How long a wait is asked for, at most.
    pub wait: Duration,
    /// Between two attempts at a guest that fails.
    pub failing: Backoff,
    /// Between two attempts at a guest that is there, but not ready or busy.
    pub busy: Backoff,
    /// Between two attempts at a guest that hangs, where each attempt costs its node a connection.
    pub hung: Backoff,
    /// Between two waits that a guest answers at once with nothing new. An agent that is told to stop
    /// does that once, so it begins small: its machine may be back in seconds.
    pub hasty: Backoff,
    /// Whether guests that come together are asked one after the other.
    pub spread: bool,
}

impl Timing {
    /// The defaults, with this poll interval and this time between full reports.
    pub fn new(poll: Duration, refresh: Duration) -> Self {
        Self {
            poll,
            refresh,
            wait: Duration::from_secs(45),
            failing: Backoff {
                floor: Duration::from_secs(10),
                ceiling: poll.min(Duration::from_secs(1800)),
            },
            busy: Backoff {
                floor: Duration::from_secs(1),
                ceiling: Duration::from_secs(30),
            },
            hung: Backoff {
                floor: Duration::from_secs(300),
                ceiling: Duration::from_secs(3600),
            },
            hasty: Backoff {
                floor: Duration::from_secs(1),
                ceiling: poll,
            },
            spread: true,
        }
    }

    /// The same, with guests asked one after the other or all at once.
    pub fn with_spread(self, spread: bool) -> Self {
        Self { spread, ..self }
    }
}

/// What a guest is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The report, whatever is known.
    Full,
    /// The same, because the last whole report is as old as the refresh interval.
    Refresh,
    /// The report, unless it is the known one.
    Get,
    /// The same, as soon as it is another one, at the latest after this time.
    Wait(Duration),
}

impl Ask {
    /// Whether the whole report is asked for.
    pub fn is_full(self) -> bool {
        matches!(self, Self::Full | Self::Refresh)
    }
}

/// What came of an exchange, named for what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullOutcome {
    /// A report, durable by now.
    Report {
        /// Whether the guest can hold a wait.
        waits: bool,
    },
    /// A report whose content Central refused for good, and which is left out: its refresh is due when it was.
    Refused {
        /// Whether the guest can hold a wait.
        waits: bool,
    },
    /// Nothing new.
    Unchanged {
        /// Whether the guest can hold a wait.
        waits: bool,
        /// Whether it answered a wait long before its end.
        hasty: bool,
    },
    /// The guest does not implement waits, whatever it advertised before.
    NoWaits,
    /// It is reachable, but busy or not ready.
    Busy,
    /// It has no package to report yet.
    NoPackages {
        /// Whether the guest can hold a wait for the first one.
        waits: bool,
        /// Whether it answered a wait long before its end.
        hasty: bool,
    },
    /// It answered "unchanged" of something that is not known: only a full report helps.
    Contradictory,
    /// It hangs, and each attempt leaves a connection behind on the way.
    Hung,
    /// Its report could not be made durable: the disk of this sensor is full, for example.
    NotStored,
    /// It failed.
    Failed,
}

/// Where a guest stands in the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    At(Instant),
    InExchange,
}

#[derive(Debug)]
struct Plan {
    standing: Standing,
    failures: u32,
    knows_report: bool,
    waits: bool,
    /// It advertised waits, and rejected one as an unknown method.
    wait_rejected: bool,
    is_reachable: bool,
    /// It had no package to report when it was asked last.
    is_empty: bool,
    /// Its polls have a phase of their own: they follow one another at the interval.
    has_phase: bool,
    full_due: Instant,
    full_wanted: bool,
    pace: TokenBucket,
}

/// All guests, by when they are asked.
pub struct Schedule {
    timing: Timing,
    plans: HashMap<VmId, Plan>,
    due: BTreeSet<(Instant, VmId)>,
    /// When the next guest that may hold a wait is asked first.
    next_first: Option<Instant>,
    not_stored: NotStored,
}

/// What the schedule remembers of a guest across restarts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// A report of it is known.
    pub knows_report: bool,
    /// It can hold a wait.
    pub waits: bool,
    /// Time since it last sent a full report.
    pub full_age: Duration,
    /// An earlier run of the sensor knew it.
    pub is_restored: bool,
}

impl Schedule {
    /// An empty schedule.
    pub fn new(timing: Timing) -> Self {
        Self {
            timing,
            plans: HashMap::new(),
            due: BTreeSet::new(),
            next_first: None,
            not_stored: NotStored::default(),
        }
    }

    /// Other times, from the next decision about each guest on.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// A guest is asked from now on, first at once, or in its turn where many come together. `jitter` is uniform
    /// in 0..1 and spreads the full reports and the polls of guests that arrive together.
    pub fn add(&mut self, vm: VmId, memory: Memory, now: Instant, jitter: f64) {
        self.remove(&vm);
        let refresh = spread(self.timing.refresh, jitter);
        let first = self.first_ask(memory, now, jitter);
        let plan = Plan {
            standing: Standing::At(first),
            failures: 0,
            knows_report: memory.knows_report,
            waits: memory.waits,
            wait_rejected: false,
            is_reachable: false,
            is_empty: false,
            has_phase: !self.timing.spread,
            full_due: now + refresh.saturating_sub(memory.full_age),
            full_wanted: false,
            pace: TokenBucket::full(PACE.0, PACE.1, now),
        };
        self.plans.insert(vm.clone(), plan);
        self.due.insert((first, vm));
    }

    /// When a guest is asked first. One that is polled has no change to tell sooner than at its next poll.
    fn first_ask(&mut self, memory: Memory, now: Instant, jitter: f64) -> Instant {
        if !self.timing.spread {
            return now;
        }
        if memory.is_restored && memory.knows_report && !memory.waits {
            let wave = LONGEST_FIRST_WAVE.min(self.timing.poll / 3);
            return now + wave.mul_f64(jitter.clamp(0.0, 1.0));
        }
        let each = Duration::from_secs(1) / FIRST_ASKS;
        let earliest = now.checked_sub(each * FIRST_ASKS_AT_ONCE).unwrap_or(now);
        let turn = self.next_first.map_or(earliest, |turn| turn.max(earliest));
        self.next_first = Some(turn + each);
        turn.max(now)
    }

    /// A guest is not asked any more.
    pub fn remove(&mut self, vm: &VmId) {
        self.not_stored.remove(vm);
        if let Some(plan) = self.plans.remove(vm)
            && let Standing::At(at) = plan.standing
        {
            self.due.remove(&(at, vm.clone()));
        }
    }

    /// When somebody is asked next; `None` while everybody is being asked.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// A guest that is due, and what to ask it for: it is in an exchange from now on.
    pub fn take_due(&mut self, now: Instant, jitter: f64) -> Option<(VmId, Ask)> {
        if self.due.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, vm) = self.due.pop_first()?;
        let plan = self.plans.get_mut(&vm)?;
        plan.standing = Standing::InExchange;
        plan.pace.take(now);
        let knows = plan.knows_report || plan.is_empty && plan.waits;
        let ask = if plan.full_wanted || !knows || plan.full_due <= now {
            // Its agent may be another by now.
            plan.wait_rejected = false;
            Ask::Full
        } else if plan.is_reachable && plan.waits {
            let until_full = plan.full_due.saturating_duration_since(now);
            let wait = spread(self.timing.wait, jitter).min(until_full);
            Ask::Wait(wait.max(SHORTEST_WAIT))
        } else {
            Ask::Get
        };
        let is_refresh = ask == Ask::Full && plan.knows_report && plan.full_due <= now;
        Some((vm, if is_refresh { Ask::Refresh } else { ask }))
    }

    /// An exchange ended. One with a guest that left meanwhile changes nothing.
    pub fn finished(&mut self, vm: &VmId, outcome: PullOutcome, now: Instant, jitter: f64) {
        let timing = &self.timing;
        let Some(plan) = self
            .plans
            .get_mut(vm)
            .filter(|p| p.standing == Standing::InExchange)
        else {
            return;
        };
        match outcome {
            PullOutcome::NotStored => self.not_stored.insert(vm),
            _ => self.not_stored.remove(vm),
        }
        let failed = matches!(
            outcome,
            PullOutcome::Failed | PullOutcome::NotStored | PullOutcome::Hung | PullOutcome::Busy
        );
        let in_vain = failed
            || matches!(
                outcome,
                PullOutcome::Unchanged { hasty: true, .. }
                    | PullOutcome::NoPackages { hasty: true, .. }
                    | PullOutcome::NoPackages { waits: false, .. }
            );
        plan.is_empty = matches!(outcome, PullOutcome::NoPackages { .. });
        plan.failures = if in_vain { plan.failures + 1 } else { 0 };
        plan.is_reachable = !failed;
        let pace = plan.pace.when(1.0, now).unwrap_or(now);
        let polls = matches!(
            outcome,
            PullOutcome::Report { .. }
                | PullOutcome::Refused { .. }
                | PullOutcome::Unchanged { .. }
        );
        // Guests that came together must not be polled together for ever.
        let poll = if plan.has_phase {
            spread(timing.poll, jitter)
        } else {
            timing.poll.mul_f64(jitter)
        };
        plan.has_phase |= polls;
        let at = match outcome {
            PullOutcome::Report { waits } => {
                let waits = waits && !plan.wait_rejected;
                plan.waits = waits;
                (plan.knows_report, plan.full_wanted) = (true, false);
                plan.full_due = now + spread(timing.refresh, jitter);
                if waits { pace } else { now + poll }
            }
            PullOutcome::Refused { waits } => {
                let waits = waits && !plan.wait_rejected;
                plan.waits = waits;
                (plan.knows_report, plan.full_wanted) = (true, false);
                if waits { pace } else { now + poll }
            }
            PullOutcome::Unchanged { waits, hasty } => {
                let waits = waits && !plan.wait_rejected;
                plan.waits = waits;
                if plan.full_wanted || waits && !hasty {
                    pace
                } else if waits {
                    now + timing.hasty.half_jitter(plan.failures, jitter)
                } else {
                    now + poll
                }
            }
            PullOutcome::NoWaits => {
                (plan.waits, plan.wait_rejected) = (false, true);
                pace
            }
            PullOutcome::Contradictory => {
                plan.full_wanted = true;
                pace
            }
            PullOutcome::NoPackages { waits, hasty } => {
                (plan.waits, plan.full_wanted) = (waits && !plan.wait_rejected, false);
                if plan.full_due <= now {
                    plan.full_due = now + spread(timing.refresh, jitter);
                }
                match plan.waits && !hasty {
                    true => pace,
                    false => now + timing.busy.half_jitter(plan.failures.max(1), jitter),
                }
            }
            PullOutcome::Busy => now + timing.busy.half_jitter(plan.failures, jitter),
            PullOutcome::Hung => now + timing.hung.half_jitter(plan.failures, jitter),
            PullOutcome::NotStored => {
                let backoff = self.not_stored.backoff(timing.failing);
                now + backoff.half_jitter(plan.failures, jitter)
            }
            PullOutcome::Failed => now + timing.failing.half_jitter(plan.failures, jitter),
        };
        // No answer of a guest makes its exchanges follow faster than its pace.
        let at = at.max(pace);
        plan.standing = Standing::At(at);
        self.due.insert((at, vm.clone()));
        if matches!(outcome, PullOutcome::Report { .. }) {
            for refused in self.not_stored.take() {
                self.bring_forward(&refused, now, now);
            }
        }
    }

    /// A guest that is due later is due as soon as its pace allows, but not before `earliest`.
    fn bring_forward(&mut self, vm: &VmId, earliest: Instant, now: Instant) {
        if let Some(plan) = self.plans.get_mut(vm)
            && let Standing::At(at) = plan.standing
        {
            let by_pace = plan.pace.when(1.0, now).unwrap_or(earliest);
            let sooner = by_pace.max(earliest).min(at);
            plan.standing = Standing::At(sooner);
            self.due.remove(&(at, vm.clone()));
            self.due.insert((sooner, vm.clone()));
        }
    }

    /// The next time, the guest is asked for a full report.
    pub fn want_full(&mut self, vm: &VmId) {
        if let Some(plan) = self.plans.get_mut(vm) {
            plan.full_wanted = true;
        }
    }

    /// The guest is asked for a full report as soon as its pace allows, unless it is being asked, or
    /// backs off.
    pub fn want_full_now(&mut self, vm: &VmId, now: Instant) {
        self.want_full(vm);
        if self.plans.get(vm).is_some_and(|plan| plan.failures == 0) {
            self.bring_forward(vm, now, now);
        }
    }

    /// The guest is asked as soon as its pace allows, also where it backs off. That it failed is not forgotten: if it
    /// fails again, it backs off as long as it would have.
    pub fn ask_although_it_failed(&mut self, vm: &VmId, now: Instant) {
        self.bring_forward(vm, now, now);
    }

    /// What the guest lacked it has got: it is asked again in a moment, whatever it answered before.
    pub fn ask_soon(&mut self, vm: &VmId, now: Instant) {
        let Some(plan) = self.plans.get_mut(vm) else {
            return;
        };
        plan.failures = 0;
        self.bring_forward(vm, now + SOON, now);
    }

    /// The exchange was given up by this sensor: the guest is asked again as soon as its pace allows.
    pub fn interrupted(&mut self, vm: &VmId, now: Instant) {
        let Some(plan) = self
            .plans
            .get_mut(vm)
            .filter(|p| p.standing == Standing::InExchange)
        else {
            return;
        };
        let at = plan.pace.when(1.0, now).unwrap_or(now).max(now);
        plan.standing = Standing::At(at);
        self.due.insert((at, vm.clone()));
    }

    /// Number of guests.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// Failures in a row of a guest, and when it is asked next; `None` while it is being asked.
    pub fn look(&self, vm: &VmId) -> Option<(u32, Option<Instant>)> {
        let plan = self.plans.get(vm)?;
        let at = match plan.standing {
            Standing::At(at) => Some(at),
            Standing::InExchange => None,
        };
        Some((plan.failures, at))
    }
}

/// Between nine tenths of `time` and all of it.
fn spread(time: Duration, jitter: f64) -> Duration {
    time.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 10.0)
}

#[cfg(test)]
mod tests;
