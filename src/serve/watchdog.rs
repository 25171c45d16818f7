//! Whether the agent still gets on: a scan may take as long as it needs, as long as it reads.

use std::time::{Duration, Instant};

/// A scan that has looked at nothing new for this long hangs.
const STUCK: Duration = Duration::from_secs(10 * 60);

/// Sees whether a scan makes progress.
#[derive(Debug)]
pub(super) struct Watchdog {
    progress: u64,
    since: Instant,
}

impl Watchdog {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            progress: 0,
            since: now,
        }
    }

    /// Whether all is well: no scan runs, or the one that does got on within the last ten minutes.
    /// `progress` counts what scans have looked at so far.
    pub(super) fn is_well(&mut self, now: Instant, is_scanning: bool, progress: u64) -> bool {
        if !is_scanning || progress != self.progress {
            (self.progress, self.since) = (progress, now);
        }
        now < self.since + STUCK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The loss: an agent that is killed again and again in the middle of the scan of a slow disk.
    #[test]
    fn only_a_scan_that_stands_still_is_not_well() {
        let start = crate::clock::now();
        let mut watchdog = Watchdog::new(start);
        let mut now = start;
        for progress in 1..100 {
            now += STUCK / 2;
            assert!(watchdog.is_well(now, true, progress));
        }
        assert!(watchdog.is_well(now + STUCK / 2, true, 99));
        assert!(!watchdog.is_well(now + STUCK, true, 99));
        assert!(watchdog.is_well(now + STUCK, false, 99));
        // The next scan has its time from its beginning on.
        assert!(watchdog.is_well(now + STUCK + STUCK / 2, true, 99));
    }
}
