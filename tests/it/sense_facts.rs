//! Facts that change without a new report, agents that know only tokens, and reports that come again.

use crate::support::central::Central;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{Consumer, JETSTREAM, NatsServer, STREAM};
use crate::support::program::{Program, status};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// An agent that is polled: facts are seen with every answer.
fn polled() -> Script {
    let mut script = Script::new();
    script.waits = false;
    script
}

fn sense(state: &Path, deliver: &str, agent: &FakeAgent) -> Program {
    let vm = agent.vm("a");
    Program::sense(state, deliver, &["--vm", &vm, "--poll-interval", "1s"])
}

fn set_fact(agent: &FakeAgent, name: &str, value: &str) {
    agent.change(|script| drop(script.facts.insert(name.into(), value.into())));
}

/// The loss: Central never learns that a machine runs its new kernel.
#[test]
fn facts_that_change_alone_are_a_short_document_under_a_key_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), polled());
    let central = Central::start();
    let state = dir.path().join("state");
    let mut program = sense(&state, &central.url, &agent);
    let report = eventually("the report", || central.received().pop());
    set_fact(&agent, "boot_id", "b");
    let facts = eventually("the facts", || central.received().into_iter().nth(1));
    assert_eq!(facts.body["type"], "facts");
    assert_eq!(facts.body["report"], Value::Null);
    assert_eq!(facts.body["meta"]["facts"]["boot_id"], "b");
    assert_eq!(facts.body["meta"]["digest"], report.body["meta"]["digest"]);
    let hash = facts.key.strip_prefix(&format!("{}/facts/", report.key));
    assert_eq!(hash.map(str::len), Some(8), "{}", facts.key);
    let seen_at = |document: &Value| document["meta"]["seen_at"].as_str().unwrap().to_owned();
    assert!(seen_at(&facts.body) > seen_at(&report.body));
    // What is accepted is still the report.
    let (answer, _) = status(&state, &[]);
    assert_eq!(answer["guests"][0]["accepted"]["key"], "77:1");

    // These say nothing new, also after a restart; what follows shows that they were seen.
    set_fact(&agent, "last_scan_at", "later");
    program.terminate();
    let mut program = sense(&state, &central.url, &agent);
    let before = agent.seen().len();
    eventually("two more polls", || {
        (agent.seen().len() > before + 2).then_some(())
    });
    agent.install("another");
    let next = eventually("the next report", || central.received().into_iter().nth(2));
    assert_eq!(next.report(), "a/77/2");
    assert!(program.terminate().success());
}

/// The loss: an older Central, which takes reports only, gets everything of the guest as dead letters.
#[test]
fn facts_that_central_refuses_are_skipped_and_no_dead_letter() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), polled());
    let central = Central::start();
    let state = dir.path().join("state");
    let mut program = sense(&state, &central.url, &agent);
    eventually("the report", || central.received().pop());
    central.answer_next(422, "");
    set_fact(&agent, "boot_id", "b");
    eventually("they are skipped, which status says", || {
        let (answer, _) = status(&state, &[]);
        let why = answer["facts_skipped"].as_str()?.to_owned();
        (why.contains("422") && answer["guests"][0]["pending"].is_null()).then_some(())
    });
    let full = agent
        .seen()
        .iter()
        .filter(|seen| seen.generation == 0)
        .count();
    assert_eq!(full, 1, "nothing was asked for again");
    agent.install("another");
    eventually("the next report", || {
        let received = central.received();
        received
            .iter()
            .any(|r| r.report() == "a/77/2")
            .then_some(())
    });
    assert_eq!(status(&state, &[]).0["pending"]["dead"], 0);
    assert!(program.terminate().success());
}

/// The loss: a stream that keeps one message a subject loses the report to the facts after it.
#[test]
fn over_nats_facts_have_a_subject_of_their_own_in_the_same_stream() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), polled());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let mut program = sense(&dir.path().join("state"), &server.url(), &agent);
    eventually("the report", || consumer.newest("a"));
    set_fact(&agent, "boot_id", "b");
    let facts = eventually("the facts", || consumer.newest_at("afferent.facts.a"));
    let document: Value = serde_json::from_slice(&facts.body).unwrap();
    assert_eq!(
        (&document["type"], &document["meta"]["facts"]["boot_id"]),
        (&json!("facts"), &json!("b"))
    );
    assert_eq!(consumer.newest("a").unwrap().now(), agent.now());
    assert!(program.terminate().success());
}

/// The loss: an upgrade of the sensor stops a fleet whose stream, or whose rights, are those of 0.1.
#[test]
fn where_a_stream_or_the_rights_lack_facts_they_are_skipped_and_reports_go_on() {
    let users = "authorization { users: [\n\
        { user: admin, password: all }\n\
        { user: sensor, password: few, permissions: \
          { publish: [\"afferent.reports.*\"], subscribe: [\"_INBOX.>\"] } }\n] }\n";
    for (what, users, subjects, create) in [
        ("an old stream", "", "afferent.reports.>", ""),
        (
            "an old stream that is not looked at",
            "",
            "afferent.reports.>",
            "&create=no",
        ),
        ("old rights", users, "afferent.>", "&create=no"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let agent = FakeAgent::start(&dir.path().join("a.sock"), polled());
        let server = NatsServer::start(&format!("{JETSTREAM}{users}"));
        let secret = |text: &str| {
            let path = dir.path().join(text);
            fs::write(&path, text).unwrap();
            path
        };
        let as_user = |user: &str| match users {
            "" => server.url(),
            _ => server.url().replace("nats://", &format!("nats://{user}@")),
        };
        let admin = Consumer::new(&as_user("admin"), Some(secret("all")), None);
        let stream = json!({ "name": STREAM, "subjects": [subjects], "max_msgs_per_subject": 1 });
        admin
            .ask(&format!("STREAM.CREATE.{STREAM}"), &stream)
            .unwrap();
        let url = format!("{}{create}", as_user("sensor"));
        let state = dir.path().join("state");
        let (vm, few) = (agent.vm("a"), secret("few").display().to_string());
        let args = ["--vm", &vm, "--poll-interval", "1s", "--token-file", &few];
        let mut program = Program::sense(&state, &url, &args);
        eventually(&format!("{what}: the report"), || admin.newest("a"));
        set_fact(&agent, "boot_id", "b");
        eventually(
            &format!("{what}: they are skipped, which status says"),
            || status(&state, &[]).0["facts_skipped"].as_str().map(drop),
        );
        agent.install("another");
        eventually(&format!("{what}: the next report"), || {
            (admin.newest("a")?.now() == agent.now()).then_some(())
        });
        let (answer, code) = status(&state, &[]);
        assert_eq!(code, 0, "{what}: {answer}");
        assert!(admin.newest_at("afferent.facts.a").is_none(), "{what}");
        if (users, create) == ("", "") {
            // What the reason asks for helps without a restart.
            let wider =
                json!({ "name": STREAM, "subjects": ["afferent.>"], "max_msgs_per_subject": 1 });
            let updated = admin.ask(&format!("STREAM.UPDATE.{STREAM}"), &wider);
            assert!(updated.unwrap()["config"].is_object());
            set_fact(&agent, "boot_id", "c");
            eventually("the facts arrive", || admin.newest_at("afferent.facts.a"));
            eventually("status says so", || {
                status(&state, &[]).0["facts_skipped"]
                    .is_null()
                    .then_some(())
            });
        }
        assert!(program.terminate().success());
    }
}

/// The loss: a file of thousands of equal reports.
#[test]
fn a_report_that_comes_again_is_a_short_line_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), polled());
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let deliver = format!("file:{}", out.display());
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&out).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let mut program = sense(&state, &deliver, &agent);
    eventually("the report", || (lines().len() == 1).then_some(()));
    eventually("it is accepted", || {
        status(&state, &[]).0["guests"][0]["accepted"]
            .is_object()
            .then_some(())
    });
    // An agent that lost its state sends the same content again, under the same key.
    agent.change(|script| script.generation = 2);
    eventually("the other report", || (lines().len() == 2).then_some(()));
    agent.change(|script| script.epoch = 78);
    eventually("and one of another epoch", || {
        (lines().len() == 3).then_some(())
    });
    assert!(lines().iter().all(|line| line["report"].is_object()));
    assert!(program.terminate().success());
    // Its refresh is due at once after a start in which everything is asked for.
    let mut program = Program::sense(
        &state,
        &deliver,
        &[
            "--vm",
            &agent.vm("a"),
            "--poll-interval",
            "1s",
            "--refresh-interval",
            "1m",
        ],
    );
    let refresh = eventually("the refresh", || lines().into_iter().nth(3));
    assert_eq!(
        (&refresh["unchanged"], &refresh["report"]),
        (&json!(true), &Value::Null)
    );
    let digest = refresh["meta"]["digest"].as_str().unwrap();
    assert_eq!(refresh["key"], format!("a/78/2/{}", &digest[7..23]));
    assert!(program.terminate().success());
}

/// The loss: an agent of the second generation that is refused, or pulled in full at every poll.
#[test]
fn an_agent_that_knows_only_tokens_is_asked_with_its_token_and_its_reports_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut script = polled();
    script.token = Some("0123456789abcdef".into());
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let central = Central::start();
    let state = dir.path().join("state");
    let mut program = sense(&state, &central.url, &agent);
    let first = eventually("the report", || central.received().pop());
    assert_eq!(first.report(), "a/0/1");
    eventually("it is asked with its token", || {
        agent
            .seen()
            .iter()
            .any(|seen| seen.token == "0123456789abcdef")
            .then_some(())
    });
    agent.change(|script| {
        script.token = Some("fedcba9876543210".into());
        script.packages.push("another".into());
    });
    let second = eventually("the next", || central.received().into_iter().nth(1));
    assert_eq!(second.report(), "a/0/2");
    assert!(program.terminate().success());
    // Token and count outlive a restart.
    let asked = agent.seen().len();
    let mut program = sense(&state, &central.url, &agent);
    eventually("the next question", || agent.seen().get(asked).cloned());
    assert_eq!(agent.seen()[asked].token, "fedcba9876543210");
    agent.change(|script| {
        script.token = Some("0000000000000000".into());
        script.packages.push("a third".into());
    });
    let third = eventually("the third", || central.received().into_iter().nth(2));
    assert_eq!(third.report(), "a/0/3");
    let full = agent
        .seen()
        .iter()
        .filter(|seen| seen.token.is_empty())
        .count();
    assert_eq!(full, 1, "it was asked for everything once");
    assert!(program.terminate().success());
}
