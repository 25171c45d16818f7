//! A mapping that a sensor pushed, on its way to disk.
//!
//! One is kept at a time, and never during a scan or while a new epoch begins: what the loop asks the worker
//! then would have to wait for the disk. A scan that is under way is not interrupted.

use super::{AgentLoop, locked};
use crate::clock;
use crate::serve::mapping::MappingState;
use crate::serve::pushed_mapping::Pushed;
use crate::serve::server::Push;
use crate::serve::timer::Task;
use tokio::sync::oneshot;
use tokio::task::JoinError;

/// The push that waits for its turn, and the one that is being kept.
#[derive(Default)]
pub(in crate::serve) struct Pushes {
    waiting: Option<Push>,
    pub(super) running: Task<Pushed>,
    reply: Option<oneshot::Sender<Pushed>>,
}

impl Pushes {
    /// Whether another one may come.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_none()
    }
}

impl AgentLoop {
    pub(super) fn push_arrived(&mut self, push: Push) {
        self.pushes.waiting = Some(push);
    }

    /// Begins to keep the waiting push, when nothing else is under way.
    pub(super) fn begin_push(&mut self) {
        let is_busy = self.scan.is_running()
            || self.renewal.running.is_running()
            || self.pushes.running.is_running();
        if is_busy {
            return;
        }
        // A peer that gave up was told to push again.
        let waiting = self.pushes.waiting.take();
        if let Some(Push { mapping, reply }) = waiting.filter(|push| !push.reply.is_closed()) {
            let keep = self.worker.keep_mapping(mapping);
            self.pushes.running.start(self.blocking.spawn(keep));
            self.pushes.reply = Some(reply);
        }
    }

    pub(super) fn pushed(&mut self, result: Result<Pushed, JoinError>) {
        let result = result.unwrap_or_else(|error| Pushed::Failed(error.to_string()));
        match &result {
            Pushed::Updated(hash) => {
                tracing::info!(%hash, "a new mapping of repositories to CPEs was pushed");
                let state = *self.mapping_state.borrow();
                let hash = Some(*hash);
                self.set_mapping(MappingState { hash, ..state });
                self.rescan.request_scan(clock::now());
            }
            Pushed::Same(_) => {}
            Pushed::Malformed(error) => tracing::warn!(error, "a pushed mapping was refused"),
            Pushed::Failed(error) => {
                tracing::error!(
                    error,
                    "a pushed mapping could not be kept; the one before stays"
                );
            }
        }
        if let Some(reply) = self.pushes.reply.take() {
            // A peer that is gone finds out at its next push.
            let _ = reply.send(result);
        }
        self.renew();
    }

    /// Notes which mapping is in use, for the answers and the status.
    pub(super) fn set_mapping(&self, state: MappingState) {
        let is_other = |known: &mut MappingState| {
            let is_other = *known != state;
            *known = state;
            is_other
        };
        if self.mapping_state.send_if_modified(is_other) {
            locked(&self.status).mapping = state;
        }
    }
}
