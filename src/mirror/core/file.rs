//! The file dialect: one document with a list per type.
//!
//! A type whose list is missing takes no part; `{"error": ".."}` in its place is a failed pull.

use super::device::DevicePosition;
use super::kinds::names;
use super::retry::{RetryBudget, asked_to_wait, passes};
use super::topology::{Topology, whole};
use super::{Core, Device, Exchange, Pull, Pulled, Site, decode_each, from_result, shorten};
use crate::http::HttpError;
use crate::inventory::Kind;
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::entry::quick::{JsonCursor, ListElement};
use crate::mirror::entry::{self, CoreEntry};
use crate::mirror::progress::Progress;
use crate::root::open_regular;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use smol_str::SmolStr;
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest list unless another cap is set, in bytes.
const LIST_CAP: u64 = 128 << 20;
/// Lists that a document may hold, each as long as the cap of one list.
const LISTS: u64 = 11;

/// Where the document is.
enum Place {
    File(PathBuf),
    Url(String, Box<dyn Exchange>, Duration),
}

/// Core as one document, read once per cycle.
pub struct FileCore {
    place: Place,
    site: Site,
    /// Longest list, in bytes.
    list_cap: u64,
    progress: Progress,
    document: Option<Result<Document, String>>,
}

struct Document {
    body: Vec<u8>,
    /// Where each member's value is in the body; not known before somebody asks.
    members: OnceCell<Result<Members, String>>,
}

type Members = HashMap<String, std::ops::Range<usize>>;

impl FileCore {
    /// The document at `path`.
    pub fn at_path(path: PathBuf, site: Option<String>) -> Self {
        Self::new(Place::File(path), site)
    }

    /// The document that `exchange` finds at `url` before the deadline. The cap of its answers is that of
    /// the document: see [`FileCore::document_cap`].
    pub fn at_url(url: String, exchange: impl Exchange + 'static, deadline: Duration) -> Self {
        Self::new(Place::Url(url, Box::new(exchange), deadline), None)
    }

    /// The same with another cap for a list, in bytes.
    pub fn list_cap(self, list_cap: u64) -> Self {
        Self { list_cap, ..self }
    }

    /// Longest document whose lists have `list_cap` bytes at most.
    pub fn document_cap(list_cap: u64) -> u64 {
        list_cap.saturating_mul(LISTS)
    }

    fn new(place: Place, site: Option<String>) -> Self {
        Self {
            place,
            site: Site::new(site),
            list_cap: LIST_CAP,
            progress: Progress::default(),
            document: None,
        }
    }

    /// Elements of the list under the first of these names that is there, read into `T`.
    fn list<T: DeserializeOwned + ListElement>(&mut self, kind: Kind, names: &[&str]) -> Pull<T> {
        let mut entries = Vec::new();
        let pull = self.list_each(kind, names, &mut |_, entry| entries.push(entry));
        pull.with(entries)
    }

    /// The same, one by one, each with the site that counts.
    fn list_each<T: DeserializeOwned + ListElement>(
        &mut self,
        kind: Kind,
        names: &[&str],
        each: &mut dyn FnMut(&mut Site, T),
    ) -> Pull<()> {
        let document = self
            .document
            .get_or_insert_with(|| read(&self.place, self.list_cap, &self.progress));
        let members = document
            .as_ref()
            .map(|document| (document, document.members()));
        let (document, members) = match members {
            Ok((document, Ok(members))) => (document, members),
            Err(why) | Ok((_, Err(why))) => return Pull::Failed(why.clone()),
        };
        let value = |name: &&str| document.value(members.get(*name)?);
        let Some(value) = names.iter().find_map(value) else {
            return Pull::Absent;
        };
        if u64::try_from(value.len()).unwrap_or(u64::MAX) > self.list_cap {
            let cap = self.list_cap;
            return Pull::Failed(format!("longer than {cap} bytes, see --core-list-cap"));
        }
        let (site, mut known) = (&mut self.site, 0);
        let mut count = |entry| {
            known += 1;
            each(site, entry);
        };
        if entry::list::objects(value, &mut count) {
            return Pull::Done(Pulled::whole(Vec::new()));
        }
        // Something is wrong with it: one by one, to lose no more than that.
        from_result(
            elements(value).map(|elements| {
                decode_each(kind, &elements, known, &mut |entry| each(site, entry))
            }),
        )
    }
}

impl Core for FileCore {
    fn begin(&mut self) {
        self.document = None;
        self.site.begin();
    }

    fn end(&mut self) {
        self.document = None;
    }

    fn report_to(&mut self, progress: Progress) {
        self.progress = progress;
    }

    fn expected(&mut self, kind: Kind) -> Pull<CoreEntry> {
        let mut entries = Vec::new();
        let pull = self.expected_each(kind, &mut |entry| entries.push(entry));
        pull.with(entries)
    }

    fn expected_each(&mut self, kind: Kind, each: &mut dyn FnMut(CoreEntry)) -> Pull<()> {
        let names = names(kind).expected;
        let (mut ids, mut came_twice) = (HashSet::new(), false);
        let mut foreign = Vec::new();
        let mut take = |site: &mut Site, entry: CoreEntry| {
            // Then another one may be missing.
            let id = entry.id.as_ref().filter(|id| !id.0.is_empty());
            came_twice |= id.is_some_and(|id| !ids.insert(id.0.clone()));
            if site.is_own(&entry, &mut foreign) {
                each(entry);
            }
        };
        let mut pull = self.list_each(kind, &names, &mut take);
        if let Pull::Done(pulled) = &mut pull {
            if came_twice {
                pulled.complete = false;
                let code = "pagination_inconsistent";
                let report = Diagnostic::new(code, kind, names[0], "an entry came twice");
                pulled.warnings.push(report);
            }
            self.site.tell(kind, foreign, pulled);
        }
        pull
    }

    fn observed(&mut self, kind: Kind) -> Pull<Device> {
        let Some(names) = names(kind).observed else {
            return Pull::Absent;
        };
        let mut pull = self.list(kind, &names);
        if let (Kind::Compute, Pull::Done(pulled)) = (kind, &mut pull) {
            match self.list(kind, &["actual_positions", "actualPositions"]) {
                Pull::Absent => {}
                Pull::Failed(why) => pulled.no_positions = Some(why),
                Pull::Done(positions) => place_devices(pulled, positions),
            }
        }
        match pull {
            Pull::Done(pulled) => Pull::Done(self.site.keep_own(kind, pulled)),
            other => other,
        }
    }

    fn topology(&mut self) -> Topology {
        Topology {
            groups: whole(self.list(Kind::Rack, &["rack_groups", "rackGroups"])),
            domains: whole(self.list(Kind::Rack, &["nvlink_domains", "nvlinkDomains"])),
            health: whole(self.list(Kind::Rack, &["rack_health", "rackHealth"])),
        }
    }

    fn several_sites(&self) -> Option<String> {
        self.site.ambiguity()
    }

    fn fingerprint(&mut self) -> Option<[u8; 32]> {
        let document = self
            .document
            .get_or_insert_with(|| read(&self.place, self.list_cap, &self.progress));
        let body = &document.as_ref().ok()?.body;
        Some(Sha256::digest(body).into())
    }

    fn source(&self) -> String {
        match &self.place {
            Place::File(path) => format!("file:{}", path.display()),
            // What follows a question mark may be a key.
            Place::Url(url, ..) => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
        }
    }
}

fn place_devices(devices: &mut Pulled<Device>, positions: Pulled<DevicePosition>) {
    let mut by_id: HashMap<SmolStr, DevicePosition> = positions
        .entries
        .into_iter()
        .filter_map(|position| Some((position.machine_id.clone()?.0, position)))
        .collect();
    for device in &mut devices.entries {
        if let Some(position) = device.id().and_then(|id| by_id.remove(id)) {
            device.set_position(position);
        }
    }
    if !positions.complete {
        devices.no_positions = Some("a position could not be read".into());
    }
}

fn elements(value: &str) -> Result<Vec<&RawValue>, String> {
    if let Ok(raw) = serde_json::from_str::<&RawValue>(value)
        && let Some(why) = entry::reported_error(raw)
    {
        return Err(format!("Core reports an error: {}", shorten(&why)));
    }
    entry::elements(value.as_bytes())
}

impl Document {
    fn members(&self) -> Result<&Members, &String> {
        let find = || {
            let text = std::str::from_utf8(&self.body).ok();
            if let Some(members) = text.and_then(|text| JsonCursor::new(text).members()) {
                let members = members.into_iter();
                return Ok(members
                    .map(|(name, place)| (name.to_owned(), place))
                    .collect());
            }
            let begin = self.body.as_ptr().addr();
            let place = |(name, value): (Cow<'_, str>, &RawValue)| {
                let from = value.get().as_ptr().addr() - begin;
                (name.into_owned(), from..from + value.get().len())
            };
            Ok(entry::members(&self.body)?.into_iter().map(place).collect())
        };
        self.members.get_or_init(find).as_ref()
    }

    fn value(&self, place: &std::ops::Range<usize>) -> Option<&str> {
        let value = self.body.get(place.clone())?;
        std::str::from_utf8(value)
            .ok()
            .filter(|value| *value != "null")
    }
}

fn read(place: &Place, list_cap: u64, progress: &Progress) -> Result<Document, String> {
    progress.step("reading Core's document");
    let body = match place {
        Place::File(path) => {
            let cap = FileCore::document_cap(list_cap);
            let mut body = Vec::new();
            let read =
                open(path).and_then(|file| file.take(cap.saturating_add(1)).read_to_end(&mut body));
            read.map_err(|error| format!("{}: {error}", path.display()))?;
            if u64::try_from(body.len()).unwrap_or(u64::MAX) > cap {
                let path = path.display();
                return Err(format!(
                    "{path}: longer than {cap} bytes, {LISTS} times --core-list-cap"
                ));
            }
            body
        }
        Place::Url(url, exchange, deadline) => fetch(url, exchange.as_ref(), *deadline, progress)?,
    };
    progress.page("the document", body.len());
    Ok(Document {
        body,
        members: OnceCell::new(),
    })
}

/// A FIFO to which nobody writes would hold up the cycle for ever, and a device may have no end; standard
/// input may be a pipe.
fn open(path: &Path) -> io::Result<File> {
    match path.to_str() {
        Some("/dev/stdin") => File::open(path),
        _ => open_regular(path),
    }
}

fn fetch(
    url: &str,
    exchange: &dyn Exchange,
    deadline: Duration,
    progress: &Progress,
) -> Result<Vec<u8>, String> {
    let mut budget = RetryBudget::new(deadline);
    loop {
        let (why, wait) = match exchange.get(url, &[], budget.left()) {
            Ok(answer) if answer.status == 200 => return Ok(answer.body),
            Ok(answer) if passes(answer.status) => {
                (format!("status {}", answer.status), asked_to_wait(&answer))
            }
            Ok(answer) => return Err(format!("status {}", answer.status)),
            // A question changes nothing, so it may be put again after a reset.
            Err(error @ (HttpError::NoConnection(_) | HttpError::Broken(_))) => {
                (error.to_string(), None)
            }
            Err(error) => return Err(error.to_string()),
        };
        if !budget.wait(exchange, wait) {
            return Err(why);
        }
        progress.retry("the document");
    }
}
