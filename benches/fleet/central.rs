//! Central: accepts as fast as it can, and remembers when.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

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
    closed: AtomicBool,
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

    pub fn open(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }
}

pub fn wall_nanos() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

fn converse(stream: &TcpStream, state: &State) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let mut body = Vec::new();
    while let Some(key) = request(&mut reader, &mut body) {
        if state.closed.load(Ordering::SeqCst) {
            return;
        }
        state.accepted.lock().unwrap().insert(key, wall_nanos());
        state.more.notify_all();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        if (&*stream).write_all(answer).is_err() {
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
