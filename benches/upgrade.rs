//! How long a store of format 1 takes to open, and to be read, the first time and after that.
//!
//! `cargo bench --bench upgrade` makes stores of 10,000 guests and of 100,000 components from rows that
//! version 0.1.0 wrote (`tests/fixtures/v0.1.0/`). Opening a file checks all of it, which is most of the
//! time; the same file opened again shows what the upgrade itself costs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that fails stops; its table is its output"
)]

#[path = "../tests/it/support/fixtures.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod fixtures;
#[path = "../tests/it/support/rpm_root.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod rpm_root;

use afferent::sense::queue::table;
use afferent::store::Store;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::path::Path;
use std::time::{Duration, Instant};

const GUESTS: usize = 10_000;
const COMPONENTS: u128 = 100_000;
const RUNS: usize = 5;

fn main() {
    if !std::env::args().any(|arg| arg == "--bench") {
        return;
    }
    println!(
        "{:<28} {:>10} {:>10} {:>8}",
        "store", "first ms", "again ms", "bytes"
    );
    measure("sense, 10,000 guests", "sense", guests, |store| {
        let loaded = table::load(store).unwrap();
        assert!(loaded.guests.len() >= GUESTS && loaded.slots.len() >= GUESTS);
    });
    measure("mirror, 100,000 components", "mirror", components, |_| {});
}

/// Medians of opening and reading a file of format 1, and of the same once more.
fn measure(what: &str, name: &str, fill: fn(&Path), read: fn(&Store)) {
    let (mut first, mut again, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..RUNS {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(format!("{name}.redb"));
        let fixture = format!("tests/fixtures/v0.1.0/{name}.redb.xz");
        fixtures::unpack_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join(fixture), &file);
        fill(&file);
        bytes = std::fs::metadata(&file).unwrap().len();
        for times in [&mut first, &mut again] {
            let begin = Instant::now();
            let opened = Store::open(dir.path(), &format!("{name}.redb"), 4 << 20).unwrap();
            read(&opened.store);
            times.push(begin.elapsed());
            assert!(opened.moved_aside.is_none());
        }
    }
    println!(
        "{what:<28} {:>10.1} {:>10.1} {bytes:>8}",
        median(first),
        median(again)
    );
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// The rows of the guests of the fixture, again and again under other names.
fn guests(file: &Path) {
    const TABLES: [&str; 3] = ["sense_guests", "pending_slots", "pending_heads"];
    const CHUNKS: TableDefinition<(&str, u32), &[u8]> = TableDefinition::new("pending_chunks");
    let db = Database::open(file).unwrap();
    let from = pending_guest(&db);
    let tx = db.begin_write().unwrap();
    for name in TABLES {
        let mut table = tx.open_table(rows(name)).unwrap();
        let row = table.get(from.as_str()).unwrap().unwrap().value().to_vec();
        for n in 0..GUESTS {
            table
                .insert(format!("copy-{n}").as_str(), row.as_slice())
                .unwrap();
        }
    }
    let mut chunks = tx.open_table(CHUNKS).unwrap();
    let chunk = chunks
        .get((from.as_str(), 0))
        .unwrap()
        .unwrap()
        .value()
        .to_vec();
    for n in 0..GUESTS {
        chunks
            .insert((format!("copy-{n}").as_str(), 0), chunk.as_slice())
            .unwrap();
    }
    drop(chunks);
    tx.commit().unwrap();
}

fn rows(name: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(name)
}

/// A guest with something pending.
fn pending_guest(db: &Database) -> String {
    let tx = db.begin_read().unwrap();
    let slots = tx.open_table(rows("pending_slots")).unwrap();
    let (vm, _) = slots.first().unwrap().unwrap();
    vm.value().to_owned()
}

/// A component of the fixture, again and again under other ids.
fn components(file: &Path) {
    const COMPONENT: TableDefinition<&[u8], &[u8]> = TableDefinition::new("component");
    let db = Database::open(file).unwrap();
    let tx = db.begin_write().unwrap();
    let mut table = tx.open_table(COMPONENT).unwrap();
    let (key, row) = {
        let (key, row) = table.first().unwrap().unwrap();
        (key.value().to_vec(), row.value().to_vec())
    };
    for n in 0..COMPONENTS {
        let mut key = key.clone();
        key.truncate(1);
        key.extend(n.to_be_bytes());
        table.insert(key.as_slice(), row.as_slice()).unwrap();
    }
    drop(table);
    tx.commit().unwrap();
}
