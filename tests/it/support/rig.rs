//! A guest, its agent, its sensor and where that delivers to, each half of the version that a test wants.

use super::agent::{Agent, Launch};
use super::central::Central;
use super::nats_server::NatsServer;
use super::program::Program;
use super::rpm_root::{RpmRoot, Spec};
use super::tap::{End, Tap};
use super::{eventually, eventually_or, old};
use Version::{New, Old};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The guest's name at the sensor.
pub const GUEST: &str = "guest";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Old,
    New,
}

impl Version {
    pub fn program(self) -> PathBuf {
        match self {
            Old => old::binary().unwrap(),
            New => env!("CARGO_BIN_EXE_afferent").into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    pub agent: Version,
    pub sensor: Version,
}

pub const PAIRS: [Pair; 4] = [
    pair(Old, Old),
    pair(Old, New),
    pair(New, Old),
    pair(New, New),
];

pub const fn pair(agent: Version, sensor: Version) -> Pair {
    Pair { agent, sensor }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "agent {:?}, sensor {:?}", self.agent, self.sensor)
    }
}

/// One of both halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Half {
    Agent,
    Sensor,
}

/// Where reports go.
pub enum Door {
    Central(Central),
    Stream(NatsServer),
}

impl Door {
    pub fn url(&self) -> String {
        match self {
            Self::Central(central) => central.url.clone(),
            Self::Stream(server) => server.url(),
        }
    }

    /// The packages of the guest as whoever reads there sees them: those of the newest report taken.
    pub fn packages(&self) -> Option<BTreeSet<String>> {
        match self {
            Self::Central(central) => {
                let received = central.received();
                let reports = received.iter().rev().filter(|r| r.answered == 200);
                reports.map(|r| &r.body).find_map(packages)
            }
            Self::Stream(server) => {
                let (_, names) = server.consumer().newest(GUEST)?.now();
                Some(names.into_iter().collect())
            }
        }
    }
}

/// The packages of a document, if it brings a report and not facts alone.
pub fn packages(document: &Value) -> Option<BTreeSet<String>> {
    let packages = document["report"]["packages"].as_array()?.iter();
    let names = packages.map(|package| package["name"].as_str().unwrap().to_owned());
    Some(names.collect())
}

/// A guest with an rpm database, its agent, its sensor, and where that delivers to.
pub struct Rig {
    pub root: RpmRoot,
    pub installed: BTreeSet<String>,
    pub built: usize,
    pub launch: Launch,
    pub agent: Option<Agent>,
    pub tap: Tap,
    pub sensor: Option<Program>,
    pub flags: &'static [&'static str],
    pub door: Door,
}

impl Rig {
    /// Both halves are there and the first report has arrived.
    pub fn start(pair: Pair) -> Self {
        Self::start_with(pair, &[], Door::Central(Central::start()))
    }

    /// The same with these flags of the sensor.
    pub fn start_with(pair: Pair, flags: &'static [&'static str], door: Door) -> Self {
        let mut rig = Self::prepare(flags, door);
        rig.start_agent(&pair.agent.program());
        rig.start_sensor(&pair.sensor.program());
        rig.arrives();
        rig.is_waited_at(0);
        // Both are what they should be.
        let first = &rig.tap.exchanges()[0];
        assert_eq!(first.is_new_sensor, pair.sensor == New, "{pair}");
        assert_eq!(rig.newest().is_new_agent, pair.agent == New, "{pair}");
        rig
    }

    pub fn prepare(flags: &'static [&'static str], door: Door) -> Self {
        let root = RpmRoot::new();
        let machine_id = "0123456789abcdef0123456789abcdef\n";
        fs::write(root.path().join("etc/machine-id"), machine_id).unwrap();
        let launch = Launch::on(root.path());
        let tap = Tap::start(launch.home().join("tap"), launch.home().join("socket"));
        let mut rig = Self {
            root,
            installed: BTreeSet::new(),
            built: 0,
            launch,
            agent: None,
            tap,
            sensor: None,
            flags,
            door,
        };
        let file = rig.build();
        rig.root.install(&[file]);
        rig
    }

    pub fn start_agent(&mut self, program: &Path) {
        assert!(self.agent.is_none());
        self.launch.set_program(program);
        let mut agent = self.launch.spawn();
        eventually("the agent listens", || {
            assert!(agent.runs(), "the agent ended:\n{}", agent.log());
            agent.connect().ok()
        });
        self.agent = Some(agent);
    }

    pub fn start_sensor(&mut self, program: &Path) {
        assert!(self.sensor.is_none());
        let state = self.sensor_state().display().to_string();
        let vm = format!("{GUEST}=unix:{}", self.tap.path.display());
        let url = self.door.url();
        let args = ["sense", "--state-dir", &state, "--deliver", &url];
        let args = [&args[..], &["--vm", &vm], self.flags].concat();
        self.sensor = Some(Program::start_other(program, &args));
    }

    pub fn start_half(&mut self, half: Half, version: Version) {
        match half {
            Half::Agent => self.start_agent(&version.program()),
            Half::Sensor => self.start_sensor(&version.program()),
        }
    }

    /// SIGTERM, or SIGKILL.
    pub fn stop(&mut self, half: Half, is_kill: bool) {
        match (half, is_kill) {
            (Half::Agent, true) => self.agent.take().unwrap().kill(),
            (Half::Agent, false) => assert!(self.agent.take().unwrap().terminate().success()),
            (Half::Sensor, true) => self.sensor.take().unwrap().kill(),
            (Half::Sensor, false) => assert!(self.sensor.take().unwrap().terminate().success()),
        }
    }

    pub fn sensor_state(&self) -> PathBuf {
        self.launch.home().join("sense")
    }

    pub fn central(&self) -> &Central {
        match &self.door {
            Door::Central(central) => central,
            Door::Stream(_) => panic!("delivers to a stream"),
        }
    }

    /// Builds the next package; it counts as installed from now on.
    pub fn build(&mut self) -> PathBuf {
        self.built += 1;
        let name = format!("package-{}", self.built);
        let file = self.root.build(&Spec {
            name: &name,
            ..Spec::default()
        });
        self.installed.insert(name);
        file
    }

    /// One more package.
    pub fn install(&mut self) {
        let file = self.build();
        self.root.install(&[file]);
    }

    /// Takes the newest package away.
    pub fn erase(&mut self) {
        let name = format!("package-{}", self.built);
        self.root.erase(&[&name]);
        assert!(self.installed.remove(&name));
    }

    /// Waits until what is installed is what is known at the door.
    pub fn arrives(&self) {
        eventually_or(
            || (self.door.packages().as_ref() == Some(&self.installed)).then_some(()),
            || {
                panic!(
                    "at the door is {:?} and not {:?}; said was {:#?}",
                    self.door.packages(),
                    self.installed,
                    self.tap.exchanges()
                )
            },
        );
    }

    /// One more package, and how long it takes from the end of `rpm` until it has arrived.
    pub fn change(&mut self) -> Duration {
        let file = self.build();
        self.root.install(&[file]);
        let installed = Instant::now();
        self.arrives();
        installed.elapsed()
    }

    /// Full reports that were exchanged so far.
    pub fn fulls(&self) -> usize {
        self.tap.fulls().len()
    }

    /// The newest answer of the agent.
    pub fn newest(&self) -> End {
        self.tap.newest().unwrap()
    }

    /// Waits until the sensor holds a wait that it asked for after this many exchanges.
    pub fn is_waited_at(&self, from: usize) {
        eventually_or(
            || self.tap.is_waiting(from).then_some(()),
            || panic!("no wait; said was {:#?}", self.tap.exchanges()),
        );
    }
}

/// Whether 0.1.0 is not here.
pub fn is_skipped() -> bool {
    let skipped = old::binary().is_none();
    if skipped {
        println!("skipped: version 0.1.0 is not here; `make v0.1.0` builds it");
    }
    skipped
}
