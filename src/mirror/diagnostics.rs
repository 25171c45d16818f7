//! What a run has to say: warnings, errors, and counters.

use crate::inventory::Kind;
use serde::Serialize;
use std::collections::BTreeMap;

/// One thing worth saying.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Diagnostic {
    /// What kind of thing, for programs.
    pub code: String,
    /// Which type it is about.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Which entry or row, as Core names it.
    pub key: String,
    /// The same for people.
    pub message: String,
}

impl Diagnostic {
    /// About an entry or row of `kind`.
    pub fn new(
        code: impl Into<String>,
        kind: Kind,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            kind: Some(kind.name().to_owned()),
            key: key.into(),
            message: message.into(),
        }
    }

    /// About an entry or row of a type that is no [`Kind`].
    pub fn about(
        code: impl Into<String>,
        of: &str,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            kind: Some(of.to_owned()),
            key: key.into(),
            message: message.into(),
        }
    }

    /// About the run as a whole.
    pub fn general(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            kind: None,
            key: String::new(),
            message: message.into(),
        }
    }
}

/// What happened to one type, counted after the commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TypeCounters {
    /// Entries in Core's response.
    pub pulled: u64,
    /// New rows.
    pub inserted: u64,
    /// Rows whose mirrored columns or BMC changed.
    pub updated: u64,
    /// Racks that got another external_id.
    pub adopted: u64,
    /// Tombstones that live again.
    pub resurrected: u64,
    /// Rows that became tombstones.
    pub soft_deleted: u64,
    /// BMC rows taken from another component.
    pub evicted: u64,
    /// Rows removed for good, evicted ones not counted.
    pub hard_deleted: u64,
    /// Deletes that the guard refused.
    pub withheld_deletes: u64,
    /// Entries that lack what identifies them.
    pub skipped_invalid: u64,
    /// Racks that lost the race for a name.
    pub skipped_name_taken: u64,
    /// Live racks that Core never knew and nothing deletes.
    pub legacy_exempt: u64,
}

/// A delete that the guard refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Withheld {
    /// Type of the row.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the row.
    pub id: String,
    /// What people call it.
    pub key: String,
}

/// What was observed of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DriftSummary {
    /// Devices observed.
    pub received: u64,
    /// Whether the pull was complete, so that drift rows are up to date.
    pub complete: bool,
    /// Drift rows by kind of drift.
    pub rows: BTreeMap<String, u64>,
}

/// One run, as `run --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Names the run in the audit log.
    pub run: String,
    /// False when the gate was off.
    pub mirror_ran: bool,
    /// TypeCounters by type.
    pub types: BTreeMap<String, TypeCounters>,
    /// What was observed, by type; a type that was not asked for is not there.
    pub drift: BTreeMap<String, DriftSummary>,
    /// Lists that were read whole and written: types, and `drift:` with a type.
    pub complete: Vec<String>,
    /// Types that were pulled in part only, so that nothing of them was deleted.
    pub incomplete: Vec<String>,
    /// What the guard refused.
    pub withheld: Vec<Withheld>,
    /// What somebody should look at.
    pub warnings: Vec<Diagnostic>,
    /// What failed.
    pub errors: Vec<Diagnostic>,
}

impl Summary {
    /// A summary with zero for every type.
    pub fn new(run: String) -> Self {
        let types = Kind::ALL.map(|kind| (kind.name().to_owned(), TypeCounters::default()));
        Self {
            run,
            types: types.into(),
            ..Self::default()
        }
    }
}
