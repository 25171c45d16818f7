//! The row of a distinct platform: what a report says of the distribution and its repositories, which most guests
//! of one release have in common.

use crate::report::{Distribution, ReportView, Repository};
use crate::store::CodecError;
use crate::store::codec::{self, Row};
use serde::{Deserialize, Serialize};

/// A platform as it is stored; what stands in the row of each guest is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredPlatform<'a> {
    /// `NAME` of os-release.
    pub(super) name: &'a str,
    /// `VERSION`.
    pub(super) version: &'a str,
    /// `VERSION_CODENAME`.
    pub(super) version_code_name: &'a str,
    /// Architecture of the machine.
    pub(super) arch: &'a str,
    /// `CPE_NAME`.
    pub(super) cpe: &'a str,
    /// Repositories that packages came from.
    #[serde(borrow)]
    pub(super) repositories: Vec<StoredRepository<'a>>,
}

/// A repository, see [`Repository`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredRepository<'a> {
    pub(super) id: &'a str,
    pub(super) key: &'a str,
    pub(super) uri: &'a str,
    pub(super) cpe: &'a str,
}

impl<'a> Row<'a> for StoredPlatform<'a> {
    const VERSION: u8 = 1;
}

impl<'a> StoredPlatform<'a> {
    pub(super) fn of(report: &'a ReportView<'_>) -> Self {
        let Distribution {
            name,
            version,
            version_code_name,
            arch,
            cpe,
            ..
        } = &report.distribution;
        let repositories = report.repositories.iter();
        Self {
            name,
            version,
            version_code_name,
            arch,
            cpe,
            repositories: repositories
                .map(|repository| StoredRepository {
                    id: &repository.id,
                    key: &repository.key,
                    uri: &repository.uri,
                    cpe: &repository.cpe,
                })
                .collect(),
        }
    }

    /// Writes the row into `bytes`, in place of what is there.
    pub(super) fn write_to(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        codec::encode_to(self, bytes)
    }

    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }

    /// The distribution of a guest, of what its own row has of it.
    pub(super) fn complete(&self, distribution: Distribution) -> Distribution {
        Distribution {
            name: self.name.to_owned(),
            version: self.version.to_owned(),
            version_code_name: self.version_code_name.to_owned(),
            arch: self.arch.to_owned(),
            cpe: self.cpe.to_owned(),
            ..distribution
        }
    }

    pub(super) fn repositories(&self) -> Vec<Repository> {
        let all = self.repositories.iter();
        all.map(|repository| Repository {
            id: repository.id.to_owned(),
            key: repository.key.to_owned(),
            uri: repository.uri.to_owned(),
            cpe: repository.cpe.to_owned(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    #[test]
    fn a_row_and_the_row_of_its_guest_hold_the_distribution_and_repositories() {
        let text = |text: &str| text.to_owned();
        let report = Report {
            distribution: Distribution {
                id: text("rhel"),
                name: text("RHEL"),
                version: text("9.4 (Plow)"),
                version_code_name: text("Plow"),
                version_id: text("9.4"),
                arch: text("x86_64"),
                cpe: text("cpe:/o:r:e:9"),
                pretty_name: text("RHEL 9"),
            },
            repositories: vec![Repository {
                id: text("base"),
                key: text("k"),
                uri: text("u"),
                cpe: text("c"),
            }],
            ..Report::default()
        };
        let view = report.view();
        let mut bytes = vec![0; 3];
        StoredPlatform::of(&view).write_to(&mut bytes).unwrap();
        let row = StoredPlatform::read(&bytes).unwrap();
        let in_guest = Distribution {
            id: text("rhel"),
            version_id: text("9.4"),
            pretty_name: text("RHEL 9"),
            ..Distribution::default()
        };
        assert_eq!(row.complete(in_guest), report.distribution);
        assert_eq!(row.repositories(), report.repositories);
        // Version 1, as it is in files.
        let text = b"\x01\x04RHEL\x0a9.4 (Plow)\x04Plow\x06x86_64\x0ccpe:/o:r:e:9\x01\x04base\x01k\x01u\x01c";
        assert_eq!(bytes, text);
    }
}
