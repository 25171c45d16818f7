//! The tables of the fleet store, and how a transaction of the sensor's writer changes them.

use super::distinct::DistinctTx;
use super::document::{FleetContent, FleetDocument};
use super::ids;
use super::index::Interned;
use super::newest::Intake;
use super::package::StoredPackage;
use super::row::{self, ChangeEvent, ChangeRow, GuestState};
use super::tally::GuestTally;
use super::{Fleet, FleetCounts, FleetStaged, held};
use crate::clock::WallTime;
use crate::report::VmId;
use crate::report::diff::{self, Installed};
use crate::store::TxError;
use redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, TableError, Value,
    WriteTransaction,
};
use std::collections::HashSet;
use std::sync::Arc;

/// Id to package.
pub(super) const PACKAGES: TableDefinition<u32, &[u8]> = TableDefinition::new("fleet_packages");
/// Id to platform.
pub(super) const PLATFORMS: TableDefinition<u32, &[u8]> = TableDefinition::new("fleet_platforms");
/// VM id to last report.
pub(super) const GUESTS: TableDefinition<&str, &[u8]> = TableDefinition::new("fleet_guests");
/// Number to change.
pub(super) const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("fleet_changes");
/// Counters that outlive their rows.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("fleet_meta");
/// Id of the next new package.
pub(super) const NEXT_PACKAGE: &str = "next_package";
/// Number of the next row of the change log.
pub(super) const NEXT_CHANGE: &str = "next_change";
/// Bytes of all rows of the change log.
pub(super) const CHANGE_BYTES: &str = "change_bytes";

/// Rows of the change log that one transaction removes: it stays short, and the next goes on.
const REMOVED_AT_ONCE: usize = 512;

/// One transaction of the sensor's writer.
pub(crate) struct FleetTx<'f, 'tx> {
    fleet: &'f Fleet,
    guests: Table<'tx, &'static str, &'static [u8]>,
    packages: DistinctTx<'f, 'tx>,
    platforms: DistinctTx<'f, 'tx>,
    changes: Table<'tx, u64, &'static [u8]>,
    meta: Table<'tx, &'static str, u64>,
    counts: FleetCounts,
    next_change: u64,
    found: Vec<VmId>,
    /// By how much the guests in each state become more.
    tally: GuestTally,
    /// The newest time of any document.
    now: WallTime,
}

impl<'f, 'tx> FleetTx<'f, 'tx> {
    pub(crate) fn begin(fleet: &'f Fleet, tx: &'tx WriteTransaction) -> Result<Self, TxError> {
        let state = fleet.state();
        Ok(Self {
            fleet,
            guests: tx.open_table(GUESTS)?,
            packages: DistinctTx::new(&fleet.packages, tx.open_table(PACKAGES)?),
            platforms: DistinctTx::new(&fleet.platforms, tx.open_table(PLATFORMS)?),
            changes: tx.open_table(CHANGES)?,
            meta: tx.open_table(META)?,
            counts: state.counts,
            next_change: state.next_change,
            found: Vec::new(),
            tally: GuestTally::default(),
            now: WallTime::default(),
        })
    }

    /// Stores a document in the place of the guest's last one.
    pub(crate) fn put(&mut self, vm: &VmId, document: &FleetDocument) -> Result<(), TxError> {
        self.now = self.now.max(document.seen_at);
        let held = self.held(vm)?;
        let old = held
            .as_deref()
            .and_then(|bytes| readable(vm.as_str(), bytes));
        match (&document.content, old) {
            (Some(content), old) => self.put_report(vm, document, content, old.as_ref()),
            (None, Some(mut state)) => {
                self.tally.count(&state, -1);
                (state.seen_at, state.agent_version) = (document.seen_at, &document.agent_version);
                state.facts = facts(document);
                self.insert(vm, &state)
            }
            // Facts of a report that is not here: the next full one brings them.
            (None, None) => Ok(()),
        }
    }

    /// The same, unless something newer is here: for documents that come in any order, from any sensor.
    pub(super) fn put_newest(
        &mut self,
        vm: &VmId,
        document: &FleetDocument,
    ) -> Result<Intake, TxError> {
        let held = self.held(vm)?;
        let old = held
            .as_deref()
            .and_then(|bytes| readable(vm.as_str(), bytes));
        let kept = old.map(|old| (old.seen_at, old.digest));
        let intake = Intake::of(kept, document);
        if intake == Intake::Taken {
            self.put(vm, document)?;
        }
        Ok(intake)
    }

    /// The row of a guest, unless it was found to be unreadable when the file was opened.
    fn held(&self, vm: &VmId) -> Result<Option<Vec<u8>>, TxError> {
        if !self.found.contains(vm) && self.fleet.state().missing_rows.contains(vm.as_str()) {
            return Ok(None);
        }
        let row = self.guests.get(vm.as_str())?;
        Ok(row.map(|bytes| bytes.value().to_vec()))
    }

    fn put_report(
        &mut self,
        vm: &VmId,
        document: &FleetDocument,
        content: &FleetContent,
        old: Option<&GuestState<'_>>,
    ) -> Result<(), TxError> {
        let list: Vec<u32> = content.packages.iter().map(|package| package.id).collect();
        let old_ids = old.and_then(|old| ids::unpack(old.ids));
        let (gone, came) = ids::difference(&old_ids.unwrap_or_default(), &list);
        gone.iter().for_each(|id| self.packages.refer(*id, -1));
        came.iter().for_each(|id| self.packages.refer(*id, 1));
        if let Some(id) = old.and_then(|old| old.platform) {
            self.platforms.refer(id, -1);
        }
        self.platforms.refer(content.platform.id, 1);
        // Another machine under the same name has no history in common with the one before.
        let before = old.filter(|old| {
            let (then, now) = (&old.guest_id, &document.guest_id);
            then.is_none() || now.is_none() || then == now
        });
        let packages = u32::try_from(list.len()).unwrap_or(u32::MAX);
        let (mut changed_at, mut newest) = match before {
            Some(old) => (old.changed_at, old.newest_change),
            None => (document.seen_at, old.and_then(|old| old.newest_change)),
        };
        let is_same =
            before.is_some_and(|old| (old.key, old.digest) == (document.key, document.digest));
        if !is_same {
            let event = match before {
                None => ChangeEvent::Baseline(packages),
                Some(_) if gone.is_empty() && came.is_empty() => ChangeEvent::default(),
                Some(_) => {
                    changed_at = document.seen_at;
                    self.counts.changed += 1;
                    self.classify(content, &gone, &came)
                }
            };
            let row = ChangeRow {
                vm: vm.as_str(),
                at: document.seen_at,
                from: before.map(|old| old.key),
                from_digest: before.map(|old| old.digest),
                key: document.key,
                digest: Some(document.digest),
                trigger: document.trigger,
                previous: newest,
                event,
            };
            newest = Some(self.log(&row)?);
        }
        self.counts.guests += u64::from(old.is_none());
        if let Some(old) = old {
            self.tally.count(old, -1);
        }
        if !self.found.contains(vm) && self.fleet.state().missing.contains(vm) {
            self.counts.rebuilt += 1;
            self.found.push(vm.clone());
        }
        let distribution = &content.distribution;
        let packed = ids::pack(&list);
        let state = GuestState {
            key: document.key,
            digest: document.digest,
            seen_at: document.seen_at,
            generated_at: document.generated_at,
            changed_at,
            trigger: document.trigger,
            guest_id: document.guest_id.clone(),
            agent_version: &document.agent_version,
            os_id: &distribution.id,
            os_version: &distribution.version_id,
            os_name: &distribution.pretty_name,
            facts: facts(document),
            newest_change: newest,
            packages,
            ids: &packed,
            platform: Some(content.platform.id),
        };
        self.insert(vm, &state)
    }

    /// Writes the row of a guest, of which the row before is counted no more.
    fn insert(&mut self, vm: &VmId, state: &GuestState<'_>) -> Result<(), TxError> {
        self.tally.count(state, 1);
        self.guests
            .insert(vm.as_str(), row::seal(state)?.as_slice())?;
        Ok(())
    }

    /// Adds a row to the change log; gives its number.
    fn log(&mut self, row: &ChangeRow<'_>) -> Result<u64, TxError> {
        let (number, bytes) = (self.next_change, row::seal(row)?);
        self.changes.insert(number, bytes.as_slice())?;
        self.next_change += 1;
        self.counts.changes += 1;
        self.counts.change_bytes += bytes.len() as u64;
        Ok(number)
    }

    /// Names the changes between the guest's last report and this one.
    fn classify(&self, content: &FleetContent, gone: &[u32], came: &[u32]) -> ChangeEvent {
        let index = held(&self.fleet.packages);
        let entries = |ids: &[u32]| -> Vec<Arc<Interned>> {
            ids.iter()
                .filter_map(|id| index.get(*id).cloned())
                .collect()
        };
        let (gone, new) = (entries(gone), entries(came));
        drop(index);
        let mut rest = came.iter().peekable();
        let mut is_new = |package: &Interned| rest.next_if(|id| **id == package.id).is_some();
        let stayed = content.packages.iter().filter(|package| !is_new(package));
        let stayed: HashSet<u64> = stayed.map(|package| package.group).collect();
        let stays = |candidate: &Candidate<'_>| stayed.contains(&candidate.group);
        let set = diff::classify(Candidate::all(&gone), Candidate::all(&new), stays);
        set.map(|candidate| candidate.id).into()
    }

    /// Forgets a guest; the change log keeps its history.
    pub(crate) fn forget(&mut self, vm: &VmId) -> Result<(), TxError> {
        let held = self.held(vm)?;
        if self.guests.remove(vm.as_str())?.is_none() {
            return Ok(());
        }
        if let Some(state) = held
            .as_deref()
            .and_then(|bytes| readable(vm.as_str(), bytes))
        {
            let ids = ids::PackedIds::new(state.ids);
            ids.for_each(|id| self.packages.refer(id, -1));
            let platform = state.platform;
            platform.iter().for_each(|id| self.platforms.refer(*id, -1));
            self.counts.guests = self.counts.guests.saturating_sub(1);
            self.tally.count(&state, -1);
        }
        Ok(())
    }

    /// Writes what all documents of the transaction need, and removes what is old.
    pub(crate) fn end(mut self) -> Result<FleetStaged, TxError> {
        if let Some(next_package) = self.packages.store_new()? {
            self.meta.insert(NEXT_PACKAGE, u64::from(next_package))?;
        }
        self.platforms.store_new()?;
        let before = self.fleet.state().counts.change_bytes;
        let oldest = self.trim()?;
        if self.counts.change_bytes != before {
            self.meta.insert(CHANGE_BYTES, self.counts.change_bytes)?;
            self.meta.insert(NEXT_CHANGE, self.next_change)?;
        }
        Ok(FleetStaged {
            packages: self.packages.end(oldest, self.next_change)?,
            // The change log names none.
            platforms: self.platforms.end(0, 0)?,
            counts: self.counts,
            next_change: self.next_change,
            found: self.found,
            tally: self.tally,
        })
    }

    /// Removes rows of the change log that are too old, or too many; gives the number of the first that is
    /// left.
    fn trim(&mut self) -> Result<u64, TxError> {
        let limits = self.fleet.limits;
        for _ in 0..REMOVED_AT_ONCE {
            let first = self.changes.first()?.map(|(number, bytes)| {
                let is_old = match row::open::<ChangeRow<'_>>(bytes.value()) {
                    Ok(row) => self.now.since(row.at) > limits.age,
                    // Of no use to anybody.
                    Err(_) => true,
                };
                (number.value(), bytes.value().len() as u64, is_old)
            });
            let Some((number, len, is_old)) = first else {
                break;
            };
            if !is_old && self.counts.change_bytes <= limits.bytes {
                return Ok(number);
            }
            self.changes.remove(number)?;
            self.counts.changes = self.counts.changes.saturating_sub(1);
            self.counts.change_bytes = self.counts.change_bytes.saturating_sub(len);
        }
        let first = self.changes.first()?;
        Ok(first.map_or(self.next_change, |(number, _)| number.value()))
    }
}

/// A package that is gone or came.
#[derive(Clone)]
struct Candidate<'a> {
    id: u32,
    group: u64,
    package: StoredPackage<'a>,
}

impl<'a> Candidate<'a> {
    fn all(entries: &'a [Arc<Interned>]) -> Vec<Self> {
        let readable = entries.iter().filter_map(|entry| {
            Some(Self {
                id: entry.id,
                group: entry.group,
                package: StoredPackage::read(&entry.bytes).ok()?,
            })
        });
        readable.collect()
    }
}

impl Installed for Candidate<'_> {
    fn name(&self) -> &str {
        self.package.name
    }

    fn arch(&self) -> &str {
        self.package.arch
    }

    fn version(&self) -> &str {
        self.package.version
    }
}

fn facts(document: &FleetDocument) -> Vec<(&str, &str)> {
    let facts = document.facts.iter();
    facts
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// The row of a guest; `None` when it cannot be read, which is logged.
pub(super) fn guest_row<'a>(vm: &str, bytes: &'a [u8]) -> Option<GuestState<'a>> {
    let state = row::open::<GuestState<'_>>(bytes);
    let state = state.inspect_err(
        |error| tracing::error!(vm, %error, "the fleet row of this guest is left out, a full report is asked for"),
    );
    state.ok()
}

/// The same with its list checked, which takes as long again. A list under the checksum of its row is wrong only where
/// an older program wrote it so; a question takes what comes before the fault.
pub(super) fn readable<'a>(vm: &str, bytes: &'a [u8]) -> Option<GuestState<'a>> {
    guest_row(vm, bytes).filter(|state| ids::is_list(state.ids))
}

/// A table of a snapshot; `None` when nothing was ever written to it.
pub(super) fn opened<K: Key + 'static, V: Value + 'static>(
    tx: &ReadTransaction,
    definition: TableDefinition<'static, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, TxError> {
    match tx.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
