//! Version 1 of rows that have a newer one: what afferent 0.1 wrote. Only read, never changed.

use crate::inventory::{self, ComponentType, Json, Others};
use serde::Deserialize;
use smol_str::SmolStr;
use uuid::Uuid;

/// A row of `component`.
#[derive(Deserialize)]
pub(super) struct Component {
    id: Uuid,
    kind: ComponentType,
    name: Option<SmolStr>,
    model: Option<SmolStr>,
    manufacturer: Option<SmolStr>,
    serial_number: Option<SmolStr>,
    rack_id: Option<Uuid>,
    slot_id: i64,
    tray_index: i64,
    host_id: i64,
    external_id: Option<SmolStr>,
    firmware_version: Option<SmolStr>,
    power_state: Option<SmolStr>,
    description: Option<Json>,
    deleted_at: Option<SmolStr>,
    others: Others,
}

impl From<Component> for inventory::Component {
    fn from(row: Component) -> Self {
        let mut others = row.others;
        Self {
            id: row.id,
            kind: row.kind,
            name: row.name,
            model: row.model,
            manufacturer: row.manufacturer,
            serial_number: row.serial_number,
            rack_id: row.rack_id,
            slot_id: row.slot_id,
            tray_index: row.tray_index,
            host_id: row.host_id,
            external_id: row.external_id,
            firmware_version: row.firmware_version,
            power_state: row.power_state,
            status: others.take("status", |status| Some(status.as_str()?.into())),
            health: others.take("health", |health| Some(Json::new(health))),
            lifecycle_state: others.take("lifecycle_state", |state| Some(state.as_str()?.into())),
            description: row.description,
            deleted_at: row.deleted_at,
            others,
        }
    }
}

/// A row of `rack`.
#[derive(Deserialize)]
pub(super) struct Rack {
    id: Uuid,
    name: String,
    manufacturer: Option<String>,
    serial_number: Option<String>,
    external_id: Option<String>,
    description: Option<Json>,
    location: Option<Json>,
    rack_profile_id: Option<String>,
    status: String,
    created_at: Option<String>,
    updated_at: Option<String>,
    deleted_at: Option<String>,
    others: Others,
}

impl From<Rack> for inventory::Rack {
    fn from(row: Rack) -> Self {
        let mut others = row.others;
        let mut text = |name: &str| others.take(name, |value| Some(value.as_str()?.to_owned()));
        Self {
            id: row.id,
            name: row.name,
            manufacturer: row.manufacturer,
            serial_number: row.serial_number,
            external_id: row.external_id,
            description: row.description,
            location: row.location,
            rack_profile_id: row.rack_profile_id,
            status: row.status,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
            nvldomain_id: text("nvldomain_id"),
            rack_group_id: text("rack_group_id"),
            health: others.take("health", |health| Some(Json::new(health))),
            others,
        }
    }
}
