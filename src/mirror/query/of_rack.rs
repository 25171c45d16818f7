//! Which rows of the audit log are about a rack: those of the rack itself, of what is in it now, and those that say
//! that something came into it or left it, which is all that is known of rows that are gone.
//!
//! Of a long log few rows are: what a row is about is looked for among its bytes before it is decoded.

use super::racks_named;
use crate::mirror::table::audit::{AuditRow, StoredAuditRow};
use crate::mirror::table::{Fault, View, may_name};
use serde_json::Value;
use std::collections::HashSet;
use uuid::Uuid;

/// Columns that name a rack or a component.
const OWNERS: [&str; 2] = ["rack_id", "component_id"];

/// What is in a rack.
pub(super) struct OfRack {
    /// The rack and its components, tombstones included.
    ids: HashSet<Uuid>,
    /// The same, and the addresses of their BMCs, as the log names rows.
    names: HashSet<String>,
    /// The ids, as values in the log have them.
    owners: HashSet<String>,
}

impl OfRack {
    /// Of the racks with this id, rack_id or name.
    pub(super) fn read(tables: &View, name: &str) -> Result<Self, Fault> {
        let racks = racks_named(tables, name)?;
        let components = tables.all_components_of(&racks)?;
        let bmcs = tables.bmcs_of(&components)?;
        let ids: HashSet<Uuid> = racks.into_iter().chain(components).collect();
        let owners: HashSet<String> = ids.iter().map(Uuid::to_string).collect();
        let bmcs = bmcs.iter().map(ToString::to_string);
        let names = bmcs.chain(owners.iter().cloned()).collect();
        Ok(Self { ids, names, owners })
    }

    /// Whether the row may be about it: false is certain.
    pub(super) fn may_have(&self, row: &StoredAuditRow) -> bool {
        match row {
            StoredAuditRow::Whole(row) => self.has(row),
            // A BMC may have come for another component.
            StoredAuditRow::Came { table, bytes, .. } => {
                table == "bmc" || may_name(bytes, &self.ids)
            }
        }
    }

    /// Whether the row is about it.
    pub(super) fn has(&self, row: &AuditRow) -> bool {
        let field = row.field.as_deref();
        if self.names.contains(&row.row) {
            return true;
        }
        if field.is_some_and(|field| !OWNERS.contains(&field)) {
            return false;
        }
        let values = [&row.old, &row.new].into_iter().flatten();
        let mut values = values.filter(|text| text.split('"').any(|id| self.owners.contains(id)));
        values.any(|text| {
            let value: Value = serde_json::from_str(text).unwrap_or_default();
            match field {
                Some(_) => self.owns(&value),
                None => OWNERS.iter().any(|column| self.owns(&value[*column])),
            }
        })
    }

    fn owns(&self, id: &Value) -> bool {
        id.as_str().is_some_and(|id| self.owners.contains(id))
    }
}

#[cfg(test)]
mod tests;
