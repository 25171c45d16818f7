//! Facts: short strings under known names, beside the packages of a report.
//!
//! Some are content (a change makes a new generation), some only describe the scan; the two lists
//! below say which. Names and values of the first six are those of StackRox's VM agent.

use std::collections::BTreeMap;

/// Facts by name, sorted.
pub type Facts = BTreeMap<String, String>;

// -- content: part of the digest --

/// `RHEL` or `UNKNOWN`.
pub const DETECTED_OS: &str = "detected_os";
/// `VERSION_ID` of os-release.
pub const OS_VERSION: &str = "os_version";
/// `ACTIVE`, `INACTIVE` or `ACTIVATION_UNSPECIFIED`: is there an entitlement certificate with its key.
pub const ACTIVATION_STATUS: &str = "activation_status";
/// `AVAILABLE`, `UNAVAILABLE` or `DNF_METADATA_UNSPECIFIED`.
pub const DNF_METADATA_STATUS: &str = "dnf_metadata_status";
/// `sqlite`, `ndb` or `bdb`.
pub const RPMDB_BACKEND: &str = "rpmdb_backend";
/// `true` when the report was taken while a transaction still held its lock, after the timeout.
pub const MID_TRANSACTION: &str = "mid_transaction";
/// Number of damaged headers that had to be left out; absent when there were none.
pub const SKIPPED_HEADERS: &str = "skipped_headers";

// -- about the scan: outside the digest --

/// Why the scan ran: `reactive` or `scheduled`.
pub const SCAN_TRIGGER: &str = "scan_trigger";
/// `sha256:` and 64 hex digits.
pub const REPORT_DIGEST: &str = "report_digest";
/// RFC 3339 time of the newest scan, also when it found nothing new.
pub const LAST_SCAN_AT: &str = "last_scan_at";
/// 32 hex digits that stay with a machine; see [`crate::report::GuestId`].
pub const GUEST_ID: &str = "guest_id";

/// The facts that are content; all others a peer may send only describe its scan.
pub const CONTENT: [&str; 7] = [
    DETECTED_OS,
    OS_VERSION,
    ACTIVATION_STATUS,
    DNF_METADATA_STATUS,
    RPMDB_BACKEND,
    MID_TRANSACTION,
    SKIPPED_HEADERS,
];

/// Those of `facts` that are content.
pub fn content_of(facts: &Facts) -> Facts {
    facts
        .iter()
        .filter(|(name, _)| CONTENT.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
