//! What can be wrong with a package database, and where.

use std::fmt;
use std::io;

/// Why a database, or one header of it, could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be fetched.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The bytes are not what the format says. Also what a database looks like that was written
    /// to while it was read: decide that first.
    #[error("{place}: {why}")]
    Damaged {
        /// Where in the file.
        place: Place,
        /// What is wrong there.
        why: &'static str,
    },
    /// Sound as far as read, but a kind that rpm does not write.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A sqlite database without a table `Packages`: not an rpm database, or one that was never
    /// finished. Not the same as an empty one.
    #[error("has no table Packages, so it is not an rpm database or was never finished")]
    NoPackagesTable,
}

/// A place in a database file, in the numbers that the format's own tools use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The file's own header.
    FileHeader,
    /// Page number: from 1 in sqlite, from 0 in Berkeley DB.
    Page(u32),
    /// Row of an sqlite table, by its number.
    Row(i64),
    /// Byte offset from the start of the file.
    Offset(u64),
    /// A package header, by its number in the database (`hnum`, `DBINSTANCE`).
    Header(u32),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FileHeader => f.write_str("file header"),
            Self::Page(page) => write!(f, "page {page}"),
            Self::Row(row) => write!(f, "row {row}"),
            Self::Offset(offset) => write!(f, "offset {offset}"),
            Self::Header(hnum) => write!(f, "package header {hnum}"),
        }
    }
}

impl Error {
    pub(super) fn damaged(place: Place, why: &'static str) -> Self {
        Self::Damaged { place, why }
    }
}
