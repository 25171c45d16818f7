//! The bill of materials of a guest, made alike for delivery and for an export of the fleet store.

use crate::clock::WallTime;
use crate::report::{Digest, Report};
use crate::sbom::{BomFormat, Subject};

/// A report with its digest, and when the agent made it, as CycloneDX. The guest is called there as it is here:
/// agents do not say its host name.
pub(super) fn of_guest(vm: &str, report: &Report, digest: Digest, at: WallTime) -> Vec<u8> {
    let subject = Subject {
        report,
        digest,
        host: vm,
        at,
        id_like: &[],
        details: &[],
    };
    subject.document(BomFormat::CycloneDx)
}
