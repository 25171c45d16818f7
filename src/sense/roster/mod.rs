//! Which guests there are: from flags and files, sockets in a directory, and libvirt.
//!
//! Sources are read again while the sensor runs. One that cannot be read keeps what it said last,
//! so that a slip in a file or a restart of libvirt never makes guests disappear. Where two sources
//! name the same guest the first counts: flags, then files, then discovery, in the order given.

pub mod directory;
pub mod file;
pub mod libvirt;

use crate::clock;
use crate::report::{GuestId, VmId};
use crate::transport::DialAddress;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// A guest to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is called.
    pub vm: VmId,
    /// Where it is reached.
    pub address: DialAddress,
    /// The only machine that may answer there; `None`: any.
    pub guest_id: Option<GuestId>,
}

/// `ID=ADDR`, as `--vm` takes it.
impl FromStr for Entry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (vm, address) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not ID=ADDR, for example web-1=vsock:3:818"))?;
        Ok(Self {
            vm: vm.parse().map_err(|error| format!("{error}"))?,
            address: address.parse()?,
            guest_id: None,
        })
    }
}

/// Guests by id. An entry is shared with everybody who needs it, not copied.
pub type Guests = BTreeMap<VmId, Arc<Entry>>;

/// Where a part of the roster comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Flags and the configuration file: they never change.
    Fixed(Vec<Entry>),
    /// A TOML file.
    File(PathBuf),
    /// Sockets in a directory; with a port, those of a hypervisor.
    Directory(PathBuf, Option<u32>),
    /// The directory in which libvirt keeps its running domains.
    Libvirt(PathBuf),
}

/// `libvirt`, `DIR`, or `hybrid:DIR:PORT`, as `--discover` takes it.
impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not libvirt, a directory, or hybrid:DIR:PORT");
        match text.split_once(':') {
            _ if text.is_empty() => Err(wrong()),
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

/// A change within this time of another may not show: the clocks of file systems are coarse.
const UNSETTLED: Duration = Duration::from_secs(5);

/// All sources, and what each said last.
pub struct Roster {
    sources: Vec<(Source, Reading)>,
}

/// What a change of a file, or of the names in a directory, cannot leave as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// `None` where it would prove nothing: there is nothing, or it changed so lately that a further
    /// change may get the same time.
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        let age = clock::wall_now().since(meta.modified().ok()?.into());
        (age > UNSETTLED).then_some(Self {
            inode: (meta.dev(), meta.ino()),
            len: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[derive(Default)]
struct Reading {
    entries: Vec<Arc<Entry>>,
    /// The file or directory as it was then.
    stamp: Option<Stamp>,
    /// What was wrong last time, so that it is said once.
    error: Option<String>,
}

impl Roster {
    /// With these sources, in order of precedence. Nothing has been read yet.
    pub fn new(sources: Vec<Source>) -> Self {
        let sources = sources.into_iter().map(|s| (s, Reading::default()));
        Self {
            sources: sources.collect(),
        }
    }

    /// Reads every source again; gives the first error of a source that has never been read.
    pub fn read(&mut self) -> Result<Guests, String> {
        let mut first_error = None;
        for (source, reading) in &mut self.sources {
            let stamp = source.stamp();
            if stamp.is_some() && stamp == reading.stamp {
                continue;
            }
            reading.stamp = None;
            match source.read() {
                Ok(entries) => {
                    reading.stamp = stamp;
                    if reading.error.take().is_some() {
                        tracing::info!(source = source.name(), "roster can be read again");
                    }
                    reading.entries = entries.into_iter().map(Arc::new).collect();
                }
                Err(error) => {
                    if reading.error.as_ref() != Some(&error) {
                        tracing::error!(%error, kept = reading.entries.len(), "roster not taken over, the one before stays");
                    }
                    first_error.get_or_insert_with(|| error.clone());
                    reading.error = Some(error);
                }
            }
        }
        match first_error {
            Some(error) if self.merged().is_empty() => Err(error),
            _ => Ok(self.merged()),
        }
    }

    fn merged(&self) -> Guests {
        let mut guests = Guests::new();
        for entry in self.sources.iter().flat_map(|(_, r)| &r.entries) {
            guests
                .entry(entry.vm.clone())
                .or_insert_with(|| entry.clone());
        }
        guests
    }

    /// What is wrong with the sources at the moment.
    pub fn errors(&self) -> Vec<String> {
        self.sources
            .iter()
            .filter_map(|(_, reading)| reading.error.clone())
            .collect()
    }
}

impl Source {
    fn read(&self) -> Result<Vec<Entry>, String> {
        match self {
            Self::Fixed(entries) => Ok(entries.clone()),
            Self::File(path) => file::read(path),
            Self::Directory(path, port) => directory::read(path, *port),
            Self::Libvirt(path) => libvirt::read(path),
        }
    }

    /// Tells whether a source is worth reading again: ten thousand guests are milliseconds of work,
    /// every other second. libvirt writes into the files themselves, so that its directory says
    /// nothing of them.
    fn stamp(&self) -> Option<Stamp> {
        match self {
            Self::File(path) | Self::Directory(path, _) => Stamp::of(path),
            Self::Fixed(_) | Self::Libvirt(_) => None,
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Fixed(_) => "command line".into(),
            Self::File(path) | Self::Directory(path, _) | Self::Libvirt(path) => {
                path.display().to_string()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    /// Loss prevented: an edit that is never noticed, or one slip that makes all guests disappear.
    #[test]
    fn every_edit_is_noticed_and_a_bad_one_keeps_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roster.toml");
        let mut roster = Roster::new(vec![
            Source::Fixed(vec!["a=unix:/fixed".parse().unwrap()]),
            Source::File(path.clone()),
        ]);
        // As old as a file that nobody touched for long, so that its times are believed.
        let write = |text: &str| {
            fs::write(&path, text).unwrap();
            let file = fs::File::options().append(true).open(&path).unwrap();
            let old = SystemTime::now() - 100 * UNSETTLED;
            file.set_modified(old).unwrap();
        };
        let mut guests = |text: Option<&str>| {
            text.inspect(|text| write(text));
            let guests = roster.read().unwrap();
            let shown = guests.values().map(|e| format!("{}={}", e.vm, e.address));
            (shown.collect::<Vec<_>>().join(" "), roster.errors().len())
        };
        let entry = |id: &str, address: &str| format!("[[vm]]\nid='{id}'\naddress='{address}'\n");
        let said = |guests: &str, errors: usize| (guests.to_owned(), errors);
        assert_eq!(guests(None), said("a=unix:/fixed", 1));
        let two = entry("b", "unix:/b") + &entry("a", "unix:/other");
        let expected = said("a=unix:/fixed b=unix:/b", 0);
        assert_eq!(guests(Some(&two)), expected);
        assert_eq!(guests(None), expected);
        // Equally long, and equally old: only the inode's own time tells.
        let edited = said("a=unix:/fixed b=unix:/c", 0);
        assert_eq!(guests(Some(&two.replace("/b", "/c"))), edited);
        let bad = said("a=unix:/fixed b=unix:/c", 1);
        assert_eq!(guests(Some(&two.replace("[[vm]]", "[[vn]]"))), bad);
        assert_eq!(guests(None), bad);
        assert_eq!(guests(Some("")), said("a=unix:/fixed", 0));
    }
}
