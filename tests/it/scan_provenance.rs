//! Where packages came from, as the histories of dnf4 and dnf5 tell it, and facts of the system.

use crate::scan_live::request;
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::scan::{Mode, Scanner};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

// Tables as libdnf makes them: a comment, with what else it may hold, after nearly every column.
const DNF4: &str = "
    CREATE TABLE repo (id INTEGER PRIMARY KEY, repoid TEXT NOT NULL /* known as 'repoid' */);
    CREATE TABLE trans_item (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        trans_id INTEGER,
        item_id INTEGER,
        repo_id INTEGER REFERENCES repo(id),
        action INTEGER NOT NULL,        /* (one of a list) */
        reason INTEGER NOT NULL,        /* (one of a list) */
        state INTEGER NOT NULL          /* (one of a list) */
    );
    CREATE TABLE rpm (
        item_id INTEGER UNIQUE NOT NULL,
        name TEXT NOT NULL,
        epoch INTEGER NOT NULL,         /* 0, when there is none */
        version TEXT NOT NULL,
        release TEXT NOT NULL,
        arch TEXT NOT NULL,
        CONSTRAINT rpm_unique_nevra UNIQUE (name, epoch, version, release, arch)
    );
    INSERT INTO repo VALUES (1, 'baseos'), (2, 'appstream'), (3, '@System'), (4, 'epel');
    INSERT INTO rpm VALUES (1, 'kept', 0, '1', '1', 'noarch'), (2, 'moved', 0, '1', '1', 'noarch'),
        (3, 'marked', 0, '1', '1', 'noarch'), (4, 'epoch', 7, '1', '1', 'noarch'),
        (5, 'failed', 0, '1', '1', 'noarch'), (6, 'kept', 0, '9', '1', 'noarch');
    INSERT INTO trans_item(trans_id, item_id, repo_id, action, reason, state) VALUES
        (1, 1, 1, 1, 2, 1), (1, 2, 1, 1, 2, 1), (1, 3, 2, 1, 2, 1), (1, 4, 2, 6, 2, 1),
        (2, 2, 3, 8, 2, 1), (3, 2, 4, 1, 2, 1), (4, 3, 3, 11, 2, 1), (5, 5, 4, 1, 2, 2),
        (6, 6, 4, 6, 2, 1);";

// dnf5 quotes every name, and says at the end of a table which column is the row number.
const DNF5: &str = "
    CREATE TABLE \"repo\" (\"id\" INTEGER, \"repoid\" TEXT NOT NULL, /* 'repoid' */ PRIMARY KEY(\"id\"));
    CREATE TABLE \"pkg_name\" (\"id\" INTEGER, \"name\" TEXT NOT NULL UNIQUE, PRIMARY KEY(\"id\"));
    CREATE TABLE \"arch\" (\"id\" INTEGER, \"name\" TEXT NOT NULL UNIQUE, PRIMARY KEY(\"id\"));
    CREATE TABLE \"trans_item\" (
        \"id\" INTEGER,
        \"trans_id\" INTEGER,
        \"item_id\" INTEGER,
        \"repo_id\" INTEGER,
        \"action_id\" INTEGER NOT NULL,    /* (one of a list) */
        \"reason_id\" INTEGER NOT NULL,    /* (one of a list) */
        \"state_id\" INTEGER NOT NULL,     /* (one of a list) */
        PRIMARY KEY(\"id\" AUTOINCREMENT),
        FOREIGN KEY(\"repo_id\") REFERENCES \"repo\"(\"id\")
    );
    CREATE TABLE \"rpm\" (
        \"item_id\" INTEGER NOT NULL UNIQUE,
        \"name_id\" INTEGER NOT NULL,
        \"epoch\" INTEGER NOT NULL,        /* 0, when there is none */
        \"version\" TEXT NOT NULL,
        \"release\" TEXT NOT NULL,
        \"arch_id\" INTEGER NOT NULL,
        FOREIGN KEY(\"name_id\") REFERENCES \"pkg_name\"(\"id\"),
        CONSTRAINT \"rpm_unique_nevra\" UNIQUE (\"name_id\", \"epoch\", \"version\", \"release\", \"arch_id\")
    );
    INSERT INTO repo VALUES (1, 'fedora'), (2, 'updates'), (3, '@System');
    INSERT INTO pkg_name VALUES (1, 'kept'), (2, 'moved'), (3, 'failed');
    INSERT INTO arch VALUES (5, 'noarch');
    INSERT INTO rpm VALUES (1, 1, 0, '1', '1', 5), (2, 2, 0, '1', '1', 5), (3, 3, 0, '1', '1', 5);
    INSERT INTO trans_item(trans_id, item_id, repo_id, action_id, reason_id, state_id) VALUES
        (1, 1, 1, 1, 2, 2), (1, 2, 1, 1, 2, 2), (2, 2, 2, 4, 2, 2), (3, 2, 3, 5, 2, 2), (4, 2, 3, 7, 2, 2),
        (5, 3, 2, 1, 2, 3);";

// The loss: advisories matched against the wrong repository's packages.
#[test]
fn the_last_transaction_that_put_a_package_there_names_its_repository() {
    let root = installed();
    assert_eq!(
        repositories(root.path(), &mut Scanner::new()),
        BTreeMap::new()
    );
    history(root.path(), "var/lib/dnf/history.sqlite", DNF4);
    let dnf4 = [
        ("epoch", "appstream"),
        ("kept", "baseos"),
        ("marked", "appstream"),
        ("moved", "epel"),
    ];
    assert_eq!(
        repositories(root.path(), &mut Scanner::new()),
        dnf4.into_iter().map(own).collect()
    );

    // What dnf5 says is newer.
    let path = "usr/lib/sysimage/libdnf5/transaction_history.sqlite";
    history(root.path(), path, DNF5);
    let both = [
        ("epoch", "appstream"),
        ("kept", "fedora"),
        ("marked", "appstream"),
        ("moved", "updates"),
    ];
    let both: BTreeMap<_, _> = both.into_iter().map(own).collect();
    assert_eq!(repositories(root.path(), &mut Scanner::new()), both);

    // The first dnf5 had other table names.
    let old = DNF5
        .replace("\"pkg_name\"", "\"pkg_names\"")
        .replace("INTO pkg_name ", "INTO pkg_names ")
        .replace("\"arch\"", "\"archs\"")
        .replace("INTO arch ", "INTO archs ");
    history(root.path(), path, &old);
    assert_eq!(repositories(root.path(), &mut Scanner::new()), both);
}

// The loss: a report that fails, or changes back and forth, for a file that only adds to it.
#[test]
fn a_history_that_is_odd_damaged_or_changed_never_costs_the_report() {
    let root = installed();
    let path = "var/lib/dnf/history.sqlite";
    for odd in [
        "CREATE TABLE t(x)",
        "CREATE TABLE repo(id INTEGER PRIMARY KEY); CREATE TABLE rpm(item_id INTEGER)",
        "CREATE TABLE repo(id INTEGER PRIMARY KEY, repoid); INSERT INTO repo VALUES (1, 5), (2, NULL);
         CREATE TABLE trans_item(id INTEGER PRIMARY KEY, item_id, repo_id);
         INSERT INTO trans_item VALUES (1, 'a', 2.5), (2, 1, 1)",
    ] {
        history(root.path(), path, odd);
        assert_eq!(repositories(root.path(), &mut Scanner::new()), BTreeMap::new());
    }
    fs::write(root.path().join(path), b"SQLite format 3\0 and no more").unwrap();
    assert_eq!(
        repositories(root.path(), &mut Scanner::new()),
        BTreeMap::new()
    );

    history(root.path(), path, DNF4);
    let mut scanner = Scanner::new();
    assert_eq!(repositories(root.path(), &mut scanner)["kept"], "baseos");
    let again = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert!(!again.changed);
    let full = scanner.scan(&request(root.path()), Mode::Full).unwrap();
    assert!(!full.changed, "a full scan of the same system is no news");
    let writer = Connection::open(root.path().join(path)).unwrap();
    writer.execute_batch("INSERT INTO trans_item(trans_id, item_id, repo_id, action, reason, state) VALUES (9, 1, 4, 9, 2, 1)").unwrap();
    let next = scanner
        .scan(&request(root.path()), Mode::Incremental)
        .unwrap();
    assert!(next.changed);
    let ids: Vec<&str> = next
        .report
        .repositories
        .iter()
        .map(|r| r.id.as_str())
        .collect();
    assert_eq!(ids, ["appstream", "epel"]);
}

// The loss: a system that looks registered, or current, when it is not.
#[test]
fn facts_say_what_the_files_of_the_system_say() {
    let root = installed();
    let facts = |what: &str| {
        let scanned = Scanner::new()
            .scan(&request(root.path()), Mode::Full)
            .unwrap();
        scanned.report.facts[what].clone()
    };
    assert_eq!(facts("detected_os"), "RHEL");
    assert_eq!(facts("os_version"), "9.4");
    assert_eq!(facts("rpmdb_backend"), "sqlite");
    assert_eq!(facts("activation_status"), "INACTIVE");
    let entitlement = root.path().join("etc/pki/entitlement");
    fs::create_dir_all(&entitlement).unwrap();
    fs::write(entitlement.join("123.pem"), "").unwrap();
    fs::write(entitlement.join("456-key.pem"), "").unwrap();
    assert_eq!(facts("activation_status"), "INACTIVE");
    fs::write(entitlement.join("123-key.pem"), "").unwrap();
    assert_eq!(facts("activation_status"), "ACTIVE");

    assert_eq!(facts("dnf_metadata_status"), "UNAVAILABLE");
    fs::create_dir_all(root.path().join("etc/yum.repos.d")).unwrap();
    fs::write(root.path().join("etc/yum.repos.d/redhat.repo"), "").unwrap();
    assert_eq!(facts("dnf_metadata_status"), "UNAVAILABLE");
    let cache = root
        .path()
        .join("var/cache/dnf/rhel-9-for-x86_64-baseos-rpms-0123456789abcdef");
    fs::create_dir_all(cache.parent().unwrap()).unwrap();
    // What dnf makes of the metadata, kept when that is cleaned away.
    fs::write(cache.with_extension("solv"), "").unwrap();
    assert_eq!(facts("dnf_metadata_status"), "UNAVAILABLE");
    fs::create_dir_all(&cache).unwrap();
    assert_eq!(facts("dnf_metadata_status"), "AVAILABLE");
}

fn installed() -> RpmRoot {
    let root = RpmRoot::new();
    let build = |name, epoch| {
        root.build(&Spec {
            name,
            epoch,
            ..Spec::default()
        })
    };
    root.install(&[
        build("kept", None),
        build("moved", None),
        build("marked", None),
        build("epoch", Some(7)),
        build("failed", None),
        build("unknown", None),
    ]);
    root
}

fn history(root: &Path, relative: &str, sql: &str) {
    let path = root.join(relative);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
}

fn repositories(root: &Path, scanner: &mut Scanner) -> BTreeMap<String, String> {
    let scanned = scanner.scan(&request(root), Mode::Incremental).unwrap();
    assert_eq!(scanned.report.packages.len(), 6);
    let packages = scanned.report.packages.iter();
    packages
        .filter_map(|p| Some((p.name.clone(), p.origin.repository()?.to_owned())))
        .collect()
}

fn own(pair: (&str, &str)) -> (String, String) {
    (pair.0.to_owned(), pair.1.to_owned())
}
