//! The fleet service, `afferent sense --reports-from`, and its fleet store, asked as `afferent fleet` asks it.

use super::process::wall_nanos;
use super::sensor::binary;
use super::table::{Row, Table, kill, number};
use afferent::sense::fleet::query::FleetQuery;
use afferent::telemetry::control;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two questions for new changes: how exactly their times are known.
const LOOK: Duration = Duration::from_millis(5);

pub struct FleetService {
    from: String,
    state: PathBuf,
    child: Child,
}

impl FleetService {
    /// With an empty store, which reads the stream from its first message on.
    pub fn start(servers: &str, stream: &str, state: &Path) -> Self {
        let from = format!("nats://{servers}?stream={stream}");
        Self {
            child: spawn(&from, state),
            from,
            state: state.to_owned(),
        }
    }

    pub fn kill(&mut self) {
        kill(&mut self.child);
    }

    pub fn again(&mut self) {
        self.child = spawn(&self.from, &self.state);
    }

    /// How many documents came to this end since the start of the process.
    pub fn documents(&self, outcome: &str) -> u64 {
        let status = control::ask(&control::socket_of(&self.state), "status");
        let status = status.unwrap_or_default();
        status["documents"][outcome].as_u64().unwrap_or_default()
    }

    /// Number of the newest row of the change log.
    pub fn newest_change(&self) -> Option<u64> {
        let mut newest = None;
        while self.changes(&mut newest, |_, _| ()) {}
        newest
    }

    /// When each change behind this one was first in an answer, in nanoseconds since 1970, until told to stop.
    pub fn watch(&self, mut after: Option<u64>, stop: &AtomicBool) -> HashMap<(u32, u32), u128> {
        let mut answered = HashMap::new();
        while !stop.load(Ordering::Relaxed) {
            let note = |guest, generation| {
                answered.insert((guest, generation), wall_nanos());
            };
            if !self.changes(&mut after, note) {
                std::thread::sleep(LOOK);
            }
        }
        answered
    }

    /// Notes guest and generation of each change behind this one; says whether there are more.
    fn changes(&self, after: &mut Option<u64>, mut note: impl FnMut(u32, u32)) -> bool {
        let question = FleetQuery::Changes {
            since: None,
            vm: None,
            package: None,
            after: *after,
        };
        let answer = self.ask(&question);
        for change in list(&answer, "changes") {
            if let Some((guest, (_, generation))) = key(change) {
                note(guest, generation);
            }
        }
        *after = answer["next"].as_u64().or(*after);
        answer["more"] == true
    }

    fn ask(&self, question: &FleetQuery) -> Value {
        let words = format!("fleet {}", question.to_word());
        control::ask(&control::socket_of(&self.state), &words).unwrap_or_default()
    }

    fn guests(&self) -> Value {
        self.ask(&FleetQuery::Guests { os: None })
    }
}

impl Table for FleetService {
    const NAME: &'static str = "fleet service";

    fn generations(&self) -> HashMap<u32, u32> {
        let answer = self.guests();
        let guests = list(&answer, "guests").filter_map(key);
        guests.map(|(n, (_, generation))| (n, generation)).collect()
    }

    fn rows(&self) -> HashMap<u32, Row> {
        let found = self.ask(&FleetQuery::Find {
            package: "changing".into(),
            arch: None,
            os: None,
            not: false,
            running: false,
        });
        let changing: HashMap<&str, &str> = list(&found, "guests")
            .filter_map(|it| Some((it["vm"].as_str()?, it["packages"][0]["version"].as_str()?)))
            .collect();
        let answer = self.guests();
        let rows = list(&answer, "guests").filter_map(|guest| {
            let (n, (epoch, generation)) = key(guest)?;
            let row = Row {
                epoch,
                generation,
                packages: guest["packages"].as_u64()?.try_into().ok()?,
                changing: (*changing.get(guest["vm"].as_str()?)?).to_owned(),
            };
            Some((n, row))
        });
        rows.collect()
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FleetService {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn list<'a>(answer: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    answer[name].as_array().into_iter().flatten()
}

/// Guest, epoch and generation of `{"vm": "g-7", "report": "8:2"}`.
fn key(line: &Value) -> Option<(u32, (u32, u32))> {
    let (epoch, generation) = line["report"].as_str()?.split_once(':')?;
    let key = (epoch.parse().ok()?, generation.parse().ok()?);
    Some((number(line["vm"].as_str()?)?, key))
}

fn spawn(from: &str, state: &Path) -> Child {
    Command::new(binary())
        .args(["sense", "--reports-from", from, "--state-dir"])
        .arg(state)
        .env("AFFERENT_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
