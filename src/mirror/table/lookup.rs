//! Rows one at a time, and those of one rack: what questions of people need, without reading a table as a whole.

use super::audit::{AuditRun, StoredAuditRow};
use super::index::Index;
use super::{Fault, Inventory, may_name, row};
use crate::inventory::{Bmc, Component, ComponentType, Drift, Mac, Rack};
use crate::store::TxError;
use crate::store::access::Access;
use crate::store::codec::{Row as Stored, decode};
use redb::ReadableTable;
use std::collections::HashSet;
use std::ops::Bound;
use uuid::Uuid;

impl<A: Access> Inventory<A> {
    /// A rack by its id.
    pub(crate) fn rack(&self, id: Uuid) -> Result<Option<Rack>, Fault> {
        get(&self.rack, id.as_bytes())
    }

    /// A rack by Core's name of it.
    pub(crate) fn rack_of_external_id(&self, id: &str) -> Result<Option<Rack>, Fault> {
        let key = Index::RackExternalId.key(id.as_bytes());
        match self.index.get(key.as_slice())? {
            Some(row) => get(&self.rack, row.value()),
            None => Ok(None),
        }
    }

    /// Gives every rack behind the one with this id, by id, until `each` answers false.
    pub(crate) fn racks_behind(
        &self,
        after: Option<Uuid>,
        mut each: impl FnMut(Rack) -> bool,
    ) -> Result<(), Fault> {
        let after = after.map(Uuid::into_bytes);
        let begin = match &after {
            Some(id) => Bound::Excluded(id.as_slice()),
            None => Bound::Unbounded,
        };
        for entry in self.rack.range::<&[u8]>((begin, Bound::Unbounded))? {
            if !each(row(entry?)?) {
                break;
            }
        }
        Ok(())
    }

    /// A component by its type and id.
    pub(crate) fn component(
        &self,
        kind: ComponentType,
        id: Uuid,
    ) -> Result<Option<Component>, Fault> {
        let mut key = vec![kind.tag()];
        key.extend(id.as_bytes());
        get(&self.component, &key)
    }

    /// Types and ids of the live components of a rack, by type and id.
    pub(crate) fn components_of_rack(
        &self,
        rack: Uuid,
    ) -> Result<Vec<(ComponentType, Uuid)>, Fault> {
        let mut found = Vec::new();
        for own in self.keys_of(Index::ComponentsOfRack, rack.as_bytes())? {
            let kind = own.first().copied().and_then(ComponentType::of_tag);
            let id = own.get(1..).and_then(|id| Uuid::from_slice(id).ok());
            found.extend(kind.zip(id));
        }
        Ok(found)
    }

    /// Ids of the components of these racks, tombstones included: no index leads to those, and few rows are
    /// decoded.
    pub(crate) fn all_components_of(&self, racks: &HashSet<Uuid>) -> Result<HashSet<Uuid>, Fault> {
        let mut found = HashSet::new();
        for entry in self.component.iter()? {
            let entry = entry?;
            if may_name(entry.1.value(), racks) {
                let component: Component = row(entry)?;
                let rack = component.rack_id;
                let is_in = rack.is_some_and(|rack| racks.contains(&rack));
                found.extend(is_in.then_some(component.id));
            }
        }
        Ok(found)
    }

    /// Addresses of the BMCs of these components.
    pub(crate) fn bmcs_of(&self, components: &HashSet<Uuid>) -> Result<Vec<Mac>, Fault> {
        let mut found = Vec::new();
        for entry in self.bmc.iter()? {
            let entry = entry?;
            if may_name(entry.1.value(), components) {
                let bmc: Bmc = row(entry)?;
                let is_of = components.contains(&bmc.component_id);
                found.extend(is_of.then_some(bmc.mac));
            }
        }
        Ok(found)
    }

    /// A BMC by its address.
    pub(crate) fn bmc(&self, mac: Mac) -> Result<Option<Bmc>, Fault> {
        get(&self.bmc, &mac.bytes())
    }

    /// A drift row by its id.
    pub(crate) fn drift(&self, id: Uuid) -> Result<Option<Drift>, Fault> {
        get(&self.drift, id.as_bytes())
    }

    /// Gives every BMC, by address.
    pub(crate) fn each_bmc(&self, mut each: impl FnMut(Bmc)) -> Result<(), Fault> {
        for entry in self.bmc.iter()? {
            each(row(entry?)?);
        }
        Ok(())
    }

    /// Gives every drift row, by id.
    pub(crate) fn each_drift(&self, mut each: impl FnMut(Drift)) -> Result<(), Fault> {
        for entry in self.drift.iter()? {
            each(row(entry?)?);
        }
        Ok(())
    }

    /// Gives every audit row before the number `before` with its number and run, newest first, until `each`
    /// answers false.
    pub(crate) fn audit_rows_back(
        &self,
        before: u64,
        each: impl FnMut(u64, &AuditRun, StoredAuditRow) -> Result<bool, TxError>,
    ) -> Result<(), Fault> {
        Ok(self.audit.scan_back(before, each)?)
    }

    /// The keys of rows that an index has for a value.
    fn keys_of(&self, index: Index, value: &[u8]) -> Result<Vec<Vec<u8>>, Fault> {
        let begin = index.key(value);
        let mut keys = Vec::new();
        for entry in self.index.range(begin.as_slice()..)? {
            let key = entry?.0;
            let Some(own) = key.value().strip_prefix(begin.as_slice()) else {
                break;
            };
            keys.push(own.to_vec());
        }
        Ok(keys)
    }
}

fn get<T: for<'a> Stored<'a>>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: &[u8],
) -> Result<Option<T>, Fault> {
    match table.get(key)? {
        Some(value) => Ok(Some(decode(value.value()).map_err(TxError::from)?)),
        None => Ok(None),
    }
}
