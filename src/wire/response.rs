//! An agent's answer, read in place.
//!
//! The messages are those of [`super::message`], and what is said twice is merged as protobuf
//! says. Strings stay where they arrived, and fields that nobody reads (environments, ids, kinds)
//! are stepped over: a sensor takes in ten thousand reports at a time, and copies of their strings
//! would be most of its work.

use super::convert::repo_in_hint;
use super::fields::{Fields, Value};
use super::message as wire;
use crate::report::{Distribution, Facts, PackageView, ReportView, Repository, SourcePackage};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Packages that a report may list: more than any machine has, few enough for twenty to lie.
const MOST_PACKAGES: usize = 100_000;

/// The same of repositories.
const MOST_REPOSITORIES: usize = 10_000;

/// The same of distributions, of which one is read.
const MOST_DISTRIBUTIONS: usize = 100;

/// Bytes of everything in an answer but the report: facts, methods, what an error says.
const MOST_BESIDE: usize = 256 << 10;

/// Why the bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no message.
    #[error("not a message of this protocol")]
    Malformed,
    /// They hold more of something than an agent has to say: each may be tiny, and would still take
    /// many times its length in memory.
    #[error("more packages, repositories or facts than any machine has")]
    TooMuch,
}
use DecodeError::{Malformed, TooMuch};

/// Why a peer's report is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// The agent says that its scan failed.
    #[error("the agent's scan failed: {0}")]
    Unsuccessful(String),
    /// There is no package in it: never true of an RPM-based machine that answers.
    #[error("the report lists no packages")]
    Empty,
    /// A package has no name.
    #[error("package {id} has no name")]
    Nameless {
        /// Its id in the report.
        id: String,
    },
}

/// What an agent answers.
#[derive(Debug, Default)]
pub struct Response<'a> {
    /// About the report.
    pub meta: wire::ResponseMeta,
    /// The answer itself; nothing when it is of a kind that is not known here.
    pub payload: Option<Payload<'a>>,
}

/// The answer itself.
#[derive(Debug)]
pub enum Payload<'a> {
    /// The peer's report is the newest, or here is another.
    Report(Answer<'a>),
    /// It cannot be given.
    Error(wire::Error),
}

/// A report, or word that there is no other.
#[derive(Debug, Default)]
pub struct Answer<'a> {
    /// The report that was named in the request is still the newest.
    pub unchanged: bool,
    /// The newest one.
    pub index: Option<Index<'a>>,
}

/// A report as a peer sent it, without the facts, which travel beside it.
#[derive(Debug, Default)]
pub struct Index<'a> {
    success: bool,
    err: &'a str,
    packages: Vec<Entry<'a>>,
    distributions: BTreeMap<&'a str, wire::Distribution>,
    repositories: BTreeMap<&'a str, wire::Repository>,
}

/// One package, under the key that it has in its map.
#[derive(Debug, Default)]
struct Entry<'a> {
    key: &'a str,
    name: &'a str,
    version: &'a str,
    source: Option<SourcePackage<'a>>,
    package_db: &'a str,
    repository_hint: &'a str,
    module: &'a str,
    arch: &'a str,
}

impl<'a> Response<'a> {
    /// Reads a whole message.
    ///
    /// # Errors
    /// When the bytes are no such message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut response = Self::default();
        let mut beside = MOST_BESIDE;
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => merge(&mut response.meta, value, &mut beside)?,
                2 => {
                    let mut answer = match response.payload.take() {
                        Some(Payload::Report(answer)) => answer,
                        _ => Answer::default(),
                    };
                    answer.merge(value.bytes()?)?;
                    response.payload = Some(Payload::Report(answer));
                }
                3 => {
                    let mut error = match response.payload.take() {
                        Some(Payload::Error(error)) => error,
                        _ => wire::Error::default(),
                    };
                    merge(&mut error, value, &mut beside)?;
                    response.payload = Some(Payload::Error(error));
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

/// What the beginning of an answer says about its report, if all of that is there: our agents send
/// it first, as protobuf's encoders do with fields of low numbers.
pub fn leading_meta(head: &[u8]) -> Option<wire::ResponseMeta> {
    let (number, value) = Fields(head).next()?.ok()?;
    let mut meta = wire::ResponseMeta::default();
    (number == 1 && merge(&mut meta, value, &mut MOST_BESIDE.clone()).is_ok()).then_some(meta)
}

/// Merges what is decoded into memory of its own, of which there is a bounded amount.
fn merge(
    message: &mut impl prost::Message,
    value: Value<'_>,
    room: &mut usize,
) -> Result<(), DecodeError> {
    let bytes = value.bytes()?;
    *room = room.checked_sub(bytes.len()).ok_or(TooMuch)?;
    message.merge(bytes).map_err(|_| Malformed)
}

impl<'a> Answer<'a> {
    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => self.index.get_or_insert_default().merge(value.bytes()?)?,
                2 => self.unchanged = value.flag()?,
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Index<'a> {
    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                3 => self.success = value.flag()?,
                4 => self.err = value.text()?,
                5 => self.contents(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn contents(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                5 => self.packages.push(Entry::read(value.bytes()?)?),
                6 => {
                    let (key, distribution) = map_entry(value.bytes()?)?;
                    self.distributions.insert(key, distribution);
                }
                7 => {
                    let (key, repository) = map_entry(value.bytes()?)?;
                    self.repositories.insert(key, repository);
                }
                _ => {}
            }
            let is_too_much = self.packages.len() > MOST_PACKAGES
                || self.repositories.len() > MOST_REPOSITORIES
                || self.distributions.len() > MOST_DISTRIBUTIONS;
            if is_too_much {
                return Err(TooMuch);
            }
        }
        Ok(())
    }

    /// The report, normalized; `facts` are those content facts that were sent beside it.
    ///
    /// # Errors
    /// When it says that it is none, or cannot be one.
    pub fn into_report(mut self, facts: Facts) -> Result<ReportView<'a>, ReportError> {
        if !self.success {
            return Err(ReportError::Unsuccessful(self.err.to_owned()));
        }
        self.keep_last_of_each();
        let mut databases = self.packages.iter().map(|package| package.package_db);
        let package_db = databases.find(|database| !database.is_empty());
        let mut report = ReportView {
            packages: Vec::with_capacity(self.packages.len()),
            distribution: self
                .distributions
                .into_values()
                .next()
                .map(distribution)
                .unwrap_or_default(),
            repositories: self
                .repositories
                .into_values()
                .map(repository)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect(),
            package_db: package_db.unwrap_or_default(),
            facts,
        };
        for entry in &self.packages {
            if entry.name.is_empty() {
                let id = entry.key.to_owned();
                return Err(ReportError::Nameless { id });
            }
            report.packages.push(entry.view());
        }
        if report.packages.is_empty() {
            return Err(ReportError::Empty);
        }
        report.normalize();
        Ok(report)
    }

    /// A key that comes twice in a map holds what it was given last; entries get the order of
    /// their keys.
    fn keep_last_of_each(&mut self) {
        if self.packages.is_sorted_by(|a, b| a.key < b.key) {
            return;
        }
        // The sort is stable: of equal keys the last comes first in the reversed list.
        self.packages.reverse();
        self.packages.sort_by(|a, b| a.key.cmp(b.key));
        self.packages.dedup_by(|a, b| a.key == b.key);
    }
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut entry = Self::default();
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                1 => entry.key = value.text()?,
                2 => entry.merge(value.bytes()?)?,
                _ => {}
            }
        }
        Ok(entry)
    }

    fn merge(&mut self, bytes: &'a [u8]) -> Result<(), DecodeError> {
        for field in Fields(bytes) {
            let (number, value) = field?;
            match number {
                2 => self.name = value.text()?,
                3 => self.version = value.text()?,
                7 => {
                    let source = self.source.get_or_insert_default();
                    for field in Fields(value.bytes()?) {
                        let (number, value) = field?;
                        match number {
                            2 => source.name = value.text()?,
                            3 => source.version = value.text()?,
                            _ => {}
                        }
                    }
                }
                8 => self.package_db = value.text()?,
                9 => self.repository_hint = value.text()?,
                10 => self.module = value.text()?,
                11 => self.arch = value.text()?,
                _ => {}
            }
        }
        Ok(())
    }

    fn view(&self) -> PackageView<'a> {
        // What is no `version-release` names no source rpm.
        let is_source =
            |s: &SourcePackage<'_>| !s.name.is_empty() && s.version.matches('-').count() == 1;
        PackageView {
            name: self.name,
            version: PackageView::version_of(self.version),
            arch: self.arch,
            source: self.source.filter(is_source),
            module: self.module,
            repo: repo_in_hint(self.repository_hint).unwrap_or(Cow::Borrowed("")),
        }
    }
}

fn map_entry<M: prost::Message + Default>(bytes: &[u8]) -> Result<(&str, M), DecodeError> {
    let (mut key, mut message) = ("", M::default());
    for field in Fields(bytes) {
        let (number, value) = field?;
        match number {
            1 => key = value.text()?,
            2 => message.merge(value.bytes()?).map_err(|_| Malformed)?,
            _ => {}
        }
    }
    Ok((key, message))
}

fn distribution(d: wire::Distribution) -> Distribution {
    Distribution {
        id: d.did,
        name: d.name,
        version: d.version,
        version_code_name: d.version_code_name,
        version_id: d.version_id,
        arch: d.arch,
        cpe: d.cpe,
        pretty_name: d.pretty_name,
    }
}

fn repository(r: wire::Repository) -> Repository {
    Repository {
        id: r.name,
        key: r.key,
        uri: r.uri,
        cpe: r.cpe,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Evr, Package, Report};
    use crate::wire::report_to_wire;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message as _;

    #[test]
    fn a_report_arrives_as_it_left() {
        let report = sample();
        let bytes = answer(report_to_wire(&report));
        let arrived = read(&bytes, report.facts.clone()).unwrap();
        assert_eq!(arrived.digest(), report.digest());
        assert_eq!(arrived.to_report().digest(), report.digest());
        let nodejs = arrived
            .packages
            .iter()
            .find(|p| p.name == "nodejs")
            .unwrap();
        assert_eq!(nodejs.repo, "base os/9");
        assert_eq!(nodejs.module, "nodejs:18");
    }

    #[test]
    fn a_report_without_packages_is_refused() {
        let mut index = report_to_wire(&sample());
        index.contents.as_mut().unwrap().packages.clear();
        let refused = read(&answer(index), Facts::new()).map(drop);
        assert_eq!(refused, Err(ReportError::Empty));
    }

    #[test]
    fn a_package_without_a_name_is_named_by_its_key() {
        let mut index = report_to_wire(&sample());
        let packages = &mut index.contents.as_mut().unwrap().packages;
        packages.get_mut("2").unwrap().name.clear();
        let refused = read(&answer(index), Facts::new()).map(drop);
        assert_eq!(refused, Err(ReportError::Nameless { id: "2".into() }));
    }

    #[test]
    fn a_failed_scan_says_why() {
        let mut index = report_to_wire(&sample());
        (index.success, index.err) = (false, "no rpmdb".into());
        let refused = read(&answer(index), Facts::new()).map(drop);
        assert_eq!(refused, Err(ReportError::Unsuccessful("no rpmdb".into())));
    }

    #[test]
    fn what_is_no_message_is_refused_wherever_it_breaks_off() {
        let whole = answer(report_to_wire(&sample()));
        for len in 1..whole.len() {
            // A message may end after any field, but not within one.
            let ours = Response::decode(&whole[..len]).is_ok();
            let theirs = wire::VmServiceResponse::decode(&whole[..len]).is_ok();
            assert_eq!(ours, theirs, "{len}");
        }
        assert!(Response::decode(&[0x0b]).is_err(), "a group");
        assert!(Response::decode(&[2, 0]).is_err(), "a field of number 0");
        assert!(Response::decode(&[0xff; 11]).is_err(), "an endless number");
    }

    /// The same bytes, read by `prost` and put together by the obvious code.
    fn by_prost(bytes: &[u8]) -> Option<Result<Vec<[String; 7]>, ReportError>> {
        let response = wire::VmServiceResponse::decode(bytes).ok()?;
        let Some(wire::response::Payload::GetReport(answer)) = response.payload else {
            return None;
        };
        let index = answer.index_report?;
        if !index.success {
            return Some(Err(ReportError::Unsuccessful(index.err)));
        }
        let packages = index.contents.unwrap_or_default().packages;
        if let Some((id, _)) = packages.iter().find(|(_, p)| p.name.is_empty()) {
            return Some(Err(ReportError::Nameless { id: id.clone() }));
        }
        if packages.is_empty() {
            return Some(Err(ReportError::Empty));
        }
        let mut rows: Vec<_> = packages
            .into_values()
            .map(|p| {
                let source = p.source.unwrap_or_default();
                let is_source = !source.name.is_empty() && source.version.matches('-').count() == 1;
                let (source, source_version) = match is_source {
                    true => (source.name, source.version),
                    false => Default::default(),
                };
                let version = Evr::parse(&p.version).to_string();
                let repo = repo_in_hint(&p.repository_hint)
                    .unwrap_or_default()
                    .into_owned();
                [
                    p.name,
                    version,
                    p.arch,
                    source,
                    source_version,
                    p.module,
                    repo,
                ]
            })
            .collect();
        rows.sort();
        Some(Ok(rows))
    }

    fn by_us(bytes: &[u8]) -> Option<Result<Vec<[String; 7]>, ReportError>> {
        let Some(Payload::Report(answer)) = Response::decode(bytes).unwrap().payload else {
            return None;
        };
        Some(answer.index?.into_report(Facts::new()).map(|report| {
            let mut rows: Vec<_> = report
                .packages
                .iter()
                .map(|p| {
                    let source = p.source.unwrap_or_default();
                    let texts = [
                        p.name,
                        &p.version,
                        p.arch,
                        source.name,
                        source.version,
                        p.module,
                        &p.repo,
                    ];
                    texts.map(str::to_owned)
                })
                .collect();
            rows.sort();
            rows
        }))
    }

    /// Sixteen megabytes of tiny things would become gigabytes before anybody looked at one.
    #[test]
    fn an_answer_of_more_than_any_machine_has_is_given_up_early() {
        let field = |number: u8, bytes: &[u8]| {
            let mut field = vec![number << 3 | 2];
            prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
            [field.as_slice(), bytes].concat()
        };
        // Entries with a key of their own each, and nothing else.
        let entries = |number: u8, count: u32| -> Vec<u8> {
            let entry = |n: u32| field(number, &field(1, &n.to_string().into_bytes()));
            (0..count).flat_map(entry).collect()
        };
        let contents = |entries: &[u8]| field(2, &field(1, &field(5, entries)));
        for (answer, is_too_much) in [
            (contents(&entries(5, 100_000)), false),
            (contents(&entries(5, 100_001)), true),
            (contents(&entries(6, 101)), true),
            (contents(&entries(7, 10_001)), true),
            (field(1, &entries(5, 10_000)), false),
            (field(1, &entries(5, 100_000)), true),
            (field(1, &entries(4, 5)).repeat(20_000), true),
            (field(3, &entries(3, 100_000)), true),
        ] {
            let refused = Response::decode(&answer).map(drop);
            let expected = if is_too_much { Err(TooMuch) } else { Ok(()) };
            assert_eq!(refused, expected, "{} bytes", answer.len());
        }
    }

    proptest! {
        /// Otherwise the guest would be pulled again and again: its agent knows the report by one
        /// digest, the sensor by another.
        #[test]
        fn agent_and_sensor_have_the_same_digest_of_the_oddest_report(
            packages in vec(odd_package(), 1..6),
            repositories in vec("[ab]", 0..4),
        ) {
            let mut report = Report {
                packages,
                repositories: repositories
                    .into_iter()
                    .map(|id| Repository { id, ..Repository::default() })
                    .collect(),
                ..sample()
            };
            report.normalize();
            let bytes = answer(report_to_wire(&report));
            let arrived = read(&bytes, report.facts.clone()).unwrap();
            prop_assert_eq!(arrived.digest(), report.digest());
            prop_assert_eq!(&arrived, &{
                let mut view = report.view();
                view.normalize();
                view
            });
        }

        /// Messages in pieces, fields and keys that come twice, answers of two kinds.
        #[test]
        fn every_message_is_read_as_prost_reads_it(pieces in vec(piece(), 0..5)) {
            let bytes = pieces.concat();
            prop_assert_eq!(by_us(&bytes), by_prost(&bytes));
            let theirs = wire::VmServiceResponse::decode(bytes.as_slice()).unwrap();
            let ours = Response::decode(&bytes).unwrap();
            prop_assert_eq!(ours.meta, theirs.meta.unwrap_or_default());
            match (ours.payload, theirs.payload) {
                (Some(Payload::Error(ours)), Some(wire::response::Payload::Error(theirs))) => {
                    prop_assert_eq!(ours, theirs);
                }
                (Some(Payload::Report(ours)), Some(wire::response::Payload::GetReport(theirs))) => {
                    prop_assert_eq!(ours.unchanged, theirs.unchanged);
                }
                (ours, theirs) => prop_assert!(ours.is_none() && theirs.is_none()),
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            if let Ok(Response { payload: Some(Payload::Report(answer)), .. }) = Response::decode(&bytes) {
                let _ = answer.index.map(|index| index.into_report(Facts::new()).map(drop));
            }
        }
    }

    /// Headers hold what somebody wrote into them, not only what rpm allows.
    fn odd_package() -> impl Strategy<Value = Package> {
        let evr = (0u32..3, "[0:a+.-]{0,4}", "[0:a-]{0,3}");
        let source = "[a-]{0,3}-[1:-]{0,2}-[1:]{0,2}[.](nosrc|src)[.]rpm|[a.-]{0,5}";
        let module = "[m:]{0,5}";
        let some = proptest::option::of;
        let rest = (
            some("[xé]?"),
            some(source),
            some(module),
            some("[r&=%+ é]{0,4}"),
        );
        ("[ab\u{0}é]", evr, rest).prop_map(|(name, (epoch, version, release), rest)| {
            let (arch, source_rpm, modularity_label, repo) = rest;
            Package {
                name,
                evr: Evr {
                    epoch,
                    version,
                    release,
                },
                arch,
                source_rpm,
                modularity_label,
                repo,
            }
        })
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let package = (
            ("[ab]?", "[01]:?[1-]{0,3}", "[x]?"),
            ("[st]?", "[12-]{0,3}", "(repoid=[r%4+]{0,3})?"),
        );
        let package = package.prop_map(|((name, version, arch), (source, of, repository_hint))| {
            wire::Package {
                name,
                version,
                arch,
                source: (!of.is_empty()).then(|| {
                    Box::new(wire::Package {
                        name: source,
                        version: of,
                        ..wire::Package::default()
                    })
                }),
                repository_hint,
                ..wire::Package::default()
            }
        });
        let report = (vec(("[1-4]", package), 0..4), any::<bool>(), any::<bool>());
        prop_oneof![
            4 => report.prop_map(|(packages, success, unchanged)| {
                let contents = wire::Contents {
                    packages: packages.into_iter().collect(),
                    ..wire::Contents::default()
                };
                wire::response::Payload::GetReport(wire::GetReportResponse {
                    index_report: Some(wire::IndexReport {
                        success,
                        contents: Some(contents),
                        ..wire::IndexReport::default()
                    }),
                    unchanged,
                })
            }),
            1 => "[a-z]{0,3}".prop_map(|message| wire::response::Payload::Error(wire::Error {
                code: 2,
                message,
                ..wire::Error::default()
            })),
        ]
        .prop_map(|payload| {
            let response = wire::VmServiceResponse {
                meta: Some(wire::ResponseMeta {
                    epoch: 7,
                    ..wire::ResponseMeta::default()
                }),
                payload: Some(payload),
            };
            response.encode_to_vec()
        })
    }

    fn read(bytes: &[u8], facts: Facts) -> Result<ReportView<'_>, ReportError> {
        match Response::decode(bytes).unwrap().payload {
            Some(Payload::Report(Answer {
                index: Some(index), ..
            })) => index.into_report(facts),
            other => panic!("{other:?}"),
        }
    }

    fn answer(index: wire::IndexReport) -> Vec<u8> {
        wire::VmServiceResponse {
            meta: None,
            payload: Some(wire::response::Payload::GetReport(
                wire::GetReportResponse {
                    index_report: Some(index),
                    unchanged: false,
                },
            )),
        }
        .encode_to_vec()
    }

    fn sample() -> Report {
        let mut report = Report {
            packages: vec![
                Package {
                    name: "nodejs".into(),
                    evr: Evr::parse("1:18.20.4-1.el9"),
                    arch: Some("x86_64".into()),
                    source_rpm: Some("nodejs-18.20.4-1.el9.src.rpm".into()),
                    modularity_label: Some("nodejs:18".into()),
                    repo: Some("base os/9".into()),
                },
                Package {
                    name: "bash".into(),
                    evr: Evr::parse("5.1.8-6.el9"),
                    ..Package::default()
                },
            ],
            distribution: Distribution {
                id: "rhel".into(),
                version_id: "9.4".into(),
                ..Distribution::default()
            },
            repositories: vec![Repository {
                id: "base os/9".into(),
                ..Repository::default()
            }],
            package_db: "sqlite:var/lib/rpm".into(),
            facts: Facts::from([("detected_os".into(), "RHEL".into())]),
        };
        report.normalize();
        report
    }
}
