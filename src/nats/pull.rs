//! A consumer of a stream that is pulled: messages that are there, or the next one that comes.
//!
//! ```text
//! client ► PUB ..MSG.NEXT.<stream>.<consumer> _INBOX.<ours>.<n>  {"batch":..}
//! server ► MSG <subject> 1 <where to acknowledge> ..             a message
//! server ► HMSG _INBOX.<ours>.<n> 1 ..  status 404 or 408        these were all
//! client ► PUB <where to acknowledge> ..                         +ACK, or +TERM: never again
//! ```
//!
//! What is not acknowledged comes again, on this connection or a later one. An acknowledgement may be lost, so
//! that whoever takes messages must bear to have one twice.

use super::client::NatsClient;
use super::connection::{Connection, PullRequest};
use super::protocol::encode_one_way;
use super::{NatsError, PullEnd, PulledMessage, jetstream};
use crate::clock;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Longest time from the end of a pull's wait to the word that it is over.
const GRACE: Duration = Duration::from_secs(5);

/// A durable consumer, and the connection on which it is pulled.
pub struct PullConsumer<'c> {
    client: &'c NatsClient,
    subject: String,
    connection: Option<Connection>,
}

impl<'c> PullConsumer<'c> {
    /// The consumer of that name; nothing is asked yet.
    pub fn new(client: &'c NatsClient, stream: &str, consumer: &str) -> Self {
        Self {
            client,
            subject: jetstream::next_subject(stream, consumer),
            connection: None,
        }
    }

    /// Gives at most `most` messages to `take`: those that are there, or with `wait` the first that come until
    /// then. A connection is made within `connect` where there is none, and given up at the first error.
    ///
    /// # Errors
    /// There is no connection, it broke, or nobody knows of the consumer. What was taken until then counts.
    pub fn pull(
        &mut self,
        most: usize,
        wait: Option<Duration>,
        take: &mut dyn FnMut(PulledMessage<'_>),
    ) -> Result<PullEnd, NatsError> {
        let request = PullRequest {
            subject: &self.subject,
            payload: jetstream::next_request(most, wait),
            most,
        };
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.connect(after(GRACE))?,
        };
        let until = after(wait.unwrap_or_default() + GRACE);
        let end = connection.pull(&request, until, take)?;
        self.connection = Some(connection);
        Ok(end)
    }

    /// Acknowledges messages, by where each wants it and whether it may come again.
    ///
    /// # Errors
    /// There is no connection: they come again.
    pub fn acknowledge<'a>(
        &mut self,
        messages: impl Iterator<Item = (&'a str, Acknowledgement)>,
    ) -> Result<(), NatsError> {
        let mut text = String::new();
        for (reply, word) in messages {
            // Infallible into a text.
            let _ = text.write_str(&encode_one_way(reply, word.word()));
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.client.connect(after(GRACE))?,
        };
        connection.publish(&text, after(GRACE))?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// What a stream is told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It is done with.
    Taken,
    /// It can never be taken: it must not come again.
    Refused,
}

impl Acknowledgement {
    fn word(self) -> &'static str {
        match self {
            Self::Taken => "+ACK",
            Self::Refused => "+TERM",
        }
    }
}

fn after(time: Duration) -> Instant {
    clock::now() + time
}
