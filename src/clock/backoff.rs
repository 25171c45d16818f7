//! When to try again: doubling from a floor to a ceiling, with jitter drawn by the caller.

use std::time::Duration;

/// Doubling delays between a floor and a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure.
    pub floor: Duration,
    /// No delay is longer.
    pub ceiling: Duration,
}

impl Backoff {
    /// The delay after `failures` failures in a row; zero after none.
    pub fn delay(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1u32.checked_shl(doublings.min(31)).unwrap_or(u32::MAX);
        self.floor.saturating_mul(factor).min(self.ceiling)
    }

    /// The same, anywhere between nothing and the whole delay ("full jitter"): what keeps ten
    /// thousand peers from returning together. `jitter` is uniform in 0..1.
    pub fn full_jitter(self, failures: u32, jitter: f64) -> Duration {
        self.delay(failures).mul_f64(jitter.clamp(0.0, 1.0))
    }

    /// The same, between half and the whole delay: jitter that still keeps a distance.
    pub fn half_jitter(self, failures: u32, jitter: f64) -> Duration {
        self.delay(failures)
            .mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff = Backoff {
        floor: Duration::from_secs(10),
        ceiling: Duration::from_secs(300),
    };

    #[test]
    fn delays_double_up_to_the_ceiling() {
        let seconds: Vec<u64> = (0..8).map(|n| BACKOFF.delay(n).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    proptest! {
        #[test]
        fn no_delay_leaves_its_bounds(failures: u32, jitter in 0.0..1.0) {
            prop_assert!(BACKOFF.delay(failures) <= BACKOFF.ceiling);
            prop_assert!(BACKOFF.full_jitter(failures, jitter) <= BACKOFF.delay(failures));
            prop_assert!(BACKOFF.half_jitter(failures, jitter) >= BACKOFF.delay(failures) / 2);
        }
    }
}
