//! A token bucket: how often something may happen, with a burst.

use std::time::{Duration, Instant};

/// Tokens that come back with time, up to a burst.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    tokens: f64,
    burst: f64,
    per_second: f64,
    counted_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn full(burst: f64, per_second: f64, now: Instant) -> Self {
        Self {
            tokens: burst,
            burst,
            per_second,
            counted_at: now,
        }
    }

    /// Tokens there are now.
    pub fn level(&mut self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.counted_at);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        self.counted_at = self.counted_at.max(now);
        self.tokens
    }

    /// Takes one token if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let there = self.level(now) >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Leaves at most this many tokens.
    pub fn leave(&mut self, tokens: f64, now: Instant) {
        self.tokens = self.level(now).min(tokens);
    }

    /// When there will be `tokens`; `None`: never.
    pub fn when(&mut self, tokens: f64, now: Instant) -> Option<Instant> {
        let missing = tokens - self.level(now);
        if missing <= 0.0 {
            return Some(now);
        }
        if tokens > self.burst || self.per_second <= 0.0 {
            return None;
        }
        // A millisecond more: the sum of many small refills may fall short by a rounding error.
        let wait = Duration::try_from_secs_f64(missing / self.per_second).ok()?;
        now.checked_add(wait + Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// More than the burst and what time brought is never given out, and waiting until
        /// [`TokenBucket::when`] is always enough.
        #[test]
        fn a_bucket_gives_no_more_than_it_was_filled_with(
            burst in 1u32..5, rate in 0.001..50.0f64, steps in proptest::collection::vec(0u64..5_000, 1..100)
        ) {
            let start = crate::clock::now();
            let mut now = start;
            let mut bucket = TokenBucket::full(f64::from(burst), rate, start);
            let mut taken = 0.0;
            for step in steps {
                now += Duration::from_millis(step);
                while bucket.take(now) {
                    taken += 1.0;
                }
                let passed = (now - start).as_secs_f64();
                prop_assert!(taken <= f64::from(burst) + passed * rate + 1e-6);
                now = bucket.when(1.0, now).unwrap();
                prop_assert!(bucket.take(now));
                taken += 1.0;
            }
        }
    }
}
