//! Tests of questions about the fleet.

use super::*;
use crate::report::VmId;
use crate::sense::fleet::FleetLimits;
use crate::sense::fleet::fixture::{Rig, envelope, report, second};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Three guests, of which one runs an old kernel and one is of another OS.
fn fleet() -> Rig {
    let mut rig = Rig::new(FleetLimits::default());
    let old = report(&["kernel 5-1", "kernel 5-2", "openssl 1:3-27"]);
    rig.put(&envelope("old", 1, 1, &old));
    let new = report(&["kernel 5-1", "kernel 5-3", "openssl 1:3-28"]);
    rig.put(&envelope("new", 1, 2, &new));
    let mut fedora = report(&["vim 9-1"]);
    (fedora.distribution.id, fedora.distribution.version_id) = ("fedora".into(), "41".into());
    let mut fedora = envelope("fedora", 1, 3, &fedora);
    fedora.facts.clear();
    rig.put(&fedora);
    rig
}

fn ask(rig: &Rig, query: &FleetQuery) -> Value {
    let states = |vm: &str| (vm == "old").then_some("waiting");
    serde_json::to_value(query.ask(&rig.store, &states)).unwrap()
}

fn find(package: &str) -> FleetQuery {
    FleetQuery::Find {
        package: package.into(),
        arch: None,
        os: None,
        not: false,
        running: false,
    }
}

fn vms(answer: &Value) -> Vec<&str> {
    let guests = answer["guests"].as_array();
    let guests = guests.unwrap_or_else(|| unreachable!("{answer}"));
    guests
        .iter()
        .map(|guest| guest["vm"].as_str().unwrap())
        .collect()
}

#[test]
fn the_list_has_one_line_a_guest() {
    let rig = fleet();
    let answer = ask(&rig, &FleetQuery::Guests { os: None });
    assert_eq!(vms(&answer), ["fedora", "new", "old"]);
    let old = &answer["guests"][2];
    assert_eq!(
        (&old["os"], &old["packages"], &old["state"]),
        (&json!("rhel-9.4"), &json!(3), &json!("waiting"))
    );
    let answer = ask(
        &rig,
        &FleetQuery::Guests {
            os: Some("rhel-9".into()),
        },
    );
    assert_eq!(vms(&answer), ["new", "old"]);
}

/// Loss prevented: "nobody has it", said of guests that nobody asked yet.
#[test]
fn an_answer_says_of_how_many_guests_no_report_is_stored() {
    let rig = fleet();
    for query in [FleetQuery::Guests { os: None }, find("vim")] {
        // Two guests of the roster; the fixture has a report of one of them.
        let states = |vm: &str| ["old", "later"].contains(&vm).then_some("waiting");
        let mut answer = query.ask(&rig.store, &states);
        answer.note_roster(2);
        assert_eq!(serde_json::to_value(answer).unwrap()["not_stored"], 1);
    }
}

#[test]
fn find_gives_the_guests_and_what_each_has() {
    let rig = fleet();
    let answer = ask(&rig, &find("openssl < 1:3-28"));
    assert_eq!(
        answer["guests"],
        json!([{"vm": "old", "os": "rhel-9.4", "packages": [{"name": "openssl", "version": "1:3-27", "arch": "x86_64"}]}])
    );
    assert_eq!(answer["looked_at"], 3);
    assert_eq!(vms(&ask(&rig, &find("kernel = 5-3"))), ["new"]);
    assert_eq!(vms(&ask(&rig, &find("kernel"))), ["new", "old"]);
    assert_eq!(vms(&ask(&rig, &find("nothing"))), [""; 0]);
}

/// Packages are stored in the order in which they were first heard of.
#[test]
fn find_shows_the_versions_of_a_guest_from_the_oldest_to_the_newest() {
    let mut rig = Rig::new(FleetLimits::default());
    for (vm, packages) in [("a", &["x 5-10"][..]), ("b", &["x 5-9", "x 5-10"])] {
        rig.put(&envelope(vm, 1, 1, &report(packages)));
    }
    let answer = ask(&rig, &find("x"));
    let versions = [0, 1].map(|n| &answer["guests"][1]["packages"][n]["version"]);
    assert_eq!(versions, ["5-9", "5-10"]);
}

#[test]
fn find_can_be_turned_round_and_narrowed() {
    let rig = fleet();
    let with = |not, arch: Option<&str>, os: Option<&str>| FleetQuery::Find {
        package: "openssl >= 1:3-28".into(),
        arch: arch.map(str::to_owned),
        os: os.map(str::to_owned),
        not,
        running: false,
    };
    let answer = ask(&rig, &with(true, None, None));
    assert_eq!(vms(&answer), ["fedora", "old"]);
    assert_eq!(
        answer["guests"][1]["packages"][0]["version"], "1:3-27",
        "what it has instead"
    );
    assert_eq!(vms(&ask(&rig, &with(true, None, Some("rhel")))), ["old"]);
    assert_eq!(vms(&ask(&rig, &with(false, Some("i686"), None))), [""; 0]);
    assert_eq!(vms(&ask(&rig, &with(false, Some("x86_64"), None))), ["new"]);
}

/// Every guest of the fixture says that it runs 5-2.x86_64, if it says anything.
#[test]
fn find_running_gives_guests_that_run_another_kernel_than_the_newest() {
    let rig = fleet();
    let running = |package: &str| FleetQuery::Find {
        package: package.into(),
        arch: None,
        os: None,
        not: false,
        running: true,
    };
    let answer = ask(&rig, &running("kernel"));
    assert_eq!(vms(&answer), ["new"]);
    assert_eq!(
        (&answer["guests"][0]["kernel_running"], &answer["unknown"]),
        (&json!("5-2.x86_64"), &json!(0))
    );
    assert_eq!(
        ask(&rig, &running("vim"))["unknown"],
        1,
        "that guest does not say"
    );
}

#[test]
fn versions_are_counted_the_newest_first() {
    let rig = fleet();
    let answer = ask(
        &rig,
        &FleetQuery::Versions {
            name: "kernel".into(),
            os: None,
        },
    );
    let found: Vec<_> = answer["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            (
                v["version"].as_str().unwrap(),
                v["guests"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [("5-3", 1), ("5-2", 1), ("5-1", 2)]);
}

#[test]
fn packages_are_listed_by_the_number_of_their_versions_in_pages() {
    let mut rig = fleet();
    let drift = |rig: &Rig, os: Option<&str>, page: AnswerPage| {
        let query = FleetQuery::Drift {
            os: os.map(str::to_owned),
        };
        let answer = query.ask_page(&rig.store, &|_| None, &page);
        serde_json::to_value(answer).unwrap()
    };
    let lines = |answer: &Value| -> Vec<Value> {
        let lines = answer["packages"].as_array().unwrap().iter();
        let keys = ["name", "versions", "guests", "newest", "behind"];
        lines
            .map(|line| json!(keys.map(|key| line[key].clone())))
            .collect()
    };
    let all = drift(&rig, None, AnswerPage::default());
    // The two guests have two kernels each, of three versions.
    assert_eq!(
        lines(&all)[..2],
        [
            json!(["kernel", 3, 2, "5-3", 1]),
            json!(["openssl", 2, 2, "1:3-28", 1])
        ]
    );
    assert_eq!(all["looked_at"], 3);
    let (mut after, mut paged) = (None, Vec::new());
    loop {
        let page = AnswerPage {
            after,
            limit: Some(1),
        };
        let answer = drift(&rig, None, page);
        paged.extend(lines(&answer));
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, lines(&all));
    let fedora = drift(&rig, Some("fedora"), AnswerPage::default());
    assert_eq!(fedora["looked_at"], 1);
    assert!(
        lines(&fedora)
            .iter()
            .all(|line| line[1] == 1 && line[4] == 0)
    );
    // What nobody has any more is no version.
    rig.put(&envelope("old", 2, 2000, &report(&["openssl 1:3-28"])));
    let now = drift(&rig, Some("rhel"), AnswerPage::default());
    assert!(lines(&now).contains(&json!(["openssl", 1, 2, "1:3-28", 0])));
    let wrong = AnswerPage {
        after: Some("x".into()),
        limit: None,
    };
    assert_eq!(drift(&rig, None, wrong)["is_usage"], true);
}

#[test]
fn the_difference_of_two_guests_leads_from_the_first_to_the_second() {
    let rig = fleet();
    let answer = ask(
        &rig,
        &FleetQuery::Diff {
            vms: ("old".into(), "new".into()),
        },
    );
    assert_eq!(answer["upgraded"][0]["to"], "1:3-28");
    assert_eq!(answer["added"][0]["version"], "5-3");
    assert_eq!(answer["removed"][0]["version"], "5-2");
    let answer = ask(
        &rig,
        &FleetQuery::Diff {
            vms: ("old".into(), "x".into()),
        },
    );
    assert!(
        answer["error"].as_str().unwrap().contains("\"x\""),
        "{answer}"
    );
}

#[test]
fn changes_are_narrowed_by_time_guest_and_package_and_go_on_behind_a_number() {
    let mut rig = fleet();
    rig.put(&envelope(
        "old",
        2,
        2000,
        &report(&["kernel 5-2", "openssl 1:3-28"]),
    ));
    rig.put(&envelope(
        "new",
        2,
        4000,
        &report(&["kernel 5-3", "openssl 1:3-29"]),
    ));
    let changes = |since: Option<u64>, vm: Option<&str>, package: Option<&str>, after| {
        let query = FleetQuery::Changes {
            since: since.map(|at| second(at).unix_ms()),
            vm: vm.map(str::to_owned),
            package: package.map(str::to_owned),
            after,
        };
        let answer = ask(&rig, &query);
        let numbers = answer["changes"].as_array().unwrap().iter();
        numbers
            .map(|change| change["number"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(changes(None, None, None, None), [3, 4]);
    assert_eq!(changes(Some(3000), None, None, None), [4]);
    assert_eq!(changes(Some(2000), None, None, None), [3, 4]);
    assert_eq!(changes(Some(5000), None, None, None), [] as [u64; 0]);
    assert_eq!(changes(None, Some("old"), None, None), [3]);
    assert_eq!(changes(None, None, Some("openssl"), None), [3, 4]);
    assert_eq!(changes(None, None, Some("vim"), None), [] as [u64; 0]);
    assert_eq!(changes(None, None, None, Some(3)), [4]);
}

#[test]
fn more_changes_than_fit_come_in_pages() {
    let mut rig = fleet();
    for n in 0..1200u32 {
        let version = format!("a {n}-1");
        rig.put(&envelope(
            "old",
            n + 2,
            u64::from(n) + 10,
            &report(&[&version]),
        ));
    }
    let (mut after, mut seen, mut pages) = (None, 0, 0);
    loop {
        let query = FleetQuery::Changes {
            since: None,
            vm: None,
            package: None,
            after,
        };
        let answer = ask(&rig, &query);
        seen += answer["changes"].as_array().unwrap().len();
        pages += 1;
        if !answer["more"].as_bool().unwrap() {
            break;
        }
        after = answer["next"].as_u64();
    }
    assert_eq!((seen, pages), (1200, 2));
}

#[test]
fn an_export_gives_every_guest_once_in_pages() {
    let mut rig = Rig::new(FleetLimits::default());
    let report = report(&["a 1-1"]);
    for n in 0..120u64 {
        rig.put(&envelope(&format!("g{n:03}"), 1, n + 1, &report));
    }
    let (mut after, mut seen, mut pages) = (None, Vec::new(), 0);
    loop {
        let answer = ask(&rig, &FleetQuery::Export { vm: None, after });
        seen.extend(vms(&answer).into_iter().map(str::to_owned));
        assert_eq!(answer["guests"][0]["packages"][0]["repo"], "base");
        pages += 1;
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    let all: Vec<String> = (0..120).map(|n| format!("g{n:03}")).collect();
    assert_eq!((seen, pages), (all, 3));
    let one = ask(
        &rig,
        &FleetQuery::Export {
            vm: Some("g007".into()),
            after: None,
        },
    );
    assert_eq!(vms(&one), ["g007"]);
}

#[test]
fn a_question_is_one_word_and_nonsense_is_the_askers_fault() {
    let query = find("openssl < 1:3");
    let word = query.to_word();
    assert!(!word.contains(' '), "{word}");
    assert_eq!(FleetQuery::from_word(&word).unwrap(), query);
    assert!(FleetQuery::from_word("{\"find\":{}}").is_err());
    let rig = fleet();
    assert_eq!(ask(&rig, &find("openssl <"))["is_usage"], true);
}

#[test]
fn a_file_that_was_never_written_to_answers_with_nothing() {
    let rig = Rig::new(FleetLimits::default());
    assert_eq!(
        ask(&rig, &FleetQuery::Guests { os: None })["guests"],
        json!([])
    );
    assert_eq!(ask(&rig, &find("a"))["guests"], json!([]));
    let all = FleetQuery::Changes {
        since: Some(5),
        vm: None,
        package: Some("a".into()),
        after: None,
    };
    assert_eq!(ask(&rig, &all)["changes"], json!([]));
}

/// Loss prevented: an answer with the guests of one moment and the changes of another.
#[test]
fn a_question_that_is_answered_while_reports_are_stored_sees_one_moment() {
    const MOMENTS: usize = 20;
    let mut rig = Rig::new(FleetLimits::default());
    let of = |vm: &str, n: u32| {
        (
            vm.parse::<VmId>().unwrap(),
            report(&[&format!("p {n}-1"), "q 1-1"]),
            n,
        )
    };
    for vm in ["a", "b"] {
        rig.put(&envelope(vm, 1, 1, &of(vm, 1).1));
    }
    let rig = &rig;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut moments = HashSet::new();
            while moments.len() < MOMENTS {
                let list = ask(rig, &FleetQuery::Guests { os: None });
                let guests = list["guests"].as_array().unwrap();
                assert_eq!(guests[0]["report"], guests[1]["report"]);
                let show = ask(
                    rig,
                    &FleetQuery::Show {
                        vm: "b".into(),
                        at: None,
                    },
                );
                let report = show["report"].as_str().unwrap();
                assert_eq!(show["history"][0]["report"], report);
                let version = format!("{}-1", report.strip_prefix("7:").unwrap());
                assert_eq!(show["installed"][0]["version"], version.as_str());
                let versions = ask(
                    rig,
                    &FleetQuery::Versions {
                        name: "p".into(),
                        os: None,
                    },
                );
                assert_eq!(versions["versions"].as_array().unwrap().len(), 1);
                assert_eq!(versions["versions"][0]["guests"], 2);
                // Both are changed in one transaction: so are their rows in the log.
                let all = FleetQuery::Changes {
                    since: None,
                    vm: None,
                    package: None,
                    after: None,
                };
                let changes = ask(rig, &all)["changes"].as_array().unwrap().len();
                assert_eq!(changes % 2, 0);
                moments.insert(report.to_owned());
            }
        });
        let mut n = 1;
        while !asking.is_finished() {
            n += 1;
            let documents = ["a", "b"].map(|vm| {
                let (vm, report, n) = of(vm, n);
                let document = rig
                    .fleet
                    .prepare(&envelope(vm.as_str(), n, n.into(), &report));
                (vm, document.unwrap())
            });
            let stored = rig.write(|tx| {
                documents
                    .iter()
                    .try_for_each(|(vm, document)| tx.put(vm, document))
            });
            stored.unwrap();
        }
    });
}
