//! How long a scan takes, beside whatever else can list the same database on this machine.
//!
//! `cargo bench --bench rpmdb` prints a table: whole processes, warm cache, medians. Databases of
//! 600 and 6,400 packages are made once by `rpmdb --importdb` and kept in the target directory; the
//! real ones are those of the tests. `read` only reads the main file once, from the page cache.
//!
//! Peers are used where they are found: `rpm -qa`, `syft`, and the crate `rpmdb` through
//! `benches/peers`, its own workspace: `cargo build --release --manifest-path
//! benches/peers/Cargo.toml`. Peers get a copy, because some write to what they read; afferent gets
//! another one, because a file that was written page by page is cached page by page, and read at a
//! half of the speed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that fails stops; its table is its output"
)]

#[path = "../tests/it/support/fixtures.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod fixtures;
#[path = "../tests/it/support/headers.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod headers;
#[path = "../tests/it/support/rpm_root.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests, which use the rest"
)]
mod rpm_root;

use afferent::scan::{Mode, OnLock, ScanRequest, Scanner};
use headers::Fields;
use nix::sys::resource::{UsageWho, getrusage};
use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Runs of each measurement; of slow peers fewer.
const RUNS: usize = 9;
const SLOW: Duration = Duration::from_secs(2);

fn main() {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|arg| arg.to_str()) {
        Some("--measure") => return measure_one(&args[2..]),
        Some("--read") => return read_once(Path::new(&args[2])),
        _ => {}
    }
    println!("| database | tool | wall ms | cpu ms | peak MiB | slower than afferent |");
    println!("| --- | --- | --- | --- | --- | --- |");
    let small = generated(600);
    compare("sqlite, 600 generated", &small, "rpmdb.sqlite");
    let large = generated(6_400);
    compare("sqlite, 6,400 generated", &large, "rpmdb.sqlite");
    let converted = converted();
    compare("sqlite, CentOS 8, 518", &converted, "rpmdb.sqlite");
    for (name, fixture, file) in [
        (
            "sqlite, Amazon Linux 2023, 103",
            "amazonlinux-2023-sqlite",
            "rpmdb.sqlite",
        ),
        ("bdb, CentOS 8, 518", "centos-8-modular-bdb", "Packages"),
        ("bdb, CentOS 7, 396", "centos-7-many-bdb", "Packages"),
        ("ndb, SLE 15, 35", "sle-15-bci-ndb", "Packages.db"),
    ] {
        let root = fixtures::unpack(fixture);
        compare(name, root.path(), file);
    }
    rescan(&large);
}

/// One row for each tool that can list the database.
fn compare(name: &str, root: &Path, file: &str) {
    let database = root.join("var/lib/rpm");
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(database.join(file), copy.path().join(file)).unwrap();
    let main = copy.path().join(file);
    let own = tempfile::tempdir().unwrap();
    let own_database = own.path().join("var/lib/rpm");
    std::fs::create_dir_all(&own_database).unwrap();
    std::fs::copy(&main, own_database.join(file)).unwrap();
    let itself = std::env::current_exe().unwrap();
    let afferent = [
        OsStr::new(env!("CARGO_BIN_EXE_afferent")),
        "scan".as_ref(),
        "--format".as_ref(),
        "tsv".as_ref(),
        "--root".as_ref(),
        own.path().as_os_str(),
    ];
    let ours = median(&afferent).unwrap();
    row(name, "**afferent scan**", &ours, &ours);
    let peer = |tool: &str, command: &[&OsStr]| {
        if let Some(theirs) = median(command) {
            row(name, tool, &theirs, &ours);
        }
    };
    for (tool, format) in [
        ("afferent scan, CycloneDX", "cyclonedx"),
        ("afferent scan, SPDX", "spdx"),
    ] {
        let mut command = afferent;
        command[3] = format.as_ref();
        peer(tool, &command);
    }
    peer(
        "read",
        &[itself.as_os_str(), "--read".as_ref(), main.as_os_str()],
    );
    let backend = match file {
        "Packages" => "_db_backend bdb_ro",
        "Packages.db" => "_db_backend ndb",
        _ => "_db_backend sqlite",
    };
    let common: [&OsStr; 6] = [
        "rpm".as_ref(),
        "--define".as_ref(),
        backend.as_ref(),
        "--dbpath".as_ref(),
        copy.path().as_os_str(),
        "-qa".as_ref(),
    ];
    if lists_anything(&common) {
        peer("rpm -qa", &common);
        let columns: [&OsStr; 2] = ["--qf".as_ref(), rpm_root::QUERY.as_ref()];
        peer("rpm -qa, 7 tags", &[&common[..], &columns[..]].concat());
    }
    let crate_rpmdb =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/target/release/afferent-peers");
    if crate_rpmdb.exists() {
        peer(
            "crate rpmdb 0.1.0",
            &[crate_rpmdb.as_os_str(), main.as_os_str()],
        );
    }
    let directory = format!("dir:{}", root.display());
    peer(
        "syft",
        &[
            "syft".as_ref(),
            "-q".as_ref(),
            "-o".as_ref(),
            "json".as_ref(),
            directory.as_ref(),
        ],
    );
}

/// An rpm that was built without a format says nothing and calls it a success.
fn lists_anything(command: &[&OsStr]) -> bool {
    let mut rpm = Command::new(command[0]);
    rpm.args(&command[1..])
        .output()
        .is_ok_and(|output| !output.stdout.is_empty())
}

#[derive(Clone, Copy)]
struct Cost {
    wall: f64,
    cpu: f64,
    peak: f64,
}

fn row(name: &str, tool: &str, cost: &Cost, ours: &Cost) {
    println!(
        "| {name} | {tool} | {:.1} | {:.1} | {:.1} | {:.1} x |",
        cost.wall,
        cost.cpu,
        cost.peak,
        cost.wall / ours.wall
    );
}

/// Medians over several processes; `None` when the tool is not there or fails.
fn median(command: &[&OsStr]) -> Option<Cost> {
    let mut costs = Vec::new();
    let begun = Instant::now();
    // The first one warms the cache.
    measured(command)?;
    let runs = if begun.elapsed() > SLOW { 3 } else { RUNS };
    for _ in 0..runs {
        costs.push(measured(command)?);
    }
    let middle = |part: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(part).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Some(Cost {
        wall: middle(|c| c.wall),
        cpu: middle(|c| c.cpu),
        peak: middle(|c| c.peak),
    })
}

/// Each command runs under a process of its own, whose only child it is: only then is the peak of
/// children that of this command.
fn measured(command: &[&OsStr]) -> Option<Cost> {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("--measure")
        .args(command)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).ok()?;
    let numbers: Vec<f64> = text
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    match numbers[..] {
        [wall, cpu, peak] if output.status.success() => Some(Cost { wall, cpu, peak }),
        _ => None,
    }
}

fn measure_one(command: &[OsString]) {
    let begun = Instant::now();
    let status = Command::new(&command[0])
        .args(&command[1..])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let wall = begun.elapsed().as_secs_f64() * 1e3;
    if !status.is_ok_and(|status| status.success()) {
        std::process::exit(1);
    }
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let ms =
        |time: nix::sys::time::TimeVal| time.tv_sec() as f64 * 1e3 + time.tv_usec() as f64 / 1e3;
    let cpu = ms(usage.user_time()) + ms(usage.system_time());
    println!("{wall} {cpu} {}", usage.max_rss() as f64 / 1024.0);
}

fn read_once(path: &Path) {
    let mut file = std::fs::File::open(path).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    while file.read(&mut buffer).unwrap() > 0 {}
}

/// A rescan within one process, after the real rpm installed or erased one package.
fn rescan(root: &Path) {
    let builder = rpm_root::RpmRoot::new();
    let one = builder.build(&rpm_root::Spec {
        name: "one-more",
        ..rpm_root::Spec::default()
    });
    let copy = tempfile::tempdir().unwrap();
    let database = copy.path().join("var/lib/rpm");
    std::fs::create_dir_all(&database).unwrap();
    std::fs::copy(
        root.join("var/lib/rpm/rpmdb.sqlite"),
        database.join("rpmdb.sqlite"),
    )
    .unwrap();
    let request = ScanRequest {
        root: copy.path(),
        dbpath: None,
        retry_for: Duration::from_secs(10),
        on_lock: OnLock::Wait,
    };
    let mut scanner = Scanner::new();
    let mut scan = |mode| {
        let begun = Instant::now();
        let scanned = scanner.scan(&request, mode).unwrap();
        (begun.elapsed().as_secs_f64() * 1e3, scanned.stats.parsed)
    };
    let (full, parsed) = scan(Mode::Full);
    let mut changed = Vec::new();
    for round in 0..10 {
        let mut rpm = Command::new("rpm");
        rpm.arg("--dbpath")
            .arg(&database)
            .args(["--justdb", "--nodeps", "--nosignature"]);
        match round % 2 {
            0 => rpm.arg("-i").arg(&one),
            _ => rpm.args(["-e", "one-more"]),
        };
        assert!(rpm.stderr(Stdio::null()).status().unwrap().success());
        changed.push(scan(Mode::Incremental).0);
    }
    let nothing = scan(Mode::Incremental).0;
    changed.sort_by(f64::total_cmp);
    println!();
    println!(
        "One process, {parsed} packages: full scan {full:.1} ms; rescan after one changed {:.2} ms (median of {}), after nothing {nothing:.2} ms",
        changed[changed.len() / 2],
        changed.len()
    );
}

/// The CentOS 8 database in the other format, by rpm itself.
fn converted() -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("converted");
    let database = root.join("var/lib/rpm");
    if !database.join("rpmdb.sqlite").exists() {
        let old = fixtures::unpack("centos-8-modular-bdb");
        std::fs::create_dir_all(&database).unwrap();
        let mut export = Command::new("rpmdb")
            .args(["--define", "_db_backend bdb_ro", "--exportdb", "--dbpath"])
            .arg(old.path().join("var/lib/rpm"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let import = Command::new("rpmdb")
            .arg("--importdb")
            .arg("--dbpath")
            .arg(&database)
            .stdin(export.stdout.take().unwrap())
            .status()
            .unwrap();
        assert!(export.wait().unwrap().success() && import.success());
    }
    root
}

/// A root with a generated database: headers of the sizes that a server has, 27 KB on average.
fn generated(packages: u32) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("generated-{packages}"));
    let database = root.join("var/lib/rpm");
    if database.join("rpmdb.sqlite").exists() {
        return root;
    }
    let making = root.with_extension("making");
    let _ = std::fs::remove_dir_all(&making);
    std::fs::create_dir_all(making.join("var/lib/rpm")).unwrap();
    let mut import = Command::new("rpmdb")
        .arg("--importdb")
        .arg("--dbpath")
        .arg(making.join("var/lib/rpm"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    for i in 0..packages {
        let mut fields = Fields::named(&format!("generated-package-{i:05}"));
        fields.version = format!("{}.{}", i % 7, i % 31).into();
        fields.release = b"6.el9".into();
        fields.arch = Some(b"x86_64".into());
        // Most packages have few files, some have thousands.
        fields.files = 20 + i % 97 + if i % 10 == 0 { 1_000 } else { 0 };
        fields.modularity_label = (i % 25 == 0).then(|| b"nodejs:18:9040020240301:rhel9".into());
        input.write_all(&fields.export()).unwrap();
    }
    drop(input);
    assert!(import.wait().unwrap().success());
    std::fs::rename(&making, &root).unwrap();
    root
}
