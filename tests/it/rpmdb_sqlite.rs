//! Our reader of sqlite files against SQLite itself, on files that SQLite writes.

use afferent::rpmdb::sqlite::{Beside, SqliteDatabase, Value};
use proptest::prelude::*;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OpenFlags, params};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

type Rows = Vec<(i64, Vec<Value>)>;

/// One step in the life of a database.
#[derive(Debug, Clone)]
enum Step {
    /// Insert a row whose blob has this length.
    Insert(usize),
    /// Delete every row whose number is a multiple.
    DeleteEvery(i64),
    /// Replace the blob of the row with this number.
    Replace(i64, usize),
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop_oneof![0..200usize, 0..9_000usize, 0..200_000usize].prop_map(Step::Insert),
        1 => (2..7i64).prop_map(Step::DeleteEvery),
        2 => (1..30i64, 0..20_000usize).prop_map(|(n, length)| Step::Replace(n, length)),
        1 => Just(Step::Checkpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    // The loss: rows missing, doubled or cut in some layout of pages that rpm happens to make.
    #[test]
    fn every_row_is_read_as_sqlite_reads_it(
        page_size in prop_oneof![Just(512), Just(1024), Just(4096), Just(65_536)],
        auto_vacuum in 0..3,
        wal: bool,
        utf16: bool,
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch(&format!(
            "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum};
             PRAGMA encoding='{}'; PRAGMA journal_mode={}; PRAGMA wal_autocheckpoint=0;
             CREATE TABLE other(x); CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT,
             blob BLOB NOT NULL, text TEXT, number)",
            if utf16 { "UTF-16le" } else { "UTF-8" },
            if wal { "WAL" } else { "DELETE" },
        )).unwrap();
        for (i, step) in steps.iter().enumerate() {
            apply(&writer, step, i);
            // What is committed so far, while the writer still has the file open.
            prop_assert_eq!(ours(&path).unwrap(), sqlites(&path));
        }
        // What is not committed does not count, even when it is in the log already.
        let before = sqlites(&path);
        writer.execute_batch("PRAGMA cache_size=1; BEGIN").unwrap();
        for i in 0..20 {
            apply(&writer, &Step::Insert(3_000), i);
        }
        if wal {
            prop_assert_eq!(ours(&path).unwrap(), before);
        }
        writer.execute_batch("ROLLBACK").unwrap();
    }

    // The loss: a torn or overwritten tail of the log taken for commits, or commits before it lost.
    #[test]
    fn a_damaged_log_counts_up_to_the_last_whole_commit(
        commits in 1..8usize,
        cut in 0.0..1.0f64,
        flip in proptest::option::of(0.0..1.0f64),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch(
            "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
             CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB, text TEXT, number)",
        ).unwrap();
        // A restarted log: the tail holds frames of the one before.
        for i in 0..6 {
            apply(&writer, &Step::Insert(2_000), i);
        }
        writer.execute_batch("PRAGMA wal_checkpoint(RESTART)").unwrap();
        for i in 0..commits {
            apply(&writer, &Step::Insert(100), i);
        }
        let copy = copy_of(dir.path(), &path, "copy");
        let log = beside(&copy, "-wal");
        let mut bytes = fs::read(&log).unwrap();
        if let Some(flip) = flip {
            let at = (flip * bytes.len() as f64) as usize;
            bytes[at] ^= 0x40;
        }
        bytes.truncate((cut * bytes.len() as f64) as usize);
        fs::write(&log, &bytes).unwrap();
        // SQLite checks the log when it opens it, and may write to the copy.
        let ours = ours(&copy);
        prop_assert_eq!(ours.unwrap(), sqlites(&copy));
    }
}

// The loss: a transaction that died half way is read as if it had happened.
#[test]
fn a_hot_journal_gives_the_state_before_the_transaction_that_died() {
    for page_size in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(&format!(
                "PRAGMA page_size={page_size};
                 CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB, text TEXT, number)"
            ))
            .unwrap();
        for i in 0..200 {
            apply(&writer, &Step::Insert(700), i);
        }
        let before = sqlites(&path);
        // So small a cache that pages reach the file before the commit.
        writer
            .execute_batch("PRAGMA cache_size=1; PRAGMA synchronous=FULL; BEGIN; DELETE FROM Packages WHERE hnum % 3 = 0; UPDATE Packages SET blob = zeroblob(900)")
            .unwrap();
        let died = copy_of(dir.path(), &path, "died");
        writer.execute_batch("ROLLBACK").unwrap();
        let (main, journal) = (fs::read(&died).unwrap(), beside(&died, "-journal"));
        assert_ne!(main, fs::read(&path).unwrap(), "nothing was spilled");
        let journal = fs::read(journal).unwrap();
        let mut database = SqliteDatabase::open(main, Beside::HotJournal(journal)).unwrap();
        assert_eq!(rows(&mut database), before);
        assert_eq!(sqlites(&died), before, "SQLite rolls back to the same");
    }
}

// The loss: a scan that hangs or fills the memory on a file made to do that.
#[test]
fn a_table_that_contains_itself_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch("PRAGMA page_size=512; CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB, text TEXT, number)")
        .unwrap();
    for i in 0..300 {
        apply(&writer, &Step::Insert(100), i);
    }
    drop(writer);
    let mut bytes = fs::read(&path).unwrap();
    // The root of the table is page 2, an interior page by now: point all children at itself.
    let root = &mut bytes[512..1024];
    assert_eq!(root[0], 5);
    root[8..12].copy_from_slice(&2u32.to_be_bytes());
    for i in 0..usize::from(u16::from_be_bytes([root[3], root[4]])) {
        let at = usize::from(u16::from_be_bytes([root[12 + 2 * i], root[13 + 2 * i]]));
        root[at..at + 4].copy_from_slice(&2u32.to_be_bytes());
    }
    let mut database = SqliteDatabase::open(bytes, Beside::Nothing).unwrap();
    let table = database.table("Packages").unwrap().clone();
    let error = database
        .rows(&table, &["blob"], &mut |_, _| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("page 2"), "{error}");
}

fn apply(writer: &Connection, step: &Step, seed: usize) {
    match step {
        Step::Insert(length) => {
            let text = format!("text {seed} äß {}", "x".repeat(seed * 7 % 900));
            let number: Sql = match seed % 5 {
                0 => Sql::Null,
                1 => Sql::Integer(seed as i64 - 3),
                2 => Sql::Integer(i64::MIN + seed as i64),
                3 => Sql::Real(seed as f64 / 3.0),
                _ => Sql::Integer(1 << (seed % 50)),
            };
            writer
                .execute(
                    "INSERT INTO Packages(blob, text, number) VALUES (?1, ?2, ?3)",
                    params![bytes(*length, seed), text, number],
                )
                .unwrap();
        }
        Step::DeleteEvery(n) => {
            writer
                .execute("DELETE FROM Packages WHERE hnum % ?1 = 0", [n])
                .unwrap();
        }
        Step::Replace(number, length) => {
            writer
                .execute(
                    "UPDATE Packages SET blob = ?2 WHERE hnum = ?1",
                    params![number, bytes(*length, seed)],
                )
                .unwrap();
        }
        Step::Checkpoint => writer
            .execute_batch("PRAGMA wal_checkpoint(PASSIVE)")
            .unwrap(),
    }
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| (i * 31 + seed * 17) as u8).collect()
}

const COLUMNS: [&str; 5] = ["hnum", "blob", "text", "number", "absent"];

fn ours(path: &Path) -> Result<Rows, String> {
    let log = fs::read(beside(path, "-wal")).unwrap_or_default();
    let main = fs::read(path).unwrap();
    let mut database =
        SqliteDatabase::open(main, Beside::Log(log)).map_err(|error| error.to_string())?;
    Ok(rows(&mut database))
}

fn rows(database: &mut SqliteDatabase<Vec<u8>>) -> Rows {
    let mut rows = Rows::new();
    let table = database.table("packages").unwrap().clone();
    database
        .rows(&table, &COLUMNS, &mut |number, values| {
            rows.push((number, values.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

fn sqlites(path: &Path) -> Rows {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let reader = Connection::open_with_flags(path, flags).unwrap();
    let mut statement = reader
        .prepare("SELECT hnum, hnum, blob, text, number, NULL FROM Packages ORDER BY hnum")
        .unwrap();
    statement
        .query_map([], |row| {
            let values = (1..=5).map(|i| value(row.get(i).unwrap())).collect();
            Ok((row.get(0)?, values))
        })
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn value(value: Sql) -> Value {
    match value {
        Sql::Null => Value::Null,
        Sql::Integer(number) => Value::Integer(number),
        Sql::Real(number) => Value::Real(number),
        Sql::Text(text) => Value::Text(text),
        Sql::Blob(bytes) => Value::Blob(bytes),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_owned().into_os_string();
    name.push(suffix);
    name.into()
}

fn copy_of(dir: &Path, path: &Path, name: &str) -> PathBuf {
    let copy = dir.join(name);
    fs::copy(path, &copy).unwrap();
    for suffix in ["-wal", "-journal"] {
        if beside(path, suffix).exists() {
            fs::copy(beside(path, suffix), beside(&copy, suffix)).unwrap();
        }
    }
    copy
}
