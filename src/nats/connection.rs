//! One connection, and one request at a time on it.

use super::credentials::Credentials;
use super::protocol::{self, DecodedOperation, Operation};
use super::socket::{Socket, is_deadline};
use super::{Message, NatsError, NatsHost, PullEnd, PulledMessage, jetstream};
use crate::clock;
use rustls::ClientConfig;
use serde_json::{Map, Value, json};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// After which a connection is not used again: a firewall may have forgotten it, and a server
/// closes one that leaves its PINGs unanswered for minutes.
const IDLE: Duration = Duration::from_secs(60);

/// A server that has let us in.
pub(super) struct Connection {
    socket: Socket,
    buffer: Vec<u8>,
    info: Info,
    /// Prefix of the subjects at which answers arrive.
    inbox: String,
    asked: u64,
    used: Instant,
    /// The time that was left when this request began, for errors.
    limit: Duration,
    /// Bytes of the longest message that may come.
    longest: usize,
}

/// What a server says about itself, as far as it matters here.
#[derive(Debug, Default)]
struct Info {
    max_payload: usize,
    headers: bool,
    tls_required: bool,
    tls_available: bool,
    nonce: String,
    /// It is about to stop.
    ldm: bool,
}

impl Info {
    fn parse(json: &[u8]) -> Result<Self, NatsError> {
        let info: Value = serde_json::from_slice(json)
            .map_err(|error| NatsError::Broken(format!("its INFO: {error}")))?;
        let is = |name: &str| info.get(name).and_then(Value::as_bool).unwrap_or(false);
        let max_payload = info.get("max_payload").and_then(Value::as_u64).unwrap_or(0);
        Ok(Self {
            max_payload: usize::try_from(max_payload).unwrap_or(usize::MAX),
            headers: is("headers"),
            tls_required: is("tls_required"),
            tls_available: is("tls_available"),
            nonce: info
                .get("nonce")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            ldm: is("ldm"),
        })
    }
}

/// A message.
struct ReceivedMessage {
    subject: String,
    reply: Option<String>,
    headers: Vec<u8>,
    status: Option<u16>,
    payload: Vec<u8>,
}

/// What was received.
enum Event {
    Message(ReceivedMessage),
    Info(Info),
    Ping,
    Pong,
    Nothing,
    Error(String),
}

/// A pull, as it is sent.
pub(super) struct PullRequest<'a> {
    pub(super) subject: &'a str,
    pub(super) payload: String,
    pub(super) most: usize,
}

/// Whether TLS is a must, and how it is done.
pub(super) struct Tls<'a> {
    /// Nothing is said to a server that does not do TLS.
    pub(super) required: bool,
    /// Gives the roots to trust, when they are needed.
    pub(super) config: &'a dyn Fn() -> Result<Arc<ClientConfig>, NatsError>,
}

impl Connection {
    /// Connects and logs in before `until`.
    pub(super) fn open(
        host: &NatsHost,
        tls: &Tls<'_>,
        credentials: &Credentials,
        until: Instant,
    ) -> Result<Self, NatsError> {
        let now = clock::now();
        let gone = |error: io::Error| NatsError::NoConnection(format!("{host}: {error}"));
        let mut connection = Self {
            socket: Socket::connect(host, until).map_err(gone)?,
            buffer: Vec::new(),
            info: Info::default(),
            inbox: format!("_INBOX.{}.", uuid::Uuid::new_v4().simple()),
            asked: 0,
            used: now,
            limit: until.saturating_duration_since(now),
            longest: protocol::MAX_ANSWER,
        };
        connection.handshake(tls).map_err(|error| at(host, error))?;
        let is_secure = tls.required || connection.info.tls_required;
        if is_secure {
            connection.socket = connection.socket.secure(host, (tls.config)()?)?;
        }
        let entered = connection.log_in(credentials, is_secure);
        entered.map_err(|error| at(host, error))?;
        Ok(connection)
    }

    /// Hears what the server says about itself, before anything is said to it.
    fn handshake(&mut self, tls: &Tls<'_>) -> Result<(), NatsError> {
        let Event::Info(info) = self.read_event()? else {
            return Err(NatsError::Broken("it does not begin with INFO".into()));
        };
        // What follows before TLS may be anybody's.
        if !self.buffer.is_empty() {
            return Err(NatsError::Broken("it speaks out of turn".into()));
        }
        self.info = info;
        if tls.required && !self.info.tls_required && !self.info.tls_available {
            let said = "does not do TLS, which tls:// and --ca-file ask for";
            return Err(NatsError::Denied(said.into()));
        }
        if !self.info.headers {
            let said = "does not do headers, which JetStream needs";
            return Err(NatsError::Denied(said.into()));
        }
        Ok(())
    }

    fn log_in(&mut self, credentials: &Credentials, is_secure: bool) -> Result<(), NatsError> {
        let mut connect = Map::new();
        for (name, value) in [
            ("verbose", Value::Bool(false)),
            ("pedantic", Value::Bool(false)),
            ("echo", Value::Bool(false)),
            ("headers", Value::Bool(true)),
            ("no_responders", Value::Bool(true)),
            ("tls_required", Value::Bool(is_secure)),
            ("protocol", json!(1)),
            ("lang", "rust".into()),
            ("name", "afferent".into()),
            ("version", env!("CARGO_PKG_VERSION").into()),
        ] {
            connect.insert(name.into(), value);
        }
        let signed = credentials.add_to(&mut connect, &self.info.nonce);
        signed.ok_or_else(|| NatsError::Denied("the key cannot sign".into()))?;
        let connect = Value::Object(connect);
        let hello = format!("CONNECT {connect}\r\nSUB {}* 1\r\nPING\r\n", self.inbox);
        self.write(hello.as_bytes())?;
        loop {
            match self.read_event()? {
                Event::Pong => return Ok(()),
                event => self.handle_event(event)?,
            }
        }
    }

    /// Publishes `message`, and gives what answers it before `until`, and within `answer_limit` after it was
    /// sent.
    pub(super) fn request(
        &mut self,
        message: &Message<'_>,
        answer_limit: Duration,
        until: Instant,
    ) -> Result<Vec<u8>, NatsError> {
        let headers = protocol::encode_headers(message.headers);
        let (bytes, max) = (headers.len() + message.payload.len(), self.info.max_payload);
        if bytes > max {
            return Err(NatsError::TooLong { bytes, max });
        }
        self.socket.set_deadline(until);
        self.limit = until.saturating_duration_since(clock::now());
        self.asked += 1;
        let reply = format!("{}{}", self.inbox, self.asked);
        self.write(&protocol::encode(
            message.subject,
            &reply,
            &headers,
            message.payload,
        ))?;
        let sent = clock::now();
        let until = until.min(sent + answer_limit);
        self.socket.set_deadline(until);
        self.limit = until.saturating_duration_since(sent);
        loop {
            match self.read_event()? {
                Event::Message(received) if received.subject == reply => {
                    self.used = clock::now();
                    return match received.status {
                        Some(503) => Err(NatsError::NoResponders(message.subject.to_owned())),
                        _ => Ok(received.payload),
                    };
                }
                event => self.handle_event(event)?,
            }
        }
    }

    /// Asks a consumer for messages, and gives each of them to `take`, until the server says that these were all
    /// or `most` came. A message is `take`n before the next one is read, so that few are in memory.
    pub(super) fn pull(
        &mut self,
        request: &PullRequest<'_>,
        until: Instant,
        take: &mut dyn FnMut(PulledMessage<'_>),
    ) -> Result<PullEnd, NatsError> {
        self.longest = protocol::MAX_STORED;
        self.socket.set_deadline(until);
        self.limit = until.saturating_duration_since(clock::now());
        self.asked += 1;
        let inbox = format!("{}{}", self.inbox, self.asked);
        self.write(&protocol::encode(
            request.subject,
            &inbox,
            "",
            request.payload.as_bytes(),
        ))?;
        let mut taken = 0;
        while taken < request.most {
            let received = match self.read_event()? {
                Event::Message(received) => received,
                event => {
                    self.handle_event(event)?;
                    continue;
                }
            };
            self.used = clock::now();
            match (&received.reply, received.status) {
                (Some(reply), None) if jetstream::is_ack_subject(reply) => {
                    taken += 1;
                    take(PulledMessage {
                        subject: &received.subject,
                        reply,
                        headers: &received.headers,
                        payload: &received.payload,
                    });
                }
                (_, Some(503)) if received.subject == inbox => {
                    return Err(NatsError::NoResponders(request.subject.to_owned()));
                }
                // A sign of life.
                (_, Some(100)) => {}
                (_, Some(status)) if received.subject == inbox => {
                    return Ok(match status {
                        404 | 408 => PullEnd::NoMore,
                        _ => PullEnd::Ended(protocol::status_text(&received.headers)),
                    });
                }
                // Of a pull before this one.
                _ => {}
            }
        }
        Ok(PullEnd::Full)
    }

    /// Publishes what nobody answers.
    pub(super) fn publish(&mut self, messages: &str, until: Instant) -> Result<(), NatsError> {
        self.socket.set_deadline(until);
        self.limit = until.saturating_duration_since(clock::now());
        self.write(messages.as_bytes())
    }

    /// Whether it was left alone for too long.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) > IDLE
    }

    /// Whether it can be used once more; answers what the server asked in the meantime.
    pub(super) fn is_fresh(&mut self, now: Instant) -> bool {
        if self.is_old(now) {
            return false;
        }
        self.socket.set_deadline(now + Duration::from_secs(1));
        let mut chunk = [0; 1024];
        loop {
            match self.socket.read_waiting(&mut chunk) {
                Ok(0) => return false,
                Ok(len) => self.buffer.extend(chunk.iter().take(len)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while let Ok(event) = self.buffered() {
            match event.map(|event| self.handle_event(event)) {
                None => return !self.info.ldm,
                Some(Ok(())) => {}
                Some(Err(_)) => break,
            }
        }
        false
    }

    fn handle_event(&mut self, event: Event) -> Result<(), NatsError> {
        match event {
            Event::Ping => self.write(b"PONG\r\n"),
            Event::Info(info) => {
                self.info = info;
                Ok(())
            }
            Event::Error(said) => Err(meaning(&said)),
            // An answer that came too late: its request is over.
            Event::Message(_) | Event::Pong | Event::Nothing => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), NatsError> {
        let said = self.socket.write_all(bytes);
        said.and_then(|()| self.socket.flush())
            .map_err(|error| self.broken(&error))
    }

    fn read_event(&mut self) -> Result<Event, NatsError> {
        let mut chunk = [0; CHUNK];
        loop {
            if let Some(event) = self.buffered()? {
                return Ok(event);
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => return Err(NatsError::Broken("the server closed it".into())),
                Ok(len) => self.buffer.extend(chunk.iter().take(len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// The first operation in the buffer, if it is whole.
    fn buffered(&mut self) -> Result<Option<Event>, NatsError> {
        let decoded = protocol::decode_within(&self.buffer, self.longest);
        let decoded = decoded.map_err(|error| NatsError::Broken(error.to_string()))?;
        let DecodedOperation::Operation(operation, len) = decoded else {
            return Ok(None);
        };
        let event = match operation {
            Operation::Info(json) => Event::Info(Info::parse(json)?),
            Operation::Message {
                subject,
                reply,
                headers,
                status,
                payload,
            } => Event::Message(ReceivedMessage {
                subject: subject.to_owned(),
                reply: reply.map(str::to_owned),
                headers: headers.to_vec(),
                status,
                payload: payload.to_vec(),
            }),
            Operation::Ping => Event::Ping,
            Operation::Pong => Event::Pong,
            Operation::Ok => Event::Nothing,
            Operation::Error(said) => Event::Error(said.chars().take(200).collect()),
        };
        self.buffer.drain(..len);
        Ok(Some(event))
    }

    fn broken(&self, error: &io::Error) -> NatsError {
        match is_deadline(error) {
            true => NatsError::Deadline(self.limit),
            false => NatsError::Broken(error.to_string()),
        }
    }
}

/// The same error of a server that has not let us in: nothing was asked yet.
fn at(host: &NatsHost, error: NatsError) -> NatsError {
    match error {
        NatsError::Denied(said) => NatsError::Denied(format!("{host}: {said}")),
        NatsError::NoConnection(said) => NatsError::NoConnection(format!("{host}: {said}")),
        error => NatsError::NoConnection(format!("{host}: {error}")),
    }
}

/// What an error of the server means for us.
fn meaning(said: &str) -> NatsError {
    let lower = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let said = format!("the server says: {said}");
    if has(&["authentication timeout"]) {
        NatsError::Broken(said)
    } else if has(&["permissions"]) {
        NatsError::Forbidden(said)
    } else if has(&["authorization", "authentication", "secure connection"]) {
        NatsError::Denied(said)
    } else if has(&["connections exceeded"]) {
        NatsError::NoConnection(said)
    } else {
        NatsError::Broken(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_lead_to_the_right_step() {
        for said in [
            "Authorization Violation",
            "User Authentication Expired",
            "Secure Connection - TLS Required",
        ] {
            assert!(matches!(meaning(said), NatsError::Denied(_)), "{said}");
        }
        for said in [
            "Stale Connection",
            "Server Shutdown",
            "Authentication Timeout",
        ] {
            assert!(matches!(meaning(said), NatsError::Broken(_)), "{said}");
        }
        let forbidden = meaning("Permissions Violation for Publish to \"afferent.reports.a\"");
        assert!(matches!(forbidden, NatsError::Forbidden(_)));
        let full = meaning("maximum connections exceeded");
        assert!(matches!(full, NatsError::NoConnection(_)));
    }
}
