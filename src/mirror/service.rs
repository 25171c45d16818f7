//! The service: a cycle every interval until told to stop.
//!
//! ```text
//! process       signals, control socket, metrics
//! event loop    timer, orders, approvals, watchdog
//! cycle         where `Blocking` says, one at a time; tells of every step it makes
//! ```
//!
//! The watchdog of systemd is fed while no cycle runs, and while the one that runs makes steps: a hung one is
//! killed and started again, which loses nothing, because a type is one transaction. A cycle that
//! panics is a failed cycle: `afferent status` and a counter say so, and the next one is tried.

mod approved;
mod host;

use approved::Approved;
pub(super) use host::Signals;
pub use host::{Order, ServiceHost};

use super::api::{self, Questions};
use super::core::Core;
use super::cycle::Gatekeeper;
use super::cycle_snapshot::{CycleSnapshot, HeldSnapshot};
use super::kept_times::KeptTimes;
use super::metrics::{Metrics, Outcome, View};
use super::policy::Policy;
use super::progress::Progress;
use super::retention::AuditBounds;
use super::run::{Gate, Mirror, log};
use super::skip_unchanged::SkipUnchanged;
use super::status::Status;
use crate::blocking::Blocking;
use crate::clock::{self, WallClock};
use crate::store::Limits;
use crate::telemetry;
use crate::telemetry::control::Control;
use crate::telemetry::scrape;
use crate::telemetry::systemd;
use crate::telemetry::watchdog::Watchdog;
use crate::web::{Doorkeeper, WebListen, WebServer};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinError, JoinHandle, JoinSet};

/// Longest time that a cycle has to come to its next commit once the service is to stop.
const LAST_CYCLE: Duration = Duration::from_secs(5);
/// A cycle that makes no step for this long hangs: more than the longest request and the largest commit.
const HUNG: Duration = Duration::from_secs(20 * 60);

/// What the service needs beside the mirror.
pub struct ServiceOptions<'a> {
    /// Between two cycles.
    pub interval: Duration,
    /// Directory of the control socket.
    pub state_dir: &'a Path,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
    /// Where the inventory is answered for over HTTP, if it is.
    pub listen: Option<WebListen>,
    /// What is kept of tables that were moved aside.
    pub damaged: Limits,
    /// Where cycles run.
    pub blocking: Blocking,
    /// Reads the configuration again, or says what is wrong with it.
    pub reread: &'a dyn Fn() -> Result<Reloaded, String>,
}

/// What a running mirror takes over when it reads its configuration again.
pub struct Reloaded {
    /// Between two cycles.
    pub interval: Duration,
    /// Where inventory comes from.
    pub core: Box<dyn Core + Send>,
    /// The knobs.
    pub policy: Policy,
    /// What the gate says.
    pub gate: Gate,
    /// How much of the audit log is kept.
    pub audit: AuditBounds,
    /// Where the tables are; another place needs a restart.
    pub state_dir: PathBuf,
    /// Where metrics are read; another place needs a restart.
    pub metrics: Option<SocketAddr>,
    /// Where the inventory is answered for; another place needs a restart.
    pub listen: Option<WebListen>,
    /// What is kept of tables that were moved aside; it holds from the next start on.
    pub damaged: Limits,
}

/// Set once, when the service is to stop; then nothing more is committed. Every commit is a step.
#[derive(Clone)]
struct Stop {
    is_set: Arc<AtomicBool>,
    progress: Progress,
}

impl Gatekeeper for Stop {
    fn may_commit(&self, what: &str) -> Result<(), String> {
        self.progress.step(format!("writing {what}"));
        if self.is_set.load(Ordering::Relaxed) {
            return Err("the service is stopping".into());
        }
        Ok(())
    }
}

/// What runs, and what is known of it.
struct Service {
    mirror: Arc<Mutex<Mirror>>,
    clock: WallClock,
    blocking: Blocking,
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    progress: Progress,
    stop: Stop,
    approved: Arc<Approved>,
    /// What the API reads, where there is one.
    snapshot: Option<Arc<CycleSnapshot>>,
    /// What is known of lists after a restart.
    kept: Option<Arc<KeptTimes>>,
    running: Option<JoinHandle<()>>,
}

/// Cycles every interval until SIGTERM or SIGINT; says so to systemd, and answers `afferent status` on the
/// control socket. At SIGHUP the configuration is read again; it holds from the next cycle on.
///
/// # Errors
/// A signal cannot be caught, the address of the metrics cannot be bound, or a task that answers ended.
pub fn run(host: ServiceHost, mirror: Mirror, options: ServiceOptions<'_>) -> std::io::Result<()> {
    let ServiceHost {
        runtime,
        signals,
        owes_reload,
    } = host;
    let service = Service::new(mirror, options.blocking);
    let done = runtime.block_on(service.serve(options, signals, owes_reload));
    // A cycle that waits for Core is not waited for: nothing of it is committed any more.
    runtime.shutdown_timeout(LAST_CYCLE);
    done
}

/// The event loop alone, without a process around it: no signals, no sockets. It takes orders from
/// `next_order`, which must be safe to drop between two orders, and returns after [`Order::Stop`]. With
/// [`Blocking::Inline`] it runs on one thread in virtual time. Whoever keeps a clone of the mirror's store
/// may take snapshots meanwhile.
///
/// # Errors
/// None: a task that answers could end, but none is there.
pub async fn run_loop(
    mirror: Mirror,
    options: &ServiceOptions<'_>,
    next_order: impl AsyncFnMut() -> Order,
) -> std::io::Result<()> {
    let mut service = Service::new(mirror, options.blocking);
    let ended = service
        .live(options, next_order, options.interval, &mut JoinSet::new())
        .await;
    service.stop.is_set.store(true, Ordering::Relaxed);
    ended
}

impl Service {
    fn new(mut mirror: Mirror, blocking: Blocking) -> Self {
        let progress = Progress::default();
        mirror.core.report_to(progress.clone());
        Self {
            status: Arc::new(Status::new(mirror.core.source(), progress.clone())),
            clock: mirror.clock.clone(),
            blocking,
            mirror: Arc::new(Mutex::new(mirror)),
            metrics: Arc::default(),
            stop: Stop {
                is_set: Arc::default(),
                progress: progress.clone(),
            },
            progress,
            approved: Arc::default(),
            snapshot: None,
            kept: None,
            running: None,
        }
    }

    async fn serve(
        mut self,
        options: ServiceOptions<'_>,
        mut signals: Signals,
        owes_reload: bool,
    ) -> std::io::Result<()> {
        self.remember(options.state_dir);
        let mut answering = JoinSet::new();
        let doorkeeper = match &options.listen {
            Some(listen) => Some(self.open_api(listen, &options, &mut answering).await?),
            None => None,
        };
        self.answer(options.state_dir, doorkeeper, &mut answering);
        if let Some(address) = options.metrics {
            self.listen(address, &mut answering).await?;
        }
        systemd::tell(&[sd_notify::NotifyState::Ready]);
        let mut interval = options.interval;
        if owes_reload {
            interval = self.reload(&options, interval).unwrap_or(interval);
        }
        tracing::info!(interval = %clock::show_duration(interval), "mirror started");
        let next_order = async || signals.next().await;
        let ended = self
            .live(&options, next_order, interval, &mut answering)
            .await;
        systemd::tell(&[sd_notify::NotifyState::Stopping]);
        self.stop.is_set.store(true, Ordering::Relaxed);
        answering.shutdown().await;
        tracing::info!("mirror stopped");
        ended
    }

    /// Takes up what was known before a restart.
    fn remember(&mut self, state_dir: &Path) {
        let mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = generation_of(&mirror);
        drop(mirror);
        let kept = KeptTimes::new(state_dir);
        self.status.set_complete(kept.read(generation.unwrap_or(0)));
        self.status.set_generation(generation);
        self.kept = Some(Arc::new(kept));
    }

    /// Cycles until the service is told to stop, or until a task that answers has ended.
    async fn live(
        &mut self,
        options: &ServiceOptions<'_>,
        mut next_order: impl AsyncFnMut() -> Order,
        mut interval: Duration,
        answering: &mut JoinSet<()>,
    ) -> std::io::Result<()> {
        let mut beat = tokio::time::interval(watchdog_interval());
        let mut watchdog = Watchdog::new(HUNG, clock::now());
        let approved = Arc::clone(&self.approved);
        let mut next = tokio::time::interval(interval);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = next_order() => match order {
                    Order::Stop => return Ok(()),
                    Order::Reload => telemetry::reload(|| {
                        if let Some(changed) = self.reload(options, interval) {
                            interval = changed;
                            next = tokio::time::interval(interval);
                            next.reset();
                            next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                        }
                    }),
                },
                _ = beat.tick() => self.feed(&mut watchdog, clock::now(), systemd::tell),
                _ = next.tick() => self.begin_cycle(),
                () = approved.given.notified() => self.begin_cycle(),
                Some(ended) = answering.join_next() => return Err(ended_early(ended)),
            }
        }
    }

    /// Feeds the watchdog of systemd while no cycle runs, or the one that runs gets on.
    fn feed(
        &self,
        watchdog: &mut Watchdog,
        now: Instant,
        tell: impl FnOnce(&[sd_notify::NotifyState<'_>]),
    ) {
        if watchdog.is_well(now, self.status.is_running(), self.progress.steps()) {
            tell(&[sd_notify::NotifyState::Watchdog]);
        } else {
            tracing::error!(doing = self.progress.doing(), "the cycle hangs");
        }
    }

    /// A cycle that takes longer than the interval is not run twice at once.
    fn begin_cycle(&mut self) {
        if self
            .running
            .as_ref()
            .is_some_and(|cycle| !cycle.is_finished())
        {
            tracing::warn!(doing = self.progress.doing(), "the last cycle still runs");
            return;
        }
        let (mirror, stop) = (Arc::clone(&self.mirror), self.stop.clone());
        let approved = Arc::clone(&self.approved);
        let (status, metrics) = (Arc::clone(&self.status), Arc::clone(&self.metrics));
        let clock = self.clock.clone();
        let (snapshot, kept) = (self.snapshot.clone(), self.kept.clone());
        let work = move || {
            let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
            let mut approval = approved
                .approval
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            mirror.approval = approval.take();
            drop(approval);
            let hold = || snapshot.as_ref().map(|snapshot| snapshot.hold());
            cycle(&mut mirror, &clock, &stop, (&status, &metrics), hold);
            if let (Some(kept), Some(generation)) = (kept, status.generation()) {
                kept.keep(&status.complete(), generation, clock.now());
            }
        };
        self.running = Some(self.spawn(work));
    }

    /// Runs `work`, which takes the mirror, where it may block.
    fn spawn(&self, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
        let blocking = self.blocking;
        tokio::spawn(async move {
            if let Err(error) = blocking.run(work).await {
                tracing::error!(%error, "a task of the mirror ended early");
            }
        })
    }

    /// Takes over a new configuration; gives the interval if that changed.
    fn reload(&self, options: &ServiceOptions<'_>, interval: Duration) -> Option<Duration> {
        let mut new = match (options.reread)() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(error, "configuration not taken over, the one before stays");
                return None;
            }
        };
        let fixed = [
            ("state_dir", new.state_dir != options.state_dir),
            ("metrics", new.metrics != options.metrics),
            ("mirror_*", new.listen != options.listen),
            ("damaged_*", new.damaged != options.damaged),
        ];
        for (key, changed) in fixed {
            if changed {
                tracing::warn!(key, "changed, and needs a restart to hold");
            }
        }
        self.status.set_source(new.core.source());
        new.core.report_to(self.progress.clone());
        let mirror = Arc::clone(&self.mirror);
        // A cycle that runs ends as it began.
        self.spawn(move || {
            let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
            (mirror.core, mirror.policy, mirror.gate) = (new.core, new.policy, new.gate);
            mirror.audit = new.audit;
            mirror.skip_unchanged = SkipUnchanged::default();
        });
        tracing::info!("configuration read again");
        (new.interval != interval).then_some(new.interval)
    }

    /// Answers `afferent status`, `afferent mirror approve` and `login`, and commands that read the file beside the
    /// service and want the tables of one cycle. The mirror is of use without.
    fn answer(&self, state_dir: &Path, doorkeeper: Option<Doorkeeper>, tasks: &mut JoinSet<()>) {
        let (status, approved) = (Arc::clone(&self.status), Arc::clone(&self.approved));
        let of = std::fs::canonicalize(state_dir).unwrap_or_default();
        let answer = move |words: &[&str], user: Option<u32>| match words {
            ["approve", kind, deletes] => approved.give(status.approve(kind, deletes, user)),
            ["login"] => login(doorkeeper.as_ref(), user),
            ["commit"] => json!({ "state_dir": of, "generation": status.generation() }),
            _ => status.show(),
        };
        match Control::bind(state_dir) {
            Ok(control) => {
                let control = control.with_metrics(self.view());
                tasks.spawn(control.answer(answer));
            }
            Err(error) => {
                tracing::warn!(%error, "no control socket: `afferent status` will not find this service");
            }
        }
    }

    /// Binds the address of the API and answers there; gives who lets people in.
    async fn open_api(
        &mut self,
        listen: &WebListen,
        options: &ServiceOptions<'_>,
        tasks: &mut JoinSet<()>,
    ) -> std::io::Result<Doorkeeper> {
        let server = WebServer::bind(api::NAME, listen).await;
        let server = server.map_err(std::io::Error::other)?;
        let mirror = self.mirror.lock().unwrap_or_else(PoisonError::into_inner);
        let store = Arc::clone(&mirror.store);
        drop(mirror);
        let snapshot = Arc::new(CycleSnapshot::new(Arc::clone(&store)));
        self.snapshot = Some(Arc::clone(&snapshot));
        self.status.set_api(server.health());
        let metrics = Arc::clone(&self.metrics);
        let questions = Questions {
            snapshot,
            status: Arc::clone(&self.status),
            metrics: Arc::clone(&metrics),
            reach: api::reach(options.state_dir),
            blocking: self.blocking,
            by_component: Arc::default(),
        };
        // What is stored is counted at once: the first cycle may take long.
        self.spawn(move || metrics.count(&store));
        let doorkeeper = server.doorkeeper();
        tasks.spawn(api::run(server, questions));
        Ok(doorkeeper)
    }

    async fn listen(&self, address: SocketAddr, tasks: &mut JoinSet<()>) -> std::io::Result<()> {
        let listener = scrape::bind(address).await?;
        tasks.spawn(scrape::listen(listener, self.view()));
        Ok(())
    }

    /// What metrics are made of.
    fn view(&self) -> Arc<View> {
        Arc::new(View {
            status: Arc::clone(&self.status),
            metrics: Arc::clone(&self.metrics),
            progress: self.progress.clone(),
        })
    }
}

/// An address for the browser of who asks.
fn login(doorkeeper: Option<&Doorkeeper>, user: Option<u32>) -> Value {
    let answer = match doorkeeper {
        None => Err("this mirror has no page; its setting `mirror_listen` gives it one"),
        Some(doorkeeper) => doorkeeper.login(user),
    };
    answer.unwrap_or_else(|error| json!({ "error": error }))
}

/// One cycle, which may panic without taking the service with it.
fn cycle<'a>(
    mirror: &mut Mirror,
    clock: &WallClock,
    stop: &Stop,
    (status, metrics): (&Status, &Metrics),
    hold: impl FnOnce() -> Option<HeldSnapshot<'a>>,
) {
    let began = clock::now();
    let held = hold();
    status.set_generation(generation_of(mirror));
    status.begin(clock.now());
    let done = catch_unwind(AssertUnwindSafe(|| mirror.cycle(stop)));
    status.set_generation(generation_of(mirror));
    // Whoever is told that the cycle has ended reads what it wrote.
    drop(held);
    let summary = done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        text.unwrap_or("no message").to_owned()
    });
    let outcome = match &summary {
        Ok(summary) => {
            log(summary);
            Outcome::of(summary)
        }
        Err(panic) => {
            tracing::error!(
                panic,
                "the cycle panicked: nothing of its last type was written"
            );
            // What is remembered of the cycle before may not be what is there.
            mirror.skip_unchanged = SkipUnchanged::default();
            Outcome::Panicked
        }
    };
    status.end(clock.now(), summary);
    let took = clock::now().saturating_duration_since(began);
    metrics.note(outcome, took, &mirror.store);
}

/// Commits the store has seen, if that can be told.
fn generation_of(mirror: &Mirror) -> Option<u64> {
    super::generation(&mirror.store.snapshot().ok()?).ok()
}

/// Nobody could ask the service any more: the process ends, and whoever started it starts it again.
pub(super) fn ended_early(ended: Result<(), JoinError>) -> std::io::Error {
    let why = ended.map_or_else(|error| error.to_string(), |()| "it returned".into());
    let what = "a task that answers on the control socket or for metrics ended";
    std::io::Error::other(format!("{what}: {why}"))
}

fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |time| time / 2)
}

#[cfg(test)]
mod tests;
