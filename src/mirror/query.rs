//! Questions about the tables: which differences there are, and what was done. Every answer is of one
//! snapshot, in a fixed order, and may be read in pages: the key of the last row that was seen is the cursor
//! for the next.

use crate::clock::WallTime;
use crate::inventory::{Component, Drift, Row};
use crate::mirror::table::InventoryError;
use crate::store::Snapshot;
use crate::visible::visible;
use serde::Serialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;
use uuid::Uuid;

/// Which drift rows are asked for; `None` is all.
#[derive(Clone, Debug, Default)]
pub struct DriftFilter {
    /// Type of the component.
    pub kind: Option<String>,
    /// Id, rack_id or name of a rack: only components in it.
    pub rack: Option<String>,
    /// `missing_in_expected`, `missing_in_actual` or `mismatch`.
    pub code: Option<String>,
    /// Seen as they are from this time on.
    pub since: Option<WallTime>,
    /// Only rows behind the one with this id.
    pub cursor: Option<Uuid>,
    /// At most as many.
    pub limit: Option<usize>,
}

/// A drift row to print.
pub struct DriftView {
    /// Its id: the cursor of what follows.
    pub id: Uuid,
    /// For programs.
    pub columns: Value,
    /// For people.
    pub line: String,
}

/// Drift rows, by id.
pub fn drifts(snapshot: &Snapshot, filter: &DriftFilter) -> Result<Vec<DriftView>, InventoryError> {
    snapshot.view(|tables| {
        let components = tables.all_components()?.into_iter();
        let components: HashMap<Uuid, Component> = components.map(|c| (c.id, c)).collect();
        let racks: Option<HashSet<Uuid>> = match &filter.rack {
            None => None,
            Some(name) => {
                let racks = tables.racks()?.into_iter();
                let racks = racks.filter(|rack| {
                    rack.id.to_string() == *name
                        || rack.external_id.as_ref() == Some(name)
                        || rack.name == *name
                });
                Some(racks.map(|rack| rack.id).collect())
            }
        };
        let wanted = |drift: &Drift| {
            let component = drift.component_id.and_then(|id| components.get(&id));
            let kind = drift.component_type.map_or("-", |kind| kind.name());
            let since = |at: &String| at.parse::<WallTime>().ok();
            filter.cursor.is_none_or(|cursor| drift.id > cursor)
                && is_asked(filter.kind.as_deref(), kind)
                && is_asked(filter.code.as_deref(), drift.drift_type.name())
                && filter.since.is_none_or(|from| {
                    let at = drift.checked_at.as_ref().and_then(since);
                    at.is_some_and(|at| at >= from)
                })
                && racks.as_ref().is_none_or(|racks| {
                    let rack = component.and_then(|component| component.rack_id);
                    rack.is_some_and(|rack| racks.contains(&rack))
                })
        };
        let found = tables.drifts()?.into_iter().filter(wanted);
        let found = found.take(filter.limit.unwrap_or(usize::MAX));
        Ok(found.map(|drift| view(drift, &components)).collect())
    })
}

fn is_asked(asked: Option<&str>, value: &str) -> bool {
    asked.is_none_or(|asked| asked.eq_ignore_ascii_case(value))
}

fn view(drift: Drift, components: &HashMap<Uuid, Component>) -> DriftView {
    let who = match (drift.component_id, &drift.external_id) {
        (Some(id), _) => components.get(&id).map_or_else(
            || id.to_string(),
            |component| Row::Component(Box::new(component.clone())).label(),
        ),
        (None, Some(external_id)) => external_id.clone(),
        (None, None) => drift.id.to_string(),
    };
    let kind = drift.component_type.map_or("-", |kind| kind.name());
    let who = visible(&who);
    let mut line = format!("{kind:<11} {:<20} {who}", drift.drift_type.name());
    for diff in &drift.diffs {
        line.push_str(&format!(
            "  {}: {} -> {}",
            diff.field_name,
            visible(&diff.expected_value),
            visible(&diff.actual_value)
        ));
    }
    DriftView {
        id: drift.id,
        columns: Value::Object(Row::Drift(Box::new(drift)).columns()),
        line,
    }
}

/// Which audit rows are asked for; `None` is all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Id of a run.
    pub run: Option<String>,
    /// Id or address of a row, or what people call it.
    pub row: Option<String>,
    /// Type the change was made for.
    pub kind: Option<String>,
    /// What was done, as `op` says it.
    pub code: Option<String>,
    /// From this time on.
    pub since: Option<WallTime>,
    /// Before this time.
    pub until: Option<WallTime>,
    /// Only rows behind the one with this number.
    pub cursor: Option<u64>,
    /// At most as many.
    pub limit: Option<usize>,
}

/// An audit row to print.
#[derive(Clone, Debug, Serialize)]
pub struct AuditView {
    /// Place in the log: the cursor of what follows.
    pub number: u64,
    /// The run it belongs to.
    pub run: String,
    /// RFC 3339.
    pub time: String,
    /// Where the change came from.
    pub source: String,
    /// Type it was made for.
    #[serde(rename = "type")]
    pub kind: String,
    /// What was done.
    pub op: String,
    /// Table of the row.
    pub table: String,
    /// Id or address of the row.
    pub row: String,
    /// What people call it.
    pub key: String,
    /// The column, unless it is about the row as a whole.
    pub field: Option<String>,
    /// Old value.
    pub old: Option<Value>,
    /// New value.
    pub new: Option<Value>,
    /// Why.
    pub reason: String,
}

/// Audit rows, oldest first.
pub fn audit(snapshot: &Snapshot, filter: &AuditFilter) -> Result<Vec<AuditView>, InventoryError> {
    let value =
        |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap_or_default());
    let limit = filter.limit.unwrap_or(usize::MAX);
    let from = filter.cursor.map_or(0, |cursor| cursor.saturating_add(1));
    snapshot.view(|tables| {
        let mut views = Vec::new();
        tables.audit_rows(from, |number, run, row| {
            if views.len() >= limit {
                return false;
            }
            let time = run.time.parse::<WallTime>().unwrap_or_default();
            let id = run.id.to_string();
            let wanted = filter.run.as_ref().is_none_or(|run| *run == id)
                && filter
                    .row
                    .as_ref()
                    .is_none_or(|r| *r == row.row || *r == row.key)
                && is_asked(filter.kind.as_deref(), &row.kind)
                && is_asked(filter.code.as_deref(), &row.op)
                && filter.since.is_none_or(|since| time >= since)
                && filter.until.is_none_or(|until| time < until);
            if wanted {
                views.push(AuditView {
                    number,
                    run: id,
                    time: run.time.clone(),
                    source: run.source.clone(),
                    kind: row.kind.into_owned(),
                    op: row.op.into_owned(),
                    table: row.table.into_owned(),
                    row: row.row,
                    key: row.key,
                    field: row.field,
                    old: value(row.old),
                    new: value(row.new),
                    reason: row.reason.into_owned(),
                });
            }
            true
        })?;
        Ok(views)
    })
}

/// The checkpoint that the audit log replays from: number of the first row behind it, and all rows as they were.
pub fn checkpoint(snapshot: &Snapshot) -> Result<Option<(u64, Vec<Value>)>, InventoryError> {
    snapshot.view(|tables| {
        let mut rows = Vec::new();
        let from = tables.audit_checkpoint(|row| {
            let columns = row
                .new
                .and_then(|new| serde_json::from_str::<Value>(&new).ok());
            rows.push(serde_json::json!({"table": row.table, "row": row.row, "columns": columns}));
        })?;
        Ok(from.map(|from| (from, rows)))
    })
}

impl fmt::Display for AuditView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:<15} {:<11} {}",
            self.time,
            self.op,
            self.kind,
            visible(&self.key)
        )?;
        let show = |value: &Option<Value>| value.as_ref().map_or("null".into(), Value::to_string);
        if let Some(field) = &self.field {
            write!(f, "  {field}: {} -> {}", show(&self.old), show(&self.new))?;
        }
        write!(f, "  ({})", self.reason)
    }
}
