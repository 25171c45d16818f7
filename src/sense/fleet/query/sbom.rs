//! Guests as bills of materials, byte for byte what `sense --deliver sbom:DIR` makes of their last reports.

use super::FleetAnswer;
use super::view::FleetView;
use crate::clock::WallTime;
use crate::report::{Digest, Distribution, Report, ReportView};
use crate::sense::bill_of_materials;
use crate::sense::fleet::ids;
use crate::sense::fleet::package::StoredPackage;
use crate::sense::fleet::platform::StoredPlatform;
use crate::sense::fleet::row::GuestState;
use crate::store::TxError;
use serde::Serialize;
use std::ops::ControlFlow;

/// Guests in one page.
const MOST_GUESTS: usize = 16;

/// Bytes of documents with which a page ends, so that an answer stays far below what the control socket bears.
const PAGE_BYTES: usize = 8 << 20;

/// The bill of materials of a guest.
#[derive(Serialize)]
struct SbomLine {
    vm: String,
    /// The document as text, since its bytes count.
    document: String,
}

/// A page of bills of materials.
#[derive(Serialize)]
pub struct SbomAnswer {
    guests: Vec<SbomLine>,
    /// Guests of which no full report came since this file holds what a bill of materials needs.
    left_out: Vec<String>,
    /// Behind this guest the next page begins; `None`: it was the last one.
    next: Option<String>,
}

/// What the row of a guest says.
struct Guest {
    vm: String,
    digest: Digest,
    generated_at: WallTime,
    /// Without what stands in the platform.
    distribution: Distribution,
    platform: Option<u32>,
    ids: Vec<u32>,
}

impl Guest {
    fn new(vm: &str, state: &GuestState<'_>) -> Self {
        Self {
            vm: vm.to_owned(),
            digest: state.digest,
            generated_at: state.generated_at,
            distribution: Distribution {
                id: state.os_id.to_owned(),
                version_id: state.os_version.to_owned(),
                pretty_name: state.os_name.to_owned(),
                ..Distribution::default()
            },
            platform: state.platform,
            ids: ids::unpack(state.ids).unwrap_or_default(),
        }
    }

    /// `None` when its platform is not here.
    fn document(&self, view: &FleetView) -> Result<Option<String>, TxError> {
        let row = self.platform.map(|id| view.platform_row(id));
        let Some(row) = row.transpose()?.flatten() else {
            return Ok(None);
        };
        let Ok(platform) = StoredPlatform::read(&row) else {
            return Ok(None);
        };
        let report = self.report(&platform, &view.package_rows(&self.ids)?);
        let (digest, at) = (self.digest, self.generated_at);
        let document = bill_of_materials::of_guest(&self.vm, &report, digest, at);
        Ok(Some(String::from_utf8_lossy(&document).into_owned()))
    }

    /// The report, as far as a bill of materials is made of it.
    fn report(&self, platform: &StoredPlatform<'_>, rows: &[(u32, Vec<u8>)]) -> Report {
        let packages = rows
            .iter()
            .filter_map(|(_, bytes)| StoredPackage::read(bytes).ok());
        let mut report = ReportView {
            packages: packages.map(|package| package.view()).collect(),
            distribution: platform.complete(self.distribution.clone()),
            repositories: platform.repositories(),
            package_db: "",
            facts: [].into(),
        };
        report.normalize();
        report.to_report()
    }
}

pub(super) fn sbom(
    view: &FleetView,
    vm: Option<&str>,
    after: Option<&str>,
) -> Result<FleetAnswer, TxError> {
    let mut found = Vec::new();
    let mut next = None;
    match vm {
        Some(vm) => match view.guest(vm, |state| Ok(Guest::new(vm, &state)))? {
            Some(guest) => found.push(guest),
            None => return Ok(FleetAnswer::unknown(vm)),
        },
        None => view.guests(after, |vm, state| {
            found.push(Guest::new(vm, &state));
            match found.len() {
                MOST_GUESTS => {
                    next = Some(vm.to_owned());
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        })?,
    }
    let (mut guests, mut left_out, mut bytes) = (Vec::new(), Vec::new(), 0);
    for guest in found {
        if bytes >= PAGE_BYTES {
            next = last_of(&guests, &left_out);
            break;
        }
        match guest.document(view)? {
            Some(document) => {
                bytes += document.len();
                guests.push(SbomLine {
                    vm: guest.vm,
                    document,
                });
            }
            None => left_out.push(guest.vm),
        }
    }
    Ok(FleetAnswer::Sbom(SbomAnswer {
        guests,
        left_out,
        next,
    }))
}

/// The guest that came last.
fn last_of(guests: &[SbomLine], left_out: &[String]) -> Option<String> {
    let last = guests.last().map(|line| &line.vm);
    last.max(left_out.last()).cloned()
}
