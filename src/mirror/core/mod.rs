//! Asking Core: one trait, two dialects.
//!
//! ```text
//! file.rs   one JSON document with everything in it, from a file or an address
//! rest.rs   one paged list per type; tokens, and whether the pages fit together
//! patience.rs   asking again
//! ```

mod device;
mod file;
mod patience;
mod rest;

pub use device::{Device, DevicePosition};
pub use file::FileCore;
pub use rest::{RestCore, RestOptions};

use super::page::{self, Entry, IdText};
use super::report::Report;
use crate::inventory::Kind;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::HashSet;

/// Longest part of a foreign message that is repeated, in characters.
const MAX_MESSAGE: usize = 200;

/// What came of asking for one type.
#[derive(Clone, Debug)]
pub enum Pull<T> {
    /// Core was not asked, or has no such list: the type takes no part in the cycle.
    Absent,
    /// There is no answer that could be used.
    Failed(String),
    /// Entries, perhaps not all of them.
    Done(Pulled<T>),
}

/// Entries of one type.
#[derive(Clone, Debug)]
pub struct Pulled<T> {
    /// Those that could be read.
    pub entries: Vec<T>,
    /// Whether they are all there are: only then does absence mean anything.
    pub complete: bool,
    /// What is wrong with the response.
    pub warnings: Vec<Report>,
    /// Why positions of devices are not known, if they could not be asked for.
    pub no_positions: Option<String>,
}

impl<T> Pulled<T> {
    /// All there is, and nothing wrong with it.
    fn whole(entries: Vec<T>) -> Self {
        Self {
            entries,
            complete: true,
            warnings: Vec::new(),
            no_positions: None,
        }
    }
}

/// Where expected and observed inventory comes from.
pub trait Core {
    /// Forgets what was read: the next question asks anew.
    fn begin(&mut self);
    /// What is expected of one type.
    fn expected(&mut self, kind: Kind) -> Pull<Entry>;
    /// What is observed of one type.
    fn observed(&mut self, kind: Kind) -> Pull<Device>;
    /// For the audit log; holds no secret.
    fn source(&self) -> String;
    /// Digest of everything that will be said until the next beginning, if that can be told
    /// before it is looked into.
    fn fingerprint(&mut self) -> Option<[u8; 32]> {
        None
    }
}

/// Reads elements one by one: one that cannot be read costs only itself, and completeness.
fn decode<T: DeserializeOwned>(kind: Kind, elements: &[&RawValue]) -> Pulled<T> {
    let mut entries = Vec::with_capacity(elements.len());
    let mut warnings = Vec::new();
    for (n, element) in elements.iter().enumerate() {
        let decoded = match page::is_object(element) {
            true => serde_json::from_str(element.get()).map_err(|error| error.to_string()),
            false => Err("not an object".to_owned()),
        };
        match decoded {
            Ok(entry) => entries.push(entry),
            Err(why) => warnings.push(Report::new(
                "row_decode_error",
                kind,
                format!("#{n}"),
                shorten(&why),
            )),
        }
    }
    Pulled {
        complete: warnings.is_empty(),
        entries,
        warnings,
        no_positions: None,
    }
}

/// Whether an entry came twice: then another one may be missing.
fn came_twice<'a>(mut ids: impl Iterator<Item = &'a str>) -> bool {
    let mut seen = HashSet::new();
    !ids.all(|id| id.is_empty() || seen.insert(id))
}

/// The one site whose entries count: a rack_id is unique within one site only.
struct Site {
    /// The one that was asked for.
    asked: Option<String>,
    /// The first one that was seen in this cycle.
    seen: Option<String>,
}

impl Site {
    fn new(asked: Option<String>) -> Self {
        Self { asked, seen: None }
    }

    /// A new cycle begins.
    fn begin(&mut self) {
        self.seen = None;
    }

    /// Takes out entries of other sites. Without a site that was asked for nobody knows which one
    /// is meant, so that entries of a second one, in whatever list, make the pull useless.
    fn keep_own(&mut self, kind: Kind, mut pulled: Pulled<Entry>) -> Result<Pulled<Entry>, String> {
        let mut foreign = Vec::new();
        pulled.entries.retain(|entry| {
            let Some(IdText(of)) = entry.site_id.as_ref().filter(|id| !id.0.is_empty()) else {
                return true;
            };
            let own = match &self.asked {
                Some(asked) => asked,
                None => self.seen.get_or_insert_with(|| of.clone()),
            };
            if own.eq_ignore_ascii_case(of) {
                return true;
            }
            let key = entry.rack_id.as_ref().or(entry.id.as_ref());
            foreign.push(key.map(|id| id.0.clone()).unwrap_or_default());
            false
        });
        if foreign.is_empty() {
            return Ok(pulled);
        }
        if self.asked.is_none() {
            return Err("entries of more than one site; choose one with --site-id".into());
        }
        pulled.complete = false;
        let why = "an entry of another site; it is ignored, and nothing is deleted";
        let reports = foreign
            .into_iter()
            .map(|key| Report::new("foreign_site_row", kind, key, why));
        pulled.warnings.extend(reports);
        Ok(pulled)
    }
}

/// A foreign message, short and in one line.
fn shorten(message: &str) -> String {
    let line = message
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_MESSAGE).collect()
}

/// A pull that is nothing but an error.
fn from_result<T>(result: Result<Pulled<T>, String>) -> Pull<T> {
    match result {
        Ok(pulled) => Pull::Done(pulled),
        Err(why) => Pull::Failed(why),
    }
}
