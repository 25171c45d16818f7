//! Disks that fail, fill up and rot under an agent.

use crate::support::agent::{Agent, Answer, Launch, is_root};
use crate::support::eventually;
use crate::support::rpm_root::{RpmRoot, Spec};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Two packages that come and go.
struct Guest {
    root: RpmRoot,
    files: [PathBuf; 2],
    seen: HashMap<(u32, u32), String>,
}

impl Guest {
    fn new() -> Self {
        let root = RpmRoot::new();
        root.add(&Spec::default());
        let files = ["one", "two"].map(|name| {
            root.build(&Spec {
                name,
                files: 100,
                ..Spec::default()
            })
        });
        Self {
            root,
            files,
            seen: HashMap::new(),
        }
    }

    /// Installs or erases, so that the list is another one than before.
    fn change(&self, n: usize) {
        let name = ["one", "two"][n % 2];
        if self.root.rpm_qa().contains(&format!("{name}\t")) {
            self.root.erase(&[name]);
        } else {
            self.root.install(&[&self.files[n % 2]]);
        }
    }

    /// The loss: a key that comes again with other content, which a sensor would take for known.
    fn see(&mut self, answer: &Answer) {
        let digest = answer.digest().to_owned();
        let known = self.seen.entry(answer.key()).or_insert(digest);
        assert_eq!(known, answer.digest(), "{:?}", answer.key());
    }
}

/// strace on a running agent, with one call that goes wrong.
struct Fault {
    strace: Child,
    output: PathBuf,
}

impl Fault {
    fn inject(agent: &Agent, home: &Path, what: &str) -> Self {
        let call = what.split(':').next().unwrap();
        let output = home.join("strace");
        let pid = agent.pid();
        let strace = Command::new("strace")
            .args(["-f", "-p", &pid.to_string(), "-o", output.to_str().unwrap()])
            .args(["-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={what}")])
            .stderr(Stdio::null())
            .spawn()
            .expect("strace, see packaging/install-deps.sh");
        eventually("all threads are traced", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            tasks
                .filter_map(|task| fs::read_to_string(task.unwrap().path().join("status")).ok())
                .all(|status| !status.contains("TracerPid:\t0\n"))
                .then_some(())
        });
        Self { strace, output }
    }

    /// Whether it went wrong.
    fn happened(&self) -> bool {
        let trace = fs::read_to_string(&self.output).unwrap_or_default();
        trace.contains("(INJECTED)") || trace.contains("killed by SIGKILL")
    }

    fn remove(mut self) -> bool {
        let pid = self.strace.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        self.strace.wait().unwrap();
        self.happened()
    }
}

/// The calls of a rescan that fail: all of the first 20, or some of those of one commit.
fn calls(some: &[usize]) -> Vec<usize> {
    match std::env::var("AFFERENT_FAULTS") {
        Ok(_) => (1..=20).collect(),
        Err(_) => some.to_vec(),
    }
}

// The loss: a report that is served and not on disk, or an agent that needs a restart after an error.
#[test]
fn a_write_that_fails_costs_nothing_but_time() {
    let mut guest = Guest::new();
    // Storms are held back by default; this is one.
    let launch = Launch::on(guest.root.path()).flag("reactive-burst", "10000");
    let agent = launch.start();
    let mut before = agent.wait_for_rpm(&guest.root);
    let (mut happened, mut n) = (0, 0);
    for (fault, at) in [
        ("pwrite64:error=ENOSPC", calls(&[1, 4, 8])),
        ("pwrite64:error=EIO", calls(&[2])),
        ("fdatasync:error=EIO", calls(&[1])),
    ] {
        for at in at {
            let fault = Fault::inject(&agent, launch.home(), &format!("{fault}:when={at}"));
            n += 1;
            guest.change(n);
            let failed = || agent.log().matches("could not be kept").count();
            let failures = failed();
            let list = guest.root.rpm_qa();
            let answer = eventually("it is kept, or refused", || {
                let answer = agent.get();
                let done = answer.list() == list || failed() > failures;
                done.then_some(answer)
            });
            guest.see(&answer);
            if answer.list() != list {
                assert_eq!(answer.key(), before.key(), "only what is kept has a key");
            }
            happened += usize::from(fault.remove());
            // The next change does not wait for the repetition.
            n += 1;
            guest.change(n);
            before = agent.wait_for_rpm(&guest.root);
            guest.see(&before);
        }
    }
    assert!(happened > 0, "nothing went wrong: nothing was tested");
    println!("{happened} faults, {} reports", guest.seen.len());
    // All of it is on disk.
    agent.kill();
    let again = launch.start();
    let answer = again.get();
    guest.see(&answer);
    assert_eq!(answer.key(), before.key());
}

// The loss: an agent that is killed in the middle of a commit, and what it then believes.
#[test]
fn an_agent_killed_at_any_call_of_a_commit_has_the_old_report_or_the_new_one() {
    let mut guest = Guest::new();
    let launch = Launch::on(guest.root.path());
    let (mut happened, mut n) = (0, 0);
    for (call, at) in [
        ("pwrite64", calls(&[1, 3, 5, 7, 9])),
        ("fdatasync", calls(&[1])),
    ] {
        for at in at {
            let mut agent = launch.start();
            let before = agent.wait_for_rpm(&guest.root);
            guest.see(&before);
            let fault = format!("{call}:signal=SIGKILL:when={at}");
            let fault = Fault::inject(&agent, launch.home(), &fault);
            n += 1;
            guest.change(n);
            let list = guest.root.rpm_qa();
            eventually("it is killed, or done", || {
                let answer = agent.try_get(0, 0).ok();
                let done = answer.is_some_and(|answer| answer.list() == list);
                (done || !agent.runs()).then_some(())
            });
            if agent.runs() {
                agent.kill();
            } else {
                happened += 1;
            }
            fault.remove();
            let agent = launch.start();
            let answer = agent.get();
            guest.see(&answer);
            assert_eq!(answer.meta.epoch, before.meta.epoch);
            assert!(answer.meta.generation >= before.meta.generation);
            let answer = agent.wait_for_rpm(&guest.root);
            guest.see(&answer);
            agent.kill();
        }
    }
    println!("{happened} kills in a commit, {} reports", guest.seen.len());
    assert!(happened > 0, "it was never killed: nothing was tested");
}

/// A small file system of its own.
struct Disk {
    place: tempfile::TempDir,
}

impl Disk {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "none"])
            .arg(place.path())
            .status()
            .unwrap();
        assert!(mounted.success());
        Self { place }
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.path().join("filler")).unwrap();
        let block = [0; 4096];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.place.path())
            .status();
    }
}

// The loss: an agent that stops serving, or needs somebody to restart it, because a disk was full.
#[test]
fn with_a_full_disk_it_goes_on_serving_and_recovers_by_itself() {
    if !is_root() {
        return;
    }
    let guest = Guest::new();
    let disk = Disk::new();
    let launch = Launch::on(guest.root.path()).state_dir_at(&disk.path().join("state"));
    let agent = launch.start();
    let before = agent.wait_for_rpm(&guest.root);
    disk.fill();
    // The file has its room already.
    guest.change(1);
    let kept = agent.wait_for_rpm(&guest.root);
    assert_eq!(kept.meta.generation, before.meta.generation + 1);
    agent.kill();
    let agent = launch.start();
    assert_eq!(agent.get().key(), kept.key());
    assert_eq!(agent.get().list(), kept.list());
    // One that has none is as if nothing could be written to it.
    let fault = Fault::inject(&agent, launch.home(), "pwrite64:error=ENOSPC:when=1+");
    guest.change(2);
    eventually("the new report is refused", || {
        agent.log().contains("could not be kept").then_some(())
    });
    assert_eq!(agent.get().key(), kept.key());
    assert_eq!(agent.get().list(), kept.list());
    assert!(fault.remove(), "nothing was refused: nothing was tested");
    disk.free();
    let after = agent.wait_for_rpm(&guest.root);
    assert_eq!(after.meta.epoch, before.meta.epoch);
    assert_eq!(after.meta.generation, kept.meta.generation + 1);
}

// The loss: a guest that never reports because its disk is full, or one in a loop of restarts.
#[test]
fn an_agent_that_starts_on_a_full_disk_serves_from_memory_until_there_is_room() {
    if !is_root() {
        return;
    }
    let guest = Guest::new();
    let machine_id = guest.root.path().join("etc/machine-id");
    fs::write(&machine_id, format!("{:032x}\n", 1)).unwrap();
    let disk = Disk::new();
    let launch = Launch::on(guest.root.path()).state_dir_at(&disk.path().join("state"));
    disk.fill();
    let agent = launch.start();
    let first = agent.wait_for_rpm(&guest.root);
    disk.free();
    guest.change(1);
    let second = agent.wait_for_rpm(&guest.root);
    assert_eq!(second.meta.epoch, first.meta.epoch);
    eventually("it is on disk", || launch.database().exists().then_some(()));
    agent.kill();
    let agent = launch.start();
    assert_eq!(agent.get().key(), second.key());
    agent.kill();

    // A clone has to begin an epoch of its own.
    fs::write(&machine_id, format!("{:032x}\n", 2)).unwrap();
    disk.fill();
    let agent = launch.start();
    let clone = agent.wait_for_rpm(&guest.root);
    assert_ne!(clone.meta.epoch, second.meta.epoch);
    disk.free();
    guest.change(2);
    let clone = agent.wait_for_rpm(&guest.root);
    agent.kill();
    let agent = launch.start();
    assert_eq!(agent.get().key(), clone.key());
}

// The loss: a report with a wrong byte in it, or an agent that a damaged file keeps from starting.
#[test]
fn of_a_damaged_store_nothing_is_served_but_what_was_written() {
    let guest = Guest::new();
    let launch = Launch::on(guest.root.path());
    let agent = launch.start();
    guest.change(1);
    let written = agent.wait_for_rpm(&guest.root);
    assert!(agent.terminate().success());
    let whole = fs::read(launch.database()).unwrap();

    // Without a database to scan, all that can be served is what was kept.
    let empty = tempfile::tempdir().unwrap();
    let rounds: usize = std::env::var("AFFERENT_FLIPS").map_or(60, |n| n.parse().unwrap());
    let (mut moved, mut kept) = (0, 0);
    for round in 0..rounds {
        let mut damaged = whole.clone();
        if round % 6 == 5 {
            damaged.truncate(fastrand::usize(0..whole.len()));
        } else {
            // Where something is: most of the file is not in use.
            let at = std::iter::repeat_with(|| fastrand::usize(0..whole.len()))
                .find(|at| whole[*at] != 0)
                .unwrap();
            damaged[at] ^= 1 << fastrand::u8(0..8);
        }
        let launch = Launch::on(empty.path());
        fs::create_dir(launch.state_dir()).unwrap();
        fs::write(launch.database(), &damaged).unwrap();
        let agent = launch.start();
        let answer = agent.get();
        if answer.refusal().is_some() {
            assert!(
                agent.log().contains("moved aside"),
                "a loss that nobody is told of:\n{}",
                agent.log()
            );
            moved += 1;
        } else {
            assert_eq!(answer.key(), written.key());
            assert_eq!(answer.list(), written.list());
            kept += 1;
        }
    }
    println!("{moved} files moved aside, {kept} served in spite of it");
    assert!(moved > 0, "no damage was noticed: nothing was tested");

    fs::write(launch.database(), &whole[..whole.len() / 2]).unwrap();
    let agent = launch.start();
    let anew = agent.wait_for_rpm(&guest.root);
    assert_ne!(anew.meta.epoch, written.meta.epoch);
}
