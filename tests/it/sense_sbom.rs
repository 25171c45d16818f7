//! `afferent sense --deliver sbom:DIR`: a bill of materials of every guest, whole at every moment.

use crate::support::agent::Launch;
use crate::support::documents;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::fixtures;
use crate::support::program::{Program, status};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

struct World {
    dir: tempfile::TempDir,
    agents: Vec<FakeAgent>,
}

impl World {
    fn new(guests: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("guests")).unwrap();
        fs::create_dir(dir.path().join("sboms")).unwrap();
        let socket = |n| dir.path().join(format!("guests/web-{n}.sock"));
        let agents = (0..guests).map(|n| FakeAgent::start(&socket(n), Script::new()));
        Self {
            agents: agents.collect(),
            dir,
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sense(&self, more: &[&str]) -> Program {
        let deliver = format!("sbom:{}", self.place("sboms").display());
        let guests = self.place("guests").display().to_string();
        let args = [&["--discover", &guests], more].concat();
        Program::sense(&self.place("state"), &deliver, &args)
    }

    fn file(&self, guest: usize) -> PathBuf {
        self.place(&format!("sboms/web-{guest}.cdx.json"))
    }

    /// Every file has the packages of its guest.
    fn all_are_there(&self) {
        for (n, agent) in self.agents.iter().enumerate() {
            let (_, packages) = agent.now();
            eventually(&format!("the file of web-{n} has {packages:?}"), || {
                (packages_in(&self.file(n))? == packages).then_some(())
            });
        }
    }
}

/// Names of the packages in a bill of materials, sorted; a file that is there must be whole.
fn packages_in(file: &Path) -> Option<Vec<String>> {
    let text = fs::read(file).ok()?;
    let bom: Value = serde_json::from_slice(&text).expect("a whole document");
    Some(documents::packages_of_bom(&bom))
}

#[test]
fn a_change_replaces_the_file_of_its_guest_and_a_refresh_leaves_it_alone() {
    let world = World::new(2);
    let mut sense = world.sense(&["--refresh-interval", "1m", "--spread", "off"]);
    world.all_are_there();
    let bom: Value = serde_json::from_slice(&fs::read(world.file(0)).unwrap()).unwrap();
    assert_eq!(bom["metadata"]["component"]["name"], "web-0");
    let inode = |n| fs::metadata(world.file(n)).unwrap().ino();
    let before = [inode(0), inode(1)];
    world.agents[0].install("openssl");
    world.all_are_there();
    assert_ne!(inode(0), before[0]);
    // Both are asked in full, and what comes is delivered again.
    let pulls = |n: usize| {
        let seen = world.agents[n].seen();
        seen.iter().filter(|it| !it.wait).count()
    };
    let (asked, after) = (pulls(1), [inode(0), inode(1)]);
    eventually("a refresh", || (pulls(1) > asked).then_some(()));
    eventually("nothing is pending", || {
        let (answer, _) = status(&world.place("state"), &[]);
        let pending = &answer["pending"];
        (pending["reactive"] == 0 && pending["routine"] == 0).then_some(())
    });
    assert_eq!([inode(0), inode(1)], after);
    assert_eq!(inode(1), before[1]);
    assert!(sense.terminate().success());
}

#[test]
fn killed_at_any_moment_it_leaves_whole_files_and_in_the_end_the_newest() {
    let world = World::new(5);
    for n in 0..20 {
        let mut sense = world.sense(&[]);
        for agent in &world.agents {
            agent.install(&format!("package-{n}"));
        }
        // Not to wait for something: the moment of the kill is what varies.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..150_000)));
        sense.kill();
        (0..world.agents.len()).for_each(|n| drop(packages_in(&world.file(n))));
    }
    let mut sense = world.sense(&[]);
    eventually("it runs", || {
        (status(&world.place("state"), &[]).0["service"] == "sense").then_some(())
    });
    world.all_are_there();
    assert!(sense.terminate().success());
    let left = fs::read_dir(world.place("sboms")).unwrap().count();
    assert_eq!(left, world.agents.len(), "something unfinished is left");
}

/// Stops the agent of a guest, and takes its socket away: it is in the roster no more.
fn leave(world: &mut World) {
    let agent = world.agents.pop().unwrap();
    let path = agent.path.clone();
    drop(agent);
    let _ = fs::remove_file(path);
}

/// Loss prevented: a file of somebody else, or of a guest that is only out of sight, is removed.
#[test]
fn the_file_of_a_guest_that_left_is_removed_if_the_sensor_wrote_it() {
    let mut world = World::new(4);
    let mut sense = world.sense(&["--sbom-departed", "remove"]);
    world.all_are_there();
    // Neither a file that another sensor replaced since, nor what was never written here.
    let text = fs::read_to_string(world.file(2)).unwrap();
    let at = text.find("urn:uuid:").unwrap() + "urn:uuid:".len();
    let theirs = format!("{}00000000{}", &text[..at], &text[at + 8..]);
    fs::write(world.file(2), theirs).unwrap();
    fs::copy(world.file(0), world.file(9)).unwrap();
    // While the directory of the sockets cannot be read, nobody has left.
    fs::rename(world.place("guests"), world.place("away")).unwrap();
    eventually("the roster is unreadable", || {
        let (answer, _) = status(&world.place("state"), &[]);
        answer["reasons"]
            .to_string()
            .contains("roster")
            .then_some(())
    });
    assert!((0..4).all(|n| world.file(n).exists()));
    fs::rename(world.place("away"), world.place("guests")).unwrap();
    eventually("the roster is readable", || {
        let (answer, _) = status(&world.place("state"), &[]);
        (!answer["reasons"].to_string().contains("roster")).then_some(())
    });
    leave(&mut world);
    eventually("its file is removed", || {
        (!world.file(3).exists()).then_some(())
    });
    leave(&mut world);
    eventually("it left", || {
        let (answer, _) = status(&world.place("state"), &[]);
        (answer["guests"].as_array()?.len() == 2).then_some(())
    });
    assert!(sense.terminate().success());
    // One that leaves while the sensor is down, and one that comes back after that.
    leave(&mut world);
    let mut sense = world.sense(&["--sbom-departed", "remove"]);
    eventually("its file is removed", || {
        (!world.file(1).exists()).then_some(())
    });
    let again = FakeAgent::start(&world.place("guests/web-1.sock"), Script::new());
    world.agents.push(again);
    world.all_are_there();
    assert!(sense.terminate().success());
    for n in [0, 2, 9] {
        assert!(world.file(n).exists(), "web-{n}");
    }
}

#[test]
fn the_file_of_a_guest_that_left_stays_unless_something_else_is_asked_for() {
    let mut world = World::new(2);
    let mut sense = world.sense(&[]);
    world.all_are_there();
    leave(&mut world);
    eventually("it left", || {
        let (answer, _) = status(&world.place("state"), &[]);
        (answer["guests"].as_array()?.len() == 1).then_some(())
    });
    assert!(sense.terminate().success());
    assert!(world.file(1).exists());
    // What was written before it was asked for counts as well.
    let mut sense = world.sense(&["--sbom-departed", "remove"]);
    eventually("its file is removed", || {
        (!world.file(1).exists()).then_some(())
    });
    assert!(world.file(0).exists());
    assert!(sense.terminate().success());
}

/// Loss prevented: reports that are given up because a directory was away.
#[test]
fn while_the_directory_is_away_reports_wait() {
    let world = World::new(1);
    let mut sense = world.sense(&[]);
    world.all_are_there();
    fs::rename(world.place("sboms"), world.place("away")).unwrap();
    world.agents[0].install("openssl");
    eventually("the outage is shown", || {
        let (answer, _) = status(&world.place("state"), &[]);
        let said = answer["reasons"].to_string();
        (answer["state"] == "degraded" && said.contains("sboms")).then_some(())
    });
    fs::rename(world.place("away"), world.place("sboms")).unwrap();
    world.all_are_there();
    assert!(sense.terminate().success());
}

fn export(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["fleet", "export", "--format", "cyclonedx", "--state-dir"])
        .arg(state)
        .args(args)
        .output()
        .unwrap()
}

/// Every file of a directory, by name.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap();
    let files = entries.filter_map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        match fs::read(entry.path()) {
            Ok(content) => Some((name, content)),
            // One that was being written has its own name by now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => panic!("{name}: {error}"),
        }
    });
    files.collect()
}

/// Loss prevented: a scanner that decides otherwise by an export than by what was delivered.
#[test]
fn an_export_of_the_fleet_is_byte_for_byte_what_was_delivered_of_every_real_database() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let names = fixtures::names().into_iter();
    let names = names.filter(|name| name != "no-packages-table-sqlite");
    let guests: Vec<_> = names
        .enumerate()
        .map(|(n, name)| {
            let root = fixtures::unpack(&name);
            // The release decides what scanners are told about repositories.
            let version = ["8.9", "9.4", "10.0"][n % 3];
            let release = format!(
                "ID=rhel\nNAME=RHEL\nVERSION_ID={version}\nPRETTY_NAME=\"RHEL {version}\"\n\
                 CPE_NAME=\"cpe:/o:redhat:enterprise_linux:{version}\"\n"
            );
            fs::create_dir_all(root.path().join("etc")).unwrap();
            fs::write(root.path().join("etc/os-release"), release).unwrap();
            let launch = Launch::on(root.path());
            let agent = launch.start();
            (name, root, launch, agent)
        })
        .collect();
    fs::create_dir(place("sboms")).unwrap();
    let vms: Vec<String> = guests
        .iter()
        .map(|(name, _, launch, _)| format!("{name}=unix:{}/socket", launch.home().display()))
        .collect();
    let vms: Vec<&str> = vms.iter().flat_map(|vm| ["--vm", vm]).collect();
    let sink = format!("sbom:{}", place("sboms").display());
    let mut sense = Program::sense(&place("state"), &sink, &vms);
    let delivered = eventually("all are delivered", || {
        let files = files(&place("sboms"));
        let are_whole = files.keys().all(|name| !name.starts_with('.'));
        (files.len() == guests.len() && are_whole).then_some(files)
    });
    assert_eq!(delivered.len(), 13);
    // The running sensor answers, and after it the file does.
    for round in ["running", "stopped"] {
        if round == "stopped" {
            assert!(sense.terminate().success());
        }
        fs::create_dir(place(round)).unwrap();
        let output = export(
            &place("state"),
            &["--output", place(round).to_str().unwrap()],
        );
        assert!(output.status.success(), "{output:?}");
        assert_eq!(
            files(&place(round)).keys().collect::<Vec<_>>(),
            delivered.keys().collect::<Vec<_>>()
        );
        for (name, document) in &delivered {
            assert!(
                files(&place(round))[name] == *document,
                "{name} differs, {round}"
            );
            let vm = name.strip_suffix(".cdx.json").unwrap();
            let one = export(&place("state"), &["--vm", vm]);
            assert!(one.stdout == *document, "--vm {vm} differs, {round}");
        }
        let lines = export(&place("state"), &[]).stdout;
        let all: Vec<u8> = delivered.values().flatten().copied().collect();
        assert!(lines == all, "the lines differ, {round}");
    }
    let output = export(&place("state"), &["--vm", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let output = export(&place("state"), &["--output", "/nowhere"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("/nowhere"),
        "{said}"
    );
    let other = export(&place("state"), &["--format", "csv", "--output", "."]);
    assert_eq!(other.status.code(), Some(2), "a format is named once");
}
