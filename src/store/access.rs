//! The two ways in which tables are open: within a write transaction, or in a snapshot.
//!
//! Code that only reads is written once, over [`Access`]; code that writes is there for [`Writing`] alone.

use super::TxError;
use redb::{
    Database, Key, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, Table,
    TableDefinition, TableError, Value, WriteTransaction,
};
use std::marker::PhantomData;

/// A way in which tables are open.
pub(crate) trait Access {
    /// A table of this way.
    type Table<K: Key + 'static, V: Value + 'static>: ReadableTable<K, V>;
}

/// Within a write transaction.
pub(crate) struct Writing<'tx>(PhantomData<&'tx ()>);

/// In a snapshot of one commit.
pub(crate) struct Reading;

impl<'tx> Access for Writing<'tx> {
    type Table<K: Key + 'static, V: Value + 'static> = Table<'tx, K, V>;
}

impl Access for Reading {
    type Table<K: Key + 'static, V: Value + 'static> = ReadOnlyTable<K, V>;
}

/// Opens one table.
pub(crate) trait Open<A: Access> {
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        name: TableDefinition<'static, K, V>,
    ) -> Result<A::Table<K, V>, TxError>;
}

impl<'tx> Open<Writing<'tx>> for &'tx WriteTransaction {
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        name: TableDefinition<'static, K, V>,
    ) -> Result<Table<'tx, K, V>, TxError> {
        Ok(self.open_table(name)?)
    }
}

/// A table that nobody wrote to yet is not there; it reads like an empty one.
impl Open<Reading> for &ReadTransaction {
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        name: TableDefinition<'static, K, V>,
    ) -> Result<ReadOnlyTable<K, V>, TxError> {
        match self.open_table(name) {
            Err(TableError::TableDoesNotExist(_)) => empty_table(name),
            other => Ok(other?),
        }
    }
}

fn empty_table<K: Key + 'static, V: Value + 'static>(
    name: TableDefinition<'static, K, V>,
) -> Result<ReadOnlyTable<K, V>, TxError> {
    let db = in_memory()?;
    let tx = db.begin_write()?;
    tx.open_table(name)?;
    tx.commit()?;
    Ok(db.begin_read()?.open_table(name)?)
}

/// A database that is gone when it is dropped.
pub(super) fn in_memory() -> Result<Database, TxError> {
    let backend = redb::backends::InMemoryBackend::new();
    Ok(Database::builder().create_with_backend(backend)?)
}
