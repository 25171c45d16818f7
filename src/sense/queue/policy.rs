//! The numbers of the policy, and Central's rate limit.

use crate::clock::backoff::Backoff;
use std::time::Duration;

/// Longest time for which a sink may defer a document.
pub const LONGEST_DEFERRAL: Duration = Duration::from_secs(3600);

/// The numbers of the policy.
#[derive(Clone, Debug)]
pub struct QueuePolicy {
    /// Deliveries under way at the same time.
    pub in_flight: usize,
    /// Reactive reports that go before a routine one must, while both wait.
    pub weight: u32,
    /// Between two attempts.
    pub backoff: Backoff,
    /// Between two attempts of a guest whose reports Central forbids.
    pub forbidden: Backoff,
    /// Reactive priorities a guest may save up.
    pub priorities: u32,
    /// Time after which a guest has one more of them.
    pub priority_every: Duration,
    /// Central's rate limit, where it is known.
    pub rate: Option<Rate>,
}

/// Central's rate limit as this sensor mirrors it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Reports a second.
    pub per_second: f64,
    /// Reports at once after a pause.
    pub burst: f64,
    /// Part of the burst that routine reports leave alone.
    pub reserve: f64,
}

impl Rate {
    /// The part of the burst that is a reserve, unless somebody says otherwise.
    pub const RESERVE: f64 = 0.75;
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            in_flight: 20,
            weight: 4,
            backoff: Backoff {
                floor: Duration::from_secs(10),
                ceiling: Duration::from_secs(300),
            },
            forbidden: Backoff {
                floor: Duration::from_secs(10),
                ceiling: Duration::from_secs(300),
            },
            priorities: 3,
            priority_every: Duration::from_secs(300),
            rate: None,
        }
    }
}
