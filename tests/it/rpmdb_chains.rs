//! Chains of overflow pages in any order: fetched in runs where they lie together, right everywhere.
//!
//! A file that SQLite wrote is laid out anew: its one row keeps its bytes, but the pages of its chain
//! stand where a test wants them, and the source counts what is read.

use afferent::rpmdb::sqlite::{Beside, SqliteDatabase, Value};
use afferent::rpmdb::{self, Backend, Checks, ReadAt};
use proptest::prelude::*;
use rusqlite::Connection;
use std::cell::Cell;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;

const PAGE: usize = 512;
/// Bytes of a chain's page behind its pointer.
const PER_PAGE: usize = PAGE - 4;
/// Page 1 has the schema, page 2 the row.
const FIRST: u32 = 3;

/// A database file as pages, most of which may be missing: those are zeros.
#[derive(Clone)]
struct Pages {
    pages: HashMap<u32, Vec<u8>>,
    /// What the source claims to hold.
    claimed: u32,
    /// What it holds in truth.
    there: u32,
    calls: Cell<usize>,
    bytes: Cell<usize>,
}

impl ReadAt for Pages {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = (u64::from(self.there) * PAGE as u64).saturating_sub(offset);
        let length = buffer.len().min(left as usize);
        self.calls.set(self.calls.get() + 1);
        self.bytes.set(self.bytes.get() + length);
        for (i, byte) in buffer[..length].iter_mut().enumerate() {
            let at = offset as usize + i;
            let page = self.pages.get(&(at as u32 / PAGE as u32 + 1));
            *byte = page.map_or(0, |page| page[at % PAGE]);
        }
        Ok(length)
    }

    fn size(&self) -> u64 {
        u64::from(self.claimed) * PAGE as u64
    }
}

impl Pages {
    /// One row whose blob takes `chain` overflow pages, and the blob.
    fn with_chain(chain: u32) -> (Self, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.sqlite");
        let blob: Vec<u8> = (0..chain as usize * PER_PAGE).map(byte).collect();
        let writer = Connection::open(&path).unwrap();
        writer
            .execute_batch(&format!(
                "PRAGMA page_size={PAGE}; CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob)"
            ))
            .unwrap();
        let insert = "INSERT INTO Packages VALUES (1, ?1)";
        writer.execute(insert, [&blob]).unwrap();
        let bytes = fs::read(&path).unwrap();
        let pages = (1..).zip(bytes.chunks(PAGE).map(<[u8]>::to_vec));
        let count = (bytes.len() / PAGE) as u32;
        assert_eq!(count, chain + FIRST - 1, "nothing else is in the file");
        let all = Self {
            pages: pages.collect(),
            claimed: count,
            there: count,
            calls: Cell::default(),
            bytes: Cell::default(),
        };
        (all, blob)
    }

    /// The same row with its chain at these pages, in this order.
    fn laid_out(&self, order: &[u32]) -> Self {
        let mut new = self.clone();
        let last = *order.iter().max().unwrap();
        new.pages.retain(|page, _| *page < FIRST);
        for (i, page) in order.iter().enumerate() {
            let mut bytes = self.pages[&(FIRST + i as u32)].clone();
            let next = order.get(i + 1).copied().unwrap_or(0);
            bytes[..4].copy_from_slice(&next.to_be_bytes());
            new.pages.insert(*page, bytes);
        }
        // The row ends its page with the first page of its chain.
        let row = new.pages.get_mut(&2).unwrap();
        row[PAGE - 4..].copy_from_slice(&order[0].to_be_bytes());
        let header = new.pages.get_mut(&1).unwrap();
        header[28..32].copy_from_slice(&last.to_be_bytes());
        (new.claimed, new.there) = (last, last);
        new
    }

    /// The blob, or what is said instead.
    fn blob(&self) -> Result<Vec<u8>, String> {
        let said = |error: rpmdb::Error| error.to_string();
        let mut database = SqliteDatabase::open(self, Beside::Nothing).map_err(said)?;
        let table = database.table("Packages").unwrap().clone();
        let mut blob = Vec::new();
        let visit = &mut |_, values: &[Value]| {
            match values {
                [Value::Blob(bytes)] => blob.clone_from(bytes),
                other => panic!("{other:?}"),
            }
            ControlFlow::Continue(())
        };
        database.rows(&table, &["blob"], visit).map_err(said)?;
        Ok(blob)
    }
}

fn byte(i: usize) -> u8 {
    (i % 251) as u8 ^ (i / PER_PAGE) as u8
}

fn consecutive(chain: u32) -> Vec<u32> {
    (FIRST..FIRST + chain).collect()
}

proptest! {
    // The loss: bytes of another page, in a database where packages came and went for years.
    #[test]
    fn a_chain_in_any_order_gives_the_bytes_asked_for(
        (chain, order) in (2..300u32).prop_flat_map(|chain| {
            let gap = (0..40u32).prop_map(move |gap| gap + chain);
            (Just(chain), gap.prop_flat_map(|all| Just(consecutive(all)).prop_shuffle()))
        }),
        sorted in 0..300usize,
        asked in proptest::collection::vec((0..150_000u64, 1..40_000u64, any::<bool>()), 1..30),
    ) {
        let (pages, blob) = Pages::with_chain(chain);
        let mut order = order[..chain as usize].to_vec();
        // Partly in order, as when a long package took the end of the file.
        order[sorted.min(chain as usize)..].sort_unstable();
        let pages = pages.laid_out(&order);
        prop_assert_eq!(&pages.blob().unwrap(), &blob);

        let mut database =
            rpmdb::Database::open(Backend::Sqlite, &pages, Beside::Nothing).unwrap();
        let mut wrong = Vec::new();
        database.headers(Checks::Skip, &mut |item| {
            let read = item.blob.unwrap();
            for (at, length, announce) in &asked {
                let at = at % blob.len() as u64;
                if *announce {
                    read.announce(at + length);
                }
                let chunk = read.chunk(at).unwrap();
                if chunk.is_empty() || !blob[at as usize..].starts_with(chunk) {
                    wrong.push(at);
                }
            }
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(wrong, Vec::<u64>::new());
    }
}

// The loss: thousands of small reads where a few do, or a whole file read for a few of its pages.
#[test]
fn a_chain_in_one_piece_takes_few_reads_and_one_in_pieces_few_bytes() {
    let chain = 2_000;
    let (pages, blob) = Pages::with_chain(chain);
    assert_eq!(pages.blob().unwrap(), blob);
    let calls = pages.calls.get();
    assert!(calls < 50, "{calls} reads for {chain} pages");

    // Every page leads 70 pages on, round and round.
    let stride = |i: u32| FIRST + (i % 40) * 70 + i / 40;
    let order: Vec<u32> = (0..chain).map(stride).collect();
    let pieces = pages.laid_out(&order);
    pieces.bytes.set(0);
    assert_eq!(pieces.blob().unwrap(), blob);
    let bytes = pieces.bytes.get();
    assert!(bytes < 2 * blob.len(), "{bytes} bytes for {}", blob.len());
}

// The loss: bytes of the page that SQLite locks and never fills, or no bytes behind it.
#[test]
fn a_chain_goes_around_the_page_of_the_locks() {
    let lock = 0x4000_0000 / PAGE as u32 + 1;
    let (pages, blob) = Pages::with_chain(40);
    let around: Vec<u32> = (lock - 20..=lock + 20).filter(|p| *p != lock).collect();
    assert_eq!(pages.laid_out(&around).blob().unwrap(), blob);
}

// The loss: a scan that never ends.
#[test]
fn a_chain_that_returns_to_itself_is_an_error_that_names_the_page() {
    for (from, to) in [(59, 3), (59, 59), (30, 29), (10, 2)] {
        let (mut pages, _) = Pages::with_chain(60);
        let page = pages.pages.get_mut(&from).unwrap();
        page[..4].copy_from_slice(&u32::to_be_bytes(to));
        let said = pages.blob().unwrap_err();
        assert_eq!(said, format!("page {to}: is used more than once"));
    }
}

// The loss: bytes of an earlier run, or zeros, in the place of what is no longer in the file.
#[test]
fn a_chain_cut_short_is_an_error_that_names_the_page() {
    let (whole, _) = Pages::with_chain(60);
    for there in [5, 20, 61] {
        let mut pages = whole.clone();
        // The file was truncated after it was opened.
        pages.there = there;
        let said = pages.blob().unwrap_err();
        let next = there + 1;
        assert_eq!(said, format!("page {next}: lies past the end of the file"));
        // It was short from the beginning.
        pages.claimed = there;
        let said = pages.blob().unwrap_err();
        assert_eq!(
            said,
            format!("page {next}: is referred to but does not exist")
        );
    }
    for next in [0, 99] {
        let mut pages = whole.clone();
        pages.pages.get_mut(&30).unwrap()[..4].copy_from_slice(&u32::to_be_bytes(next));
        let said = pages.blob().unwrap_err();
        assert_eq!(
            said,
            format!("page {next}: is referred to but does not exist")
        );
    }
}

// The loss: the old version of a page that was replaced since the last checkpoint, because its
// neighbours were not.
#[test]
fn a_page_in_the_log_counts_in_the_midst_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.sqlite");
    let mut blob: Vec<u8> = (0..200 * PER_PAGE).map(byte).collect();
    let writer = Connection::open(&path).unwrap();
    writer
        .execute_batch(&format!(
            "PRAGMA page_size={PAGE}; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
             CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob)"
        ))
        .unwrap();
    let insert = "INSERT INTO Packages VALUES (1, ?1)";
    writer.execute(insert, [&blob]).unwrap();
    writer
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")
        .unwrap();
    for pages in [vec![50], vec![0, 1], vec![99, 101, 103], vec![198, 199]] {
        for page in &pages {
            blob[page * PER_PAGE + 200..][..30].fill(b'!');
        }
        // One as long is written over the old one, where they differ.
        let update = "UPDATE Packages SET blob = ?1";
        writer.execute(update, [&blob]).unwrap();
        let main = fs::read(&path).unwrap();
        let log = fs::read(dir.path().join("t.sqlite-wal")).unwrap();
        assert!(log.len() < 60 * PAGE, "the log holds single pages");
        let mut database = SqliteDatabase::open(main, Beside::Log(log)).unwrap();
        let table = database.table("Packages").unwrap().clone();
        let visit = &mut |_, values: &[Value]| {
            assert_eq!(values, [Value::Blob(blob.clone())], "after {pages:?}");
            ControlFlow::Continue(())
        };
        database.rows(&table, &["blob"], visit).unwrap();
    }
}
