//! Bounds of the audit log, and the checkpoint from which the rest replays.
//!
//! ```text
//! checkpoint: all rows before row N ── rows N.. of the log, in order ──► the tables
//! ```
//!
//! - Nothing is removed without a bound. Rows are removed oldest first; those that hold the last copy of a row
//!   which is gone for good go last, and only for the size.
//! - What is removed is some rows more than the bound asks for, so that not every cycle writes a checkpoint.
//! - The times at which a rack was written are not in the log, and in a checkpoint they are those of now.

use crate::clock::WallTime;
use crate::inventory::Row;
use crate::mirror::table::audit::AuditHead;
use crate::mirror::table::audit::{AuditRow, AuditRun};
use crate::mirror::table::{Ending, Fault, InventoryError, TABLES, Tables};
use crate::store::Store;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::time::Duration;
use uuid::Uuid;

/// What a removal is called in the log, and the rows of a checkpoint.
const CHECKPOINT: &str = "checkpoint";

/// Rows of a checkpoint that are written at once.
const CHUNK: usize = 500;

/// How much of the audit log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditBounds {
    /// Rows that are older are removed; `None`: never for their age.
    pub max_age: Option<Duration>,
    /// Bytes that the rows may take in the file; `None`: any number.
    pub max_bytes: Option<u64>,
}

/// What was removed from the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Rows removed.
    pub rows: u64,
    /// Number of the row from which the log replays.
    pub from: u64,
}

impl AuditBounds {
    /// Number of the row before which rows go, if any have to.
    fn cut(self, heads: &[AuditHead], now: WallTime) -> Option<u64> {
        let age = self.max_age.and_then(|most| {
            let is_older = |head: &AuditHead, age: Duration| now.since(time_of(head)) > age;
            heads.iter().find(|head| is_older(head, most + most / 8))?;
            let keep = heads.iter().find(|head| !is_older(head, most));
            keep.map(|head| head.number).or(Some(u64::MAX))
        });
        let size = self.max_bytes.and_then(|most| {
            let mut bytes: u64 = heads.iter().map(|head| head.bytes).sum();
            if bytes <= most {
                return None;
            }
            let keep = heads.iter().find(|head| {
                let fits = bytes <= most - most / 4;
                bytes = bytes.saturating_sub(head.bytes);
                fits
            });
            keep.map(|head| head.number).or(Some(u64::MAX))
        });
        age.max(size)
    }
}

fn time_of(head: &AuditHead) -> WallTime {
    head.time.parse().unwrap_or_default()
}

/// What is known of a log from which nothing could be removed. The log is the same for as long as the store has
/// seen no other commit, so a quiet cycle need not read the heads of all of it.
#[derive(Debug, Default)]
pub struct WithinBounds(Option<Known>);

#[derive(Debug)]
struct Known {
    bounds: AuditBounds,
    /// Commits the store had seen.
    generation: u64,
    /// When the oldest row was written that may be removed for its age one day.
    oldest: WallTime,
}

impl WithinBounds {
    /// Whether nothing has become too many or too old since the heads were read.
    fn holds(&self, bounds: AuditBounds, generation: u64, now: WallTime) -> bool {
        self.0.as_ref().is_some_and(|known| {
            let is_young = |most: Duration| now.since(known.oldest) <= most + most / 8;
            known.bounds == bounds
                && known.generation == generation
                && bounds.max_age.is_none_or(is_young)
        })
    }
}

/// [`keep`], unless it is known that there is nothing to remove.
///
/// # Errors
/// As there.
pub fn keep_unless_known(
    known: &mut WithinBounds,
    store: &Store,
    bounds: AuditBounds,
    now: WallTime,
    run: &mut dyn FnMut() -> Uuid,
) -> Result<Option<Removed>, InventoryError> {
    if bounds == AuditBounds::default() {
        return Ok(None);
    }
    let snapshot = store.snapshot()?;
    let generation = snapshot.view(|view| view.generation())?;
    if known.holds(bounds, generation, now) {
        return Ok(None);
    }
    known.0 = None;
    let heads = snapshot.view(|view| view.audit_heads())?;
    let cut = bounds.cut(&heads, now);
    if let Some(before) = cut
        && let Some(removed) = remove_before(before, store, bounds, now, run)?
    {
        return Ok(Some(removed));
    }
    // Beyond the bounds, what is too old now is there to stay: the last copies of rows.
    let may_go = |time: &WallTime| {
        let is_young = |most: Duration| now.since(*time) <= most;
        cut.is_none() || bounds.max_age.is_none_or(is_young)
    };
    let oldest = heads.iter().map(time_of).filter(may_go).min();
    known.0 = Some(Known {
        bounds,
        generation,
        oldest: oldest.unwrap_or(now),
    });
    Ok(None)
}

/// Removes what is beyond the bounds, and writes a checkpoint where it does. `run` draws the id of the removal.
///
/// # Errors
/// The store failed; then nothing was removed.
pub fn keep(
    store: &Store,
    bounds: AuditBounds,
    now: WallTime,
    run: &mut dyn FnMut() -> Uuid,
) -> Result<Option<Removed>, InventoryError> {
    if bounds == AuditBounds::default() {
        return Ok(None);
    }
    let heads = store.snapshot()?.view(|view| view.audit_heads())?;
    match bounds.cut(&heads, now) {
        Some(before) => remove_before(before, store, bounds, now, run),
        None => Ok(None),
    }
}

/// Removes rows before this number, as far as no row is the last copy of something.
fn remove_before(
    before: u64,
    store: &Store,
    bounds: AuditBounds,
    now: WallTime,
    run: &mut dyn FnMut() -> Uuid,
) -> Result<Option<Removed>, InventoryError> {
    store.inventory_without_count(|tables| {
        let run = AuditRun {
            id: run(),
            time: now.to_string(),
            source: "retention".into(),
        };
        let removed = remove(tables, before, bounds.max_bytes, &run)?;
        let ending = match removed {
            Some(_) => Ending::Commit,
            None => Ending::Discard,
        };
        Ok((removed, ending))
    })
}

/// Removes rows before a number, and writes the checkpoint.
fn remove(
    tables: &mut Tables<'_>,
    before: u64,
    max_bytes: Option<u64>,
    run: &AuditRun,
) -> Result<Option<Removed>, Fault> {
    let next = tables.audit_heads()?.last().map_or(0, |head| head.last + 1);
    let from = before.min(next);
    let mut rows = tables.remove_audit(from, |_, row| row.is_hard_delete())?;
    let heads = tables.audit_heads()?;
    let size = AuditBounds {
        max_age: None,
        max_bytes,
    };
    if let Some(cut) = size.cut(&heads, WallTime::default()) {
        // Nothing but the last copies of rows is left before it.
        rows += tables.remove_audit(cut.min(from), |_, _| false)?;
    }
    if rows == 0 {
        return Ok(None);
    }
    let count = write_checkpoint(tables, from)?;
    let what = serde_json::json!({"removed": rows, "replays_from": from, "rows": count});
    let row = AuditRow {
        kind: "audit".into(),
        table: "audit".into(),
        op: CHECKPOINT.into(),
        row: String::new(),
        key: format!("{rows} rows"),
        field: None,
        old: None,
        new: Some(what.to_string()),
        reason: "the bounds of the audit log".into(),
    };
    tables.audit(run, [row])?;
    Ok(Some(Removed { rows, from }))
}

/// What the log says a row was before.
#[derive(Default)]
struct Before {
    /// The row as a whole, once the log has one: `None` where there was none.
    whole: Option<Option<Map<String, Value>>>,
    /// Columns that changed first.
    columns: HashMap<String, Option<Value>>,
}

impl Before {
    /// The first thing that the log says of the row or of a column counts.
    fn note(&mut self, row: &AuditRow) {
        if self.whole.is_some() {
            return;
        }
        let old = row
            .old
            .as_deref()
            .and_then(|old| serde_json::from_str(old).ok());
        match &row.field {
            Some(field) => {
                self.columns.entry(field.clone()).or_insert(old);
            }
            None => {
                self.whole = Some(match old {
                    Some(Value::Object(columns)) => Some(columns),
                    _ => None,
                });
            }
        }
    }

    /// The columns of the row, of which `now` is what is there now.
    fn columns(self, now: Option<Map<String, Value>>) -> Option<Map<String, Value>> {
        let mut columns = self.whole.unwrap_or(now)?;
        for (name, value) in self.columns {
            columns.insert(name, value.unwrap_or_default());
        }
        columns.retain(|_, value| !value.is_null());
        Some(columns)
    }
}

/// Writes all rows of all tables as they were before the audit row `from`: those of now, with the rows of the log
/// taken back. Gives how many.
fn write_checkpoint(tables: &mut Tables<'_>, from: u64) -> Result<u64, Fault> {
    let mut before: HashMap<(String, String), (Before, AuditRow)> = HashMap::new();
    tables.audit_rows(from, |_, _, row| {
        let row = row.into_row()?;
        // What the log says of a run as a whole is about no row.
        let says_nothing = row.field.is_none() && row.old.is_none() && row.new.is_none();
        if !row.row.is_empty() && !says_nothing {
            let key = (row.table.to_string(), row.row.clone());
            let (known, _) = before
                .entry(key)
                .or_insert_with(|| (Before::default(), as_it_was(row.clone(), None)));
            known.note(&row);
        }
        Ok(true)
    })?;
    let mut written = 0;
    let mut write = |tables: &mut Tables<'_>, rows: Vec<AuditRow>| {
        let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        written += count;
        tables.add_audit_checkpoint(from, written - count, rows)
    };
    // One pack in any case: it says from where the log replays.
    write(tables, Vec::new())?;
    for table in TABLES {
        for rows in tables.rows_of(table)?.chunks(CHUNK) {
            let rows = rows.iter().filter_map(|row| {
                let key = (table.to_owned(), row.key().to_string());
                let known = before.remove(&key).map(|(before, _)| before);
                let columns = known.unwrap_or_default().columns(Some(row.columns()))?;
                Some(checkpoint_row(row, columns))
            });
            write(tables, rows.collect())?;
        }
    }
    let gone = before.into_values().filter_map(|(before, row)| {
        let columns = before.columns(None)?;
        Some(as_it_was(row, Some(columns)))
    });
    let gone: Vec<AuditRow> = gone.collect();
    for rows in gone.chunks(CHUNK) {
        write(tables, rows.to_vec())?;
    }
    Ok(written)
}

/// The row of a checkpoint that is about the same row of a table as `row`.
fn as_it_was(row: AuditRow, columns: Option<Map<String, Value>>) -> AuditRow {
    AuditRow {
        op: CHECKPOINT.into(),
        field: None,
        old: None,
        new: columns.map(|columns| Value::Object(columns).to_string()),
        reason: "as it was".into(),
        ..row
    }
}

fn checkpoint_row(row: &Row, columns: Map<String, Value>) -> AuditRow {
    let kind = match row {
        Row::Component(component) => component.kind.name(),
        other => other.key().table(),
    };
    AuditRow {
        kind: kind.into(),
        table: row.key().table().into(),
        op: CHECKPOINT.into(),
        row: row.key().to_string(),
        key: row.label(),
        field: None,
        old: None,
        new: Some(Value::Object(columns).to_string()),
        reason: "as it was".into(),
    }
}

#[cfg(test)]
mod tests;
