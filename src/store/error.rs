//! What can go wrong with a store, and what of it is damage.
//!
//! Damage is an allow-list, because what follows it may give up a whole file: redb calls its content
//! corrupted, or panics on it; a checksum or hash of our own does not match; a file that is opened is no
//! database, or ends too early. Anything else is an error with words, and the file stays as it is.

use super::codec::CodecError;
use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};
use std::io;
use std::path::{Path, PathBuf};

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
    #[error("{}: {what}; nothing was lost, free some and it goes on by itself", path.display())]
    Full {
        /// The database file.
        path: PathBuf,
        /// That no space is left, and how much is asked for where that is known.
        what: String,
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
    /// The file is gone, or empty, where there was one whose content cannot be had again.
    #[error("{}: {what}, and this directory held one whose content cannot be had again", path.display())]
    Lost {
        /// The database file.
        path: PathBuf,
        /// What is there instead.
        what: &'static str,
    },
    /// redb, or this program, cannot do it with this file or this value; the file stays as it is.
    #[error("{}: {what}", path.display())]
    Failed {
        /// The database file.
        path: PathBuf,
        /// What cannot be done.
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

    /// Whether the store is damaged, gone or empty: where its content cannot be had again, only an operator
    /// can decide what follows.
    pub fn is_lost(&self) -> bool {
        self.is_corrupt() || matches!(self, Self::Lost { .. })
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
    /// Something that cannot be done, and says nothing of the file.
    #[error("{0}")]
    Failed(String),
    #[error("{0}")]
    Corrupt(String),
}

impl TxError {
    /// The error of an open file, with the decision whether the file is damaged.
    pub(crate) fn in_file(self, path: &Path) -> StoreError {
        explain(path, self, Doing::Work)
    }
}

/// One `From` per error type of redb, each of which redb itself converts to its general one.
macro_rules! from_redb {
    ($($error:ident),*) => { $(
        impl From<$error> for TxError {
            fn from(error: $error) -> Self {
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

/// What was being done when redb failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// A file was opened.
    Opening,
    /// An open file was read or written.
    Work,
}

pub(super) fn corrupt(path: &Path, what: &str) -> StoreError {
    StoreError::Corrupt {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

/// The one decision about what is damage.
pub(super) fn explain(path: &Path, error: TxError, doing: Doing) -> StoreError {
    let error = match error {
        TxError::Redb(error) => error,
        TxError::Codec(error @ (CodecError::Encode(_) | CodecError::TooLarge { .. })) => {
            return StoreError::Failed {
                path: path.to_owned(),
                what: error.to_string(),
            };
        }
        TxError::Codec(error) => {
            return StoreError::Row {
                path: path.to_owned(),
                what: error.to_string(),
            };
        }
        TxError::Row(what) => {
            return StoreError::Row {
                path: path.to_owned(),
                what,
            };
        }
        TxError::Failed(what) => {
            return StoreError::Failed {
                path: path.to_owned(),
                what,
            };
        }
        TxError::Corrupt(what) => return corrupt(path, &what),
    };
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => {
            StoreError::InUse { path }
        }
        redb::Error::Io(source) if source.kind() == io::ErrorKind::StorageFull => {
            let what = match source.get_ref() {
                Some(inner) => inner.to_string(),
                None => "no space left".to_owned(),
            };
            StoreError::Full { path, what }
        }
        // What redb says of a file that is no database at all, or ends too early.
        redb::Error::Io(source)
            if doing == Doing::Opening
                && matches!(
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
        // The handle is of no use any more; the file is opened again.
        redb::Error::DatabaseClosed
        | redb::Error::LockPoisoned(_)
        | redb::Error::TransactionPoisoned => StoreError::Io {
            path,
            source: io::Error::other(error.to_string()),
        },
        redb::Error::Corrupted(what) => corrupt(&path, &what),
        redb::Error::UpgradeRequired(version) => StoreError::Failed {
            path,
            what: format!(
                "is in format {version} of redb, which this program does not read; the file stays as it is"
            ),
        },
        other => StoreError::Failed {
            path,
            what: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The loss: a whole store that is given up because of one value, or a program that is too old.
    #[test]
    fn only_what_is_on_the_list_is_damage() {
        let is_damage = |error: redb::Error, doing| {
            explain(Path::new("x"), TxError::Redb(error), doing).is_corrupt()
        };
        let io = |kind| redb::Error::Io(kind);
        for (error, opening, work) in [
            (redb::Error::Corrupted("x".into()), true, true),
            (io(io::ErrorKind::InvalidData.into()), true, false),
            (io(io::ErrorKind::UnexpectedEof.into()), true, false),
            (io(io::ErrorKind::PermissionDenied.into()), false, false),
            (io(io::ErrorKind::StorageFull.into()), false, false),
            (io(io::Error::from_raw_os_error(5)), false, false),
            (redb::Error::UpgradeRequired(9), false, false),
            (redb::Error::ValueTooLarge(1 << 33), false, false),
            (redb::Error::TableIsMultimap("x".into()), false, false),
            (redb::Error::TableDoesNotExist("x".into()), false, false),
            (redb::Error::TransactionPoisoned, false, false),
            (redb::Error::DatabaseClosed, false, false),
            (redb::Error::DatabaseAlreadyOpen, false, false),
            (redb::Error::PreviousIo, false, false),
            (redb::Error::RepairAborted, false, false),
        ] {
            let what = error.to_string();
            // The error cannot be cloned.
            let again = match &error {
                redb::Error::Corrupted(text) => redb::Error::Corrupted(text.clone()),
                redb::Error::Io(source) => io(source.kind().into()),
                _ => redb::Error::RepairAborted,
            };
            assert_eq!(is_damage(error, Doing::Work), work, "{what}");
            assert_eq!(is_damage(again, Doing::Opening), opening, "{what}");
        }
        let encode = TxError::Codec(CodecError::TooLarge { bytes: 1 });
        assert!(!explain(Path::new("x"), encode, Doing::Work).is_corrupt());
    }
}
