//! Guests that a source names, and what the sensor makes of sources that it cannot read.

use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, free_port, http_get, status};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Where the package has the drop-in that lets the service read domains.
const DROP_IN: &str = "/usr/share/afferent/sense-libvirt.conf";

fn domain(name: &str) -> String {
    format!(
        "<domstatus state='running'><domain><name>{name}</name><devices><vsock>\
         <cid address='3'/></vsock></devices></domain></domstatus>"
    )
}

/// Loss prevented: a sensor that may not read libvirt's files reports that all is well with no guests.
#[test]
fn domains_that_may_not_be_read_degrade_the_sensor_and_are_said_once() {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if is_root && Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: root may read everything, and setpriv is not here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let open_to_all = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open_to_all(dir.path(), 0o755);
    let (domains, state) = (dir.path().join("qemu"), dir.path().join("state"));
    for (path, mode) in [(&domains, 0o755), (&state, 0o777)] {
        fs::create_dir(path).unwrap();
        open_to_all(path, mode);
    }
    fs::write(domains.join("web.xml"), domain("web")).unwrap();
    open_to_all(&domains.join("web.xml"), 0o000);
    let program = dir.path().join("afferent");
    fs::copy(env!("CARGO_BIN_EXE_afferent"), &program).unwrap();
    open_to_all(&program, 0o755);
    let (port, log) = (free_port(), dir.path().join("log"));
    let mut command = match is_root {
        true => {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
                .arg(&program);
            command
        }
        false => Command::new(&program),
    };
    command
        .arg("sense")
        .args(["--deliver", "file:/dev/null", "--metrics"])
        .arg(port.to_string())
        .arg("--state-dir")
        .arg(&state)
        .arg("--discover")
        .arg(format!("libvirt:{}", domains.display()));
    let mut sense = Program::start_logged(command, &log);
    let said = "1 of 1 domains cannot be read: web.xml: Permission denied";
    let answer = eventually("status", || {
        let answer = status(&state, &[]).0;
        (answer["state"] == "degraded").then_some(answer)
    });
    let reason = answer["reasons"][0].as_str().unwrap();
    assert!(reason.contains(said), "{answer}");
    // What to do about it.
    assert!(reason.contains(DROP_IN), "{answer}");
    // The first are the settings, which name nobody.
    assert_eq!(answer["sources"][1]["read_at"], Value::Null);
    // Read again every other second, and said once.
    let metrics = || http_get(port, "/metrics").unwrap().1;
    assert!(metrics().contains("\nafferent_roster_sources_unread 1\n"));
    assert!(http_get(port, "/readyz").unwrap().0.contains("503"));
    open_to_all(&domains.join("web.xml"), 0o444);
    eventually("the domain is a guest", || {
        let answer = status(&state, &[]).0;
        let guest = &answer["guests"][0];
        (guest["vm"] == "web" && guest["source"] == domains.display().to_string()).then_some(())
    });
    assert!(metrics().contains("\nafferent_roster_sources_unread 0\n"));
    assert!(http_get(port, "/readyz").unwrap().0.contains("200"));
    sense.kill();
    let log = fs::read_to_string(&log).unwrap();
    assert_eq!(log.matches(said).count(), 1, "{log}");
}

/// Loss prevented: a sensor that says that it is well, and has heard of no guest since it was started.
#[test]
fn a_sensor_of_which_no_guest_answers_says_so_in_its_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("c.sock"), Script::new());
    let (state, port) = (dir.path().join("state"), free_port());
    let guests = ["a", "b"].map(|vm| format!("{vm}=unix:{}", dir.path().join(vm).display()));
    let of = |guests: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
        command.args(["sense", "--deliver", "file:/dev/null", "--metrics"]);
        command.arg(port.to_string()).arg("--state-dir").arg(&state);
        command.args(guests.iter().flat_map(|guest| ["--vm", guest]));
        Program::start_logged(command, &dir.path().join("log"))
    };
    let first_line = || {
        let mut asking = Command::new(env!("CARGO_BIN_EXE_afferent"));
        asking.args(["status", "--state-dir"]).arg(&state);
        let said = String::from_utf8(asking.output().unwrap().stdout).unwrap();
        said.lines().next().unwrap_or_default().to_owned()
    };
    let mut sense = of(&guests);
    eventually("both are failing, and that is said", || {
        let (answer, code) = status(&state, &[]);
        let reason = answer["reasons"][0].as_str()?;
        (reason.starts_with("no guest answers: ") && code == 4).then_some(())
    });
    let line = first_line();
    assert!(line.ends_with("  degraded  0 of 2 guests answer"), "{line}");
    // The fleet is answered for all the same.
    assert!(http_get(port, "/readyz").unwrap().0.contains("200"));
    sense.kill();

    // One that answers makes the others single guests.
    let _sense = of(&[guests.as_slice(), &[agent.vm("c")]].concat());
    eventually("one of three answers", || {
        first_line()
            .ends_with("  1 of 3 guests answer")
            .then_some(())
    });
    let said = status(&state, &[]).0["reasons"].to_string();
    assert!(!said.contains("no guest answers"), "{said}");
}

/// Loss prevented: an operator who installs the drop-in and still sees no guest.
#[test]
fn the_capability_of_the_drop_in_is_enough_to_read_domains() {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !is_root || Command::new("setpriv").arg("--version").output().is_err() {
        println!("skipped: only root can give a capability, with setpriv");
        return;
    }
    let drop_in = include_str!("../../packaging/systemd/sense-libvirt.conf");
    let granted = drop_in
        .lines()
        .find_map(|l| l.strip_prefix("AmbientCapabilities=CAP_"));
    let granted = granted.unwrap().to_ascii_lowercase();
    let dir = tempfile::tempdir().unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(dir.path(), 0o755);
    let (domains, state) = (dir.path().join("qemu"), dir.path().join("state"));
    fs::create_dir(&domains).unwrap();
    fs::write(domains.join("web.xml"), domain("web")).unwrap();
    set_mode(&domains.join("web.xml"), 0o600);
    set_mode(&domains, 0o700);
    fs::create_dir(&state).unwrap();
    set_mode(&state, 0o777);
    let program = dir.path().join("afferent");
    fs::copy(env!("CARGO_BIN_EXE_afferent"), &program).unwrap();
    set_mode(&program, 0o755);
    for (capability, is_read) in [
        ("-all".to_owned(), false),
        (format!("-all,+{granted}"), true),
    ] {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg("--no-new-privs")
            .arg(format!("--bounding-set={capability}"))
            .arg(format!("--inh-caps={capability}"))
            .arg(format!("--ambient-caps={capability}"))
            .arg(&program)
            .args(["sense", "--deliver", "file:/dev/null", "--state-dir"])
            .arg(&state)
            .arg("--discover")
            .arg(format!("libvirt:{}", domains.display()));
        let mut sense = Program::start_logged(command, &dir.path().join("log"));
        eventually("the directory is read, or not", || {
            let answer = status(&state, &[]).0;
            let guest = answer["guests"][0]["vm"] == "web";
            let reason = answer["reasons"][0].as_str().unwrap_or_default();
            let denied = reason.contains("Permission denied") && reason.contains(DROP_IN);
            (if is_read { guest } else { denied }).then_some(())
        });
        assert!(sense.terminate().success());
    }
}

/// Loss prevented: whatever is known of guests is forgotten because their source comes up late.
#[test]
fn guests_of_a_source_that_cannot_be_read_at_the_start_are_not_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let other = FakeAgent::start(&dir.path().join("b.sock"), Script::new());
    let (roster, away) = (dir.path().join("roster.toml"), dir.path().join("away"));
    let text = format!(
        "[[vm]]\nid = 'a'\naddress = 'unix:{}'\n",
        agent.path.display()
    );
    fs::write(&roster, text).unwrap();
    let (state, out) = (dir.path().join("state"), dir.path().join("out"));
    let deliver = format!("file:{}", out.display());
    let roster_text = roster.display().to_string();
    let flags = ["--roster", &roster_text, "--vm", &other.vm("b")];
    let mut sense = Program::sense(&state, &deliver, &flags);
    eventually("both reports", || (lines(&out).len() == 2).then_some(()));
    let accepted = || {
        let answer = status(&state, &[]).0;
        let guests = answer["guests"].as_array().cloned().unwrap_or_default();
        let of = |vm: &str| guests.iter().find(|g| g["vm"] == vm).cloned();
        of("a").map(|guest| guest["accepted"]["key"].clone())
    };
    eventually("accepted", || accepted().filter(|key| !key.is_null()));
    sense.kill();
    fs::rename(&roster, &away).unwrap();
    let asked = agent.seen().len();
    let mut sense = Program::sense(&state, &deliver, &flags);
    eventually("it runs without the roster", || {
        let answer = status(&state, &[]).0;
        (answer["state"] == "degraded" && accepted().is_none()).then_some(())
    });
    fs::rename(&away, &roster).unwrap();
    let key = eventually("what was accepted is known", accepted);
    assert_eq!(key, "77:1");
    eventually("it is asked again", || {
        (agent.seen().len() > asked).then_some(())
    });
    let full = |seen: &crate::support::fake_agent::Seen| seen.generation == 0;
    assert!(
        !agent.seen()[asked..].iter().any(full),
        "{:?}",
        agent.seen()
    );
    assert!(sense.terminate().success());
}

/// Clones share a machine-id; two names may lead to one agent.
#[test]
fn guests_that_share_an_address_or_a_machine_are_served_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let a = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let b = FakeAgent::start(&dir.path().join("b.sock"), Script::new());
    let state = dir.path().join("state");
    let vms = [a.vm("one"), a.vm("two"), b.vm("clone")];
    let flags: Vec<&str> = vms.iter().flat_map(|vm| ["--vm", vm]).collect();
    let mut sense = Program::sense(&state, "file:/dev/null", &flags);
    let answer = eventually("all are heard", || {
        let answer = status(&state, &[]).0;
        let guests = answer["guests"].as_array()?;
        guests
            .iter()
            .all(|g| g["accepted"]["key"] == "77:1")
            .then_some(answer.clone())
    });
    assert_eq!(answer["state"], "ok");
    let address = format!("unix:{}", a.path.display());
    assert_eq!(
        answer["shared_addresses"][&address],
        serde_json::json!(["one", "two"])
    );
    let machines = answer["shared_guest_ids"].as_object().unwrap();
    let vms: Vec<_> = machines.values().collect();
    assert_eq!(vms, [&serde_json::json!(["clone", "one", "two"])]);
    assert!(sense.terminate().success());
}
