//! Facts: short strings under known names, beside the packages of a report.
//!
//! Some are content (a change makes a new generation), some only describe the scan; the two lists
//! below say which. Names and values of the first six are those of StackRox's VM agent.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// Facts by name, sorted.
pub type Facts = BTreeMap<String, String>;

// -- content: part of the digest --

/// `RHEL` or `UNKNOWN`.
pub const DETECTED_OS: &str = "detected_os";
/// `VERSION_ID` of os-release, after its `ID` unless that is `rhel`; empty without one.
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
/// Number of the form of `report_digest`; absent in version 0.1, which had form 1.
pub const DIGEST_FORM: &str = "digest_form";
/// What became of the package manager's history and of the mapping to CPEs: `ok`, or why repositories
/// or CPEs are missing.
pub const PROVENANCE: &str = "provenance";
/// Why the newest scan gave no report; absent when it did.
pub const LAST_INDEX_ERROR: &str = "last_index_error";
/// RFC 3339 time of that scan.
pub const LAST_INDEX_ERROR_AT: &str = "last_index_error_at";
/// 32 hex digits that stay with a machine; see [`crate::report::GuestId`].
pub const GUEST_ID: &str = "guest_id";
/// Packages in the report.
pub const RPMDB_PACKAGES: &str = "rpmdb_packages";
/// The newest kernel that is installed, by rpm's order of versions, of the flavour that runs: its
/// `VERSION-RELEASE.ARCH`.
pub const KERNEL_INSTALLED: &str = "kernel_installed";
/// The kernel that runs (`uname -r`); this and the following only of a machine, not of an image.
pub const KERNEL_RUNNING: &str = "kernel_running";
/// `no`, or why a boot is due, joined by commas: what was installed after the last boot of the packages
/// that `needs-restarting -r` looks at.
pub const REBOOT_NEEDED: &str = "reboot_needed";
/// Another one at every boot.
pub const BOOT_ID: &str = "boot_id";
/// RFC 3339 time of the boot.
pub const BOOTED_AT: &str = "booted_at";
/// RFC 3339 time at which the agent started.
pub const AGENT_STARTED_AT: &str = "agent_started_at";

/// What the facts begin with that a sensor adds from its cluster: agents send none of these.
pub const KUBEVIRT: &str = "kubevirt.";

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

/// The facts that differ from one scan to the next although nothing changed.
const PASSING: [&str; 3] = [LAST_SCAN_AT, SCAN_TRIGGER, REPORT_DIGEST];

/// Hash over the facts whose change Central is told: the first 4 bytes of SHA-256 over the lines
/// `name=value`, sorted by the bytes of the name, without `last_scan_at`, `scan_trigger`, `report_digest` and
/// those that begin with `kubevirt.`.
///
/// Facts whose lines could be those of others (a line feed in a name or value, `=` in a name) are written in
/// another form: an empty line, which no lines begin with, then each name and value after its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FactsHash([u8; 4]);

impl FactsHash {
    /// Over these facts.
    pub fn of(facts: &Facts) -> Self {
        let told = || {
            let all = facts.iter();
            all.filter(|(name, _)| !PASSING.contains(&name.as_str()) && !name.starts_with(KUBEVIRT))
        };
        let are_lines =
            told().all(|(name, value)| !name.contains(['\n', '=']) && !value.contains('\n'));
        let hash = match are_lines {
            true => told()
                .map(|(name, value)| format!("{name}={value}\n"))
                .fold(Sha256::new(), Sha256::chain_update),
            false => told()
                .flat_map(|(name, value)| [name, value])
                .map(|text| format!("{}:{text}", text.len()))
                .fold(Sha256::new().chain_update("\n"), Sha256::chain_update),
        };
        let hash = hash.finalize();
        Self(std::array::from_fn(|n| hash.get(n).copied().unwrap_or(0)))
    }
}

/// 8 hex digits.
impl fmt::Display for FactsHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// Those of `facts` that are content.
pub fn content_of(facts: &Facts) -> Facts {
    facts
        .iter()
        .filter(|(name, _)| CONTENT.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise every boot, and every agent that starts, would be another report.
    #[test]
    fn facts_of_what_runs_are_told_and_are_no_content() {
        let names = [
            RPMDB_PACKAGES,
            KERNEL_INSTALLED,
            KERNEL_RUNNING,
            REBOOT_NEEDED,
            BOOT_ID,
            BOOTED_AT,
            AGENT_STARTED_AT,
        ];
        let mut facts: Facts = names.map(|name| (name.to_owned(), "a".to_owned())).into();
        assert_eq!(content_of(&facts), Facts::new());
        let before = FactsHash::of(&facts);
        for name in names {
            facts.insert(name.to_owned(), "b".to_owned());
            assert_ne!(FactsHash::of(&facts), before, "{name}");
        }
    }

    #[test]
    fn the_hash_of_facts_is_over_those_that_central_is_told() {
        let facts = |pairs: &[(&str, &str)]| -> Facts {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let hash = FactsHash::of(&facts(&[("boot_id", "a"), ("os_version", "9.4")]));
        // printf 'boot_id=a\nos_version=9.4\n' | sha256sum
        assert_eq!(hash.to_string(), "af21e31b");
        let again = facts(&[
            ("boot_id", "a"),
            ("os_version", "9.4"),
            (LAST_SCAN_AT, "now"),
            (SCAN_TRIGGER, "reactive"),
            (REPORT_DIGEST, "sha256:0"),
            ("kubevirt.node", "n1"),
        ]);
        assert_eq!(FactsHash::of(&again), hash);
        let other = facts(&[("boot_id", "b"), ("os_version", "9.4")]);
        assert_ne!(FactsHash::of(&other), hash);
    }

    /// The loss: a guest whose facts change, and Central keeps the old ones.
    #[test]
    fn facts_with_line_feeds_and_equals_signs_have_hashes_of_their_own() {
        let of = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            let owned = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            FactsHash::of(&owned.collect())
        };
        let all = [
            of(&[("a", "1"), ("b", "2")]),
            of(&[("a", "1\nb=2")]),
            of(&[("a\nb", "2"), ("a", "1")]),
            of(&[("a", "1\nb=2\n")]),
            of(&[("a=1\nb", "2")]),
            of(&[("a", "b=1")]),
            of(&[("a=b", "1")]),
            of(&[]),
            of(&[("", "\n")]),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }
}
