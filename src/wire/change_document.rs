//! What changed in the packages of a guest as JSON: `changes` of a document, and answers about the fleet.

use crate::report::diff::{ChangeSet, Replacement};
use crate::report::{PackageView, ReportKey};
use serde::Serialize;

/// A package that came or is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangedPackage {
    name: String,
    arch: String,
    version: String,
}

/// A package in place of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplacedPackage {
    name: String,
    arch: String,
    from: String,
    to: String,
    /// What else differs: `module`, `repo`, `source`, `vendor`, `license`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    differs: Vec<&'static str>,
}

/// The changes of one report, or of several, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChangesDocument {
    since: SinceDocument,
    #[serde(flatten)]
    packages: PackageChanges,
}

/// The report from which changes lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct SinceDocument {
    epoch: u32,
    generation: u32,
}

/// A change set of packages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackageChanges {
    added: Vec<ChangedPackage>,
    removed: Vec<ChangedPackage>,
    upgraded: Vec<ReplacedPackage>,
    downgraded: Vec<ReplacedPackage>,
    changed: Vec<ReplacedPackage>,
}

impl ChangesDocument {
    /// What leads on from this report.
    pub fn new(since: ReportKey, changes: &ChangeSet<PackageView<'_>>) -> Self {
        let since = SinceDocument {
            epoch: since.epoch_or_zero(),
            generation: since.generation.get(),
        };
        let packages = changes.into();
        Self { since, packages }
    }
}

impl From<&ChangeSet<PackageView<'_>>> for PackageChanges {
    fn from(set: &ChangeSet<PackageView<'_>>) -> Self {
        let one = |packages: &[PackageView<'_>]| packages.iter().map(Into::into).collect();
        let pair = |pairs: &[Replacement<PackageView<'_>>]| pairs.iter().map(Into::into).collect();
        Self {
            added: one(&set.added),
            removed: one(&set.removed),
            upgraded: pair(&set.upgraded),
            downgraded: pair(&set.downgraded),
            changed: pair(&set.changed),
        }
    }
}

impl From<&PackageView<'_>> for ChangedPackage {
    fn from(package: &PackageView<'_>) -> Self {
        Self {
            name: package.name.to_string(),
            arch: package.arch.to_owned(),
            version: package.version.to_string(),
        }
    }
}

impl From<&Replacement<PackageView<'_>>> for ReplacedPackage {
    fn from(Replacement { from, to }: &Replacement<PackageView<'_>>) -> Self {
        let repo = (from.is_recorded, &from.repo) != (to.is_recorded, &to.repo);
        // A version has a source of its own.
        let source = from.version == to.version && from.source != to.source;
        let differs = [
            ("module", from.module != to.module),
            ("repo", repo),
            ("source", source),
            ("vendor", from.vendor != to.vendor),
            ("license", from.license != to.license),
        ];
        let differs = differs.into_iter().filter(|(_, differs)| *differs);
        Self {
            name: from.name.to_string(),
            arch: from.arch.to_owned(),
            from: from.version.to_string(),
            to: to.version.to_string(),
            differs: differs.map(|(name, _)| name).collect(),
        }
    }
}
