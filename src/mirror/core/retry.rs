//! Asking again, as often and as long as makes sense.

use super::Exchange;
use crate::clock::{self, backoff::Backoff};
use crate::http::{HttpResponse, retry_after};
use std::time::{Duration, Instant};

/// Times one thing is asked for.
const ATTEMPTS: u32 = 3;
const BETWEEN: Backoff = Backoff {
    floor: Duration::from_millis(500),
    ceiling: Duration::from_secs(5),
};

/// What is left of the attempts and of the time for one answer.
pub(super) struct RetryBudget {
    begin: Instant,
    deadline: Duration,
    attempt: u32,
}

impl RetryBudget {
    pub(super) fn new(deadline: Duration) -> Self {
        Self {
            begin: clock::now(),
            deadline,
            attempt: 1,
        }
    }

    /// Time that is left.
    pub(super) fn left(&self) -> Duration {
        let passed = clock::now().saturating_duration_since(self.begin);
        self.deadline.saturating_sub(passed)
    }

    /// Lets `exchange` wait as long as was `asked`, else a while; false when there is nothing to wait for.
    pub(super) fn wait(&mut self, exchange: &dyn Exchange, asked: Option<Duration>) -> bool {
        let wait = asked.unwrap_or_else(|| BETWEEN.half_jitter(self.attempt, fastrand::f64()));
        if self.attempt == ATTEMPTS || wait >= self.left() {
            return false;
        }
        exchange.pause(wait);
        self.attempt += 1;
        true
    }
}

/// Whether a status is a trouble that may pass.
pub(super) fn passes(status: u16) -> bool {
    matches!(status, 429 | 500 | 502..=504)
}

/// How long the server wants to be left alone.
pub(super) fn asked_to_wait(response: &HttpResponse) -> Option<Duration> {
    retry_after(response, Duration::from_millis(clock::wall_now().unix_ms()))
}
