//! Whatever a guest, a mapping and a history hold, the report keeps all rules.

use super::guests::{self, Item, Nevra};
use super::oracle::violations;
use afferent::wire::message::{
    Contents, Distribution, Environment, EnvironmentList, IndexReport, Package, Repository,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::collections::BTreeMap;

const PACKAGES: [&str; 5] = ["a", "b", "c", "d", "e"];

// The loss: a guest that by a line of its own os-release, or by its history, is never scanned again.
#[test]
fn any_os_release_mapping_and_history_give_a_report_that_holds_all_rules() {
    let root = guests::with(&PACKAGES);
    let mut runner = TestRunner::new(Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    });
    let guest = (
        os_release(),
        mapping(),
        items(&[1, 2, 6, 8, 9, 11], &[0, 1, 2]),
        items(&[1, 2, 4, 5, 7], &[1, 2, 3]),
    );
    let result = runner.run(&guest, |(os_release, mapping, of_dnf4, of_dnf5)| {
        guests::os_release(root.path(), &os_release);
        guests::dnf4(root.path(), &of_dnf4);
        guests::dnf5(root.path(), &of_dnf5);
        for mapping in [None, Some(mapping.as_str())] {
            let report = guests::report(root.path(), mapping);
            prop_assert_eq!(report.packages.len(), PACKAGES.len());
            let sent = guests::sent(&report);
            prop_assert_eq!(violations(&sent), []);
            // And all of it arrives.
            let bytes = guests::answer(sent);
            let mut arrived = guests::read(&bytes);
            arrived.facts = report.facts.clone();
            let mut left = report.view();
            left.normalize();
            prop_assert_eq!(arrived, left);
        }
        Ok(())
    });
    if let Err(failed) = result {
        panic!("{failed}");
    }
}

proptest! {
    // The loss: a guest with a foreign agent whose report changes whenever it is sent on.
    #[test]
    fn a_foreign_report_changes_at_most_once_on_its_way(index in foreign()) {
        let bytes = guests::answer(index);
        let view = guests::read(&bytes);
        prop_assert_eq!(view.to_report().digest(), view.digest());
        let once = guests::answer(guests::sent(&view.to_report()));
        let once = guests::read(&once).to_report();
        prop_assert_eq!(once.packages.len(), view.packages.len());
        let twice = guests::answer(guests::sent(&once));
        prop_assert_eq!(guests::read(&twice).to_report(), once);
    }
}

/// What an agent of another kind may send.
fn foreign() -> impl Strategy<Value = IndexReport> {
    let source = ("[st-]{0,2}", "[12:-]{0,3}").prop_map(|(name, version)| {
        let source = Package {
            name,
            version,
            ..Package::default()
        };
        Some(Box::new(source))
    });
    let hint = prop_oneof![
        Just(String::new()),
        "(hash=a&)?repoid=[rs%4+]{0,3}(&key=b)?",
        "[a=&]{0,4}",
    ];
    let texts = (
        "[ab\\\\x]{1,3}",
        "([0-2]:)?[1a:.-]{0,4}",
        "[ms:]{0,5}",
        "[xy]?",
    );
    let package = (texts, source, hint, vec(any::<u8>(), 0..3)).prop_map(
        |((name, version, module, arch), source, repository_hint, raw_name)| Package {
            name,
            version,
            module,
            arch,
            source,
            repository_hint,
            raw_name,
            ..Package::default()
        },
    );
    let own = || proptest::option::of("[0-9.a]{0,3}");
    let texts = (
        prop_oneof![Just("rhel"), Just("amzn"), Just("")],
        "[0-9.]{0,3}",
        "[0-9.]{0,3}",
    );
    let distribution = (
        texts,
        "[x]?",
        cpe(),
        own(),
        own(),
        proptest::option::of(cpe()),
    )
        .prop_map(
            |(
                (did, version, version_id),
                arch,
                cpe,
                version_verbatim,
                version_id_verbatim,
                cpe_verbatim,
            )| Distribution {
                did: did.into(),
                version,
                version_id,
                arch,
                cpe,
                version_verbatim,
                version_id_verbatim,
                cpe_verbatim,
                ..Distribution::default()
            },
        );
    let key = || "[1-5]";
    let environment = (0i32..5).prop_map(|origin| EnvironmentList {
        environments: vec![Environment {
            origin,
            ..Environment::default()
        }],
    });
    (
        btree_map(key(), package, 1..4),
        btree_map(key(), distribution, 0..3),
        btree_map(key(), foreign_repository(), 0..3),
        btree_map(key(), foreign_repository(), 0..3),
        btree_map(key(), environment, 0..4),
    )
        .prop_map(
            |(packages, distributions, repositories, unmapped, environments)| IndexReport {
                success: true,
                contents: Some(Contents {
                    packages,
                    distributions,
                    repositories,
                    environments,
                    unmapped,
                }),
                ..IndexReport::default()
            },
        )
}

fn foreign_repository() -> impl Strategy<Value = Repository> {
    let uri = "(repoid=[rs%4]{0,3})?|http://a";
    ("[rs]?", "(rhel-cpe-repository)?", uri, cpe()).prop_map(|(name, key, uri, cpe)| Repository {
        name,
        key,
        uri,
        cpe,
        ..Repository::default()
    })
}

fn os_release() -> impl Strategy<Value = String> {
    let key = prop_oneof![
        Just("ID"),
        Just("NAME"),
        Just("VERSION"),
        Just("VERSION_ID"),
        Just("VERSION_CODENAME"),
        Just("CPE_NAME"),
        Just("PRETTY_NAME"),
    ];
    let value = prop_oneof![
        3 => prop_oneof![Just("rhel"), Just("ol"), Just("sles"), Just("sled"), Just("sles_sap"), Just("amzn")].prop_map(String::from),
        3 => "[0-9]{0,3}[.-]?(SP)?[0-9]{0,2}( \\(Plow\\))?",
        2 => cpe(),
        1 => ".{0,12}",
    ];
    let quoted = prop_oneof![Just("\""), Just("'"), Just("")];
    let line = prop_oneof![
        9 => (key, quoted, value).prop_map(|(key, quote, value)| format!("{key}={quote}{value}{quote}")),
        1 => ".{0,20}",
    ];
    vec(line, 0..9).prop_map(|lines| lines.join("\n"))
}

/// Near a CPE name.
fn cpe() -> impl Strategy<Value = String> {
    prop_oneof![
        2 => "cpe:/[aoh]?(:[a-z0-9._~%-]{0,5}){0,8}",
        3 => "cpe:2\\.3:[aoh*-](:([a-z0-9._-]{1,4}|[*?-]|\\\\[!-~]|[!-~]{0,3})){0,11}",
        1 => Just("cpe:/o:redhat:enterprise_linux:9::baseos".to_owned()),
        1 => Just("cpe:2.3:*:*:*:*:*:*:*:*:*:*:*".to_owned()),
        1 => ".{0,10}",
    ]
}

fn repository() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => "[rs]",
        1 => Just("@System".to_owned()),
        1 => Just(String::new()),
        2 => "[a-z@%&=+ é/\\\\]{1,4}",
        1 => ".{1,6}",
    ]
}

fn mapping() -> impl Strategy<Value = String> {
    btree_map(repository(), vec(cpe(), 0..4), 0..6).prop_map(|repositories| {
        let data: BTreeMap<String, _> = repositories
            .into_iter()
            .map(|(id, cpes)| (id, json!({ "cpes": cpes })))
            .collect();
        json!({ "data": data }).to_string()
    })
}

fn items(actions: &'static [i64], states: &'static [i64]) -> impl Strategy<Value = Vec<Item>> {
    let package = proptest::sample::select(&PACKAGES[..]);
    let action = proptest::sample::select(actions);
    let state = proptest::sample::select(states);
    let item =
        (package, repository(), action, state).prop_map(|(package, repository, action, state)| {
            (Nevra::named(package), repository, action, state)
        });
    vec(item, 0..8)
}
