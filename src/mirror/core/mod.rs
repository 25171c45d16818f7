//! Asking Core: one trait, two dialects.
//!
//! ```text
//! file.rs       one JSON document with everything in it, from a file or an address
//! rest/         one paged list per type, with a token
//! topology.rs   rack groups, NVLink domains, health of racks
//! mixed.rs      expected inventory from one source, observed devices from another
//! exchange.rs   one question and its answer, and the wait before the next
//! retry.rs      attempts and time that are left for one answer
//! ```

mod device;
mod exchange;
mod file;
mod kinds;
mod mixed;
mod rest;
mod retry;
mod topology;

pub use device::{Device, DevicePosition, ObservedNumber};
pub use exchange::Exchange;
pub use file::FileCore;
pub use mixed::MixedCore;
pub use rest::{RestCore, RestOptions};
pub use topology::{DomainMember, RackGroup, RackHealth, Topology};

use super::diagnostics::Diagnostic;
use super::entry::{self, CoreEntry};
use super::progress::Progress;
use crate::inventory::Kind;
use crate::visible::Foreign;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

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

impl<T> Pull<T> {
    /// Hands the entries over, and keeps what else is known of them.
    fn each(self, each: &mut dyn FnMut(T)) -> Pull<()> {
        match self {
            Self::Absent => Pull::Absent,
            Self::Failed(why) => Pull::Failed(why),
            Self::Done(mut pulled) => {
                std::mem::take(&mut pulled.entries)
                    .into_iter()
                    .for_each(each);
                Pull::Done(pulled.with(Vec::new()))
            }
        }
    }

    /// The same pull with these entries, which were handed over one by one.
    fn with<U>(self, entries: Vec<U>) -> Pull<U> {
        match self {
            Self::Absent => Pull::Absent,
            Self::Failed(why) => Pull::Failed(why),
            Self::Done(pulled) => Pull::Done(pulled.with(entries)),
        }
    }
}

/// Entries of one type.
#[derive(Clone, Debug)]
pub struct Pulled<T> {
    /// Those that could be read.
    pub entries: Vec<T>,
    /// Whether they are all there are: only then does absence mean anything.
    pub complete: bool,
    /// What is wrong with the response.
    pub warnings: Vec<Diagnostic>,
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

    /// What is known of the response, with these entries.
    fn with<U>(self, entries: Vec<U>) -> Pulled<U> {
        Pulled {
            entries,
            complete: self.complete,
            warnings: self.warnings,
            no_positions: self.no_positions,
        }
    }
}

/// Optional lists of observed devices, which not every token may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observe {
    /// The DPUs of each host: one request per host.
    pub dpus: bool,
    /// The trays of a site that has Flow: switches, power shelves, power states.
    pub trays: bool,
    /// What the site explorer saw: power states of machines.
    pub endpoints: bool,
}

/// Where expected and observed inventory comes from.
pub trait Core {
    /// Forgets what was read: the next question asks anew, and the time for all lists begins.
    fn begin(&mut self);

    /// All lists of the cycle were taken: what was read for them need not be kept any longer.
    fn end(&mut self) {}
    /// Tells `progress` of every answer from now on.
    fn report_to(&mut self, _progress: Progress) {}
    /// What is expected of one type.
    fn expected(&mut self, kind: Kind) -> Pull<CoreEntry>;
    /// The same, entry by entry, where the list is long: nothing holds all of them. What was given counts for
    /// nothing where the pull failed in the end.
    fn expected_each(&mut self, kind: Kind, each: &mut dyn FnMut(CoreEntry)) -> Pull<()> {
        self.expected(kind).each(each)
    }
    /// What is observed of one type.
    fn observed(&mut self, kind: Kind) -> Pull<Device>;
    /// How racks belong together.
    fn topology(&mut self) -> Topology {
        Topology::UNKNOWN
    }
    /// Why nothing may be written of all that was read since the beginning: the lists belong to several
    /// sites, and nobody said which one is meant.
    fn several_sites(&self) -> Option<String> {
        None
    }
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
    let pulled = decode_each(kind, elements, 0, &mut |entry| entries.push(entry));
    pulled.with(entries)
}

/// The same behind the first `known` elements, which were read before.
fn decode_each<T: DeserializeOwned>(
    kind: Kind,
    elements: &[&RawValue],
    known: usize,
    each: &mut dyn FnMut(T),
) -> Pulled<()> {
    let mut warnings = Vec::new();
    for (n, element) in elements.iter().enumerate().skip(known) {
        let decoded = match entry::is_object(element) {
            true => serde_json::from_str(element.get()).map_err(|error| error.to_string()),
            false => Err("not an object".to_owned()),
        };
        match decoded {
            Ok(entry) => each(entry),
            Err(why) => warnings.push(Diagnostic::new(
                "row_decode_error",
                kind,
                format!("#{n}"),
                shorten(&why),
            )),
        }
    }
    Pulled {
        complete: warnings.is_empty(),
        entries: Vec::new(),
        warnings,
        no_positions: None,
    }
}

/// What belongs to a site.
trait OfSite {
    /// The site, if that is said.
    fn site(&self) -> Option<&str>;
    /// What it is called in reports.
    fn key(&self) -> &str;
}

impl OfSite for CoreEntry {
    fn site(&self) -> Option<&str> {
        entry::present(self.site_id.as_ref().map(|id| id.0.as_str()))
    }

    fn key(&self) -> &str {
        let id = self.rack_id.as_ref().or(self.id.as_ref());
        id.map_or("", |id| id.0.as_str())
    }
}

impl OfSite for Device {
    fn site(&self) -> Option<&str> {
        self.site_id()
    }

    fn key(&self) -> &str {
        self.id().unwrap_or_default()
    }
}

/// The one site whose entries count: a rack_id is unique within one site only.
struct Site {
    /// The one that was asked for.
    asked: Option<String>,
    /// The first two that were seen in this cycle, in any list.
    seen: Vec<String>,
}

impl Site {
    fn new(asked: Option<String>) -> Self {
        Self {
            asked,
            seen: Vec::new(),
        }
    }

    /// A new cycle begins.
    fn begin(&mut self) {
        self.seen.clear();
    }

    /// Takes out what belongs to other sites than the one that was asked for. If none was asked for,
    /// all of it stays, and the sites are remembered: see [`Site::ambiguity`].
    fn keep_own<T: OfSite>(&mut self, kind: Kind, mut pulled: Pulled<T>) -> Pulled<T> {
        let mut foreign = Vec::new();
        pulled
            .entries
            .retain(|entry| self.is_own(entry, &mut foreign));
        self.tell(kind, foreign, &mut pulled);
        pulled
    }

    /// Whether an entry counts; else its name is among the `foreign` ones.
    fn is_own(&mut self, entry: &impl OfSite, foreign: &mut Vec<String>) -> bool {
        let Some(site) = entry.site() else {
            return true;
        };
        if let Some(asked) = &self.asked {
            let is_own = asked.eq_ignore_ascii_case(site);
            if !is_own {
                foreign.push(entry.key().to_owned());
            }
            return is_own;
        }
        let is_known = self.seen.iter().any(|seen| seen.eq_ignore_ascii_case(site));
        if !is_known && self.seen.len() < 2 {
            self.seen.push(site.to_owned());
        }
        true
    }

    /// Warns of foreign entries: a list with such is not complete.
    fn tell<T>(&self, kind: Kind, foreign: Vec<String>, pulled: &mut Pulled<T>) {
        pulled.complete &= foreign.is_empty();
        let why = "an entry of another site; it is ignored, and nothing is deleted";
        let reports = foreign
            .into_iter()
            .map(|key| Diagnostic::new("foreign_site_row", kind, key, why));
        pulled.warnings.extend(reports);
    }

    /// Why nothing may be written: entries of several sites, and none was asked for.
    fn ambiguity(&self) -> Option<String> {
        let [one, other, ..] = self.seen.as_slice() else {
            return None;
        };
        let (one, other) = (shorten(one), shorten(other));
        Some(format!(
            "the lists hold entries of more than one site, {one} and {other} among them: nothing is written; choose one with --site-id, and use one state directory per site"
        ))
    }
}

/// A foreign message, short and in one line.
fn shorten(message: &str) -> String {
    Foreign::from(message).to_string()
}

/// A pull that is nothing but an error.
fn from_result<T>(result: Result<Pulled<T>, String>) -> Pull<T> {
    match result {
        Ok(pulled) => Pull::Done(pulled),
        Err(why) => Pull::Failed(why),
    }
}
