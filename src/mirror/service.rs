//! The service: a cycle every interval until told to stop.
//!
//! ```text
//! event loop    timer, signals, control socket, metrics, watchdog
//! cycle         on a thread of its own, one at a time; tells of every step it makes
//! ```
//!
//! The watchdog of systemd is fed while no cycle runs, and while the one that runs makes steps: a hung one is
//! killed and started again, which loses nothing, because a type is one transaction. A cycle that
//! panics is a failed cycle: `afferent status` and a counter say so, and the next one is tried.

use super::approval::Approval;
use super::core::Core;
use super::cycle::Gatekeeper;
use super::metrics::{Metrics, Outcome, View};
use super::policy::Policy;
use super::progress::Progress;
use super::run::{Gate, Mirror, log};
use super::skip_unchanged::SkipUnchanged;
use super::status::Status;
use crate::clock;
use crate::telemetry;
use crate::telemetry::control::Control;
use crate::telemetry::scrape;
use crate::telemetry::watchdog::Watchdog;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

/// Longest time that a cycle has to come to its next commit once the service is to stop.
const LAST_CYCLE: Duration = Duration::from_secs(5);
/// A cycle that makes no step for this long hangs: more than the longest request and the largest commit.
const HUNG: Duration = Duration::from_secs(20 * 60);

/// What the service needs beside the mirror.
pub struct Options<'a> {
    /// Between two cycles.
    pub interval: Duration,
    /// Directory of the control socket.
    pub state_dir: &'a Path,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
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
    /// Where the tables are; another place needs a restart.
    pub state_dir: PathBuf,
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
    status: Arc<Status>,
    metrics: Arc<Metrics>,
    progress: Progress,
    stop: Stop,
    approved: Arc<Approved>,
    running: Option<JoinHandle<()>>,
}

/// What an operator approved, until a cycle takes it.
#[derive(Default)]
struct Approved {
    approval: Mutex<Option<Approval>>,
    /// Somebody approved something: the next cycle begins now.
    given: Notify,
}

/// Cycles every interval until SIGTERM or SIGINT; says so to systemd, and answers `afferent status` on the
/// control socket. At SIGHUP the configuration is read again; it holds from the next cycle on.
///
/// # Errors
/// A signal cannot be caught, or the address of the metrics cannot be bound.
pub fn run(mirror: Mirror, options: Options<'_>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(Service::new(mirror).serve(options));
    // A cycle that waits for Core is not waited for: nothing of it is committed any more.
    runtime.shutdown_timeout(LAST_CYCLE);
    done
}

impl Service {
    fn new(mut mirror: Mirror) -> Self {
        let progress = Progress::default();
        mirror.core.report_to(progress.clone());
        Self {
            status: Arc::new(Status::new(mirror.core.source(), progress.clone())),
            mirror: Arc::new(Mutex::new(mirror)),
            metrics: Arc::default(),
            stop: Stop {
                is_set: Arc::default(),
                progress: progress.clone(),
            },
            progress,
            approved: Arc::default(),
            running: None,
        }
    }

    async fn serve(mut self, options: Options<'_>) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut answering = self.answer(options.state_dir);
        if let Some(address) = options.metrics {
            self.listen(address, &mut answering).await?;
        }
        tell_systemd(&[sd_notify::NotifyState::Ready]);
        let mut interval = options.interval;
        tracing::info!(interval = %clock::show_duration(interval), "mirror started");
        let mut beat = tokio::time::interval(watchdog_interval());
        let mut watchdog = Watchdog::new(HUNG, clock::now());
        let approved = Arc::clone(&self.approved);
        let mut next = tokio::time::interval(interval);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hang_up.recv() => telemetry::reload(|| {
                    if let Some(changed) = self.reload(&options, interval) {
                        interval = changed;
                        next = tokio::time::interval(interval);
                        next.reset();
                        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                    }
                }),
                _ = beat.tick() => {
                    let (is_running, steps) = (self.status.is_running(), self.progress.steps());
                    if watchdog.is_well(clock::now(), is_running, steps) {
                        tell_systemd(&[sd_notify::NotifyState::Watchdog]);
                    } else {
                        tracing::error!(doing = self.progress.doing(), "the cycle hangs");
                    }
                },
                _ = next.tick() => self.begin_cycle(),
                () = approved.given.notified() => self.begin_cycle(),
            }
        }
        tell_systemd(&[sd_notify::NotifyState::Stopping]);
        self.stop.is_set.store(true, Ordering::Relaxed);
        answering.shutdown().await;
        tracing::info!("mirror stopped");
        Ok(())
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
        self.running = Some(tokio::task::spawn_blocking(move || {
            let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
            let mut approval = approved
                .approval
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            mirror.approval = approval.take();
            drop(approval);
            cycle(&mut mirror, &stop, &status, &metrics);
        }));
    }

    /// Takes over a new configuration; gives the interval if that changed.
    fn reload(&self, options: &Options<'_>, interval: Duration) -> Option<Duration> {
        let mut new = match (options.reread)() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(error, "configuration not taken over, the one before stays");
                return None;
            }
        };
        if new.state_dir != options.state_dir {
            tracing::warn!(key = "state_dir", "changed, and needs a restart to hold");
        }
        self.status.set_source(new.core.source());
        new.core.report_to(self.progress.clone());
        let mirror = Arc::clone(&self.mirror);
        // A cycle that runs ends as it began.
        tokio::task::spawn_blocking(move || {
            let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
            (mirror.core, mirror.policy, mirror.gate) = (new.core, new.policy, new.gate);
            mirror.skip_unchanged = SkipUnchanged::default();
        });
        tracing::info!("configuration read again");
        (new.interval != interval).then_some(new.interval)
    }

    /// Answers `afferent status` and `afferent mirror approve` for as long as what it gives is kept. The
    /// mirror is of use without.
    fn answer(&self, state_dir: &Path) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (status, approved) = (Arc::clone(&self.status), Arc::clone(&self.approved));
        let answer = move |words: &[&str], user: Option<u32>| match words {
            ["approve", kind, deletes] => approved.give(status.approve(kind, deletes, user)),
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
        tasks
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

impl Approved {
    /// Keeps what was approved, and says what follows.
    fn give(&self, approval: Result<Approval, String>) -> Value {
        match approval {
            Err(why) => json!({"error": why}),
            Ok(approval) => {
                let (kind, deletes) = (approval.kind.name(), approval.rows.len());
                tracing::info!(kind, deletes, user = ?approval.user, "deletes approved");
                let mut kept = self.approval.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some(approval);
                self.given.notify_one();
                json!({"approved": deletes, "type": kind})
            }
        }
    }
}

/// One cycle, which may panic without taking the service with it.
fn cycle(mirror: &mut Mirror, stop: &Stop, status: &Status, metrics: &Metrics) {
    let began = clock::now();
    status.begin(clock::wall_now());
    let done = catch_unwind(AssertUnwindSafe(|| mirror.cycle(stop)));
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
    status.end(clock::wall_now(), summary);
    metrics.note(outcome, began.elapsed(), &mirror.store);
}

fn watchdog_interval() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |time| time / 2)
}

fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd does not listen");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Kind;
    use crate::mirror::core::{Device, Pull};
    use crate::mirror::entry::CoreEntry;
    use crate::mirror::policy::Profile;
    use crate::telemetry::scrape::Health;

    /// A Core whose answers meet a defect of this program now and then.
    struct Panicking(bool);

    impl Core for Panicking {
        fn begin(&mut self) {}

        fn expected(&mut self, _kind: Kind) -> Pull<CoreEntry> {
            assert!(!self.0, "a defect");
            Pull::Absent
        }

        fn observed(&mut self, _kind: Kind) -> Pull<Device> {
            Pull::Absent
        }

        fn source(&self) -> String {
            "a test".into()
        }
    }

    /// The loss: a service that is up, and whose cycles are not.
    #[test]
    fn a_cycle_that_panics_is_told_of_until_one_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let service = Service::new(Mirror {
            store: crate::mirror::open(directory.path()).unwrap(),
            core: Box::new(Panicking(true)),
            policy: Policy::of(Profile::NaturalKey),
            gate: Gate::Unset,
            skip_unchanged: SkipUnchanged::default(),
            approval: None,
        });
        let view = View {
            status: Arc::clone(&service.status),
            metrics: Arc::clone(&service.metrics),
            progress: service.progress.clone(),
        };
        let run = || {
            let mut mirror = service.mirror.lock().unwrap();
            cycle(
                &mut mirror,
                &service.stop,
                &service.status,
                &service.metrics,
            );
        };
        run();
        let status = service.status.show();
        assert_eq!(status["state"], "degraded");
        let reason = status["reasons"][0].as_str().unwrap();
        assert!(
            reason.contains("panicked") && reason.contains("a defect"),
            "{reason}"
        );
        assert!(view.ready().unwrap_err().contains("panicked"));
        let counted = r#"afferent_mirror_cycles_total{outcome="panicked"} 1"#;
        assert!(view.metrics().contains(counted), "{}", view.metrics());
        assert!(!service.status.is_running());
        service.mirror.lock().unwrap().core = Box::new(Panicking(false));
        run();
        assert_eq!(service.status.show()["state"], "ok");
        assert_eq!(view.ready(), Ok(()));
        assert!(
            view.metrics()
                .contains(r#"afferent_mirror_cycles_total{outcome="converged"} 1"#)
        );
    }
}
