//! One consistent view of a database that rpm may be writing to, without stopping rpm.
//!
//! ```text
//! stamp main and -wal, both older than the kernel's clock tick   a later write would show
//! .rpm.lock free      read the -wal       .rpm.lock still free, -wal unwritten
//!                                          -> its last commit is the end of a transaction
//! read the tables
//! main unwritten, still the file of that name, -wal header unchanged
//!                                          -> what was read is that state and no other
//! ```
//! Otherwise what was read is thrown away and read again. A transaction that begins meanwhile only
//! appends to the `-wal` until it is checkpointed, which shows in the main file, so it does not
//! disturb a reader that is ahead of it.

use super::database::{Located, head};
use super::error::ScanError;
use super::file::{OpenFile, Stamp};
use super::lock::{self, LOCK_FILE, Lock};
use super::{OnLock, Request};
use crate::clock;
use crate::rpmdb::{self, Backend};
use std::io;
use std::thread;
use std::time::Duration;

/// First pause between two attempts; doubled up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How a consistent view was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Attempts, the good one included.
    pub attempts: u32,
    /// State of rpm's lock at the beginning of the good one.
    pub lock: Lock,
}

/// Identity of the main file that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

enum Attempt<T> {
    Done(T, Lock),
    Locked(Option<i32>),
    Changed,
}

/// Runs `read` over the database until nothing was written meanwhile, and gives its result.
///
/// # Errors
/// What is wrong with a database that was quiet; or it never was, for as long as `request` allows.
pub(super) fn take<T>(
    request: &Request<'_>,
    locate: impl Fn() -> Result<Located, ScanError>,
    mut read: impl FnMut(&Located, FileId, &mut rpmdb::Database<OpenFile>) -> Result<T, rpmdb::Error>,
) -> Result<(T, Located, Taken), ScanError> {
    let begun = clock::now();
    let mut pause = SHORTEST_PAUSE;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let located = locate()?;
        let attempt = attempt(request.on_lock, &located, &mut read)?;
        let waited = clock::now().duration_since(begun);
        let late = waited >= request.patience;
        match attempt {
            Attempt::Done(value, lock) => {
                return Ok((value, located, Taken { attempts, lock }));
            }
            Attempt::Locked(pid) if late => {
                return Err(ScanError::TransactionRunning {
                    path: located.directory.join(LOCK_FILE),
                    pid,
                    waited,
                });
            }
            Attempt::Changed if late => {
                return Err(ScanError::KeepsChanging {
                    path: located.main_file,
                    attempts,
                    waited,
                });
            }
            Attempt::Locked(_) | Attempt::Changed => {}
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn attempt<T>(
    on_lock: OnLock,
    located: &Located,
    read: &mut impl FnMut(&Located, FileId, &mut rpmdb::Database<OpenFile>) -> Result<T, rpmdb::Error>,
) -> Result<Attempt<T>, ScanError> {
    let unreadable = |error| ScanError::unreadable(&located.main_file, error);
    let main = match OpenFile::open(&located.main_file) {
        // It was there a moment ago: being replaced.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Changed),
        other => other.map_err(unreadable)?,
    };
    let log = match located.backend {
        Backend::Sqlite => located.open_beside("-wal")?,
        Backend::Ndb | Backend::Bdb => None,
    };
    let before = Stamps::take(&main, log.as_ref()).map_err(unreadable)?;
    let lock = lock::probe(&located.directory).map_err(unreadable)?;
    if let (Lock::Held { pid }, OnLock::Wait) = (lock, on_lock) {
        return Ok(Attempt::Locked(pid));
    }
    if !before.settled() {
        return Ok(Attempt::Changed);
    }
    let watch = Watch::of(&main, log.as_ref(), located).map_err(unreadable)?;
    let opened = rpmdb::Database::open(located.backend, main, log);
    if !watch.log_unwritten(&before).map_err(unreadable)? {
        return Ok(Attempt::Changed);
    }
    let lock_after = lock::probe(&located.directory).map_err(unreadable)?;
    if let (Lock::Held { pid }, OnLock::Wait) = (lock_after, on_lock) {
        return Ok(Attempt::Locked(pid));
    }
    let id = FileId {
        device: before.main.device,
        inode: before.main.inode,
    };
    let result = opened.and_then(|mut database| read(located, id, &mut database));
    if !watch.unchanged(&before).map_err(unreadable)? {
        return Ok(Attempt::Changed);
    }
    match result {
        Ok(value) => {
            let mid = matches!(lock, Lock::Held { .. }) || matches!(lock_after, Lock::Held { .. });
            let seen = if mid && lock == Lock::Free {
                lock_after
            } else {
                lock
            };
            Ok(Attempt::Done(value, seen))
        }
        Err(rpmdb::Error::Io(error)) => Err(unreadable(error)),
        Err(source) => Err(ScanError::Damaged {
            path: located.main_file.clone(),
            source,
        }),
    }
}

struct Stamps {
    main: Stamp,
    log: Option<Stamp>,
}

impl Stamps {
    fn take(main: &OpenFile, log: Option<&OpenFile>) -> io::Result<Self> {
        Ok(Self {
            main: main.stamp()?,
            log: log.map(OpenFile::stamp).transpose()?,
        })
    }

    fn settled(&self) -> bool {
        self.main.settled() && self.log.is_none_or(|log| log.settled())
    }
}

/// Second descriptors of the files that are read, to look at them once more afterwards.
struct Watch<'a> {
    located: &'a Located,
    main: OpenFile,
    log: Option<(OpenFile, Vec<u8>)>,
}

impl<'a> Watch<'a> {
    fn of(main: &OpenFile, log: Option<&OpenFile>, located: &'a Located) -> io::Result<Self> {
        Ok(Self {
            located,
            main: main.again()?,
            log: match log {
                Some(log) => Some((log.again()?, head(log, 32)?)),
                None => None,
            },
        })
    }

    /// The log is as it was: no frame came while it was read.
    fn log_unwritten(&self, before: &Stamps) -> io::Result<bool> {
        Ok(match (&self.log, before.log) {
            (Some((log, _)), Some(stamp)) => log.stamp()? == stamp,
            _ => true,
        })
    }

    /// The main file was not written to and still has its name, and no frame of the log was
    /// overwritten: a restarted log begins with a new header.
    fn unchanged(&self, before: &Stamps) -> io::Result<bool> {
        if self.main.stamp()? != before.main {
            return Ok(false);
        }
        if let Some((log, header)) = &self.log
            && head(log, 32)? != *header
        {
            return Ok(false);
        }
        match std::fs::symlink_metadata(&self.located.main_file) {
            Ok(named) => Ok(Stamp::of(&named).same_file(&before.main)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
