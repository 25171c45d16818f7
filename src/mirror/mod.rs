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
//!   not go through a cycle whose outcome it knows: see `skip_unchanged`.

mod api;
mod apply;
pub mod approval;
pub mod change;
pub mod core;
pub mod cycle;
mod cycle_snapshot;
pub mod diagnostics;
pub mod dump;
pub mod entry;
pub mod explain;
mod kept_times;
pub mod lost;
mod metrics;
pub mod observe;
pub mod plan;
pub mod planfile;
pub mod policy;
pub mod progress;
pub mod query;
pub mod retention;
pub mod run;
pub mod service;
pub mod skip_unchanged;
mod snapshot;
pub mod spec;
pub mod status;
mod table;
pub mod topology;

pub use crate::store::{Snapshot, Store, StoreError};
pub use table::InventoryError;

use table::Ending;

use crate::store::{Limits, OnDamage, Opening, StoreOptions, check_kept};
use std::path::Path;

/// Pages of the file kept in memory, in bytes.
const CACHE_BYTES: usize = 16 << 20;

/// Name of the database in the state directory.
const FILE: &str = "mirror.redb";

fn store_options(aside: Limits) -> StoreOptions {
    StoreOptions {
        is_shared: true,
        on_damage: OnDamage::Keep,
        aside,
        ..StoreOptions::new(CACHE_BYTES)
    }
}

/// Opens `mirror.redb` in `state_dir`, or begins the first one there. One that is damaged, gone or empty
/// is an error that only an operator can end ([`lost`]). Whatever was moved aside stays.
pub fn open(state_dir: &Path) -> Result<Store, StoreError> {
    open_and_prune(state_dir, Limits::NONE)
}

/// The same, and removes what was moved aside and is beyond these limits.
pub fn open_and_prune(state_dir: &Path, aside: Limits) -> Result<Store, StoreError> {
    Ok(Store::open_with(state_dir, FILE, store_options(aside))?.store)
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

/// Whether `state_dir` has no mirror yet. One that cannot be looked for may be there.
pub fn is_absent(state_dir: &Path) -> bool {
    matches!(state_dir.join(FILE).try_exists(), Ok(false))
}

/// Commits the store has seen.
pub fn generation(snapshot: &Snapshot) -> Result<u64, InventoryError> {
    snapshot.view(|view| view.generation())
}

/// What is wrong with the indexes, one line each.
pub fn check(snapshot: &Snapshot) -> Result<Vec<String>, InventoryError> {
    snapshot.view(|view| view.check())
}

/// Packs the audit log and gives room back. Gives the length of the file before and after, in bytes.
pub fn compact(store: &Store) -> Result<[u64; 2], InventoryError> {
    let length = || std::fs::metadata(store.path()).map_or(0, |file| file.len());
    let before = length();
    store.inventory_without_count(|tables| {
        let any_retired = tables.remove_retired_entries()?;
        let ending = match tables.pack_audit()? {
            0 if !any_retired => Ending::Discard,
            _ => Ending::Commit,
        };
        Ok(((), ending))
    })?;
    store.compact()?;
    Ok([before, length()])
}
