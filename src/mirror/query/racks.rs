//! Racks with what is in them and how that differs from what was observed.

use super::by_component::ByComponent;
use crate::inventory::{ComponentType, Rack, Row};
use crate::mirror::table::{Fault, InventoryError};
use crate::store::Snapshot;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Most components that are shown of a rack: a real one has a tenth of it.
const MOST_COMPONENTS: usize = 2000;

/// Some racks.
pub struct RackPage {
    /// Columns, the number of components by type and of drift rows by type of drift.
    pub racks: Vec<Value>,
    /// The last of them, where there are more: the cursor of the next page.
    pub next: Option<Uuid>,
}

/// At most `limit` live racks behind the one with the id `after`, by id. `by_component` is of the same commit.
pub fn racks(
    snapshot: &Snapshot,
    by_component: &ByComponent,
    after: Option<Uuid>,
    limit: usize,
) -> Result<RackPage, InventoryError> {
    snapshot.view(|tables| {
        let mut found: Vec<Rack> = Vec::new();
        let mut has_more = false;
        tables.racks_behind(after, |rack| {
            if rack.is_live() {
                has_more = found.len() == limit;
                found.extend((!has_more).then_some(rack));
            }
            !has_more
        })?;
        let next = found.last().filter(|_| has_more).map(|rack| rack.id);
        let racks = found.into_iter();
        let racks = racks.map(|rack| {
            let components = tables.components_of_rack(rack.id)?;
            Ok(summary(rack, &components, by_component))
        });
        let racks = racks.collect::<Result<_, Fault>>()?;
        Ok(RackPage { racks, next })
    })
}

/// A rack by its id or Core's name of it, with its components, their BMCs and their drift rows. `None`: there is none.
/// `by_component` is of the same commit.
pub fn rack(
    snapshot: &Snapshot,
    by_component: &ByComponent,
    name: &str,
) -> Result<Option<Value>, InventoryError> {
    snapshot.view(|tables| {
        let by_id = match name.parse() {
            Ok(id) => tables.rack(id)?,
            Err(_) => None,
        };
        let rack = match by_id {
            None => tables.rack_of_external_id(name)?,
            found => found,
        };
        let Some(rack) = rack else { return Ok(None) };
        let keys = tables.components_of_rack(rack.id)?;
        let mut shown = summary(rack, &keys, by_component);
        let mut components = Vec::new();
        for (kind, id) in keys.iter().take(MOST_COMPONENTS) {
            let Some(component) = tables.component(*kind, *id)? else {
                continue;
            };
            let mut columns = Row::Component(Box::new(component)).columns();
            let bmcs = by_component.bmcs(*id, tables)?.into_iter();
            let bmcs = bmcs.map(|bmc| Row::Bmc(Box::new(bmc)).columns());
            columns.insert("bmcs".into(), bmcs.collect::<Vec<_>>().into());
            let drifts = by_component.drifts(*id, tables)?.into_iter();
            let drifts = drifts.map(|drift| Row::Drift(Box::new(drift)).columns());
            columns.insert("drift".into(), drifts.collect::<Vec<_>>().into());
            components.push(Value::Object(columns));
        }
        shown["more"] = (keys.len() > components.len()).into();
        shown["components"] = components.into();
        Ok(Some(shown))
    })
}

fn summary(rack: Rack, components: &[(ComponentType, Uuid)], by_component: &ByComponent) -> Value {
    let mut by_type: BTreeMap<&str, u32> = BTreeMap::new();
    let mut by_drift: BTreeMap<&str, u32> = BTreeMap::new();
    for (kind, id) in components {
        *by_type.entry(kind.name()).or_default() += 1;
        for drift_type in by_component.drift_types(*id) {
            *by_drift.entry(drift_type.name()).or_default() += 1;
        }
    }
    let mut columns: Map<String, Value> = Row::Rack(Box::new(rack)).columns();
    columns.insert("count".into(), json!(by_type));
    columns.insert("drift".into(), json!(by_drift));
    Value::Object(columns)
}
