//! What the loop of the agent waits for: a period that is over, and the end of a task.

use crate::clock;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior};

/// The result of a task, when there is one.
pub(super) async fn joined<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    let Some(running) = task else {
        return std::future::pending().await;
    };
    let result = running.await;
    *task = None;
    result
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
