//! From what Core wants and what is there to the changes between the two: pure.
//!
//! ```text
//! wanted entries ── duplicates resolved ── claims by identity ── claims by fallback ──┐
//! present rows ───────────────────────────────────────────────────────────────────────┤
//!     rows nobody claimed or saw ── grace ── guard ── deletes, or withheld            │
//!     final owner of every pair, name and MAC, decided in memory ─────────────────────┴─► Plan
//!
//! reconcile.rs  the steps above, once, over any `Entity`
//! rack.rs, component.rs, bmc.rs  what is an entity's own: identities, what is unique, columns
//! guard.rs      which unclaimed rows are deleted now
//! ```
//!
//! The order of a response never matters: entries are sorted first. Ids and the time come from
//! the caller, so that a plan can be repeated.

mod bmc;
mod component;
mod guard;
mod names;
mod rack;
mod reconcile;
#[cfg(test)]
mod test_kind;

pub use component::{PresentComponents, plan_components};
pub use rack::plan_racks;

use super::approval::Approval;
use super::change::Change;
use super::diagnostics::{Diagnostic, TypeCounters, Withheld};
use super::policy::Policy;
use super::spec::SkippedEntry;
use crate::inventory::{Kind, Mac, Pair};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Maps and sets with one entry per row or entry of a type, looked into as often.
pub(crate) type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
type FastSet<T> = HashSet<T, foldhash::fast::RandomState>;

/// What every plan is made from, beside entries and rows.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// Which type.
    pub kind: Kind,
    /// Entries that lack something.
    pub skipped: &'a [SkippedEntry],
    /// Whether the response is all there is, so that absence means something.
    pub complete: bool,
    /// In how many complete pulls in a row a row was missing.
    pub absent: &'a HashMap<Uuid, u32>,
    /// The knobs.
    pub policy: &'a Policy,
    /// Deletes that an operator approved.
    pub approval: Option<&'a Approval>,
    /// Time of the run, RFC 3339.
    pub now: &'a str,
    /// Whether decisions are noted for `explain`.
    pub trace: bool,
}

/// Everything that one type's transaction does.
#[derive(Debug)]
pub struct Plan {
    /// Which type.
    pub kind: Kind,
    /// Rows to write, by key.
    pub changes: Vec<Change>,
    /// What they amount to.
    pub counters: TypeCounters,
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

impl Plan {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            changes: Vec::new(),
            counters: TypeCounters::default(),
            warnings: Vec::new(),
            errors: Vec::new(),
            withheld: Vec::new(),
            absences: Vec::new(),
            approved: false,
            trace: Vec::new(),
        }
    }

    fn warn(&mut self, code: &str, key: impl Into<String>, why: impl Into<String>) {
        let report = Diagnostic::new(code, self.kind, key, why);
        self.warnings.push(report);
    }

    fn refuse(&mut self, code: &str, key: impl Into<String>, why: impl Into<String>) {
        let report = Diagnostic::new(code, self.kind, key, why);
        self.errors.push(report);
    }

    fn note(&mut self, keys: Vec<String>, rule: impl Into<String>) {
        let rule = rule.into();
        self.trace.push(Decision { keys, rule });
    }
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
    macs: FastMap<Mac, Kind>,
    /// By [`Pair::key`].
    pairs: FastMap<Box<str>, Kind>,
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

    fn is_empty(&self) -> bool {
        self.macs.is_empty() && self.pairs.is_empty()
    }

    fn mac(&self, mac: Mac) -> Option<Kind> {
        self.macs.get(&mac).copied()
    }

    fn pair(&self, pair: Pair<'_>) -> Option<Kind> {
        // Most cycles have nothing there, and then no key is made for the question.
        let any = !self.pairs.is_empty();
        any.then(|| self.pairs.get(&pair.key()).copied()).flatten()
    }
}
