//! Changes while they are being decided: one per row, whatever touches it how often.

use super::{Change, Op};
use crate::inventory::{Bmc, Drift, Record, Row, RowKey};
use std::collections::BTreeMap;

/// Collects changes by row.
#[derive(Debug, Default)]
pub struct Draft {
    changes: BTreeMap<RowKey, Change>,
}

impl Draft {
    /// The row as it will be, to be changed. A row that was removed comes back as it was.
    pub fn edit<R: Record>(&mut self, row: &R, op: Op, why: &'static str) -> &mut R {
        let change = self.changes.entry(row.key()).or_insert_with(|| Change {
            key: row.key(),
            before: Some(row.to_row()),
            after: Some(row.to_row()),
            ops: Vec::new(),
        });
        change.ops.push((op, why));
        let after = change.after.get_or_insert_with(|| row.to_row());
        match R::of(after) {
            Some(row) => row,
            None => unreachable!("the key names the table"),
        }
    }

    /// Writes a row as a whole: a new one, or a BMC that changes hands.
    pub fn put(&mut self, before: Option<Row>, after: Row, op: Op, why: &'static str) {
        let key = after.key();
        let change = self.changes.entry(key).or_insert_with(|| Change {
            key,
            before,
            after: None,
            ops: Vec::new(),
        });
        change.after = Some(after);
        change.ops.push((op, why));
    }

    /// Removes a row for good.
    pub fn remove(&mut self, before: Row, op: Op, why: &'static str) {
        let key = before.key();
        let change = self.changes.entry(key).or_insert_with(|| Change {
            key,
            before: Some(before),
            after: None,
            ops: Vec::new(),
        });
        change.after = None;
        change.ops.push((op, why));
    }

    /// Writes a BMC.
    pub fn put_bmc(&mut self, before: Option<Bmc>, after: Bmc, op: Op, why: &'static str) {
        self.put(before.map(Row::Bmc), Row::Bmc(after), op, why);
    }

    /// Writes a drift row.
    pub fn put_drift(&mut self, after: Drift, op: Op, why: &'static str) {
        self.put(None, Row::Drift(Box::new(after)), op, why);
    }

    /// The changes by key, without those that change nothing. `now` goes into the times of racks.
    pub fn finish(self, now: &str) -> Vec<Change> {
        let mut changes: Vec<Change> = self
            .changes
            .into_values()
            .filter(|change| change.before != change.after)
            .collect();
        for change in &mut changes {
            if let Some(Row::Rack(rack)) = &mut change.after {
                rack.updated_at = Some(now.to_owned());
                if change.before.is_none() {
                    rack.created_at = Some(now.to_owned());
                }
            }
        }
        changes
    }
}
