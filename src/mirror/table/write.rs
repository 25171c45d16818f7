//! Writing rows, their indexes, and what stands beside them.

use super::audit::{AuditRow, AuditRun};
use super::index::{Index, index_entries, key_bytes};
use super::{Bytes, Fault, GENERATION, NotUnique, Tables, absent_tag};
use crate::inventory::{ComponentType, Row, RowKey};
use crate::store::TxError;
use crate::store::access::Writing;
use crate::store::codec::{decode, encode};
use redb::ReadableTable;
use uuid::Uuid;

/// Changes whose index entries are written at once.
const INDEX_CHUNK: usize = 20_000;

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
    /// index entries go before the first new one comes, so rows may swap what is unique.
    pub(crate) fn apply(&mut self, changes: &[(Option<&Row>, Option<&Row>)]) -> Result<(), Fault> {
        // Bit by bit: the entries of a first load take more memory than its rows.
        for changes in changes.chunks(INDEX_CHUNK) {
            for (key, _, _) in entries_of(changes, |(before, after)| (*before, *after)) {
                self.index.remove(key.as_slice())?;
            }
        }
        for changes in changes.chunks(INDEX_CHUNK) {
            for (key, value, index) in entries_of(changes, |(before, after)| (*after, *before)) {
                let there = self.index.insert(key.as_slice(), value.as_slice())?;
                if there.is_some() {
                    return Err(Fault::NotUnique(NotUnique {
                        index: index.name(),
                        value: String::from_utf8_lossy(key.get(5..).unwrap_or_default())
                            .into_owned(),
                    }));
                }
            }
        }
        for (before, after) in changes {
            match (before, after) {
                (_, Some(after)) => {
                    let (table, key) = self.table(after.key());
                    table.insert(key.as_slice(), encode_row(after)?.as_slice())?;
                }
                (Some(before), None) => {
                    let (table, key) = self.table(before.key());
                    table.remove(key.as_slice())?;
                }
                (None, None) => {}
            }
        }
        Ok(())
    }

    /// Appends to the audit log.
    pub(crate) fn audit(&mut self, run: &AuditRun, rows: &[AuditRow]) -> Result<(), Fault> {
        Ok(self.audit.append(run, rows)?)
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
        rows: &[AuditRow],
    ) -> Result<(), Fault> {
        Ok(self.audit.add_checkpoint(from, number, rows)?)
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

fn encode_row(row: &Row) -> Result<Vec<u8>, TxError> {
    Ok(match row {
        Row::Rack(row) => encode(row.as_ref()),
        Row::Component(row) => encode(row.as_ref()),
        Row::Bmc(row) => encode(row.as_ref()),
        Row::Drift(row) => encode(row.as_ref()),
        Row::Domain(row) => encode(row.as_ref()),
    }?)
}

type IndexEntry = (Vec<u8>, Vec<u8>, Index);

/// A row as it is and as it will be.
type RowChange<'r> = (Option<&'r Row>, Option<&'r Row>);

/// Index entries that one side of the changes has and the other lacks, in order, because that is much cheaper for
/// a tree. An entry names its row: what both sides of a change have is the same entry, and no other change has it.
fn entries_of<'r>(
    changes: &[RowChange<'r>],
    sides: impl Fn(&RowChange<'r>) -> RowChange<'r>,
) -> Vec<IndexEntry> {
    let mut all = Vec::new();
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    for (side, other) in changes.iter().map(sides) {
        side.into_iter()
            .for_each(|row| index_entries(row, &mut mine));
        other
            .into_iter()
            .for_each(|row| index_entries(row, &mut others));
        all.extend(mine.drain(..).filter(|entry| !others.contains(entry)));
        others.clear();
    }
    all.sort_unstable();
    all
}
