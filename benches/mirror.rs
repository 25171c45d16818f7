//! A large fleet mirrored by `afferent`, and by PostgreSQL with the obvious upserts.
//!
//! 100,000 machines and 2,000 racks: first load, a cycle in which nothing changed, one in which
//! 1 % did; time, memory and bytes of each. PostgreSQL is started in a scratch directory from the
//! distribution's package (`/usr/lib/postgresql/*/bin`, run as user `postgres` when we are root)
//! and gets the same rows as CSV, already parsed, in one transaction per cycle.
//!
//! `cargo bench --bench mirror`; sizes come from `MACHINES` and `RACKS`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement for people; whatever fails ends it"
)]

use afferent::mirror::core::FileCore;
use afferent::mirror::cycle::{AlwaysOpen, Cycle, run_cycle};
use afferent::mirror::policy::{Policy, Profile};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn main() {
    let size = |name: &str, default: usize| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let (machines, racks) = (size("MACHINES", 100_000), size("RACKS", 2_000));
    let scratch = tempfile::tempdir().unwrap();
    println!("{machines} machines, {racks} racks");
    let ours = afferent(scratch.path(), machines, racks);
    match postgres(scratch.path(), machines, racks) {
        Some(theirs) => {
            for ((name, ours), theirs) in STEPS.iter().zip(ours).zip(theirs) {
                let times = theirs.as_secs_f64() / ours.as_secs_f64();
                println!(
                    "{name:<12} afferent {ours:>9.3?}  PostgreSQL {theirs:>9.3?}  {times:.1} times as fast"
                );
            }
        }
        None => println!("PostgreSQL is not installed: nothing to compare with"),
    }
}

const STEPS: [&str; 3] = ["first load", "no change", "1 % changed"];

/// Name of machine `n` in a step: one in a hundred changes in the last.
fn name(n: usize, step: usize) -> String {
    if step == 2 && n.is_multiple_of(100) {
        format!("renamed-{n}")
    } else {
        format!("node-{n}")
    }
}

fn mac(n: usize) -> String {
    format!(
        "02:00:60:{:02x}:{:02x}:{:02x}",
        n >> 16,
        (n >> 8) & 255,
        n & 255
    )
}

fn afferent(scratch: &Path, machines: usize, racks: usize) -> Vec<Duration> {
    let store = afferent::mirror::open(&scratch.join("state")).unwrap();
    let policy = Policy::of(Profile::NaturalKey);
    let times = (0..STEPS.len()).map(|step| {
        let path = scratch.join("core.json");
        std::fs::write(&path, document(machines, racks, step)).unwrap();
        let begin = Instant::now();
        let cycle = Cycle {
            policy: &policy,
            mirror: true,
            now: "2026-11-21T10:00:00.000Z".into(),
            new_id: &mut uuid::Uuid::new_v4,
            gatekeeper: &AlwaysOpen,
        };
        let summary = run_cycle(&store, &mut FileCore::at_path(path, None), cycle);
        let time = begin.elapsed();
        assert!(summary.errors.is_empty(), "{:?}", summary.errors);
        let counters = &summary.types["Compute"];
        assert_eq!(counters.pulled, machines as u64);
        println!(
            "afferent     {:<12} {time:>9.3?}  inserted {} updated {}",
            STEPS[step], counters.inserted, counters.updated
        );
        time
    });
    let times: Vec<Duration> = times.collect();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let bytes = std::fs::metadata(scratch.join("state/mirror.redb"))
        .unwrap()
        .len();
    println!(
        "afferent     {peak}, {} MB on disk, the audit log included",
        bytes / 1_000_000
    );
    times
}

fn document(machines: usize, racks: usize, step: usize) -> String {
    let mut text = String::from("{\"expected_racks\":[");
    for n in 0..racks {
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"rack_id":{{"id":"rack-{n}"}},"metadata":{{"name":"Rack {n}","labels":[{{"key":"chassis.manufacturer","value":"Quanta"}},{{"key":"chassis.serial-number","value":"QR-{n}"}},{{"key":"location.datacenter","value":"OSL1"}}]}}}}"#).unwrap();
    }
    text.push_str("],\"expected_machines\":[");
    for n in 0..machines {
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"bmc_mac_address":"{}","bmc_ip_address":"10.{}.{}.{}","chassis_serial_number":"MC-{n}","rack_id":{{"id":"rack-{}"}},"metadata":{{"name":"{}","labels":[{{"key":"manufacturer","value":"Foxwell"}},{{"key":"model","value":"CT-2"}},{{"key":"slot_id","value":"{}"}},{{"key":"tray_idx","value":"{}"}},{{"key":"host_id","value":"0"}}]}}}}"#,
            mac(n), n >> 16, (n >> 8) & 255, n & 255, n % racks, name(n, step), n % 48, n % 4).unwrap();
    }
    text + "]}"
}

/// A server of its own in a scratch directory; it ends with the value.
struct Server {
    bin: PathBuf,
    directory: PathBuf,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = as_postgres(&self.bin.join("pg_ctl"))
            .args([
                "-D",
                &text(&self.directory.join("data")),
                "-m",
                "fast",
                "stop",
            ])
            .stdout(Stdio::null())
            .status();
        let _ = self.process.wait();
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// The server refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .arg(program);
    command
}

fn server(scratch: &Path) -> Option<Server> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let bin = versions
        .flatten()
        .map(|v| v.path().join("bin"))
        .find(|bin| bin.join("initdb").exists())?;
    let directory = scratch.join("postgres");
    std::fs::create_dir(&directory).unwrap();
    for path in [scratch, &directory] {
        Command::new("chmod")
            .args(["777", &text(path)])
            .status()
            .unwrap();
    }
    let data = text(&directory.join("data"));
    let made = as_postgres(&bin.join("initdb"))
        .args(["-D", &data, "-A", "trust", "-U", "bench"])
        .stdout(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let process = as_postgres(&bin.join("postgres"))
        .args([
            "-D",
            &data,
            "-c",
            "listen_addresses=",
            "-k",
            &text(&directory),
            "-c",
            "shared_buffers=256MB",
        ])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server {
        bin,
        directory,
        process,
    };
    while !server.ready() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Some(server)
}

impl Server {
    fn ready(&self) -> bool {
        let asked = Command::new(self.bin.join("pg_isready"))
            .args(["-q", "-h", &text(&self.directory)])
            .status();
        asked.unwrap().success()
    }

    fn run(&self, script: &str) {
        let path = self.directory.join("script.sql");
        std::fs::write(&path, script).unwrap();
        let done = Command::new(self.bin.join("psql"))
            .args([
                "-h",
                &text(&self.directory),
                "-U",
                "bench",
                "-d",
                "postgres",
                "-qX",
                "-v",
                "ON_ERROR_STOP=1",
                "-f",
                &text(&path),
            ])
            .status();
        assert!(done.unwrap().success());
    }
}

const SCHEMA: &str = "
create table rack (id uuid primary key default gen_random_uuid(), name text unique not null, manufacturer text,
  serial_number text, external_id text unique, location jsonb, deleted_at timestamptz, unique (manufacturer, serial_number));
create table component (id uuid primary key default gen_random_uuid(), type text not null, name text, model text,
  manufacturer text, serial_number text, rack_id uuid, slot_id bigint, tray_index bigint, host_id bigint,
  deleted_at timestamptz, unique (manufacturer, serial_number));
create index on component (rack_id);
create table bmc (mac_address macaddr primary key, type text not null, component_id uuid not null, ip_address inet);
create index on bmc (component_id);
";

/// One cycle: stage, upsert what differs, delete what is gone. The statistics are brought up to date on
/// the way: without them the planner compares every row with every other.
const CYCLE: &str = "
begin;
create temp table r (external_id text, name text, manufacturer text, serial_number text, location jsonb) on commit drop;
create temp table m (mac macaddr, ip inet, serial_number text, rack text, name text, manufacturer text, model text,
  slot_id bigint, tray_index bigint, host_id bigint) on commit drop;
\\copy r from '@racks' csv
\\copy m from '@machines' csv
analyze r;
analyze m;
insert into rack (external_id, name, manufacturer, serial_number, location) select * from r
  on conflict (external_id) do update set name = excluded.name, location = excluded.location, deleted_at = null
  where (rack.name, rack.location, rack.deleted_at) is distinct from (excluded.name, excluded.location, null);
update rack set deleted_at = now() where deleted_at is null and external_id is not null
  and not exists (select 1 from r where r.external_id = rack.external_id);
insert into component (type, name, model, manufacturer, serial_number, rack_id, slot_id, tray_index, host_id)
  select 'Compute', m.name, m.model, m.manufacturer, m.serial_number, rack.id, m.slot_id, m.tray_index, m.host_id
  from m left join rack on rack.external_id = m.rack and rack.deleted_at is null
  on conflict (manufacturer, serial_number) do update set name = excluded.name, model = excluded.model,
    rack_id = excluded.rack_id, slot_id = excluded.slot_id, tray_index = excluded.tray_index,
    host_id = excluded.host_id, deleted_at = null
  where (component.name, component.model, component.rack_id, component.slot_id, component.tray_index, component.host_id, component.deleted_at)
    is distinct from (excluded.name, excluded.model, excluded.rack_id, excluded.slot_id, excluded.tray_index, excluded.host_id, null);
analyze component;
update component set deleted_at = now() where deleted_at is null and type = 'Compute'
  and not exists (select 1 from m where m.manufacturer = component.manufacturer and m.serial_number = component.serial_number);
insert into bmc (mac_address, type, component_id, ip_address)
  select m.mac, 'Host', component.id, m.ip from m join component using (manufacturer, serial_number)
  on conflict (mac_address) do update set component_id = excluded.component_id, ip_address = excluded.ip_address
  where (bmc.component_id, bmc.ip_address) is distinct from (excluded.component_id, excluded.ip_address);
commit;
";

fn postgres(scratch: &Path, machines: usize, racks: usize) -> Option<Vec<Duration>> {
    let server = server(scratch)?;
    server.run(SCHEMA);
    let (racks_csv, machines_csv) = (scratch.join("racks.csv"), scratch.join("machines.csv"));
    let times = (0..STEPS.len()).map(|step| {
        let mut text = String::new();
        for n in 0..racks {
            writeln!(
                text,
                r#"rack-{n},Rack {n},Quanta,QR-{n},"{{""datacenter"": ""OSL1""}}""#
            )
            .unwrap();
        }
        std::fs::write(&racks_csv, &text).unwrap();
        text.clear();
        for n in 0..machines {
            writeln!(
                text,
                "{},10.{}.{}.{},MC-{n},rack-{},{},Foxwell,CT-2,{},{},0",
                mac(n),
                n >> 16,
                (n >> 8) & 255,
                n & 255,
                n % racks,
                name(n, step),
                n % 48,
                n % 4
            )
            .unwrap();
        }
        std::fs::write(&machines_csv, &text).unwrap();
        let script = CYCLE.replace("@racks", &racks_csv.display().to_string());
        let script = script.replace("@machines", &machines_csv.display().to_string());
        let begin = Instant::now();
        server.run(&script);
        let time = begin.elapsed();
        println!("PostgreSQL   {:<12} {time:>9.3?}", STEPS[step]);
        time
    });
    let times = times.collect();
    let used = Command::new("du")
        .args(["-sm", &text(&server.directory.join("data"))])
        .output()
        .unwrap();
    println!(
        "PostgreSQL   {} MB on disk, its log included",
        String::from_utf8_lossy(&used.stdout)
            .split('\t')
            .next()
            .unwrap()
    );
    Some(times)
}
