//! Connections of people and scrapers to one listener: few, and none waits behind a silent one.
//!
//! At most [`MOST`] are open. When one more is accepted the oldest is closed: one that asks is answered
//! within milliseconds, so the oldest is one that says nothing.

use std::collections::VecDeque;
use tokio::task::{AbortHandle, JoinSet};

/// Connections to one listener at the same time.
pub(super) const MOST: usize = 64;

/// The open connections; all are closed when this is dropped.
#[derive(Default)]
pub(super) struct Connections {
    tasks: JoinSet<()>,
    /// The oldest first.
    order: VecDeque<AbortHandle>,
}

impl Connections {
    /// Serves one more connection by running `task`, which ends with it.
    pub(super) fn serve(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|task| !task.is_finished());
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            oldest.abort();
        }
        self.order.push_back(self.tasks.spawn(task));
    }
}
