//! A large fleet mirrored by `afferent`, and by PostgreSQL with the obvious upserts.
//!
//! 100,000 machines and 2,000 racks: first load, cycles in which nothing changed, one in which 1 %
//! did. Both sides begin with the same JSON document in a file and end with everything on disk.
//!
//! - Both read and check the document with the same code, that of the mirror.
//! - Ours is what `mirror run` does in a cycle, on an open store. The first cycle without a change
//!   compares every row, as PostgreSQL does in all of them. In the next ones the service knows that
//!   it has seen this very document and that the tables are as they were: only that is checked.
//! - PostgreSQL gets the checked rows by `COPY` over a connection that stays open, two transactions
//!   a cycle like ours, racks and machines. It compares every mirrored column, deletes softly what
//!   is gone, keeps one Host BMC per machine, the same columns, indexes and audit log (a row per
//!   insert, a row per changed column; see `schema.sql`). It is not asked for what no SQL does
//!   obviously: swaps of what is unique, duplicates, the delete guard, warnings, a summary.
//! - It runs durable as it comes, with more memory than it comes with, and is vacuumed and analyzed
//!   between the cycles, which is not counted.
//! - At last it is measured what the commands that read beside a running service cost a cycle in which 1 % changed:
//!   with another thread that reads snapshots of all tables, and without.
//! - Writing the document is counted on neither side. CPU time is of all processes that take part.
//!
//! PostgreSQL comes from the distribution's package (`/usr/lib/postgresql/*/bin`, run as user
//! `postgres` when we are root). `cargo bench --bench mirror`; sizes from `MACHINES` and `RACKS`.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people; whatever fails ends it"
)]

mod document;
mod postgres;

use afferent::mirror::core::FileCore;
use afferent::mirror::cycle::{AlwaysOpen, Cycle};
use afferent::mirror::diagnostics::Summary;
use afferent::mirror::policy::{Policy, Profile};
use afferent::mirror::skip_unchanged::SkipUnchanged;
use afferent::store::Store;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const STEPS: [&str; 4] = ["first load", "no change", "no change again", "1 % changed"];

fn main() {
    let size = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let sizes = (size("MACHINES", 100_000), size("RACKS", 2_000));
    let scratch = tempfile::tempdir().unwrap();
    println!("{} machines, {} racks", sizes.0, sizes.1);
    let mut mirror = Mirrored::new(scratch.path(), sizes);
    let ours = afferent(&mut mirror);
    beside_snapshots(&mut mirror);
    let Some(theirs) = postgres::measure(scratch.path(), sizes) else {
        println!("PostgreSQL is not installed: nothing to compare with");
        return;
    };
    for (step, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        println!(
            "{:<15} {:.1} times as fast as PostgreSQL, with 1/{:.1} of the CPU time",
            name_of_step(step),
            theirs.time.as_secs_f64() / ours.time.as_secs_f64(),
            theirs.cpu.as_secs_f64() / ours.cpu.as_secs_f64().max(0.01)
        );
    }
}

fn name_of_step(step: usize) -> &'static str {
    STEPS.get(step).unwrap()
}

/// What a cycle costs.
struct Cost {
    time: Duration,
    cpu: Duration,
}

impl Cost {
    /// Of `work`, in this process and in those that `others` counts.
    fn of(others: impl Fn() -> Duration, work: impl FnOnce()) -> Self {
        let cpu = || others() + cpu("self");
        let (begin, used) = (Instant::now(), cpu());
        work();
        Self {
            time: begin.elapsed(),
            cpu: cpu() - used,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>7.3} s, {:>5.2} s CPU",
            self.time.as_secs_f64(),
            self.cpu.as_secs_f64()
        )
    }
}

/// Fields of `/proc/PID/stat` behind the name.
fn stat(pid: &str) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// CPU time of a process and of its children that ended, in steps of 10 ms.
fn cpu(pid: &str) -> Duration {
    let fields = stat(pid).unwrap_or_default();
    let ticks = fields.iter().skip(11).take(4);
    let ticks: u64 = ticks.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// The tables of `afferent`, and the Core that they are a copy of.
struct Mirrored {
    sizes: (usize, usize),
    path: PathBuf,
    store: Arc<Store>,
    policy: Policy,
    core: FileCore,
    memory: SkipUnchanged,
}

impl Mirrored {
    fn new(scratch: &Path, sizes: (usize, usize)) -> Self {
        let path = scratch.join("core.json");
        Self {
            sizes,
            store: Arc::new(afferent::mirror::open(&scratch.join("state")).unwrap()),
            policy: Policy::of(Profile::NaturalKey),
            core: FileCore::at_path(path.clone(), None),
            memory: SkipUnchanged::default(),
            path,
        }
    }

    /// Writes what Core says in a step, and runs a cycle.
    fn cycle(&mut self, step: usize) -> (Cost, Summary) {
        std::fs::write(&self.path, document::document(self.sizes, step)).unwrap();
        // The peak is that of the cycle, not of writing the document.
        std::fs::write("/proc/self/clear_refs", "5").unwrap();
        let mut summary = None;
        let cost = Cost::of(
            || Duration::ZERO,
            || {
                let cycle = Cycle {
                    policy: &self.policy,
                    approval: None,
                    mirror: true,
                    now: "2026-11-21T10:00:00.000Z".into(),
                    new_id: &mut uuid::Uuid::new_v4,
                    gatekeeper: &AlwaysOpen,
                };
                let memory = &mut self.memory;
                summary = Some(memory.run_cycle(&self.store, &mut self.core, cycle));
            },
        );
        let summary = summary.unwrap();
        assert!(summary.errors.is_empty(), "{:?}", summary.errors);
        (cost, summary)
    }
}

fn afferent(mirror: &mut Mirrored) -> Vec<Cost> {
    let costs = (0..STEPS.len()).map(|step| {
        let (cost, summary) = mirror.cycle(step);
        let counters = &summary.types["Compute"];
        assert_eq!(counters.pulled, mirror.sizes.0 as u64);
        println!(
            "afferent     {:<15} {cost}  {} MiB  inserted {} updated {}",
            name_of_step(step),
            peak(),
            counters.inserted,
            counters.updated
        );
        cost
    });
    let costs: Vec<Cost> = costs.collect();
    let file = mirror.path.with_file_name("state").join("mirror.redb");
    let bytes = std::fs::metadata(file).unwrap().len();
    println!(
        "afferent     {} MB on disk, the audit log included",
        bytes / 1_000_000
    );
    costs
}

/// Cycles in which one in a hundred machines gets another name, alone and while another thread reads snapshots of all
/// tables one after the other, as `mirror dump` does.
fn beside_snapshots(mirror: &mut Mirrored) {
    let (mut alone, mut beside, mut snapshots) = (Vec::new(), Vec::new(), 0);
    for n in 0..12 {
        let step = [0, STEPS.len() - 1][n % 2];
        if n / 2 % 2 == 0 {
            alone.push(mirror.cycle(step).0.time);
            continue;
        }
        let (is_over, store) = (AtomicBool::new(false), mirror.store.clone());
        let is_over = &is_over;
        beside.push(std::thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let mut taken = 0;
                while !is_over.load(Ordering::Relaxed) {
                    afferent::mirror::dump::dump(&store.snapshot().unwrap()).unwrap();
                    taken += 1;
                }
                taken
            });
            let time = mirror.cycle(step).0.time;
            is_over.store(true, Ordering::Relaxed);
            snapshots += reader.join().unwrap();
            time
        }));
    }
    let [alone, beside] = [alone, beside].map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    });
    println!(
        "afferent     1 % changed     {alone:.3} s alone, {beside:.3} s while {snapshots} snapshots of all tables were read; medians of six cycles"
    );
}

/// Most memory since it was last asked to forget, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}
