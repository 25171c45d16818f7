//! Scans of databases that the real rpm writes, while it does and afterwards.

use crate::support::fixtures;
use crate::support::headers::Fields;
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::cli::format;
use afferent::report::escape::escape;
use afferent::scan::{Lock, Mode, OnLock, ScanError, ScanRequest, Scanned, Scanner, probe_lock};
use rusqlite::Connection;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

pub fn request(root: &Path) -> ScanRequest<'_> {
    ScanRequest {
        root,
        dbpath: None,
        retry_for: Duration::from_secs(20),
        on_lock: OnLock::Wait,
    }
}

fn scan(root: &RpmRoot) -> Scanned {
    Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap()
}

pub fn tsv(scanned: &Scanned) -> String {
    let mut out = Vec::new();
    format::tsv(&scanned.report, &mut out).unwrap();
    escape(&out).into_owned()
}

// The loss: two packages that become one, and a list that no script can compare with rpm's own.
#[test]
fn names_that_are_not_utf8_are_listed_byte_for_byte_as_rpm_does() {
    let root = RpmRoot::new();
    let database = Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
    let mut headers: Vec<Fields> = [
        &b"caf\xe9"[..],
        b"caf\xe8",
        "caf\u{e9}".as_bytes(),
        b"back\\xe9",
    ]
    .map(|name| Fields {
        name: name.into(),
        ..Fields::named("")
    })
    .into();
    headers[0].version = b"1\xff".into();
    headers[0].modularity_label = Some(b"m:\xe4:2:c".into());
    for header in headers {
        let insert = "INSERT INTO Packages(blob) VALUES (?1)";
        database.execute(insert, [header.blob()]).unwrap();
    }
    drop(database);
    let list = root.rpm_qa();
    assert_eq!(list.lines().count(), 4);
    assert!(list.starts_with("back\\\\xe9\t"), "{list}");
    assert_eq!(tsv(&scan(&root)), list);
}

// The loss: a package list that differs from what the system itself says.
#[test]
fn after_each_install_upgrade_and_erase_the_list_is_that_of_rpm() {
    let root = RpmRoot::new();
    root.add(&Spec {
        name: "plain",
        ..Spec::default()
    });
    assert_eq!(tsv(&scan(&root)), root.rpm_qa());
    root.install(&[
        root.build(&Spec {
            name: "with-epoch",
            epoch: Some(3),
            version: "1.0~rc1",
            arch: "x86_64",
            files: 200,
            ..Spec::default()
        }),
        root.build(&Spec {
            name: "module",
            modularity_label: Some("m:1:2:c"),
            ..Spec::default()
        }),
    ]);
    assert_eq!(tsv(&scan(&root)), root.rpm_qa());
    root.upgrade(&[root.build(&Spec {
        name: "plain",
        version: "2",
        ..Spec::default()
    })]);
    let scanned = scan(&root);
    assert_eq!(tsv(&scanned), root.rpm_qa());
    assert_eq!(scanned.report.packages.len(), 3);
    root.erase(&["with-epoch", "module"]);
    assert_eq!(tsv(&scan(&root)), root.rpm_qa());
}

// The loss: an agent that reports "nothing installed" for a system whose database it lost.
#[test]
fn no_packages_is_the_truth_only_in_a_new_database() {
    let root = RpmRoot::new();
    assert!(scan(&root).report.packages.is_empty());
    let said = emptied(&root);
    assert!(said.contains("var/lib/rpm/rpmdb.sqlite"), "{said}");
}

/// What a scan says after the only package was erased.
fn emptied(root: &RpmRoot) -> String {
    root.add(&Spec::default());
    root.erase(&["sample"]);
    let error = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap_err();
    assert!(matches!(error, ScanError::Empty { .. }), "{error}");
    error.to_string()
}

// The loss: an image that imports its keys first, and counts as broken until it has its packages.
#[test]
fn a_new_database_with_nothing_but_keys_is_new() {
    let root = RpmRoot::new();
    let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/key.asc");
    let imported = root.rpm().args(["--import", key]).status().unwrap();
    assert!(imported.success());
    let scanned = scan(&root);
    assert!(scanned.report.packages.is_empty());
    assert_eq!(scanned.stats.keys, 1);
    emptied(&root);
}

// The loss: "nothing is installed" from a database that some tool made beside the real one.
#[test]
fn a_new_database_beside_a_full_one_is_no_empty_system() {
    for place in ["usr/lib/sysimage/rpm", "var/lib/rpm"] {
        let root = fixtures::unpack("rhel-8-libuuid-bdb");
        let place = root.path().join(place);
        std::fs::create_dir_all(&place).unwrap();
        let new = RpmRoot::new();
        std::fs::copy(
            new.dbpath().join("rpmdb.sqlite"),
            place.join("rpmdb.sqlite"),
        )
        .unwrap();
        let error = Scanner::new()
            .scan(&request(root.path()), Mode::Full)
            .unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, ScanError::Empty { .. }), "{said}");
        assert!(said.contains("var/lib/rpm/Packages is there"), "{said}");
    }
}

// The loss: half of a `dnf upgrade` reported as the state of a system, or rpm kept waiting.
#[test]
fn a_scan_waits_for_a_running_transaction_or_says_that_it_did_not() {
    let root = RpmRoot::new();
    root.add(&Spec {
        name: "before",
        ..Spec::default()
    });
    let gate = root.path().join("gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // Opening a FIFO waits for the other end: the script says when it runs, and then waits.
    let pre = format!("echo > {0}; cat {0} > /dev/null", gate.display());
    let file = root.build(&Spec {
        name: "slow",
        pre: Some(&pre),
        ..Spec::default()
    });
    let mut rpm = root.start_install(&[file]);
    std::fs::read(&gate).unwrap();

    let running = probe_lock(root.path(), &root.dbpath()).unwrap();
    assert!(
        matches!(running, Lock::Held { pid: Some(_) }),
        "{running:?}"
    );
    let impatient = ScanRequest {
        retry_for: Duration::ZERO,
        ..request(root.path())
    };
    let error = Scanner::new().scan(&impatient, Mode::Full).unwrap_err();
    assert!(
        matches!(error, ScanError::TransactionRunning { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(".rpm.lock"), "{error}");
    let anyway = ScanRequest {
        on_lock: OnLock::ScanAnyway,
        ..request(root.path())
    };
    let scanned = Scanner::new().scan(&anyway, Mode::Full).unwrap();
    assert_eq!(scanned.report.facts["mid_transaction"], "true");

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scan(&root));
        std::fs::write(&gate, "go on").unwrap();
        assert!(rpm.wait().unwrap().success());
        let scanned = waiting.join().unwrap();
        assert_eq!(scanned.report.packages.len(), 2);
        assert!(!scanned.report.facts.contains_key("mid_transaction"));
    });
    assert_eq!(probe_lock(root.path(), &root.dbpath()).unwrap(), Lock::Free);
}

// The loss: one bad sector takes the whole report, or a package vanishes from it in silence.
#[test]
fn a_damaged_header_is_left_out_counted_and_named() {
    let root = RpmRoot::new();
    for name in ["good", "bad", "ugly"] {
        root.add(&Spec {
            name,
            ..Spec::default()
        });
    }
    let damage = |sql: &str| {
        let writer = rusqlite::Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
        writer.execute_batch(sql).unwrap();
    };
    damage("UPDATE Packages SET blob = zeroblob(100) WHERE hnum = 2");
    let scanned = scan(&root);
    assert_eq!(scanned.report.packages.len(), 2);
    assert_eq!(scanned.report.facts["skipped_headers"], "1");
    assert_eq!(scanned.skipped[0].number, 2);
    assert!(scanned.skipped[0].why.contains("package header 2"));
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["scan", "--format", "tsv", "--root"])
        .arg(root.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "the rest is listed");
    assert_eq!(output.stdout.split(|b| *b == b'\n').count(), 2 + 1);
    let said = String::from_utf8(output.stderr).unwrap();
    for part in [
        "var/lib/rpm/rpmdb.sqlite: left out: package header 2: ",
        "not complete: 1 of 3",
    ] {
        assert!(said.contains(part), "{said}");
    }
    damage("UPDATE Packages SET blob = zeroblob(100)");
    let error = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap_err();
    assert!(
        matches!(error, ScanError::AllDamaged { count: 3, .. }),
        "{error}"
    );
}

// The loss: a transaction over two databases that was committed is read as if it never happened, or
// one that was not as if it had.
#[test]
fn a_journal_counts_as_long_as_the_journal_that_it_names_is_there() {
    let roots: [tempfile::TempDir; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let main = |root: &tempfile::TempDir| root.path().join("var/lib/rpm/rpmdb.sqlite");
    let journal = |root: &tempfile::TempDir| main(root).with_extension("sqlite-journal");
    let [writing, died, committed] = &roots;
    for root in &roots {
        std::fs::create_dir_all(main(root).parent().unwrap()).unwrap();
    }
    let writer = rusqlite::Connection::open(main(writing)).unwrap();
    writer
        .execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB)")
        .unwrap();
    for i in 0..60 {
        let blob = Fields::named(&format!("p{i}")).blob();
        let put = "INSERT INTO Packages(blob) VALUES (?1)";
        writer.execute(put, [blob]).unwrap();
    }
    // So small a cache that pages reach the file before the commit.
    writer
        .execute_batch("PRAGMA cache_size=1; BEGIN; DELETE FROM Packages WHERE hnum % 2 = 0")
        .unwrap();
    std::fs::copy(main(writing), main(died)).unwrap();
    let mut bytes = std::fs::read(journal(writing)).unwrap();
    writer.execute_batch("COMMIT").unwrap();
    std::fs::copy(main(writing), main(committed)).unwrap();

    let name = main(died).with_extension("sqlite-mj0123459ab");
    let path = name.to_str().unwrap().as_bytes();
    let sum: u32 = path.iter().map(|byte| u32::from(*byte)).sum();
    bytes.extend([0x40, 0, 0, 1]);
    bytes.extend(path);
    bytes.extend(u32::try_from(path.len()).unwrap().to_be_bytes());
    bytes.extend(sum.to_be_bytes());
    bytes.extend([0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7]);
    for root in [died, committed] {
        std::fs::write(journal(root), &bytes).unwrap();
    }
    let both = |root: &tempfile::TempDir| {
        let scan = Scanner::new().scan(&request(root.path()), Mode::Full);
        let ours = scan.unwrap().report.packages.len();
        // SQLite repairs the file, so it comes last.
        let reader = rusqlite::Connection::open(main(root)).unwrap();
        let count = reader.query_row("SELECT count(*) FROM Packages", [], |row| row.get(0));
        (ours, count.unwrap())
    };
    assert_eq!(both(committed), (30, 30), "the one it names is gone");
    std::fs::write(&name, journal(died).to_str().unwrap()).unwrap();
    assert_eq!(both(died), (60, 60), "the one it names is there");
}

// The loss: "no rpm database" in the moment in which a rebuild puts the new one in its place.
#[test]
fn a_directory_that_a_rebuild_has_moved_aside_is_waited_for() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let aside = |name: &str| root.dbpath().with_file_name(name);
    std::fs::create_dir(aside("rpmrebuilddb.7")).unwrap();
    std::fs::rename(root.dbpath(), aside("rpmold.7")).unwrap();
    let impatient = ScanRequest {
        retry_for: Duration::ZERO,
        ..request(root.path())
    };
    let error = Scanner::new().scan(&impatient, Mode::Full).unwrap_err();
    assert!(matches!(error, ScanError::NoDatabase { .. }), "{error}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| scan(&root));
        std::fs::rename(aside("rpmold.7"), root.dbpath()).unwrap();
        assert_eq!(waiting.join().unwrap().report.packages.len(), 1);
    });
    // Without a rebuild nothing is waited for.
    std::fs::rename(root.dbpath(), aside("rpmold.7")).unwrap();
    std::fs::remove_dir(aside("rpmrebuilddb.7")).unwrap();
    let error = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap_err();
    assert!(matches!(error, ScanError::NoDatabase { .. }), "{error}");
}

// The loss: no scan at all on a system whose clock was once ahead.
#[test]
fn a_database_from_the_future_is_scanned_at_once() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let main = std::fs::File::options()
        .write(true)
        .open(root.dbpath().join("rpmdb.sqlite"))
        .unwrap();
    let ahead = std::time::SystemTime::now() + Duration::from_secs(86_400);
    main.set_modified(ahead).unwrap();
    assert_eq!(scan(&root).report.packages.len(), 1);
}

// The loss: an agent that must run as root, on a file system it could write to.
#[test]
fn an_unprivileged_user_can_scan_a_directory_that_is_read_only_to_him() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let lock = root.dbpath().join(".rpm.lock");
    for directory in [root.path(), &root.dbpath()] {
        set_mode(directory, 0o755);
    }
    set_mode(&lock, 0o600);
    let program = root.path().join("afferent");
    std::fs::copy(env!("CARGO_BIN_EXE_afferent"), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&program)
        .args(["scan", "--format", "tsv", "--root"])
        .arg(root.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("lock file"), "{said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), root.rpm_qa());
}

// The loss: an operator who cannot tell what failed, or a script that takes a failure for a list.
#[test]
fn the_command_names_the_path_and_the_reason_and_exits_with_1() {
    let empty = tempfile::tempdir().unwrap();
    let new = RpmRoot::new();
    for (root, reason) in [
        (empty.path(), "no rpm database found"),
        (new.path(), "is new and holds no package yet"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["scan", "--root"])
            .arg(root)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(said.contains(reason), "{said}");
        assert!(
            said.contains(&root.join("var/lib/rpm").display().to_string()),
            "{said}"
        );
    }
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["scan", "--format", "xml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
