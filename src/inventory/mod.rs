//! What the mirror keeps: racks, components, their BMCs, and how reality differs.
//!
//! ```text
//! rack       1 --- n component        component.rack_id, a live rack or nothing
//! component  1 --- n bmc              bmc.component_id; the MAC is the key, one Host each
//! component  1 --- n component_drift  what was observed and is not as expected
//! nvldomain  1 --- n rack             rack.nvldomain_id
//! ```
//!
//! Rows as they are stored and shown. Columns that belong to somebody else are kept word for word
//! in [`Others`]; times are RFC 3339 text for the same reason. A *pair* is (manufacturer,
//! serial_number), both non-empty; a *tombstone* is a row with `deleted_at`.

mod bmc;
mod columns;
mod component;
mod domain;
mod drift;
mod mac;
mod rack;
mod record;

pub use bmc::{Bmc, BmcType};
pub use columns::{ColumnError, Json, Others};
pub use component::{Component, ComponentType};
pub use domain::Domain;
pub use drift::{Drift, DriftType, FieldDiff};
pub use mac::{Mac, MacError};
pub use rack::Rack;
pub use record::Record;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::fmt;
use uuid::Uuid;

/// What is mirrored as one: pulled together, written in one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Racks.
    Rack,
    /// Machines.
    Compute,
    /// NVLink switches.
    NVSwitch,
    /// Power shelves.
    PowerShelf,
}

impl Kind {
    /// All of them, in the order of a cycle: racks first, because components point to them.
    pub const ALL: [Self; 4] = [Self::Rack, Self::Compute, Self::NVSwitch, Self::PowerShelf];

    /// The type of its rows in the component table; `None` for racks.
    pub fn component_type(self) -> Option<ComponentType> {
        match self {
            Self::Rack => None,
            Self::Compute => Some(ComponentType::Compute),
            Self::NVSwitch => Some(ComponentType::NVSwitch),
            Self::PowerShelf => Some(ComponentType::PowerShelf),
        }
    }

    /// As it is written in summaries and the audit log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rack => "rack",
            Self::Compute => "Compute",
            Self::NVSwitch => "NVSwitch",
            Self::PowerShelf => "PowerShelf",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Core's name of a rack: never empty, unique within a site.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RackId(SmolStr);

impl RackId {
    /// `None` for the empty text, which names nothing.
    pub fn new(text: impl Into<SmolStr>) -> Option<Self> {
        let text = text.into();
        (!text.is_empty()).then_some(Self(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Manufacturer and serial number, both there: names one piece of hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair<'a> {
    manufacturer: &'a str,
    serial: &'a str,
}

impl<'a> Pair<'a> {
    /// `None` unless both are there and not empty.
    pub fn of(manufacturer: Option<&'a str>, serial: Option<&'a str>) -> Option<Self> {
        match (manufacturer, serial) {
            (Some(manufacturer), Some(serial))
                if !manufacturer.is_empty() && !serial.is_empty() =>
            {
                Some(Self {
                    manufacturer,
                    serial,
                })
            }
            _ => None,
        }
    }

    /// Who made it.
    pub fn manufacturer(self) -> &'a str {
        self.manufacturer
    }

    /// Its serial number.
    pub fn serial(self) -> &'a str {
        self.serial
    }

    /// Both halves in one text, the length of the first in front, so that no two pairs look the same.
    pub fn key(self) -> Box<str> {
        let (manufacturer, serial) = (self.manufacturer, self.serial);
        let mut key = String::with_capacity(manufacturer.len() + serial.len() + 4);
        key.push_str(&manufacturer.len().to_string());
        key.push(':');
        key.push_str(manufacturer);
        key.push_str(serial);
        key.into()
    }
}

impl fmt::Display for Pair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.manufacturer, self.serial)
    }
}

/// A row of any table; boxed, because a first load holds hundreds of thousands of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of `rack`.
    Rack(Box<Rack>),
    /// Of `component`.
    Component(Box<Component>),
    /// Of `bmc`.
    Bmc(Box<Bmc>),
    /// Of `component_drift`.
    Drift(Box<Drift>),
    /// Of `nvldomain`.
    Domain(Box<Domain>),
}

/// The key of a row: what its table is, and which row of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowKey {
    /// A rack by id.
    Rack(Uuid),
    /// A component by type and id: rows of one type lie together.
    Component(ComponentType, Uuid),
    /// A BMC by address.
    Bmc(Mac),
    /// A drift row by id.
    Drift(Uuid),
    /// A domain by id.
    Domain(Uuid),
}

impl RowKey {
    /// The id; `None` of a BMC, which has none.
    pub fn id(self) -> Option<Uuid> {
        match self {
            Self::Rack(id) | Self::Component(_, id) | Self::Drift(id) | Self::Domain(id) => {
                Some(id)
            }
            Self::Bmc(_) => None,
        }
    }

    /// The table as it is named in a dump.
    pub fn table(self) -> &'static str {
        match self {
            Self::Rack(_) => "rack",
            Self::Component(..) => "component",
            Self::Bmc(_) => "bmc",
            Self::Drift(_) => "component_drift",
            Self::Domain(_) => "nvldomain",
        }
    }
}

/// The id or address.
impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rack(id) | Self::Component(_, id) | Self::Drift(id) | Self::Domain(id) => {
                id.fmt(f)
            }
            Self::Bmc(mac) => mac.fmt(f),
        }
    }
}

impl Row {
    /// Its key.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Rack(row) => row.key(),
            Self::Component(row) => row.key(),
            Self::Bmc(row) => RowKey::Bmc(row.mac),
            Self::Drift(row) => row.key(),
            Self::Domain(row) => row.key(),
        }
    }

    /// All columns, as a dump shows them.
    pub fn columns(&self) -> Map<String, Value> {
        match self {
            Self::Rack(row) => row.columns(),
            Self::Component(row) => row.columns(),
            Self::Bmc(row) => row.columns(),
            Self::Drift(row) => row.columns(),
            Self::Domain(row) => row.columns(),
        }
    }

    /// All columns but those that are null, as JSON text with sorted keys.
    pub fn text(&self) -> String {
        match self {
            Self::Component(row) => row.text(),
            Self::Bmc(row) => Some(row.text()),
            Self::Rack(_) | Self::Drift(_) | Self::Domain(_) => None,
        }
        .unwrap_or_else(|| {
            let mut columns = self.columns();
            columns.retain(|_, value| !value.is_null());
            Value::Object(columns).to_string()
        })
    }

    /// What people call it: rack_id, pair, name or address, the first there is.
    pub fn label(&self) -> String {
        match self {
            Self::Rack(row) => row.label(),
            Self::Component(row) => row.label(),
            Self::Bmc(row) => row.mac.to_string(),
            Self::Drift(row) => row.label(),
            Self::Domain(row) => row.label(),
        }
    }
}
