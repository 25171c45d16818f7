//! Who is asked: the running sensor, else the file.

use super::Complaint;
use crate::cli::{native, note, print_data, print_with};
use crate::clock;
use crate::sense::DATABASE;
use crate::sense::fleet::query::{FleetQuery, look};
use crate::store::StoreError;
use crate::telemetry::control;
use serde_json::Value;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Directories of the database where none is named: that of the package's unit, and the default.
const USUAL: [(&str, &str); 2] = [
    (
        "/run/afferent/sense/control.sock",
        "/var/lib/afferent/sense",
    ),
    ("/var/lib/afferent/control.sock", "/var/lib/afferent"),
];

/// How long a sensor is waited for that has its file but does not answer yet.
const LONGEST: Duration = Duration::from_secs(10);

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// A socket, and the directory of the database whose sensor it is.
struct Place {
    socket: PathBuf,
    directory: PathBuf,
}

/// The fleet store of a sensor.
pub(super) struct Fleet {
    places: Vec<Place>,
    is_json: bool,
    is_running: bool,
}

impl Fleet {
    /// The flag, else the environment, else the usual places.
    pub(super) fn of(state_dir: Option<PathBuf>, is_json: bool) -> Self {
        let given = state_dir.or_else(native::state_dir);
        let places = match given {
            Some(directory) => vec![Place {
                socket: control::socket_of(&directory),
                directory,
            }],
            None => {
                let usual = USUAL.iter().map(|(socket, directory)| Place {
                    socket: socket.into(),
                    directory: directory.into(),
                });
                usual.collect()
            }
        };
        Self {
            places,
            is_json,
            is_running: false,
        }
    }

    /// Whether the running service gave the last answer.
    pub(super) fn is_running(&self) -> bool {
        self.is_running
    }

    /// Whether a service answers.
    pub(super) fn reaches_service(&self) -> bool {
        let mut sockets = self.places.iter().map(|place| &place.socket);
        sockets.any(|socket| control::ask(socket, "status").is_ok())
    }

    /// What the running service answers to these words; `None`: none runs.
    fn service(&self, words: &str) -> Result<Option<Value>, Complaint> {
        for place in &self.places {
            match control::ask(&place.socket, words) {
                // Another service has its socket there, as where two have one state directory.
                Ok(answer) if is_of_another(&answer) => {}
                Ok(answer) => return checked(answer).map(Some),
                Err(error) if control::is_not_running(&error) => {}
                Err(error) => {
                    let socket = place.socket.display();
                    return Err(Complaint::failed(&format!("{socket}: {error}")));
                }
            }
        }
        Ok(None)
    }

    /// The same, where only a running service can answer.
    pub(super) fn ask_service(&self, words: &str) -> Result<Value, Complaint> {
        let answer = self.service(words)?;
        answer.ok_or_else(|| {
            Complaint::failed("no sensor runs here; name its state directory with --state-dir")
        })
    }

    /// The answer to a question.
    pub(super) fn ask(&mut self, query: &FleetQuery) -> Result<Value, Complaint> {
        let words = format!("fleet {}", query.to_word());
        let until = clock::now() + LONGEST;
        let mut is_told = false;
        loop {
            let answer = self.service(&words)?;
            self.is_running = answer.is_some();
            if let Some(answer) = answer {
                return Ok(answer);
            }
            let mut directories = self.places.iter().map(|place| &place.directory);
            let held = directories.find(|directory| directory.join(DATABASE).exists());
            let Some(directory) = held else {
                return Err(Complaint::failed(&self.nothing()));
            };
            match look(directory, query) {
                // A sensor that starts has its file before its socket.
                Err(StoreError::InUse { path }) if clock::now() < until => {
                    if !is_told {
                        let path = path.display();
                        note(&format!(
                            "{path} is in use by a sensor that does not answer yet: waiting for it"
                        ));
                        is_told = true;
                    }
                    std::thread::sleep(AGAIN);
                }
                Err(error) => return Err(Complaint::failed(&error)),
                Ok(answer) => {
                    let answer = serde_json::to_value(answer);
                    return checked(answer.map_err(|error| Complaint::failed(&error))?);
                }
            }
        }
    }

    fn nothing(&self) -> String {
        let shown: Vec<String> = self
            .places
            .iter()
            .map(|place| place.directory.join(DATABASE).display().to_string())
            .collect();
        let places = shown.join(" nor ");
        format!(
            "no sensor runs here, and there is no {places}; name its directory with --state-dir"
        )
    }

    /// Asks and prints.
    pub(super) fn tell(
        mut self,
        query: &FleetQuery,
        lines: fn(&Value, &mut dyn Write) -> io::Result<()>,
    ) -> Result<u8, Complaint> {
        let answer = self.ask(query)?;
        Ok(self.print(&answer, lines))
    }

    /// Prints an answer for programs or people.
    pub(super) fn print(
        &self,
        answer: &Value,
        lines: fn(&Value, &mut dyn Write) -> io::Result<()>,
    ) -> u8 {
        match self.is_json {
            true => print_data(|out| writeln!(out, "{answer}")),
            false => print_with(|out| lines(answer, out)),
        }
    }
}

/// A service that knows no such question says so without naming who is at fault.
fn is_of_another(answer: &Value) -> bool {
    answer.get("error").is_some() && answer.get("is_usage").is_none()
}

fn checked(answer: Value) -> Result<Value, Complaint> {
    match answer["error"].as_str() {
        Some(error) if answer["is_usage"] == true => Err(Complaint::usage(error)),
        Some(error) => Err(Complaint::failed(error)),
        None => Ok(answer),
    }
}
