//! `afferent sense --deliver nats://...&format=cyclonedx` and a real NATS server: bills of materials instead of reports.

use crate::support::documents;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{Consumer, JETSTREAM, NatsServer, STREAM, Stored};
use crate::support::program::{Program, free_port, http_get, status};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// An agent that is polled: facts are seen with every answer.
fn agent(dir: &Path) -> FakeAgent {
    let mut script = Script::new();
    script.waits = false;
    script.os = ("rocky", "9.4");
    FakeAgent::start(&dir.join("a.sock"), script)
}

fn sense(state: &Path, deliver: &str, agent: &FakeAgent, more: &[&str]) -> Program {
    let vm = agent.vm("web-1.example");
    let args = [&["--vm", &vm, "--poll-interval", "1s"], more].concat();
    Program::sense(state, deliver, &args)
}

fn bom_url(server: &NatsServer) -> String {
    format!("{}&format=cyclonedx", server.url())
}

/// Names of the packages, sorted.
fn packages(stored: &Stored) -> Vec<String> {
    let bom: Value = serde_json::from_slice(&stored.body).unwrap();
    documents::packages_of_bom(&bom)
}

/// Waits until the stream has the bill of materials of what the guest has now.
fn newest(consumer: &Consumer, agent: &FakeAgent) -> Stored {
    eventually("the newest bill of materials", || {
        let stored = consumer.newest_bom("web-1%2Eexample")?;
        (packages(&stored) == agent.now().1).then_some(stored)
    })
}

#[test]
fn every_change_is_a_bill_of_materials_and_facts_alone_are_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let port = free_port();
    let metrics = ["--metrics", &port.to_string()];
    let mut sense = sense(
        &dir.path().join("state"),
        &bom_url(&server),
        &agent,
        &metrics,
    );
    let stored = newest(&consumer, &agent);
    assert_eq!(stored.subject, "afferent.sbom.web-1%2Eexample");
    let kind = "application/vnd.cyclonedx+json; version=1.6";
    assert_eq!(stored.header("Content-Type"), Some(kind));
    let id = stored.header("Nats-Msg-Id").unwrap().to_owned();
    let is_key = id.starts_with("web-1.example/77/1/") && id.ends_with("/sbom");
    assert!(is_key, "{id}");
    let bom: Value = serde_json::from_slice(&stored.body).unwrap();
    assert_eq!(bom["metadata"]["component"]["name"], "web-1.example");
    assert_eq!(bom["components"][0]["swid"]["name"], "rocky");
    let config = &consumer.stream().unwrap()["config"];
    assert_eq!(config["subjects"], json!(["afferent.sbom.>"]));
    let accepted = |count: u32| {
        eventually(&format!("{count} documents are accepted"), || {
            let (_, page) = http_get(port, "/metrics")?;
            let line = format!("afferent_deliveries_total{{outcome=\"accepted\"}} {count}\n");
            page.contains(&line).then_some(())
        });
    };
    accepted(1);
    agent.change(|script| drop(script.facts.insert("boot_id".into(), "b".into())));
    accepted(2);
    agent.install("openssl");
    newest(&consumer, &agent);
    accepted(3);
    let state = &consumer.stream().unwrap()["state"];
    assert_eq!(
        (&state["last_seq"], &state["messages"]),
        (&json!(2), &json!(1))
    );
    assert!(sense.terminate().success());
}

/// Loss prevented: of a report and its bill of materials, which have one key, the server drops the second.
#[test]
fn one_stream_may_hold_both_a_report_and_its_bill_of_materials() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let state = |name: &str| dir.path().join(name);
    // A stream that takes reports only is no place for the others.
    let mut reports = sense(&state("reports"), &server.url(), &agent, &[]);
    eventually("the report", || consumer.newest("web-1%2Eexample"));
    let mut boms = sense(&state("boms"), &bom_url(&server), &agent, &[]);
    eventually("it is said", || {
        let said = status(&state("boms"), &[]).0["reasons"].to_string();
        said.contains("but not afferent.sbom.>").then_some(())
    });
    assert!(boms.terminate().success());
    let mut config = consumer.stream().unwrap()["config"].take();
    config["subjects"] = json!(["afferent.>"]);
    let updated = consumer.ask(&format!("STREAM.UPDATE.{STREAM}"), &config);
    assert!(updated.unwrap()["config"].is_object());
    let mut boms = sense(&state("boms"), &bom_url(&server), &agent, &[]);
    newest(&consumer, &agent);
    let report = consumer.newest("web-1%2Eexample").unwrap();
    assert_eq!(report.now(), agent.now());
    assert!(boms.terminate().success() && reports.terminate().success());
}

#[test]
fn with_create_no_publishing_bills_of_materials_is_all_that_must_be_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path());
    let users = "authorization { users: [\n\
        { user: admin, password: all }\n\
        { user: sensor, password: few, permissions: \
          { publish: [\"afferent.sbom.*\"], subscribe: [\"_INBOX.>\"] } }\n] }\n";
    let server = NatsServer::start(&format!("{JETSTREAM}{users}"));
    let secret = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, name).unwrap();
        path
    };
    let url = |user: &str| bom_url(&server).replace("nats://", &format!("nats://{user}@"));
    let admin = Consumer::new(&url("admin"), Some(secret("all")), None);
    let config = json!({ "name": STREAM, "subjects": ["afferent.sbom.*"] });
    let made = admin.ask(&format!("STREAM.CREATE.{STREAM}"), &config);
    assert!(made.unwrap()["config"].is_object());
    let restricted = format!("{}&create=no", url("sensor"));
    let few = secret("few").display().to_string();
    let state = dir.path().join("state");
    let mut sense = sense(&state, &restricted, &agent, &["--token-file", &few]);
    newest(&admin, &agent);
    agent.change(|script| drop(script.facts.insert("boot_id".into(), "b".into())));
    agent.install("openssl");
    newest(&admin, &agent);
    eventually("nothing is pending or said", || {
        let (answer, code) = status(&state, &[]);
        let pending = &answer["pending"];
        let is_none = pending["reactive"] == 0 && pending["routine"] == 0;
        (is_none && code == 0 && answer["facts_skipped"].is_null()).then_some(())
    });
    assert!(sense.terminate().success());
}
