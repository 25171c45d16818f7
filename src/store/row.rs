//! Stored values and the versions of their rows.
//!
//! ```text
//! row    version u8 | the fields of that version, in bincode
//! ```
//!
//! A value is written in the newest version of its row and read in every older one: old rows are
//! converted when they are read, and replaced when they are next written. Opening a file of format 1
//! therefore costs one small transaction, whatever its size.
//!
//! A field is never added to a row in place. It comes with a new version: the structs of the version
//! before it move to a module named after that version, beside the table, and stay as they are; the constant
//! [`VERSION`](super::codec::Row::VERSION) grows by one, and [`read_old`](super::codec::Row::read_old)
//! converts. A test holds the bytes of every version. Here are the rows that belong to no table alone.

use super::codec::first_version;

first_version!(
    // Counters and lists of names.
    u64,
    Vec<String>,
);
