//! Whether an rpm transaction runs, asked without taking a lock.
//!
//! rpm and dnf hold an fcntl write lock on `.rpm.lock` in the database's directory for the whole
//! transaction; queries never touch it. `F_GETLK` on a read-only descriptor tells of it and
//! changes nothing, so rpm never waits for us.

use super::file::OpenFile;
use crate::root;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::io;
use std::path::Path;

/// Name of the lock file in the database's directory.
pub const LOCK_FILE: &str = ".rpm.lock";

/// State of rpm's transaction lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// No transaction runs. Also when there is no lock file: nobody ever locked.
    Free,
    /// A transaction runs.
    Held {
        /// Process that holds it; `None` when it lives in another PID namespace.
        pid: Option<i32>,
    },
    /// The lock file may not be opened by us, so nobody knows.
    Unknown,
}

/// Asks for the state of the lock in the database directory, a real path below `root`.
///
/// # Errors
/// The lock file exists, may be opened, and still cannot be asked.
pub fn probe(root: &Path, directory: &Path) -> io::Result<Lock> {
    let path = root::resolve_real(root, &directory.join(LOCK_FILE));
    let file = match path.and_then(|path| OpenFile::open(&path)) {
        Ok(file) => file,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound => Ok(Lock::Free),
                io::ErrorKind::PermissionDenied => Ok(Lock::Unknown),
                _ => Err(error),
            };
        }
    };
    match writer(&file, 0, 0)? {
        None => Ok(Lock::Free),
        Some(pid) => Ok(Lock::Held {
            pid: (pid > 0).then_some(pid),
        }),
    }
}

/// Which sqlite writer holds a database in rollback mode, as far as a reader has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SqliteWriter {
    /// Nobody writes: a journal beside the file was left by one that died.
    Gone,
    /// One prepares a transaction; the file itself is as before.
    Preparing,
    /// One writes to the file.
    Writing,
}

/// Asks for sqlite's locks on a database file: PENDING, RESERVED and the 510 bytes of SHARED, from
/// 1 GiB on (<https://sqlite.org/src/file/src/os.h>).
pub(super) fn sqlite_writer(file: &OpenFile) -> io::Result<SqliteWriter> {
    const PENDING: i64 = 0x4000_0000;
    let held = |at, length| writer(file, at, length).map(|pid| pid.is_some());
    Ok(if held(PENDING, 1)? || held(PENDING + 2, 510)? {
        SqliteWriter::Writing
    } else if held(PENDING + 1, 1)? {
        SqliteWriter::Preparing
    } else {
        SqliteWriter::Gone
    })
}

/// Process that holds a write lock on these bytes; length 0 means to the end.
fn writer(file: &OpenFile, start: i64, length: i64) -> io::Result<Option<i32>> {
    // Asking for a read lock finds only writers: `rpmdb --verifydb` may go on beside us.
    let mut question = libc::flock {
        l_type: lock_type(libc::F_RDLCK),
        l_whence: lock_type(libc::SEEK_SET),
        l_start: start,
        l_len: length,
        l_pid: 0,
    };
    loop {
        match fcntl(file.file(), FcntlArg::F_GETLK(&mut question)) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok((question.l_type != lock_type(libc::F_UNLCK)).then_some(question.l_pid))
}

/// The constants are wider than the field, on some systems.
fn lock_type(constant: i32) -> i16 {
    i16::try_from(constant).unwrap_or(i16::MAX)
}
