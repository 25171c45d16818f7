//! The loop: events and time in, scans out, and what is found published.

mod ended;
mod pushed;

use super::cpe_refresh::Mapping;
use super::machine::ChangeSource;
use super::mapping::MappingState;
use super::refusal::NotReady;
use super::renewal::Renewal;
use super::repo_cpe::MappingStamp;
use super::rescan::{Next, Rescan};
use super::respond::Published;
use super::server::{Push, Rules};
use super::status::Status;
use super::timer::{Task, Ticker};
use super::worker::{Outcome, Worker};
use super::{Config, repo_cpe};
use crate::blocking::Blocking;
use crate::clock::{self, WallClock};
use crate::telemetry;
use crate::telemetry::systemd;
use crate::telemetry::watchdog::Watchdog;
use crate::watch::Touch;
pub(super) use pushed::Pushes;
use sd_notify::NotifyState;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Longer than any machine runs.
const NEVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Reads the configuration again, or says what is wrong with it.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send>;

/// What reaches the loop from elsewhere.
pub(super) struct Inbox {
    /// A peer knows what this agent never made.
    pub(super) rolled_back: mpsc::Receiver<()>,
    /// Mappings that peers push.
    pub(super) pushes: mpsc::Receiver<Push>,
    /// The configuration is to be read again.
    pub(super) reload: mpsc::Receiver<()>,
    /// A scan is requested.
    pub(super) rescan: mpsc::Receiver<()>,
    /// Turns true when the agent is to stop.
    pub(super) stop: watch::Receiver<bool>,
}

/// The loop, and what it works with.
pub(super) struct AgentLoop {
    pub(super) config: Config,
    pub(super) rescan: Rescan,
    pub(super) changes: Box<dyn ChangeSource>,
    pub(super) worker: Worker,
    pub(super) blocking: Blocking,
    pub(super) wall: WallClock,
    pub(super) published: watch::Sender<Option<Arc<Published>>>,
    pub(super) rules: watch::Sender<Rules>,
    pub(super) reread: Reread,
    pub(super) scan: Task<Outcome>,
    pub(super) renewal: Renewal,
    pub(super) pushes: Pushes,
    pub(super) watchdog: Watchdog,
    /// What scans have looked at so far.
    pub(super) progress: Arc<AtomicU64>,
    /// Of the mapping of repositories to CPEs, as the newest scan found it.
    pub(super) mapping: Option<MappingStamp>,
    pub(super) not_ready: watch::Sender<NotReady>,
    /// Which mapping is in use, for the answers.
    pub(super) mapping_state: watch::Sender<MappingState>,
    pub(super) status: Arc<Mutex<Status>>,
}

impl AgentLoop {
    /// Runs until the agent is told to stop.
    pub(super) async fn run(mut self, inbox: Inbox) {
        let Inbox {
            mut rolled_back,
            mut pushes,
            mut reload,
            mut rescan,
            mut stop,
        } = inbox;
        let mut poll = Ticker::every(self.config.safety_poll);
        // Half of what systemd allows, fed from this loop: a stuck loop is a dead service.
        let mut watchdog =
            Ticker::every(sd_notify::watchdog_enabled().map_or(NEVER, |time| time / 2));
        let mut mapping = Mapping::new(&self.config, self.blocking);
        self.tell_status();
        self.say_trouble(None);
        loop {
            let until = self.step();
            tokio::select! {
                touch = self.changes.touched() => self.touched(touch),
                outcome = finished(&mut self.scan) => self.scanned(outcome),
                Some(()) = rolled_back.recv() => self.rolled_back(),
                Some(push) = pushes.recv(), if self.pushes.has_room() => self.push_arrived(push),
                result = self.pushes.running.joined() => self.pushed(result),
                result = self.renewal.running.joined() => self.renewed(result),
                () = sleep_until(until) => {}
                is_new = mapping.refreshed() => {
                    locked(&self.status).fetch_trouble = mapping.trouble().map(str::to_owned);
                    if is_new {
                        self.rescan.request_scan(clock::now());
                    }
                }
                () = poll.tick() => {
                    self.compare();
                    self.tell_status();
                }
                () = watchdog.tick() => self.feed_watchdog(),
                Some(()) = rescan.recv() => self.rescan.request_scan(clock::now()),
                Some(()) = reload.recv() => telemetry::reload(|| self.reread()),
                _ = stop.wait_for(|stop| *stop) => return,
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
            let is_kept_away = self.renewal.is_under_way() || self.pushes.running.is_running();
            if !self.scan.is_running() && is_kept_away {
                return Instant::from_std(clock::now()) + self.config.pace.interval;
            }
            match self.rescan.next(clock::now()) {
                Next::WaitUntil(at) => return at.into(),
                Next::WaitForScan => {
                    return Instant::from_std(clock::now()) + self.config.pace.interval;
                }
                Next::LookAtLock => {
                    let holder = self.changes.transaction_running();
                    locked(&self.status).transaction = holder;
                    self.rescan.lock_seen(clock::now(), holder);
                }
                Next::Scan {
                    trigger,
                    mid_transaction,
                } => {
                    locked(&self.status).scan_log.begin();
                    self.changes.note_state();
                    self.mapping = self.mapping_now();
                    let scan = self.worker.scan(trigger, mid_transaction);
                    self.scan.start(self.blocking.spawn(scan));
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
        if self.arm() || self.changes.differs() {
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
        let before = self.changes.trouble().map(str::to_owned);
        let set_any = self.changes.arm();
        self.say_trouble(before.as_deref());
        set_any
    }

    /// Says in the log when watching gets worse or better.
    fn say_trouble(&self, before: Option<&str>) {
        locked(&self.status).watch_trouble = self.changes.trouble().map(str::to_owned);
        let every = clock::show_duration(self.config.safety_poll);
        match self.changes.trouble() {
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
        systemd::tell(&[NotifyState::Status(&line)]);
    }

    fn feed_watchdog(&mut self) {
        let progress = self.progress.load(Ordering::Relaxed);
        let is_scanning = self.scan.is_running();
        if self.watchdog.is_well(clock::now(), is_scanning, progress) {
            systemd::tell(&[NotifyState::Watchdog]);
        }
    }
}

pub(super) fn locked(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The outcome of the running scan, when there is one.
async fn finished(scan: &mut Task<Outcome>) -> Outcome {
    let outcome = scan.joined().await;
    outcome.unwrap_or_else(|error| Outcome::ScanFailed(format!("the scan broke off: {error}")))
}
