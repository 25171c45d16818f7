//! Circuit breaker towards Central: while Central is down, ten thousand reports wait for one probe.

use super::outcome::Outcome;
use crate::clock::backoff::Backoff;
use crate::report::VmId;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Failures in a row, with nothing accepted or refused between, that are no longer one guest's.
const STREAK: u32 = 10;

/// So many failures, over this time and without a success, are no longer one guest's either: that of a
/// fleet in which one report waits.
const SLOW_STREAK: (u32, Duration) = (3, Duration::from_secs(30));

/// Guests for which Central forbids reports, with nothing accepted between: then it is all of them.
const FORBIDDEN_GUESTS: usize = 3;

/// The same of answers that ask for patience: up to here it may be one guest that talks too much, and
/// the others are tried one at a time.
const BUSY_STREAK: u32 = 3;

/// Between two probes: one request in ten seconds is no load, and no report waits longer than that
/// once Central is back.
const AWAY: Backoff = Backoff {
    floor: Duration::from_secs(1),
    ceiling: Duration::from_secs(10),
};

/// The same while Central asks for patience. Each report waits as long as it was asked for; it may have
/// been asked for of some guests only, so that another is tried before.
const BUSY: Backoff = Backoff {
    floor: Duration::from_secs(1),
    ceiling: Duration::from_secs(5),
};

const UNAUTHORIZED: Backoff = Backoff {
    floor: Duration::from_secs(10),
    ceiling: Duration::from_secs(300),
};

/// May something be sent?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerGate {
    /// As much as there is.
    Open,
    /// One, to see whether Central is back.
    Probe,
    /// Nothing before this time.
    Shut(Instant),
    /// Nothing until the probe is answered.
    Probing,
}

/// What it remembers of Central's answers.
#[derive(Debug, Default)]
pub struct Breaker {
    streak: u32,
    /// When the streak began.
    failing_since: Option<Instant>,
    busy: u32,
    /// Guests whose last report was forbidden.
    forbidden: BTreeSet<VmId>,
    /// Those of them since something was accepted.
    forbidden_in_a_row: BTreeSet<VmId>,
    trip: Option<Trip>,
    /// Why documents of facts alone were not taken the last time; `None` while they are.
    facts_skipped: Option<String>,
}

#[derive(Debug)]
struct Trip {
    until: Instant,
    probes: u32,
    reason: &'static str,
    said: String,
}

impl Breaker {
    /// Takes note of what became of a document of facts alone. Says whether that is another answer than
    /// the one before.
    pub fn note_facts(&mut self, outcome: &Outcome) -> bool {
        let skipped = match outcome {
            Outcome::Skipped(_) => outcome.said().map(Cow::into_owned),
            Outcome::Accepted => None,
            _ => return false,
        };
        let is_other = self.facts_skipped != skipped;
        self.facts_skipped = skipped;
        is_other
    }

    /// Why documents of facts alone are not taken; `None` while they are.
    pub fn facts_skipped(&self) -> Option<&str> {
        self.facts_skipped.as_deref()
    }

    /// What may be sent while `in_flight` deliveries are under way.
    pub fn gate(&self, now: Instant, in_flight: usize) -> BreakerGate {
        match &self.trip {
            // One guest was forbidden: the next tells whether all are.
            None if self.forbidden_in_a_row.is_empty() => BreakerGate::Open,
            None if in_flight == 0 => BreakerGate::Probe,
            None => BreakerGate::Probing,
            Some(trip) if now < trip.until => BreakerGate::Shut(trip.until),
            Some(_) if in_flight == 0 => BreakerGate::Probe,
            Some(_) => BreakerGate::Probing,
        }
    }

    /// Takes note of an outcome; says whether it counts against its report. `jitter` is uniform in
    /// 0..1.
    pub fn note(&mut self, vm: &VmId, outcome: &Outcome, now: Instant, jitter: f64) -> bool {
        let said = outcome.said().unwrap_or_default();
        match outcome {
            Outcome::Accepted | Outcome::Refused(_) | Outcome::RefusedForGood(_) => {
                (self.streak, self.busy, self.trip) = (0, 0, None);
                self.failing_since = None;
                self.forbidden.remove(vm);
                self.forbidden_in_a_row.clear();
                true
            }
            Outcome::Skipped(_)
            | Outcome::Superseded(_)
            | Outcome::Postponed
            | Outcome::Damaged(_) => false,
            Outcome::Failed(_) => {
                self.streak += 1;
                let since = *self.failing_since.get_or_insert(now);
                let (slow, time) = SLOW_STREAK;
                let is_slow = self.streak >= slow && now.saturating_duration_since(since) >= time;
                if self.trip.is_none() && self.streak < STREAK && !is_slow {
                    return true;
                }
                self.trip(now, AWAY, "failing", &said, jitter);
                false
            }
            Outcome::Unreachable(_) => {
                self.trip(now, AWAY, "unreachable", &said, jitter);
                false
            }
            Outcome::Unauthorized(_) => {
                self.trip(now, UNAUTHORIZED, "unauthorized", &said, jitter);
                false
            }
            Outcome::StoreUnreadable(_) => {
                self.trip(now, AWAY, "store", &said, jitter);
                false
            }
            Outcome::Forbidden(_) => {
                self.forbidden.insert(vm.clone());
                self.forbidden_in_a_row.insert(vm.clone());
                if self.forbidden_in_a_row.len() >= FORBIDDEN_GUESTS {
                    // As often as while Central is away: where it is some guests only, those that may be
                    // reported wait behind each of them for a probe.
                    self.trip(now, AWAY, "unauthorized", &said, jitter);
                }
                false
            }
            Outcome::Busy { retry_after, .. } => {
                self.busy += 1;
                self.trip(now, BUSY, "busy", &said, jitter);
                if let Some(trip) = &mut self.trip {
                    trip.until = match retry_after {
                        _ if self.busy < BUSY_STREAK => now,
                        Some(pause) => trip.until.max(now + (*pause).min(BUSY.ceiling)),
                        None => trip.until,
                    };
                }
                false
            }
        }
    }

    fn trip(
        &mut self,
        now: Instant,
        backoff: Backoff,
        reason: &'static str,
        said: &str,
        jitter: f64,
    ) {
        let probes = match &self.trip {
            // Sent before it tripped: not another probe that failed.
            Some(trip) if now < trip.until => return,
            Some(trip) => trip.probes + 1,
            None => 1,
        };
        self.trip = Some(Trip {
            until: now + backoff.half_jitter(probes, jitter),
            probes,
            reason,
            said: said.to_owned(),
        });
    }

    /// Guests whose last report Central forbade.
    pub fn forbidden(&self) -> impl Iterator<Item = &VmId> {
        self.forbidden.iter()
    }

    /// Why nothing is sent: a word, and what Central said; `None` while all is well.
    pub fn trouble(&self) -> Option<(&'static str, &str)> {
        self.trip
            .as_ref()
            .map(|trip| (trip.reason, trip.said.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn vm(n: usize) -> VmId {
        format!("vm-{n}").parse().unwrap()
    }

    /// Loss prevented: everybody waits for minutes because one guest may not be reported.
    #[test]
    fn a_guest_that_is_forbidden_holds_up_no_other_until_others_are_too() {
        let now = clock::now();
        let mut breaker = Breaker::default();
        let forbidden = Outcome::Forbidden("403".into());
        // However often it is the same one.
        for _ in 0..20 {
            assert!(!breaker.note(&vm(0), &forbidden, now, 0.5));
            assert_eq!(breaker.gate(now, 0), BreakerGate::Probe);
            assert_eq!(breaker.gate(now, 1), BreakerGate::Probing);
        }
        assert_eq!(breaker.trouble(), None);
        assert_eq!(breaker.forbidden().count(), 1);
        breaker.note(&vm(1), &Outcome::Accepted, now, 0.5);
        assert_eq!(breaker.gate(now, 7), BreakerGate::Open);
        for n in 2..5 {
            assert_eq!(breaker.trouble(), None);
            breaker.note(&vm(n), &forbidden, now, 0.5);
        }
        assert!(matches!(breaker.gate(now, 0), BreakerGate::Shut(_)));
        assert_eq!(breaker.trouble(), Some(("unauthorized", "403")));
        breaker.note(&vm(0), &Outcome::Accepted, now, 0.5);
        assert_eq!(breaker.gate(now, 7), BreakerGate::Open);
        assert_eq!(breaker.forbidden().count(), 3);
    }

    /// Loss prevented: a guest that may be reported waits for five minutes behind each one that may not.
    #[test]
    fn probes_among_forbidden_guests_are_never_more_than_ten_seconds_apart() {
        let mut now = clock::now();
        let mut breaker = Breaker::default();
        for n in 0..20 {
            breaker.note(&vm(n), &Outcome::Forbidden("403".into()), now, 1.0);
            if let BreakerGate::Shut(until) = breaker.gate(now, 0) {
                assert!(until - now <= AWAY.ceiling, "{:?}", until - now);
                now = until;
            }
            assert_eq!(breaker.gate(now, 0), BreakerGate::Probe);
        }
        assert_eq!(breaker.trouble(), Some(("unauthorized", "403")));
    }

    #[test]
    fn one_report_that_fails_for_long_without_any_success_is_centrals_outage() {
        let mut now = clock::now();
        let mut breaker = Breaker::default();
        let failed = Outcome::Failed("502".into());
        for _ in 0..3 {
            assert!(breaker.note(&vm(0), &failed, now, 0.5));
            now += Duration::from_secs(12);
        }
        assert!(!breaker.note(&vm(0), &failed, now, 0.5));
        assert_eq!(breaker.trouble(), Some(("failing", "502")));
    }

    #[test]
    fn a_store_that_cannot_be_read_pauses_and_counts_against_nobody() {
        let now = clock::now();
        let mut breaker = Breaker::default();
        let unread = Outcome::StoreUnreadable("EIO".into());
        assert!(!breaker.note(&vm(0), &unread, now, 0.5));
        assert!(matches!(breaker.gate(now, 0), BreakerGate::Shut(_)));
        assert_eq!(breaker.trouble(), Some(("store", "EIO")));
    }

    #[test]
    fn when_central_is_gone_one_probe_at_a_time_asks_for_it() {
        let now = clock::now();
        let mut breaker = Breaker::default();
        assert_eq!(breaker.gate(now, 7), BreakerGate::Open);
        for _ in 0..20 {
            let counts = breaker.note(&vm(0), &Outcome::Unreachable("refused".into()), now, 1.0);
            assert!(!counts);
        }
        let until = now + Duration::from_secs(1);
        assert_eq!(breaker.gate(now, 0), BreakerGate::Shut(until));
        assert_eq!(breaker.gate(until, 1), BreakerGate::Probing);
        assert_eq!(breaker.gate(until, 0), BreakerGate::Probe);
        breaker.note(&vm(0), &Outcome::Unreachable("refused".into()), until, 1.0);
        let later = until + Duration::from_secs(2);
        assert_eq!(breaker.gate(until, 0), BreakerGate::Shut(later));
        breaker.note(&vm(0), &Outcome::Accepted, later, 1.0);
        assert_eq!(breaker.gate(later, 3), BreakerGate::Open);
        assert_eq!(breaker.trouble(), None);
    }

    #[test]
    fn one_guest_that_always_fails_does_not_stop_the_others() {
        let now = clock::now();
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert!(breaker.note(&vm(0), &Outcome::Failed("500".into()), now, 0.5));
            breaker.note(&vm(0), &Outcome::Accepted, now, 0.5);
        }
        assert_eq!(breaker.gate(now, 0), BreakerGate::Open);
    }

    /// Ten thousand reports would become dead letters for Central's own trouble.
    #[test]
    fn failures_in_a_row_are_centrals_and_not_the_reports() {
        let now = clock::now();
        let mut breaker = Breaker::default();
        let counted = (0..100)
            .filter(|_| breaker.note(&vm(0), &Outcome::Failed("500".into()), now, 0.5))
            .count();
        assert_eq!(counted, 9);
        assert!(matches!(breaker.gate(now, 0), BreakerGate::Shut(_)));
    }

    #[test]
    fn a_pause_that_central_asks_for_is_kept_but_another_guest_is_tried_now_and_then() {
        let now = clock::now();
        let mut breaker = Breaker::default();
        let busy = Outcome::Busy {
            retry_after: Some(Duration::from_secs(120)),
            said: "429".into(),
        };
        // One guest may have asked too often: the others are tried, one at a time.
        for _ in 0..2 {
            breaker.note(&vm(0), &busy, now, 0.0);
            assert_eq!(breaker.gate(now, 0), BreakerGate::Probe);
            assert_eq!(breaker.gate(now, 1), BreakerGate::Probing);
        }
        breaker.note(&vm(0), &busy, now, 0.0);
        let until = now + BUSY.ceiling;
        assert_eq!(breaker.gate(now, 0), BreakerGate::Shut(until));
        assert_eq!(breaker.gate(until, 0), BreakerGate::Probe);
    }
}
