//! When to scan again: a pure state machine of changes, the transaction lock, and time.
//!
//! ```text
//! touched ──► is a transaction running? ── yes ──► wait for its end, at most transaction_timeout
//!                      │ no
//!                      ▼
//!             leading edge:  the lock file was closed, and before this change it was quiet for debounce:
//!                            at once
//!             trailing edge: quiet for debounce, in a series of transactions for longer than its pauses,
//!                            or max_delay since the first change seen without a lock
//!                      ▼
//!             a token of the bucket ──► Scan (reactive)
//!
//! interval over, or a failed scan is to be repeated ──► same lock rule ──► Scan (scheduled)
//! ```
//!
//! What always holds (the property tests below): every change is followed by a scan that began
//! after it; no scan begins while a transaction holds the lock, until its timeout; changes that follow
//! one another within `debounce` have at most one scan at the leading edge; a series of transactions has one more
//! when it is over, as long as no pause in it is three times as long as all before; transactions
//! back to back do not postpone a scan beyond `max_delay`; reactive scans keep to the bucket;
//! looks at the lock are bounded, however many events there are;
//! without changes there is nothing but scheduled scans.

use crate::clock::backoff::Backoff;
use crate::report::Trigger;
use std::time::{Duration, Instant};

/// A held lock is looked at again this often, should its release not show as an event.
const LOCK_RECHECK: Duration = Duration::from_secs(1);

/// What was seen of the lock is good for this long when a scan is to begin.
const LOCK_FRESH: Duration = Duration::from_millis(20);

/// Between two looks at the lock that writes ask for, and between two that a closed lock file asks for.
const LOOK_PACE: Duration = Duration::from_millis(20);

/// After a reactive scan it is quiet again when so many times the debounce time is over: of transactions
/// that follow one another slowly, each end would be scanned at once and once more.
const QUIET_AFTER_SCAN: u32 = 3;

/// A series of transactions, such as zypper makes of one installation, is over when so many times its longest pause
/// has passed: on a busy machine its next transaction may begin later than `debounce` after the one before.
const PAUSES: u32 = 3;

/// But never later than this, or than `debounce`.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

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

/// Repeats while the database changes during every scan.
const CHANGING_RETRY: Backoff = Backoff {
    floor: Duration::from_millis(100),
    ceiling: Duration::from_secs(60),
};

/// Quiet time after which a database that changed during every scan is scanned at once.
const CALM: Duration = Duration::from_secs(1);

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
    /// A transaction began meanwhile: the same scan is requested again, and nothing failed.
    Overtaken,
    /// The database was written to all the time, without a transaction.
    Changing,
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
    /// An event asks for a look at the lock at this time, whatever was seen before.
    look_at: Option<Instant>,
    /// The last look after the lock file was closed.
    close_looked: Option<Instant>,
    /// The last event.
    last_touch: Option<Instant>,
    /// Whether it was the end of a transaction.
    is_between: bool,
    /// The longest pause between two transactions of the series that goes on.
    pause: Duration,
    /// When the last reactive scan began.
    last_reactive: Option<Instant>,
    bucket: Bucket,
    due: Instant,
    /// What the scan at `due` is: scheduled, or the repetition of a failed one.
    due_as: Trigger,
    failures: u32,
    /// Scans in a row during which the database was written to.
    changing: u32,
    /// While it is, no change is scanned before this time.
    not_before: Option<Instant>,
    running: Option<Trigger>,
    /// A scan was requested while one ran, which may have read too early.
    requested_again: bool,
}

/// A change that no scan has answered.
#[derive(Debug)]
struct Change {
    last: Instant,
    /// Before the first event of this change there was none for the debounce time, and no scan for longer.
    is_after_quiet: bool,
    /// The last event was the end of a transaction.
    is_closed: bool,
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

impl Lock {
    /// When it was looked at.
    fn seen(self) -> Option<Instant> {
        match self {
            Self::Unknown => None,
            Self::Free { seen } | Self::Held { seen, .. } => Some(seen),
        }
    }
}

impl Rescan {
    /// A first scan is due at once.
    pub fn new(pace: Pace, now: Instant) -> Self {
        Self {
            pace,
            change: None,
            lock: Lock::Unknown,
            look_at: None,
            close_looked: None,
            last_touch: None,
            is_between: false,
            pause: Duration::ZERO,
            last_reactive: None,
            bucket: Bucket::full(pace.burst, pace.refill, now),
            due: now,
            due_as: Trigger::Scheduled,
            failures: 0,
            changing: 0,
            not_before: None,
            running: None,
            requested_again: false,
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
        let debounce = self.pace.debounce;
        let is_quiet = |since: Option<Instant>, time| since.is_none_or(|since| since + time <= now);
        let is_after_quiet = is_quiet(self.last_touch, debounce)
            && is_quiet(self.last_reactive, debounce * QUIET_AFTER_SCAN);
        self.note_pause(now, lock_closed);
        let change = self.change.get_or_insert(Change {
            last: now,
            is_after_quiet,
            is_closed: false,
            unlocked_since: None,
        });
        change.last = now;
        change.is_closed = lock_closed;
        // While a transaction is known to run its writes say nothing new.
        if lock_closed || !matches!(self.lock, Lock::Held { .. }) {
            let last = match lock_closed {
                true => self.close_looked,
                false => self.lock.seen(),
            };
            let at = last.map_or(now, |last| now.max(last + LOOK_PACE));
            self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
        }
    }

    /// An event, which perhaps ends a pause between two transactions.
    fn note_pause(&mut self, now: Instant, lock_closed: bool) {
        let apart = (self.pace.debounce * QUIET_AFTER_SCAN).max(self.quiet_time());
        let pause = self.last_touch.map_or(Duration::MAX, |last| now - last);
        // A transaction may write rarely.
        let is_inside = !self.is_between && matches!(self.lock, Lock::Held { .. });
        if pause >= apart && !is_inside {
            self.pause = Duration::ZERO;
        } else if self.is_between {
            self.pause = self.pause.max(pause);
        }
        self.last_touch = Some(now);
        self.is_between = lock_closed;
    }

    /// How long it is quiet when what was going on is over.
    fn quiet_time(&self) -> Duration {
        let longer = (self.pause * PAUSES).min(LONGEST_PAUSE);
        longer.max(self.pace.debounce)
    }

    /// Something else than packages changed what a report says: scan at the next occasion, with a scan
    /// that begins from now on.
    pub fn request_scan(&mut self, now: Instant) {
        self.due = self.due.min(now);
        self.requested_again = self.running.is_some();
    }

    /// Scans in a row during which the database was written to; 0 when the last one ended otherwise.
    pub fn changing(&self) -> u32 {
        self.changing
    }

    /// The lock was looked at: the process that holds it, if any.
    pub fn lock_seen(&mut self, now: Instant, holder: Option<i32>) {
        self.look_at = None;
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
        if let Some(change) = &mut self.change {
            if change.is_closed {
                self.close_looked = Some(now);
            }
            match holder {
                None => drop(change.unlocked_since.get_or_insert(now)),
                // Somebody else has closed the lock file.
                Some(_) => change.is_closed = false,
            }
        }
    }

    /// What to do now. `Scan` is said once; the scan counts as running from then on.
    pub fn next(&mut self, now: Instant) -> Next {
        match (self.decide(now), self.look_at) {
            (Next::WaitForScan, _) => Next::WaitForScan,
            (Next::WaitUntil(at), Some(look)) if now < look => Next::WaitUntil(at.min(look)),
            (_, Some(_)) => Next::LookAtLock,
            (Next::Scan { trigger, .. }, None) => self.begin(now, trigger),
            (next, None) => next,
        }
    }

    /// What would be done if no event had asked for a look at the lock.
    fn decide(&self, now: Instant) -> Next {
        if self.running.is_some() {
            return Next::WaitForScan;
        }
        let (at, trigger) = match self.change_at() {
            Some(at) if at <= self.due_at() => (at, Trigger::Reactive),
            _ => (self.due_at(), self.due_as),
        };
        let seen = match self.lock {
            Lock::Held { seen, .. } if now < at => {
                let requested = self.change.is_some() || self.due <= now;
                let recheck = seen + LOCK_RECHECK;
                return match requested {
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
        Next::Scan {
            trigger,
            mid_transaction: matches!(self.lock, Lock::Held { .. }),
        }
    }

    fn begin(&mut self, now: Instant, trigger: Trigger) -> Next {
        if trigger == Trigger::Reactive && self.change.is_some() {
            self.bucket.take(now);
            self.last_reactive = Some(now);
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
        let requested_again = std::mem::take(&mut self.requested_again);
        self.changing = match how {
            Ended::Changing => self.changing.saturating_add(1),
            _ => 0,
        };
        self.not_before = None;
        let delay = match how {
            Ended::Done => {
                self.failures = 0;
                self.due = if requested_again {
                    now
                } else {
                    now + self.pace.interval
                };
                self.due_as = Trigger::Scheduled;
                return;
            }
            // A new look at the lock paces the repetition: it waits for the transaction's end.
            Ended::Overtaken => self.pace.debounce,
            Ended::Changing => {
                let delay = CHANGING_RETRY.delay(self.changing).max(self.pace.debounce);
                let delay = delay.min(self.pace.interval);
                self.not_before = Some(now + delay);
                delay
            }
            Ended::ScanFailed => self.failed(SCAN_RETRY),
            Ended::StoreFailed => self.failed(STORE_RETRY),
        };
        self.look_at = Some(now);
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
        let quiet = change.last + self.quiet_time();
        let settled = match (self.lock, change.unlocked_since) {
            (Lock::Held { since, .. }, _) => quiet.max(since + self.pace.transaction_timeout),
            // The leading edge: a transaction has ended, and nothing was going on before it.
            (_, Some(_)) if change.is_closed && change.is_after_quiet => change.last,
            (_, Some(unlocked)) => quiet.min(unlocked + self.pace.max_delay),
            (_, None) => quiet,
        };
        // A writer that has stopped is not waited for.
        let not_before = self.not_before.map(|time| time.min(change.last + CALM));
        let settled = settled.max(self.bucket.ready_at());
        Some(not_before.map_or(settled, |time| settled.max(time)))
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
mod tests;
