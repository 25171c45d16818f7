//! Whether the store takes reports, as `status` tells it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longer than any guest waits before its report is tried again: a refusal that none repeated by then is no
/// trouble any more.
const LASTS: Duration = Duration::from_secs(3600);

/// The last refusal of the disk, until a report is durable again.
#[derive(Debug, Default)]
pub(super) struct LastRefusal(Mutex<Option<Refusal>>);

#[derive(Debug)]
struct Refusal {
    error: String,
    at: Instant,
    /// A report was among what was refused. What carries none fits on a disk that is nearly full.
    has_report: bool,
}

impl LastRefusal {
    /// The disk refused a transaction.
    pub(super) fn refused(&self, error: &str, has_report: bool, now: Instant) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let had_report = last.as_ref().is_some_and(|last| last.has_report);
        *last = Some(Refusal {
            error: error.to_owned(),
            at: now,
            has_report: has_report || had_report,
        });
    }

    /// The disk took a transaction.
    pub(super) fn durable(&self, has_report: bool) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.take().filter(|last| last.has_report && !has_report);
    }

    /// What is wrong with the disk.
    pub(super) fn trouble(&self, now: Instant) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref();
        let last = last.filter(|last| now.saturating_duration_since(last.at) < LASTS);
        last.map(|last| last.error.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// Loss prevented: a sensor that keeps no report any more, and whose state is ok.
    #[test]
    fn a_refused_report_is_trouble_until_one_is_durable_or_none_was_refused_for_an_hour() {
        let (last, now) = (LastRefusal::default(), clock::now());
        assert_eq!(last.trouble(now), None);
        last.refused("full", true, now);
        // What needs little room was written meanwhile, or was refused as well.
        last.durable(false);
        assert_eq!(last.trouble(now).as_deref(), Some("full"));
        last.refused("quota", false, now);
        last.durable(false);
        assert_eq!(last.trouble(now).as_deref(), Some("quota"));
        last.durable(true);
        assert_eq!(last.trouble(now), None);
        last.refused("full", false, now);
        last.durable(false);
        assert_eq!(last.trouble(now), None);
        last.refused("full", true, now);
        assert!(last.trouble(now + LASTS - Duration::from_secs(1)).is_some());
        assert_eq!(last.trouble(now + LASTS), None);
    }
}
