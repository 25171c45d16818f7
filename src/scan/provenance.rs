//! Which repository each package came from, as dnf remembers it.
//!
//! ```text
//! dnf4   var/lib/dnf/history.sqlite
//!        rpm(item_id, name, epoch, version, release, arch)    trans_item(item_id, repo_id, action, state)
//! dnf5   usr/lib/sysimage/libdnf5/transaction_history.sqlite
//!        rpm(item_id, name_id, .., arch_id), pkg_name, arch   trans_item(.., action_id, state_id)
//! both   repo(id, repoid)
//! ```
//! The last transaction item of a package counts among those that put it there. Tables and columns
//! changed over the years (dnf5 had the names in plural first, and once in the rows themselves), so
//! whatever is missing is left out. A history that cannot be read costs the repositories, never the
//! report. Schemas: libdnf `libdnf/transaction/sql`, dnf5 `libdnf5/transaction/db/sql`.

use super::database::open_beside;
use super::file::{OpenFile, Stamps};
use super::{rooted, snapshot};
use crate::report::{Package, Repository};
use crate::rpmdb::sqlite::{Database, Value};
use crate::rpmdb::{self, Backend};
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Oldest first: what a later one says of a package counts.
const HISTORIES: [&str; 2] = [
    "var/lib/dnf/history.sqlite",
    "usr/lib/sysimage/libdnf5/transaction_history.sqlite",
];
/// Rows of one table that are remembered; a server of ten years has some ten thousand.
const MAX_ROWS: usize = 1_000_000;
/// Attempts at a view in which nothing is written.
const ATTEMPTS: u32 = 20;
/// Actions of dnf4 that put a package there: install, downgrade, obsolete, upgrade, reinstall.
const DNF4_FORWARD: [i64; 5] = [1, 2, 4, 6, 9];
/// Actions of dnf5 that do: install, upgrade, downgrade, reinstall.
const DNF5_FORWARD: [i64; 4] = [1, 2, 3, 4];
/// States of an item that failed.
const DNF4_FAILED: i64 = 2;
const DNF5_FAILED: i64 = 3;

/// What is known of where packages came from, kept between scans.
#[derive(Debug, Default)]
pub(super) struct Provenance {
    histories: Vec<History>,
}

#[derive(Debug)]
struct History {
    path: PathBuf,
    stamps: Stamps,
    /// Hash of name, epoch, version, release and architecture; index in `repositories`.
    packages: HashMap<u64, usize>,
    repositories: Vec<String>,
}

impl Provenance {
    /// Reads the histories that changed since the last time.
    pub(super) fn refresh(&mut self, root: &Path) {
        let mut known = std::mem::take(&mut self.histories);
        for relative in HISTORIES {
            let Ok(path) = rooted::resolve(root, Path::new(relative)) else {
                continue;
            };
            let at = known.iter().position(|history| history.path == path);
            let before = at.map(|at| known.swap_remove(at));
            let stamps = stamps(&path);
            let unchanged = |before: &History| stamps.as_ref().is_some_and(|s| *s == before.stamps);
            let now = match (before, stamps) {
                (Some(before), _) if unchanged(&before) => Some(before),
                // Better what was known than nothing while it cannot be read.
                (before, Some(stamps)) => History::read(path, stamps).or(before),
                (before, None) => before,
            };
            self.histories.extend(now);
        }
    }

    /// The repository that a package came from.
    pub(super) fn repository_of(&self, package: &Package) -> Option<&str> {
        if self.histories.is_empty() {
            return None;
        }
        let key = key(
            &package.name,
            i64::from(package.evr.epoch),
            &package.evr.version,
            &package.evr.release,
            package.arch.as_deref().unwrap_or_default(),
        );
        self.histories.iter().rev().find_map(|history| {
            let at = *history.packages.get(&key)?;
            history.repositories.get(at).map(String::as_str)
        })
    }
}

/// The repositories that packages came from, each once, sorted.
pub(super) fn repositories(packages: &[Package]) -> Vec<Repository> {
    let ids: BTreeSet<&str> = packages
        .iter()
        .filter_map(|p| p.origin.repository())
        .collect();
    ids.into_iter()
        .map(|id| Repository {
            id: id.to_owned(),
            ..Repository::default()
        })
        .collect()
}

fn stamps(path: &Path) -> Option<Stamps> {
    let main = OpenFile::open(path).ok()?.stamp().ok()?;
    let log = open_beside(path, "-wal").ok()?;
    Some(Stamps {
        main,
        side: log.and_then(|log| log.stamp().ok()),
    })
}

fn key(name: &str, epoch: i64, version: &str, release: &str, arch: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, epoch, version, release, arch).hash(&mut hasher);
    hasher.finish()
}

impl History {
    fn read(path: PathBuf, stamps: Stamps) -> Option<Self> {
        for _ in 0..ATTEMPTS {
            let view = snapshot::view::<_, ()>(
                &path,
                Backend::Sqlite,
                &mut || Ok(None),
                &mut |_, database| match database {
                    rpmdb::Database::Sqlite(database) => tables(database),
                    rpmdb::Database::Ndb(_) | rpmdb::Database::Bdb(_) => Ok(Tables::default()),
                },
            );
            match view {
                Ok(snapshot::Attempt::Done(tables)) => return Some(tables.join(path, stamps)),
                Ok(_) => snapshot::pause(),
                Err(_) => return None,
            }
        }
        None
    }
}

/// The parts of a history, before they are joined.
#[derive(Default)]
struct Tables {
    /// Repository ids by number.
    repositories: HashMap<i64, String>,
    /// The last item that put a package there: item number to repository number.
    items: HashMap<i64, i64>,
    /// Item number and key of the package.
    packages: Vec<(i64, u64)>,
}

fn tables(database: &mut Database<OpenFile>) -> Result<Tables, rpmdb::Error> {
    let mut tables = Tables {
        repositories: names(database, &["repo"], "repoid")?,
        ..Tables::default()
    };
    items(database, &mut tables.items)?;
    packages(database, &mut tables.packages)?;
    Ok(tables)
}

impl Tables {
    fn join(self, path: PathBuf, stamps: Stamps) -> History {
        let mut places: HashMap<i64, usize> = HashMap::new();
        let mut repositories = Vec::new();
        for (number, id) in self.repositories {
            // @System, @commandline: not repositories.
            if !id.is_empty() && !id.starts_with('@') {
                places.insert(number, repositories.len());
                repositories.push(id);
            }
        }
        let packages = self
            .packages
            .into_iter()
            .filter_map(|(item, key)| Some((key, *places.get(self.items.get(&item)?)?)))
            .collect();
        History {
            path,
            stamps,
            packages,
            repositories,
        }
    }
}

/// A table of numbers and names, under the first of its names that exists.
fn names(
    database: &mut Database<OpenFile>,
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

fn items(
    database: &mut Database<OpenFile>,
    items: &mut HashMap<i64, i64>,
) -> Result<(), rpmdb::Error> {
    let Some(table) = database.table("trans_item").cloned() else {
        return Ok(());
    };
    let dnf5 = table.column("action_id").is_some();
    let (forward, failed, action, state) = if dnf5 {
        (&DNF5_FORWARD[..], DNF5_FAILED, "action_id", "state_id")
    } else {
        (&DNF4_FORWARD[..], DNF4_FAILED, "action", "state")
    };
    let columns = ["item_id", "repo_id", action, state];
    // In order of their numbers, so the last one stays.
    database.rows(&table, &columns, &mut |_, values| {
        if let [Value::Integer(item), Value::Integer(repo), action, state] = values
            && action.integer().is_none_or(|a| forward.contains(&a))
            && state.integer() != Some(failed)
        {
            items.insert(*item, *repo);
        }
        go_on(items.len())
    })
}

fn packages(
    database: &mut Database<OpenFile>,
    packages: &mut Vec<(i64, u64)>,
) -> Result<(), rpmdb::Error> {
    let Some(table) = database.table("rpm").cloned() else {
        return Ok(());
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
            let epoch = epoch.integer().unwrap_or(0);
            packages.push((item, key(&name, epoch, version, release, &arch)));
        }
        go_on(packages.len())
    })
}

fn go_on(rows: usize) -> ControlFlow<()> {
    if rows < MAX_ROWS {
        ControlFlow::Continue(())
    } else {
        ControlFlow::Break(())
    }
}
