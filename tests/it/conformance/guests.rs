//! Guests made for the oracle: packages, an os-release, histories of dnf, a mapping to CPEs.

use crate::scan_live::request;
use crate::support::dnf_history::{DNF4_PLACE, DNF4_TABLES, DNF5_PLACE, DNF5_TABLES};
use crate::support::headers::Fields;
use crate::support::rpm_root::RpmRoot;
use afferent::report::{Facts, Package, Report, ReportView};
use afferent::scan::{Mode, Scanner};
use afferent::serve::repo_cpe::{Content, RepoCpe};
use afferent::wire::message::{
    Contents, GetReportResponse, IndexReport, VmServiceResponse, response,
};
use afferent::wire::report_to_wire;
use afferent::wire::response::{Payload, Response};
use prost::Message;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What Red Hat's mapping looks like, with what it must not hold.
pub const MAPPING: &str = r#"{"data": {
    "baseos": {"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos", "cpe:/a:redhat:enterprise_linux:9"]},
    "appstream": {"cpes": ["cpe:2.3:a:redhat:enterprise_linux:9:*:appstream:*:*:*:*:*"]},
    "supplementary": {"cpes": ["cpe:/a:redhat:enterprise_linux:9::supplementary"]},
    "with space/é": {"cpes": ["cpe:/a:redhat:rhel_eus:9.4::appstream"]},
    "half": {"cpes": ["nonsense", "cpe:/o:redhat:enterprise_linux:9::half", "cpe:/o:red hat:linux:9"]},
    "invalid": {"cpes": ["", "cpe:/o:red hat:linux:9", "cpe:2.3:o:a:b:c:d:e:f:g:h:i:j:k"]},
    "wild": {"cpes": ["cpe:2.3:*:*:*:*:*:*:*:*:*:*:*", "cpe:/"]},
    "empty": {"cpes": []}}}"#;

/// Which package an item of a history is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nevra {
    pub name: String,
    pub epoch: u32,
    pub version: String,
    pub release: String,
    pub arch: String,
}

impl Nevra {
    /// That of [`Fields::named`].
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            epoch: 0,
            version: "1".into(),
            release: "1".into(),
            arch: "noarch".into(),
        }
    }

    pub fn of(package: &Package) -> Self {
        Self {
            name: package.name.clone(),
            epoch: package.evr.epoch,
            version: package.evr.version.clone(),
            release: package.evr.release.clone(),
            arch: package.arch.clone().unwrap_or_default(),
        }
    }
}

/// Package, repository, action and state of one item; each is a transaction of its own.
pub type Item = (Nevra, String, i64, i64);

/// An item by the name of its package.
pub fn item(name: &str, repository: &str, action: i64, state: i64) -> Item {
    (Nevra::named(name), repository.into(), action, state)
}

/// A root with these packages.
pub fn with_headers(packages: &[Fields]) -> RpmRoot {
    let root = RpmRoot::new();
    let database = Connection::open(root.dbpath().join("rpmdb.sqlite")).unwrap();
    for package in packages {
        let sql = "INSERT INTO Packages(blob) VALUES (?)";
        database.execute(sql, [package.blob()]).unwrap();
    }
    root
}

/// The same, each package 1-1.noarch.
pub fn with(names: &[&str]) -> RpmRoot {
    let packages: Vec<Fields> = names.iter().map(|name| Fields::named(name)).collect();
    with_headers(&packages)
}

pub fn os_release(root: &Path, text: &str) {
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::write(root.join("etc/os-release"), text).unwrap();
}

/// Writes a history of dnf4, in place of one that is there.
pub fn dnf4(root: &Path, items: &[Item]) {
    let history = open(root, DNF4_PLACE, DNF4_TABLES);
    let packages = numbered(items);
    for (package, number) in &packages {
        let Nevra {
            name,
            epoch,
            version,
            release,
            arch,
        } = package;
        let sql = "INSERT INTO rpm VALUES (?, ?, ?, ?, ?, ?)";
        let values = params![number, name, epoch, version, release, arch];
        history.execute(sql, values).unwrap();
    }
    add(&history, items, &packages, "action, reason, state");
}

/// The same of dnf5.
pub fn dnf5(root: &Path, items: &[Item]) {
    let history = open(root, DNF5_PLACE, DNF5_TABLES);
    let packages = numbered(items);
    for (package, number) in &packages {
        let Nevra {
            name,
            epoch,
            version,
            release,
            arch,
        } = package;
        for (table, text) in [("pkg_name", name), ("arch", arch)] {
            let sql = format!("INSERT OR IGNORE INTO {table}(name) VALUES (?)");
            history.execute(&sql, [text]).unwrap();
        }
        let sql =
            "INSERT INTO rpm VALUES (?1, (SELECT id FROM pkg_name WHERE name = ?2), ?3, ?4, ?5,
            (SELECT id FROM arch WHERE name = ?6))";
        let values = params![number, name, epoch, version, release, arch];
        history.execute(sql, values).unwrap();
    }
    add(&history, items, &packages, "action_id, reason_id, state_id");
}

fn numbered(items: &[Item]) -> BTreeMap<&Nevra, i64> {
    let packages: BTreeSet<&Nevra> = items.iter().map(|item| &item.0).collect();
    packages.into_iter().zip(1..).collect()
}

fn add(history: &Connection, items: &[Item], packages: &BTreeMap<&Nevra, i64>, columns: &str) {
    let repositories: BTreeSet<&String> = items.iter().map(|item| &item.1).collect();
    for repository in repositories {
        let sql = "INSERT INTO repo(repoid) VALUES (?)";
        history.execute(sql, [repository]).unwrap();
    }
    let sql = format!(
        "INSERT INTO trans_item(trans_id, item_id, repo_id, {columns})
         VALUES (?, ?, (SELECT id FROM repo WHERE repoid = ?), ?, 2, ?)"
    );
    for (transaction, (package, repository, action, state)) in (1i64..).zip(items) {
        let values = params![transaction, packages[package], repository, action, state];
        history.execute(&sql, values).unwrap();
    }
    history.execute_batch("COMMIT").unwrap();
}

fn open(root: &Path, place: &str, tables: &str) -> Connection {
    let path = root.join(place);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    let history = Connection::open(&path).unwrap();
    history.execute_batch("PRAGMA synchronous=OFF").unwrap();
    history.execute_batch(tables).unwrap();
    history.execute_batch("BEGIN").unwrap();
    history
}

/// The report of a root, as an agent makes it with this mapping.
pub fn report(root: &Path, mapping: Option<&str>) -> Report {
    let scanned = Scanner::new().scan(&request(root), Mode::Full).unwrap();
    let mut report = scanned.report.as_ref().clone();
    if let Some(mapping) = mapping {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mapping.json");
        fs::write(&path, mapping).unwrap();
        let content = Content::File(&path);
        RepoCpe::default()
            .apply(&mut report, &scanned.history_repositories, content)
            .unwrap();
    }
    report
}

/// A report as it arrives.
pub fn sent(report: &Report) -> IndexReport {
    let bytes = report_to_wire(report).encode_to_vec();
    IndexReport::decode(bytes.as_slice()).unwrap()
}

/// The body of an answer with that report.
pub fn answer(index: IndexReport) -> Vec<u8> {
    let payload = response::Payload::GetReport(GetReportResponse {
        index_report: Some(index),
        unchanged: false,
    });
    let payload = Some(payload);
    VmServiceResponse {
        meta: None,
        payload,
    }
    .encode_to_vec()
}

/// The report in such an answer, read as a sensor does.
pub fn read(bytes: &[u8]) -> ReportView<'_> {
    match Response::decode(bytes).unwrap().payload {
        Some(Payload::Report(answer)) => {
            let index = answer.index.unwrap();
            index.into_report(Facts::new()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// What is in the report of a root.
pub fn contents(root: &Path, mapping: Option<&str>) -> Contents {
    sent(&report(root, mapping)).contents.unwrap()
}

/// The hint of each package, by its name.
pub fn hints(contents: &Contents) -> BTreeMap<&str, &str> {
    let packages = contents.packages.values();
    packages
        .map(|package| (package.name.as_str(), package.repository_hint.as_str()))
        .collect()
}
