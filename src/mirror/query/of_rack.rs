//! Which rows of the audit log are about a rack: those of the rack itself, of what is in it now, and those that say
//! that something came into it or left it, which is all that is known of rows that are gone.

use super::racks_named;
use crate::mirror::table::audit::AuditRow;
use crate::mirror::table::{Fault, View};
use serde_json::Value;
use std::collections::HashSet;
use uuid::Uuid;

/// Columns that name a rack or a component.
const OWNERS: [&str; 2] = ["rack_id", "component_id"];

/// What is in a rack.
pub(super) struct OfRack {
    /// Ids of the rack and of its components, tombstones included.
    owners: HashSet<String>,
    /// Addresses of their BMCs.
    bmcs: HashSet<String>,
}

impl OfRack {
    /// Of the racks with this id, rack_id or name.
    pub(super) fn read(tables: &View, name: &str) -> Result<Self, Fault> {
        let racks = racks_named(tables, name)?;
        let components = tables.all_components()?.into_iter();
        let components = components.filter(|component| {
            let rack = component.rack_id.as_ref();
            rack.is_some_and(|rack| racks.contains(rack))
        });
        let components: HashSet<Uuid> = components.map(|component| component.id).collect();
        let mut bmcs = HashSet::new();
        tables.each_bmc(|bmc| {
            let is_in = components.contains(&bmc.component_id);
            bmcs.extend(is_in.then(|| bmc.mac.to_string()));
        })?;
        let owners = racks.iter().chain(&components).map(Uuid::to_string);
        let owners = owners.collect();
        Ok(Self { owners, bmcs })
    }

    /// Whether the row is about it.
    pub(super) fn has(&self, row: &AuditRow) -> bool {
        if self.owners.contains(&row.row) || self.bmcs.contains(&row.row) {
            return true;
        }
        let values = [&row.old, &row.new].into_iter().flatten();
        values.into_iter().any(|text| {
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            match row.field.as_deref() {
                Some(field) => OWNERS.contains(&field) && self.owns(&value),
                None => OWNERS.iter().any(|column| self.owns(&value[*column])),
            }
        })
    }

    fn owns(&self, id: &Value) -> bool {
        id.as_str().is_some_and(|id| self.owners.contains(id))
    }
}
