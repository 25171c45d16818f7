//! Requests to whichever server of a cluster answers, over connections that are kept.

use super::connection::{Connection, Tls};
use super::credentials::Credentials;
use super::socket::tls_config;
use super::{Message, NatsAddress, NatsError};
use crate::clock;
use crate::file_stamp::FileStamp;
use rustls::ClientConfig;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Limits, secrets and trust of a [`NatsClient`].
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Longest time until one server has let us in.
    pub connect: Duration,
    /// Longest time from a message that was sent to its answer; then it is sent again.
    pub answer: Duration,
    /// File with a token, a password, a seed or credentials.
    pub secret_file: Option<PathBuf>,
    /// PEM file with the only roots to trust, which makes TLS a must; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// Asks; may be used by many threads at once, each with a connection to itself.
pub struct NatsClient {
    address: NatsAddress,
    options: NatsOptions,
    /// Read when a server first wants TLS, because reading all roots takes time, and again when the CA file
    /// is another one or a server was not trusted.
    tls: Mutex<Option<(Arc<ClientConfig>, Option<FileStamp>)>>,
    /// The last one used at the end. At most as many as there were requests at the same time.
    idle: Mutex<Vec<Connection>>,
    /// Which server let us in the last time.
    server: AtomicUsize,
}

impl NatsClient {
    /// Connects at the first request.
    pub fn new(address: NatsAddress, options: NatsOptions) -> Self {
        Self {
            address,
            options,
            tls: Mutex::default(),
            idle: Mutex::default(),
            server: AtomicUsize::new(0),
        }
    }

    /// Publishes `message`, and gives what answers it before `until`. It is published again when the
    /// connection breaks, once, and whenever no answer comes in time: an answer may be lost.
    pub fn request(&self, message: &Message<'_>, until: Instant) -> Result<Vec<u8>, NatsError> {
        let began = clock::now();
        let mut connection = match self.idle() {
            Some(connection) => connection,
            None => self.connect(until)?,
        };
        let mut is_first = true;
        loop {
            match self.ask(connection, message, until) {
                // A new connection tells whether the server has gone, or this request breaks them.
                Err(NatsError::Broken(_)) if is_first => is_first = false,
                Err(NatsError::Deadline(_)) if clock::now() < until => {}
                Err(NatsError::Deadline(_)) => {
                    return Err(NatsError::Deadline(until.saturating_duration_since(began)));
                }
                result => return result,
            }
            connection = self.connect(until)?;
        }
    }

    fn ask(
        &self,
        mut connection: Connection,
        message: &Message<'_>,
        until: Instant,
    ) -> Result<Vec<u8>, NatsError> {
        let result = connection.request(message, self.options.answer, until);
        let is_whole = match &result {
            Ok(_) | Err(NatsError::NoResponders(_) | NatsError::TooLong { .. }) => true,
            Err(_) => false,
        };
        if is_whole {
            let (mut idle, now) = (held(&self.idle), clock::now());
            idle.retain(|connection| !connection.is_old(now));
            idle.push(connection);
        }
        result
    }

    fn idle(&self) -> Option<Connection> {
        let now = clock::now();
        loop {
            let mut connection = held(&self.idle).pop()?;
            if connection.is_fresh(now) {
                return Some(connection);
            }
        }
    }

    /// Asks one server after the other to let us in, first the one that did the last time.
    pub(super) fn connect(&self, until: Instant) -> Result<Connection, NatsError> {
        let user = self.address.user.as_deref();
        let credentials = Credentials::load(self.options.secret_file.as_deref(), user)?;
        let tls = Tls {
            required: self.address.tls || self.options.ca_file.is_some(),
            config: &|| self.tls_config(),
        };
        let (first, mut said) = (self.server.load(Relaxed), Vec::new());
        let mut is_denied = false;
        let hosts = self.address.hosts.iter().enumerate();
        for (n, host) in hosts.cycle().skip(first).take(self.address.hosts.len()) {
            let until = until.min(clock::now() + self.options.connect);
            match Connection::open(host, &tls, &credentials, until) {
                Ok(connection) => {
                    self.server.store(n, Relaxed);
                    return Ok(connection);
                }
                Err(NatsError::NoConnection(error)) => said.push(error),
                // Another may be right where this one is not.
                Err(NatsError::Denied(error)) => {
                    is_denied = true;
                    // The roots of the system may have been renewed.
                    *held(&self.tls) = None;
                    said.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        let said = said.join("; ");
        Err(match is_denied {
            true => NatsError::Denied(said),
            false => NatsError::NoConnection(said),
        })
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, NatsError> {
        let ca_file = self.options.ca_file.as_deref();
        let seen = ca_file.and_then(FileStamp::of);
        let mut tls = held(&self.tls);
        if let Some((config, made_of)) = tls.as_ref()
            && *made_of == seen
        {
            return Ok(config.clone());
        }
        let config = tls_config(ca_file).map_err(NatsError::Denied)?;
        Ok(tls.insert((config, seen)).0.clone())
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;

    const INFO: &str = "INFO {\"headers\":true,\"max_payload\":100}\r\n";

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(60);

    /// As long as a test waits for what does not come.
    const SHORT: Duration = Duration::from_millis(200);

    #[test]
    fn a_server_that_does_not_let_us_in_is_no_connection_and_its_deadline_is_kept() {
        for (hello, limit, said) in [
            ("", SHORT, "no answer within"),
            ("INFO {}", SHORT, "no answer within"),
            ("HTTP/1.1 400 Bad Request\r\n", LONG, "not NATS"),
            ("PONG\r\n", LONG, "does not begin with INFO"),
            ("INFO {\r\n", LONG, "its INFO"),
        ] {
            let client = client(limit, move |mut stream| {
                stream.write_all(hello.as_bytes()).unwrap();
                let _ = BufReader::new(stream).read_line(&mut String::new());
            });
            let error = ask(&client, b"hi", LONG).unwrap_err();
            assert!(matches!(error, NatsError::NoConnection(_)), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn a_request_that_breaks_connections_is_tried_with_one_more_and_given_back() {
        let (seen, breaks) = std::sync::mpsc::channel();
        let client = client(LONG, move |stream| {
            let mut lines = let_in(&stream);
            lines.read_line(&mut String::new()).unwrap();
            seen.send(()).unwrap();
        });
        let error = ask(&client, b"hi", LONG).unwrap_err();
        assert!(matches!(error, NatsError::Broken(_)), "{error}");
        assert_eq!(breaks.try_iter().count(), 2);
    }

    #[test]
    fn a_request_that_is_not_answered_meets_its_deadline() {
        let client = client(LONG, |stream| {
            let mut lines = let_in(&stream);
            let reply = heard(&mut lines);
            answer(&stream, &reply, "first");
            while lines.read_line(&mut String::new()).is_ok_and(|len| len > 0) {}
        });
        // The connection is there when the time begins.
        assert_eq!(ask(&client, b"hi", LONG).unwrap(), b"first");
        let error = ask(&client, b"hi", SHORT).unwrap_err();
        assert!(matches!(error, NatsError::Deadline(_)), "{error}");
    }

    #[test]
    fn what_the_server_would_not_take_is_not_sent() {
        let client = client(LONG, |stream| {
            let mut lines = let_in(&stream);
            let reply = heard(&mut lines);
            answer(&stream, &reply, "short enough");
        });
        let error = ask(&client, &[0; 101], LONG).unwrap_err();
        let is_so = matches!(
            error,
            NatsError::TooLong {
                bytes: 101,
                max: 100
            }
        );
        assert!(is_so, "{error}");
        // Nothing of it is in the way.
        assert_eq!(ask(&client, b"hi", LONG).unwrap(), b"short enough");
    }

    #[test]
    fn an_answer_to_an_older_request_is_not_taken_for_ours() {
        let client = client(LONG, |stream| {
            let mut lines = let_in(&stream);
            let reply = heard(&mut lines);
            (&stream).write_all(b"PING\r\n").unwrap();
            answer(&stream, &format!("{reply}0"), "old");
            answer(&stream, &reply, "new");
            lines.read_line(&mut String::new()).unwrap();
        });
        assert_eq!(ask(&client, b"hi", LONG).unwrap(), b"new");
    }

    #[test]
    fn every_server_is_asked_before_a_denial_is_reported() {
        let gone = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let denies = served(|mut stream| {
            stream.write_all(INFO.as_bytes()).unwrap();
            let mut lines = BufReader::new(&stream);
            while !heard_line(&mut lines).starts_with("PING") {}
            (&stream)
                .write_all(b"-ERR 'Authorization Violation'\r\n")
                .unwrap();
        });
        let well = served(|stream| {
            let mut lines = let_in(&stream);
            let reply = heard(&mut lines);
            answer(&stream, &reply, "well");
        });
        let found = client_of(&[gone, denies, well], LONG, LONG);
        assert_eq!(ask(&found, b"hi", LONG).unwrap(), b"well");
        let denied = ask(&client_of(&[denies, gone], LONG, LONG), b"hi", LONG).unwrap_err();
        assert!(matches!(denied, NatsError::Denied(_)), "{denied}");
        let said = denied.to_string();
        for part in [denies.to_string(), gone.to_string(), "Authorization".into()] {
            assert!(said.contains(&part), "{said}");
        }
    }

    /// Loss prevented: half a minute, and an attempt, for an answer that was lost on its way.
    #[test]
    fn what_is_not_answered_in_time_is_published_again() {
        let published = Arc::new(AtomicUsize::new(0));
        let count = published.clone();
        let server = served(move |stream| {
            let mut lines = let_in(&stream);
            let reply = heard(&mut lines);
            if count.fetch_add(1, Relaxed) > 0 {
                answer(&stream, &reply, "twice");
            }
            while lines.read_line(&mut String::new()).is_ok_and(|len| len > 0) {}
        });
        let client = client_of(&[server], LONG, SHORT);
        assert_eq!(ask(&client, b"hi", LONG).unwrap(), b"twice");
        assert_eq!(published.load(Relaxed), 2);
    }

    fn ask(client: &NatsClient, payload: &[u8], limit: Duration) -> Result<Vec<u8>, NatsError> {
        let message = Message {
            subject: "s",
            headers: &[],
            payload,
        };
        client.request(&message, clock::now() + limit)
    }

    /// Of a server that does this with every connection.
    fn client(connect: Duration, converse: impl Fn(TcpStream) + Send + 'static) -> NatsClient {
        client_of(&[served(converse)], connect, LONG)
    }

    fn served(converse: impl Fn(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || listener.incoming().flatten().for_each(converse));
        address
    }

    fn client_of(servers: &[SocketAddr], connect: Duration, answer: Duration) -> NatsClient {
        let hosts: Vec<String> = servers.iter().map(ToString::to_string).collect();
        let address = format!("nats://{}?stream=R", hosts.join(","));
        let options = NatsOptions {
            connect,
            answer,
            secret_file: None,
            ca_file: None,
        };
        NatsClient::new(address.parse().unwrap(), options)
    }

    fn heard_line(lines: &mut impl BufRead) -> String {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    }

    fn let_in(mut stream: &TcpStream) -> BufReader<&TcpStream> {
        stream.write_all(INFO.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut line = String::new();
        while line != "PING\r\n" {
            line.clear();
            lines.read_line(&mut line).unwrap();
        }
        stream.write_all(b"PONG\r\n").unwrap();
        lines
    }

    /// Where a request wants its answer.
    fn heard(lines: &mut impl BufRead) -> String {
        let (mut line, mut payload) = (String::new(), String::new());
        lines.read_line(&mut line).unwrap();
        lines.read_line(&mut payload).unwrap();
        line.split(' ').nth(2).unwrap().to_owned()
    }

    fn answer(mut stream: &TcpStream, reply: &str, payload: &str) {
        let len = payload.len();
        let answer = format!("MSG {reply} 1 {len}\r\n{payload}\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
    }
}
