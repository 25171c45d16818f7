//! What the sensor counts while it works.

use super::deliver::outcome::Outcome;
use super::mapping::MappingStatus;
use super::pull::failure::Failure;
use super::pull::layers::LayerCounters;
use super::queue::Dispatch;
use super::recent::RecentAcceptances;
use crate::telemetry::metrics::{Counter, Counters, Histogram, Page};

/// Seconds from milliseconds to half an hour, with a bound at the 300 s that were promised.
const LATENCY: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
];
const DURATION: &[f64] = &[
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0,
];
const BYTES: &[f64] = &[
    1024.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
];
const PACKAGES: &[f64] = &[10.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];

/// Counters and histograms of a sensor.
pub struct Metrics {
    /// From a change in a guest (when its agent made the report) to Central's acceptance.
    pub reactive_latency: Histogram,
    /// The newest of them one by one, for the live feed.
    pub accepted: RecentAcceptances,
    /// Reports by why their scan ran.
    pub triggers: Counters,
    /// Exchanges by what came of them.
    pub pulls: Counters,
    /// The same in each layer.
    pub layers: LayerCounters,
    /// Mappings of guests by what was found or done.
    pub mapping: Counters,
    /// Time of exchanges that were not waits.
    pub pull_seconds: Histogram,
    /// Time from an answer's first byte to the durable report.
    pub transfer_seconds: Histogram,
    /// Time of deliveries.
    pub delivery_seconds: Histogram,
    /// Bytes of reports as they arrived.
    pub report_bytes: Histogram,
    /// Packages in reports.
    pub report_packages: Histogram,
    /// Deliveries by what came of them.
    pub deliveries: Counters,
    /// Accepted documents that Central may have had before, by why they were sent.
    pub repeats: Counters,
    /// Times that another machine answered at a known address.
    pub machine_changes: Counter,
    /// Reports that count lower than the one before, of the same machine and epoch.
    pub went_back: Counter,
    /// Damaged databases that were replaced.
    pub moved_aside: Counter,
    /// Times that the fleet store could not be opened.
    pub fleet_unusable: Counter,
}

impl Metrics {
    /// All at 0.
    pub fn new() -> Self {
        let mut pulls = vec!["report", "refused_before", "unchanged"];
        pulls.extend(Failure::LABELS);
        Self {
            reactive_latency: Histogram::new(LATENCY),
            accepted: RecentAcceptances::default(),
            triggers: Counters::new(&["reactive", "scheduled", "unknown"]),
            pulls: Counters::new(&pulls),
            layers: LayerCounters::default(),
            mapping: Counters::new(&MappingStatus::LABELS),
            pull_seconds: Histogram::new(DURATION),
            transfer_seconds: Histogram::new(DURATION),
            delivery_seconds: Histogram::new(DURATION),
            report_bytes: Histogram::new(BYTES),
            report_packages: Histogram::new(PACKAGES),
            deliveries: Counters::new(&Outcome::LABELS),
            repeats: Counters::new(&Dispatch::REPEATS),
            machine_changes: Counter::default(),
            went_back: Counter::default(),
            moved_aside: Counter::default(),
            fleet_unusable: Counter::default(),
        }
    }

    /// Writes what is counted.
    pub fn write(&self, page: &mut Page) {
        page.histogram(
            "afferent_reactive_latency_seconds",
            "Time from a change in a guest to its acceptance by Central.",
            &self.reactive_latency,
        );
        page.counters(
            "afferent_scan_trigger_total",
            "Reports by why their scan ran.",
            "trigger",
            &self.triggers,
        );
        page.counters(
            "afferent_pulls_total",
            "Conversations with guests by what came of them.",
            "outcome",
            &self.pulls,
        );
        self.layers.write(page);
        page.counters(
            "afferent_sense_mapping_total",
            "Mappings from repositories to CPEs in guests: what was found, and what came of pushing.",
            "status",
            &self.mapping,
        );
        page.histogram(
            "afferent_pull_duration_seconds",
            "Time of conversations with guests, waits excepted.",
            &self.pull_seconds,
        );
        page.histogram(
            "afferent_transfer_duration_seconds",
            "Time from the first byte of a report to its being durable.",
            &self.transfer_seconds,
        );
        page.histogram(
            "afferent_delivery_duration_seconds",
            "Time of deliveries.",
            &self.delivery_seconds,
        );
        page.histogram(
            "afferent_report_bytes",
            "Size of reports as they arrive.",
            &self.report_bytes,
        );
        page.histogram(
            "afferent_report_packages",
            "Packages in reports.",
            &self.report_packages,
        );
        page.counters(
            "afferent_deliveries_total",
            "Deliveries by what came of them.",
            "outcome",
            &self.deliveries,
        );
        page.counters(
            "afferent_deliveries_repeated_total",
            "Accepted documents that may say what Central had before, by why they were sent.",
            "reason",
            &self.repeats,
        );
        page.counter(
            "afferent_machine_changes_total",
            "Times that another machine answered at a known address.",
            self.machine_changes.get(),
        );
        page.counter(
            "afferent_generations_went_back_total",
            "Reports that count lower than the one before, as after a machine's snapshot was restored.",
            self.went_back.get(),
        );
        page.counter(
            "afferent_store_moved_aside_total",
            "Damaged databases that were moved aside.",
            self.moved_aside.get(),
        );
        page.counter(
            "afferent_fleet_unusable_total",
            "Starts at which the fleet store could not be opened, so that there is none.",
            self.fleet_unusable.get(),
        );
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
