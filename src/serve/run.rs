//! The loop: events and time in, scans out, and what is found published.

mod ended;
mod pushed;

use super::cpe_refresh::Mapping;
use super::error::ServeError;
use super::handshakes::Handshakes;
use super::listen::Acceptors;
use super::mapping::{MappingState, UpdatePath};
use super::refusal::NotReady;
use super::renewal::Renewal;
use super::repo_cpe::MappingStamp;
use super::rescan::{Next, Rescan};
use super::respond::Published;
use super::server::{Door, Push, Rules, Server, Shared};
use super::status::Status;
use super::timer::{Ticker, joined};
use super::worker::{self, Kept, Outcome, Worker};
use super::{Config, repo_cpe};
use crate::clock;
use crate::scan;
use crate::telemetry;
use crate::telemetry::control::Control;
use crate::telemetry::watchdog::Watchdog;
use crate::transport::Listener;
use crate::watch::{Places, Signature, Touch, Watch};
use pushed::Pushes;
use sd_notify::NotifyState;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// Answers under way when the service is told to stop are waited for this long.
const DRAIN: Duration = Duration::from_secs(5);

/// A scan that has looked at nothing new for this long hangs.
const STUCK: Duration = Duration::from_secs(10 * 60);

/// Longer than any machine runs.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads the configuration again, or says what is wrong with it.
pub type Reread = Box<dyn Fn() -> Result<Config, String>>;

/// Runs the agent until SIGTERM or SIGINT. At SIGHUP the configuration is read again.
pub fn run(config: Config, reread: Reread) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let ended = runtime.block_on(Agent::run(config, reread));
    // A scan of a disk that does not answer must not keep the process.
    runtime.shutdown_timeout(DRAIN);
    ended
}

/// What reaches the loop from elsewhere: that a peer knows what this agent never made, mappings, and SIGHUP.
type Inbox = (mpsc::Receiver<()>, mpsc::Receiver<Push>, Signal);

struct Agent {
    config: Config,
    rescan: Rescan,
    watch: Watch,
    worker: Worker,
    published: watch::Sender<Option<Arc<Published>>>,
    rules: watch::Sender<Rules>,
    reread: Reread,
    scan: Option<JoinHandle<Outcome>>,
    renewal: Renewal,
    pushes: Pushes,
    watchdog: Watchdog,
    /// What scans have looked at so far.
    progress: Arc<AtomicU64>,
    /// Of the files as the newest scan found them.
    signature: Signature,
    /// Of the mapping of repositories to CPEs, likewise.
    mapping: Option<MappingStamp>,
    not_ready: watch::Sender<NotReady>,
    /// Which mapping is in use, for the answers.
    mapping_state: watch::Sender<MappingState>,
    servers: JoinSet<()>,
    /// Answers `afferent status`, where it can.
    control: JoinSet<()>,
    status: Arc<Mutex<Status>>,
}

impl Agent {
    async fn run(config: Config, reread: Reread) -> Result<(), ServeError> {
        let (mut agent, inbox, stop) = Self::start(config, reread)?;
        // Not only with a report: the first scan may have to wait for the very transaction that
        // installs this service and waits for its start.
        notify(&[NotifyState::Ready]);
        agent.tell_status();
        agent.open_control();
        agent.live(inbox).await?;
        agent.control.shutdown().await;
        tracing::info!("stopping");
        notify(&[NotifyState::Stopping]);
        let _ = stop.send(true);
        let drained = timeout(DRAIN, async {
            while agent.servers.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!("peers did not take their answers in time");
        }
        Ok(())
    }

    /// Opens what is kept and listens.
    fn start(
        config: Config,
        reread: Reread,
    ) -> Result<(Self, Inbox, watch::Sender<bool>), ServeError> {
        // First of all: unhandled, it would end the process.
        let hang_up = signal(SignalKind::hangup())?;
        let (worker, stored) = Worker::open(&config)?;
        let (published, subscriber) = watch::channel(stored.map(Arc::new));
        let (stop, stopping) = watch::channel(false);
        let (rules, rules_changed) = watch::channel(Rules::of(&config));
        let (rolled_back_tx, rolled_back) = mpsc::channel(1);
        let (not_ready, why_not_ready) = watch::channel(NotReady::default());
        let mut servers = JoinSet::new();
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
            published: subscriber,
            not_ready: why_not_ready,
            mapping: mapping_changed,
            stopping,
            rules: rules_changed,
            handshakes: Arc::clone(&handshakes),
            rolled_back: rolled_back_tx,
            pushes: pushes_tx,
        }));
        let mut acceptors = Acceptors::default();
        for listen in &config.listen {
            let address = listen.address.clone();
            let acceptor = acceptors.of(listen.tls, &config.tls, worker.guest_id())?;
            let listener = Listener::bind(&address).map_err(|source| ServeError::Listen {
                address: address.clone(),
                source,
            })?;
            tracing::info!(%address, tls = ?listen.tls, "listening");
            let door = Door { address, acceptor };
            servers.spawn(Arc::clone(&server).accept_from(listener, door));
        }
        let places: Vec<_> = match &config.dbpath {
            Some(dbpath) => vec![dbpath.clone()],
            None => scan::PLACES.iter().map(Into::into).collect(),
        };
        let watch = Watch::start(Places::new(&config.root, &places));
        let Kept {
            epoch,
            durable,
            moved_aside,
            troubles,
        } = worker.kept();
        let status = Status {
            started_at: clock::wall_now(),
            guest_id: worker.guest_id().cloned(),
            epoch,
            durable,
            moved_aside,
            troubles,
            empty: None,
            changing: 0,
            reactive: config.pace.reactive,
            watch_trouble: watch.trouble().map(str::to_owned),
            scan_error: None,
            scans: 0,
            failed_scans: 0,
            mapping,
            require_mapping: config.require_mapping,
            handshakes,
            acceptors: Arc::new(acceptors),
        };
        let agent = Self {
            status: Arc::new(Mutex::new(status)),
            rescan: Rescan::new(config.pace, clock::now()),
            signature: watch.signature(),
            mapping: None,
            watch,
            progress: worker.progress(),
            worker,
            not_ready,
            mapping_state,
            servers,
            control: JoinSet::new(),
            published,
            rules,
            scan: None,
            renewal: Renewal::default(),
            pushes: Pushes::default(),
            watchdog: Watchdog::new(STUCK, clock::now()),
            config,
            reread,
        };
        Ok((agent, (rolled_back, pushes, hang_up), stop))
    }

    /// Answers `afferent status` from now on, if the socket can be bound: the agent is of use without.
    fn open_control(&mut self) {
        let control = match Control::bind(&self.config.state_dir) {
            Ok(control) => control,
            Err(error) => {
                tracing::warn!(%error, "no control socket: `afferent status` will not find this service");
                return;
            }
        };
        let (status, published) = (Arc::clone(&self.status), self.published.subscribe());
        let answer = move |_: &[&str], _| {
            let published = published.borrow().clone();
            locked(&status).show(published.as_ref())
        };
        self.control.spawn(control.answer(answer));
    }

    /// Until the service is told to stop.
    async fn live(&mut self, inbox: Inbox) -> Result<(), ServeError> {
        let (mut rolled_back, mut pushes, mut hang_up) = inbox;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut poll = Ticker::every(self.config.safety_poll);
        // Half of what systemd allows, fed from this loop: a stuck loop is a dead service.
        let mut watchdog =
            Ticker::every(sd_notify::watchdog_enabled().map_or(NEVER, |time| time / 2));
        let mut mapping = Mapping::new(&self.config);
        self.say_trouble(None);
        loop {
            let until = self.step();
            tokio::select! {
                Some(ended) = self.servers.join_next() => {
                    return Err(ended_early("the task that accepts connections", ended));
                }
                Some(ended) = self.control.join_next() => {
                    return Err(ended_early("the task of the control socket", ended));
                }
                touch = self.watch.touched() => self.touched(touch),
                outcome = finished(&mut self.scan) => self.scanned(outcome),
                Some(()) = rolled_back.recv() => self.rolled_back(),
                Some(push) = pushes.recv(), if self.pushes.has_room() => self.push_arrived(push),
                result = joined(&mut self.pushes.running) => self.pushed(result),
                result = joined(&mut self.renewal.running) => self.renewed(result),
                () = sleep_until(until) => {}
                is_new = mapping.refreshed() => if is_new { self.rescan.request_scan(clock::now()) },
                () = poll.tick() => {
                    self.compare();
                    self.tell_status();
                }
                () = watchdog.tick() => self.feed_watchdog(),
                _ = hang_up.recv() => telemetry::reload(|| self.reread()),
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            }
        }
    }

    /// Takes over what can change while the service runs, and says what needs a restart.
    fn reread(&mut self) {
        let new = match (self.reread)() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(error, "configuration not taken over, the one before stays");
                return;
            }
        };
        let old = &mut self.config;
        let fixed = [
            ("listen", old.listen != new.listen),
            ("root", old.root != new.root),
            ("dbpath", old.dbpath != new.dbpath),
            ("state_dir", old.state_dir != new.state_dir),
            ("damaged_*", old.damaged != new.damaged),
            ("tls_*", old.tls != new.tls),
            ("repo_cpe", old.repo_cpe != new.repo_cpe),
            ("repo_cpe_*", old.repo_cpe_fetch != new.repo_cpe_fetch),
            ("safety_poll", old.safety_poll != new.safety_poll),
        ];
        for (key, changed) in fixed {
            if changed {
                tracing::warn!(key, "changed, and needs a restart to hold");
            }
        }
        (old.pace, old.allow_cid, old.conn_deadline) = (new.pace, new.allow_cid, new.conn_deadline);
        old.require_mapping = new.require_mapping;
        locked(&self.status).require_mapping = new.require_mapping;
        self.rescan.set_pace(self.config.pace, clock::now());
        self.rules.send_replace(Rules::of(&self.config));
        locked(&self.status).reactive = self.config.pace.reactive;
        tracing::info!("configuration read again");
    }

    /// Does all that is due, and gives the time of the next thing.
    fn step(&mut self) -> Instant {
        loop {
            self.begin_push();
            let is_kept_away = self.renewal.is_under_way() || self.pushes.running.is_some();
            if self.scan.is_none() && is_kept_away {
                return Instant::from_std(clock::now()) + self.config.pace.interval;
            }
            match self.rescan.next(clock::now()) {
                Next::WaitUntil(at) => return at.into(),
                Next::WaitForScan => {
                    return Instant::from_std(clock::now()) + self.config.pace.interval;
                }
                Next::LookAtLock => {
                    let holder = self.worker.transaction_running(&self.config);
                    self.rescan.lock_seen(clock::now(), holder);
                }
                Next::Scan {
                    trigger,
                    mid_transaction,
                } => {
                    self.signature = self.watch.signature();
                    self.mapping = self.mapping_now();
                    let scan = self.worker.scan(&self.config, trigger, mid_transaction);
                    self.scan = Some(tokio::task::spawn_blocking(scan));
                }
            }
        }
    }

    fn touched(&mut self, touch: Touch) {
        if touch.has(Touch::PLACE) {
            self.arm();
        }
        self.rescan
            .touched(clock::now(), touch.has(Touch::LOCK_CLOSED));
    }

    /// The net under the events: has anything changed since the last scan began that no event told?
    fn compare(&mut self) {
        if self.arm() || self.watch.signature() != self.signature {
            self.rescan.touched(clock::now(), false);
        }
        let mapping = self.mapping_now();
        if mapping != self.mapping {
            self.mapping = mapping;
            self.rescan.request_scan(clock::now());
        }
    }

    fn mapping_now(&self) -> Option<MappingStamp> {
        match self.config.repo_cpe.file(&self.config.state_dir) {
            Some(file) => repo_cpe::stamp(&file),
            None => self.mapping_state.borrow().hash.map(MappingStamp::Pushed),
        }
    }

    fn arm(&mut self) -> bool {
        let before = self.watch.trouble().map(str::to_owned);
        let set_any = self.watch.arm();
        self.say_trouble(before.as_deref());
        set_any
    }

    /// Says in the log when watching gets worse or better.
    fn say_trouble(&self, before: Option<&str>) {
        locked(&self.status).watch_trouble = self.watch.trouble().map(str::to_owned);
        let every = clock::show_duration(self.config.safety_poll);
        match self.watch.trouble() {
            now if now == before => {}
            Some(trouble) => tracing::warn!(
                trouble,
                "changes may be noticed only by comparing files every {every}"
            ),
            None => tracing::info!("all places of the RPM database are watched again"),
        }
    }

    /// What `systemctl status` shows.
    fn tell_status(&self) {
        let line = locked(&self.status).line(self.published.borrow().as_deref());
        notify(&[NotifyState::Status(&line)]);
    }

    fn feed_watchdog(&mut self) {
        let progress = self.progress.load(Ordering::Relaxed);
        let is_scanning = self.scan.is_some();
        if self.watchdog.is_well(clock::now(), is_scanning, progress) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn locked(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The outcome of the running scan, when there is one.
async fn finished(scan: &mut Option<JoinHandle<Outcome>>) -> Outcome {
    let outcome = joined(scan).await;
    outcome.unwrap_or_else(|error| Outcome::ScanFailed(format!("the scan broke off: {error}")))
}

/// A loop that ended is no agent any more: the process ends, and whoever started it starts it again.
fn ended_early(what: &str, ended: Result<(), JoinError>) -> ServeError {
    let why = ended.map_or_else(|error| error.to_string(), |()| "it returned".into());
    ServeError::System(io::Error::other(format!("{what} ended: {why}")))
}

/// Tells systemd, when there is one that listens.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests;
