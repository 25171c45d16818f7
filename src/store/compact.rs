//! Giving room back: a redb file only shrinks by being compacted, which takes it for itself.
//!
//! That is done when a file is opened, and only to one that is worth it: a sensor that once held
//! reports of a whole fleet must not keep their room for ever.

use super::TxError;
use redb::Database;
use std::fs;
use std::path::Path;

/// Shorter files are left alone, in bytes.
const WORTH_IT: u64 = 16 << 20;

/// How often its live content a file may be long.
const SPARSE: u64 = 4;

/// Compacts `db` if most of its file is air. Where that fails, on a full disk for example, the file
/// is as good as before: it is opened again, for redb gives up on a handle that failed once.
pub(super) fn if_sparse(
    path: &Path,
    mut db: Database,
    reopen: impl FnOnce() -> Result<Database, TxError>,
) -> Result<Database, TxError> {
    let before = len_of(path);
    if before < WORTH_IT || live(&db)?.saturating_mul(SPARSE) >= before {
        return Ok(db);
    }
    match db.compact() {
        Ok(_) => {
            let after = len_of(path);
            tracing::info!(path = %path.display(), before, after, "store compacted");
            Ok(db)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "store not compacted");
            drop(db);
            reopen()
        }
    }
}

/// Bytes of all pages that hold something, redb's own included. (What redb calls fragmented includes free
/// pages.)
fn live(db: &Database) -> Result<u64, TxError> {
    let transaction = db.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    Ok(stats.allocated_pages() * stats.page_size() as u64)
}

fn len_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

#[cfg(test)]
mod tests {
    use super::super::{Store, StoreError, schema};
    use super::*;
    use redb::TableDefinition;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("test");

    /// Loss prevented: room that was needed once is never given back.
    #[test]
    fn a_file_that_is_mostly_air_shrinks_when_it_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.redb");
        let open = || Store::open(dir.path(), "test.redb", 1 << 20).unwrap().store;
        let store = open();
        let value = vec![7; 60_000];
        let filled = store.write(|tx| {
            let mut table = tx.open_table(TABLE)?;
            Ok((0..500).try_for_each(|n| table.insert(n, value.as_slice()).map(drop))?)
        });
        filled.unwrap();
        let full = len_of(&path);
        assert!(full > WORTH_IT);
        drop(store);
        let store = open();
        assert!(len_of(&path) >= full, "all of it is needed");
        store
            .write(|tx| Ok(tx.open_table(TABLE)?.retain(|n, _| n >= 497)?))
            .unwrap();
        drop(store);
        // What is left stands at its end, where redb alone cuts nothing off.
        assert!(len_of(&path) * 2 > full, "{} of {full}", len_of(&path));
        let store = open();
        assert!(len_of(&path) * SPARSE < full, "{} of {full}", len_of(&path));
        let left = store.read(|tx| {
            let table = tx.open_table(TABLE)?;
            Ok(table.get(498)?.map(|value| value.value().len()))
        });
        assert_eq!(left.unwrap(), Some(60_000));
    }

    /// Loss prevented: a program that changes a file of which it does not know what it means.
    #[test]
    fn a_file_of_a_newer_format_is_not_compacted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.redb");
        let open = || Store::open(dir.path(), "test.redb", 1 << 20);
        let store = open().unwrap().store;
        let value = vec![7; 60_000];
        let filled = store.write(|tx| {
            let mut table = tx.open_table(TABLE)?;
            Ok((0..500).try_for_each(|n| table.insert(n, value.as_slice()).map(drop))?)
        });
        filled.unwrap();
        let emptied = store.write(|tx| {
            schema::set(tx, schema::FORMAT + 1)?;
            Ok(tx.open_table(TABLE)?.retain(|n, _| n >= 497)?)
        });
        emptied.unwrap();
        drop(store);
        let before = len_of(&path);
        assert!(before > WORTH_IT);
        assert!(matches!(open(), Err(StoreError::Newer { .. })));
        assert_eq!(len_of(&path), before);
    }
}
