//! A document about a guest as the fleet store takes it: made where reports are decoded, beside the loop and
//! outside of any transaction.

use super::index::{Interned, RowIndex};
use super::package::StoredPackage;
use super::platform::StoredPlatform;
use crate::clock::WallTime;
use crate::report::diff::KEY_PACKAGE;
use crate::report::{
    Digest, Distribution, Envelope, Facts, GuestId, ReportKey, ReportView, Trigger,
};
use std::sync::{Arc, Mutex, PoisonError};

/// A document, ready to be stored. While it is on its way its packages keep their ids.
pub struct FleetDocument {
    pub(super) key: ReportKey,
    pub(super) digest: Digest,
    pub(super) seen_at: WallTime,
    pub(super) generated_at: WallTime,
    pub(super) trigger: Trigger,
    pub(super) guest_id: Option<GuestId>,
    pub(super) agent_version: String,
    pub(super) facts: Facts,
    /// `None`: only facts changed.
    pub(super) content: Option<FleetContent>,
}

/// The content of a report.
pub(super) struct FleetContent {
    pub(super) distribution: Distribution,
    /// By id; one that is installed twice is here twice.
    pub(super) packages: Vec<Arc<Interned>>,
    pub(super) platform: Arc<Interned>,
}

impl FleetDocument {
    /// When it counts as seen.
    pub fn seen_at(&self) -> WallTime {
        self.seen_at
    }

    /// `None` when the packages cannot be numbered or encoded, which costs this document its place in the
    /// fleet store alone.
    pub(super) fn new(
        packages: &Mutex<RowIndex>,
        platforms: &Mutex<RowIndex>,
        envelope: &Envelope<'_>,
    ) -> Option<Self> {
        let content = match &envelope.report {
            Some(report) => Some(FleetContent {
                distribution: report.distribution.clone(),
                packages: intern(packages, report)?,
                platform: intern_platform(platforms, report)?,
            }),
            None => None,
        };
        Some(Self {
            key: envelope.key,
            digest: envelope.digest,
            seen_at: envelope.seen_at,
            generated_at: envelope.generated_at,
            trigger: envelope.trigger,
            guest_id: envelope.guest_id.clone(),
            agent_version: envelope.agent_version.clone(),
            facts: envelope.facts.clone(),
            content,
        })
    }
}

fn intern(index: &Mutex<RowIndex>, report: &ReportView<'_>) -> Option<Vec<Arc<Interned>>> {
    let mut packages = Vec::with_capacity(report.packages.len());
    let mut bytes = Vec::with_capacity(256);
    let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
    for package in &report.packages {
        if package.name == KEY_PACKAGE {
            continue;
        }
        let package = StoredPackage::of(package);
        package.write_to(&mut bytes).ok()?;
        packages.push(index.intern(&bytes, |index| index.group(package.name, package.arch))?);
    }
    drop(index);
    packages.sort_unstable_by_key(|package| package.id);
    Some(packages)
}

fn intern_platform(index: &Mutex<RowIndex>, report: &ReportView<'_>) -> Option<Arc<Interned>> {
    let mut bytes = Vec::with_capacity(1024);
    StoredPlatform::of(report).write_to(&mut bytes).ok()?;
    let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
    index.intern(&bytes, |_| 0)
}
