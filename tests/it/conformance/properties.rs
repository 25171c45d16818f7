//! Whatever a guest, a mapping and a history hold, the report keeps all rules.

use super::guests::{self, Item, Nevra};
use super::oracle::violations;
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
            prop_assert_eq!(violations(&guests::sent(&report)), []);
        }
        Ok(())
    });
    if let Err(failed) = result {
        panic!("{failed}");
    }
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
