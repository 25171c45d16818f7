//! A `mirror.redb` that is damaged, gone or empty: its identities cannot be had from Core again, so no new
//! one is begun before an operator says so.

use super::service::{ServiceHost, Signals, ended_early};
use super::{Store, StoreError, open, open_and_prune, store_options};
use crate::clock;
use crate::store::Limits;
use crate::telemetry::metrics::Page;
use crate::telemetry::scrape::{self, Health};
use crate::telemetry::{self, control::Control, systemd};
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between two looks whether the file is back.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What an operator can do about it.
const REMEDY: &str = "put mirror.redb back from a backup or from what was moved aside, or give up its identities with `afferent mirror begin-anew`";

/// What to do about a store that cannot be opened, where its content is at fault.
pub fn remedy(error: &StoreError) -> Option<&'static str> {
    error.is_lost().then_some(REMEDY)
}

/// Moves what there is aside and begins a new store. Gives the place of the old file, if there was one.
///
/// # Errors
/// A sound store is left alone; or the file is in use, or the system refused.
pub fn begin_anew(state_dir: &Path) -> Result<Option<PathBuf>, BeginError> {
    match open(state_dir) {
        Ok(store) => Err(BeginError::Sound(store.path().to_owned())),
        Err(error) if error.is_lost() => {
            let opened = Store::replace(state_dir, super::FILE, store_options(Limits::NONE))?;
            Ok(opened.moved_aside)
        }
        Err(error) => Err(error.into()),
    }
}

/// Why no new store was begun.
#[derive(Debug, thiserror::Error)]
pub enum BeginError {
    /// There is nothing wrong with the one that is there.
    #[error("{}: is sound; nothing was done", .0.display())]
    Sound(PathBuf),
    /// The file is in use, or the system refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A service that has no store.
pub struct Waiting<'a> {
    /// Where the store belongs.
    pub state_dir: &'a Path,
    /// What is kept of damaged files.
    pub aside: Limits,
    /// The source that would be mirrored, for people.
    pub core: &'a str,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
}

/// The service while it has no store: it mirrors nothing, says why, and looks again whether an operator
/// has put the file back or given it up. `None`: it was told to stop.
///
/// # Errors
/// The system refused something basic.
pub fn wait(
    host: &mut ServiceHost,
    service: &Waiting<'_>,
    first: &StoreError,
) -> io::Result<Option<Store>> {
    let first = first.to_string();
    host.wait(async |signals, owes_reload| {
        wait_for_store(service, first, (signals, owes_reload)).await
    })
}

async fn wait_for_store(
    service: &Waiting<'_>,
    mut why: String,
    (signals, owes_reload): (&mut Signals, &mut bool),
) -> io::Result<Option<Store>> {
    let Waiting {
        state_dir,
        aside,
        core,
        metrics,
    } = *service;
    let mut answering = JoinSet::new();
    let answer = status(core, &why);
    match Control::bind(state_dir) {
        Ok(control) => drop(answering.spawn(control.answer(move |_: &[&str], _| answer.clone()))),
        Err(error) => tracing::warn!(%error, "no control socket"),
    }
    if let Some(address) = metrics {
        let page = Arc::new(LostPage(format!("nothing is mirrored: {why}")));
        answering.spawn(scrape::listen(scrape::bind(address).await?, page));
    }
    tracing::error!(why, remedy = REMEDY, "nothing is mirrored");
    let line = format!("nothing is mirrored: {why}");
    let ready = [
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status(&line),
    ];
    systemd::tell(&ready);
    let watchdog = sd_notify::watchdog_enabled().map_or(LOOK_AGAIN, |time| time / 2);
    let mut beat = tokio::time::interval(watchdog.min(LOOK_AGAIN));
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => return Ok(None),
            _ = signals.interrupt.recv() => return Ok(None),
            _ = signals.hang_up.recv() => telemetry::reload(|| {
                *owes_reload = true;
                tracing::info!("the configuration is read again once there is a store");
            }),
            Some(ended) = answering.join_next() => return Err(ended_early(ended)),
            _ = beat.tick() => {
                systemd::tell(&[sd_notify::NotifyState::Watchdog]);
                match open_and_prune(state_dir, aside) {
                    Ok(store) => {
                        answering.shutdown().await;
                        tracing::info!("mirror.redb is there again");
                        return Ok(Some(store));
                    }
                    Err(error) if error.to_string() != why => {
                        why = error.to_string();
                        tracing::error!(why, "nothing is mirrored");
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

/// What metrics say while there is no store.
struct LostPage(String);

impl Health for LostPage {
    fn metrics(&self) -> String {
        let mut page = Page::new();
        super::metrics::write_lost(&mut page, true);
        page.finish()
    }

    fn ready(&self) -> Result<(), String> {
        Err(self.0.clone())
    }
}

fn status(core: &str, why: &str) -> Value {
    json!({
        "service": "mirror",
        "version": env!("CARGO_PKG_VERSION"),
        "state": "degraded",
        "reasons": [format!("nothing is mirrored: {why}; {REMEDY}")],
        "since": clock::wall_now().to_string(),
        "core": core,
        "cycles": 0,
    })
}
