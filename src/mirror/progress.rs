//! What a cycle is doing, for those who look on from outside: the watchdog, `afferent status`, metrics.

use crate::clock;
use crate::telemetry::metrics::Counter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Progress of the cycles of one mirror; clones are of the same mirror.
#[derive(Clone, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Default)]
struct Inner {
    steps: AtomicU64,
    pages: Counter,
    bytes: AtomicU64,
    retries: Counter,
    step: Mutex<Step>,
}

#[derive(Clone, Default)]
struct Step {
    doing: String,
    at: Option<Instant>,
}

impl Progress {
    /// Another thing is being done.
    pub fn step(&self, doing: impl Into<String>) {
        self.0.steps.fetch_add(1, Ordering::Relaxed);
        *self.last() = Step {
            doing: doing.into(),
            at: Some(clock::now()),
        };
    }

    fn last(&self) -> MutexGuard<'_, Step> {
        self.0.step.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page of `list` arrived.
    pub fn page(&self, list: &str, bytes: usize) {
        self.0.pages.inc();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.step(format!("reading {list} from Core"));
    }

    /// A question is asked again.
    pub fn retry(&self, list: &str) {
        self.0.retries.inc();
        self.step(format!("asking Core for {list} again"));
    }

    /// How many steps were made: it grows for as long as a cycle gets on.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    /// What is being done, or was last.
    pub fn doing(&self) -> String {
        self.last().doing.clone()
    }

    /// Time since the last step.
    pub fn still_for(&self, now: Instant) -> Duration {
        let at = self.last().at;
        at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// Pages, bytes and retries of all pulls.
    pub fn pulled(&self) -> [u64; 3] {
        let bytes = self.0.bytes.load(Ordering::Relaxed);
        [self.0.pages.get(), bytes, self.0.retries.get()]
    }
}
