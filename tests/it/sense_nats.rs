//! `afferent sense` and a real NATS server: what its stream holds in the end, whatever happens.

use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{Consumer, JETSTREAM, NatsServer, STREAM};
use crate::support::program::{Program, status};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

#[test]
fn a_report_is_one_message_with_its_key_and_the_bytes_that_a_file_would_hold() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let vm = agent.vm("web-1.example");
    // The same pending report for two sinks.
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut sense = Program::sense(&first, "http://127.0.0.1:9", &["--vm", &vm]);
    eventually("a wait: the report is durable", || {
        agent.seen().iter().any(|s| s.wait).then_some(())
    });
    sense.kill();
    fs::create_dir(&second).unwrap();
    fs::copy(first.join("sense.redb"), second.join("sense.redb")).unwrap();

    let out = dir.path().join("out");
    let mut sense = Program::sense(&first, &format!("file:{}", out.display()), &["--vm", &vm]);
    let line = eventually("the line", || {
        let text = fs::read_to_string(&out).ok()?;
        Some(text.strip_suffix('\n')?.to_owned())
    });
    assert_eq!(lines(&out).len(), 1);
    assert!(sense.terminate().success());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let mut sense = Program::sense(&second, &server.url(), &["--vm", &vm]);
    let stored = eventually("the message", || consumer.newest("web-1%2Eexample"));
    let without_time = |text: &[u8]| -> Value {
        let mut document: Value = serde_json::from_slice(text).unwrap();
        document["meta"]["seen_at"].take();
        document
    };
    assert_eq!(without_time(&stored.body), without_time(line.as_bytes()));
    assert_eq!(stored.body, stored.payload);
    assert_eq!(stored.subject, "afferent.reports.web-1%2Eexample");
    let digest = without_time(&stored.body)["meta"]["digest"].to_string();
    let key = format!("web-1.example/77/1/{}", &digest[8..24]);
    assert_eq!(stored.header("Nats-Msg-Id"), Some(key.as_str()));
    assert_eq!(stored.header("Content-Type"), Some("application/json"));
    assert_eq!(stored.header("Content-Encoding"), None);
    eventually("nothing is pending", || {
        is_accepted(&second, "77:1").then_some(())
    });

    let stream = consumer.stream().unwrap();
    for (name, value) in [
        (
            "subjects",
            json!(["afferent.reports.>", "afferent.facts.>"]),
        ),
        ("storage", json!("file")),
        ("max_msgs_per_subject", json!(1)),
        ("duplicate_window", json!(3_600_000_000_000_u64)),
        ("num_replicas", json!(1)),
    ] {
        assert_eq!(stream["config"][name], value, "{name}");
    }
    assert!(sense.terminate().success());
}

/// The loss: a machine is put back within the hour to a report that was sent before, the server drops it
/// as a duplicate, and the stream keeps the one in between for hours.
#[test]
fn a_report_that_was_sent_before_another_one_is_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut script = Script::new();
    script.waits = false;
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let state = dir.path().join("state");
    let args = ["--vm", &agent.vm("a"), "--poll-interval", "1s"];
    let mut sense = Program::sense(&state, &server.url(), &args);
    let stored = |generation: u32| {
        eventually(&format!("generation {generation} is the newest"), || {
            (consumer.newest("a")?.now() == agent.now()).then_some(())
        });
        let key = format!("77:{generation}");
        eventually("it is accepted", || is_accepted(&state, &key).then_some(()));
    };
    stored(1);
    let first = agent.now().1;
    for packages in [vec!["second".to_owned()], vec!["third".to_owned()]] {
        agent.change(|script| {
            script.generation += 1;
            script.packages = packages;
        });
        stored(agent.now().0);
    }
    // Back to the first, and forward again over keys that were all used.
    for (generation, packages) in [
        (1, first),
        (2, vec!["second".into()]),
        (3, vec!["third".into()]),
    ] {
        agent.change(|script| (script.generation, script.packages) = (generation, packages));
        stored(generation);
    }
    assert!(sense.terminate().success());
}

/// A lost ack must not become a second message.
#[test]
fn the_same_report_delivered_twice_is_stored_once_and_a_newer_one_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    for state in ["one", "two"] {
        let state = dir.path().join(state);
        let mut sense = Program::sense(&state, &server.url(), &["--vm", &agent.vm("a")]);
        eventually("accepted", || is_accepted(&state, "77:1").then_some(()));
        assert!(sense.terminate().success());
    }
    assert_eq!(consumer.stream().unwrap()["state"]["last_seq"], 1);
    let state = dir.path().join("two");
    let mut sense = Program::sense(&state, &server.url(), &["--vm", &agent.vm("a")]);
    agent.install("newer");
    eventually("accepted", || is_accepted(&state, "77:2").then_some(()));
    let stream = consumer.stream().unwrap();
    assert_eq!(stream["state"]["last_seq"], 2);
    assert_eq!(stream["state"]["messages"], 1);
    assert_eq!(consumer.newest("a").unwrap().now(), agent.now());
    assert!(sense.terminate().success());
}

#[test]
fn a_server_killed_while_reports_are_pending_loses_none_and_sense_goes_on() {
    const GUESTS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let names: Vec<String> = (0..GUESTS).map(|n| format!("vm-{n}")).collect();
    let agents: Vec<FakeAgent> = names
        .iter()
        .map(|name| FakeAgent::start(&dir.path().join(name), Script::new()))
        .collect();
    let vms: Vec<String> = names.iter().zip(&agents).map(|(n, a)| a.vm(n)).collect();
    let args: Vec<&str> = vms.iter().flat_map(|vm| ["--vm", vm]).collect();
    let state = dir.path().join("state");
    let mut sense = Program::sense(&state, &server.url(), &args);
    let all_newest = |what: &str| {
        eventually(what, || {
            let newest = |(name, agent): (&String, &FakeAgent)| {
                consumer
                    .newest(name)
                    .is_some_and(|m| m.now() == agent.now())
            };
            names.iter().zip(&agents).all(newest).then_some(())
        });
    };
    all_newest("the first reports");
    for round in 0..2 {
        // Some of these are on their way when it dies, some are not pulled yet.
        agents
            .iter()
            .for_each(|a| a.install(&format!("before-{round}")));
        server.kill();
        agents
            .iter()
            .for_each(|a| a.install(&format!("after-{round}")));
        eventually("it is said", || {
            let reasons = status(&state, &[]).0["reasons"].to_string();
            reasons.contains("unreachable").then_some(())
        });
        server.start_again(JETSTREAM);
        all_newest("the newest reports after the restart");
    }
    assert!(sense.runs());
    eventually("all is well", || (status(&state, &[]).1 == 0).then_some(()));
    assert!(sense.terminate().success());
}

#[test]
fn any_server_of_a_cluster_will_do() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let (mut gone, server) = (NatsServer::start(JETSTREAM), NatsServer::start(JETSTREAM));
    gone.kill();
    let url = format!("nats://{},{}?stream={STREAM}", gone.place, server.place);
    let state = dir.path().join("state");
    let mut sense = Program::sense(&state, &url, &["--vm", &agent.vm("a")]);
    eventually("accepted", || is_accepted(&state, "77:1").then_some(()));
    assert!(server.consumer().newest("a").is_some());
    assert!(sense.terminate().success());
}

/// A quiet hour must not cost the next report an attempt.
#[test]
fn a_connection_that_the_server_gave_up_is_replaced_unseen() {
    let talkative = "ping_interval: \"100ms\"\nping_max: 1\ndebug: true\n";
    let server = NatsServer::start(&format!("{JETSTREAM}{talkative}"));
    let consumer = server.consumer();
    for gone in 1..3 {
        consumer.ask("INFO", &json!({})).unwrap();
        eventually("the server gives it up", || {
            let log = fs::read_to_string(server.dir.path().join("log")).ok()?;
            (log.matches("Stale Client Connection").count() >= gone).then_some(())
        });
    }
}

#[test]
fn without_jetstream_everything_is_kept_and_the_reason_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let mut server = NatsServer::start("");
    let state = dir.path().join("state");
    let args = ["--vm", &agent.vm("a")];
    for create in ["", "&create=no"] {
        let mut sense = Program::sense(&state, &format!("{}{create}", server.url()), &args);
        said(&state, &["no JetStream", "-js"]);
        assert!(sense.terminate().success());
    }
    server.kill();
    server.start_again(JETSTREAM);
    let mut sense = Program::sense(&state, &server.url(), &args);
    eventually("accepted", || is_accepted(&state, "77:1").then_some(()));
    assert!(sense.terminate().success());
}

#[test]
fn a_stream_is_made_only_if_that_is_allowed_and_again_when_somebody_deletes_it() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let state = dir.path().join("state");
    let args = ["--vm", &agent.vm("a")];
    let no = format!("{}&create=no", server.url());
    let mut sense = Program::sense(&state, &no, &args);
    said(&state, &[STREAM, "is not there", "create=no"]);
    assert!(consumer.stream().is_none());
    assert!(sense.terminate().success());
    // One that does not take our subjects is no better.
    make(
        &consumer,
        &json!({ "name": STREAM, "subjects": ["other.>"] }),
    );
    for url in [&no, &server.url()] {
        let mut sense = Program::sense(&state, url, &args);
        said(&state, &["takes other.>, but not afferent.reports.>"]);
        assert!(sense.terminate().success());
    }
    delete(&consumer, STREAM);
    make(
        &consumer,
        &json!({ "name": STREAM, "subjects": ["afferent.reports.*"] }),
    );
    let mut sense = Program::sense(&state, &no, &args);
    eventually("accepted", || is_accepted(&state, "77:1").then_some(()));
    assert!(sense.terminate().success());
    let mut sense = Program::sense(&state, &server.url(), &args);
    delete(&consumer, STREAM);
    agent.install("after it was deleted");
    eventually("the newest", || {
        (consumer.newest("a")?.now() == agent.now()).then_some(())
    });
    assert!(sense.runs());
    assert!(sense.terminate().success());
}

/// An ack of another stream is no acceptance: our consumers would never see the report.
#[test]
fn a_report_that_another_stream_takes_is_not_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    make(
        &consumer,
        &json!({ "name": "OTHER", "subjects": ["afferent.>"] }),
    );
    let state = dir.path().join("state");
    let args = ["--vm", &agent.vm("a")];
    let mut sense = Program::sense(&state, &format!("{}&create=no", server.url()), &args);
    said(&state, &[STREAM, "is not there"]);
    assert!(sense.terminate().success());
    let mut sense = Program::sense(&state, &server.url(), &args);
    said(&state, &[STREAM, "may not make it", "overlap"]);
    assert!(sense.terminate().success());
}

#[test]
fn a_report_too_long_is_compressed_and_one_that_still_is_names_the_setting_to_raise() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = NatsServer::start(&format!("{JETSTREAM}max_payload: 8KB\n"));
    let consumer = server.consumer();
    let mut script = Script::new();
    script.packages = (0..300).map(|n| format!("package-{n}")).collect();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let state = dir.path().join("state");
    let mut sense = Program::sense(&state, &server.url(), &["--vm", &agent.vm("a")]);
    eventually("accepted", || is_accepted(&state, "77:1").then_some(()));
    let stored = consumer.newest("a").unwrap();
    assert_eq!(stored.header("Content-Encoding"), Some("gzip"));
    assert!(stored.body.len() > 8 << 10 && stored.payload.len() < 8 << 10);
    assert_eq!(stored.now(), agent.now());

    // Random names do not compress.
    let name = || (0..40).map(|_| fastrand::alphanumeric()).collect();
    agent.change(|script| {
        script.generation += 1;
        script.packages = (0..400).map(|_| name()).collect();
    });
    dead(&state, &["8192", "max_payload"]);
    assert_eq!(status(&state, &[]).0["pending"]["dead"], 1);
    server.kill();
    server.start_again(JETSTREAM);
    status(&state, &["--retry", "a"]);
    eventually("accepted", || is_accepted(&state, "77:2").then_some(()));
    assert_eq!(consumer.newest("a").unwrap().now(), agent.now());

    // A stream has a limit of its own.
    delete(&consumer, STREAM);
    let limited =
        json!({ "name": STREAM, "subjects": ["afferent.reports.>"], "max_msg_size": 8192 });
    make(&consumer, &limited);
    agent.change(|script| {
        script.generation += 1;
        script.packages.pop();
    });
    dead(&state, &["max_msg_size"]);
    assert!(sense.terminate().success());
}

/// Ten thousand reports must not become dead letters because a disk is full.
#[test]
fn a_full_stream_makes_everything_wait_and_counts_against_no_report() {
    let dir = tempfile::tempdir().unwrap();
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let mut config =
        json!({ "name": STREAM, "subjects": ["afferent.reports.>"], "discard": "new" });
    config["max_msgs"] = json!(1);
    make(&consumer, &config);
    let agents = ["a", "b"].map(|name| FakeAgent::start(&dir.path().join(name), Script::new()));
    let [a, b] = [agents[0].vm("a"), agents[1].vm("b")];
    let state = dir.path().join("state");
    let mut sense = Program::sense(&state, &server.url(), &["--vm", &a, "--vm", &b]);
    said(&state, &["busy", "maximum messages exceeded"]);
    config["max_msgs"] = json!(-1);
    let grown = consumer.ask(&format!("STREAM.UPDATE.{STREAM}"), &config);
    assert!(grown.unwrap()["config"].is_object());
    eventually("both are stored", || {
        (consumer.newest("a").is_some() && consumer.newest("b").is_some()).then_some(())
    });
    eventually("all is well", || (status(&state, &[]).1 == 0).then_some(()));
    assert!(sense.terminate().success());
}

/// Whether all that is known of the only guest was accepted.
fn is_accepted(state: &Path, key: &str) -> bool {
    let (answer, _) = status(state, &[]);
    let pending = &answer["pending"];
    answer["guests"][0]["accepted"]["key"] == key
        && pending["reactive"] == 0
        && pending["routine"] == 0
}

/// Waits until the reason is in `status`, with one report kept.
fn said(state: &Path, words: &[&str]) {
    let answer = eventually(&format!("{words:?} is said"), || {
        let (answer, code) = status(state, &[]);
        let reasons = answer["reasons"].to_string();
        let is_said = words.iter().all(|word| reasons.contains(word));
        (is_said && code == 4).then_some(answer)
    });
    let pending = &answer["pending"];
    let kept = pending["routine"].as_u64().unwrap() + pending["reactive"].as_u64().unwrap();
    assert_eq!(kept, 1, "{answer}");
    let guests = answer["guests"].as_array().unwrap();
    let attempts = |guest: &Value| guest["pending"]["attempts"].as_u64().unwrap_or(0);
    assert!(guests.iter().all(|guest| attempts(guest) == 0), "{answer}");
}

/// Waits until the report is a dead letter, for this reason.
fn dead(state: &Path, words: &[&str]) {
    eventually(&format!("{words:?} is said"), || {
        let (answer, _) = status(state, &["--dead"]);
        let error = answer["guests"][0]["pending"]["error"].to_string();
        words.iter().all(|word| error.contains(word)).then_some(())
    });
}

fn make(consumer: &Consumer, config: &Value) {
    let name = config["name"].as_str().unwrap();
    let made = consumer
        .ask(&format!("STREAM.CREATE.{name}"), config)
        .unwrap();
    assert!(made["config"].is_object(), "{made}");
}

fn delete(consumer: &Consumer, name: &str) {
    let deleted = consumer.ask(&format!("STREAM.DELETE.{name}"), &json!({}));
    assert_eq!(deleted.unwrap()["success"], true);
}
