//! Whether work still gets on: it may take as long as it needs, as long as there is progress.

use std::time::{Duration, Instant};

/// Sees whether work makes progress.
#[derive(Debug)]
pub struct Watchdog {
    /// Work that made no progress for this long hangs.
    limit: Duration,
    progress: u64,
    since: Instant,
}

impl Watchdog {
    /// Of work that hangs when it makes no progress for as long as `limit`.
    pub fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            progress: 0,
            since: now,
        }
    }

    /// Whether all is well: nothing is being done, or it got on within the limit. `progress` counts what was
    /// done so far.
    pub fn is_well(&mut self, now: Instant, is_working: bool, progress: u64) -> bool {
        if !is_working || progress != self.progress {
            (self.progress, self.since) = (progress, now);
        }
        now < self.since + self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(600);

    // The loss: an agent that is killed again and again in the middle of the scan of a slow disk.
    #[test]
    fn only_work_that_stands_still_is_not_well() {
        let start = crate::clock::now();
        let mut watchdog = Watchdog::new(LIMIT, start);
        let mut now = start;
        for progress in 1..100 {
            now += LIMIT / 2;
            assert!(watchdog.is_well(now, true, progress));
        }
        assert!(watchdog.is_well(now + LIMIT / 2, true, 99));
        assert!(!watchdog.is_well(now + LIMIT, true, 99));
        assert!(watchdog.is_well(now + LIMIT, false, 99));
        // The next has its time from its beginning on.
        assert!(watchdog.is_well(now + LIMIT + LIMIT / 2, true, 99));
    }
}
