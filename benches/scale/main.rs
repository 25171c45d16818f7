//! Many sensors on one stream: three real nats-servers, four real sensors, simulated guests, and the example of a
//! consumer; then everything that may break, breaks.
//!
//! `make scale` (or `cargo bench --bench scale` with `SCALE_PYTHON`, a python with nats-py). `SCALE_GUESTS` guests,
//! 10,000 unless told otherwise, with reports of 600 packages. What is printed is measured in this run, on this machine,
//! where all of it shares the processors.

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
mod consumer;
#[path = "../fleet/guests.rs"]
mod guests;
mod nats;
#[path = "../support/process.rs"]
mod process;
#[path = "../fleet/sensor.rs"]
mod sensor;

use consumer::{Consumer, Row};
use guests::Guests;
use nats::Cluster;
use sensor::Sensor;
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const SENSORS: u32 = 4;

/// In which everything must have arrived after a fault.
const PATIENCE: Duration = Duration::from_secs(300);

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--simulate") {
        return guests::simulate(&args[at + 1..]);
    }
    if consumer::python().is_none() {
        println!("scale: skipped, there is no python with nats-py: `make scale` brings one");
        return;
    }
    let count: u32 = std::env::var("SCALE_GUESTS").map_or(10_000, |n| n.parse().unwrap());
    let mut scale = Scale::start(count);
    println!("{count} guests of 600 packages, {SENSORS} sensors, three nats-servers, three copies");
    scale.measure_first();
    scale.measure_latency();

    let leader = scale.cluster.leader();
    scale.fault("kill -9 of the stream's leader, back after 5 s", |it| {
        it.cluster.kill(leader);
        pause(5);
        it.cluster.again(leader);
    });
    scale.fault("kill -9 of a sensor, back after 5 s", |it| {
        it.sensors[0].kill();
        pause(5);
        it.sensors[0].again();
    });
    scale.fault("kill -9 of the consumer, back after 5 s", |it| {
        it.consumer.kill();
        pause(5);
        it.consumer.again();
    });
    let leader = scale.cluster.leader();
    scale.fault("the leader hears nothing for 15 s", |it| {
        it.cluster.signal(leader, "STOP");
        pause(15);
        it.cluster.signal(leader, "CONT");
    });
    scale.fault("guests move to another sensor, and change there", |it| {
        it.move_guests(0, 1, it.count / 50);
    });
    scale.full_disk();
}

fn pause(seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
}

struct Scale {
    count: u32,
    dir: tempfile::TempDir,
    mounted: Vec<PathBuf>,
    cluster: Cluster,
    guests: Vec<Guests>,
    sensors: Vec<Sensor>,
    consumer: Consumer,
    /// How often each guest was told to change.
    told: HashMap<u32, u32>,
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
        let deliver = format!(
            "nats://{}?stream={}&replicas=3",
            cluster.addresses(),
            nats::STREAM
        );
        for n in 0..SENSORS {
            let home = dir.path().join(format!("s{n}"));
            fs::create_dir(&home).unwrap();
            let nth = |n: u32| n * count / SENSORS;
            guests.push(Guests::start(&home, nth(n)..nth(n + 1), true));
            let id = format!("sensor-{n}");
            let more = ["--sensor-id", &id, "--poll-interval", "5m"];
            sensors.push(Sensor::start(&home, "state", &deliver, &more));
        }
        let consumer = Consumer::start(&cluster.addresses(), &dir.path().join("newest.sqlite"));
        Self {
            count,
            dir,
            mounted,
            cluster,
            guests,
            sensors,
            consumer,
            told: HashMap::new(),
            started,
        }
    }

    fn measure_first(&mut self) {
        let took = self.until_equal(self.started);
        let bytes = self.cluster.info().map_or(0, |info| {
            info["state"]["bytes"].as_u64().unwrap_or_default()
        });
        println!(
            "first report of every guest in the table: {took:.1?}, {:.0} a second; {} bytes a report in the stream",
            f64::from(self.count) / took.as_secs_f64(),
            bytes / u64::from(self.count)
        );
    }

    /// Twenty changes a second, each of another guest.
    fn measure_latency(&mut self) {
        let changes = 400.min(self.count);
        let each = self.count / changes;
        for n in 0..changes {
            self.change(n * each..n * each + 1);
            std::thread::sleep(Duration::from_millis(50));
        }
        self.until_equal(Instant::now());
        let rows = self.consumer.rows();
        let changed_at = self.changed_at();
        let mut times: Vec<i64> = (0..changes)
            .map(|n| n * each)
            .map(|n| {
                let changed_at = changed_at[&(n, self.told[&n] + 1)] / 1_000_000;
                rows[&n].stored_at - changed_at as i64
            })
            .collect();
        times.sort_unstable();
        println!(
            "20 changes a second, change to row in the table: p50 {} ms, p99 {} ms",
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
    }

    /// Lets something happen while a tenth of the guests change; afterwards the table is what the guests have.
    fn fault(&mut self, what: &str, happen: impl FnOnce(&mut Self)) {
        let tenth = self.count / 10;
        let first = fastrand::u32(0..self.count - tenth);
        self.change(first..first + tenth / 2);
        happen(self);
        let well = Instant::now();
        self.change(first + tenth / 2..first + tenth);
        let took = self.until_equal(well);
        println!("{what}: everything in the table {took:.1?} after it was over");
    }

    /// The disk under one server is full, and that server is started again when there is room.
    fn full_disk(&mut self) {
        if self.mounted.is_empty() {
            println!("a full disk under JetStream: skipped, not allowed to mount");
            return;
        }
        let leader = self.cluster.leader();
        self.fault(
            "the leader's disk is full for 10 s, and it is started again",
            |it| {
                let ballast = it.cluster.store(leader).join("ballast");
                let filled = Command::new("dd")
                    .args(["if=/dev/zero", "bs=1M", "status=none"])
                    .arg(format!("of={}", ballast.display()))
                    .stderr(std::process::Stdio::null())
                    .status();
                assert!(!filled.unwrap().success(), "the disk is not full");
                let half = it.count / 2;
                it.change(half..half + it.count / 10);
                pause(10);
                fs::remove_file(ballast).unwrap();
                it.cluster.kill(leader);
                it.cluster.again(leader);
            },
        );
    }

    /// Guests of one sensor are found by another one from now on, and change meanwhile.
    fn move_guests(&mut self, from: usize, to: usize, count: u32) {
        let place = |sensor: usize, n: u32| {
            let sockets = self.dir.path().join(format!("s{sensor}/guests"));
            sockets.join(format!("g-{n}.sock"))
        };
        for n in 0..count {
            fs::rename(place(from, n), place(to, n)).unwrap();
        }
        self.change(0..count);
    }

    fn change(&mut self, guests: std::ops::Range<u32>) {
        let line = format!("change {} {}", guests.start, guests.end);
        self.guests.iter().for_each(|it| it.tell(&line));
        for n in guests {
            *self.told.entry(n).or_default() += 1;
        }
    }

    fn changed_at(&self) -> HashMap<(u32, u32), u128> {
        self.guests.iter().flat_map(Guests::changes).collect()
    }

    /// Waits until the table is what the guests have: none older, none missing. Says how long after `from`.
    fn until_equal(&self, from: Instant) -> Duration {
        let until = Instant::now() + PATIENCE;
        loop {
            let rows = self.consumer.rows();
            let is_newest = |n: &u32| {
                let generation = self.told.get(n).copied().unwrap_or(0) + 1;
                let number = u64::from(*n) * 1000 + u64::from(generation);
                let has = |row: &Row| {
                    row.generation == generation && row.changing == format!("{number:010}-1")
                };
                rows.get(n).is_some_and(has)
            };
            let behind: Vec<u32> = (0..self.count).filter(|n| !is_newest(n)).collect();
            if behind.is_empty() {
                return from.elapsed();
            }
            assert!(
                Instant::now() < until,
                "{} of {} guests are not in the table as they are: {:?}; {:?}",
                behind.len(),
                self.count,
                &behind[..behind.len().min(10)],
                rows.get(&behind[0])
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Scale {
    fn drop(&mut self) {
        for server in 0..3 {
            let _ = fs::remove_file(self.cluster.store(server).join("ballast"));
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
