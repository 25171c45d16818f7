//! JetStream: what is asked of it and what it answers, in JSON.

use crate::visible::Foreign;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// How long the server knows that it has had a message: longer than the longest backoff between two
/// attempts to deliver it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(3600);

/// Error code: there is no such stream.
const NO_STREAM: u64 = 10059;
/// Error code: there is no such consumer.
const NO_CONSUMER: u64 = 10014;
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

    /// Whether there is no such consumer.
    pub fn is_no_consumer(&self) -> bool {
        self.err_code == NO_CONSUMER
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

/// Which messages a stream keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The newest of every subject, for ever.
    NewestOfSubject,
    /// All, for a time.
    For(Duration),
}

/// A stream to be made, on disk.
#[derive(Clone, Copy, Debug)]
pub struct NewStream<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it takes.
    pub subjects: &'a [String],
    /// Copies of it.
    pub replicas: u8,
    /// What it keeps.
    pub kept: Kept,
}

/// What makes the stream.
pub fn create_request(stream: &NewStream<'_>) -> Vec<u8> {
    let (of_subject, max_age) = match stream.kept {
        Kept::NewestOfSubject => (1, Duration::ZERO),
        Kept::For(age) => (-1, age),
    };
    json!({
        "name": stream.name,
        "subjects": stream.subjects,
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": of_subject,
        "max_age": nanos(max_age),
        "num_replicas": stream.replicas,
        "duplicate_window": nanos(DUPLICATE_WINDOW),
        "allow_direct": true,
    })
    .to_string()
    .into_bytes()
}

/// Where a consumer is asked about.
pub fn consumer_info_subject(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")
}

/// Where a durable consumer is made.
pub fn consumer_create_subject(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}")
}

/// Where messages of a consumer are asked for.
pub fn next_subject(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
}

/// What makes a durable consumer of all messages: one that was not acknowledged within `ack_wait` comes again.
pub fn consumer_request(
    stream: &str,
    consumer: &str,
    ack_wait: Duration,
    most_pending: usize,
) -> Vec<u8> {
    json!({
        "stream_name": stream,
        "config": {
            "durable_name": consumer,
            "description": "afferent sense --reports-from",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "replay_policy": "instant",
            "ack_wait": nanos(ack_wait),
            "max_deliver": -1,
            "max_ack_pending": most_pending,
        }
    })
    .to_string()
    .into_bytes()
}

/// Asks for messages that are there; with `wait` for the first that comes until then.
pub fn next_request(most: usize, wait: Option<Duration>) -> String {
    match wait {
        None => json!({ "batch": most, "no_wait": true }),
        Some(wait) => json!({ "batch": most, "expires": nanos(wait) }),
    }
    .to_string()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Begins the subject at which a message of a consumer is acknowledged.
const ACK: &str = "$JS.ACK.";

/// Whether a message is to be acknowledged there.
pub fn is_ack_subject(reply: &str) -> bool {
    reply.starts_with(ACK)
}

/// How many messages the consumer has still to give, as the subject of an acknowledgement says:
/// `$JS.ACK.STREAM.CONSUMER.DELIVERED.SEQ.SEQ.TIME.PENDING`, in newer servers with a domain and an account
/// before the stream and one more word at the end.
pub fn pending_of(reply: &str) -> Option<u64> {
    let words: Vec<&str> = reply.split('.').collect();
    let at = match words.len() {
        9 => 8,
        11.. => 10,
        _ => return None,
    };
    words.get(at)?.parse().ok()
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
    fn an_acknowledgement_says_how_many_messages_are_left() {
        for (reply, pending) in [
            ("$JS.ACK.R.c.1.7.9.1700000000000000000.42", Some(42)),
            ("$JS.ACK._.ab.R.c.1.7.9.1700000000000000000.42", Some(42)),
            (
                "$JS.ACK.hub.ab.R.c.1.7.9.1700000000000000000.42.x",
                Some(42),
            ),
            ("$JS.ACK.R.c.1.7.9.17.many", None),
            ("$JS.ACK", None),
        ] {
            assert_eq!(pending_of(reply), pending, "{reply}");
        }
        assert!(is_ack_subject("$JS.ACK.R.c.1.7.9.17.4") && !is_ack_subject("_INBOX.a.1"));
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
