//! Which CPEs a package repository stands for, by Red Hat's mapping.
//!
//! ```text
//! {"data": {"rhel-9-for-x86_64-baseos-rpms": {"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos"]}}}
//! ```
//!
//! The mapping is pushed by a sensor, or a file, or a URL whose content is kept in the state directory:
//! fetched daily, checked before it replaces the copy, and never waited for by a scan. It has thousands of
//! entries of which a guest needs some ten, so it is read through, not kept.
//!
//! A report gets every mapped repository that the guest ever used, because a package without an
//! entry in the history may be from any of them. A CPE that is not one would make Scanner V4 refuse
//! the whole report, so it is left out.

use crate::clock::backoff::Backoff;
use crate::http::{self, Bearer, Client};
use crate::report::cpe::{Cpe, WILDCARD};
use crate::report::{MappingHash, MappingHasher, Report, Repository};
use crate::root::open_regular;
use crate::wire::{MAPPED_KEY, hint_of};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Between two fetches.
pub const REFRESH: Duration = Duration::from_secs(24 * 3600);

/// After fetches that failed.
pub const RETRY: Backoff = Backoff {
    floor: Duration::from_secs(60),
    ceiling: Duration::from_secs(4 * 3600),
};

/// The real mapping has some 2 MB.
const LONGEST: u64 = 64 << 20;

const CACHE: &str = "repo-cpe.json";

/// Where the mapping comes from, as it was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A sensor pushes it, or nobody does.
    Sensor,
    /// A file that somebody else keeps up to date.
    File(PathBuf),
    /// Fetched daily.
    Url(String),
}

impl Source {
    /// The file that is read, if it is one; `state_dir` holds the copy of what was fetched.
    pub fn file(&self, state_dir: &Path) -> Option<PathBuf> {
        match self {
            Self::Sensor => None,
            Self::File(path) => Some(path.clone()),
            Self::Url(_) => Some(state_dir.join(CACHE)),
        }
    }
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("neither sensor nor a file nor a URL".into()),
            "sensor" => Ok(Self::Sensor),
            url if url.starts_with("https://") || url.starts_with("http://") => {
                Ok(Self::Url(url.into()))
            }
            path => Ok(Self::File(path.into())),
        }
    }
}

/// What a fetch needs beside the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchOptions {
    /// File with the bearer token, read at every fetch.
    pub token_file: Option<PathBuf>,
    /// PEM file with the only roots to trust.
    pub ca_file: Option<PathBuf>,
}

/// Why the mapping cannot be used or fetched.
#[derive(Debug, thiserror::Error)]
pub enum RepoCpeError {
    /// There is none yet: somebody else has not put it there, or nothing was fetched so far.
    #[error("{}: there is no mapping of repositories to CPEs yet", path.display())]
    Missing {
        /// Where it is looked for.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not a mapping.
    #[error("{origin}: not a mapping of repositories to CPEs: {source}")]
    Malformed {
        /// File or URL.
        origin: String,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The one that was pushed cannot be read.
    #[error("the mapping of repositories to CPEs that was pushed cannot be read: {what}")]
    Pushed {
        /// Why.
        what: String,
    },
    /// It could not be fetched.
    #[error("{url}: {what}")]
    Fetch {
        /// The URL.
        url: String,
        /// What came instead.
        what: String,
    },
}

/// A CPE of the mapping that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The repository that it stands under.
    pub repository: String,
    /// Why; holds an excerpt of it.
    pub error: String,
}

/// A repository that stands for everything would make its packages count as scanned and clean.
fn not_wildcard(cpe: Cpe) -> Result<Cpe, String> {
    match cpe.as_str() == WILDCARD {
        true => Err("it matches everything".into()),
        false => Ok(cpe),
    }
}

/// Adds CPEs to reports.
#[derive(Default)]
pub struct RepoCpe {
    found: Option<Found>,
    /// The content of the mapping that rejected CPEs were told of, and those.
    told: (Option<MappingHash>, BTreeSet<(String, String)>),
}

/// Where a mapping is read from.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    /// A file.
    File(&'a Path),
    /// What a sensor pushed: its hash, and a way to read it.
    Pushed(MappingHash, &'a dyn Fn() -> Result<String, RepoCpeError>),
}

/// What was found for which repositories, in which state of the file.
struct Found {
    requested: BTreeSet<String>,
    seen: MappingStamp,
    hash: MappingHash,
    /// Of each repository that has any.
    cpes: BTreeMap<String, BTreeSet<Cpe>>,
}

/// The CPEs of a repository, as the mapping has them.
type Cpes = BTreeMap<String, Vec<String>>;

/// What changes when a mapping does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingStamp {
    /// Inode, size and time of a file.
    File(u64, u64, i64, i64),
    /// Hash of what was pushed.
    Pushed(MappingHash),
}

impl RepoCpe {
    /// Replaces each repository of the report that the mapping knows by one entry a CPE, and adds
    /// such entries for the other repositories of the history. What the mapping has no CPE for stays
    /// as it is. Gives the hash of the mapping, and the CPEs that were left out, each once for one content of
    /// the mapping.
    ///
    /// # Errors
    /// The file is missing or cannot be used; the report is then as it was.
    pub fn apply(
        &mut self,
        report: &mut Report,
        history_repositories: &[String],
        content: Content<'_>,
    ) -> Result<(MappingHash, Vec<Rejected>), RepoCpeError> {
        let of_report = report.repositories.iter().map(|r| &r.id);
        let requested: BTreeSet<String> = of_report.chain(history_repositories).cloned().collect();
        let seen = content.seen()?;
        let mut rejected = Vec::new();
        let Found { cpes, hash, .. } = match &self.found {
            Some(found) if found.requested == requested && found.seen == seen => found,
            _ => {
                let (hash, texts) = content.read(&requested)?;
                let cpes = self.bind(hash, texts, &mut rejected);
                self.found.insert(Found {
                    requested,
                    seen,
                    hash,
                    cpes,
                })
            }
        };
        let hash = *hash;
        report.repositories.retain(|r| !cpes.contains_key(&r.id));
        for (id, cpes) in cpes {
            report
                .repositories
                .extend(cpes.iter().map(|cpe| Repository {
                    id: id.clone(),
                    key: MAPPED_KEY.into(),
                    uri: hint_of(id),
                    cpe: cpe.to_string(),
                }));
        }
        report.normalize();
        Ok((hash, rejected))
    }

    /// The CPEs that are ones; of the others, `rejected` gets those that were not told of.
    fn bind(
        &mut self,
        content: MappingHash,
        texts: Cpes,
        rejected: &mut Vec<Rejected>,
    ) -> BTreeMap<String, BTreeSet<Cpe>> {
        if self.told.0 != Some(content) {
            self.told = (Some(content), BTreeSet::new());
        }
        let mut bound = BTreeMap::<String, BTreeSet<Cpe>>::new();
        for (repository, texts) in texts {
            for text in texts {
                let cpe = text.parse::<Cpe>().map_err(|error| error.to_string());
                match cpe.and_then(not_wildcard) {
                    Ok(cpe) => {
                        bound.entry(repository.clone()).or_default().insert(cpe);
                    }
                    Err(error) => {
                        if self.told.1.insert((repository.clone(), text)) {
                            let repository = repository.clone();
                            rejected.push(Rejected { repository, error });
                        }
                    }
                }
            }
        }
        bound
    }
}

/// Fetches the mapping into the state directory; gives whether it is another one than before.
/// Blocking.
///
/// # Errors
/// It could not be fetched, is no mapping, or could not be kept; the old copy stays.
pub fn fetch(url: &str, options: &FetchOptions, state_dir: &Path) -> Result<bool, RepoCpeError> {
    let failed = |what: String| RepoCpeError::Fetch {
        url: url.to_owned(),
        what,
    };
    let bearer = options.token_file.as_deref().map(Bearer::from_file);
    let bearer = bearer
        .transpose()
        .map_err(|error| failed(error.to_string()))?;
    let client = Client::new(http::HttpOptions {
        body_cap: LONGEST,
        ca_file: options.ca_file.clone(),
        ..http::HttpOptions::default()
    });
    let headers: Vec<_> = bearer.iter().map(Bearer::header).collect();
    let answer = client
        .get(url, &headers)
        .map_err(|error| failed(error.to_string()))?;
    if !answer.is_success() {
        return Err(failed(format!("answered with status {}", answer.status)));
    }
    parse(answer.body.as_slice(), &BTreeSet::new(), Entries::Checked).map_err(|source| {
        RepoCpeError::Malformed {
            origin: url.to_owned(),
            source,
        }
    })?;
    let path = state_dir.join(CACHE);
    if fs::read(&path).is_ok_and(|old| old == answer.body) {
        return Ok(false);
    }
    replace(&path, &answer.body).map_err(|source| RepoCpeError::Io { path, source })?;
    Ok(true)
}

/// All of it or nothing, also when the power goes.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("json.new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// What changes when the file does; `None` while there is none. One look at the file system.
pub fn stamp(path: &Path) -> Option<MappingStamp> {
    seen(path).ok()
}

fn seen(path: &Path) -> Result<MappingStamp, RepoCpeError> {
    let meta = fs::metadata(path).map_err(|error| io_error(path, error))?;
    let (time, ns) = (meta.mtime(), meta.mtime_nsec());
    Ok(MappingStamp::File(meta.ino(), meta.size(), time, ns))
}

fn io_error(path: &Path, source: io::Error) -> RepoCpeError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => RepoCpeError::Missing { path },
        _ => RepoCpeError::Io { path, source },
    }
}

impl Content<'_> {
    fn seen(&self) -> Result<MappingStamp, RepoCpeError> {
        match self {
            Self::File(path) => seen(path),
            Self::Pushed(hash, _) => Ok(MappingStamp::Pushed(*hash)),
        }
    }

    fn read(&self, requested: &BTreeSet<String>) -> Result<(MappingHash, Cpes), RepoCpeError> {
        let (hash, json) = match self {
            Self::File(path) => return read(path, requested),
            Self::Pushed(hash, json) => (hash, json()?),
        };
        let cpes = parse(json.as_bytes(), requested, Entries::Unchecked);
        let cpes = cpes.map_err(|error| RepoCpeError::Pushed {
            what: error.to_string(),
        })?;
        Ok((*hash, cpes))
    }
}

/// What the mapping has for these repositories, and a hash of all of it.
fn read(path: &Path, requested: &BTreeSet<String>) -> Result<(MappingHash, Cpes), RepoCpeError> {
    let file = open_regular(path).map_err(|error| io_error(path, error))?;
    let mut hashing = Hashing {
        inner: file.take(LONGEST),
        hasher: MappingHasher::default(),
    };
    let cpes =
        parse(BufReader::new(&mut hashing), requested, Entries::Checked).map_err(|source| {
            match source.is_io() {
                true => io_error(path, source.into()),
                false => RepoCpeError::Malformed {
                    origin: path.display().to_string(),
                    source,
                },
            }
        })?;
    Ok((hashing.hasher.finish(), cpes))
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    hasher: MappingHasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.write(buffer.get(..read).unwrap_or_default());
        Ok(read)
    }
}

/// Whether the entries of repositories that nobody asks for are looked at as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entries {
    Checked,
    /// StackRox does not look either: an entry of another form has no CPE.
    Unchecked,
}

fn parse(
    json: impl Read,
    requested: &BTreeSet<String>,
    entries: Entries,
) -> Result<Cpes, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_reader(json);
    let cpes = Mapping(requested, entries).deserialize(&mut json)?;
    json.end()?;
    Ok(cpes)
}

/// The outer object: only `data` is of interest, and must be there.
struct Mapping<'a>(&'a BTreeSet<String>, Entries);

/// The object in `data`: only the requested repositories are kept.
struct Data<'a>(&'a BTreeSet<String>, Entries);

#[derive(Deserialize)]
struct Entry {
    cpes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyEntry {
    Entry(Entry),
    Other(IgnoredAny),
}

impl<'de> DeserializeSeed<'de> for Mapping<'_> {
    type Value = Cpes;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cpes, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Mapping<'_> {
    type Value = Cpes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the key \"data\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cpes, A::Error> {
        let mut cpes = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "data" {
                cpes = Some(map.next_value_seed(Data(self.0, self.1))?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        cpes.ok_or_else(|| serde::de::Error::missing_field("data"))
    }
}

impl<'de> DeserializeSeed<'de> for Data<'_> {
    type Value = Cpes;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Cpes, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Data<'_> {
    type Value = Cpes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of repository ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cpes, A::Error> {
        let mut cpes = Cpes::new();
        while let Some(id) = map.next_key::<String>()? {
            match (self.1, self.0.contains(&id)) {
                (Entries::Checked, is_wanted) => {
                    let entry = map.next_value::<Entry>()?;
                    if is_wanted {
                        cpes.insert(id, entry.cpes);
                    }
                }
                (Entries::Unchecked, false) => {
                    map.next_value::<IgnoredAny>()?;
                }
                (Entries::Unchecked, true) => {
                    let texts = match map.next_value::<AnyEntry>()? {
                        AnyEntry::Entry(entry) => entry.cpes,
                        // An empty text is no CPE, so that it is told of.
                        AnyEntry::Other(IgnoredAny) => vec![String::new()],
                    };
                    cpes.insert(id, texts);
                }
            }
        }
        Ok(cpes)
    }
}

#[cfg(test)]
mod tests;
