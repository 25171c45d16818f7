//! The agent without its surroundings: the loop, the store and the server, on whatever machine, clock and
//! connections they are given.
//!
//! A service and a simulation run this same glue. What surrounds it in a service (signals, the control socket,
//! systemd) is in [`super::service`]. In virtual time everything runs on one thread: with
//! [`Blocking::Inline`] scans and writes are tasks of the same runtime, and peers come over
//! [`AgentEngine::connect`].

use super::Config;
use super::error::ServeError;
use super::handshakes::Handshakes;
use super::listen::{Acceptors, TlsMode};
use super::machine::{ChangeSource, PackageSource};
use super::mapping::{MappingState, UpdatePath};
use super::refusal::NotReady;
use super::renewal::Renewal;
use super::report_store::{DrawEpoch, Machine};
use super::rescan::Rescan;
use super::respond::Published;
use super::run::{AgentLoop, Inbox, Pushes, Reread, locked};
use super::scan_log::ScanLog;
use super::server::{Door, Incoming, Rules, Server, Shared};
use super::status::Status;
use super::timer::Task;
use super::worker::{self, Kept, Worker, WorkerParts};
use crate::blocking::Blocking;
use crate::clock::{self, WallClock};
use crate::telemetry::watchdog::Watchdog;
use crate::transport::{Listener, Stream};
use serde_json::{Value, json};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::duplex;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::timeout;

/// Answers under way when the agent is told to stop are waited for this long.
pub(super) const DRAIN: Duration = Duration::from_secs(5);

/// A scan that has looked at nothing new for this long hangs.
const STUCK: Duration = Duration::from_secs(10 * 60);

/// Bytes that a connection in memory holds.
const PIPE: usize = 64 << 10;

/// What an agent is given.
pub struct AgentParts {
    /// Its settings. Root and database path are not used: [`AgentParts::changes`] and [`AgentParts::packages`] know them.
    pub config: Config,
    /// Reads the configuration again.
    pub reread: Reread,
    /// Changes of the RPM database.
    pub changes: Box<dyn ChangeSource>,
    /// What is installed.
    pub packages: Box<dyn PackageSource>,
    /// Which machine this is, and why that is not known where it could be.
    pub machine: (Machine, Option<String>),
    /// Where work that blocks runs.
    pub blocking: Blocking,
    /// Time of day.
    pub wall: WallClock,
    /// New epochs.
    pub draw_epoch: DrawEpoch,
}

impl AgentParts {
    /// Of an agent on this machine.
    pub(super) fn of_this_machine(config: Config, reread: Reread) -> Self {
        Self {
            reread,
            changes: Box::new(super::machine::WatchedRoot::new(&config)),
            packages: Box::new(super::machine::ScannedRoot::new(&config)),
            machine: worker::machine(&config.root),
            blocking: Blocking::Threads,
            wall: WallClock::default(),
            draw_epoch: worker::draw_epoch,
            config,
        }
    }
}

/// A running agent.
pub struct AgentEngine {
    published: watch::Receiver<Option<Arc<Published>>>,
    status: Arc<Mutex<Status>>,
    reload: mpsc::Sender<()>,
    rescan: mpsc::Sender<()>,
    stop: watch::Sender<bool>,
    connect: mpsc::Sender<Stream>,
    pub(super) looping: JoinHandle<()>,
    pub(super) servers: JoinSet<()>,
}

impl AgentEngine {
    /// Opens the store, listens on all addresses of the configuration and starts the loop.
    ///
    /// # Errors
    /// An address cannot be listened on, the store belongs to another process or a newer program, or
    /// certificates do not load.
    pub fn start(parts: AgentParts) -> Result<Self, ServeError> {
        let AgentParts {
            config,
            reread,
            changes,
            packages,
            machine,
            blocking,
            wall,
            draw_epoch,
        } = parts;
        let worker_parts = WorkerParts {
            packages,
            machine,
            wall: wall.clone(),
            draw_epoch,
        };
        let (worker, stored) = Worker::open(&config, worker_parts)?;
        let (published, subscriber) = watch::channel(stored.map(Arc::new));
        let (stop, stopping) = watch::channel(false);
        let (rules, rules_changed) = watch::channel(Rules::of(&config));
        let (rolled_back_tx, rolled_back) = mpsc::channel(1);
        let (not_ready, why_not_ready) = watch::channel(NotReady::default());
        let handshakes = Arc::new(Handshakes::default());
        let mapping = MappingState {
            path: worker::update_path(&config),
            hash: match worker::update_path(&config) {
                UpdatePath::Sensor => worker.pushed_mapping(),
                UpdatePath::Url => None,
            },
        };
        let (mapping_state, mapping_changed) = watch::channel(mapping);
        let (pushes_tx, pushes) = mpsc::channel(1);
        let server = Arc::new(Server::new(Shared {
            published: subscriber.clone(),
            not_ready: why_not_ready,
            mapping: mapping_changed,
            stopping: stopping.clone(),
            rules: rules_changed,
            handshakes: Arc::clone(&handshakes),
            rolled_back: rolled_back_tx,
            pushes: pushes_tx,
        }));
        let mut servers = JoinSet::new();
        let mut acceptors = Acceptors::default();
        for listen in &config.listen {
            let address = listen.address.clone();
            let acceptor = acceptors.of(listen.tls, &config.tls, worker.guest_id())?;
            let listener = Listener::bind(&address).map_err(|source| ServeError::Listen {
                address: address.clone(),
                source,
            })?;
            tracing::info!(%address, tls = %listen.tls, "listening");
            let door = Door {
                name: address.to_string(),
                acceptor,
            };
            servers.spawn(Arc::clone(&server).accept_from(Incoming::Listener(listener), door));
        }
        let (connect, connected) = mpsc::channel(1);
        let door = Door {
            name: "memory".into(),
            acceptor: acceptors.of(TlsMode::Off, &config.tls, None)?,
        };
        servers.spawn(server.accept_from(Incoming::Memory(connected), door));
        let Kept {
            epoch,
            durable,
            moved_aside,
            troubles,
        } = worker.kept();
        let status = Arc::new(Mutex::new(Status {
            started_at: wall.now(),
            wall: wall.clone(),
            guest_id: worker.guest_id().cloned(),
            epoch,
            durable,
            moved_aside,
            troubles,
            fetch_trouble: None,
            empty: None,
            changing: 0,
            reactive: config.pace.reactive,
            watch_trouble: changes.trouble().map(str::to_owned),
            scan_error: None,
            scans: 0,
            failed_scans: 0,
            scan_log: ScanLog::default(),
            transaction: None,
            mapping,
            require_mapping: config.require_mapping,
            handshakes,
            acceptors: Arc::new(acceptors),
        }));
        let agent = AgentLoop {
            status: Arc::clone(&status),
            rescan: Rescan::new(config.pace, clock::now()),
            mapping: None,
            changes,
            progress: worker.progress(),
            worker,
            blocking,
            wall,
            not_ready,
            mapping_state,
            published,
            rules,
            scan: Task::default(),
            renewal: Renewal::default(),
            pushes: Pushes::default(),
            watchdog: Watchdog::new(STUCK, clock::now()),
            config,
            reread,
        };
        let (reload, reload_requested) = mpsc::channel(1);
        let (rescan, rescan_requested) = mpsc::channel(1);
        let inbox = Inbox {
            rolled_back,
            pushes,
            reload: reload_requested,
            rescan: rescan_requested,
            stop: stopping,
        };
        Ok(Self {
            published: subscriber,
            status,
            reload,
            rescan,
            stop,
            connect,
            looping: tokio::spawn(agent.run(inbox)),
            servers,
        })
    }

    /// Connects to the agent as its owner does, through memory; gives the peer's end. `None`: it stops.
    pub async fn connect(&self) -> Option<Stream> {
        let (ours, theirs) = duplex(PIPE);
        self.connect.send(Stream::Memory(theirs)).await.ok()?;
        Some(Stream::Memory(ours))
    }

    /// The newest report, as it is served.
    pub fn published(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.published.clone()
    }

    /// Answers questions of the control socket.
    ///
    /// ```text
    /// rescan     scan now           {"scan": N, ...}
    /// scan N     has that ended?    {"scan": N, "result": null | "new" | "same" | "failed", ...}
    /// other      status
    /// ```
    pub fn control(&self) -> impl Fn(&[&str]) -> Value + Send + Sync + use<> {
        let (status, published) = (Arc::clone(&self.status), self.published.clone());
        let rescan = self.rescan.clone();
        move |words| {
            let published = published.borrow().clone();
            let key = published.as_ref().map(|report| report.key().to_string());
            let status = locked(&status);
            match words {
                ["rescan"] => {
                    let number = status.scan_log.next();
                    // Full: a scan is requested already, and has not begun.
                    let _ = rescan.try_send(());
                    json!({"service": "serve", "scan": number, "report": key})
                }
                ["rescan", _] => json!({"error": "this is an agent: it has no guests"}),
                ["scan", number] => match number.parse() {
                    Ok(number) => status
                        .scan_log
                        .show(number, key.as_deref(), status.transaction),
                    Err(_) => json!({"error": "scan: a number is expected"}),
                },
                _ => status.show(published.as_ref()),
            }
        }
    }

    /// Reads the configuration again.
    pub fn reload(&self) {
        // Full: that is requested already.
        let _ = self.reload.try_send(());
    }

    /// Waits for a part that must never end to end.
    pub async fn failed(&mut self) -> ServeError {
        let (what, ended) = tokio::select! {
            Some(ended) = self.servers.join_next() => ("the task that accepts connections", ended),
            ended = &mut self.looping => ("the loop of the agent", ended),
        };
        ended_early(what, ended)
    }

    /// Stops: no new scans nor connections; answers under way have [`DRAIN`] to be taken.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let _ = (&mut self.looping).await;
        let drained = timeout(DRAIN, async {
            while self.servers.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!("peers did not take their answers in time");
        }
    }

    /// Ends at once, as a kill does. Afterwards the state directory is free, if work that blocks runs inline.
    pub async fn kill(mut self) {
        self.looping.abort();
        let _ = (&mut self.looping).await;
        self.servers.shutdown().await;
        // Tasks that ran inline were aborted with the loop, and are dropped now.
        tokio::task::yield_now().await;
    }
}

/// A part that ended is no agent any more: the process ends, and whoever started it starts it again.
pub(super) fn ended_early(what: &str, ended: Result<(), JoinError>) -> ServeError {
    let why = ended.map_or_else(|error| error.to_string(), |()| "it returned".into());
    ServeError::System(io::Error::other(format!("{what} ended: {why}")))
}

#[cfg(test)]
mod tests;
