//! A report as JSON: what Central is sent, what a file sink holds, and what commands print.
//!
//! One place for the shape: a field is added here or nowhere. Everything borrows, so that a report
//! is written out without a copy of it in memory. Absent values are `""`, an absent source package
//! is `null`: a reader in any language finds every key.

use super::change_document::ChangesDocument;
use crate::clock::WallTime;
use crate::report::{
    Digest, Distribution, Envelope, Facts, Package, PackageView, Report, ReportKey, ReportView,
    Repository, SourcePackage, Trigger,
};
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};
use std::fmt::Display;

/// One delivery: a report, or facts that changed after it.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// `facts` for facts alone; a report has no type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Who it is about.
    pub vm: VmDocument<'a>,
    /// Which report it is.
    pub meta: MetaDocument<'a>,
    /// What changed since the sink accepted a report, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<&'a ChangesDocument>,
    /// What is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<ReportDocument<'a>>,
}

/// One delivery of a report that the sink has already, for a sink that keeps every line.
#[derive(Debug, Serialize)]
pub struct UnchangedDocument<'a> {
    /// Idempotency key of the report.
    pub key: &'a str,
    /// `true`.
    pub unchanged: bool,
    /// Who it is about.
    pub vm: VmDocument<'a>,
    /// Which report it is.
    pub meta: MetaDocument<'a>,
}

/// A guest as the sensor knows it.
#[derive(Debug, Serialize)]
pub struct VmDocument<'a> {
    /// Its name in the roster.
    pub id: &'a str,
    /// Where it was reached.
    pub address: &'a str,
}

/// Everything about a report but its content.
#[derive(Debug, Serialize)]
pub struct MetaDocument<'a> {
    /// Id of the sensor, where one is between the agent and the reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<&'a str>,
    /// When the sensor saw it: RFC 3339, UTC, milliseconds. Of two documents about a guest the one
    /// with the higher `seen_at` counts.
    #[serde(
        serialize_with = "shown_if_there",
        skip_serializing_if = "Option::is_none"
    )]
    pub seen_at: Option<WallTime>,
    /// Version of the agent.
    pub agent_version: &'a str,
    /// 0 for foreign agents that have none.
    pub epoch: u32,
    /// From 1.
    pub generation: u32,
    /// `sha256:` and 64 hex digits.
    #[serde(serialize_with = "shown")]
    pub digest: Digest,
    /// `reactive`, `scheduled` or `unknown`.
    pub trigger: &'a str,
    /// RFC 3339, UTC, milliseconds.
    #[serde(serialize_with = "shown")]
    pub generated_at: WallTime,
    /// As the agent sent them.
    pub facts: &'a Facts,
}

/// The content of a report.
#[derive(Debug, Serialize)]
pub struct ReportDocument<'a> {
    /// Installed packages, sorted.
    pub packages: Packages<'a>,
    /// From os-release.
    pub distribution: DistributionDocument<'a>,
    /// Where packages came from.
    #[serde(serialize_with = "repositories")]
    pub repositories: &'a [Repository],
}

/// The distribution, field by field as os-release(5) names them.
#[derive(Debug, Serialize)]
#[allow(missing_docs, reason = "see `Distribution`")]
pub struct DistributionDocument<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    pub version_code_name: &'a str,
    pub version_id: &'a str,
    pub arch: &'a str,
    pub cpe: &'a str,
    pub pretty_name: &'a str,
}

/// Installed packages, wherever they are.
#[derive(Debug)]
pub enum Packages<'a> {
    /// Our own.
    Owned(&'a [Package]),
    /// On their way.
    Viewed(&'a [PackageView<'a>]),
}

#[derive(Serialize)]
struct PackageDocument<'a> {
    name: &'a str,
    version: &'a str,
    arch: &'a str,
    source: Option<SourceDocument<'a>>,
    module: &'a str,
    repo: &'a str,
}

#[derive(Serialize)]
struct SourceDocument<'a> {
    name: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct RepositoryDocument<'a> {
    id: &'a str,
    key: &'a str,
    uri: &'a str,
    cpe: &'a str,
}

impl<'a> Document<'a> {
    /// The document of this sensor.
    pub fn new(envelope: &'a Envelope<'a>, sensor: &'a str) -> Self {
        Self {
            kind: envelope.report.is_none().then_some("facts"),
            vm: envelope.into(),
            meta: MetaDocument::of(envelope, sensor),
            changes: None,
            report: envelope.report.as_ref().map(Into::into),
        }
    }

    /// The same with what changed.
    pub fn with_changes(self, changes: Option<&'a ChangesDocument>) -> Self {
        Self { changes, ..self }
    }
}

impl<'a> UnchangedDocument<'a> {
    /// The document of this sensor; `key` is the idempotency key.
    pub fn new(envelope: &'a Envelope<'a>, sensor: &'a str, key: &'a str) -> Self {
        Self {
            key,
            unchanged: true,
            vm: envelope.into(),
            meta: MetaDocument::of(envelope, sensor),
        }
    }
}

impl<'a> From<&'a Envelope<'a>> for VmDocument<'a> {
    fn from(envelope: &'a Envelope<'a>) -> Self {
        Self {
            id: envelope.vm.as_str(),
            address: &envelope.address,
        }
    }
}

impl<'a> MetaDocument<'a> {
    fn of(envelope: &'a Envelope<'a>, sensor: &'a str) -> Self {
        Self {
            sensor: Some(sensor),
            seen_at: Some(envelope.seen_at),
            ..Self::new(
                &envelope.agent_version,
                envelope.key,
                envelope.digest,
                envelope.trigger,
                envelope.generated_at,
                &envelope.facts,
            )
        }
    }

    /// From the parts, for whoever has a report but no [`Envelope`].
    pub fn new(
        agent_version: &'a str,
        key: ReportKey,
        digest: Digest,
        trigger: Trigger,
        generated_at: WallTime,
        facts: &'a Facts,
    ) -> Self {
        Self {
            sensor: None,
            seen_at: None,
            agent_version,
            epoch: key.epoch_or_zero(),
            generation: key.generation.get(),
            digest,
            trigger: trigger.as_str(),
            generated_at,
            facts,
        }
    }
}

impl<'a> From<&'a Report> for ReportDocument<'a> {
    fn from(report: &'a Report) -> Self {
        Self {
            packages: Packages::Owned(&report.packages),
            distribution: (&report.distribution).into(),
            repositories: &report.repositories,
        }
    }
}

impl<'a> From<&'a ReportView<'a>> for ReportDocument<'a> {
    fn from(report: &'a ReportView<'a>) -> Self {
        Self {
            packages: Packages::Viewed(&report.packages),
            distribution: (&report.distribution).into(),
            repositories: &report.repositories,
        }
    }
}

impl<'a> From<&'a Distribution> for DistributionDocument<'a> {
    fn from(d: &'a Distribution) -> Self {
        Self {
            id: &d.id,
            name: &d.name,
            version: &d.version,
            version_code_name: &d.version_code_name,
            version_id: &d.version_id,
            arch: &d.arch,
            cpe: &d.cpe,
            pretty_name: &d.pretty_name,
        }
    }
}

impl<'a> From<&'a PackageView<'a>> for PackageDocument<'a> {
    fn from(package: &'a PackageView<'a>) -> Self {
        Self {
            name: &package.name,
            version: &package.version,
            arch: package.arch,
            source: package
                .source
                .map(|SourcePackage { name, version }| SourceDocument { name, version }),
            module: package.module,
            repo: package.repository(),
        }
    }
}

impl Serialize for Packages<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let len = match self {
            Self::Owned(packages) => packages.len(),
            Self::Viewed(packages) => packages.len(),
        };
        let mut list = to.serialize_seq(Some(len))?;
        match self {
            Self::Owned(packages) => packages.iter().try_for_each(|package| {
                list.serialize_element(&PackageDocument::from(&PackageView::of(package)))
            }),
            Self::Viewed(packages) => packages
                .iter()
                .try_for_each(|package| list.serialize_element(&PackageDocument::from(package))),
        }?;
        list.end()
    }
}

fn repositories<S: Serializer>(repositories: &[Repository], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(repositories.iter().map(|r| RepositoryDocument {
        id: &r.id,
        key: &r.key,
        uri: &r.uri,
        cpe: &r.cpe,
    }))
}

fn shown_if_there<S: Serializer>(value: &Option<WallTime>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => to.collect_str(value),
        None => to.serialize_none(),
    }
}

pub(super) fn shown<S: Serializer>(value: &impl Display, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Epoch, Evr, Generation, Origin};

    /// Central and everybody's scripts read this: a change of it is a change of a contract.
    #[test]
    fn the_form_that_central_reads_never_changes() {
        let report = Report {
            packages: vec![
                Package {
                    name: "bash".into(),
                    evr: Evr::parse("5.1.8-6.el9"),
                    arch: Some("x86_64".into()),
                    source_rpm: Some("bash-5.1.8-6.el9.src.rpm".into()),
                    origin: Origin::Repository("baseos".into()),
                    ..Package::default()
                },
                Package {
                    name: "nodejs".into(),
                    evr: Evr::parse("1:18.20.4-1.el9"),
                    modularity_label: Some("nodejs:18:90400:rhel9".into()),
                    ..Package::default()
                },
            ],
            distribution: Distribution {
                id: "rhel".into(),
                version_id: "9.4".into(),
                ..Distribution::default()
            },
            repositories: vec![Repository {
                id: "baseos".into(),
                ..Repository::default()
            }],
            ..Report::default()
        };
        let envelope = Envelope {
            vm: "web-1".parse().unwrap(),
            address: "vsock:3:818".into(),
            guest_id: None,
            key: ReportKey {
                epoch: Epoch::new(77),
                generation: Generation::new(12).unwrap(),
            },
            digest: report.digest(),
            seen_at: "2026-11-21T10:00:00.240Z".parse().unwrap(),
            trigger: Trigger::Reactive,
            generated_at: "2026-11-21T10:00:00.123Z".parse().unwrap(),
            agent_version: "0.1.0".into(),
            facts: Facts::from([("detected_os".into(), "RHEL".into())]),
            report: Some(report.view()),
        };
        let expected = format!(
            concat!(
                r#"{{"vm":{{"id":"web-1","address":"vsock:3:818"}},"#,
                r#""meta":{{"sensor":"host-7","seen_at":"2026-11-21T10:00:00.240Z","agent_version":"0.1.0","epoch":77,"generation":12,"digest":"{}","#,
                r#""trigger":"reactive","generated_at":"2026-11-21T10:00:00.123Z","facts":{{"detected_os":"RHEL"}}}},"#,
                r#""report":{{"packages":["#,
                r#"{{"name":"bash","version":"5.1.8-6.el9","arch":"x86_64","source":{{"name":"bash","version":"5.1.8-6.el9"}},"module":"","repo":"baseos"}},"#,
                r#"{{"name":"nodejs","version":"1:18.20.4-1.el9","arch":"","source":null,"module":"nodejs:18","repo":""}}],"#,
                r#""distribution":{{"id":"rhel","name":"","version":"","version_code_name":"","version_id":"9.4","arch":"","cpe":"","pretty_name":""}},"#,
                r#""repositories":[{{"id":"baseos","key":"","uri":"","cpe":""}}]}}}}"#
            ),
            envelope.digest
        );
        assert_eq!(
            serde_json::to_string(&Document::new(&envelope, "host-7")).unwrap(),
            expected
        );
    }
}
