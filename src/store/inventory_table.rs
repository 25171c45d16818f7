//! Mirrored rows and the indexes beside them.
//!
//! ```text
//! rack             id            -> Rack
//! component        type, id      -> Component      rows of one type lie together
//! bmc              MAC           -> Bmc
//! component_drift  id            -> Drift
//! nvldomain        id            -> Domain
//! inventory_index  tag, value    -> row            unique: external ids and pairs
//!                  tag, value, row -> nothing      others: rack names, live components of a rack,
//!                                                  BMCs of a component
//! inventory_absent type, id      -> how often in a row the row was missing
//! inventory_meta   name          -> generation: +1 with every commit
//! ```
//!
//! Every row is written by [`Tables::apply`], which keeps the indexes; two rows that may not be
//! there together end the transaction. [`Tables::check`] builds the indexes again and compares.

use super::audit_table::{Audit, AuditRow, AuditRun};
use super::codec::{decode, encode};
use super::inventory_index::{Index, index_entries, key_bytes, pair_value};
use super::row::Row as Stored;
use super::{Store, StoreError, TxError};
use crate::inventory::{Bmc, Component, ComponentType, Domain, Drift, Pair, Rack, Row, RowKey};
use redb::{ReadableTable, ReadableTableMetadata, Table, TableDefinition, WriteTransaction};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use uuid::Uuid;

const RACK: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rack");
const COMPONENT: TableDefinition<&[u8], &[u8]> = TableDefinition::new("component");
const BMC: TableDefinition<&[u8], &[u8]> = TableDefinition::new("bmc");
const DRIFT: TableDefinition<&[u8], &[u8]> = TableDefinition::new("component_drift");
const DOMAIN: TableDefinition<&[u8], &[u8]> = TableDefinition::new("nvldomain");
const INDEX: TableDefinition<&[u8], &[u8]> = TableDefinition::new("inventory_index");
const ABSENT: TableDefinition<&[u8], u32> = TableDefinition::new("inventory_absent");
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("inventory_meta");

/// Tables of rows, as a dump names and orders them.
pub(crate) const TABLES: [&str; 5] = ["rack", "component", "bmc", "component_drift", "nvldomain"];

/// Name of the counter of commits.
const GENERATION: &str = "generation";

/// Why a transaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Two rows may not be there together.
    #[error("{0}")]
    NotUnique(NotUnique),
    /// Whoever ran the transaction gave it up.
    #[error("{0}")]
    GivenUp(String),
}

/// Two rows that may not be there together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{index} {value} belongs to two rows")]
pub struct NotUnique {
    index: &'static str,
    value: String,
}

/// What goes wrong within a transaction.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The store failed.
    Tx(TxError),
    /// Two rows may not be there together.
    NotUnique(NotUnique),
    /// Whoever runs the transaction gives it up.
    GiveUp(String),
}

impl<E: Into<TxError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Tx(error.into())
    }
}

/// Whether a transaction is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is on disk when the call returns.
    Commit,
    /// Nothing was written.
    Discard,
}

impl Store {
    /// Runs `work` in one write transaction: what it reads is what it changes. `work` says
    /// whether anything is kept; a transaction that is not costs no write at all.
    pub(crate) fn inventory<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<(T, Ending), Fault>,
    ) -> Result<T, InventoryError> {
        self.reopen_if_failed()?;
        let mut refused = None;
        let result = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let Some(handle) = state.as_ref() else {
                return Err(self.closed().into());
            };
            self.guard(|| {
                let transaction = handle.db.begin_write()?;
                let mut tables = Tables::open(&transaction)?;
                let worked = work(&mut tables);
                match worked {
                    Ok((value, ending)) => {
                        if ending == Ending::Commit {
                            tables.count_commit()?;
                            drop(tables);
                            transaction.commit()?;
                        } else {
                            drop(tables);
                            transaction.abort()?;
                        }
                        Ok(Some(value))
                    }
                    Err(Fault::Tx(error)) => Err(error),
                    Err(other) => {
                        drop(tables);
                        transaction.abort()?;
                        refused = Some(other);
                        Ok(None)
                    }
                }
            })
        };
        if matches!(result, Err(StoreError::Full { .. } | StoreError::Io { .. })) {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(handle) = state.as_mut() {
                handle.failed = true;
            }
        }
        match (result?, refused) {
            (Some(value), _) => Ok(value),
            (None, Some(Fault::NotUnique(what))) => Err(InventoryError::NotUnique(what)),
            (None, Some(Fault::GiveUp(why))) => Err(InventoryError::GivenUp(why)),
            (None, _) => Err(self.closed().into()),
        }
    }
}

type Bytes<'tx> = Table<'tx, &'static [u8], &'static [u8]>;

/// All tables of the mirror within one transaction.
pub(crate) struct Tables<'tx> {
    rack: Bytes<'tx>,
    component: Bytes<'tx>,
    bmc: Bytes<'tx>,
    drift: Bytes<'tx>,
    domain: Bytes<'tx>,
    index: Bytes<'tx>,
    absent: Table<'tx, &'static [u8], u32>,
    meta: Table<'tx, &'static str, &'static [u8]>,
    audit: Audit<'tx>,
}

impl<'tx> Tables<'tx> {
    fn open(tx: &'tx WriteTransaction) -> Result<Self, TxError> {
        Ok(Self {
            rack: tx.open_table(RACK)?,
            component: tx.open_table(COMPONENT)?,
            bmc: tx.open_table(BMC)?,
            drift: tx.open_table(DRIFT)?,
            domain: tx.open_table(DOMAIN)?,
            index: tx.open_table(INDEX)?,
            absent: tx.open_table(ABSENT)?,
            meta: tx.open_table(META)?,
            audit: Audit::open(tx)?,
        })
    }

    /// How often this file was committed to.
    pub(crate) fn generation(&self) -> Result<u64, Fault> {
        Ok(match self.meta.get(GENERATION)? {
            None => 0,
            Some(value) => decode(value.value()).map_err(TxError::from)?,
        })
    }

    fn count_commit(&mut self) -> Result<(), TxError> {
        let generation: u64 = match self.meta.get(GENERATION)? {
            None => 0,
            Some(value) => decode(value.value())?,
        };
        let next = encode(&(generation + 1))?;
        self.meta.insert(GENERATION, next.as_slice())?;
        Ok(())
    }

    /// All racks, by id.
    pub(crate) fn racks(&self) -> Result<Vec<Rack>, Fault> {
        all(&self.rack)
    }

    /// Components of one type, by id.
    pub(crate) fn components(&self, kind: ComponentType) -> Result<Vec<Component>, Fault> {
        let begin = [kind.tag()];
        let end = [kind.tag() + 1];
        let mut rows = Vec::new();
        for entry in self.component.range(begin.as_slice()..end.as_slice())? {
            rows.push(row(entry?)?);
        }
        Ok(rows)
    }

    /// Components of all types, by type and id.
    pub(crate) fn all_components(&self) -> Result<Vec<Component>, Fault> {
        all(&self.component)
    }

    /// How many components of all types there are.
    pub(crate) fn count_components(&self) -> Result<usize, Fault> {
        Ok(usize::try_from(self.component.len()?).unwrap_or(usize::MAX))
    }

    /// All BMCs, by address.
    pub(crate) fn bmcs(&self) -> Result<Vec<Bmc>, Fault> {
        all(&self.bmc)
    }

    /// All drift rows, by id.
    pub(crate) fn drifts(&self) -> Result<Vec<Drift>, Fault> {
        all(&self.drift)
    }

    /// All NVLink domains, by id.
    pub(crate) fn domains(&self) -> Result<Vec<Domain>, Fault> {
        all(&self.domain)
    }

    /// Rows of one table, named as in a dump, in the order of their keys. Of no table there are none.
    pub(crate) fn rows_of(&self, table: &str) -> Result<Vec<Row>, Fault> {
        fn boxed<T>(rows: Vec<T>, row: impl Fn(Box<T>) -> Row) -> Vec<Row> {
            rows.into_iter().map(|r| row(Box::new(r))).collect()
        }
        Ok(match table {
            "rack" => boxed(self.racks()?, Row::Rack),
            "component" => boxed(self.all_components()?, Row::Component),
            "bmc" => self.bmcs()?.into_iter().map(Row::Bmc).collect(),
            "component_drift" => boxed(self.drifts()?, Row::Drift),
            "nvldomain" => boxed(self.domains()?, Row::Domain),
            _ => Vec::new(),
        })
    }

    /// The component with this pair, of whatever type.
    pub(crate) fn component_of_pair(&self, pair: Pair<'_>) -> Result<Option<Component>, Fault> {
        let key = Index::ComponentPair.key(&pair_value(pair));
        let Some(row) = self.index.get(key.as_slice())? else {
            return Ok(None);
        };
        match self.component.get(row.value())? {
            Some(value) => Ok(Some(decode(value.value()).map_err(TxError::from)?)),
            None => Ok(None),
        }
    }

    /// Racks that components of any type point to, as long as one does.
    pub(crate) fn racks_pointed_to(&self) -> Result<Vec<Uuid>, Fault> {
        let mut racks = Vec::new();
        let tag = Index::ComponentsOfRack as u8;
        let mut from = vec![tag];
        // One step per rack: the next begins behind all keys of the last.
        loop {
            let end = [tag + 1];
            let Some(entry) = self.index.range(from.as_slice()..end.as_slice())?.next() else {
                return Ok(racks);
            };
            let key = entry?.0.value().to_vec();
            let value = key.get(5..21).and_then(|id| Uuid::from_slice(id).ok());
            let Some(rack) = value else {
                return Err(TxError::Corrupt("an index key is cut off".into()).into());
            };
            racks.push(rack);
            from = Index::ComponentsOfRack.key(rack.as_bytes());
            from.extend([0xff; 18]);
        }
    }

    /// How often in a row each row of `kind` was missing. `None` stands for racks.
    pub(crate) fn absent(&self, kind: Option<ComponentType>) -> Result<Vec<(Uuid, u32)>, Fault> {
        let tag = absent_tag(kind);
        let end = [tag + 1];
        let mut rows = Vec::new();
        for entry in self.absent.range([tag].as_slice()..end.as_slice())? {
            let (key, times) = entry?;
            let id = key
                .value()
                .get(1..)
                .and_then(|id| Uuid::from_slice(id).ok());
            rows.extend(id.map(|id| (id, times.value())));
        }
        Ok(rows)
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

    /// A list of ids kept under a name.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, Fault> {
        Ok(match self.meta.get(name)? {
            None => Vec::new(),
            Some(value) => decode(value.value()).map_err(TxError::from)?,
        })
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
        let entries = |rows: &mut dyn Iterator<Item = &Row>| {
            let mut entries: Vec<(Vec<u8>, Vec<u8>, Index)> = Vec::new();
            rows.for_each(|row| index_entries(row, &mut entries));
            // In order, because that is much cheaper for a tree.
            entries.sort_unstable();
            entries
        };
        let old = entries(&mut changes.iter().filter_map(|(before, _)| *before));
        let new = entries(&mut changes.iter().filter_map(|(_, after)| *after));
        for (key, _, _) in difference(&old, &new) {
            self.index.remove(key.as_slice())?;
        }
        for (key, value, index) in difference(&new, &old) {
            let there = self.index.insert(key.as_slice(), value.as_slice())?;
            if there.is_some() {
                return Err(Fault::NotUnique(NotUnique {
                    index: index.name(),
                    value: String::from_utf8_lossy(key.get(5..).unwrap_or_default()).into_owned(),
                }));
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

    /// Gives every audit row with its number and run, oldest first, until `each` answers false.
    pub(crate) fn audit_rows(
        &self,
        each: impl FnMut(u64, &AuditRun, AuditRow) -> bool,
    ) -> Result<(), Fault> {
        Ok(self.audit.scan(each)?)
    }

    /// Builds the indexes from the rows and compares. Gives what is wrong, one line each.
    pub(crate) fn check(&self) -> Result<Vec<String>, Fault> {
        let mut entries = Vec::new();
        let mut problems = Vec::new();
        for table in TABLES {
            for row in self.rows_of(table)? {
                index_entries(&row, &mut entries);
            }
        }
        let mut wanted: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, value, index) in entries {
            let text = String::from_utf8_lossy(key.get(5..).unwrap_or_default()).into_owned();
            if wanted.insert(key, value).is_some() {
                problems.push(format!("{} {text} belongs to two rows", index.name()));
            }
        }
        for entry in self.index.iter()? {
            let (key, value) = entry?;
            let (key, value) = (key.value(), value.value());
            match wanted.remove(key) {
                Some(row) if row == value => {}
                Some(_) => problems.push(format!("index entry {key:02x?} points to another row")),
                None => problems.push(format!("index entry {key:02x?} belongs to no row")),
            }
        }
        problems.extend(
            wanted
                .keys()
                .map(|key| format!("index entry {key:02x?} is missing")),
        );
        Ok(problems)
    }

    fn table(&mut self, key: RowKey) -> (&mut Bytes<'tx>, Vec<u8>) {
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

fn all<T: for<'a> Stored<'a>>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> Result<Vec<T>, Fault> {
    let mut rows = Vec::new();
    for entry in table.iter()? {
        rows.push(row(entry?)?);
    }
    Ok(rows)
}

/// The value of an entry. One that cannot be read ends the run, since what the table says would not be
/// all of it, and is named.
fn row<T: for<'a> Stored<'a>>(entry: Entry<'_>) -> Result<T, TxError> {
    let (key, value) = entry;
    decode(value.value()).map_err(|error| {
        let key: String = key.value().iter().map(|b| format!("{b:02x}")).collect();
        let table = std::any::type_name::<T>().rsplit("::").next();
        TxError::Row(format!("{} {key}: {error}", table.unwrap_or_default()))
    })
}

type Entry<'a> = (
    redb::AccessGuard<'a, &'static [u8]>,
    redb::AccessGuard<'a, &'static [u8]>,
);

fn encode_row(row: &Row) -> Result<Vec<u8>, TxError> {
    Ok(match row {
        Row::Rack(row) => encode(row.as_ref()),
        Row::Component(row) => encode(row.as_ref()),
        Row::Bmc(row) => encode(row),
        Row::Drift(row) => encode(row.as_ref()),
        Row::Domain(row) => encode(row.as_ref()),
    }?)
}

fn absent_tag(kind: Option<ComponentType>) -> u8 {
    kind.map_or(0x80, ComponentType::tag)
}

/// What is in `these` and not in `those`; both sorted.
fn difference<'a, T: Ord>(these: &'a [T], those: &'a [T]) -> impl Iterator<Item = &'a T> {
    these
        .iter()
        .filter(|entry| those.binary_search(entry).is_err())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rack(n: u128, name: &str, external_id: Option<&str>) -> Rack {
        Rack {
            external_id: external_id.map(str::to_owned),
            ..Rack::new(Uuid::from_u128(n), name.into())
        }
    }

    fn write(store: &Store, changes: &[(Option<Row>, Option<Row>)]) -> Result<(), InventoryError> {
        let changes: Vec<_> = changes
            .iter()
            .map(|(before, after)| (before.as_ref(), after.as_ref()))
            .collect();
        store.inventory(|tables| Ok((tables.apply(&changes)?, Ending::Commit)))
    }

    fn look<T>(store: &Store, read: impl FnOnce(&Tables<'_>) -> Result<T, Fault>) -> T {
        store
            .inventory(|tables| Ok((read(tables)?, Ending::Discard)))
            .unwrap()
    }

    #[test]
    fn two_rows_may_swap_what_is_unique_but_never_share_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
            .unwrap()
            .store;
        let (a, b) = (rack(1, "a", Some("x")), rack(2, "b", Some("y")));
        let (a2, b2) = (rack(1, "a", Some("y")), rack(2, "b", Some("x")));
        let row = |rack: &Rack| Some(Row::Rack(Box::new(rack.clone())));
        write(&store, &[(None, row(&a)), (None, row(&b))]).unwrap();
        write(&store, &[(row(&a), row(&a2)), (row(&b), row(&b2))]).unwrap();
        assert_eq!(look(&store, |t| t.racks()), [a2, b2.clone()]);
        let error = write(&store, &[(row(&b2), row(&rack(2, "b", Some("y"))))]).unwrap_err();
        assert!(matches!(error, InventoryError::NotUnique(_)), "{error}");
        assert_eq!(look(&store, |t| t.check()), Vec::<String>::new());
        assert_eq!(look(&store, |t| t.generation()), 2);
    }

    #[test]
    fn a_discarded_transaction_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
            .unwrap()
            .store;
        let row = Row::Rack(Box::new(rack(1, "a", None)));
        store
            .inventory(|tables| Ok((tables.apply(&[(None, Some(&row))])?, Ending::Discard)))
            .unwrap();
        assert!(look(&store, |t| t.racks()).is_empty());
        assert_eq!(look(&store, |t| t.generation()), 0);
    }

    #[test]
    fn an_index_that_does_not_fit_its_rows_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
            .unwrap()
            .store;
        let row = Row::Rack(Box::new(rack(1, "a", Some("x"))));
        write(&store, &[(None, Some(row))]).unwrap();
        store
            .inventory(|tables| {
                let key = Index::RackExternalId.key(b"x");
                tables.index.remove(key.as_slice())?;
                tables
                    .index
                    .insert(Index::RackPair.key(b"q").as_slice(), [9].as_slice())?;
                Ok(((), Ending::Commit))
            })
            .unwrap();
        assert_eq!(look(&store, |t| t.check()).len(), 2);
    }

    #[test]
    fn racks_that_components_point_to_are_found_once_each() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "mirror.redb", 1 << 20)
            .unwrap()
            .store;
        let component = |n: u128, rack: u128| {
            let mut row = Component::new(Uuid::from_u128(n), ComponentType::Compute);
            row.rack_id = Some(Uuid::from_u128(rack));
            (None, Some(Row::Component(Box::new(row))))
        };
        write(&store, &[component(1, 7), component(2, 7), component(3, 9)]).unwrap();
        let racks = look(&store, |t| t.racks_pointed_to());
        assert_eq!(racks, [Uuid::from_u128(7), Uuid::from_u128(9)]);
    }
}
