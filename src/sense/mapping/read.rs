//! Reading the sensor's mapping: at the start, every four hours and at SIGHUP. One that cannot be read leaves the
//! one before in use.

use super::{SensorMapping, SensorMappingSource};
use crate::clock::backoff::Backoff;
use crate::clock::{self, WallTime};
use crate::file_stamp::FileStamp;
use crate::http::{Client, HttpOptions};
use crate::report::MappingHash;
use crate::report::mapping::{self, LONGEST};
use crate::visible::Foreign;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Between two looks at the source.
const EVERY: Duration = Duration::from_secs(4 * 3600);

/// After looks that failed.
const RETRY: Backoff = Backoff {
    floor: Duration::from_secs(60),
    ceiling: EVERY,
};

/// What `status` says of the source.
#[derive(Clone, Debug, Default)]
pub struct MappingSourceStatus {
    /// Where it is.
    pub source: String,
    /// Of the mapping in use.
    pub hash: Option<MappingHash>,
    /// When the source was last found to have it.
    pub read_at: Option<WallTime>,
    /// Why the last look failed.
    pub error: Option<String>,
}

/// The source, followed by a task, and what it says of itself.
#[derive(Debug)]
pub struct MappingSource {
    status: Mutex<MappingSourceStatus>,
    reread: Notify,
}

impl MappingSource {
    /// Nothing was read yet.
    pub fn new(source: &SensorMappingSource) -> Self {
        let status = MappingSourceStatus {
            source: source.to_string(),
            ..MappingSourceStatus::default()
        };
        Self {
            status: Mutex::new(status),
            reread: Notify::new(),
        }
    }

    /// What is known of the source.
    pub fn status(&self) -> MutexGuard<'_, MappingSourceStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the source now.
    pub fn reread(&self) {
        self.reread.notify_one();
    }

    /// Reads the source again and again, until the process ends.
    pub async fn follow(
        self: Arc<Self>,
        source: SensorMappingSource,
        to: watch::Sender<Option<Arc<SensorMapping>>>,
    ) {
        let mut reader = Reader::new(source);
        let mut failures = 0;
        loop {
            let task = tokio::task::spawn_blocking(move || {
                let read = reader.read();
                (reader, read)
            });
            let read;
            (reader, read) = match task.await {
                Ok(read) => read,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            let wait = match read {
                Ok(found) => {
                    failures = 0;
                    self.found(found, &to);
                    EVERY.mul_f64(1.0 - fastrand::f64() / 10.0)
                }
                Err(error) => {
                    failures += 1;
                    self.failed(error, to.borrow().is_some());
                    RETRY.delay(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.reread.notified() => {}
            }
        }
    }

    /// `found`: another mapping than the last time.
    fn found(&self, found: Option<SensorMapping>, to: &watch::Sender<Option<Arc<SensorMapping>>>) {
        let mut status = self.status();
        status.read_at = Some(clock::wall_now());
        let had_error = status.error.take().is_some();
        match found {
            Some(mapping) => {
                tracing::info!(hash = %mapping.hash, bytes = mapping.bytes.len(), "a mapping of repositories to CPEs was read, for guests that lack it");
                status.hash = Some(mapping.hash);
                drop(status);
                to.send_replace(Some(Arc::new(mapping)));
            }
            None if had_error => {
                tracing::info!("the mapping of repositories to CPEs can be read again");
            }
            None => {}
        }
    }

    fn failed(&self, error: String, has_one: bool) {
        let kept = match has_one {
            true => "the one before stays in use",
            false => "guests are given none",
        };
        tracing::warn!(
            error,
            "the mapping of repositories to CPEs cannot be read; {kept}"
        );
        self.status().error = Some(error);
    }
}

/// Tells apart what a source had before and has now.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Version {
    File(FileStamp),
    /// Headers of a request, by which the server tells.
    Url(Vec<(&'static str, String)>),
}

/// A source and what was found there last.
struct Reader {
    source: SensorMappingSource,
    client: Client,
    version: Option<Version>,
    hash: Option<MappingHash>,
}

impl Reader {
    fn new(source: SensorMappingSource) -> Self {
        Self {
            source,
            client: Client::new(HttpOptions {
                body_cap: LONGEST as u64,
                ..HttpOptions::default()
            }),
            version: None,
            hash: None,
        }
    }

    /// The mapping, if it is another one than the last time; blocks. On an error, which names the source, the
    /// next reading begins anew.
    fn read(&mut self) -> Result<Option<SensorMapping>, String> {
        let before = self.version.take();
        let source = self.source.clone();
        let read = match &source {
            SensorMappingSource::File(path) => read_file(path, before.as_ref()),
            SensorMappingSource::Url(url) => self.read_url(url, before.as_ref()),
        };
        let read = read.and_then(|read| match read {
            Some((bytes, version)) => {
                mapping::check(&bytes).map_err(|error| format!("is no mapping: {error}"))?;
                Ok(Some((bytes, version)))
            }
            None => Ok(None),
        });
        match read.map_err(|error| format!("{source}: {error}"))? {
            None => {
                self.version = before;
                Ok(None)
            }
            Some((bytes, version)) => {
                self.version = version;
                let hash = MappingHash::of(&bytes);
                let is_other = self.hash.replace(hash) != Some(hash);
                Ok(is_other.then_some(SensorMapping { bytes, hash }))
            }
        }
    }

    fn read_url(&self, url: &str, before: Option<&Version>) -> Result<Found, String> {
        let headers = match before {
            Some(Version::Url(headers)) => headers.as_slice(),
            _ => &[],
        };
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let answer = self.client.get(url, &headers);
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 304 && !headers.is_empty() {
            return Ok(None);
        }
        if !answer.is_success() {
            return Err(format!("answered with status {}", answer.status));
        }
        let conditions = [
            ("If-None-Match", answer.header("etag")),
            ("If-Modified-Since", answer.header("last-modified")),
        ];
        let conditions = conditions.into_iter();
        let conditions: Vec<_> = conditions
            .filter_map(|(name, value)| Some((name, value?.to_owned())))
            .collect();
        let version = (!conditions.is_empty()).then_some(Version::Url(conditions));
        Ok(Some((answer.body, version)))
    }
}

/// What a source has now; `None`: what it had.
type Found = Option<(Vec<u8>, Option<Version>)>;

fn read_file(path: &Path, before: Option<&Version>) -> Result<Found, String> {
    let said = |error: std::io::Error| Foreign::from(error.to_string().as_str()).to_string();
    // Before the content: what is written meanwhile is read the next time.
    let version = FileStamp::of(path).map(Version::File);
    if version.is_some() && version.as_ref() == before {
        return Ok(None);
    }
    // Opening a pipe would wait for whoever writes into it.
    if !fs::metadata(path).map_err(said)?.is_file() {
        return Err("is no regular file".into());
    }
    let file = File::open(path).map_err(said)?;
    let mut bytes = Vec::new();
    let longest = LONGEST as u64 + 1;
    file.take(longest).read_to_end(&mut bytes).map_err(said)?;
    match bytes.len() > LONGEST {
        true => Err(format!(
            "is longer than {LONGEST} bytes, which no agent takes"
        )),
        false => Ok(Some((bytes, version))),
    }
}

#[cfg(test)]
mod tests;
