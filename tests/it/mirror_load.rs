//! Commands beside a service whose cycles never rest: each answers, and what it answers is of one cycle.

use crate::support::eventually;
use crate::support::mirror::Mirror;
use crate::support::mirror_rig::{RACKS, document};
use crate::support::program::{Program, status};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const MACHINES: usize = 2000;

struct Load {
    mirror: Mirror,
    core: String,
    _service: Program,
    version: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn new() -> Self {
        let mirror = Mirror::new();
        let core = format!(
            "file:{}",
            mirror.file("core.json", &document(0, MACHINES)).display()
        );
        let state = mirror.state().display().to_string();
        let mut arguments = vec!["mirror", "run", "--core", &core, "--state-dir", &state];
        arguments.extend(["--interval", "1s"]);
        let service = Program::start(&arguments);
        let load = Self {
            mirror,
            core,
            _service: service,
            version: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        };
        eventually("the first cycle", || (load.cycles() > 0).then_some(()));
        load
    }

    fn cycles(&self) -> u64 {
        let (status, _) = status(&self.mirror.state(), &[]);
        status["cycles"].as_u64().unwrap_or(0)
    }

    /// Has every cycle find another version, while `work` is done.
    fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut last = self.cycles();
                while !self.is_over.load(Ordering::Relaxed) {
                    let version = self.version.fetch_add(1, Ordering::Relaxed) + 1;
                    let next = self.mirror.file("next.json", &document(version, MACHINES));
                    std::fs::rename(next, self.mirror.path("core.json")).unwrap();
                    eventually("another cycle", || {
                        let is_over = self.is_over.load(Ordering::Relaxed);
                        (is_over || self.cycles() > last).then_some(())
                    });
                    last = self.cycles();
                }
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            self.is_over.store(true, Ordering::Relaxed);
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.mirror.output(&[arguments, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn version(name: &Value) -> String {
    name.as_str().unwrap().split_once('-').unwrap().0.to_owned()
}

/// The loss: racks of this cycle with machines of the last one.
#[test]
fn dumps_and_plans_under_load_are_of_one_cycle() {
    let load = Load::new();
    let other = load
        .mirror
        .file("other.json", &document(1_000_000, MACHINES));
    let other = format!("file:{}", other.display());
    let mut seen: BTreeSet<String> = BTreeSet::new();
    load.during(|| {
        eventually("four cycles were read", || {
            let dump = load.json(&["dump"]);
            let rows = ["rack", "component"].map(|table| dump[table].as_array().unwrap());
            assert_eq!(rows.map(Vec::len), [RACKS, MACHINES]);
            let versions = rows.into_iter().flatten().map(|row| version(&row["name"]));
            let versions: BTreeSet<String> = versions.collect();
            assert_eq!(versions.len(), 1, "two cycles in one answer: {versions:?}");
            seen.extend(versions);
            (seen.len() >= 4).then_some(())
        });
        // A machine's rack is found by a name that is as old as the machine's own.
        let plan = load.json(&["plan", "--core", &other, "--limit", "3"]);
        let updated = |kind: &str| plan["types"][kind]["updated"].as_u64().unwrap();
        assert_eq!((updated("rack"), updated("Compute")), (20, 2000));
        assert_eq!(plan["changes"].as_array().unwrap().len(), 3);
        let explained = load.json(&["explain", "MC-7", "--core", &load.core]);
        assert!(!explained["lines"].as_array().unwrap().is_empty());
        load.mirror.check();
    });
}

#[test]
fn drift_and_audit_under_load_are_filtered_paged_and_followed() {
    let load = Load::new();
    let ids = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let rows = |arguments: &[&str]| load.json(arguments).as_array().unwrap().len();
    let mut following = load
        .mirror
        .command(&[
            "audit", "--follow", "--json", "--kind", "rack", "--code", "update",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    load.during(|| {
        // One machine is where it is expected, and one device is expected nowhere.
        let all = ids(&load.json(&["drift"]));
        assert_eq!(all.len(), MACHINES);
        assert_eq!(rows(&["drift", "--rack", "r1"]), MACHINES / RACKS - 1);
        assert_eq!(rows(&["drift", "--rack", "r2"]), MACHINES / RACKS);
        assert_eq!(rows(&["drift", "--rack", "r2", "--kind", "NVSwitch"]), 0);
        assert_eq!(rows(&["drift", "--code", "mismatch"]), 1);
        let (mut read, mut cursor): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let mut arguments = vec!["drift", "--limit", "700"];
            arguments.extend(cursor.iter().flat_map(|cursor| ["--cursor", cursor]));
            let page = ids(&load.json(&arguments));
            cursor = page.last().cloned();
            read.extend(page);
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(read, all, "pages of several commits");
        // Of each run that changed names there are all rows, or none.
        let mut runs: BTreeSet<String> = BTreeSet::new();
        eventually("the log of three cycles", || {
            let newest = load.json(&["audit", "--kind", "rack", "--code", "update"]);
            let since = newest.as_array().unwrap().last()?["time"]
                .as_str()?
                .to_owned();
            let log = load.json(&["audit", "--code", "update", "--since", &since]);
            let mut by_run: BTreeMap<String, [usize; 2]> = BTreeMap::new();
            for row in log.as_array().unwrap() {
                let run = row["run"].as_str().unwrap().to_owned();
                let [racks, machines] = by_run.entry(run).or_default();
                let count = if row["type"] == "rack" {
                    racks
                } else {
                    machines
                };
                *count += usize::from(row["field"] == "name");
            }
            for (run, counts) in by_run {
                assert_eq!(counts, [RACKS, MACHINES], "run {run}");
                runs.insert(run);
            }
            (runs.len() >= 3).then_some(())
        });
        let page = load.json(&["audit", "--code", "update", "--limit", "5"]);
        let last = page[4]["number"].to_string();
        let next = load.json(&[
            "audit", "--code", "update", "--limit", "5", "--cursor", &last,
        ]);
        assert!(next[0]["number"].as_u64() > page[4]["number"].as_u64());
        // What is followed comes in order, and goes on.
        let mut lines = BufReader::new(following.stdout.take().unwrap()).lines();
        let mut numbers: Vec<u64> = Vec::new();
        while numbers.len() < 5 * RACKS {
            let row: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(
                (&row["type"], &row["op"]),
                (&json!("rack"), &json!("update"))
            );
            numbers.push(row["number"].as_u64().unwrap());
        }
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    });
    following.kill().unwrap();
    following.wait().unwrap();
}
