//! Version 1 of the rows of `sense.redb`: what afferent 0.1 wrote. Only read, never changed.
//!
//! Values that are a field of several rows (keys, digests, times, facts) have one encoding in every
//! version and are not repeated here.

use super::{DocumentId, Echo, QueuePlace};
use crate::clock::WallTime;
use crate::report::{
    self, Digest, Distribution, Facts, GuestId, ReportKey, Repository, SourcePackage, Trigger, VmId,
};
use crate::sense::queue::table;
use serde::Deserialize;
use std::borrow::Cow;

/// The key and digest of a report.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Known {
    key: ReportKey,
    digest: Digest,
}

/// A row of `sense_guests`.
#[derive(Deserialize)]
pub(super) struct GuestRow {
    known: Option<Known>,
    guest_id: Option<GuestId>,
    waits: bool,
    generated_at: WallTime,
    full_at: WallTime,
    accepted: Option<(Known, WallTime)>,
}

/// A row of `pending_slots`.
#[derive(Deserialize)]
pub(super) struct SlotRow {
    report: Known,
    trigger: Trigger,
    generated_at: WallTime,
    since: WallTime,
    packages: u32,
    place: QueuePlace,
    attempts: u32,
    not_before: WallTime,
    demoted: bool,
    dead: Option<String>,
    last_error: Option<String>,
}

/// A pending report.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    vm: VmId,
    address: String,
    guest_id: Option<GuestId>,
    key: ReportKey,
    digest: Digest,
    trigger: Trigger,
    generated_at: WallTime,
    agent_version: String,
    facts: Facts,
    #[serde(borrow)]
    report: ReportView<'a>,
}

/// The content of a pending report.
#[derive(Deserialize)]
struct ReportView<'a> {
    #[serde(borrow)]
    packages: Vec<PackageView<'a>>,
    distribution: Distribution,
    repositories: Vec<Repository>,
    package_db: &'a str,
    facts: Facts,
}

#[derive(Deserialize)]
struct PackageView<'a> {
    name: &'a str,
    #[serde(borrow)]
    version: Cow<'a, str>,
    arch: &'a str,
    #[serde(borrow)]
    source: Option<SourcePackage<'a>>,
    module: &'a str,
    #[serde(borrow)]
    repo: Cow<'a, str>,
}

impl From<Known> for DocumentId {
    fn from(known: Known) -> Self {
        Self {
            key: known.key,
            digest: known.digest,
            facts: None,
        }
    }
}

impl From<GuestRow> for table::GuestRow {
    fn from(row: GuestRow) -> Self {
        Self {
            known: row.known.map(Into::into),
            // The digest in the row is the sensor's own: only what an agent issued is sent to it.
            echo: row.known.map_or(Echo::Nothing, |known| Echo::Pair {
                key: known.key,
                digest: None,
            }),
            guest_id: row.guest_id,
            waits: row.waits,
            generated_at: row.generated_at,
            full_at: row.full_at,
            accepted: row.accepted.map(|(known, at)| (known.into(), at)),
            facts: None,
            tokens: 0,
            domain: None,
        }
    }
}

impl From<SlotRow> for table::SlotRow {
    fn from(row: SlotRow) -> Self {
        Self {
            report: row.report.into(),
            trigger: row.trigger,
            generated_at: row.generated_at,
            since: row.since,
            packages: row.packages,
            place: row.place,
            attempts: row.attempts,
            not_before: row.not_before,
            demoted: row.demoted,
            dead: row.dead,
            last_error: row.last_error,
        }
    }
}

impl<'a> From<Envelope<'a>> for report::Envelope<'a> {
    /// The time at which it was seen is not in the row: whoever reads it takes the guest's `full_at`.
    fn from(envelope: Envelope<'a>) -> Self {
        let Envelope {
            vm,
            address,
            guest_id,
            key,
            digest,
            trigger,
            generated_at,
            agent_version,
            facts,
            report,
        } = envelope;
        Self {
            vm,
            address,
            guest_id,
            key,
            digest,
            seen_at: WallTime::default(),
            trigger,
            generated_at,
            agent_version,
            facts,
            report: Some(report.into()),
        }
    }
}

impl<'a> From<ReportView<'a>> for report::ReportView<'a> {
    fn from(view: ReportView<'a>) -> Self {
        Self {
            packages: view.packages.into_iter().map(Into::into).collect(),
            distribution: view.distribution,
            repositories: view.repositories,
            package_db: view.package_db,
            facts: view.facts,
        }
    }
}

impl<'a> From<PackageView<'a>> for report::PackageView<'a> {
    fn from(package: PackageView<'a>) -> Self {
        Self {
            name: report::escape::escape_text(package.name),
            version: package.version,
            arch: package.arch,
            source: package.source,
            module: package.module,
            vendor: "",
            license: "",
            is_recorded: !package.repo.is_empty(),
            repo: package.repo,
        }
    }
}
