//! What a guest has installed at one moment, and when two such reports are the same.
//!
//! ```text
//! Envelope                       the unit that travels from guest to Central
//! ├── VmId, address              who the sensor says it is
//! ├── ReportKey                  epoch + generation: which report of that guest
//! ├── Digest                     whether anything changed, whatever the counters say
//! ├── facts                      trigger, guest_id, last_scan_at ...: about the scan
//! └── Report, ReportView         the content, all of it under the digest
//!     ├── packages, distribution, repositories
//!     └── facts                  detected_os, rpmdb_backend ...: about the guest
//! ```
//!
//! Plain values: no IO, no clock, no knowledge of any format on disk or wire.

pub mod cpe;
mod details;
pub mod diff;
mod digest;
mod envelope;
pub mod escape;
pub mod evr;
pub mod facts;
mod generation;
pub mod mapping;
pub mod net_change;
mod package;
mod token;
mod view;

pub use details::PackageDetails;
pub use digest::{Digest, DigestError, FORM as DIGEST_FORM};
pub use envelope::{Envelope, GuestId, IdError, ReportSummary, Trigger, VmId, idempotency_key};
pub use facts::{Facts, FactsHash};
pub use generation::{Epoch, Generation, ReportKey};
pub use mapping::{MappingHash, MappingHasher};
pub use package::{ABSENT, Evr, Origin, Package, SourcePackage};
pub use token::{Token, TokenError};
pub use view::{PackageView, ReportView};

use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Everything installed in a guest at one moment.
///
/// Two reports with equal [`Report::digest`] have the same content. Packages and repositories are
/// kept sorted by [`Report::normalize`], so that the order in which a database lists them is no
/// change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Installed packages; a name may occur more than once (kernels, multilib).
    pub packages: Vec<Package>,
    /// From os-release.
    pub distribution: Distribution,
    /// Repositories that packages came from.
    pub repositories: Vec<Repository>,
    /// Backend and directory, for example `sqlite:var/lib/rpm`.
    pub package_db: String,
    /// Facts about the guest that count as content: a change of one is a new generation.
    pub facts: Facts,
}

impl Report {
    /// Sorts packages and repositories, of which each is listed once.
    pub fn normalize(&mut self) {
        self.packages.sort();
        self.repositories.sort();
        self.repositories.dedup();
    }

    /// SHA-256 over the canonical content, in the canonical order, whatever order it has.
    pub fn digest(&self) -> Digest {
        digest::of(self)
    }
}

/// The distribution, field by field as os-release(5) names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// `ID`, for example `rhel`.
    pub id: String,
    /// `NAME`.
    pub name: String,
    /// `VERSION`.
    pub version: String,
    /// `VERSION_CODENAME`.
    pub version_code_name: String,
    /// `VERSION_ID`, for example `9.4`.
    pub version_id: String,
    /// Architecture of the machine that was scanned, where known.
    pub arch: String,
    /// `CPE_NAME`.
    pub cpe: String,
    /// `PRETTY_NAME`.
    pub pretty_name: String,
}

/// The architecture that most packages are of, `noarch` aside; empty when there is none.
pub fn main_arch<'a>(archs: impl Iterator<Item = &'a str>) -> &'a str {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    // Neighbours mostly have the same one.
    let (mut last, mut run) = ("", 0);
    for arch in archs.filter(|arch| !arch.is_empty() && *arch != "noarch") {
        if arch != last {
            *counts.entry(last).or_default() += run;
            (last, run) = (arch, 0);
        }
        run += 1;
    }
    *counts.entry(last).or_default() += run;
    counts.remove("");
    counts
        .into_iter()
        .max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(a.0)))
        .map_or("", |(arch, _)| arch)
}

/// A repository that packages came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Repository {
    /// Repository id as dnf knows it, for example `rhel-9-for-x86_64-baseos-rpms`.
    pub id: String,
    /// What kind of entry this is; `rhel-cpe-repository` when `cpe` came from Red Hat's mapping.
    pub key: String,
    /// Where it is, when known.
    pub uri: String,
    /// CPE, when known.
    pub cpe: String,
}
