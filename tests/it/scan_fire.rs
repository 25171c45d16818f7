//! Scans in a loop while the real rpm installs and erases in a loop.
//!
//! `AFFERENT_FIRE_SECONDS` says for how long, 10 without it.

use crate::scan_live::{request, tsv};
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::scan::{Mode, Scanner};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

// The loss: a half-done upgrade reported as the state of a system, an error in the log for every
// `dnf upgrade`, or an rpm that fails because somebody looked.
#[test]
fn under_fire_a_scan_sees_only_states_between_transactions() {
    let root = RpmRoot::new();
    let names: Vec<String> = (0..12).map(|i| format!("fire-{i:02}")).collect();
    let build = |version: &str| -> Vec<_> {
        let spec = |name| Spec {
            name,
            version,
            files: 40,
            ..Spec::default()
        };
        names.iter().map(|name| root.build(&spec(name))).collect()
    };
    let (old, new) = (build("1"), build("2"));
    root.add(&Spec {
        name: "always",
        ..Spec::default()
    });

    // Every state between two transactions, each as rpm itself lists it.
    let steps: [&dyn Fn(); 4] = [
        &|| root.install(&old[..6]),
        &|| root.upgrade(&new[..6]),
        &|| root.install(&old[6..]),
        &|| root.erase(&names),
    ];
    let mut states = BTreeSet::from([root.rpm_qa()]);
    for step in steps {
        step();
        states.insert(root.rpm_qa());
    }
    assert_eq!(states.len(), 4);

    let seconds = std::env::var("AFFERENT_FIRE_SECONDS").map_or(10, |s| s.parse().unwrap());
    let end = Instant::now() + Duration::from_secs(seconds);
    let over = AtomicBool::new(false);
    let (mut transactions, mut slowest) = (0u32, Duration::ZERO);
    let scans = thread::scope(|scope| {
        let scanners = [Mode::Full, Mode::Incremental].map(|mode| {
            let (root, states, over) = (&root, &states, &over);
            scope.spawn(move || scan_until(over, root.path(), mode, states))
        });
        while Instant::now() < end {
            for step in steps {
                let begun = Instant::now();
                // Fails the test when rpm does.
                step();
                slowest = slowest.max(begun.elapsed());
                transactions += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
        scanners.map(|scanner| scanner.join().unwrap())
    });
    println!(
        "{transactions} transactions, slowest {slowest:?}; (scans, states seen) full and incremental: {scans:?}"
    );
    // rpm waits 10 s for a reader that is in its way.
    assert!(
        slowest < Duration::from_secs(9),
        "rpm had to wait: {slowest:?}"
    );
    for (count, seen) in scans {
        assert!(count > 0 && seen > 1, "{scans:?}");
    }
}

/// Number of scans, and of different states they saw.
fn scan_until(
    over: &AtomicBool,
    root: &Path,
    mode: Mode,
    states: &BTreeSet<String>,
) -> (u32, usize) {
    let mut scanner = Scanner::new();
    let (mut count, mut seen) = (0, BTreeSet::new());
    while !over.load(Ordering::Relaxed) {
        let scanned = scanner.scan(&request(root), mode).unwrap();
        assert!(scanned.skipped.is_empty());
        let list = tsv(&scanned);
        assert!(
            states.contains(&list),
            "no state between transactions:\n{list}"
        );
        count += 1;
        seen.insert(list);
    }
    (count, seen.len())
}

// The loss: an agent whose own scan wakes it up again, or that leaves files rpm stumbles over.
#[test]
fn a_scan_leaves_no_trace_beside_the_database() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    for side_files in [
        "as rpm leaves them",
        "none",
        "a log with commits",
        "read-only",
    ] {
        let database = root.dbpath();
        match side_files {
            "none" => {
                for suffix in ["-wal", "-shm"] {
                    let _ = fs::remove_file(database.join(format!("rpmdb.sqlite{suffix}")));
                }
                fs::remove_file(database.join(".rpm.lock")).unwrap();
            }
            "a log with commits" => leave_a_log(&root),
            "read-only" => {
                for entry in fs::read_dir(&database).unwrap() {
                    let path = entry.unwrap().path();
                    let mut permissions = fs::metadata(&path).unwrap().permissions();
                    permissions.set_readonly(true);
                    fs::set_permissions(path, permissions).unwrap();
                }
            }
            _ => {}
        }
        let before = traces(&database);
        let scanned = Scanner::new()
            .scan(&request(root.path()), Mode::Full)
            .unwrap();
        assert!(!scanned.report.packages.is_empty());
        assert_eq!(traces(&database), before, "{side_files}");
    }
}

// The loss: the newest transactions missing from a report because somebody else was reading.
#[test]
fn commits_that_are_only_in_the_log_count() {
    let root = RpmRoot::new();
    root.add(&Spec {
        name: "first",
        ..Spec::default()
    });
    leave_a_log(&root);
    let scanned = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap();
    assert_eq!(scanned.report.packages.len(), 2);
    assert_eq!(tsv(&scanned), root.rpm_qa());
}

/// Installs a package while a reader keeps rpm from emptying its log.
fn leave_a_log(root: &RpmRoot) {
    let file = root.build(&Spec {
        name: "in-the-log",
        ..Spec::default()
    });
    let main = root.dbpath().join("rpmdb.sqlite");
    let reader =
        rusqlite::Connection::open_with_flags(&main, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
            .unwrap();
    reader
        .execute_batch("BEGIN; SELECT count(*) FROM Packages")
        .unwrap();
    root.install(&[file]);
    let log = fs::metadata(root.dbpath().join("rpmdb.sqlite-wal")).unwrap();
    assert!(log.len() > 0, "rpm emptied its log");
    // Closing would empty it: the process ends as if killed.
    std::mem::forget(reader);
}

/// Name, size and times of everything in the directory, and of the directory.
fn traces(directory: &Path) -> Vec<(String, u64, u64, i64, i64)> {
    let mut traces: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .chain(
            fs::read_dir(directory.parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap()),
        )
        .map(|entry| {
            let m = entry.metadata().unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, m.ino(), m.len(), m.mtime_nsec(), m.ctime_nsec())
        })
        .collect();
    traces.sort();
    traces
}
