//! What the reader of answers must keep, against `prost` as the judge.

use super::*;
use crate::report::{Distribution, Evr, Origin, Package, Report, Repository};
use crate::wire::{MAPPED_KEY, hint_of, report_to_wire};
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
fn of_answers_of_several_kinds_the_last_counts() {
    let (report, error, synced) = (&[0x12, 0][..], &[0x1a, 0][..], &[0x22, 2, 8, 1][..]);
    let kind = |parts: [&[u8]; 2]| match Response::decode(&parts.concat()).unwrap().payload {
        Some(Payload::Report(_)) => "report",
        Some(Payload::Error(_)) => "error",
        Some(Payload::Synced { updated: true }) => "synced",
        Some(Payload::Synced { updated: false }) | None => "something else",
    };
    assert_eq!(kind([report, synced]), "synced");
    assert_eq!(kind([error, synced]), "synced");
    assert_eq!(kind([synced, report]), "report");
    assert_eq!(kind([synced, error]), "error");
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
                    &p.name,
                    &p.version as &str,
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
        repositories in vec(("[ab]", any::<bool>()), 0..4),
    ) {
        let mut report = Report {
            packages,
            repositories: repositories
                .into_iter()
                .map(|(id, is_mapped)| match is_mapped {
                    false => Repository { id, ..Repository::default() },
                    true => Repository {
                        key: MAPPED_KEY.into(),
                        uri: hint_of(&id),
                        cpe: "cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*".into(),
                        id,
                    },
                })
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
        let meta = theirs.meta.unwrap_or_default();
        prop_assert_eq!((ours.meta.epoch, ours.meta.facts), (meta.epoch, meta.facts));
        match (ours.payload, theirs.payload) {
            (Some(Payload::Error(ours)), Some(wire::response::Payload::Error(theirs))) => {
                prop_assert_eq!(ours, theirs);
            }
            (Some(Payload::Report(ours)), Some(wire::response::Payload::GetReport(theirs))) => {
                prop_assert_eq!(ours.unchanged, theirs.unchanged);
            }
            (
                Some(Payload::Synced { updated }),
                Some(wire::response::Payload::SyncRepoCpeMapping(theirs)),
            ) => prop_assert_eq!(updated, theirs.updated),
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
    // A header without a release is sent with one.
    let evr = (0u32..3, "[0:a+.-]{0,4}", "[0:a-]{0,2}a");
    let source = "[a-]{0,3}-[1:-]{0,2}-[1:]{0,2}[.](nosrc|src)[.]rpm|[a.-]{0,5}";
    let module = "[m:]{0,5}";
    let some = proptest::option::of;
    let rest = (
        some("[xé]?"),
        some(source),
        some(module),
        some("[@r&=%+ é]{0,4}"),
        some("[vé]?"),
        some("[l]?"),
    );
    let name = vec(
        prop_oneof![Just(b'a'), Just(b'\\'), Just(0), Just(0xe9), Just(b'x')],
        1..4,
    );
    (name, evr, rest).prop_map(|(name, (epoch, version, release), rest)| {
        let (arch, source_rpm, modularity_label, repo, vendor, license) = rest;
        Package {
            name: escape(&name).into_owned(),
            evr: Evr {
                epoch,
                version,
                release,
            },
            arch,
            source_rpm,
            modularity_label,
            vendor,
            license,
            origin: repo.map_or(Origin::Unrecorded, |id| Origin::recorded(&id)),
        }
    })
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    let package = (
        ("[ab]?", "[01]:?[1-]{0,3}", "[x]?"),
        ("[st]?", "[12-]{0,3}", "(repoid=[r%4+]{0,3})?"),
    );
    let package =
        package.prop_map(
            |((name, version, arch), (source, of, repository_hint))| wire::Package {
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
            },
        );
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
        1 => any::<bool>().prop_map(|updated| {
            let answer = wire::SyncRepoCpeMappingResponse { updated };
            wire::response::Payload::SyncRepoCpeMapping(answer)
        }),
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
                vendor: Some("Red Hat, Inc.".into()),
                license: Some("MIT".into()),
                origin: Origin::Repository("base os/9".into()),
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
