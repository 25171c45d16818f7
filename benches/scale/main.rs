//! Many sensors on one stream: three real nats-servers, four real sensors, simulated guests, and two consumers: the
//! example in Python and the fleet service; then everything that may break, breaks.
//!
//! `make scale` (or `cargo bench --bench scale` with `SCALE_PYTHON`, a python with nats-py). `SCALE_GUESTS` guests,
//! 10,000 unless told otherwise, with reports of 600 packages. What is printed is measured in this run, on this machine,
//! where all of it shares the processors. Every fault is proven to have happened: a fault that broke nothing fails.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the numbers are the result, and what the sensors complain about belongs beside them"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench that cannot run has no result"
)]
#![allow(
    unreachable_pub,
    dead_code,
    reason = "one program, of which a part is shared"
)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of guests are small"
)]

#[path = "../fleet/central.rs"]
mod central;
mod faults;
#[path = "../fleet/guests.rs"]
mod guests;
mod nats;
#[path = "../support/process.rs"]
mod process;
mod python;
mod reader;
#[path = "../fleet/sensor.rs"]
mod sensor;
mod table;

use guests::Guests;
use nats::Cluster;
use python::PythonConsumer;
use reader::FleetService;
use sensor::Sensor;
use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use table::{Row, Table};

const SENSORS: u32 = 4;
const PACKAGES: u32 = 600;

/// In which everything must have arrived after a fault.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--simulate") {
        return guests::simulate(&args[at + 1..]);
    }
    if python::python().is_none() {
        println!("scale: skipped, there is no python with nats-py: `make scale` brings one");
        return;
    }
    let count: u32 = std::env::var("SCALE_GUESTS").map_or(10_000, |n| n.parse().unwrap());
    assert!(count >= 200, "SCALE_GUESTS={count}: at least 200");
    let mut scale = Scale::start(count);
    println!(
        "{count} guests of {PACKAGES} packages, {SENSORS} sensors, three nats-servers, three copies, two consumers"
    );
    scale.measure_first();
    scale.measure_catching_up();
    scale.measure_latency();
    scale.break_everything();
    let taken = ["taken", "older", "unmatched", "ignored", "bad"];
    let taken = taken.map(|outcome| (outcome, scale.fleet.documents(outcome)));
    println!("documents of the fleet service since its last start: {taken:?}");
    assert_eq!(taken[4].1, 0, "documents that it could not read");
    println!(
        "memory of the nats-servers: {:?} MiB",
        scale.cluster.rss_mib()
    );
}

/// The time after which each table was what the guests have.
struct Equal {
    python: Duration,
    fleet: Duration,
}

impl std::fmt::Display for Equal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (python, fleet) = (self.python, self.fleet);
        write!(
            f,
            "{} {python:.1?}, {} {fleet:.1?}",
            PythonConsumer::NAME,
            FleetService::NAME
        )
    }
}

struct Scale {
    count: u32,
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
    cluster: Cluster,
    guests: Vec<Guests>,
    sensors: Vec<Sensor>,
    python: PythonConsumer,
    fleet: FleetService,
    /// How often each guest was told to change.
    told: Mutex<HashMap<u32, u32>>,
    started: Instant,
}

impl Scale {
    fn start(count: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Before there is a cluster that keeps something in them.
        let mounted = mount_stores(&dir.path().join("nats"));
        let cluster = Cluster::start(&dir.path().join("nats"), 3);
        let (mut guests, mut sensors) = (Vec::new(), Vec::new());
        let started = Instant::now();
        let servers = cluster.addresses();
        let deliver = format!("nats://{servers}?stream={}&replicas=3", nats::STREAM);
        for n in 0..SENSORS {
            let home = dir.path().join(format!("s{n}"));
            fs::create_dir(&home).unwrap();
            let nth = |n: u32| n * count / SENSORS;
            guests.push(Guests::start(&home, nth(n)..nth(n + 1), true));
            let id = sensor_id(n);
            let more = ["--sensor-id", &id, "--poll-interval", "5m"];
            sensors.push(Sensor::start(&home, "state", &deliver, &more));
        }
        let db = dir.path().join("newest.sqlite");
        let state = dir.path().join("fleet");
        Self {
            python: PythonConsumer::start(&servers, &db, "newest-reports"),
            fleet: FleetService::start(&servers, nats::STREAM, &state),
            count,
            dir,
            mounted,
            cluster,
            guests,
            sensors,
            told: Mutex::default(),
            started,
        }
    }

    fn measure_first(&mut self) {
        let equal = self.until_equal(self.started);
        let rate = |took: Duration| f64::from(self.count) / took.as_secs_f64();
        println!(
            "first report of every guest in the table: {equal}; {:.0} and {:.0} a second",
            rate(equal.python),
            rate(equal.fleet)
        );
        let info = self.cluster.info().unwrap_or_default();
        let bytes = info["state"]["bytes"].as_u64().unwrap_or_default();
        let each = bytes as f64 / f64::from(self.count);
        println!("{each:.0} bytes a report in the stream");
        // On paper: so many messages a second, and gigabytes a day, of a million guests.
        for (what, a_day) in [
            ("a refresh every 4 h", 6.0),
            ("a refresh every 168 h", 1.0 / 7.0),
            ("one change of each guest a day", 1.0),
        ] {
            println!(
                "  a million guests, {what}: {:.1} messages and {:.2} MB a second, {:.0} GB a day",
                a_day * 1e6 / 86_400.0,
                a_day * each / 86_400.0,
                a_day * each * 1e6 / 1e9
            );
        }
    }

    /// How fast consumers are that have nothing yet, one after the other, while nothing changes.
    fn measure_catching_up(&self) {
        let servers = self.cluster.addresses();
        let db = self.dir.path().join("second.sqlite");
        let from = Instant::now();
        self.measure_one(from, &PythonConsumer::start(&servers, &db, "second"));
        let state = self.dir.path().join("second-fleet");
        let from = Instant::now();
        self.measure_one(from, &FleetService::start(&servers, nats::STREAM, &state));
    }

    fn measure_one<T: Table>(&self, from: Instant, table: &T) {
        while !self.is_equal(table) {
            assert!(from.elapsed() < PATIENCE, "{} reads nothing", T::NAME);
            std::thread::sleep(Duration::from_millis(20));
        }
        let (took, cpu) = (from.elapsed(), process::cpu(table.pid()));
        println!(
            "a new consumer reads the stream, {}: {took:.1?}, {:.0} a second, CPU {:.0?} a report, RSS {} MiB",
            T::NAME,
            f64::from(self.count) / took.as_secs_f64(),
            cpu / self.count,
            process::rss_kib(table.pid()) / 1024
        );
    }

    /// Twenty changes a second, each of another guest.
    fn measure_latency(&mut self) {
        let changes = 400.min(self.count);
        let each = self.count / changes;
        let (fleet, stop) = (&self.fleet, AtomicBool::new(false));
        let after = fleet.newest_change();
        let cpu = |table: u32| process::cpu(table);
        let before = (cpu(self.python.pid()), cpu(fleet.pid()));
        let answered = std::thread::scope(|scope| {
            let answered = scope.spawn(|| fleet.watch(after, &stop));
            for n in 0..changes {
                self.change(n * each..n * each + 1);
                std::thread::sleep(Duration::from_millis(50));
            }
            self.until_equal(Instant::now());
            stop.store(true, Ordering::Relaxed);
            answered.join().unwrap()
        });
        let stored_at = self.python.stored_at();
        let changed_at = self.changed_at();
        let (mut python, mut fleet) = (Vec::new(), Vec::new());
        for n in (0..changes).map(|n| n * each) {
            let key = (n, self.generation(n));
            let changed_at = (changed_at[&key] / 1_000_000) as i64;
            python.push(stored_at[&n] - changed_at);
            fleet.push((answered[&key] / 1_000_000) as i64 - changed_at);
        }
        for (name, times, pid, before) in [
            (
                PythonConsumer::NAME,
                &mut python,
                self.python.pid(),
                before.0,
            ),
            (FleetService::NAME, &mut fleet, self.fleet.pid(), before.1),
        ] {
            times.sort_unstable();
            println!(
                "20 changes a second, change to {name}: p50 {} ms, p99 {} ms; its CPU {:.1?} a change",
                times[times.len() / 2],
                times[times.len() * 99 / 100],
                (cpu(pid) - before) / changes
            );
        }
    }

    fn change(&self, guests: Range<u32>) {
        let line = format!("change {} {}", guests.start, guests.end);
        self.guests.iter().for_each(|it| it.tell(&line));
        let mut told = self.told.lock().unwrap();
        for n in guests {
            *told.entry(n).or_default() += 1;
        }
    }

    /// The generation that a guest has.
    fn generation(&self, guest: u32) -> u32 {
        self.told.lock().unwrap().get(&guest).copied().unwrap_or(0) + 1
    }

    fn changed_at(&self) -> HashMap<(u32, u32), u128> {
        self.guests.iter().flat_map(Guests::changes).collect()
    }

    /// Guests of which a table has something else than they have, or nothing.
    fn behind(&self, table: &impl Table, guests: Range<u32>) -> Vec<u32> {
        let held = table.generations();
        let is_behind = |n: &u32| held.get(n) != Some(&self.generation(*n));
        guests.filter(is_behind).collect()
    }

    fn is_equal(&self, table: &impl Table) -> bool {
        self.behind(table, 0..self.count).is_empty()
    }

    /// Waits until both tables are what the guests have: none older, none missing. Says how long after `from`.
    fn until_equal(&self, from: Instant) -> Equal {
        let until = Instant::now() + PATIENCE;
        let (mut python, mut fleet) = (None, None);
        loop {
            let looked = Instant::now();
            if python.is_none() && self.is_equal(&self.python) {
                python = Some(from.elapsed());
            }
            if fleet.is_none() && self.is_equal(&self.fleet) {
                fleet = Some(from.elapsed());
            }
            if let (Some(python), Some(fleet)) = (python, fleet) {
                self.assert_equal(&self.python);
                self.assert_equal(&self.fleet);
                return Equal { python, fleet };
            }
            let is_late = Instant::now() > until;
            assert!(!is_late || python.is_some(), "{}", self.lack(&self.python));
            assert!(!is_late || fleet.is_some(), "{}", self.lack(&self.fleet));
            // Looking takes time that others need.
            std::thread::sleep(Duration::from_millis(50).max(2 * looked.elapsed()));
        }
    }

    /// Every row in full.
    fn assert_equal<T: Table>(&self, table: &T) {
        let mut rows = table.rows();
        for n in 0..self.count {
            let generation = self.generation(n);
            let number = u64::from(n) * 1000 + u64::from(generation);
            let has = Row {
                epoch: n + 1,
                generation,
                packages: PACKAGES,
                changing: format!("{number:010}-1"),
            };
            assert_eq!(rows.remove(&n), Some(has), "{}: guest {n}", T::NAME);
        }
        assert!(rows.is_empty(), "{}: guests that are none", T::NAME);
    }

    fn lack<T: Table>(&self, table: &T) -> String {
        let behind = self.behind(table, 0..self.count);
        let some = &behind[..behind.len().min(10)];
        format!(
            "{}: {} of {} guests are not in the table as they are: {some:?}",
            T::NAME,
            behind.len(),
            self.count
        )
    }
}

/// The name of a sensor in its documents.
fn sensor_id(n: u32) -> String {
    format!("sensor-{n}")
}

impl Drop for Scale {
    fn drop(&mut self) {
        for server in 0..3 {
            self.cluster.make_room(server);
        }
        self.sensors.clear();
        self.guests.clear();
        for place in &self.mounted {
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}

/// Gives each server a small disk of its own, where that is allowed.
fn mount_stores(nats: &std::path::Path) -> Vec<PathBuf> {
    let mut mounted = Vec::new();
    for n in 0..3 {
        let place = nats.join(n.to_string()).join("store");
        fs::create_dir_all(&place).unwrap();
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=3g", "none"])
            .arg(&place);
        if !mount.status().is_ok_and(|status| status.success()) {
            break;
        }
        mounted.push(place);
    }
    mounted
}
