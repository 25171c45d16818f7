//! Central's rate limit, mirrored where it is known, and the part of it that is a reserve.

use super::policy::Rate;
use crate::clock::token_bucket::TokenBucket;
use std::time::{Duration, Instant};

/// A mirror of Central's token bucket; without a known rate everything may go.
#[derive(Clone)]
pub(super) struct RateLimit(Option<(Rate, TokenBucket)>);

impl RateLimit {
    /// A full bucket.
    pub(super) fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self(rate.map(|rate| (rate, TokenBucket::full(rate.burst, rate.per_second, now))))
    }

    /// Takes a token for one report; or returns when there will be one, `None`: never. Routine reports
    /// leave the reserve alone while no reactive one waits: it is for the next of those.
    pub(super) fn take(
        &mut self,
        no_urgent_waiting: bool,
        now: Instant,
    ) -> Result<(), Option<Instant>> {
        let Some((rate, bucket)) = &mut self.0 else {
            return Ok(());
        };
        let needed = if no_urgent_waiting {
            rate.reserve + 1.0
        } else {
            1.0
        };
        match bucket.when(needed.min(rate.burst), now) {
            Some(at) if at <= now => {
                bucket.take(now);
                Ok(())
            }
            at => Err(at),
        }
    }

    /// Central rejected a report over its limit: its bucket is empty, so is this one.
    pub(super) fn drain(&mut self, now: Instant) {
        if let Some((_, bucket)) = &mut self.0 {
            bucket.leave(0.0, now);
        }
    }

    /// How long so many dispatches take at most, the refilling of the reserve included.
    pub(super) fn time_for(&self, dispatches: f64) -> Option<Duration> {
        let (rate, _) = self.0.as_ref()?;
        Duration::try_from_secs_f64((dispatches + rate.reserve) / rate.per_second).ok()
    }
}
