//! The mirror's API over HTTP, of a real service: who may ask, what is answered, and that an answer is of one cycle.

use crate::support::eventually;
use crate::support::mirror_rig::{MirrorRig, RACKS, document, start};
use crate::support::program::Program;
use crate::support::web::{
    TOKEN, Web, assert_data, assert_login_works_once, assert_needs_login, assert_page_files,
    assert_refused, bearer, session_of,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

const DATA: [&str; 6] = [
    "/v1/racks",
    "/v1/racks/r0",
    "/v1/drift",
    "/v1/audit",
    "/v1/withheld",
    "/v1/status",
];

/// The loss: the inventory of a site, for whoever has an account on the host or lures a browser there.
#[test]
fn data_is_for_those_who_log_in_at_a_name_of_this_server() {
    let rig = MirrorRig::new(40);
    let web = &rig.web;
    assert_needs_login("mirror", web, &DATA);
    assert_needs_login("mirror", web, &["/nowhere", "/v1/racks?x=1"]);
    let browser = session_of("mirror", web, &rig.mirror.state());
    for target in DATA {
        assert_data(web, target, &browser);
    }
    assert_page_files(web);
}

#[test]
fn a_login_address_works_once_and_its_session_ends_with_the_service() {
    let mut rig = MirrorRig::new(40);
    assert_login_works_once("mirror", &rig.web, &rig.mirror.state());
    let browser = session_of("mirror", &rig.web, &rig.mirror.state());
    assert_eq!(rig.web.get("/v1/status", &browser).code, 200);
    assert!(rig.service.terminate().success());
    let Web::Tcp(port) = rig.web else {
        unreachable!()
    };
    rig.service = start(&rig.mirror, &rig.core, &format!("127.0.0.1:{port}"));
    eventually("the service answers again", || rig.web.connect().ok());
    assert_eq!(rig.web.get("/v1/status", &browser).code, 401);
    // Without a page there is nothing to log in to, and the command says what to set.
    assert!(rig.service.terminate().success());
    let state = rig.mirror.state().display().to_string();
    let core = rig.core.clone();
    rig.service = Program::start(&["mirror", "run", "--core", &core, "--state-dir", &state]);
    let said = eventually("a service without a page", || {
        let output = rig.mirror.output(&["login"]);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        said.contains("has no page").then_some(said)
    });
    assert!(said.contains("mirror_listen"), "{said}");
}

#[test]
fn what_cannot_be_answered_is_400_or_404_with_words() {
    let rig = MirrorRig::new(40);
    assert_refused(
        &rig.web,
        &[
            ("/v1/racks?limit=0", 400, "from 1 to 5000"),
            ("/v1/racks?cursor=r0", 400, "cursor: "),
            ("/v1/racks?kind=x", 400, "allowed: cursor, limit"),
            ("/v1/drift?kind=chair", 400, "not one of"),
            ("/v1/drift?code=differs", 400, "no type of drift"),
            ("/v1/drift?since=soon", 400, "neither a time nor a duration"),
            ("/v1/drift?cursor=x", 400, "no `next` of a page"),
            ("/v1/audit?cursor=x", 400, "not a whole number"),
            ("/v1/audit?limit=1&limit=2", 400, "limit is given twice"),
            ("/v1/withheld?limit=%zz", 400, "no percent-encoded text"),
        ],
    );
    for target in ["/v1/racks/unknown", "/v1/racks/%3Cscript%3E", "/v1/pulls"] {
        let answer = rig.web.get(target, &bearer(TOKEN));
        assert_eq!(answer.code, 404, "{target}: {answer:?}");
    }
    let refused = rig.mirror.output(&[
        "run",
        "--core",
        &rig.core,
        "--mirror-listen",
        "0.0.0.0:9820",
    ]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("mirror-tls-cert"), "{said}");
}

/// The loss: an answer over HTTP that is another one than that of the command.
#[test]
fn answers_are_those_of_the_commands_also_in_pages() {
    let rig = MirrorRig::new(60);
    let dump = rig.mirror.dump();
    let (racks, pages) = rig.web.pages("/v1/racks?limit=7", "racks");
    assert_eq!(pages, 3);
    let ids = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&json!(racks)), ids(&dump["rack"]));
    for rack in &racks {
        assert_eq!(rack["count"], json!({"Compute": 3}), "{rack}");
    }
    let drifting: u64 = racks
        .iter()
        .filter_map(|rack| rack["drift"]["missing_in_actual"].as_u64())
        .sum();
    assert_eq!(drifting, 58);

    let command = |args: &[&str]| -> Vec<Value> {
        let output = rig.mirror.output(args);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (drift, pages) = rig.web.pages("/v1/drift?limit=25", "drift");
    assert_eq!((drift.len(), pages), (60, 3));
    let age = |row: &Value| (row["checked_at"].to_string(), row["id"].to_string());
    assert!(drift.is_sorted_by_key(age));
    let plain = |row: &Value| {
        let mut row = row.as_object().unwrap().clone();
        row.remove("name");
        row.remove("rack");
        Value::Object(row)
    };
    let mut by_id: Vec<Value> = drift.iter().map(plain).collect();
    by_id.sort_by_key(|row| row["id"].to_string());
    assert_eq!(by_id, command(&["drift", "--json"]));
    for (more, args) in [
        ("rack=r0", &["--rack", "r0"][..]),
        ("code=mismatch", &["--code", "mismatch"]),
        ("kind=NVSwitch", &["--kind", "NVSwitch"]),
    ] {
        let (rows, _) = rig
            .web
            .pages(&format!("/v1/drift?{more}&limit=5000"), "drift");
        let expected = command(&[&["drift", "--json"], args].concat());
        assert_eq!(rows.len(), expected.len(), "{more}");
    }
    let (mismatches, _) = rig.web.pages("/v1/drift?code=mismatch&limit=1", "drift");
    assert_eq!(mismatches[0]["rack"]["name"], "r0");
    assert_eq!(
        mismatches[0]["diffs"],
        json!([{"field_name": "slot_id", "expected_value": "1", "actual_value": "15"}])
    );

    let (audit, pages) = rig.web.pages("/v1/audit?limit=50", "audit");
    assert!(pages > 2, "{pages}");
    let mut oldest_first = audit;
    oldest_first.reverse();
    assert_eq!(json!(oldest_first), rig.mirror.audit());
    let (rows, _) = rig.web.pages("/v1/audit?row=r3&limit=1", "audit");
    assert!(!rows.is_empty());
    assert!(rows.iter().all(|row| row["key"] == "r3"), "{rows:?}");
    let of_rack = command(&["audit", "--rack", "r3", "--json"]);
    let all = oldest_first.len();
    assert!((3..all / 2).contains(&of_rack.len()), "{of_rack:?}");
    let (mut rows, pages) = rig.web.pages("/v1/audit?rack=r3&limit=2", "audit");
    assert!(pages > 1, "{pages}");
    rows.reverse();
    assert_eq!(rows, of_rack);

    let rack = rig.data("/v1/racks/r0");
    assert_eq!(
        rack,
        rig.data(&format!("/v1/racks/{}", rack["id"].as_str().unwrap()))
    );
    let components = rack["components"].as_array().unwrap();
    assert_eq!((components.len(), &rack["more"]), (3, &json!(false)));
    for component in components {
        assert_eq!(component["bmcs"].as_array().unwrap().len(), 1);
        let stored = dump["component"].as_array().unwrap().iter();
        let stored = stored.filter(|row| row["id"] == component["id"]);
        for row in stored {
            for (column, value) in row.as_object().unwrap() {
                assert_eq!(&component[column], value, "{column}");
            }
        }
        assert_eq!(component["drift"].as_array().unwrap().len(), 1);
    }
}

/// The loss: racks of this cycle with machines of the last one.
#[test]
fn what_is_answered_under_load_is_of_one_cycle() {
    let rig = MirrorRig::new(3000);
    let version = |name: &Value| name.as_str().unwrap().split_once('-').unwrap().0.to_owned();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let (mut published, mut during, mut longest, mut answers) = (0, 0, Duration::ZERO, 0);
    eventually("four cycles were read", || {
        let status = rig.data("/v1/status");
        let is_running = !status["running"].is_null();
        during += usize::from(is_running);
        let begin = Instant::now();
        let rack = rig.data("/v1/racks/r1");
        longest = longest.max(begin.elapsed());
        answers += 1;
        let names = rack["components"].as_array().unwrap().iter();
        let mut versions: BTreeSet<String> = names.map(|row| version(&row["name"])).collect();
        versions.insert(version(&rack["name"]));
        assert_eq!(versions.len(), 1, "two cycles in one answer");
        seen.extend(versions);
        // The next one is published when the last one is there.
        if seen.contains(&format!("v{published}")) {
            published += 1;
            rig.publish(&document(published, 3000));
        }
        (seen.len() >= 4).then_some(())
    });
    println!("{answers} answers, {during} while a cycle ran; the longest took {longest:?}");
    assert!(during > 0, "no answer was given while a cycle ran");
}

/// Pages of two commits: what stays is in them exactly once.
#[test]
fn pages_that_are_read_while_cycles_run_lack_nothing_and_have_nothing_twice() {
    let rig = MirrorRig::new(400);
    let ids =
        |rows: &[Value]| -> Vec<String> { rows.iter().map(|row| row["id"].to_string()).collect() };
    let (racks, _) = rig.web.pages("/v1/racks?limit=5000", "racks");
    let mut generations: BTreeSet<u64> = BTreeSet::new();
    let mut published = 0;
    eventually("three commits were read", || {
        published += 1;
        rig.publish(&document(published, 400));
        let (pages, _) = rig.web.pages("/v1/racks?limit=1", "racks");
        assert_eq!(ids(&pages), ids(&racks));
        let (drift, _) = rig.web.pages("/v1/drift?limit=30", "drift");
        let distinct: BTreeSet<String> = ids(&drift).into_iter().collect();
        assert_eq!((drift.len(), distinct.len()), (400, 400));
        generations.insert(rig.data("/v1/status")["generation"].as_u64().unwrap());
        (generations.len() >= 3).then_some(())
    });
}

#[test]
fn withheld_deletes_are_shown_with_the_command_that_lets_them_happen() {
    let rig = MirrorRig::new(200);
    assert_eq!(rig.data("/v1/withheld")["withheld"], json!([]));
    rig.publish(&document(0, 100));
    let withheld = eventually("the guard trips", || {
        let withheld = rig.data("/v1/withheld?limit=3")["withheld"].clone();
        (!withheld.as_array().unwrap().is_empty()).then_some(withheld)
    });
    let of_machines = &withheld[0];
    assert_eq!(
        (&of_machines["type"], &of_machines["deletes"]),
        (&json!("Compute"), &json!(100))
    );
    assert_eq!(of_machines["rows"].as_array().unwrap().len(), 3);
    let command = of_machines["approve"].as_str().unwrap();
    let rest = command.strip_prefix("afferent ").unwrap();
    let program = env!("CARGO_BIN_EXE_afferent");
    let ran = Command::new("sh")
        .args(["-c", &format!("'{program}' {rest}")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{command}: {said}");
    eventually("they are deleted", || {
        (rig.data("/v1/withheld")["withheld"] == json!([])
            && rig.data("/v1/status")["rows"]["Compute"] == json!({"live": 100, "deleted": 100}))
        .then_some(())
    });
}

#[test]
fn status_says_of_each_pull_when_it_was_complete_and_why_it_is_stale() {
    let rig = MirrorRig::new(40);
    let pull = |status: &Value, kind: &str, list: &str| {
        let pulls = status["pulls"].as_array().unwrap().iter();
        let mut found = pulls.filter(|pull| pull["type"] == kind && pull["list"] == list);
        found.next().unwrap().clone()
    };
    let status = rig.data("/v1/status");
    assert_eq!(status["pulls"].as_array().unwrap().len(), 7);
    for (kind, list) in [
        ("rack", "expected"),
        ("Compute", "expected"),
        ("Compute", "observed"),
    ] {
        let pull = pull(&status, kind, list);
        assert_eq!(
            (&pull["state"], &pull["why"]),
            (&json!("complete"), &Value::Null),
            "{status}"
        );
        assert!(pull["complete_at"].is_string());
    }
    let absent = pull(&status, "NVSwitch", "expected");
    assert_eq!(
        (&absent["state"], &absent["complete_at"]),
        (&json!("not read"), &Value::Null)
    );
    assert_eq!(
        status["drift"]["Compute"],
        json!({"mismatch": 1, "missing_in_actual": 38, "missing_in_expected": 1})
    );
    std::fs::write(rig.mirror.path("core.json"), "{").unwrap();
    let broken = eventually("a cycle failed", || {
        let status = rig.data("/v1/status");
        (status["state"] == "degraded").then_some(status)
    });
    let racks = pull(&broken, "rack", "expected");
    assert_eq!(racks["state"], "failed", "{broken}");
    assert!(
        racks["why"].as_str().unwrap().contains("not JSON"),
        "{racks}"
    );
    assert!(racks["complete_at"].is_string(), "{racks}");
    assert_eq!(broken["rows"]["rack"], json!({"live": RACKS}));
}
