//! Databases of real systems, against the lists that the real rpm gave for them.

use crate::support::{fixtures, rpm_root};
use afferent::cli::format;
use afferent::report::escape::escape;
use afferent::scan::{Mode, OnLock, ScanError, ScanRequest, Scanned, Scanner};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

// The loss: a list that is wrong for a whole distribution.
#[test]
fn every_real_database_gives_the_list_that_rpm_gives() {
    let mut backends = BTreeMap::new();
    for name in fixtures::names() {
        if name == "no-packages-table-sqlite" {
            continue;
        }
        let root = fixtures::unpack(&name);
        let scanned = scan(root.path()).unwrap();
        assert_eq!(tsv(&scanned), fixtures::expected(&name), "{name}");
        assert!(scanned.skipped.is_empty(), "{name}");
        assert_eq!(scanned.stats.parsed, scanned.stats.headers);
        *backends
            .entry(scanned.report.facts["rpmdb_backend"].clone())
            .or_insert(0) += 1;
    }
    let backends: Vec<_> = backends.into_iter().collect();
    assert_eq!(
        backends,
        [("bdb".into(), 7), ("ndb".into(), 2), ("sqlite".into(), 4)]
    );
}

// The loss: a table that was never made is reported as a system without packages.
#[test]
fn a_database_without_the_table_of_packages_is_not_an_empty_one() {
    let root = fixtures::unpack("no-packages-table-sqlite");
    let error = scan(root.path()).unwrap_err();
    let said = error.to_string();
    assert!(matches!(error, ScanError::Damaged { .. }), "{said}");
    assert!(
        said.contains("rpmdb.sqlite: has no table Packages"),
        "{said}"
    );
}

// The loss: big headers converted by rpm itself read differently in the other format.
#[test]
fn a_database_converted_by_rpm_gives_the_same_list() {
    let name = "centos-8-modular-bdb";
    let old = fixtures::unpack(name);
    let new = rpm_root::RpmRoot::new();
    let mut export = Command::new("rpmdb")
        .args(["--define", "_db_backend bdb_ro", "--exportdb", "--dbpath"])
        .arg(old.path().join("var/lib/rpm"))
        .stdout(Stdio::piped())
        // It misses the index files, which nobody needs for this.
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let import = Command::new("rpmdb")
        .arg("--importdb")
        .arg("--dbpath")
        .arg(new.dbpath())
        .stdin(export.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(export.wait().unwrap().success() && import.success());
    let scanned = scan(new.path()).unwrap();
    assert_eq!(scanned.report.package_db, "sqlite:var/lib/rpm");
    assert_eq!(tsv(&scanned), fixtures::expected(name));
}

fn scan(root: &Path) -> Result<Scanned, ScanError> {
    let request = ScanRequest {
        root,
        dbpath: None,
        retry_for: Duration::from_secs(5),
        on_lock: OnLock::Wait,
    };
    Scanner::new().scan(&request, Mode::Full)
}

fn tsv(scanned: &Scanned) -> String {
    let mut out = Vec::new();
    format::tsv(&scanned.report, &mut out).unwrap();
    escape(&out).into_owned()
}
