//! An agent as a service: what it tells systemd, `afferent status` and the log.

use crate::support::agent::{Answer, Launch, receive, send};
use crate::support::eventually;
use crate::support::held::Held;
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::report::Digest;
use afferent::wire::message::{ErrorCode, GetReport, request};
use serde_json::Value;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The socket at which systemd listens to its services.
struct Systemd(UnixDatagram);

impl Systemd {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        Self(socket)
    }

    /// Waits until it is told something in which all of this is.
    fn told(&self, parts: &[&str]) -> String {
        let mut message = [0; 4096];
        loop {
            let length = self.0.recv(&mut message).expect("systemd is told");
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            if parts.iter().all(|part| text.contains(part)) {
                return text;
            }
        }
    }
}

// The loss: a service that is started inside a transaction, as packages do, and that systemd kills
// because it waits for the end of that very transaction.
#[test]
fn it_is_ready_before_the_transaction_ends_that_its_first_scan_waits_for() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let lock = Held::lock(&root.dbpath().join(".rpm.lock"));
    let launch = Launch::on(root.path());
    let socket = launch.home().join("notify");
    let systemd = Systemd::at(&socket);
    let launch = launch
        .env("NOTIFY_SOCKET", socket.to_str().unwrap())
        .env("WATCHDOG_USEC", "200000");
    let agent = launch.spawn();
    systemd.told(&["READY=1"]);
    systemd.told(&["STATUS=no report yet"]);
    assert_eq!(agent.get().refusal(), Some(ErrorCode::NotReady));
    systemd.told(&["WATCHDOG=1"]);
    drop(lock);
    let answer = agent.wait_for_rpm(&root);
    let (epoch, generation) = answer.key();
    let report = format!("STATUS=report {epoch}:{generation} with 1 packages, scanned ");
    systemd.told(&[&report, "s ago"]);
    agent.signal("TERM");
    systemd.told(&["STOPPING=1"]);
}

fn status(launch: &Launch, flags: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg("status")
        .arg("--state-dir")
        .arg(launch.state_dir())
        .args(flags)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

// The loss: an agent that is blind or silent, and a monitoring that says all is well.
#[test]
fn status_says_how_old_the_report_is_and_4_when_something_is_wrong() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let launch = Launch::on(root.path()).env("AFFERENT_LOG_FORMAT", "json");
    let agent = launch.start();
    let answer = agent.wait_for_rpm(&root);
    // What is served may be seen a moment before it is noted.
    let well = eventually("all is well", || {
        let (code, out) = status(&launch, &["--json"]);
        (code == Some(0)).then(|| serde_json::from_str::<Value>(&out).unwrap())
    });
    assert_eq!(
        (&well["service"], &well["state"]),
        (&"serve".into(), &"ok".into())
    );
    assert_eq!(well["report"]["generation"], answer.meta.generation);
    assert_eq!(well["report"]["digest"], answer.digest());
    assert!(well["report"]["age_seconds"].is_u64());
    assert_eq!(well["watching"], "inotify");
    assert_eq!(well["durable"], true);

    let gone = root.path().join("var/lib/gone");
    fs::rename(root.dbpath(), &gone).unwrap();
    let ill = eventually("it is degraded", || {
        let (code, out) = status(&launch, &["--json"]);
        (code == Some(4)).then(|| serde_json::from_str::<Value>(&out).unwrap())
    });
    assert_eq!(ill["state"], "degraded");
    let reasons = ill["reasons"].to_string();
    assert!(reasons.contains("scan failed"), "{reasons}");
    assert_eq!(ill["report"]["generation"], answer.meta.generation);
    assert_eq!(agent.get().list(), answer.list(), "the last report stays");
    let (code, table) = status(&launch, &[]);
    assert_eq!(code, Some(4));
    assert!(table.contains("report.age_seconds"), "{table}");

    fs::rename(gone, root.dbpath()).unwrap();
    eventually("it is well again", || {
        (status(&launch, &[]).0 == Some(0)).then_some(())
    });
    agent.wait_until_said("scans end well again");
    for line in agent.log().lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(line["level"].is_string() && line["message"].is_string());
    }
    assert!(agent.terminate().success());
    assert_eq!(status(&launch, &[]).0, Some(1), "nobody is there");
}

/// `get_report` as a sensor that has this answer and sends all that it knows of it.
fn get_as_one_who_has(socket: &Path, known: &Answer) -> Answer {
    let digest: Digest = known.digest().parse().unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let get = GetReport {
        last_known_generation: known.meta.generation,
        known_epoch: known.meta.epoch,
        known_digest: digest.as_bytes().to_vec(),
    };
    send(&mut stream, request::Method::GetReport(get)).unwrap();
    receive(&mut stream).unwrap()
}

/// The same answer, of so many generations later.
fn known_in(answer: &Answer, generations: u32) -> Answer {
    let mut later = answer.clone();
    later.meta.generation += generations;
    later
}

fn add(root: &RpmRoot, name: &str) {
    root.add(&Spec {
        name,
        ..Spec::default()
    });
}

// The loss: a sensor that takes the clone for the original, and what is installed in it for known.
#[test]
fn a_clone_counts_in_an_epoch_of_its_own() {
    let root = RpmRoot::new();
    add(&root, "original");
    let machine = |n: u32| fs::write(root.path().join("etc/machine-id"), format!("{n:032x}\n"));
    machine(1).unwrap();
    let launch = Launch::on(root.path());
    let agent = launch.start();
    let original = agent.wait_for_rpm(&root);
    assert!(agent.terminate().success());
    machine(2).unwrap();
    root.erase(&["original"]);
    add(&root, "clone");
    let agent = launch.start();
    let clone = agent.wait_for_rpm(&root);
    assert_eq!(clone.meta.generation, original.meta.generation);
    assert_ne!(clone.meta.epoch, original.meta.epoch);
    assert_ne!(clone.fact("guest_id"), original.fact("guest_id"));
    let (generation, epoch) = (original.meta.generation, original.meta.epoch);
    let answer = agent.try_get(generation, epoch).unwrap();
    assert_eq!(answer.list(), root.rpm_qa());
}

// The loss: a change that is never reported, because the guest went back to a snapshot and counted
// up to the same generation again.
#[test]
fn after_a_return_to_a_snapshot_nobody_who_knows_the_digest_is_told_unchanged() {
    let root = RpmRoot::new();
    add(&root, "first");
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    assert!(agent.terminate().success());
    let snapshot = fs::read(launch.database()).unwrap();

    let agent = launch.start();
    add(&root, "before");
    let known = agent.wait_for_rpm(&root);
    let answer = get_as_one_who_has(agent.socket(), &known);
    assert!(answer.list().is_empty(), "it is unchanged");
    agent.kill();

    fs::write(launch.database(), snapshot).unwrap();
    root.erase(&["before"]);
    let agent = launch.start();
    let back = agent.wait_for_rpm(&root);
    assert_eq!(
        (back.key().0, back.key().1 + 1),
        known.key(),
        "the counter went back: else nothing was tested"
    );
    // Its key is given out a second time, with other content.
    add(&root, "after");
    let other = agent.wait_for_rpm(&root);
    assert_eq!(other.key(), known.key());
    let told = get_as_one_who_has(agent.socket(), &known);
    assert_eq!(told.list(), other.list());
    assert_ne!(told.key().0, known.key().0, "a new epoch");
    agent.wait_until_said("put back to an earlier state");
    // Once a minute, whoever else knows too much.
    let again = get_as_one_who_has(agent.socket(), &known_in(&told, 9));
    assert_eq!((again.key(), again.list()), (told.key(), other.list()));
    // The new epoch is on disk.
    agent.kill();
    let agent = launch.start();
    assert_eq!(agent.wait_for_rpm(&root).key(), told.key());
}

// The loss: a slip in the address that costs a file of the system, once at the start and once at the end.
#[test]
fn a_file_in_the_place_of_the_socket_is_an_error_and_stays() {
    let root = RpmRoot::new();
    let launch = Launch::on(root.path());
    let path = launch.home().join("notes");
    let link = launch.home().join("link");
    fs::write(&path, "precious").unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for at in [&path, &link] {
        let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["serve", "--root"])
            .arg(root.path())
            .arg("--state-dir")
            .arg(launch.state_dir())
            .arg("--listen")
            .arg(format!("unix:{}", at.display()))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&at.display().to_string()), "{said}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
