//! What Core wants, one file per table: an entry becomes a checked row, or a reason why not.
//!
//! ```text
//! page::CoreEntry -> Wanted   all that identifies it is there
//!             -> SkippedEntry  something is missing; it is still *present*: its row is never deleted
//! ```

pub mod component;
pub mod duplicates;
mod identity;
pub mod named;
pub mod rack;

use crate::inventory::{Mac, Pair, RackId};
use crate::mirror::diagnostics::Diagnostic;
use named::NamedBytes;
use smol_str::SmolStr;
use std::collections::HashSet;

/// An entry that cannot be mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedEntry {
    /// Why, at least one reason.
    pub reasons: Vec<Diagnostic>,
    /// Everything that could recognise its row.
    pub sighting: Sighting,
}

/// What is known of an entry that claims no row: enough to keep that row from being deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sighting {
    /// Core's rack_id.
    pub rack_id: Option<RackId>,
    /// Half of the pair.
    pub manufacturer: Option<SmolStr>,
    /// The other half.
    pub serial: Option<SmolStr>,
    /// Its Host BMC.
    pub mac: Option<Mac>,
}

impl Sighting {
    /// Appends every field.
    pub fn name_bytes(&self, bytes: &mut NamedBytes) {
        let Self {
            rack_id,
            manufacturer,
            serial,
            mac,
        } = self;
        bytes.add("rack_id", rack_id.as_ref().map(RackId::as_str));
        bytes.add("manufacturer", manufacturer.as_ref());
        bytes.add("serial", serial.as_ref());
        bytes.add_text("mac", *mac);
    }

    /// Everything that it says, as texts.
    pub fn keys(&self) -> Vec<String> {
        let pair = Pair::of(self.manufacturer.as_deref(), self.serial.as_deref());
        let keys = [
            self.rack_id.as_ref().map(|id| id.as_str().to_owned()),
            self.mac.map(|mac| mac.to_string()),
            self.serial.as_ref().map(SmolStr::to_string),
            pair.map(|pair| pair.to_string()),
        ];
        keys.into_iter().flatten().collect()
    }
}

/// An entry that may be mirrored: a row as Core wants it.
pub trait WantedRow {
    /// Its hardware, if it is known.
    fn pair(&self) -> Option<Pair<'_>> {
        None
    }

    /// What it is called in reports.
    fn label(&self) -> String;

    /// All marks by which its row might be recognised.
    fn sighting(&self) -> Sighting;

    /// The name that Core gives it.
    fn name(&self) -> Option<&str> {
        None
    }
}

/// All sightings of a response, by mark.
#[derive(Debug, Default)]
pub struct Seen {
    rack_ids: HashSet<String>,
    macs: HashSet<Mac>,
    pairs: HashSet<(String, String)>,
    /// Serial numbers of entries without a manufacturer. With half a pair missing the other half
    /// is enough: a delete that need not be is worse than one too few.
    serials: HashSet<String>,
}

impl Seen {
    /// Remembers an entry that claims no row.
    pub fn add(&mut self, sighting: &Sighting) {
        self.rack_ids
            .extend(sighting.rack_id.as_ref().map(|id| id.as_str().to_owned()));
        self.macs.extend(sighting.mac);
        match (&sighting.manufacturer, &sighting.serial) {
            (Some(manufacturer), Some(serial)) => {
                self.pairs
                    .insert((manufacturer.to_string(), serial.to_string()));
            }
            (None, Some(serial)) => {
                self.serials.insert(serial.to_string());
            }
            _ => {}
        }
    }

    /// Whether such a rack was seen.
    pub fn rack_id(&self, rack_id: &str) -> bool {
        self.rack_ids.contains(rack_id)
    }

    /// Whether any BMC was seen.
    pub fn has_macs(&self) -> bool {
        !self.macs.is_empty()
    }

    /// Whether such a BMC was seen.
    pub fn mac(&self, mac: Mac) -> bool {
        self.macs.contains(&mac)
    }

    /// Whether hardware was seen that may be this.
    pub fn hardware(&self, manufacturer: Option<&str>, serial: Option<&str>) -> bool {
        let Some(serial) = serial else { return false };
        if self.serials.contains(serial) {
            return true;
        }
        self.pair(Pair::of(manufacturer, Some(serial)))
    }

    /// Whether exactly this hardware was seen.
    pub fn pair(&self, pair: Option<Pair<'_>>) -> bool {
        // Most responses have no such entries, and then nothing is copied for the question.
        !self.pairs.is_empty()
            && pair.is_some_and(|pair| {
                let pair = (pair.manufacturer().to_owned(), pair.serial().to_owned());
                self.pairs.contains(&pair)
            })
    }
}

/// `None` for the empty text.
fn owned(text: Option<&str>) -> Option<SmolStr> {
    text.map(SmolStr::from)
}
