//! A stream of JetStream that a sink publishes to: found or made, and written to with its acknowledgement.

use super::gzip::{COMPRESS_FROM, gzip};
use crate::nats::jetstream::{self, ApiError, Kept, NewStream, StreamAnswer};
use crate::nats::{Message, NatsClient, NatsError};
use crate::sense::deliver::outcome::Outcome;
use flate2::Compression;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

/// How hard to compress: not at all, then what costs little, then all that can be done.
const LEVELS: [Option<u32>; 3] = [None, Some(1), Some(9)];

/// A stream.
pub(super) struct SinkStream {
    client: Arc<NatsClient>,
    name: String,
    /// Whether it is made where it is missing.
    create: bool,
    replicas: u8,
    kept: Kept,
    /// What stands before the guest in the subjects that it must take.
    needed: &'static str,
    /// The same of those that it need not take; it is made with both.
    wished: Option<&'static str>,
    /// Whether the stream is there, as far as we know.
    is_ready: AtomicBool,
    /// Whether it takes what is wished, as far as we know.
    takes_wished: AtomicBool,
}

/// How a stream came to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It was there.
    Found,
    /// It was missing, and has been made: it is empty.
    Made,
}

/// What became of a message.
pub(super) enum Published {
    /// The stream has it.
    Accepted,
    /// No stream took it, or another one would have: whatever was known of ours is so no more.
    NoStream(String),
}

/// A message about a guest.
pub(super) struct StreamMessage<'a> {
    /// What it is, for people: `a report`.
    pub(super) what: &'static str,
    pub(super) subject: &'a str,
    /// The server drops a message whose id it had within the hour.
    pub(super) id: &'a str,
    pub(super) content_type: &'a str,
    pub(super) body: &'a [u8],
}

impl SinkStream {
    /// A stream by its name. Nothing is asked of a server before the first message.
    pub(super) fn new(
        client: &Arc<NatsClient>,
        name: &str,
        (create, replicas): (bool, u8),
        kept: Kept,
        (needed, wished): (&'static str, Option<&'static str>),
    ) -> Self {
        Self {
            client: client.clone(),
            name: name.to_owned(),
            create,
            replicas,
            kept,
            needed,
            wished,
            is_ready: AtomicBool::new(!create),
            takes_wished: AtomicBool::new(true),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it takes what is wished, as far as we know.
    pub(super) fn takes_wished(&self) -> bool {
        self.takes_wished.load(Relaxed)
    }

    /// Finds the stream, or makes it, unless it is known to be there.
    pub(super) fn be_ready(&self, until: Instant) -> Result<Readiness, Outcome> {
        match self.is_ready.load(Relaxed) {
            true => Ok(Readiness::Found),
            false => self.make_ready(until),
        }
    }

    /// The same, whatever is known of it.
    pub(super) fn make_ready(&self, until: Instant) -> Result<Readiness, Outcome> {
        let stream = &self.name;
        let ours = |said: String| Outcome::Unauthorized(format!("stream {stream}: {said}"));
        let found = match self.ask(&jetstream::info_subject(stream), b"", until) {
            Err(NatsError::Forbidden(said)) => {
                return Err(ours(match self.create {
                    true => format!(
                        "{said}; to deliver without looking for it, add create=no to the address"
                    ),
                    false => format!("does not answer, and we may not ask why: {said}"),
                }));
            }
            found => found.map_err(|error| self.meaning(&error))?,
        };
        let mut readiness = Readiness::Found;
        match (found.subjects, found.error) {
            (Some(subjects), _) if !jetstream::covers(&subjects, &format!("{}.*", self.needed)) => {
                let (takes, needed) = (subjects.join(", "), self.needed);
                return Err(ours(format!("takes {takes}, but not {needed}.>")));
            }
            (Some(subjects), _) => {
                let takes = |wished| jetstream::covers(&subjects, &format!("{wished}.*"));
                self.takes_wished
                    .store(self.wished.is_none_or(takes), Relaxed);
            }
            (None, Some(error)) if !error.is_no_stream() => return Err(self.refusal(&error)),
            (None, _) if !self.create => {
                let subjects = self.subjects().join(" and ");
                return Err(ours(format!(
                    "is not there: make it, with {subjects} as its subjects, or leave create=no out"
                )));
            }
            (None, _) => {
                self.create(until)?;
                readiness = Readiness::Made;
            }
        }
        self.is_ready.store(true, Relaxed);
        Ok(readiness)
    }

    /// What a stream of ours takes.
    fn subjects(&self) -> Vec<String> {
        let subjects = std::iter::once(self.needed).chain(self.wished);
        subjects.map(|subject| format!("{subject}.>")).collect()
    }

    fn create(&self, until: Instant) -> Result<(), Outcome> {
        let stream = &self.name;
        let subject = jetstream::create_subject(stream);
        let request = jetstream::create_request(&NewStream {
            name: stream,
            subjects: &self.subjects(),
            replicas: self.replicas,
            kept: self.kept,
        });
        let said = match self.ask(&subject, &request, until) {
            Err(NatsError::Forbidden(said)) => said,
            Err(error) => return Err(self.meaning(&error)),
            Ok(answer) => match answer.error {
                None => {
                    tracing::info!(%stream, "stream made");
                    self.takes_wished.store(true, Relaxed);
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

    /// Publishes a message, and again where the stream was gone meanwhile and is there again.
    pub(super) fn publish_again(
        &self,
        message: &StreamMessage<'_>,
        until: Instant,
    ) -> Result<(), Outcome> {
        if let Published::Accepted = self.publish(message, until)? {
            return Ok(());
        }
        // The stream may be gone, and its return take no more than this.
        self.is_ready.store(!self.create, Relaxed);
        self.make_ready(until)?;
        match self.publish(message, until)? {
            Published::Accepted => Ok(()),
            Published::NoStream(said) => Err(Outcome::Unreachable(said)),
        }
    }

    /// Publishes a message, compressed where it is long.
    pub(super) fn publish(
        &self,
        message: &StreamMessage<'_>,
        until: Instant,
    ) -> Result<Published, Outcome> {
        let (subject, body) = (message.subject, message.body);
        let mut too_long = String::new();
        for level in LEVELS {
            if level.is_none() && body.len() >= COMPRESS_FROM {
                continue;
            }
            let packed = level.map(|level| gzip(body, Compression::new(level)));
            let mut headers = vec![
                ("Nats-Msg-Id", message.id),
                ("Nats-Expected-Stream", &self.name),
                ("Content-Type", message.content_type),
            ];
            headers.extend(packed.is_some().then_some(("Content-Encoding", "gzip")));
            let sent = Message {
                subject,
                headers: &headers,
                payload: packed.as_deref().unwrap_or(body),
            };
            let answer = match self.client.request(&sent, until) {
                Ok(payload) => StreamAnswer::parse(&payload).map_err(Outcome::Failed)?,
                Err(NatsError::TooLong { bytes, max }) => {
                    too_long = format!(
                        "{bytes} bytes compressed, and the NATS server takes {max} at most: raise \
                         its max_payload"
                    );
                    continue;
                }
                // Of this guest's subject, perhaps of others, too.
                Err(NatsError::Forbidden(said)) => return Err(Outcome::Forbidden(said)),
                Err(error @ NatsError::NoResponders(_)) => {
                    return Ok(Published::NoStream(format!("no stream answers: {error}")));
                }
                Err(error) => return Err(self.meaning(&error)),
            };
            match answer.error {
                None if answer.seq.is_some() => return Ok(Published::Accepted),
                None => return Err(Outcome::Failed("what answers is no stream".into())),
                Some(error) if error.is_too_large() => {
                    too_long = format!(
                        "{} bytes compressed, and the stream {} takes fewer ({error}): raise its \
                         max_msg_size",
                        sent.payload.len(),
                        self.name
                    );
                }
                Some(error) if error.is_other_stream() => {
                    return Ok(Published::NoStream(format!(
                        "another stream than {} takes {subject}: {error}",
                        self.name
                    )));
                }
                Some(error) => return Err(self.refusal(&error)),
            }
        }
        let (what, plain) = (message.what, body.len());
        Err(Outcome::RefusedForGood(format!(
            "{what} of {plain} bytes is {too_long}"
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
        let said = format!("stream {}: {error}", self.name);
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

fn no_jetstream(said: &str) -> Outcome {
    Outcome::Unauthorized(format!(
        "the NATS server has no JetStream for us ({said}): start it with -js, or enable it for the account"
    ))
}
