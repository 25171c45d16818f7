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
//! before it move to a module named after that version ([`v1`], beside the table) and stay as they are, the constant
//! [`Row::VERSION`] grows by one, and [`Row::read_old`] converts. A test holds the bytes of every
//! version.

use super::audit_table::AuditRun;
use super::codec::{Row, second_version};
use crate::inventory::{Bmc, Component, Domain, Drift, Rack};

pub(super) mod v1;

/// Rows that are still of their first version.
macro_rules! first_version {
    ($($row:ty),* $(,)?) => { $(
        impl Row<'_> for $row {
            const VERSION: u8 = 1;
        }
    )* };
}

first_version!(
    // mirror.redb
    Bmc,
    Drift,
    Domain,
    AuditRun,
    // Counters and lists of names.
    u64,
    Vec<String>,
);

second_version!(
    // mirror.redb
    Rack: v1::Rack,
    Component: v1::Component,
);

#[cfg(test)]
mod tests;
