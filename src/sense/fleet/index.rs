//! The distinct rows of a table of the fleet store in memory, packages or platforms: bytes to id, and how many
//! guests have each.
//!
//! ```text
//! intern   pull threads   the bytes of a row -> its entry, a new one with the next id if need be
//! commit   the writer     what a transaction that is on disk changed: references, rows
//! ```
//!
//! An entry is known by its bytes, so two packages are one exactly when everything about them is equal. Ids
//! are never given out twice: a list of ids that was made before an entry was freed names that one still, or
//! nothing. An entry is freed when no guest has it, no change log row names it, and no document on its way to
//! the writer holds it.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use twox_hash::XxHash64;

/// Entries whose hashes follow one another before a row is kept as one of its own: only somebody who
/// makes hashes collide gets there.
const MOST_PROBES: u64 = 32;

/// A distinct row.
#[derive(Debug)]
pub(super) struct Interned {
    pub(super) id: u32,
    /// The row, such as [`super::StoredPackage`].
    pub(super) bytes: Box<[u8]>,
    /// Of a package: over name and architecture, equal for all versions of it. 0 for other rows.
    pub(super) group: u64,
}

/// For keys that are hashes already, and for ids, which nobody else chooses: cheaper than a hash that must withstand
/// an enemy.
#[derive(Default)]
struct TrustedKey(u64);

/// By a key that needs no strong hash.
type TrustedMap<K, V> = HashMap<K, V, BuildHasherDefault<TrustedKey>>;

impl Hasher for TrustedKey {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    /// Ids follow one another: they are spread over all bits, of which the map looks at the highest, too.
    fn write_u32(&mut self, id: u32) {
        self.0 = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// What is known of an entry.
struct Use {
    row: Arc<Interned>,
    hash: u64,
    /// Guests that have it; one that has it twice counts twice.
    references: u64,
    /// Whether it has a row.
    is_stored: bool,
    /// While nobody has it: the number of the change log row from which on none names it.
    unused_since: u64,
}

/// What a transaction did to the entries: takes effect once it is on disk.
#[derive(Default)]
pub(super) struct Staged {
    /// By how much references grow.
    references: TrustedMap<u32, i64>,
    stored: Vec<u32>,
    freed: Vec<u32>,
    /// Change log rows that come from now on have at least this number.
    next_change: u64,
}

/// All entries.
pub(super) struct RowIndex {
    seed: u64,
    by_hash: TrustedMap<u64, Arc<Interned>>,
    by_id: TrustedMap<u32, Use>,
    next_id: u32,
    /// Entries that no guest has, by [`Use::unused_since`].
    unused: BTreeSet<(u64, u32)>,
}

impl RowIndex {
    pub(super) fn new(next_id: u32) -> Self {
        Self {
            seed: fastrand::u64(..),
            by_hash: TrustedMap::default(),
            by_id: TrustedMap::default(),
            next_id,
            unused: BTreeSet::new(),
        }
    }

    /// The id of the next new entry.
    pub(super) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: u32) -> Option<&Arc<Interned>> {
        self.by_id.get(&id).map(|entry| &entry.row)
    }

    /// Takes over a row of the table, of which no guest is known yet.
    pub(super) fn restore(&mut self, id: u32, bytes: &[u8], group: u64) {
        let hash = XxHash64::oneshot(self.seed, bytes);
        self.insert(id, bytes, group, hash, true);
        self.next_id = self.next_id.max(id.saturating_add(1));
    }

    /// The entry of the row of these bytes, a new one of the group that is asked for then; `None` when all ids were
    /// given out.
    pub(super) fn intern(
        &mut self,
        bytes: &[u8],
        group: impl FnOnce(&Self) -> u64,
    ) -> Option<Arc<Interned>> {
        let hash = XxHash64::oneshot(self.seed, bytes);
        for probe in 0..MOST_PROBES {
            match self.by_hash.get(&hash.wrapping_add(probe)) {
                Some(entry) if *entry.bytes == *bytes => return Some(entry.clone()),
                Some(_) => {}
                None => break,
            }
        }
        let id = self.next_id;
        self.next_id = id.checked_add(1)?;
        // Until a guest has it; no row of the change log names it.
        self.unused.insert((0, id));
        let group = group(self);
        Some(self.insert(id, bytes, group, hash, false))
    }

    fn insert(
        &mut self,
        id: u32,
        bytes: &[u8],
        group: u64,
        hash: u64,
        is_stored: bool,
    ) -> Arc<Interned> {
        let row = Arc::new(Interned {
            id,
            bytes: bytes.into(),
            group,
        });
        let free = (0..MOST_PROBES).map(|probe| hash.wrapping_add(probe));
        let free = free
            .into_iter()
            .find(|hash| !self.by_hash.contains_key(hash));
        if let Some(hash) = free {
            self.by_hash.insert(hash, row.clone());
        }
        let entry = Use {
            row: row.clone(),
            hash: free.unwrap_or(hash),
            references: 0,
            is_stored,
            unused_since: 0,
        };
        self.by_id.insert(id, entry);
        row
    }

    /// What all packages of a name and an architecture have in common.
    pub(super) fn group(&self, name: &str, arch: &str) -> u64 {
        XxHash64::oneshot(self.seed, name.as_bytes())
            .rotate_left(1)
            .wrapping_add(XxHash64::oneshot(self.seed, arch.as_bytes()))
    }

    /// Counts a guest that was read from the table.
    pub(super) fn refer(&mut self, id: u32) {
        if let Some(entry) = self.by_id.get_mut(&id) {
            entry.references += 1;
        }
    }

    /// After all guests were counted: nobody has the others, and the change log may name them.
    pub(super) fn restored(&mut self, next_change: u64) {
        let unused = self.by_id.iter_mut();
        let unused = unused.filter(|(_, entry)| entry.references == 0);
        self.unused = unused
            .map(|(id, entry)| {
                entry.unused_since = next_change;
                (next_change, *id)
            })
            .collect();
    }

    /// How many guests have each entry that one has.
    #[cfg(test)]
    pub(super) fn references(&self) -> std::collections::BTreeMap<u32, u64> {
        let used = self.by_id.iter().filter(|(_, entry)| entry.references > 0);
        used.map(|(id, entry)| (*id, entry.references)).collect()
    }

    /// Those of which a row must be written, or one that is there is of use again.
    pub(super) fn to_store<'a>(
        &'a self,
        staged: &'a Staged,
    ) -> impl Iterator<Item = &'a Arc<Interned>> {
        let grown = staged.references.iter().filter(|(_, by)| **by > 0);
        let entries = grown.filter_map(|(id, _)| self.by_id.get(id));
        entries
            .filter(|entry| !entry.is_stored)
            .map(|entry| &entry.row)
    }

    /// At most so many entries that nobody needs, with the change log row `oldest` as its first one.
    pub(super) fn to_free(&self, staged: &Staged, oldest: u64, most: usize) -> Vec<u32> {
        let unnamed = self.unused.range(..(oldest.saturating_add(1), 0));
        let ids = unnamed.map(|(_, id)| *id).take(most);
        ids.filter(|id| staged.references.get(id).is_none_or(|by| *by <= 0))
            .filter(|id| {
                self.by_id
                    .get(id)
                    .is_some_and(|entry| !self.is_pinned(entry))
            })
            .collect()
    }

    /// Whether a document on its way to the writer holds the entry, beside the two maps.
    fn is_pinned(&self, entry: &Use) -> bool {
        let by_hash = self.by_hash.get(&entry.hash);
        let own = by_hash.is_some_and(|held| Arc::ptr_eq(held, &entry.row));
        Arc::strong_count(&entry.row) > 1 + usize::from(own)
    }

    /// A transaction is on disk.
    pub(super) fn commit(&mut self, staged: Staged) {
        for id in staged.stored {
            if let Some(entry) = self.by_id.get_mut(&id) {
                entry.is_stored = true;
            }
        }
        for (id, by) in staged.references {
            let Some(entry) = self.by_id.get_mut(&id) else {
                continue;
            };
            if entry.references == 0 {
                self.unused.remove(&(entry.unused_since, id));
            }
            entry.references = entry.references.saturating_add_signed(by);
            if entry.references == 0 {
                entry.unused_since = staged.next_change;
                self.unused.insert((entry.unused_since, id));
            }
        }
        for id in staged.freed {
            self.free(id);
        }
    }

    fn free(&mut self, id: u32) {
        let Some(entry) = self.by_id.get_mut(&id) else {
            return;
        };
        entry.is_stored = false;
        let Some(entry) = self.by_id.get(&id).filter(|entry| !self.is_pinned(entry)) else {
            // A document took hold of it meanwhile: the entry stays, and its row is written again.
            return;
        };
        let (hash, since) = (entry.hash, entry.unused_since);
        let by_hash = self.by_hash.get(&hash);
        if by_hash.is_some_and(|held| Arc::ptr_eq(held, &entry.row)) {
            self.by_hash.remove(&hash);
        }
        self.by_id.remove(&id);
        self.unused.remove(&(since, id));
    }
}

impl Staged {
    /// Counts a guest that has the row from now on, or has it no longer.
    pub(super) fn refer(&mut self, id: u32, by: i64) {
        *self.references.entry(id).or_default() += by;
    }

    /// The row was written.
    pub(super) fn stored(&mut self, id: u32) {
        self.stored.push(id);
    }

    /// These rows were removed; later rows of the change log have at least this number.
    pub(super) fn end(&mut self, freed: Vec<u32>, next_change: u64) {
        (self.freed, self.next_change) = (freed, next_change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::fleet::package;

    fn intern(index: &mut RowIndex, name: &str) -> Arc<Interned> {
        let stored = package::tests::named(name);
        let mut bytes = Vec::new();
        stored.write_to(&mut bytes).unwrap();
        let group = |index: &RowIndex| index.group(stored.name, stored.arch);
        index.intern(&bytes, group).unwrap()
    }

    fn commit(index: &mut RowIndex, refer: &[(u32, i64)], oldest: u64, next: u64) -> Vec<u32> {
        let mut staged = Staged::default();
        for (id, by) in refer {
            staged.refer(*id, *by);
        }
        let stored: Vec<u32> = index.to_store(&staged).map(|row| row.id).collect();
        stored.iter().for_each(|id| staged.stored(*id));
        let freed = index.to_free(&staged, oldest, 10);
        staged.end(freed.clone(), next);
        index.commit(staged);
        freed
    }

    #[test]
    fn equal_packages_are_one_entry() {
        let mut index = RowIndex::new(7);
        let (a, b, again) = (
            intern(&mut index, "a"),
            intern(&mut index, "b"),
            intern(&mut index, "a"),
        );
        assert_eq!((a.id, b.id, again.id), (7, 8, 7));
        assert_ne!(a.group, b.group);
    }

    #[test]
    fn packages_whose_hashes_collide_stay_two() {
        let mut index = RowIndex::new(0);
        let a = intern(&mut index, "a");
        let hash = index.by_id[&a.id].hash;
        // As if `b` had the hash of `a`.
        let b = index.insert(9, b"b", 0, hash, false);
        assert_eq!(index.by_id[&b.id].hash, hash.wrapping_add(1));
        assert_eq!(intern(&mut index, "a").id, a.id);
    }

    #[test]
    fn an_entry_is_freed_once_neither_guest_nor_history_nor_a_document_needs_it() {
        let mut index = RowIndex::new(0);
        let id = intern(&mut index, "a").id;
        assert_eq!(commit(&mut index, &[(id, 1)], 0, 1), [0u32; 0]);
        // The last guest drops it: rows before number 5 may name it.
        assert_eq!(commit(&mut index, &[(id, -1)], 1, 5), [0u32; 0]);
        assert_eq!(commit(&mut index, &[], 4, 6), [0u32; 0], "row 4 is there");
        let held = intern(&mut index, "a");
        assert_eq!(
            commit(&mut index, &[], 6, 6),
            [0u32; 0],
            "a document holds it"
        );
        drop(held);
        assert_eq!(commit(&mut index, &[], 6, 6), [id]);
        assert_eq!(index.len(), 0);
        assert_ne!(
            intern(&mut index, "a").id,
            id,
            "ids are not given out twice"
        );
    }

    #[test]
    fn an_entry_that_is_taken_while_its_row_goes_gets_its_row_back() {
        let mut index = RowIndex::new(0);
        let id = intern(&mut index, "a").id;
        commit(&mut index, &[(id, 1)], 0, 1);
        commit(&mut index, &[(id, -1)], 1, 1);
        let mut staged = Staged::default();
        let freed = index.to_free(&staged, 1, 10);
        assert_eq!(freed, [id]);
        let taken = intern(&mut index, "a");
        staged.end(freed, 1);
        index.commit(staged);
        assert_eq!(taken.id, id);
        let mut staged = Staged::default();
        staged.refer(id, 1);
        assert_eq!(index.to_store(&staged).count(), 1);
    }

    #[test]
    fn an_entry_of_a_document_that_was_never_written_goes() {
        let mut index = RowIndex::new(0);
        drop(intern(&mut index, "a"));
        assert_eq!(commit(&mut index, &[], 0, 0), [0]);
        assert_eq!(index.len(), 0);
    }
}
