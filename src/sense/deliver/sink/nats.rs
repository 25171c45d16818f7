//! `nats://`: one message per document into a stream of JetStream.
//!
//! | | |
//! |---|---|
//! | subject | `afferent.reports.<vm id>` or `afferent.facts.<vm id>`, with `format=cyclonedx` only `afferent.sbom.<vm id>`; the id is one word: see [`word`] |
//! | `Nats-Msg-Id` | the idempotency key, see [`crate::report::Envelope::idempotency_key`]; for facts, and for a report whose content was sent before, with `/` and `seen_at` in milliseconds behind it; for a bill of materials with `/sbom` at its end |
//! | `Content-Encoding` | `gzip`, where the report is long; else there is none |
//!
//! - A report is one message and always whole, so that the newest message of a subject is all that a
//!   consumer needs. One that does not fit even when compressed is refused for good, with the name
//!   of the setting to raise.
//! - Only an ack of the very stream is acceptance; "had it already" is one as well.
//! - Facts alone have a subject of their own, since a stream may keep one message per subject. Where an
//!   older stream does not cover it, or we may not publish to it, they are skipped: reports bring them
//!   too.
//! - Facts are in no bill of materials: with `format=cyclonedx` they count as accepted.
//! - The stream is made when it is missing, unless the address says `create=no`. Then nothing but
//!   publishing needs to be allowed.

use super::gzip::{COMPRESS_FROM, gzip};
use super::{BlockingSink, Delivery, DocumentForm, DocumentKind, SinkOptions};
use crate::clock;
use crate::nats::jetstream::{self, ApiError, StreamAnswer};
use crate::nats::{Message, NatsAddress, NatsClient, NatsError, NatsOptions};
use crate::sense::deliver::outcome::Outcome;
use flate2::Compression;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Longest time of one delivery.
const DEADLINE: Duration = Duration::from_secs(30);

/// Longest time until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Longest time from a message to the answer of its stream: published again, it is known by its id.
const ANSWER: Duration = Duration::from_secs(5);

/// What stands before the guest in every subject.
pub(crate) const REPORTS: &str = "afferent.reports";

/// The same for facts alone.
pub(crate) const FACTS: &str = "afferent.facts";

/// The same for bills of materials.
const BOMS: &str = "afferent.sbom";

/// Their media type.
const CYCLONEDX: &str = "application/vnd.cyclonedx+json; version=1.6";

/// How hard to compress: not at all, then what costs little, then all that can be done.
const LEVELS: [Option<u32>; 3] = [None, Some(1), Some(9)];

/// A stream of JetStream.
pub(super) struct NatsSink {
    client: NatsClient,
    address: NatsAddress,
    /// Whether the stream is there, as far as we know.
    is_ready: AtomicBool,
    /// Whether it covers the subject of facts, as far as we know.
    takes_facts: AtomicBool,
}

/// What became of a message.
enum Published {
    Answered(Outcome),
    /// No stream took it, or another one would have: whatever was known of ours is so no more.
    NoStream(String),
}

impl NatsSink {
    /// Delivers into the stream. Nothing is asked of a server before the first report.
    pub(super) fn new(address: &NatsAddress, options: &SinkOptions) -> Self {
        let options = NatsOptions {
            connect: CONNECT,
            answer: ANSWER,
            secret_file: options.token_file.clone(),
            ca_file: options.ca_file.clone(),
        };
        Self {
            client: NatsClient::new(address.clone(), options),
            address: address.clone(),
            is_ready: AtomicBool::new(!address.create),
            takes_facts: AtomicBool::new(true),
        }
    }

    /// What stands before the guest in the subjects of whole documents.
    fn whole(&self) -> &'static str {
        match self.address.cyclonedx {
            true => BOMS,
            false => REPORTS,
        }
    }

    fn attempt(&self, delivery: &Delivery, until: Instant) -> Result<Outcome, Outcome> {
        if !self.is_ready.load(Relaxed) {
            self.make_ready(until)?;
        }
        if delivery.kind == DocumentKind::Facts {
            return self.attempt_facts(delivery, until);
        }
        if let Published::Answered(outcome) = self.publish(delivery, until)? {
            return Ok(outcome);
        }
        // The stream may be gone, and its return take no more than this.
        self.is_ready.store(!self.address.create, Relaxed);
        self.make_ready(until)?;
        match self.publish(delivery, until)? {
            Published::Answered(outcome) => Ok(outcome),
            Published::NoStream(said) => Err(Outcome::Unreachable(said)),
        }
    }

    /// The same for facts alone, whose subject is younger than many a stream.
    fn attempt_facts(&self, delivery: &Delivery, until: Instant) -> Result<Outcome, Outcome> {
        let stream = &self.address.stream;
        if !self.takes_facts.load(Relaxed) {
            // Somebody may have added the subject.
            self.make_ready(until)?;
        }
        if !self.takes_facts.load(Relaxed) {
            return Err(Outcome::Skipped(format!(
                "stream {stream} does not take {FACTS}.>: add it to its subjects"
            )));
        }
        match self.publish(delivery, until) {
            Ok(Published::Answered(outcome)) => Ok(outcome),
            Ok(Published::NoStream(said)) => Err(Outcome::Skipped(said)),
            Err(outcome) => Err(outcome),
        }
    }

    /// Finds the stream, or makes it.
    fn make_ready(&self, until: Instant) -> Result<(), Outcome> {
        let stream = &self.address.stream;
        let ours = |said: String| Outcome::Unauthorized(format!("stream {stream}: {said}"));
        let found = match self.ask(&jetstream::info_subject(stream), b"", until) {
            Err(NatsError::Forbidden(said)) => {
                return Err(ours(match self.address.create {
                    true => format!(
                        "{said}; to deliver without looking for it, add create=no to the address"
                    ),
                    false => format!("does not answer, and we may not ask why: {said}"),
                }));
            }
            found => found.map_err(|error| self.meaning(&error))?,
        };
        match (found.subjects, found.error) {
            (Some(subjects), _)
                if !jetstream::covers(&subjects, &format!("{}.*", self.whole())) =>
            {
                let (takes, whole) = (subjects.join(", "), self.whole());
                return Err(ours(format!("takes {takes}, but not {whole}.>")));
            }
            (Some(subjects), _) => {
                let takes_facts = jetstream::covers(&subjects, &format!("{FACTS}.*"));
                self.takes_facts.store(takes_facts, Relaxed);
            }
            (None, Some(error)) if !error.is_no_stream() => return Err(self.refusal(&error)),
            (None, _) if !self.address.create => {
                let subjects = self.subjects().join(" and ");
                return Err(ours(format!(
                    "is not there: make it, with {subjects} as its subjects, or leave create=no out"
                )));
            }
            (None, _) => self.create(until)?,
        }
        self.is_ready.store(true, Relaxed);
        Ok(())
    }

    /// What a stream of ours takes.
    fn subjects(&self) -> Vec<String> {
        let facts = (!self.address.cyclonedx).then_some(FACTS);
        let subjects = std::iter::once(self.whole()).chain(facts);
        subjects.map(|subject| format!("{subject}.>")).collect()
    }

    fn create(&self, until: Instant) -> Result<(), Outcome> {
        let stream = &self.address.stream;
        let subject = jetstream::create_subject(stream);
        let request = jetstream::create_request(&self.address, &self.subjects());
        let said = match self.ask(&subject, &request, until) {
            Err(NatsError::Forbidden(said)) => said,
            Err(error) => return Err(self.meaning(&error)),
            Ok(answer) => match answer.error {
                None => {
                    tracing::info!(%stream, "stream made");
                    self.takes_facts.store(true, Relaxed);
                    return Ok(());
                }
                Some(error) if error.is_busy() => return Err(self.refusal(&error)),
                Some(error) => error.to_string(),
            },
        };
        Err(Outcome::Unauthorized(format!(
            "stream {stream} is not there, and we may not make it: {said}"
        )))
    }

    fn publish(&self, delivery: &Delivery, until: Instant) -> Result<Published, Outcome> {
        let prefix = match delivery.kind {
            DocumentKind::Report => self.whole(),
            DocumentKind::Facts => FACTS,
        };
        let subject = format!("{prefix}.{}", word(&delivery.vm));
        // A stream may hold the report of this key, too.
        let (message_id, content_type) = match self.address.cyclonedx {
            true => (&*format!("{}/sbom", delivery.message_id), CYCLONEDX),
            false => (delivery.message_id.as_str(), "application/json"),
        };
        let mut too_long = String::new();
        for level in LEVELS {
            if level.is_none() && delivery.body.len() >= COMPRESS_FROM {
                continue;
            }
            let packed = level.map(|level| gzip(&delivery.body, Compression::new(level)));
            let mut headers = vec![
                ("Nats-Msg-Id", message_id),
                ("Nats-Expected-Stream", &self.address.stream),
                ("Content-Type", content_type),
            ];
            headers.extend(packed.is_some().then_some(("Content-Encoding", "gzip")));
            let message = Message {
                subject: &subject,
                headers: &headers,
                payload: packed.as_ref().unwrap_or(&delivery.body),
            };
            let answer = match self.client.request(&message, until) {
                Ok(payload) => StreamAnswer::parse(&payload).map_err(Outcome::Failed)?,
                Err(NatsError::TooLong { bytes, max }) => {
                    too_long = format!(
                        "{bytes} bytes compressed, and the NATS server takes {max} at most: raise \
                         its max_payload"
                    );
                    continue;
                }
                // Reports have a subject of their own.
                Err(NatsError::Forbidden(said)) if delivery.kind == DocumentKind::Facts => {
                    return Err(Outcome::Skipped(said));
                }
                // Of this guest's subject, perhaps of others, too.
                Err(NatsError::Forbidden(said)) => return Err(Outcome::Forbidden(said)),
                Err(error @ NatsError::NoResponders(_)) => {
                    return Ok(Published::NoStream(format!("no stream answers: {error}")));
                }
                Err(error) => return Err(self.meaning(&error)),
            };
            match answer.error {
                None if answer.seq.is_some() => return Ok(Published::Answered(Outcome::Accepted)),
                None => return Err(Outcome::Failed("what answers is no stream".into())),
                Some(error) if error.is_too_large() => {
                    too_long = format!(
                        "{} bytes compressed, and the stream {} takes fewer ({error}): raise its \
                         max_msg_size",
                        message.payload.len(),
                        self.address.stream
                    );
                }
                Some(error) if error.is_other_stream() => {
                    return Ok(Published::NoStream(format!(
                        "another stream than {} takes {subject}: {error}",
                        self.address.stream
                    )));
                }
                Some(error) => return Err(self.refusal(&error)),
            }
        }
        let plain = delivery.body.len();
        Err(Outcome::RefusedForGood(format!(
            "a report of {plain} bytes is {too_long}"
        )))
    }

    fn ask(
        &self,
        subject: &str,
        payload: &[u8],
        until: Instant,
    ) -> Result<StreamAnswer, NatsError> {
        let message = Message {
            subject,
            headers: &[],
            payload,
        };
        let answer = self.client.request(&message, until)?;
        StreamAnswer::parse(&answer).map_err(NatsError::Broken)
    }

    /// What it means that there was no answer.
    fn meaning(&self, error: &NatsError) -> Outcome {
        let said = error.to_string();
        match error {
            NatsError::NoConnection(_) => Outcome::Unreachable(said),
            NatsError::Denied(_) | NatsError::Forbidden(_) => Outcome::Unauthorized(said),
            NatsError::NoResponders(_) => no_jetstream(&said),
            NatsError::Deadline(_) | NatsError::Broken(_) | NatsError::TooLong { .. } => {
                Outcome::Failed(said)
            }
        }
    }

    /// What it means that JetStream does not do what was asked.
    fn refusal(&self, error: &ApiError) -> Outcome {
        let said = format!("stream {}: {error}", self.address.stream);
        if error.is_disabled() {
            no_jetstream(&said)
        } else if error.is_busy() {
            Outcome::Busy {
                retry_after: None,
                said,
            }
        } else {
            Outcome::Failed(said)
        }
    }
}

impl BlockingSink for NatsSink {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        if self.address.cyclonedx && delivery.kind == DocumentKind::Facts {
            return Outcome::Accepted;
        }
        let until = clock::now() + DEADLINE;
        self.attempt(delivery, until)
            .unwrap_or_else(|outcome| outcome)
    }

    fn form(&self) -> DocumentForm {
        match self.address.cyclonedx {
            true => DocumentForm::CycloneDx,
            false => DocumentForm::Report,
        }
    }
}

fn no_jetstream(said: &str) -> Outcome {
    Outcome::Unauthorized(format!(
        "the NATS server has no JetStream for us ({said}): start it with -js, or enable it for the account"
    ))
}

/// What stands in a subject as it is: letters, digits and `-_:@+`.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b':')
    .remove(b'@')
    .remove(b'+');

/// A guest's id as one word of a subject: every other byte becomes `%` and two hex digits, as in a URL. Two
/// ids never become the same word.
pub(crate) fn word(vm: &str) -> String {
    utf8_percent_encode(vm, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_with_dots_is_one_word() {
        assert_eq!(word("web-1.example:a@b+c_d"), "web-1%2Eexample:a@b+c_d");
        assert_eq!(word("a b*>%é"), "a%20b%2A%3E%25%C3%A9");
    }

    proptest! {
        #[test]
        fn no_two_ids_share_a_subject(id: String) {
            let text = word(&id);
            prop_assert!(!text.contains(['.', '*', '>', ' ']));
            let mut bytes = Vec::new();
            let mut rest = text.as_str();
            while let Some(first) = rest.chars().next() {
                if let Some(hex) = rest.strip_prefix('%') {
                    bytes.push(u8::from_str_radix(&hex[..2], 16).unwrap());
                    rest = &hex[2..];
                } else {
                    bytes.push(u8::try_from(first).unwrap());
                    rest = &rest[1..];
                }
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), id);
        }
    }
}
