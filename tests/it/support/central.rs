//! Central over HTTP/1.1, answering as a test wants.

use super::{documents, http_request};
use std::collections::VecDeque;
use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// A delivery as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub key: String,
    pub authorization: Option<String>,
    pub body: serde_json::Value,
    pub answered: u16,
    pub at: Instant,
}

impl Received {
    /// Which report it is of: `<vm>/<epoch>/<generation>`, without the hash of its content.
    pub fn report(&self) -> &str {
        let end = self.key.match_indices('/').nth(2).map(|(at, _)| at);
        self.key.get(..end.unwrap_or(self.key.len())).unwrap()
    }
}

/// What the next deliveries are answered with.
type Answers = Arc<Mutex<VecDeque<(u16, &'static str)>>>;

/// What deliveries of guests whose name begins like this are always answered with; 0: nothing at all.
type Rules = Arc<Mutex<Vec<(&'static str, u16, String)>>>;

/// Listens until the test ends, and fails it for a document that breaks the contract.
pub struct Central {
    pub url: String,
    faults: Arc<Mutex<Vec<String>>>,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Answers,
    rules: Rules,
    remembers: Arc<AtomicBool>,
}

impl Central {
    /// Accepts everything until told otherwise.
    pub fn start() -> Self {
        Self::start_on(0)
    }

    /// The same on this port.
    pub fn start_on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let central = Self {
            url,
            faults: Arc::default(),
            received: Arc::default(),
            answers: Arc::default(),
            rules: Arc::default(),
            remembers: Arc::default(),
        };
        let (received, answers) = (central.received.clone(), central.answers.clone());
        let (rules, faults) = (central.rules.clone(), central.faults.clone());
        let remembers = central.remembers.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, answers) = (received.clone(), answers.clone());
                let (rules, faults) = (rules.clone(), faults.clone());
                let remembers = remembers.clone();
                thread::spawn(move || {
                    converse(&stream, &received, &answers, &rules, &faults, &remembers);
                });
            }
        });
        central
    }

    /// Answers the next delivery with this status and these header lines.
    pub fn answer_next(&self, status: u16, headers: &'static str) {
        self.answers.lock().unwrap().push_back((status, headers));
    }

    /// Answers every delivery of guests whose name begins like this with this status and these
    /// header lines; 0 leaves them without an answer.
    pub fn always_answer(&self, guests: &'static str, status: u16, headers: &str) {
        let rule = (guests, status, headers.to_owned());
        self.rules.lock().unwrap().push(rule);
    }

    /// From now on everybody is answered alike.
    pub fn forget_rules(&self) {
        self.rules.lock().unwrap().clear();
    }

    /// From now on a delivery with a key that was accepted before is answered with 409, and not looked
    /// into: a Central that takes each key once.
    pub fn remember_keys(&self) {
        self.remembers.store(true, Ordering::Relaxed);
    }

    /// Every delivery so far.
    pub fn received(&self) -> Vec<Received> {
        self.check();
        self.received.lock().unwrap().clone()
    }

    fn check(&self) {
        let faults = self.faults.lock().unwrap().clone();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}

impl Drop for Central {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.check();
        }
    }
}

fn converse(
    stream: &TcpStream,
    received: &Mutex<Vec<Received>>,
    answers: &Answers,
    rules: &Rules,
    faults: &Mutex<Vec<String>>,
    remembers: &AtomicBool,
) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = http_request::read(&mut reader, stream) {
        let header = |name: &str| http_request::header(&head, name).map(str::to_owned);
        let body = match header("content-encoding").as_deref() {
            Some("gzip") => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(body.as_slice())
                    .read_to_end(&mut plain)
                    .unwrap();
                plain
            }
            _ => body,
        };
        let key = header("idempotency-key").unwrap_or_default();
        let rule = rules
            .lock()
            .unwrap()
            .iter()
            .find_map(|(guests, status, headers)| {
                key.starts_with(guests)
                    .then(|| (*status, headers.to_owned()))
            });
        let next = || {
            let next = answers.lock().unwrap().pop_front();
            next.map(|(status, headers)| (status, headers.to_owned()))
        };
        let is_known = || {
            let received = received.lock().unwrap();
            let accepted = |r: &Received| r.key == key && (200..300).contains(&r.answered);
            remembers.load(Ordering::Relaxed) && received.iter().any(accepted)
        };
        let seen = || is_known().then(|| (409, String::new()));
        let (status, more) = rule
            .or_else(next)
            .or_else(seen)
            .unwrap_or((200, String::new()));
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        // A sensor of version 0.1 has no schema to keep to.
        let is_old = key.matches('/').count() == 2 && body["meta"]["seen_at"].is_null();
        if let Err(said) = documents::judged(Some(&key), &body)
            && !is_old
        {
            let fault = format!("{said}\nin {key} {body}");
            faults.lock().unwrap().push(fault);
        }
        received.lock().unwrap().push(Received {
            key,
            authorization: header("authorization"),
            body,
            answered: status,
            at: Instant::now(),
        });
        if status == 0 {
            // Until the sensor gives up.
            let _ = reader.read_to_end(&mut Vec::new());
            return;
        }
        let answer = format!("HTTP/1.1 {status} x\r\n{more}Content-Length: 0\r\n\r\n");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
