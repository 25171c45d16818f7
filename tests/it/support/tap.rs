//! Stands on the socket between a sensor and an agent, passes on every byte and notes what they say.

use afferent::wire::frame::{self, HEADER};
use afferent::wire::meta::REPORT_V1;
use afferent::wire::request::{Knowledge, Method, Request};
use afferent::wire::response::{Payload, Response};
use afferent::wire::{MAX_REQUEST, MAX_RESPONSE};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

/// A request, and what came of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Whether it may be held.
    pub waits: bool,
    /// Epoch and generation that the sensor knows; 0 and 0: it wants everything.
    pub known: (u32, u32),
    /// Whether the sensor says that it reads both generations of the protocol: 0.1 does not.
    pub is_new_sensor: bool,
    pub asked_at: Instant,
    /// `None`: none yet.
    pub end: Option<End>,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub struct End {
    pub at: Instant,
    pub said: Said,
    /// Epoch and generation of the report that it is about.
    pub key: (u32, u32),
    /// Whether the agent says that it reads both generations of the protocol: 0.1 does not.
    pub is_new_agent: bool,
}

/// What an agent answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// A report with its packages.
    Full,
    Unchanged,
    Error,
    /// Nothing: the agent was not there, or one of both went away.
    Nothing,
}

/// Listens until the test ends.
pub struct Tap {
    pub path: PathBuf,
    exchanges: Arc<Mutex<Vec<Exchange>>>,
}

impl Tap {
    /// Listens at `path` for the agent that listens, now or later, at `agent`.
    pub fn start(path: PathBuf, agent: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let exchanges: Arc<Mutex<Vec<Exchange>>> = Arc::default();
        let notes = exchanges.clone();
        thread::spawn(move || {
            for sensor in listener.incoming().flatten() {
                let (agent, notes) = (agent.clone(), notes.clone());
                thread::spawn(move || {
                    let _ = pass_on(sensor, &agent, &notes);
                });
            }
        });
        Self { path, exchanges }
    }

    /// Every exchange so far, in the order of the requests.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.lock().unwrap().clone()
    }

    /// Exchanges so far whose answer said this.
    pub fn that_said(&self, said: Said) -> Vec<Exchange> {
        let mut exchanges = self.exchanges();
        exchanges.retain(|e| e.end.as_ref().is_some_and(|end| end.said == said));
        exchanges
    }

    /// Those whose answer was a report with its packages.
    pub fn fulls(&self) -> Vec<Exchange> {
        self.that_said(Said::Full)
    }

    /// The newest answer of an agent.
    pub fn newest(&self) -> Option<End> {
        let exchanges = self.exchanges.lock().unwrap();
        let mut ends = exchanges.iter().rev().filter_map(|e| e.end.clone());
        ends.find(|end| end.said != Said::Nothing)
    }

    /// Whether, of the exchanges from the `from`th on, one is a wait that is being held.
    pub fn is_waiting(&self, from: usize) -> bool {
        let exchanges = self.exchanges.lock().unwrap();
        let mut new = exchanges.iter().skip(from);
        new.any(|e| e.waits && e.end.is_none())
    }
}

/// One connection, which has one request.
fn pass_on(
    mut sensor: UnixStream,
    agent: &Path,
    notes: &Arc<Mutex<Vec<Exchange>>>,
) -> io::Result<()> {
    let request = read_frame(&mut sensor, MAX_REQUEST)?;
    let number = {
        let mut notes = notes.lock().unwrap();
        notes.push(asked(&request));
        notes.len() - 1
    };
    let answer = ask(&sensor, &request, agent);
    let end = match &answer {
        Ok(answer) => said(answer),
        Err(_) => End {
            at: Instant::now(),
            said: Said::Nothing,
            key: (0, 0),
            is_new_agent: false,
        },
    };
    // Before it goes on: whoever sees what comes of it finds it noted.
    notes.lock().unwrap()[number].end = Some(end);
    let passed = answer.and_then(|answer| sensor.write_all(&answer));
    // Not only by dropping it: there is another handle.
    let _ = sensor.shutdown(Shutdown::Both);
    passed
}

/// The agent's answer, a whole frame. A sensor that goes away is noticed by the agent, too.
fn ask(sensor: &UnixStream, request: &[u8], agent: &Path) -> io::Result<Vec<u8>> {
    let mut agent = UnixStream::connect(agent)?;
    agent.write_all(request)?;
    let (mut sensor, other) = (sensor.try_clone()?, agent.try_clone()?);
    thread::spawn(move || {
        let _ = sensor.read(&mut [0]);
        let _ = other.shutdown(Shutdown::Both);
    });
    read_frame(&mut agent, MAX_RESPONSE)
}

fn read_frame(stream: &mut UnixStream, max: u32) -> io::Result<Vec<u8>> {
    let mut head = [0; HEADER];
    stream.read_exact(&mut head)?;
    let mut bytes = head.to_vec();
    bytes.resize(HEADER + frame::body_len(head, max).unwrap(), 0);
    stream.read_exact(&mut bytes[HEADER..])?;
    Ok(bytes)
}

fn asked(request: &[u8]) -> Exchange {
    let request = Request::decode(&request[HEADER..]).unwrap();
    let (known, waits) = match request.method {
        Some(Method::GetReport(known)) => (known, false),
        Some(Method::WaitReport(known, _)) => (known, true),
        Some(Method::SyncMapping(_)) | None => (Knowledge::default(), false),
    };
    Exchange {
        waits,
        known: (known.epoch, known.generation),
        is_new_sensor: request.is_report_v1,
        asked_at: Instant::now(),
        end: None,
    }
}

fn said(answer: &[u8]) -> End {
    let answer = Response::decode(&answer[HEADER..]).unwrap();
    End {
        at: Instant::now(),
        said: match answer.payload.unwrap() {
            Payload::Report(report) if report.unchanged => Said::Unchanged,
            Payload::Report(_) => Said::Full,
            Payload::Error(_) => Said::Error,
            Payload::Synced { .. } => panic!("nothing was pushed"),
        },
        key: (answer.meta.epoch, answer.meta.generation),
        is_new_agent: answer.meta.capabilities.iter().any(|c| c == REPORT_V1),
    }
}
