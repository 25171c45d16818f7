//! The service: a cycle every interval until told to stop.

use super::core::Core;
use super::cycle::{Cycle, Gatekeeper};
use super::memory::Memory;
use super::policy::{Policy, Profile};
use super::report::{Report, Summary};
use super::status::Status;
use crate::clock;
use crate::store::Store;
use crate::telemetry;
use crate::telemetry::control::Control;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Longest time that a cycle has to come to its next commit once the service is to stop.
const LAST_CYCLE: Duration = Duration::from_secs(5);

/// What the service needs.
pub struct Mirror {
    /// The tables.
    pub store: Store,
    /// Where inventory comes from.
    pub core: Box<dyn Core + Send>,
    /// The knobs.
    pub policy: Policy,
    /// What the gate says, read from the environment.
    pub gate: Gate,
    /// What the last cycle said.
    pub memory: Memory,
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

/// Reads the configuration again, or says what is wrong with it.
pub type Reread<'a> = &'a dyn Fn() -> Result<Reloaded, String>;

/// Whether expected inventory is mirrored at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing was said: running the command is enough.
    Unset,
    /// It is.
    On,
    /// It is not; drift is looked at all the same.
    Off,
    /// What was said is neither: it is not.
    Unclear(String),
}

impl Gate {
    /// Reads the variable's value. Set but empty says nothing under `host-mac`, and nothing clear
    /// under `natural-key`.
    pub fn read(value: Option<&str>, profile: Profile) -> Self {
        match value {
            None => Self::Unset,
            Some("") if profile == Profile::HostMac => Self::Unset,
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Self::On,
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Self::Off,
            Some(other) => Self::Unclear(other.to_owned()),
        }
    }

    /// Whether cycles mirror.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Unset | Self::On)
    }
}

/// Set once, when the service is to stop; then nothing more is committed.
#[derive(Clone, Default)]
struct Stop(Arc<AtomicBool>);

impl Gatekeeper for Stop {
    fn may_commit(&self, _what: &str) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) {
            return Err("the service is stopping".into());
        }
        Ok(())
    }
}

impl Mirror {
    /// One cycle now.
    pub fn once(&mut self) -> Summary {
        self.cycle(&super::cycle::AlwaysOpen)
    }

    fn cycle(&mut self, gatekeeper: &dyn Gatekeeper) -> Summary {
        let cycle = Cycle {
            policy: &self.policy,
            mirror: self.gate.is_open(),
            now: clock::wall_now().to_string(),
            new_id: &mut Uuid::new_v4,
            gatekeeper,
        };
        let mut summary = self
            .memory
            .run_cycle(&self.store, self.core.as_mut(), cycle);
        // An approval was given for what was looked at then, not for whatever goes missing later.
        self.policy.approve_deletes = None;
        if let Gate::Unclear(value) = &self.gate {
            let why =
                format!("{value:?} is neither on nor off: expected inventory is not mirrored");
            let report = Report::general("gate_not_boolean", why);
            summary.warnings.insert(0, report);
        }
        summary
    }

    /// Cycles every `interval` until SIGTERM or SIGINT; says so to systemd, and answers
    /// `afferent status` on the control socket of `state_dir`. At SIGHUP the configuration is read again;
    /// it holds from the next cycle on.
    pub fn run(
        self,
        interval: Duration,
        state_dir: &Path,
        reread: Reread<'_>,
    ) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let done = runtime.block_on(serve(self, interval, state_dir, reread));
        // A cycle that waits for Core is not waited for: nothing of it is committed any more.
        runtime.shutdown_timeout(LAST_CYCLE);
        done
    }
}

async fn serve(
    mirror: Mirror,
    mut interval: Duration,
    state_dir: &Path,
    reread: Reread<'_>,
) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = Stop::default();
    let status = Arc::new(Status::new(mirror.core.source()));
    let mut answering = answer(state_dir, Arc::clone(&status));
    let mirror = Arc::new(Mutex::new(mirror));
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    tracing::info!(interval = %clock::show_duration(interval), "mirror started");
    let mut beat = tokio::time::interval(watchdog());
    let mut next = tokio::time::interval(interval);
    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut running: Option<tokio::task::JoinHandle<()>> = None;
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => telemetry::reload(|| {
                let new = match reread() {
                    Ok(new) => new,
                    Err(error) => {
                        tracing::warn!(error, "configuration not taken over, the one before stays");
                        return;
                    }
                };
                if new.state_dir != state_dir {
                    tracing::warn!(key = "state_dir", "changed, and needs a restart to hold");
                }
                if new.interval != interval {
                    interval = new.interval;
                    next = tokio::time::interval(interval);
                    next.reset();
                    next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                }
                status.set_source(new.core.source());
                let mirror = Arc::clone(&mirror);
                // A cycle that runs ends as it began.
                tokio::task::spawn_blocking(move || {
                    let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
                    (mirror.core, mirror.policy, mirror.gate) = (new.core, new.policy, new.gate);
                    mirror.memory = Memory::default();
                });
                tracing::info!("configuration read again");
            }),
            _ = beat.tick() => tell_systemd(&[sd_notify::NotifyState::Watchdog]),
            _ = next.tick() => {
                // A cycle that takes longer than the interval is not run twice at once.
                if running.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                    let (mirror, stop) = (Arc::clone(&mirror), stop.clone());
                    let status = Arc::clone(&status);
                    running = Some(tokio::task::spawn_blocking(move || {
                        let mut mirror = mirror.lock().unwrap_or_else(PoisonError::into_inner);
                        let summary = mirror.cycle(&stop);
                        log(&summary);
                        status.note(clock::wall_now().to_string(), summary);
                    }));
                } else {
                    tracing::warn!("the last cycle still runs");
                }
            }
        }
    }
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    stop.0.store(true, Ordering::Relaxed);
    answering.shutdown().await;
    tracing::info!("mirror stopped");
    Ok(())
}

/// Answers `afferent status` for as long as what it gives is kept. The mirror is of use without.
fn answer(state_dir: &Path, status: Arc<Status>) -> JoinSet<()> {
    let mut task = JoinSet::new();
    match Control::bind(state_dir) {
        Ok(control) => drop(task.spawn(control.answer(move |_: &[&str]| status.show()))),
        Err(error) => {
            tracing::warn!(%error, "no control socket: `afferent status` will not find this service");
        }
    }
    task
}

fn watchdog() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |time| time / 2)
}

fn tell_systemd(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd does not listen");
    }
}

/// One line per type that was pulled, one per thing worth saying.
pub fn log(summary: &Summary) {
    for (kind, c) in &summary.types {
        tracing::info!(
            kind, run = %summary.run, pulled = c.pulled, inserted = c.inserted, updated = c.updated,
            adopted = c.adopted, resurrected = c.resurrected, soft_deleted = c.soft_deleted,
            evicted = c.evicted, hard_deleted = c.hard_deleted, withheld = c.withheld_deletes,
            skipped = c.skipped_invalid, "mirrored"
        );
    }
    for report in &summary.warnings {
        tracing::warn!(code = %report.code, kind = ?report.kind, key = %report.key, "{}", report.message);
    }
    for report in &summary.errors {
        tracing::error!(code = %report.code, kind = ?report.kind, key = %report.key, "{}", report.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_obeys_plain_truth_values_and_nothing_else() {
        let read = |value| Gate::read(value, Profile::NaturalKey);
        for on in ["1", "t", "T", "TRUE", "true", "True"] {
            assert!(read(Some(on)).is_open(), "{on}");
        }
        for off in [
            "0", "f", "F", "FALSE", "false", "False", "on", " true", "yes",
        ] {
            assert!(!read(Some(off)).is_open(), "{off}");
        }
        assert!(read(None).is_open());
        assert!(matches!(read(Some("on")), Gate::Unclear(_)));
        assert!(matches!(read(Some("")), Gate::Unclear(_)));
        assert!(Gate::read(Some(""), Profile::HostMac).is_open());
    }
}
