//! The one writer of `sense.redb`: a thread that commits together what came together.
//!
//! While one commit is on its way to the disk the next changes gather; there is no timer. Few
//! reports wait here, because each holds one of the places that [`ConcurrencyLimits`] has for them until it is
//! durable.
//!
//! [`ConcurrencyLimits`]: crate::sense::limits::ConcurrencyLimits
//!
//! A change that carries no report is owed until it is written: when the disk is full, answers of
//! Central still have to make room. A report that cannot be written is refused, and its guest is
//! asked again later.

use crate::sense::queue::table::{self, Change};
use crate::store::{Store, StoreError};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::oneshot;

/// Changes in one transaction.
const LARGEST_BATCH: usize = 256;

/// Changes that are owed while the store refuses to write; beyond that the oldest are forgotten,
/// which costs a repeated delivery after a restart, nothing more.
const MOST_OWED: usize = 100_000;

/// Time between two attempts to write what is owed.
const OWED_RETRY: Duration = Duration::from_secs(2);

/// Why a report was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The disk refuses; it may be another time.
    #[error("{0}")]
    Refused(String),
    /// The file was damaged and a new one begun: everything pending must be asked for again.
    #[error("the store was damaged: {0}")]
    Lost(String),
    /// The sensor is stopping.
    #[error("stopping")]
    Stopping,
}

/// Called from the writer's thread when a damaged file was replaced by a new one.
pub type OnLoss = Box<dyn Fn() + Send>;

/// The way to the writer.
pub struct StoreWriter {
    jobs: Sender<Job>,
}

struct Job {
    change: Change,
    done: Option<oneshot::Sender<Result<(), WriteError>>>,
}

impl StoreWriter {
    /// Starts the writer. It ends, with everything written, when the store_writer is dropped.
    pub fn start(store: Arc<Store>, on_loss: OnLoss) -> io::Result<(Self, JoinHandle<()>)> {
        let (jobs, inbox) = channel();
        let mut writer = Writer {
            store,
            on_loss,
            owed: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("store_writer".into())
            .spawn(move || writer.run(&inbox))?;
        Ok((Self { jobs }, thread))
    }

    /// Writes a change; it is on disk when this returns without an error.
    pub async fn keep(&self, change: Change) -> Result<(), WriteError> {
        let (done, answer) = oneshot::channel();
        let job = Job {
            change,
            done: Some(done),
        };
        self.jobs.send(job).map_err(|_| WriteError::Stopping)?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// Writes a change some time soon: one whose loss costs a repetition, nothing more.
    pub fn note(&self, change: Change) {
        // Fails only while stopping, when the change will be made again after the start.
        let _ = self.jobs.send(Job { change, done: None });
    }
}

struct Writer {
    store: Arc<Store>,
    on_loss: OnLoss,
    owed: Vec<Change>,
}

impl Writer {
    fn run(&mut self, inbox: &Receiver<Job>) {
        loop {
            let first = if self.owed.is_empty() {
                inbox.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                inbox.recv_timeout(OWED_RETRY)
            };
            match first {
                Ok(first) => {
                    let more = inbox.try_iter().take(LARGEST_BATCH - 1);
                    self.write(std::iter::once(first).chain(more).collect());
                }
                Err(RecvTimeoutError::Timeout) => self.write(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return self.write(Vec::new()),
            }
        }
    }

    /// Writes what is owed, then `jobs`, in this order.
    fn write(&mut self, jobs: Vec<Job>) {
        let (changes, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.change, job.done)).unzip();
        let mut all = std::mem::take(&mut self.owed);
        all.extend(changes);
        if all.is_empty() {
            return;
        }
        let result = match table::apply(&self.store, &all) {
            Ok(()) => Ok(()),
            Err(error) if error.is_corrupt() => Err(self.begin_anew(&error)),
            Err(error) => {
                tracing::warn!(%error, "cannot write");
                self.make_room(all);
                Err(WriteError::Refused(error.to_string()))
            }
        };
        for done in answers.into_iter().flatten() {
            // Whoever asked may be gone.
            let _ = done.send(result.clone());
        }
    }

    /// Writes what carries no report by itself: that needs little room, and may make some.
    fn make_room(&mut self, changes: Vec<Change>) {
        let small: Vec<Change> = changes
            .into_iter()
            .filter(|change| !matches!(change, Change::Put { .. }))
            .collect();
        if small.is_empty() || table::apply(&self.store, &small).is_ok() {
            return;
        }
        self.owed = small;
        let excess = self.owed.len().saturating_sub(MOST_OWED);
        self.owed.drain(..excess);
    }

    fn begin_anew(&mut self, error: &StoreError) -> WriteError {
        match self.store.begin_anew() {
            Ok(aside) => {
                tracing::error!(%error, moved_to = %aside.display(), "store moved aside, a new one begun");
                (self.on_loss)();
            }
            Err(second) => tracing::error!(%error, %second, "cannot begin a new store"),
        }
        WriteError::Lost(error.to_string())
    }
}
