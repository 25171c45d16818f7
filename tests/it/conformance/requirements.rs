//! What StackRox needs of each field, one requirement after the other; the table is in `mod.rs`.

use super::guests::{self, Item, MAPPING, answer, contents, hints, item, read};
use super::oracle::{WILDCARD, check, repositories_of};
use super::{SYSTEMS, odd_headers};
use crate::support::rpm_root::RpmRoot;
use afferent::wire::frame;
use afferent::wire::message::{
    Contents, Error, ErrorCode, GetReportResponse, Repository, ResponseMeta, VmServiceResponse,
    response,
};
use afferent::wire::request::{Method, Request};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::Command;

// The loss, here and below: reports that are refused, findings that are missing, or false ones.
#[test]
fn every_package_and_every_source_has_the_cpe_of_everything() {
    let root = guests::with_headers(&odd_headers());
    let packages = contents(root.path(), None).packages;
    assert_eq!(packages.len(), 10);
    for package in packages.values() {
        assert_eq!(package.cpe, WILDCARD);
        assert_eq!(package.source.as_ref().unwrap().cpe, WILDCARD);
    }
}

#[test]
fn every_environment_names_a_layer() {
    let root = guests::with(&["a", "b"]);
    let layer = format!("sha256:{}", "a".repeat(64));
    for list in contents(root.path(), None).environments.values() {
        assert_eq!(list.environments[0].introduced_in, layer);
    }
}

#[test]
fn a_package_without_source_or_release_has_an_empty_source_and_release_0() {
    let root = guests::with_headers(&odd_headers());
    let contents = contents(root.path(), None);
    let package = |name: &str| {
        let mut packages = contents.packages.values();
        packages.find(|package| package.name == name).unwrap()
    };
    for name in ["no-source", "odd-source"] {
        let source = package(name).source.as_ref().unwrap();
        assert_eq!((source.name.as_str(), source.version.as_str()), ("", ""));
    }
    assert_eq!(package("no-release").version, "1-0");
    assert_eq!(package("epoch").version, "7:2~rc-1");
    assert_eq!(package("plain").source.as_ref().unwrap().version, "1-1");
}

#[test]
fn a_cpe_name_that_does_not_bind_is_that_of_everything() {
    let root = guests::with(&["a"]);
    for (name, sent, verbatim) in [
        (
            "cpe:/o:some thing:x:1",
            WILDCARD,
            Some("cpe:/o:some thing:x:1"),
        ),
        ("nonsense", WILDCARD, Some("nonsense")),
        ("", WILDCARD, Some("")),
        (
            "cpe:/o:redhat:enterprise_linux:9::baseos",
            "cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*",
            Some("cpe:/o:redhat:enterprise_linux:9::baseos"),
        ),
        (
            "cpe:2.3:o:amazon:amazon_linux:2023",
            "cpe:2.3:o:amazon:amazon_linux:2023:*:*:*:*:*:*:*",
            Some("cpe:2.3:o:amazon:amazon_linux:2023"),
        ),
        (WILDCARD, WILDCARD, None),
    ] {
        guests::os_release(root.path(), &format!("ID=rhel\nCPE_NAME=\"{name}\"\n"));
        let contents = contents(root.path(), None);
        let distribution = &contents.distributions["1"];
        assert_eq!(distribution.cpe, sent);
        assert_eq!(distribution.cpe_verbatim.as_deref(), verbatim, "{name}");
    }
}

#[test]
fn a_cpe_of_the_mapping_that_does_not_bind_costs_only_itself() {
    let half = ["cpe:2.3:o:redhat:enterprise_linux:9:*:half:*:*:*:*:*".to_owned()];
    let root = guests::with(&["a"]);
    guests::dnf4(root.path(), &[item("a", "half", 1, 1)]);
    assert_eq!(cpes(&contents(root.path(), Some(MAPPING))), half.into());
    for repository in ["invalid", "wild", "empty"] {
        guests::dnf4(root.path(), &[item("a", repository, 1, 1)]);
        let contents = contents(root.path(), Some(MAPPING));
        assert!(contents.repositories.is_empty(), "{repository}");
        assert_eq!(contents.unmapped["1"].name, repository);
    }
}

#[test]
fn repositories_are_mapped_ones_and_nothing_else() {
    let root = guest_of_all_kinds();
    let contents = contents(root.path(), Some(MAPPING));
    let sent: Vec<_> = contents
        .repositories
        .values()
        .map(|r| [&r.key, &r.name, &r.uri, &r.cpe].map(String::as_str))
        .collect();
    let key = "rhel-cpe-repository";
    let row = |uri, cpe| [key, cpe, uri, cpe];
    assert_eq!(
        sent,
        [
            row(
                "repoid=baseos",
                "cpe:2.3:a:redhat:enterprise_linux:9:*:*:*:*:*:*:*"
            ),
            row(
                "repoid=baseos",
                "cpe:2.3:o:redhat:enterprise_linux:9:*:baseos:*:*:*:*:*"
            ),
            row(
                "repoid=supplementary",
                "cpe:2.3:a:redhat:enterprise_linux:9:*:supplementary:*:*:*:*:*"
            ),
            row(
                "repoid=with%20space%2F%C3%A9",
                "cpe:2.3:a:redhat:rhel_eus:9.4:*:appstream:*:*:*:*:*"
            ),
        ]
    );
    let unmapped: BTreeSet<_> = contents
        .unmapped
        .values()
        .map(|r| r.name.as_str())
        .collect();
    assert_eq!(unmapped, ["anaconda", "epel"].into());
}

#[test]
fn repositories_of_packages_that_are_gone_are_there() {
    let root = guests::with(&["here"]);
    let items = [
        item("here", "baseos", 1, 1),
        item("gone", "supplementary", 1, 1),
    ];
    guests::dnf4(root.path(), &items);
    let contents = contents(root.path(), Some(MAPPING));
    let uris: BTreeSet<_> = contents
        .repositories
        .values()
        .map(|r| r.uri.as_str())
        .collect();
    assert_eq!(uris, ["repoid=baseos", "repoid=supplementary"].into());
    // And none of a transaction that failed.
    let items = [
        item("here", "baseos", 1, 1),
        item("gone", "supplementary", 1, 2),
    ];
    guests::dnf4(root.path(), &items);
    assert_eq!(
        guests::contents(root.path(), Some(MAPPING))
            .repositories
            .len(),
        2
    );
}

#[test]
fn a_package_without_an_entry_may_be_from_any_mapped_repository() {
    let root = guest_of_all_kinds();
    let contents = contents(root.path(), Some(MAPPING));
    let all = ["baseos", "supplementary", "with%20space%2F%C3%A9"];
    let repositories = repositories_of(&contents);
    for package in ["image", "failed"] {
        assert_eq!(
            repositories[package],
            all.map(String::from).into(),
            "{package}"
        );
    }
}

#[test]
fn an_entry_that_no_mapped_repository_has_names_none() {
    let root = guest_of_all_kinds();
    let repositories = repositories_of(&contents(root.path(), Some(MAPPING)));
    for package in ["system", "file", "installer", "extra", "put-back"] {
        assert_eq!(repositories[package], BTreeSet::new(), "{package}");
    }
}

#[test]
fn an_entry_of_a_mapped_repository_names_exactly_that() {
    let root = guest_of_all_kinds();
    let repositories = repositories_of(&contents(root.path(), Some(MAPPING)));
    assert_eq!(repositories["base"], ["baseos".to_owned()].into());
    assert_eq!(
        repositories["eus"],
        ["with%20space%2F%C3%A9".to_owned()].into()
    );
    // Without a mapping there is nothing that it could name.
    let without = repositories_of(&contents(root.path(), None));
    assert!(without.values().all(BTreeSet::is_empty));
}

#[test]
fn every_entry_has_its_repository_in_the_hint() {
    let root = guest_of_all_kinds();
    for mapping in [None, Some(MAPPING)] {
        let contents = contents(root.path(), mapping);
        let expected = [
            ("base", "repoid=baseos"),
            ("eus", "repoid=with%20space%2F%C3%A9"),
            ("extra", "repoid=epel"),
            ("failed", ""),
            ("file", "repoid=%40commandline"),
            ("image", ""),
            ("installer", "repoid=anaconda"),
            ("put-back", ""),
            ("system", "repoid=%40System"),
        ];
        assert_eq!(hints(&contents), expected.into());
    }
}

#[test]
fn rhel_oracle_and_sles_have_a_major_version_and_others_their_own() {
    let root = guests::with(&["a"]);
    for (system, version, version_id) in [
        ("rhel", "9", "9"),
        ("oracle", "9", "9"),
        ("sles", "15", "15"),
        ("sles for sap", "15", "15"),
        ("amazon", "2023", "2023"),
        ("fedora", "42 (Server Edition)", "42"),
        ("no VERSION_ID", "9", "9"),
        ("no version at all", "", ""),
        ("no ID", "", "9.4"),
    ] {
        let (_, text) = SYSTEMS
            .into_iter()
            .find(|(name, _)| *name == system)
            .unwrap();
        guests::os_release(root.path(), text);
        let report = guests::report(root.path(), None);
        let sent = guests::sent(&report).contents.unwrap();
        let distribution = &sent.distributions["1"];
        let versions = (
            distribution.version.as_str(),
            distribution.version_id.as_str(),
        );
        assert_eq!(versions, (version, version_id), "{system}");
        // Nothing is lost for those who read our fields.
        let bytes = answer(guests::sent(&report));
        assert_eq!(read(&bytes).distribution, report.distribution, "{system}");
    }
}

#[test]
fn pull_polls_an_agent_that_cannot_wait_and_says_so() {
    let root = guests::with(&["only"]);
    let report = guests::sent(&guests::report(root.path(), None));
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let unknown = |code: ErrorCode| {
        response::Payload::Error(Error {
            code: code.into(),
            message: "unknown or unset method".into(),
            ..Error::default()
        })
    };
    let answers = [
        unknown(ErrorCode::UnknownMethod),
        response::Payload::GetReport(GetReportResponse {
            index_report: None,
            unchanged: true,
        }),
        unknown(ErrorCode::Busy),
        response::Payload::GetReport(GetReportResponse {
            index_report: Some(report),
            unchanged: false,
        }),
    ];
    let serving = std::thread::spawn(move || {
        let mut waits = Vec::new();
        for payload in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; frame::HEADER];
            stream.read_exact(&mut head).unwrap();
            let mut body = vec![0; u32::from_be_bytes(head) as usize];
            stream.read_exact(&mut body).unwrap();
            let asked = Request::decode(&body).unwrap().method.unwrap();
            waits.push(matches!(asked, Method::WaitReport(..)));
            let answer = VmServiceResponse {
                meta: Some(ResponseMeta {
                    report_generation: 2,
                    supported_methods: vec!["get_report".into()],
                    ..ResponseMeta::default()
                }),
                payload: Some(payload),
            };
            stream.write_all(&frame::encode(&answer)).unwrap();
        }
        waits
    });
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["pull", "--known", "0:1", "--wait", "60s"])
        .arg(format!("unix:{}", socket.display()))
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && shown.contains("only"),
        "{shown}{said}"
    );
    assert!(said.contains("does not know wait_report"), "{said}");
    assert_eq!(serving.join().unwrap(), [true, false, false, false]);
}

#[test]
fn a_repository_of_stackroxs_own_agent_has_its_repoid_as_its_id() {
    let root = guests::with(&["a"]);
    guests::dnf4(root.path(), &[item("a", "with space/é", 1, 1)]);
    let index = guests::sent(&guests::report(root.path(), Some(MAPPING)));
    check(&index, "as StackRox's own agent sends it");
    let bytes = answer(index.clone());
    let view = read(&bytes);
    assert_eq!(view.packages[0].repo, "with space/é");
    assert_eq!(view.repositories[0].id, "with space/é");
    // More parameters than one, as its hints have.
    let mut index = index;
    let contents = index.contents.as_mut().unwrap();
    let hint = "hash=sha256%3Ab&key=rhel-cpe-repository&repoid=appstream";
    contents
        .packages
        .values_mut()
        .next()
        .unwrap()
        .repository_hint = hint.into();
    let uri = Repository {
        uri: "repoid=appstream".into(),
        ..contents.repositories["1"].clone()
    };
    contents.repositories.insert("1".into(), uri);
    let bytes = answer(index);
    let view = read(&bytes);
    assert_eq!(view.packages[0].repo, "appstream");
    assert_eq!(view.repositories[0].id, "appstream");
}

/// A guest with a package of each kind of origin.
fn guest_of_all_kinds() -> RpmRoot {
    let names = [
        "base",
        "eus",
        "extra",
        "failed",
        "file",
        "image",
        "installer",
        "put-back",
        "system",
    ];
    let root = guests::with(&names);
    let items: [Item; 10] = [
        item("base", "baseos", 1, 1),
        item("eus", "with space/é", 6, 1),
        item("extra", "epel", 1, 1),
        item("failed", "appstream", 1, 2),
        item("file", "@commandline", 1, 1),
        item("installer", "anaconda", 1, 1),
        item("put-back", "baseos", 1, 1),
        item("put-back", "@System", 8, 1),
        item("system", "@System", 1, 1),
        item("gone", "supplementary", 1, 1),
    ];
    guests::dnf4(root.path(), &items);
    assert!(fs::metadata(root.path().join("etc/os-release")).is_ok());
    root
}

fn cpes(contents: &Contents) -> BTreeSet<String> {
    contents
        .repositories
        .values()
        .map(|r| r.cpe.clone())
        .collect()
}
