//! What consumers are promised, by `docs/schema`: that the judge of every other test is a judge, and
//! documents that no other test makes a sensor deliver.

use crate::support::central::Central;
use crate::support::documents::{
    EVENTS, KINDS, as_consumers_read, judge, judged, key_fits, lines, schema,
};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{JETSTREAM, NatsServer};
use crate::support::program::Program;
use boon::{Compiler, Schemas};
use serde_json::{Value, json};
use std::path::Path;

const METASCHEMA: &str = "https://json-schema.org/draft/2020-12/schema";

/// Words of JSON Schema that the schemas may have: a misspelt one would hold nothing.
const KEYWORDS: [&str; 21] = [
    "$schema",
    "$id",
    "$ref",
    "$defs",
    "title",
    "description",
    "type",
    "const",
    "enum",
    "properties",
    "additionalProperties",
    "required",
    "items",
    "not",
    "anyOf",
    "oneOf",
    "pattern",
    "format",
    "maxLength",
    "minimum",
    "maximum",
];

#[test]
fn schemas_are_schemas_and_tell_people_what_every_property_is() {
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    let metaschema = compiler.compile(METASCHEMA, &mut schemas).unwrap();
    for kind in KINDS {
        let schema = schema(kind);
        assert_eq!(schema["$schema"], METASCHEMA);
        assert_eq!(schema["$id"], format!("urn:afferent:schema:{kind}:2"));
        let validated = schemas.validate(&schema, metaschema);
        validated.unwrap_or_else(|error| panic!("{kind}: {error:#}"));
        assert_described(kind, &schema);
    }
    for (place, value) in [
        ("/properties/vm", json!(5)),
        ("/required", json!("vm")),
        ("/$defs/meta/type", json!("text")),
        ("/$defs/meta/properties/digest/pattern", json!(7)),
    ] {
        let mut wrong = schema("report");
        *wrong.pointer_mut(place).unwrap() = value;
        assert!(schemas.validate(&wrong, metaschema).is_err(), "{place}");
    }
}

/// Each file is complete, so that a validator needs no other; what they share must be the same.
#[test]
fn what_schemas_share_is_the_same_in_each() {
    let (report, change) = (schema("report"), schema("change"));
    let mut shared = 0;
    for kind in KINDS {
        for (name, definition) in schema(kind)["$defs"].as_object().unwrap() {
            // Events say less of a report.
            let of = match EVENTS.contains(&kind) && name == "meta" {
                true => &change,
                false => &report,
            };
            assert_eq!(of["$defs"][name], *definition, "{name} in {kind}");
            shared += 1;
        }
    }
    assert!(shared > report["$defs"].as_object().unwrap().len());
}

#[test]
fn documents_of_every_kind_are_taken_and_their_keys_fit() {
    for document in documents() {
        judge(None, &document);
        judge(Some(&key(&document)), &document);
        // What a later version adds: for consumers nothing, for these tests a hole in the schema.
        for place in ["", "/vm", "/meta"] {
            let mut later = document.clone();
            later.pointer_mut(place).unwrap()["later"] = json!(1);
            as_consumers_read(&later).unwrap();
            assert!(judged(None, &later).is_err(), "{later}");
        }
        if document["meta"]["facts"].is_object() {
            let mut later = document.clone();
            later["meta"]["facts"]["later"] = json!("a fact");
            judge(None, &later);
        }
    }
}

#[test]
fn wrong_documents_are_refused() {
    let [report, facts, change, state, unchanged] = documents();
    let mut wrong = Vec::new();
    for document in [&report, &facts, &change, &state, &unchanged] {
        for property in document["meta"].as_object().unwrap().keys() {
            wrong.push(without(document, "/meta", property));
        }
        for (place, property) in [("", "vm"), ("", "meta"), ("/vm", "id"), ("/vm", "address")] {
            wrong.push(without(document, place, property));
        }
        let digest = format!("sha256:{}", "0".repeat(63));
        for (place, value) in [
            ("/meta/digest", json!(digest)),
            ("/meta/digest", json!(format!("{digest}G"))),
            ("/meta/digest", json!("0".repeat(64))),
            ("/meta/seen_at", json!("2026-11-21T10:00:00Z")),
            ("/meta/seen_at", json!("2026-11-21 10:00:00.240Z")),
            ("/meta/seen_at", json!("2026-11-21T10:00:00.240+01:00")),
            ("/meta/seen_at", json!("2026-13-21T10:00:00.240Z")),
            ("/meta/seen_at", json!(1_795_255_200)),
            ("/meta/generated_at", json!("")),
            ("/meta/epoch", json!(-1)),
            ("/meta/epoch", json!("77")),
            ("/meta/epoch", json!(1_u64 << 32)),
            ("/meta/generation", json!(0)),
            ("/meta/generation", json!(1.5)),
            ("/meta/trigger", json!("manual")),
            ("/meta/sensor", json!("")),
            ("/meta/sensor", json!("host 7")),
            ("/meta/facts", json!({ "skipped_headers": 3 })),
            ("/meta/facts", json!({ "later": true })),
            ("/meta/facts", json!([])),
            ("/vm/id", json!("a/b")),
            ("/vm/id", json!("a..b")),
            ("/vm/id", json!("x".repeat(129))),
        ] {
            if document.pointer(place).is_some() {
                wrong.push(set(document, place, value));
            }
        }
        wrong.push(set(document, "/type", json!("other")));
        wrong.push(set(document, "/type", json!(1)));
    }
    wrong.extend([
        without(&report, "", "report"),
        without(&change, "", "changes"),
        without(&change, "", "id"),
        without(&change, "", "key"),
        without(&state, "", "packages"),
        without(&state, "", "id"),
        without(&state, "/packages/0", "arch"),
        set(&change, "/id", state["id"].clone()),
        set(&change, "/type", json!("state")),
        set(&state, "/type", json!("change")),
        set(&state, "/report", report["report"].clone()),
        set(&state, "/changes", report["changes"].clone()),
        without(&unchanged, "", "key"),
        set(&unchanged, "/unchanged", json!(false)),
        set(&unchanged, "/key", json!("web-1/77/12")),
        set(&unchanged, "/report", report["report"].clone()),
        set(&facts, "/report", report["report"].clone()),
        set(&facts, "/changes", report["changes"].clone()),
        set(&change, "/report", report["report"].clone()),
        set(&report, "/type", json!("report")),
        set(&report, "/type", json!("facts")),
        set(&report, "/unchanged", json!(true)),
        set(&report, "/report", json!(null)),
        set(&report, "/report/packages", json!({})),
        set(&report, "/report/packages/0/source", json!("bash")),
        set(&report, "/report/packages/0/arch", json!(null)),
        set(&report, "/changes", json!([])),
        set(&report, "/changes/since", json!({ "epoch": 77 })),
        set(&report, "/changes/since", json!("77:11")),
        set(&report, "/changes/since", json!(null)),
        without(&report, "/changes", "since"),
        without(&report, "/changes/upgraded/0", "from"),
        without(&report, "/changes/added/0", "version"),
        without(&report, "/report/packages/0", "repo"),
        without(&report, "/report/distribution", "cpe"),
        without(&report, "/report/repositories/0", "uri"),
        json!([]),
        json!("a report"),
        json!({}),
        json!(null),
    ]);
    for document in wrong {
        assert!(as_consumers_read(&document).is_err(), "{document}");
        assert!(judged(None, &document).is_err(), "{document}");
    }
}

#[test]
fn keys_that_do_not_fit_are_refused() {
    for document in documents() {
        let right = key(&document);
        key_fits(&right, &document).unwrap();
        for (place, value) in [
            ("/vm/id", json!("web-2")),
            ("/meta/epoch", json!(78)),
            ("/meta/generation", json!(13)),
            ("/meta/digest", json!(format!("sha256:{}", "1".repeat(64)))),
        ] {
            let other = set(&document, place, value);
            assert!(key_fits(&right, &other).is_err(), "{place}: {other}");
        }
        for wrong in ["", "web-1/77/12", &format!("{right}0"), &right[1..]] {
            assert!(key_fits(wrong, &document).is_err(), "{wrong}");
        }
    }
}

/// `printf 'boot_id=a\nos_version=9.4\n' | sha256sum`: what passes is not in it, and the rest is sorted.
#[test]
fn the_key_of_facts_is_what_other_programs_compute() {
    let [_, mut facts, ..] = documents();
    facts["meta"]["facts"] = json!({
        "os_version": "9.4", "last_scan_at": "now", "boot_id": "a", "scan_trigger": "x", "report_digest": "y"
    });
    let right = format!("web-1/77/12/{}/facts/af21e31b", "0".repeat(16));
    key_fits(&right, &facts).unwrap();
    facts["meta"]["facts"]["boot_id"] = json!("b");
    assert!(key_fits(&right, &facts).is_err());
}

/// Loss prevented: what changed beside the packages is known with the next report, hours later.
#[test]
fn facts_that_change_alone_are_a_document_of_their_own_at_every_sink() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script {
        waits: false,
        ..Script::new()
    };
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let (central, server) = (Central::start(), NatsServer::start(JETSTREAM));
    let (consumer, out) = (server.consumer(), dir.path().join("out"));
    let sensors = [
        ("http", central.url.clone()),
        ("nats", server.url()),
        ("file", format!("file:{}", out.display())),
    ];
    let _running = sensors.map(|(name, sink)| {
        let (state, vm) = (dir.path().join(name), agent.vm("web-1"));
        let more = ["--vm", &vm, "--poll-interval", "1s", "--sensor-id", name];
        Program::sense(&state, &sink, &more)
    });
    eventually("every sink has the report", || {
        let is_there = consumer.newest("web-1").is_some()
            && !central.received().is_empty()
            && !lines(&out).is_empty();
        is_there.then_some(())
    });
    agent.change(|script| {
        // By name: as lines, the last two would be the other way round.
        for name in ["boot_id", "disk", "disk2"] {
            script.facts.insert(name.into(), "b".into());
        }
    });
    let is_facts = |document: &Value| document["type"] == "facts";
    let posted = eventually("facts are posted", || {
        let all = central.received().into_iter();
        all.map(|r| r.body).find(is_facts)
    });
    let published = eventually("facts are published", || {
        consumer.newest_at("afferent.facts.web-1")
    });
    let published: Value = serde_json::from_slice(&published.body).unwrap();
    let written = eventually("facts are a line", || {
        lines(&out).into_iter().find(is_facts)
    });
    for (sensor, facts) in [("http", posted), ("nats", published), ("file", written)] {
        assert_eq!(facts["type"], "facts");
        assert_eq!(facts["meta"]["sensor"], sensor);
        assert_eq!(facts["meta"]["facts"]["boot_id"], "b");
    }
    // The report on its subject stands, and came before.
    let report: Value = serde_json::from_slice(&consumer.newest("web-1").unwrap().body).unwrap();
    assert!(report["meta"]["facts"]["boot_id"].is_null());
}

/// Another machine answers, and has the same content: the sensor does not believe "unchanged", asks
/// for the whole report, and finds that the file has it.
#[test]
fn a_report_that_a_file_has_already_is_a_short_line() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script {
        waits: false,
        ..Script::new()
    };
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let out = dir.path().join("out");
    let (state, deliver) = (dir.path().join("state"), format!("file:{}", out.display()));
    let more = ["--vm", &agent.vm("web-1"), "--poll-interval", "1s"];
    let _sense = Program::sense(&state, &deliver, &more);
    let first = eventually("the report", || lines(&out).pop());
    let other = "f".repeat(32);
    agent.change(|script| script.guest_id.clone_from(&other));
    let line = eventually("the short line", || {
        lines(&out)
            .into_iter()
            .find(|line| line["unchanged"] == true)
    });
    assert_eq!(line["meta"]["facts"]["guest_id"], other);
    assert!(line["meta"]["seen_at"].as_str() > first["meta"]["seen_at"].as_str());
}

/// One of each kind, in the order of [`KINDS`].
fn documents() -> [Value; 5] {
    let digest = format!("sha256:{}", "0".repeat(64));
    let vm = json!({ "id": "web-1", "address": "vsock:3:818" });
    let meta = json!({
        "sensor": "host-7", "seen_at": "2026-11-21T10:00:00.240Z", "agent_version": "0.2.0", "epoch": 77,
        "generation": 12, "digest": digest, "trigger": "reactive",
        "generated_at": "2026-11-21T10:00:00.123Z", "facts": { "detected_os": "RHEL" }
    });
    let moved =
        json!({ "name": "bash", "arch": "x86_64", "from": "5.1.8-6.el9", "to": "5.1.8-9.el9" });
    let one = json!({ "name": "nodejs", "arch": "", "version": "1:18.20.4-1.el9" });
    let changed =
        json!({ "name": "vim", "arch": "x86_64", "from": "9-1", "to": "9-1", "differs": ["repo"] });
    let changes = json!({
        "since": { "epoch": 77, "generation": 11 }, "upgraded": [moved], "added": [one], "removed": [],
        "downgraded": [moved], "changed": [changed]
    });
    let source = json!({ "name": "bash", "version": "5.1.8-9.el9" });
    let report = json!({
        "packages": [
            { "name": "bash", "version": "5.1.8-9.el9", "arch": "x86_64", "source": source, "module": "", "repo": "baseos" },
            { "name": "nodejs", "version": "1:18.20.4-1.el9", "arch": "", "source": null, "module": "nodejs:18", "repo": "" }
        ],
        "distribution": {
            "id": "rhel", "name": "", "version": "", "version_code_name": "", "version_id": "9.4", "arch": "",
            "cpe": "", "pretty_name": ""
        },
        "repositories": [{ "id": "baseos", "key": "", "uri": "", "cpe": "" }]
    });
    let key = format!("web-1/77/12/{}", "0".repeat(16));
    let id = |kind: &str| format!("{key}/{kind}/1795255200240");
    let of_event = json!({
        "sensor": "host-7", "seen_at": "2026-11-21T10:00:00.240Z", "epoch": 77, "generation": 12, "digest": digest,
        "trigger": "reactive"
    });
    [
        json!({ "vm": vm, "meta": meta, "report": report, "changes": changes }),
        json!({ "type": "facts", "vm": vm, "meta": meta }),
        json!({ "type": "change", "id": id("change"), "key": key, "vm": vm, "meta": of_event, "changes": changes }),
        json!({ "type": "state", "id": id("state"), "key": key, "vm": vm, "meta": of_event, "packages": [one] }),
        json!({ "key": key, "unchanged": true, "vm": vm, "meta": meta }),
    ]
}

/// The key of a document made above.
fn key(document: &Value) -> String {
    let report = format!("web-1/77/12/{}", "0".repeat(16));
    match document["type"] == "facts" {
        // printf 'detected_os=RHEL\n' | sha256sum
        true => format!("{report}/facts/5142f37b"),
        false => report,
    }
}

fn without(document: &Value, place: &str, property: &str) -> Value {
    let mut wrong = document.clone();
    let object = wrong.pointer_mut(place).unwrap().as_object_mut().unwrap();
    object.remove(property).unwrap();
    wrong
}

fn set(document: &Value, place: &str, value: Value) -> Value {
    let mut wrong = document.clone();
    let (parent, name) = place.rsplit_once('/').unwrap();
    match wrong.pointer_mut(place) {
        Some(there) => *there = value,
        None => wrong.pointer_mut(parent).unwrap()[name] = value,
    }
    wrong
}

/// Every property has a description, every object names what it must have, every word is known.
fn assert_described(place: &str, schema: &Value) {
    let Some(schema) = schema.as_object() else {
        return;
    };
    for (keyword, value) in schema {
        assert!(KEYWORDS.contains(&keyword.as_str()), "{place}: {keyword}");
        match keyword.as_str() {
            "properties" | "$defs" => {
                for (name, property) in value.as_object().unwrap() {
                    let place = format!("{place}/{name}");
                    let text = property["description"].as_str();
                    assert!(text.is_some_and(|text| text.ends_with('.')), "{place}");
                    assert_described(&place, property);
                }
                let is_map = schema.contains_key("additionalProperties");
                assert!(keyword == "$defs" || is_map || schema.contains_key("required"));
            }
            "items" | "not" => assert_described(place, value),
            "anyOf" | "oneOf" => {
                let all = value.as_array().unwrap().iter();
                all.for_each(|one| assert_described(place, one));
            }
            _ => {}
        }
    }
    let required = schema.get("required").and_then(Value::as_array);
    for name in required.into_iter().flatten() {
        let name = name.as_str().unwrap();
        let is_named = |properties: &Value| properties.get(name).is_some();
        let is_there = schema.get("properties").is_none_or(is_named);
        assert!(is_there, "{place}: {name} is required and not described");
    }
}

#[test]
fn the_directory_holds_a_schema_for_each_kind_and_nothing_else() {
    let found = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema"));
    let mut found: Vec<String> = found
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut wanted = KINDS.map(|kind| format!("{kind}.schema.json"));
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
}
