//! Histories of dnf4 and dnf5, made from a list of what was done.

use super::rpm_root::{RpmRoot, Spec};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

// Tables as libdnf makes them: a comment, with what else it may hold, after nearly every column.
pub const DNF4_TABLES: &str = "
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
    );";

pub const DNF4_ROWS: &str = "
    INSERT INTO repo VALUES (1, 'baseos'), (2, 'appstream'), (3, '@System'), (4, 'epel');
    INSERT INTO rpm VALUES (1, 'kept', 0, '1', '1', 'noarch'), (2, 'moved', 0, '1', '1', 'noarch'),
        (3, 'marked', 0, '1', '1', 'noarch'), (4, 'epoch', 7, '1', '1', 'noarch'),
        (5, 'failed', 0, '1', '1', 'noarch'), (6, 'kept', 0, '9', '1', 'noarch');
    INSERT INTO trans_item(trans_id, item_id, repo_id, action, reason, state) VALUES
        (1, 1, 1, 1, 2, 1), (1, 2, 1, 1, 2, 1), (1, 3, 2, 1, 2, 1), (1, 4, 2, 6, 2, 1),
        (2, 2, 3, 8, 2, 1), (3, 2, 4, 1, 2, 1), (4, 3, 3, 11, 2, 1), (5, 5, 4, 1, 2, 2),
        (6, 6, 4, 6, 2, 1);";

// dnf5 quotes every name, and says at the end of a table which column is the row number.
pub const DNF5_TABLES: &str = "
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
    );";

pub const DNF5_ROWS: &str = "
    INSERT INTO repo VALUES (1, 'fedora'), (2, 'updates'), (3, '@System');
    INSERT INTO pkg_name VALUES (1, 'kept'), (2, 'moved'), (3, 'failed');
    INSERT INTO arch VALUES (5, 'noarch');
    INSERT INTO rpm VALUES (1, 1, 0, '1', '1', 5), (2, 2, 0, '1', '1', 5), (3, 3, 0, '1', '1', 5);
    INSERT INTO trans_item(trans_id, item_id, repo_id, action_id, reason_id, state_id) VALUES
        (1, 1, 1, 1, 2, 2), (1, 2, 1, 1, 2, 2), (2, 2, 2, 4, 2, 2), (3, 2, 3, 5, 2, 2), (4, 2, 3, 7, 2, 2),
        (5, 3, 2, 1, 2, 3);";

pub const DNF4_PLACE: &str = "var/lib/dnf/history.sqlite";
pub const SUSE_PLACE: &str = "usr/lib/sysimage/dnf/history.sqlite";
pub const DNF5_PLACE: &str = "usr/lib/sysimage/libdnf5/transaction_history.sqlite";

/// A root with these packages, each 1-1.noarch.
pub fn with_packages(names: &[&str]) -> RpmRoot {
    let root = RpmRoot::new();
    let build = |name: &&str| {
        root.build(&Spec {
            name,
            ..Spec::default()
        })
    };
    root.install(&names.iter().map(build).collect::<Vec<_>>());
    root
}

/// State of an item that was done, in dnf4 and in dnf5.
pub const OK4: i64 = 1;
pub const OK5: i64 = 2;

/// Transaction, name of the package, repository, action and state.
pub type Item<'a> = (i64, &'a str, &'a str, i64, i64);

/// A history of dnf4 with these items in this order.
pub fn dnf4(items: &[Item<'_>]) -> String {
    let (mut sql, repos, names) = numbered(DNF4_TABLES, items);
    for (name, number) in &names {
        sql += &format!("INSERT INTO rpm VALUES ({number}, '{name}', 0, '1', '1', 'noarch');");
    }
    for (transaction, name, repo, action, state) in items {
        let (item, repo) = (names[name], repos[repo]);
        sql += &format!(
            "INSERT INTO trans_item(trans_id, item_id, repo_id, action, reason, state)
             VALUES ({transaction}, {item}, {repo}, {action}, 2, {state});"
        );
    }
    sql
}

/// The same of dnf5.
pub fn dnf5(items: &[Item<'_>]) -> String {
    let (mut sql, repos, names) = numbered(DNF5_TABLES, items);
    sql += "INSERT INTO arch VALUES (5, 'noarch');";
    for (name, number) in &names {
        sql += &format!(
            "INSERT INTO pkg_name VALUES ({number}, '{name}');
             INSERT INTO rpm VALUES ({number}, {number}, 0, '1', '1', 5);"
        );
    }
    for (transaction, name, repo, action, state) in items {
        let (item, repo) = (names[name], repos[repo]);
        sql += &format!(
            "INSERT INTO trans_item(trans_id, item_id, repo_id, action_id, reason_id, state_id)
             VALUES ({transaction}, {item}, {repo}, {action}, 2, {state});"
        );
    }
    sql
}

pub type Numbers<'a> = BTreeMap<&'a str, usize>;

/// Tables with the repositories, and the numbers of repositories and packages.
pub fn numbered<'a>(tables: &str, items: &[Item<'a>]) -> (String, Numbers<'a>, Numbers<'a>) {
    let number = |name: fn(&Item<'a>) -> &'a str| -> Numbers<'a> {
        let names: BTreeSet<_> = items.iter().map(name).collect();
        names.into_iter().zip(1..).collect()
    };
    let repos = number(|item| item.2);
    let mut sql = tables.to_owned();
    for (id, number) in &repos {
        sql += &format!("INSERT INTO repo VALUES ({number}, '{id}');");
    }
    (sql, repos, number(|item| item.1))
}

pub fn history(root: &Path, relative: &str, sql: &str) {
    let path = root.join(relative);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = fs::remove_file(&path);
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
}
