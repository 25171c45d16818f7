//! `afferent sense` killed, with failing disks and with damaged files: nothing accepted into
//! pending is lost, nothing goes back, and no wrong byte is delivered.
//!
//! `AFFERENT_KILLS=200` makes the first one longer.

use crate::support::central::{Central, Received};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, status};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const GUESTS: usize = 5;

#[test]
fn killed_at_any_moment_it_loses_nothing_and_never_goes_back() {
    let kills: u32 = std::env::var("AFFERENT_KILLS").map_or(20, |n| n.parse().unwrap());
    let world = World::new();
    for n in 0..kills {
        let mut sense = world.sense();
        if n % 4 == 0 {
            world.central.answer_next(500, "");
            world.central.answer_next(429, "Retry-After: 1\r\n");
        }
        let agent = &world.agents[fastrand::usize(..GUESTS)];
        agent.install(&format!("package-{n}"));
        // Not to wait for something: the moment of the kill is what varies.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..150_000)));
        sense.kill();
    }
    world.everything_arrives();
}

#[test]
fn a_disk_that_fails_at_any_write_costs_a_repetition_and_nothing_else() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("skipped: strace is not installed");
        return;
    }
    let world = World::new();
    let faults = [
        ("fdatasync", "error=EIO"),
        ("pwrite64", "error=ENOSPC"),
        ("fdatasync", "signal=SIGKILL"),
        ("pwrite64", "signal=SIGKILL"),
    ];
    for (n, (call, fault)) in (1..4).flat_map(|n| faults.map(|f| (n * 3, f))) {
        let inject = format!("inject={call}:{fault}:when={n}");
        let trace = format!("trace={call}");
        let options = ["-e", trace.as_str(), "-e", inject.as_str()];
        let mut sense = Program::sense_under_strace(
            &options,
            &world.state,
            &world.central.url,
            &["--discover", &world.sockets],
        );
        for agent in &world.agents {
            agent.install(&format!("{call}-{n}"));
        }
        // The fault comes with one of the first commits; then it lives on, or is dead.
        let dead = eventually("the fault, or life after it", || {
            let lives = status(&world.state, &[]).0["service"] == "sense";
            (!sense.runs() || lives).then_some(!lives)
        });
        if !dead {
            std::thread::sleep(Duration::from_millis(200));
        }
        drop(sense);
        eventually("the database is free", || world.is_free().then_some(()));
    }
    world.everything_arrives();
}

#[test]
fn a_flipped_bit_in_its_file_is_never_delivered() {
    let world = World::new();
    for n in 0..12 {
        let mut sense = Program::sense(
            &world.state,
            "http://127.0.0.1:9",
            &["--discover", &world.sockets],
        );
        for agent in &world.agents {
            agent.install(&format!("flip-{n}"));
        }
        eventually("everything is pending", || {
            let (answer, _) = status(&world.state, &[]);
            let guests = answer["guests"].as_array()?;
            let is_newest = |guest: &&serde_json::Value| {
                guest["pending"]["key"].as_str() == guest["known"].as_str()
                    && guest["known"] == format!("77:{}", n + 2)
            };
            (guests.iter().filter(is_newest).count() == GUESTS).then_some(())
        });
        assert!(sense.terminate().success());
        let path = world.state.join("sense.redb");
        let mut bytes = fs::read(&path).unwrap();
        let at = fastrand::usize(..bytes.len());
        bytes[at] ^= 1 << fastrand::u8(..8);
        fs::write(&path, bytes).unwrap();
        let mut sense = world.sense();
        world.newest_is_delivered();
        assert!(sense.terminate().success());
    }
    world.everything_arrives();
}

#[test]
fn with_a_full_disk_it_goes_on_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=32m", "none"])
        .arg(&mount)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: not allowed to mount");
        return;
    }
    let _unmount = Unmount(mount.clone());
    let mut world = World::new();
    world.state = mount.join("state");
    let mut sense = world.sense();
    world.newest_is_delivered();
    fs::write(mount.join("ballast"), vec![1; 32 << 20]).unwrap_err();
    // Nothing leaves the queue meanwhile, so that there is no room in its file either.
    world.central.always_answer("", 503, "");
    for n in 0..3 {
        for agent in &world.agents {
            agent.change(|script| {
                script.generation += 1;
                let more = (0..6000).map(|i| format!("{n}-{i}-{:x}", fastrand::u128(..)));
                script.packages = more.collect();
                script.trigger = "reactive";
            });
        }
        eventually("refusals are shown", || {
            let (answer, _) = status(&world.state, &[]);
            let said = answer["reasons"].to_string();
            let is_told = said.contains("reports cannot be kept") && said.contains("no space");
            (answer["state"] == "degraded" && is_told).then_some(())
        });
    }
    assert!(sense.runs());
    fs::remove_file(mount.join("ballast")).unwrap();
    world.central.forget_rules();
    world.newest_is_delivered();
    eventually("the disk is well", || {
        let said = status(&world.state, &[]).0["reasons"].to_string();
        (!said.contains("cannot be kept")).then_some(())
    });
    assert!(sense.terminate().success());
    world.check_order();
}

/// Some guests, a sensor's state, and Central.
struct World {
    dir: tempfile::TempDir,
    agents: Vec<FakeAgent>,
    central: Central,
    state: std::path::PathBuf,
    sockets: String,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sockets = dir.path().join("guests");
        fs::create_dir(&sockets).unwrap();
        let agents = (0..GUESTS)
            .map(|n| FakeAgent::start(&sockets.join(format!("g{n}.sock")), Script::new()))
            .collect();
        Self {
            agents,
            central: Central::start(),
            state: dir.path().join("state"),
            sockets: sockets.display().to_string(),
            dir,
        }
    }

    fn sense(&self) -> Program {
        Program::sense(
            &self.state,
            &self.central.url,
            &["--discover", &self.sockets],
        )
    }

    fn is_free(&self) -> bool {
        match fs::File::open(self.state.join("sense.redb")) {
            Ok(file) => file.try_lock().is_ok(),
            // It was killed before it could begin one.
            Err(_) => true,
        }
    }

    /// Central has the newest report of every guest.
    fn newest_is_delivered(&self) {
        for (n, agent) in self.agents.iter().enumerate() {
            let (generation, packages) = agent.now();
            let key = format!("g{n}/77/{generation}");
            let last = eventually(&format!("{key} is delivered"), || {
                let all = self.central.received();
                all.into_iter()
                    .rev()
                    .find(|r| r.report() == key && r.answered == 200)
            });
            assert_eq!(packages_of(&last), packages);
        }
    }

    /// After one more start everything arrives, in order, and equal keys have equal content.
    fn everything_arrives(&self) {
        let mut sense = self.sense();
        self.newest_is_delivered();
        eventually("nothing is pending", || {
            let (answer, _) = status(&self.state, &[]);
            let pending = &answer["pending"];
            (pending["reactive"] == 0 && pending["routine"] == 0).then_some(())
        });
        assert!(sense.terminate().success());
        self.check_order();
        assert!(self.dir.path().exists());
    }

    fn check_order(&self) {
        let mut newest = HashMap::<String, u64>::new();
        let mut contents = HashMap::<String, Vec<String>>::new();
        for received in self.central.received() {
            let vm = received.body["vm"]["id"].as_str().unwrap().to_owned();
            let generation = received.body["meta"]["generation"].as_u64().unwrap();
            let before = newest.insert(vm.clone(), generation).unwrap_or(0);
            assert!(before <= generation, "{vm} went back to {generation}");
            let packages = packages_of(&received);
            let same = contents
                .entry(received.key.clone())
                .or_insert_with(|| packages.clone());
            assert_eq!(*same, packages, "{} has two contents", received.key);
        }
    }
}

fn packages_of(received: &Received) -> Vec<String> {
    let packages = received.body["report"]["packages"].as_array().unwrap();
    let names = packages
        .iter()
        .map(|p| p["name"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let path: &Path = &self.0;
        let _ = Command::new("umount").arg("-l").arg(path).status();
    }
}
