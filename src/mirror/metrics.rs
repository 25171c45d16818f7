//! What a mirror counts, and the page on which Prometheus reads it.

use super::diagnostics::Summary;
use super::progress::Progress;
use super::status::Status;
use super::topology;
use crate::inventory::{Kind, Row};
use crate::mirror::table::{InventoryError, TABLES};
use crate::store::{Snapshot, Store};
use crate::telemetry::metrics::{Counters, Histogram, Page};
use crate::telemetry::scrape::Health;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0,
];

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was mirrored.
    Converged,
    /// A type failed, or was pulled in part only.
    Failed,
    /// Deletes were withheld.
    Withheld,
    /// The program was wrong about something.
    Panicked,
}

impl Outcome {
    const ALL: [Self; 4] = [
        Self::Converged,
        Self::Failed,
        Self::Withheld,
        Self::Panicked,
    ];

    /// What a summary amounts to.
    pub(super) fn of(summary: &Summary) -> Self {
        if !summary.errors.is_empty() || !summary.incomplete.is_empty() {
            Self::Failed
        } else if !summary.withheld.is_empty() {
            Self::Withheld
        } else {
            Self::Converged
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Failed => "failed",
            Self::Withheld => "withheld",
            Self::Panicked => "panicked",
        }
    }
}

/// Counters of a mirror.
pub(super) struct Metrics {
    cycles: Counters,
    seconds: Histogram,
    rows: Mutex<Rows>,
    /// The store was found damaged or gone after the last cycle.
    is_lost: AtomicBool,
}

/// Rows as they were counted last.
#[derive(Default)]
struct Rows {
    /// Commits the store had seen then.
    generation: Option<u64>,
    /// By type and state.
    rows: BTreeMap<(String, &'static str), u32>,
    /// By type and kind of drift.
    drift: BTreeMap<(String, &'static str), u32>,
    bytes: u64,
}

impl Rows {
    /// Counts, unless the store has seen no commit since it had seen `known` of them.
    fn count(snapshot: &Snapshot, known: Option<u64>) -> Result<Option<Self>, InventoryError> {
        snapshot.view(|view| {
            let generation = Some(view.generation()?);
            if known == generation {
                return Ok(None);
            }
            let mut rows = Self {
                generation,
                ..Self::default()
            };
            for table in TABLES {
                for row in view.rows_of(table)? {
                    rows.add(&row);
                }
            }
            Ok(Some(rows))
        })
    }

    fn add(&mut self, row: &Row) {
        let (kind, is_live) = match row {
            Row::Drift(drift) => {
                let kind = drift.component_type.map_or("-", |kind| kind.name());
                let key = (kind.to_owned(), drift.drift_type.name());
                *self.drift.entry(key).or_default() += 1;
                return;
            }
            Row::Rack(rack) => (Kind::Rack.name().to_owned(), rack.is_live()),
            Row::Component(component) => (component.kind.name().to_owned(), component.is_live()),
            Row::Domain(domain) => (topology::TYPE.to_owned(), domain.is_live()),
            Row::Bmc(bmc) => (format!("bmc:{}", bmc.kind.name()), true),
        };
        let state = if is_live { "live" } else { "deleted" };
        *self.rows.entry((kind, state)).or_default() += 1;
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            cycles: Counters::new(&Outcome::ALL.map(Outcome::label)),
            seconds: Histogram::new(SECONDS),
            rows: Mutex::default(),
            is_lost: AtomicBool::default(),
        }
    }
}

impl Metrics {
    /// A cycle ended.
    pub(super) fn note(&self, outcome: Outcome, took: Duration, store: &Store) {
        self.cycles.inc(outcome.label());
        self.seconds.observe_time(took);
        self.count(store);
    }

    /// Counts the rows, unless nothing was written since they were counted.
    pub(super) fn count(&self, store: &Store) {
        let known = self.rows().generation;
        let counted = store.snapshot().map_err(InventoryError::from);
        let counted = counted.and_then(|snapshot| Rows::count(&snapshot, known));
        let error = counted.as_ref().err();
        let is_lost = |error: &InventoryError| matches!(error, InventoryError::Store(error) if error.is_lost());
        self.is_lost
            .store(error.is_some_and(is_lost), Ordering::Relaxed);
        // Nobody who scrapes waits for it.
        match counted {
            Ok(None) => {}
            Ok(Some(rows)) => {
                let bytes = std::fs::metadata(store.path()).map_or(0, |meta| meta.len());
                *self.rows() = Rows { bytes, ..rows };
            }
            Err(error) => tracing::debug!(%error, "rows not counted"),
        }
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows by type and state, as they were counted last.
    pub(super) fn rows_shown(&self) -> Value {
        nested(&self.rows().rows)
    }

    /// Drift rows by type and kind of drift, as they were counted last.
    pub(super) fn drift_shown(&self) -> Value {
        nested(&self.rows().drift)
    }

    fn write(&self, page: &mut Page) {
        page.counters(
            "afferent_mirror_cycles_total",
            "Cycles by how they ended.",
            "outcome",
            &self.cycles,
        );
        page.histogram(
            "afferent_mirror_cycle_duration_seconds",
            "Time of cycles.",
            &self.seconds,
        );
        write_lost(page, self.is_lost.load(Ordering::Relaxed));
        let rows = self.rows();
        page.gauges_by(
            "afferent_mirror_rows",
            "Rows by type and state.",
            ["type", "state"],
            samples(&rows.rows),
        );
        page.gauges_by(
            "afferent_mirror_drift_rows",
            "Differences between what is expected and what was observed.",
            ["type", "drift"],
            samples(&rows.drift),
        );
        #[allow(clippy::cast_precision_loss, reason = "a gauge")]
        let bytes = rows.bytes as f64;
        page.gauge(
            "afferent_mirror_store_bytes",
            "Length of mirror.redb.",
            bytes,
        );
    }
}

fn nested(counts: &BTreeMap<(String, &'static str), u32>) -> Value {
    let mut nested: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for ((kind, state), n) in counts {
        nested.entry(kind).or_default().insert(state, *n);
    }
    json!(nested)
}

fn samples<'a>(
    counts: &'a BTreeMap<(String, &'static str), u32>,
) -> impl Iterator<Item = ([&'a str; 2], f64)> {
    let counts = counts.iter();
    counts.map(|((kind, state), n)| ([kind.as_str(), *state], f64::from(*n)))
}

/// Everything that is asked for over HTTP.
pub(super) struct View {
    /// How the last cycle ended.
    pub(super) status: Arc<Status>,
    /// What was counted.
    pub(super) metrics: Arc<Metrics>,
    /// What was pulled.
    pub(super) progress: Progress,
}

impl Health for View {
    fn metrics(&self) -> String {
        let mut page = Page::new();
        self.metrics.write(&mut page);
        let [pages, bytes, retries] = self.progress.pulled();
        for (name, help, value) in [
            (
                "afferent_mirror_pull_pages_total",
                "Pages of lists read from Core.",
                pages,
            ),
            (
                "afferent_mirror_pull_bytes_total",
                "Bytes of those pages.",
                bytes,
            ),
            (
                "afferent_mirror_pull_retries_total",
                "Questions asked again.",
                retries,
            ),
        ] {
            page.counter(name, help, value);
        }
        self.status.write(&mut page);
        page.finish()
    }

    fn ready(&self) -> Result<(), String> {
        self.status.ready()
    }
}
/// Says whether the store is damaged, gone or empty.
pub(super) fn write_lost(page: &mut Page, is_lost: bool) {
    page.gauge(
        "afferent_mirror_store_lost",
        "1 while mirror.redb is damaged, gone or empty, so that nothing is mirrored; else 0.",
        f64::from(u8::from(is_lost)),
    );
}
