//! Where reports go: one trait, one file per kind.

use super::outcome::Outcome;
use super::sink_file::FileSink;
use super::sink_http::HttpSink;
use super::sink_nats::NatsSink;
use crate::{http, nats};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a delivery brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A report, whole or as the short line of a sink that has it already.
    Report,
    /// Facts that changed after the report.
    Facts,
}

/// A report ready to be sent.
pub struct Delivery {
    /// What is in the body.
    pub kind: Kind,
    /// See [`crate::report::Envelope::idempotency_key`]: one key never stands for two contents.
    pub idempotency_key: String,
    /// Names this document for a server that drops what it had within the last hour: the key, and where
    /// the same content may have been sent before something else also the document's time. A retry has
    /// the same.
    pub message_id: String,
    /// The guest.
    pub vm: String,
    /// The JSON object, without a newline at its end.
    pub body: Vec<u8>,
}

/// Takes reports. Blocks until the report is durable there, or is not.
pub trait Sink: Send + Sync {
    /// Delivers one document.
    fn deliver(&self, delivery: &Delivery) -> Outcome;

    /// Whether it keeps every document, so that a report that it has already is a short line.
    fn shortens_unchanged(&self) -> bool {
        false
    }
}

/// Where to, as it is written: `file:PATH`, `http(s)://...`, `nats://...?stream=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkAddress {
    /// Lines of JSON, appended.
    File(PathBuf),
    /// Central's base URL, without a slash at its end.
    Http(String),
    /// A stream of JetStream.
    Nats(nats::Address),
}

impl FromStr for SinkAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("file", path)) if path.contains('?') => Err(format!(
                "{text:?} has settings behind a ?, and file: has none"
            )),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("http" | "https", rest)) if rest.len() > 2 && rest.starts_with("//") => {
                http::check_base(text)?;
                Ok(Self::Http(text.trim_end_matches('/').to_owned()))
            }
            Some(("nats" | "tls", _)) => Ok(Self::Nats(text.parse()?)),
            _ => Err(format!(
                "{text:?} is no place to deliver to: file:PATH, http://HOST, https://HOST or \
                 nats://HOST?stream=NAME"
            )),
        }
    }
}

impl fmt::Display for SinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Http(base) => f.write_str(base),
            Self::Nats(address) => address.fmt(f),
        }
    }
}

/// What sinks need beside their address.
#[derive(Clone, Debug, Default)]
pub struct SinkOptions {
    /// File with the bearer token; for NATS, with a token, a password, a seed or credentials.
    pub token_file: Option<PathBuf>,
    /// PEM file with the only roots to trust.
    pub ca_file: Option<PathBuf>,
}

/// Makes the sink ready, or says what is wrong with it.
pub fn open(address: &SinkAddress, options: &SinkOptions) -> Result<Box<dyn Sink>, String> {
    Ok(match address {
        SinkAddress::File(path) => {
            Box::new(FileSink::open(path).map_err(|error| format!("{}: {error}", path.display()))?)
        }
        SinkAddress::Http(base) => Box::new(HttpSink::new(
            base,
            http::Options {
                deadline: HttpSink::DEADLINE,
                body_cap: HttpSink::MAX_ANSWER,
                ca_file: options.ca_file.clone(),
                ..http::Options::default()
            },
            options.token_file.clone(),
        )),
        SinkAddress::Nats(address) => Box::new(NatsSink::new(address, options)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_survive_text_and_others_are_refused_with_the_forms_allowed() {
        for text in [
            "file:/a b",
            "http://c:1/base",
            "https://c",
            "nats://c:4222?stream=R",
        ] {
            assert_eq!(text.parse::<SinkAddress>().unwrap().to_string(), text);
        }
        for (text, said) in [
            ("https://u:secret@c", "--token-file"),
            ("https://c/?x=1", "query"),
            ("https://c/#x", "fragment"),
            ("http://a b", "no host"),
            ("http:///x", "no host"),
            ("file:/a?b", "settings"),
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
        for text in ["", "file:", "http:", "https://", "ftp://x", "/path"] {
            let error = text.parse::<SinkAddress>().unwrap_err();
            assert!(error.contains("file:PATH"), "{error}");
        }
    }
}
