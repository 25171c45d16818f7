//! Why a scan gave no report.

use crate::rpmdb;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a scan gave no report; each names the path and what to do where there is something to do.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// There is no database in any place where rpm keeps one.
    #[error("no rpm database found; looked for {}; is this the root of a system with rpm?", list(.looked))]
    NoDatabase {
        /// Files and directories that do not exist.
        looked: Vec<PathBuf>,
    },
    /// `--dbpath` names a file.
    #[error("{}: is a file; --dbpath takes the directory of the database, here {}", .path.display(), .directory.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// Where it is.
        directory: PathBuf,
    },
    /// The system refused.
    #[error("{}: cannot be read: {source}{}", .path.display(), remedy(.source))]
    Unreadable {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database was quiet while it was read, and is damaged.
    #[error("{}: {source}; if `rpm -qa` fails as well, `rpmdb --rebuilddb` may repair it", .path.display())]
    Damaged {
        /// The main file of the database.
        path: PathBuf,
        /// What is wrong with it, and where.
        source: rpmdb::Error,
    },
    /// The database is sound and lists no package although it is not new.
    #[error("{}: {why}", .path.display())]
    Empty {
        /// The main file of the database.
        path: PathBuf,
        /// Why that cannot be the truth.
        why: String,
    },
    /// Not one header could be read.
    #[error("{}: all {count} package headers are damaged, the first: {first}", .path.display())]
    AllDamaged {
        /// The main file of the database.
        path: PathBuf,
        /// Headers in it.
        count: usize,
        /// What is wrong with the first.
        first: String,
    },
    /// An rpm transaction held its lock for the whole time that a scan may wait.
    #[error("{}: an rpm transaction{} has been running for the {} s that a scan waits; scan again after it", .path.display(), of_process(.pid), .waited.as_secs())]
    TransactionRunning {
        /// The lock file.
        path: PathBuf,
        /// Process that holds the lock, where visible.
        pid: Option<i32>,
        /// How long this scan waited.
        waited: Duration,
    },
    /// The database was written to during every attempt.
    #[error("{}: was written to during each of {attempts} attempts to read it within {} s; scan again when rpm is done", .path.display(), .waited.as_secs())]
    KeepsChanging {
        /// The main file of the database.
        path: PathBuf,
        /// Attempts made.
        attempts: u32,
        /// How long this scan tried.
        waited: Duration,
    },
}

impl ScanError {
    pub(super) fn unreadable(path: &Path, source: io::Error) -> Self {
        Self::Unreadable {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn no_directory(root: &Path, path: &Path) -> Self {
        let below = path.strip_prefix(root).unwrap_or(path);
        Self::NoDirectory {
            path: path.to_owned(),
            directory: below.parent().unwrap_or(below).to_owned(),
        }
    }
}

/// What to do about it, where something can be done.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; run as root, or let this user read the database and enter its directory"
        }
        _ => "",
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    shown.join(", ")
}

fn of_process(pid: &Option<i32>) -> String {
    pid.map_or(String::new(), |pid| format!(" (process {pid})"))
}
