//! Every knob set alone, in the profile whose preset it is not; and every spelling of a document.

use crate::support::mirror::{Mirror, finish, without_times};
use afferent::mirror::core::FileCore;
use afferent::mirror::policy::{Policy, Profile};
use afferent::mirror::run::{Gate, Mirror as Service};
use serde_json::{Value, json};

const NATURAL: &str = "natural-key";
const HOST_MAC: &str = "host-mac";

fn machine(n: usize) -> Value {
    entry(n, &format!("MC-{n}"), Some("Foxwell"))
}

fn entry(mac: usize, serial: &str, manufacturer: Option<&str>) -> Value {
    json!({"bmc_mac_address": format!("02:00:5e:51:00:{mac:02x}"), "chassis_serial_number": serial,
           "metadata": {"labels": [{"key": "manufacturer", "value": manufacturer}]}})
}

fn rack(rack_id: &str, name: &str, serial: Option<&str>) -> Value {
    json!({"rack_id": rack_id, "metadata": {"name": name, "labels": [
        {"key": "chassis.manufacturer", "value": "Quanta"}, {"key": "chassis.serial-number", "value": serial}]}})
}

fn machines(entries: Vec<Value>) -> Value {
    Value::from_iter([("expected_machines", Value::Array(entries))])
}

fn racks(entries: Vec<Value>) -> Value {
    Value::from_iter([("expected_racks", Value::Array(entries))])
}

/// What live rows of a table have in a column, sorted.
fn live(mirror: &Mirror, table: &str, column: &str) -> Vec<Value> {
    let dump = mirror.dump();
    let rows = dump[table].as_array().unwrap();
    let rows = rows.iter().filter(|row| row["deleted_at"].is_null());
    let mut values: Vec<Value> = rows.map(|row| row[column].clone()).collect();
    values.sort_by_key(Value::to_string);
    values
}

/// Runs one document after another with a knob; gives the mirror and the last summary.
fn after(profile: &str, knob: [&str; 2], documents: &[Value]) -> (Mirror, Value) {
    let mirror = Mirror::new();
    let mut summary = Value::Null;
    for document in documents {
        let ran = mirror.run(document, &["--profile", profile, knob[0], knob[1]]);
        assert!(
            matches!(ran.code, Some(0 | 3)),
            "{}{}",
            ran.stdout,
            ran.stderr
        );
        summary = ran.summary;
        mirror.check();
    }
    (mirror, summary)
}

#[test]
fn an_empty_response_deletes_only_what_its_knob_lets_it() {
    let fleet = |n: usize| machines((0..n).map(machine).collect());
    for (profile, value, size, left) in [
        (NATURAL, "skip", 3, 3),
        (NATURAL, "authoritative", 30, 0),
        (NATURAL, "guarded", 3, 0),
        (NATURAL, "guarded", 30, 30),
        (HOST_MAC, "skip", 3, 3),
        (HOST_MAC, "authoritative", 30, 0),
        (HOST_MAC, "guarded", 30, 30),
    ] {
        let (mirror, summary) = after(profile, ["--empty", value], &[fleet(size), fleet(0)]);
        assert_eq!(
            live(&mirror, "component", "id").len(),
            left,
            "{profile} {value}"
        );
        let withheld = if value == "guarded" { left } else { 0 };
        assert_eq!(summary["types"]["Compute"]["withheld_deletes"], withheld);
    }
}

#[test]
fn racks_core_never_knew_stay_or_go_as_their_knob_says() {
    for (profile, value, left) in [(NATURAL, "delete", 1), (HOST_MAC, "exempt", 2)] {
        let mirror = Mirror::new();
        mirror.load(
            &json!({"rack": [{"id": "6c1a0a3e-0000-4000-8000-000000000001", "name": "old",
            "manufacturer": "Quanta", "serial_number": "OLD"}]}),
        );
        let core = racks(vec![rack("a", "a", Some("A"))]);
        let ran = mirror.run(&core, &["--profile", profile, "--legacy", value]);
        assert_eq!(live(&mirror, "rack", "id").len(), left, "{profile}");
        assert_eq!(ran.summary["types"]["rack"]["legacy_exempt"], left - 1);
    }
}

#[test]
fn racks_without_chassis_labels_are_kept_or_skipped_as_their_knob_says() {
    let core = [racks(vec![rack("a", "a", Some("A")), rack("b", "b", None)])];
    let (mirror, _) = after(NATURAL, ["--labels", "optional"], &core);
    assert_eq!(live(&mirror, "rack", "external_id"), ["a", "b"]);
    let (mirror, summary) = after(HOST_MAC, ["--labels", "required"], &core);
    assert_eq!(live(&mirror, "rack", "external_id"), ["a"]);
    assert_eq!(summary["types"]["rack"]["skipped_invalid"], 1);
}

#[test]
fn rack_names_are_free_or_unique_as_their_knob_says() {
    let core = [
        racks(vec![
            rack("t", "same", Some("T")),
            rack("u", "u", Some("U")),
        ]),
        racks(vec![rack("u", "u", Some("U"))]),
        racks(vec![
            rack("a", "same", Some("A")),
            rack("b", "same", Some("B")),
            rack("u", "u", Some("U")),
        ]),
    ];
    let (mirror, _) = after(NATURAL, ["--names", "free"], &core);
    assert_eq!(live(&mirror, "rack", "name"), ["same", "same", "u"]);
    assert_eq!(mirror.dump()["rack"].as_array().unwrap().len(), 4);
    let (mirror, summary) = after(HOST_MAC, ["--names", "unique"], &core);
    assert_eq!(live(&mirror, "rack", "external_id"), ["a", "u"]);
    assert_eq!(summary["types"]["rack"]["hard_deleted"], 1);
    assert_eq!(summary["types"]["rack"]["skipped_name_taken"], 1);
}

/// A rack that is left out because another has its chassis still lives under its name.
#[test]
fn a_rack_that_is_left_out_keeps_its_name_from_others() {
    let mirror = Mirror::new();
    let id = |n: u8| format!("6c1a0a3e-0000-4000-8000-00000000000{n}");
    mirror.load(&json!({"rack": [
        {"id": id(1), "name": "x", "manufacturer": "Quanta", "serial_number": "P", "external_id": "a"},
        {"id": id(2), "name": "n", "external_id": "b"}]}));
    let core = racks(vec![
        rack("a", "x", Some("P")),
        rack("b", "other", Some("P")),
        rack("c", "n", None),
    ]);
    let knobs = [
        "--profile",
        HOST_MAC,
        "--names",
        "unique",
        "--duplicates",
        "last",
    ];
    let ran = mirror.run(&core, &knobs);
    assert_eq!(live(&mirror, "rack", "name"), ["n", "x"]);
    assert_eq!(
        ran.codes("warnings"),
        ["duplicate_chassis", "rack_name_taken"]
    );
}

#[test]
fn two_entries_with_one_pair_are_one_row_or_two_as_their_knob_says() {
    let core = [machines(vec![
        entry(1, "S", Some("Foxwell")),
        entry(2, "S", Some("Foxwell")),
    ])];
    let again = [core[0].clone(), core[0].clone()];
    for (profile, value, rows) in [(NATURAL, "both", 2), (HOST_MAC, "last", 1)] {
        let (mirror, summary) = after(profile, ["--duplicates", value], &again);
        assert_eq!(live(&mirror, "component", "id").len(), rows, "{profile}");
        let pairs = live(&mirror, "component", "serial_number");
        assert_eq!(pairs.iter().filter(|serial| serial.is_string()).count(), 1);
        let compute = &summary["types"]["Compute"];
        assert_eq!(
            (&compute["inserted"], &compute["updated"]),
            (&json!(0), &json!(0))
        );
    }
}

#[test]
fn an_absent_position_is_stored_as_its_knob_says() {
    for (profile, value) in [(NATURAL, "-7"), (HOST_MAC, "0")] {
        let knob = ["--unknown-position", value];
        let (mirror, _) = after(profile, knob, &[machines(vec![machine(1)])]);
        assert_eq!(live(&mirror, "component", "slot_id")[0].to_string(), value);
    }
}

#[test]
fn a_description_that_is_gone_is_kept_where_its_knob_says() {
    let with = |mut entry: Value| {
        entry["metadata"]["description"] = json!("words");
        entry
    };
    let both = |rack: Value, machine: Value| json!({"expected_racks": [rack], "expected_machines": [machine]});
    let plain = || (rack("a", "a", Some("A")), machine(1));
    let core = [
        both(with(plain().0), with(plain().1)),
        both(plain().0, plain().1),
    ];
    for profile in [NATURAL, HOST_MAC] {
        let (mirror, _) = after(profile, ["--clear", "preserve"], &core);
        assert_eq!(
            live(&mirror, "rack", "description"),
            [json!({"text": "words"})]
        );
        let (cleared, _) = after(profile, ["--clear", "clear"], &core);
        assert_eq!(live(&cleared, "rack", "description"), [Value::Null]);
        assert_eq!(live(&cleared, "component", "description"), [Value::Null]);
        let kept = match profile {
            NATURAL => Value::Null,
            _ => json!({"expected_description": "words"}),
        };
        assert_eq!(live(&mirror, "component", "description"), [kept]);
    }
}

#[test]
fn a_component_is_recognised_as_its_knob_says() {
    let core = [
        machines(vec![entry(1, "S1", Some("Foxwell")), entry(2, "S2", None)]),
        machines(vec![entry(1, "S3", Some("Foxwell")), entry(2, "S2", None)]),
    ];
    let (mirror, summary) = after(NATURAL, ["--identity", "host-mac"], &core);
    assert_eq!(live(&mirror, "component", "serial_number"), ["S2", "S3"]);
    assert_eq!(summary["types"]["Compute"]["updated"], 1);
    let (mirror, summary) = after(HOST_MAC, ["--identity", "pair"], &core);
    assert_eq!(live(&mirror, "component", "serial_number"), ["S3"]);
    assert_eq!(summary["types"]["Compute"]["skipped_invalid"], 1);
    assert_eq!(summary["types"]["Compute"]["soft_deleted"], 1);
}

/// Somebody pastes what another program printed, in its own spelling.
#[test]
fn every_spelling_of_a_document_means_the_same() {
    let snake = json!({
        "expected_racks": [{"rack_id": {"id": "r"}, "rack_profile_id": {"id": "P"}, "metadata": {"name": "R", "labels": [
            {"key": "chassis.manufacturer", "value": "Q"}, {"key": "chassis.serial-number", "value": "1"}, {"key": "location.room"}]}}],
        "expected_machines": [{"bmc_mac_address": "02:00:5e:51:00:01", "bmc_ip_address": "10.0.0.1", "chassis_serial_number": "M",
            "rack_id": {"id": "r"}, "metadata": {"name": "m", "labels": [{"key": "manufacturer", "value": "F"}, {"key": "slot_id", "value": "4"}]}}],
        "expected_switches": [{"bmc_mac_address": "02:00:5e:51:00:02", "switch_serial_number": "S", "rack_id": {"id": null},
            "metadata": {"labels": [{"key": "manufacturer", "value": "F"}]}}],
        "expected_power_shelves": [{"bmc_mac_address": "02:00:5e:51:00:03", "shelf_serial_number": "P", "ip_address": "10.0.0.3", "bmc_ip_address": "",
            "metadata": {"labels": [{"key": "manufacturer", "value": "F"}]}}]});
    let camel = json!({
        "expectedRacks": [{"rackId": "r", "rackProfileId": "P", "name": "R", "labels": {
            "chassis.manufacturer": "Q", "chassis.serial-number": "1", "location.room": null, "else": ["where"]}}],
        "expectedMachines": [{"bmcMacAddress": "0200.5e51.0001", "bmcIpAddress": "10.0.0.1", "chassisSerialNumber": "M",
            "rackId": "r", "name": "m", "manufacturer": "F", "slotId": 4}],
        "expectedSwitches": [{"bmcMacAddress": "02-00-5E-51-00-02", "switchSerialNumber": "S", "rackId": "",
            "metadata": {"labels": {"manufacturer": "F"}}}],
        "expectedPowerShelves": [{"bmcMacAddress": "02005e510003", "shelfSerialNumber": "P", "ipAddress": "10.0.0.3", "manufacturer": "F"}]});
    for profile in [NATURAL, HOST_MAC] {
        let mirror = Mirror::new();
        let first = mirror.run(&snake, &["--profile", profile]);
        assert_eq!(first.code, Some(0), "{}{}", first.stdout, first.stderr);
        assert_eq!(first.codes("warnings"), [""; 0]);
        assert_eq!(live(&mirror, "component", "serial_number"), ["M", "P", "S"]);
        let before = mirror.dump();
        let second = mirror.run(&camel, &["--profile", profile]);
        assert_eq!(second.code, Some(0), "{}{}", second.stdout, second.stderr);
        assert_eq!(mirror.dump(), before, "{profile}");
    }
}

#[test]
fn a_type_that_is_missing_or_failed_keeps_its_rows_and_stops_no_other() {
    let switch = json!([{"bmc_mac_address": "02:00:5e:51:00:02", "switch_serial_number": "S",
        "metadata": {"labels": [{"key": "manufacturer", "value": "F"}]}}]);
    for (profile, switches, code) in [
        (NATURAL, None, 0),
        (HOST_MAC, None, 0),
        (NATURAL, Some(json!({"error": "down"})), 1),
        (HOST_MAC, Some(json!({"error": "down"})), 1),
        (HOST_MAC, Some(json!("text")), 1),
    ] {
        let mirror = Mirror::new();
        let mut core = json!({"expected_machines": [machine(1)], "expected_switches": switch});
        mirror.run(&core, &["--profile", profile]);
        core["expected_machines"] = json!([machine(1), machine(2)]);
        match &switches {
            Some(switches) => core["expected_switches"] = switches.clone(),
            None => drop(core.as_object_mut().unwrap().remove("expected_switches")),
        }
        let ran = mirror.run(&core, &["--profile", profile]);
        assert_eq!(ran.code, Some(code), "{}", ran.stdout);
        assert_eq!(
            live(&mirror, "component", "serial_number"),
            ["MC-1", "MC-2", "S"]
        );
        let failed: &[&str] = if code == 1 {
            &["pull_failed:NVSwitch"]
        } else {
            &[]
        };
        assert_eq!(ran.codes("errors"), failed);
    }
}

/// An entry that is there twice may stand where another one was.
#[test]
fn a_document_with_one_entry_twice_deletes_nothing() {
    let with_id = |n: usize, id: &str| {
        let mut entry = machine(n);
        entry["id"] = json!(id);
        entry
    };
    for (ids, left, code) in [(["a", "a"], 3, 1), (["a", "b"], 2, 0), (["", ""], 2, 0)] {
        let mirror = Mirror::new();
        mirror.run(&machines((0..3).map(machine).collect()), &[]);
        let twice = machines(vec![with_id(0, ids[0]), with_id(1, ids[1])]);
        let ran = mirror.run(&twice, &[]);
        assert_eq!(ran.code, Some(code), "{}", ran.stdout);
        assert_eq!(live(&mirror, "component", "id").len(), left, "{ids:?}");
    }
}

#[test]
fn the_gate_is_read_alike_in_both_profiles_unless_it_is_empty() {
    for (profile, value, mirrored) in [
        (NATURAL, None, true),
        (HOST_MAC, None, true),
        (NATURAL, Some("T"), true),
        (HOST_MAC, Some("0"), false),
        (NATURAL, Some("yes"), false),
        (HOST_MAC, Some("yes"), false),
        (NATURAL, Some(""), false),
        (HOST_MAC, Some(""), true),
    ] {
        let mirror = Mirror::new();
        let core = mirror.file("core.json", &machines(vec![machine(1)]));
        let core = format!("file:{}", core.display());
        let run = [
            "run",
            "--once",
            "--json",
            "--core",
            &core,
            "--profile",
            profile,
        ];
        let mut command = mirror.command(&run);
        command.envs(value.map(|value| ("AFFERENT_EXPECTED_INVENTORY_SYNC_ENABLED", value)));
        let ran = finish(&command.output().unwrap());
        assert_eq!(ran.summary["mirror_ran"], mirrored, "{profile} {value:?}");
        let unclear = matches!((profile, value), (_, Some("yes")) | (NATURAL, Some("")));
        assert_eq!(
            ran.codes("warnings").contains(&"gate_not_boolean".into()),
            unclear
        );
        assert_eq!(ran.code, Some(0));
    }
}

/// A position that was observed in part says nothing about the rest where 0 may mean "unknown".
#[test]
fn what_an_observed_position_leaves_out_is_drift_only_under_host_mac() {
    let position = |position: Value| {
        let mut core = machines(vec![machine(1)]);
        let labels = core["expected_machines"][0]["metadata"]["labels"]
            .as_array_mut()
            .unwrap();
        labels.push(json!({"key": "slot_id", "value": "2"}));
        core["actual_machines"] = json!([{"id": "m-1", "chassis_serial": "MC-1",
            "bmc_mac": "02:00:5e:51:00:01", "position": position}]);
        core
    };
    for (profile, observed, mismatches) in [
        (NATURAL, json!({"physical_slot_number": 2}), 0),
        (NATURAL, json!({"physical_slot_number": 3}), 1),
        (NATURAL, json!({"physical_slot_number": null}), 0),
        (NATURAL, Value::Null, 1),
        (HOST_MAC, json!({"physical_slot_number": 2}), 0),
        (HOST_MAC, json!({"physical_slot_number": null}), 1),
        (HOST_MAC, Value::Null, 1),
    ] {
        let mirror = Mirror::new();
        mirror.run(&position(observed.clone()), &["--profile", profile]);
        let drift = mirror.dump()["component_drift"].clone();
        assert_eq!(
            drift.as_array().unwrap().len(),
            mismatches,
            "{profile} {observed}"
        );
    }
}

/// A service that was started with an approval would otherwise delete unasked from then on.
#[test]
fn an_approval_ends_with_the_cycle_it_was_given_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("core.json");
    let write = |numbers: std::ops::Range<usize>| {
        let core = machines(numbers.map(machine).collect());
        std::fs::write(&path, core.to_string()).unwrap();
    };
    let mut policy = Policy::of(Profile::NaturalKey);
    policy.approve_deletes = Some(50);
    let store = afferent::mirror::open(&directory.path().join("state")).unwrap();
    let core = Box::new(FileCore::at_path(path.clone(), None));
    let mut service = Service::new(store, core, policy, Gate::Unset);
    write(0..100);
    assert_eq!(service.once().types["Compute"].inserted, 100);
    write(0..60);
    assert_eq!(service.once().types["Compute"].withheld_deletes, 40);
    service.policy.approve_deletes = Some(50);
    assert_eq!(service.once().types["Compute"].soft_deleted, 40);
}

/// The same, whoever comes first in the response.
#[test]
fn the_order_of_a_document_changes_nothing_under_any_knob() {
    let entries = vec![
        entry(1, "S", Some("Foxwell")),
        entry(2, "S", Some("Foxwell")),
        entry(2, "T", Some("Foxwell")),
        entry(3, "U", None),
    ];
    let back: Vec<Value> = entries.iter().rev().cloned().collect();
    for profile in [NATURAL, HOST_MAC] {
        for knob in [
            ["--duplicates", "last"],
            ["--duplicates", "both"],
            ["--identity", "pair"],
            ["--identity", "host-mac"],
        ] {
            let (mirror, _) = after(profile, knob, &[machines(entries.clone())]);
            let before = without_times(&mirror.dump());
            let knobs = ["--profile", profile, knob[0], knob[1]];
            mirror.run(&machines(back.clone()), &knobs);
            assert_eq!(without_times(&mirror.dump()), before, "{profile} {knob:?}");
        }
    }
}

#[test]
fn components_whose_racks_were_not_pulled_are_one_warning_with_their_number() {
    let in_rack = |n: usize, rack: &str| {
        let mut machine = machine(n);
        machine["rack_id"] = json!(rack);
        machine
    };
    let document = machines(vec![in_rack(1, "r1"), in_rack(2, "r2"), machine(3)]);
    let (_, summary) = after(NATURAL, ["--clear", "preserve"], &[document]);
    let warnings = summary["warnings"].as_array().unwrap().iter();
    let mut warnings = warnings.filter(|warning| warning["code"] == "unresolved_racks");
    let message = warnings.next().unwrap()["message"].to_string();
    assert!(message.contains("2 components"), "{message}");
    assert_eq!(warnings.next(), None, "{summary}");
}
