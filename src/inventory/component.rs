//! One row of `component`.

use super::columns::{ColumnError, ColumnText, Columns, Json, Others};
use super::{Pair, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// What a component is. It never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ComponentType {
    /// Not said.
    Unknown,
    /// A machine.
    Compute,
    /// An NVLink switch; `NVLSwitch` is read as the same.
    NVSwitch,
    /// A power shelf.
    PowerShelf,
    /// A top-of-rack switch.
    ToRSwitch,
    /// A management server.
    Ums,
    /// A coolant distribution unit.
    Cdu,
}

impl ComponentType {
    const NAMES: [(Self, &'static str); 7] = [
        (Self::Unknown, "Unknown"),
        (Self::Compute, "Compute"),
        (Self::NVSwitch, "NVSwitch"),
        (Self::PowerShelf, "PowerShelf"),
        (Self::ToRSwitch, "ToRSwitch"),
        (Self::Ums, "UMS"),
        (Self::Cdu, "CDU"),
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("Unknown", |(_, name)| name)
    }

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::NAMES.iter().map(|(kind, _)| *kind)
    }

    /// The one whose rows' keys begin with this byte.
    pub fn of_tag(tag: u8) -> Option<Self> {
        Self::all().find(|kind| kind.tag() == tag)
    }

    /// The byte that begins its rows' keys.
    pub fn tag(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Compute => 1,
            Self::NVSwitch => 2,
            Self::PowerShelf => 3,
            Self::ToRSwitch => 4,
            Self::Ums => 5,
            Self::Cdu => 6,
        }
    }
}

impl fmt::Display for ComponentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ComponentType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "NVLSwitch" {
            return Ok(Self::NVSwitch);
        }
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(kind, _)| *kind).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(_, name)| *name).collect();
            format!("{text:?} is not one of {}", names.join(", "))
        })
    }
}

/// A machine, switch or shelf, live or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Ours; never derived from hardware.
    pub id: Uuid,
    /// What it is.
    pub kind: ComponentType,
    /// Core's name, else the serial number.
    pub name: Option<SmolStr>,
    /// Label `model`.
    pub model: Option<SmolStr>,
    /// Half of the pair, which is unique over all types, tombstones included.
    pub manufacturer: Option<SmolStr>,
    /// The other half.
    pub serial_number: Option<SmolStr>,
    /// The rack it is in.
    pub rack_id: Option<Uuid>,
    /// Slot in the rack.
    pub slot_id: i64,
    /// Tray in the slot.
    pub tray_index: i64,
    /// Host on the tray.
    pub host_id: i64,
    /// Runtime id, written when the device is observed; unique within a type.
    pub external_id: Option<SmolStr>,
    /// Observed, never mirrored.
    pub firmware_version: Option<SmolStr>,
    /// Observed, never mirrored.
    pub power_state: Option<SmolStr>,
    /// Observed, never mirrored; as Core names it.
    pub status: Option<SmolStr>,
    /// Observed, never mirrored; without times, and its lists in an order of their own.
    pub health: Option<Json>,
    /// Observed, never mirrored; state of the machine's life cycle.
    pub lifecycle_state: Option<SmolStr>,
    /// Several owners, each with its own keys.
    pub description: Option<Json>,
    /// RFC 3339; set in a tombstone.
    pub deleted_at: Option<SmolStr>,
    /// Columns of other owners, `ingested_at` among them.
    pub others: Others,
}

impl Component {
    /// An empty row, live, as it would be inserted.
    pub fn new(id: Uuid, kind: ComponentType) -> Self {
        Self {
            id,
            kind,
            name: None,
            model: None,
            manufacturer: None,
            serial_number: None,
            rack_id: None,
            slot_id: 0,
            tray_index: 0,
            host_id: 0,
            external_id: None,
            firmware_version: None,
            power_state: None,
            status: None,
            health: None,
            lifecycle_state: None,
            description: None,
            deleted_at: None,
            others: Others::default(),
        }
    }

    pub(super) fn key(&self) -> RowKey {
        RowKey::Component(self.kind, self.id)
    }

    /// Not a tombstone.
    pub fn is_live(&self) -> bool {
        self.deleted_at.is_none()
    }

    /// Its hardware, if it is known.
    pub fn pair(&self) -> Option<Pair<'_>> {
        Pair::of(self.manufacturer.as_deref(), self.serial_number.as_deref())
    }

    pub(super) fn label(&self) -> String {
        match (self.pair(), &self.serial_number, &self.name) {
            (Some(pair), _, _) => pair.to_string(),
            (None, Some(text), _) | (None, None, Some(text)) => text.to_string(),
            (None, None, None) => self.id.to_string(),
        }
    }

    pub(super) fn columns(&self) -> Map<String, Value> {
        let mut columns = Map::from_iter([
            ("id".to_owned(), json!(self.id)),
            ("type".to_owned(), json!(self.kind.name())),
            ("name".to_owned(), json!(self.name)),
            ("model".to_owned(), json!(self.model)),
            ("manufacturer".to_owned(), json!(self.manufacturer)),
            ("serial_number".to_owned(), json!(self.serial_number)),
            ("rack_id".to_owned(), json!(self.rack_id)),
            ("slot_id".to_owned(), json!(self.slot_id)),
            ("tray_index".to_owned(), json!(self.tray_index)),
            ("host_id".to_owned(), json!(self.host_id)),
            ("external_id".to_owned(), json!(self.external_id)),
            ("firmware_version".to_owned(), json!(self.firmware_version)),
            ("power_state".to_owned(), json!(self.power_state)),
            ("status".to_owned(), json!(self.status)),
            (
                "health".to_owned(),
                json!(self.health.as_ref().map(Json::value)),
            ),
            ("lifecycle_state".to_owned(), json!(self.lifecycle_state)),
            (
                "description".to_owned(),
                json!(self.description.as_ref().map(Json::value)),
            ),
            ("deleted_at".to_owned(), json!(self.deleted_at)),
        ]);
        self.others.show(&mut columns, &["ingested_at"]);
        columns
    }

    /// All columns but those that are null, as JSON text; `None` where others have columns in between.
    pub(super) fn text(&self) -> Option<String> {
        if !self.others.is_empty() {
            return None;
        }
        let mut text = ColumnText::new();
        let json = |json: &Option<Json>| json.as_ref().map(Json::value).filter(|v| !v.is_null());
        text.add("deleted_at", self.deleted_at.as_ref());
        text.add("description", json(&self.description));
        text.add("external_id", self.external_id.as_ref());
        text.add("firmware_version", self.firmware_version.as_ref());
        text.add("health", json(&self.health));
        text.add("host_id", Some(self.host_id));
        text.add("id", Some(self.id));
        text.add("lifecycle_state", self.lifecycle_state.as_ref());
        text.add("manufacturer", self.manufacturer.as_ref());
        text.add("model", self.model.as_ref());
        text.add("name", self.name.as_ref());
        text.add("power_state", self.power_state.as_ref());
        text.add("rack_id", self.rack_id);
        text.add("serial_number", self.serial_number.as_ref());
        text.add("slot_id", Some(self.slot_id));
        text.add("status", self.status.as_ref());
        text.add("tray_index", Some(self.tray_index));
        text.add("type", Some(self.kind.name()));
        Some(text.finish())
    }

    /// From the columns of a dump; absent ones are null, absent positions 0.
    pub fn from_columns(value: Value) -> Result<Self, ColumnError> {
        let mut columns = Columns::of(value)?;
        Ok(Self {
            id: columns.id("id")?,
            kind: columns.parsed("type")?.unwrap_or(ComponentType::Unknown),
            name: columns.short_text("name")?,
            model: columns.short_text("model")?,
            manufacturer: columns.short_text("manufacturer")?,
            serial_number: columns.short_text("serial_number")?,
            rack_id: columns.parsed("rack_id")?,
            slot_id: columns.integer("slot_id")?,
            tray_index: columns.integer("tray_index")?,
            host_id: columns.integer("host_id")?,
            external_id: columns
                .short_text("external_id")?
                .filter(|id| !id.is_empty()),
            firmware_version: columns.short_text("firmware_version")?,
            power_state: columns.short_text("power_state")?,
            status: columns.short_text("status")?,
            health: columns.json("health").as_ref().map(Json::new),
            lifecycle_state: columns.short_text("lifecycle_state")?,
            description: columns.json("description").as_ref().map(Json::new),
            deleted_at: columns.short_text("deleted_at")?,
            others: columns.others(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_other_owners_come_back_word_for_word() {
        let row = json!({
            "id": "6c1a0a3e-0000-4000-8000-000000000001", "type": "NVLSwitch",
            "health": {"source": "agg", "n": [1, 2]}, "leak_status": "DETECTED",
            "ingested_at": "2026-01-02T03:04:05Z", "slot_id": -1,
        });
        let read = Component::from_columns(row).unwrap();
        let shown = Value::Object(read.columns());
        assert_eq!(shown["type"], "NVSwitch");
        assert_eq!(shown["ingested_at"], "2026-01-02T03:04:05Z");
        assert_eq!(shown["health"]["source"], "agg");
        assert_eq!(shown["leak_status"], "DETECTED");
        assert_eq!(shown["status"], Value::Null);
        assert_eq!(Component::from_columns(shown).unwrap(), read);
    }

    #[test]
    fn a_wrong_column_is_named() {
        let error = Component::from_columns(json!({"id": "x"})).unwrap_err();
        assert!(error.to_string().starts_with("column id: "), "{error}");
        let id = "6c1a0a3e-0000-4000-8000-000000000001";
        let error = Component::from_columns(json!({"id": id, "slot_id": 1.5})).unwrap_err();
        assert_eq!(error.to_string(), "column slot_id: is not a 64-bit integer");
    }

    /// The loss: a column that is in the rows and not in the audit log of their inserts.
    #[test]
    fn the_text_of_a_row_is_its_columns_without_nulls() {
        let full = json!({
            "id": "6c1a0a3e-0000-4000-8000-000000000001", "type": "Compute",
            "name": "a \"b\"", "model": "m", "manufacturer": "NVIDIA", "serial_number": "S1",
            "rack_id": "6c1a0a3e-0000-4000-8000-000000000002",
            "slot_id": 3, "tray_index": -1, "host_id": 2, "external_id": "x",
            "firmware_version": "1", "power_state": "on", "status": "ok", "health": {"b": [1], "a": 2},
            "lifecycle_state": "Ready", "description": {"core": "é"}, "deleted_at": "2026-01-02T03:04:05Z",
        });
        let check = |columns: &Value| {
            let row = Component::from_columns(columns.clone()).unwrap();
            let mut shown = row.columns();
            shown.retain(|_, value| !value.is_null());
            let text = row.text().expect("no columns of other owners");
            assert_eq!(text, Value::Object(shown).to_string());
            row
        };
        let shown = check(&full).columns();
        let unset = shown.iter().filter(|(_, value)| value.is_null());
        assert_eq!(
            unset.map(|(name, _)| name).collect::<Vec<_>>(),
            ["ingested_at"]
        );
        for column in full
            .as_object()
            .unwrap()
            .keys()
            .filter(|name| *name != "id")
        {
            let mut without = full.clone();
            without.as_object_mut().unwrap().remove(column);
            check(&without);
        }
        let bmc = crate::inventory::Bmc {
            mac: "02:00:00:00:00:01".parse().unwrap(),
            kind: crate::inventory::BmcType::Host,
            component_id: Uuid::nil(),
            ip: None,
        };
        for ip in [None, Some("fd00::1".parse().unwrap())] {
            let bmc = crate::inventory::Bmc { ip, ..bmc };
            let mut shown = bmc.columns();
            shown.retain(|_, value| !value.is_null());
            assert_eq!(bmc.text(), Value::Object(shown).to_string());
        }
    }
}
