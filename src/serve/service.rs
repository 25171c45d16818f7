//! The agent as a service: signals, the control socket and systemd around the [`AgentEngine`].

use super::Config;
use super::engine::{AgentEngine, AgentParts, DRAIN, ended_early};
use super::error::ServeError;
use super::run::Reread;
use crate::telemetry::control::Control;
use crate::telemetry::systemd;
use sd_notify::NotifyState;
use std::path::Path;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Runs the agent until SIGTERM or SIGINT. At SIGHUP the configuration is read again.
///
/// # Errors
/// See [`ServeError`].
pub fn run(config: Config, reread: Reread) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let ended = runtime.block_on(serve(config, reread));
    // A scan of a disk that does not answer must not keep the process.
    runtime.shutdown_timeout(DRAIN);
    ended
}

async fn serve(config: Config, reread: Reread) -> Result<(), ServeError> {
    // First of all: unhandled, it would end the process.
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let state_dir = config.state_dir.clone();
    let mut engine = AgentEngine::start(AgentParts::of_this_machine(config, reread))?;
    // Not only with a report: the first scan may have to wait for the very transaction that
    // installs this service and waits for its start.
    systemd::tell(&[NotifyState::Ready]);
    let mut control = open_control(&engine, &state_dir);
    loop {
        tokio::select! {
            error = engine.failed() => return Err(error),
            Some(ended) = control.join_next() => {
                return Err(ended_early("the task of the control socket", ended));
            }
            _ = hang_up.recv() => engine.reload(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    control.shutdown().await;
    tracing::info!("stopping");
    systemd::tell(&[NotifyState::Stopping]);
    engine.stop().await;
    Ok(())
}

/// Answers `afferent status` and `afferent rescan` from now on, if the socket can be bound: the agent is of use without.
fn open_control(engine: &AgentEngine, state_dir: &Path) -> JoinSet<()> {
    let mut control = JoinSet::new();
    match Control::bind(state_dir) {
        Ok(bound) => {
            let answer = engine.control();
            control.spawn(bound.answer(move |words: &[&str], _| answer(words)));
        }
        Err(error) => {
            tracing::warn!(%error, "no control socket: `afferent status` will not find this service");
        }
    }
    control
}
