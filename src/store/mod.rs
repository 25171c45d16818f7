//! The databases of the three services: one redb file each, and what may be relied on.
//!
//! ```text
//! serve.redb    serve/report_table   the guest's own report: what `serve` answers from
//!               serve/mapping_table  the mapping that a sensor pushed
//! sense.redb    sense/queue/table    newest undelivered envelope of each guest
//! mirror.redb   mirror/table         mirrored records, their indexes, what the mirror did and why
//! ```
//!
//! - A write that returned is on disk: every commit is `Durability::Immediate`.
//! - redb does not verify its checksums on ordinary reads, so opening checks the whole file and
//!   long values carry a hash of their own, checked whenever they are read ([`blob`]).
//! - What is damage is decided in one place ([`error`]), and so is what follows ([`OnDamage`]): the
//!   file is moved aside as `NAME.corrupt-<time>` and a new one begun, or it stays until an operator
//!   acts. Never a crash loop, never a silent loss.
//! - After a failed write (a full disk) redb refuses further ones until the file is opened again:
//!   [`Store::write`] does that by itself, so that a store recovers without a restart.
//! - A file grows only by room that the disk gives at once ([`mod@file`]), so that a full disk refuses what is
//!   new and never what makes room.
//! - A file shrinks when it is opened and most of it is air ([`compact`]): never while in use.
//! - No write transaction outlives the closure it is given to, so none is held across a socket.
//! - `mirror.redb` is shared: while the service writes, other processes read snapshots of it
//!   ([`Snapshot`]). The other two belong to one process.

pub(crate) mod access;
mod aside;
mod blob;
pub(crate) mod codec;
mod compact;
mod error;
mod file;
mod marker;
pub(crate) mod row;
pub mod schema;
#[cfg(test)]
pub(crate) mod small_disk;
mod snapshot;
pub(crate) mod sorted;
#[cfg(test)]
#[path = "../../tests/sim/torn_disk.rs"]
#[allow(dead_code, reason = "shared with the simulation")]
pub(crate) mod torn_disk;

pub use aside::Limits;
pub(crate) use blob::{Blobs, OpenBlobs, Sealed, pack, unpack};
pub use codec::CodecError;
pub use error::StoreError;
pub(crate) use error::TxError;
pub use marker::check as check_kept;
pub use snapshot::{Opening, Snapshot};

use crate::clock;
use error::{Doing, corrupt, explain};
use file::AllocatedFile;
use redb::{ConcurrencyMode, ReadableDatabase, StorageError};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// What happens to a file that is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It is moved aside and a new one begun: its content can be had again.
    BeginAnew,
    /// It stays where it is, and opening it is an error: its content cannot be had again. A file that
    /// is gone or empty counts as damaged in a directory that held one.
    Keep,
}

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// Bound of redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// Whether other processes may read the file meanwhile.
    pub is_shared: bool,
    /// What happens to a damaged file.
    pub on_damage: OnDamage,
    /// How many damaged files are kept, and for how long.
    pub aside: Limits,
}

impl StoreOptions {
    /// With a cache of this size; a damaged file is moved aside.
    pub fn new(cache_bytes: usize) -> Self {
        Self {
            cache_bytes,
            is_shared: false,
            on_damage: OnDamage::BeginAnew,
            aside: Limits::default(),
        }
    }

    fn mode(self) -> ConcurrencyMode {
        match self.is_shared {
            true => ConcurrencyMode::SingleWriter,
            false => ConcurrencyMode::ExclusiveWriter,
        }
    }
}

/// Whether a transaction is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is on disk when the call returns.
    Commit,
    /// Nothing was written.
    Discard,
}

/// A redb database that reopens itself after a failed write.
pub struct Store {
    path: PathBuf,
    options: StoreOptions,
    /// `None` while it could not be reopened.
    state: RwLock<Option<Handle>>,
    /// How it is opened again where it is no file.
    backend: Option<OpenBackend>,
}

/// Opens a database on storage that is no file.
type OpenBackend = Box<dyn Fn() -> Result<redb::Database, TxError> + Send + Sync>;

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
    /// Opens or begins `directory/name` with [`StoreOptions::new`].
    ///
    /// # Errors
    /// See [`Store::open_with`].
    pub fn open(directory: &Path, name: &str, cache_bytes: usize) -> Result<Opened, StoreError> {
        Self::open_with(directory, name, StoreOptions::new(cache_bytes))
    }

    /// Opens or begins `directory/name`, readable by its owner only; the directory is made if it
    /// is not there. The whole file is checked.
    ///
    /// # Errors
    /// The file is in use, of a newer format, or the system refused; it is damaged or lost and
    /// [`OnDamage::Keep`].
    pub fn open_with(
        directory: &Path,
        name: &str,
        options: StoreOptions,
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
        if options.on_damage == OnDamage::Keep {
            marker::check(&path)?;
        }
        let (db, moved_aside) = match open_file(&path, options) {
            Ok(db) => (db, None),
            Err(error) if error.is_corrupt() && options.on_damage == OnDamage::BeginAnew => {
                let aside = aside::move_aside(&path, clock::wall_now())?;
                tracing::error!(%error, moved_to = %aside.display(), "store moved aside, a new one begun");
                (open_file(&path, options)?, Some(aside))
            }
            Err(error) => return Err(error),
        };
        if options.on_damage == OnDamage::Keep {
            marker::set(&path)?;
        }
        aside::prune(&path, options.aside, clock::wall_now());
        let store = Self {
            path,
            options,
            state: RwLock::new(Some(Handle { db, failed: false })),
            backend: None,
        };
        Ok(Opened { store, moved_aside })
    }

    /// Moves `directory/name` aside, whatever it is, and begins a new one: the act of an operator.
    /// Gives the place of the old file, if there was one.
    ///
    /// # Errors
    /// The file is in use, or the system refused.
    pub fn replace(
        directory: &Path,
        name: &str,
        options: StoreOptions,
    ) -> Result<Opened, StoreError> {
        let path = directory.join(name);
        let there = fs::symlink_metadata(&path);
        let is_there = there.is_ok();
        // Opening an empty file would make it a store.
        if there.is_ok_and(|file| file.len() > 0)
            && let Err(error @ (StoreError::InUse { .. } | StoreError::Newer { .. })) =
                open_file(&path, options)
        {
            return Err(error);
        }
        let moved_aside = match is_there {
            true => Some(aside::move_aside(&path, clock::wall_now())?),
            false => None,
        };
        drop(open_file(&path, options)?);
        let opened = Self::open_with(directory, name, options)?;
        Ok(Opened {
            moved_aside,
            ..opened
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the file aside and begins a new one: for content found damaged while it was read.
    /// Gives the place of the damaged file.
    ///
    /// # Errors
    /// The system refused; what is needed is tried again with the next use of the store.
    pub fn begin_anew(&self) -> Result<PathBuf, StoreError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        *state = None;
        let aside = aside::move_aside(&self.path, clock::wall_now())?;
        aside::prune(&self.path, self.options.aside, clock::wall_now());
        *state = Some(self.handle()?);
        Ok(aside)
    }

    /// What to do after an error: where the content is damaged and can be had again, a new file is
    /// begun, and the place of the damaged one is given.
    ///
    /// # Errors
    /// The error itself where the file stays, or why no new one could be begun.
    pub fn recover(&self, error: StoreError) -> Result<PathBuf, StoreError> {
        if !error.is_corrupt() || self.options.on_damage == OnDamage::Keep {
            return Err(error);
        }
        let aside = self.begin_anew()?;
        tracing::error!(%error, moved_to = %aside.display(), "store moved aside, a new one begun");
        Ok(aside)
    }

    fn handle(&self) -> Result<Handle, StoreError> {
        if let Some(open) = &self.backend {
            let db = open().map_err(|error| explain(&self.path, error, Doing::Opening))?;
            return Ok(Handle { db, failed: false });
        }
        if self.options.on_damage == OnDamage::Keep {
            marker::check(&self.path)?;
        }
        Ok(Handle {
            db: open_file(&self.path, self.options)?,
            failed: false,
        })
    }

    /// Runs `read` on one snapshot.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadTransaction) -> Result<T, TxError>,
    ) -> Result<T, StoreError> {
        self.reopen_unless(Option::is_some)?;
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
        self.write_or_discard(|tx| Ok((write(tx)?, Ending::Commit)))
    }

    /// The same, and `write` says whether anything is kept: a transaction that is not costs no write at all.
    pub(crate) fn write_or_discard<T>(
        &self,
        write: impl FnOnce(&redb::WriteTransaction) -> Result<(T, Ending), TxError>,
    ) -> Result<T, StoreError> {
        self.reopen_if_failed()?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = state.as_ref() else {
            return Err(self.closed());
        };
        let result = self.guard(|| {
            let transaction = handle.db.begin_write()?;
            let (value, ending) = write(&transaction)?;
            match ending {
                Ending::Commit => transaction.commit()?,
                Ending::Discard => transaction.abort()?,
            }
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

    /// Gives room back that the file does not need. Snapshots must be gone.
    ///
    /// # Errors
    /// A snapshot is read, or the disk is full; the file is as good as before.
    pub fn compact(&self) -> Result<(), StoreError> {
        self.reopen_if_failed()?;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = state.as_mut() else {
            return Err(self.closed());
        };
        let db = &mut handle.db;
        let done = self.guard(|| match db.compact() {
            Ok(_) => Ok(()),
            Err(redb::CompactionError::Storage(error)) => Err(error.into()),
            Err(error) => Err(TxError::Failed(format!("cannot compact: {error}"))),
        });
        handle.failed = done.is_err();
        done
    }

    fn reopen_if_failed(&self) -> Result<(), StoreError> {
        self.reopen_unless(|state| state.as_ref().is_some_and(|handle| !handle.failed))
    }

    /// Opens the file again, however often that failed before.
    fn reopen_unless(&self, is_well: impl Fn(&Option<Handle>) -> bool) -> Result<(), StoreError> {
        if is_well(&self.state.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if !is_well(&state) {
            // The old handle must be gone first: it holds the file's lock.
            *state = None;
            *state = Some(self.handle()?);
            if self.backend.is_none() {
                tracing::info!(path = %self.path.display(), "store opened again after a failed write");
            }
        }
        Ok(())
    }

    /// redb trusts its file and may panic on a damaged one: here that is an error like any other.
    fn guard<T>(&self, work: impl FnOnce() -> Result<T, TxError>) -> Result<T, StoreError> {
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(result) => result.map_err(|error| explain(&self.path, error, Doing::Work)),
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

fn open_file(path: &Path, options: StoreOptions) -> Result<redb::Database, StoreError> {
    if !path.exists() {
        begin_file(path, options)?;
    }
    open_or_create(path, options)
}

/// Begins a file under another name, and gives it its own when it is whole: what a crash leaves of
/// one that was being begun is then never taken for a damaged store.
fn begin_file(path: &Path, options: StoreOptions) -> Result<(), StoreError> {
    let options = StoreOptions {
        is_shared: false,
        ..options
    };
    let mut unborn = path.as_os_str().to_owned();
    unborn.push(".new");
    let unborn = PathBuf::from(unborn);
    match open_or_create(&unborn, options) {
        Err(error) if error.is_corrupt() => {
            fs::remove_file(&unborn).map_err(|source| StoreError::Io {
                path: unborn.clone(),
                source,
            })?;
            drop(open_or_create(&unborn, options)?);
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

fn open_or_create(path: &Path, options: StoreOptions) -> Result<redb::Database, StoreError> {
    let open = || -> Result<redb::Database, TxError> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(StorageError::from)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))
            .map_err(StorageError::from)?;
        let builder = builder(options.cache_bytes, options.mode());
        Ok(builder.create_with_backend(AllocatedFile::new(file)?)?)
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
        Ok(Err(error)) => Err(explain(path, error, Doing::Opening)),
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

impl Store {
    /// A store on storage that is no file, opened, checked and opened again as a file is: for
    /// simulations. Nothing is moved aside.
    ///
    /// # Errors
    /// What is there is no store, or is damaged.
    pub fn on_backend<B>(backend: B) -> Result<Self, StoreError>
    where
        B: redb::StorageBackend + Clone,
    {
        // No directory of this name is there, so that nothing can be made in it.
        let path = PathBuf::from("/nonexistent/simulated.redb");
        let open: OpenBackend = Box::new(move || {
            let builder = builder(1 << 20, ConcurrencyMode::ExclusiveWriter);
            let db = builder.create_with_backend(backend.clone())?;
            schema::check(&db)?;
            Ok(db)
        });
        let store = Self {
            path,
            options: StoreOptions {
                on_damage: OnDamage::Keep,
                ..StoreOptions::new(1 << 20)
            },
            state: RwLock::new(None),
            backend: Some(open),
        };
        store.reopen_unless(Option::is_some)?;
        Ok(store)
    }
}

#[cfg(test)]
mod tests;
