//! `changes` of documents: what changed in a guest since the sink accepted a report of it.

use crate::support::central::Central;
use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, status};
use serde_json::{Value, json};

/// Loss prevented: whoever is told changes misses those of the time in which it took nothing, or is told them twice.
#[test]
fn each_sink_is_told_what_changed_since_it_accepted_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let (central, out) = (Central::start(), dir.path().join("out"));
    let (vm, file) = (agent.vm("web-1"), format!("log=file:{}", out.display()));
    let state = dir.path().join("state");
    let args = ["--deliver", &file, "--vm", &vm];
    let mut sense = Program::sense(&state, &central.url, &args);
    let posted = |generation: u32| {
        eventually("it is posted", || {
            let all = central.received().into_iter();
            let mut all = all.filter(|it| it.answered == 200).map(|it| it.body);
            all.find(|body| body["meta"]["generation"] == generation)
        })
    };
    let written = |generation: u32| {
        eventually("it is a line", || {
            let mut all = lines(&out).into_iter();
            all.find(|body| body["meta"]["generation"] == generation)
        })
    };
    let changes = |since: u32, added: &[&str]| {
        let added = added
            .iter()
            .map(|name| json!({ "name": name, "arch": "noarch", "version": "1-1" }));
        json!({
            "since": { "epoch": 77, "generation": since }, "added": added.collect::<Vec<_>>(), "removed": [],
            "upgraded": [], "downgraded": [], "changed": []
        })
    };
    for first in [posted(1), written(1)] {
        assert!(first.get("changes").is_none(), "{first}");
    }
    agent.install("openssl");
    for second in [posted(2), written(2)] {
        assert_eq!(second["changes"], changes(1, &["openssl"]));
    }
    central.always_answer("web-1", 503, "");
    for (generation, package) in [(3, "vim"), (4, "git")] {
        agent.install(package);
        assert_eq!(
            written(generation)["changes"],
            changes(generation - 1, &[package])
        );
    }
    eventually("it was refused", || {
        let all = central.received();
        all.iter()
            .any(|it| it.answered == 503 && it.body["meta"]["generation"] == 4)
            .then_some(())
    });
    // What was accepted survives the process.
    sense.kill();
    central.forget_rules();
    let mut sense = Program::sense(&state, &central.url, &args);
    assert_eq!(posted(4)["changes"], changes(2, &["git", "vim"]));
    // Another epoch.
    agent.change(|script| (script.epoch, script.generation) = (78, 1));
    agent.install("curl");
    for document in [posted_of(&central, 78), line_of(&out, 78)] {
        assert!(document.get("changes").is_none(), "{document}");
    }
    assert!(sense.terminate().success());
}

fn posted_of(central: &Central, epoch: u32) -> Value {
    eventually("it is posted", || {
        let mut all = central.received().into_iter().map(|it| it.body);
        all.find(|body| body["meta"]["epoch"] == epoch)
    })
}

fn line_of(out: &std::path::Path, epoch: u32) -> Value {
    eventually("it is a line", || {
        let mut all = lines(out).into_iter();
        all.find(|body| body["meta"]["epoch"] == epoch)
    })
}

#[test]
fn without_a_fleet_store_no_document_says_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let central = Central::start();
    let (state, vm) = (dir.path().join("state"), agent.vm("web-1"));
    let args = ["--vm", &vm, "--fleet", "off"];
    let mut sense = Program::sense(&state, &central.url, &args);
    for generation in 1..=3 {
        if generation > 1 {
            agent.install(&format!("package-{generation}"));
        }
        eventually("it is posted", || {
            let mut all = central.received().into_iter();
            all.find(|it| it.body["meta"]["generation"] == generation)
        });
    }
    let all = central.received();
    assert!(all.iter().all(|it| it.body.get("changes").is_none()));
    assert_eq!(status(&state, &[]).0["service"], "sense");
    assert!(sense.terminate().success());
}
