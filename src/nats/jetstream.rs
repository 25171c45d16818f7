//! JetStream: what is asked of it and what it answers, in JSON.

use super::NatsAddress;
use crate::visible::Foreign;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// How long the server knows that it has had a message: longer than the longest backoff between two
/// attempts to deliver it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// Error code: there is no such stream.
const NO_STREAM: u64 = 10059;
/// Error code: larger than the stream's `max_msg_size`.
const TOO_LARGE: u64 = 10054;
/// Error code: another stream would have taken the message.
const OTHER_STREAM: u64 = 10060;
/// Error codes: no room left, for the account, the server, its memory, its disk, the stream.
const FULL: [u64; 5] = [10002, 10023, 10028, 10047, 10077];
/// Error codes: the server, or this account, has no JetStream.
const DISABLED: [u64; 2] = [10076, 10039];

/// Any answer: what it is about decides which parts are there.
#[derive(Debug)]
pub struct StreamAnswer {
    /// Why not.
    pub error: Option<ApiError>,
    /// Place of a stored message; `None` in other answers.
    pub seq: Option<u64>,
    /// What a stream takes; `None` in other answers.
    pub subjects: Option<Vec<String>>,
}

/// Why JetStream did not do what was asked.
#[derive(Debug)]
pub struct ApiError {
    /// As in HTTP.
    code: u64,
    err_code: u64,
    description: Foreign,
}

impl StreamAnswer {
    /// Reads an answer.
    pub fn parse(payload: &[u8]) -> Result<Self, String> {
        let answer: Value = serde_json::from_slice(payload)
            .map_err(|error| format!("no answer of JetStream: {error}"))?;
        let subjects = |config: &Value| {
            let subjects = config.get("subjects").and_then(Value::as_array);
            let subjects = subjects.into_iter().flatten();
            subjects
                .filter_map(|subject| Some(subject.as_str()?.to_owned()))
                .collect()
        };
        Ok(Self {
            error: answer.get("error").map(ApiError::from),
            seq: answer.get("seq").and_then(Value::as_u64),
            subjects: answer.get("config").map(subjects),
        })
    }
}

impl From<&Value> for ApiError {
    fn from(error: &Value) -> Self {
        let number = |name| error.get(name).and_then(Value::as_u64).unwrap_or(0);
        let description = error.get("description").and_then(Value::as_str);
        Self {
            code: number("code"),
            err_code: number("err_code"),
            description: description.unwrap_or_default().into(),
        }
    }
}

impl ApiError {
    /// Whether there is no such stream.
    pub fn is_no_stream(&self) -> bool {
        self.err_code == NO_STREAM
    }

    /// Whether the message is longer than the stream takes.
    pub fn is_too_large(&self) -> bool {
        self.err_code == TOO_LARGE
    }

    /// Whether another stream than ours would have taken the message.
    pub fn is_other_stream(&self) -> bool {
        self.err_code == OTHER_STREAM
    }

    /// Whether it gets too much: every message would be refused now.
    pub fn is_busy(&self) -> bool {
        FULL.contains(&self.err_code) || matches!(self.code, 429 | 503)
    }

    /// Whether there is no JetStream to ask.
    pub fn is_disabled(&self) -> bool {
        DISABLED.contains(&self.err_code)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, err_code) = (self.code, self.err_code);
        write!(f, "{} ({code}, {err_code})", self.description)
    }
}

/// Where a stream is asked about.
pub fn info_subject(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

/// Where a stream is made.
pub fn create_subject(stream: &str) -> String {
    format!("$JS.API.STREAM.CREATE.{stream}")
}

/// What makes the stream: on disk, the newest message of every subject.
pub fn create_request(address: &NatsAddress, subjects: &[String]) -> Vec<u8> {
    json!({
        "name": address.stream,
        "subjects": subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "num_replicas": address.replicas,
        "duplicate_window": u64::try_from(DUPLICATE_WINDOW.as_nanos()).unwrap_or(u64::MAX),
        "allow_direct": true,
    })
    .to_string()
    .into_bytes()
}

/// Whether one of `patterns` takes every subject that `subject` stands for (`*`: any one word).
pub fn covers(patterns: &[String], subject: &str) -> bool {
    patterns.iter().any(|pattern| {
        let (mut words, mut rest) = (pattern.split('.'), subject.split('.'));
        loop {
            match (words.next(), rest.next()) {
                (Some(">"), Some(_)) | (None, None) => return true,
                (Some(word), Some(other)) if word == "*" || word == other => {}
                _ => return false,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_covers_what_all_of_its_subjects_do() {
        for (pattern, expected) in [
            ("afferent.reports.>", true),
            ("afferent.reports.*", true),
            ("*.reports.*", true),
            (">", true),
            ("afferent.*", false),
            ("afferent.reports", false),
            ("afferent.reports.web-1", false),
            ("afferent.reports.*.*", false),
            ("afferent.reports.*.>", false),
        ] {
            let covered = covers(&["x".into(), pattern.into()], "afferent.reports.*");
            assert_eq!(covered, expected, "{pattern}");
        }
    }

    #[test]
    fn answers_are_told_apart() {
        let stored = StreamAnswer::parse(br#"{"stream":"R","seq":3,"duplicate":true}"#).unwrap();
        assert_eq!((stored.seq, stored.error.is_none()), (Some(3), true));
        let info = StreamAnswer::parse(br#"{"type":"t","config":{"name":"R","subjects":["a.>"]}}"#);
        assert_eq!(info.unwrap().subjects.unwrap(), ["a.>"]);
        let no = br#"{"error":{"code":404,"err_code":10059,"description":"stream not\nfound"}}"#;
        let error = StreamAnswer::parse(no).unwrap().error.unwrap();
        assert!(error.is_no_stream() && !error.is_disabled());
        assert_eq!(error.to_string(), "stream not\\nfound (404, 10059)");
        assert!(StreamAnswer::parse(b"-").is_err());
    }
}
