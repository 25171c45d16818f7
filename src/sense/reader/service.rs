//! The reader as a service: signals, the control socket, metrics and systemd around the [`FollowLoop`].

use super::ReaderConfig;
use super::follow::FollowLoop;
use super::intake::ReportIntake;
use super::status::ReaderView;
use crate::blocking::Blocking;
use crate::sense::SenseError;
use crate::sense::api::{self, FleetApi};
use crate::sense::fleet::query::FleetAnswer;
use crate::sense::open::open_store;
use crate::sense::questions::FleetQuestions;
use crate::store::Opened;
use crate::telemetry::control::Control;
use crate::telemetry::scrape;
use crate::telemetry::systemd;
use crate::web::Doorkeeper;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// How long the loop is waited for when the reader stops: it may wait for the stream, or write.
const DRAIN: Duration = Duration::from_secs(8);

/// An answer on the control socket.
#[derive(Serialize)]
#[serde(untagged)]
enum ReaderAnswer {
    Fleet(FleetAnswer),
    Other(Value),
}

/// Everything that is asked about on the control socket.
struct ReaderRoom {
    view: Arc<ReaderView>,
    questions: FleetQuestions,
    /// Lets people in, where there is a page.
    doorkeeper: Option<Doorkeeper>,
}

/// Runs until SIGTERM or SIGINT, or until a part that must never end has ended.
pub(super) async fn serve(config: ReaderConfig) -> Result<(), SenseError> {
    // Unhandled, it would end the process. There is nothing to read again: secrets are read at every connection.
    let _hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Opened { store, moved_aside } = open_store(&config.state_dir, config.damaged).await?;
    let store = Arc::new(store);
    let intake = ReportIntake::open(store.clone(), config.fleet)?;
    let http = match &config.fleet_listen {
        Some(listen) => Some(FleetApi::bind(listen).await.map_err(SenseError::Listen)?),
        None => None,
    };
    let view = ReaderView::new(
        config.address.to_string(),
        intake.fleet().clone(),
        http.as_ref().map(FleetApi::health),
    );
    let view = Arc::new(view);
    if moved_aside.is_some() {
        view.moved_aside.inc();
    }
    let (stop, stopped) = mpsc::channel();
    let follow = FollowLoop::new(&config, intake, view.clone(), stopped);
    let mut following = Blocking::Threads.spawn(move || follow.run());
    let mut beside = JoinSet::new();
    beside.spawn(heartbeat(view.clone()));
    let questions = FleetQuestions {
        service: view.clone(),
        store,
    };
    let doorkeeper = http.as_ref().map(FleetApi::doorkeeper);
    if let Some(http) = http {
        beside.spawn(http.run(questions.clone()));
    }
    match Control::bind(&config.state_dir) {
        Ok(control) => {
            let control = control.with_metrics(view.clone());
            let room = ReaderRoom {
                view: view.clone(),
                questions,
                doorkeeper,
            };
            beside.spawn(control.answer(move |words, user| room.answer(words, user)));
        }
        Err(error) => tracing::warn!(%error, "no control socket: `afferent status` will not work"),
    }
    if let Some(address) = config.metrics {
        let listener = scrape::bind(address).await?;
        beside.spawn(scrape::listen(listener, view));
    }
    tracing::info!(from = %config.address, "a fleet store of all sensors of a stream");
    systemd::tell(&[sd_notify::NotifyState::Ready]);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut following => return Err(SenseError::Stopped(format!("reading ended: {ended:?}"))),
        Some(ended) = beside.join_next() => {
            return Err(SenseError::Stopped(format!("a task of the reader ended: {ended:?}")));
        }
    }
    tracing::info!("stopping");
    systemd::tell(&[sd_notify::NotifyState::Stopping]);
    beside.shutdown().await;
    // Fails only when it has ended already.
    let _ = stop.send(());
    if tokio::time::timeout(DRAIN, following).await.is_err() {
        tracing::warn!("stopping while the stream is read; what was not acknowledged comes again");
    }
    Ok(())
}

impl ReaderRoom {
    /// The answer to these words of this user.
    fn answer(&self, words: &[&str], user: Option<u32>) -> ReaderAnswer {
        ReaderAnswer::Other(match words {
            ["fleet", question] => return ReaderAnswer::Fleet(self.questions.ask_word(question)),
            ["status", ..] => self.view.status(),
            ["login"] => api::login(self.doorkeeper.as_ref(), user),
            ["rescan", ..] => {
                let error = "this sensor has no guests of its own, it reads what others deliver: ask the sensor of the guest's host";
                json!({ "error": error })
            }
            _ => {
                let error = "a sensor that reads reports answers: status, fleet QUESTION, login";
                json!({ "error": error })
            }
        })
    }
}

/// Tells systemd that the loop turns, and what it does.
async fn heartbeat(view: Arc<ReaderView>) {
    let every = sd_notify::watchdog_enabled()
        .map_or(Duration::from_secs(10), |limit| limit / 3)
        .min(Duration::from_secs(10));
    loop {
        let status = format!("{} guests", view.fleet.counts().guests);
        systemd::tell(&[
            sd_notify::NotifyState::Watchdog,
            sd_notify::NotifyState::Status(&status),
        ]);
        tokio::time::sleep(every).await;
    }
}
