//! A SUSE database that changes: the writes of rpm's ndb backend, replayed over a real file.

use crate::support::agent::{Launch, listing};
use crate::support::fixtures;
use crate::support::held::Held;
use afferent::report::facts;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

const BLOCK: u64 = 16;

/// `Packages.db` as rpm writes it: the fields are those of `src/rpmdb/ndb.rs`.
struct Ndb(File);

struct Slot {
    at: u64,
    number: u32,
    offset: u64,
    blocks: u64,
}

impl Ndb {
    fn open(path: &Path) -> Self {
        Self(
            OpenOptions::new()
                .read(true)
                .write(true)
                .open(path)
                .unwrap(),
        )
    }

    fn word(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        u32::from_le_bytes(bytes)
    }

    fn set(&self, at: u64, word: u32) {
        self.0.write_all_at(&word.to_le_bytes(), at).unwrap();
    }

    fn slots(&self) -> Vec<Slot> {
        let end = u64::from(self.word(12)) * 4096;
        (32..end)
            .step_by(16)
            .map(|at| Slot {
                at,
                number: self.word(at + 4),
                offset: u64::from(self.word(at + 8)),
                blocks: u64::from(self.word(at + 12)),
            })
            .collect()
    }

    /// Every put and erase raises it.
    fn raise_generation(&self) {
        self.set(8, self.word(8) + 1);
    }

    fn blob(&self, slot: &Slot) -> Vec<u8> {
        let mut bytes = vec![0; self.word(slot.offset * BLOCK + 12) as usize];
        self.0
            .read_exact_at(&mut bytes, slot.offset * BLOCK + 16)
            .unwrap();
        bytes
    }

    /// Finds a header by its name and gives it, erased.
    fn erase(&self, name: &str) -> Vec<u8> {
        let name = format!("\0{name}\0");
        let (slot, blob) = self
            .slots()
            .into_iter()
            .filter(|slot| slot.offset > 0)
            .map(|slot| (self.blob(&slot), slot))
            .map(|(blob, slot)| (slot, blob))
            .find(|(_, blob)| blob.windows(name.len()).any(|w| w == name.as_bytes()))
            .unwrap();
        let zeros = vec![0; usize::try_from(slot.blocks * BLOCK).unwrap()];
        for at in [4, 8, 12] {
            self.set(slot.at + at, 0);
        }
        self.0.write_all_at(&zeros, slot.offset * BLOCK).unwrap();
        self.raise_generation();
        blob
    }

    /// Appends a header.
    fn put(&self, header: &[u8]) {
        let number = self.word(16);
        let generation = self.word(8) + 1;
        let length = u32::try_from(header.len()).unwrap();
        let mut blob = b"BlbS".to_vec();
        for word in [number, generation, length] {
            blob.extend(word.to_le_bytes());
        }
        blob.extend(header);
        while blob.len() % 16 != 4 {
            blob.push(0);
        }
        let sum = adler32(&blob);
        blob.extend(sum.to_le_bytes());
        blob.extend(length.to_le_bytes());
        blob.extend(b"BlbE");
        let end = self.0.metadata().unwrap().len();
        assert_eq!((end % BLOCK, blob.len() % 16), (0, 0));
        self.0.write_all_at(&blob, end).unwrap();
        let slot = self.slots().into_iter().find(|s| s.offset == 0).unwrap();
        assert_eq!(slot.number, 0);
        self.set(slot.at + 4, number);
        self.set(slot.at + 8, u32::try_from(end / BLOCK).unwrap());
        self.set(slot.at + 12, u32::try_from(blob.len() / 16).unwrap());
        self.set(16, number + 1);
        self.raise_generation();
    }
}

fn adler32(bytes: &[u8]) -> u32 {
    let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (a + b) % 65_521)
    });
    b << 16 | a
}

// The loss: SUSE guests that are reported once and never again, or in the middle of a transaction.
#[test]
fn changes_of_an_ndb_database_are_served_when_the_transaction_ends() {
    let root = fixtures::unpack("sle-15-subset-ndb");
    let all = fixtures::expected("sle-15-subset-ndb");
    let directory = root.path().join("var/lib/rpm");
    let (main, lock) = (directory.join("Packages.db"), directory.join(".rpm.lock"));
    drop(Held::lock(&lock));
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    let first = agent.wait_for_list(&all);
    assert_eq!(first.fact(facts::RPMDB_BACKEND), "ndb");

    let transaction = Held::lock(&lock);
    let database = Ndb::open(&main);
    let erased = database.erase("binutils");
    drop(database);
    // The file is closed and quiet, and still nothing may be reported: the lock is held.
    let waited = agent.wait_for_other_than(&first, std::time::Duration::from_millis(500));
    assert_eq!(waited.key(), first.key());
    drop(transaction);
    let without: String = all
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("binutils\t"))
        .collect();
    let left = listing(&directory);
    agent.wait_for_list(&without);
    assert_eq!(listing(&directory), left, "touched");

    let transaction = Held::lock(&lock);
    Ndb::open(&main).put(&erased);
    drop(transaction);
    agent.wait_for_list(&all);

    // An upgrade: the new one is put before the old one is erased, as rpm does it.
    let transaction = Held::lock(&lock);
    let database = Ndb::open(&main);
    let mut newer = database.erase("zlib-devel");
    database.put(&newer);
    let version = b"\x001.2.11\0";
    let at = newer
        .windows(version.len())
        .position(|w| w == version)
        .unwrap();
    newer[at + 6] = b'9';
    database.put(&newer);
    let both = agent.get();
    database.erase("zlib-devel");
    drop((database, transaction));
    assert_eq!(both.list(), all);
    agent.wait_for_list(&all.replace("\t1.2.11\t", "\t1.2.19\t"));
}
