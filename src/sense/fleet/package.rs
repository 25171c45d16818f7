//! The row of a distinct package: everything about it that travels.

use crate::report::diff::Installed;
use crate::report::{PackageView, SourcePackage};
use crate::store::CodecError;
use crate::store::codec::{self, Row};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A package as it is stored; texts are [escaped](crate::report::escape) and empty when absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPackage<'a> {
    /// Name without version.
    pub name: &'a str,
    /// `[epoch:]version-release`.
    pub version: &'a str,
    /// Architecture.
    pub arch: &'a str,
    /// The package it was built from.
    #[serde(borrow)]
    pub source: Option<SourcePackage<'a>>,
    /// `name:stream`.
    pub module: &'a str,
    /// Who built it.
    pub vendor: &'a str,
    /// As the header has it.
    pub license: &'a str,
    /// Whether the package manager's history has an entry for it.
    pub is_recorded: bool,
    /// Id of the repository in that entry.
    pub repo: &'a str,
}

impl<'a> Row<'a> for StoredPackage<'a> {
    const VERSION: u8 = 1;
}

impl<'a> StoredPackage<'a> {
    pub(super) fn of(package: &'a PackageView<'_>) -> Self {
        Self {
            name: &package.name,
            version: &package.version,
            arch: package.arch,
            source: package.source,
            module: package.module,
            vendor: package.vendor,
            license: package.license,
            is_recorded: package.is_recorded,
            repo: &package.repo,
        }
    }

    /// Writes the row into `bytes`, in place of what is there.
    pub(super) fn write_to(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_to(self, bytes)
    }

    /// How rows of packages of this name begin.
    pub(super) fn begin_of(name: &str) -> PackageBegin {
        let row = |name| {
            let mut bytes = Vec::new();
            let package = StoredPackage {
                name,
                ..StoredPackage::default()
            };
            let is_written = package.write_to(&mut bytes).is_ok();
            is_written.then_some(bytes)
        };
        // The name is the first field; what comes behind is in both.
        let begin = row(name).zip(row("")).map(|(mut with, without)| {
            let rest = without.len() - 2;
            with.truncate(with.len() - rest);
            with
        });
        PackageBegin(begin.unwrap_or_default())
    }

    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }

    /// As it travels.
    pub fn view(&self) -> PackageView<'a> {
        PackageView {
            name: Cow::Borrowed(self.name),
            version: Cow::Borrowed(self.version),
            arch: self.arch,
            source: self.source,
            module: self.module,
            vendor: self.vendor,
            license: self.license,
            is_recorded: self.is_recorded,
            repo: Cow::Borrowed(self.repo),
        }
    }
}

/// The first bytes of a row of the newest version: of ten thousand rows that a question passes over, nearly all are
/// told apart by these.
pub(super) struct PackageBegin(Vec<u8>);

impl PackageBegin {
    /// Whether the package may have the name.
    pub(super) fn is_candidate(&self, row: &[u8]) -> bool {
        row.first() != Some(&StoredPackage::VERSION) || row.starts_with(&self.0)
    }
}

impl Installed for StoredPackage<'_> {
    fn name(&self) -> &str {
        self.name
    }

    fn arch(&self) -> &str {
        self.arch
    }

    fn version(&self) -> &str {
        self.version
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::sense::fleet) fn named(name: &str) -> StoredPackage<'_> {
        StoredPackage {
            name,
            version: "1:2-3",
            arch: "x86_64",
            source: Some(SourcePackage {
                name: "source",
                version: "2-3",
            }),
            module: "m:1",
            vendor: "v",
            license: "MIT",
            is_recorded: true,
            repo: "base",
        }
    }

    #[test]
    fn a_row_holds_everything_about_a_package() {
        let package = named("a");
        let mut bytes = vec![0; 3];
        package.write_to(&mut bytes).unwrap();
        assert_eq!(StoredPackage::read(&bytes).unwrap(), package);
        assert_eq!(StoredPackage::of(&package.view()), package);
        // Version 1, as it is in files.
        let text =
            b"\x01\x01a\x051:2-3\x06x86_64\x01\x06source\x032-3\x03m:1\x01v\x03MIT\x01\x04base";
        assert_eq!(bytes, text);
    }

    #[test]
    fn a_row_is_told_from_those_of_other_names_by_its_first_bytes() {
        let long = "n".repeat(300);
        for name in ["", "a", "ab", "b", &long, &long[1..]] {
            let mut bytes = Vec::new();
            named(name).write_to(&mut bytes).unwrap();
            for other in ["", "a", "ab", "b", &long, &long[1..]] {
                let begin = StoredPackage::begin_of(other);
                assert_eq!(begin.is_candidate(&bytes), name == other, "{name} {other}");
            }
            // Of a version that is not the newest one nothing is said.
            bytes[0] = 77;
            assert!(StoredPackage::begin_of("c").is_candidate(&bytes));
        }
    }
}
