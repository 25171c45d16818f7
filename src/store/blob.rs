//! Long values: compressed, in chunks, under a hash of their own.
//!
//! ```text
//! heads    key        -> Head { length, chunks, sha256 }
//! chunks   (key, n)   -> at most CHUNK bytes
//! ```
//!
//! redb rounds a value up to a power of two pages, so long ones are cut; and it does not verify its
//! own checksums on ordinary reads, so every value is hashed and checked before anybody sees it.

use super::codec::Row;
use super::{TxError, codec};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Fills 16 pages of 4 KiB with room for redb's own bookkeeping.
const CHUNK: usize = 65_400;

/// The fastest level: the next ones cost a third more time for a few percent.
const ZSTD_LEVEL: i32 = 1;

/// No value is larger once unpacked, whatever its head says.
const MAX_UNPACKED: usize = codec::MAX_ROW;

/// The two tables that hold one kind of long value.
pub(crate) struct Blobs {
    /// Key to [`Head`].
    pub(crate) heads: TableDefinition<'static, &'static str, &'static [u8]>,
    /// Key and number to bytes.
    pub(crate) chunks: TableDefinition<'static, (&'static str, u32), &'static [u8]>,
}

/// The same tables in a transaction that writes.
pub(crate) struct OpenBlobs<'tx> {
    heads: Table<'tx, &'static str, &'static [u8]>,
    chunks: Table<'tx, (&'static str, u32), &'static [u8]>,
}

/// The row of `heads`.
#[derive(Serialize, Deserialize)]
struct Head {
    packed: u64,
    unpacked: u64,
    chunks: u32,
    sha256: [u8; 32],
}

impl Row<'_> for Head {
    const VERSION: u8 = 1;
}

/// A value made ready outside of any transaction: encoded, compressed, hashed.
pub(crate) struct Sealed {
    head: Vec<u8>,
    packed: Vec<u8>,
}

impl Sealed {
    /// Does all the work that needs no database.
    pub(crate) fn new<'a>(value: &impl Row<'a>) -> Result<Self, TxError> {
        let plain = codec::encode(value)?;
        let mut packed = compress(&plain)
            .map_err(|error| TxError::Failed(format!("cannot compress a value: {error}")))?;
        // It has room for the worst case, and many wait together for one commit.
        packed.shrink_to_fit();
        let head = codec::encode(&Head {
            packed: packed.len() as u64,
            unpacked: plain.len() as u64,
            chunks: u32::try_from(packed.len().div_ceil(CHUNK)).unwrap_or(u32::MAX),
            sha256: Sha256::digest(&packed).into(),
        })?;
        Ok(Self { head, packed })
    }
}

impl Blobs {
    /// Opens both tables to be written, once for all values of a transaction.
    pub(crate) fn open<'tx>(&self, tx: &'tx WriteTransaction) -> Result<OpenBlobs<'tx>, TxError> {
        Ok(OpenBlobs {
            heads: tx.open_table(self.heads)?,
            chunks: tx.open_table(self.chunks)?,
        })
    }

    /// Reads a value from open tables, checked against its hash and not yet decoded.
    pub(crate) fn get_plain(
        heads: &impl ReadableTable<&'static str, &'static [u8]>,
        chunks: &impl ReadableTable<(&'static str, u32), &'static [u8]>,
        key: &str,
    ) -> Result<Option<Vec<u8>>, TxError> {
        let Some(head) = heads.get(key)? else {
            return Ok(None);
        };
        let head: Head = codec::decode(head.value())?;
        let damaged = |what: &str| TxError::Corrupt(format!("stored value {key:?} {what}"));
        let mut packed = Vec::new();
        for n in 0..head.chunks {
            let chunk = chunks
                .get((key, n))?
                .ok_or_else(|| damaged("misses a part"))?;
            packed.extend_from_slice(chunk.value());
        }
        if packed.len() as u64 != head.packed || Sha256::digest(&packed)[..] != head.sha256 {
            return Err(damaged("does not match its hash"));
        }
        let unpacked = usize::try_from(head.unpacked)
            .ok()
            .filter(|n| *n <= MAX_UNPACKED)
            .ok_or_else(|| damaged("is too long"))?;
        let plain = decompress(&packed, unpacked);
        plain.map(Some).map_err(|_| damaged("does not unpack"))
    }
}

impl OpenBlobs<'_> {
    /// Stores a value in place of what the key held.
    pub(crate) fn put(&mut self, key: &str, value: &Sealed) -> Result<(), TxError> {
        self.heads.insert(key, value.head.as_slice())?;
        let mut next = 0;
        for chunk in value.packed.chunks(CHUNK) {
            self.chunks.insert((key, next), chunk)?;
            next += 1;
        }
        self.cut(key, next)
    }

    /// Forgets a value; says whether there was one.
    pub(crate) fn remove(&mut self, key: &str) -> Result<bool, TxError> {
        let was_there = self.heads.remove(key)?.is_some();
        self.cut(key, 0)?;
        Ok(was_there)
    }

    /// Forgets the chunks of a value from this one on.
    fn cut(&mut self, key: &str, from: u32) -> Result<(), TxError> {
        Ok(self
            .chunks
            .retain_in((key, from)..=(key, u32::MAX), |_, _| false)?)
    }
}

/// The same bytes in fewer, at most those that [`decompress`] takes back; `None` where that is not possible.
pub(crate) fn pack(plain: &[u8]) -> Option<Vec<u8>> {
    let fits = plain.len() <= MAX_UNPACKED;
    fits.then(|| compress(plain).ok()).flatten()
}

/// What [`pack`] made of `length` bytes.
pub(crate) fn unpack(packed: &[u8], length: usize) -> Result<Vec<u8>, TxError> {
    let damaged = || TxError::Corrupt("rows that are packed together do not unpack".into());
    if length > MAX_UNPACKED {
        return Err(damaged());
    }
    decompress(packed, length).map_err(|_| damaged())
}

fn compress(plain: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSORS.with(
        || zstd::bulk::Compressor::new(ZSTD_LEVEL),
        |compressor| compressor.compress(plain),
    )
}

fn decompress(packed: &[u8], length: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSORS.with(zstd::bulk::Decompressor::new, |decompressor| {
        decompressor.decompress(packed, length)
    })
}

/// Tools that are kept for the next value: about as many as there are processors to use them.
const MOST_SPARE: usize = 4;

/// Working memory of zstd costs more to make than a report to compress: it is used again.
struct ContextPool<T>(Mutex<Vec<T>>);

static COMPRESSORS: ContextPool<zstd::bulk::Compressor<'static>> =
    ContextPool(Mutex::new(Vec::new()));
static DECOMPRESSORS: ContextPool<zstd::bulk::Decompressor<'static>> =
    ContextPool(Mutex::new(Vec::new()));

impl<T> ContextPool<T> {
    fn with<R>(
        &self,
        make: impl FnOnce() -> io::Result<T>,
        work: impl FnOnce(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        let spare = self.lock().pop();
        let mut tool = spare.map_or_else(make, Ok)?;
        let result = work(&mut tool)?;
        // One that failed is not trusted again.
        let mut spare = self.lock();
        if spare.len() < MOST_SPARE {
            spare.push(tool);
        }
        Ok(result)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
