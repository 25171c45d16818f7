//! A limit on log lines that peers can cause as often as they like: one a minute.

use crate::clock;
use std::time::{Duration, Instant};

/// Between two log lines about the same kind of trouble with peers.
const QUIET: Duration = Duration::from_secs(60);

/// When a line about one kind of trouble was written last.
#[derive(Debug, Default)]
pub(super) struct RateLimitedLog(Option<Instant>);

impl RateLimitedLog {
    /// Whether a line may be written now; then the next may in a minute.
    pub(super) fn is_due(&mut self) -> bool {
        self.is_due_at(clock::now())
    }

    fn is_due_at(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now >= last + QUIET);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_line_waits_a_minute() {
        let now = clock::now();
        let mut log = RateLimitedLog::default();
        assert!(log.is_due_at(now) && !log.is_due_at(now + QUIET / 2));
        assert!(log.is_due_at(now + QUIET) && !log.is_due_at(now + QUIET));
    }
}
