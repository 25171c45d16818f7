//! What changes while the sensor runs: the sources of the roster, and at SIGHUP the settings.

use super::mapping::read::MappingSource;
use super::pull::guests::GuestTable;
use super::pull::schedule::Timing;
use super::queue::Pending;
use super::roster::{KnownGuests, Named, Roster};
use super::{SenseConfig, SinkConfig};
use crate::{clock, telemetry};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::Signal;
use tokio::sync::watch;

/// Between two looks at the sources of the roster.
const ROSTER_EVERY: Duration = Duration::from_secs(2);

/// Age from which the dead letter of a guest that left the roster is dropped.
const DEPARTED_LETTER: Duration = Duration::from_secs(7 * 86_400);

/// Reads the configuration again, or says what is wrong with it.
pub type ReadConfig = Box<dyn Fn() -> Result<SenseConfig, String> + Send>;

/// Reads the sources again and again, and at SIGHUP the configuration.
pub(super) struct Follow {
    pub(super) config: SenseConfig,
    pub(super) reread: ReadConfig,
    pub(super) roster: Roster,
    /// Where the roster goes.
    pub(super) to: watch::Sender<KnownGuests>,
    /// The sources, for `status`.
    pub(super) named: Arc<Mutex<Named>>,
    pub(super) guests: Arc<Mutex<GuestTable>>,
    pub(super) pending: Arc<Pending>,
    /// The source of the mapping, if one is pushed.
    pub(super) mapping: Option<Arc<MappingSource>>,
}

impl Follow {
    /// Runs until the process ends. A panic of a source ends the sensor: its guests would never change
    /// again, and nobody would know.
    pub(super) async fn run(mut self, mut hang_up: Signal) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROSTER_EVERY) => {}
                _ = hang_up.recv() => telemetry::reload(|| self.reload()),
            }
            let mut roster = self.roster;
            let read = tokio::task::spawn_blocking(move || {
                let changed = roster.read().then(|| roster.known());
                (roster, changed)
            });
            let changed;
            (self.roster, changed) = match read.await {
                Ok(read) => read,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            let named = self.roster.named();
            *self.named.lock().unwrap_or_else(PoisonError::into_inner) = named;
            if let Some(known) = changed {
                self.to.send_replace(known);
            }
            self.end_departed();
        }
    }

    /// A dead letter waits for the next report of its guest; of one that left there will be none.
    fn end_departed(&self) {
        let known = self.to.borrow();
        if !known.is_complete {
            return;
        }
        let before = clock::wall_now().before(DEPARTED_LETTER);
        for vm in self.pending.refused_since_before(before) {
            if !known.guests.contains_key(&vm) && self.pending.drop_dead(&vm, true) > 0 {
                tracing::warn!(%vm, "dead letter dropped: its guest left the roster, and it is a week old");
            }
        }
    }

    /// Takes over what can change while the sensor runs, and says what needs a restart.
    fn reload(&mut self) {
        if let Some(mapping) = &self.mapping {
            mapping.reread();
        }
        let new = match (self.reread)() {
            Ok(new) => new,
            Err(error) => {
                tracing::warn!(error, "configuration not taken over, the one before stays");
                return;
            }
        };
        for key in needs_restart(&self.config, &new) {
            tracing::warn!(key, "changed, and needs a restart to hold");
        }
        let old = &mut self.config;
        if old.sources != new.sources {
            old.sources = new.sources;
            self.roster.replace_sources(old.sources.clone());
        }
        (old.poll_interval, old.refresh_interval) = (new.poll_interval, new.refresh_interval);
        old.spread = new.spread;
        for (old, new) in old.deliver.iter_mut().zip(new.deliver) {
            // Where the sinks are others the sensor must be started again.
            if old.name == new.name {
                old.rate = new.rate;
            }
        }
        self.guests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .schedule
            .set_timing(
                Timing::new(old.poll_interval, old.refresh_interval).with_spread(old.spread),
            );
        for (sink, queue) in old.deliver.iter().zip(self.pending.sinks()) {
            queue.set_rate(sink.rate, clock::now());
        }
        tracing::info!("configuration read again");
    }
}

/// The settings that differ and cannot change while the sensor runs.
fn needs_restart(old: &SenseConfig, new: &SenseConfig) -> impl Iterator<Item = &'static str> {
    let fixed = [
        ("deliver", differs(old, new, |sink| (&sink.name, &sink.to))),
        (
            "token_file",
            differs(old, new, |sink| &sink.options.token_file),
        ),
        (
            "deliver.project, version, tags or parent",
            differs(old, new, |sink| {
                let options = &sink.options;
                (
                    &options.project,
                    &options.version,
                    &options.tags,
                    &options.parent,
                )
            }),
        ),
        (
            "sbom_departed",
            differs(old, new, |sink| &sink.options.departed),
        ),
        ("events", differs(old, new, |sink| &sink.options.events)),
        ("ca_file", differs(old, new, |sink| &sink.options.ca_file)),
        ("tls_*", old.tls != new.tls || old.tls_name != new.tls_name),
        ("repo_cpe", old.repo_cpe != new.repo_cpe),
        (
            "kube_*",
            old.kube != new.kube || old.kube_tls != new.kube_tls,
        ),
        ("sensor_id", old.sensor_id != new.sensor_id),
        ("state_dir", old.state_dir != new.state_dir),
        (
            "fleet*",
            old.fleet != new.fleet || old.fleet_listen != new.fleet_listen,
        ),
        ("damaged_*", old.damaged != new.damaged),
        ("metrics", old.metrics != new.metrics),
    ];
    fixed
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
}

/// Whether something of the sinks differs.
fn differs<'c, T: PartialEq + 'c>(
    old: &'c SenseConfig,
    new: &'c SenseConfig,
    of: impl Fn(&'c SinkConfig) -> T,
) -> bool {
    old.deliver.iter().map(&of).ne(new.deliver.iter().map(&of))
}
