//! Slots of all sinks, and what each named sink accepted last.
//!
//! The sink without a name has tables that only know guests, because files of format 1 have those; what it accepted
//! stands in the guest's row. Named sinks share two tables, whose keys begin with the guest: who asks whether any
//! sink still needs a report reads a few rows that stand together.

use super::{DocumentId, SlotRow, StoredSink, readable};
use crate::clock::WallTime;
use crate::report::VmId;
use crate::sense::sink_name::SinkName;
use crate::store::codec::Row;
use crate::store::{TxError, codec};
use redb::{
    AccessGuard, Key, ReadTransaction, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Slots of the sink without a name.
pub(super) const SLOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("pending_slots");

type NamedKey = (&'static str, &'static str);

/// Slots of named sinks, by guest and sink.
const NAMED_SLOTS: TableDefinition<NamedKey, &[u8]> = TableDefinition::new("sink_slots");

/// What named sinks accepted last, by guest and sink.
const NAMED_ACCEPTED: TableDefinition<NamedKey, &[u8]> = TableDefinition::new("sink_accepted");

/// What a sink accepted last of a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct AcceptedRow {
    report: DocumentId,
    at: WallTime,
}

impl Row<'_> for AcceptedRow {
    const VERSION: u8 = 1;
}

/// The tables, open to be written.
pub(super) struct Slots<'tx> {
    unnamed: Table<'tx, &'static str, &'static [u8]>,
    named: Table<'tx, NamedKey, &'static [u8]>,
    accepted: Table<'tx, NamedKey, &'static [u8]>,
}

impl<'tx> Slots<'tx> {
    pub(super) fn open(tx: &'tx WriteTransaction) -> Result<Self, TxError> {
        Ok(Self {
            unnamed: tx.open_table(SLOTS)?,
            named: tx.open_table(NAMED_SLOTS)?,
            accepted: tx.open_table(NAMED_ACCEPTED)?,
        })
    }

    /// A slot; `None` also when it cannot be read.
    pub(super) fn get(&self, sink: &SinkName, vm: &VmId) -> Result<Option<SlotRow>, TxError> {
        let bytes = match sink.is_default() {
            true => self.unnamed.get(vm.as_str())?,
            false => self.named.get((vm.as_str(), sink.as_str()))?,
        };
        Ok(bytes.and_then(|bytes| read(vm, &bytes)))
    }

    pub(super) fn put(&mut self, sink: &SinkName, vm: &VmId, row: &SlotRow) -> Result<(), TxError> {
        let row = codec::encode(row)?;
        match sink.is_default() {
            true => drop(self.unnamed.insert(vm.as_str(), row.as_slice())?),
            false => {
                let key = (vm.as_str(), sink.as_str());
                drop(self.named.insert(key, row.as_slice())?);
            }
        }
        Ok(())
    }

    /// Removes a slot. Says whether no sink needs the guest's report any more.
    pub(super) fn remove(&mut self, sink: &SinkName, vm: &VmId) -> Result<bool, TxError> {
        match sink.is_default() {
            true => drop(self.unnamed.remove(vm.as_str())?),
            false => drop(self.named.remove((vm.as_str(), sink.as_str()))?),
        }
        self.is_free(vm)
    }

    /// Whether no sink needs the guest's report, slots that cannot be read included.
    fn is_free(&self, vm: &VmId) -> Result<bool, TxError> {
        if self.unnamed.get(vm.as_str())?.is_some() {
            return Ok(false);
        }
        Ok(keys_of(&self.named, vm)?.is_empty())
    }

    /// Whether a sink needs the guest's report, of those whose slots can be read.
    pub(super) fn is_pending(&self, vm: &VmId) -> Result<bool, TxError> {
        if self.get(&SinkName::default(), vm)?.is_some() {
            return Ok(true);
        }
        for sink in keys_of(&self.named, vm)? {
            let bytes = self.named.get((vm.as_str(), &*sink))?;
            if bytes.is_some_and(|bytes| read::<SlotRow>(vm, &bytes).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A named sink accepted this.
    pub(super) fn accept(
        &mut self,
        sink: &SinkName,
        vm: &VmId,
        report: DocumentId,
        at: WallTime,
    ) -> Result<(), TxError> {
        let row = codec::encode(&AcceptedRow { report, at })?;
        let key = (vm.as_str(), sink.as_str());
        self.accepted.insert(key, row.as_slice())?;
        Ok(())
    }

    /// What named sinks accepted of a guest says nothing any more.
    pub(super) fn forget_accepted(&mut self, vm: &VmId) -> Result<(), TxError> {
        for sink in keys_of(&self.accepted, vm)? {
            self.accepted.remove((vm.as_str(), &*sink))?;
        }
        Ok(())
    }

    /// Nothing is kept of a guest. Says whether there was a slot.
    pub(super) fn forget(&mut self, vm: &VmId) -> Result<bool, TxError> {
        self.forget_accepted(vm)?;
        let mut had_slot = self.unnamed.remove(vm.as_str())?.is_some();
        for sink in keys_of(&self.named, vm)? {
            had_slot |= self.named.remove((vm.as_str(), &*sink))?.is_some();
        }
        Ok(had_slot)
    }

    /// Guests of which the sink has a slot, readable or not.
    pub(super) fn guests_of(&self, sink: &SinkName) -> Result<Vec<String>, TxError> {
        let mut guests = Vec::new();
        if sink.is_default() {
            for row in self.unnamed.iter()? {
                guests.push(row?.0.value().to_owned());
            }
        } else {
            for row in self.named.iter()? {
                let (key, _) = row?;
                let (vm, name) = key.value();
                if name == sink.as_str() {
                    guests.push(vm.to_owned());
                }
            }
        }
        Ok(guests)
    }

    /// What a named sink accepted is forgotten, of all guests.
    pub(super) fn forget_sink(&mut self, sink: &SinkName) -> Result<(), TxError> {
        self.accepted.retain(|(_, name), _| name != sink.as_str())?;
        Ok(())
    }
}

/// The names behind a guest in the keys of a table.
fn keys_of(
    table: &impl ReadableTable<NamedKey, &'static [u8]>,
    vm: &VmId,
) -> Result<Vec<String>, TxError> {
    let mut names = Vec::new();
    for row in table.range((vm.as_str(), "")..)? {
        let (key, _) = row?;
        let (guest, name) = key.value();
        if guest != vm.as_str() {
            break;
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn read<T: for<'a> Row<'a>>(vm: &VmId, bytes: &AccessGuard<'_, &'static [u8]>) -> Option<T> {
    readable(vm.as_str(), codec::decode(bytes.value()))
}

/// What is stored of named sinks.
#[derive(Default)]
pub(super) struct NamedSinks {
    pub(super) sinks: BTreeMap<SinkName, StoredSink>,
    /// Guests that have a slot that cannot be read.
    pub(super) unreadable: HashSet<VmId>,
}

/// Reads what is stored of named sinks.
pub(super) fn load_named(tx: &ReadTransaction) -> Result<NamedSinks, TxError> {
    let mut named = NamedSinks::default();
    if let Some(slots) = existing(tx, NAMED_SLOTS)? {
        for row in slots.iter()? {
            let (key, bytes) = row?;
            let Some((vm, sink)) = names(key.value()) else {
                continue;
            };
            match read(&vm, &bytes) {
                Some(row) => named.sinks.entry(sink).or_default().slots.push((vm, row)),
                None => drop(named.unreadable.insert(vm)),
            }
        }
    }
    if let Some(accepted) = existing(tx, NAMED_ACCEPTED)? {
        for row in accepted.iter()? {
            let (key, bytes) = row?;
            let Some((vm, sink)) = names(key.value()) else {
                continue;
            };
            if let Some(AcceptedRow { report, at }) = read(&vm, &bytes) {
                let accepted = &mut named.sinks.entry(sink).or_default().accepted;
                accepted.insert(vm, (report, at));
            }
        }
    }
    Ok(named)
}

fn names((vm, sink): (&str, &str)) -> Option<(VmId, SinkName)> {
    let names = vm.parse().ok().zip(sink.parse().ok());
    if names.is_none() {
        tracing::error!(vm, sink, "a stored row under no guest and sink is left out");
    }
    names
}

fn existing<K: Key + 'static>(
    tx: &ReadTransaction,
    table: TableDefinition<K, &'static [u8]>,
) -> Result<Option<redb::ReadOnlyTable<K, &'static [u8]>>, TxError> {
    match tx.open_table(table) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
