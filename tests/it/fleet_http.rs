//! The fleet API of a real sensor over TCP: who may ask, what is answered, and what is bounded.

use crate::support::eventually;
use crate::support::fleet_rig::FleetRig;
use crate::support::program::{Program, status};
use crate::support::web::{
    TOKEN, Web, assert_data, assert_login_works_once, assert_needs_login, assert_page_files,
    assert_refused, bearer, session, write_token,
};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};

const DATA: [&str; 6] = [
    "/v1/guests",
    "/v1/guests/g0",
    "/v1/packages?name=bash-5.1-1",
    "/v1/versions?name=bash-5.1-1",
    "/v1/changes",
    "/v1/summary",
];

/// The loss: the inventory of all tenants, for whoever has an account on the host or lures a browser there.
#[test]
fn data_is_for_those_who_log_in_at_a_name_of_this_server() {
    let rig = FleetRig::on_tcp(1);
    let web = &rig.web;
    assert_needs_login("fleet", web, &DATA);
    let others = [
        "/v1/changes/stream",
        "/v1/guests/unknown",
        "/nowhere",
        "/v1/packages",
    ];
    assert_needs_login("fleet", web, &others);
    let browser = session(web, &rig.state());
    for target in DATA {
        assert_data(web, target, &browser);
    }
    let absolute = web.get("http://evil.example/v1/guests", &browser);
    assert_eq!(absolute.code, 421);
    let twice = web.get(
        "/v1/guests",
        &format!("Host: localhost\r\nHost: evil.example\r\n{browser}"),
    );
    assert!([400, 421].contains(&twice.code), "{twice:?}");
    let none = web
        .raw("GET /v1/guests HTTP/1.1\r\nConnection: close\r\n\r\n")
        .unwrap();
    assert!([400, 421].contains(&none.code), "{none:?}");
    assert_eq!(web.get("/nowhere", &browser).code, 404);
}

#[test]
fn files_of_the_page_are_for_everybody_and_load_nothing_from_elsewhere() {
    let rig = FleetRig::on_tcp(1);
    assert_page_files(&rig.web);
}

#[test]
fn a_login_address_works_once() {
    let rig = FleetRig::on_tcp(1);
    assert_login_works_once("fleet", &rig.web, &rig.state());
    let (text, code) = rig.cli(&["fleet", "login", "--json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["expires_in_s"]), (0, &json!(300)));
}

#[test]
fn a_session_ends_with_the_sensor_and_a_token_when_it_is_taken_away() {
    let mut rig = FleetRig::on_tcp(1);
    let browser = session(&rig.web, &rig.state());
    assert_eq!(rig.web.get("/v1/summary", &browser).code, 200);
    let token = rig.dir.path().join("token");
    fs::remove_file(&token).unwrap();
    assert_eq!(rig.web.get("/v1/summary", &bearer(TOKEN)).code, 401);
    let (said, _) = status(&rig.state(), &[]);
    assert!(
        said["reasons"][0].as_str().unwrap().contains("fleet API"),
        "{said}"
    );
    assert_eq!(rig.web.get("/v1/summary", &browser).code, 200);
    write_token(
        &token,
        "another token of 20 letters".replace(' ', "-").as_str(),
    );
    assert_eq!(
        rig.web
            .get("/v1/summary", &bearer("another-token-of-20-letters"))
            .code,
        200
    );
    assert_eq!(status(&rig.state(), &[]).0["state"], "ok");

    assert!(rig.sensor.terminate().success());
    let Web::Tcp(port) = rig.web else {
        unreachable!()
    };
    let sink = format!("file:{}", rig.dir.path().join("out").display());
    let listen = format!("127.0.0.1:{port}");
    let vm = rig.agents[0].vm("g0");
    let _again = Program::sense(
        &rig.state(),
        &sink,
        &["--vm", &vm, "--fleet-listen", &listen],
    );
    eventually("the sensor answers again", || rig.web.connect().ok());
    assert_eq!(rig.web.get("/v1/summary", &browser).code, 401);
    assert_eq!(
        rig.web
            .get("/v1/summary", &bearer("another-token-of-20-letters"))
            .code,
        401
    );
}

/// The loss: an answer over HTTP that is another one than that of the command.
#[test]
fn answers_are_those_of_the_commands_also_in_pages() {
    let rig = FleetRig::on_tcp(5);
    // Each in a row of its own: what comes together may be one change.
    for (n, (agent, package)) in [(1, "vim"), (3, "vim"), (3, "emacs")]
        .into_iter()
        .enumerate()
    {
        rig.agents[agent].install(package);
        eventually("the change", || {
            let changes = rig.data("/v1/changes");
            (changes["changes"].as_array()?.len() == n + 1).then_some(())
        });
    }
    let command = |args: &[&str]| -> Value {
        let (text, code) = rig.cli(&[args, &["--json"]].concat());
        assert_eq!(code, 0, "{args:?}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    };
    // `seen_at` and states may move between two answers.
    let stable = |mut answer: Value| {
        for guest in answer["guests"].as_array_mut().into_iter().flatten() {
            guest["seen_at"] = Value::Null;
            guest["state"] = Value::Null;
        }
        answer["seen_at"] = Value::Null;
        answer["state"] = Value::Null;
        answer
    };
    for (args, target) in [
        (&["fleet"][..], "/v1/guests"),
        (&["fleet", "--os", "rhel"], "/v1/guests?os=rhel"),
        (&["fleet", "find", "vim"], "/v1/packages?name=vim"),
        (
            &["fleet", "find", "vim", "--not"],
            "/v1/packages?name=vim&not=true",
        ),
        (
            &["fleet", "find", "vim >= 1-1", "--arch", "noarch"],
            "/v1/packages?name=vim&op=ge&version=1-1&arch=noarch",
        ),
        (
            &["fleet", "find", "vim < 1-1"],
            "/v1/packages?name=vim&op=lt&version=1-1",
        ),
        (&["fleet", "versions", "vim"], "/v1/versions?name=vim"),
        (&["fleet", "show", "g3"], "/v1/guests/g3"),
    ] {
        assert_eq!(stable(command(args)), stable(rig.data(target)), "{target}");
    }
    let changes = rig.data("/v1/changes?since=1h");
    let (lines, _) = rig.cli(&["fleet", "changes", "--json"]);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // A delivery may end between the two.
    let without = |mut changes: Value| {
        let rows = changes.as_array_mut().unwrap().iter_mut();
        rows.for_each(|row| drop(row.as_object_mut().unwrap().remove("accepted")));
        changes
    };
    let all = without(changes["changes"].clone());
    assert_eq!(all, without(json!(lines)));

    for target in ["/v1/guests?limit=2", "/v1/packages?name=bash-5.1-1&limit=2"] {
        let (rows, pages) = rig.web.pages(target, "guests");
        let seen: Vec<&Value> = rows.iter().map(|guest| &guest["vm"]).collect();
        assert_eq!(
            (json!(seen), pages),
            (json!(["g0", "g1", "g2", "g3", "g4"]), 3),
            "{target}"
        );
    }
    let (rows, pages) = rig.web.pages("/v1/changes?limit=1", "changes");
    assert_eq!((without(json!(rows)), pages), (all, 3));

    assert_refused(
        &rig.web,
        &[
            ("/v1/guests/g9", 404, "no report of a guest"),
            ("/v1/guests/g0?at=1999-01-01T00:00:00Z", 400, "first report"),
            ("/v1/guests?limit=x", 400, "limit"),
            ("/v1/packages?name=a&op=lt", 400, "belong together"),
            (
                "/v1/changes?since=yesterday",
                400,
                "neither a time nor a duration",
            ),
        ],
    );
}

#[test]
fn the_summary_counts_guests_and_names_the_newest_change() {
    let rig = FleetRig::on_tcp(2);
    assert_eq!(rig.data("/v1/summary")["newest_change"], Value::Null);
    rig.agents[0].install("vim");
    let summary = eventually("the change", || {
        let summary = rig.data("/v1/summary");
        (!summary["newest_change"].is_null()).then_some(summary)
    });
    assert_eq!(summary["newest_change"]["added"][0]["name"], "vim");
    let latency = eventually("its latency", || {
        let latency = rig.data("/v1/summary")["latency"].clone();
        (latency["count"] == 1).then_some(latency)
    });
    let (p50, p99) = (latency["p50_s"].as_f64(), latency["p99_s"].as_f64());
    assert!(p50.unwrap() <= p99.unwrap(), "{latency}");
    assert_eq!(latency["minutes"].as_array().unwrap().len(), 1);
    let counts = summary["guests"].as_object().unwrap().values();
    assert_eq!(counts.map(|count| count.as_u64().unwrap()).sum::<u64>(), 2);
    assert_eq!(
        (&summary["state"], &summary["reasons"]),
        (&json!("ok"), &json!([]))
    );
}

#[test]
fn changes_are_streamed_as_they_come_and_continued_behind_the_last_one() {
    let rig = FleetRig::on_tcp(2);
    let browser = session(&rig.web, &rig.state());
    let mut events = rig.web.events("/v1/changes/stream", &browser);
    let head = events.until("retry: ").join("\n").to_lowercase();
    assert!(
        head.starts_with("http/1.1 200")
            && head.contains("text/event-stream")
            && head.contains("no-store"),
        "{head}"
    );
    let mut numbers = Vec::new();
    for package in ["one", "two", "three"] {
        rig.agents[1].install(package);
        let (number, change) = events.next();
        assert_eq!(
            (&change["added"][0]["name"], &change["vm"]),
            (&json!(package), &json!("g1"))
        );
        assert_eq!(change["number"], number);
        numbers.push(number);
    }
    drop(events);
    // As a browser does by itself; the header goes before the address.
    let last = format!("{browser}Last-Event-ID: {}\r\n", numbers[0]);
    let mut again = rig.web.events("/v1/changes/stream?cursor=0", &last);
    assert_eq!([again.next().0, again.next().0], numbers[1..]);
    let mut all = rig.web.events("/v1/changes/stream?cursor=0", &browser);
    assert_eq!(all.next().0, numbers[0]);
    let wrong = rig.web.get(
        "/v1/changes/stream",
        &format!("{browser}Last-Event-ID: x\r\n"),
    );
    assert_eq!(wrong.code, 400);
}

#[test]
fn what_a_sink_accepted_is_told_after_its_change_and_with_it() {
    let rig = FleetRig::on_tcp(1);
    let stream = "/v1/changes/stream";
    let mut events = rig.web.events(stream, &bearer(TOKEN));
    events.until("retry: ");
    rig.agents[0].install("vim");
    let (number, change) = events.next();
    let told = match change["accepted"].as_array() {
        // The delivery was faster than the stream.
        Some(sinks) => {
            json!({"vm": "g0", "report": change["report"], "sink": sinks[0]["sink"], "after_ms": sinks[0]["after_ms"]})
        }
        None => events.accepted(),
    };
    assert_eq!(
        (&told["vm"], &told["report"], &told["sink"]),
        (&json!("g0"), &change["report"], &json!("default"))
    );
    let sinks = json!([{"sink": "default", "after_ms": told["after_ms"].as_u64().unwrap()}]);
    assert_eq!(rig.data("/v1/changes")["changes"][0]["accepted"], sinks);
    // Who continues behind the change may have missed it.
    let mut again = rig
        .web
        .events(&format!("{stream}?cursor={number}"), &bearer(TOKEN));
    assert_eq!(again.accepted(), told);
    // Facts alone are no change.
    rig.agents[0].change(|script| {
        script.facts.insert("kernel_running".into(), "6.1".into());
    });
    rig.agents[0].install("emacs");
    let (_, next) = again.next();
    assert_eq!(next["added"][0]["name"], "emacs");
    let accepted = eventually("both are accepted", || {
        let changes = rig.data("/v1/changes")["changes"].clone();
        changes[1]["accepted"].is_array().then_some(changes)
    });
    for change in accepted.as_array().unwrap() {
        assert_eq!(change["accepted"].as_array().unwrap().len(), 1, "{change}");
    }
}

/// The loss: a sensor that delivers nothing, because somebody opens streams or connections.
#[test]
fn streams_and_silent_connections_are_bounded_and_delivery_goes_on() {
    let rig = FleetRig::on_tcp(1);
    let mut slow = rig.web.connect().unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: local").unwrap();
    let mut streams = Vec::new();
    let refused = loop {
        let mut stream = rig.web.events("/v1/changes/stream", &bearer(TOKEN));
        let status = stream.until("HTTP/1.1").pop().unwrap();
        if !status.contains("200") {
            break status;
        }
        streams.push(stream);
    };
    assert!(
        refused.contains("503") && streams.len() == 32,
        "{refused}, {}",
        streams.len()
    );
    let mut silent: Vec<_> = (0..200).map(|_| rig.web.connect().unwrap()).collect();
    assert_eq!(rig.data("/v1/guests")["guests"][0]["vm"], "g0");
    assert!(
        matches!(silent[0].read(&mut [0]), Ok(0) | Err(_)),
        "the oldest silent one is closed"
    );
    let out = rig.dir.path().join("out");
    rig.agents[0].install("vim");
    eventually("the delivery", || {
        fs::read_to_string(&out)
            .unwrap()
            .contains("vim")
            .then_some(())
    });
    for stream in &mut streams {
        assert_eq!(stream.next().1["added"][0]["name"], "vim");
    }
    let mut end = Vec::new();
    let _ = slow.read_to_end(&mut end);
    assert!(!String::from_utf8(end).unwrap().contains("200 OK"));
    drop(streams);
    eventually("a place for a stream", || {
        let mut stream = rig.web.events("/v1/changes/stream", &bearer(TOKEN));
        stream.until("HTTP/1.1")[0].contains("200").then_some(())
    });
    assert_eq!(status(&rig.state(), &[]).0["state"], "ok");
}
