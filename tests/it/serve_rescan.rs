//! `afferent rescan` in a guest: a scan at once, what it found, and what is said where there is none.

use crate::support::agent::Launch;
use crate::support::eventually;
use crate::support::held::Held;
use crate::support::rpm_root::{RpmRoot, Spec};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn command(state_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command.args(["rescan", "--state-dir"]).arg(state_dir);
    command.args(arguments);
    command
}

fn rescan(state_dir: &Path, arguments: &[&str]) -> Output {
    command(state_dir, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

fn package(root: &RpmRoot, name: &str) -> std::path::PathBuf {
    root.build(&Spec {
        name,
        ..Spec::default()
    })
}

/// An agent that scans only when it is told to.
fn idle(root: &RpmRoot) -> Launch {
    Launch::on(root.path())
        .flag("reactive-scan", "off")
        .flag("safety-poll", "1h")
}

#[test]
fn a_scan_is_made_at_once_and_what_changed_is_printed() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let launch = idle(&root);
    let agent = launch.start();
    let before = agent.wait_for_rpm(&root);
    root.install(&[package(&root, "two")]);
    let output = rescan(launch.state_dir(), &[]);
    assert!(output.status.success(), "{output:?}");
    let text = said(&output);
    assert!(text.contains("1 package changed\n  +two.noarch "), "{text}");
    let after = agent.get();
    assert_eq!(after.list(), root.rpm_qa());
    assert_ne!(after.key(), before.key());
    agent.wait_until_said("1 package changed: +two ");

    let text = said(&rescan(launch.state_dir(), &[]));
    assert!(text.contains("nothing changed since report"), "{text}");
    let output = rescan(launch.state_dir(), &["--json"]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["result"], "same");

    root.erase(&["two"]);
    let output = rescan(launch.state_dir(), &["--no-wait"]);
    assert!(output.status.success() && said(&output).contains("the agent scans now"));
    agent.wait_for_rpm(&root);
}

// The loss: a directory that every other command finds, and an answer that no service is there.
#[test]
fn the_environment_names_the_state_directory_to_rescan_and_status() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let launch = idle(&root);
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let nowhere = tempfile::tempdir().unwrap();
    for (command, said) in [("rescan", "nothing changed"), ("status", "serve ")] {
        let asked = |named: &Path| {
            let mut asking = Command::new(env!("CARGO_BIN_EXE_afferent"));
            asking.arg(command).env("AFFERENT_STATE_DIR", named);
            asking
        };
        let output = asked(launch.state_dir()).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        assert!(self::said(&output).contains(said), "{output:?}");
        // What is typed wins.
        let typed = ["--state-dir", launch.state_dir().to_str().unwrap()];
        let output = asked(nowhere.path()).args(typed).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        let output = asked(nowhere.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{command}: {output:?}");
    }
}

// The loss: an operator who believes that a dead letter was sent again, and an agent said how it is.
#[test]
fn a_wish_that_is_for_a_sensor_fails_where_only_an_agent_answers() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let launch = idle(&root);
    let _agent = launch.start();
    for wish in [["--retry", "all"], ["--drop", "a"], ["--drop-sink", "a"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["status", "--state-dir"])
            .arg(launch.state_dir())
            .args(wish)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said(&output).contains("no sensor answers"), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}

// The loss: a half-done transaction as a report, because somebody asked for one.
#[test]
fn a_transaction_is_waited_for_and_the_wait_is_said() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let launch = idle(&root);
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let lock = Held::lock(&root.dbpath().join(".rpm.lock"));
    let mut asking = command(launch.state_dir(), &[]);
    let mut asking = asking
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stderr = asking.stderr.as_mut().unwrap();
    BufReader::new(stderr).read_line(&mut line).unwrap();
    assert!(
        line.contains("waiting for the rpm transaction of process"),
        "{line}"
    );
    assert!(asking.try_wait().unwrap().is_none(), "it waits");
    drop(lock);
    let output = asking.wait_with_output().unwrap();
    assert!(
        output.status.success() && said(&output).contains("nothing changed"),
        "{output:?}"
    );
}

#[test]
fn a_scan_that_fails_and_a_service_that_is_not_there_are_failures_with_words() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let launch = idle(&root);
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    fs::rename(root.dbpath(), root.path().join("away")).unwrap();
    let output = rescan(launch.state_dir(), &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(said(&output).contains("the scan failed: "), "{output:?}");
    assert!(agent.terminate().success());
    let gone = eventually("the socket is gone", || {
        let output = rescan(launch.state_dir(), &[]);
        (output.status.code() == Some(1)).then_some(output)
    });
    assert!(said(&gone).contains("no service answers at"), "{gone:?}");
}
