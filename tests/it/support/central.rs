//! Central over HTTP/1.1, answering as a test wants.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A delivery as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub key: String,
    pub authorization: Option<String>,
    pub body: serde_json::Value,
    pub answered: u16,
}

/// What the next deliveries are answered with.
type Answers = Arc<Mutex<VecDeque<(u16, &'static str)>>>;

/// Listens until the test ends.
pub struct Central {
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
    answers: Answers,
}

impl Central {
    /// Accepts everything until told otherwise.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let central = Self {
            url,
            received: Arc::default(),
            answers: Arc::default(),
        };
        let (received, answers) = (central.received.clone(), central.answers.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (received, answers) = (received.clone(), answers.clone());
                thread::spawn(move || converse(&stream, &received, &answers));
            }
        });
        central
    }

    /// Answers the next delivery with this status and these header lines.
    pub fn answer_next(&self, status: u16, headers: &'static str) {
        self.answers.lock().unwrap().push_back((status, headers));
    }

    /// Every delivery so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn converse(stream: &TcpStream, received: &Mutex<Vec<Received>>, answers: &Answers) {
    let mut reader = BufReader::new(stream);
    while let Some((headers, body)) = request(&mut reader) {
        let header = |name: &str| {
            headers.iter().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name)
                    .then(|| value.trim().to_owned())
            })
        };
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
        let (status, more) = answers.lock().unwrap().pop_front().unwrap_or((200, ""));
        received.lock().unwrap().push(Received {
            key: header("idempotency-key").unwrap_or_default(),
            authorization: header("authorization"),
            body: serde_json::from_slice(&body).unwrap(),
            answered: status,
        });
        let answer = format!("HTTP/1.1 {status} x\r\n{more}Content-Length: 0\r\n\r\n");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(Vec<String>, Vec<u8>)> {
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => headers.push(line.to_owned()),
        }
    }
    let len = headers.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; len.unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    Some((headers, body))
}
