//! What the mirror did and why, written in the transaction that did it.
//!
//! ```text
//! audit_run         number              -> AuditRun      id, time and source of a run, once
//! audit             number of first row -> AuditChunk    rows of one run, each one change: of one field,
//!                                                        or of a row as a whole
//! audit_checkpoint  number of first row -> AuditChunk    all rows of all tables as they were before the
//!                                                        row of `audit` that the head names
//! ```
//!
//! Numbers only grow. A row that is removed for good is in `old` as a whole, so that it can be put
//! back; one that came is kept as its table has it, a third of its text ([`row`]). Rows that are written together are
//! packed together: a row alone takes 400 bytes, among others 30.

use crate::store::access::{Access, Open, Writing};
use crate::store::codec::{self, CodecError, Row, decode, encode, encode_version};
use crate::store::{TxError, pack, unpack};
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;

mod row;

pub(crate) use row::{AuditRow, AuditRun, StoredAuditRow};

const RUNS: TableDefinition<u64, &[u8]> = TableDefinition::new("audit_run");
const ROWS: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
const CHECKPOINT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit_checkpoint");

/// Rows that are packed together: what a reader who wants one of them unpacks.
const CHUNK_ROWS: usize = 500;

/// Rows of one run. In the second version all of them were whole; in the first it was one, not packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AuditChunk<'a> {
    run: u64,
    /// Distance of the last row's number from that of the chunk.
    last: u32,
    /// Length once unpacked, in bytes; 0: it is not packed.
    unpacked: u32,
    /// Distances and rows.
    #[serde(borrow)]
    rows: Cow<'a, [u8]>,
}

type Numbered = (u32, StoredAuditRow);

/// Versions of the rows in a chunk: whole ones, and all that are stored.
const WHOLE: u8 = 1;
const STORED: u8 = 2;

impl AuditChunk<'_> {
    fn new(run: u64, rows: &[Numbered]) -> Result<Self, CodecError> {
        let plain = encode_version(STORED, &rows)?;
        let last = rows.last().map_or(0, |(distance, _)| *distance);
        let packed = pack(&plain);
        let (unpacked, rows) = match packed {
            Some(packed) if packed.len() < plain.len() => (plain.len(), packed),
            _ => (0, plain),
        };
        Ok(Self {
            run,
            last,
            unpacked: u32::try_from(unpacked)
                .map_err(|_| CodecError::TooLarge { bytes: unpacked })?,
            rows: Cow::Owned(rows),
        })
    }

    fn stored(&self) -> Result<Vec<Numbered>, TxError> {
        let plain = match usize::try_from(self.unpacked).unwrap_or(usize::MAX) {
            0 => Cow::Borrowed(self.rows.as_ref()),
            length => Cow::Owned(unpack(&self.rows, length)?),
        };
        match plain.split_first() {
            Some((&STORED, rows)) => Ok(codec::fields(rows)?),
            Some((&WHOLE, rows)) => {
                let rows: Vec<(u32, AuditRow)> = codec::fields(rows)?;
                let rows = rows.into_iter();
                Ok(rows.map(|(distance, row)| (distance, row.into())).collect())
            }
            other => {
                let version = other.map(|(version, _)| *version);
                Err(CodecError::UnknownVersion(version).into())
            }
        }
    }

    fn rows(&self) -> Result<Vec<(u32, AuditRow)>, TxError> {
        let rows = self.stored()?.into_iter();
        rows.map(|(distance, row)| Ok((distance, row.into_row()?)))
            .collect()
    }
}

impl<'a> Row<'a> for AuditChunk<'a> {
    const VERSION: u8 = 3;

    fn read_old(version: u8, fields: &'a [u8]) -> Result<Self, CodecError> {
        match version {
            2 => codec::fields(fields),
            1 => {
                let (run, row): (u64, AuditRow) = codec::fields(fields)?;
                Ok(Self {
                    run,
                    last: 0,
                    unpacked: 0,
                    rows: Cow::Owned(encode_version(WHOLE, &[(0_u32, row)].as_slice())?),
                })
            }
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

/// The head of rows that are packed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditHead {
    /// Number of the first row.
    pub(crate) number: u64,
    /// Number of the last row.
    pub(crate) last: u64,
    /// When the rows were written, RFC 3339.
    pub(crate) time: String,
    /// Length of the rows in the file, in bytes.
    pub(crate) bytes: u64,
}

/// The audit tables within a transaction.
pub(crate) struct Audit<A: Access> {
    runs: A::Table<u64, &'static [u8]>,
    rows: A::Table<u64, &'static [u8]>,
    checkpoint: A::Table<u64, &'static [u8]>,
}

impl Audit<Writing<'_>> {
    /// Appends the rows of one run.
    pub(super) fn append(
        &mut self,
        run: &AuditRun,
        rows: impl IntoIterator<Item = StoredAuditRow>,
    ) -> Result<(), TxError> {
        let mut rows = rows.into_iter();
        loop {
            let numbered: Vec<Numbered> = (0..).zip(rows.by_ref().take(CHUNK_ROWS)).collect();
            if numbered.is_empty() {
                return Ok(());
            }
            let chunk = AuditChunk::new(self.number(run)?, &numbered)?;
            let next = self.next()?;
            self.rows.insert(next, encode(&chunk)?.as_slice())?;
        }
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

    /// Removes rows before the number `before`, except those that `keep` wants. Gives how many. The last row of
    /// the log stays, so that numbers go on growing.
    pub(super) fn remove(
        &mut self,
        before: u64,
        keep: impl Fn(u64, &AuditRow) -> bool,
    ) -> Result<u64, TxError> {
        let before = before.min(self.next()?.saturating_sub(1));
        let mut removed = 0;
        for number in self.chunks_before(before)? {
            let Some(value) = self.rows.remove(number)? else {
                continue;
            };
            let bytes = value.value().to_vec();
            drop(value);
            let chunk: AuditChunk<'_> = decode(&bytes)?;
            let mut rows = Vec::new();
            for (distance, row) in chunk.stored()? {
                let number = number + u64::from(distance);
                if number >= before || keep(number, &row.clone().into_row()?) {
                    rows.push((distance, row));
                } else {
                    removed += 1;
                }
            }
            if !rows.is_empty() {
                let chunk = AuditChunk::new(chunk.run, &rows)?;
                self.rows.insert(number, encode(&chunk)?.as_slice())?;
            }
        }
        if removed > 0 {
            self.remove_unused_runs()?;
        }
        Ok(removed)
    }

    fn chunks_before(&self, before: u64) -> Result<Vec<u64>, TxError> {
        let numbers = self.rows.range(..before)?;
        numbers.map(|entry| Ok(entry?.0.value())).collect()
    }

    fn remove_unused_runs(&mut self) -> Result<(), TxError> {
        let mut used = BTreeSet::new();
        for entry in self.rows.iter()? {
            used.insert(decode::<AuditChunk<'_>>(entry?.1.value())?.run);
        }
        // The newest run may be about to write more.
        used.extend(self.runs.last()?.map(|(number, _)| number.value()));
        Ok(self.runs.retain(|number, _| used.contains(&number))?)
    }

    /// Packs rows of one run that lie next to each other together. Gives how many packs became one of others.
    pub(super) fn pack(&mut self) -> Result<u64, TxError> {
        let mut saved = 0;
        let mut open: Option<(u64, u64, Vec<Numbered>)> = None;
        for number in self.chunks_before(u64::MAX)? {
            let Some(value) = self.rows.get(number)? else {
                continue;
            };
            let chunk: AuditChunk<'_> = decode(value.value())?;
            let (run, rows) = (chunk.run, chunk.stored()?);
            drop(value);
            let fits = |(_, of, others): &&mut (u64, u64, Vec<Numbered>)| {
                *of == run && others.len() + rows.len() <= CHUNK_ROWS
            };
            if let Some((first, _, others)) = open.as_mut().filter(fits) {
                let Ok(distance) = u32::try_from(number - *first) else {
                    continue;
                };
                others.extend(rows.into_iter().map(|(d, row)| (distance + d, row)));
                self.rows.remove(number)?;
                saved += 1;
                continue;
            }
            self.put_pack(open.replace((number, run, rows)))?;
        }
        self.put_pack(open)?;
        Ok(saved)
    }

    fn put_pack(&mut self, open: Option<(u64, u64, Vec<Numbered>)>) -> Result<(), TxError> {
        if let Some((number, run, rows)) = open {
            let chunk = AuditChunk::new(run, &rows)?;
            self.rows.insert(number, encode(&chunk)?.as_slice())?;
        }
        Ok(())
    }

    /// Adds rows to the checkpoint; with `number` 0 a new one begins. No rows at all say that there is one.
    pub(super) fn add_checkpoint(
        &mut self,
        from: u64,
        number: u64,
        rows: Vec<AuditRow>,
    ) -> Result<(), TxError> {
        if number == 0 {
            self.checkpoint.retain(|_, _| false)?;
        }
        let rows = rows.into_iter().map(StoredAuditRow::from);
        let numbered: Vec<Numbered> = (0..).zip(rows).collect();
        let chunk = AuditChunk::new(from, &numbered)?;
        self.checkpoint.insert(number, encode(&chunk)?.as_slice())?;
        Ok(())
    }
}

impl<A: Access> Audit<A> {
    pub(super) fn open(tx: &impl Open<A>) -> Result<Self, TxError> {
        Ok(Self {
            runs: tx.table(RUNS)?,
            rows: tx.table(ROWS)?,
            checkpoint: tx.table(CHECKPOINT)?,
        })
    }

    /// Number of the next row.
    fn next(&self) -> Result<u64, TxError> {
        Ok(match self.rows.last()? {
            None => 0,
            Some((number, value)) => {
                let chunk: AuditChunk<'_> = decode(value.value())?;
                number.value() + u64::from(chunk.last) + 1
            }
        })
    }

    fn run(&self, number: u64) -> Result<AuditRun, TxError> {
        let value = self.runs.get(number)?;
        let value =
            value.ok_or_else(|| TxError::Corrupt(format!("audit run {number} is missing")))?;
        Ok(decode(value.value())?)
    }

    /// Gives every row from number `from` on with its run, oldest first, until `each` answers false.
    pub(super) fn scan(
        &self,
        from: u64,
        mut each: impl FnMut(u64, &AuditRun, StoredAuditRow) -> Result<bool, TxError>,
    ) -> Result<(), TxError> {
        let mut current: Option<(u64, AuditRun)> = None;
        // The row may be in the middle of what is packed together.
        let begin = self.rows.range(..=from)?.next_back().transpose()?;
        let begin = begin.map_or(from, |(number, _)| number.value());
        for entry in self.rows.range(begin..)? {
            let (first, value) = entry?;
            let chunk: AuditChunk<'_> = decode(value.value())?;
            if current.as_ref().is_none_or(|(run, _)| *run != chunk.run) {
                current = Some((chunk.run, self.run(chunk.run)?));
            }
            let Some((_, run)) = &current else { continue };
            for (distance, row) in chunk.stored()? {
                let number = first.value() + u64::from(distance);
                if number >= from && !each(number, run, row)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Gives every row before number `before` with its run, newest first, until `each` answers false.
    pub(super) fn scan_back(
        &self,
        before: u64,
        mut each: impl FnMut(u64, &AuditRun, StoredAuditRow) -> Result<bool, TxError>,
    ) -> Result<(), TxError> {
        let mut current: Option<(u64, AuditRun)> = None;
        for entry in self.rows.range(..before)?.rev() {
            let (first, value) = entry?;
            let chunk: AuditChunk<'_> = decode(value.value())?;
            if current.as_ref().is_none_or(|(run, _)| *run != chunk.run) {
                current = Some((chunk.run, self.run(chunk.run)?));
            }
            let Some((_, run)) = &current else { continue };
            for (distance, row) in chunk.stored()?.into_iter().rev() {
                let number = first.value() + u64::from(distance);
                if number < before && !each(number, run, row)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The heads of the log, oldest first.
    pub(super) fn heads(&self) -> Result<Vec<AuditHead>, TxError> {
        let mut current: Option<(u64, String)> = None;
        let mut heads = Vec::new();
        for entry in self.rows.iter()? {
            let (number, value) = entry?;
            let chunk: AuditChunk<'_> = decode(value.value())?;
            if current.as_ref().is_none_or(|(run, _)| *run != chunk.run) {
                current = Some((chunk.run, self.run(chunk.run)?.time));
            }
            let number = number.value();
            heads.push(AuditHead {
                number,
                last: number + u64::from(chunk.last),
                time: current
                    .as_ref()
                    .map_or_else(String::new, |(_, time)| time.clone()),
                bytes: u64::try_from(value.value().len()).unwrap_or(u64::MAX),
            });
        }
        Ok(heads)
    }

    /// Gives every row of the checkpoint, and the number from which the log replays; `None` where there is none.
    pub(super) fn checkpoint(
        &self,
        mut each: impl FnMut(AuditRow),
    ) -> Result<Option<u64>, TxError> {
        let mut from = None;
        for entry in self.checkpoint.iter()? {
            let value = entry?.1;
            let chunk: AuditChunk<'_> = decode(value.value())?;
            from = Some(chunk.run);
            chunk.rows()?.into_iter().for_each(|(_, row)| each(row));
        }
        Ok(from)
    }
}

#[cfg(test)]
mod tests;
