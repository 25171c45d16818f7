//! The loop that reads: it blocks, on a thread of its own.
//!
//! ```text
//! make ready ── pull what is there, else wait for the next ── store ── acknowledge ──┐
//!     ▲              └──────────────────────────◄────────────────────────────────────┘
//!     └── a pause, after any error
//! ```

use super::intake::{IncomingDocument, IntakeOutcome, PreparedDocument, ReportIntake};
use super::status::{LastDocument, ReaderView};
use super::{ReaderConfig, ReportsAddress};
use crate::clock::backoff::Backoff;
use crate::clock::{now, wall_now};
use crate::nats::jetstream::{self, StreamAnswer};
use crate::nats::{
    Acknowledgement, Message, NatsClient, NatsError, NatsOptions, PullConsumer, PullEnd,
    PulledMessage,
};
use crate::sense::fleet::Intake;
use crate::visible::visible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// Messages in one transaction.
const BATCH: usize = 200;

/// Messages that may wait to be acknowledged: those of some readers that were killed one after the other.
const MOST_PENDING: usize = 10 * BATCH;

/// After which a message that was not acknowledged comes again.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// How long the next message is waited for: as long does a stop take.
const WAIT: Duration = Duration::from_secs(2);

/// Longest time until there is a connection, and of an answer of the stream.
const DEADLINE: Duration = Duration::from_secs(5);

/// Before the stream is asked again.
const PAUSE: Backoff = Backoff {
    floor: Duration::from_millis(500),
    ceiling: Duration::from_secs(10),
};

/// Between two attempts to write.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// Why nothing is read.
enum Trouble {
    /// Somebody asked to stop.
    Stopped,
    /// Something is wrong, in words.
    Said(String),
}

/// The loop, and everything that it needs.
pub(super) struct FollowLoop {
    intake: ReportIntake,
    view: Arc<ReaderView>,
    client: NatsClient,
    address: ReportsAddress,
    stop: Receiver<()>,
}

/// Messages that are stored together.
#[derive(Default)]
struct Batch {
    prepared: Vec<PreparedDocument>,
    /// Where each is acknowledged, and what it was published on.
    messages: Vec<(String, String)>,
}

impl FollowLoop {
    pub(super) fn new(
        config: &ReaderConfig,
        intake: ReportIntake,
        view: Arc<ReaderView>,
        stop: Receiver<()>,
    ) -> Self {
        let options = NatsOptions {
            connect: DEADLINE,
            answer: DEADLINE,
            secret_file: config.token_file.clone(),
            ca_file: config.ca_file.clone(),
        };
        Self {
            intake,
            view,
            client: NatsClient::new(config.address.nats.clone(), options),
            address: config.address.clone(),
            stop,
        }
    }

    /// Reads until told to stop.
    pub(super) fn run(mut self) {
        let mut failures = 0;
        loop {
            match self.read(&mut failures) {
                Err(Trouble::Stopped) => return,
                Err(Trouble::Said(said)) => {
                    failures += 1;
                    if self.view.note_trouble(&said) {
                        tracing::warn!(from = %self.address, said = %visible(&said), "no reports are read");
                    }
                }
                Ok(never) => match never {},
            }
            let pause = PAUSE.half_jitter(failures, fastrand::f64());
            if self.pause(pause).is_err() {
                return;
            }
        }
    }

    /// Waits, unless told to stop.
    fn pause(&self, time: Duration) -> Result<(), Trouble> {
        match self.stop.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Trouble::Stopped),
        }
    }

    /// Reads until something fails.
    fn read(&mut self, failures: &mut u32) -> Result<std::convert::Infallible, Trouble> {
        let name = self.name()?;
        self.view.note_consumer(&name);
        if self.address.nats.create {
            self.make_ready(&name)?;
        }
        let stream = &self.address.nats.stream;
        let mut consumer = PullConsumer::new(&self.client, stream, &name);
        let mut wait = None;
        loop {
            self.pause(Duration::ZERO)?;
            let mut batch = Batch::default();
            let most = if wait.is_some() { 1 } else { BATCH };
            let end = consumer.pull(most, wait, &mut |message| self.prepare(&mut batch, message));
            // Also what came before an error counts.
            let acknowledgements = self.store(&batch)?;
            if !acknowledgements.is_empty() {
                let replies = batch.messages.iter().map(|(reply, _)| reply.as_str());
                let all = replies.zip(acknowledgements);
                consumer
                    .acknowledge(all)
                    .map_err(|error| self.meaning(&error))?;
            }
            match end.map_err(|error| self.meaning(&error))? {
                PullEnd::Ended(said) => {
                    let said = format!("the server ended the consumer {name}: {said}");
                    return Err(Trouble::Said(said));
                }
                PullEnd::Full | PullEnd::NoMore => {}
            }
            *failures = 0;
            if self.view.note_reading() {
                tracing::info!(from = %self.address, consumer = name, "reading reports");
            }
            let pending = batch.messages.last();
            let pending = pending.and_then(|(reply, _)| jetstream::pending_of(reply));
            match (pending, batch.messages.is_empty()) {
                (Some(lag), _) => self.view.note_lag(lag),
                (None, true) => self.view.note_lag(0),
                (None, false) => {}
            }
            wait = batch.messages.is_empty().then_some(WAIT);
        }
    }

    /// The name of the consumer.
    fn name(&mut self) -> Result<String, Trouble> {
        if let Some(name) = &self.address.consumer {
            return Ok(name.clone());
        }
        let number = self.intake.number();
        let number = number.map_err(|error| Trouble::Said(error.to_string()))?;
        Ok(format!("afferent-{number:016x}"))
    }

    fn prepare(&self, batch: &mut Batch, message: PulledMessage<'_>) {
        let incoming = IncomingDocument {
            subject: message.subject,
            is_gzip: message.header("Content-Encoding") == Some("gzip"),
            payload: message.payload,
        };
        batch
            .prepared
            .push(self.intake.prepare(&incoming, wall_now()));
        let places = (message.reply.to_owned(), message.subject.to_owned());
        batch.messages.push(places);
    }

    /// Stores a batch, however long the disk refuses it; gives what the stream is told of each message.
    fn store(&self, batch: &Batch) -> Result<Vec<Acknowledgement>, Trouble> {
        let outcomes = loop {
            let error = match self.intake.store(&batch.prepared) {
                Ok(outcomes) => break outcomes,
                Err(error) => error,
            };
            let said = format!("reports cannot be kept: {error}");
            if error.is_corrupt() {
                // What was read is of the file before, and comes again.
                if self.intake.recover(error).is_ok() {
                    self.view.moved_aside.inc();
                }
                return Err(Trouble::Said(said));
            }
            if self.view.note_trouble(&said) {
                tracing::error!("{said}");
            }
            self.pause(STORE_PAUSE)?;
        };
        let documents = outcomes.iter().zip(&batch.prepared).zip(&batch.messages);
        let told = documents.map(|((outcome, prepared), (_, subject))| {
            self.view.documents.inc(outcome.label());
            match (outcome, prepared) {
                (IntakeOutcome::Judged(Intake::Taken), PreparedDocument::Guest(vm, document)) => {
                    self.view.note_last(LastDocument {
                        vm: vm.as_str().to_owned(),
                        seen_at: document.seen_at(),
                        at: wall_now(),
                    });
                }
                (IntakeOutcome::Bad(why), _) => {
                    let (subject, why) = (visible(subject), visible(why));
                    tracing::warn!(%subject, %why, "a message of the stream is no document: left out for good");
                    return Acknowledgement::Refused;
                }
                _ => {}
            }
            Acknowledgement::Taken
        });
        Ok(told.collect())
    }

    /// Finds the consumer, or makes it.
    fn make_ready(&self, name: &str) -> Result<(), Trouble> {
        let stream = &self.address.nats.stream;
        let found = self.ask(&jetstream::consumer_info_subject(stream, name), b"")?;
        let error = match found.error {
            None => return Ok(()),
            Some(error) if error.is_no_consumer() => None,
            error => error,
        };
        let error = match error {
            Some(error) => Some(error),
            None => {
                let request = jetstream::consumer_request(stream, name, ACK_WAIT, MOST_PENDING);
                let subject = jetstream::consumer_create_subject(stream, name);
                let made = self.ask(&subject, &request)?;
                made.error
            }
        };
        match error {
            None => {
                tracing::info!(stream, consumer = name, "consumer made");
                Ok(())
            }
            Some(error) if error.is_no_stream() => Err(Trouble::Said(format!(
                "the stream {stream} is not there yet: the first sensor that delivers to it makes it"
            ))),
            Some(error) => Err(Trouble::Said(format!("stream {stream}: {error}"))),
        }
    }

    fn ask(&self, subject: &str, payload: &[u8]) -> Result<StreamAnswer, Trouble> {
        let message = Message {
            subject,
            headers: &[],
            payload,
        };
        let answer = match self.client.request(&message, now() + DEADLINE) {
            Ok(answer) => answer,
            Err(NatsError::Forbidden(said)) => {
                return Err(Trouble::Said(format!(
                    "{said}; to read by a consumer that somebody else makes, add create=no&consumer=NAME to the address"
                )));
            }
            Err(NatsError::NoResponders(said)) => {
                return Err(Trouble::Said(format!(
                    "the NATS server has no JetStream for us (nobody listens on {said}): start it with -js, or enable it for the account"
                )));
            }
            Err(error) => return Err(Trouble::Said(error.to_string())),
        };
        StreamAnswer::parse(&answer).map_err(Trouble::Said)
    }

    /// What it means that nothing was pulled.
    fn meaning(&self, error: &NatsError) -> Trouble {
        let stream = &self.address.nats.stream;
        let consumer = self.address.consumer.as_ref();
        let consumer = consumer.filter(|_| !self.address.nats.create);
        Trouble::Said(match (error, consumer) {
            // Nobody answers for a consumer that is not there, or the server says so.
            (NatsError::NoResponders(_) | NatsError::Deadline(_), Some(name)) => format!(
                "{error}: has the stream {stream} a consumer {name}? Make it, or leave create=no out"
            ),
            _ => error.to_string(),
        })
    }
}
