//! Commands beside a running service: they read one commit, hold up nobody, and write nothing.

use crate::support::agent::is_root;
use crate::support::eventually;
use crate::support::mirror::{Mirror, without_times};
use crate::support::program::{Program, free_port};
use afferent::telemetry::control::ask;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

/// Machines whose names and racks all say which version of the document they are from.
fn document(version: usize) -> Value {
    let machine = |n: usize| {
        json!({"bmc_mac_address": format!("02:00:5e:70:{:02x}:{:02x}", n >> 8, n & 255), "chassis_serial_number": format!("MC-{n}"),
               "rack_id": "r1", "metadata": {"name": format!("v{version}-{n}"), "labels": [{"key": "manufacturer", "value": "Foxwell"}]}})
    };
    let rack = json!({"rack_id": "r1", "metadata": {"name": format!("v{version}"), "labels": [
        {"key": "chassis.manufacturer", "value": "Q"}, {"key": "chassis.serial-number", "value": "1"}]}});
    json!({"expected_racks": [rack], "expected_machines": (0..200).map(machine).collect::<Vec<_>>(),
           "actual_machines": [{"id": "m-0", "chassis_serial": "MC-0"}]})
}

/// Commands that need no row to ask for.
fn reading(core: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["drift"],
        vec!["audit"],
        vec!["dump"],
        vec!["check"],
        vec!["plan", "--core", core],
    ]
}

struct Running {
    mirror: Mirror,
    service: Program,
    core: String,
}

/// A service that cycles every second.
fn start(mirror: &Mirror, core: &str, more: &[&str]) -> Program {
    let state = mirror.state().display().to_string();
    let mut arguments = vec!["mirror", "run", "--core", core, "--state-dir", &state];
    arguments.extend(["--interval", "1s"]);
    arguments.extend(more);
    Program::start(&arguments)
}

impl Running {
    fn new() -> Self {
        let mirror = Mirror::new();
        let core = format!("file:{}", mirror.file("core.json", &document(0)).display());
        let service = start(&mirror, &core, &[]);
        let running = Self {
            mirror,
            service,
            core,
        };
        eventually("the first cycle", || {
            (running.machines(0) == 200).then_some(())
        });
        running
    }

    /// Puts another document in the place of the one that is read.
    fn publish(&self, version: usize) {
        let next = self.mirror.file("next.json", &document(version));
        std::fs::rename(next, self.mirror.path("core.json")).unwrap();
    }

    /// Machines whose names are of this version.
    fn machines(&self, version: usize) -> usize {
        let begin = format!("v{version}-");
        let dump = self.mirror.dump();
        let rows = dump["component"].as_array().unwrap().iter();
        rows.filter(|row| row["name"].as_str().unwrap().starts_with(&begin))
            .count()
    }
}

/// The loss: a service that nobody could ask anything.
#[test]
fn every_reading_command_answers_while_the_service_runs() {
    let mut running = Running::new();
    let core = running.core.clone();
    let explain = vec!["explain", "MC-7", "--core", &core];
    for arguments in reading(&core).into_iter().chain([explain]) {
        let output = running.mirror.output(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        assert!(!output.stdout.is_empty(), "{arguments:?}");
    }
    // A plan of what is about to come, made beside the service, from another document.
    let other = format!(
        "file:{}",
        running.mirror.file("other.json", &document(7)).display()
    );
    let plan = running.mirror.output(&["plan", "--json", "--core", &other]);
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(
        (
            &plan["types"]["rack"]["updated"],
            &plan["types"]["Compute"]["updated"]
        ),
        (&json!(1), &json!(200))
    );
    assert_eq!(running.machines(7), 0, "a plan writes nothing");
    // Whoever wants to write is told who is there.
    let refused = running.mirror.run_from(&core, &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("is using this file"),
        "{}",
        refused.stderr
    );
    assert!(running.service.runs());
    assert!(running.service.terminate().success());
    assert_eq!(running.machines(0), 200);
}

/// Each type is one transaction: no dump may show half of one.
#[test]
fn what_is_read_under_load_is_one_commit() {
    let running = Running::new();
    let mut seen: HashMap<usize, usize> = HashMap::new();
    let mut version = 0;
    eventually("four versions were read", || {
        version += 1;
        running.publish(version);
        let dump = running.mirror.dump();
        let mut versions: Vec<&str> = dump["component"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["name"].as_str().unwrap().split_once('-').unwrap().0)
            .collect();
        assert_eq!(versions.len(), 200);
        versions.dedup();
        assert_eq!(versions.len(), 1, "two versions in one dump");
        running.mirror.check();
        *seen.entry(versions[0][1..].parse().unwrap()).or_default() += 1;
        (seen.len() >= 4).then_some(())
    });
}

/// An operator may leave a dump lying in a pager.
#[test]
fn a_snapshot_that_is_held_holds_up_no_cycle_and_does_not_change() {
    let running = Running::new();
    let held = afferent::mirror::look(&running.mirror.state()).unwrap();
    let before = afferent::mirror::dump::dump(&held).unwrap();
    for version in [1, 2] {
        running.publish(version);
        eventually("a cycle behind the snapshot", || {
            (running.machines(version) == 200).then_some(())
        });
    }
    assert_eq!(afferent::mirror::dump::dump(&held).unwrap(), before);
    assert_ne!(
        without_times(&running.mirror.dump()),
        without_times(&before)
    );
}

/// The loss: racks of one cycle with machines of the one before, in an answer that says nothing of it.
#[test]
fn what_a_service_wrote_before_it_stopped_is_read_to_its_end() {
    let mirror = Mirror::new();
    assert_eq!(mirror.run(&document(0), &[]).code, Some(0));
    let socket = mirror.state().join("control.sock");
    let service = UnixListener::bind(&socket).unwrap();
    std::thread::scope(|scope| {
        // Asked once the tables were read, it writes on and stops without an answer.
        scope.spawn(|| {
            let question = service.accept().unwrap();
            assert_eq!(mirror.run(&document(1), &[]).code, Some(0));
            std::fs::remove_file(&socket).unwrap();
            drop(question);
        });
        let dump = mirror.dump();
        assert_eq!(dump["rack"][0]["name"], "v1");
        assert_eq!(dump["component"][0]["name"].as_str().unwrap()[..3], *"v1-");
    });
}

/// The loss: whoever once killed a mirror that was started by hand reaches the one of systemd no more.
#[test]
fn the_service_of_systemd_is_asked_where_a_killed_one_left_its_socket() {
    if !is_root() {
        return;
    }
    let mirror = Mirror::new();
    assert_eq!(mirror.run(&document(0), &[]).code, Some(0));
    drop(UnixListener::bind(mirror.state().join("control.sock")).unwrap());
    let login_of = |under: &[&str], state: &Path| {
        let mut command = Command::new(under.first().unwrap_or(&env!("CARGO_BIN_EXE_afferent")));
        command.args(under.get(1..).unwrap_or_default());
        command.args(["mirror", "login", "--state-dir"]);
        let output = command.arg(state).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let login = |under: &[&str]| login_of(under, &mirror.state());
    let said = login(&[]);
    assert!(said.contains("no service answers at"), "{said}");
    assert!(said.contains("/run/afferent/mirror/control.sock"), "{said}");
    // A /run of its own, as in the unit.
    let core = format!("file:{}", mirror.path("core.json").display());
    let script = "mount -t tmpfs none /run && mkdir -p /run/afferent/mirror && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "-"]);
    command.arg(env!("CARGO_BIN_EXE_afferent"));
    command.args(["mirror", "run", "--core", &core, "--state-dir"]);
    command.arg(mirror.state());
    command.env("RUNTIME_DIRECTORY", "/run/afferent/mirror");
    let service = Program::start_logged(command, &mirror.path("log"));
    let pid = service.pid().to_string();
    let under = ["nsenter", "-m", "-t", &pid, env!("CARGO_BIN_EXE_afferent")];
    eventually("the service answers", || {
        login(&under).contains("has no page").then_some(())
    });
    // It is not asked in place of a service with another directory, whose deletes it might be told to make.
    let other = Mirror::new();
    assert_eq!(other.run(&document(0), &[]).code, Some(0));
    let said = login_of(&under, &other.state());
    let has = format!("has its mirror in {}", mirror.state().display());
    assert!(said.contains(&has), "{said}");
}

#[test]
fn tables_of_a_killed_service_can_be_read_and_mirrored_again() {
    let mut running = Running::new();
    running.service.kill();
    assert_eq!(running.machines(0), 200);
    running.mirror.check();
    let ran = running.mirror.run_from(&running.core.clone(), &[]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
}

/// The loss: a service that mirrors nothing, because it waits until somebody reads that it is ready.
#[test]
fn a_service_whose_notifications_nobody_reads_mirrors_and_answers() {
    let mirror = Mirror::new();
    let systemd = UnixDatagram::bind(mirror.path("notify")).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.connect(mirror.path("notify")).unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send(b"X_OTHER=1").is_ok() {}
    let core = mirror.file("core.json", &document(0));
    let core = format!("file:{}", core.display());
    let mut command = mirror.command(&["run", "--core", &core]);
    command.env("NOTIFY_SOCKET", mirror.path("notify"));
    command.env("WATCHDOG_USEC", "200000");
    let service = Program::start_logged(command, &mirror.path("log"));
    let status = || ask(&mirror.state().join("control.sock"), "status").ok();
    eventually("the first cycle ends", || {
        status().filter(|status| status["last_cycle"]["ended_at"].is_string())
    });
    let log = || std::fs::read_to_string(mirror.path("log")).unwrap();
    let full = "its queue is full";
    eventually("the log says so", || log().contains(full).then_some(()));
    assert_eq!(log().matches(full).count(), 1, "{}", log());
    // Once somebody reads, what was not sent comes, in order.
    let mut said = String::new();
    systemd.set_nonblocking(true).unwrap();
    eventually("ready, and alive", || {
        let mut message = [0; 4096];
        while let Ok(length) = systemd.recv(&mut message) {
            said.push_str(std::str::from_utf8(&message[..length]).unwrap());
        }
        said.contains("WATCHDOG=1").then_some(())
    });
    let said = said.replace("X_OTHER=1", "");
    assert!(said.starts_with("READY=1\nWATCHDOG=1\n"), "{said}");
    drop(service);
}

/// What a monitor asks of a service that nobody looks at.
#[test]
fn status_metrics_and_readiness_follow_the_cycles() {
    let mirror = Mirror::new();
    let core = format!("file:{}", mirror.file("core.json", &document(0)).display());
    let port = free_port().to_string();
    let _service = start(&mirror, &core, &["--metrics", &port]);
    let address = format!("127.0.0.1:{port}");
    let status = || ask(&mirror.state().join("control.sock"), "status").ok();
    eventually("ready", || {
        get(&address, "/readyz").filter(|answer| answer.starts_with("HTTP/1.1 200"))
    });
    // Rows are counted after the cycle has ended.
    let page = eventually("rows are counted", || {
        get(&address, "/metrics").filter(|page| page.contains("afferent_mirror_rows{"))
    });
    for line in [
        r#"afferent_mirror_rows{type="Compute",state="live"} 200"#,
        r#"afferent_mirror_rows{type="bmc:Host",state="live"} 200"#,
        r#"afferent_mirror_drift_rows{type="Compute",drift="missing_in_actual"} 199"#,
    ] {
        assert!(page.contains(line), "{line} in {page}");
    }
    let cycles = value(&page, "afferent_mirror_cycle_duration_seconds_count");
    assert!(cycles >= 1.0, "{page}");
    let first = status().unwrap();
    assert_eq!(
        (&first["state"], &first["reasons"]),
        (&json!("ok"), &json!([]))
    );
    for list in ["rack", "Compute", "drift:Compute"] {
        assert!(first["last_complete"][list].is_string(), "{list}: {first}");
    }
    let begin = first["last_cycle"]["began_at"].as_str().unwrap();
    assert!(begin <= first["last_cycle"]["ended_at"].as_str().unwrap());
    // Core breaks: the last whole reading stays what it was.
    std::fs::write(mirror.path("core.json"), "{").unwrap();
    let broken = eventually("a cycle failed", || {
        status().filter(|status| status["state"] == "degraded")
    });
    let reason = broken["reasons"][0].as_str().unwrap();
    assert!(reason.contains("not JSON"), "{reason}");
    assert!(
        get(&address, "/readyz")
            .unwrap()
            .starts_with("HTTP/1.1 503")
    );
    let page = get(&address, "/metrics").unwrap();
    assert!(!page.contains(r#"outcome="failed"} 0"#), "{page}");
}

/// An operator who looked at what was withheld, while the service runs.
#[test]
fn withheld_deletes_happen_when_exactly_they_are_approved() {
    let running = Running::new();
    let live = || {
        let dump = running.mirror.dump();
        let rows = dump["component"].as_array().unwrap().iter();
        rows.filter(|row| row["deleted_at"].is_null()).count()
    };
    let publish = |machines: usize| {
        let mut document = document(0);
        document["expected_machines"]
            .as_array_mut()
            .unwrap()
            .truncate(machines);
        let next = running.mirror.file("next.json", &document);
        std::fs::rename(next, running.mirror.path("core.json")).unwrap();
    };
    let withheld = |rows: usize| {
        let status = ask(&running.mirror.state().join("control.sock"), "status").ok();
        status.filter(|status| status["types"]["Compute"]["withheld_deletes"] == json!(rows))
    };
    let approve = |arguments: [&str; 2]| {
        let output = running
            .mirror
            .output(&["approve", arguments[0], arguments[1]]);
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    publish(100);
    let status = eventually("the guard trips", || withheld(100));
    let reason = status["reasons"][0].as_str().unwrap();
    assert!(
        reason.contains("afferent mirror approve Compute 100"),
        "{reason}"
    );
    for wrong in [["Compute", "99"], ["rack", "1"], ["chair", "1"]] {
        assert_eq!(approve(wrong).0, Some(1), "{wrong:?}");
    }
    assert_eq!(live(), 200);
    // More is gone by the time that it is approved: nothing of it is deleted.
    publish(90);
    eventually("the guard trips again", || withheld(110));
    let (code, said) = approve(["Compute", "100"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("110"), "{said}");
    assert_eq!(approve(["Compute", "110"]).0, Some(0));
    eventually("they are deleted", || (live() == 90).then_some(()));
    let audit = running.mirror.audit();
    let approved = audit
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["op"] == "approve")
        .unwrap();
    let user = nix::unistd::getuid().as_raw();
    assert_eq!(approved["new"], json!({"deletes": 110, "user": user}));
    // It held once.
    publish(30);
    eventually("the guard trips once more", || withheld(60));
    assert_eq!(live(), 90);
}

/// The value of a series.
fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in {page}"));
    line.trim().parse().unwrap()
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut peer = TcpStream::connect(address).ok()?;
    write!(peer, "GET {path} HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    Some(answer)
}

#[test]
fn reading_creates_nothing() {
    let mirror = Mirror::new();
    let core = format!("file:{}", mirror.file("core.json", &document(0)).display());
    for arguments in reading(&core) {
        let output = mirror.output(&arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!mirror.state().exists(), "{arguments:?}");
        // "Nothing differs" is no answer for somebody who named the wrong directory.
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let absent = format!(
            "warning: there is no mirror in {}",
            mirror.state().display()
        );
        assert!(said.contains(&absent), "{arguments:?}: {said}");
    }
    let compacted = mirror.output(&["compact"]);
    assert_eq!(compacted.status.code(), Some(1));
    assert!(!mirror.state().exists());
}
