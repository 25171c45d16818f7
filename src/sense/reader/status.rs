//! How a reader is: for `afferent status` and for Prometheus.

use super::intake::IntakeOutcome;
use crate::clock::{WallTime, wall_now};
use crate::sense::fleet::Fleet;
use crate::sense::pull::agent::{OTHER, shown_version, sum_versions};
use crate::sense::questions::FleetService;
use crate::sense::recent::RecentAcceptances;
use crate::telemetry::metrics::{Counter, Counters, Histogram, Page};
use crate::telemetry::scrape::Health;
use crate::web::WebHealth;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is looked at, and kept up by the loop that reads.
pub(super) struct ReaderView {
    /// Where reports are read.
    pub(super) address: String,
    pub(super) fleet: Arc<Fleet>,
    /// The listener of the fleet API, if there is one.
    api: Option<Arc<WebHealth>>,
    /// Messages by what became of them.
    pub(super) documents: Counters,
    /// Damaged databases that were replaced.
    pub(super) moved_aside: Counter,
    progress: Mutex<ReaderProgress>,
}

/// How far the reader has got.
#[derive(Clone, Debug, Default)]
struct ReaderProgress {
    consumer: String,
    /// Why nothing is read; `None`: all is well, or nothing was tried yet.
    trouble: Option<(String, WallTime)>,
    is_reading: bool,
    /// Messages that the stream still has for us.
    lag: Option<u64>,
    last: Option<LastDocument>,
}

/// A document that was taken.
#[derive(Clone, Debug)]
pub(super) struct LastDocument {
    pub(super) vm: String,
    pub(super) seen_at: WallTime,
    /// When it was on disk.
    pub(super) at: WallTime,
}

impl ReaderView {
    pub(super) fn new(address: String, fleet: Arc<Fleet>, api: Option<Arc<WebHealth>>) -> Self {
        Self {
            address,
            fleet,
            api,
            documents: Counters::new(&IntakeOutcome::LABELS),
            moved_aside: Counter::default(),
            progress: Mutex::default(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, ReaderProgress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_consumer(&self, consumer: &str) {
        consumer.clone_into(&mut self.progress().consumer);
    }

    /// The stream answers; gives whether it did not before.
    pub(super) fn note_reading(&self) -> bool {
        let mut progress = self.progress();
        progress.trouble = None;
        !std::mem::replace(&mut progress.is_reading, true)
    }

    /// Nothing is read; gives whether that is news.
    pub(super) fn note_trouble(&self, said: &str) -> bool {
        let mut progress = self.progress();
        progress.is_reading = false;
        if progress
            .trouble
            .as_ref()
            .is_some_and(|(held, _)| held == said)
        {
            return false;
        }
        progress.trouble = Some((said.to_owned(), wall_now()));
        true
    }

    pub(super) fn note_lag(&self, lag: u64) {
        self.progress().lag = Some(lag);
    }

    pub(super) fn note_last(&self, last: LastDocument) {
        self.progress().last = Some(last);
    }

    fn trouble(&self, progress: &ReaderProgress) -> Vec<String> {
        let trouble = progress.trouble.iter();
        let trouble =
            trouble.map(|(said, since)| format!("no reports are read since {since}: {said}"));
        let of_api = self.api.iter().flat_map(|api| api.trouble());
        trouble.chain(of_api).collect()
    }

    /// The stream, and how far it is read.
    fn source_json(&self, progress: &ReaderProgress) -> Value {
        json!({
            "address": self.address,
            "consumer": progress.consumer,
            "is_reading": progress.is_reading,
            "lag": progress.lag,
            "last": progress.last.as_ref().map(|last| json!({
                "vm": last.vm,
                "seen_at": last.seen_at.to_string(),
                "at": last.at.to_string(),
            })),
        })
    }

    fn write_agents(&self, page: &mut Page) {
        let agents = self.fleet.agents().into_iter();
        let agents: Vec<_> = agents
            .map(|(version, guests)| (shown_version(&version), guests))
            .collect();
        let agents = agents.iter();
        let counts = sum_versions(agents.map(|(version, guests)| {
            let guests = usize::try_from(*guests).unwrap_or(usize::MAX);
            (&**version, guests)
        }));
        let has_others = counts.last().is_some_and(|(version, _)| *version == OTHER);
        // Shown from the start.
        let none = [(OTHER, 0)];
        let none = none.iter().filter(|_| !has_others);
        let counts = counts.iter().chain(none);
        page.gauges_by(
            "afferent_reader_agents",
            "Guests by the version of their agent, the 20 most frequent and the others together.",
            ["version"],
            counts.map(|(version, guests)| ([*version], *guests as f64)),
        );
    }

    /// The answer to `status`.
    pub(super) fn status(&self) -> Value {
        let progress = self.progress().clone();
        let reasons = self.trouble(&progress);
        let counts = self.fleet.counts();
        let documents = self.documents.all();
        let documents = documents.into_iter();
        let documents = documents.map(|(label, count)| (label.to_owned(), count.into()));
        json!({
            "service": "sense",
            "version": env!("CARGO_PKG_VERSION"),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "reports_from": self.source_json(&progress),
            "fleet_api": self.api.as_ref().map(|api| api.json()),
            "documents": documents.collect::<serde_json::Map<_, _>>(),
            "fleet": { "guests": counts.guests, "packages": counts.packages, "changes": counts.changes },
        })
    }
}

impl FleetService for ReaderView {
    fn fleet(&self) -> Option<&Fleet> {
        Some(&self.fleet)
    }

    /// Guests are of the rosters of other sensors.
    fn states(&self) -> HashMap<String, &'static str> {
        HashMap::new()
    }

    fn latency(&self) -> Option<&Histogram> {
        None
    }

    fn accepted(&self) -> Option<&RecentAcceptances> {
        None
    }

    /// How many guests are stored, how far the stream is read, and what is wrong.
    fn summary(&self) -> Value {
        let progress = self.progress().clone();
        let reasons = self.trouble(&progress);
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": wall_now().to_string(),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "stored": self.fleet.counts().guests,
            "reports_from": self.source_json(&progress),
        })
    }
}

impl Health for ReaderView {
    fn metrics(&self) -> String {
        let progress = self.progress().clone();
        let mut page = Page::new();
        page.counters(
            "afferent_reader_documents_total",
            "Messages of the stream of sensors by what became of them.",
            "outcome",
            &self.documents,
        );
        page.gauge(
            "afferent_reader_reading",
            "1 while the stream of sensors answers.",
            f64::from(u8::from(progress.is_reading)),
        );
        page.gauge(
            "afferent_reader_lag_documents",
            "Messages that the stream of sensors still has for this reader.",
            progress.lag.unwrap_or_default() as f64,
        );
        let last = progress.last.map_or(0, |last| last.at.unix_ms());
        page.gauge(
            "afferent_reader_last_document_timestamp_seconds",
            "When the last document was stored, in seconds since 1970; 0 when none was since the start.",
            last as f64 / 1000.0,
        );
        page.counter(
            "afferent_store_moved_aside_total",
            "Damaged databases that were moved aside.",
            self.moved_aside.get(),
        );
        self.fleet.write_metrics(&mut page);
        self.write_agents(&mut page);
        page.gauges(
            "afferent_build_info",
            "Version of this program.",
            &[(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        );
        page.finish()
    }

    fn ready(&self) -> Result<(), String> {
        let progress = self.progress();
        match (&progress.trouble, progress.is_reading) {
            (_, true) => Ok(()),
            (Some((said, _)), false) => Err(said.clone()),
            (None, false) => Err("the stream was not asked yet".into()),
        }
    }
}
