//! Which guests there are: from flags and files, sockets in a directory, and libvirt.
//!
//! Sources are read again while the sensor runs. One that cannot be read keeps what it said last,
//! so that a slip in a file or a restart of libvirt never makes guests disappear. Where two sources
//! name the same guest the first counts: flags, then files, then discovery, in the order given.

pub mod directory;
pub mod file;
pub mod libvirt;

use crate::report::{GuestId, VmId};
use crate::transport::DialAddress;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

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

/// Guests by id.
pub type Guests = BTreeMap<VmId, Entry>;

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

/// All sources, and what each said last.
pub struct Roster {
    sources: Vec<(Source, Reading)>,
}

#[derive(Default)]
struct Reading {
    entries: Vec<Entry>,
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
            match source.read() {
                Ok(entries) => {
                    if reading.error.take().is_some() {
                        tracing::info!(source = source.name(), "roster can be read again");
                    }
                    reading.entries = entries;
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

    fn name(&self) -> String {
        match self {
            Self::Fixed(_) => "command line".into(),
            Self::File(path) | Self::Directory(path, _) | Self::Libvirt(path) => {
                path.display().to_string()
            }
        }
    }
}
