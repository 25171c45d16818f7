//! One consistent view of a database that others may be writing to, without stopping them.
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
//! disturb a reader that is ahead of it. A `-journal` counts only when its writer is gone.

use super::database::{self, Located, head, open_beside};
use super::error::ScanError;
use super::file::{OpenFile, Stamp, Stamps};
use super::lock::{self, LOCK_FILE, Lock, SqliteWriter};
use super::{OnLock, ScanRequest};
use crate::clock;
use crate::root;
use crate::rpmdb::sqlite::Beside;
use crate::rpmdb::{self, Backend};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// First pause between two attempts; doubled up to [`LONGEST_PAUSE`].
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How a consistent view was come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Attempts, the good one included.
    pub(super) attempts: u32,
    /// State of rpm's lock during the good one.
    pub(super) lock: Lock,
}

/// What came of one attempt.
pub(super) enum Attempt<T> {
    /// Nothing was written meanwhile.
    Done(T),
    /// An rpm transaction runs.
    Locked(Option<i32>),
    /// Something was written meanwhile.
    Changed,
}

/// Runs `read` over the package database until nothing was written meanwhile.
///
/// # Errors
/// What is wrong with a database that was quiet; or it never was, for as long as `request` allows.
pub(super) fn take<T>(
    request: &ScanRequest<'_>,
    locate: impl Fn() -> Result<Located, ScanError>,
    mut read: impl FnMut(&Located, &Stamps, &mut rpmdb::Database<OpenFile>) -> Result<T, rpmdb::Error>,
) -> Result<(T, Located, Taken), ScanError> {
    let begun = clock::now();
    let mut pause = SHORTEST_PAUSE;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let located = match locate() {
            Err(ScanError::NoDatabase { .. })
                if clock::now().duration_since(begun) < request.retry_for
                    && database::moved_away(request.root, request.dbpath) =>
            {
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            // A rebuild may have put the new one in its place between the two looks.
            Err(ScanError::NoDatabase { .. }) => locate()?,
            located => located?,
        };
        let attempt = attempt(request, &located, &mut read)?;
        let waited = clock::now().duration_since(begun);
        let late = waited >= request.retry_for;
        match attempt {
            Attempt::Done((value, lock)) => {
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

/// The shortest pause between two attempts.
pub(super) fn pause() {
    thread::sleep(SHORTEST_PAUSE);
}

fn attempt<T>(
    request: &ScanRequest<'_>,
    located: &Located,
    read: &mut impl FnMut(&Located, &Stamps, &mut rpmdb::Database<OpenFile>) -> Result<T, rpmdb::Error>,
) -> Result<Attempt<(T, Lock)>, ScanError> {
    let mut seen = Lock::Free;
    // Asked twice: a transaction that began before the log was read may have left half of its
    // commits in there.
    let mut may_go_on = || -> Result<Option<Attempt<(T, Lock)>>, ScanError> {
        let lock = lock::probe(request.root, &located.directory)
            .map_err(|error| ScanError::unreadable(&located.directory.join(LOCK_FILE), error))?;
        if let (Lock::Held { pid }, OnLock::Wait) = (lock, request.on_lock) {
            return Ok(Some(Attempt::Locked(pid)));
        }
        if !matches!(seen, Lock::Held { .. }) {
            seen = lock;
        }
        Ok(None)
    };
    let opened = view(
        request.root,
        &located.main_file,
        located.backend,
        &mut may_go_on,
        &mut |stamps, db| read(located, stamps, db),
    )?;
    Ok(match opened {
        Attempt::Done(value) => Attempt::Done((value, seen)),
        Attempt::Locked(pid) => Attempt::Locked(pid),
        Attempt::Changed => Attempt::Changed,
    })
}

/// One attempt at a consistent view of a database file, a real path below `root`. `may_go_on` is asked before and after the
/// log is read, and may end the attempt.
pub(super) fn view<T, U>(
    root: &Path,
    path: &Path,
    backend: Backend,
    may_go_on: &mut impl FnMut() -> Result<Option<Attempt<U>>, ScanError>,
    read: &mut impl FnMut(&Stamps, &mut rpmdb::Database<OpenFile>) -> Result<T, rpmdb::Error>,
) -> Result<Attempt<T>, ScanError> {
    let unreadable = |error| ScanError::unreadable(path, error);
    let main = match OpenFile::open(path) {
        // It was there a moment ago: being replaced.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Changed),
        other => other.map_err(unreadable)?,
    };
    let Some(beside) = beside(root, &main, path, backend)? else {
        return Ok(Attempt::Changed);
    };
    let watch = Watch::begin(path, &main, &beside).map_err(unreadable)?;
    match may_go_on()? {
        Some(Attempt::Locked(pid)) => return Ok(Attempt::Locked(pid)),
        Some(_) => return Ok(Attempt::Changed),
        None => {}
    }
    if !watch.settled() {
        return Ok(Attempt::Changed);
    }
    let opened = rpmdb::Database::open(backend, main, beside);
    if !watch.side_unwritten().map_err(unreadable)? {
        return Ok(Attempt::Changed);
    }
    match may_go_on()? {
        Some(Attempt::Locked(pid)) => return Ok(Attempt::Locked(pid)),
        Some(_) => return Ok(Attempt::Changed),
        None => {}
    }
    let result = opened.and_then(|mut database| read(&watch.stamps(), &mut database));
    if !watch.unchanged().map_err(unreadable)? {
        return Ok(Attempt::Changed);
    }
    match result {
        Ok(value) => Ok(Attempt::Done(value)),
        Err(rpmdb::Error::Io(error)) => Err(unreadable(error)),
        Err(source) => Err(ScanError::Damaged {
            path: path.to_owned(),
            source,
        }),
    }
}

/// What counts beside the main file; `None` while somebody writes to that.
fn beside(
    root: &Path,
    main: &OpenFile,
    path: &Path,
    backend: Backend,
) -> Result<Option<Beside<OpenFile>>, ScanError> {
    if backend != Backend::Sqlite {
        return Ok(Some(Beside::Nothing));
    }
    if let Some(log) = open_beside(root, path, "-wal")? {
        return Ok(Some(Beside::Log(log)));
    }
    let Some(journal) = open_beside(root, path, "-journal")? else {
        return Ok(Some(Beside::Nothing));
    };
    if superseded(root, &journal, path).map_err(|e| ScanError::unreadable(path, e))? {
        return Ok(Some(Beside::Nothing));
    }
    let writer = lock::sqlite_writer(main).map_err(|e| ScanError::unreadable(path, e))?;
    Ok(match writer {
        SqliteWriter::Gone => Some(Beside::HotJournal(journal)),
        SqliteWriter::Preparing => Some(Beside::Nothing),
        SqliteWriter::Writing => None,
    })
}

/// Whether the journal is one of several whose common transaction was committed: the journal that
/// names them all is gone then.
fn superseded(root: &Path, journal: &OpenFile, path: &Path) -> io::Result<bool> {
    let Some(name) = rpmdb::sqlite::super_journal(journal)? else {
        return Ok(false);
    };
    let name = Path::new(OsStr::from_bytes(&name));
    // The name is that of the system the database belongs to, or of one in which the root is mounted.
    let beside = name.file_name().map(|name| path.with_file_name(name));
    let beside = beside.and_then(|beside| root::resolve_real(root, &beside).ok());
    // An empty file is none, to SQLite as well.
    let there = |path: &Path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    let named = root::resolve(root, name).ok();
    Ok(!named.is_some_and(|path| there(&path)) && !beside.is_some_and(|path| there(&path)))
}

/// Second descriptors of the files that are read, to look at them once more afterwards.
struct Watch<'a> {
    path: &'a Path,
    main: OpenFile,
    stamp: Stamp,
    side: Option<Side>,
}

struct Side {
    file: OpenFile,
    stamp: Stamp,
    head: Vec<u8>,
}

impl<'a> Watch<'a> {
    fn begin(path: &'a Path, main: &OpenFile, beside: &Beside<OpenFile>) -> io::Result<Self> {
        let side = match beside {
            Beside::Nothing => None,
            Beside::Log(file) | Beside::HotJournal(file) => Some(Side {
                file: file.again()?,
                stamp: file.stamp()?,
                head: head(file, 32)?,
            }),
        };
        Ok(Self {
            path,
            main: main.again()?,
            stamp: main.stamp()?,
            side,
        })
    }

    fn stamps(&self) -> Stamps {
        Stamps {
            main: self.stamp,
            side: self.side.as_ref().map(|side| side.stamp),
        }
    }

    fn settled(&self) -> bool {
        self.stamp.settled() && self.side.as_ref().is_none_or(|side| side.stamp.settled())
    }

    /// The log is as it was: no frame came while it was read.
    fn side_unwritten(&self) -> io::Result<bool> {
        match &self.side {
            Some(side) => Ok(side.file.stamp()? == side.stamp),
            None => Ok(true),
        }
    }

    /// The main file was not written to and still has its name, and no frame of the log was
    /// overwritten: a restarted log begins with a new header.
    fn unchanged(&self) -> io::Result<bool> {
        if self.main.stamp()? != self.stamp {
            return Ok(false);
        }
        if let Some(side) = &self.side
            && head(&side.file, 32)? != side.head
        {
            return Ok(false);
        }
        match std::fs::metadata(self.path) {
            Ok(named) => Ok(Stamp::of(&named).same_file(&self.stamp)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
