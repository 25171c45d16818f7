//! What the fleet store costs, and how fast it answers: ten thousand guests of 600 packages, 6,000 distinct ones.
//!
//! `cargo bench --bench fleet_store`; `FLEET_GUESTS` makes it smaller. Each report is digested, sealed and written
//! as the sensor does it, 20 in a transaction, without the fleet store and with it, in processes of their own.
//! Decoding a report from the wire and delivering it, which cost the sensor as much again, are left out: the
//! share of the fleet store is smaller in a sensor than here; `cargo bench --bench fleet` measures that one. Then the
//! program answers from the same file, over HTTP and on its control socket: as a reader of a stream that is not there,
//! which has no guests of its own to look after.
//!
//! What was measured stands in docs/fleet.md.

#![allow(clippy::print_stdout, reason = "the numbers are the result")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has no result")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of guests are small"
)]

#[allow(unreachable_pub, dead_code, reason = "shared with other benches")]
#[path = "support/process.rs"]
mod process;
#[allow(unreachable_pub, reason = "one program")]
#[path = "support/slot.rs"]
mod slot;

use afferent::clock::{WallTime, wall_now};
use afferent::report::{
    Envelope, Epoch, Evr, Facts, Generation, GuestId, Origin, Package, Report, ReportKey,
    Repository, Trigger, VmId,
};
use afferent::sense::SinkName;
use afferent::sense::fleet::query::FleetQuery;
use afferent::sense::fleet::{Fleet, FleetLimits};
use afferent::sense::queue::table::{self, DocumentId, GuestRow, PendingChange, SealedReport};
use afferent::store::{Store, StoreOptions};
use nix::sys::resource::{UsageWho, getrusage};
use slot::slot;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// When the first reports were seen: an hour ago, in milliseconds since 1970.
static BEGAN: LazyLock<u64> = LazyLock::new(|| wall_now().unix_ms() - 3_600_000 + 60_000);
/// Shown by programs.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const DISTINCT: usize = 6000;
const PACKAGES: usize = 600;
const TOGETHER: usize = 20;
/// Packages that an update replaces.
const UPDATED: usize = 10;

fn main() {
    let guests: usize = std::env::var("FLEET_GUESTS").map_or(10_000, |n| n.parse().unwrap());
    if let Some(mode) =
        std::env::args().find_map(|arg| arg.strip_prefix("--store=").map(str::to_owned))
    {
        return measure(guests, mode == "on");
    }
    println!(
        "{guests} guests of {PACKAGES} packages, {DISTINCT} distinct ones, {TOGETHER} reports a transaction"
    );
    for mode in ["off", "on"] {
        let program = std::env::current_exe().unwrap();
        let status = Command::new(program)
            .arg(format!("--store={mode}"))
            .status()
            .unwrap();
        assert!(status.success());
    }
}

fn measure(guests: usize, is_on: bool) {
    println!("\n--fleet {}", if is_on { "on" } else { "off" });
    let dir = tempfile::tempdir().unwrap();
    let pool: Vec<Package> = (0..DISTINCT).map(|n| package(n, 1)).collect();
    let updated: Vec<Package> = (0..DISTINCT).map(|n| package(n, 2)).collect();
    let store = open(dir.path());
    let fleet =
        is_on.then(|| Fleet::load(&store, FleetLimits::default(), &HashMap::new()).unwrap());
    let mut random = fastrand::Rng::with_seed(7);
    let choices: Vec<Vec<usize>> = (0..guests).map(|_| choice(&mut random)).collect();
    let rss_before = process::rss_kib(std::process::id());

    let report_of = |guest: usize, generation: u32| {
        let mut packages: Vec<Package> = choices[guest].iter().map(|n| pool[*n].clone()).collect();
        if generation > 1 {
            for (at, n) in choices[guest].iter().take(UPDATED).enumerate() {
                packages[at] = updated[*n].clone();
            }
        }
        report(packages)
    };
    for (generation, what) in [
        (1, "first reports"),
        (2, "changed reports"),
        (2, "unchanged refreshes"),
    ] {
        let mut spent = Duration::ZERO;
        for first in (0..guests).step_by(TOGETHER) {
            let batch: Vec<Report> = (first..(first + TOGETHER).min(guests))
                .map(|guest| report_of(guest, generation))
                .collect();
            let began = cpu();
            write(&store, fleet.as_ref(), first, generation, &batch);
            spent += cpu() - began;
        }
        println!(
            "  {what:<22} {:>7.0} us of CPU each",
            spent.as_secs_f64() * 1e6 / guests as f64
        );
    }
    // As after delivery: what is left is the fleet store.
    let cleared: Vec<PendingChange> = (0..guests)
        .map(|guest| PendingChange::Clear {
            sink: SinkName::default(),
            vm: vm(guest),
            report: DocumentId {
                key: key(2),
                digest: report_of(guest, 2).digest(),
                facts: None,
            },
            at: Some(WallTime::from_unix_ms(9)),
        })
        .collect();
    for batch in cleared.chunks(256) {
        table::apply(&store, fleet.as_ref(), batch).unwrap();
    }
    println!(
        "  memory                 {:>7} KiB more than before",
        process::rss_kib(std::process::id()).saturating_sub(rss_before)
    );
    let Some(fleet) = fleet else {
        return println!(
            "  file                   {:>7} KiB",
            compacted(store, dir.path()) >> 10
        );
    };
    let counts = fleet.counts();
    println!(
        "  rows                   {} guests, {} packages, {} changes ({} KiB)",
        counts.guests,
        counts.packages,
        counts.changes,
        counts.change_bytes >> 10
    );
    drop(fleet);
    println!(
        "  file                   {:>7} KiB",
        compacted(store, dir.path()) >> 10
    );
    let store = open(dir.path());
    let known = table::load(&store).unwrap().guests;
    let known = known
        .into_iter()
        .filter_map(|(vm, row)| Some((vm, row.known?.digest)))
        .collect();
    let began = Instant::now();
    let fleet = Fleet::load(&store, FleetLimits::default(), &known).unwrap();
    println!(
        "  opened in              {:>7.1} ms, {} to be asked again",
        ms(began.elapsed()),
        fleet.missing().len()
    );
    for question in questions() {
        let (median, slowest, bytes) = timed(|| {
            let answer = question.query.ask(&store, &|_| None);
            let answer = serde_json::to_vec(&answer).unwrap();
            assert!(!answer.starts_with(b"{\"error"));
            answer.len()
        });
        let what = question.what;
        println!("  {what:<22} {median:>7.1} ms (slowest {slowest:.1}), {bytes} bytes");
    }
    drop((fleet, store));
    over_sockets(dir.path());
}

/// Median and slowest of some answers, in milliseconds, and the bytes of the last one.
fn timed(mut ask: impl FnMut() -> usize) -> (f64, f64, usize) {
    let mut bytes = 0;
    let mut times: Vec<Duration> = (0..15)
        .map(|_| {
            let began = Instant::now();
            bytes = ask();
            began.elapsed()
        })
        .collect();
    times.sort();
    (ms(times[7]), ms(times[14]), bytes)
}

/// The program, as it answers from the file in this directory; killed when dropped.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What whoever asks waits for, from opening the connection to the last byte.
fn over_sockets(dir: &Path) {
    let (http, control) = (dir.join("http.sock"), dir.join("control.sock"));
    let token = dir.join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let service = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["sense", "--reports-from", "nats://127.0.0.1:1?stream=R"])
        .arg("--state-dir")
        .arg(dir)
        .arg("--fleet-listen")
        .arg(format!("unix:{}", http.display()))
        .arg("--fleet-token-file")
        .arg(&token)
        .stderr(Stdio::null())
        .spawn();
    let service = Service(service.unwrap());
    let exchange = |socket: &Path, request: &str| {
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    };
    while exchange(&control, "status\n").is_none_or(|answer| answer.is_empty()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let began = process::rss_kib(service.0.id());
    println!("  the program, beside     {began:>7} KiB at its start; HTTP, then control socket:");
    for question in questions() {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n",
            question.target
        );
        let (web, web_slowest, bytes) = timed(|| {
            let answer = exchange(&http, &request).unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", question.target);
            answer.len()
        });
        let words = format!("fleet {}\n", question.query.to_word());
        let (socket, socket_slowest, _) = timed(|| {
            let answer = exchange(&control, &words).unwrap();
            assert!(answer.starts_with(b"{") && !answer.starts_with(b"{\"error"));
            answer.len()
        });
        let what = question.what;
        println!(
            "  {what:<22} {web:>7.1} ms (slowest {web_slowest:.1}) {socket:>7.1} ms (slowest {socket_slowest:.1}), {bytes} bytes"
        );
    }
    println!(
        "  the program, after      {:>7} KiB",
        process::rss_kib(service.0.id())
    );
}

/// The same question in all of its forms.
struct Question {
    what: &'static str,
    query: FleetQuery,
    target: &'static str,
}

fn questions() -> [Question; 6] {
    let find = |package: &str, not| FleetQuery::Find {
        package: package.into(),
        arch: None,
        os: None,
        not,
        running: false,
    };
    let question = |what, query, target| Question {
        what,
        query,
        target,
    };
    let since = wall_now().unix_ms() - 3_600_000;
    [
        question(
            "find, a tenth matches",
            find("package-100 < 1:2", false),
            "/v1/packages?name=package-100&op=lt&version=1:2",
        ),
        question(
            "find --not",
            find("package-100", true),
            "/v1/packages?name=package-100&not=true",
        ),
        question(
            "versions",
            FleetQuery::Versions {
                name: "package-7".into(),
                os: None,
            },
            "/v1/versions?name=package-7",
        ),
        question(
            "versions of all",
            FleetQuery::Drift { os: None },
            "/v1/versions?limit=10000",
        ),
        question(
            "guests",
            FleetQuery::Guests { os: None },
            "/v1/guests?limit=10000",
        ),
        question(
            "changes --since 1h",
            FleetQuery::Changes {
                since: Some(since),
                vm: None,
                package: None,
                after: None,
            },
            "/v1/changes?since=1h",
        ),
    ]
}

fn write(store: &Store, fleet: Option<&Fleet>, first: usize, generation: u32, batch: &[Report]) {
    let changes: Vec<PendingChange> = batch
        .iter()
        .zip(first..)
        .map(|(report, guest)| {
            let view = report.view();
            let envelope = Envelope {
                vm: vm(guest),
                address: "vsock:3:818".into(),
                guest_id: Some(GuestId::of_machine(&guest.to_string())),
                key: key(generation),
                digest: view.digest(),
                seen_at: WallTime::from_unix_ms(
                    *BEGAN + guest as u64 + 600_000 * u64::from(generation),
                ),
                trigger: Trigger::Reactive,
                generated_at: WallTime::from_unix_ms(1_700_000_000_000),
                agent_version: "0.2.0".into(),
                facts: facts(),
                report: Some(view),
            };
            let document = DocumentId {
                key: envelope.key,
                digest: envelope.digest,
                facts: None,
            };
            PendingChange::Put {
                vm: envelope.vm.clone(),
                slots: vec![(SinkName::default(), slot(document, PACKAGES as u32))],
                guest: GuestRow {
                    known: Some(document),
                    ..GuestRow::default()
                },
                report: SealedReport::new(&envelope).unwrap(),
                fleet: fleet.and_then(|fleet| fleet.prepare(&envelope)),
                seen_at: envelope.seen_at,
            }
        })
        .collect();
    table::apply(store, fleet, &changes).unwrap();
}

fn open(dir: &Path) -> Store {
    // The cache of a sensor.
    Store::open_with(dir, "sense.redb", StoreOptions::new(4 << 20))
        .unwrap()
        .store
}

/// Bytes of the file without air.
fn compacted(store: Store, dir: &Path) -> u64 {
    store.compact().unwrap();
    drop(store);
    std::fs::metadata(dir.join("sense.redb")).unwrap().len()
}

fn choice(random: &mut fastrand::Rng) -> Vec<usize> {
    let mut all: Vec<usize> = (0..DISTINCT).collect();
    random.shuffle(&mut all);
    all.truncate(PACKAGES);
    all.sort_unstable();
    all
}

fn package(n: usize, version: u32) -> Package {
    Package {
        name: format!("package-{n}"),
        evr: Evr {
            epoch: 0,
            version: format!("{version}.{}.7", n % 40),
            release: format!("{}.el9_4", n % 90),
        },
        arch: Some("x86_64".into()),
        source_rpm: Some(format!(
            "source-{}-{version}.{}.7-{}.el9_4.src.rpm",
            n / 3,
            n % 40,
            n % 90
        )),
        modularity_label: None,
        vendor: Some("Red Hat, Inc.".into()),
        license: Some("GPL-2.0-or-later AND LGPL-2.1-or-later".into()),
        origin: Origin::Repository("rhel-9-for-x86_64-baseos-rpms".into()),
    }
}

fn report(packages: Vec<Package>) -> Report {
    let mut report = Report {
        packages,
        package_db: "sqlite:var/lib/rpm".into(),
        ..Report::default()
    };
    (report.distribution.id, report.distribution.version_id) = ("rhel".into(), "9.4".into());
    report.distribution.pretty_name = "Red Hat Enterprise Linux 9.4 (Plow)".into();
    report.distribution.cpe = "cpe:/o:redhat:enterprise_linux:9::baseos".into();
    report.distribution.arch = "x86_64".into();
    // As a guest has them whose repositories were mapped.
    for part in ["baseos", "appstream", "codeready-builder", "supplementary"] {
        for cpe in ["enterprise_linux:9", "rhel_eus:9.4"] {
            report.repositories.push(Repository {
                id: format!("rhel-9-for-x86_64-{part}-rpms"),
                key: "rhel-cpe-repository".into(),
                cpe: format!("cpe:/o:redhat:{cpe}::{part}"),
                ..Repository::default()
            });
        }
    }
    report.normalize();
    report
}

/// About what an agent sends.
fn facts() -> Facts {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    [
        ("detected_os", "RHEL"),
        ("os_version", "9.4"),
        ("activation_status", "ACTIVE"),
        ("dnf_metadata_status", "AVAILABLE"),
        ("rpmdb_backend", "sqlite"),
        ("scan_trigger", "reactive"),
        ("report_digest", &digest),
        ("last_scan_at", "2026-11-21T10:00:00.240Z"),
        ("digest_form", "2"),
        ("provenance", "ok"),
        ("guest_id", "0123456789abcdef0123456789abcdef"),
        ("kernel_running", "5.14.0-427.13.1.el9_4.x86_64"),
        ("reboot_needed", "no"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn vm(guest: usize) -> VmId {
    format!("vm-{guest:05}").parse().unwrap()
}

fn key(generation: u32) -> ReportKey {
    ReportKey {
        epoch: Epoch::new(77),
        generation: Generation::new(generation).unwrap(),
    }
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_secs(time.tv_sec() as u64) + Duration::from_micros(time.tv_usec() as u64)
    };
    time(usage.user_time()) + time(usage.system_time())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
