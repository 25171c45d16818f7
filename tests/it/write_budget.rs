//! What the services write to disk and to the log: for a change, and while nothing happens.
//!
//! Loss prevented: disks of guests that wear out, and journals that roll over, because of a service that has
//! nothing to say. docs/operations.md has the figures of a larger guest, from `benches/writes.py`.

use crate::support::agent::Launch;
use crate::support::central::Central;
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use crate::support::tap::{Said, Tap};
use crate::support::{eventually, rig};
use std::fs;
use std::ops::Sub;
use std::path::Path;
use std::process::Command;

/// A day of a guest in which no package changes: at most so many bytes to disk, and lines in the journal.
const DAY: Written = Written {
    bytes: 1 << 20,
    lines: 30,
};

/// The refreshes of a day at the default `refresh_interval` of 4h.
const REFRESHES: u64 = 6;

/// A change of a small guest: measured are 30 to 50 kB.
const CHANGE: u64 = 256 << 10;

/// What a process has had written so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Written {
    bytes: u64,
    lines: u64,
}

impl Written {
    /// `write_bytes` of proc(5): what the kernel was given to write to a disk.
    fn of(pid: u32, log: &Path) -> Self {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let bytes = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        let lines = fs::read_to_string(log).unwrap().lines().count();
        Self {
            bytes: bytes.unwrap().parse().unwrap(),
            lines: u64::try_from(lines).unwrap(),
        }
    }
}

impl Sub for Written {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            bytes: self.bytes - earlier.bytes,
            lines: self.lines - earlier.lines,
        }
    }
}

/// A day is shortened: within the minute or two of this test the agent compares files as often as in two
/// hours, rescans, renews a wait, and is asked for a full report once, which happens six times a day. All but
/// the last writes nothing, however often it happens.
#[test]
fn an_idle_day_costs_less_than_a_mebibyte_and_thirty_lines_in_agent_and_sensor() {
    // Not where temporary files are: those may be in memory, which is not counted.
    let disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let launch = Launch::on(root.path())
        .state_dir_at(&disk.path().join("agent"))
        .env("AFFERENT_LOG", "info")
        .flag("safety-poll", "1s");
    let agent = launch.start();
    let tap = Tap::start(launch.home().join("tap"), agent.socket().to_owned());
    let central = Central::start();
    let log = launch.home().join("sense.log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args([
            "sense",
            "--deliver",
            &central.url,
            "--refresh-interval",
            "1m",
        ])
        .arg("--vm")
        .arg(format!("a=unix:{}", tap.path.display()))
        .arg("--state-dir")
        .arg(disk.path().join("sensor"))
        .env("AFFERENT_LOG", "info");
    let mut sense = Program::start_logged(command, &log);
    let sensor = sense.pid();
    let written = || {
        [
            Written::of(agent.pid(), agent.log_file()),
            Written::of(sensor, &log),
        ]
    };
    let has_arrived = |name: &str| {
        eventually("the change is at Central", || {
            let last = central.received().pop()?;
            rig::packages(&last.body)?.contains(name).then_some(())
        });
    };
    has_arrived("sample");

    let before = written();
    let file = root.build(&Spec {
        name: "another",
        ..Spec::default()
    });
    root.install(&[file]);
    has_arrived("another");
    eventually("the sensor waits again", || tap.is_waiting(2).then_some(()));
    let (reports, fulls) = (central.received().len(), tap.fulls().len());

    // The first renewal of the wait: what the change caused has long been written.
    let unchanged = tap.that_said(Said::Unchanged).len();
    eventually("the wait is renewed", || {
        (tap.that_said(Said::Unchanged).len() > unchanged).then_some(())
    });
    let start = written();
    let scans = || status(launch.state_dir(), &[]).0["scans"].as_u64().unwrap();
    let (scanned, database) = (scans(), root.dbpath().join("rpmdb.sqlite"));
    let database = fs::File::options().append(true).open(database).unwrap();
    database.set_modified(std::time::SystemTime::now()).unwrap();
    eventually("a scan that finds nothing new", || {
        (scans() > scanned).then_some(())
    });
    let mut idle = written();
    eventually("a refresh", || {
        let now = written();
        let is_refreshed = tap.fulls().len() > fulls;
        if !is_refreshed {
            idle = now;
        }
        is_refreshed.then_some(())
    });
    eventually("the refresh is at Central", || {
        (central.received().len() > reports).then_some(())
    });
    // By the next renewal the sensor has noted what Central accepted.
    let unchanged = tap.that_said(Said::Unchanged).len();
    eventually("the wait is renewed once more", || {
        (tap.that_said(Said::Unchanged).len() > unchanged).then_some(())
    });
    let end = written();

    for (n, name) in ["agent", "sensor"].into_iter().enumerate() {
        let (change, quiet, refresh) = (start[n] - before[n], idle[n] - start[n], end[n] - idle[n]);
        println!("{name}: a change {change:?}, idle {quiet:?}, a refresh {refresh:?}");
        assert!(
            change.bytes > 0 && change.bytes <= CHANGE && change.lines <= 1,
            "{name}: {change:?}"
        );
        let nothing = Written { bytes: 0, lines: 0 };
        assert_eq!(quiet, nothing, "{name}");
        assert!(REFRESHES * refresh.bytes < DAY.bytes, "{name}: {refresh:?}");
        assert!(REFRESHES * refresh.lines < DAY.lines, "{name}: {refresh:?}");
    }
    assert!(sense.terminate().success());
    assert!(agent.terminate().success());
}
