//! `afferent sense`, from a guest's socket to Central's door.

use crate::support::central::Central;
use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Manner, Script};
use crate::support::program::{Program, status};
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn a_change_in_a_guest_is_a_line_in_the_file_without_waiting_for_a_poll() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let out = dir.path().join("out.ndjson");
    let mut sense = Program::sense(
        &dir.path().join("state"),
        &format!("file:{}", out.display()),
        &["--vm", &agent.vm("web-1")],
    );
    eventually("the first report", || {
        (lines(&out).len() == 1).then_some(())
    });
    eventually("a wait", || {
        agent.seen().iter().any(|s| s.wait).then_some(())
    });
    for n in 2..5 {
        let changed = Instant::now();
        agent.install(&format!("package-{n}"));
        // By the wait: the next poll is minutes away.
        eventually("the next report", || (lines(&out).len() == n).then_some(()));
        println!("change to file: {:.1?}", changed.elapsed());
    }
    let last = lines(&out).pop().unwrap();
    assert_eq!(last["vm"]["id"], "web-1");
    assert_eq!(last["meta"]["generation"], 4);
    assert_eq!(last["meta"]["trigger"], "reactive");
    assert_eq!(last["report"]["packages"].as_array().unwrap().len(), 4);
    assert!(sense.terminate().success());
}

/// A restart must neither lose a report nor pull everything again.
#[test]
fn what_was_pending_when_it_was_killed_is_delivered_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let state = dir.path().join("state");
    let nowhere = "http://127.0.0.1:9";
    let mut sense = Program::sense(&state, nowhere, &["--vm", &agent.vm("a")]);
    eventually("a wait: the report is durable", || {
        agent.seen().iter().any(|s| s.wait).then_some(())
    });
    sense.kill();
    let central = Central::start();
    let before = agent.seen().len();
    let mut sense = Program::sense(&state, &central.url, &["--vm", &agent.vm("a")]);
    let received = eventually("the delivery", || central.received().pop());
    assert_eq!(received.report(), "a/77/1");
    eventually("the next wait", || {
        agent.seen()[before..].iter().any(|s| s.wait).then_some(())
    });
    let asked_for_all = agent.seen()[before..].iter().any(|s| s.generation == 0);
    assert!(!asked_for_all, "{:?}", agent.seen());
    assert!(sense.terminate().success());
    // Cleared for good: nothing comes after another restart but what is new.
    let mut sense = Program::sense(&state, &central.url, &["--vm", &agent.vm("a")]);
    agent.install("new");
    eventually("the new one", || {
        central
            .received()
            .iter()
            .any(|r| r.report() == "a/77/2")
            .then_some(())
    });
    assert_eq!(central.received().len(), 2);
    assert!(sense.terminate().success());
}

/// How soon a change of an agent that cannot hold a wait, as StackRox's own, is at Central: within the poll
/// interval, of which half is usual.
#[test]
fn a_change_of_an_agent_that_cannot_wait_arrives_within_a_poll() {
    let dir = tempfile::tempdir().unwrap();
    let mut script = Script::new();
    script.waits = false;
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let central = Central::start();
    let vm = agent.vm("a");
    let args = ["--vm", &vm, "--poll-interval", "2s"];
    let mut sense = Program::sense(&dir.path().join("state"), &central.url, &args);
    let mut delays = Vec::new();
    for generation in 1..=8 {
        let start = Instant::now();
        if generation > 1 {
            agent.install(&format!("package-{generation}"));
        }
        let report = format!("a/77/{generation}");
        eventually("it is at Central", || {
            let received = central.received();
            received.iter().any(|r| r.report() == report).then_some(())
        });
        delays.push(start.elapsed());
    }
    let delays = &delays[1..];
    println!("with polls every 2 s: {delays:?}");
    // A machine that is busy with other tests may add something.
    assert!(
        delays.iter().all(|delay| *delay < Duration::from_secs(4)),
        "{delays:?}"
    );
    assert!(sense.terminate().success());
}

/// Refusals must lead to a full report and never to silence.
#[test]
fn nack_triggers_full_pull_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let a = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let b = FakeAgent::start(&dir.path().join("b.sock"), Script::new());
    let central = Central::start();
    central.always_answer("a", 422, "");
    let mut sense = Program::sense(
        &dir.path().join("state"),
        &central.url,
        &["--vm", &a.vm("a"), "--vm", &b.vm("b")],
    );
    let fulls = || a.seen().iter().filter(|seen| seen.generation == 0).count();
    // The first is that of the first meeting. The agent holds a wait of 45 s by then, and the next refresh
    // is hours away: only the refusal asks for another, after ten seconds or so.
    eventually("the refusal", || central.received().pop());
    let from = Instant::now();
    eventually("the full report after the refusal", || {
        (fulls() >= 2).then_some(())
    });
    let pause = from.elapsed().as_secs_f64();
    assert!((8.0..20.0).contains(&pause), "{pause}");
    let refused = |key: &str| {
        let received = central.received();
        received
            .iter()
            .filter(|r| r.key.starts_with(key) && r.answered == 422)
            .count()
    };
    eventually("it is sent once more", || {
        (refused("a/") == 2).then_some(())
    });
    b.install("meanwhile");
    let delivered = |report: &str| {
        let received = central.received();
        received
            .iter()
            .any(|r| r.report() == report && r.answered == 200)
    };
    eventually("the other guest's change", || {
        delivered("b/77/2").then_some(())
    });
    central.forget_rules();
    assert_eq!(refused("a/"), 2, "nothing sends it a third time");
    let from = Instant::now();
    a.install("after the refusal");
    eventually("the newer report, at once", || {
        delivered("a/77/2").then_some(())
    });
    assert!(from.elapsed() < Duration::from_secs(8));
    assert!(sense.terminate().success());
}

/// Loss prevented: content that Central does not take is sent at every poll of an agent that never says
/// "unchanged", or that is started anew.
#[test]
fn content_that_was_refused_twice_is_sent_again_only_at_the_refresh_interval() {
    let dir = tempfile::tempdir().unwrap();
    let mut script = Script::new();
    (script.waits, script.manner) = (false, Manner::NeverUnchanged);
    let a = FakeAgent::start(&dir.path().join("a.sock"), script);
    let central = Central::start();
    central.always_answer("a", 422, "");
    let state = dir.path().join("state");
    let vm = a.vm("a");
    let args = ["--vm", &vm, "--poll-interval", "1s"];
    let mut sense = Program::sense(&state, &central.url, &args);
    eventually("a dead letter", || {
        (status(&state, &[]).0["pending"]["dead"] == 1).then_some(())
    });
    let sent = || central.received().len();
    let polled = |times: usize| {
        let before = a.seen().len();
        eventually("more polls", || {
            (a.seen().len() > before + times).then_some(())
        });
    };
    assert_eq!(sent(), 2);
    polled(3);
    // The agent begins to count anew, with the same content.
    a.change(|script| (script.epoch, script.generation) = (78, 1));
    polled(3);
    assert_eq!(
        (sent(), status(&state, &[]).0["pending"]["dead"].as_u64()),
        (2, Some(1))
    );
    // Nor does a restart of the sensor send it.
    sense.kill();
    let mut sense = Program::sense(&state, &central.url, &args);
    polled(3);
    assert_eq!(sent(), 2);
    assert!(sense.terminate().success());
    // Its refresh does, once.
    let args = [&args[..], &["--refresh-interval", "1m"]].concat();
    let mut sense = Program::sense(&state, &central.url, &args);
    eventually("the refresh", || (sent() == 3).then_some(()));
    polled(3);
    assert_eq!(sent(), 3);
    // Other content goes at once.
    central.forget_rules();
    a.install("another");
    eventually("it is taken", || {
        (status(&state, &[]).1 == 0 && sent() == 4).then_some(())
    });
    assert!(sense.terminate().success());
}

#[test]
fn a_roster_is_read_again_when_it_changes_and_a_bad_edit_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let b = FakeAgent::start(&dir.path().join("b.sock"), Script::new());
    let (roster, out) = (dir.path().join("roster.toml"), dir.path().join("out"));
    let entry = |id: &str, agent: &FakeAgent| {
        format!(
            "[[vm]]\nid = '{id}'\naddress = 'unix:{}'\n",
            agent.path.display()
        )
    };
    fs::write(&roster, entry("a", &a)).unwrap();
    let roster_text = roster.display().to_string();
    let state = dir.path().join("state");
    let deliver = format!("file:{}", out.display());
    let mut sense = Program::sense(&state, &deliver, &["--roster", &roster_text]);
    eventually("a", || (lines(&out).len() == 1).then_some(()));
    fs::write(&roster, "[[vm]\nnonsense").unwrap();
    eventually("the bad edit is read, and said", || {
        let reasons = status(&state, &[]).0["reasons"].to_string();
        reasons.contains("roster.toml").then_some(())
    });
    a.install("still watched");
    eventually("a again", || (lines(&out).len() == 2).then_some(()));
    fs::write(&roster, entry("a", &a) + &entry("b", &b)).unwrap();
    let last = eventually("b", || lines(&out).into_iter().nth(2));
    assert_eq!(last["vm"]["id"], "b");
    assert!(sense.terminate().success());
}

/// Loss prevented: a virtual machine that starts anew has another CID, and the sensor waits at the one before.
#[test]
fn a_guest_that_has_another_address_is_asked_there_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let script = Script::new();
    let before = FakeAgent::start(&dir.path().join("before.sock"), script.clone());
    let after = FakeAgent::start(&dir.path().join("after.sock"), script);
    let (roster, out) = (dir.path().join("roster.toml"), dir.path().join("out"));
    let write = |agent: &FakeAgent| {
        let address = agent.path.display();
        let text = format!("[[vm]]\nid = 'a'\naddress = 'unix:{address}'\n");
        fs::write(&roster, text).unwrap();
    };
    write(&before);
    let roster_text = roster.display().to_string();
    let state = dir.path().join("state");
    let deliver = format!("file:{}", out.display());
    let flags = ["--roster", &roster_text, "--poll-interval", "24h"];
    let _sense = Program::sense(&state, &deliver, &flags);
    eventually("a wait is held", || {
        before.seen().last()?.wait.then_some(())
    });
    after.install("zsh 5.9-1");
    let began = Instant::now();
    write(&after);
    let last = eventually("the change there", || lines(&out).into_iter().nth(1));
    assert!(last.to_string().contains("zsh"), "{last}");
    // Sooner than the wait at the address before ends, after 40 to 45 s.
    assert!(began.elapsed() < Duration::from_secs(35));
    eventually("the wait is held there", || {
        after.seen().last()?.wait.then_some(())
    });
}
