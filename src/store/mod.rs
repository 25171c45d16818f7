//! The databases of the three services: one redb file each, and what may be relied on.
//!
//! ```text
//! serve.redb    report_table      the guest's own report: what `serve` answers from
//! sense.redb    pending_table     newest undelivered envelope of each guest
//! mirror.redb   inventory_table   mirrored records and their indexes
//!               audit_table       what the mirror did and why
//! ```
//!
//! - A write that returned is on disk: every commit is `Durability::Immediate`.
//! - redb does not verify its checksums on ordinary reads, so opening checks the whole file and
//!   long values carry a hash of their own, checked whenever they are read ([`blob`]).
//! - A file that fails is moved aside as `NAME.corrupt-<time>` and a new one begun; never a crash
//!   loop, never a silent loss.
//! - After a failed write (a full disk) redb refuses further ones until the file is opened again:
//!   [`Store::write`] does that by itself, so that a store recovers without a restart.
//! - A file shrinks when it is opened and most of it is air ([`compact`]): never while in use.
//! - No write transaction outlives the closure it is given to, so none is held across a socket.
//! - `mirror.redb` is shared: while the service writes, other processes read snapshots of it
//!   ([`Snapshot`]). The other two belong to one process.

mod access;
pub mod audit_table;
mod blob;
mod codec;
mod compact;
mod inventory_index;
pub mod inventory_table;
pub mod pending_table;
pub mod report_table;
mod row;
pub mod schema;
mod snapshot;
#[cfg(test)]
mod torn_disk;

pub use codec::CodecError;
pub use snapshot::{Opening, Snapshot};

use crate::clock::{self, WallTime};
use redb::{ConcurrencyMode, ReadableDatabase, StorageError};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// Why a store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error("{}: another afferent is using this file; stop it, or choose another --state-dir", path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The file was written by a newer afferent.
    #[error("{}: written by a newer afferent (format {found}, this one knows {known}); upgrade, or move the file away", path.display())]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Format of the file.
        found: u64,
        /// Newest format this program knows.
        known: u64,
    },
    /// The disk is full: nothing was written, what was there stays readable.
    #[error("{}: no space left; nothing was lost, free some and it goes on by itself", path.display())]
    Full {
        /// The database file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// One row cannot be read; the rest of the file can.
    #[error("{}: a row cannot be read: {what}", path.display())]
    Row {
        /// The database file.
        path: PathBuf,
        /// Which, and why.
        what: String,
    },
    /// The content is not what was written.
    #[error("{}: damaged: {what}", path.display())]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

impl StoreError {
    /// Whether the content is at fault, so that a new file must be begun.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether a single row is at fault: the file stays, and whoever needs the row does without it.
    pub fn is_row(&self) -> bool {
        matches!(self, Self::Row { .. })
    }
}

/// What goes wrong inside a transaction, before the path is known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TxError {
    #[error(transparent)]
    Redb(#[from] redb::Error),
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A row that cannot be read, by its name.
    #[error("{0}")]
    Row(String),
    #[error("{0}")]
    Corrupt(String),
}

/// One `From` per error type of redb, each of which redb itself converts to its general one.
macro_rules! from_redb {
    ($($error:ident),*) => { $(
        impl From<redb::$error> for TxError {
            fn from(error: redb::$error) -> Self {
                Self::Redb(error.into())
            }
        }
    )* };
}
from_redb!(
    StorageError,
    TableError,
    TransactionError,
    CommitError,
    DatabaseError
);

/// A redb database that reopens itself after a failed write.
pub struct Store {
    path: PathBuf,
    cache_bytes: usize,
    mode: ConcurrencyMode,
    /// `None` while it could not be reopened.
    state: RwLock<Option<Handle>>,
}

struct Handle {
    db: redb::Database,
    /// A write failed: redb will refuse all others.
    failed: bool,
}

/// An open store, and the file that had to be moved aside for it.
pub struct Opened {
    /// Ready for use.
    pub store: Store,
    /// Where the damaged file is now, if there was one.
    pub moved_aside: Option<PathBuf>,
}

impl Store {
    /// Opens or begins `directory/name`, readable by its owner only; the directory is made if it
    /// is not there. The whole file is checked; one that fails is moved aside.
    ///
    /// `cache_bytes` bounds redb's page cache.
    pub fn open(directory: &Path, name: &str, cache_bytes: usize) -> Result<Opened, StoreError> {
        Self::open_as(
            directory,
            name,
            cache_bytes,
            ConcurrencyMode::ExclusiveWriter,
        )
    }

    /// The same; other processes may read the file meanwhile.
    pub fn open_shared(
        directory: &Path,
        name: &str,
        cache_bytes: usize,
    ) -> Result<Opened, StoreError> {
        Self::open_as(directory, name, cache_bytes, ConcurrencyMode::SingleWriter)
    }

    fn open_as(
        directory: &Path,
        name: &str,
        cache_bytes: usize,
        mode: ConcurrencyMode,
    ) -> Result<Opened, StoreError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| StoreError::Io {
                path: directory.to_owned(),
                source,
            })?;
        let path = directory.join(name);
        let (db, moved_aside) = match open_file(&path, cache_bytes, mode) {
            Ok(db) => (db, None),
            Err(error) if error.is_corrupt() => {
                let aside = move_aside(&path, clock::wall_now())?;
                tracing::error!(%error, moved_to = %aside.display(), "store moved aside, a new one begun");
                (open_file(&path, cache_bytes, mode)?, Some(aside))
            }
            Err(error) => return Err(error),
        };
        let store = Self {
            path,
            cache_bytes,
            mode,
            state: RwLock::new(Some(Handle { db, failed: false })),
        };
        Ok(Opened { store, moved_aside })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file aside and begins a new one: for content found damaged while it was read.
    /// Gives the place of the damaged file.
    pub fn begin_anew(&self) -> Result<PathBuf, StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = None;
        let aside = move_aside(&self.path, clock::wall_now())?;
        *state = Some(Handle {
            db: open_file(&self.path, self.cache_bytes, self.mode)?,
            failed: false,
        });
        Ok(aside)
    }

    /// Runs `read` on one snapshot.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, TxError>,
    ) -> Result<T, StoreError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = state.as_ref() else {
            return Err(self.closed());
        };
        self.guard(|| read(&handle.db.begin_read()?))
    }

    /// Runs `write` and commits: when this returns without an error, the change is on disk; when
    /// it returns one, nothing of it is.
    pub(crate) fn write<T>(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<T, TxError>,
    ) -> Result<T, StoreError> {
        self.reopen_if_failed()?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = state.as_ref() else {
            return Err(self.closed());
        };
        let result = self.guard(|| {
            let transaction = handle.db.begin_write()?;
            let value = write(&transaction)?;
            transaction.commit()?;
            Ok(value)
        });
        drop(state);
        if matches!(result, Err(StoreError::Full { .. } | StoreError::Io { .. }))
            && let Some(handle) = self
                .state
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
        {
            handle.failed = true;
        }
        result
    }

    fn reopen_if_failed(&self) -> Result<(), StoreError> {
        let healthy = |state: &Option<Handle>| state.as_ref().is_some_and(|h| !h.failed);
        if healthy(&self.state.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !healthy(&state) {
            // The old handle must be gone first: it holds the file's lock.
            *state = None;
            *state = Some(Handle {
                db: open_file(&self.path, self.cache_bytes, self.mode)?,
                failed: false,
            });
            tracing::info!(path = %self.path.display(), "store opened again after a failed write");
        }
        Ok(())
    }

    /// redb trusts its file and may panic on a damaged one: here that is an error like any other.
    fn guard<T>(&self, work: impl FnOnce() -> Result<T, TxError>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(|error| explain(&self.path, error)),
            Err(_) => Err(corrupt(&self.path, "redb gave up on it")),
        }
    }

    fn closed(&self) -> StoreError {
        StoreError::Io {
            path: self.path.clone(),
            source: io::Error::other("could not be opened again after a failed write"),
        }
    }
}

fn open_file(
    path: &Path,
    cache_bytes: usize,
    mode: ConcurrencyMode,
) -> Result<redb::Database, StoreError> {
    if !path.exists() {
        begin_file(path, cache_bytes)?;
    }
    open_or_create(path, cache_bytes, mode)
}

/// Begins a file under another name, and gives it its own when it is whole: what a crash leaves of
/// one that was being begun is then never taken for a damaged store.
fn begin_file(path: &Path, cache_bytes: usize) -> Result<(), StoreError> {
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(".new");
    let unborn = PathBuf::from(unborn);
    match open_or_create(&unborn, cache_bytes, ConcurrencyMode::ExclusiveWriter) {
        Err(error) if error.is_corrupt() => {
            fs::remove_file(&unborn).map_err(|source| StoreError::Io {
                path: unborn.clone(),
                source,
            })?;
            drop(open_or_create(
                &unborn,
                cache_bytes,
                ConcurrencyMode::ExclusiveWriter,
            )?);
        }
        other => drop(other?),
    }
    let directory = path.parent().unwrap_or(path);
    fs::rename(&unborn, path)
        .and_then(|()| fs::File::open(directory)?.sync_all())
        .map_err(|source| StoreError::Io {
            path: path.to_owned(),
            source,
        })
}

fn open_or_create(
    path: &Path,
    cache_bytes: usize,
    mode: ConcurrencyMode,
) -> Result<redb::Database, StoreError> {
    let open = || -> Result<redb::Database, TxError> {
        fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o600)))
            .map_err(StorageError::from)?;
        Ok(builder(cache_bytes, mode).create(path)?)
    };
    // The format first: a newer file is left alone.
    let opened = catch_unwind(|| {
        if let Some(found) = schema::newer(path) {
            return Ok(Err(found));
        }
        let db = open()?;
        match schema::check(&db)? {
            Some(found) => Ok(Err(found)),
            None => compact::if_sparse(path, db, open).map(Ok),
        }
    });
    match opened {
        Ok(Ok(Ok(db))) => Ok(db),
        Ok(Ok(Err(found))) => Err(StoreError::Newer {
            path: path.to_owned(),
            found,
            known: schema::FORMAT,
        }),
        Ok(Err(error)) => Err(explain(path, error)),
        Err(_) => Err(corrupt(path, "redb gave up on opening it")),
    }
}

fn builder(cache_bytes: usize, mode: ConcurrencyMode) -> redb::Builder {
    let mut builder = redb::Builder::new();
    builder
        .set_cache_size(cache_bytes)
        .set_concurrency_mode(mode)
        .set_check_integrity_on_open(true);
    builder
}

fn move_aside(path: &Path, now: WallTime) -> Result<PathBuf, StoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut aside = path.with_file_name(format!("{name}.corrupt-{now}"));
    for n in 1.. {
        if !aside.exists() {
            break;
        }
        aside = path.with_file_name(format!("{name}.corrupt-{now}-{n}"));
    }
    fs::rename(path, &aside).map_err(|source| StoreError::Io {
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

fn unreadable(path: &Path, what: String) -> StoreError {
    StoreError::Row {
        path: path.to_owned(),
        what,
    }
}

fn corrupt(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

fn explain(path: &Path, error: TxError) -> StoreError {
    let error = match error {
        TxError::Redb(error) => error,
        TxError::Codec(error) => return unreadable(path, error.to_string()),
        TxError::Row(what) => return unreadable(path, what),
        TxError::Corrupt(what) => return corrupt(path, &what),
    };
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
            StoreError::Full { path }
        }
        // What redb says of a file that is no database at all, or ends too early.
        redb::Error::Io(source)
            if matches!(
                source.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            corrupt(&path, &source.to_string())
        }
        redb::Error::Io(source) => StoreError::Io { path, source },
        redb::Error::PreviousIo => StoreError::Io {
            path,
            source: io::Error::other("an earlier write failed"),
        },
        other => corrupt(&path, &other.to_string()),
    }
}

#[cfg(test)]
impl Store {
    /// A store on a disk that a test can fail, opened as a file is.
    fn on(disk: &torn_disk::TornDisk) -> Result<Self, TxError> {
        let mode = ConcurrencyMode::ExclusiveWriter;
        let db = builder(1 << 20, mode).create_with_backend(disk.clone())?;
        schema::check(&db)?;
        Ok(Self {
            path: PathBuf::from("torn disk"),
            cache_bytes: 1 << 20,
            mode,
            state: RwLock::new(Some(Handle { db, failed: false })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::TableDefinition;

    const TABLE: TableDefinition<&str, u64> = TableDefinition::new("test");

    #[test]
    fn what_was_written_is_there_after_reopening_and_only_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        put(&open(dir.path()).store, 7).unwrap();
        let opened = open(dir.path());
        assert_eq!(get(&opened.store), Some(7));
        assert!(opened.moved_aside.is_none());
        let mode = fs::metadata(opened.store.path())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_in_use_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path());
        let second = Store::open(dir.path(), "test.redb", 1 << 20);
        assert!(matches!(second, Err(StoreError::InUse { .. })));
    }

    #[test]
    fn any_damaged_file_is_moved_aside_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        put(&open(dir.path()).store, 7).unwrap();
        let path = dir.path().join("test.redb");
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        // A committed page other than the header's: its checksum no longer holds.
        flipped
            .chunks_exact_mut(4096)
            .skip(1)
            .for_each(|page| page[40] ^= 0x10);
        for damaged in [
            b"not a database".to_vec(),
            whole[..whole.len() / 2].to_vec(),
            flipped,
        ] {
            fs::write(&path, &damaged).unwrap();
            let opened = open(dir.path());
            let aside = opened.moved_aside.expect("damage is noticed");
            assert_eq!(fs::read(&aside).unwrap().len(), damaged.len());
            put(&opened.store, 8).unwrap();
            assert_eq!(get(&opened.store), Some(8));
            drop(opened.store);
            fs::remove_file(aside).unwrap();
        }
    }

    /// What a crash leaves of a file that was being begun: redb writes its magic number last.
    #[test]
    fn a_file_that_was_never_whole_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let unborn = dir.path().join("test.redb.new");
        fs::write(&unborn, [0; 8192]).unwrap();
        let opened = open(dir.path());
        put(&opened.store, 7).unwrap();
        assert_eq!(opened.moved_aside, None);
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn a_file_of_a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).store;
        store
            .write(|tx| schema::set(tx, schema::FORMAT + 1))
            .unwrap();
        drop(store);
        let bytes = || fs::read(dir.path().join("test.redb")).unwrap();
        let before = bytes();
        let again = Store::open(dir.path(), "test.redb", 1 << 20);
        assert!(matches!(again, Err(StoreError::Newer { .. })));
        assert!(bytes() == before, "not a byte of it changes");
    }

    fn open(dir: &Path) -> Opened {
        Store::open(dir, "test.redb", 1 << 20).unwrap()
    }

    fn put(store: &Store, value: u64) -> Result<(), StoreError> {
        store.write(|tx| Ok(tx.open_table(TABLE)?.insert("key", value).map(drop)?))
    }

    fn get(store: &Store) -> Option<u64> {
        store
            .read(|tx| Ok(tx.open_table(TABLE)?.get("key")?.map(|v| v.value())))
            .unwrap()
    }
}
