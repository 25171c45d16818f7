//! When to scan again: a pure state machine of changes, the transaction lock, and time.
//!
//! ```text
//! touched ──► is a transaction running? ── yes ──► wait for its end, at most transaction_timeout
//!                      │ no
//!                      ▼
//!             quiet for debounce, or max_delay since the first change seen without a lock
//!                      ▼
//!             a token of the bucket ──► Scan (reactive)
//!
//! interval over, or a failed scan is to be repeated ──► same lock rule ──► Scan (scheduled)
//! ```
//!
//! What always holds (the property tests below): every change is followed by a scan that began
//! after it; no scan begins while a transaction holds the lock, until its timeout; transactions
//! back to back do not postpone a scan beyond `max_delay`; reactive scans keep to the bucket;
//! without changes there is nothing but scheduled scans.

use crate::clock::backoff::Backoff;
use crate::report::Trigger;
use std::time::{Duration, Instant};

/// A held lock is looked at again this often, should its release not show as an event.
const LOCK_RECHECK: Duration = Duration::from_secs(1);

/// What was seen of the lock is good for this long when a scan is to begin.
const LOCK_FRESH: Duration = Duration::from_millis(20);

/// Repeats of failed scans; never later than the interval.
const SCAN_RETRY: Backoff = Backoff {
    floor: Duration::from_secs(120),
    ceiling: Duration::from_secs(30 * 60),
};

/// Repeats after the state directory refused a write: space may be freed at any moment.
const STORE_RETRY: Backoff = Backoff {
    floor: Duration::from_secs(5),
    ceiling: Duration::from_secs(60),
};

/// The knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Whether changes cause scans at all.
    pub reactive: bool,
    /// Quiet time after a change.
    pub debounce: Duration,
    /// Longest a change waits for quiet.
    pub max_delay: Duration,
    /// Reactive scans that may follow one another.
    pub burst: u32,
    /// Time in which one more is granted.
    pub refill: Duration,
    /// Longest a transaction is waited for.
    pub transaction_timeout: Duration,
    /// Between scheduled scans.
    pub interval: Duration,
}

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing before this time, unless something is [touched](Rescan::touched).
    WaitUntil(Instant),
    /// Nothing until the running scan has [ended](Rescan::ended).
    WaitForScan,
    /// Look whether a transaction runs and [tell](Rescan::lock_seen).
    LookAtLock,
    /// Scan now.
    Scan {
        /// Why.
        trigger: Trigger,
        /// A transaction still runs, past its timeout.
        mid_transaction: bool,
    },
}

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Read, and kept durably if it was new.
    Done,
    /// A transaction began meanwhile: the same scan is wanted again, and nothing failed.
    Overtaken,
    /// The database could not be read.
    ScanFailed,
    /// It was read but could not be kept.
    StoreFailed,
}

/// The state machine.
#[derive(Debug)]
pub struct Rescan {
    pace: Pace,
    change: Option<Change>,
    lock: Lock,
    /// An event asks for a look at the lock, whatever was seen before.
    look: bool,
    bucket: Bucket,
    due: Instant,
    /// What the scan at `due` is: scheduled, or the repetition of a failed one.
    due_as: Trigger,
    failures: u32,
    running: Option<Trigger>,
}

/// A change that no scan has answered.
#[derive(Debug)]
struct Change {
    last: Instant,
    /// When it was first known while no lock was held.
    unlocked_since: Option<Instant>,
}

/// What is known of the transaction lock, and since when.
#[derive(Clone, Copy, Debug)]
enum Lock {
    Unknown,
    Free {
        seen: Instant,
    },
    Held {
        by: i32,
        since: Instant,
        seen: Instant,
    },
}

impl Rescan {
    /// A first scan is due at once.
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            change: None,
            lock: Lock::Unknown,
            look: false,
            bucket: Bucket::full(pace.burst, pace.refill, now),
            due: now,
            due_as: Trigger::Scheduled,
            failures: 0,
            running: None,
        }
    }

    /// Goes on with other knobs.
    pub fn set_pace(&mut self, pace: Pace, now: Instant) {
        self.pace = pace;
        self.bucket.burst = pace.burst;
        self.bucket.refill = pace.refill;
        self.bucket.tokens = self.bucket.tokens.min(pace.burst);
        self.due = self.due.min(now + pace.interval);
        if !pace.reactive {
            self.change = None;
        }
    }

    /// The database changed, or may have. `lock_closed`: the lock file was closed, as happens at
    /// the end of every transaction.
    pub fn touched(&mut self, now: Instant, lock_closed: bool) {
        if !self.pace.reactive {
            return;
        }
        self.change
            .get_or_insert(Change {
                last: now,
                unlocked_since: None,
            })
            .last = now;
        // While a transaction is known to run its writes say nothing new.
        self.look |= lock_closed || !matches!(self.lock, Lock::Held { .. });
    }

    /// Something else than packages changed what a report says: scan at the next occasion.
    pub fn wanted(&mut self, now: Instant) {
        self.due = self.due.min(now);
    }

    /// The lock was looked at: the process that holds it, if any.
    pub fn lock_seen(&mut self, now: Instant, holder: Option<i32>) {
        self.look = false;
        self.lock = match (holder, self.lock) {
            (None, _) => Lock::Free { seen: now },
            (Some(holder), Lock::Held { by, since, .. }) if by == holder => Lock::Held {
                by,
                since,
                seen: now,
            },
            (Some(by), _) => Lock::Held {
                by,
                since: now,
                seen: now,
            },
        };
        if holder.is_none()
            && let Some(change) = &mut self.change
        {
            change.unlocked_since.get_or_insert(now);
        }
    }

    /// What to do now. `Scan` is said once; the scan counts as running from then on.
    pub fn next(&mut self, now: Instant) -> Next {
        if self.running.is_some() {
            return Next::WaitForScan;
        }
        if self.look {
            return Next::LookAtLock;
        }
        let (at, trigger) = match self.change_at() {
            Some(at) if at <= self.due_at() => (at, Trigger::Reactive),
            _ => (self.due_at(), self.due_as),
        };
        let seen = match self.lock {
            Lock::Held { seen, .. } if now < at => {
                let wanted = self.change.is_some() || self.due <= now;
                let recheck = seen + LOCK_RECHECK;
                return match wanted {
                    true if recheck <= now => Next::LookAtLock,
                    true => Next::WaitUntil(at.min(recheck)),
                    false => Next::WaitUntil(at),
                };
            }
            _ if now < at => return Next::WaitUntil(at),
            Lock::Unknown => return Next::LookAtLock,
            Lock::Free { seen } | Lock::Held { seen, .. } => seen,
        };
        if now > seen + LOCK_FRESH {
            return Next::LookAtLock;
        }
        if trigger == Trigger::Reactive && self.change.is_some() {
            self.bucket.take(now);
        }
        self.running = Some(trigger);
        self.change = None;
        Next::Scan {
            trigger,
            mid_transaction: matches!(self.lock, Lock::Held { .. }),
        }
    }

    /// The scan that [`Next::Scan`] asked for has ended.
    pub fn ended(&mut self, now: Instant, how: Ended) {
        let trigger = self.running.take().unwrap_or(Trigger::Scheduled);
        let delay = match how {
            Ended::Done => {
                self.failures = 0;
                self.due = now + self.pace.interval;
                self.due_as = Trigger::Scheduled;
                return;
            }
            // A new look at the lock paces the repetition: it waits for the transaction's end.
            Ended::Overtaken => self.pace.debounce,
            Ended::ScanFailed => self.failed(SCAN_RETRY),
            Ended::StoreFailed => self.failed(STORE_RETRY),
        };
        self.look = true;
        self.due = now + delay;
        self.due_as = trigger;
    }

    fn failed(&mut self, retry: Backoff) -> Duration {
        self.failures = self.failures.saturating_add(1);
        retry.delay(self.failures).min(self.pace.interval)
    }

    /// When the unanswered change may be scanned, as far as is known now.
    fn change_at(&self) -> Option<Instant> {
        let change = self.change.as_ref()?;
        let quiet = change.last + self.pace.debounce;
        let settled = match (self.lock, change.unlocked_since) {
            (Lock::Held { since, .. }, _) => quiet.max(since + self.pace.transaction_timeout),
            (_, Some(unlocked)) => quiet.min(unlocked + self.pace.max_delay),
            (_, None) => quiet,
        };
        Some(settled.max(self.bucket.ready_at()))
    }

    /// When the scheduled or repeated scan may run, as far as is known now.
    fn due_at(&self) -> Instant {
        match self.lock {
            Lock::Held { since, .. } => self.due.max(since + self.pace.transaction_timeout),
            Lock::Free { .. } | Lock::Unknown => self.due,
        }
    }
}

/// A token bucket in virtual time.
#[derive(Debug)]
struct Bucket {
    burst: u32,
    refill: Duration,
    tokens: u32,
    /// Tokens are counted up to this time.
    counted: Instant,
}

impl Bucket {
    fn full(burst: u32, refill: Duration, now: Instant) -> Self {
        Self {
            burst,
            refill,
            tokens: burst,
            counted: now,
        }
    }

    /// The earliest time at which there is a token.
    fn ready_at(&self) -> Instant {
        match self.tokens {
            0 => self.counted + self.refill,
            _ => self.counted,
        }
    }

    fn take(&mut self, now: Instant) {
        while self.tokens < self.burst && self.counted + self.refill <= now {
            self.counted += self.refill;
            self.tokens += 1;
        }
        if self.tokens == self.burst {
            self.counted = now;
        }
        self.tokens = self.tokens.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: Pace = Pace {
        reactive: true,
        debounce: Duration::from_millis(100),
        max_delay: Duration::from_secs(30),
        burst: 20,
        refill: Duration::from_secs(10),
        transaction_timeout: Duration::from_secs(30 * 60),
        interval: Duration::from_secs(4 * 3600),
    };

    #[test]
    fn a_change_is_scanned_after_the_debounce_time() {
        let mut guest = Guest::after_first_scan(PACE);
        guest.transaction(ms(50));
        let end = guest.now;
        guest.run_for(ms(1000));
        assert_eq!(
            guest.scans_since_first(),
            [(end + PACE.debounce, Trigger::Reactive, false)]
        );
    }

    #[test]
    fn a_long_transaction_is_waited_for_and_scanned_once() {
        let mut guest = Guest::after_first_scan(PACE);
        guest.transaction(Duration::from_secs(90));
        let end = guest.now;
        guest.run_for(Duration::from_secs(60));
        assert_eq!(
            guest.scans_since_first(),
            [(end + PACE.debounce, Trigger::Reactive, false)]
        );
    }

    #[test]
    fn a_hung_transaction_is_scanned_as_one_after_its_timeout() {
        let mut guest = Guest::after_first_scan(PACE);
        guest.begin();
        guest.run_for(PACE.transaction_timeout + ms(500));
        let scans = guest.scans_since_first();
        assert_eq!(scans.len(), 1);
        assert!(scans[0].2, "marked as taken in the middle");
        guest.end();
        guest.run_for(ms(500));
        assert!(
            !guest.scans.last().unwrap().2,
            "the state after it is reported too"
        );
    }

    #[test]
    fn back_to_back_transactions_do_not_postpone_a_scan_for_ever() {
        let mut guest = Guest::after_first_scan(PACE);
        let start = guest.now;
        while guest.now < start + Duration::from_secs(70) {
            guest.transaction(ms(60));
            guest.run_for(ms(15));
        }
        let scans = guest.scans_since_first();
        assert!(scans.len() >= 2, "{scans:?}");
        assert!(scans[0].0 <= start + PACE.max_delay + ms(200));
    }

    #[test]
    fn an_idle_guest_looks_at_nothing_between_scheduled_scans() {
        let mut guest = Guest::after_first_scan(PACE);
        let looks = guest.looks;
        guest.run_for(PACE.interval - ms(1000));
        assert_eq!((guest.looks, guest.scans_since_first().len()), (looks, 0));
        guest.run_for(ms(2000));
        assert_eq!(guest.scans.last().unwrap().1, Trigger::Scheduled);
    }

    #[test]
    fn failed_scans_are_repeated_later_and_later_but_within_the_interval() {
        let start = Instant::now();
        let mut rescan = Rescan::new(PACE, start);
        let (mut now, mut gaps) = (start, Vec::new());
        for _ in 0..7 {
            let begun = step_to_scan(&mut rescan, &mut now);
            gaps.push(begun.as_secs());
            rescan.ended(now, Ended::ScanFailed);
        }
        assert_eq!(gaps, [0, 120, 240, 480, 960, 1800, 1800]);
    }

    #[test]
    fn a_reactive_scan_that_could_not_be_kept_is_repeated_as_one() {
        let mut guest = Guest::after_first_scan(PACE);
        guest.end_scans_with = Ended::StoreFailed;
        guest.transaction(ms(50));
        guest.run_for(Duration::from_secs(20));
        assert!(guest.scans_since_first().len() > 2);
        assert!(
            guest
                .scans_since_first()
                .iter()
                .all(|s| s.1 == Trigger::Reactive)
        );
    }

    #[test]
    fn without_reactive_scans_changes_cause_none() {
        let mut guest = Guest::after_first_scan(Pace {
            reactive: false,
            ..PACE
        });
        guest.transaction(ms(50));
        guest.run_for(Duration::from_secs(3600));
        assert_eq!(guest.scans_since_first(), []);
    }

    #[test]
    fn other_knobs_hold_from_now_on() {
        let mut guest = Guest::after_first_scan(PACE);
        let quick = Pace {
            debounce: ms(1),
            interval: Duration::from_secs(300),
            ..PACE
        };
        guest.rescan.set_pace(quick, guest.now);
        guest.transaction(ms(50));
        let end = guest.now;
        guest.run_for(ms(1000));
        assert_eq!(
            guest.scans_since_first(),
            [(end + ms(1), Trigger::Reactive, false)]
        );
        guest.rescan.set_pace(
            Pace {
                reactive: false,
                ..quick
            },
            guest.now,
        );
        guest.transaction(ms(50));
        guest.run_for(Duration::from_secs(301));
        assert_eq!(guest.scans.last().unwrap().1, Trigger::Scheduled);
        assert_eq!(guest.scans_since_first().len(), 2);
    }

    #[derive(Clone, Debug)]
    enum Event {
        Idle(u64),
        Transaction(u64),
        TouchWithoutLock,
        Overtake,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0u64..20_000).prop_map(Event::Idle),
            (0u64..200).prop_map(Event::Idle),
            (1u64..5_000).prop_map(Event::Transaction),
            Just(Event::TouchWithoutLock),
            Just(Event::Overtake),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_the_rules_hold(events in proptest::collection::vec(event(), 1..80), burst in 1u32..5) {
            let pace = Pace { burst, max_delay: ms(2000), refill: Duration::from_secs(3), ..PACE };
            let mut guest = Guest::after_first_scan(pace);
            for event in events {
                match event {
                    Event::Idle(time) => guest.run_for(ms(time)),
                    Event::Transaction(time) => guest.transaction(ms(time)),
                    Event::TouchWithoutLock => guest.touch(false),
                    Event::Overtake => guest.overtake_next = true,
                }
            }
            let last_change = guest.last_change;
            guest.run_for(pace.refill + pace.max_delay + ms(500));
            // Every change is followed by a scan that began after it.
            if let Some(change) = last_change {
                prop_assert!(guest.scans.last().unwrap().0 >= change);
            }
            // No scan of a state in the middle of a transaction that has not timed out.
            prop_assert!(guest.scans.iter().all(|scan| !scan.2));
            // Reactive scans keep to the bucket over any stretch of time.
            let reactive: Vec<Instant> = guest.scans.iter().filter(|s| s.1 == Trigger::Reactive && !s.3).map(|s| s.0).collect();
            for (i, first) in reactive.iter().enumerate() {
                for (j, last) in reactive.iter().enumerate().skip(i) {
                    let granted = f64::from(burst) + (*last - *first).as_secs_f64() / pace.refill.as_secs_f64();
                    prop_assert!((j - i + 1) as f64 <= granted + 1.0);
                }
            }
        }
    }

    /// A guest in virtual time: transactions take the lock, scans take 5 ms.
    struct Guest {
        rescan: Rescan,
        now: Instant,
        lock: Option<i32>,
        next_pid: i32,
        scans: Vec<(Instant, Trigger, bool, bool)>,
        first: usize,
        looks: usize,
        last_change: Option<Instant>,
        overtake_next: bool,
        end_scans_with: Ended,
    }

    impl Guest {
        fn after_first_scan(pace: Pace) -> Self {
            let now = Instant::now();
            let mut guest = Self {
                rescan: Rescan::new(pace, now),
                now,
                lock: None,
                next_pid: 100,
                scans: Vec::new(),
                first: 0,
                looks: 0,
                last_change: None,
                overtake_next: false,
                end_scans_with: Ended::Done,
            };
            guest.run_for(ms(100));
            guest.first = guest.scans.len();
            assert_eq!(guest.first, 1);
            guest
        }

        fn scans_since_first(&self) -> Vec<(Instant, Trigger, bool)> {
            self.scans[self.first..]
                .iter()
                .map(|s| (s.0, s.1, s.2))
                .collect()
        }

        fn begin(&mut self) {
            self.next_pid += 1;
            self.lock = Some(self.next_pid);
            self.touch(false);
        }

        fn end(&mut self) {
            self.lock = None;
            self.touch(true);
        }

        fn transaction(&mut self, time: Duration) {
            self.begin();
            self.run_for(time / 2);
            self.touch(false);
            self.run_for(time / 2);
            self.end();
        }

        fn touch(&mut self, lock_closed: bool) {
            self.last_change = Some(self.now);
            self.rescan.touched(self.now, lock_closed);
            self.run_for(Duration::ZERO);
        }

        fn run_for(&mut self, time: Duration) {
            let end = self.now + time;
            let mut steps = 0;
            loop {
                steps += 1;
                assert!(steps < 100_000, "it spins at {:?}", self.rescan);
                match self.rescan.next(self.now) {
                    Next::LookAtLock => {
                        self.looks += 1;
                        self.rescan.lock_seen(self.now, self.lock);
                    }
                    Next::Scan {
                        trigger,
                        mid_transaction,
                    } => {
                        let repeated = self.rescan.due <= self.now && trigger == Trigger::Reactive;
                        let locked = self.lock.is_some();
                        assert!(!locked || mid_transaction, "scanned under a lock");
                        if std::mem::take(&mut self.overtake_next) {
                            self.rescan.ended(self.now, Ended::Overtaken);
                            continue;
                        }
                        self.scans
                            .push((self.now, trigger, mid_transaction, repeated));
                        self.rescan.ended(self.now, self.end_scans_with);
                    }
                    Next::WaitForScan => unreachable!("scans end at once here"),
                    Next::WaitUntil(at) if at <= end => {
                        assert!(at > self.now, "a wait that is over");
                        self.now = at;
                    }
                    Next::WaitUntil(_) => break,
                }
            }
            self.now = end;
        }
    }

    fn step_to_scan(rescan: &mut Rescan, now: &mut Instant) -> Duration {
        let start = *now;
        loop {
            match rescan.next(*now) {
                Next::LookAtLock => rescan.lock_seen(*now, None),
                Next::WaitUntil(at) => *now = at,
                Next::Scan { .. } => return *now - start,
                Next::WaitForScan => unreachable!(),
            }
        }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }
}
