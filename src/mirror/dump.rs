//! The tables as one JSON document, and back.
//!
//! ```text
//! {"rack": [..], "component": [..], "bmc": [..], "component_drift": [..], "nvldomain": [..]}
//! ```
//!
//! Tombstones are in it. Loading puts each table that the document names in the place of the
//! stored one, ids kept; rows that go are in the audit log. A table it does not name stays.

use super::apply::write_changes;
use super::change::{Change, Op};
use crate::inventory::{Bmc, Component, ComponentType, Domain, Drift, Rack, Row, RowKey};
use crate::mirror::table::audit::AuditRun;
use crate::mirror::table::{Ending, InventoryError, TABLES};
use crate::store::{Snapshot, Store};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Why nothing was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The document is not what a dump looks like.
    #[error("{0}")]
    Malformed(String),
    /// The rows may not be there together, or the store failed.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

/// What was loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Rows in the document, by table.
    pub rows: BTreeMap<String, usize>,
    /// Rows that could not be kept, and why.
    pub left_out: Vec<String>,
}

/// All rows.
pub fn dump(snapshot: &Snapshot) -> Result<Value, InventoryError> {
    let page = page(snapshot, None, None)?;
    Ok(page.map_or(Value::Null, |page| page.tables))
}

/// Some rows of a dump.
pub struct DumpPage {
    /// Rows by table; a table of which none are in the page has an empty list.
    pub tables: Value,
    /// How many they are.
    pub rows: usize,
    /// The last of them, `TABLE/ID`: the cursor of the next page.
    pub last: Option<String>,
}

/// At most `limit` rows behind the row `cursor`, in the order of tables and keys. `None`: there is no such row.
pub fn page(
    snapshot: &Snapshot,
    cursor: Option<&str>,
    limit: Option<usize>,
) -> Result<Option<DumpPage>, InventoryError> {
    snapshot.view(|tables| {
        let mut left = limit.unwrap_or(usize::MAX);
        let mut behind = cursor.is_none();
        let mut page = Map::new();
        let (mut count, mut last) = (0, None);
        for table in TABLES {
            let mut rows = Vec::new();
            let is_of = cursor.is_some_and(|cursor| cursor.split('/').next() == Some(table));
            if left > 0 && (behind || is_of) {
                for row in tables.rows_of(table)? {
                    let name = || format!("{table}/{}", row.key());
                    if !behind {
                        behind = cursor == Some(name().as_str());
                    } else if left > 0 {
                        left -= 1;
                        count += 1;
                        last = Some(row.key()).map(|key| (table, key));
                        rows.push(Value::Object(row.columns()));
                    }
                }
            }
            page.insert(table.to_owned(), Value::Array(rows));
        }
        Ok(behind.then(|| DumpPage {
            tables: Value::Object(page),
            rows: count,
            last: last.map(|(table, key)| format!("{table}/{key}")),
        }))
    })
}

/// Loads a dump. `new_id` names the run, and drift rows that have no id.
pub fn load(
    store: &Store,
    document: Value,
    source: String,
    now: String,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Result<Loaded, LoadError> {
    let Value::Object(mut document) = document else {
        return Err(LoadError::Malformed("not a JSON object".into()));
    };
    let mut loaded = Loaded::default();
    let mut rows: Vec<Row> = Vec::new();
    let mut replaced: Vec<&str> = Vec::new();
    for table in TABLES {
        let list = match document.remove(table) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(list)) => list,
            Some(_) => return Err(LoadError::Malformed(format!("{table}: not a list"))),
        };
        replaced.push(table);
        loaded.rows.insert(table.to_owned(), list.len());
        for (n, value) in list.into_iter().enumerate() {
            let row = match table {
                "rack" => Rack::from_columns(value).map(|row| Row::Rack(Box::new(row))),
                "component" => {
                    Component::from_columns(value).map(|row| Row::Component(Box::new(row)))
                }
                "bmc" => Bmc::from_columns(value).map(|row| Row::Bmc(Box::new(row))),
                "nvldomain" => Domain::from_columns(value).map(|row| Row::Domain(Box::new(row))),
                _ => Drift::from_columns(value, new_id).map(|row| Row::Drift(Box::new(row))),
            };
            match row {
                Ok(row) => rows.push(row),
                // Nothing could ever find such a row again: its key is the address.
                Err(error) if error.column() == "mac_address" => {
                    loaded.left_out.push(format!("{table} #{n}: {error}"));
                }
                Err(error) => return Err(LoadError::Malformed(format!("{table} #{n}: {error}"))),
            }
        }
    }
    if let Some(unknown) = document.keys().next() {
        return Err(LoadError::Malformed(format!("{unknown}: no such table")));
    }
    give_drift_its_type(&mut rows);
    let run = AuditRun {
        id: new_id(),
        time: now,
        source,
    };
    store.inventory(|tables| {
        let mut present: HashMap<RowKey, Row> = HashMap::new();
        for table in replaced {
            let stored = tables.rows_of(table)?;
            present.extend(stored.into_iter().map(|row| (row.key(), row)));
        }
        let mut changes: BTreeMap<RowKey, Change> = BTreeMap::new();
        for row in rows {
            let key = row.key();
            let before = present.remove(&key);
            let change = Change {
                key,
                before,
                after: Some(row),
                ops: Cow::Borrowed(&[(Op::Load, "loaded")]),
            };
            if changes.insert(key, change).is_some() {
                let why = format!("{} {key} is there twice", key.table());
                return Err(crate::mirror::table::Fault::GiveUp(why));
            }
        }
        changes.retain(|_, change| change.before != change.after);
        for (key, row) in present {
            let change = Change {
                key,
                before: Some(row),
                after: None,
                ops: Cow::Borrowed(&[(Op::LoadRemove, "not in the loaded document")]),
            };
            changes.insert(key, change);
        }
        let changes: Vec<Change> = changes.into_values().collect();
        let kind = |change: &Change| match change.key {
            RowKey::Component(kind, _) => kind.name(),
            other => other.table(),
        };
        write_changes(tables, &run, kind, &changes)?;
        let ending = if changes.is_empty() {
            Ending::Discard
        } else {
            Ending::Commit
        };
        Ok(((), ending))
    })?;
    Ok(loaded)
}

/// Drift rows of before there were types get that of their component.
fn give_drift_its_type(rows: &mut [Row]) {
    let types: HashMap<Uuid, ComponentType> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Component(component) => Some((component.id, component.kind)),
            _ => None,
        })
        .collect();
    for row in rows {
        if let Row::Drift(drift) = row
            && drift.component_type.is_none()
        {
            drift.component_type = drift.component_id.and_then(|id| types.get(&id).copied());
        }
    }
}
