//! Addresses of sinks, and opening the sink of an address.

use super::dependency_track::DependencyTrackSink;
use super::file::FileSink;
use super::http::HttpSink;
use super::nats::NatsSink;
use super::project::{ParentProject, Project, Template};
use super::sbom::SbomSink;
use super::{OnThreads, Sink, since};
use crate::{http, nats};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Where to, as it is written: `file:PATH[?events=on]`, `http(s)://...`, `nats://...?stream=NAME`, `sbom:DIR`,
/// `dependency-track+http(s)://...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkAddress {
    /// Lines of JSON, appended.
    File {
        /// Where.
        path: PathBuf,
        /// `events=on`: with a line for each event.
        events: bool,
    },
    /// Central's base URL, without a slash at its end.
    Http(String),
    /// A stream of JetStream.
    Nats(nats::NatsAddress),
    /// Bills of materials, in a directory.
    Sbom(PathBuf),
    /// Base URL of the API server of Dependency-Track, without a slash at its end.
    DependencyTrack(String),
}

/// What stands before the URL of Dependency-Track.
const DEPENDENCY_TRACK: &str = "dependency-track+";

impl FromStr for SinkAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", rest)) if !rest.is_empty() => file(rest)
                .ok_or_else(|| format!("{text:?} is not file:PATH or file:PATH?events=on")),
            Some(("sbom", directory)) if !directory.is_empty() => Ok(Self::Sbom(directory.into())),
            Some(("http" | "https", rest)) if rest.len() > 2 && rest.starts_with("//") => {
                http::check_base(text)?;
                Ok(Self::Http(text.trim_end_matches('/').to_owned()))
            }
            Some(("dependency-track+http" | "dependency-track+https", rest))
                if rest.len() > 2 && rest.starts_with("//") =>
            {
                let base = text.trim_start_matches(DEPENDENCY_TRACK);
                http::check_base(base)?;
                Ok(Self::DependencyTrack(base.trim_end_matches('/').to_owned()))
            }
            Some(("nats" | "tls", _)) => Ok(Self::Nats(text.parse()?)),
            _ => Err(format!(
                "{text:?} is no place to deliver to: file:PATH, http://HOST, https://HOST, \
                 nats://HOST?stream=NAME, sbom:DIR or dependency-track+https://HOST"
            )),
        }
    }
}

impl fmt::Display for SinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, events } => {
                let settings = if *events { "?events=on" } else { "" };
                write!(f, "file:{}{settings}", path.display())
            }
            Self::Http(base) => f.write_str(base),
            Self::Nats(address) => address.fmt(f),
            Self::DependencyTrack(base) => write!(f, "{DEPENDENCY_TRACK}{base}"),
            Self::Sbom(directory) => write!(f, "sbom:{}", directory.display()),
        }
    }
}

/// What stands behind `file:`.
fn file(text: &str) -> Option<SinkAddress> {
    let (path, events) = match text.split_once('?') {
        None => (text, false),
        Some((path, "events=on")) => (path, true),
        Some((path, "events=off")) => (path, false),
        Some(_) => return None,
    };
    let path = PathBuf::from(path);
    (!path.as_os_str().is_empty()).then_some(SinkAddress::File { path, events })
}

/// A stream of events beside that of a sink, on the same server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventOptions {
    /// Name of the stream.
    pub stream: String,
    /// How long it keeps events, if it is made here.
    pub max_age: Duration,
}

impl EventOptions {
    /// The name of a stream.
    ///
    /// # Errors
    /// It is none.
    pub fn stream_name(text: &str) -> Result<String, String> {
        match nats::is_stream_name(text) {
            true => Ok(text.to_owned()),
            false => Err(format!(
                "{text:?} is no name of a stream: letters, digits, - and _"
            )),
        }
    }
}

/// What becomes of the file of a guest that left the roster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DepartedFiles {
    /// It stays.
    #[default]
    Keep,
    /// It is removed.
    Remove,
}

/// `keep` or `remove`, as `--sbom-departed` takes it.
impl FromStr for DepartedFiles {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "keep" => Ok(Self::Keep),
            "remove" => Ok(Self::Remove),
            _ => Err(format!("{text:?} is not keep or remove")),
        }
    }
}

/// What sinks need beside their address.
#[derive(Clone, Debug, Default)]
pub struct SinkOptions {
    /// File with the bearer token; for NATS, with a token, a password, a seed or credentials; for
    /// Dependency-Track, with the API key.
    pub token_file: Option<PathBuf>,
    /// PEM file with the only roots to trust.
    pub ca_file: Option<PathBuf>,
    /// Dependency-Track: name of a guest's project; `{vm}` unless it is given.
    pub project: Option<Template>,
    /// Dependency-Track: version of the project; `{os}` unless it is given.
    pub version: Option<Template>,
    /// Dependency-Track: tags of the project.
    pub tags: Vec<String>,
    /// Dependency-Track: the project above it.
    pub parent: Option<ParentProject>,
    /// Bills of materials in a directory: what becomes of those of guests that left.
    pub departed: DepartedFiles,
    /// NATS: where events go, if anywhere.
    pub events: Option<EventOptions>,
    /// A file in which the sink may remember something; its own, and none of another sink.
    pub memory: Option<PathBuf>,
}

/// Opens the sink of an address.
///
/// # Errors
/// The file or directory cannot be opened, with its path, or options cannot be. Other kinds connect when they first deliver.
pub fn open(address: &SinkAddress, options: &SinkOptions) -> Result<Arc<dyn Sink>, String> {
    Ok(match address {
        SinkAddress::File { path, events } => {
            let memory = options.memory.as_deref();
            if !events {
                since::forget(memory);
            }
            let since = events.then(|| since::since(memory, &address.to_string()));
            let opened = FileSink::open(path, since);
            let sink = opened.map_err(|error| format!("{}: {error}", path.display()))?;
            Arc::new(OnThreads(Arc::new(sink)))
        }
        SinkAddress::Http(base) => {
            since::forget(options.memory.as_deref());
            let client = client(HttpSink::DEADLINE, options);
            let sink = HttpSink::new(base, client, options.token_file.clone());
            Arc::new(OnThreads(Arc::new(sink)))
        }
        SinkAddress::Nats(address) => {
            Arc::new(OnThreads(Arc::new(NatsSink::new(address, options))))
        }
        SinkAddress::DependencyTrack(base) => {
            let client = client(DependencyTrackSink::DEADLINE, options);
            let (name, version) = (options.project.as_ref(), options.version.as_ref());
            let project = Project::new(name, version, &options.tags, options.parent.as_ref())?;
            let (key_file, memory) = (options.token_file.clone(), options.memory.as_deref());
            let sink = DependencyTrackSink::new(base, client, key_file, project, memory);
            Arc::new(OnThreads(Arc::new(sink)))
        }
        SinkAddress::Sbom(directory) => {
            let opened = SbomSink::open(directory);
            let sink = opened.map_err(|error| format!("{}: {error}", directory.display()))?;
            let sink = sink.with_memory(options.memory.as_deref(), options.departed);
            Arc::new(OnThreads(Arc::new(sink)))
        }
    })
}

/// Limits and trust of a sink over HTTP.
fn client(deadline: Duration, options: &SinkOptions) -> http::HttpOptions {
    http::HttpOptions {
        deadline,
        body_cap: HttpSink::MAX_ANSWER,
        ca_file: options.ca_file.clone(),
        ..http::HttpOptions::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_survive_text_and_others_are_refused_with_the_forms_allowed() {
        for text in [
            "file:/a b",
            "file:/a b?events=on",
            "http://c:1/base",
            "https://c",
            "nats://c:4222?stream=R",
            "sbom:/a b",
            "dependency-track+https://dt.example/base",
            "dependency-track+http://dt:8081",
        ] {
            assert_eq!(text.parse::<SinkAddress>().unwrap().to_string(), text);
        }
        for (text, said) in [
            ("https://u:secret@c", "--token-file"),
            ("https://c/?x=1", "query"),
            ("https://c/#x", "fragment"),
            ("dependency-track+https://u:secret@c", "--token-file"),
            ("dependency-track+https://c/?x=1", "query"),
            ("http://a b", "no host"),
            ("http:///x", "no host"),
            ("file:/a?b", "events=on"),
            ("file:/a?events=yes", "events=on"),
            ("file:?events=on", "events=on"),
            ("nats://c:4222?stream=R&x=1", "x=1"),
            ("nats://c:4222?stream=R#x", "R#x"),
            ("nats://a b?stream=R", "no host"),
            ("nats://..?stream=R", "no host"),
        ] {
            let error = text.parse::<SinkAddress>().unwrap_err();
            assert!(
                error.contains(said) && !error.contains("secret"),
                "{text}: {error}"
            );
        }
        for text in [
            "",
            "file:",
            "sbom:",
            "http:",
            "https://",
            "ftp://x",
            "/path",
            "dependency-track+ftp://x",
            "dependency-track+https://",
            "dependency-track:x",
        ] {
            let error = text.parse::<SinkAddress>().unwrap_err();
            assert!(error.contains("file:PATH"), "{error}");
        }
    }
}
