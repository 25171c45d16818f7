//! `afferent sense`: on the host, pulls from guests and delivers onward.
//!
//! ```text
//! roster ──► schedule ──► exchange ──► store_writer (sense.redb) ──► queue ──► sink ──► Central
//!            who is due    one talk     durable, then known     what next          ack: cleared
//! ```
//!
//! Everything runs on one thread but what blocks: understanding reports, the writer of the store,
//! and the sinks each do it in one hop. A report counts as known only when it is on disk here, and
//! leaves the disk only when Central has it: kill the process anywhere, and nothing is lost.

pub mod deliver;
mod follow;
pub mod limits;
pub mod metrics;
pub mod pull;
pub mod queue;
pub mod roster;
pub mod seen;
pub mod status;

use crate::sense::queue::table::{self, GuestRow, Loaded};
use crate::store::{Limits, Opened, Options, Store, StoreError};
use crate::telemetry::control::Control;
use crate::telemetry::scrape;
use crate::transport::{ClientTls, TlsError, TlsFiles};
use deliver::breaker::Breaker;
use deliver::run::Delivering;
use deliver::sink::{self, SinkAddress, SinkOptions};
use follow::Follow;
pub use follow::Reread;
use limits::ConcurrencyLimits;
use metrics::Metrics;
use pull::run::{GuestTable, Inbox, Pulling};
use pull::schedule::Timing;
use queue::pending::Pending;
use queue::policy::{Policy, Rate};
use queue::writer::StoreWriter;
use roster::{Roster, Source};
use seen::SeenClock;
use status::View;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Name of the database in the state directory.
pub const DATABASE: &str = "sense.redb";

/// Bound of redb's page cache, in bytes.
const CACHE: usize = 4 << 20;

/// Transfers at the same time.
const TRANSFERS: usize = 20;

/// Threads for what blocks: every delivery has one, and there is room for understanding reports.
const BLOCKING: usize = 28;

/// What `sense` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where guests are listed.
    pub sources: Vec<Source>,
    /// Where reports go.
    pub deliver: SinkAddress,
    /// Token and roots for it.
    pub sink: SinkOptions,
    /// Mutual TLS with guests.
    pub tls: Option<TlsFiles>,
    /// Names this sensor in documents.
    pub sensor_id: String,
    /// Directory of the database.
    pub state_dir: PathBuf,
    /// What is kept of databases that were moved aside because they were damaged.
    pub damaged: Limits,
    /// Between two polls of a guest that cannot hold a wait.
    pub poll_interval: Duration,
    /// After which a full report is asked for.
    pub refresh_interval: Duration,
    /// Central's rate limit.
    pub rate: Option<Rate>,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
}

/// Why the sensor could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SenseError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sink cannot be used.
    #[error("cannot deliver: {0}")]
    Sink(String),
    /// The certificates cannot be used.
    #[error("mutual TLS: {0}")]
    Tls(#[from] TlsError),
    /// A part of the sensor that must never end has ended.
    #[error("stopped: {0}")]
    Stopped(String),
    /// The system refuses something basic.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. At SIGHUP the configuration is read again.
pub fn run(config: Config, reread: Reread) -> Result<(), SenseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING)
        .thread_keep_alive(Duration::from_secs(5))
        .build()?;
    let result = runtime.block_on(sense(config, reread));
    // A delivery that hangs is sent again after the next start: it must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}

async fn sense(config: Config, reread: Reread) -> Result<(), SenseError> {
    // First of all: unhandled, it would end the process.
    let hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::new());
    let Opened { store, moved_aside } = {
        let options = Options {
            aside: config.damaged,
            ..Options::new(CACHE)
        };
        Store::open_with(&config.state_dir, DATABASE, options)?
    };
    let store = Arc::new(store);
    let Loaded {
        guests: known,
        slots,
        seen_at,
    } = load(&store, &metrics)?;
    if moved_aside.is_some() {
        metrics.moved_aside.inc();
    }
    let mut roster = Roster::new(config.sources.clone());
    let first = roster.read();
    let tls = config.tls.clone().map(ClientTls::load).transpose()?;
    let sink = sink::open(&config.deliver, &config.sink).map_err(SenseError::Sink)?;
    let (lost_tx, lost) = mpsc::unbounded_channel();
    let counters = metrics.clone();
    let on_loss = Box::new(move || {
        counters.moved_aside.inc();
        // Fails only while stopping.
        let _ = lost_tx.send(());
    });
    let (store_writer, writer) = StoreWriter::start(store.clone(), on_loss)?;
    let store_writer = Arc::new(store_writer);
    let policy = Policy {
        rate: config.rate,
        ..Policy::default()
    };
    let restored = slots.len();
    let accepted = known
        .iter()
        .filter_map(|(vm, row)| Some((vm.clone(), row.accepted?)))
        .collect();
    let pending = Arc::new(Pending::new(policy, store_writer.clone(), slots, accepted));
    let timing = Timing::new(config.poll_interval, config.refresh_interval);
    let guests = Arc::new(Mutex::new(GuestTable::new(timing)));
    let (stop_tx, stop) = watch::channel(false);
    let (ask_full_tx, ask_full) = mpsc::unbounded_channel();
    let (roster_tx, roster_rx) = watch::channel(first);

    let breaker = Arc::new(Mutex::new(Breaker::default()));
    let named = Arc::new(Mutex::new(roster.named()));
    let view = Arc::new(View {
        guests: guests.clone(),
        pending: pending.clone(),
        breaker: breaker.clone(),
        metrics: metrics.clone(),
        named: named.clone(),
        deliver: config.deliver.to_string(),
    });
    let limits = Arc::new(ConcurrencyLimits::new(TRANSFERS, tls));
    let delivering = Delivering {
        pending: pending.clone(),
        limits: limits.clone(),
        store: store.clone(),
        sink: sink.into(),
        breaker: breaker.clone(),
        metrics: metrics.clone(),
        sensor: config.sensor_id.as_str().into(),
        ask_full: ask_full_tx,
    };
    let follow = Follow {
        config: config.clone(),
        reread,
        roster,
        to: roster_tx,
        named,
        guests: guests.clone(),
        pending: pending.clone(),
    };
    let pulling = Pulling {
        guests,
        pending: pending.clone(),
        store_writer: store_writer.clone(),
        limits,
        metrics,
        seen: Arc::new(SeenClock::new(seen_at)),
    };
    let inbox = Inbox {
        roster: roster_rx,
        ask_full,
        lost,
        stop: stop.clone(),
    };
    let known: HashMap<_, GuestRow> = known.into_iter().collect();
    let delivered = tokio::spawn(delivering.run(stop.clone()));
    let pulled = tokio::spawn(pulling.run(known, inbox));
    let mut aside = JoinSet::new();
    aside.spawn(follow.run(hang_up));
    aside.spawn(heartbeat(pending));
    match Control::bind(&config.state_dir) {
        Ok(control) => drop(aside.spawn(answer(control, view.clone()))),
        Err(error) => tracing::warn!(%error, "no control socket: `afferent status` will not work"),
    }
    if let Some(address) = config.metrics {
        let listener = scrape::bind(address).await?;
        aside.spawn(scrape::listen(listener, view));
    } else {
        drop(view);
    }
    tracing::info!(deliver = %config.deliver, pending = restored, "sensing");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);

    let (mut pulled, mut delivered) = (pulled, delivered);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        result = &mut pulled => return Err(stopped_early(result)),
        result = &mut delivered => return Err(stopped_early(result)),
        Some(result) = aside.join_next() => return Err(stopped_early(result)),
    }
    tracing::info!("stopping");
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let _ = stop_tx.send(true);
    aside.shutdown().await;
    let _ = pulled.await;
    let _ = delivered.await;
    drop(store_writer);
    // Ends when the last of its users is gone; it has nothing left to do but write.
    let _ = tokio::task::spawn_blocking(move || writer.join()).await;
    Ok(())
}

fn stopped_early(result: Result<(), tokio::task::JoinError>) -> SenseError {
    SenseError::Stopped(result.map_or_else(|error| error.to_string(), |()| "a loop ended".into()))
}

/// Reads what is stored; a file whose rows are damaged is moved aside like one that does not open.
fn load(store: &Store, metrics: &Metrics) -> Result<Loaded, StoreError> {
    match table::load(store) {
        Err(error) if error.is_corrupt() => {
            let aside = store.begin_anew()?;
            metrics.moved_aside.inc();
            tracing::error!(%error, moved_to = %aside.display(), "store moved aside, a new one begun");
            Ok(Loaded::default())
        }
        other => other,
    }
}

/// Answers `afferent status`.
async fn answer(control: Control, view: Arc<View>) {
    let control = control.with_metrics(view.clone());
    control.answer(move |words, _| view.answer(words)).await;
}

/// Tells systemd that the loop turns, and what it does.
async fn heartbeat(pending: Arc<Pending>) {
    let every = sd_notify::watchdog_enabled()
        .map_or(Duration::from_secs(10), |limit| limit / 3)
        .min(Duration::from_secs(10));
    loop {
        let (reactive, routine) = pending.board().queue.waiting();
        let status = format!("{} pending", reactive + routine);
        let _ = sd_notify::notify(&[
            sd_notify::NotifyState::Watchdog,
            sd_notify::NotifyState::Status(&status),
        ]);
        tokio::time::sleep(every).await;
    }
}
