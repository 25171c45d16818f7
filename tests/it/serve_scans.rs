//! Scans that bring no report or a poor one, and what the agent, its status and a sensor make of it.

use crate::support::agent::{Launch, receive, send};
use crate::support::eventually;
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::report::{GuestId, facts};
use afferent::wire::message::{ErrorCode, WaitReport, request};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

fn package(root: &RpmRoot, name: &str) -> std::path::PathBuf {
    root.build(&Spec {
        name,
        ..Spec::default()
    })
}

/// A root without packages, and its first one.
fn new_machine() -> (RpmRoot, std::path::PathBuf) {
    let root = RpmRoot::new();
    let file = package(&root, "one");
    (root, file)
}

fn reasons(launch: &Launch) -> String {
    status(launch.state_dir(), &[]).0["reasons"].to_string()
}

#[test]
fn a_new_database_is_not_ready_and_its_first_package_ends_a_wait() {
    let (root, file) = new_machine();
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.spawn();
    agent.wait_until_said("the first package is waited for");
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg("pull")
        .arg(format!("unix:{}", agent.socket().display()))
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("NOT_READY") && said.contains("no package"),
        "{said}"
    );
    assert!(reasons(&launch).contains("is new and holds no package yet"));

    let mut stream = agent.connect().unwrap();
    let wait = WaitReport {
        timeout_ms: 60_000,
        ..WaitReport::default()
    };
    send(&mut stream, request::Method::WaitReport(wait)).unwrap();
    root.install(&[file]);
    let answer = receive(&mut stream).unwrap();
    assert_eq!(answer.list(), root.rpm_qa());
    eventually("all is well", || (reasons(&launch) == "[]").then_some(()));
}

// The loss: the first package of a new machine that Central hears of minutes later.
#[test]
fn the_first_package_of_a_new_machine_is_delivered_without_a_failed_pull() {
    let (root, file) = new_machine();
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.spawn();
    agent.wait_until_said("the first package is waited for");
    let state = launch.home().join("sense");
    let out = launch.home().join("out");
    let vm = format!("v=unix:{}", agent.socket().display());
    let deliver = format!("file:{}", out.display());
    let _sense = Program::sense(&state, &deliver, &["--vm", &vm]);
    let guest = |state: &Path| status(state, &[]).0["guests"][0].clone();
    // In a wait: nothing that fails, and nothing that is asked again and again.
    let waiting = eventually("the sensor waits for the first report", || {
        Some(guest(&state)).filter(|guest| guest["state"] == "waiting")
    });
    assert!(
        waiting["error"].to_string().contains("no package"),
        "{waiting}"
    );
    root.install(&[file]);
    eventually("it is delivered", || {
        let text = fs::read_to_string(&out).ok()?;
        text.contains("\"name\":\"one\"").then_some(())
    });
    assert_eq!(guest(&state)["error"], Value::Null);
}

#[test]
fn a_new_database_in_place_of_a_full_one_leaves_the_last_report() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    let before = agent.wait_for_rpm(&root);
    fs::remove_dir_all(root.dbpath()).unwrap();
    fs::create_dir(root.dbpath()).unwrap();
    root.rpmdb(["--initdb"]);
    eventually("it is noticed", || {
        reasons(&launch)
            .contains("holds no package yet")
            .then_some(())
    });
    assert_eq!(agent.get().key(), before.key());
}

/// Writes to a file all the time, until it is dropped.
struct Writer(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Writer {
    fn on(path: &Path) -> Self {
        let file = File::options().write(true).open(path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                file.set_modified(SystemTime::now()).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().map(JoinHandle::join);
    }
}

/// Runs an agent so that every read of the database takes so many microseconds.
fn slow_reads(root: &RpmRoot, microseconds: &str) -> Vec<String> {
    let database = root.dbpath().join("rpmdb.sqlite").display().to_string();
    let inject = format!("inject=pread64:delay_enter={microseconds}");
    let strace = "strace -f -qq -o /dev/null -e trace=pread64 -e";
    let strace = strace.split(' ').map(str::to_owned);
    strace.chain([inject, "-P".to_owned(), database]).collect()
}

// The loss: a machine that does not shut down because a disk does not answer.
#[test]
fn a_stop_does_not_wait_for_a_scan_that_hangs() {
    let (root, file) = new_machine();
    root.install(&[file]);
    let launch = Launch::on(root.path()).under(slow_reads(&root, "600000000"));
    let agent = launch.spawn();
    agent.wait_until_said("listening");
    assert_eq!(agent.get().refusal(), Some(ErrorCode::NotReady));
    // `eventually` waits 90 s, the first read 10 min. strace itself does not end with a thread that it delays.
    let stat = format!("/proc/{}/stat", agent.pid());
    agent.signal("TERM");
    eventually("the process is over", || {
        let stat = fs::read_to_string(&stat).unwrap_or_default();
        let state = stat.rsplit(')').next()?.trim_start().chars().next();
        matches!(state, None | Some('Z' | 'X')).then_some(())
    });
}

// The loss: a processor that scans for ever, and an operator who is told that all is well.
#[test]
fn a_database_that_never_rests_is_said_and_scanned_when_it_does() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    // Every read takes longer than the pause of the writer.
    let launch = Launch::on(root.path()).under(slow_reads(&root, "10000"));
    let writer = Writer::on(&root.dbpath().join("rpmdb.sqlite"));
    let agent = launch.spawn();
    let said = eventually("it is said", || {
        Some(reasons(&launch)).filter(|said| said.contains("during each of the last"))
    });
    assert!(said.contains("the RPM database was written to"), "{said}");
    agent.wait_until_said("ever more slowly");
    drop(writer);
    agent.wait_for_rpm(&root);
    eventually("all is well", || (reasons(&launch) == "[]").then_some(()));
}

// The loss: a machine that is taken for the one that the agent runs on, or an agent that never starts.
#[test]
fn the_machine_id_is_that_of_the_root_and_nothing_in_its_place_stops_the_agent() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let file = root.path().join("etc/machine-id");
    let id = "fedcba9876543210fedcba9876543210";
    let host = tempfile::tempdir().unwrap();
    let of_host = host.path().join("id");
    fs::write(&of_host, "0123456789abcdef0123456789abcdef\n").unwrap();
    let below = root.path().join(of_host.strip_prefix("/").unwrap());
    fs::create_dir_all(below.parent().unwrap()).unwrap();
    fs::write(&below, format!("{id}\n")).unwrap();
    symlink(&of_host, &file).unwrap();
    let launch = Launch::on(root.path());
    let agent = launch.start();
    let before = agent.wait_for_rpm(&root);
    assert_eq!(
        before.fact(facts::GUEST_ID),
        GuestId::of_machine(id).as_str()
    );
    assert!(agent.terminate().success());
    for put_there in [
        &|| mkfifo(&file, Mode::S_IRWXU).unwrap(),
        &|| fs::create_dir(&file).unwrap(),
        &|| fs::write(&file, vec![b'a'; 1 << 20]).unwrap(),
        &|| symlink("machine-id", &file).unwrap(),
    ] as [&dyn Fn(); 4]
    {
        let _ = fs::remove_file(&file);
        let _ = fs::remove_dir(&file);
        put_there();
        let agent = launch.start();
        let answer = agent.wait_for_rpm(&root);
        assert_eq!(answer.key(), before.key(), "no other machine");
        assert_eq!(answer.fact(facts::GUEST_ID), before.fact(facts::GUEST_ID));
        let said = reasons(&launch);
        assert!(said.contains("etc/machine-id: cannot be read"), "{said}");
        assert!(agent.terminate().success());
    }
}

#[test]
fn what_makes_a_report_poorer_is_in_the_status_for_as_long_as_it_lasts() {
    let root = RpmRoot::new();
    root.install(&[package(&root, "one")]);
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("var/lib/dnf")).unwrap();
    fs::write(at("var/lib/dnf/history.sqlite"), vec![b'x'; 8192]).unwrap();
    fs::rename(at("etc/os-release"), at("etc/os-release.away")).unwrap();
    let mapping = at("mapping.json");
    let launch = Launch::on(root.path())
        .flag("safety-poll", "1s")
        .flag("repo-cpe", mapping.to_str().unwrap());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let said = eventually("it is said", || {
        Some(reasons(&launch)).filter(|said| said.contains("history.sqlite"))
    });
    assert!(said.contains("the distribution is not known"), "{said}");
    let log = agent.wait_until_said("the distribution is not known");
    assert_eq!(
        log.matches("the distribution is not known").count(),
        1,
        "{log}"
    );
    fs::remove_file(at("var/lib/dnf/history.sqlite")).unwrap();
    fs::rename(at("etc/os-release.away"), at("etc/os-release")).unwrap();
    root.install(&[package(&root, "two")]);
    eventually("the mapping alone is missing", || {
        let said = reasons(&launch);
        (said.contains("mapping.json") && !said.contains("history")).then_some(())
    });
    // Nothing but the poll tells of a mapping that comes, goes bad or goes.
    fs::write(&mapping, r#"{"data": {}}"#).unwrap();
    eventually("all is well", || (reasons(&launch) == "[]").then_some(()));
    fs::remove_file(&mapping).unwrap();
    mkfifo(&mapping, Mode::S_IRWXU).unwrap();
    eventually("it is no file", || {
        reasons(&launch)
            .contains("is no regular file")
            .then_some(())
    });
    assert_eq!(agent.get().fact(facts::PROVENANCE), "mapping_unreadable");
    assert!(agent.terminate().success());
}
