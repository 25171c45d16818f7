//! Which BMCs and drift rows each component has, of one commit. No index of the tables leads from a component to
//! them, and nobody reads both tables for every question about a rack: whoever answers many keeps this for as long
//! as the commit is the newest. It takes 22 bytes a BMC and 33 a drift row.

use crate::inventory::{Bmc, Drift, DriftType, Mac};
use crate::mirror::table::{Fault, InventoryError, View};
use crate::store::Snapshot;
use uuid::Uuid;

/// Keys of rows, by component.
pub struct ByComponent {
    generation: u64,
    /// Component and address, in this order.
    bmcs: Vec<(Uuid, Mac)>,
    /// Component, row and what it says, in this order.
    drifts: Vec<(Uuid, Uuid, DriftType)>,
}

impl ByComponent {
    /// Reads both tables.
    ///
    /// # Errors
    /// The store failed.
    pub fn read(snapshot: &Snapshot) -> Result<Self, InventoryError> {
        snapshot.view(|tables| {
            let mut bmcs = Vec::new();
            tables.each_bmc(|bmc| bmcs.push((bmc.component_id, bmc.mac)))?;
            let mut drifts = Vec::new();
            tables.each_drift(|drift| {
                let component = drift.component_id;
                drifts.extend(component.map(|id| (id, drift.id, drift.drift_type)));
            })?;
            bmcs.sort_unstable();
            drifts.sort_unstable_by_key(|(component, id, _)| (*component, *id));
            let generation = tables.generation()?;
            Ok(Self {
                generation,
                bmcs,
                drifts,
            })
        })
    }

    /// Commits the store had seen when this was read.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What the drift rows of a component say.
    pub(super) fn drift_types(&self, component: Uuid) -> impl Iterator<Item = DriftType> {
        let of = of(&self.drifts, component, |(component, ..)| *component);
        of.iter().map(|(_, _, drift_type)| *drift_type)
    }

    /// The drift rows of a component, by id.
    pub(super) fn drifts(&self, component: Uuid, tables: &View) -> Result<Vec<Drift>, Fault> {
        let of = of(&self.drifts, component, |(component, ..)| *component).iter();
        let rows = of.map(|(_, id, _)| tables.drift(*id));
        rows.filter_map(Result::transpose).collect()
    }

    /// The BMCs of a component, by address.
    pub(super) fn bmcs(&self, component: Uuid, tables: &View) -> Result<Vec<Bmc>, Fault> {
        let of = of(&self.bmcs, component, |(component, _)| *component).iter();
        let rows = of.map(|(_, mac)| tables.bmc(*mac));
        rows.filter_map(Result::transpose).collect()
    }
}

/// Those of `sorted` that are a component's.
fn of<T>(sorted: &[T], component: Uuid, key: impl Fn(&T) -> Uuid) -> &[T] {
    let begin = sorted.partition_point(|entry| key(entry) < component);
    let rest = sorted.get(begin..).unwrap_or_default();
    let end = rest.partition_point(|entry| key(entry) == component);
    rest.get(..end).unwrap_or_default()
}
