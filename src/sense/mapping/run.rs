//! The loop of pushing: gives the mapping to every guest that lacks it.

use super::SensorMapping;
use super::push::push;
use super::pushes::{NextPush, PushOutcome, Pushes};
use crate::clock;
use crate::report::{MappingHash, VmId};
use crate::sense::metrics::Metrics;
use crate::sense::pull::dial::Dial;
use crate::sense::pull::guests::GuestTable;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinError, JoinSet};

/// The newest mapping that could be read; `None`: there was none so far.
pub type MappingFeed = watch::Receiver<Option<Arc<SensorMapping>>>;

/// Who lacks the mapping, shared with pulling, which hears what agents have, and with `status`.
pub struct SharedPushes {
    pushes: Mutex<Pushes>,
    /// Notified when somebody may have become due.
    changed: Notify,
}

impl SharedPushes {
    /// Nobody yet.
    pub fn new(most_in_flight: usize) -> Self {
        Self {
            pushes: Mutex::new(Pushes::new(most_in_flight, clock::now())),
            changed: Notify::new(),
        }
    }

    /// The policy, to be looked at or told of something.
    pub fn lock(&self) -> MutexGuard<'_, Pushes> {
        self.pushes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody may have become due.
    pub fn notify(&self) {
        self.changed.notify_one();
    }
}

/// The loop of pushing, and everything that it needs.
pub struct PushLoop {
    /// Who lacks the mapping.
    pub pushes: Arc<SharedPushes>,
    /// Where guests are.
    pub guests: Arc<Mutex<GuestTable>>,
    /// Connects to guests.
    pub dial: Arc<dyn Dial>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Guests that took the mapping.
    pub taken: mpsc::UnboundedSender<VmId>,
}

/// A push that has ended.
struct Pushed {
    vm: VmId,
    hash: MappingHash,
    outcome: PushOutcome,
}

impl PushLoop {
    /// Pushes until told to stop.
    pub async fn run(self, mut feed: MappingFeed, mut stop: watch::Receiver<bool>) {
        let mut running = JoinSet::new();
        let mut mapping = None;
        self.take_over(&mut feed, &mut mapping);
        let mut is_fed = true;
        loop {
            let wake = self.start(&mut running, mapping.as_ref());
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(ended) = running.join_next_with_id() => self.settle(ended.map(|(_, ended)| ended)),
                fed = feed.changed(), if is_fed => match fed {
                    Ok(()) => self.take_over(&mut feed, &mut mapping),
                    Err(_) => is_fed = false,
                },
                () = self.pushes.changed.notified() => {}
                () = clock::sleep_until(wake) => {}
            }
        }
        // Guests that were not given it are found again after the next start.
        running.shutdown().await;
    }

    fn take_over(&self, feed: &mut MappingFeed, mapping: &mut Option<Arc<SensorMapping>>) {
        mapping.clone_from(&feed.borrow_and_update());
        if let Some(mapping) = mapping {
            let now = clock::now();
            let mismatches = self.pushes.lock().set_current(mapping.hash, now);
            let status = super::MappingStatus::UrlHashMismatch.label();
            (0..mismatches).for_each(|_| self.metrics.mapping.inc(status));
        }
    }

    /// Starts what may start; gives the time of the next decision.
    fn start(
        &self,
        running: &mut JoinSet<Pushed>,
        mapping: Option<&Arc<SensorMapping>>,
    ) -> Option<Instant> {
        let mapping = mapping?;
        loop {
            let next = self.pushes.lock().next(clock::now());
            let vm = match next {
                NextPush::To(vm) => vm,
                NextPush::At(at) => return Some(at),
                NextPush::Idle => return None,
            };
            let address = {
                let guests = self.guests.lock().unwrap_or_else(PoisonError::into_inner);
                guests.guest(&vm).map(|guest| guest.entry.address.clone())
            };
            let (dial, mapping) = (self.dial.clone(), mapping.clone());
            running.spawn(async move {
                let outcome = match address {
                    Some(address) => push(&*dial, &address, &mapping).await,
                    None => PushOutcome::Failed("it left the roster".into()),
                };
                let hash = mapping.hash;
                Pushed { vm, hash, outcome }
            });
        }
    }

    fn settle(&self, ended: Result<Pushed, JoinError>) {
        // Its guest would be in flight for ever: a fault here ends the process, as in delivery.
        let Pushed { vm, hash, outcome } = match ended {
            Ok(ended) => ended,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        self.metrics.mapping.inc(outcome.status().label());
        match &outcome {
            PushOutcome::Taken { is_new } => {
                tracing::debug!(%vm, %hash, is_new, "took the mapping of repositories to CPEs");
                // Fails only while stopping.
                let _ = self.taken.send(vm.clone());
            }
            PushOutcome::NotManaged => {
                tracing::warn!(%vm, "does not take the mapping of repositories to CPEs from a sensor");
            }
            PushOutcome::Failed(error) => {
                tracing::warn!(%vm, error, "the mapping of repositories to CPEs was not taken");
            }
        }
        let (now, jitter) = (clock::now(), fastrand::f64());
        let mut pushes = self.pushes.lock();
        pushes.finished(&vm, hash, outcome, now, jitter);
    }
}
