//! Rescans: cheap, and always equal to a full scan.

use crate::scan_live::{request, tsv};
use crate::support::headers::Fields;
use crate::support::rpm_root::{self, RpmRoot, Spec};
use afferent::scan::{Mode, Scanned, Scanner};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

// The loss: a rescan that keeps what is gone, or misses what came.
#[test]
fn a_rescan_reads_only_what_changed_and_equals_a_full_scan() {
    let root = RpmRoot::new();
    import(&root, (0..300).map(|i| Fields::named(&format!("p{i:03}"))));
    let mut scanner = Scanner::new();
    let first = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert_eq!((first.stats.parsed, first.changed), (300, true));

    let same = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert_eq!((same.stats.parsed, same.changed), (0, false));
    assert!(Arc::ptr_eq(&same.report, &first.report));

    root.add(&Spec {
        name: "new",
        ..Spec::default()
    });
    root.erase(&["p007", "p200"]);
    let next = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert_eq!(
        (next.stats.parsed, next.stats.headers, next.changed),
        (1, 299, true)
    );
    assert_eq!(tsv(&next), root.rpm_qa());
    let full = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap();
    assert_eq!(next.report, full.report);
    // What was handed out before is not changed under the reader's hands.
    assert_eq!(first.report.packages.len(), 300);
    let again = scanner.scan(&request(root.path()), Mode::Full).unwrap();
    assert_eq!((again.stats.parsed, again.changed), (299, false));
}

// The loss: a first scan that looked at less than a rescan needs is taken for all there is to know.
#[test]
fn a_rescan_after_a_scan_meant_to_be_the_only_one_is_right() {
    for damage in ["", "DROP TABLE Name"] {
        let root = RpmRoot::new();
        import(&root, (0..60).map(|i| Fields::named(&format!("p{i:02}"))));
        let main = root.dbpath().join("rpmdb.sqlite");
        let writer = rusqlite::Connection::open(main).unwrap();
        writer.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
        writer.execute_batch(damage).unwrap();
        for changed in [false, true] {
            let mut scanner = Scanner::new();
            let once = scanner.scan(&request(root.path()), Mode::Once).unwrap();
            let full = |scanned: &Scanned| {
                let full = Scanner::new().scan(&request(root.path()), Mode::Full);
                assert_eq!(scanned.report, full.unwrap().report, "{damage:?}");
            };
            full(&once);
            if changed {
                let erase = "DELETE FROM Packages WHERE hnum % 7 = 3";
                assert!(writer.execute(erase, []).unwrap() > 0);
            }
            let mut rescan = || {
                let mode = Mode::Incremental;
                scanner.scan(&request(root.path()), mode).unwrap()
            };
            full(&rescan());
            full(&rescan());
        }
    }
}

// The loss: a list out of order, so that the report differs from the one of a restarted agent.
#[test]
fn few_new_packages_are_put_where_a_full_scan_puts_them() {
    let root = RpmRoot::new();
    import(&root, (0..30).map(|i| Fields::named(&format!("p{i:02}"))));
    let main = root.dbpath().join("rpmdb.sqlite");
    let writer = rusqlite::Connection::open(main).unwrap();
    let prepare = "PRAGMA foreign_keys=OFF; DROP TABLE Name";
    writer.execute_batch(prepare).unwrap();
    let mut scanner = Scanner::new();
    let scan = |scanner: &mut Scanner, mode| scanner.scan(&request(root.path()), mode).unwrap();
    scan(&mut scanner, Mode::Incremental);
    for round in 0..12u32 {
        // Also before all others, behind them, and the same as one that is there.
        for name in ["a", "p07", "p29", "zz"].iter().skip(round as usize % 3) {
            let mut fields = Fields::named(name);
            fields.version = format!("{}", round % 2).into();
            let insert = "INSERT INTO Packages(blob) VALUES (?1)";
            writer.execute(insert, [fields.blob()]).unwrap();
        }
        let erase = "DELETE FROM Packages WHERE hnum % 11 = ?1";
        writer.execute(erase, [round]).unwrap();
        let rescanned = scan(&mut scanner, Mode::Incremental);
        assert!(rescanned.stats.parsed <= 4, "round {round}");
        let full = scan(&mut Scanner::new(), Mode::Full);
        assert_eq!(rescanned.report, full.report, "round {round}");
    }
}

// The loss: a list pieced together from two databases.
#[test]
fn a_rebuilt_or_replaced_database_is_read_in_full() {
    let root = RpmRoot::new();
    import(&root, (0..40).map(|i| Fields::named(&format!("p{i:02}"))));
    let mut scanner = Scanner::new();
    scanner.scan(&request(root.path()), Mode::Full).unwrap();
    let main = root.dbpath().join("rpmdb.sqlite");
    let older = fs::read(&main).unwrap();

    root.erase(&["p03"]);
    root.rpmdb(["--rebuilddb"]);
    let rebuilt = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert_eq!(rebuilt.stats.parsed, 39);
    assert_eq!(tsv(&rebuilt), root.rpm_qa());

    for i in 0..3 {
        let name = format!("later-{i}");
        root.add(&Spec {
            name: &name,
            ..Spec::default()
        });
    }
    scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    // An older copy written over the same file: its last header number went back.
    fs::write(&main, &older).unwrap();
    let restored = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert_eq!(restored.stats.parsed, 40);
    assert_eq!(tsv(&restored), root.rpm_qa());

    // A newer one written over it, alike in numbers, names, lengths and times.
    let other = RpmRoot::new();
    import(
        &other,
        (0..41).map(|i| Fields {
            version: format!("{}", 1 + i % 2).into(),
            ..Fields::named(&format!("p{i:02}"))
        }),
    );
    fs::write(
        &main,
        fs::read(other.dbpath().join("rpmdb.sqlite")).unwrap(),
    )
    .unwrap();
    let replaced = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert_eq!(tsv(&replaced), other.rpm_qa());
}

// The loss: a package list that stays wrong until the next full scan, hours later.
#[test]
fn a_header_replaced_under_its_number_by_one_as_long_is_noticed() {
    for listed in [true, false] {
        let root = RpmRoot::new();
        import(&root, (0..40).map(|i| Fields::named(&format!("p{i:02}"))));
        let main = root.dbpath().join("rpmdb.sqlite");
        let writer = rusqlite::Connection::open(main).unwrap();
        if !listed {
            writer.execute_batch("DROP TABLE Name").unwrap();
        }
        let mut scanner = Scanner::new();
        let mut rescan = || {
            let mode = Mode::Incremental;
            scanner.scan(&request(root.path()), mode).unwrap()
        };
        assert_eq!(rescan().stats.parsed, 40);
        assert_eq!(rescan().stats.parsed, 0);
        let mut fields = Fields::named("p07");
        fields.version = b"2".into();
        let replace = "UPDATE Packages SET blob = ?1 WHERE hnum = 8 AND length(blob) = length(?1)";
        assert_eq!(writer.execute(replace, [fields.blob()]).unwrap(), 1);
        let next = rescan();
        let changed = next.report.packages.iter().find(|p| p.name == "p07");
        assert_eq!(changed.unwrap().evr.version, "2", "listed: {listed}");
        assert_eq!(rescan().stats.parsed, 0);
    }
}

// The loss: indexes that rpm failed to write hide packages from every rescan.
#[test]
fn indexes_that_disagree_with_the_headers_are_not_trusted() {
    for damage in [
        "DELETE FROM Name WHERE hnum = 5",
        "DELETE FROM Name WHERE hnum = 5; DELETE FROM Installtid WHERE hnum = 5",
        "UPDATE Name SET key = 'zz' WHERE hnum = 9",
        "INSERT INTO Name(key, hnum, idx) VALUES ('ghost', 1000, 0)",
        "DROP TABLE Name",
    ] {
        let root = RpmRoot::new();
        import(&root, (0..40).map(|i| Fields::named(&format!("p{i:02}"))));
        let writer = rusqlite::Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
        writer.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
        writer.execute_batch("PRAGMA foreign_keys=OFF").unwrap();
        writer.execute_batch(damage).unwrap();
        let mut scanner = Scanner::new();
        let full = scanner.scan(&request(root.path()), Mode::Full).unwrap();
        assert_eq!(full.report.packages.len(), 40, "{damage}");
        writer
            .execute_batch("DELETE FROM Packages WHERE hnum = 7")
            .unwrap();
        let rescan = scanner
            .scan(&request(root.path()), Mode::Incremental)
            .unwrap();
        assert_eq!(rescan.report.packages.len(), 39, "{damage}");
        assert!(!rescan.report.packages.iter().any(|p| p.name == "p06"));
    }
}

// The loss: a list that is right for small databases only, or for plain names only.
#[test]
fn six_thousand_packages_with_odd_bytes_in_their_names_are_listed_as_rpm_lists_them() {
    let root = RpmRoot::new();
    import(
        &root,
        (0..6_000).map(|i| {
            let mut fields = Fields::named(&format!("p{i:04}"));
            fields.files = 1 + i % 50;
            match i % 9 {
                0 => fields.name = [b"caf\xe9-", format!("{i}").as_bytes()].concat(),
                1 => fields.name = format!("üñí-{i}").into_bytes(),
                2 => fields.version = b"1.0~rc1^20260101+git".to_vec(),
                3 => fields.epoch = Some(i),
                4 => fields.epoch = Some(0),
                5 => fields.arch = None,
                6 => fields.source_rpm = None,
                7 => fields.source_rpm = Some(b"\xff\xfe.src.rpm".to_vec()),
                _ => fields.modularity_label = Some(b"m:s:1:c".to_vec()),
            }
            fields
        }),
    );
    let scanned = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap();
    assert_eq!(scanned.report.packages.len(), 6_000);
    assert_eq!(tsv(&scanned), rpm_root::rpm_qa(&root.dbpath()));
}

// The loss: a package that rpm lists, missing because its header does not say everything.
#[test]
fn a_header_without_some_of_its_tags_is_listed_as_rpm_lists_it() {
    let tags = [1001, 1002, 1003, 1009, 1014, 1022, 1044, 5096];
    let root = RpmRoot::new();
    import(&root, tags.iter().map(|_| Fields::named("whole")));
    let writer = rusqlite::Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
    for (tag, number) in tags.into_iter().zip(1..) {
        let mut fields = Fields::named(&format!("without-{tag}"));
        fields.epoch = Some(number);
        fields.modularity_label = Some(b"m:s:1:c".to_vec());
        fields.without = vec![tag];
        let put = "UPDATE Packages SET blob = ?1 WHERE hnum = ?2";
        assert_eq!(writer.execute(put, (fields.blob(), number)).unwrap(), 1);
    }
    let scanned = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap();
    assert_eq!(scanned.report.packages.len(), tags.len());
    assert_eq!(tsv(&scanned), rpm_root::rpm_qa(&root.dbpath()));
}

/// Puts made-up headers into the database, through rpm.
pub fn import(root: &RpmRoot, headers: impl Iterator<Item = Fields>) {
    let mut import = Command::new("rpmdb")
        .arg("--importdb")
        .arg("--dbpath")
        .arg(root.dbpath())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = std::io::BufWriter::new(import.stdin.take().unwrap());
    for header in headers {
        input.write_all(&header.export()).unwrap();
    }
    drop(input);
    assert!(import.wait().unwrap().success());
}
