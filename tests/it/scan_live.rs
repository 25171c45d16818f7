//! Scans of databases that the real rpm writes, while it does and afterwards.

use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::cli::format;
use afferent::scan::{Mode, OnLock, Request, ScanError, Scanned, Scanner};
use std::path::Path;
use std::time::Duration;

pub fn request(root: &Path) -> Request<'_> {
    Request {
        root,
        dbpath: None,
        patience: Duration::from_secs(20),
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
    String::from_utf8(out).unwrap()
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
    root.add(&Spec::default());
    root.erase(&["sample"]);
    let error = Scanner::new()
        .scan(&request(root.path()), Mode::Full)
        .unwrap_err();
    assert!(matches!(error, ScanError::Empty { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("var/lib/rpm/rpmdb.sqlite"), "{said}");
}
