//! One row of `component_drift`: missing here, missing there, or differs.

use super::columns::{ColumnError, Columns, wrong};
use super::{ComponentType, RowKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::str::FromStr;
use uuid::Uuid;

/// How reality differs from what is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DriftType {
    /// A device that no component stands for.
    MissingInExpected,
    /// A component without a device.
    MissingInActual,
    /// Both are there and differ.
    Mismatch,
}

impl DriftType {
    /// All of them.
    pub const ALL: [Self; 3] = [
        Self::MissingInExpected,
        Self::MissingInActual,
        Self::Mismatch,
    ];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingInExpected => "missing_in_expected",
            Self::MissingInActual => "missing_in_actual",
            Self::Mismatch => "mismatch",
        }
    }
}

impl FromStr for DriftType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == text);
        found.ok_or_else(|| format!("{text:?} is no type of drift"))
    }
}

/// One field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FieldDiff {
    /// The column.
    pub field_name: String,
    /// What is expected, as text.
    pub expected_value: String,
    /// What was observed, as text; `<missing>` when nothing was.
    pub actual_value: String,
}

/// One difference between what is expected and what was observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// Ours.
    pub id: Uuid,
    /// The component, unless the device is expected nowhere.
    pub component_id: Option<Uuid>,
    /// Runtime id of the device, if there is one.
    pub external_id: Option<String>,
    /// `None` only in rows of a program that did not write it.
    pub component_type: Option<ComponentType>,
    /// Which difference.
    pub drift_type: DriftType,
    /// The fields of a mismatch.
    pub diffs: Vec<FieldDiff>,
    /// RFC 3339; when the difference was first seen as it is.
    pub checked_at: Option<String>,
}

impl Drift {
    pub(super) fn key(&self) -> RowKey {
        RowKey::Drift(self.id)
    }

    pub(super) fn label(&self) -> String {
        self.id.to_string()
    }

    pub(super) fn columns(&self) -> Map<String, Value> {
        let diffs: Vec<Value> = self
            .diffs
            .iter()
            .map(|d| {
                json!({
                    "field_name": d.field_name,
                    "expected_value": d.expected_value,
                    "actual_value": d.actual_value,
                })
            })
            .collect();
        Map::from_iter([
            ("id".to_owned(), json!(self.id)),
            ("component_id".to_owned(), json!(self.component_id)),
            ("external_id".to_owned(), json!(self.external_id)),
            (
                "component_type".to_owned(),
                json!(self.component_type.map(ComponentType::name)),
            ),
            ("drift_type".to_owned(), json!(self.drift_type.name())),
            ("diffs".to_owned(), json!(diffs)),
            ("checked_at".to_owned(), json!(self.checked_at)),
        ])
    }

    /// From the columns of a dump; `new_id` names rows that have no id yet.
    pub fn from_columns(
        value: Value,
        new_id: &mut dyn FnMut() -> Uuid,
    ) -> Result<Self, ColumnError> {
        let mut columns = Columns::of(value)?;
        Ok(Self {
            id: columns.parsed("id")?.unwrap_or_else(new_id),
            component_id: columns.parsed("component_id")?,
            external_id: columns.text("external_id")?,
            component_type: columns.parsed("component_type")?,
            drift_type: Columns::needed("drift_type", columns.parsed("drift_type")?)?,
            diffs: match columns.json("diffs") {
                None => Vec::new(),
                Some(diffs) => serde_json::from_value(diffs)
                    .map_err(|error| wrong("diffs", &error.to_string()))?,
            },
            checked_at: columns.text("checked_at")?,
        })
    }
}
