//! `afferent mirror`: Core's expected inventory, kept in tables, and how reality differs from it.
//!
//! ```text
//! core ─► page ─► spec ──► plan ──► apply ─► rows, indexes and audit in one transaction per type
//!         entry   wanted   changes
//! core ─► observe ───────► apply            drift, and the columns that are only observed
//! ```
//!
//! The rules, in short; each module has its own part in full:
//!
//! - Order: racks, machines, switches, topology, shelves, then drift. One failing type stops no other.
//! - A rack is found by external_id, else by its pair (adoption), unless Core still reports the
//!   external_id of the row with that pair. A component is found by its pair (`natural-key`) or by
//!   its Host BMC and then its pair (`host-mac`). All identity claims come before all fallbacks;
//!   one entry has one row. Tombstones are found too and live again under their old id.
//! - Deleted (made a tombstone) are live rows that nobody claimed, and only when the pull was
//!   complete. An entry that lacks something is skipped, but counts as present.
//! - A tombstone goes for good only where names are unique, to make room for its name, and only when
//!   the pull was complete and Core does not list it: one that comes back keeps its id.
//! - More deletes than both limits of the guard are withheld; `--approve-deletes` lifts it for one
//!   run, `--delete-grace` asks for several complete pulls first.
//! - Pairs, rack names (where unique) and MACs have one owner each, decided in memory before
//!   anything is written: swaps need no second cycle, and no cycle takes back what the last gave.
//! - Only Host BMCs are touched, and each component has at most the one that Core names.
//! - Columns with other owners, and DPU rows, are never changed by mirroring. BMC credentials in a
//!   response are not even read.
//! - The same response twice writes once; the order of its entries does not matter. The service does
//!   not go through a cycle whose outcome it knows: see `memory`.

mod apply;
pub mod core;
pub mod cycle;
pub mod dump;
pub mod explain;
pub mod lost;
pub mod memory;
mod metrics;
pub mod observe;
pub mod page;
pub mod plan;
pub mod planfile;
pub mod policy;
pub mod progress;
pub mod report;
pub mod run;
pub mod service;
pub mod spec;
pub mod status;
pub mod topology;

use crate::clock::WallTime;
use crate::inventory::Row;
pub use crate::store::{Snapshot, Store, StoreError};

pub use crate::store::inventory_table::InventoryError;
use crate::store::{OnDamage, Opening, Options, check_kept};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;

/// Pages of the file kept in memory, in bytes.
const CACHE_BYTES: usize = 64 << 20;

/// Name of the database in the state directory.
const FILE: &str = "mirror.redb";

fn store_options() -> Options {
    Options {
        is_shared: true,
        on_damage: OnDamage::Keep,
        ..Options::new(CACHE_BYTES)
    }
}

/// Opens `mirror.redb` in `state_dir`, or begins the first one there. One that is damaged, gone or empty
/// is an error that only an operator can end ([`lost`]).
pub fn open(state_dir: &Path) -> Result<Store, StoreError> {
    Ok(Store::open_with(state_dir, FILE, store_options())?.store)
}

/// What `mirror.redb` in `state_dir` holds now, whether its service runs or not. Nothing is written, unless
/// a killed service left the file open; nothing is created.
pub fn look(state_dir: &Path) -> Result<Snapshot, InventoryError> {
    check_kept(&state_dir.join(FILE))?;
    let opening = || Snapshot::open(&state_dir.join(FILE), CACHE_BYTES);
    let opened = match opening()? {
        Opening::NotClosed => {
            // Opening it for writing closes it as it should have been.
            drop(open(state_dir)?);
            opening()?
        }
        other => other,
    };
    Ok(match opened {
        Opening::Snapshot(snapshot) => *snapshot,
        Opening::Absent => Snapshot::of(Store::in_memory()?)?,
        Opening::NotClosed => Snapshot::of(open(state_dir)?)?,
    })
}

/// Commits the store has seen.
pub fn generation(snapshot: &Snapshot) -> Result<u64, InventoryError> {
    snapshot.view(|view| view.generation())
}

/// What is wrong with the indexes, one line each.
pub fn check(snapshot: &Snapshot) -> Result<Vec<String>, InventoryError> {
    snapshot.view(|view| view.check())
}

/// A drift row to print.
pub struct DriftView {
    /// For programs.
    pub columns: Value,
    /// For people.
    pub line: String,
}

/// All drift rows.
pub fn drifts(snapshot: &Snapshot) -> Result<Vec<DriftView>, InventoryError> {
    snapshot.view(|tables| {
        let labels: HashMap<_, _> = tables
            .all_components()?
            .into_iter()
            .map(|component| (component.id, Row::Component(Box::new(component)).label()))
            .collect();
        let views = tables.drifts()?.into_iter().map(|drift| {
            let who = match (drift.component_id, &drift.external_id) {
                (Some(id), _) => labels.get(&id).cloned().unwrap_or_else(|| id.to_string()),
                (None, Some(external_id)) => external_id.clone(),
                (None, None) => drift.id.to_string(),
            };
            let kind = drift.component_type.map_or("-", |kind| kind.name());
            let mut line = format!("{kind:<11} {:<20} {who}", drift.drift_type.name());
            for diff in &drift.diffs {
                line.push_str(&format!(
                    "  {}: {} -> {}",
                    diff.field_name, diff.expected_value, diff.actual_value
                ));
            }
            DriftView {
                columns: Value::Object(Row::Drift(Box::new(drift)).columns()),
                line,
            }
        });
        Ok(views.collect())
    })
}

/// Which audit rows are asked for; `None` is all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Id of a run.
    pub run: Option<String>,
    /// Id or address of a row, or what people call it.
    pub row: Option<String>,
    /// From this time on.
    pub since: Option<WallTime>,
    /// Before this time.
    pub until: Option<WallTime>,
}

/// An audit row to print.
#[derive(Clone, Debug, Serialize)]
pub struct AuditView {
    /// Place in the log.
    pub number: u64,
    /// The run it belongs to.
    pub run: String,
    /// RFC 3339.
    pub time: String,
    /// Where the change came from.
    pub source: String,
    /// Type it was made for.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was done.
    pub op: String,
    /// Table of the row.
    pub table: String,
    /// Id or address of the row.
    pub row: String,
    /// What people call it.
    pub key: String,
    /// The column, unless it is about the row as a whole.
    pub field: Option<String>,
    /// Old value.
    pub old: Option<Value>,
    /// New value.
    pub new: Option<Value>,
    /// Why.
    pub reason: String,
}

/// Audit rows, oldest first.
pub fn audit(snapshot: &Snapshot, filter: &AuditFilter) -> Result<Vec<AuditView>, InventoryError> {
    let value =
        |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap_or_default());
    snapshot.view(|tables| {
        let mut views = Vec::new();
        tables.audit_rows(|number, run, row| {
            let time = run.time.parse::<WallTime>().unwrap_or_default();
            let id = run.id.to_string();
            let wanted = filter.run.as_ref().is_none_or(|run| *run == id)
                && filter
                    .row
                    .as_ref()
                    .is_none_or(|r| *r == row.row || *r == row.key)
                && filter.since.is_none_or(|since| time >= since)
                && filter.until.is_none_or(|until| time < until);
            if wanted {
                views.push(AuditView {
                    number,
                    run: id,
                    time: run.time.clone(),
                    source: run.source.clone(),
                    kind: row.kind,
                    op: row.op,
                    table: row.table,
                    row: row.row,
                    key: row.key,
                    field: row.field,
                    old: value(row.old),
                    new: value(row.new),
                    reason: row.reason,
                });
            }
            true
        })?;
        Ok(views)
    })
}

impl fmt::Display for AuditView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:<15} {:<11} {}",
            self.time, self.op, self.kind, self.key
        )?;
        let show = |value: &Option<Value>| value.as_ref().map_or("null".into(), Value::to_string);
        if let Some(field) = &self.field {
            write!(f, "  {field}: {} -> {}", show(&self.old), show(&self.new))?;
        }
        write!(f, "  ({})", self.reason)
    }
}
