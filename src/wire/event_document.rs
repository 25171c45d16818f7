//! What happens to the packages of guests as JSON, for those who want events instead of reports.
//!
//! ```text
//! state    all packages: the beginning, wherever changes alone do not lead on from what was told before
//! change   what leads from one report of the guest to its next one
//! ```

use super::change_document::{ChangedPackage, ChangesDocument};
use super::document::{VmDocument, shown};
use crate::clock::WallTime;
use crate::report::diff::KEY_PACKAGE;
use crate::report::{Digest, Envelope, ReportKey, ReportView, Trigger, idempotency_key};
use serde::Serialize;

/// An event.
#[derive(Debug, Serialize)]
pub struct EventDocument<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The same whenever this event is sent again.
    pub id: String,
    /// Idempotency key of the report to which it leads.
    key: String,
    vm: VmDocument<'a>,
    meta: EventMeta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<ChangesDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    packages: Option<Vec<ChangedPackage>>,
}

/// The report to which an event leads.
#[derive(Debug, Serialize)]
struct EventMeta<'a> {
    sensor: &'a str,
    #[serde(serialize_with = "shown")]
    seen_at: WallTime,
    epoch: u32,
    generation: u32,
    #[serde(serialize_with = "shown")]
    digest: Digest,
    trigger: &'static str,
}

/// Which report an event leads to.
#[derive(Clone, Copy, Debug)]
pub struct EventReport {
    /// Epoch and generation.
    pub key: ReportKey,
    /// The sensor's hash over its content.
    pub digest: Digest,
    /// When the sensor saw it.
    pub seen_at: WallTime,
    /// Why its scan ran.
    pub trigger: Trigger,
}

impl<'a> EventDocument<'a> {
    /// What leads to a report of the guest that `envelope` is about.
    pub fn change(
        envelope: &'a Envelope<'a>,
        sensor: &'a str,
        report: EventReport,
        changes: ChangesDocument,
    ) -> Self {
        let event = Self::new("change", envelope, sensor, report);
        Self {
            changes: Some(changes),
            ..event
        }
    }

    /// All packages of the report in `envelope`.
    pub fn state(envelope: &'a Envelope<'a>, sensor: &'a str, report: &ReportView<'_>) -> Self {
        let of = EventReport {
            key: envelope.key,
            digest: envelope.digest,
            seen_at: envelope.seen_at,
            trigger: envelope.trigger,
        };
        let packages = report.packages.iter();
        let packages = packages.filter(|package| package.name != KEY_PACKAGE);
        Self {
            packages: Some(packages.map(Into::into).collect()),
            ..Self::new("state", envelope, sensor, of)
        }
    }

    fn new(
        kind: &'static str,
        envelope: &'a Envelope<'a>,
        sensor: &'a str,
        report: EventReport,
    ) -> Self {
        let EventReport {
            key,
            digest,
            seen_at,
            trigger,
        } = report;
        let key_text = idempotency_key(&envelope.vm, key, digest);
        Self {
            kind,
            id: format!("{key_text}/{kind}/{}", seen_at.unix_ms()),
            key: key_text,
            vm: envelope.into(),
            meta: EventMeta {
                sensor,
                seen_at,
                epoch: key.epoch_or_zero(),
                generation: key.generation.get(),
                digest,
                trigger: trigger.as_str(),
            },
            changes: None,
            packages: None,
        }
    }
}
