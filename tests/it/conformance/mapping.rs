//! The mapping from repositories to CPEs, pushed as StackRox's Sensor pushes it: by a client with its own protobuf,
//! and byte by byte.
//!
//! | Rule of StackRox | Test |
//! |---|---|
//! | an agent whose path is "sensor" advertises the method and its hash | `a_pushed_mapping_is_in_the_next_report_and_named_by_its_hash` |
//! | the same mapping again is no update | the same |
//! | not JSON, no object `data`, over 5 MiB: MALFORMED_REQUEST | `what_is_no_mapping_is_refused_and_changes_nothing` |
//! | over 6 MiB, or over 1 MiB and no push: REQUEST_TOO_LARGE | the same |
//! | a file or URL of the agent's own: MAPPING_NOT_SENSOR_MANAGED | `an_agent_with_a_file_takes_no_mapping_and_names_its_own` |
//! | MAPPING_REQUIRED before the first mapping | `reports_are_withheld_until_there_is_a_mapping_where_that_is_asked_for` |

use super::guests::{self, MAPPING, item};
use crate::support::agent::{Agent, Answer, Launch, What};
use crate::support::eventually;
use crate::support::held::Held;
use crate::support::program::status;
use crate::support::pull_client::Client;
use crate::support::rpm_root::RpmRoot;
use afferent::report::MappingHash;
use afferent::wire::frame::HEADER;
use afferent::wire::message::ErrorCode;
use afferent::wire::request::encode_push;
use afferent::wire::response::{Payload, Response};
use serde_json::{Value, json};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A guest with a package from a repository of the mapping.
fn guest() -> RpmRoot {
    let root = guests::with(&["plain"]);
    guests::dnf4(root.path(), &[item("plain", "baseos", 1, 1)]);
    root
}

/// The CPEs of the repositories of a report.
fn cpes(answer: &Answer) -> Vec<&str> {
    match &answer.what {
        What::Report(report) => report.repositories.iter().map(|r| r.cpe.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// An agent that has scanned once.
fn scanned(launch: &Launch) -> Agent {
    let agent = launch.start();
    eventually("the first scan has ended", || {
        (!agent.get().list().is_empty()).then_some(())
    });
    agent
}

/// A report with CPEs, as soon as there is one.
fn mapped(agent: &Agent) -> Answer {
    eventually("the report is mapped", || {
        let answer = agent.get();
        cpes(&answer)
            .iter()
            .any(|cpe| !cpe.is_empty())
            .then_some(answer)
    })
}

/// Pushes a mapping: whether it was an update, or the error.
fn push(socket: &Path, mapping: &[u8]) -> io::Result<Result<bool, ErrorCode>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(&encode_push(mapping))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = answer.get(HEADER..).ok_or(io::ErrorKind::UnexpectedEof)?;
    let response = Response::decode(answer).unwrap();
    Ok(match response.payload {
        Some(Payload::Synced { updated }) => Ok(updated),
        Some(Payload::Error(error)) => Err(ErrorCode::try_from(error.code).unwrap()),
        other => panic!("{other:?}"),
    })
}

fn hash(mapping: &str) -> String {
    MappingHash::of(mapping.as_bytes()).to_string()
}

/// Loss prevented: guests without internet have no CPEs, so that Central finds nothing in them.
#[test]
fn a_pushed_mapping_is_in_the_next_report_and_named_by_its_hash() {
    let root = guest();
    let file = root.path().join("mapping.json");
    fs::write(&file, MAPPING).unwrap();
    let launch = Launch::on(root.path());
    let agent = scanned(&launch);
    let before = agent.get();
    assert_eq!(cpes(&before), [""], "a report without CPEs is given out");
    let methods = ["get_report", "wait_report", "sync_repo_cpe_mapping"];
    assert_eq!(before.meta.supported_methods, methods);
    assert_eq!(before.meta.update_path, 1);
    assert_eq!(before.meta.mapping_hash, "");

    let mut first = Client::of(agent.socket());
    let answer = first.ask(&json!({"push_file": file}));
    assert_eq!(answer["sync_repo_cpe_mapping"], json!({"updated": true}));
    assert_eq!(answer["meta"]["mapping_hash"], hash(MAPPING));
    assert_eq!(answer["meta"]["update_path"], 1);

    let after = mapped(&agent);
    assert_eq!(cpes(&after).len(), 2);
    assert_eq!(after.meta.mapping_hash, hash(MAPPING));
    assert_eq!(after.key(), (before.key().0, before.key().1 + 1));

    // Of the other generation, whose peers say nothing of what they read.
    let mut second = Client::of_generation(agent.socket(), "second");
    second.send(&json!({"push_file": file}));
    let answer = second.receive_any();
    assert_eq!(answer["sync_repo_cpe_mapping"], json!({}), "the same again");
    assert_eq!(agent.get().key(), after.key());
    let status = status(launch.state_dir(), &[]).0;
    assert_eq!(
        status["mapping"],
        json!({"from": "sensor", "hash": hash(MAPPING)})
    );

    // A mapping that maps nothing: the CPEs are gone, the package is not.
    assert_eq!(push(agent.socket(), b"{\"data\": {}}").unwrap(), Ok(true));
    eventually("the report has no CPEs", || {
        let answer = agent.get();
        (cpes(&answer) == [""] && answer.meta.mapping_hash == hash("{\"data\": {}}")).then_some(())
    });
}

/// Loss prevented: an agent that only our own sensor can give a mapping.
#[test]
fn a_push_and_its_answer_are_these_bytes() {
    let root = guest();
    let launch = Launch::on(root.path());
    let agent = scanned(&launch);
    let exchange = |request: &[u8]| {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let (length, body) = answer.split_first_chunk().unwrap();
        assert_eq!(u32::from_be_bytes(*length) as usize, body.len());
        body.to_vec()
    };
    // Before there is a mapping the hash is there, and empty.
    let unknown = exchange(b"\x00\x00\x00\x00");
    assert!(
        unknown.windows(4).any(|part| part == [0x3a, 0, 0x40, 1]),
        "{unknown:02x?}"
    );
    // 3: { 1: "{\"data\":{}}" }
    let request = b"\x00\x00\x00\x0f\x1a\x0d\x0a\x0b{\"data\":{}}";
    let updated = exchange(request);
    // 4: { 1: true }, after a meta that begins with the version.
    assert!(updated.ends_with(&[0x22, 2, 8, 1]), "{updated:02x?}");
    assert_eq!(updated.first(), Some(&0x0a));
    // 7: the hash, XXH64 in hex; 8: the sensor brings it.
    let said = [
        &b"\x3a\x10"[..],
        hash("{\"data\":{}}").as_bytes(),
        &[0x40, 1],
    ]
    .concat();
    assert!(
        updated.windows(said.len()).any(|part| part == said),
        "{updated:02x?}"
    );
    let same = exchange(request);
    assert!(same.ends_with(&[0x22, 0]), "{same:02x?}");
    // An empty mapping is none; error 3 with code 4.
    let refused = exchange(b"\x00\x00\x00\x02\x1a\x00");
    assert!(
        refused.windows(2).any(|part| part == [8, 4]),
        "{refused:02x?}"
    );
}

/// Loss prevented: one bad push costs a guest its CPEs, or its memory.
#[test]
fn what_is_no_mapping_is_refused_and_changes_nothing() {
    let root = guest();
    let launch = Launch::on(root.path());
    let agent = scanned(&launch);
    assert_eq!(push(agent.socket(), MAPPING.as_bytes()).unwrap(), Ok(true));
    let before = mapped(&agent);
    // JSON with an object `data` that is so long in all.
    let of_length = |len: usize| {
        let frame = r#"{"data": {}, "x": ""}"#;
        format!(
            r#"{{"data": {{}}, "x": "{}"}}"#,
            "y".repeat(len - frame.len())
        )
        .into_bytes()
    };
    let too_long = of_length((5 << 20) + 1);
    for bad in [
        &b"not JSON"[..],
        b"",
        b"{}",
        b"[]",
        b"{\"data\": []}",
        b"{\"data\": {}} and more",
        b"{\"data\": {\"a\xff\": {}}}",
        &too_long,
    ] {
        let start = String::from_utf8_lossy(&bad[..bad.len().min(40)]);
        let answer = push(agent.socket(), bad).unwrap();
        assert_eq!(answer, Err(ErrorCode::MalformedRequest), "{start}");
    }
    // Python's client sends all of it before it reads.
    let mut client = Client::of(agent.socket());
    let file = root.path().join("long.json");
    let mut ask = |mapping: Vec<u8>| {
        fs::write(&file, mapping).unwrap();
        client.ask(&json!({"push_file": file}))
    };
    let answer = ask(of_length(6 << 20));
    assert_eq!(answer["error"]["code"], "REQUEST_TOO_LARGE", "{answer}");
    let mut other = Client::of(agent.socket());
    let facts: serde_json::Map<String, Value> = (0..20)
        .map(|n| (n.to_string(), "x".repeat(60_000).into()))
        .collect();
    let long = json!({"meta": {"facts": facts}, "get_report": {}});
    assert_eq!(other.refusal(&long), "REQUEST_TOO_LARGE");

    let after = agent.get();
    assert_eq!(
        (after.key(), &after.meta.mapping_hash),
        (before.key(), &before.meta.mapping_hash)
    );
    let answer = ask(of_length(5 << 20));
    assert_eq!(
        answer["sync_repo_cpe_mapping"],
        json!({"updated": true}),
        "{answer}"
    );
}

/// Loss prevented: a sensor overwrites what an operator gave this guest, or pushes the same mapping for ever.
#[test]
fn an_agent_with_a_file_takes_no_mapping_and_names_its_own() {
    let root = guest();
    let file = root.path().join("mapping.json");
    fs::write(&file, MAPPING).unwrap();
    let launch = Launch::on(root.path()).flag("repo-cpe", file.to_str().unwrap());
    let agent = scanned(&launch);
    let answer = mapped(&agent);
    assert_eq!(answer.meta.supported_methods, ["get_report", "wait_report"]);
    assert_eq!(
        (answer.meta.update_path, answer.meta.mapping_hash.as_str()),
        (2, hash(MAPPING).as_str())
    );
    for mapping in [b"{\"data\": {}}".to_vec(), vec![b' '; 3 << 20]] {
        let refused = push(agent.socket(), &mapping).unwrap();
        assert_eq!(refused, Err(ErrorCode::MappingNotSensorManaged));
    }
    let mut client = Client::of(agent.socket());
    client.send(&json!({"push_file": file}));
    let answer = client.receive();
    assert_eq!(
        answer["error"]["code"], "MAPPING_NOT_SENSOR_MANAGED",
        "{answer}"
    );
    assert_eq!(answer["meta"]["update_path"], 2);
    assert_eq!(answer["meta"]["mapping_hash"], hash(MAPPING));
}

/// Loss prevented: a report without CPEs counts as the state of a guest that nobody has mapped yet.
#[test]
fn reports_are_withheld_until_there_is_a_mapping_where_that_is_asked_for() {
    let root = guest();
    let launch = Launch::on(root.path()).flag("require-mapping", "on");
    let agent = launch.start();
    let mut client = Client::of(agent.socket());
    for request in [
        json!({"get_report": {}}),
        json!({"wait_report": {"timeout_ms": 60_000}}),
    ] {
        let answer = client.ask(&request);
        assert_eq!(answer["error"]["code"], "MAPPING_REQUIRED", "{answer}");
        assert_eq!(answer["meta"]["update_path"], 1);
        assert_eq!(answer["meta"]["mapping_hash"], Value::Null, "none yet");
    }
    let reasons = || status(launch.state_dir(), &[]).0["reasons"].to_string();
    assert!(reasons().contains("reports are withheld"));
    assert_eq!(push(agent.socket(), MAPPING.as_bytes()).unwrap(), Ok(true));
    let answer = eventually("a report", || {
        let answer = agent.get();
        assert_ne!(answer.refusal(), Some(ErrorCode::MappingRequired));
        answer.refusal().is_none().then_some(answer)
    });
    assert_eq!(cpes(&answer).len(), 2, "never one without CPEs");
    assert!(!reasons().contains("reports are withheld"));
}

/// Loss prevented: the sensor believes that a guest has its mapping, and the guest has lost it.
#[test]
fn a_kill_between_a_push_and_its_scan_loses_nothing() {
    let root = guest();
    let launch = Launch::on(root.path());
    let agent = scanned(&launch);
    let before = agent.get();
    // No scan begins while rpm holds its lock.
    let lock = Held::lock(&root.dbpath().join(".rpm.lock"));
    assert_eq!(push(agent.socket(), MAPPING.as_bytes()).unwrap(), Ok(true));
    let unscanned = agent.get();
    assert_eq!(unscanned.key(), before.key());
    assert_eq!(
        unscanned.meta.mapping_hash, "",
        "the report was made without it"
    );
    agent.kill();
    drop(lock);

    let agent = launch.start();
    let after = mapped(&agent);
    assert_eq!(after.meta.mapping_hash, hash(MAPPING));
    assert_eq!(after.key(), (before.key().0, before.key().1 + 1));
    assert_eq!(push(agent.socket(), MAPPING.as_bytes()).unwrap(), Ok(false));
    agent.kill();
    // The report kept from before has its hash from the first answer on.
    let lock = Held::lock(&root.dbpath().join(".rpm.lock"));
    let agent = launch.start();
    let kept = agent.get();
    assert_eq!(
        (kept.key(), &kept.meta.mapping_hash),
        (after.key(), &hash(MAPPING))
    );
    drop(lock);
}

/// Loss prevented: one slow or broken sensor keeps all others from a guest.
#[test]
fn slow_and_broken_pushes_hold_up_nobody() {
    let root = guest();
    let launch = Launch::on(root.path());
    let agent = scanned(&launch);
    // 6 MiB announced, and as much sent as shows that it is a push, or much more than that.
    let slow = |more: usize| {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        let mut frame = vec![0, 0x60, 0, 0];
        frame.extend_from_slice(b"\x1a\xfb\xff\xff\x02\x0a\xf6\xff\xff\x02{\"data\":");
        frame.resize(frame.len() + more, b' ');
        stream.write_all(&frame).unwrap();
        stream
    };
    let mut first = slow(0);
    let _idle: Vec<UnixStream> = (0..20).map(|_| slow(0)).collect();
    // Half a header, garbage, and a length with nothing behind it.
    for part in [
        &b"\x00\x60"[..],
        &[0xff; 64],
        b"\x00\x5f\xff\xff",
        b"\x00\x20\x00\x00\x1a",
    ] {
        let mut stream = UnixStream::connect(agent.socket()).unwrap();
        let _ = stream.write_all(part);
        std::mem::forget(stream);
    }
    let start = Instant::now();
    assert_eq!(push(agent.socket(), MAPPING.as_bytes()).unwrap(), Ok(true));
    let mut long = [" ".repeat(3 << 20).as_bytes(), MAPPING.as_bytes()].concat();
    assert_eq!(push(agent.socket(), &long).unwrap(), Ok(true));
    assert!(!mapped(&agent).list().is_empty());
    // Those that hold much bound the others, which are told to come back, at once.
    let many = [0x5e_0000, 0x5e_0000, 0x5e_0000, 0x35_0000].map(slow);
    let busy = eventually("the memory for pushes is taken", || {
        long.push(b' ');
        push(agent.socket(), &long).unwrap().err()
    });
    assert_eq!(busy, ErrorCode::Busy);
    assert_eq!(
        push(agent.socket(), b"{\"data\": {}}").unwrap(),
        Ok(true),
        "a short one"
    );
    assert!(!agent.get().list().is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
    drop(many);
    // The rest of a slow one may still come.
    let rest = (6 << 20) - 5 - 5 - 8;
    let mut text = b"{}}".to_vec();
    text.resize(rest, b' ');
    first.write_all(&text).unwrap();
    let mut answer = Vec::new();
    first.read_to_end(&mut answer).unwrap();
    let answer = Response::decode(&answer[HEADER..]).unwrap();
    let Some(Payload::Error(error)) = answer.payload else {
        panic!("over 5 MiB: {answer:?}");
    };
    assert_eq!(error.code, ErrorCode::MalformedRequest as i32);
}
