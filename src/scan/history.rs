//! One history of dnf: what it says of where each package came from.
//!
//! ```text
//! dnf4   rpm(item_id, name, epoch, version, release, arch)    trans_item(trans_id, item_id, repo_id, action, state)
//! dnf5   rpm(item_id, name_id, .., arch_id), pkg_name, arch   trans_item(.., action_id, state_id)
//! both   repo(id, repoid)
//! ```
//! The last item of a package that did not fail decides:
//!
//! - one that put it there (install, upgrade, reinstall, ...) names its repository, which may be
//!   `@System`, `@commandline` or `anaconda`;
//! - one that took it away says that nobody knows: it is installed, so rpm put it back alone. A
//!   reinstallation writes both in one transaction, in either order, and the first kind counts;
//! - a changed reason says nothing about where it came from.
//!
//! Tables and columns changed over the years (dnf5 had the names in plural first, and once in the
//! rows themselves), so a column that is missing is left out. Schemas and numbers: libdnf
//! `libdnf/transaction`, dnf5 `libdnf5/transaction` and `transaction_item_action.hpp`.

use super::error::ScanError;
use super::file::OpenFile;
use super::snapshot::{self, Attempt};
use crate::clock;
use crate::report::Package;
use crate::report::escape::unescape;
use crate::rpmdb::sqlite::{SqliteDatabase, Value};
use crate::rpmdb::{self, Backend};
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// Rows of one table that are remembered; a server of ten years has some ten thousand.
const MAX_ROWS: usize = 1_000_000;

/// What one history says.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By [`Key`]; the index of the repository, where the entry names one.
    entries: HashMap<Key, Option<usize>>,
    repositories: Vec<String>,
    /// Ids that items name which put a package there, also of packages that are gone.
    named: BTreeSet<String>,
}

/// Why a history gave nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The system refused.
    Unreadable(String),
    /// It was written to all the time.
    Busy(String),
    /// It is no history, or a damaged one.
    Damaged(String),
}

/// Hash of name, epoch, version, release and architecture.
type Key = u64;

impl History {
    /// Reads the history in this file, a real path below `root`; tries for as long as `retry_for` to find a
    /// moment in which nothing is written. dnf4 writes for each package by itself that it is done, so that
    /// moments are short, and they are many.
    pub(super) fn read(root: &Path, path: &Path, retry_for: Duration) -> Result<Self, Trouble> {
        let begun = clock::now();
        loop {
            let view = snapshot::view::<_, ()>(
                root,
                path,
                Backend::Sqlite,
                &mut || Ok(None),
                &mut |_, database| match database {
                    rpmdb::Database::Sqlite(database) => read(database),
                    _ => Ok(None),
                },
            );
            let path = path.display();
            match view {
                Ok(Attempt::Done(Some(history))) => return Ok(history),
                Ok(Attempt::Done(None)) => {
                    let why = "is not a history of dnf: tables are missing";
                    return Err(Trouble::Damaged(format!("{path}: {why}")));
                }
                Ok(Attempt::Locked(_) | Attempt::Changed)
                    if clock::now().duration_since(begun) < retry_for =>
                {
                    snapshot::pause();
                }
                Ok(Attempt::Locked(_) | Attempt::Changed) => {
                    let time = clock::show_duration(retry_for);
                    let why = format!("was written to all the time for {time}");
                    return Err(Trouble::Busy(format!("{path}: {why}")));
                }
                Err(ScanError::Damaged { source, .. }) => {
                    return Err(Trouble::Damaged(format!("{path}: {source}")));
                }
                Err(error) => return Err(Trouble::Unreadable(error.to_string())),
            }
        }
    }

    /// The repository id in the entry of a package, empty where the entry names none; `None` without
    /// an entry.
    pub(super) fn entry(&self, package: &Package) -> Option<&str> {
        let key = key(
            &unescape(&package.name),
            i64::from(package.evr.epoch),
            &unescape(&package.evr.version),
            &unescape(&package.evr.release),
            &unescape(package.arch.as_deref().unwrap_or_default()),
        );
        let repository = self.entries.get(&key)?;
        let id = repository.and_then(|at| self.repositories.get(at));
        Some(id.map_or("", String::as_str))
    }

    /// Every repository that packages were taken from, also those that are gone; no local origins.
    pub(super) fn named(&self) -> &BTreeSet<String> {
        &self.named
    }
}

fn key(name: &[u8], epoch: i64, version: &[u8], release: &[u8], arch: &[u8]) -> Key {
    let mut hasher = DefaultHasher::new();
    (name, epoch, version, release, arch).hash(&mut hasher);
    hasher.finish()
}

/// What the columns of an item are called, and what the numbers in them mean.
struct Dialect {
    action: &'static str,
    state: &'static str,
    /// Actions that put a package there.
    forward: &'static [i64],
    /// Actions that take it away.
    removal: &'static [i64],
    failed: i64,
    /// The state of an item whose end was never written: the machine stopped in the middle. dnf5
    /// long left every item in its first state, so there it means nothing.
    unfinished: Option<i64>,
}

/// Install, downgrade, obsolete, upgrade, reinstall; each but the first with a counterpart for the
/// package that it replaces, which is one more. 8 is a removal, 11 a changed reason.
const DNF4: Dialect = Dialect {
    action: "action",
    state: "state",
    forward: &[1, 2, 4, 6, 9],
    removal: &[3, 5, 7, 8, 10],
    failed: 2,
    unfinished: Some(0),
};

/// Install, upgrade, downgrade, reinstall; removed, replaced. 7 is a changed reason, and what
/// follows is about modules.
const DNF5: Dialect = Dialect {
    action: "action_id",
    state: "state_id",
    forward: &[1, 2, 3, 4],
    removal: &[5, 6],
    failed: 3,
    unfinished: None,
};

/// What an item did to its package.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Did {
    PutThere,
    TookAway,
}

impl Dialect {
    /// `None` for what says nothing about where the package came from.
    fn did(&self, action: &Value, state: &Value) -> Option<Did> {
        let state = state.integer();
        if state == Some(self.failed) {
            return None;
        }
        match action.integer() {
            None => Some(Did::PutThere),
            Some(action) if self.forward.contains(&action) => Some(Did::PutThere),
            // The package is installed: it was not taken away after all.
            Some(_) if state.is_some() && state == self.unfinished => None,
            Some(action) => self.removal.contains(&action).then_some(Did::TookAway),
        }
    }
}

/// `None` where a table is missing without which it is no history.
fn read(database: &mut SqliteDatabase<OpenFile>) -> Result<Option<History>, rpmdb::Error> {
    let has = |table: &str, columns: &[&str]| {
        database
            .table(table)
            .is_some_and(|table| columns.iter().all(|c| table.column(c).is_some()))
    };
    let is_history = has("repo", &["id", "repoid"])
        && has("trans_item", &["item_id", "repo_id"])
        && has("rpm", &["item_id"]);
    if !is_history {
        return Ok(None);
    }
    let repositories = names(database, &["repo"], "repoid")?;
    let packages = packages(database)?;
    let mut reading = Reading::of(repositories);
    items(database, &packages, &mut reading)?;
    Ok(Some(reading.finish()))
}

/// The entries so far, while items are read in their order.
struct Reading {
    /// Index by number in the table.
    places: HashMap<i64, usize>,
    entries: HashMap<Key, Entry>,
    history: History,
}

/// The last item of a package.
struct Entry {
    transaction: Option<i64>,
    did: Did,
    repository: Option<usize>,
}

impl Reading {
    fn of(repositories: HashMap<i64, String>) -> Self {
        let mut places = HashMap::new();
        let mut history = History::default();
        for (number, id) in repositories {
            if !id.is_empty() {
                places.insert(number, history.repositories.len());
                history.repositories.push(id);
            }
        }
        Self {
            places,
            entries: HashMap::new(),
            history,
        }
    }

    fn item(&mut self, key: Key, transaction: Option<i64>, did: Did, repository: Option<i64>) {
        let repository = repository
            .and_then(|number| self.places.get(&number).copied())
            .filter(|_| did == Did::PutThere);
        let is_counterpart = did == Did::TookAway
            && transaction.is_some()
            && self.entries.get(&key).is_some_and(|entry| {
                entry.did == Did::PutThere && entry.transaction == transaction
            });
        if is_counterpart {
            return;
        }
        if let Some(id) = repository.and_then(|at| self.history.repositories.get(at))
            && !id.starts_with('@')
            && !self.history.named.contains(id)
        {
            self.history.named.insert(id.clone());
        }
        let entry = Entry {
            transaction,
            did,
            repository,
        };
        self.entries.insert(key, entry);
    }

    fn finish(mut self) -> History {
        let entries = self.entries.into_iter();
        self.history.entries = entries.map(|(key, e)| (key, e.repository)).collect();
        self.history
    }
}

fn items(
    database: &mut SqliteDatabase<OpenFile>,
    packages: &HashMap<i64, Key>,
    reading: &mut Reading,
) -> Result<(), rpmdb::Error> {
    let Some(table) = database.table("trans_item").cloned() else {
        return Ok(());
    };
    let dialect = match table.column(DNF5.action) {
        Some(_) => DNF5,
        None => DNF4,
    };
    let columns = [
        "trans_id",
        "item_id",
        "repo_id",
        dialect.action,
        dialect.state,
    ];
    let mut rows = 0;
    // In order of their numbers, which is that of time.
    database.rows(&table, &columns, &mut |_, values| {
        if let [transaction, Value::Integer(item), repository, action, state] = values
            && let Some(key) = packages.get(item)
            && let Some(did) = dialect.did(action, state)
        {
            reading.item(*key, transaction.integer(), did, repository.integer());
        }
        rows += 1;
        go_on(rows)
    })
}

/// The packages by their item numbers.
fn packages(database: &mut SqliteDatabase<OpenFile>) -> Result<HashMap<i64, Key>, rpmdb::Error> {
    let mut packages = HashMap::new();
    let Some(table) = database.table("rpm").cloned() else {
        return Ok(packages);
    };
    let package_names = names(database, &["pkg_name", "pkg_names"], "name")?;
    let archs = names(database, &["arch", "archs"], "name")?;
    let by_number = |names: &HashMap<i64, String>, number: &Value, text: &Value| match number {
        Value::Integer(number) => names.get(number).cloned(),
        _ => text.text().map(str::to_owned),
    };
    let columns = [
        "item_id", "name_id", "name", "epoch", "version", "release", "arch_id", "arch",
    ];
    database.rows(&table, &columns, &mut |_, values| {
        if let [item, name_id, name, epoch, version, release, arch_id, arch] = values
            && let (Some(item), Some(name), Some(version), Some(release), Some(arch)) = (
                item.integer(),
                by_number(&package_names, name_id, name),
                version.text(),
                release.text(),
                by_number(&archs, arch_id, arch),
            )
        {
            let (version, release) = (version.as_bytes(), release.as_bytes());
            let epoch = epoch.integer().unwrap_or(0);
            let key = key(name.as_bytes(), epoch, version, release, arch.as_bytes());
            packages.insert(item, key);
        }
        go_on(packages.len())
    })?;
    Ok(packages)
}

/// A table of numbers and names, under the first of its names that exists.
fn names(
    database: &mut SqliteDatabase<OpenFile>,
    tables: &[&str],
    column: &str,
) -> Result<HashMap<i64, String>, rpmdb::Error> {
    let mut names = HashMap::new();
    let Some(table) = tables.iter().find_map(|name| database.table(name)).cloned() else {
        return Ok(names);
    };
    database.rows(&table, &["id", column], &mut |_, values| {
        if let [Value::Integer(id), Value::Text(name)] = values {
            names.insert(*id, name.clone());
        }
        go_on(names.len())
    })?;
    Ok(names)
}

fn go_on(rows: usize) -> ControlFlow<()> {
    if rows < MAX_ROWS {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
