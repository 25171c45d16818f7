//! From what Core wants and what is there to the changes between the two: pure.
//!
//! ```text
//! wanted entries ── duplicates resolved ── claims by identity ── claims by fallback ──┐
//! present rows ───────────────────────────────────────────────────────────────────────┤
//!     rows nobody claimed or saw ── grace ── guard ── deletes, or withheld            │
//!     final owner of every pair, name and MAC, decided in memory ─────────────────────┴─► Plan
//! ```
//!
//! The order of a response never matters: entries are sorted first. Ids and the time come from
//! the caller, so that a plan can be repeated.

mod component;
mod draft;
mod guard;
mod names;
mod rack;

pub use component::{ComponentInput, PresentComponents, plan_components};
pub use draft::Draft;
pub use rack::{PresentRacks, RackInput, plan_racks};

use super::diagnostics::{Counters, Diagnostic, Withheld};
use crate::inventory::{Kind, Mac, Pair, Row, RowKey};
use std::collections::HashMap;
use uuid::Uuid;

/// Why a row is written, as the audit log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// A new rack or component.
    Insert,
    /// Mirrored columns differ.
    Update,
    /// A rack gets another external_id.
    Adopt,
    /// A tombstone lives again.
    Resurrect,
    /// A row becomes a tombstone.
    SoftDelete,
    /// A pair goes to another row.
    PairRelease,
    /// A tombstone makes room for its name.
    TombstoneGc,
    /// A new Host BMC.
    BmcInsert,
    /// The BMC answers elsewhere.
    BmcUpdate,
    /// The component has another BMC now.
    BmcHardDelete,
    /// The BMC belongs to another component now.
    BmcEvict,
    /// An observed column differs.
    Observe,
    /// A DPU was observed.
    DpuInsert,
    /// A DPU answers elsewhere or sits in another machine.
    DpuUpdate,
    /// A DPU is no longer observed.
    DpuHardDelete,
    /// A difference appeared.
    DriftInsert,
    /// A difference went away.
    DriftDelete,
    /// Put there by `load`.
    Load,
    /// Not in the loaded file.
    LoadRemove,
}

impl Op {
    /// As the audit log has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Adopt => "adopt",
            Self::Resurrect => "resurrect",
            Self::SoftDelete => "soft_delete",
            Self::PairRelease => "pair_release",
            Self::TombstoneGc => "tombstone_gc",
            Self::BmcInsert => "bmc_insert",
            Self::BmcUpdate => "bmc_update",
            Self::BmcHardDelete => "bmc_hard_delete",
            Self::BmcEvict => "bmc_evict",
            Self::Observe => "observe",
            Self::DpuInsert => "dpu_insert",
            Self::DpuUpdate => "dpu_update",
            Self::DpuHardDelete => "dpu_hard_delete",
            Self::DriftInsert => "drift_insert",
            Self::DriftDelete => "drift_delete",
            Self::Load => "load",
            Self::LoadRemove => "load_remove",
        }
    }
}

/// What happens to one row, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which row.
    pub key: RowKey,
    /// As it is; `None`: it is not there.
    pub before: Option<Row>,
    /// As it will be; `None`: it goes for good.
    pub after: Option<Row>,
    /// What led to it, in order.
    pub ops: Vec<(Op, &'static str)>,
}

/// Everything that one type's transaction does.
#[derive(Debug)]
pub struct Plan {
    /// Which type.
    pub kind: Kind,
    /// Rows to write, by key.
    pub changes: Vec<Change>,
    /// What they amount to.
    pub counters: Counters,
    /// Worth a look.
    pub warnings: Vec<Diagnostic>,
    /// Refused.
    pub errors: Vec<Diagnostic>,
    /// Deletes the guard refused.
    pub withheld: Vec<Withheld>,
    /// In how many complete pulls in a row a row was missing; 0 forgets it.
    pub absences: Vec<(Uuid, u32)>,
    /// Deletes happen because an operator approved them.
    pub approved: bool,
    /// Which rule decided about whom, when that was asked for.
    pub trace: Vec<Decision>,
}

/// One decision, for `explain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Everything the entry or row is known by.
    pub keys: Vec<String>,
    /// What was decided, and by which rule.
    pub rule: String,
}

/// What types pulled earlier in the same cycle took, so that a later one does not take it back.
#[derive(Debug, Default)]
pub struct Earlier {
    macs: HashMap<Mac, Kind>,
    pairs: HashMap<Box<str>, Kind>,
}

impl Earlier {
    /// Notes that `kind` has this address.
    pub fn take_mac(&mut self, mac: Mac, kind: Kind) {
        self.macs.entry(mac).or_insert(kind);
    }

    /// Notes that `kind` has this pair.
    pub fn take_pair(&mut self, pair: Pair<'_>, kind: Kind) {
        self.pairs.entry(pair.key()).or_insert(kind);
    }

    fn mac(&self, mac: Mac) -> Option<Kind> {
        self.macs.get(&mac).copied()
    }

    fn pair(&self, pair: Pair<'_>) -> Option<Kind> {
        if self.pairs.is_empty() {
            return None;
        }
        self.pairs.get(&pair.key()).copied()
    }
}

/// Which entry has which row: one entry per row, one row per entry.
#[derive(Debug)]
struct Claims {
    row_of: Vec<Option<usize>>,
    entry_of: Vec<Option<usize>>,
}

impl Claims {
    fn new(entries: usize, rows: usize) -> Self {
        Self {
            row_of: vec![None; entries],
            entry_of: vec![None; rows],
        }
    }

    /// Gives the row to the entry unless either is taken; whether it worked.
    fn claim(&mut self, entry: usize, row: usize) -> bool {
        match (self.row_of.get_mut(entry), self.entry_of.get_mut(row)) {
            (Some(mine @ None), Some(owner @ None)) => {
                *mine = Some(row);
                *owner = Some(entry);
                true
            }
            _ => false,
        }
    }

    fn row(&self, entry: usize) -> Option<usize> {
        self.row_of.get(entry).copied().flatten()
    }

    fn entry(&self, row: usize) -> Option<usize> {
        self.entry_of.get(row).copied().flatten()
    }

    fn is_claimed(&self, row: usize) -> bool {
        self.entry(row).is_some()
    }
}

/// NULL and the empty text are the same.
fn same_text(stored: Option<&str>, wanted: Option<&str>) -> bool {
    stored.unwrap_or_default() == wanted.unwrap_or_default()
}
