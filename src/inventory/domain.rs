//! One row of `nvldomain`.

use super::RowKey;
use super::columns::{ColumnError, Columns, Others};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// An NVLink domain, live or a tombstone: racks whose switches form one fabric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Ours; never derived from what Core calls it.
    pub id: Uuid,
    /// Core's rack group, or the domain's own id where Core has no groups; unique where set.
    pub external_id: Option<String>,
    /// Somebody else's name for it.
    pub name: Option<String>,
    /// Cluster that the controllers of its switches report.
    pub nmxc_cluster_id: Option<Uuid>,
    /// RFC 3339.
    pub created_at: Option<String>,
    /// RFC 3339; set in a tombstone.
    pub deleted_at: Option<String>,
    /// Columns of other owners.
    pub others: Others,
}

impl Domain {
    /// A live row, as it would be inserted.
    pub fn new(id: Uuid, external_id: String, now: &str) -> Self {
        Self {
            id,
            external_id: Some(external_id),
            name: None,
            nmxc_cluster_id: None,
            created_at: Some(now.to_owned()),
            deleted_at: None,
            others: Others::default(),
        }
    }

    pub(super) fn key(&self) -> RowKey {
        RowKey::Domain(self.id)
    }

    /// Not a tombstone.
    pub fn is_live(&self) -> bool {
        self.deleted_at.is_none()
    }

    pub(super) fn label(&self) -> String {
        let name = self.external_id.as_ref().or(self.name.as_ref());
        name.map_or_else(|| self.id.to_string(), String::clone)
    }

    pub(super) fn columns(&self) -> Map<String, Value> {
        let mut columns = Map::from_iter([
            ("id".to_owned(), json!(self.id)),
            ("external_id".to_owned(), json!(self.external_id)),
            ("name".to_owned(), json!(self.name)),
            ("nmxc_cluster_id".to_owned(), json!(self.nmxc_cluster_id)),
            ("created_at".to_owned(), json!(self.created_at)),
            ("deleted_at".to_owned(), json!(self.deleted_at)),
        ]);
        self.others.show(&mut columns, &[]);
        columns
    }

    /// From the columns of a dump; absent ones are null.
    pub fn from_columns(value: Value) -> Result<Self, ColumnError> {
        let mut columns = Columns::of(value)?;
        Ok(Self {
            id: columns.id("id")?,
            external_id: columns.text("external_id")?.filter(|id| !id.is_empty()),
            name: columns.text("name")?,
            nmxc_cluster_id: columns.parsed_or_empty("nmxc_cluster_id")?,
            created_at: columns.text("created_at")?,
            deleted_at: columns.text("deleted_at")?,
            others: columns.others(),
        })
    }
}
