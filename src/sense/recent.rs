//! Reports that sinks accepted lately, in memory: how long each took since the change in its guest. For the live feed;
//! nothing of it is stored, and after a restart it begins empty.
//!
//! A ring of [`KEPT`]: beyond it the oldest goes, and who reads too slowly misses it.

use super::sink_name::SinkName;
use crate::report::{ReportKey, VmId};
use serde::Serialize;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Most that are kept.
pub const KEPT: usize = 1024;

/// A sink that accepted the report of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Acceptance {
    /// Its name; `default` is the one without a name.
    pub sink: String,
    /// Milliseconds since the agent made the report.
    pub after_ms: u64,
}

/// The same with its report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptedReport {
    /// The guest.
    pub vm: String,
    /// The report, as a change names it.
    pub report: String,
    /// Where, and when.
    #[serde(flatten)]
    pub accepted: Acceptance,
}

/// What is kept of it.
struct Entry {
    vm: VmId,
    report: ReportKey,
    sink: SinkName,
    after: Duration,
    at: Instant,
}

impl Entry {
    fn accepted(&self) -> Acceptance {
        Acceptance {
            sink: self.sink.as_str().to_owned(),
            after_ms: u64::try_from(self.after.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The newest of them.
#[derive(Default)]
pub struct RecentAcceptances {
    ring: Mutex<Ring>,
}

#[derive(Default)]
struct Ring {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// The number of the next one.
    next: u64,
}

impl RecentAcceptances {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sink accepted the report of a change, so long after it. What it accepts once more does not count.
    pub fn note(
        &self,
        vm: &VmId,
        report: ReportKey,
        sink: &SinkName,
        after: Duration,
        at: Instant,
    ) {
        let mut ring = self.ring();
        let is_same =
            |entry: &Entry| entry.vm == *vm && entry.report == report && entry.sink == *sink;
        if ring.entries.iter().any(is_same) {
            return;
        }
        if ring.entries.len() == KEPT {
            ring.entries.pop_front();
        }
        ring.next += 1;
        ring.entries.push_back(Entry {
            vm: vm.clone(),
            report,
            sink: sink.clone(),
            after,
            at,
        });
    }

    /// The number behind which all come that are not noted yet.
    pub fn next(&self) -> u64 {
        self.ring().next
    }

    /// The number behind which those come that were noted at this time or later.
    pub fn since(&self, at: Instant) -> u64 {
        let ring = self.ring();
        let later = ring.entries.iter().rev().take_while(|entry| entry.at >= at);
        ring.next - later.count() as u64
    }

    /// Those behind a number that are still kept, the oldest first, and the number behind the last one.
    pub fn behind(&self, number: u64) -> (Vec<AcceptedReport>, u64) {
        let ring = self.ring();
        let first = ring.next - ring.entries.len() as u64;
        let skipped = usize::try_from(number.saturating_sub(first)).unwrap_or(usize::MAX);
        let behind = ring.entries.iter().skip(skipped);
        let behind = behind.map(|entry| AcceptedReport {
            vm: entry.vm.as_str().to_owned(),
            report: entry.report.to_string(),
            accepted: entry.accepted(),
        });
        (behind.collect(), ring.next)
    }

    /// All that are kept, by guest and report.
    pub fn by_report(&self) -> HashMap<(String, String), Vec<Acceptance>> {
        let mut found: HashMap<_, Vec<_>> = HashMap::new();
        for entry in &self.ring().entries {
            let key = (entry.vm.as_str().to_owned(), entry.report.to_string());
            found.entry(key).or_default().push(entry.accepted());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::report::{Epoch, Generation};

    fn key(generation: u32) -> ReportKey {
        ReportKey {
            epoch: Epoch::new(7),
            generation: Generation::new(generation).unwrap(),
        }
    }

    #[test]
    fn each_report_counts_once_a_sink_and_the_oldest_go() {
        let (recent, now) = (RecentAcceptances::default(), clock::now());
        let (vm, second): (VmId, SinkName) = ("a".parse().unwrap(), "siem".parse().unwrap());
        let default = SinkName::default();
        let ms = Duration::from_millis;
        recent.note(&vm, key(1), &default, ms(143), now);
        recent.note(&vm, key(1), &second, ms(200), now);
        // Sent again, as after a retry.
        recent.note(&vm, key(1), &default, ms(900), now);
        let (all, next) = recent.behind(0);
        let shown: Vec<_> = all
            .iter()
            .map(|it| {
                (
                    &*it.vm,
                    &*it.report,
                    &*it.accepted.sink,
                    it.accepted.after_ms,
                )
            })
            .collect();
        assert_eq!(
            shown,
            [("a", "7:1", "default", 143), ("a", "7:1", "siem", 200)]
        );
        assert_eq!((next, recent.next()), (2, 2));
        assert_eq!(recent.by_report()[&("a".into(), "7:1".into())].len(), 2);
        for generation in 2..=u32::try_from(KEPT).unwrap() + 1 {
            recent.note(&vm, key(generation), &default, ms(1), now + ms(1));
        }
        let (rest, next) = recent.behind(2);
        assert_eq!((rest.len(), next), (KEPT, 2 + KEPT as u64));
        assert_eq!(recent.behind(0).0, rest, "those before are gone");
        assert_eq!(recent.behind(next).0, []);
        assert_eq!(recent.behind(u64::MAX).0, []);
        assert_eq!(recent.since(now + ms(1)), 2);
        assert_eq!(recent.since(now + ms(2)), next);
    }
}
