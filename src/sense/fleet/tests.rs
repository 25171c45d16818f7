//! Tests of the fleet store.

use super::fixture::{Rig, envelope, report, second};
use super::query::FleetQuery;
use super::table::{CHANGES, GUESTS};
use super::*;
use crate::report::GuestId;
use redb::{ReadableTable, ReadableTableMetadata, TableDefinition};
use serde_json::{Value, json};

fn ask(rig: &Rig, query: &FleetQuery) -> Value {
    serde_json::to_value(query.ask(&rig.store, &|_| None)).unwrap()
}

fn changes(rig: &Rig) -> Vec<Value> {
    let all = FleetQuery::Changes {
        since: None,
        vm: None,
        package: None,
        after: None,
    };
    ask(rig, &all)["changes"].as_array().unwrap().clone()
}

#[test]
fn a_first_report_is_a_baseline_and_the_next_one_a_change() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope(
        "a",
        1,
        1,
        &report(&["openssl 1:3.0.7-27.el9", "vim 9-1"]),
    ));
    assert_eq!(changes(&rig), [] as [Value; 0]);
    rig.put(&envelope(
        "a",
        2,
        5,
        &report(&["openssl 1:3.0.7-28.el9_4", "vim 9-1"]),
    ));
    let found = changes(&rig);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0],
        json!({
            "number": 1, "at": "1970-01-01T00:00:05.000Z", "vm": "a", "report": "7:2", "from": "7:1",
            "trigger": "reactive", "added": [], "removed": [], "downgraded": [], "changed": [],
            "upgraded": [{"name": "openssl", "arch": "x86_64", "from": "1:3.0.7-27.el9", "to": "1:3.0.7-28.el9_4"}],
        })
    );
    let show = ask(
        &rig,
        &FleetQuery::Show {
            vm: "a".into(),
            at: None,
        },
    );
    assert_eq!(show["history"][1]["baseline"], 2);
    assert_eq!(show["changed_at"], "1970-01-01T00:00:05.000Z");
}

#[test]
fn kernels_of_which_several_are_installed_are_added_and_removed() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["kernel 5-1", "kernel 5-2"])));
    rig.put(&envelope("a", 2, 2, &report(&["kernel 5-2", "kernel 5-3"])));
    let found = changes(&rig);
    let kernel = |version: &str| json!([{"name": "kernel", "arch": "x86_64", "version": version}]);
    assert_eq!(
        (&found[0]["added"], &found[0]["removed"]),
        (&kernel("5-3"), &kernel("5-1"))
    );
    assert_eq!(found[0]["upgraded"], json!([]));
}

/// The same report again, as it comes every few hours, is no row of the log.
#[test]
fn a_refresh_notes_when_it_was_seen_and_nothing_else() {
    let mut rig = Rig::new(FleetLimits::default());
    let report = report(&["a 1-1"]);
    rig.put(&envelope("a", 1, 1, &report));
    rig.put(&envelope("a", 1, 9, &report));
    assert_eq!(rig.fleet.counts().changes, 1);
    let guest = &ask(&rig, &FleetQuery::Guests { os: None })["guests"][0];
    assert_eq!(guest["seen_at"], "1970-01-01T00:00:09.000Z");
    assert_eq!(guest["changed_at"], "1970-01-01T00:00:01.000Z");
}

#[test]
fn facts_alone_replace_the_facts() {
    let mut rig = Rig::new(FleetLimits::default());
    let report = report(&["a 1-1"]);
    rig.put(&envelope("a", 1, 1, &report));
    let mut facts = envelope("a", 1, 4, &report);
    facts.report = None;
    facts.facts = [("kernel_running".to_owned(), "6".to_owned())].into();
    rig.put(&facts);
    let show = ask(
        &rig,
        &FleetQuery::Show {
            vm: "a".into(),
            at: None,
        },
    );
    assert_eq!(show["facts"], json!({"kernel_running": "6"}));
    assert_eq!(show["installed"][0]["name"], "a");
}

/// Otherwise the software of one machine would look upgraded to that of another.
#[test]
fn another_machine_under_the_same_name_begins_with_a_baseline() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    let other = report(&["b 1-1"]);
    let mut other = envelope("a", 1, 2, &other);
    other.guest_id = Some(GuestId::of_machine("other"));
    rig.put(&other);
    assert_eq!(changes(&rig), [] as [Value; 0]);
    let at = Some(second(1).unix_ms());
    let then = ask(&rig, &FleetQuery::Show { vm: "a".into(), at });
    assert!(
        then["error"]
            .as_str()
            .unwrap()
            .contains("its first report is of"),
        "{then}"
    );
}

#[test]
fn rows_that_are_too_old_or_too_many_go_and_what_only_they_named_with_them() {
    let limits = FleetLimits {
        age: Duration::from_secs(100),
        ..FleetLimits::default()
    };
    let mut rig = Rig::new(limits);
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    rig.put(&envelope("a", 2, 50, &report(&["a 2-1"])));
    assert_eq!(
        (rig.fleet.counts().changes, rig.fleet.counts().packages),
        (2, 2)
    );
    rig.put(&envelope("a", 3, 200, &report(&["a 3-1"])));
    // The row of second 200 still names `a 2-1`; only a later transaction finds that nothing names `a 1-1`.
    rig.put(&envelope("b", 1, 201, &report(&["a 3-1"])));
    assert_eq!(
        (rig.fleet.counts().changes, rig.fleet.counts().packages),
        (2, 2)
    );
    let show = ask(
        &rig,
        &FleetQuery::Show {
            vm: "a".into(),
            at: Some(second(60).unix_ms()),
        },
    );
    let said = show["error"].as_str().unwrap();
    assert!(
        said.contains("reaches back to 1970-01-01T00:03:20.000Z only"),
        "{said}"
    );
}

#[test]
fn a_guest_that_is_forgotten_leaves_its_history() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    rig.put(&envelope("a", 2, 2, &report(&["a 2-1"])));
    rig.forget("a");
    assert_eq!((rig.fleet.counts().guests, changes(&rig).len()), (0, 1));
    let show = ask(
        &rig,
        &FleetQuery::Show {
            vm: "a".into(),
            at: None,
        },
    );
    assert!(
        show["error"]
            .as_str()
            .unwrap()
            .contains("no report of a guest")
    );
}

/// Loss prevented: the sensor goes on with a store that nobody else wrote, and never knows better.
#[test]
fn a_guest_whose_row_is_not_of_its_known_report_is_asked_again() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    rig.put(&envelope("b", 1, 1, &report(&["a 1-1"])));
    // As if version 0.1, or `--fleet off`, had run meanwhile.
    let (a, c) = ("a".parse::<VmId>().unwrap(), "c".parse::<VmId>().unwrap());
    rig.known.insert(a.clone(), report(&["a 2-1"]).digest());
    rig.known.insert(c.clone(), report(&["a 2-1"]).digest());
    rig.restart();
    assert_eq!(rig.fleet.missing(), [a, c].into());
    rig.put(&envelope("a", 3, 3, &report(&["a 2-1"])));
    assert_eq!(changes(&rig)[0]["from"], "7:1", "its history goes on");
    assert_eq!(
        (rig.fleet.counts().rebuilt, rig.fleet.missing().len()),
        (1, 1)
    );
}

/// The cost prevented: every guest's report at once, and once more to Central, after an upgrade.
#[test]
fn a_new_store_asks_nobody_and_one_that_lost_a_row_asks_that_guest() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.known.insert("a".parse().unwrap(), report(&[]).digest());
    rig.restart();
    assert_eq!(
        (rig.fleet.missing().len(), rig.fleet.to_ask().len()),
        (1, 0)
    );
    rig.put(&envelope("b", 1, 1, &report(&["a 1-1"])));
    rig.restart();
    assert_eq!(rig.fleet.to_ask(), ["a".parse().unwrap()].into());
}

/// Loss prevented: a pending report, with the file that is moved aside.
#[test]
fn tables_of_another_kind_are_begun_anew() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    let other: TableDefinition<'_, u64, u64> = TableDefinition::new("fleet_guests");
    rig.store
        .write(|tx| {
            tx.delete_table(GUESTS)?;
            tx.open_table(other)?.insert(1, 1)?;
            Ok(())
        })
        .unwrap();
    rig.restart();
    assert_eq!(rig.fleet.missing().len(), 1);
    rig.put(&envelope("a", 1, 2, &report(&["a 1-1"])));
    assert_eq!(rig.fleet.counts().guests, 1);
    let rows = rig.store.read(|tx| Ok(tx.open_table(CHANGES)?.len()?));
    assert_eq!(rows.unwrap(), 1);
}

#[test]
fn rows_of_guests_that_nobody_knows_any_more_are_removed() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    rig.known.clear();
    rig.restart();
    let rows = rig.store.read(|tx| Ok(tx.open_table(GUESTS)?.len()?));
    assert_eq!((rows.unwrap(), rig.fleet.counts().guests), (0, 0));
}

#[test]
fn a_new_file_begins_empty_and_takes_reports() {
    let mut rig = Rig::new(FleetLimits::default());
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    rig.store.begin_anew().unwrap();
    rig.fleet.lost();
    rig.put(&envelope("a", 1, 2, &report(&["a 1-1"])));
    let show = ask(
        &rig,
        &FleetQuery::Show {
            vm: "a".into(),
            at: None,
        },
    );
    assert_eq!(show["installed"][0]["name"], "a");
}

/// A report with all that decides in a bill of materials.
fn rich_report() -> crate::report::Report {
    let mut report = report(&["openssl 1:3.0.7-27.el9", "bash 5-1"]);
    report.distribution.cpe = "cpe:/o:redhat:enterprise_linux:9::baseos".into();
    report.distribution.arch = "aarch64".into();
    report.distribution.pretty_name = "RHEL 9".into();
    report.package_db = "sqlite:var/lib/rpm".into();
    report.facts = [("rpmdb_backend".to_owned(), "sqlite".to_owned())].into();
    report.repositories = vec![crate::report::Repository {
        id: "base".into(),
        cpe: "cpe:/a:redhat:enterprise_linux:9".into(),
        ..crate::report::Repository::default()
    }];
    report
}

fn sbom(rig: &Rig, vm: Option<&str>) -> Value {
    let vm = vm.map(str::to_owned);
    ask(rig, &FleetQuery::Sbom { vm, after: None })
}

fn delivered(vm: &str, report: &crate::report::Report, at: u64) -> Value {
    let document =
        crate::sense::bill_of_materials::of_guest(vm, report, report.digest(), second(at));
    String::from_utf8(document).unwrap().into()
}

#[test]
fn a_bill_of_materials_is_that_of_the_report_and_platforms_are_stored_once() {
    let mut rig = Rig::new(FleetLimits::default());
    let mut rich = rich_report();
    for vm in ["a", "b"] {
        rig.put(&envelope(vm, 1, 1, &rich));
    }
    let document = delivered("a", &rich, 1);
    assert!(
        document.as_str().unwrap().contains("ContentSet"),
        "{document}"
    );
    let answer = sbom(&rig, None);
    assert_eq!(
        answer["guests"][0],
        json!({"vm": "a", "document": document})
    );
    assert_eq!(
        (&answer["left_out"], &answer["next"]),
        (&json!([]), &Value::Null)
    );
    assert_eq!(held(&rig.fleet.platforms).references(), [(0, 2)].into());
    // Another platform comes, and once nobody has the first one it goes.
    rich.distribution.version_id = "9.5".into();
    rich.distribution.arch = "x86_64".into();
    for (vm, left) in [("a", 2), ("b", 1)] {
        rig.put(&envelope(vm, 2, 2, &rich));
        // What a transaction finds unused goes with the next one.
        rig.put(&envelope(vm, 2, 3, &rich));
        assert_eq!(held(&rig.fleet.platforms).len(), left);
    }
    rig.restart();
    assert_eq!(rig.fleet.to_ask(), [].into());
    assert_eq!(
        sbom(&rig, Some("b"))["guests"][0]["document"],
        delivered("b", &rich, 3)
    );
}

/// Loss prevented: a store that is of no use after an upgrade, or a bill of materials that lacks what decides.
#[test]
fn a_row_of_version_1_answers_all_but_bills_of_materials_until_the_next_full_report() {
    let mut rig = Rig::new(FleetLimits::default());
    let rich = rich_report();
    rig.put(&envelope("a", 1, 1, &rich));
    rig.put(&envelope("b", 1, 1, &rich));
    rig.store
        .write(|tx| {
            let mut guests = tx.open_table(GUESTS)?;
            let sealed = guests.get("a")?.unwrap().value().to_vec();
            let state = super::row::open::<super::row::GuestState<'_>>(&sealed)?;
            let old: super::row::v1::GuestState<'_> = state.into();
            let old = super::row::seal(&old)?;
            guests.insert("a", old.as_slice())?;
            Ok(())
        })
        .unwrap();
    rig.restart();
    assert_eq!(
        (rig.fleet.counts().guests, rig.fleet.to_ask()),
        (2, [].into())
    );
    let show = || FleetQuery::Show {
        vm: "a".into(),
        at: None,
    };
    assert_eq!(ask(&rig, &show())["installed"][0]["name"], "bash");
    let left_out = |rig: &Rig| {
        let answer = sbom(rig, None);
        assert_eq!(sbom(rig, Some("a"))["left_out"], answer["left_out"]);
        (
            answer["left_out"].clone(),
            answer["guests"].as_array().unwrap().len(),
        )
    };
    assert_eq!(left_out(&rig), (json!(["a"]), 1));
    let mut facts = envelope("a", 1, 2, &rich);
    facts.report = None;
    rig.put(&facts);
    assert_eq!(left_out(&rig), (json!(["a"]), 1), "facts are no report");
    rig.put(&envelope("a", 1, 3, &rich));
    assert_eq!(left_out(&rig), (json!([]), 2));
    assert_eq!(
        sbom(&rig, Some("a"))["guests"][0]["document"],
        delivered("a", &rich, 3)
    );
    assert_eq!(rig.fleet.counts().changes, 2, "it is the same report");
}

#[test]
fn pages_of_bills_of_materials_name_every_guest_once() {
    let mut rig = Rig::new(FleetLimits::default());
    let names: Vec<String> = (0..40).map(|n| format!("g{n:02}")).collect();
    for vm in &names {
        rig.put(&envelope(vm, 1, 1, &rich_report()));
    }
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let answer = ask(&rig, &FleetQuery::Sbom { vm: None, after });
        let guests = answer["guests"].as_array().unwrap().iter();
        seen.extend(guests.map(|guest| guest["vm"].as_str().unwrap().to_owned()));
        after = answer["next"].as_str().map(str::to_owned);
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen, names);
}

#[test]
fn changes_and_guests_that_need_a_boot_are_counted() {
    let mut rig = Rig::new(FleetLimits::default());
    let counted = |rig: &Rig| (rig.fleet.counts().reboot_needed, rig.fleet.counts().changed);
    // Odd generations need one.
    rig.put(&envelope("a", 1, 1, &report(&["a 1-1"])));
    rig.put(&envelope("b", 1, 1, &report(&["a 1-1"])));
    assert_eq!(counted(&rig), (2, 0), "first reports are no changes");
    rig.put(&envelope("a", 2, 2, &report(&["a 2-1"])));
    rig.put(&envelope("a", 2, 3, &report(&["a 2-1"])));
    assert_eq!(counted(&rig), (1, 1));
    let installed = report(&["a 2-1"]);
    let mut facts = envelope("a", 3, 4, &installed);
    facts.report = None;
    rig.put(&facts);
    assert_eq!(counted(&rig), (2, 1));
    let agents = |rig: &Rig| -> Vec<(String, u64)> {
        let agents = rig.fleet.agents().into_iter();
        agents
            .map(|(version, guests)| (version.into(), guests))
            .collect()
    };
    let is_of = |version: &str, guests| (version.to_owned(), guests);
    assert_eq!(agents(&rig), [is_of("0.2.0", 2)]);
    facts.agent_version = "0.3.0".into();
    rig.put(&facts);
    assert_eq!(agents(&rig), [is_of("0.2.0", 1), is_of("0.3.0", 1)]);
    rig.restart();
    assert_eq!(counted(&rig), (2, 0));
    rig.forget("b");
    assert_eq!(agents(&rig), [is_of("0.3.0", 1)]);
    rig.refuse(&envelope("a", 4, 5, &report(&["a 4-1"])));
    assert_eq!(counted(&rig), (1, 0));
}
