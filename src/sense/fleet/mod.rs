//! The fleet store: the last report of every guest, and a log of what changed, for questions.
//!
//! ```text
//! packages   id -> StoredPackage        each distinct package once
//! platforms  id -> StoredPlatform       each distinct set of a distribution and repositories once
//! guests     vm id -> GuestState        its last report: facts, its platform, and a sorted list of package ids
//! changes    number -> ChangeRow        one a guest and change, oldest first, linked to the guest's row before
//! meta       next_package, change_bytes
//! ```
//!
//! - A report enters the store in the transaction that makes it pending: what is asked and what is delivered
//!   cannot differ.
//! - A row that cannot be read counts as absent, and its guest is asked for a full report. Nothing here ever
//!   costs a pending report. A new store fills with the regular full reports.
//! - A package is kept while a guest has it or a row of the change log names it.
//! - A guest's first report is a baseline row in the log, not a change.

mod distinct;
mod document;
#[cfg(test)]
pub(super) mod fixture;
mod ids;
mod index;
mod load;
mod newest;
mod package;
mod platform;
pub mod query;
mod reader;
mod row;
mod table;
mod tally;

pub use document::FleetDocument;
pub use newest::{Intake, effective_seen_at};
pub use package::StoredPackage;
pub(crate) use table::FleetTx;

use crate::report::{Digest, Envelope, VmId};
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Page;
use index::{RowIndex, Staged};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tally::GuestTally;

/// How much of the change log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FleetLimits {
    /// Rows that are older go.
    pub age: Duration,
    /// Bytes of all rows together; beyond it the oldest go.
    pub bytes: u64,
}

impl Default for FleetLimits {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 24 * 3600),
            bytes: 256 << 20,
        }
    }
}

/// How much is in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FleetCounts {
    /// Guests whose report is known.
    pub guests: u64,
    /// Distinct packages.
    pub packages: u64,
    /// Rows of the change log.
    pub changes: u64,
    /// Bytes of these rows.
    pub change_bytes: u64,
    /// Guests whose row was missing or could not be read and came again.
    pub rebuilt: u64,
    /// Guests that need a boot, as they say.
    pub reboot_needed: u64,
    /// Reports whose packages were others than before, since the start.
    pub changed: u64,
}

/// The store, as the sensor holds it. Its tables are written by one writer, see [`FleetTx`].
pub struct Fleet {
    packages: Mutex<RowIndex>,
    platforms: Mutex<RowIndex>,
    state: Mutex<FleetState>,
    limits: FleetLimits,
}

/// What the writer knows of the tables.
#[derive(Default)]
struct FleetState {
    counts: FleetCounts,
    tally: GuestTally,
    next_change: u64,
    /// Guests that have to be asked again.
    missing: HashSet<VmId>,
    /// Rows that are of no use and could not be removed.
    missing_rows: HashSet<String>,
}

/// What a transaction did: takes effect in memory once it is on disk, with [`Fleet::committed`].
pub(crate) struct FleetStaged {
    packages: Staged,
    platforms: Staged,
    counts: FleetCounts,
    next_change: u64,
    /// Guests that were missing and no longer are.
    found: Vec<VmId>,
    /// By how much the guests in each state become more.
    tally: GuestTally,
}

impl Fleet {
    /// Reads what is stored. `known` are the guests of which the sensor knows a report, with its digest.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(
        store: &Store,
        limits: FleetLimits,
        known: &HashMap<VmId, Digest>,
    ) -> Result<Self, StoreError> {
        Ok(Self::of(load::load(store, Some(known))?, limits))
    }

    /// Reads all that is stored, for a reader of the stream of sensors, which knows of no guests but those. Also
    /// gives how many rows had to be left out.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load_all(store: &Store, limits: FleetLimits) -> Result<(Self, usize), StoreError> {
        let loaded = load::load(store, None)?;
        let useless = loaded.useless;
        Ok((Self::of(loaded, limits), useless))
    }

    fn of(loaded: load::Loaded, limits: FleetLimits) -> Self {
        Self {
            packages: Mutex::new(loaded.packages),
            platforms: Mutex::new(loaded.platforms),
            state: Mutex::new(loaded.state),
            limits,
        }
    }

    /// Guests whose last report is not here, although the sensor knows one.
    pub fn missing(&self) -> HashSet<VmId> {
        self.state().missing.clone()
    }

    /// Those of them that are asked for a full report now. A store that has no guest at all is new: an upgrade
    /// costs no report, and the regular ones fill it within the refresh interval.
    pub fn to_ask(&self) -> HashSet<VmId> {
        let state = self.state();
        match state.counts.guests {
            0 => HashSet::new(),
            _ => state.missing.clone(),
        }
    }

    /// The number that the next row of the change log gets: another one than before when something changed.
    pub fn next_change(&self) -> u64 {
        self.state().next_change
    }

    /// How much is in the store.
    pub fn counts(&self) -> FleetCounts {
        let packages = held(&self.packages).len() as u64;
        let state = self.state();
        FleetCounts {
            packages,
            reboot_needed: state.tally.reboot_needed(),
            ..state.counts
        }
    }

    /// Guests of each version of an agent, as the agents call it.
    pub fn agents(&self) -> BTreeMap<Box<str>, u64> {
        self.state().tally.agents()
    }

    /// Writes how much is in the store.
    pub fn write_metrics(&self, page: &mut Page) {
        let counts = self.counts();
        page.gauges(
            "afferent_fleet_rows",
            "Rows of the fleet store, by table.",
            &[
                (&[("table", "guests")], counts.guests as f64),
                (&[("table", "packages")], counts.packages as f64),
                (&[("table", "changes")], counts.changes as f64),
            ],
        );
        page.gauge(
            "afferent_fleet_reboot_needed",
            "Guests of the fleet store that need a boot.",
            counts.reboot_needed as f64,
        );
        let tally = self.state().tally.clone();
        page.gauges_by(
            "afferent_fleet_kernels",
            "Guests of the fleet store, by how the kernel that runs stands to the newest one installed.",
            ["state"],
            tally.kernels(),
        );
        page.gauges_by(
            "afferent_fleet_provenance",
            "Guests of the fleet store, by what is known of where their packages come from.",
            ["state"],
            tally.provenance(),
        );
        page.counter(
            "afferent_fleet_changes_total",
            "Reports whose packages were others than those of the report before.",
            counts.changed,
        );
        page.gauge(
            "afferent_fleet_change_bytes",
            "Bytes of the change log of the fleet store.",
            counts.change_bytes as f64,
        );
        page.counter(
            "afferent_fleet_rebuilt_total",
            "Guests that were missing in the fleet store and came again.",
            counts.rebuilt,
        );
    }

    /// Makes a document ready to be stored.
    pub fn prepare(&self, envelope: &Envelope<'_>) -> Option<FleetDocument> {
        let document = FleetDocument::new(&self.packages, &self.platforms, envelope);
        if document.is_none() {
            tracing::error!(vm = %envelope.vm, "the packages of this guest cannot be numbered: it is left out of the fleet store");
        }
        document
    }

    /// The transaction is on disk.
    pub(crate) fn committed(&self, staged: FleetStaged) {
        held(&self.packages).commit(staged.packages);
        held(&self.platforms).commit(staged.platforms);
        let mut state = self.state();
        (state.counts, state.next_change) = (staged.counts, staged.next_change);
        state.tally.add(staged.tally);
        for vm in &staged.found {
            state.missing.remove(vm);
            state.missing_rows.remove(vm.as_str());
        }
    }

    /// A new file was begun: nothing is stored any more.
    pub(crate) fn lost(&self) {
        for index in [&self.packages, &self.platforms] {
            let mut index = held(index);
            let next_id = index.next_id();
            *index = RowIndex::new(next_id);
        }
        *self.state() = FleetState::default();
    }

    fn state(&self) -> MutexGuard<'_, FleetState> {
        held(&self.state)
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
