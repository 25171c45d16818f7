//! A sensor that is told to read its configuration again.

use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, free_port, status};
use std::fs;
use std::process::Command;

/// Loss prevented: SIGHUP, as a log rotation sends it, ends the sensor; a typing error stops it, or it
/// goes on with half of a configuration.
#[test]
fn a_good_edit_holds_at_once_and_a_bad_one_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let b = FakeAgent::start(&dir.path().join("b.sock"), Script::new());
    let (file, out) = (dir.path().join("sense.toml"), dir.path().join("out"));
    let (log, state) = (dir.path().join("log"), dir.path().join("state"));
    let deliver = format!("deliver = 'file:{}'\n", out.display());
    fs::write(&file, format!("{deliver}vm = ['{}']\n", a.vm("a"))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .arg("sense")
        .arg("--state-dir")
        .arg(&state)
        .arg("--config")
        .arg(&file);
    let mut sense = Program::start_logged(command, &log);
    eventually("a", || (lines(&out).len() == 1).then_some(()));
    let pid = sense.pid().to_string();
    let hang_up = || {
        let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
        assert!(sent.success());
    };
    let said = |text: &str| {
        eventually(text, || {
            fs::read_to_string(&log)
                .unwrap()
                .contains(text)
                .then_some(())
        });
    };
    fs::write(&file, format!("{deliver}vm = ['b']\n")).unwrap();
    hang_up();
    said("not taken over");
    said("not ID=ADDR");
    assert_eq!(status(&state, &[]).0["guests"][0]["vm"], "a");

    let port = free_port();
    let vms = format!("vm = ['{}', '{}']\n", a.vm("a"), b.vm("b"));
    let edited = format!("{deliver}metrics = {port}\npoll_interval = '1m'\n{vms}");
    fs::write(&file, edited).unwrap();
    hang_up();
    said("configuration read again");
    // What needs a restart is named.
    said("key=\"metrics\"");
    let last = eventually("b", || lines(&out).into_iter().nth(1));
    assert_eq!(last["vm"]["id"], "b");
    fs::write(&file, format!("{deliver}vm = ['{}']\n", b.vm("b"))).unwrap();
    hang_up();
    eventually("a is gone", || {
        let guests = status(&state, &[]).0["guests"].clone();
        (guests.as_array()?.len() == 1 && guests[0]["vm"] == "b").then_some(())
    });
    assert!(sense.terminate().success());
}

/// The mirror takes the same signal.
#[test]
fn a_mirror_goes_on_after_sighup_with_the_settings_that_hold_then() {
    let dir = tempfile::tempdir().unwrap();
    let (file, state) = (dir.path().join("mirror.toml"), dir.path().join("state"));
    let inventory = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        format!("core = 'file:{}'\n", path.display())
    };
    let before = inventory("a.json", "{\"expected_machines\": []}");
    let after = inventory("b.json", "{\"expected_machines\": []}");
    fs::write(&file, before).unwrap();
    let state_text = state.display().to_string();
    let config = file.display().to_string();
    let flags = [
        "mirror",
        "run",
        "--config",
        &config,
        "--state-dir",
        &state_text,
    ];
    let mut mirror = Program::start(&flags);
    let source = || status(&state, &[]).0["core"].as_str().map(str::to_owned);
    eventually("the first inventory", || {
        source()?.ends_with("a.json").then_some(())
    });
    let hang_up = |pid: u32| {
        let sent = Command::new("kill")
            .args(["-HUP", &pid.to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    fs::write(&file, "core = 'ftp://x'\n").unwrap();
    hang_up(mirror.pid());
    fs::write(&file, after).unwrap();
    hang_up(mirror.pid());
    eventually("the second inventory", || {
        source()?.ends_with("b.json").then_some(())
    });
    assert!(mirror.runs());
    assert!(mirror.terminate().success());
}
