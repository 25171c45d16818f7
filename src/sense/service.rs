//! The sensor as a service: signals, sources of the roster, the control socket, metrics and systemd around
//! the [`Engine`].

use super::api::FleetApi;
use super::control::ControlRoom;
use super::deliver::{departed, sink};
use super::engine::{Engine, Parts, SinkParts};
use super::follow::Follow;
use super::mapping::read::MappingSource;
use super::metrics::Metrics;
use super::open::open_store;
use super::pull::dial::Dialer;
use super::pull::schedule::Timing;
use super::questions::FleetQuestions;
use super::queue::Pending;
use super::queue::policy::QueuePolicy;
use super::roster::Roster;
use super::status::{ShownSink, View};
use super::{ReadConfig, SenseConfig, SenseError};
use crate::blocking::Blocking;
use crate::clock::WallClock;
use crate::kube::{KubeClient, VsockDialer};
use crate::store::Opened;
use crate::telemetry::control::Control;
use crate::telemetry::scrape;
use crate::telemetry::systemd;
use crate::transport::ClientTls;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Runs until SIGTERM or SIGINT, or until a part that must never end has ended.
pub(super) async fn serve(config: SenseConfig, reread: ReadConfig) -> Result<(), SenseError> {
    // First of all: unhandled, it would end the process.
    let hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::new());
    let Opened { store, moved_aside } = open_store(&config.state_dir, config.damaged).await?;
    if moved_aside.is_some() {
        metrics.moved_aside.inc();
    }
    let store = Arc::new(store);
    let mut roster = Roster::new(config.sources.clone());
    roster.read();
    let (roster_tx, roster_rx) = watch::channel(roster.known());
    let named = Arc::new(Mutex::new(roster.named()));
    let (mapping_tx, feed) = watch::channel(None);
    let mapping = config.repo_cpe.as_ref();
    let mapping = mapping.map(|source| Arc::new(MappingSource::new(source)));
    let tls = config.tls.clone();
    let tls = tls.map(|files| ClientTls::load_for(files, config.tls_name));
    let sinks = open_sinks(&config)?;
    let opened = sinks.iter().map(|parts| parts.sink.clone());
    let departed = departed::follow(opened.collect(), roster_rx.clone());
    let mut engine = Engine::start(Parts {
        store: store.clone(),
        sinks,
        dial: Arc::new(Dialer {
            tls: tls.transpose()?,
            kube: Some(VsockDialer::new(
                Arc::new(KubeClient::new(config.kube.clone())),
                config.kube_tls,
            )),
        }),
        roster: roster_rx,
        fleet: config.fleet,
        timing: Timing::new(config.poll_interval, config.refresh_interval)
            .with_spread(config.spread),
        mapping: mapping.is_some().then_some(feed),
        sensor_id: config.sensor_id.as_str().into(),
        blocking: Blocking::Threads,
        wall: WallClock::default(),
        metrics: metrics.clone(),
    })?;
    let api = match &config.fleet_listen {
        Some(listen) => Some(FleetApi::bind(listen).await.map_err(SenseError::Listen)?),
        None => None,
    };
    let view = Arc::new(View {
        api: api.as_ref().map(FleetApi::health),
        guests: engine.guests.clone(),
        pending: engine.pending.clone(),
        sinks: shown_sinks(&config, &engine),
        deliver: config.deliver_shown(),
        metrics,
        fleet: engine.fleet.clone(),
        named: named.clone(),
        pushes: engine.pushes.clone(),
        mapping: mapping.clone(),
    });
    let follow = Follow {
        config: config.clone(),
        reread,
        roster,
        to: roster_tx,
        named,
        guests: engine.guests.clone(),
        pending: engine.pending.clone(),
        mapping: mapping.clone(),
    };
    let mut beside = JoinSet::new();
    if let (Some(mapping), Some(source)) = (mapping, config.repo_cpe.clone()) {
        beside.spawn(mapping.follow(source, mapping_tx));
    }
    beside.spawn(follow.run(hang_up));
    beside.spawn(departed);
    beside.spawn(heartbeat(engine.pending.clone()));
    let questions = FleetQuestions {
        service: view.clone(),
        store,
    };
    let doorkeeper = api.as_ref().map(FleetApi::doorkeeper);
    if let Some(api) = api {
        beside.spawn(api.run(questions.clone()));
    }
    match Control::bind(&config.state_dir) {
        Ok(control) => {
            let room = ControlRoom {
                view: view.clone(),
                questions,
                doorkeeper,
                full_pulls: engine.full_pulls.clone(),
            };
            beside.spawn(answer(control, room));
        }
        Err(error) => tracing::warn!(%error, "no control socket: `afferent status` will not work"),
    }
    if let Some(address) = config.metrics {
        let listener = scrape::bind(address).await?;
        beside.spawn(scrape::listen(listener, view));
    } else {
        drop(view);
    }
    let deliver = config.deliver_shown();
    tracing::info!(deliver, pending = engine.restored, "sensing");
    systemd::tell(&[sd_notify::NotifyState::Ready]);

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        (what, result) = engine.failed() => return Err(ended_early(what, result)),
        Some(result) = beside.join_next() => {
            let what = "a task of the roster, the mapping, the control socket, metrics or the watchdog";
            return Err(ended_early(what, result));
        }
    }
    tracing::info!("stopping");
    systemd::tell(&[sd_notify::NotifyState::Stopping]);
    beside.shutdown().await;
    engine.stop().await;
    Ok(())
}

/// Opens the sinks.
fn open_sinks(config: &SenseConfig) -> Result<Vec<SinkParts>, SenseError> {
    let sinks = config.deliver.iter().map(|sink| {
        let opened = sink::open(&sink.to, &sink.options);
        Ok(SinkParts {
            name: sink.name.clone(),
            sink: opened.map_err(SenseError::Sink)?,
            policy: QueuePolicy {
                rate: sink.rate,
                ..QueuePolicy::default()
            },
        })
    });
    sinks.collect()
}

/// The sinks of a running sensor, with their addresses.
fn shown_sinks(config: &SenseConfig, engine: &Engine) -> Vec<ShownSink> {
    let sinks = config.deliver.iter().zip(&engine.sinks);
    let sinks = sinks.map(|(config, sink)| ShownSink {
        to: config.to.to_string(),
        sink: sink.clone(),
    });
    sinks.collect()
}

fn ended_early(what: &str, result: Result<(), JoinError>) -> SenseError {
    let why = result.map_or_else(|error| error.to_string(), |()| "it returned".into());
    SenseError::Stopped(format!("{what} ended: {why}"))
}

/// Answers `afferent status`, `fleet` and `rescan`.
async fn answer(control: Control, room: ControlRoom) {
    let control = control.with_metrics(room.view.clone());
    let answer = move |words: &[&str], user| room.answer(words, user);
    control.answer(answer).await;
}

/// Tells systemd that the loop turns, and what it does.
async fn heartbeat(pending: Arc<Pending>) {
    let every = sd_notify::watchdog_enabled()
        .map_or(Duration::from_secs(10), |limit| limit / 3)
        .min(Duration::from_secs(10));
    loop {
        let sinks = pending.sinks().iter();
        let waiting = sinks.map(|sink| {
            let (reactive, routine) = sink.state().queue().waiting();
            reactive + routine
        });
        let status = format!("{} pending", waiting.sum::<usize>());
        systemd::tell(&[
            sd_notify::NotifyState::Watchdog,
            sd_notify::NotifyState::Status(&status),
        ]);
        tokio::time::sleep(every).await;
    }
}
