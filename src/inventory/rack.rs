//! One row of `rack`.

use super::columns::{ColumnError, Columns, Json, Others};
use super::{Pair, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A rack, live or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack {
    /// Ours; never derived from hardware.
    pub id: Uuid,
    /// Unique, tombstones included, where the policy says so.
    pub name: String,
    /// Half of the pair.
    pub manufacturer: Option<String>,
    /// The other half.
    pub serial_number: Option<String>,
    /// Core's rack_id; never empty, unique where set.
    pub external_id: Option<String>,
    /// `{model, text}`, only what there is.
    pub description: Option<Json>,
    /// `{region, datacenter or data_center, room, position}`, only what there is.
    pub location: Option<Json>,
    /// Core's name of the rack's profile.
    pub rack_profile_id: Option<String>,
    /// `new` when inserted; whoever ingests the rack moves it on.
    pub status: String,
    /// RFC 3339.
    pub created_at: Option<String>,
    /// RFC 3339; when the mirror last wrote the row.
    pub updated_at: Option<String>,
    /// RFC 3339; set in a tombstone.
    pub deleted_at: Option<String>,
    /// The NVLink domain it is in: id of a row, as text because other programs write it too.
    pub nvldomain_id: Option<String>,
    /// Core's group of racks it is in.
    pub rack_group_id: Option<String>,
    /// Observed; without times, and its lists in an order of their own.
    pub health: Option<Json>,
    /// Columns of other owners, `ingested_at` among them.
    pub others: Others,
}

impl Rack {
    /// An empty row under this id, live, as it would be inserted.
    pub fn new(id: Uuid, name: String) -> Self {
        Self {
            id,
            name,
            manufacturer: None,
            serial_number: None,
            external_id: None,
            description: None,
            location: None,
            rack_profile_id: None,
            status: "new".into(),
            created_at: None,
            updated_at: None,
            deleted_at: None,
            nvldomain_id: None,
            rack_group_id: None,
            health: None,
            others: Others::default(),
        }
    }

    pub(super) fn key(&self) -> RowKey {
        RowKey::Rack(self.id)
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
        match (&self.external_id, self.pair()) {
            (Some(rack_id), _) => rack_id.clone(),
            (None, Some(pair)) => pair.to_string(),
            (None, None) => self.name.clone(),
        }
    }

    pub(super) fn columns(&self) -> Map<String, Value> {
        let mut columns = Map::from_iter([
            ("id".to_owned(), json!(self.id)),
            ("name".to_owned(), json!(self.name)),
            ("manufacturer".to_owned(), json!(self.manufacturer)),
            ("serial_number".to_owned(), json!(self.serial_number)),
            ("external_id".to_owned(), json!(self.external_id)),
            (
                "description".to_owned(),
                json!(self.description.as_ref().map(Json::value)),
            ),
            (
                "location".to_owned(),
                json!(self.location.as_ref().map(Json::value)),
            ),
            ("rack_profile_id".to_owned(), json!(self.rack_profile_id)),
            ("status".to_owned(), json!(self.status)),
            ("created_at".to_owned(), json!(self.created_at)),
            ("updated_at".to_owned(), json!(self.updated_at)),
            ("deleted_at".to_owned(), json!(self.deleted_at)),
            ("nvldomain_id".to_owned(), json!(self.nvldomain_id)),
            ("rack_group_id".to_owned(), json!(self.rack_group_id)),
            (
                "health".to_owned(),
                json!(self.health.as_ref().map(Json::value)),
            ),
        ]);
        self.others.show(&mut columns, &["ingested_at"]);
        columns
    }

    /// From the columns of a dump; absent ones are null.
    pub fn from_columns(value: Value) -> Result<Self, ColumnError> {
        let mut columns = Columns::of(value)?;
        Ok(Self {
            id: columns.id("id")?,
            name: Columns::needed("name", columns.text("name")?)?,
            manufacturer: columns.text("manufacturer")?,
            serial_number: columns.text("serial_number")?,
            // The empty text is how others spell "none"; two of them would clash.
            external_id: columns.text("external_id")?.filter(|id| !id.is_empty()),
            description: columns.json("description").as_ref().map(Json::new),
            location: columns.json("location").as_ref().map(Json::new),
            rack_profile_id: columns.text("rack_profile_id")?,
            status: columns.text("status")?.unwrap_or_else(|| "new".into()),
            created_at: columns.text("created_at")?,
            updated_at: columns.text("updated_at")?,
            deleted_at: columns.text("deleted_at")?,
            // Some programs write the zero UUID for none.
            nvldomain_id: columns
                .text("nvldomain_id")?
                .filter(|id| *id != Uuid::nil().to_string()),
            rack_group_id: columns.text("rack_group_id")?,
            health: columns.json("health").as_ref().map(Json::new),
            others: columns.others(),
        })
    }
}
