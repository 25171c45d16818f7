//! What the rows of the mirror are found by beside their keys, and what may be there only once.

use crate::inventory::{Row, RowKey};

/// Which index an entry belongs to; the first byte of its key. Byte 7 was the BMCs of a component, which no cycle
/// looks up: [`RETIRED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Index {
    RackName = 1,
    RackExternalId = 2,
    RackPair = 3,
    ComponentPair = 4,
    ComponentExternalId = 5,
    ComponentsOfRack = 6,
    DomainExternalId = 8,
}

/// Begins keys that are not written any more, and may be in stores of earlier versions.
pub(super) const RETIRED: u8 = 7;

impl Index {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RackName => "rack name",
            Self::RackExternalId => "rack external_id",
            Self::RackPair => "rack pair",
            Self::ComponentPair => "component pair",
            Self::ComponentExternalId => "component external_id",
            Self::ComponentsOfRack => "component of rack",
            Self::DomainExternalId => "domain external_id",
        }
    }

    /// Tag, length of the value, value: no key is the beginning of another value's key.
    pub(super) fn key(self, value: &[u8]) -> Vec<u8> {
        let mut key = Vec::with_capacity(5 + value.len() + 17);
        self.write_key(&[value], &mut key);
        key
    }

    /// The same, appended, of a value in parts.
    fn write_key(self, value: &[&[u8]], key: &mut Vec<u8>) {
        let length: usize = value.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        key.push(self as u8);
        key.extend(length.to_be_bytes());
        value.iter().for_each(|part| key.extend(*part));
    }
}

/// Index entries of many rows, their bytes one behind the other.
#[derive(Default)]
pub(super) struct IndexEntries {
    bytes: Vec<u8>,
    places: Vec<Place>,
}

/// Where the bytes of an entry are.
#[derive(Clone, Copy)]
struct Place {
    begin: usize,
    /// Where the key ends and the value begins.
    middle: usize,
    end: usize,
    index: Index,
}

/// One of them: the row's own key is the value where the entry is unique, and the end of the key elsewhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexEntry<'a> {
    pub(super) index: Index,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

impl IndexEntries {
    pub(super) fn iter(&self) -> impl Iterator<Item = IndexEntry<'_>> {
        self.places.iter().map(|place| self.at(*place))
    }

    fn at(&self, place: Place) -> IndexEntry<'_> {
        let bytes = |from, to| self.bytes.get(from..to).unwrap_or_default();
        IndexEntry {
            index: place.index,
            key: bytes(place.begin, place.middle),
            value: bytes(place.middle, place.end),
        }
    }

    /// Puts them in the order of their keys.
    pub(super) fn sort(&mut self) {
        let mut places = std::mem::take(&mut self.places);
        places.sort_unstable_by(|a, b| self.at(*a).key.cmp(self.at(*b).key));
        self.places = places;
    }

    fn add(&mut self, index: Index, value: &[&[u8]], row: RowKey, is_unique: bool) {
        let begin = self.bytes.len();
        index.write_key(value, &mut self.bytes);
        let unique = self.bytes.len();
        write_key_bytes(row, &mut self.bytes);
        let end = self.bytes.len();
        let middle = if is_unique { unique } else { end };
        self.places.push(Place {
            begin,
            middle,
            end,
            index,
        });
    }

    /// Adds the entries of a row.
    pub(super) fn add_row(&mut self, row: &Row) {
        let own = row.key();
        let mut add = |index, value: &[u8], is_unique| self.add(index, &[value], own, is_unique);
        match row {
            Row::Rack(rack) => {
                if let Some(id) = &rack.external_id {
                    add(Index::RackExternalId, id.as_bytes(), true);
                }
                if let Some(pair) = rack.pair() {
                    add(Index::RackPair, pair.key().as_bytes(), true);
                }
                add(Index::RackName, rack.name.as_bytes(), false);
            }
            Row::Component(component) => {
                if let Some(pair) = component.pair() {
                    add(Index::ComponentPair, pair.key().as_bytes(), true);
                }
                // Where a tombstone pointed to matters to nobody.
                if let Some(rack) = component.rack_id.filter(|_| component.is_live()) {
                    add(Index::ComponentsOfRack, rack.as_bytes(), false);
                }
                if let Some(id) = &component.external_id {
                    let value: [&[u8]; 2] = [&[component.kind.tag()], id.as_bytes()];
                    self.add(Index::ComponentExternalId, &value, own, true);
                }
            }
            Row::Domain(domain) => {
                if let Some(id) = &domain.external_id {
                    add(Index::DomainExternalId, id.as_bytes(), true);
                }
            }
            Row::Bmc(_) | Row::Drift(_) => {}
        }
    }

    /// Adds the entries of one row that another one, in its place, does not have.
    pub(super) fn add_difference(&mut self, row: &Row, other: Option<&Row>, spare: &mut Self) {
        let Some(other) = other else {
            return self.add_row(row);
        };
        spare.bytes.clear();
        spare.places.clear();
        spare.add_row(other);
        let first = self.places.len();
        self.add_row(row);
        let mut kept = first;
        for n in first..self.places.len() {
            let Some(place) = self.places.get(n).copied() else {
                continue;
            };
            if !spare.iter().any(|entry| entry == self.at(place)) {
                self.places.swap(kept, n);
                kept += 1;
            }
        }
        self.places.truncate(kept);
    }
}

/// The key of a row in its table.
pub(super) fn key_bytes(key: RowKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(17);
    write_key_bytes(key, &mut bytes);
    bytes
}

/// The same, appended.
pub(super) fn write_key_bytes(key: RowKey, bytes: &mut Vec<u8>) {
    match key {
        RowKey::Rack(id) | RowKey::Drift(id) | RowKey::Domain(id) => bytes.extend(id.as_bytes()),
        RowKey::Bmc(mac) => bytes.extend(mac.bytes()),
        RowKey::Component(kind, id) => {
            bytes.push(kind.tag());
            bytes.extend(id.as_bytes());
        }
    }
}
