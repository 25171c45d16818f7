//! What people do with a mirror: plan, approve, look back, put back.

use crate::support::mirror::{Mirror, finish, without_times};
use serde_json::{Value, json};
use std::path::Path;

fn machine(n: usize) -> Value {
    json!({"bmc_mac_address": format!("02:00:5e:50:00:{n:02x}"), "chassis_serial_number": format!("MC-{n}"),
           "metadata": {"labels": [{"key": "manufacturer", "value": "Foxwell"}]}})
}

fn machines(numbers: impl IntoIterator<Item = usize>) -> Value {
    json!({"expected_machines": numbers.into_iter().map(machine).collect::<Vec<_>>()})
}

fn rack(rack_id: Option<&str>, name: &str, manufacturer: &str, serial: &str) -> Value {
    json!({"rack_id": rack_id, "metadata": {"name": name, "labels": [
        {"key": "chassis.manufacturer", "value": manufacturer}, {"key": "chassis.serial-number", "value": serial}]}})
}

fn live(mirror: &Mirror) -> usize {
    let dump = mirror.dump();
    let rows = dump["component"].as_array().unwrap();
    rows.iter()
        .filter(|row| row["deleted_at"].is_null())
        .count()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Core answers with half the fleet after a migration gone wrong.
#[test]
fn too_many_deletes_wait_for_somebody_who_says_how_many() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..40), &[]);
    let ran = mirror.run(&machines(0..20), &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.stdout);
    assert_eq!(ran.codes("warnings"), ["guard_tripped"]);
    assert_eq!(ran.summary["types"]["Compute"]["withheld_deletes"], 20);
    assert_eq!(ran.summary["withheld"].as_array().unwrap().len(), 20);
    assert_eq!(live(&mirror), 40);
    // Said once in the log, not with every cycle.
    mirror.run(&machines(0..20), &[]);
    let audit = mirror.audit();
    let withheld = audit
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["op"] == "withhold");
    assert_eq!(withheld.count(), 20);
    assert_eq!(
        mirror
            .run(&machines(0..20), &["--approve-deletes", "19"])
            .code,
        Some(3)
    );
    assert_eq!(live(&mirror), 40);
    assert_eq!(
        mirror
            .run(&machines(0..20), &["--approve-deletes", "20"])
            .code,
        Some(0)
    );
    assert_eq!(live(&mirror), 20);
}

/// Upserts go on while deletes wait.
#[test]
fn a_tripped_guard_withholds_deletes_and_nothing_else() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..40), &[]);
    let ran = mirror.run(&machines((0..20).chain([99])), &[]);
    assert_eq!(
        (ran.code, &ran.summary["types"]["Compute"]["inserted"]),
        (Some(3), &json!(1))
    );
}

#[test]
fn a_row_must_be_missing_as_often_as_asked_before_it_goes() {
    let mirror = Mirror::new();
    let grace = ["--delete-grace", "3"];
    mirror.run(&machines(0..2), &grace);
    let failed = json!({"expected_machines": {"error": "down"}});
    let only = machines(0..1);
    let both = machines(0..2);
    for (document, left) in [
        (&only, 2),
        (&only, 2),
        (&both, 2),
        (&only, 2),
        (&failed, 2),
        (&only, 2),
        (&only, 1),
    ] {
        mirror.run(document, &grace);
        assert_eq!(live(&mirror), left);
    }
}

#[test]
fn a_plan_prints_the_same_bytes_twice_and_writes_nothing() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..3), &[]);
    let document = json!({
        "expected_machines": [machine(1), machine(7)],
        "expected_racks": [rack(Some("z"), "rz", "Quanta", "1"), rack(None, "mz", "Mfg", "Z"),
                           rack(Some("a"), "ra", "Quanta", "2"), rack(None, "ma", "Mfg", "A")],
    });
    let core = mirror.file("core.json", &document);
    let core = format!("file:{}", core.display());
    let before = mirror.dump();
    for spelling in [vec!["plan"], vec!["run", "--plan"]] {
        for json in [&[][..], &["--json"][..]] {
            let mut arguments = spelling.clone();
            arguments.extend(["--core", &core]);
            arguments.extend(json);
            let (one, two) = (mirror.output(&arguments), mirror.output(&arguments));
            assert_eq!(text(&one.stdout), text(&two.stdout));
            assert!(!one.stdout.is_empty());
        }
    }
    assert_eq!(mirror.dump(), before);
    let plan = mirror.output(&["plan", "--json", "--core", &core]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    let racks = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|c| c["table"] == "rack");
    let names: Vec<&Value> = racks.map(|change| &change["new"]["name"]).collect();
    assert_eq!(
        names,
        ["ra", "rz", "ma", "mz"],
        "rack_id order, then those without"
    );
}

#[test]
fn a_saved_plan_does_what_it_says_once() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..3), &[]);
    let core = mirror.file("core.json", &machines(1..5));
    let core = format!("file:{}", core.display());
    let file = mirror.path("plan.json");
    let file = file.to_str().unwrap();
    let saved = mirror.output(&["plan", "--core", &core, "--plan-out", file]);
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    let plan: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let output = mirror.output(&["apply", file, "--core", &core, "--json"]);
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(summary["types"], plan["plan"]["types"]);
    assert_eq!(live(&mirror), 4);
    let again = mirror.output(&["apply", file, "--core", &core, "--json"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stdout).contains("plan_stale"));
    let broken = mirror.file("broken.json", &json!({"format": 1}));
    let refused = mirror.output(&["apply", broken.to_str().unwrap(), "--core", &core]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn the_audit_log_is_found_by_run_row_and_time() {
    let mirror = Mirror::new();
    let first = mirror.run(&machines(0..1), &[]);
    let mut renamed = machines(0..1);
    renamed["expected_machines"][0]["metadata"]["name"] = json!("another");
    let second = mirror.run(&renamed, &[]);
    let ask = |arguments: &[&str]| -> Vec<Value> {
        let mut all = vec!["audit", "--json"];
        all.extend(arguments);
        serde_json::from_slice(&mirror.output(&all).stdout).unwrap()
    };
    let run = second.summary["run"].as_str().unwrap();
    let rows = ask(&["--run", run]);
    assert_eq!(rows.len(), 1);
    assert_eq!(
        [
            &rows[0]["op"],
            &rows[0]["field"],
            &rows[0]["old"],
            &rows[0]["new"]
        ],
        ["update", "name", "MC-0", "another"]
    );
    assert!(rows[0]["source"].as_str().unwrap().starts_with("file:"));
    assert_eq!(ask(&["--row", "02:00:5e:50:00:00"]).len(), 1);
    assert_eq!(ask(&["--row", "Foxwell/MC-0"]).len(), 2);
    let time = rows[0]["time"].as_str().unwrap();
    assert!(
        ask(&["--until", time])
            .iter()
            .all(|row| row["run"] == first.summary["run"])
    );
    assert!(ask(&["--since", time]).iter().any(|row| row["run"] == run));
    let lately = ask(&["--since", "1h", "--kind", "compute"]);
    assert!(lately.iter().any(|row| row["run"] == run));
    assert_eq!(lately, ask(&["--kind", "Compute"]));
    assert_eq!(ask(&["--until", "1h"]).len(), 0);
}

#[test]
fn a_hard_deleted_row_can_be_put_back_from_the_log() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..1), &[]);
    let mut moved = machines(0..1);
    moved["expected_machines"][0]["bmc_mac_address"] = json!("02:00:5e:50:00:77");
    mirror.run(&moved, &[]);
    let audit = mirror.audit();
    let gone = audit
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["op"] == "bmc_hard_delete")
        .unwrap();
    let mut dump = mirror.dump();
    dump["bmc"] = json!([gone["old"]]);
    mirror.load(&dump);
    assert_eq!(mirror.dump()["bmc"][0]["mac_address"], "02:00:5e:50:00:00");
    mirror.check();
}

#[test]
fn a_dump_loads_to_the_same_tables_and_again_to_nothing_new() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..5), &[]);
    mirror.run(&machines(0..3), &[]);
    let dump = mirror.dump();
    let other = Mirror::new();
    other.load(&dump);
    assert_eq!(other.dump(), dump);
    let audit = other.audit();
    let entries = audit.as_array().unwrap().len();
    let types: std::collections::BTreeSet<&str> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["Compute", "bmc"].into());
    other.load(&dump);
    assert_eq!(other.audit().as_array().unwrap().len(), entries);
}

#[test]
fn what_cannot_be_loaded_is_named_and_changes_nothing() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..2), &[]);
    let before = without_times(&mirror.dump());
    let id = "5c3e0000-0000-4000-8000-000000000001";
    let twin = "5c3e0000-0000-4000-8000-000000000002";
    let component =
        |id: &str| json!({"id": id, "type": "Compute", "manufacturer": "M", "serial_number": "S"});
    let cases = [
        (json!([]), 2, "not a JSON object"),
        (json!({"racks": []}), 2, "racks: no such table"),
        (json!({"rack": [{"id": id}]}), 2, "column name"),
        (
            json!({"component": [{"id": id, "type": "Toaster"}]}),
            2,
            "column type",
        ),
        (
            json!({"component": [component(id), component(twin)]}),
            1,
            "belongs to two rows",
        ),
        (
            json!({"component": [component(id), component(id)]}),
            1,
            "is there twice",
        ),
    ];
    for (document, code, words) in cases {
        let path = mirror.file("bad.json", &document);
        let output = mirror.output(&["load", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(code), "{document}");
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
        assert_eq!(without_times(&mirror.dump()), before);
    }
}

#[test]
fn explain_names_the_rule_by_any_name_of_the_thing() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..2), &[]);
    let core = mirror.file(
        "core.json",
        &json!({"expected_machines": [
        machine(0), {"bmc_mac_address": "02:00:5e:50:00:01", "chassis_serial_number": "MC-9",
                     "metadata": {"labels": [{"key": "manufacturer", "value": "Foxwell"}]}},
        {"bmc_mac_address": "nonsense", "chassis_serial_number": "MC-8",
         "metadata": {"labels": [{"key": "manufacturer", "value": "Foxwell"}]}}]}),
    );
    let core = format!("file:{}", core.display());
    let explain = |key: &str| {
        let output = mirror.output(&["explain", key, "--core", &core]);
        (output.status.code(), text(&output.stdout))
    };
    for (key, words) in [
        ("MC-0", "identity: same pair"),
        ("02-00-5E-50-00-00", "identity: same pair"),
        ("Foxwell/MC-9", "gets a new row"),
        ("02:00:5e:50:00:01", "bmc_evict"),
        ("Foxwell/MC-1", "nobody claimed it: deleted"),
        ("MC-8", "invalid_mac"),
    ] {
        let (code, said) = explain(key);
        assert!(code == Some(0) && said.contains(words), "{key}: {said}");
    }
    assert_eq!(explain("no such thing").0, Some(1));
    mirror.run_from(&core, &[]);
    let (code, said) = explain("Foxwell/MC-1");
    assert!(code == Some(0) && said.contains("a tombstone"), "{said}");
}

#[test]
fn wrong_settings_end_with_2_because_3_means_withheld() {
    let mirror = Mirror::new();
    let core = mirror.file("core.json", &machines(0..1));
    let core = format!("file:{}", core.display());
    let run = ["run", "--once", "--core", core.as_str()];
    for (more, words) in [
        (vec!["--names", "funny"], "unique, free"),
        (vec!["--delete-grace", "-1"], "delete-grace"),
        (vec!["--unknown-position", "x"], "unknown-position"),
    ] {
        let output = mirror.output(&[&run[..], &more].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(
            text(&output.stderr).contains(words),
            "{}",
            text(&output.stderr)
        );
    }
    for core in ["inventory.json", "ftp://h", "https://user:secret@h/"] {
        let output = mirror.output(&["run", "--once", "--core", core]);
        assert_eq!(output.status.code(), Some(2));
        assert!(!text(&output.stderr).contains("secret"));
    }
    // What paths are added to, and what no server is sent.
    for (core, org, said) in [
        ("http://h/#f", Some("o"), "fragment"),
        ("http://h/?x=1", Some("o"), "query"),
        ("http:///x", Some("o"), "no host"),
        ("http://h:0/x", Some("o"), "no port"),
        ("http://h/doc.json?key=1#f", None, "fragment"),
        ("https://-h-/doc.json?key=1", None, "no host"),
    ] {
        let mut arguments = vec!["run", "--once", "--core", core];
        arguments.extend(org.iter().flat_map(|org| ["--org", org]));
        let output = mirror.output(&arguments);
        assert_eq!(output.status.code(), Some(2), "{core}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains("--core") && stderr.contains(said),
            "{core}: {stderr}"
        );
    }
    let config = mirror.path("mirror.toml");
    std::fs::write(&config, "nmaes = \"free\"\n").unwrap();
    let output = mirror.output(&[&run[..], &["--config", config.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("nmaes"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn flags_win_over_the_environment_over_the_file() {
    let mirror = Mirror::new();
    let document = json!({"expected_machines": [machine(0)]});
    let core = mirror.file("core.json", &document);
    let config = mirror.path("mirror.toml");
    std::fs::write(&config, "unknown_position = -7\nprofile = \"host-mac\"\n").unwrap();
    let core = format!("file:{}", core.display());
    let run = |more: &[&str], environment: &[(&str, &str)]| {
        let mut arguments = vec![
            "run",
            "--once",
            "--core",
            &core,
            "--config",
            config.to_str().unwrap(),
        ];
        arguments.extend(more);
        let mut command = mirror.command(&arguments);
        command.envs(environment.iter().copied());
        assert!(command.output().unwrap().status.success());
        mirror.dump()["component"][0]["slot_id"].clone()
    };
    assert_eq!(run(&[], &[]), -7);
    assert_eq!(run(&[], &[("AFFERENT_UNKNOWN_POSITION", "-6")]), -6);
    assert_eq!(
        run(
            &["--unknown-position", "-5"],
            &[("AFFERENT_UNKNOWN_POSITION", "-6")]
        ),
        -5
    );
}

#[test]
fn the_answer_of_a_run_is_json_on_standard_output_and_nothing_else() {
    let mirror = Mirror::new();
    let ran = mirror.run(
        &json!({"expected_machines": [{"chassis_serial_number": "X"}]}),
        &[],
    );
    assert_eq!(ran.stdout.lines().count(), 1);
    assert_eq!(ran.code, Some(0));
    assert_eq!(ran.summary["types"]["Compute"]["skipped_invalid"], 1);
    let codes = ran.codes("warnings");
    assert!(
        codes
            .iter()
            .all(|code| code == "component_missing_identity"),
        "{codes:?}"
    );
}

/// One long list costs itself only, and a document may be longer than any of its lists.
#[test]
fn a_cap_is_one_of_each_list_and_not_of_the_document() {
    let machines = |kind: u8, count: u32| -> Value {
        let entry = |n: u32| {
            json!({"bmc_mac_address": format!("02:00:5e:{kind:02x}:{:02x}:{:02x}", n >> 8, n & 255),
                   "serial_number": format!("{kind}-{n}"), "manufacturer": "Foxwell", "description": "x".repeat(400)})
        };
        (0..count).map(entry).collect()
    };
    let document = json!({
        "expected_machines": machines(1, 1800), "expected_switches": machines(2, 1800), "expected_power_shelves": machines(3, 2200),
    });
    assert!(document.to_string().len() > 2 << 20);
    let mirror = Mirror::new();
    let ran = mirror.run(&document, &["--core-list-cap", "1"]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert_eq!(ran.codes("errors"), ["pull_failed:PowerShelf"]);
    for (kind, pulled) in [("Compute", 1800), ("NVSwitch", 1800), ("PowerShelf", 0)] {
        assert_eq!(ran.summary["types"][kind]["inserted"], pulled, "{kind}");
    }
    let ran = mirror.run(&document, &["--core-list-cap", "2"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
}

/// The loss: a site of the size that is promised, whose lists are refused once somebody describes what is in them. A list
/// grows with its entries: a 128th of them under a 128th of the cap says the same of all.
#[test]
fn the_largest_site_with_long_descriptions_fits_the_default_cap() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/config/mirror.toml");
    let config = std::fs::read_to_string(config).unwrap();
    assert!(config.contains("\n#core_list_cap = 128\n"), "{config}");
    let counts = [100_000_u32, 50_000, 44_000].map(|count| count.div_ceil(128));
    let entries = |kind: u8, count: u32| -> Value {
        let label = |key: &str, value: &str| json!({"key": key, "value": value});
        let entry = |n: u32| {
            json!({"bmc_mac_address": format!("02:00:5e:{kind:02x}:{:02x}:{:02x}", n >> 8, n & 255),
                   "bmc_ip_address": format!("fd00:1234:5678:9abc:def0:{kind:x}:{n:x}:1"), "chassis_serial_number": format!("{n:032}"),
                   "rack_id": {"id": format!("{n:036}")}, "metadata": {
                       "name": format!("{n:064}"), "description": "x".repeat(640), "labels": [
                           label("manufacturer", &format!("{kind:032}")), label("model", &"m".repeat(32)),
                           label("slot_id", "47"), label("tray_idx", "17"), label("host_id", "1")]}})
        };
        (1..=count).map(entry).collect()
    };
    let document = json!({
        "expected_machines": entries(1, counts[0]), "expected_switches": entries(2, counts[1]),
        "expected_power_shelves": entries(3, counts[2]),
    });
    let longest = document["expected_machines"].to_string().len();
    assert!(longest > 900_000, "{longest} bytes are no test of 1 MiB");
    let mirror = Mirror::new();
    let ran = mirror.run(&document, &["--core-list-cap", "1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let kinds = ["Compute", "NVSwitch", "PowerShelf"];
    assert_eq!(
        kinds.map(|kind| ran.summary["types"][kind]["inserted"].clone()),
        counts
    );
}

/// Loss prevented: the help promises standard input, and the flag is refused as unknown.
#[test]
fn a_dump_is_loaded_from_standard_input() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..3), &[]);
    let dump = mirror.file("dump.json", &mirror.dump());
    let other = Mirror::new();
    for before in [&["load", "-"][..], &["load", "--json", "-"]] {
        let mut command = other.command(before);
        command.stdin(std::fs::File::open(&dump).unwrap());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(live(&other), 3);
    }
}

/// Loss prevented: somebody approves the deletes of a plan, and they are withheld without a word.
#[test]
fn deletes_of_a_saved_plan_may_be_approved_when_it_is_carried_out() {
    let mirror = Mirror::new();
    mirror.run(&machines(0..40), &[]);
    let half = mirror.file("half.json", &machines(0..20));
    let core = format!("file:{}", half.display());
    let plan = mirror.path("plan.json");
    let file = plan.to_str().unwrap();
    mirror.output(&["plan", "--core", &core, "--plan-out", file]);
    let apply = |deletes: &str| {
        let flags = ["apply", file, "--core", &core, "--approve-deletes", deletes];
        mirror.output(&flags).status.code()
    };
    assert_eq!(apply("19"), Some(3));
    assert_eq!(live(&mirror), 40);
    mirror.output(&["plan", "--core", &core, "--plan-out", file]);
    assert_eq!(apply("20"), Some(0));
    assert_eq!(live(&mirror), 20);
}

#[test]
fn a_plan_makes_neither_a_directory_nor_a_store() {
    let mirror = Mirror::new();
    let core = mirror.file("core.json", &machines(0..3));
    let core = format!("file:{}", core.display());
    let output = mirror.output(&["plan", "--core", &core, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(plan.to_string().contains("MC-2"), "{plan}");
    assert!(!mirror.state().exists());
}

/// A Core that gives one address to a whole hall must not fill the log with it.
#[test]
fn shared_addresses_are_named_up_to_ten_and_counted_from_there() {
    let machine = |n: usize| {
        let mut machine = machine(n);
        // One address for most, and one that says that there is none.
        let ip = if n < 200 { "10.0.0.1" } else { "0.0.0.0" };
        machine["bmc_ip_address"] = json!(ip);
        machine
    };
    let document = json!({"expected_machines": (0..250).map(machine).collect::<Vec<_>>()});
    let ran = Mirror::new().run(&document, &[]);
    assert_eq!(ran.codes("warnings"), ["duplicate_bmc_ip"; 11]);
    let last = ran.summary["warnings"][10]["message"].as_str().unwrap();
    assert!(last.contains("189 more"), "{last}");
}

// The loss: a mirror that does nothing any more, because what it reads is a FIFO to which nobody writes.
#[test]
fn inventory_that_is_no_regular_file_is_a_failed_pull_at_once_and_standard_input_is_read() {
    let mirror = Mirror::new();
    let fifo = mirror.path("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    for path in [fifo.as_path(), std::path::Path::new("/dev/zero")] {
        let ran = mirror.run_from(&format!("file:{}", path.display()), &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        let errors = ran.summary["errors"].to_string();
        assert!(errors.contains("is no regular file"), "{errors}");
    }
    let document = mirror.file("core.json", &json!({"expected_machines": [machine(0)]}));
    let mut cat = std::process::Command::new("cat")
        .arg(document)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut command = mirror.command(&["run", "--once", "--json", "--core", "file:/dev/stdin"]);
    let output = command.stdin(cat.stdout.take().unwrap()).output().unwrap();
    assert!(cat.wait().unwrap().success());
    let ran = finish(&output);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.summary["types"]["Compute"]["inserted"], 1);
}
