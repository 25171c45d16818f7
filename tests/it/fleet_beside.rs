//! A sensor that starts while `afferent fleet` reads its file, and the other way round.

use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, status};
use afferent::sense::DATABASE;
use afferent::store::Store;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A sensor with one guest, whose report is stored.
struct Rig {
    dir: TempDir,
    agent: FakeAgent,
    sensor: Program,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = FakeAgent::start(&dir.path().join("agent.sock"), Script::new());
        let sensor = start(&dir, &agent);
        let rig = Self { dir, agent, sensor };
        rig.answers();
        rig
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn start_again(&mut self) {
        self.sensor = start(&self.dir, &self.agent);
    }

    /// Waits until the sensor itself answers, with its guest.
    fn answers(&self) {
        eventually("the sensor answers", || {
            let is_here = status(&self.state(), &[]).0["service"] == "sense";
            let guests = guests(command(&self.state()));
            (is_here && guests == Ok(1)).then_some(())
        });
    }

    /// The file, held as a command or a sensor does it.
    fn hold(&self) -> Store {
        Store::open(&self.state(), DATABASE, 1 << 20).unwrap().store
    }
}

fn start(dir: &TempDir, agent: &FakeAgent) -> Program {
    let path = |name: &str| dir.path().join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command.args(["sense", "--vm", &agent.vm("g0")]);
    command.args(["--deliver", &format!("file:{}", path("out").display())]);
    command.arg("--state-dir").arg(path("state"));
    Program::start_logged(command, &path("log"))
}

fn command(state: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["fleet", "--json", "--state-dir"])
        .arg(state)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// How many guests a command lists, or what it says instead.
fn guests(command: Child) -> Result<usize, String> {
    let out = command.wait_with_output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let answer: Result<Value, _> = serde_json::from_str(&text);
    let guests = answer
        .ok()
        .and_then(|it| Some(it["guests"].as_array()?.len()));
    guests.ok_or_else(|| String::from_utf8_lossy(&out.stderr).into_owned())
}

/// The loss: a host without its sensor, because somebody looked at the fleet while it was started again.
#[test]
fn a_start_after_a_kill_waits_for_a_command_that_reads_the_file() {
    let mut rig = Rig::new();
    rig.sensor.kill();
    let held = rig.hold();
    rig.start_again();
    let log = rig.dir.path().join("log");
    eventually("it says that it waits", || {
        let log = fs::read_to_string(&log).ok()?;
        log.contains("waiting for whoever reads it").then_some(())
    });
    assert!(rig.sensor.runs());
    drop(held);
    rig.answers();
    assert!(rig.sensor.terminate().success());
}

#[test]
fn a_command_waits_for_a_sensor_that_does_not_answer_yet() {
    let mut rig = Rig::new();
    assert!(rig.sensor.terminate().success());
    let held = rig.hold();
    let mut waiting = command(&rig.state());
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.contains("sense.redb is in use by a sensor"), "{line}");
    drop(held);
    assert_eq!(guests(waiting), Ok(1));
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "it is said once");
}

#[test]
fn commands_at_any_moment_of_a_start_after_a_kill_are_answered_and_the_sensor_starts() {
    let mut rig = Rig::new();
    for round in 0..6 {
        rig.sensor.kill();
        let before: Vec<Child> = (0..2).map(|_| command(&rig.state())).collect();
        rig.start_again();
        let after: Vec<Child> = (0..2).map(|_| command(&rig.state())).collect();
        for command in before.into_iter().chain(after) {
            assert_eq!(guests(command), Ok(1), "round {round}");
        }
        rig.answers();
        assert!(rig.sensor.runs());
    }
    assert!(rig.sensor.terminate().success());
}
