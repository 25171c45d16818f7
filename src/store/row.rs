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
use super::codec::{self, CodecError, Row, second_version};
use super::mapping_table::MappingRow;
use super::report_table::{Identity, ReportRow};
use crate::inventory::{Bmc, Component, Domain, Drift, Rack};
use crate::report::Report;

pub(super) mod v1;
mod v2;

/// Rows that are still of their first version.
macro_rules! first_version {
    ($($row:ty),* $(,)?) => { $(
        impl Row<'_> for $row {
            const VERSION: u8 = 1;
        }
    )* };
}

first_version!(
    // serve.redb
    Identity,
    MappingRow,
    // The mapping that was pushed.
    String,
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
    // serve.redb
    Report: v1::Report,
    // mirror.redb
    Rack: v1::Rack,
    Component: v1::Component,
);

impl Row<'_> for ReportRow {
    const VERSION: u8 = 3;

    fn read_old(version: u8, fields: &[u8]) -> Result<Self, CodecError> {
        match version {
            1 => codec::fields::<v1::ReportRow>(fields).map(Into::into),
            2 => codec::fields::<v2::ReportRow>(fields).map(Into::into),
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

#[cfg(test)]
mod tests;
