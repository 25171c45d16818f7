//! Which guests there are: from flags and files, sockets in a directory, libvirt, and KubeVirt.
//!
//! Sources are read again while the sensor runs. What exists but cannot be read keeps what it said
//! last, so that a slip in a file, a full disk or a restart of libvirt never makes guests disappear. Where two sources
//! name the same guest the first counts: flags, then files, then discovery, in the order given.

pub mod directory;
pub mod file;
pub mod kubevirt;
pub mod libvirt;
mod stamp;

use crate::clock::{self, WallTime};
use crate::file_stamp::FileStamp;
use crate::report::{GuestId, VmId};
use crate::transport::DialAddress;
use crate::visible::visible;
use kubevirt::{ClusterWatch, Idle, KubevirtSource, MachineFacts};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use uuid::Uuid;

/// A guest to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RosterEntry {
    /// What it is called.
    pub vm: VmId,
    /// Where it is reached.
    pub address: DialAddress,
    /// The only machine that may answer there; `None`: any.
    pub guest_id: Option<GuestId>,
    /// UUID of its libvirt domain or its VirtualMachine: one of the same name with another UUID is another
    /// machine. `None`: the source does not say.
    pub domain: Option<Uuid>,
    /// UID of the run of its VirtualMachine: it is asked at once after every start.
    pub run: Option<Uuid>,
    /// Why it is not asked, although it is there.
    pub idle: Option<Idle>,
    /// What its source says of it beside.
    pub facts: Option<Arc<MachineFacts>>,
}

impl RosterEntry {
    /// A guest of which nothing else is known.
    pub fn new(vm: VmId, address: DialAddress) -> Self {
        Self {
            vm,
            address,
            guest_id: None,
            domain: None,
            run: None,
            idle: None,
            facts: None,
        }
    }

    /// Whether a guest is the same, reached the same way: only facts are others.
    pub fn is_reached_as(&self, other: &Self) -> bool {
        self.address == other.address
            && self.guest_id == other.guest_id
            && (self.domain, self.run) == (other.domain, other.run)
            && self.idle == other.idle
    }
}

/// `ID=ADDR`, as `--vm` takes it.
impl FromStr for RosterEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (vm, address) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not ID=ADDR, for example web-1=vsock:3:818"))?;
        let vm = vm.parse().map_err(|error| format!("{error}"))?;
        Ok(Self::new(vm, address.parse()?))
    }
}

/// Guests by id. An entry is shared with everybody who needs it, not copied.
pub type Guests = BTreeMap<VmId, Arc<RosterEntry>>;

/// Where a part of the roster comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterSource {
    /// Flags and the configuration file: they never change.
    Fixed(Vec<RosterEntry>),
    /// A TOML file.
    File(PathBuf),
    /// Sockets in a directory; with a port, those of a hypervisor.
    Directory(PathBuf, Option<u32>),
    /// The directory in which libvirt keeps its running domains.
    Libvirt(PathBuf),
    /// A cluster with KubeVirt.
    Kubevirt(KubevirtSource),
}

/// `libvirt`, `DIR`, or `hybrid:DIR:PORT`, as `--discover` takes it.
impl FromStr for RosterSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is not libvirt, kubevirt, a directory, or hybrid:DIR:PORT");
        match text.split_once(':') {
            _ if text.is_empty() => Err(wrong()),
            // It has settings of its own, and is no directory.
            None if text == "kubevirt" => Err("kubevirt needs --kube-cluster".into()),
            None if text == "libvirt" => Ok(Self::Libvirt(libvirt::DIRECTORY.into())),
            Some(("libvirt", directory)) => Ok(Self::Libvirt(directory.into())),
            Some(("hybrid", rest)) => {
                let (directory, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
                let port = port.parse().map_err(|_| wrong())?;
                Ok(Self::Directory(directory.into(), Some(port)))
            }
            _ => Ok(Self::Directory(text.into(), None)),
        }
    }
}

/// What a source says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its guests, those included that a part which cannot be read named last.
    pub entries: Vec<RosterEntry>,
    /// What of it cannot be read.
    pub error: Option<String>,
    /// What was left out, and why.
    pub remarks: BTreeSet<String>,
}

impl Listing {
    fn of(entries: Vec<RosterEntry>) -> Self {
        Self {
            entries,
            ..Self::default()
        }
    }
}

/// Guests, and whether they are all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGuests {
    /// By id.
    pub guests: Guests,
    /// Every source was read in full since the start: who is not among them is gone.
    pub is_complete: bool,
}

/// All sources, and what each said last.
pub struct Roster {
    sources: Vec<(RosterSource, Reading)>,
    /// What was said of guests that two sources name.
    named_before: BTreeSet<String>,
    /// The sources are others than those of the last reading.
    has_other_sources: bool,
}

/// What a source names, in the order of the ids; shared with those who ask which source names a guest.
type Entries = Arc<[Arc<RosterEntry>]>;

#[derive(Default)]
struct Reading {
    entries: Entries,
    /// Number of those that no source before this one names.
    guests: usize,
    /// The file or directory as it was then.
    stamp: Option<FileStamp>,
    domains: libvirt::Domains,
    cluster: Option<ClusterWatch>,
    /// What was wrong last time, so that it is said once.
    error: Option<String>,
    remarks: BTreeSet<String>,
    /// When it was last read in full, or found unchanged since.
    read_at: Option<WallTime>,
}

/// A source as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceStatus {
    /// The file or directory.
    pub name: String,
    /// When it was last read in full.
    pub read_at: Option<WallTime>,
    /// What of it cannot be read now.
    pub error: Option<String>,
    /// Guests that it names, and no source before it.
    pub guests: usize,
    /// Guests that it names, and a source before it, too: that one counts.
    pub named_before: usize,
}

/// The sources, and which of them names each guest.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// In order of precedence.
    pub sources: Vec<SourceStatus>,
    /// What each of them names.
    entries: Vec<Entries>,
}

impl Named {
    /// The source that names this guest.
    pub fn source_of(&self, vm: &VmId) -> Option<&SourceStatus> {
        let names = |entries: &Entries| entries.binary_search_by(|e| e.vm.cmp(vm)).is_ok();
        self.sources.get(self.entries.iter().position(names)?)
    }

    /// Whether every source was read, and can be read.
    ///
    /// # Errors
    /// One was not, or cannot be; says which.
    pub fn ready(&self) -> Result<(), String> {
        if let Some(error) = self.errors().next() {
            return Err(format!("roster: {error}"));
        }
        let mut sources = self.sources.iter();
        match sources.find(|source| source.read_at.is_none()) {
            Some(source) => Err(format!("roster: {} was not read yet", source.name)),
            None => Ok(()),
        }
    }

    /// What is wrong with the sources at the moment.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().filter_map(|s| s.error.as_deref())
    }
}

impl Roster {
    /// With these sources, in order of precedence. Nothing has been read yet.
    pub fn new(sources: Vec<RosterSource>) -> Self {
        let sources = sources.into_iter().map(|s| (s, Reading::default()));
        Self {
            sources: sources.collect(),
            named_before: BTreeSet::new(),
            has_other_sources: true,
        }
    }

    /// Takes other sources; those that stay keep what they said.
    pub fn replace_sources(&mut self, sources: Vec<RosterSource>) {
        self.has_other_sources = true;
        let mut before = std::mem::take(&mut self.sources);
        self.sources = sources
            .into_iter()
            .map(|source| {
                let at = before.iter().position(|(other, _)| *other == source);
                let reading = at.map(|at| before.swap_remove(at).1);
                (source, reading.unwrap_or_default())
            })
            .collect();
    }

    /// Reads every source again. Gives whether the guests may be others than those of the last reading: where they are
    /// not, as nearly always, ten thousand of them cost next to nothing.
    pub fn read(&mut self) -> bool {
        let was_complete = self.is_complete();
        let mut has_changed = std::mem::take(&mut self.has_other_sources);
        for (source, reading) in &mut self.sources {
            has_changed |= reading.read(source);
        }
        if has_changed {
            self.note_named_before();
        }
        has_changed || was_complete != self.is_complete()
    }

    /// The guests, as the sources named them when they were read last.
    pub fn known(&self) -> KnownGuests {
        KnownGuests {
            guests: self.merged(),
            is_complete: self.is_complete(),
        }
    }

    fn is_complete(&self) -> bool {
        self.sources.iter().all(|(_, r)| r.read_at.is_some())
    }

    /// Counts the guests of each source, and says once which of them two name with different addresses.
    fn note_named_before(&mut self) {
        let all = self.by_guest();
        let (mut counts, mut remarks) = (vec![0; self.sources.len()], BTreeSet::new());
        for named in all.chunk_by(|(_, a), (_, b)| a.vm == b.vm) {
            let Some(((first, counting), others)) = named.split_first() else {
                continue;
            };
            if let Some(count) = counts.get_mut(*first) {
                *count += 1;
            }
            for (other, entry) in others.iter().filter(|(_, e)| e.address != counting.address) {
                let name = |n: &usize| self.sources.get(*n).map(|(source, _)| source.name());
                remarks.insert(format!(
                    "guest {} is {} in {} and {} in {}: the first counts",
                    entry.vm,
                    counting.address,
                    name(first).unwrap_or_default(),
                    entry.address,
                    name(other).unwrap_or_default()
                ));
            }
        }
        for remark in remarks.difference(&self.named_before) {
            tracing::warn!("{remark}");
        }
        self.named_before = remarks;
        for ((_, reading), count) in self.sources.iter_mut().zip(counts) {
            reading.guests = count;
        }
    }

    /// Everything that the sources name, each with the number of its source, by id; of one guest the entry that counts
    /// comes first.
    fn by_guest(&self) -> Vec<(usize, &Arc<RosterEntry>)> {
        let mut all = Vec::new();
        for (n, (_, reading)) in self.sources.iter().enumerate() {
            all.extend(reading.entries.iter().map(|entry| (n, entry)));
        }
        all.sort_by(|(_, a), (_, b)| a.vm.cmp(&b.vm));
        all
    }

    fn merged(&self) -> Guests {
        let all = self.by_guest();
        let counting = all.chunk_by(|(_, a), (_, b)| a.vm == b.vm);
        let counting = counting.filter_map(|named| named.first());
        // Collected and not inserted one by one: the nodes of the tree are full.
        counting
            .map(|(_, entry)| (entry.vm.clone(), Arc::clone(entry)))
            .collect()
    }

    /// The sources, as they were when they were read last.
    pub fn named(&self) -> Named {
        let sources = self.sources.iter().map(|(source, reading)| SourceStatus {
            name: source.name(),
            read_at: reading.read_at,
            error: reading.error.clone(),
            guests: reading.guests,
            named_before: reading.entries.len() - reading.guests,
        });
        Named {
            sources: sources.collect(),
            entries: self
                .sources
                .iter()
                .map(|(_, r)| r.entries.clone())
                .collect(),
        }
    }
}

impl Reading {
    /// Reads a source, if it may say something else than the last time; gives whether it names other guests.
    fn read(&mut self, source: &RosterSource) -> bool {
        let stamp = source.stamp();
        let is_fixed = matches!(source, RosterSource::Fixed(_)) && self.read_at.is_some();
        if is_fixed || (stamp.is_some() && stamp == self.stamp) {
            self.read_at = Some(clock::wall_now());
            return false;
        }
        if let RosterSource::Kubevirt(kubevirt) = source {
            return self.read_cluster(source, kubevirt);
        }
        self.stamp = None;
        match source.read(&mut self.domains) {
            Ok(mut listing) => {
                listing.entries.sort_by(|a, b| a.vm.cmp(&b.vm));
                self.note_remarks(listing.remarks);
                let before = self.entries.iter().map(Arc::as_ref);
                let has_changed = before.ne(&listing.entries);
                if has_changed {
                    self.entries = listing.entries.into_iter().map(Arc::new).collect();
                }
                if listing.error.is_none() {
                    self.stamp = stamp;
                    self.read_at = Some(clock::wall_now());
                }
                self.note_error(source, listing.error);
                has_changed
            }
            Err(error) => {
                self.note_error(source, Some(error));
                false
            }
        }
    }

    /// What the watch of a cluster knows by now; gives whether it names other guests.
    fn read_cluster(&mut self, source: &RosterSource, kubevirt: &KubevirtSource) -> bool {
        let watch = &mut self.cluster;
        let watch = watch.get_or_insert_with(|| ClusterWatch::start(kubevirt));
        let reading = watch.read();
        self.note_remarks(reading.remarks);
        if reading.has_changed {
            let mut entries = reading.entries;
            entries.sort_by(|a, b| a.vm.cmp(&b.vm));
            self.entries = entries.into();
        }
        if reading.is_listed && reading.error.is_none() {
            self.read_at = Some(clock::wall_now());
        }
        self.note_error(source, reading.error);
        reading.has_changed
    }

    /// Says each remark once.
    fn note_remarks(&mut self, remarks: BTreeSet<String>) {
        for remark in remarks.difference(&self.remarks) {
            tracing::warn!("{}", visible(remark));
        }
        self.remarks = remarks;
    }

    /// Says once what cannot be read, and that it can be read again.
    fn note_error(&mut self, source: &RosterSource, error: Option<String>) {
        let error = error.map(|error| visible(&error).into_owned());
        match &error {
            Some(error) if self.error.as_ref() != Some(error) => {
                tracing::error!(%error, kept = self.entries.len(), "roster not read in full, what it said before stays");
            }
            None if self.error.is_some() => {
                tracing::info!(source = source.name(), "roster can be read again");
            }
            _ => {}
        }
        self.error = error;
    }
}

impl RosterSource {
    fn read(&self, domains: &mut libvirt::Domains) -> Result<Listing, String> {
        match self {
            Self::Fixed(entries) => Ok(Listing::of(entries.clone())),
            Self::File(path) => file::read(path).map(Listing::of),
            Self::Directory(path, port) => directory::read(path, *port),
            Self::Libvirt(path) => domains.read(path),
            // Not read but followed: see `Reading::read_cluster`.
            Self::Kubevirt(_) => Ok(Listing::default()),
        }
    }

    /// Tells whether a source is worth reading again: ten thousand guests are milliseconds of work,
    /// every other second. libvirt writes into the files themselves, so that its directory says
    /// nothing of them; each of them has a stamp of its own.
    fn stamp(&self) -> Option<FileStamp> {
        match self {
            Self::File(path) | Self::Directory(path, _) => stamp::settled(path),
            Self::Fixed(_) | Self::Libvirt(_) | Self::Kubevirt(_) => None,
        }
    }

    fn name(&self) -> String {
        let name = match self {
            Self::Fixed(_) => return "settings".into(),
            Self::Kubevirt(source) => return format!("kubevirt:{}", source.cluster),
            Self::File(path) | Self::Directory(path, _) | Self::Libvirt(path) => path.display(),
        };
        visible(&name.to_string()).into_owned()
    }
}

#[cfg(test)]
mod tests;
