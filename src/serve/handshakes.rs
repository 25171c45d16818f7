//! Handshakes that failed: each counted under its reason, and each reason logged once a minute.
//!
//! A peer under TLS 1.3 has ended its own handshake before it is refused, and sees a connection that ends
//! without a word. This is the only place where the reason is known.

use super::rate_limited_log::RateLimitedLog;
use crate::transport::{Peer, Reason, Refused};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The counters, one for each reason that occurred.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<BTreeMap<Reason, Counter>>);

#[derive(Debug, Default)]
struct Counter {
    count: u64,
    log: RateLimitedLog,
}

impl Handshakes {
    /// Counts a handshake that failed, and logs it if its reason was not logged in the last minute.
    pub(super) fn refused(&self, address: &str, peer: Peer, refused: &Refused) {
        let mut counters = self.lock();
        let counter = counters.entry(refused.reason).or_default();
        counter.count += 1;
        if counter.log.is_due() {
            let (reason, count) = (refused.reason.as_str(), counter.count);
            tracing::warn!(address, %peer, reason, count, error = %refused, "TLS handshake refused");
        }
    }

    /// Counts by reason, for the status.
    pub(super) fn show(&self) -> Value {
        let counters = self.lock();
        let counts = counters
            .iter()
            .map(|(reason, counter)| (reason.as_str().to_owned(), counter.count.into()));
        Value::Object(counts.collect::<Map<_, _>>())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Reason, Counter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
