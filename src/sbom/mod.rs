//! A report as a bill of materials: CycloneDX 1.6 or SPDX 2.3, as JSON.
//!
//! ```text
//! Report, who and when  ─┬─►  cyclonedx.rs      distro.rs   names that scanners know
//!                        └─►  spdx_json.rs      purl.rs     identity of a package
//!                                               license.rs  SPDX or the packager's words
//!                                               text.rs     foreign text
//! ```
//!
//! Pure: equal input, equal bytes. Which field decides in which program, and where they read differently
//! from what their documentation says, stands in docs/sbom.md. Public keys are no packages and are not in a report.

mod cyclonedx;
mod distro;
mod license;
mod purl;
mod spdx_json;
mod text;

#[cfg(test)]
mod tests;

pub use distro::remark;

use crate::clock::WallTime;
use crate::report::{Digest, Distribution, Package, PackageDetails, Report};
use distro::DistroNames;
use license::Licenses;
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use text::{readable, some_readable};
use uuid::{Builder, Uuid};

/// Name of this program in a document.
const TOOL: &str = "afferent";

/// Its version.
const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Separates serial numbers from all other hashes.
const DOMAIN: &str = "afferent bill of materials 1";

/// Form of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BomFormat {
    /// CycloneDX 1.6, JSON. It says more: also that a package is of no module.
    CycloneDx,
    /// SPDX 2.3, JSON.
    Spdx,
}

/// What a document is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// What is installed.
    pub report: &'a Report,
    /// Over its content, also where not all of the content is in `report`.
    pub digest: Digest,
    /// Name of the machine, for people.
    pub host: &'a str,
    /// When the report was made.
    pub at: WallTime,
    /// `ID_LIKE` of os-release, where it is known.
    pub id_like: &'a [String],
    /// One for each package of the report, or none.
    pub details: &'a [PackageDetails],
}

impl<'a> Subject<'a> {
    /// The document, without a newline at its end.
    pub fn document(&self, format: BomFormat) -> Vec<u8> {
        match format {
            BomFormat::CycloneDx => cyclonedx::document(self),
            BomFormat::Spdx => spdx_json::document(self),
        }
    }

    /// Name of the machine as a document has it.
    fn host(&self) -> Cow<'a, str> {
        readable(self.host)
    }

    /// Of the content, the time and the machine: two documents of one number are equal.
    fn serial(&self) -> Uuid {
        let hash = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(self.digest.as_bytes())
            .chain_update(self.at.unix_ms().to_be_bytes())
            .chain_update([u8::from(!self.details.is_empty())])
            .chain_update(self.host)
            .finalize();
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
        Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Every package with what both formats say of it.
    fn entries(&self, names: &DistroNames<'_>) -> Vec<Entry<'a>> {
        let distro = names.distro();
        let mut licenses = Licenses::default();
        let mut details = self.details.iter();
        let packages = self.report.packages.iter();
        packages
            .map(|package| Entry {
                package,
                details: details.next(),
                name: readable(&package.name),
                version: version(package),
                purl: purl::of(package, names, distro.as_deref()),
                license: licenses.of(package.license.as_deref()),
                content_sets: names.content_sets(package, &self.report.repositories),
            })
            .collect()
    }
}

/// `ID-VERSION_ID` of os-release, for people: `rhel-9.4`.
pub fn system_name(distribution: &Distribution) -> String {
    let names = DistroNames::of(distribution);
    match (readable(names.id()), readable(names.version_id())) {
        (id, version) if version.is_empty() => id.into_owned(),
        (id, version) => format!("{id}-{version}"),
    }
}

/// A package, and what both formats say of it.
struct Entry<'a> {
    package: &'a Package,
    details: Option<&'a PackageDetails>,
    name: Cow<'a, str>,
    version: String,
    purl: String,
    license: Option<license::License<'a>>,
    content_sets: Vec<String>,
}

impl<'a> Entry<'a> {
    /// Who made the package, where no vendor answers for it: those of a vendor have one and the same.
    fn packager(&self) -> Option<Cow<'a, str>> {
        if some_readable(self.package.vendor.as_ref()).is_some() {
            return None;
        }
        some_readable(self.details?.packager.as_ref())
    }
}

/// `[epoch:]version-release`, as readable text.
fn version(package: &Package) -> String {
    let rest = purl::version_release(package);
    match package.evr.epoch {
        0 => rest.into_owned(),
        epoch => format!("{epoch}:{rest}"),
    }
}

/// Seconds since 1970 as RFC 3339 without a fraction.
fn seconds(seconds: u64) -> String {
    let shown = WallTime::from_unix_ms(seconds.saturating_mul(1000)).to_string();
    shown.replace(".000Z", "Z")
}

/// Names that were given out: the second of a kind becomes another one.
#[derive(Default)]
struct Unique {
    taken: HashSet<String>,
    next: HashMap<String, u32>,
}

impl Unique {
    /// `wanted`, or it with `separator` and a number behind it where it is taken.
    fn take(&mut self, wanted: String, separator: char) -> String {
        if self.taken.insert(wanted.clone()) {
            return wanted;
        }
        let next = self.next.entry(wanted.clone()).or_insert(2);
        loop {
            let other = format!("{wanted}{separator}{next}");
            *next += 1;
            if self.taken.insert(other.clone()) {
                return other;
            }
        }
    }
}
