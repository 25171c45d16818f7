//! `afferent sense` with several sinks: each has what is pending for it, and none waits for another.

use crate::support::central::{Central, Received};
use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, free_port, http_get, status};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

fn has(received: &[Received], report: &str) -> bool {
    received
        .iter()
        .any(|r| r.report() == report && r.answered == 200)
}

/// What is shown of a sink.
fn sink(state: &Path, name: &str) -> Option<Value> {
    let (answer, _) = status(state, &[]);
    let sinks = answer["sinks"].as_array()?.clone();
    sinks.into_iter().find(|sink| sink["name"] == name)
}

/// Loss prevented: what one sink could not take, gone with its delivery to another, or late there.
#[test]
fn a_sink_that_is_down_delays_no_other_and_gets_the_newest_of_all_guests_when_it_is_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut polled = Script::new();
    polled.waits = false;
    let a = FakeAgent::start(&dir.path().join("a.sock"), polled);
    let b = FakeAgent::start(&dir.path().join("b.sock"), Script::new());
    let (central, port) = (Central::start(), free_port());
    let state = dir.path().join("state");
    let siem = format!("siem=http://127.0.0.1:{port}");
    let (a_vm, b_vm) = (a.vm("a"), b.vm("b"));
    let metrics = free_port();
    let metrics_port = metrics.to_string();
    let polls = ["--poll-interval", "1s", "--metrics", &metrics_port];
    let args = [
        &["--deliver", &siem, "--vm", &a_vm, "--vm", &b_vm],
        &polls[..],
    ]
    .concat();
    let start = || Program::sense(&state, &central.url, &args);
    let mut sense = start();
    for generation in 1..=3 {
        if generation > 1 {
            a.install(&format!("package-{generation}"));
        }
        let report = format!("a/77/{generation}");
        eventually("it is at Central", || {
            has(&central.received(), &report).then_some(())
        });
    }
    eventually("b is at Central", || {
        has(&central.received(), "b/77/1").then_some(())
    });
    // Facts alone do not wait for the sink that is down, either.
    let before = central.received().len();
    a.change(|script| drop(script.facts.insert("boot_id".into(), "b".into())));
    eventually("the facts are at Central", || {
        let received = central.received();
        let new = received[before..].iter();
        let shows = |r: &Received| r.body["meta"]["facts"]["boot_id"] == "b";
        new.filter(|r| r.report() == "a/77/3")
            .any(shows)
            .then_some(())
    });
    let pending = |name: &str| {
        Some(
            sink(&state, name)?["pending"]["routine"].as_u64()?
                + sink(&state, name)?["pending"]["reactive"].as_u64()?,
        )
    };
    eventually("nothing waits for Central, and two for the other", || {
        (pending("default") == Some(0) && pending("siem") == Some(2)).then_some(())
    });
    let (_, page) = http_get(metrics, "/metrics").unwrap();
    for line in [
        r#"afferent_sink_pending_reports{sink="default",class="routine"} 0"#,
        r#"afferent_sink_trouble{sink="default"} 0"#,
        r#"afferent_sink_trouble{sink="siem"} 1"#,
        r#"afferent_sink_deliveries_total{sink="siem",outcome="accepted"} 0"#,
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let accepted = page.lines().find_map(|line| {
        line.strip_prefix(r#"afferent_sink_deliveries_total{sink="default",outcome="accepted"} "#)
    });
    assert!(accepted.unwrap().parse::<u32>().unwrap() >= 5, "{page}");
    let (answer, code) = status(&state, &[]);
    let reasons = answer["reasons"].to_string();
    assert!(
        code == 4 && reasons.contains("the sink siem is unreachable"),
        "{reasons}"
    );
    let guest = &answer["guests"][0];
    assert_eq!(guest["vm"], "a");
    assert!(guest["sinks"]["default"]["pending"].is_null(), "{guest}");
    assert_eq!(guest["sinks"]["siem"]["pending"]["key"], "77:3", "{guest}");
    sense.kill();
    let mut sense = start();
    let siem = Central::start_on(port);
    eventually("all is there", || {
        let received = siem.received();
        (has(&received, "a/77/3") && has(&received, "b/77/1")).then_some(())
    });
    eventually("nothing is pending", || {
        (pending("siem") == Some(0)).then_some(())
    });
    assert_eq!(siem.received().len(), 2, "the newest of each guest");
    assert!(sense.terminate().success());
    // What it took, it is not given again.
    let mut sense = start();
    a.install("last");
    eventually("the change is at both", || {
        (has(&siem.received(), "a/77/4") && has(&central.received(), "a/77/4")).then_some(())
    });
    assert_eq!(siem.received().len(), 3);
    assert!(sense.terminate().success());
}

/// Loss prevented: reports that nobody gets, because the sink that all threads wait for answers nothing.
#[test]
fn a_sink_that_never_answers_takes_no_thread_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let count = 45;
    let agents: Vec<FakeAgent> = (0..count)
        .map(|n| FakeAgent::start(&dir.path().join(format!("{n}.sock")), Script::new()))
        .collect();
    let (central, hangs) = (Central::start(), Central::start());
    hangs.always_answer("", 0, "");
    let vms = agents
        .iter()
        .enumerate()
        .flat_map(|(n, agent)| ["--vm".to_owned(), agent.vm(&format!("g{n}"))]);
    let mut args: Vec<String> = vms.collect();
    args.extend(["--deliver".into(), format!("hangs={}", hangs.url)]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let state = dir.path().join("state");
    let mut sense = Program::sense(&state, &central.url, &args);
    eventually("deliveries hang", || {
        (hangs.received().len() >= 20).then_some(())
    });
    for (n, agent) in agents.iter().enumerate() {
        agent.install("new");
        let report = format!("g{n}/77/2");
        eventually("the change is at Central", || {
            has(&central.received(), &report).then_some(())
        });
    }
    sense.kill();
}

#[test]
fn a_sink_that_is_new_is_given_all_guests_and_what_is_left_of_an_old_one_is_shown_until_it_is_dropped()
 {
    let dir = tempfile::tempdir().unwrap();
    let a = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let central = Central::start();
    let state = dir.path().join("state");
    let vm = a.vm("a");
    let nowhere = format!("old=http://127.0.0.1:{}", free_port());
    let mut sense = Program::sense(&state, &central.url, &["--deliver", &nowhere, "--vm", &vm]);
    eventually("it is at Central", || {
        has(&central.received(), "a/77/1").then_some(())
    });
    sense.kill();
    let out = dir.path().join("out.ndjson");
    let new = format!("new=file:{}", out.display());
    let mut sense = Program::sense(&state, &central.url, &["--deliver", &new, "--vm", &vm]);
    eventually("the new sink has the guest that did not change", || {
        let lines = lines(&out);
        (lines.len() == 1 && lines[0]["report"]["packages"].is_array()).then_some(())
    });
    let (answer, code) = status(&state, &[]);
    assert_eq!(
        answer["orphaned_sinks"],
        json!([{ "name": "old", "pending": 1 }])
    );
    assert!(code == 4 && answer["reasons"].to_string().contains("--drop-sink old"));
    let (answer, code) = status(&state, &["--drop-sink", "new"]);
    assert!(answer["error"].to_string().contains("in use"), "{answer}");
    assert_eq!(code, 1);
    let (answer, _) = status(&state, &["--drop-sink", "old"]);
    assert_eq!(answer["dropped"], 1);
    let is_well = || {
        let (answer, code) = status(&state, &[]);
        (code == 0 && answer["orphaned_sinks"] == json!([])).then_some(())
    };
    eventually("nothing is left of it", is_well);
    assert!(sense.terminate().success());
    let mut sense = Program::sense(&state, &central.url, &["--deliver", &new, "--vm", &vm]);
    eventually("nor after a restart", is_well);
    assert!(sense.terminate().success());
}

#[test]
fn each_sink_has_its_own_token_and_a_refusal_of_one_is_no_matter_of_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let a = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let (central, other) = (Central::start(), Central::start());
    other.always_answer("a", 422, "");
    let token = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, name).unwrap();
        path.display().to_string()
    };
    let state = dir.path().join("state");
    let config = dir.path().join("sense.toml");
    let text = format!(
        "vm = ['{}']\nstate_dir = '{}'\n[[deliver]]\nto = '{}'\ntoken_file = '{}'\n\
         [[deliver]]\nname = 'other'\nto = '{}'\ntoken_file = '{}'\n",
        a.vm("a"),
        state.display(),
        central.url,
        token("first"),
        other.url,
        token("second"),
    );
    fs::write(&config, text).unwrap();
    let mut sense = Program::start(&["sense", "--config", &config.display().to_string()]);
    eventually("a dead letter of one sink", || {
        (sink(&state, "other")?["pending"]["dead"] == 1).then_some(())
    });
    assert_eq!(sink(&state, "default").unwrap()["pending"]["dead"], 0);
    let authorization = |received: Vec<Received>| received[0].authorization.clone().unwrap();
    assert_eq!(authorization(central.received()), "Bearer first");
    assert_eq!(authorization(other.received()), "Bearer second");
    assert_eq!(other.received().len(), 2);
    assert!(sense.terminate().success());
}
