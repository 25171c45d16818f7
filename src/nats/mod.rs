//! A NATS server: messages that are answered, and messages of a stream that are pulled, which is all that
//! JetStream needs.
//!
//! ```text
//! server ► INFO {"max_payload":..,"tls_required":..,"nonce":..}
//!   (TLS from here on, where either side wants it)
//! client ► CONNECT {"auth_token":..}, SUB _INBOX.<ours>.* 1, PING
//! server ► PONG: we are in                      or  -ERR 'Authorization Violation'
//! client ► HPUB <subject> _INBOX.<ours>.<n> ..  headers and payload
//! server ► MSG _INBOX.<ours>.<n> 1 ..           the answer   or  HMSG with status 503: nobody listens
//! ```
//!
//! - One request at a time has a connection to itself: what breaks one connection, or is slow, holds
//!   up no other. Connections are kept for the next request, for a minute.
//! - Every request has a deadline, from the name lookup to the last byte of the answer.
//! - A connection that breaks is tried once more with a new one, so that a restart of the server is
//!   not seen. What is asked must therefore bear being asked twice.
//! - A consumer of a stream is pulled by one connection of its own, see [`PullConsumer`]; nothing is pushed to us.
//! - What the server may announce has bounds: see [`protocol`].
//!
//! The official client (async-nats) is not used. It reports a denied publish or subscription as an event of
//! the connection and not to the request (nats-io/nats.rs#1485), which then waits for its deadline: facts
//! could not be skipped, nor a missing permission be named, where `create=no` allows publishing only. All
//! requests share one connection there, so one that is slow holds up the others. It adds a megabyte to the
//! program, with regular expressions and Unicode tables; this folder is 58 kB of it.

mod address;
mod client;
mod connection;
mod credentials;
pub mod jetstream;
mod nkey;
pub mod protocol;
mod pull;
mod socket;

pub use address::{NatsAddress, NatsHost, is_stream_name};
pub use client::{NatsClient, NatsOptions};
pub use pull::{Acknowledgement, PullConsumer};

use std::time::Duration;

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Where to.
    pub subject: &'a str,
    /// Names and values; control characters in them are left out.
    pub headers: &'a [(&'a str, &'a str)],
    /// Any bytes.
    pub payload: &'a [u8],
}

/// A message of a stream.
#[derive(Clone, Copy, Debug)]
pub struct PulledMessage<'a> {
    /// Where it was published.
    pub subject: &'a str,
    /// Where it is acknowledged.
    pub reply: &'a str,
    /// Its headers, as they travel.
    pub headers: &'a [u8],
    /// Its content.
    pub payload: &'a [u8],
}

impl<'a> PulledMessage<'a> {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        protocol::header(self.headers, name)
    }
}

/// Why a pull ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullEnd {
    /// As many came as were asked for.
    Full,
    /// There are no more now.
    NoMore,
    /// The server ended it, and says why: the consumer may be gone.
    Ended(String),
}

/// Why there is no answer, named for what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// No connection came about, so nothing was asked: try again.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The deadline passed; the request may have been carried out.
    #[error("no answer within {:.1} s", .0.as_secs_f32())]
    Deadline(Duration),
    /// The connection broke, or what came is not NATS; the request may have been carried out.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Credentials or certificates are wrong, so nobody let us in: somebody has to change something.
    #[error("{0}")]
    Denied(String),
    /// We were let in, but may not publish on this subject.
    #[error("{0}")]
    Forbidden(String),
    /// Nobody listens on the subject.
    #[error("nobody listens on {0}")]
    NoResponders(String),
    /// Longer than the server takes: nothing was sent.
    #[error("{bytes} bytes, and the server takes at most {max} a message")]
    TooLong {
        /// Headers and payload together.
        bytes: usize,
        /// The server's `max_payload`.
        max: usize,
    },
}
