//! What breaks, one thing after the other, with the proof that it did.

use super::table::Table;
use super::{PATIENCE, Scale, sensor_id};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// How long most faults last.
const LASTS: Duration = Duration::from_secs(5);

/// How long a process hears nothing, or its disk is full.
const LASTS_LONG: Duration = Duration::from_secs(15);

impl Scale {
    pub fn break_everything(&mut self) {
        let leader = self.cluster.leader();
        self.fault(
            "kill -9 of the stream's leader, back after another leads",
            |it, during| {
                it.cluster.kill(leader);
                it.change(during);
                it.cluster.leader_but(Some(leader));
                it.cluster.again(leader);
            },
        );
        self.fault("kill -9 of a sensor, back after 5 s", |it, during| {
            let sensor = it.sensor_of(during.start);
            it.sensors[sensor].kill();
            it.change(during.clone());
            std::thread::sleep(LASTS);
            let behind = it.behind(&it.python, during);
            assert!(!behind.is_empty(), "what changed came all the same");
            it.sensors[sensor].again();
        });
        self.fault(
            "kill -9 of the consumer in Python, back after 5 s",
            |it, during| {
                it.python.kill();
                it.change(during.clone());
                std::thread::sleep(LASTS);
                assert_eq!(it.behind(&it.python, during.clone()).len(), during.len());
                it.python.again();
            },
        );
        self.fault(
            "kill -9 of the fleet service, back after 5 s",
            |it, during| {
                it.fleet.kill();
                it.change(during);
                std::thread::sleep(LASTS);
                assert!(it.fleet.generations().is_empty(), "something answers");
                it.fleet.again();
            },
        );
        let leader = self.cluster.leader();
        self.fault(
            "the leader hears nothing for 15 s, and nobody hears it",
            |it, during| {
                let from = Instant::now();
                signal(it.cluster.pid(leader), "STOP");
                it.change(during);
                // The others hold it for lost.
                it.cluster.leader_but(Some(leader));
                std::thread::sleep(LASTS_LONG.saturating_sub(from.elapsed()));
                signal(it.cluster.pid(leader), "CONT");
            },
        );
        self.fault(
            "guests move to another sensor, and change there",
            |it, _| {
                let guests = 0..it.count / 50;
                it.move_guests(0, 1, guests.clone());
                let until = Instant::now() + PATIENCE;
                // A change may still come over the waits that the sensor before holds with them.
                while it.python.sensors(&guests) != [sensor_id(1)].into() {
                    assert!(Instant::now() < until, "they are not found there");
                    it.change(guests.clone());
                    it.until_equal(Instant::now());
                }
            },
        );
        self.late_delivery();
        self.full_disk();
    }

    /// Lets something happen while a tenth of the guests change: a part before, a part while it lasts (the closure
    /// has them change), a part when it is over. Afterwards the tables are what the guests have.
    fn fault(&mut self, what: &str, happen: impl FnOnce(&mut Self, Range<u32>)) {
        let part = self.count / 30;
        let first = fastrand::u32(0..self.count - 3 * part);
        self.change(first..first + part);
        happen(self, first + part..first + 2 * part);
        let well = Instant::now();
        self.change(first + 2 * part..first + 3 * part);
        let equal = self.until_equal(well);
        println!("{what}: everything in the table {equal} after it was over");
    }

    /// The sensor that finds a guest.
    fn sensor_of(&self, guest: u32) -> usize {
        let has_it = |n: &usize| self.socket(*n, guest).exists();
        (0..self.sensors.len()).find(has_it).unwrap()
    }

    /// Where a sensor finds a guest.
    fn socket(&self, sensor: usize, guest: u32) -> PathBuf {
        let sockets = self.dir.path().join(format!("s{sensor}/guests"));
        sockets.join(format!("g-{guest}.sock"))
    }

    /// Guests of one sensor are found by another one from now on.
    fn move_guests(&self, from: usize, to: usize, guests: Range<u32>) {
        for n in guests {
            fs::rename(self.socket(from, n), self.socket(to, n)).unwrap();
        }
    }

    /// A sensor stands still with reports that it has not delivered, while its guests move and change again; what
    /// it delivers later is older than what the tables have, and changes nothing there.
    fn late_delivery(&mut self) {
        let old = self.sensors.len() - 1;
        let guests = self.count - self.count / 5..self.count;
        let pulled = self.sensors[old].durable_count();
        self.change(guests.clone());
        while self.sensors[old].durable_count() == pulled {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(self.sensors[old].pid(), "STOP");
        self.move_guests(old, 0, guests.clone());
        self.change(guests.clone());
        self.until_equal(Instant::now());
        assert_eq!(self.python.sensors(&guests), [sensor_id(0)].into());
        let older = self.fleet.documents("older");
        signal(self.sensors[old].pid(), "CONT");
        self.sensors[old].settle();
        self.until_equal(Instant::now());
        let late = self.fleet.documents("older") - older;
        println!(
            "guests move while their sensor stands still with what it pulled: {late} older reports came late, and no \
             table went back"
        );
    }

    /// The disk under one server is full, and that server is started again when there is room.
    fn full_disk(&mut self) {
        if self.mounted.is_empty() {
            println!("a full disk under JetStream: skipped, not allowed to mount");
            return;
        }
        let leader = self.cluster.leader();
        let what = "the leader's disk is full for 15 s, and it is started again";
        self.fault(what, |it, during| {
            it.cluster.fill(leader);
            let (from, stored) = (Instant::now(), it.cluster.stored(leader));
            it.change(during.clone());
            while from.elapsed() < LASTS_LONG {
                std::thread::sleep(Duration::from_millis(100));
                // What the server has removed makes no room.
                it.cluster.fill(leader);
            }
            let more = it.cluster.stored(leader).saturating_sub(stored);
            assert!(more < 50_000, "it has written {more} bytes to a full disk");
            let came = during.len() - it.behind(&it.python, during.clone()).len();
            println!(
                "  while its disk was full the leader wrote {more} bytes, and {came} of {} changes came",
                during.len()
            );
            it.cluster.make_room(leader);
            it.cluster.kill(leader);
            it.cluster.again(leader);
        });
    }
}

/// Sends a signal to a process, and waits until it shows: STOP is as good as a partition, CONT its end.
fn signal(pid: u32, signal: &str) {
    let mut kill = Command::new("kill");
    let sent = kill
        .args([&format!("-{signal}"), &pid.to_string()])
        .status();
    assert!(sent.unwrap().success());
    let is_stopped = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.starts_with(" T")
    };
    let until = Instant::now() + Duration::from_secs(10);
    while is_stopped() != (signal == "STOP") {
        assert!(Instant::now() < until, "process {pid} after {signal}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
