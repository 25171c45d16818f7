//! The tables of the fleet store in one snapshot.

use crate::sense::fleet::package::StoredPackage;
use crate::sense::fleet::row::{self, ChangeRow, GuestState};
use crate::sense::fleet::table::{CHANGES, GUESTS, PACKAGES, PLATFORMS, guest_row, opened};
use crate::store::TxError;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};
use std::ops::{Bound, ControlFlow};

/// The open tables; one that was never written to is not there.
pub(super) struct FleetView {
    packages: Option<ReadOnlyTable<u32, &'static [u8]>>,
    platforms: Option<ReadOnlyTable<u32, &'static [u8]>>,
    guests: Option<ReadOnlyTable<&'static str, &'static [u8]>>,
    changes: Option<ReadOnlyTable<u64, &'static [u8]>>,
}

impl FleetView {
    pub(super) fn open(tx: &ReadTransaction) -> Result<Self, TxError> {
        Ok(Self {
            packages: opened(tx, PACKAGES)?,
            platforms: opened(tx, PLATFORMS)?,
            guests: opened(tx, GUESTS)?,
            changes: opened(tx, CHANGES)?,
        })
    }

    /// Gives each guest behind `after`, by id, until `visit` breaks.
    pub(super) fn guests(
        &self,
        after: Option<&str>,
        mut visit: impl FnMut(&str, GuestState<'_>) -> ControlFlow<()>,
    ) -> Result<(), TxError> {
        let Some(guests) = &self.guests else {
            return Ok(());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for row in guests.range::<&str>((from, Bound::Unbounded))? {
            let (name, bytes) = row?;
            if let Some(state) = guest_row(name.value(), bytes.value())
                && visit(name.value(), state).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Gives one guest.
    pub(super) fn guest<T>(
        &self,
        vm: &str,
        read: impl FnOnce(GuestState<'_>) -> Result<T, TxError>,
    ) -> Result<Option<T>, TxError> {
        let Some(guests) = &self.guests else {
            return Ok(None);
        };
        let Some(bytes) = guests.get(vm)? else {
            return Ok(None);
        };
        guest_row(vm, bytes.value()).map(read).transpose()
    }

    /// Gives every distinct package.
    pub(super) fn packages(
        &self,
        mut visit: impl FnMut(u32, StoredPackage<'_>),
    ) -> Result<(), TxError> {
        let Some(packages) = &self.packages else {
            return Ok(());
        };
        for row in packages.iter()? {
            let (id, bytes) = row?;
            if let Ok(package) = StoredPackage::read(bytes.value()) {
                visit(id.value(), package);
            }
        }
        Ok(())
    }

    /// Gives every distinct package of a name.
    pub(super) fn packages_of(
        &self,
        name: &str,
        mut visit: impl FnMut(u32, StoredPackage<'_>),
    ) -> Result<(), TxError> {
        let Some(packages) = &self.packages else {
            return Ok(());
        };
        let begin = StoredPackage::begin_of(name);
        for row in packages.iter()? {
            let (id, bytes) = row?;
            if begin.is_candidate(bytes.value())
                && let Ok(package) = StoredPackage::read(bytes.value())
                && package.name == name
            {
                visit(id.value(), package);
            }
        }
        Ok(())
    }

    /// The rows of these packages, in this order; one that is not there is left out.
    pub(super) fn package_rows(&self, ids: &[u32]) -> Result<Vec<(u32, Vec<u8>)>, TxError> {
        let mut rows = Vec::with_capacity(ids.len());
        let Some(packages) = &self.packages else {
            return Ok(rows);
        };
        for id in ids {
            if let Some(bytes) = packages.get(id)? {
                rows.push((*id, bytes.value().to_vec()));
            }
        }
        Ok(rows)
    }

    /// The row of a platform, if it is there.
    pub(super) fn platform_row(&self, id: u32) -> Result<Option<Vec<u8>>, TxError> {
        let Some(platforms) = &self.platforms else {
            return Ok(None);
        };
        let row = platforms.get(id)?;
        Ok(row.map(|bytes| bytes.value().to_vec()))
    }

    /// Gives a row of the change log.
    pub(super) fn change<T>(
        &self,
        number: u64,
        read: impl FnOnce(ChangeRow<'_>) -> T,
    ) -> Result<Option<T>, TxError> {
        let Some(changes) = &self.changes else {
            return Ok(None);
        };
        let Some(bytes) = changes.get(number)? else {
            return Ok(None);
        };
        Ok(row::open(bytes.value()).ok().map(read))
    }

    /// Gives rows of the change log behind `after`, oldest first, until `visit` breaks.
    pub(super) fn changes(
        &self,
        after: Option<u64>,
        mut visit: impl FnMut(u64, ChangeRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), TxError> {
        let Some(changes) = &self.changes else {
            return Ok(());
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        for row in changes.range::<u64>((from, Bound::Unbounded))? {
            let (number, bytes) = row?;
            if let Ok(row) = row::open::<ChangeRow<'_>>(bytes.value())
                && visit(number.value(), row).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// Gives rows of the change log, the newest first, until `visit` breaks, and [`NEWEST`] of them at most.
    pub(super) fn changes_backwards(
        &self,
        mut visit: impl FnMut(u64, ChangeRow<'_>) -> ControlFlow<()>,
    ) -> Result<(), TxError> {
        let Some(changes) = &self.changes else {
            return Ok(());
        };
        for row in changes.iter()?.rev().take(NEWEST) {
            let (number, bytes) = row?;
            if let Ok(row) = row::open::<ChangeRow<'_>>(bytes.value())
                && visit(number.value(), row).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    /// The number of the first row that may be of this time or later. Numbers follow the order of commits,
    /// which may be some seconds off that of times.
    pub(super) fn first_change_since(
        &self,
        since: crate::clock::WallTime,
    ) -> Result<Option<u64>, TxError> {
        let Some(changes) = &self.changes else {
            return Ok(None);
        };
        let (Some((first, _)), Some((last, _))) = (changes.first()?, changes.last()?) else {
            return Ok(None);
        };
        let (mut low, mut high) = (first.value(), last.value().saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            let at = self.change(middle, |row| row.at)?;
            match at.is_some_and(|at| since.since(at) > OUT_OF_ORDER) {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        Ok(low.checked_sub(1))
    }
}

/// Rows among which the newest change is looked for: others are baselines, and reports without a change.
const NEWEST: usize = 10_000;

/// Longest that a document is on its way from its time to its commit.
const OUT_OF_ORDER: std::time::Duration = std::time::Duration::from_secs(600);
