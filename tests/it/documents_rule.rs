//! The rule by which consumers keep documents: the very code of `docs/consumers.md` and of
//! `packaging/examples/newest_reports.py`, run by Python, and the reader of `afferent sense --reports-from`.

use crate::support::documents::{KINDS, docs, schema};
use afferent::sense::fleet::FleetLimits;
use afferent::sense::fleet::query::FleetQuery;
use afferent::sense::reader::{IncomingDocument, ReportIntake};
use afferent::store::Store;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// The rule as it was agreed.
const RULE: &str = "Consumers keep the document with the highest seen_at, where one later than their own clock + \
                    5 minutes counts as the time of arrival (a host's clock that was years ahead must not deafen \
                    them); generated_at (the guest's clock) and epochs order nothing.";

/// Feeds each case to `take`; prints what is kept after each document.
const DRIVER: &str = r#"
import json, sys
for case in json.load(sys.stdin):
    kept, after = None, []
    for now, document in case:
        kept = take(kept, document, datetime.fromisoformat(now.replace("Z", "+00:00")))
        after.append(kept and {"seen_at": kept["seen_at"].isoformat(timespec="milliseconds"),
                               "facts": kept["meta"]["facts"]["n"], "report": kept["report"]})
    print(json.dumps(after))
"#;

/// The same, of the example, without the library that brings it the documents.
const EXAMPLE_DRIVER: &str = r#"
import sys
from unittest.mock import MagicMock
sys.modules.update({name: MagicMock() for name in ("nats", "nats.errors", "nats.js", "nats.js.api")})
from newest_reports import *
from datetime import datetime, timezone
def ms(text):
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
for case in json.load(sys.stdin):
    db, after = sqlite3.connect(":memory:"), []
    db.execute(SCHEMA)
    for now, document in case:
        store(db, document, ms(now))
        row = db.execute("SELECT seen_at, meta, report FROM guests").fetchone()
        after.append(row and {
            "seen_at": datetime.fromtimestamp(row[0] / 1000, timezone.utc).isoformat(timespec="milliseconds"),
            "facts": json.loads(row[1])["facts"]["n"], "report": json.loads(row[2])})
    print(json.dumps(after))
"#;

/// Documents as they arrive, and after each what is kept: report, facts and effective `seen_at`.
type Case = (&'static str, Vec<Step>);
type Step = (&'static str, Value, Option<[&'static str; 3]>);

#[test]
fn the_code_for_consumers_keeps_what_the_rule_says() {
    let cases = cases();
    let arriving = |(_, steps): &Case| -> Value {
        let steps = steps
            .iter()
            .map(|(at, document, _)| json!([time(at), document]));
        steps.collect()
    };
    let input: Value = cases.iter().map(arriving).collect();
    let of_page = format!("{}{DRIVER}", code_of_page());
    let of_reader = cases.iter().map(|(_, steps)| read(steps)).collect();
    for kept in [
        run(&of_page, &input),
        run(EXAMPLE_DRIVER, &input),
        of_reader,
    ] {
        assert_eq!(kept.len(), cases.len());
        for ((what, steps), kept) in cases.iter().zip(kept) {
            for (n, (_, document, wanted)) in steps.iter().enumerate() {
                let wanted = wanted.map(|[report, facts, seen_at]| {
                    let seen_at = time(seen_at).replace('Z', "+00:00");
                    json!({ "seen_at": seen_at, "facts": facts, "report": report })
                });
                assert_eq!(kept[n], json!(wanted), "{what}: after {n}: {document}");
            }
        }
    }
}

#[test]
fn the_rule_is_the_same_wherever_it_stands() {
    let page = page();
    let words: Vec<&str> = page.split_whitespace().collect();
    assert!(words.join(" ").contains(RULE), "docs/consumers.md");
    for kind in KINDS {
        let schema = schema(kind);
        let seen_at = &schema["$defs"]["meta"]["properties"]["seen_at"];
        for text in [&schema["description"], &seen_at["description"]] {
            assert!(text.as_str().unwrap().contains(RULE), "{kind}: {text}");
        }
    }
}

/// What is kept is written `[report, facts, effective seen_at]`.
fn cases() -> Vec<Case> {
    let restored = json!({ "epoch": 5, "generation": 3, "digest": "b" });
    vec![
        (
            "a clock years ahead, then corrected",
            vec![
                ("10:00", report("a", "2036"), Some(["a", "a", "10:00"])),
                ("10:01", report("b", "10:01"), Some(["b", "b", "10:01"])),
                ("10:02", report("c", "2036"), Some(["c", "c", "10:02"])),
                ("10:03", report("d", "10:01"), Some(["c", "c", "10:02"])),
                ("10:03", report("e", "10:03"), Some(["e", "e", "10:03"])),
            ],
        ),
        (
            "a clock that is a little ahead",
            vec![
                ("10:00", report("a", "10:05"), Some(["a", "a", "10:05"])),
                ("10:01", report("b", "10:01"), Some(["a", "a", "10:05"])),
                ("10:06", report("c", "10:06"), Some(["c", "c", "10:06"])),
                ("10:07", report("d", "10:13"), Some(["d", "d", "10:07"])),
            ],
        ),
        (
            "a guest restored from a snapshot",
            vec![
                ("10:00", report("a", "10:00"), Some(["a", "a", "10:00"])),
                (
                    "10:01",
                    with(report("b", "10:01"), &restored),
                    Some(["b", "b", "10:01"]),
                ),
                // Back to what was there first, under the key that it had then.
                ("10:02", report("a", "10:02"), Some(["a", "a", "10:02"])),
            ],
        ),
        (
            "a retry of an old document after a newer one",
            vec![
                ("10:00", report("a", "09:58"), Some(["a", "a", "09:58"])),
                ("10:01", report("b", "10:01"), Some(["b", "b", "10:01"])),
                ("10:02", report("a", "09:58"), Some(["b", "b", "10:01"])),
            ],
        ),
        (
            "an equal time: a copy, or what came first",
            vec![
                ("10:00", report("a", "10:00"), Some(["a", "a", "10:00"])),
                ("10:01", report("a", "10:00"), Some(["a", "a", "10:00"])),
                (
                    "10:02",
                    by("host-2", report("b", "10:00")),
                    Some(["a", "a", "10:00"]),
                ),
            ],
        ),
        (
            "two sensors: the guest moved, and the old host delivers late",
            vec![
                ("10:00", report("a", "10:00"), Some(["a", "a", "10:00"])),
                (
                    "10:01",
                    by("host-2", report("b", "10:01")),
                    Some(["b", "b", "10:01"]),
                ),
                ("10:02", report("c", "10:00"), Some(["b", "b", "10:01"])),
                ("10:03", report("d", "10:02"), Some(["d", "d", "10:02"])),
            ],
        ),
        (
            "the guest's clock and its epochs order nothing",
            vec![
                (
                    "10:00",
                    with(
                        report("a", "10:00"),
                        &json!({ "generated_at": time("2036"), "epoch": 4_294_967_295_u32 }),
                    ),
                    Some(["a", "a", "10:00"]),
                ),
                (
                    "10:01",
                    with(
                        report("b", "10:01"),
                        &json!({ "generated_at": "1970-01-01T00:00:00.000Z", "epoch": 1 }),
                    ),
                    Some(["b", "b", "10:01"]),
                ),
            ],
        ),
        (
            "facts, changes and short lines",
            vec![
                ("10:00", facts("a", "10:00", "x"), None),
                ("10:00", report("a", "10:00"), Some(["a", "a", "10:00"])),
                ("10:01", facts("a", "10:01", "x"), Some(["a", "x", "10:01"])),
                ("10:02", facts("a", "10:00", "y"), Some(["a", "x", "10:01"])),
                // Of a report that is on its way: it brings its facts itself.
                ("10:03", facts("b", "10:03", "z"), Some(["a", "x", "10:01"])),
                ("10:04", change("b", "10:04"), Some(["a", "x", "10:01"])),
                ("10:05", report("b", "10:05"), Some(["b", "b", "10:05"])),
                ("10:06", unchanged("b", "10:06"), Some(["b", "b", "10:06"])),
                ("10:07", report("a", "10:05"), Some(["b", "b", "10:06"])),
                (
                    "10:08",
                    typed("other", report("c", "10:08")),
                    Some(["b", "b", "10:06"]),
                ),
                ("10:09", facts("b", "2036", "w"), Some(["b", "w", "10:09"])),
            ],
        ),
    ]
}

/// A report of this name.
fn report(name: &str, seen_at: &str) -> Value {
    let mut document = about(name, seen_at, name);
    document["report"] = name.into();
    document
}

fn facts(name: &str, seen_at: &str, facts: &str) -> Value {
    typed("facts", about(name, seen_at, facts))
}

fn change(name: &str, seen_at: &str) -> Value {
    typed("change", about(name, seen_at, name))
}

fn unchanged(name: &str, seen_at: &str) -> Value {
    let mut document = about(name, seen_at, name);
    document["unchanged"] = true.into();
    document
}

fn typed(kind: &str, mut document: Value) -> Value {
    document["type"] = kind.into();
    document
}

fn by(sensor: &str, document: Value) -> Value {
    with(document, &json!({ "sensor": sensor }))
}

fn with(mut document: Value, meta: &Value) -> Value {
    for (name, value) in meta.as_object().unwrap() {
        document["meta"][name] = value.clone();
    }
    document
}

/// All but the content. The rule looks at nothing but `seen_at` and `digest`, so the rest is short.
fn about(name: &str, seen_at: &str, facts: &str) -> Value {
    let generation = name.bytes().next().unwrap();
    json!({
        "vm": { "id": "web-1", "address": "vsock:3:818" },
        "meta": {
            "sensor": "host-1", "seen_at": time(seen_at), "agent_version": "0.2.0", "epoch": 77,
            "generation": generation, "digest": name, "trigger": "scheduled",
            "generated_at": time("09:00"), "facts": { "n": facts }
        }
    })
}

/// `10:00` of the day, or a year.
fn time(text: &str) -> String {
    match text.split_once(':') {
        Some(_) => format!("2026-11-21T{text}:00.000Z"),
        None => format!("{text}-01-01T00:00:00.000Z"),
    }
}

fn page() -> String {
    fs::read_to_string(docs().join("consumers.md")).unwrap()
}

/// The code for consumers.
fn code_of_page() -> String {
    let page = page();
    let mut blocks = page.split("```python\n").skip(1);
    let block = blocks.find(|block| block.contains("def take("));
    let code = block.and_then(|rest| rest.split_once("```\n"));
    let (code, _) = code.expect("code in docs/consumers.md");
    code.to_owned()
}

/// What the reader keeps after each document of a case.
fn read(steps: &[Step]) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), "sense.redb", 1 << 20)
        .unwrap()
        .store;
    let store = Arc::new(store);
    let intake = ReportIntake::open(store.clone(), FleetLimits::default()).unwrap();
    let show = FleetQuery::Show {
        vm: "web-1".into(),
        at: None,
    };
    let kept = steps.iter().map(|(at, document, _)| {
        let kind = match document["type"] == "facts" {
            true => "facts",
            false => "reports",
        };
        let payload = whole(document.clone()).to_string();
        let message = IncomingDocument {
            subject: &format!("afferent.{kind}.web-1"),
            is_gzip: false,
            payload: payload.as_bytes(),
        };
        intake.take(&[message], time(at).parse().unwrap()).unwrap();
        let show = serde_json::to_value(show.ask(&store, &|_| None)).unwrap();
        let seen_at = show["seen_at"].as_str()?.replace('Z', "+00:00");
        let (facts, report) = (&show["facts"]["n"], &show["installed"][0]["name"]);
        Some(json!({ "seen_at": seen_at, "facts": facts, "report": report }))
    });
    kept.collect()
}

/// A document of these cases with everything that the rule does not look at.
fn whole(mut document: Value) -> Value {
    let digest = document["meta"]["digest"].as_str().unwrap();
    let byte = format!("{:02x}", digest.bytes().next().unwrap());
    document["meta"]["digest"] = format!("sha256:{}", byte.repeat(32)).into();
    if let Some(name) = document["report"].as_str() {
        let package = json!({ "name": name, "version": "1-1", "arch": "noarch", "source": null, "module": "", "repo": "" });
        document["report"] =
            json!({ "packages": [package], "distribution": {}, "repositories": [] });
    }
    document
}

/// What this code keeps after each document of each case.
fn run(code: &str, cases: &Value) -> Vec<Value> {
    let mut python = Command::new("/usr/bin/python3")
        .args(["-c", code])
        .env("PYTHONPATH", docs().join("../packaging/examples"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, see packaging/install-deps.sh");
    let mut input = python.stdin.take().unwrap();
    input.write_all(cases.to_string().as_bytes()).unwrap();
    drop(input);
    let out = python.wait_with_output().unwrap();
    assert!(out.status.success());
    let lines = String::from_utf8(out.stdout).unwrap();
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
