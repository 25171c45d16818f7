//! The format of a file as a whole, and the names of all tables.
//!
//! A program opens files of its own format and of every older one, and leaves newer ones alone.
//! Rows carry a format byte of their own ([`super::codec`]); this number changes only when the set
//! of tables or the meaning of a key does.

use super::TxError;
use redb::{ReadableDatabase, TableDefinition};

/// Newest format this program knows.
pub const FORMAT: u64 = 1;

/// One row, `format`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// Writes the format into a new file. Gives the format of one that is newer than [`FORMAT`].
pub(super) fn check(db: &redb::Database) -> Result<Option<u64>, TxError> {
    let found = match db.begin_read()?.open_table(META) {
        Ok(meta) => meta.get("format")?.map(|v| v.value()),
        Err(redb::TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match found {
        Some(format) if format > FORMAT => Ok(Some(format)),
        Some(_) => Ok(None),
        None => {
            let tx = db.begin_write()?;
            set(&tx, FORMAT)?;
            tx.commit()?;
            Ok(None)
        }
    }
}

pub(super) fn set(tx: &redb::WriteTransaction, format: u64) -> Result<(), TxError> {
    tx.open_table(META)?.insert("format", format)?;
    Ok(())
}
