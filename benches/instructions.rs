//! Instructions that pieces of work take, counted by callgrind: the same on a busy machine and an idle one.
//!
//! `make instructions` builds in the profile `sim`, which the simulation needs anyway, and prints the difference to
//! `benches/instructions.md`; AFFERENT_REGENERATE=1 writes that file instead. More than 10 % is a loud line, and
//! no failure. `cargo bench --bench instructions` does the same for the other column, the build that is fastest.
//! A piece of work is run once and `TIMES` times more: the difference is what it takes, without what comes before.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that fails stops; its table is its output"
)]

#[path = "mirror/document.rs"]
mod core_document;
#[path = "../tests/it/support/fixtures.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod fixtures;
#[path = "../tests/it/support/rpm_root.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod rpm_root;
#[allow(unreachable_pub, reason = "one program")]
#[path = "support/slot.rs"]
mod slot;

use afferent::clock::WallTime;
use afferent::mirror::core::FileCore;
use afferent::mirror::cycle::{AlwaysOpen, Cycle};
use afferent::mirror::policy::{Policy, Profile};
use afferent::mirror::skip_unchanged::SkipUnchanged;
use afferent::report::{Envelope, Epoch, Facts, Generation, GuestId, Report, ReportKey, Trigger};
use afferent::sbom::{BomFormat, Subject};
use afferent::scan::{Mode, OnLock, ScanRequest, Scanner};
use afferent::sense::SinkName;
use afferent::sense::fleet::{Fleet, FleetLimits};
use afferent::sense::queue::table::{self, DocumentId, GuestRow, PendingChange, SealedReport};
use afferent::serve::Scan;
use afferent::serve::mapping::{MappingState, UpdatePath};
use afferent::serve::report_store::{Machine, Recorded, ReportStore};
use afferent::serve::respond::Published;
use afferent::store::{Limits, Store, StoreOptions};
use afferent::wire::document::Document;
use afferent::wire::response::{Payload, Response};
use slot::slot;
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Runs whose instructions are counted.
const TIMES: u64 = 5;

/// A difference that is said loudly, in percent.
const LOUD: f64 = 10.0;

/// A piece of work, done so many times on the database below a root.
type Work = fn(root: &Path, times: u64);

const WORKS: &[(&str, &str, Work)] = &[
    (
        "scan",
        "scan of the 518 packages of CentOS 8 (bdb), in full",
        scan,
    ),
    ("decode", "one response with them decoded", decode),
    (
        "record",
        "one report of them made durable by the agent",
        record,
    ),
    (
        "pending",
        "one report of them made durable by the sensor, without the fleet store",
        pending,
    ),
    (
        "fleet",
        "one report of them made durable by the sensor, with the fleet store",
        pending_and_fleet,
    ),
    ("document", "one delivery document of them", document),
    ("bill", "one bill of materials of them (CycloneDX)", bill),
    (
        "mirror",
        "one cycle of the mirror without a change, 1,000 machines, after a restart",
        mirror,
    ),
];

/// The column of the table that this build is compared with.
const COLUMN: usize = if cfg!(debug_assertions) { 0 } else { 1 };

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, run, name, times, root] = args.as_slice()
        && run == "--run"
    {
        let work = WORKS.iter().find(|work| work.0 == name).unwrap().2;
        return work(Path::new(root), times.parse().unwrap());
    }
    if !cfg!(target_arch = "x86_64") {
        return println!("instructions: skipped, the counts that are kept are those of x86-64");
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("instructions: skipped, valgrind is not installed on this machine");
    }
    let root = fixtures::unpack("centos-8-modular-bdb");
    let mut counted = Vec::new();
    for (name, what, _) in WORKS {
        let count = |times| count(name, times, root.path());
        let (once, more) = match (count(1), count(1 + TIMES)) {
            (Ok(once), Ok(more)) => (once, more),
            (Err(error), _) | (_, Err(error)) => {
                return println!("instructions: skipped, valgrind cannot run '{what}': {error}");
            }
        };
        counted.push((*what, more.saturating_sub(once) as f64 / TIMES as f64 / 1e6));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.md");
    let kept = read(&std::fs::read_to_string(&path).unwrap_or_default());
    if std::env::var_os("AFFERENT_REGENERATE").is_some() {
        return std::fs::write(path, table(&counted, &kept)).unwrap();
    }
    compare(&counted, &kept);
}

/// Instructions of a process that does a piece of work so many times; the error is what valgrind printed.
fn count(name: &str, times: u64, root: &Path) -> Result<u64, String> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--run", name, &times.to_string()])
        .arg(root)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    let mut lines = printed.lines();
    let collected = lines.find_map(|line| line.split_once("Collected : "));
    collected
        .filter(|_| output.status.success())
        .and_then(|(_, count)| count.trim().parse().ok())
        .ok_or_else(|| printed.into_owned())
}

/// What is kept of each piece of work: a cell for each column.
type Kept = BTreeMap<String, [String; 2]>;

fn table(counted: &[(&str, f64)], kept: &Kept) -> String {
    let mut text = String::from(
        "# Instructions\n\n\
        Million instructions, counted by callgrind on x86-64: `make instructions` (profile `sim`, with debug assertions),\n\
        `cargo bench --bench instructions` (profile `bench`). With AFFERENT_REGENERATE=1 each writes its column.\n\n\
        | Work | sim | bench |\n|---|---|---|\n",
    );
    for (what, count) in counted {
        let mut cells = kept.get(*what).cloned();
        let cells = cells.get_or_insert_with(|| ["-".to_owned(), "-".to_owned()]);
        cells[COLUMN] = format!("{count:.2}");
        text += &format!("| {what} | {} |\n", cells.join(" | "));
    }
    text
}

/// The rows of the table in a file.
fn read(text: &str) -> Kept {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", what, sim, bench, ""] => Some((what.to_owned(), [sim, bench].map(str::to_owned))),
            _ => None,
        }
    });
    rows.collect()
}

fn compare(counted: &[(&str, f64)], kept: &Kept) {
    println!("million instructions, and the difference to benches/instructions.md");
    for (what, now) in counted {
        let before = kept.get(*what).and_then(|cells| cells[COLUMN].parse().ok());
        let Some(before) = before.filter(|before: &f64| *before > 0.0) else {
            println!("  {now:>9.2}            {what}: not in the file");
            continue;
        };
        let percent = (now / before - 1.0) * 100.0;
        println!("  {now:>9.2}  {percent:>+6.1} %  {what}");
        if percent.abs() > LOUD {
            println!(
                "  !!!!!!!!!  {what}: {before:.2} before, {now:.2} now; if that is meant, AFFERENT_REGENERATE=1"
            );
        }
    }
}

/// What is installed below the root.
fn report(root: &Path) -> Arc<Report> {
    let request = ScanRequest {
        root,
        dbpath: None,
        retry_for: Duration::from_secs(60),
        on_lock: OnLock::Wait,
    };
    Scanner::new().scan(&request, Mode::Full).unwrap().report
}

fn scan(root: &Path, times: u64) {
    for _ in 0..times {
        black_box(report(root));
    }
}

const NOT_MAPPED: MappingState = MappingState {
    path: UpdatePath::Sensor,
    hash: None,
};

fn at(ms: u64) -> Scan {
    Scan {
        at: WallTime::from_unix_ms(ms),
        facts: Facts::new(),
        mapping: None,
    }
}

fn epoch() -> Epoch {
    Epoch::new(77).unwrap()
}

fn store(dir: &Path) -> ReportStore {
    let machine = Machine::Known(Some(GuestId::of_machine("m")));
    ReportStore::open(dir, Limits::default(), machine, epoch)
        .unwrap()
        .0
}

/// The bytes of the answer to a request in full, without the length in front.
fn response(report: &Report) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let recorded = store(dir.path())
        .record(report, Trigger::Reactive, &at(1), epoch)
        .unwrap();
    let Recorded::New(stored) = recorded else {
        unreachable!("it is the first one");
    };
    let published = Published::new(&stored, None, at(1), NOT_MAPPED);
    let (head, payload) = published.full(true);
    [&head[4..], payload].concat()
}

fn decode(root: &Path, times: u64) {
    let bytes = response(&report(root));
    for _ in 0..times {
        let response = Response::decode(&bytes).unwrap();
        let Some(Payload::Report(answer)) = response.payload else {
            unreachable!("a report was asked for");
        };
        let index = answer.index.unwrap();
        black_box(index.into_report(Facts::new()).unwrap());
    }
}

fn record(root: &Path, times: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = store(dir.path());
    let one = report(root);
    let mut other = Report::clone(&one);
    other.packages.pop();
    for n in 0..times {
        let report = if n % 2 == 0 { &*one } else { &other };
        black_box(
            store
                .record(report, Trigger::Reactive, &at(n), epoch)
                .unwrap(),
        );
    }
}

/// The report as the sensor has it after an exchange.
fn envelope(report: &Report, n: u64) -> Envelope<'_> {
    let view = report.view();
    Envelope {
        vm: "web-1".parse().unwrap(),
        address: "vsock:3:818".into(),
        guest_id: Some(GuestId::of_machine("m")),
        key: ReportKey {
            epoch: Some(epoch()),
            generation: Generation::new(1 + u32::try_from(n).unwrap()).unwrap(),
        },
        digest: view.digest(),
        seen_at: WallTime::from_unix_ms(1 + n),
        trigger: Trigger::Reactive,
        generated_at: WallTime::from_unix_ms(1),
        agent_version: "0.2.0".into(),
        facts: Facts::new(),
        report: Some(view),
    }
}

fn document(root: &Path, times: u64) {
    let report = report(root);
    let envelope = envelope(&report, 0);
    for _ in 0..times {
        black_box(serde_json::to_vec(&Document::new(&envelope, "host-7")).unwrap());
    }
}

fn bill(root: &Path, times: u64) {
    let report = report(root);
    let subject = Subject {
        report: &report,
        digest: report.digest(),
        host: "web-1",
        at: WallTime::from_unix_ms(1),
        id_like: &[],
        details: &[],
    };
    for _ in 0..times {
        black_box(subject.document(BomFormat::CycloneDx));
    }
}

fn pending(root: &Path, times: u64) {
    put(root, times, false);
}

fn pending_and_fleet(root: &Path, times: u64) {
    put(root, times, true);
}

/// Each report differs from the one before it by one package, and is digested, sealed and committed.
fn put(root: &Path, times: u64, with_fleet: bool) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(dir.path(), "sense.redb", StoreOptions::new(4 << 20))
        .unwrap()
        .store;
    let fleet =
        with_fleet.then(|| Fleet::load(&store, FleetLimits::default(), &HashMap::new()).unwrap());
    let one = report(root);
    let mut other = Report::clone(&one);
    other.packages.pop();
    for n in 0..times {
        let envelope = envelope(if n % 2 == 0 { &one } else { &other }, n);
        let document = DocumentId {
            key: envelope.key,
            digest: envelope.digest,
            facts: None,
        };
        let change = PendingChange::Put {
            vm: envelope.vm.clone(),
            slots: vec![(SinkName::default(), slot(document, 518))],
            guest: GuestRow {
                known: Some(document),
                ..GuestRow::default()
            },
            report: SealedReport::new(&envelope).unwrap(),
            fleet: fleet.as_ref().and_then(|fleet| fleet.prepare(&envelope)),
            seen_at: envelope.seen_at,
        };
        table::apply(&store, fleet.as_ref(), &[change]).unwrap();
    }
}

/// Each cycle compares every row: none knows the document of the one before it.
fn mirror(_: &Path, times: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = afferent::mirror::open(&dir.path().join("state")).unwrap();
    let path = dir.path().join("core.json");
    std::fs::write(&path, core_document::document((1_000, 20), 0)).unwrap();
    let policy = Policy::of(Profile::NaturalKey);
    let cycle = || {
        let cycle = Cycle {
            policy: &policy,
            approval: None,
            mirror: true,
            now: "2026-11-21T10:00:00.000Z".into(),
            new_id: &mut uuid::Uuid::new_v4,
            gatekeeper: &AlwaysOpen,
        };
        let mut core = FileCore::at_path(path.clone(), None);
        SkipUnchanged::default().run_cycle(&store, &mut core, cycle)
    };
    assert_eq!(cycle().types["Compute"].inserted, 1_000);
    for _ in 0..times {
        let counters = black_box(cycle());
        assert_eq!(counters.types["Compute"].pulled, 1_000);
        assert_eq!(counters.types["Compute"].inserted, 0);
    }
}
