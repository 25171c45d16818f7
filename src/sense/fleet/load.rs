//! Reads the tables of the fleet store when the sensor starts.

use super::index::RowIndex;
use super::package::StoredPackage;
use super::platform::StoredPlatform;
use super::row::GuestState;
use super::table::{
    CHANGE_BYTES, CHANGES, GUESTS, META, NEXT_CHANGE, NEXT_PACKAGE, PACKAGES, PLATFORMS, opened,
    readable,
};
use super::tally::GuestTally;
use super::{FleetCounts, FleetState, ids};
use crate::report::{Digest, VmId};
use crate::store::{Store, StoreError, TxError};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableError};
use std::collections::{HashMap, HashSet};

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
        && is_ours(tx.open_table(PLATFORMS))?
        && is_ours(tx.open_table(GUESTS))?
        && is_ours(tx.open_table(CHANGES))?
        && is_ours(tx.open_table(META))?)
}

/// Reads what is needed to go on. `known` are the guests of a sensor; without them all guests of the table count. Rows that cannot be read, or belong to nobody, are removed; tables
/// that are not ours all are.
pub(super) fn load(
    store: &Store,
    known: Option<&HashMap<VmId, Digest>>,
) -> Result<Loaded, StoreError> {
    if !store.read(are_ours)? {
        tracing::error!("the tables of the fleet store cannot be read; they are begun anew");
        store.write(|tx| {
            tx.delete_table(PACKAGES)?;
            tx.delete_table(PLATFORMS)?;
            tx.delete_table(GUESTS)?;
            tx.delete_table(CHANGES)?;
            tx.delete_table(META)?;
            Ok(())
        })?;
    }
    let (mut loaded, useless) = store.read(|tx| read(tx, known))?;
    loaded.useless = useless.len();
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
            loaded.state.missing_rows = useless;
        }
    }
    Ok(loaded)
}

/// What is stored.
pub(super) struct Loaded {
    pub(super) packages: RowIndex,
    pub(super) platforms: RowIndex,
    pub(super) state: FleetState,
    /// Rows that cannot be read, or are of no guest.
    pub(super) useless: usize,
}

/// Also gives names of rows that cannot be read, or are of no guest.
fn read(
    tx: &ReadTransaction,
    known: Option<&HashMap<VmId, Digest>>,
) -> Result<(Loaded, HashSet<String>), TxError> {
    let meta = opened(tx, META)?;
    let number = |name: &str| -> Result<Option<u64>, TxError> {
        let Some(meta) = &meta else {
            return Ok(None);
        };
        Ok(meta.get(name)?.map(|number| number.value()))
    };
    let next_package = number(NEXT_PACKAGE)?.and_then(|next| u32::try_from(next).ok());
    let mut packages = RowIndex::new(next_package.unwrap_or_default());
    let mut counts = FleetCounts::default();
    let mut tally = GuestTally::default();
    if let Some(table) = opened(tx, PACKAGES)? {
        for row in table.iter()? {
            let (id, bytes) = row?;
            match StoredPackage::read(bytes.value()) {
                Ok(package) => {
                    let group = packages.group(package.name, package.arch);
                    packages.restore(id.value(), bytes.value(), group);
                }
                Err(error) => {
                    tracing::error!(id = id.value(), %error, "a package of the fleet store cannot be read; guests that have it are asked for a full report");
                }
            }
        }
    }
    let mut platforms = read_platforms(tx)?;
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
            let wanted = vm.as_ref().zip(known).and_then(|(vm, known)| known.get(vm));
            let is_known = known.is_none() || wanted.is_some();
            let state = is_known.then(|| readable(name.value(), bytes.value()));
            let state = state.flatten();
            let list = state.as_ref().map(|state| ids::PackedIds::new(state.ids));
            let list = list.map(|ids| ids.map(|id| packages.get(id).map(|_| id)));
            let list: Option<Vec<u32>> = list.and_then(Iterator::collect);
            // A row of version 1 has none.
            let has_platform = |state: &GuestState<'_>| {
                state.platform.is_none_or(|id| platforms.get(id).is_some())
            };
            let state = state.filter(has_platform);
            let (Some(list), Some(vm), Some(state)) = (list, vm, state) else {
                useless.insert(name.value().to_owned());
                continue;
            };
            list.iter().for_each(|id| packages.refer(*id));
            state.platform.iter().for_each(|id| platforms.refer(*id));
            counts.guests += 1;
            tally.count(&state, 1);
            // Otherwise it is there, but another document became known while nobody kept this store.
            if wanted == Some(&state.digest) {
                present.insert(vm);
            }
        }
    }
    packages.restored(next_change);
    // The change log names none.
    platforms.restored(0);
    let known = known.into_iter().flat_map(HashMap::keys);
    let missing = known.filter(|vm| !present.contains(*vm));
    let state = FleetState {
        counts,
        tally,
        next_change,
        missing: missing.cloned().collect(),
        missing_rows: HashSet::new(),
    };
    let loaded = Loaded {
        packages,
        platforms,
        state,
        useless: 0,
    };
    Ok((loaded, useless))
}

fn read_platforms(tx: &ReadTransaction) -> Result<RowIndex, TxError> {
    let mut platforms = RowIndex::new(0);
    let Some(table) = opened(tx, PLATFORMS)? else {
        return Ok(platforms);
    };
    for row in table.iter()? {
        let (id, bytes) = row?;
        match StoredPlatform::read(bytes.value()) {
            Ok(_) => platforms.restore(id.value(), bytes.value(), 0),
            Err(error) => {
                tracing::error!(id = id.value(), %error, "a platform of the fleet store cannot be read; guests that have it are asked for a full report");
            }
        }
    }
    Ok(platforms)
}
