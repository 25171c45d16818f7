//! The whole path, from the real rpm to the file at Central's door, with both services killed at
//! random moments.

use crate::support::agent::Launch;
use crate::support::documents::lines;
use crate::support::eventually_or;
use crate::support::program::Program;
use crate::support::rpm_root::{RpmRoot, Spec};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Two to this power sets of packages: more than there are transactions in a run.
const PACKAGES: u32 = 10;

// The loss: a change that somebody was already shown and that never reaches Central.
#[test]
fn whatever_is_killed_what_was_shown_is_delivered_and_the_last_state_arrives() {
    let kills: usize = std::env::var("AFFERENT_KILLS").map_or(50, |n| n.parse().unwrap());
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let names: Vec<String> = (0..PACKAGES).map(|n| format!("package-{n}")).collect();
    let build = |name: &String| {
        root.build(&Spec {
            name,
            ..Spec::default()
        })
    };
    let files: Vec<_> = names.iter().map(build).collect();
    let launch = Launch::on(root.path())
        .flag("reactive-debounce", "0s")
        .flag("reactive-burst", "10000");
    let sink = launch.home().join("central.ndjson");
    let vm = format!("web-1=unix:{}", launch.home().join("socket").display());
    let sense = || {
        let deliver = format!("file:{}", sink.display());
        Program::sense(&launch.home().join("sense"), &deliver, &["--vm", &vm])
    };
    let (changing, mut shown) = (AtomicBool::new(true), BTreeSet::new());
    thread::scope(|scope| {
        let _stop = StopChanging(&changing);
        scope.spawn(|| {
            // In the order of a Gray code each step changes one package, and no set comes twice: a
            // report that is "unchanged" by its digest would hide one that is lost.
            for step in 1u32..1 << PACKAGES {
                let n = step.trailing_zeros() as usize;
                let is_installed = (step >> (n + 1)) & 1 == 1;
                match is_installed {
                    true => root.erase(&[&names[n]]),
                    false => root.install(&[&files[n]]),
                }
                if !changing.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let (mut agent, mut sensor) = (launch.spawn(), sense());
        for kill in 0..2 * kills {
            let end = Instant::now() + Duration::from_micros(fastrand::u64(0..120_000));
            while Instant::now() < end {
                if let Ok(answer) = agent.try_get(0, 0)
                    && answer.refusal().is_none()
                {
                    shown.insert(answer.key());
                }
                thread::yield_now();
            }
            if kill % 2 == 0 {
                agent.kill();
                agent = launch.spawn();
            } else {
                sensor.kill();
                sensor = sense();
            }
        }
        sensor.kill();
    });
    let mut sensor = sense();
    let agent = launch.start();
    let last = agent.wait_for_rpm(&root);
    eventually_or(
        || (key(lines(&sink).last()?) == last.key()).then_some(()),
        || {
            panic!(
                "the last state {:?} never arrived; log of the agent:\n{}",
                last.key(),
                agent.log()
            )
        },
    );
    assert!(sensor.terminate().success());

    let delivered = lines(&sink);
    let mut newest = 0;
    let mut digests = HashMap::new();
    for line in &delivered {
        let (epoch, generation) = key(line);
        assert_eq!(
            epoch,
            last.key().0,
            "an epoch ended though nothing was lost"
        );
        assert!(
            generation >= newest,
            "generation {generation} after {newest}"
        );
        newest = generation;
        let digest = line["meta"]["digest"].as_str().unwrap();
        let known = digests
            .entry(generation)
            .or_insert_with(|| digest.to_owned());
        assert_eq!(known, digest, "generation {generation} has other content");
    }
    assert!(shown.len() > 1, "nothing changed: nothing was tested");
    for (epoch, generation) in &shown {
        let arrived = delivered
            .iter()
            .map(key)
            .any(|(e, g)| e == *epoch && g >= *generation);
        assert!(
            arrived,
            "{epoch}:{generation} was shown and never delivered"
        );
    }
    check_fleet(&launch.home().join("sense"), &delivered);
    println!(
        "{kills} kills of each: {} generations shown, {} lines delivered, the last is {newest}",
        shown.len(),
        delivered.len()
    );
}

/// The loss: what is asked about the fleet is not what was delivered. The change log, taken back to the time of
/// any document, gives the packages of that document.
fn check_fleet(state: &Path, delivered: &[Value]) {
    let whole = |line: &&Value| line["report"]["packages"].is_array();
    let documents: Vec<&Value> = delivered.iter().filter(whole).collect();
    let step = documents.len().div_ceil(30);
    for document in documents.iter().rev().step_by(step) {
        let at = document["meta"]["seen_at"].as_str().unwrap();
        let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args([
                "fleet",
                "show",
                "web-1",
                "--json",
                "--at",
                at,
                "--state-dir",
            ])
            .arg(state)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "at {at}: {said}");
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
        let list = |packages: &Value| -> BTreeSet<String> {
            let packages = packages.as_array().unwrap().iter();
            let text = |package: &Value| format!("{} {}", package["name"], package["version"]);
            packages.map(text).collect()
        };
        assert_eq!(
            list(&answer["installed"]),
            list(&document["report"]["packages"]),
            "at {at}"
        );
    }
}

fn key(line: &Value) -> (u32, u32) {
    let number = |name: &str| u32::try_from(line["meta"][name].as_u64().unwrap()).unwrap();
    (number("epoch"), number("generation"))
}

struct StopChanging<'a>(&'a AtomicBool);

impl Drop for StopChanging<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}
