//! The clock that gives every document its `seen_at`.
//!
//! Consumers keep the document with the highest `seen_at`, so it must never go back: not when the wall
//! clock does, not across a restart, not when a guest is dropped. The highest value is stored with
//! every report ([`crate::sense::queue::table`]).

use crate::clock::WallTime;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// One for the whole sensor.
#[derive(Debug)]
pub struct SeenClock(AtomicU64);

impl SeenClock {
    /// Goes on above this mark, which is the highest value that was stored.
    pub fn new(mark: WallTime) -> Self {
        Self(AtomicU64::new(mark.unix_ms()))
    }

    /// `now`, or a millisecond more than the value before if that is later.
    pub fn next(&self, now: WallTime) -> WallTime {
        let later = |last: u64| now.unix_ms().max(last.saturating_add(1));
        let last = self
            .0
            .fetch_update(Relaxed, Relaxed, |last| Some(later(last)))
            .unwrap_or_else(|last| last);
        WallTime::from_unix_ms(later(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_higher_than_the_one_before_whatever_the_wall_clock_does(
            mark: u32, clock in proptest::collection::vec(0u64..5_000_000_000, 1..20)
        ) {
            let seen = SeenClock::new(WallTime::from_unix_ms(mark.into()));
            let mut last = WallTime::from_unix_ms(mark.into());
            for now in clock {
                let next = seen.next(WallTime::from_unix_ms(now));
                prop_assert!(next > last && next >= WallTime::from_unix_ms(now));
                last = next;
            }
        }
    }
}
