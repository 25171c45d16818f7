//! What the loop of the agent waits for: a period that is over, and the end of a task.

use crate::clock;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior};

/// A task that may run. It is aborted when its owner is dropped, but for work on a thread, which runs to
/// its end.
pub(super) struct Task<T>(Option<JoinHandle<T>>);

impl<T> Task<T> {
    pub(super) fn start(&mut self, task: JoinHandle<T>) {
        self.0 = Some(task);
    }

    pub(super) fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// The result of the task, when there is one. Safe to drop and call again.
    pub(super) async fn joined(&mut self) -> Result<T, JoinError> {
        let Some(running) = &mut self.0 else {
            return std::future::pending().await;
        };
        let result = running.await;
        self.0 = None;
        result
    }
}

impl<T> Default for Task<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(running) = &self.0 {
            running.abort();
        }
    }
}

/// Fires once in a period, and not at once.
pub(super) struct Ticker(tokio::time::Interval);

impl Ticker {
    pub(super) fn every(period: Duration) -> Self {
        let mut interval =
            tokio::time::interval_at(Instant::from_std(clock::now()) + period, period);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(interval)
    }

    pub(super) async fn tick(&mut self) {
        self.0.tick().await;
    }
}
