//! The only writer of `sense.redb`: a task that commits together what came together.
//!
//! ```text
//!               the disk takes writes              the disk refuses
//! report        in one transaction: durable        refused; its guest is asked again later
//! other change  in one transaction: durable        owed: tried again every 2 s, before anything else
//! ```
//!
//! While one commit is on its way to the disk the next changes gather; there is no timer. Few reports
//! wait here, because each holds one of the store permits of [`ConcurrencyLimits`] until it is durable.
//!
//! When the disk is full, answers of Central still have to make room: what carries no report is written
//! alone then, and owed if even that fails.
//!
//! [`ConcurrencyLimits`]: crate::sense::limits::ConcurrencyLimits

use super::refusal::LastRefusal;
use super::table::{self, PendingChange};
use crate::blocking::Blocking;
use crate::clock;
use crate::sense::fleet::Fleet;
use crate::store::Store;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

/// Changes in one transaction.
const LARGEST_BATCH: usize = 256;

/// Changes that are owed while the store refuses to write; beyond that the oldest are forgotten,
/// which costs a repeated delivery after a restart, nothing more.
const MOST_OWED: usize = 100_000;

/// Time between two attempts to write what is owed.
const OWED_RETRY: Duration = Duration::from_secs(2);

/// Why a report is not durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The disk refuses; it may take the report another time.
    #[error("{0}")]
    Refused(String),
    /// The file was damaged and a new one begun: everything pending must be asked for again.
    #[error("the store was damaged: {0}")]
    Lost(String),
    /// The sensor is stopping.
    #[error("stopping")]
    Stopping,
}

/// Called when a damaged file was replaced by a new one.
pub type OnLoss = Box<dyn Fn() + Send>;

/// Sends changes to the writer. The writer ends, with everything written, when the last of these is
/// dropped.
#[derive(Clone)]
pub struct StoreWriter {
    jobs: mpsc::UnboundedSender<Job>,
    last_refusal: Arc<LastRefusal>,
}

struct Job {
    change: PendingChange,
    done: Option<oneshot::Sender<Result<(), WriteError>>>,
}

impl StoreWriter {
    /// Starts the writer. Its task panics where it cannot go on: the sensor must end then.
    pub fn start(
        store: Arc<Store>,
        fleet: Option<Arc<Fleet>>,
        blocking: Blocking,
        on_loss: OnLoss,
    ) -> (Self, JoinHandle<()>) {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let last_refusal = Arc::new(LastRefusal::default());
        let writer = Writer {
            write: Arc::new(move |changes| write(&store, fleet.as_deref(), changes)),
            blocking,
            on_loss,
            owed: None,
            last_refusal: last_refusal.clone(),
        };
        (Self { jobs, last_refusal }, tokio::spawn(writer.run(inbox)))
    }

    /// Writes a change; it is on disk when this returns without an error.
    pub async fn write(&self, change: PendingChange) -> Result<(), WriteError> {
        let (done, answer) = oneshot::channel();
        let job = Job {
            change,
            done: Some(done),
        };
        self.jobs.send(job).map_err(|_| WriteError::Stopping)?;
        answer.await.unwrap_or(Err(WriteError::Stopping))
    }

    /// Why no report is kept at the moment.
    pub fn trouble(&self) -> Option<String> {
        self.last_refusal.trouble(clock::now())
    }

    /// Writes a change some time soon: one whose loss costs a repetition, nothing more.
    pub fn note(&self, change: PendingChange) {
        // Fails only while stopping, when the change will be made again after the start.
        let _ = self.jobs.send(Job { change, done: None });
    }
}

/// Writes changes in one transaction; blocks.
type Write = Arc<dyn Fn(Vec<PendingChange>) -> Written + Send + Sync>;

struct Writer {
    write: Write,
    blocking: Blocking,
    on_loss: OnLoss,
    owed: Option<Owed>,
    last_refusal: Arc<LastRefusal>,
}

/// What could not be written, oldest first.
struct Owed {
    changes: Vec<PendingChange>,
    retry_at: Instant,
    error: String,
}

/// What became of a transaction.
enum Written {
    Durable,
    /// A new file was begun.
    Lost(String),
    /// Nothing was written but what is not owed here.
    Refused {
        error: String,
        owed: Vec<PendingChange>,
    },
}

impl Writer {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Job>) {
        loop {
            let mut jobs = Vec::new();
            let received = match &self.owed {
                None => inbox.recv_many(&mut jobs, LARGEST_BATCH).await,
                Some(owed) => {
                    let more = inbox.recv_many(&mut jobs, LARGEST_BATCH);
                    match timeout_at(owed.retry_at.into(), more).await {
                        Ok(received) => received,
                        Err(_) => {
                            self.commit(Vec::new()).await;
                            continue;
                        }
                    }
                }
            };
            if received == 0 {
                return self.commit(Vec::new()).await;
            }
            match &mut self.owed {
                Some(owed) if clock::now() < owed.retry_at => owed.add(jobs),
                _ => self.commit(jobs).await,
            }
        }
    }

    /// Writes what is owed, then `jobs`, in one transaction.
    async fn commit(&mut self, jobs: Vec<Job>) {
        let before = self.owed.take();
        let was_refused = before.as_ref().map(|owed| owed.error.clone());
        let (changes, answers): (Vec<_>, Vec<_>) =
            jobs.into_iter().map(|job| (job.change, job.done)).unzip();
        let mut all = before.map(|owed| owed.changes).unwrap_or_default();
        all.extend(changes);
        if all.is_empty() {
            return;
        }
        let has_report = |change| matches!(change, &PendingChange::Put { .. });
        let has_report = all.iter().any(has_report);
        let write = self.write.clone();
        let result = match self.blocking.run(move || write(all)).await {
            Ok(Written::Durable) => {
                self.last_refusal.durable(has_report);
                if was_refused.is_some() {
                    tracing::info!("sense.redb can be written again");
                }
                Ok(())
            }
            Ok(Written::Lost(error)) => {
                (self.on_loss)();
                Err(WriteError::Lost(error))
            }
            Ok(Written::Refused { error, owed }) => {
                let now = clock::now();
                self.last_refusal.refused(&error, has_report, now);
                if was_refused.as_ref() != Some(&error) {
                    tracing::warn!(%error, owed = owed.len(), "cannot write sense.redb");
                }
                if !owed.is_empty() {
                    self.owed = Some(Owed {
                        changes: owed,
                        retry_at: clock::now() + OWED_RETRY,
                        error: error.clone(),
                    });
                }
                Err(WriteError::Refused(error))
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        for done in answers.into_iter().flatten() {
            // Whoever asked may be gone.
            let _ = done.send(result.clone());
        }
    }
}

impl Owed {
    /// Takes over what comes before the next attempt: reports are refused at once.
    fn add(&mut self, jobs: Vec<Job>) {
        for Job { change, done } in jobs {
            match done {
                Some(done) => drop(done.send(Err(WriteError::Refused(self.error.clone())))),
                None => self.changes.push(change),
            }
        }
        bound(&mut self.changes);
    }
}

/// Writes all of `changes`; where the disk refuses, those that carry no report.
fn write(store: &Store, fleet: Option<&Fleet>, mut changes: Vec<PendingChange>) -> Written {
    let Err(error) = table::apply(store, fleet, &changes) else {
        return Written::Durable;
    };
    let said = error.to_string();
    let error = match store.recover(error) {
        Ok(_) => {
            fleet.inspect(|fleet| fleet.lost());
            return Written::Lost(said);
        }
        Err(error) => error,
    };
    // They need little room, and may make some.
    let all = changes.len();
    changes.retain(|change| !matches!(change, PendingChange::Put { .. }));
    if changes.len() < all && table::apply(store, fleet, &changes).is_ok() {
        changes.clear();
    }
    bound(&mut changes);
    Written::Refused {
        error: error.to_string(),
        owed: changes,
    }
}

fn bound(owed: &mut Vec<PendingChange>) {
    let excess = owed.len().saturating_sub(MOST_OWED);
    owed.drain(..excess);
}

#[cfg(test)]
mod tests;
