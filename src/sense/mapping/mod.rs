//! The mapping from repositories to CPEs that the sensor pushes to guests: they have no internet, and without it
//! their packages match nothing.
//!
//! ```text
//! file or URL ── read ──► SensorMapping ──► Pushes: who lacks it ──► push ──► agent
//!                every 4 h                     ▲ bounded, paced        a connection of its own
//! pulling ── what each agent says that it has ─┘
//! ```
//!
//! An agent keeps what it was given, scans again, and its next report says which mapping it was made with.

pub mod agent;
pub mod push;
pub mod pushes;
pub mod read;
pub mod run;

use crate::report::MappingHash;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the sensor's mapping comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SensorMappingSource {
    /// A file that somebody else keeps up to date.
    File(PathBuf),
    /// An address that is asked for it.
    Url(String),
}

impl FromStr for SensorMappingSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("neither a file nor a URL".into()),
            "sensor" => Err("\"sensor\" is for agents: give a file or a URL".into()),
            url if url.starts_with("https://") || url.starts_with("http://") => {
                Ok(Self::Url(url.into()))
            }
            path => Ok(Self::File(path.into())),
        }
    }
}

impl fmt::Display for SensorMappingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => f.write_str(url),
        }
    }
}

/// A mapping that was read and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorMapping {
    /// As JSON; at most [`crate::report::mapping::LONGEST`] of them.
    pub bytes: Vec<u8>,
    /// Over the bytes.
    pub hash: MappingHash,
}

/// What is counted of mappings and guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingStatus {
    /// A guest answered that it gives no report before it has a mapping.
    Required,
    /// A guest took the mapping, or had it.
    SyncSuccess,
    /// A guest could not be given the mapping.
    SyncError,
    /// A guest answered that no sensor brings its mapping.
    SyncNotManaged,
    /// A guest turned out to have a mapping of its own that is another one.
    UrlHashMismatch,
}

impl MappingStatus {
    /// Every word of [`MappingStatus::label`].
    pub const LABELS: [&'static str; 5] = [
        "mapping_required",
        "sync_success",
        "sync_error",
        "sync_not_managed",
        "url_hash_mismatch",
    ];

    /// A word for metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Required => "mapping_required",
            Self::SyncSuccess => "sync_success",
            Self::SyncError => "sync_error",
            Self::SyncNotManaged => "sync_not_managed",
            Self::UrlHashMismatch => "url_hash_mismatch",
        }
    }
}
