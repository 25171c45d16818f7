//! Many entries written in the order of their keys.
//!
//! Entries that fall into one gap of a table are handed to redb together: it fills whole pages with them and changes
//! their parents once, where entries that come one by one search the tree each time and leave pages half empty.

use super::TxError;
use redb::{CursorError, Table};
use std::ops::Bound;

/// A table whose keys and values are bytes.
pub(crate) type ByteTable<'tx> = Table<'tx, &'static [u8], &'static [u8]>;

/// The bytes of an entry; used again for the next one.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// Inserts the entries that `next` gives, until it answers false. They come in the order of their keys; in any other
/// order the table is the same in the end, and it takes longer. An entry whose key is there goes to `present`.
pub(crate) fn insert_sorted<E: From<TxError>>(
    table: &mut ByteTable<'_>,
    mut next: impl FnMut(&mut Entry) -> Result<bool, E>,
    mut present: impl FnMut(&mut ByteTable<'_>, &Entry) -> Result<(), E>,
) -> Result<(), E> {
    let mut entry = Entry::default();
    let mut more = next(&mut entry)?;
    while more {
        let mut fits = false;
        let begin = Bound::Included(entry.key.as_slice());
        let mut gap = table.lower_bound_mut(begin).map_err(TxError::from)?;
        while more {
            match gap.insert_before(entry.key.as_slice(), entry.value.as_slice()) {
                Ok(()) => {
                    fits = true;
                    more = next(&mut entry)?;
                }
                Err(CursorError::UnorderedKey) => break,
                Err(CursorError::Storage(error)) => return Err(TxError::from(error).into()),
                Err(error) => {
                    let why = format!("an entry cannot be inserted: {error}");
                    return Err(TxError::Failed(why).into());
                }
            }
        }
        gap.close().map_err(TxError::from)?;
        if more && !fits {
            present(table, &entry)?;
            more = next(&mut entry)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::access::in_memory;
    use proptest::prelude::*;
    use redb::{ReadableDatabase, ReadableTable, TableDefinition};
    use std::collections::BTreeMap;

    const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("test");

    fn insert(table: &mut ByteTable<'_>, entries: &[(u16, u8)]) -> Result<Vec<(u16, u8)>, TxError> {
        let (mut entries, mut there) = (entries.iter(), Vec::new());
        insert_sorted::<TxError>(
            table,
            |entry| {
                let Some((key, value)) = entries.next() else {
                    return Ok(false);
                };
                entry.key = key.to_be_bytes().to_vec();
                entry.value = vec![*value; 40];
                Ok(true)
            },
            |table, entry| {
                let key = entry.key.as_slice().try_into().unwrap();
                there.push((u16::from_be_bytes(key), entry.value[0]));
                table.insert(entry.key.as_slice(), entry.value.as_slice())?;
                Ok(())
            },
        )?;
        Ok(there)
    }

    proptest! {
        /// The loss: an entry that is not written, or one that takes the place of another unnoticed.
        #[test]
        fn the_table_holds_every_entry_whatever_was_there_and_in_whatever_order_they_come(
            rounds in proptest::collection::vec((any::<bool>(), proptest::collection::vec((0..3000u16, any::<u8>()), 0..600)), 1..4)
        ) {
            let db = in_memory().unwrap();
            let mut model = BTreeMap::new();
            for (is_sorted, mut entries) in rounds {
                if is_sorted {
                    entries.sort_by_key(|(key, _)| *key);
                }
                let tx = db.begin_write().unwrap();
                let mut table = tx.open_table(TABLE).unwrap();
                let there = insert(&mut table, &entries).unwrap();
                let mut expected = Vec::new();
                for (key, value) in entries {
                    if model.insert(key, value).is_some() {
                        expected.push((key, value));
                    }
                }
                prop_assert_eq!(there, expected);
                drop(table);
                tx.commit().unwrap();
            }
            let tx = db.begin_read().unwrap();
            let table = tx.open_table(TABLE).unwrap();
            let stored = table.iter().unwrap().map(|entry| {
                let (key, value) = entry.unwrap();
                assert_eq!(value.value(), vec![value.value()[0]; 40]);
                (u16::from_be_bytes(key.value().try_into().unwrap()), value.value()[0])
            });
            prop_assert_eq!(stored.collect::<Vec<_>>(), model.into_iter().collect::<Vec<_>>());
        }
    }
}
