//! One commit of a store, to be read as long as it is needed: by the service that writes the file, or by
//! another process beside it.
//!
//! A snapshot holds up nobody; pages that it reads are not used again before it is dropped.

use super::error::{Doing, corrupt, explain};
use super::{Handle, Store, StoreError, StoreOptions, TxError, builder, schema};
use redb::{ConcurrencyMode, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// One commit.
pub struct Snapshot {
    path: PathBuf,
    tx: ReadTransaction,
    /// What must stay open as long as the transaction is read, if it is nobody else's.
    _open: Held,
}

/// Declared after the transaction, so that it is closed last.
enum Held {
    BySomebodyElse,
    Reader(#[allow(dead_code, reason = "held")] ReadOnlyDatabase),
    Store(#[allow(dead_code, reason = "held")] Box<Store>),
}

/// What came of opening a file that another process may be writing to.
pub enum Opening {
    /// This is in it.
    Snapshot(Box<Snapshot>),
    /// There is no file.
    Absent,
    /// Whoever wrote it was killed: somebody must open it for writing first.
    NotClosed,
}

impl Snapshot {
    /// The newest commit of the shared store at `path`, whose writer may run or not. Nothing is written.
    ///
    /// # Errors
    /// The file is held by a writer that shares it with nobody, was written by a newer program, or cannot be
    /// read.
    pub fn open(path: &Path, cache_bytes: usize) -> Result<Opening, StoreError> {
        if !path.exists() {
            return Ok(Opening::Absent);
        }
        let opened = guard(path, Doing::Opening, || {
            let mut builder = builder(cache_bytes, ConcurrencyMode::SingleWriter);
            builder.set_check_integrity_on_open(false);
            let db = match builder.open_read_only(path) {
                Err(DatabaseError::RepairAborted) => return Ok(None),
                other => other?,
            };
            Ok(Some((schema::read(&db)?, db.begin_read()?, db)))
        })?;
        let Some((format, tx, db)) = opened else {
            return Ok(Opening::NotClosed);
        };
        if let Some(found) = format.filter(|format| *format > schema::FORMAT) {
            return Err(StoreError::Newer {
                path: path.to_owned(),
                found,
                known: schema::FORMAT,
            });
        }
        Ok(Opening::Snapshot(Box::new(Self {
            path: path.to_owned(),
            tx,
            _open: Held::Reader(db),
        })))
    }

    /// The newest commit of a store that nobody else needs.
    pub fn of(store: Store) -> Result<Self, StoreError> {
        let snapshot = store.snapshot()?;
        Ok(Self {
            _open: Held::Store(Box::new(store)),
            ..snapshot
        })
    }

    /// Reads tables of a product.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, TxError>,
    ) -> Result<T, StoreError> {
        guard(&self.path, Doing::Work, || read(&self.tx))
    }
}

impl Store {
    /// The newest commit, to be read while this store is open.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.reopen_unless(Option::is_some)?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = state.as_ref() else {
            return Err(self.closed());
        };
        let tx = guard(&self.path, Doing::Work, || Ok(handle.db.begin_read()?))?;
        Ok(Snapshot {
            path: self.path.clone(),
            tx,
            _open: Held::BySomebodyElse,
        })
    }

    /// An empty store that is never written to a file.
    pub fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from("(memory)");
        let db = guard(&path, Doing::Opening, super::access::in_memory)?;
        Ok(Self {
            path,
            options: StoreOptions::new(0),
            backend: None,
            state: RwLock::new(Some(Handle { db, failed: false })),
        })
    }
}

fn guard<T>(
    path: &Path,
    doing: Doing,
    work: impl FnOnce() -> Result<T, TxError>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| explain(path, error, doing)),
        Err(_) => Err(corrupt(path, "redb gave up on it")),
    }
}
