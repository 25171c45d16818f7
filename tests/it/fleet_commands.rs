//! `afferent fleet` and `afferent rescan` with a real sensor, a real agent and the real rpm.

use crate::support::agent::Launch;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::Program;
use crate::support::rpm_root::{RpmRoot, Spec};
use crate::support::{eventually, eventually_or};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn afferent(command: &str, state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg(command)
        .args(args)
        .arg("--state-dir")
        .arg(state)
        .output()
        .unwrap()
}

/// What people read, and the exit code.
fn fleet(state: &Path, args: &[&str]) -> (String, i32) {
    let out = afferent("fleet", state, args);
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (text.concat(), out.status.code().unwrap())
}

/// What programs read: one document a line.
fn fleet_json(state: &Path, args: &[&str]) -> Vec<Value> {
    let out = afferent("fleet", state, &[args, &["--json"]].concat());
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn sample(version: &str, release: &str) -> Spec<'static> {
    let (version, release) = (version.to_owned().leak(), release.to_owned().leak());
    Spec {
        version,
        release,
        ..Spec::default()
    }
}

/// The loss: an answer of the fleet that is not what rpm says, with the sensor running or killed.
#[test]
fn questions_are_answered_by_the_sensor_and_after_it_was_killed_from_its_file() {
    let root = RpmRoot::new();
    root.add(&sample("1", "1"));
    let newer = root.build(&sample("2", "1"));
    let launch = Launch::on(root.path()).flag("reactive-debounce", "0s");
    let agent = launch.start();
    let state = launch.home().join("sense");
    let sink = format!("file:{}", launch.home().join("out.ndjson").display());
    let vm = format!("web-1=unix:{}", launch.home().join("socket").display());
    let mut sensor = Program::sense(&state, &sink, &["--vm", &vm]);
    let found = |state: &Path, filter: &str| -> Option<usize> {
        let answer = fleet_json(state, &["find", filter]).pop()?;
        answer["guests"].as_array().map(Vec::len)
    };
    eventually("the first report", || {
        (found(&state, "sample = 1-1") == Some(1)).then_some(())
    });
    let (list, code) = fleet(&state, &[]);
    assert!(code == 0 && list.contains("web-1  rhel-9.4  1"), "{list}");
    assert_eq!(
        fleet_json(&state, &["changes"]),
        [] as [Value; 0],
        "a baseline is no change"
    );

    root.upgrade(&[&newer]);
    agent.wait_for_rpm(&root);
    let change = eventually("the change", || {
        fleet_json(&state, &["changes", "--since", "1h"]).pop()
    });
    let upgraded = &change["upgraded"][0];
    assert_eq!(
        (&upgraded["from"], &upgraded["to"]),
        (&"1-1".into(), &"2-1".into())
    );
    assert_eq!(change["trigger"], "reactive");

    // Killed, so that the file was not closed.
    sensor.kill();
    assert_eq!(found(&state, "sample < 2"), Some(0));
    assert_eq!(found(&state, "sample >= 2"), Some(1));
    assert_eq!(found(&state, "sample < 2 "), Some(0), "nothing found");
    let (text, code) = fleet(&state, &["find", "sample < 2", "--not"]);
    assert!(
        code == 0 && text.contains("web-1") && text.contains("1 of 1 guest"),
        "{text}"
    );
    let before = change["at"].as_str().unwrap();
    let then: afferent::clock::WallTime = before.parse().unwrap();
    let then = then.before(std::time::Duration::from_millis(1)).to_string();
    let show = fleet_json(&state, &["show", "web-1", "--at", &then])
        .pop()
        .unwrap();
    assert_eq!(show["installed"][0]["version"], "1-1");
    let show = fleet_json(&state, &["show", "web-1"]).pop().unwrap();
    assert_eq!(show["installed"][0]["version"], "2-1");
    assert_eq!(show["history"].as_array().unwrap().len(), 2);
    let versions = fleet_json(&state, &["versions", "sample"]).pop().unwrap();
    assert_eq!(versions["versions"][0]["version"], "2-1");
    for args in [
        &["show", "web-1"][..],
        &["versions", "sample"],
        &["changes"],
        &["diff", "web-1", "web-1"],
    ] {
        let (text, code) = fleet(&state, args);
        assert!(code == 0 && !text.is_empty(), "{args:?}: {text}");
    }
    let (csv, _) = fleet(&state, &["export", "--format", "csv"]);
    assert!(
        csv.lines()
            .nth(1)
            .unwrap()
            .starts_with("web-1,rhel-9.4,sample,2-1,noarch,"),
        "{csv}"
    );
    let (json, _) = fleet(&state, &["export"]);
    let export: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(export[0]["packages"][0]["version"], "2-1");
}

#[test]
fn exit_codes_tell_nonsense_from_what_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let (text, code) = fleet(dir.path(), &[]);
    assert!(code == 1 && text.contains("no sensor runs here"), "{text}");
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let sink = format!("file:{}", dir.path().join("out").display());
    let state = dir.path().join("state");
    let mut sensor = Program::sense(&state, &sink, &["--vm", &agent.vm("a")]);
    eventually("the guest", || {
        fleet(&state, &["show", "a"]).1.eq(&0).then_some(())
    });
    for (args, wanted) in [
        (&["find", "nothing"][..], 0),
        (&["find", "x", "<"], 2),
        (&["find", "x = :1"], 2),
        (&["changes", "--since", "yesterday"], 2),
        (&["show", "b"], 1),
        (&["show", "a", "--at", "1999-01-01T00:00:00Z"], 2),
        (&["diff", "a", "b"], 1),
        (&["--state", "silent"], 0),
    ] {
        let (text, code) = fleet(&state, args);
        assert_eq!(code, wanted, "{args:?}: {text}");
    }
    assert!(sensor.terminate().success());
    let mut sensor = Program::sense(&state, &sink, &["--vm", &agent.vm("a"), "--fleet", "off"]);
    eventually("a sensor without a fleet store", || {
        fleet(&state, &[])
            .0
            .contains("keeps no fleet store")
            .then_some(())
    });
    assert!(sensor.terminate().success());
}

#[test]
fn changes_are_followed_as_they_come() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let sink = format!("file:{}", dir.path().join("out").display());
    let state = dir.path().join("state");
    let mut sensor = Program::sense(&state, &sink, &["--vm", &agent.vm("a")]);
    eventually("the guest", || {
        fleet(&state, &["show", "a"]).1.eq(&0).then_some(())
    });
    let seen = dir.path().join("seen");
    let mut follow = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["fleet", "changes", "--follow", "--json", "--state-dir"])
        .arg(&state)
        .stdout(std::fs::File::create(&seen).unwrap())
        .spawn()
        .unwrap();
    for package in ["one", "two"] {
        agent.install(package);
        eventually_or(
            || {
                std::fs::read_to_string(&seen)
                    .unwrap()
                    .contains(package)
                    .then_some(())
            },
            || panic!("{package} is not followed"),
        );
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(sensor.terminate().success());
}

#[test]
fn rescan_asks_a_guest_for_a_full_report_now() {
    let dir = tempfile::tempdir().unwrap();
    let agents = ["a", "b"].map(|id| FakeAgent::start(&dir.path().join(id), Script::new()));
    let sink = format!("file:{}", dir.path().join("out").display());
    let state = dir.path().join("state");
    let vms = [agents[0].vm("a"), agents[1].vm("b")];
    let mut sensor = Program::sense(&state, &sink, &["--vm", &vms[0], "--vm", &vms[1]]);
    // The first one is in a wait by then.
    let full = |n: usize| {
        let seen = agents[n].seen();
        seen.iter()
            .filter(|seen| !seen.wait && seen.generation == 0)
            .count()
    };
    let waits = |n: usize| agents[n].seen().last().is_some_and(|seen| seen.wait);
    eventually("both wait", || (waits(0) && waits(1)).then_some(()));
    let before = [full(0), full(1)];
    let out = afferent("rescan", &state, &["--vm", "a"]);
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        "1 guest is asked for a full report\n"
    );
    eventually("a full pull of a", || {
        (full(0) == before[0] + 1).then_some(())
    });
    assert_eq!(full(1), before[1]);
    let out = afferent("rescan", &state, &["--json"]);
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "{\"rescans\":2}\n");
    eventually("a full pull of b", || {
        (full(1) == before[1] + 1).then_some(())
    });
    let out = afferent("rescan", &state, &["--vm", "c"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("no guest \"c\"")
    );
    assert!(sensor.terminate().success());
}
