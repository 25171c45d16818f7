//! Filters, pages, and the log as it grows.

use crate::support::eventually;
use crate::support::mirror::Mirror;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Two racks, of whose machines each second one is not there; one switch is somewhere else.
fn document(machines: usize) -> Value {
    let rack = |name: &str| {
        json!({"rack_id": name, "metadata": {"name": format!("rack {name}"), "labels": [
            {"key": "chassis.manufacturer", "value": "Q"}, {"key": "chassis.serial-number", "value": name}]}})
    };
    let machine = |n: usize| {
        json!({"bmc_mac_address": format!("02:00:5e:71:00:{n:02x}"), "chassis_serial_number": format!("MC-{n}"), "rack_id": if n.is_multiple_of(2) { "a" } else { "b" },
               "metadata": {"labels": [{"key": "manufacturer", "value": "Foxwell"}, {"key": "slot_id", "value": "3"}]}})
    };
    let there = |n: &usize| n.is_multiple_of(4);
    let device = |n: usize| json!({"id": format!("m-{n}"), "chassis_serial": format!("MC-{n}"), "position": {"physical_slot_number": 4}});
    json!({
        "expected_racks": [rack("a"), rack("b")],
        "expected_machines": (0..machines).map(machine).collect::<Vec<_>>(),
        "actual_machines": (0..machines).filter(there).map(device).collect::<Vec<_>>(),
        "actual_switches": [{"id": "sw-1", "serial_number": "SW-1"}],
    })
}

fn rows(mirror: &Mirror, arguments: &[&str]) -> Vec<Value> {
    let mut all = arguments.to_vec();
    all.push("--json");
    let output = mirror.output(&all);
    assert!(output.status.success(), "{arguments:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// All pages of a question, by their cursors.
fn pages(mirror: &Mirror, arguments: &[&str], key: &str) -> Vec<Vec<Value>> {
    let mut found: Vec<Vec<Value>> = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut all = arguments.to_vec();
        if !cursor.is_empty() {
            all.extend(["--cursor", &cursor]);
        }
        let page = rows(mirror, &all);
        let Some(last) = page.last() else {
            return found;
        };
        cursor = last[key].to_string().trim_matches('"').to_owned();
        found.push(page);
    }
}

#[test]
fn drift_is_asked_for_by_type_rack_and_code_and_in_pages() {
    let mirror = Mirror::new();
    mirror.run(&document(20), &[]);
    let all = rows(&mirror, &["drift"]);
    // 15 machines are not there, 5 are in another slot, and the switch is expected nowhere.
    assert_eq!(all.len(), 21);
    let count = |arguments: &[&str]| rows(&mirror, &[&["drift"], arguments].concat()).len();
    assert_eq!(count(&["--kind", "NVSwitch"]), 1);
    assert_eq!(count(&["--code", "mismatch"]), 5);
    // Machines of rack a have even numbers.
    for name in ["a", "rack a"] {
        assert_eq!(count(&["--rack", name]), 10, "{name}");
        assert_eq!(
            count(&["--rack", name, "--code", "missing_in_actual"]),
            5,
            "{name}"
        );
    }
    assert_eq!(count(&["--rack", "nowhere"]), 0);
    assert_eq!(
        (
            count(&["--since", "2020-01-01T00:00:00Z"]),
            count(&["--since", "2100-01-01T00:00:00Z"])
        ),
        (21, 0)
    );
    let pages = pages(&mirror, &["drift", "--limit", "8"], "id");
    let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(sizes, [8, 8, 5]);
    assert_eq!(pages.concat(), all, "no row twice, and none left out");
    let output = mirror.output(&["drift", "--limit", "8"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let cursor = pages[0][7]["id"].as_str().unwrap();
    assert!(said.contains(&format!("--cursor {cursor}")), "{said}");
}

#[test]
fn the_audit_log_is_asked_for_by_type_and_code_and_in_pages() {
    let mirror = Mirror::new();
    mirror.run(&document(20), &[]);
    let all = rows(&mirror, &["audit"]);
    let count = |arguments: &[&str]| rows(&mirror, &[&["audit"], arguments].concat()).len();
    assert_eq!(count(&["--code", "insert"]), 22);
    assert_eq!(count(&["--code", "insert", "--kind", "rack"]), 2);
    assert_eq!(count(&["--code", "bmc_insert", "--kind", "compute"]), 20);
    let pages = pages(&mirror, &["audit", "--limit", "50"], "number");
    assert!(pages.len() >= 2);
    assert_eq!(pages.concat(), all);
}

/// The loss: whoever asks what happened to a rack is not told of what is no longer in it.
#[test]
fn the_audit_log_of_a_rack_has_what_is_in_it_and_what_came_or_left() {
    let mirror = Mirror::new();
    let mut site = document(4);
    mirror.run(&site, &[]);
    let before = rows(&mirror, &["audit"]).last().unwrap()["number"].to_string();
    // A machine moves from rack a to rack b, another one of a has a new BMC, and one of b another name.
    site["expected_machines"][0]["rack_id"] = json!("b");
    site["expected_machines"][2]["bmc_mac_address"] = json!("02:00:5e:71:00:ff");
    site["expected_machines"][1]["metadata"]["name"] = json!("renamed");
    mirror.run(&site, &[]);
    let log = |rack: &str| -> Vec<(String, String)> {
        let arguments = ["audit", "--rack", rack, "--cursor", &before];
        let log = rows(&mirror, &arguments).into_iter();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        log.map(|row| (text(&row["op"]), text(&row["field"])))
            .collect()
    };
    let expected = |of: &[(&str, &str)]| -> Vec<(String, String)> {
        let of = of.iter();
        of.map(|(op, field)| ((*op).to_owned(), (*field).to_owned()))
            .collect()
    };
    let moved = ("update", "rack_id");
    let mut of_a = log("a");
    of_a.sort();
    let bmcs = [("bmc_hard_delete", ""), ("bmc_insert", ""), moved];
    assert_eq!(of_a, expected(&bmcs));
    let mut of_b = log("rack b");
    of_b.sort();
    assert_eq!(of_b, expected(&[("update", "name"), moved]));
    assert_eq!(log("nowhere"), []);
    // The rack itself and its first machines are in the log from the beginning.
    let inserted = rows(&mirror, &["audit", "--rack", "a", "--code", "insert"]);
    let keys = inserted.iter().map(|row| row["key"].as_str().unwrap());
    let mut keys: Vec<&str> = keys.collect();
    keys.sort_unstable();
    assert_eq!(keys, ["Foxwell/MC-0", "Foxwell/MC-2", "a"]);
}

/// What an operator leaves open in a terminal while something is changed.
#[test]
fn the_audit_log_is_followed_while_others_write_until_nobody_reads() {
    let mirror = Mirror::new();
    mirror.run(&document(4), &[]);
    let before = rows(&mirror, &["audit"]).len();
    let mut following = mirror
        .command(&["audit", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
    for _ in 0..before {
        lines.next().unwrap().unwrap();
    }
    mirror.run(&document(5), &[]);
    let next: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (&next["op"], &next["key"]),
        (&json!("insert"), &json!("Foxwell/MC-4"))
    );
    drop(lines);
    // It notices when it has something to say.
    let mut machines = 6;
    let status = eventually("it ends", || {
        mirror.run(&document(machines), &[]);
        machines += 1;
        following.try_wait().unwrap()
    });
    assert!(status.success());
    let limited = mirror.output(&["audit", "--follow", "--limit", "3"]);
    assert_eq!(
        String::from_utf8(limited.stdout).unwrap().lines().count(),
        3
    );
}

#[test]
fn a_cursor_that_is_none_is_a_usage_error() {
    let mirror = Mirror::new();
    for arguments in [["drift", "--cursor", "x"], ["audit", "--cursor", "x"]] {
        let output: std::process::Output =
            Command::output(&mut mirror.command(&arguments)).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

/// A name of Core's inventory that would be a line of its own, and an order to the terminal.
#[test]
fn a_name_begins_no_line_and_gives_no_order_to_a_terminal() {
    let mirror = Mirror::new();
    let named = |label: &str| {
        let machine = json!({"bmc_mac_address": "02:00:5e:72:00:01", "chassis_serial_number": "MC-1",
            "metadata": {"name": "n\nMC-1 deleted\u{1b}[2J\u{202e}", "labels": [{"key": "manufacturer", "value": label}]}});
        let rack = json!({"rack_id": "a", "metadata": {"name": "r\nforged", "labels": [
            {"key": "chassis.manufacturer", "value": label}, {"key": "chassis.serial-number", "value": "1"}]}});
        json!({"expected_racks": [rack], "expected_machines": [machine], "actual_machines": [{"id": "m\nforged", "chassis_serial": "X"}]})
    };
    let document = named("Fox\u{202e}well");
    let core = format!("file:{}", mirror.file("core.json", &document).display());
    let plan = mirror.output(&["plan", "--core", &core]);
    mirror.run(&document, &[]);
    for (arguments, rows) in [
        (vec!["drift"], rows(&mirror, &["drift"]).len()),
        (vec!["audit"], rows(&mirror, &["audit"]).len()),
        (vec!["explain", "MC-1", "--core", &core], 1),
    ] {
        let shown = String::from_utf8(mirror.output(&arguments).stdout).unwrap();
        assert_eq!(shown.lines().count(), rows, "{arguments:?}: {shown}");
        assert!(
            !shown.contains(['\u{1b}', '\u{202e}']),
            "{arguments:?}: {shown}"
        );
    }
    let plan = String::from_utf8(plan.stdout).unwrap();
    assert!(
        plan.lines()
            .all(|line| line.starts_with("rack ") || line.starts_with("Compute ")),
        "{plan}"
    );
    assert!(!plan.contains(['\u{1b}', '\u{202e}']), "{plan}");
}

/// The loss: a log that grows for ever although somebody bounded it, or one that was cut and explains nothing.
#[test]
fn the_audit_log_is_cut_at_its_bound_and_replays_from_its_checkpoint() {
    let mirror = Mirror::new();
    let machine = |n: usize, name: &str| {
        json!({"bmc_mac_address": format!("02:00:5e:00:00:{n:02x}"), "serial_number": format!("S{n}"),
            "manufacturer": "M", "name": name})
    };
    let document = |name: &str| {
        let machines: Vec<Value> = (1..20).map(|n| machine(n, name)).collect();
        json!({"expected_machines": machines})
    };
    let none = mirror.output(&["audit", "--checkpoint"]);
    assert_eq!(none.status.code(), Some(1));
    assert_eq!(mirror.run(&document("old"), &[]).code, Some(0));
    let whole = mirror.audit().as_array().unwrap().len();
    assert_eq!(whole, 38);
    // Until what the first run wrote is older than a second.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let checkpoint = loop {
        assert_eq!(
            mirror
                .run(&document("new"), &["--audit-max-age", "1s"])
                .code,
            Some(0)
        );
        let output = mirror.output(&["audit", "--checkpoint", "--json"]);
        if output.status.success() {
            break serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
        assert!(std::time::Instant::now() < deadline, "nothing is removed");
    };
    let log = mirror.audit();
    let log = log.as_array().unwrap();
    assert!(log.len() < whole, "{log:?}");
    assert!(log.iter().any(|row| row["op"] == "checkpoint"), "{log:?}");
    // Every machine is in the checkpoint, under the name it had then, or has since.
    let from = checkpoint["replays_from"].as_u64().unwrap();
    let rows = checkpoint["rows"].as_array().unwrap();
    let mut names: BTreeMap<&str, &Value> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["table"] == "component") {
        names.insert(row["row"].as_str().unwrap(), &row["columns"]["name"]);
    }
    assert_eq!(names.len(), 19);
    for row in log
        .iter()
        .filter(|row| row["number"].as_u64() >= Some(from))
    {
        if row["field"] == "name" {
            names.insert(row["row"].as_str().unwrap(), &row["new"]);
        }
    }
    assert!(names.values().all(|name| **name == "new"), "{names:?}");
    let before = mirror.dump();
    let output = mirror.output(&["compact", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bytes = |name: &str| said[name].as_u64().unwrap();
    assert!(bytes("bytes_after") <= bytes("bytes_before"), "{said}");
    assert_eq!(mirror.dump(), before);
    mirror.check();
    for (flag, value) in [("--audit-max-age", "0s"), ("--audit-max-size", "0")] {
        assert_eq!(
            mirror.run(&document("new"), &[flag, value]).code,
            Some(2),
            "{flag}"
        );
    }
}

/// The loss: a page that leaves a row out, or shows one twice, where there are too many to read at once.
#[test]
fn dump_plan_and_explain_are_asked_for_in_pages_that_make_the_whole() {
    let mirror = Mirror::new();
    let mut document = document(6);
    document["expected_machines"][0]["rack_id"] = json!("nowhere");
    let core = mirror.file("core.json", &document);
    let core = format!("file:{}", core.display());
    let json_of = |arguments: &[&str]| -> (Value, Option<String>) {
        let output = mirror.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let more = said
            .split_once("--cursor ")
            .map(|(_, cursor)| cursor.trim().to_owned());
        (serde_json::from_slice(&output.stdout).expect(&said), more)
    };
    let pages = |arguments: &[&str], limit: usize| -> Vec<Value> {
        let limit = limit.to_string();
        let mut pages = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut all = arguments.to_vec();
            all.extend(["--json", "--limit", &limit]);
            all.extend(
                cursor
                    .iter()
                    .flat_map(|cursor| ["--cursor", cursor.as_str()]),
            );
            let (page, more) = json_of(&all);
            pages.push(page);
            match more {
                Some(more) => cursor = Some(more),
                None => return pages,
            }
        }
    };
    let join = |pages: &[Value], list: &str| -> Vec<Value> {
        let lists = pages.iter().map(|page| page[list].as_array().unwrap());
        lists.flatten().cloned().collect()
    };
    let plan = ["plan", "--core", &core];
    let (whole, more) = json_of(&["plan", "--core", &core, "--json"]);
    let changes = whole["changes"].as_array().unwrap();
    assert!(changes.len() > 10 && more.is_none());
    let parts = pages(&plan, 4);
    assert!(parts.len() > 2);
    assert_eq!(&join(&parts, "changes"), changes);
    // By code: a sort of change, or a warning.
    let coded = |code: &str| json_of(&["plan", "--core", &core, "--json", "--code", code]).0;
    let inserts = coded("bmc_insert");
    let of_op = |op: &str| changes.iter().filter(|change| change["op"] == op).count();
    assert_eq!(
        inserts["changes"].as_array().unwrap().len(),
        of_op("bmc_insert")
    );
    assert_eq!(inserts["warnings"], json!([]));
    let warned = coded("unresolved_rack");
    assert_eq!(warned["changes"], json!([]));
    assert_eq!(warned["warnings"].as_array().unwrap().len(), 1);
    let racks = json_of(&["plan", "--core", &core, "--json", "--kind", "rack"]).0;
    let racks = racks["changes"].as_array().unwrap();
    assert!(!racks.is_empty() && racks.iter().all(|change| change["type"] == "rack"));
    assert!(mirror.run(&document, &[]).code.is_some());
    let dumped = mirror.dump();
    let parts = pages(&["dump"], 5);
    assert!(parts.len() > 2);
    for table in ["rack", "component", "bmc", "component_drift", "nvldomain"] {
        assert_eq!(
            &join(&parts, table),
            dumped[table].as_array().unwrap(),
            "{table}"
        );
    }
    let wrong = mirror.output(&["dump", "--cursor", "rack/x"]);
    assert_eq!(wrong.status.code(), Some(2));
    let serial = document["expected_machines"][0]["bmc_mac_address"]
        .as_str()
        .unwrap();
    let explain = ["explain", serial, "--core", &core];
    let (all, _) = json_of(&["explain", serial, "--core", &core, "--json"]);
    assert!(!all["lines"].as_array().unwrap().is_empty());
    assert_eq!(
        &join(&pages(&explain, 1), "lines"),
        all["lines"].as_array().unwrap()
    );
}

/// The loss: a slip that reads as "nothing differs".
#[test]
fn a_filter_that_nothing_can_pass_is_refused_with_what_there_is() {
    let mirror = Mirror::new();
    let core = format!("file:{}", mirror.file("core.json", &json!({})).display());
    for (arguments, said) in [
        (
            vec!["audit", "--since", "yesterday"],
            "--since: \"yesterday\" is neither a time nor a duration such as 1h",
        ),
        (
            vec!["audit", "--kind", "racks"],
            "--kind: \"racks\" is not one of rack, NVLDomain, ",
        ),
        (
            vec!["plan", "--core", &core, "--kind", "machine"],
            "--kind: \"machine\" is not one of rack, NVLDomain, ",
        ),
        (
            vec!["drift", "--kind", "rack"],
            "--kind: \"rack\" is not one of ",
        ),
        (
            vec!["drift", "--code", "missing"],
            "--code: \"missing\" is not one of missing_in_expected, missing_in_actual, mismatch",
        ),
    ] {
        let refused = mirror.output(&arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
}
