//! Central: accepts as fast as it can, and remembers when.

use super::process::wall_nanos;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// When the report of a guest and generation was accepted, in nanoseconds since 1970.
type Accepted = HashMap<(u32, u32), u128>;

pub struct Central {
    pub url: String,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    accepted: Mutex<Accepted>,
    more: Condvar,
    /// How many are waited for: nobody is woken before.
    wanted: AtomicUsize,
    closed: AtomicBool,
    /// Answers some deliveries as a Central does that is in trouble.
    flaps: AtomicBool,
    /// The newest generation of each guest, and the digest of each report.
    newest: Mutex<HashMap<u32, u32>>,
    digests: Mutex<HashMap<(u32, u32), Vec<u8>>>,
    went_back: AtomicU64,
    had_two_contents: AtomicU64,
}

impl Central {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State::default());
        let central = Self {
            url,
            state: state.clone(),
        };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                thread::spawn(move || converse(&stream, &state));
            }
        });
        central
    }

    /// Waits until this many reports were accepted since the last [`Central::forget`].
    pub fn wait_for(&self, count: usize) {
        let mut accepted = self.state.accepted.lock().unwrap();
        self.state.wanted.store(count, Ordering::SeqCst);
        while accepted.len() < count {
            accepted = self.state.more.wait(accepted).unwrap();
        }
    }

    pub fn accepted(&self) -> Accepted {
        self.state.accepted.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.state.accepted.lock().unwrap().clear();
    }

    /// Breaks off every conversation from now on.
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
    }

    /// Refuses, hangs up and asks for patience now and then, from now on or no more.
    pub fn flap(&self, flaps: bool) {
        self.state.flaps.store(flaps, Ordering::SeqCst);
    }

    /// Reports that came after a newer one of their guest, and keys under which two contents came.
    pub fn wrongs(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (
            count(&self.state.went_back),
            count(&self.state.had_two_contents),
        )
    }

    pub fn open(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }
}

impl State {
    fn check(&self, key: (u32, u32), body: &[u8]) {
        let mut newest = self.newest.lock().unwrap();
        let last = newest.insert(key.0, key.1).unwrap_or(0);
        drop(newest);
        if last > key.1 {
            self.went_back.fetch_add(1, Ordering::SeqCst);
        }
        let mark = b"\"digest\":\"";
        let at = body.windows(mark.len()).position(|bytes| bytes == mark);
        let digest = body[at.unwrap() + mark.len()..][..71].to_vec();
        let mut digests = self.digests.lock().unwrap();
        let first = digests.entry(key).or_insert_with(|| digest.clone());
        if *first != digest {
            self.had_two_contents.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn converse(stream: &TcpStream, state: &State) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut body = Vec::new();
    let mut count = 0u32;
    while let Some(key) = request(&mut reader, &mut body) {
        if state.closed.load(Ordering::SeqCst) {
            return;
        }
        state.check(key, &body);
        count += 1;
        let status = match (state.flaps.load(Ordering::SeqCst), count % 16) {
            (true, 3) => "500 Trouble",
            (true, 7) => "429 Slowly\r\nRetry-After: 1",
            (true, 11) => return,
            _ => {
                let mut accepted = state.accepted.lock().unwrap();
                accepted.insert(key, wall_nanos());
                if accepted.len() >= state.wanted.load(Ordering::SeqCst) {
                    state.more.notify_all();
                }
                "200 OK"
            }
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Guest and generation of the next request; its body is read, as Central must.
fn request(reader: &mut impl BufRead, body: &mut Vec<u8>) -> Option<(u32, u32)> {
    let (mut key, mut len) = (None, 0);
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line == "\r\n" {
                break;
            }
            continue;
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            len = value.parse().ok()?;
        } else if name.eq_ignore_ascii_case("idempotency-key") {
            let mut parts = value.split('/');
            let guest = parts.next()?.strip_prefix("g-")?.parse().ok()?;
            key = Some((guest, parts.nth(1)?.parse().ok()?));
        }
    }
    body.resize(len, 0);
    reader.read_exact(body).ok()?;
    key
}
