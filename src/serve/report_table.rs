//! The guest's own report and the counter that names it: what `serve` answers from.
//!
//! Report, generation and digest change in one transaction: what was once served under a key is
//! never served with other content, also after a kill at any instruction.

mod v1;
mod v2;

use crate::clock::WallTime;
use crate::report::{
    DIGEST_FORM, Digest, Epoch, Facts, GuestId, MappingHash, Report, ReportKey, Trigger,
};
use crate::store::codec::{Row, second_version};
use crate::store::{Blobs, CodecError, Sealed, Store, StoreError, codec};
use redb::{TableDefinition, TableError};
use serde::{Deserialize, Serialize};

const ROWS: TableDefinition<&str, &[u8]> = TableDefinition::new("report_rows");
const BLOBS: Blobs = Blobs {
    heads: TableDefinition::new("report_heads"),
    chunks: TableDefinition::new("report_chunks"),
};
const IDENTITY: &str = "identity";
const NEWEST: &str = "newest";

second_version!(Report: v1::Report);

impl Row<'_> for Identity {
    const VERSION: u8 = 1;
}

impl Row<'_> for ReportRow {
    const VERSION: u8 = 3;

    fn read_old(version: u8, fields: &[u8]) -> Result<Self, CodecError> {
        match version {
            1 => codec::fields::<v1::ReportRow>(fields).map(Into::into),
            2 => codec::fields::<v2::ReportRow>(fields).map(Into::into),
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

/// Whose reports these are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Of the counter in this file.
    pub epoch: Epoch,
    /// The machine that drew the epoch; another one must draw its own.
    pub guest_id: Option<GuestId>,
}

/// What is kept of the newest report beside its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRow {
    /// Epoch and generation.
    pub key: ReportKey,
    /// Over the content.
    pub digest: Digest,
    /// Form of the digest, see [`crate::report::DIGEST_FORM`].
    pub digest_form: u8,
    /// Why the scan ran that found it.
    pub trigger: Trigger,
    /// When that was.
    pub generated_at: WallTime,
    /// Facts about the newest scan that found it, which are not content: an agent that starts tells
    /// them from the first answer on.
    pub scan_facts: Facts,
    /// The mapping from repositories to CPEs that the newest scan used.
    pub mapping: Option<MappingHash>,
}

/// A report as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReport {
    /// Its key, digest and origin.
    pub row: ReportRow,
    /// Its content, checked against the digest.
    pub report: Report,
}

/// The identity in this file, and the newest report if one was ever made.
pub fn load(store: &Store) -> Result<(Option<Identity>, Option<StoredReport>), StoreError> {
    let loaded = store.read(|tx| {
        let rows = match tx.open_table(ROWS) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok((None, None)),
            Err(error) => return Err(error.into()),
        };
        let identity = match rows.get(IDENTITY)? {
            Some(bytes) => Some(codec::decode(bytes.value())?),
            None => None,
        };
        let Some(bytes) = rows.get(NEWEST)? else {
            return Ok((identity, None));
        };
        let row: ReportRow = codec::decode(bytes.value())?;
        let (heads, chunks) = (tx.open_table(BLOBS.heads)?, tx.open_table(BLOBS.chunks)?);
        let plain = Blobs::get_plain(&heads, &chunks, NEWEST)?;
        let report = plain
            .map(|plain| codec::decode::<Report>(&plain))
            .transpose()?;
        Ok((identity, report.map(|report| StoredReport { row, report })))
    })?;
    // A digest of another form cannot be computed again; the hash of the bytes was checked.
    if let (_, Some(stored)) = &loaded
        && stored.row.digest_form == DIGEST_FORM
        && stored.report.digest() != stored.row.digest
    {
        return Err(StoreError::Corrupt {
            path: store.path().to_owned(),
            what: "the stored report does not have the digest it was stored under".into(),
        });
    }
    Ok(loaded)
}

/// Begins a new epoch: the report of another one is forgotten in the same transaction.
pub fn begin_epoch(store: &Store, identity: &Identity) -> Result<(), StoreError> {
    store.write(|tx| {
        let mut rows = tx.open_table(ROWS)?;
        rows.insert(IDENTITY, codec::encode(identity)?.as_slice())?;
        rows.remove(NEWEST)?;
        drop(rows);
        BLOBS.open(tx)?.remove(NEWEST)?;
        Ok(())
    })
}

/// Begins an epoch whose first report is the stored one, under the key in `row`: both are there, or
/// neither.
pub fn rename(store: &Store, identity: &Identity, row: &ReportRow) -> Result<(), StoreError> {
    put_row(store, Some(identity), row)
}

/// Notes other facts about the newest scan of the stored report.
pub fn note(store: &Store, row: &ReportRow) -> Result<(), StoreError> {
    put_row(store, None, row)
}

/// Writes all but the content, which stays.
fn put_row(store: &Store, identity: Option<&Identity>, row: &ReportRow) -> Result<(), StoreError> {
    store.write(|tx| {
        let mut rows = tx.open_table(ROWS)?;
        if let Some(identity) = identity {
            rows.insert(IDENTITY, codec::encode(identity)?.as_slice())?;
        }
        rows.insert(NEWEST, codec::encode(row)?.as_slice())?;
        Ok(())
    })
}

/// Begins an epoch with a report that was already given a key in it: both are there, or neither.
pub fn begin_with(
    store: &Store,
    identity: &Identity,
    stored: &StoredReport,
) -> Result<(), StoreError> {
    put(store, Some(identity), stored)
}

/// Stores a report under its key, in place of the one before it.
pub fn replace(store: &Store, stored: &StoredReport) -> Result<(), StoreError> {
    put(store, None, stored)
}

fn put(
    store: &Store,
    identity: Option<&Identity>,
    stored: &StoredReport,
) -> Result<(), StoreError> {
    let sealed = Sealed::new(&stored.report).map_err(|error| error.in_file(store.path()))?;
    store.write(|tx| {
        let mut rows = tx.open_table(ROWS)?;
        if let Some(identity) = identity {
            rows.insert(IDENTITY, codec::encode(identity)?.as_slice())?;
        }
        rows.insert(NEWEST, codec::encode(&stored.row)?.as_slice())?;
        drop(rows);
        BLOBS.open(tx)?.put(NEWEST, &sealed)
    })
}

#[cfg(test)]
mod tests;
