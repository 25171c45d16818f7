//! Questions about the tables: which differences there are, and what was done. Every answer is of one
//! snapshot, in a fixed order, and may be read in pages: the key of the last row that was seen is the cursor
//! for the next.

mod by_component;
mod of_rack;
mod racks;

pub use by_component::ByComponent;
pub use racks::{RackPage, rack, racks};

use crate::clock::WallTime;
use crate::inventory::{Component, ComponentType, Drift, DriftType, Row};
use crate::mirror::table::audit::{AuditRow, AuditRun, StoredAuditRow};
use crate::mirror::table::{Fault, InventoryError, View};
use crate::mirror::topology;
use crate::store::{Snapshot, TxError};
use crate::visible::visible;
use of_rack::OfRack;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Which drift rows are asked for; `None` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// The component's name, else what it is found by.
    pub name: String,
    /// The rack that the component is in.
    pub rack: Option<RackName>,
    /// When it was first seen as it is.
    since: String,
}

impl DriftView {
    /// Its place in an order by age.
    pub fn age(&self) -> DriftAge {
        DriftAge {
            since: self.since.clone(),
            id: self.id,
        }
    }
}

/// A rack as people find it.
pub struct RackName {
    /// Ours.
    pub id: Uuid,
    /// Core's name, else its pair, else its name.
    pub name: String,
}

/// The place of a drift row in an order by age, the oldest first: `TIME~ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriftAge {
    since: String,
    id: Uuid,
}

impl DriftAge {
    fn of(drift: &Drift) -> Self {
        Self {
            since: drift.checked_at.clone().unwrap_or_default(),
            id: drift.id,
        }
    }
}

impl fmt::Display for DriftAge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}~{}", self.since, self.id)
    }
}

impl FromStr for DriftAge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.rsplit_once('~');
        let parts = parts.and_then(|(since, id)| Some((since.to_owned(), id.parse().ok()?)));
        let (since, id) = parts.ok_or_else(|| format!("{text:?} is no `next` of a page"))?;
        Ok(Self { since, id })
    }
}

/// Drift rows, by id.
pub fn drifts(snapshot: &Snapshot, filter: &DriftFilter) -> Result<Vec<DriftView>, InventoryError> {
    snapshot.view(|tables| {
        let mut found = matching(tables, filter)?;
        found.retain(|drift| filter.cursor.is_none_or(|cursor| drift.id > cursor));
        found.truncate(filter.limit.unwrap_or(usize::MAX));
        found.into_iter().map(|drift| view(drift, tables)).collect()
    })
}

/// Drift rows behind the place `after`, the oldest first.
pub fn drifts_by_age(
    snapshot: &Snapshot,
    filter: &DriftFilter,
    after: Option<&DriftAge>,
) -> Result<Vec<DriftView>, InventoryError> {
    snapshot.view(|tables| {
        let mut found = matching(tables, filter)?;
        found.sort_by_cached_key(DriftAge::of);
        found.retain(|drift| after.is_none_or(|after| DriftAge::of(drift) > *after));
        found.truncate(filter.limit.unwrap_or(usize::MAX));
        found.into_iter().map(|drift| view(drift, tables)).collect()
    })
}

/// The rows that a filter asks for, whatever its cursor and limit are; by id.
fn matching(tables: &View, filter: &DriftFilter) -> Result<Vec<Drift>, Fault> {
    let racks = filter.rack.as_ref().map(|name| racks_named(tables, name));
    let racks = racks.transpose()?;
    let since = |at: &String| at.parse::<WallTime>().ok();
    let wanted = |drift: &Drift| {
        let kind = drift.component_type.map_or("-", |kind| kind.name());
        is_asked(filter.kind.as_deref(), kind)
            && is_asked(filter.code.as_deref(), drift.drift_type.name())
            && filter.since.is_none_or(|from| {
                let at = drift.checked_at.as_ref().and_then(since);
                at.is_some_and(|at| at >= from)
            })
    };
    let mut found = Vec::new();
    for drift in tables.drifts()?.into_iter().filter(wanted) {
        let is_in = match &racks {
            None => true,
            Some(racks) => {
                let rack = component_of(&drift, tables)?.and_then(|component| component.rack_id);
                rack.is_some_and(|rack| racks.contains(&rack))
            }
        };
        found.extend(is_in.then_some(drift));
    }
    Ok(found)
}

/// Racks with this id, rack_id or name.
fn racks_named(tables: &View, name: &str) -> Result<HashSet<Uuid>, Fault> {
    let racks = tables.racks()?.into_iter();
    let racks = racks.filter(|rack| {
        rack.id.to_string() == name
            || rack.external_id.as_deref() == Some(name)
            || rack.name == name
    });
    Ok(racks.map(|rack| rack.id).collect())
}

/// The component of a drift row. A program that wrote no type did not say where to look.
fn component_of(drift: &Drift, tables: &View) -> Result<Option<Component>, Fault> {
    let Some(id) = drift.component_id else {
        return Ok(None);
    };
    match drift.component_type {
        Some(kind) => tables.component(kind, id),
        None => {
            for kind in ComponentType::all() {
                if let Some(found) = tables.component(kind, id)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
    }
}

/// The type of device that somebody names; its case does not matter.
///
/// # Errors
/// There is none; lists those that there are.
pub fn drift_kind(text: &str) -> Result<String, String> {
    text.parse::<ComponentType>()
        .map(|kind| kind.name().to_owned())
        .or_else(|_| one_of(text, ComponentType::all().map(ComponentType::name)))
}

/// The sort of drift that somebody names, as [`drift_kind`].
///
/// # Errors
/// There is none; lists those that there are.
pub fn drift_code(text: &str) -> Result<String, String> {
    one_of(text, DriftType::ALL.map(DriftType::name))
}

/// What the audit log calls the type that somebody names, as [`drift_kind`].
///
/// # Errors
/// There is none; lists those that there are.
pub fn audit_kind(text: &str) -> Result<String, String> {
    let names = ["rack", topology::TYPE].into_iter();
    drift_kind(text).or_else(|_| {
        one_of(
            text,
            names.chain(ComponentType::all().map(ComponentType::name)),
        )
    })
}

fn one_of(text: &str, words: impl IntoIterator<Item = &'static str>) -> Result<String, String> {
    let words: Vec<&str> = words.into_iter().collect();
    let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
    let wrong = || format!("{text:?} is not one of {}", words.join(", "));
    word.map(|word| (*word).to_owned()).ok_or_else(wrong)
}

fn is_asked(asked: Option<&str>, value: &str) -> bool {
    asked.is_none_or(|asked| asked.eq_ignore_ascii_case(value))
}

fn view(drift: Drift, tables: &View) -> Result<DriftView, Fault> {
    let component = component_of(&drift, tables)?;
    let rack = match component.as_ref().and_then(|component| component.rack_id) {
        None => None,
        Some(id) => tables.rack(id)?,
    };
    let label = match (&component, drift.component_id, &drift.external_id) {
        (Some(component), _, _) => Row::Component(Box::new(component.clone())).label(),
        (None, Some(id), _) => id.to_string(),
        (None, None, Some(external_id)) => external_id.clone(),
        (None, None, None) => drift.id.to_string(),
    };
    let kind = drift.component_type.map_or("-", |kind| kind.name());
    let who = visible(&label);
    let mut line = format!("{kind:<11} {:<20} {who}", drift.drift_type.name());
    for diff in &drift.diffs {
        line.push_str(&format!(
            "  {}: {} -> {}",
            diff.field_name,
            visible(&diff.expected_value),
            visible(&diff.actual_value)
        ));
    }
    Ok(DriftView {
        id: drift.id,
        since: drift.checked_at.clone().unwrap_or_default(),
        columns: Value::Object(Row::Drift(Box::new(drift)).columns()),
        line,
        name: component
            .and_then(|component| component.name)
            .map_or(label, String::from),
        rack: rack.map(|rack| RackName {
            id: rack.id,
            name: Row::Rack(Box::new(rack)).label(),
        }),
    })
}

/// Which audit rows are asked for; `None` is all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Id of a run.
    pub run: Option<String>,
    /// Id or address of a row, or what people call it.
    pub row: Option<String>,
    /// Type the change was made for.
    pub kind: Option<String>,
    /// Id, rack_id or name of a rack: only changes of it, of what is in it, and of what came or left.
    pub rack: Option<String>,
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

impl AuditFilter {
    /// The rack that is asked for.
    fn rack(&self, tables: &View) -> Result<Option<OfRack>, Fault> {
        let rack = self.rack.as_ref();
        rack.map(|name| OfRack::read(tables, name)).transpose()
    }

    /// The row, if it is asked for. Most are not, and are not decoded to find that out.
    fn pick(
        &self,
        rack: Option<&OfRack>,
        run: &AuditRun,
        row: StoredAuditRow,
    ) -> Result<Option<AuditRow>, TxError> {
        let time = run.time.parse::<WallTime>().unwrap_or_default();
        let may_be = self.run.as_ref().is_none_or(|id| *id == run.id.to_string())
            && self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && is_asked(self.kind.as_deref(), row.kind())
            && is_asked(self.code.as_deref(), row.op())
            && rack.is_none_or(|rack| rack.may_have(&row));
        if !may_be {
            return Ok(None);
        }
        let row = row.into_row()?;
        let name = |name: &String| *name == row.row || *name == row.key;
        let is_asked = self.row.as_ref().is_none_or(name) && rack.is_none_or(|rack| rack.has(&row));
        Ok(is_asked.then_some(row))
    }
}

impl AuditView {
    fn new(number: u64, run: &AuditRun, row: AuditRow) -> Self {
        let value =
            |text: Option<String>| text.map(|text| serde_json::from_str(&text).unwrap_or_default());
        Self {
            number,
            run: run.id.to_string(),
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
        }
    }
}

/// Audit rows, oldest first.
pub fn audit(snapshot: &Snapshot, filter: &AuditFilter) -> Result<Vec<AuditView>, InventoryError> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let from = filter.cursor.map_or(0, |cursor| cursor.saturating_add(1));
    snapshot.view(|tables| {
        let (mut views, rack) = (Vec::new(), filter.rack(tables)?);
        tables.audit_rows(from, |number, run, row| {
            if views.len() >= limit {
                return Ok(false);
            }
            let row = filter.pick(rack.as_ref(), run, row)?;
            views.extend(row.map(|row| AuditView::new(number, run, row)));
            Ok(true)
        })?;
        Ok(views)
    })
}

/// Most rows of the log that are looked at for one page.
const MOST_LOOKED_AT: usize = 100_000;

/// A part of the audit log.
pub struct AuditPage {
    /// The newest first.
    pub rows: Vec<AuditView>,
    /// The number of the last row that was looked at, where there may be older ones: the cursor of the next page.
    pub next: Option<u64>,
}

/// Audit rows before the one with the number of the filter's cursor, newest first. A page may be short, where few
/// of the rows that were looked at are asked for.
pub fn newest_audit(
    snapshot: &Snapshot,
    filter: &AuditFilter,
) -> Result<AuditPage, InventoryError> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    snapshot.view(|tables| {
        let (mut rows, mut next, mut looked_at) = (Vec::new(), None, 0);
        let (mut last, rack) = (None, filter.rack(tables)?);
        tables.audit_rows_back(filter.cursor.unwrap_or(u64::MAX), |number, run, row| {
            // Runs are in the order of their times: all that follows is older still.
            let time = run.time.parse::<WallTime>().unwrap_or_default();
            if filter.since.is_some_and(|since| time < since) {
                return Ok(false);
            }
            if rows.len() >= limit || looked_at == MOST_LOOKED_AT {
                next = last;
                return Ok(false);
            }
            last = Some(number);
            looked_at += 1;
            let row = filter.pick(rack.as_ref(), run, row)?;
            rows.extend(row.map(|row| AuditView::new(number, run, row)));
            Ok(true)
        })?;
        Ok(AuditPage { rows, next })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::dump;
    use crate::store::Store;
    use serde_json::json;

    /// A store into which a rack was loaded as often as it has names.
    fn store(names: usize) -> Store {
        let store = Store::in_memory().unwrap();
        for n in 0..names {
            let racks = json!([{"id": Uuid::from_u128(1), "name": format!("n{n}")}, {"id": Uuid::from_u128(2), "name": "still"}]);
            let now = WallTime::from_unix_ms(1000 * n as u64).to_string();
            let new_id = &mut Uuid::new_v4;
            dump::load(&store, json!({"rack": racks}), "a test".into(), now, new_id).unwrap();
        }
        store
    }

    /// The loss: a timeline that lacks rows where two pages meet.
    #[test]
    fn pages_of_the_newest_rows_are_the_log_backwards() {
        let store = store(7);
        let snapshot = store.snapshot().unwrap();
        let numbers = |rows: &[AuditView]| rows.iter().map(|row| row.number).collect::<Vec<_>>();
        let mut log = numbers(&audit(&snapshot, &AuditFilter::default()).unwrap());
        assert!(log.len() >= 8);
        log.reverse();
        for limit in 1..=log.len() + 1 {
            let (mut cursor, mut read) = (None, Vec::new());
            loop {
                let filter = AuditFilter {
                    cursor,
                    limit: Some(limit),
                    ..AuditFilter::default()
                };
                let page = newest_audit(&snapshot, &filter).unwrap();
                assert!(page.rows.len() <= limit);
                read.extend(numbers(&page.rows));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(read, log, "pages of {limit}");
        }
        let since = AuditFilter {
            since: Some(WallTime::from_unix_ms(5000)),
            ..AuditFilter::default()
        };
        let page = newest_audit(&snapshot, &since).unwrap();
        let mut expected = numbers(&audit(&snapshot, &since).unwrap());
        expected.reverse();
        assert_eq!((numbers(&page.rows), page.next), (expected, None));
    }

    #[test]
    fn a_place_in_the_order_by_age_is_read_as_it_is_written() {
        let place = DriftAge {
            since: "2026-01-02T03:04:05~Z".into(),
            id: Uuid::from_u128(7),
        };
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in ["", "~", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z~7"] {
            assert!(text.parse::<DriftAge>().is_err(), "{text}");
        }
    }
}
