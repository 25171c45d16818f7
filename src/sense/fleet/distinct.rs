//! A table of distinct rows, packages or platforms, within one transaction of the sensor's writer.

use super::index::{Interned, RowIndex, Staged};
use crate::store::TxError;
use redb::Table;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rows that one transaction removes: it stays short, and the next goes on.
const REMOVED_AT_ONCE: usize = 512;

/// The table, and what the transaction does to it.
pub(super) struct DistinctTx<'f, 'tx> {
    index: &'f Mutex<RowIndex>,
    rows: Table<'tx, u32, &'static [u8]>,
    staged: Staged,
}

impl<'f, 'tx> DistinctTx<'f, 'tx> {
    pub(super) fn new(index: &'f Mutex<RowIndex>, rows: Table<'tx, u32, &'static [u8]>) -> Self {
        Self {
            index,
            rows,
            staged: Staged::default(),
        }
    }

    /// Counts a guest that has the row from now on, or has it no longer.
    pub(super) fn refer(&mut self, id: u32, by: i64) {
        self.staged.refer(id, by);
    }

    /// Writes rows that guests have from now on; gives the next free id if there were any.
    pub(super) fn store_new(&mut self) -> Result<Option<u32>, TxError> {
        let index = self.index();
        let new: Vec<Arc<Interned>> = index.to_store(&self.staged).cloned().collect();
        let next_id = index.next_id();
        drop(index);
        for row in &new {
            self.rows.insert(row.id, &*row.bytes)?;
            self.staged.stored(row.id);
        }
        Ok((!new.is_empty()).then_some(next_id))
    }

    /// Removes rows that nobody needs, where the first row of the change log is `oldest`, and the next one will
    /// be `next_change`.
    pub(super) fn end(mut self, oldest: u64, next_change: u64) -> Result<Staged, TxError> {
        let freed = self.index().to_free(&self.staged, oldest, REMOVED_AT_ONCE);
        for id in &freed {
            self.rows.remove(id)?;
        }
        self.staged.end(freed, next_change);
        Ok(self.staged)
    }

    fn index(&self) -> MutexGuard<'f, RowIndex> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
