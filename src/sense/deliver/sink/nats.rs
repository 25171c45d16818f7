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

use super::nats_events::EventStream;
use super::nats_stream::{Published, SinkStream, StreamMessage};
use super::subject::word;
use super::{BlockingSink, Delivery, DocumentForm, DocumentKind, SinkOptions, since};
use crate::clock::{self, WallTime};
use crate::nats::jetstream::Kept;
use crate::nats::{NatsAddress, NatsClient, NatsOptions};
use crate::sense::deliver::outcome::Outcome;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time of one delivery, without its events.
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

/// A stream of JetStream.
pub(super) struct NatsSink {
    stream: SinkStream,
    /// It takes bills of materials, and no reports.
    cyclonedx: bool,
    events: Option<EventStream>,
}

impl NatsSink {
    /// Delivers into the stream. Nothing is asked of a server before the first report.
    pub(super) fn new(address: &NatsAddress, options: &SinkOptions) -> Self {
        let nats_options = NatsOptions {
            connect: CONNECT,
            answer: ANSWER,
            secret_file: options.token_file.clone(),
            ca_file: options.ca_file.clone(),
        };
        let client = Arc::new(NatsClient::new(address.clone(), nats_options));
        let subjects = match address.cyclonedx {
            true => (BOMS, None),
            false => (REPORTS, Some(FACTS)),
        };
        let (place, kept) = ((address.create, address.replicas), Kept::NewestOfSubject);
        let memory = options.memory.as_deref();
        let events = options.events.as_ref();
        if events.is_none() {
            since::forget(memory);
        }
        Self {
            stream: SinkStream::new(&client, &address.stream, place, kept, subjects),
            cyclonedx: address.cyclonedx,
            events: events.map(|options| EventStream::new(&client, address, options, memory)),
        }
    }

    /// What stands before the guest in the subjects of whole documents.
    fn whole(&self) -> &'static str {
        match self.cyclonedx {
            true => BOMS,
            false => REPORTS,
        }
    }

    fn attempt(&self, delivery: &Delivery, until: Instant) -> Result<Outcome, Outcome> {
        let events = self.events.as_ref();
        let events = events.filter(|_| !delivery.events.is_empty());
        if let Some(events) = events {
            events.be_ready(until)?;
        }
        self.stream.be_ready(until)?;
        match delivery.kind {
            DocumentKind::Report => self.attempt_report(delivery, until)?,
            DocumentKind::Facts => self.attempt_facts(delivery, until)?,
        }
        if let Some(events) = events {
            events.publish(&delivery.vm, &delivery.events)?;
        }
        Ok(Outcome::Accepted)
    }

    fn attempt_report(&self, delivery: &Delivery, until: Instant) -> Result<(), Outcome> {
        // A stream may hold the report of this key, too.
        let (what, id, content_type) = match self.cyclonedx {
            true => (
                "a bill of materials",
                &*format!("{}/sbom", delivery.message_id),
                CYCLONEDX,
            ),
            false => ("a report", delivery.message_id.as_str(), "application/json"),
        };
        let message = StreamMessage {
            what,
            subject: &format!("{}.{}", self.whole(), word(&delivery.vm)),
            id,
            content_type,
            body: &delivery.body,
        };
        self.stream.publish_again(&message, until)
    }

    /// The same for facts alone, whose subject is younger than many a stream.
    fn attempt_facts(&self, delivery: &Delivery, until: Instant) -> Result<(), Outcome> {
        let stream = &self.stream;
        if !stream.takes_wished() {
            // Somebody may have added the subject.
            stream.make_ready(until)?;
        }
        if !stream.takes_wished() {
            let name = stream.name();
            return Err(Outcome::Skipped(format!(
                "stream {name} does not take {FACTS}.>: add it to its subjects"
            )));
        }
        let message = StreamMessage {
            what: "a document of facts",
            subject: &format!("{FACTS}.{}", word(&delivery.vm)),
            id: &delivery.message_id,
            content_type: "application/json",
            body: &delivery.body,
        };
        match stream.publish(&message, until) {
            Ok(Published::Accepted) => Ok(()),
            // Reports have a subject of their own.
            Ok(Published::NoStream(said)) | Err(Outcome::Forbidden(said)) => {
                Err(Outcome::Skipped(said))
            }
            Err(outcome) => Err(outcome),
        }
    }
}

impl BlockingSink for NatsSink {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        if self.cyclonedx && delivery.kind == DocumentKind::Facts {
            return Outcome::Accepted;
        }
        let until = clock::now() + DEADLINE;
        self.attempt(delivery, until)
            .unwrap_or_else(|outcome| outcome)
    }

    fn form(&self) -> DocumentForm {
        match self.cyclonedx {
            true => DocumentForm::CycloneDx,
            false => DocumentForm::Report,
        }
    }

    fn events_since(&self) -> Option<WallTime> {
        self.events.as_ref().map(EventStream::since)
    }
}
