//! Package databases of rpm, read from a byte source: sqlite, ndb and Berkeley DB hash.
//!
//! ```text
//! rpmdb.sqlite  sqlite/  \
//! Packages.db   ndb.rs    >  Item: number, length, check, Blob  ->  header.rs  ->  Package or key
//! Packages      bdb.rs   /
//! ```
//!
//! | Format | File | Distributions | Read |
//! | --- | --- | --- | --- |
//! | sqlite | `rpmdb.sqlite` | Fedora 33 and later, RHEL, CentOS Stream, Alma, Rocky and Oracle 9 and later, Amazon Linux 2023, Azure Linux and CBL-Mariner | any page size, auto-vacuum and encoding; committed frames of `-wal`; a hot `-journal` rolled back in memory |
//! | ndb | `Packages.db` | SUSE: SLE 15 SP3 and later, openSUSE Leap and Tumbleweed | with free slots and without `Index.db` |
//! | Berkeley DB hash | `Packages` | RHEL, CentOS, Alma, Rocky and Oracle 6 to 8, Amazon Linux 2, SLE 12, Fedora before 33 | versions 7 to 10, both byte orders, sorted and unsorted pages, overflow chains |
//!
//! The header inside is the same everywhere, of rpm 3 to 6. Not read: Berkeley DB with encryption or
//! page checksums and its B-tree kind, sqlite tables without row numbers; rpm writes none of these.
//!
//! Readers here never open a file, never lock and never write. Whatever the bytes say, they use
//! bounded memory and time: every page and slot is visited at most once, and every length meets a
//! named bound before memory is taken. They work on what they are handed, also when it changes
//! meanwhile; whether it did, and what they said therefore counts, is the caller's to find out.

#![deny(clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

pub mod bdb;
mod error;
mod header;
pub mod ndb;
mod source;
pub mod sqlite;

pub use error::{Error, Place};
pub use header::{Blob, Described, Scratch, details, read};
pub use source::ReadAt;

use source::number::array;
use std::fmt;
use std::ops::ControlFlow;

/// Headers that a database may hold; the largest systems have some thousands.
const MAX_HEADERS: usize = 262_144;
const TOO_MANY: Error = Error::Unsupported("lists more than 262,144 package headers");

/// Which of rpm's formats a database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// `rpmdb.sqlite`: Fedora 33 and later, RHEL 9 and later, Amazon Linux 2023.
    Sqlite,
    /// `Packages.db`: SUSE.
    Ndb,
    /// `Packages`: RHEL 8 and before, Amazon Linux 2.
    Bdb,
}

impl Backend {
    /// All, in the order in which rpm's successors came: the first present one is in use.
    pub const ALL: [Self; 3] = [Self::Sqlite, Self::Ndb, Self::Bdb];

    /// `sqlite`, `ndb` or `bdb`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Ndb => "ndb",
            Self::Bdb => "bdb",
        }
    }

    /// Name of the main file in the database's directory.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Sqlite => "rpmdb.sqlite",
            Self::Ndb => "Packages.db",
            Self::Bdb => "Packages",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One package header, before it is read.
pub struct Item<'a> {
    /// Its number in the database (`hnum`, `DBINSTANCE`); unique, never used again.
    pub number: u32,
    /// Length of the blob in bytes.
    pub length: u64,
    /// A checksum over what is known of the header without reading it: equal for an unchanged one.
    pub check: u64,
    /// The bytes, or why there are none.
    pub blob: Result<&'a mut dyn Blob, Error>,
}

/// One package header, as the database's own indexes list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Its number in the database.
    pub number: u32,
    /// [`check`] over its name.
    pub name: u64,
    /// Over its name, the transaction that added it, and its digest.
    pub check: u64,
}

/// Whether [`Item::check`] is needed: it costs a pass over bytes that a reader else jumps over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checks {
    /// Every item has one.
    Make,
    /// Nobody looks at them.
    Skip,
}

/// Called with every header of a database.
pub type Visit<'a> = dyn FnMut(Item<'_>) -> ControlFlow<()> + 'a;

/// An rpm database in any of its formats.
#[derive(Debug)]
pub enum Database<S> {
    /// See [`Backend::Sqlite`].
    Sqlite(sqlite::SqliteDatabase<S>),
    /// See [`Backend::Ndb`].
    Ndb(ndb::NdbDatabase<S>),
    /// See [`Backend::Bdb`].
    Bdb(bdb::BdbDatabase<S>),
}

impl<S: ReadAt> Database<S> {
    /// Opens `main` as a database of that format; `beside` is for sqlite alone.
    ///
    /// # Errors
    /// The file is not of this format, or damaged at its root.
    pub fn open(backend: Backend, main: S, beside: sqlite::Beside<S>) -> Result<Self, Error> {
        match backend {
            Backend::Sqlite => sqlite::SqliteDatabase::open(main, beside).map(Self::Sqlite),
            Backend::Ndb => ndb::NdbDatabase::open(main).map(Self::Ndb),
            Backend::Bdb => bdb::BdbDatabase::open(main).map(Self::Bdb),
        }
    }

    /// Calls `visit` with every header, in the order in which the database keeps them. With
    /// [`Checks::Skip`] their checks may be left out, as 0.
    ///
    /// # Errors
    /// The structure around the headers is damaged, so that some could not be found. A damaged
    /// header alone is not an error here: its [`Item`] says so.
    pub fn headers(&mut self, checks: Checks, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut headers = 0;
        let mut visit = |item: Item<'_>| {
            headers += 1;
            if headers > MAX_HEADERS {
                return ControlFlow::Break(());
            }
            visit(item)
        };
        match self {
            Self::Sqlite(database) => database.headers(checks, &mut visit)?,
            Self::Ndb(database) => database.headers(&mut visit)?,
            Self::Bdb(database) => database.headers(&mut visit)?,
        }
        if headers > MAX_HEADERS {
            return Err(TOO_MANY);
        }
        Ok(())
    }

    /// The headers as the database's own indexes list them, sorted by number, where it has such
    /// indexes and they are cheaper to read than the headers. Trust them once they agreed with
    /// the headers.
    ///
    /// # Errors
    /// An index is damaged.
    pub fn listing(&mut self) -> Result<Option<Vec<Listed>>, Error> {
        match self {
            Self::Sqlite(database) => database.listing(),
            Self::Ndb(_) | Self::Bdb(_) => Ok(None),
        }
    }

    /// Calls `visit` with the headers of these numbers; false when one was not found, or the
    /// format cannot find headers by number.
    ///
    /// # Errors
    /// The structure around the headers is damaged.
    pub fn some_headers(&mut self, numbers: &[u32], visit: &mut Visit<'_>) -> Result<bool, Error> {
        match self {
            Self::Sqlite(database) => database.some_headers(numbers, visit),
            Self::Ndb(_) | Self::Bdb(_) => Ok(false),
        }
    }

    /// The highest header number that the database ever gave out; 0 when it is new. It only grows,
    /// and tells a new database from one that lost everything.
    ///
    /// # Errors
    /// The part that says so is damaged.
    pub fn last_number(&mut self) -> Result<u64, Error> {
        match self {
            Self::Sqlite(database) => Ok(database.last_number("Packages")?.unwrap_or(0)),
            Self::Ndb(database) => Ok(database.last_number()),
            Self::Bdb(database) => Ok(database.last_number()),
        }
    }
}

/// A quick check sum over bytes that were read anyway; equal bytes, equal sum. Not for integrity.
pub fn check(bytes: &[u8]) -> u64 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = bytes.as_chunks::<8>();
    let mix = |sum: u64, word: u64| (sum.rotate_left(23) ^ word).wrapping_mul(FACTOR);
    let sum = words.iter().fold(bytes.len() as u64, |sum, word| {
        mix(sum, u64::from_le_bytes(*word))
    });
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let sum = mix(sum, array(&last, 0).map_or(0, u64::from_le_bytes));
    sum ^ (sum >> 32)
}
