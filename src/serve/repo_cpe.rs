//! Which CPEs a package repository stands for, by Red Hat's mapping.
//!
//! ```text
//! {"data": {"rhel-9-for-x86_64-baseos-rpms": {"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos"]}}}
//! ```
//!
//! The mapping is a file, or a URL whose content is kept in the state directory: fetched daily,
//! checked before it replaces the copy, and never waited for by a scan. It has thousands of
//! entries of which a guest needs some ten, so it is read through, not kept.

use crate::clock::backoff::Backoff;
use crate::http::{self, Client};
use crate::report::{Report, Repository};
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

/// What marks a repository whose CPE is from this mapping; Clair's name for it.
pub const KEY: &str = "rhel-cpe-repository";

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
    /// A file that somebody else keeps up to date.
    File(PathBuf),
    /// Fetched daily.
    Url(String),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("neither a file nor a URL".into()),
            url if url.starts_with("https://") || url.starts_with("http://") => {
                Ok(Self::Url(url.into()))
            }
            path => Ok(Self::File(path.into())),
        }
    }
}

/// Why the mapping cannot be used or fetched.
#[derive(Debug, thiserror::Error)]
pub enum RepoCpeError {
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
    /// It could not be fetched.
    #[error("{url}: {what}")]
    Fetch {
        /// The URL.
        url: String,
        /// What came instead.
        what: String,
    },
}

/// Adds CPEs to reports.
pub struct RepoCpe {
    path: PathBuf,
    /// What was found for which repositories, in which state of the file.
    found: Option<(BTreeSet<String>, Option<Seen>, Cpes)>,
}

type Cpes = BTreeMap<String, Vec<String>>;
type Seen = (u64, u64, i64, i64);

impl RepoCpe {
    /// `state_dir` holds the copy of what was fetched.
    pub fn new(source: &Source, state_dir: &Path) -> Self {
        Self {
            path: match source {
                Source::File(path) => path.clone(),
                Source::Url(_) => state_dir.join(CACHE),
            },
            found: None,
        }
    }

    /// Replaces each repository of the report that the mapping knows by one entry a CPE. A mapping
    /// that is not there yet leaves the report as it is.
    ///
    /// # Errors
    /// The file is there and cannot be used; the report is then as it was.
    pub fn apply(&mut self, report: &mut Report) -> Result<(), RepoCpeError> {
        let wanted: BTreeSet<String> = report.repositories.iter().map(|r| r.id.clone()).collect();
        let seen = seen(&self.path);
        let current = self
            .found
            .as_ref()
            .is_some_and(|(ids, at, _)| *ids == wanted && *at == seen);
        if !current {
            let cpes = match seen {
                Some(_) if !wanted.is_empty() => read(&self.path, &wanted)?,
                _ => Cpes::new(),
            };
            self.found = Some((wanted, seen, cpes));
        }
        if let Some((_, _, cpes)) = &self.found {
            let with_cpes = |repository: &Repository| match cpes.get(&repository.id) {
                Some(cpes) if !cpes.is_empty() => cpes
                    .iter()
                    .map(|cpe| Repository {
                        key: KEY.into(),
                        cpe: cpe.clone(),
                        ..repository.clone()
                    })
                    .collect(),
                _ => vec![repository.clone()],
            };
            report.repositories = report.repositories.iter().flat_map(with_cpes).collect();
            report.normalize();
        }
        Ok(())
    }
}

/// Fetches the mapping into the state directory; gives whether it is another one than before.
/// Blocking.
///
/// # Errors
/// It could not be fetched, is no mapping, or could not be kept; the old copy stays.
pub fn fetch(url: &str, state_dir: &Path) -> Result<bool, RepoCpeError> {
    let failed = |what: String| RepoCpeError::Fetch {
        url: url.to_owned(),
        what,
    };
    let client = Client::new(http::Options {
        body_cap: LONGEST,
        ..http::Options::default()
    });
    let answer = client
        .get(url, &[])
        .map_err(|error| failed(error.to_string()))?;
    if !answer.is_success() {
        return Err(failed(format!("answered with status {}", answer.status)));
    }
    parse(answer.body.as_slice(), &BTreeSet::new()).map_err(|source| RepoCpeError::Malformed {
        origin: url.to_owned(),
        source,
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

fn seen(path: &Path) -> Option<Seen> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
}

fn read(path: &Path, wanted: &BTreeSet<String>) -> Result<Cpes, RepoCpeError> {
    let file = File::open(path).map_err(|source| RepoCpeError::Io {
        path: path.to_owned(),
        source,
    })?;
    parse(BufReader::new(file.take(LONGEST)), wanted).map_err(|source| RepoCpeError::Malformed {
        origin: path.display().to_string(),
        source,
    })
}

fn parse(json: impl Read, wanted: &BTreeSet<String>) -> Result<Cpes, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_reader(json);
    let cpes = Mapping(wanted).deserialize(&mut json)?;
    json.end()?;
    Ok(cpes)
}

/// The outer object: only `data` is of interest, and must be there.
struct Mapping<'a>(&'a BTreeSet<String>);

/// The object in `data`: only the wanted repositories are kept, all are checked.
struct Data<'a>(&'a BTreeSet<String>);

#[derive(Deserialize)]
struct Entry {
    cpes: Vec<String>,
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
                cpes = Some(map.next_value_seed(Data(self.0))?);
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
        while let Some((id, entry)) = map.next_entry::<String, Entry>()? {
            if self.0.contains(&id) {
                cpes.insert(id, entry.cpes);
            }
        }
        Ok(cpes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPING: &str = r#"{"version": 1, "data": {
        "baseos": {"cpes": ["cpe:/o:redhat:enterprise_linux:9::baseos", "cpe:/o:redhat:enterprise_linux:9"], "x": 1},
        "other": {"cpes": []}}}"#;

    #[test]
    fn a_known_repository_gets_an_entry_for_each_cpe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.json");
        fs::write(&path, MAPPING).unwrap();
        let mut report = report(&["appstream", "baseos"]);
        RepoCpe::new(&Source::File(path), dir.path())
            .apply(&mut report)
            .unwrap();
        let entries: Vec<_> = report
            .repositories
            .iter()
            .map(|r| (r.id.as_str(), r.key.as_str(), r.cpe.as_str()))
            .collect();
        assert_eq!(
            entries,
            [
                ("appstream", "", ""),
                ("baseos", KEY, "cpe:/o:redhat:enterprise_linux:9"),
                ("baseos", KEY, "cpe:/o:redhat:enterprise_linux:9::baseos"),
            ]
        );
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_broken_one_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.json");
        let mut mapping = RepoCpe::new(&Source::File(path.clone()), dir.path());
        let mut before = report(&["baseos"]);
        mapping.apply(&mut before).unwrap();
        assert_eq!(before, report(&["baseos"]), "not there yet");
        fs::write(&path, MAPPING).unwrap();
        mapping.apply(&mut before).unwrap();
        assert_eq!(before.repositories.len(), 2);
        fs::write(&path, "{\"data\": 3}").unwrap();
        let mut untouched = report(&["baseos"]);
        assert!(mapping.apply(&mut untouched).is_err());
        assert_eq!(untouched, report(&["baseos"]));
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"{"data": {"a": {}}}"#,
            r#"{"data": {}} x"#,
            "<html>",
        ] {
            assert!(parse(json.as_bytes(), &BTreeSet::new()).is_err(), "{json}");
        }
    }

    #[test]
    fn what_is_fetched_replaces_the_copy_only_when_it_is_a_mapping() {
        let dir = tempfile::tempdir().unwrap();
        let answers = [
            ("200 OK", MAPPING),
            ("200 OK", MAPPING),
            ("200 OK", "<html>"),
            ("503 Busy", MAPPING),
        ];
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!(
            "http://{}/repository-to-cpe.json",
            server.local_addr().unwrap()
        );
        let serving = std::thread::spawn(move || {
            for (status, body) in answers {
                let (mut stream, _) = server.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
            }
        });
        assert!(fetch(&url, dir.path()).unwrap());
        assert!(
            !fetch(&url, dir.path()).unwrap(),
            "the same again is no news"
        );
        assert!(matches!(
            fetch(&url, dir.path()),
            Err(RepoCpeError::Malformed { .. })
        ));
        assert!(matches!(
            fetch(&url, dir.path()),
            Err(RepoCpeError::Fetch { .. })
        ));
        serving.join().unwrap();
        let mut report = report(&["baseos"]);
        RepoCpe::new(&Source::Url(url), dir.path())
            .apply(&mut report)
            .unwrap();
        assert_eq!(
            report.repositories.len(),
            2,
            "the good copy is still in use"
        );
    }

    fn report(repositories: &[&str]) -> Report {
        Report {
            repositories: repositories
                .iter()
                .map(|id| Repository {
                    id: (*id).into(),
                    ..Repository::default()
                })
                .collect(),
            ..Report::default()
        }
    }
}
