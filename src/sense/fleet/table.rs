//! The tables of the fleet store, and how a transaction of the sensor's writer changes them.

use super::document::{FleetContent, FleetDocument};
use super::ids;
use super::index::{Interned, PackageIndex, Staged};
use super::package::StoredPackage;
use super::row::{self, ChangeEvent, ChangeRow, GuestState};
use super::{Fleet, FleetCounts, FleetStaged, FleetState};
use crate::clock::WallTime;
use crate::report::diff::{self, Installed};
use crate::report::{Digest, VmId};
use crate::store::{Store, StoreError, TxError};
use redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata, Table,
    TableDefinition, TableError, Value, WriteTransaction,
};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Id to package.
pub(super) const PACKAGES: TableDefinition<u32, &[u8]> = TableDefinition::new("fleet_packages");
/// VM id to last report.
pub(super) const GUESTS: TableDefinition<&str, &[u8]> = TableDefinition::new("fleet_guests");
/// Number to change.
pub(super) const CHANGES: TableDefinition<u64, &[u8]> = TableDefinition::new("fleet_changes");
/// Counters that outlive their rows.
const META: TableDefinition<&str, u64> = TableDefinition::new("fleet_meta");
/// Id of the next new package.
const NEXT_PACKAGE: &str = "next_package";
/// Number of the next row of the change log.
const NEXT_CHANGE: &str = "next_change";
/// Bytes of all rows of the change log.
const CHANGE_BYTES: &str = "change_bytes";

/// Rows of the change log, and packages, that one transaction removes: it stays short, and the next goes on.
const REMOVED_AT_ONCE: usize = 512;

/// One transaction of the sensor's writer.
pub(crate) struct FleetTx<'f, 'tx> {
    fleet: &'f Fleet,
    guests: Table<'tx, &'static str, &'static [u8]>,
    packages: Table<'tx, u32, &'static [u8]>,
    changes: Table<'tx, u64, &'static [u8]>,
    meta: Table<'tx, &'static str, u64>,
    staged: Staged,
    counts: FleetCounts,
    next_change: u64,
    found: Vec<VmId>,
    /// The newest time of any document.
    now: WallTime,
}

impl<'f, 'tx> FleetTx<'f, 'tx> {
    pub(crate) fn begin(fleet: &'f Fleet, tx: &'tx WriteTransaction) -> Result<Self, TxError> {
        let state = fleet.state();
        Ok(Self {
            fleet,
            guests: tx.open_table(GUESTS)?,
            packages: tx.open_table(PACKAGES)?,
            changes: tx.open_table(CHANGES)?,
            meta: tx.open_table(META)?,
            staged: Staged::default(),
            counts: state.counts,
            next_change: state.next_change,
            found: Vec::new(),
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
                (state.seen_at, state.agent_version) = (document.seen_at, &document.agent_version);
                state.facts = facts(document);
                self.insert(vm, &state)
            }
            // Facts of a report that is not here: the next full one brings them.
            (None, None) => Ok(()),
        }
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
        gone.iter().for_each(|id| self.staged.refer(*id, -1));
        came.iter().for_each(|id| self.staged.refer(*id, 1));
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
                    self.classify(content, &gone, &came)
                }
            };
            let row = ChangeRow {
                vm: vm.as_str(),
                at: document.seen_at,
                from: before.map(|old| old.key),
                key: document.key,
                trigger: document.trigger,
                previous: newest,
                event,
            };
            newest = Some(self.log(&row)?);
        }
        self.counts.guests += u64::from(old.is_none());
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
        };
        self.insert(vm, &state)
    }

    fn insert(&mut self, vm: &VmId, state: &GuestState<'_>) -> Result<(), TxError> {
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
        let index = self.fleet.index();
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
            ids.for_each(|id| self.staged.refer(id, -1));
            self.counts.guests = self.counts.guests.saturating_sub(1);
        }
        Ok(())
    }

    /// Writes what all documents of the transaction need, and removes what is old.
    pub(crate) fn end(mut self) -> Result<FleetStaged, TxError> {
        let index = self.fleet.index();
        let new: Vec<Arc<Interned>> = index.to_store(&self.staged).cloned().collect();
        let next_package = index.next_id();
        drop(index);
        for package in &new {
            self.packages.insert(package.id, &*package.bytes)?;
            self.staged.stored(package.id);
        }
        if !new.is_empty() {
            self.meta.insert(NEXT_PACKAGE, u64::from(next_package))?;
        }
        let before = self.fleet.state().counts.change_bytes;
        let oldest = self.trim()?;
        let freed = self
            .fleet
            .index()
            .to_free(&self.staged, oldest, REMOVED_AT_ONCE);
        for id in &freed {
            self.packages.remove(id)?;
        }
        if self.counts.change_bytes != before {
            self.meta.insert(CHANGE_BYTES, self.counts.change_bytes)?;
            self.meta.insert(NEXT_CHANGE, self.next_change)?;
        }
        self.staged.end(freed, self.next_change);
        Ok(FleetStaged {
            index: self.staged,
            counts: self.counts,
            next_change: self.next_change,
            found: self.found,
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
pub(super) fn readable<'a>(vm: &str, bytes: &'a [u8]) -> Option<GuestState<'a>> {
    let state = row::open::<GuestState<'_>>(bytes);
    let state = state.inspect_err(
        |error| tracing::error!(vm, %error, "the fleet row of this guest is left out, a full report is asked for"),
    );
    state.ok().filter(|state| ids::unpack(state.ids).is_some())
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

/// Whether each table of the file, where it is there, is one of ours.
fn are_ours(tx: &ReadTransaction) -> Result<bool, TxError> {
    fn is_ours<T>(opened: Result<T, TableError>) -> Result<bool, TxError> {
        match opened {
            Ok(_) | Err(TableError::TableDoesNotExist(_)) => Ok(true),
            Err(TableError::Storage(error)) => Err(error.into()),
            Err(_) => Ok(false),
        }
    }
    Ok(is_ours(tx.open_table(PACKAGES))?
        && is_ours(tx.open_table(GUESTS))?
        && is_ours(tx.open_table(CHANGES))?
        && is_ours(tx.open_table(META))?)
}

/// Reads what the sensor needs to go on. Rows that cannot be read, or belong to nobody, are removed; tables
/// that are not ours all are.
pub(super) fn load(
    store: &Store,
    known: &HashMap<VmId, Digest>,
) -> Result<(PackageIndex, FleetState), StoreError> {
    if !store.read(are_ours)? {
        tracing::error!("the tables of the fleet store cannot be read; they are begun anew");
        store.write(|tx| {
            tx.delete_table(PACKAGES)?;
            tx.delete_table(GUESTS)?;
            tx.delete_table(CHANGES)?;
            tx.delete_table(META)?;
            Ok(())
        })?;
    }
    let Loaded {
        index,
        mut state,
        useless,
    } = store.read(|tx| read(tx, known))?;
    if !useless.is_empty() {
        let removed = store.write(|tx| {
            let mut guests = tx.open_table(GUESTS)?;
            for name in &useless {
                guests.remove(name.as_str())?;
            }
            Ok(())
        });
        if let Err(error) = removed {
            // On a full disk: they are passed over.
            tracing::warn!(%error, "rows of the fleet store that are of no use stay");
            state.missing_rows = useless;
        }
    }
    Ok((index, state))
}

struct Loaded {
    index: PackageIndex,
    state: FleetState,
    /// Names of rows that cannot be read, or are of no guest.
    useless: HashSet<String>,
}

fn read(tx: &ReadTransaction, known: &HashMap<VmId, Digest>) -> Result<Loaded, TxError> {
    let meta = opened(tx, META)?;
    let number = |name: &str| -> Result<Option<u64>, TxError> {
        let Some(meta) = &meta else {
            return Ok(None);
        };
        Ok(meta.get(name)?.map(|number| number.value()))
    };
    let next_package = number(NEXT_PACKAGE)?.and_then(|next| u32::try_from(next).ok());
    let mut index = PackageIndex::new(next_package.unwrap_or_default());
    let mut counts = FleetCounts::default();
    if let Some(packages) = opened(tx, PACKAGES)? {
        for row in packages.iter()? {
            let (id, bytes) = row?;
            match StoredPackage::read(bytes.value()) {
                Ok(package) => index.restore(id.value(), bytes.value(), &package),
                Err(error) => {
                    tracing::error!(id = id.value(), %error, "a package of the fleet store cannot be read; guests that have it are asked for a full report");
                }
            }
        }
    }
    let mut next_change = number(NEXT_CHANGE)?.unwrap_or_default();
    if let Some(changes) = opened(tx, CHANGES)? {
        counts.changes = changes.len()?;
        if let Some((last, _)) = changes.last()? {
            next_change = next_change.max(last.value().saturating_add(1));
        }
        counts.change_bytes = match number(CHANGE_BYTES)? {
            Some(bytes) => bytes,
            None => changes.stats()?.stored_bytes(),
        };
    }
    let (mut present, mut useless) = (HashSet::new(), HashSet::new());
    if let Some(guests) = opened(tx, GUESTS)? {
        for row in guests.iter()? {
            let (name, bytes) = row?;
            let vm = name.value().parse::<VmId>().ok();
            let wanted = vm.as_ref().and_then(|vm| known.get(vm));
            let state = wanted.and_then(|_| readable(name.value(), bytes.value()));
            let list = state.as_ref().map(|state| ids::PackedIds::new(state.ids));
            let list = list.map(|ids| ids.map(|id| index.get(id).map(|_| id)));
            let list: Option<Vec<u32>> = list.and_then(Iterator::collect);
            let (Some(list), Some(vm), Some(state)) = (list, vm, state) else {
                useless.insert(name.value().to_owned());
                continue;
            };
            list.iter().for_each(|id| index.refer(*id));
            counts.guests += 1;
            // Otherwise it is there, but another document became known while nobody kept this store.
            if wanted == Some(&state.digest) {
                present.insert(vm);
            }
        }
    }
    index.restored(next_change);
    let missing = known.keys().filter(|vm| !present.contains(*vm));
    let state = FleetState {
        counts,
        next_change,
        missing: missing.cloned().collect(),
        missing_rows: HashSet::new(),
    };
    Ok(Loaded {
        index,
        state,
        useless,
    })
}
