//! Writing rows, their indexes, and what stands beside them.

use super::audit::{AuditRow, AuditRun, StoredAuditRow};
use super::index::{IndexEntries, RETIRED, key_bytes, write_key_bytes};
use super::row::{encode_row, encode_row_to};
use super::{Bytes, Fault, GENERATION, NotUnique, Tables, absent_tag};
use crate::inventory::{ComponentType, Row, RowKey};
use crate::store::TxError;
use crate::store::access::Writing;
use crate::store::codec::{decode, encode};
use crate::store::sorted::insert_sorted;
use redb::ReadableTable;
use std::cell::Cell;
use uuid::Uuid;

impl<'tx> Tables<'tx> {
    pub(super) fn count_commit(&mut self) -> Result<(), TxError> {
        let generation: u64 = match self.meta.get(GENERATION)? {
            None => 0,
            Some(value) => decode(value.value())?,
        };
        let next = encode(&(generation + 1))?;
        self.meta.insert(GENERATION, next.as_slice())?;
        Ok(())
    }

    /// Remembers how often in a row rows were missing; 0 forgets.
    pub(crate) fn set_absent(
        &mut self,
        kind: Option<ComponentType>,
        absences: &[(Uuid, u32)],
    ) -> Result<(), Fault> {
        for (id, times) in absences {
            let mut key = vec![absent_tag(kind)];
            key.extend(id.as_bytes());
            if *times == 0 {
                self.absent.remove(key.as_slice())?;
            } else {
                self.absent.insert(key.as_slice(), times)?;
            }
        }
        Ok(())
    }

    /// Keeps a list of ids under a name.
    pub(crate) fn set_list(&mut self, name: &str, list: &[String]) -> Result<(), Fault> {
        if list.is_empty() {
            self.meta.remove(name)?;
        } else {
            let bytes = encode(&list.to_vec()).map_err(TxError::from)?;
            self.meta.insert(name, bytes.as_slice())?;
        }
        Ok(())
    }

    /// Writes rows: each as it is (`None`: not there) and as it will be (`None`: gone). All old
    /// index entries go before the first new one comes, so rows may swap what is unique. Rows best come in the
    /// order of their keys.
    pub(crate) fn apply(&mut self, changes: &[RowChange<'_>]) -> Result<(), Fault> {
        for entry in entries_of(changes, |(before, after)| (*before, *after)).iter() {
            self.index.remove(entry.key)?;
        }
        let entries = entries_of(changes, |(before, after)| (*after, *before));
        insert_entries(&mut self.index, &entries)?;
        drop(entries);
        for changes in changes.chunk_by(|a, b| new_in(a).is_some() && new_in(a) == new_in(b)) {
            match changes {
                [(Some(before), None)] => {
                    let (table, key) = self.table(before.key());
                    table.remove(key.as_slice())?;
                }
                [(_, Some(first)), ..] => self.put_rows(first.key(), changes)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes rows of one table, that of `key`.
    fn put_rows(&mut self, key: RowKey, changes: &[RowChange<'_>]) -> Result<(), Fault> {
        let (table, key) = self.table(key);
        if let [(Some(_), Some(row))] = changes {
            table.insert(
                key.as_slice(),
                encode_row(row).map_err(TxError::from)?.as_slice(),
            )?;
            return Ok(());
        }
        let mut rows = changes.iter().filter_map(|(_, after)| *after);
        insert_sorted(
            table,
            |entry| {
                let Some(row) = rows.next() else {
                    return Ok(false);
                };
                entry.key.clear();
                write_key_bytes(row.key(), &mut entry.key);
                encode_row_to(row, &mut entry.value).map_err(TxError::from)?;
                Ok(true)
            },
            |table, entry| {
                table.insert(entry.key.as_slice(), entry.value.as_slice())?;
                Ok(())
            },
        )
    }

    /// Appends to the audit log.
    pub(crate) fn audit(
        &mut self,
        run: &AuditRun,
        rows: impl IntoIterator<Item: Into<StoredAuditRow>>,
    ) -> Result<(), Fault> {
        Ok(self.audit.append(run, rows.into_iter().map(Into::into))?)
    }

    /// Removes audit rows before a number, except those that `keep` wants. Gives how many.
    pub(crate) fn remove_audit(
        &mut self,
        before: u64,
        keep: impl Fn(u64, &AuditRow) -> bool,
    ) -> Result<u64, Fault> {
        Ok(self.audit.remove(before, keep)?)
    }

    /// Adds rows to the checkpoint of the audit log, which is as of before the audit row `from`. The first ones,
    /// `number` 0, are those of a new checkpoint.
    pub(crate) fn add_audit_checkpoint(
        &mut self,
        from: u64,
        number: u64,
        rows: Vec<AuditRow>,
    ) -> Result<(), Fault> {
        Ok(self.audit.add_checkpoint(from, number, rows)?)
    }

    /// Removes index entries that nobody looks up any more. Whether there were any.
    pub(crate) fn remove_retired_entries(&mut self) -> Result<bool, Fault> {
        let (begin, end) = ([RETIRED], [RETIRED + 1]);
        let retired = begin.as_slice()..end.as_slice();
        let any = self.index.range(retired.clone())?.next().is_some();
        if any {
            self.index.retain_in(retired, |_, _| false)?;
        }
        Ok(any)
    }

    /// Packs audit rows together that were written one by one. Gives how many packs that saves.
    pub(crate) fn pack_audit(&mut self) -> Result<u64, Fault> {
        Ok(self.audit.pack()?)
    }

    fn table(&mut self, key: RowKey) -> (&mut Bytes<Writing<'tx>>, Vec<u8>) {
        let bytes = key_bytes(key);
        let table = match key {
            RowKey::Rack(_) => &mut self.rack,
            RowKey::Component(..) => &mut self.component,
            RowKey::Bmc(_) => &mut self.bmc,
            RowKey::Drift(_) => &mut self.drift,
            RowKey::Domain(_) => &mut self.domain,
        };
        (table, bytes)
    }
}

/// A row as it is and as it will be.
type RowChange<'r> = (Option<&'r Row>, Option<&'r Row>);

/// The table of a row that was not there.
fn new_in(change: &RowChange<'_>) -> Option<&'static str> {
    match change {
        (None, Some(row)) => Some(row.key().table()),
        _ => None,
    }
}

/// Index entries that one side of the changes has and the other lacks, in order, because that is much cheaper for
/// a tree. An entry names its row: what both sides of a change have is the same entry, and no other change has it.
fn entries_of<'r>(
    changes: &[RowChange<'r>],
    sides: impl Fn(&RowChange<'r>) -> RowChange<'r>,
) -> IndexEntries {
    let (mut entries, mut spare) = (IndexEntries::default(), IndexEntries::default());
    for (side, other) in changes.iter().map(sides) {
        if let Some(side) = side {
            entries.add_difference(side, other, &mut spare);
        }
    }
    entries.sort();
    entries
}

fn insert_entries(table: &mut Bytes<Writing<'_>>, entries: &IndexEntries) -> Result<(), Fault> {
    let (mut rest, index) = (entries.iter(), Cell::new(""));
    insert_sorted(
        table,
        |entry| {
            let Some(next) = rest.next() else {
                return Ok(false);
            };
            entry.key.clear();
            entry.key.extend(next.key);
            entry.value.clear();
            entry.value.extend(next.value);
            index.set(next.index.name());
            Ok(true)
        },
        |_, entry| {
            let value = String::from_utf8_lossy(entry.key.get(5..).unwrap_or_default());
            Err(Fault::NotUnique(NotUnique {
                index: index.get(),
                value: value.into_owned(),
            }))
        },
    )
}
