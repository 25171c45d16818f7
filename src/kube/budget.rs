//! How many dials may be under way through the API, and how often one may begin. Pure policy.
//!
//! Each dial takes one of the API server's seats until it is over, and costs virt-api three questions of its own.
//! A 429 halves what is allowed; it comes back one by one.

use crate::clock::token_bucket::TokenBucket;
use std::time::{Duration, Instant};

/// Dials at the same time, at most.
const MOST: u32 = 20;

/// Dials a second, at most.
const A_SECOND: f64 = 50.0;

/// Refusals within this time count as one: they were all under way together.
const TOGETHER: Duration = Duration::from_secs(1);

/// One more dial at the same time is allowed after so long without a refusal.
const RECOVERY: Duration = Duration::from_secs(10);

/// The budget of dials.
#[derive(Debug)]
pub struct DialBudget {
    allowed: u32,
    in_use: u32,
    rate: TokenBucket,
    /// When `allowed` changed last.
    changed_at: Instant,
    not_before: Option<Instant>,
    refusals: u64,
}

/// Why no dial may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoDial {
    /// Not before this time.
    Until(Instant),
    /// Not before another ends.
    WhileOthers,
}

impl DialBudget {
    /// All of it.
    pub fn full(now: Instant) -> Self {
        Self {
            allowed: MOST,
            in_use: 0,
            rate: TokenBucket::full(A_SECOND / 5.0, A_SECOND, now),
            changed_at: now,
            not_before: None,
            refusals: 0,
        }
    }

    /// Dials under way, those allowed, and refusals so far.
    pub fn look(&self) -> (u32, u32, u64) {
        (self.in_use, self.allowed, self.refusals)
    }

    /// Begins a dial.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), NoDial> {
        self.recover(now);
        if let Some(at) = self.not_before.filter(|at| *at > now) {
            return Err(NoDial::Until(at));
        }
        if self.in_use >= self.allowed {
            return Err(NoDial::WhileOthers);
        }
        if !self.rate.take(now) {
            let at = self.rate.when(1.0, now).unwrap_or(now + RECOVERY);
            return Err(NoDial::Until(at));
        }
        self.in_use += 1;
        Ok(())
    }

    /// A dial, and the exchange over it, ended.
    pub(super) fn give_back(&mut self) {
        self.in_use = self.in_use.saturating_sub(1);
    }

    /// The API server had too many requests, and names a time to wait.
    pub(super) fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.refusals += 1;
        let is_first = self.allowed == MOST && self.refusals == 1;
        if is_first || now.saturating_duration_since(self.changed_at) >= TOGETHER {
            self.allowed = (self.allowed / 2).max(1);
            self.changed_at = now;
        }
        let until = now + retry_after.unwrap_or(TOGETHER);
        self.not_before = self.not_before.max(Some(until));
    }

    fn recover(&mut self, now: Instant) {
        while self.allowed < MOST && now.saturating_duration_since(self.changed_at) >= RECOVERY {
            self.allowed += 1;
            self.changed_at += RECOVERY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Begins dials until none may begin.
    fn take_all(budget: &mut DialBudget, now: &mut Instant) -> u32 {
        let mut taken = 0;
        loop {
            match budget.take(*now) {
                Ok(()) => taken += 1,
                Err(NoDial::Until(at)) => *now = at,
                Err(NoDial::WhileOthers) => return taken,
            }
        }
    }

    #[test]
    fn refusals_halve_the_budget_and_time_brings_it_back() {
        let mut now = crate::clock::now();
        let mut budget = DialBudget::full(now);
        assert_eq!(take_all(&mut budget, &mut now), 20);
        let second = Some(Duration::from_secs(1));
        // All that were under way are refused together.
        for _ in 0..20 {
            budget.refused(second, now);
            budget.give_back();
        }
        assert_eq!(budget.take(now), Err(NoDial::Until(now + TOGETHER)));
        assert_eq!(take_all(&mut budget, &mut now), 10);
        for allowed in [5, 2, 1, 1] {
            now += TOGETHER;
            budget.refused(None, now);
            assert_eq!(budget.look().1, allowed);
        }
        (0..10).for_each(|_| budget.give_back());
        now += RECOVERY * 3;
        assert_eq!(take_all(&mut budget, &mut now), 4);
        now += RECOVERY * 100;
        assert_eq!(take_all(&mut budget, &mut now), 16);
    }

    proptest! {
        /// Loss prevented: a sensor that takes all seats of the API server, or all of virt-api's questions.
        #[test]
        fn never_more_than_twenty_at_once_nor_fifty_a_second(
            steps in proptest::collection::vec((0u64..300, 0u8..4), 1..300)
        ) {
            let start = crate::clock::now();
            let mut now = start;
            let mut budget = DialBudget::full(now);
            let (mut in_use, mut begun) = (0u32, 0u32);
            for (ms, what) in steps {
                now += Duration::from_millis(ms);
                match what {
                    0 if in_use > 0 => {
                        budget.give_back();
                        in_use -= 1;
                    }
                    1 => budget.refused(None, now),
                    _ => while budget.take(now).is_ok() {
                        in_use += 1;
                        begun += 1;
                    },
                }
                prop_assert!(in_use <= MOST);
                let seconds = (now - start).as_secs_f64();
                prop_assert!(f64::from(begun) <= A_SECOND / 5.0 + seconds * A_SECOND + 1e-6);
            }
        }
    }
}
