//! A mirror that is killed, runs out of room, or is told to stop.

use crate::support::mirror::{Mirror, finish, without_times};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Instant;

/// So many machines, named for a version of the fleet.
fn fleet(machines: usize, version: usize) -> Value {
    let machine = |n: usize| {
        json!({"bmc_mac_address": format!("02:00:60:{:02x}:{:02x}:{:02x}", n >> 16, (n >> 8) & 255, n & 255),
               "chassis_serial_number": format!("MC-{n}"),
               "metadata": {"name": format!("v{version}"), "labels": [{"key": "manufacturer", "value": "Foxwell"}]}})
    };
    json!({"expected_machines": (0..machines).map(machine).collect::<Vec<_>>()})
}

/// Names and number of the components.
fn names(dump: &Value) -> (BTreeSet<String>, usize) {
    let rows = dump["component"].as_array().unwrap();
    (
        rows.iter().map(|row| row["name"].to_string()).collect(),
        rows.len(),
    )
}

/// The power fails at every moment; half a fleet would be deleted or doubled by the next cycle.
///
/// strace kills the process at a chosen write, so that every part of a commit is hit; where there
/// is no strace, it is killed at some moment of its run.
#[test]
fn a_type_is_all_or_nothing_whenever_the_process_is_killed() {
    let mirror = Mirror::new();
    let size = 1000;
    let run = |version: usize, wrapper: &[String]| {
        let core = mirror.file("core.json", &fleet(size, version));
        let core = format!("file:{}", core.display());
        let run = mirror.command(&["run", "--once", "--json", "--core", &core]);
        let mut words = wrapper.iter().map(OsString::from).collect::<Vec<_>>();
        words.push(run.get_program().to_owned());
        words.extend(run.get_args().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("PATH", env!("PATH"));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    assert!(run(0, &[]).wait().unwrap().success());
    let log = mirror.path("writes").display().to_string();
    let strace = |more: &[&str]| -> Vec<String> {
        let words = ["strace", "-f", "-o", log.as_str(), "-e"];
        words
            .iter()
            .chain(more)
            .map(|word| (*word).to_owned())
            .collect()
    };
    let begin = Instant::now();
    let traced = Command::new("strace")
        .arg("--version")
        .output()
        .is_ok_and(|o| o.status.success());
    let wrapper = if traced {
        strace(&["trace=pwrite64,fdatasync"])
    } else {
        Vec::new()
    };
    assert!(run(1, &wrapper).wait().unwrap().success());
    let whole = begin.elapsed();
    let calls = std::fs::read_to_string(&log).unwrap_or_default();
    let [writes, syncs] = ["pwrite64(", "fdatasync("].map(|call| calls.matches(call).count());
    assert!(
        !traced || (writes > 10 && syncs > 1),
        "{writes} writes, {syncs} syncs"
    );
    let (mut stored, mut kept, mut lost) = (1, 0, 0);
    for version in 2..=16 {
        if traced {
            // Before a write, or after all of them and before a sync: on both sides of the commit.
            let (call, most) = match version % 3 {
                0 => ("fdatasync", syncs),
                _ => ("pwrite64", writes),
            };
            let when = fastrand::usize(1..=most);
            let at = format!("inject={call}:signal=SIGKILL:when={when}");
            run(version, &strace(&[&at])).wait().unwrap();
        } else {
            let mut child = run(version, &[]);
            let (begin, moment) = (Instant::now(), whole.mul_f64(fastrand::f64()));
            while begin.elapsed() < moment && child.try_wait().unwrap().is_none() {}
            // Gone already is fine too: then it was finished.
            let _ = child.kill();
            child.wait().unwrap();
        }
        let (names, rows) = names(&mirror.dump());
        assert_eq!((names.len(), rows), (1, size), "half of it: {names:?}");
        if names.contains(&format!("\"v{version}\"")) {
            stored = version;
            kept += 1;
        } else {
            assert!(
                names.contains(&format!("\"v{stored}\"")),
                "{names:?} came from nowhere"
            );
            lost += 1;
        }
        mirror.check();
    }
    println!("{kept} killed runs had committed, {lost} had not; strace: {traced}");
}

/// A full disk: nothing is half written, and the next run with room goes on by itself.
#[test]
fn a_file_that_cannot_grow_fails_the_type_and_loses_nothing() {
    let mirror = Mirror::new();
    assert_eq!(mirror.run(&fleet(10, 0), &[]).code, Some(0));
    let before = without_times(&mirror.dump());
    let core = mirror.file("core.json", &fleet(5_000, 1));
    let core = format!("file:{}", core.display());
    let length = std::fs::metadata(mirror.state().join("mirror.redb"))
        .unwrap()
        .len();
    let run = mirror.command(&["run", "--once", "--json", "--core", &core]);
    // A limit on the size of files, without the signal that comes with it, is a disk that is full.
    let script = format!(
        "trap '' XFSZ; ulimit -f {}; exec \"$@\"",
        length.div_ceil(512)
    );
    let output = Command::new("sh")
        .args(["-c", &script, "sh"])
        .arg(run.get_program())
        .args(run.get_args())
        .env_clear()
        .output()
        .unwrap();
    let ran = finish(&output);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(
        ran.codes("errors")
            .contains(&"tx_failed:Compute".to_owned()),
        "{}",
        ran.stdout
    );
    let counters = &ran.summary["types"]["Compute"];
    assert_eq!(
        (&counters["pulled"], &counters["inserted"]),
        (&json!(5_000), &json!(0))
    );
    assert_eq!(without_times(&mirror.dump()), before);
    mirror.check();
    let again = mirror.run_from(&core, &[]);
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(names(&mirror.dump()).1, 5_000);
}

/// systemd waits for READY, and for an end when it asks for one.
#[test]
fn the_service_says_when_it_is_ready_and_stops_when_told() {
    let mirror = Mirror::new();
    let socket = mirror.path("notify");
    let systemd = UnixDatagram::bind(&socket).unwrap();
    let core = mirror.file("core.json", &fleet(10, 0));
    let core = format!("file:{}", core.display());
    let mut child = mirror
        .command(&["run", "--interval", "1h", "--core", &core])
        .env("NOTIFY_SOCKET", &socket)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut message = [0; 64];
    let length = systemd.recv(&mut message).unwrap();
    assert_eq!(&message[..length], b"READY=1\n");
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let done = log.find(|line| line.as_ref().is_ok_and(|line| line.contains("mirrored")));
    assert!(done.is_some(), "a cycle at once");
    let status = || {
        let mut status = Command::new(env!("CARGO_BIN_EXE_afferent"));
        status.args(["status", "--json", "--state-dir"]);
        let output = status.arg(mirror.state()).output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    // The line in the log comes a moment before the cycle is noted.
    let mut answer = status();
    while answer["cycles"] != 1 {
        answer = status();
    }
    assert_eq!(answer["service"], "mirror");
    assert_eq!(answer["state"], "ok");
    assert_eq!(answer["types"]["Compute"]["inserted"], 10);
    let pid = child.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!mirror.state().join("control.sock").exists());
    assert_eq!(names(&mirror.dump()).1, 10);
}

/// What Core says is asked for again at every interval, and what changed is all that is written.
#[test]
fn the_service_mirrors_again_at_every_interval() {
    let mirror = Mirror::new();
    let core = mirror.file("core.json", &fleet(10, 0));
    let core = format!("file:{}", core.display());
    let mut child = mirror
        .command(&["run", "--interval", "1s", "--core", &core])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = |what: &str| {
        let found = log.find(|line| line.as_ref().is_ok_and(|line| line.contains(what)));
        assert!(found.is_some(), "the service ended before it said {what}");
    };
    said("inserted=10");
    // Written beside and renamed, so that the service never reads half of it.
    let next = mirror.file("next.json", &fleet(10, 1));
    std::fs::rename(next, mirror.path("core.json")).unwrap();
    said("updated=10");
    let pid = child.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(names(&mirror.dump()).0, BTreeSet::from(["\"v1\"".into()]));
}
