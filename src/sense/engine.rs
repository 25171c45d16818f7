//! The sensor without its surroundings: pulling, the pending queue and delivery, on whatever store, sink,
//! connections and clock they are given.
//!
//! A service and a simulation run this same glue. What surrounds it in a service (signals, sources of the
//! roster, the control socket, metrics) is in [`super::service`].

use super::deliver::breaker::Breaker;
use super::deliver::outcome::Outcome;
use super::deliver::run::DeliveryLoop;
use super::deliver::sink::Sink;
use super::fleet::query::ChangeLog;
use super::fleet::{Fleet, FleetLimits};
use super::limits::{ConcurrencyLimits, PUSHES};
use super::mapping::run::{MappingFeed, PushLoop, SharedPushes};
use super::metrics::Metrics;
use super::pull::dial::Dial;
use super::pull::guests::GuestTable;
use super::pull::job::Shared;
use super::pull::run::{Inbox, PullLoop, StoredGuests};
use super::pull::schedule::Timing;
use super::queue::policy::QueuePolicy;
use super::queue::table::{self, StoredPending};
use super::queue::writer::{OnLoss, StoreWriter};
use super::queue::{FullPull, Pending, SinkQueue};
use super::roster::KnownGuests;
use super::seen::SeenClock;
use super::sink_name::SinkName;
use crate::blocking::Blocking;
use crate::clock::WallClock;
use crate::report::VmId;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Counters;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// Transfers at the same time.
const TRANSFERS: usize = 20;

/// What a sensor is given.
pub struct Parts {
    /// The open database.
    pub store: Arc<Store>,
    /// Where documents go, at least one.
    pub sinks: Vec<SinkParts>,
    /// Connects to guests.
    pub dial: Arc<dyn Dial>,
    /// The guests, whenever they change.
    pub roster: watch::Receiver<KnownGuests>,
    /// How much of the fleet's history is kept; `None`: there is no fleet store.
    pub fleet: Option<FleetLimits>,
    /// The numbers of the schedule.
    pub timing: Timing,
    /// The mapping that is pushed to guests, whenever it changes; `None`: nothing is pushed.
    pub mapping: Option<MappingFeed>,
    /// Name of this sensor in documents.
    pub sensor_id: Arc<str>,
    /// Where work that blocks runs.
    pub blocking: Blocking,
    /// Time of day.
    pub wall: WallClock,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// A sink that a sensor is given.
pub struct SinkParts {
    /// Tells it apart.
    pub name: SinkName,
    /// Where documents go.
    pub sink: Arc<dyn Sink>,
    /// In which order, and how fast.
    pub policy: QueuePolicy,
}

/// A sink of a running sensor.
#[derive(Clone)]
pub struct RunningSink {
    /// Its pending documents.
    pub queue: Arc<SinkQueue>,
    /// Its state.
    pub breaker: Arc<Mutex<Breaker>>,
    /// Deliveries by what came of them.
    pub deliveries: Arc<Counters>,
}

/// A running sensor.
pub struct Engine {
    /// Guests.
    pub guests: Arc<Mutex<GuestTable>>,
    /// Pending documents.
    pub pending: Arc<Pending>,
    /// The fleet store, if there is one.
    pub fleet: Option<Arc<Fleet>>,
    /// Its sinks.
    pub sinks: Vec<RunningSink>,
    /// Who lacks the mapping.
    pub pushes: Arc<SharedPushes>,
    /// Number of documents that were pending when it started.
    pub restored: usize,
    /// Guests to be asked for a full report now.
    pub full_pulls: mpsc::UnboundedSender<(VmId, FullPull)>,
    stop: watch::Sender<bool>,
    pulling: JoinHandle<()>,
    delivering: JoinSet<()>,
    pushing: JoinHandle<()>,
    writing: JoinHandle<()>,
}

impl Engine {
    /// Loads what is stored and starts the loops.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn start(parts: Parts) -> Result<Self, StoreError> {
        let Parts {
            store,
            sinks,
            dial,
            roster,
            fleet,
            timing,
            mapping,
            sensor_id,
            blocking,
            wall,
            metrics,
        } = parts;
        let loaded = load(&store, &metrics)?;
        let fleet = fleet.and_then(|limits| load_fleet(&store, limits, &loaded, &metrics));
        let not_in_fleet = fleet.as_ref().map(|fleet| fleet.to_ask());
        let (lost_tx, lost) = mpsc::unbounded_channel();
        let counters = metrics.clone();
        let on_loss: OnLoss = Box::new(move || {
            counters.moved_aside.inc();
            // Fails only while stopping.
            let _ = lost_tx.send(());
        });
        let (writer, writing) = StoreWriter::start(store.clone(), fleet.clone(), blocking, on_loss);
        let queues = sinks
            .iter()
            .map(|sink| (sink.name.clone(), sink.policy.clone()));
        let pending = Pending::new(queues.collect(), &store, writer, &wall, &loaded);
        let pending = Arc::new(pending);
        let restored = loaded.pending().map(|(_, slots)| slots).sum();
        let mut to_ask = not_in_fleet.unwrap_or_default();
        to_ask.extend(pending.unknown_to_a_sink(&loaded));
        let guests = Arc::new(Mutex::new(GuestTable::new(timing)));
        let limits = Arc::new(ConcurrencyLimits::new(TRANSFERS));
        let (full_pulls_tx, full_pulls) = mpsc::unbounded_channel();
        let (stop_tx, stop) = watch::channel(false);
        let mut delivering = JoinSet::new();
        let mut running = Vec::new();
        for (parts, queue) in sinks.into_iter().zip(pending.sinks()) {
            let sink = RunningSink {
                queue: queue.clone(),
                breaker: Arc::default(),
                deliveries: Arc::new(Counters::new(&Outcome::LABELS)),
            };
            let delivery = DeliveryLoop {
                queue: queue.clone(),
                limits: limits.clone(),
                sink: parts.sink,
                breaker: sink.breaker.clone(),
                deliveries: sink.deliveries.clone(),
                metrics: metrics.clone(),
                sensor: sensor_id.clone(),
                blocking,
                wall: wall.clone(),
                full_pulls: full_pulls_tx.clone(),
                log: fleet.is_some().then(|| ChangeLog::new(store.clone())),
            };
            delivering.spawn(delivery.run(stop.clone()));
            running.push(sink);
        }
        let pushes = Arc::new(SharedPushes::new(PUSHES));
        let (mapped_tx, mapped) = mpsc::unbounded_channel();
        let push = PushLoop {
            pushes: pushes.clone(),
            guests: guests.clone(),
            dial: dial.clone(),
            metrics: metrics.clone(),
            taken: mapped_tx,
        };
        // The feed of a sensor without a mapping ends at once.
        let feed = mapping.unwrap_or_else(|| watch::channel(None).1);
        let pull = PullLoop {
            guests: guests.clone(),
            shared: Arc::new(Shared {
                dial,
                pending: pending.clone(),
                fleet: fleet.clone(),
                limits,
                metrics,
                pushes: pushes.clone(),
                full_pulls: full_pulls_tx.clone(),
                seen: Arc::new(SeenClock::new(loaded.seen_at)),
                blocking,
                wall,
            }),
        };
        let inbox = Inbox {
            roster,
            full_pulls,
            mapped,
            lost,
            stop: stop.clone(),
        };
        let stored = StoredGuests {
            rows: loaded.guests.into_iter().collect(),
            to_ask,
        };
        Ok(Self {
            guests,
            pending,
            fleet,
            sinks: running,
            pushes,
            restored,
            full_pulls: full_pulls_tx,
            stop: stop_tx,
            pushing: tokio::spawn(push.run(feed, stop)),
            delivering,
            pulling: tokio::spawn(pull.run(stored, inbox)),
            writing,
        })
    }

    /// Waits for a part that must never end to end.
    /// Gives its name, and how it ended.
    pub async fn failed(&mut self) -> (&'static str, Result<(), JoinError>) {
        tokio::select! {
            ended = &mut self.pulling => ("pulling", ended),
            Some(ended) = self.delivering.join_next() => ("delivery", ended),
            ended = &mut self.pushing => ("pushing of the mapping", ended),
            ended = &mut self.writing => ("the writer of sense.redb", ended),
        }
    }

    /// Stops: no new pulls nor deliveries, those under way end within a bounded time, and everything is
    /// written. Whoever else holds [`Engine::pending`] must drop it, since it may still write.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = self.pulling.await;
        let _ = self.pushing.await;
        while self.delivering.join_next().await.is_some() {}
        drop((self.pending, self.sinks));
        let _ = self.writing.await;
    }

    /// Ends at once, as a kill does.
    pub fn kill(mut self) {
        self.delivering.abort_all();
        for task in [&self.pulling, &self.pushing, &self.writing] {
            task.abort();
        }
    }
}

/// Reads what is stored; a file that is damaged is replaced by a new one.
fn load(store: &Store, metrics: &Metrics) -> Result<StoredPending, StoreError> {
    table::load(store).or_else(|error| {
        store.recover(error)?;
        metrics.moved_aside.inc();
        Ok(StoredPending::default())
    })
}

/// Opens the fleet store. Without it the sensor does its work all the same.
fn load_fleet(
    store: &Store,
    limits: FleetLimits,
    loaded: &StoredPending,
    metrics: &Metrics,
) -> Option<Arc<Fleet>> {
    let known = loaded.guests.iter();
    let known = known.filter_map(|(vm, row)| Some((vm.clone(), row.known?.digest)));
    match Fleet::load(store, limits, &known.collect()) {
        Ok(fleet) => Some(Arc::new(fleet)),
        Err(error) => {
            metrics.fleet_unusable.inc();
            tracing::error!(%error, "no fleet store until the next start: reports are delivered, and questions about the fleet are not answered");
            None
        }
    }
}

#[cfg(test)]
mod tests;
