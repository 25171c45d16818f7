//! One row of `bmc`. There are no tombstones here, and no credentials: live ones are elsewhere,
//! and a copy would only be a stale secret.

use super::Mac;
use super::columns::{ColumnError, ColumnText, Columns};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::str::FromStr;
use uuid::Uuid;

/// What a BMC controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum BmcType {
    /// Not said.
    Unknown,
    /// The component itself: the only rows that the mirror writes.
    Host,
    /// A DPU in it: written when devices are observed.
    Dpu,
}

impl BmcType {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::Host => "Host",
            Self::Dpu => "DPU",
        }
    }
}

impl FromStr for BmcType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "Unknown" => Ok(Self::Unknown),
            "Host" => Ok(Self::Host),
            "DPU" => Ok(Self::Dpu),
            _ => Err(format!("{text:?} is not one of Unknown, Host, DPU")),
        }
    }
}

/// A BMC of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bmc {
    /// The key.
    pub mac: Mac,
    /// What it controls.
    pub kind: BmcType,
    /// Whose it is.
    pub component_id: Uuid,
    /// Where it answers.
    pub ip: Option<IpAddr>,
}

impl Bmc {
    pub(super) fn columns(&self) -> Map<String, Value> {
        Map::from_iter([
            ("mac_address".to_owned(), json!(self.mac.to_string())),
            ("type".to_owned(), json!(self.kind.name())),
            ("component_id".to_owned(), json!(self.component_id)),
            ("ip_address".to_owned(), json!(self.ip)),
        ])
    }

    /// All columns but those that are null, as JSON text.
    pub(super) fn text(&self) -> String {
        let mut text = ColumnText::new();
        text.add("component_id", Some(self.component_id));
        text.add("ip_address", self.ip);
        text.add("mac_address", Some(self.mac.to_string()));
        text.add("type", Some(self.kind.name()));
        text.finish()
    }

    /// From the columns of a dump. Whatever else the object holds, credentials above all, is
    /// left where it is.
    pub fn from_columns(value: Value) -> Result<Self, ColumnError> {
        let mut columns = Columns::of(value)?;
        Ok(Self {
            mac: Columns::needed("mac_address", columns.parsed("mac_address")?)?,
            kind: columns.parsed("type")?.unwrap_or(BmcType::Unknown),
            component_id: columns.id("component_id")?,
            ip: columns.parsed_or_empty("ip_address")?,
        })
    }
}
