//! A document as a reader of the stream takes it: the JSON of [`super::document`], back in the form in which reports
//! travel.
//!
//! Vendors, licences and local origins are not in a document: packages that it names have none. Properties that are
//! not known are passed over, as docs/consumers.md asks of every reader.

use crate::clock::WallTime;
use crate::report::{
    Digest, Distribution, Envelope, Epoch, Facts, Generation, GuestId, PackageView, ReportKey,
    ReportView, Repository, SourcePackage, Trigger, VmId, facts,
};
use serde::Deserialize;
use std::borrow::Cow;

/// Any document; its texts stay where they are, as far as they are written without escapes.
#[derive(Debug, Deserialize)]
pub struct ReadDocument<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    unchanged: bool,
    #[serde(borrow)]
    vm: ReadVm<'a>,
    meta: ReadMeta,
    #[serde(borrow, default)]
    report: Option<ReadReport<'a>>,
}

#[derive(Debug, Deserialize)]
struct ReadVm<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    address: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct ReadMeta {
    seen_at: String,
    #[serde(default)]
    agent_version: String,
    epoch: u32,
    generation: u32,
    digest: String,
    #[serde(default)]
    trigger: String,
    generated_at: String,
    #[serde(default)]
    facts: Facts,
}

#[derive(Debug, Deserialize)]
struct ReadReport<'a> {
    #[serde(borrow)]
    packages: Vec<ReadPackage<'a>>,
    #[serde(default)]
    distribution: ReadDistribution,
    #[serde(default)]
    repositories: Vec<ReadRepository>,
}

#[derive(Debug, Deserialize)]
struct ReadPackage<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
    #[serde(borrow, default)]
    arch: Cow<'a, str>,
    #[serde(borrow, default)]
    source: Option<ReadSource<'a>>,
    #[serde(borrow, default)]
    module: Cow<'a, str>,
    #[serde(borrow, default)]
    repo: Cow<'a, str>,
}

#[derive(Debug, Deserialize)]
struct ReadSource<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    version: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReadDistribution {
    id: String,
    name: String,
    version: String,
    version_code_name: String,
    version_id: String,
    arch: String,
    cpe: String,
    pretty_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ReadRepository {
    id: String,
    key: String,
    uri: String,
    cpe: String,
}

/// What a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadKind {
    /// Everything that is installed.
    Report,
    /// Facts of the report that `meta.digest` names, or word that it is unchanged.
    Facts,
    /// Something of a later version: it is passed over.
    Other,
}

impl<'a> ReadDocument<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// It is none, in words.
    pub fn parse(json: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }

    /// What it is.
    pub fn kind(&self) -> ReadKind {
        match self.kind.as_deref() {
            None if self.unchanged => ReadKind::Facts,
            None => ReadKind::Report,
            Some("facts") => ReadKind::Facts,
            Some(_) => ReadKind::Other,
        }
    }

    /// The document in the form in which it travels.
    ///
    /// # Errors
    /// A value is none that a sensor sends, in words.
    pub fn envelope(&self) -> Result<Envelope<'_>, String> {
        let meta = &self.meta;
        let of = |name: &str, error: &dyn std::fmt::Display| format!("{name}: {error}");
        let time = |name: &str, text: &str| -> Result<WallTime, String> {
            text.parse().map_err(|error: String| of(name, &error))
        };
        let vm: VmId = self.vm.id.parse().map_err(|error| of("vm.id", &error))?;
        let generation = Generation::new(meta.generation);
        let report = match (self.kind(), &self.report) {
            (ReadKind::Report, Some(report)) => Some(report.view()),
            (ReadKind::Report, None) => return Err("report: is missing".into()),
            _ => None,
        };
        let guest_id = meta.facts.get(facts::GUEST_ID);
        Ok(Envelope {
            vm,
            address: self.vm.address.clone().into_owned(),
            guest_id: guest_id.and_then(|id| id.parse::<GuestId>().ok()),
            key: ReportKey {
                epoch: Epoch::new(meta.epoch),
                generation: generation.ok_or("meta.generation: is 0")?,
            },
            digest: meta
                .digest
                .parse::<Digest>()
                .map_err(|error| of("meta.digest", &error))?,
            seen_at: time("meta.seen_at", &meta.seen_at)?,
            trigger: Trigger::from_fact(Some(&meta.trigger)),
            generated_at: time("meta.generated_at", &meta.generated_at)?,
            agent_version: meta.agent_version.clone(),
            facts: meta.facts.clone(),
            report,
        })
    }
}

impl ReadReport<'_> {
    fn view(&self) -> ReportView<'_> {
        let distribution = &self.distribution;
        let packages = self.packages.iter();
        let repositories = self.repositories.iter();
        ReportView {
            packages: packages.map(ReadPackage::view).collect(),
            distribution: Distribution {
                id: distribution.id.clone(),
                name: distribution.name.clone(),
                version: distribution.version.clone(),
                version_code_name: distribution.version_code_name.clone(),
                version_id: distribution.version_id.clone(),
                arch: distribution.arch.clone(),
                cpe: distribution.cpe.clone(),
                pretty_name: distribution.pretty_name.clone(),
            },
            repositories: repositories
                .map(|repository| Repository {
                    id: repository.id.clone(),
                    key: repository.key.clone(),
                    uri: repository.uri.clone(),
                    cpe: repository.cpe.clone(),
                })
                .collect(),
            package_db: "",
            facts: Facts::default(),
        }
    }
}

impl ReadPackage<'_> {
    fn view(&self) -> PackageView<'_> {
        PackageView {
            name: Cow::Borrowed(&self.name),
            version: PackageView::version_of(&self.version),
            arch: &self.arch,
            source: self.source.as_ref().map(|source| SourcePackage {
                name: &source.name,
                version: &source.version,
            }),
            module: &self.module,
            vendor: "",
            license: "",
            is_recorded: !self.repo.is_empty(),
            repo: Cow::Borrowed(&self.repo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Evr, Origin, Package, Report};
    use crate::wire::document::{Document, UnchangedDocument};

    fn report() -> Report {
        let mut report = Report {
            packages: vec![Package {
                name: "a\"b".into(),
                evr: Evr::parse("1:5.1.8-6.el9"),
                arch: Some("x86_64".into()),
                source_rpm: Some("bash-5.1.8-6.el9.src.rpm".into()),
                modularity_label: Some("m:1".into()),
                origin: Origin::Repository("baseos".into()),
                ..Package::default()
            }],
            repositories: vec![Repository {
                id: "baseos".into(),
                key: "k".into(),
                uri: "u".into(),
                cpe: "c".into(),
            }],
            ..Report::default()
        };
        report.distribution = Distribution {
            id: "rhel".into(),
            name: "RHEL".into(),
            version: "9.4 (Plow)".into(),
            version_code_name: "Plow".into(),
            version_id: "9.4".into(),
            arch: "x86_64".into(),
            cpe: "cpe:/o:r".into(),
            pretty_name: "RHEL 9".into(),
        };
        report
    }

    fn envelope(report: &Report) -> Envelope<'_> {
        let guest = GuestId::of_machine("m");
        Envelope {
            vm: "web-1".parse().unwrap(),
            address: "vsock:3:818".into(),
            key: ReportKey {
                epoch: None,
                generation: Generation::new(12).unwrap(),
            },
            digest: report.digest(),
            seen_at: "2026-11-21T10:00:00.240Z".parse().unwrap(),
            trigger: Trigger::Reactive,
            generated_at: "2026-11-21T10:00:00.123Z".parse().unwrap(),
            agent_version: "0.2.0".into(),
            facts: Facts::from([(facts::GUEST_ID.into(), guest.to_string())]),
            guest_id: Some(guest),
            report: Some(report.view()),
        }
    }

    #[test]
    fn a_report_comes_back_as_it_was_sent() {
        let report = report();
        let sent = envelope(&report);
        let json = serde_json::to_vec(&Document::new(&sent, "host-7")).unwrap();
        let read = ReadDocument::parse(&json).unwrap();
        assert_eq!(read.kind(), ReadKind::Report);
        assert_eq!(read.envelope().unwrap(), sent);
    }

    #[test]
    fn facts_and_short_lines_bring_no_report() {
        let report = report();
        let mut sent = envelope(&report);
        sent.report = None;
        for json in [
            serde_json::to_vec(&Document::new(&sent, "h")).unwrap(),
            serde_json::to_vec(&UnchangedDocument::new(&sent, "h", "k")).unwrap(),
        ] {
            let read = ReadDocument::parse(&json).unwrap();
            assert_eq!(read.kind(), ReadKind::Facts);
            assert_eq!(read.envelope().unwrap(), sent);
        }
    }

    #[test]
    fn what_no_sensor_sends_is_refused_with_its_name() {
        let report = report();
        let sent = serde_json::to_value(Document::new(&envelope(&report), "h")).unwrap();
        for (path, value, said) in [
            ("/vm/id", serde_json::json!("a b"), "vm.id"),
            ("/meta/seen_at", serde_json::json!("noon"), "meta.seen_at"),
            ("/meta/digest", serde_json::json!("md5:0"), "meta.digest"),
            ("/meta/generation", serde_json::json!(0), "meta.generation"),
            ("/report", serde_json::Value::Null, "report: is missing"),
        ] {
            let mut bad = sent.clone();
            *bad.pointer_mut(path).unwrap() = value;
            let json = serde_json::to_vec(&bad).unwrap();
            let error = ReadDocument::parse(&json).unwrap().envelope().unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        let mut later = sent;
        later["type"] = "change".into();
        let json = serde_json::to_vec(&later).unwrap();
        assert_eq!(ReadDocument::parse(&json).unwrap().kind(), ReadKind::Other);
        for json in [&b"{}"[..], b"[]", b"\xff", b""] {
            assert!(ReadDocument::parse(json).is_err());
        }
    }
}
