//! What the mirror did and why, written in the transaction that did it.
//!
//! ```text
//! audit_run  number -> AuditRun     id, time and source of a run, once
//! audit      number -> AuditRow     one change: of one field, or of a row as a whole
//! ```
//!
//! Numbers only grow. A row that is removed for good is in `old` as a whole, so that it can be put
//! back.

use super::TxError;
use super::access::{Access, Open, Writing};
use super::codec::{decode, encode, encode_version};
use super::row::Row;
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const RUNS: TableDefinition<u64, &[u8]> = TableDefinition::new("audit_run");
const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");

/// One run that changed something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRun {
    /// Names the run.
    pub id: Uuid,
    /// RFC 3339.
    pub time: String,
    /// Where the change came from; never holds a secret.
    pub source: String,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRow {
    /// Type the change was made for.
    pub kind: String,
    /// Table of the row.
    pub table: String,
    /// What was done.
    pub op: String,
    /// Id or address of the row.
    pub row: String,
    /// What people call the row.
    pub key: String,
    /// The column, unless it is about the row as a whole.
    pub field: Option<String>,
    /// JSON text of the old value.
    pub old: Option<String>,
    /// JSON text of the new value.
    pub new: Option<String>,
    /// Why.
    pub reason: String,
}

/// The audit tables within a transaction.
pub(crate) struct Audit<A: Access> {
    runs: A::Table<u64, &'static [u8]>,
    rows: A::Table<u64, &'static [u8]>,
}

impl Audit<Writing<'_>> {
    /// Appends the rows of one run.
    pub(super) fn append(&mut self, run: &AuditRun, rows: &[AuditRow]) -> Result<(), TxError> {
        if rows.is_empty() {
            return Ok(());
        }
        let number = self.number(run)?;
        let next = self.rows.last()?.map_or(0, |(key, _)| key.value() + 1);
        for (next, row) in (next..).zip(rows) {
            let bytes = encode_version(<(u64, AuditRow)>::VERSION, &(number, row))?;
            self.rows.insert(next, bytes.as_slice())?;
        }
        Ok(())
    }

    /// The number of a run; the last one if it is the same run, which writes once per type.
    fn number(&mut self, run: &AuditRun) -> Result<u64, TxError> {
        let last = match self.runs.last()? {
            None => None,
            Some((key, value)) => Some((key.value(), decode::<AuditRun>(value.value())?)),
        };
        let next = match last {
            Some((number, last)) if last.id == run.id => return Ok(number),
            Some((number, _)) => number + 1,
            None => 0,
        };
        self.runs.insert(next, encode(run)?.as_slice())?;
        Ok(next)
    }
}

impl<A: Access> Audit<A> {
    pub(super) fn open(tx: &impl Open<A>) -> Result<Self, TxError> {
        Ok(Self {
            runs: tx.table(RUNS)?,
            rows: tx.table(ROWS)?,
        })
    }

    /// Gives every row from number `from` on with its run, oldest first, until `each` answers false.
    pub(super) fn scan(
        &self,
        from: u64,
        mut each: impl FnMut(u64, &AuditRun, AuditRow) -> bool,
    ) -> Result<(), TxError> {
        let mut current: Option<(u64, AuditRun)> = None;
        for entry in self.rows.range(from..)? {
            let (key, value) = entry?;
            let (number, row) = decode::<(u64, AuditRow)>(value.value())?;
            let run = match &mut current {
                Some((known, run)) if *known == number => run,
                stale => {
                    let value = self.runs.get(number)?;
                    let value = value.ok_or_else(|| {
                        TxError::Corrupt(format!("audit run {number} is missing"))
                    })?;
                    &mut stale.insert((number, decode(value.value())?)).1
                }
            };
            if !each(key.value(), run, row) {
                break;
            }
        }
        Ok(())
    }
}
