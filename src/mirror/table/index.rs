//! What the rows of the mirror are found by beside their keys, and what may be there only once.

use crate::inventory::{Row, RowKey};

/// Which index an entry belongs to; the first byte of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Index {
    RackName = 1,
    RackExternalId = 2,
    RackPair = 3,
    ComponentPair = 4,
    ComponentExternalId = 5,
    ComponentsOfRack = 6,
    BmcsOfComponent = 7,
    DomainExternalId = 8,
}

impl Index {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RackName => "rack name",
            Self::RackExternalId => "rack external_id",
            Self::RackPair => "rack pair",
            Self::ComponentPair => "component pair",
            Self::ComponentExternalId => "component external_id",
            Self::ComponentsOfRack => "component of rack",
            Self::BmcsOfComponent => "BMC of component",
            Self::DomainExternalId => "domain external_id",
        }
    }

    /// Tag, length of the value, value: no key is the beginning of another value's key.
    pub(super) fn key(self, value: &[u8]) -> Vec<u8> {
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        let mut key = Vec::with_capacity(5 + value.len() + 17);
        key.push(self as u8);
        key.extend(length.to_be_bytes());
        key.extend(value);
        key
    }
}

/// The index entries of a row: key, and the row's own key where the entry is unique.
pub(super) fn index_entries(row: &Row, entries: &mut Vec<(Vec<u8>, Vec<u8>, Index)>) {
    let own = key_bytes(row.key());
    let mut unique = |index: Index, value: &[u8]| {
        entries.push((index.key(value), own.clone(), index));
    };
    match row {
        Row::Rack(rack) => {
            if let Some(id) = &rack.external_id {
                unique(Index::RackExternalId, id.as_bytes());
            }
            if let Some(pair) = rack.pair() {
                unique(Index::RackPair, pair.key().as_bytes());
            }
        }
        Row::Component(component) => {
            if let Some(pair) = component.pair() {
                unique(Index::ComponentPair, pair.key().as_bytes());
            }
            if let Some(id) = &component.external_id {
                let mut value = vec![component.kind.tag()];
                value.extend(id.as_bytes());
                unique(Index::ComponentExternalId, &value);
            }
        }
        Row::Domain(domain) => {
            if let Some(id) = &domain.external_id {
                unique(Index::DomainExternalId, id.as_bytes());
            }
        }
        Row::Bmc(_) | Row::Drift(_) => {}
    }
    let mut many = |index: Index, value: &[u8]| {
        let mut key = index.key(value);
        key.extend(&own);
        entries.push((key, Vec::new(), index));
    };
    match row {
        Row::Rack(rack) => many(Index::RackName, rack.name.as_bytes()),
        Row::Component(component) => {
            // Where a tombstone pointed to matters to nobody.
            if let Some(rack) = component.rack_id.filter(|_| component.is_live()) {
                many(Index::ComponentsOfRack, rack.as_bytes());
            }
        }
        Row::Bmc(bmc) => many(Index::BmcsOfComponent, bmc.component_id.as_bytes()),
        Row::Drift(_) | Row::Domain(_) => {}
    }
}

/// The key of a row in its table.
pub(super) fn key_bytes(key: RowKey) -> Vec<u8> {
    match key {
        RowKey::Rack(id) | RowKey::Drift(id) | RowKey::Domain(id) => id.as_bytes().to_vec(),
        RowKey::Bmc(mac) => mac.bytes().to_vec(),
        RowKey::Component(kind, id) => {
            let mut bytes = vec![kind.tag()];
            bytes.extend(id.as_bytes());
            bytes
        }
    }
}
