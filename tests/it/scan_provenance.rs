//! Where packages came from, as the histories of dnf4 and dnf5 tell it, and facts of the system.

use crate::scan_live::request;
use crate::support::dnf_history::{
    DNF4_PLACE, DNF4_ROWS, DNF4_TABLES, DNF5_PLACE, DNF5_ROWS, DNF5_TABLES, OK4, OK5, SUSE_PLACE,
    dnf4, dnf5, history, with_packages,
};
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::report::Origin;
use afferent::scan::{Mode, ScanRequest, Scanned, Scanner};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

// The loss: advisories matched against the wrong repository's packages.
#[test]
fn the_last_transaction_that_put_a_package_there_names_its_repository() {
    let root = installed();
    assert_eq!(
        repositories(root.path(), &mut Scanner::new()),
        BTreeMap::new()
    );
    history(
        root.path(),
        DNF4_PLACE,
        &format!("{DNF4_TABLES}{DNF4_ROWS}"),
    );
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

    // What dnf5 says is newer, also that it removed a package.
    let dnf5 = format!("{DNF5_TABLES}{DNF5_ROWS}");
    history(root.path(), DNF5_PLACE, &dnf5);
    let both = [
        ("epoch", "appstream"),
        ("kept", "fedora"),
        ("marked", "appstream"),
    ];
    let both: BTreeMap<_, _> = both.into_iter().map(own).collect();
    assert_eq!(repositories(root.path(), &mut Scanner::new()), both);

    // The first dnf5 had other table names.
    let old = dnf5
        .replace("\"pkg_name\"", "\"pkg_names\"")
        .replace("INTO pkg_name ", "INTO pkg_names ")
        .replace("\"arch\"", "\"archs\"")
        .replace("INTO arch ", "INTO archs ");
    history(root.path(), DNF5_PLACE, &old);
    assert_eq!(repositories(root.path(), &mut Scanner::new()), both);
}

// The loss: a local build under a vendor's name, and advisories for a package that is another.
#[test]
fn a_package_that_dnf_took_away_and_rpm_put_back_is_from_nowhere_known() {
    let root = with_packages(&["removed", "replaced", "kept"]);
    let rows = [
        (1, "removed", "baseos", 1, OK4),
        (1, "replaced", "baseos", 1, OK4),
        (1, "kept", "baseos", 1, OK4),
        (2, "removed", "@System", 8, OK4),
        (2, "replaced", "@System", 7, OK4),
    ];
    let expected = [
        ("kept", from("baseos")),
        ("removed", Origin::Unknown),
        ("replaced", Origin::Unknown),
    ];
    history(root.path(), DNF4_PLACE, &dnf4(&rows));
    assert_eq!(origins(root.path()), all(&expected));

    // An older history, or a removal in a newer one, does not fill the gap either.
    let rows = [(1, "removed", "@System", 5, OK5)];
    history(root.path(), DNF5_PLACE, &dnf5(&rows));
    let older = [
        (1, "removed", "baseos", 1, OK4),
        (1, "replaced", "epel", 1, OK4),
    ];
    history(root.path(), DNF4_PLACE, &dnf4(&older));
    let expected = [
        ("kept", Origin::Unrecorded),
        ("removed", Origin::Unknown),
        ("replaced", from("epel")),
    ];
    assert_eq!(origins(root.path()), all(&expected));
}

// The loss: a package that dnf itself reinstalled, without the advisories of its repository.
#[test]
fn a_reinstallation_names_the_repository_in_whichever_order_its_rows_are() {
    let root = with_packages(&["first", "last", "again", "five"]);
    let rows = [
        (1, "first", "anaconda", 1, OK4),
        (1, "last", "anaconda", 1, OK4),
        (1, "again", "anaconda", 1, OK4),
        (2, "first", "baseos", 9, OK4),
        (2, "first", "@System", 10, OK4),
        (2, "last", "@System", 10, OK4),
        (2, "last", "baseos", 9, OK4),
        (3, "again", "baseos", 9, OK4),
        (4, "again", "@System", 10, OK4),
    ];
    history(root.path(), DNF4_PLACE, &dnf4(&rows));
    let rows = [
        (1, "five", "fedora", 4, OK5),
        (1, "five", "@System", 6, OK5),
    ];
    history(root.path(), DNF5_PLACE, &dnf5(&rows));
    let expected = [
        ("again", Origin::Unknown),
        ("first", from("baseos")),
        ("five", from("fedora")),
        ("last", from("baseos")),
    ];
    assert_eq!(origins(root.path()), all(&expected));
}

// The loss: a package from no repository that counts as one of any repository.
#[test]
fn an_origin_that_is_no_repository_is_an_answer_that_no_older_history_changes() {
    let names = ["file", "image", "system", "unnamed"];
    let root = with_packages(&names);
    let old = names.map(|name| (1, name, "baseos", 1, OK4));
    history(root.path(), DNF4_PLACE, &dnf4(&old));
    let rows = [
        (1, "file", "@commandline", 1, OK5),
        (1, "image", "anaconda", 1, OK5),
        (1, "system", "@System", 2, OK5),
        (1, "unnamed", "", 1, OK5),
    ];
    history(root.path(), DNF5_PLACE, &dnf5(&rows));
    let expected = [
        ("file", from("@commandline")),
        ("image", from("anaconda")),
        ("system", from("@System")),
        ("unnamed", Origin::Unknown),
    ];
    assert_eq!(origins(root.path()), all(&expected));
    let scanned = scan(root.path());
    let shown: Vec<_> = scanned.report.repositories.iter().map(|r| &r.id).collect();
    assert_eq!(shown, ["anaconda"]);
}

// The loss: the repository of a transaction that never happened, or none because of one.
#[test]
fn an_item_that_failed_says_nothing() {
    let root = with_packages(&["only", "before", "cut", "five"]);
    let rows = [
        (1, "before", "baseos", 1, OK4),
        (1, "cut", "baseos", 1, OK4),
        (2, "only", "broken", 1, 2),
        (2, "before", "broken", 9, 2),
        (2, "before", "@System", 8, 2),
        // The machine stopped while it was removed.
        (3, "cut", "@System", 8, 0),
    ];
    history(root.path(), DNF4_PLACE, &dnf4(&rows));
    let rows = [(1, "five", "broken", 1, 3), (1, "five", "@System", 5, 3)];
    history(root.path(), DNF5_PLACE, &dnf5(&rows));
    let expected = [
        ("before", from("baseos")),
        ("cut", from("baseos")),
        ("five", Origin::Unrecorded),
        ("only", Origin::Unrecorded),
    ];
    assert_eq!(origins(root.path()), all(&expected));
    assert_eq!(scan(root.path()).history_repositories, ["baseos"]);
}

// The loss: packages of an image that are matched against nothing, because what was once installed
// from a repository is gone.
#[test]
fn the_repositories_of_the_history_are_also_those_of_packages_that_are_gone() {
    let root = with_packages(&["here"]);
    assert!(scan(root.path()).history_repositories.is_empty());
    let rows = [
        (1, "here", "baseos", 1, OK4),
        (1, "gone", "supplementary", 1, OK4),
        (2, "here", "appstream", 6, OK4),
        (2, "gone", "only-named-by-a-removal", 8, OK4),
        (3, "gone", "@commandline", 1, OK4),
        (4, "gone", "", 1, OK4),
    ];
    history(root.path(), DNF4_PLACE, &dnf4(&rows));
    let rows = [(1, "gone", "fedora", 1, OK5), (2, "gone", "baseos", 1, OK5)];
    history(root.path(), DNF5_PLACE, &dnf5(&rows));
    let scanned = scan(root.path());
    assert_eq!(
        scanned.history_repositories,
        ["appstream", "baseos", "fedora", "supplementary"]
    );
    let of_packages: Vec<_> = scanned.report.repositories.iter().map(|r| &r.id).collect();
    assert_eq!(of_packages, ["appstream"]);
}

// The loss: no repositories on SUSE, which keeps its history where snapshots of the system have it.
#[test]
fn the_history_in_the_place_of_suse_is_read() {
    let root = with_packages(&["one"]);
    history(
        root.path(),
        SUSE_PLACE,
        &dnf4(&[(1, "one", "repo-oss", 1, OK4)]),
    );
    assert_eq!(origins(root.path()), all(&[("one", from("repo-oss"))]));
}

// The loss: packages without repositories, and with that without advisories, and nobody is told.
#[test]
fn a_history_that_cannot_be_used_is_told_of() {
    let root = with_packages(&["one"]);
    let path = root.path().join(DNF4_PLACE);
    assert_eq!(told(root.path()), ("none".into(), String::new()));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "").unwrap();
    assert_eq!(told(root.path()), ("none".into(), String::new()));
    let good = dnf4(&[(1, "one", "baseos", 1, OK4)]);
    history(root.path(), DNF4_PLACE, &good);
    assert_eq!(told(root.path()), ("ok".into(), String::new()));

    for bad in [&b"random bytes"[..], b"SQLite format 3\0 and no more"] {
        fs::write(&path, bad).unwrap();
        let (fact, error) = told(root.path());
        assert_eq!(fact, "damaged");
        assert!(error.contains("history.sqlite"), "{error}");
    }
    history(root.path(), DNF4_PLACE, "CREATE TABLE t(x)");
    assert_eq!(told(root.path()).0, "damaged");
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let (fact, error) = told(root.path());
    assert_eq!(fact, "unreadable");
    assert!(error.contains("history.sqlite"), "{error}");

    // A good one does not hide that another one is missing.
    history(
        root.path(),
        DNF5_PLACE,
        &dnf5(&[(1, "one", "fedora", 1, OK5)]),
    );
    assert_eq!(told(root.path()).0, "unreadable");
    assert_eq!(origins(root.path()), all(&[("one", from("fedora"))]));
}

// The loss: every package changes, and changes back, because a file could not be read once.
#[test]
fn what_a_history_said_holds_while_it_cannot_be_read() {
    let root = with_packages(&["one"]);
    history(
        root.path(),
        DNF4_PLACE,
        &dnf4(&[(1, "one", "baseos", 1, OK4)]),
    );
    let mut scanner = Scanner::new();
    let mut scan = || {
        scanner
            .scan(&request(root.path()), Mode::Incremental)
            .unwrap()
    };
    assert_eq!(scan().report.packages[0].origin, from("baseos"));
    fs::write(root.path().join(DNF4_PLACE), "random bytes").unwrap();
    let damaged = scan();
    assert_eq!(damaged.provenance.fact(), "damaged");
    assert!(!damaged.changed);
    assert_eq!(damaged.history_repositories, ["baseos"]);
    fs::remove_file(root.path().join(DNF4_PLACE)).unwrap();
    let gone = scan();
    assert_eq!(gone.report.packages[0].origin, Origin::Unrecorded);
    assert!(gone.changed && gone.history_repositories.is_empty());
}

// The loss: two reports of one transaction of dnf, the first one without repositories, because dnf still writes
// for each package that it is done when rpm's lock is free.
#[test]
fn a_history_that_is_being_written_is_waited_for_and_no_poorer_report_made() {
    let root = with_packages(&["one"]);
    let path = root.path().join(DNF4_PLACE);
    history(root.path(), DNF4_PLACE, &dnf4(&[]));
    let mut scanner = Scanner::new();
    let quick = ScanRequest {
        retry_for: Duration::from_millis(50),
        ..request(root.path())
    };
    scanner.scan(&quick, Mode::Full).unwrap();
    root.add(&Spec {
        name: "two",
        ..Spec::default()
    });
    let good = dnf4(&[(1, "two", "baseos", 1, OK4)]);
    history(root.path(), DNF4_PLACE, &good);
    // In another process: a lock of our own does not show.
    let script = "import sqlite3, sys\n\
        c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
        c.execute('BEGIN EXCLUSIVE')\n\
        c.execute(\"INSERT INTO repo VALUES (99, 'half')\")\n\
        print(flush=True)\n\
        sys.stdin.read()\n\
        c.execute('ROLLBACK')\n";
    let mut writer = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .arg(&path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let begun = writer.stdout.take().unwrap();
    BufReader::new(begun).read_line(&mut line).unwrap();
    let refused = scanner.scan(&quick, Mode::Incremental);
    drop(writer.stdin.take());
    assert!(writer.wait().unwrap().success());
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("history.sqlite: was written to"), "{said}");
    let scanned = scanner.scan(&request(root.path()), Mode::Incremental);
    let scanned = scanned.unwrap();
    assert_eq!(scanned.report.packages[1].origin, from("baseos"));
    assert_eq!(scanned.report.repositories.len(), 1);
    assert!(scanned.changed);
}

// The loss: a report that fails, or changes back and forth, for a file that only adds to it.
#[test]
fn a_history_that_is_odd_damaged_or_changed_never_costs_the_report() {
    let root = installed();
    let path = DNF4_PLACE;
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

    history(root.path(), path, &format!("{DNF4_TABLES}{DNF4_ROWS}"));
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
    let facts = |what: &str| scan(root.path()).report.facts[what].clone();
    assert_eq!(facts("detected_os"), "RHEL");
    assert_eq!(facts("rpmdb_backend"), "sqlite");
    assert_eq!(facts("activation_status"), "ACTIVATION_UNSPECIFIED");
    let entitlement = root.path().join("etc/pki/entitlement");
    fs::create_dir_all(&entitlement).unwrap();
    assert_eq!(facts("activation_status"), "INACTIVE");
    fs::write(entitlement.join("123.pem"), "").unwrap();
    fs::write(entitlement.join("456-key.pem"), "").unwrap();
    assert_eq!(facts("activation_status"), "INACTIVE");
    fs::write(entitlement.join("123-key.pem"), "").unwrap();
    assert_eq!(facts("activation_status"), "ACTIVE");

    assert_eq!(facts("dnf_metadata_status"), "DNF_METADATA_UNSPECIFIED");
    fs::create_dir_all(root.path().join("etc/yum.repos.d")).unwrap();
    assert_eq!(facts("dnf_metadata_status"), "UNAVAILABLE");
    fs::write(root.path().join("etc/yum.repos.d/redhat.repo"), "").unwrap();
    assert_eq!(facts("dnf_metadata_status"), "DNF_METADATA_UNSPECIFIED");
    let cache = root
        .path()
        .join("var/cache/dnf/rhel-9-for-x86_64-baseos-rpms-0123456789abcdef");
    fs::create_dir_all(cache.parent().unwrap()).unwrap();
    assert_eq!(facts("dnf_metadata_status"), "UNAVAILABLE");
    // What dnf makes of the metadata, kept when that is cleaned away.
    fs::write(cache.with_extension("solv"), "").unwrap();
    assert_eq!(facts("dnf_metadata_status"), "UNAVAILABLE");
    fs::create_dir_all(&cache).unwrap();
    assert_eq!(facts("dnf_metadata_status"), "AVAILABLE");
    fs::remove_dir_all(root.path().join("var/cache/dnf")).unwrap();
    fs::create_dir_all(
        root.path()
            .join("var/cache/libdnf5/fedora-0123456789abcdef"),
    )
    .unwrap();
    assert_eq!(facts("dnf_metadata_status"), "AVAILABLE");
}

// The loss: a number that is a release of whatever system the reader thinks of.
#[test]
fn the_version_of_a_system_other_than_rhel_stands_with_its_name() {
    let root = installed();
    for (os_release, version) in [
        ("ID=\"rhel\"\nVERSION_ID=\"9.4\"", "9.4"),
        ("ID=fedora\nVERSION_ID=42", "fedora 42"),
        ("VERSION_ID=42", "unknown-OS 42"),
        ("ID=arch", ""),
        ("", ""),
    ] {
        fs::write(root.path().join("etc/os-release"), os_release).unwrap();
        assert_eq!(scan(root.path()).report.facts["os_version"], version);
    }
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

fn scan(root: &Path) -> Scanned {
    Scanner::new().scan(&request(root), Mode::Full).unwrap()
}

fn origins(root: &Path) -> BTreeMap<String, Origin> {
    let scanned = scan(root);
    let packages = scanned.report.packages.iter();
    packages
        .map(|p| (p.name.clone(), p.origin.clone()))
        .collect()
}

fn all(origins: &[(&str, Origin)]) -> BTreeMap<String, Origin> {
    let own = |(name, origin): &(&str, Origin)| ((*name).to_owned(), origin.clone());
    origins.iter().map(own).collect()
}

fn from(repository: &str) -> Origin {
    Origin::Repository(repository.into())
}

/// The fact `provenance` that `afferent scan` prints, and what it says on standard error.
fn told(root: &Path) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["scan", "--format", "json", "--root"])
        .arg(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "the report is never lost for it");
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let fact = document["facts"]["provenance"].as_str().unwrap();
    (fact.into(), String::from_utf8(output.stderr).unwrap())
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
