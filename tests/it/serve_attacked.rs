//! An agent whose peers mean it no good.

use crate::support::agent::{Launch, decode};
use crate::support::rpm_root::{RpmRoot, Spec};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What an agent may take, in KiB, whoever connects.
const MOST_MEMORY: u64 = 64 << 10;

/// Far over what a pull takes on a busy machine, far under what one takes that has to wait until the
/// stalled connections have reached their deadline. What it takes in truth is printed.
const PATIENCE: Duration = Duration::from_secs(10);

// The loss: one bad peer, or a thousand, that keep the good one from its answer or fill the guest's
// memory.
#[test]
fn a_thousand_stalled_peers_and_noise_do_not_keep_a_good_one_waiting() {
    let seconds = std::env::var("AFFERENT_ATTACK_SECONDS").map_or(4, |n| n.parse().unwrap());
    let root = RpmRoot::new();
    root.add(&Spec {
        files: 50,
        ..Spec::default()
    });
    multiply(&root, 12);
    let launch = Launch::on(root.path());
    let agent = launch.start();
    crate::support::eventually("the first report", || {
        agent.get().refusal().is_none().then_some(())
    });
    let packages = agent.get().list().lines().count();
    let size = agent.get_bytes().len();
    assert!(size > 220_000, "it fits into a socket's buffer");
    let before = agent.proc_status("VmRSS");

    let mut attack = Command::new("/usr/bin/python3")
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/attack.py"
        ))
        .arg(agent.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(attack.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "stalled");

    let start = Instant::now();
    let (mut slowest, mut pulls) = (Duration::ZERO, 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        let asked = Instant::now();
        let answer = agent.get_bytes();
        slowest = slowest.max(asked.elapsed());
        pulls += 1;
        assert!(answer.len() > size / 2, "{:?}", decode(&answer));
    }
    let memory = agent.proc_status("VmHWM");
    drop(attack.stdin.take());
    let again = said.next().unwrap().unwrap();
    attack.wait().unwrap();
    println!(
        "{pulls} pulls of {packages} packages in {seconds} s, the slowest took {slowest:.1?}; \
         memory {before} KiB before, {memory} KiB at most; {again} connections were renewed"
    );
    assert!(slowest < PATIENCE, "{slowest:?}");
    assert!(memory < MOST_MEMORY, "{memory} KiB");
    assert!(!agent.log().contains("panicked"));
}

/// Doubles what is in the database so many times: rpm allows the same package more than once.
fn multiply(root: &RpmRoot, times: u32) {
    let database = rusqlite::Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
    for _ in 0..times {
        database
            .execute("INSERT INTO Packages (blob) SELECT blob FROM Packages", [])
            .unwrap();
    }
}
