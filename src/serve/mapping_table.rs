//! The mapping from repositories to CPEs that a sensor pushed to this agent.
//!
//! ```text
//! mapping_rows     "newest" -> MappingRow        looked at without the content
//! mapping_heads    "newest" -> the JSON as it came, see blob
//! mapping_chunks
//! ```
//!
//! Row and content change in one transaction. The mapping is no machine's own: it outlives epochs and clones.

use crate::clock::WallTime;
use crate::report::MappingHash;
use crate::store::codec::Row;
use crate::store::{Blobs, Sealed, Store, StoreError, codec};
use redb::{TableDefinition, TableError};
use serde::{Deserialize, Serialize};

const ROWS: TableDefinition<&str, &[u8]> = TableDefinition::new("mapping_rows");
const BLOBS: Blobs = Blobs {
    heads: TableDefinition::new("mapping_heads"),
    chunks: TableDefinition::new("mapping_chunks"),
};
const NEWEST: &str = "newest";

impl Row<'_> for MappingRow {
    const VERSION: u8 = 1;
}

/// The JSON of a mapping.
impl Row<'_> for String {
    const VERSION: u8 = 1;
}

/// What is kept of a mapping beside its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MappingRow {
    /// Over the content.
    pub(super) hash: MappingHash,
    /// When it was pushed.
    pub(super) received_at: WallTime,
}

/// The row of the stored mapping, if there is one.
pub(super) fn load_row(store: &Store) -> Result<Option<MappingRow>, StoreError> {
    store.read(|tx| {
        let rows = match tx.open_table(ROWS) {
            Ok(rows) => rows,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let row = rows.get(NEWEST)?;
        Ok(row.map(|bytes| codec::decode(bytes.value())).transpose()?)
    })
}

/// The stored mapping, if there is one.
///
/// # Errors
/// It cannot be read, or its content is not that of its row.
pub(super) fn load(store: &Store) -> Result<Option<(MappingRow, String)>, StoreError> {
    let Some(row) = load_row(store)? else {
        return Ok(None);
    };
    let json = store.read(|tx| {
        let (heads, chunks) = (tx.open_table(BLOBS.heads)?, tx.open_table(BLOBS.chunks)?);
        let plain = Blobs::get_plain(&heads, &chunks, NEWEST)?;
        Ok(plain
            .map(|plain| codec::decode::<String>(&plain))
            .transpose()?)
    })?;
    match json {
        Some(json) if MappingHash::of(json.as_bytes()) == row.hash => Ok(Some((row, json))),
        _ => Err(StoreError::Corrupt {
            path: store.path().to_owned(),
            what: "the stored mapping does not have the hash it was stored under".into(),
        }),
    }
}

/// Stores a mapping in place of the one before.
pub(super) fn replace(store: &Store, row: &MappingRow, json: &String) -> Result<(), StoreError> {
    let sealed = Sealed::new(json).map_err(|error| error.in_file(store.path()))?;
    store.write(|tx| {
        let mut rows = tx.open_table(ROWS)?;
        rows.insert(NEWEST, codec::encode(row)?.as_slice())?;
        drop(rows);
        BLOBS.open(tx)?.put(NEWEST, &sealed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_there_after_a_restart_and_replaces_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            Store::open(dir.path(), "serve.redb", 1 << 20)
                .unwrap()
                .store
        };
        let mapping = |json: &str| {
            let hash = MappingHash::of(json.as_bytes());
            let received_at = WallTime::from_unix_ms(7);
            (MappingRow { hash, received_at }, json.to_owned())
        };
        // Longer than one chunk, also once it is compressed.
        let long: String = (0..300_000).map(|_| fastrand::alphanumeric()).collect();
        {
            let store = open();
            assert_eq!(load(&store).unwrap(), None);
            for json in [long.as_str(), "short", &long] {
                let (row, json) = mapping(json);
                replace(&store, &row, &json).unwrap();
                assert_eq!(load(&store).unwrap(), Some((row, json)));
            }
        }
        assert_eq!(load(&open()).unwrap(), Some(mapping(&long)));
        assert_eq!(load_row(&open()).unwrap(), Some(mapping(&long).0));
    }

    #[test]
    fn the_bytes_of_a_mapping_row_never_change() {
        let row = MappingRow {
            hash: "0123456789abcdef".parse().unwrap(),
            received_at: WallTime::from_unix_ms(1),
        };
        let expected = [1, 0xfd, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 1, 1];
        assert_eq!(codec::encode(&row).unwrap(), expected);
        assert_eq!(codec::encode(&"ab".to_owned()).unwrap(), [1, 2, b'a', b'b']);
    }
}
