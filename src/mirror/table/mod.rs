//! The tables of `mirror.redb`: mirrored rows, the indexes beside them ([`index`]), and the log of what was
//! done ([`audit`]).
//!
//! ```text
//! rack             id            -> Rack
//! component        type, id      -> Component      rows of one type lie together
//! bmc              MAC           -> Bmc
//! component_drift  id            -> Drift
//! nvldomain        id            -> Domain
//! inventory_index  tag, value    -> row            unique: external ids and pairs
//!                  tag, value, row -> nothing      others: rack names, live components of a rack
//! inventory_absent type, id      -> how often in a row the row was missing
//! inventory_meta   name          -> generation: +1 with every commit
//! ```
//!
//! Every row is written by [`Tables::apply`], which keeps the indexes; two rows that may not be
//! there together end the transaction. [`Tables::check`] builds the indexes again and compares.

pub(super) mod audit;
mod index;
mod lookup;
mod row;
mod v1;
mod write;

use crate::inventory::{Bmc, Component, ComponentType, Domain, Drift, Pair, Rack, Row};
pub(crate) use crate::store::Ending;
use crate::store::access::{Access, Open, Reading, Writing};
use crate::store::codec::{Row as Stored, decode};
use crate::store::{Snapshot, Store, StoreError, TxError};
use audit::{Audit, AuditHead, AuditRow, AuditRun, StoredAuditRow};
use index::{Index, IndexEntries, RETIRED};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition};
use std::collections::BTreeMap;
use uuid::Uuid;

pub(super) use row::may_name;

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

impl InventoryError {
    /// Of a fault that is not the store's.
    fn from_fault(fault: Fault) -> Self {
        match fault {
            Fault::NotUnique(what) => Self::NotUnique(what),
            Fault::GiveUp(why) => Self::GivenUp(why),
            Fault::Tx(error) => Self::GivenUp(error.to_string()),
        }
    }
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

impl Store {
    /// Runs `work` in one write transaction: what it reads is what it changes. `work` says
    /// whether anything is kept; a transaction that is not costs no write at all.
    pub(crate) fn inventory<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<(T, Ending), Fault>,
    ) -> Result<T, InventoryError> {
        self.inventory_without_count(|tables| {
            let (value, ending) = work(tables)?;
            if ending == Ending::Commit {
                tables.count_commit()?;
            }
            Ok((value, ending))
        })
    }

    /// The same, and the commit is not counted: the tables are what they were.
    pub(crate) fn inventory_without_count<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<(T, Ending), Fault>,
    ) -> Result<T, InventoryError> {
        let done = self.write_or_discard(|tx| {
            let mut tables = Tables::open_all(&tx, Audit::open(&tx)?)?;
            match work(&mut tables) {
                Ok((value, ending)) => Ok((Ok(value), ending)),
                Err(Fault::Tx(error)) => Err(error),
                Err(other) => Ok((Err(other), Ending::Discard)),
            }
        });
        done?.map_err(InventoryError::from_fault)
    }
}

impl Snapshot {
    /// Reads the inventory.
    pub(crate) fn view<T>(
        &self,
        read: impl FnOnce(&View) -> Result<T, Fault>,
    ) -> Result<T, InventoryError> {
        let done = self.read(|tx| {
            let view = View::open(tx)?;
            match read(&view) {
                Ok(value) => Ok(Ok(value)),
                Err(Fault::Tx(error)) => Err(error),
                Err(other) => Ok(Err(other)),
            }
        });
        done?.map_err(InventoryError::from_fault)
    }
}

impl Store {
    /// A store in memory with the inventory of a snapshot in it, but not its audit log: to find out what
    /// would become of it.
    pub fn copy_of(snapshot: &Snapshot) -> Result<Self, InventoryError> {
        let store = Self::in_memory()?;
        snapshot.view(|view| {
            // The counter of commits is copied like everything else, and is not to go on.
            let copied = store.inventory_without_count(|tables| {
                view.copy_to(tables)?;
                Ok(((), Ending::Commit))
            });
            copied.map_err(|error| Fault::GiveUp(error.to_string()))
        })?;
        Ok(store)
    }
}

type Bytes<A> = <A as Access>::Table<&'static [u8], &'static [u8]>;

/// All tables of the mirror, open in one of two ways.
pub(crate) struct Inventory<A: Access> {
    rack: Bytes<A>,
    component: Bytes<A>,
    bmc: Bytes<A>,
    drift: Bytes<A>,
    domain: Bytes<A>,
    index: Bytes<A>,
    absent: A::Table<&'static [u8], u32>,
    meta: A::Table<&'static str, &'static [u8]>,
    audit: Audit<A>,
}

/// Within one write transaction.
pub(crate) type Tables<'tx> = Inventory<Writing<'tx>>;

/// In one snapshot.
pub(crate) type View = Inventory<Reading>;

impl<A: Access> Inventory<A> {
    fn open_all(tx: &impl Open<A>, audit: Audit<A>) -> Result<Self, TxError> {
        Ok(Self {
            rack: tx.table(RACK)?,
            component: tx.table(COMPONENT)?,
            bmc: tx.table(BMC)?,
            drift: tx.table(DRIFT)?,
            domain: tx.table(DOMAIN)?,
            index: tx.table(INDEX)?,
            absent: tx.table(ABSENT)?,
            meta: tx.table(META)?,
            audit,
        })
    }

    /// How often this file was committed to.
    pub(crate) fn generation(&self) -> Result<u64, Fault> {
        Ok(match self.meta.get(GENERATION)? {
            None => 0,
            Some(value) => decode(value.value()).map_err(TxError::from)?,
        })
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
            "bmc" => boxed(self.bmcs()?, Row::Bmc),
            "component_drift" => boxed(self.drifts()?, Row::Drift),
            "nvldomain" => boxed(self.domains()?, Row::Domain),
            _ => Vec::new(),
        })
    }

    /// The component with this pair, of whatever type.
    pub(crate) fn component_of_pair(&self, pair: Pair<'_>) -> Result<Option<Component>, Fault> {
        let key = Index::ComponentPair.key(pair.key().as_bytes());
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

    /// A list of ids kept under a name.
    pub(crate) fn list(&self, name: &str) -> Result<Vec<String>, Fault> {
        Ok(match self.meta.get(name)? {
            None => Vec::new(),
            Some(value) => decode(value.value()).map_err(TxError::from)?,
        })
    }

    /// Gives every audit row from number `from` on with its number and run, oldest first, until `each`
    /// answers false.
    pub(crate) fn audit_rows(
        &self,
        from: u64,
        each: impl FnMut(u64, &AuditRun, StoredAuditRow) -> Result<bool, TxError>,
    ) -> Result<(), Fault> {
        Ok(self.audit.scan(from, each)?)
    }

    /// The heads of the audit log, oldest first.
    pub(crate) fn audit_heads(&self) -> Result<Vec<AuditHead>, Fault> {
        Ok(self.audit.heads()?)
    }

    /// Gives every row of the audit log's checkpoint, and the number from which the log replays.
    pub(crate) fn audit_checkpoint(
        &self,
        each: impl FnMut(AuditRow),
    ) -> Result<Option<u64>, Fault> {
        Ok(self.audit.checkpoint(each)?)
    }

    /// Builds the indexes from the rows and compares. Gives what is wrong, one line each.
    pub(crate) fn check(&self) -> Result<Vec<String>, Fault> {
        let mut entries = IndexEntries::default();
        let mut problems = Vec::new();
        for table in TABLES {
            for row in self.rows_of(table)? {
                entries.add_row(&row);
            }
        }
        let mut wanted: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
        for entry in entries.iter() {
            if wanted.insert(entry.key, entry.value).is_some() {
                let text = String::from_utf8_lossy(entry.key.get(5..).unwrap_or_default());
                problems.push(format!("{} {text} belongs to two rows", entry.index.name()));
            }
        }
        for entry in self.index.iter()? {
            let (key, value) = entry?;
            let (key, value) = (key.value(), value.value());
            match wanted.remove(key) {
                None if key.first() == Some(&RETIRED) => {}
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
}

impl View {
    fn open(tx: &ReadTransaction) -> Result<Self, TxError> {
        Self::open_all(&tx, Audit::<Reading>::open(&tx)?)
    }

    /// Copies everything but the audit log into empty tables.
    fn copy_to(&self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        for (from, to) in [
            (&self.rack, &mut tables.rack),
            (&self.component, &mut tables.component),
            (&self.bmc, &mut tables.bmc),
            (&self.drift, &mut tables.drift),
            (&self.domain, &mut tables.domain),
            (&self.index, &mut tables.index),
        ] {
            for entry in from.iter()? {
                let (key, value) = entry?;
                to.insert(key.value(), value.value())?;
            }
        }
        for entry in self.absent.iter()? {
            let (key, value) = entry?;
            tables.absent.insert(key.value(), value.value())?;
        }
        for entry in self.meta.iter()? {
            let (key, value) = entry?;
            tables.meta.insert(key.value(), value.value())?;
        }
        Ok(())
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

fn absent_tag(kind: Option<ComponentType>) -> u8 {
    kind.map_or(0x80, ComponentType::tag)
}

#[cfg(test)]
mod tests;
