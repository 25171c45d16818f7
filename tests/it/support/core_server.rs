//! A Core that says what the test tells it to, over plain HTTP on a local port.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
    pub at: Instant,
}

/// What to answer.
#[derive(Clone)]
pub enum Answer {
    /// A status, headers and a body.
    Plain(u16, Vec<(String, String)>, Vec<u8>),
    /// The same, a byte at a time with this pause between.
    Slowly(u16, Vec<(String, String)>, Vec<u8>, Duration),
    /// A body that is announced longer than it is.
    CutOff(Vec<u8>),
    /// Nothing, until the client goes away.
    Silence,
    /// A body of this many bytes, made on the way.
    Huge(u64),
}

/// A running server; it ends with the test.
pub struct CoreServer {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl CoreServer {
    /// Answers every request with what `answer` makes of it.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let _ = serve(&stream, answer.as_ref(), &seen);
                });
            }
        });
        Self { url, requests }
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Requests for one list.
    pub fn requests_for(&self, list: &str) -> Vec<Request> {
        let mut requests = self.requests();
        requests.retain(|request| request.path.ends_with(&format!("/{list}")));
        requests
    }
}

fn serve(
    stream: &TcpStream,
    answer: &dyn Fn(&Request) -> Answer,
    seen: &Mutex<Vec<Request>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let request = Request {
        path: path.to_owned(),
        query: pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        headers,
        at: Instant::now(),
    };
    let answer = answer(&request);
    seen.lock().unwrap().push(request);
    let mut stream = stream;
    let head = |status: u16, headers: &[(String, String)], length: u64| {
        let mut head = format!(
            "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {length}\r\n"
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n"
    };
    match answer {
        Answer::Plain(status, headers, body) => {
            stream.write_all(head(status, &headers, body.len() as u64).as_bytes())?;
            stream.write_all(&body)
        }
        Answer::Slowly(status, headers, body, pause) => {
            stream.write_all(head(status, &headers, body.len() as u64).as_bytes())?;
            for byte in body {
                stream.write_all(&[byte])?;
                // The pace is the behaviour under test; nothing waits for it to be over.
                std::thread::sleep(pause);
            }
            Ok(())
        }
        Answer::CutOff(body) => {
            stream.write_all(head(200, &[], body.len() as u64 + 10).as_bytes())?;
            stream.write_all(&body)
        }
        Answer::Silence => reader.read_to_end(&mut Vec::new()).map(drop),
        Answer::Huge(length) => {
            stream.write_all(head(200, &[], length).as_bytes())?;
            let chunk = [b' '; 1 << 16];
            let mut left = length;
            while left > 0 {
                let size = left.min(chunk.len() as u64);
                stream.write_all(&chunk[..usize::try_from(size).unwrap()])?;
                left -= size;
            }
            Ok(())
        }
    }
}

/// A 200 with a page of entries and its pagination header.
pub fn page(entries: &serde_json::Value, total: u64) -> Answer {
    let pagination = format!(r#"{{"pageNumber":1,"pageSize":100,"total":{total},"orderBy":"X"}}"#);
    Answer::Plain(
        200,
        vec![("X-Pagination".into(), pagination)],
        entries.to_string().into_bytes(),
    )
}

/// A status and nothing else.
pub fn status(status: u16) -> Answer {
    Answer::Plain(status, Vec::new(), Vec::new())
}
