//! PostgreSQL, started in a scratch directory, and the obvious upserts over one connection.

use super::{Cost, document, name_of_step};
use afferent::inventory::Kind;
use afferent::mirror::core::{Core, FileCore, Pull};
use afferent::mirror::policy::{Policy, Profile};
use afferent::mirror::spec;
use afferent::mirror::spec::component::{Address, Position, WantedComponent};
use afferent::mirror::spec::rack::WantedRack;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const BEGIN_RACKS: &str = "
begin;
insert into audit_run (id, time, source) values (gen_random_uuid(), now(), 'file:core.json');
create temp table r (external_id text, name text, manufacturer text, serial_number text, description jsonb,
  location jsonb, rack_profile_id text) on commit drop;
copy r from stdin csv;
";

const BEGIN_MACHINES: &str = "
begin;
create temp table m (mac macaddr, ip inet, manufacturer text, serial_number text, name text, model text,
  slot_id bigint, tray_index bigint, host_id bigint, rack text) on commit drop;
copy m from stdin csv;
";

/// What each step took; `None` where PostgreSQL is not installed.
pub(crate) fn measure(scratch: &Path, sizes: (usize, usize)) -> Option<Vec<Cost>> {
    let server = Server::start(scratch)?;
    let mut session = server.session();
    let psql = session.process.0.id().to_string();
    session.say(include_str!("schema.sql"));
    session.wait();
    let path = scratch.join("core.json");
    let costs = (0..super::STEPS.len()).map(|step| {
        std::fs::write(&path, document::document(sizes, step)).unwrap();
        let cost = Cost::of(
            || server.cpu() + super::cpu(&psql),
            || cycle(&mut session, &path, step == 0),
        );
        // What autovacuum does before the next cycle, so that it never falls into one.
        session.say("vacuum analyze;");
        let inserted = "select count(*) from audit where run = (select max(number) from audit_run)";
        session.say(&format!("\\copy ({inserted}) to stdout\n"));
        let rows = session.line();
        session.wait();
        println!(
            "PostgreSQL   {:<15} {cost}  {rows} audit rows",
            name_of_step(step)
        );
        cost
    });
    let costs = costs.collect();
    let used = Command::new("du")
        .arg("-sm")
        .arg(server.directory.join("data"))
        .output();
    let used = String::from_utf8_lossy(&used.unwrap().stdout).into_owned();
    println!(
        "PostgreSQL   {} MB on disk, its log included",
        used.split('\t').next().unwrap()
    );
    Some(costs)
}

/// Reads the document as the mirror reads it, and hands its rows over. What fills empty tables
/// brings their statistics up to date on the way: without them the planner compares every row with
/// every other.
fn cycle(session: &mut Session, path: &Path, first: bool) {
    let marker = if first { "-- first load: " } else { "" };
    let policy = Policy::of(Profile::NaturalKey);
    let mut core = FileCore::at_path(path.to_owned(), None);
    core.begin();
    let mut entries = |kind| match core.expected(kind) {
        Pull::Done(pulled) => pulled.entries,
        other => panic!("{other:?}"),
    };
    session.say(BEGIN_RACKS);
    for entry in entries(Kind::Rack) {
        let (rack, _) = spec::rack::wanted(&entry, &policy).unwrap();
        session.rack(&rack);
    }
    session.say("\\.\n");
    session.say(&include_str!("racks.sql").replace(marker, ""));
    session.say(BEGIN_MACHINES);
    for entry in entries(Kind::Compute) {
        let (machine, _) = spec::component::wanted(&entry, Kind::Compute, &policy).unwrap();
        session.machine(&machine);
    }
    session.say("\\.\n");
    session.say(&include_str!("machines.sql").replace(marker, ""));
    session.wait();
}

/// One connection: `psql`, fed through a pipe.
struct Session {
    process: Process,
    input: BufWriter<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        self.input.flush().unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "psql ended");
        line.trim_end().to_owned()
    }

    /// Until all that was said is done.
    fn wait(&mut self) {
        self.say("\n\\echo done\n");
        assert_eq!(self.line(), "done");
    }

    fn rack(&mut self, rack: &WantedRack) {
        let location = rack.location.as_ref().map(|json| json.value().to_string());
        self.row(&[
            rack.rack_id.as_ref().map(|id| id.as_str()),
            Some(&rack.name),
            rack.manufacturer.as_deref(),
            rack.serial.as_deref(),
            None,
            location.as_deref(),
            rack.rack_profile_id.as_deref(),
        ]);
    }

    fn machine(&mut self, machine: &WantedComponent) {
        let ip = match machine.ip {
            Address::At(Some(ip)) => Some(ip.to_string()),
            _ => None,
        };
        let [slot, tray, host] = machine.positions.map(|position| match position {
            Position::At(position) => position.to_string(),
            _ => "0".to_owned(),
        });
        self.row(&[
            Some(&machine.mac.to_string()),
            ip.as_deref(),
            machine.manufacturer.as_deref(),
            machine.serial.as_deref(),
            machine.name.as_deref(),
            machine.model.as_deref(),
            Some(&slot),
            Some(&tray),
            Some(&host),
            machine.rack_id.as_ref().map(|id| id.as_str()),
        ]);
    }

    fn row(&mut self, fields: &[Option<&str>]) {
        for (n, field) in fields.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let out = &mut self.input;
            match field {
                Some(text) if text.contains(['"', ',', '\n']) => {
                    write!(out, "{comma}\"{}\"", text.replace('"', "\"\""))
                }
                Some(text) => write!(out, "{comma}{text}"),
                None => out.write_all(comma.as_bytes()),
            }
            .unwrap();
        }
        self.say("\n");
    }
}

/// Ends with the value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of its own in a scratch directory; it ends with the value.
struct Server {
    bin: PathBuf,
    directory: PathBuf,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = as_postgres(&self.bin.join("pg_ctl"));
        stop.arg("-D").arg(self.directory.join("data"));
        let _ = stop
            .args(["-m", "fast", "stop"])
            .stdout(Stdio::null())
            .status();
        let _ = self.process.wait();
    }
}

/// The server refuses to run as root.
fn as_postgres(program: &Path) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout != b"0\n" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    command.arg(program);
    command
}

impl Server {
    fn start(scratch: &Path) -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let mut bins = versions.flatten().map(|v| v.path().join("bin"));
        let bin = bins.find(|bin| bin.join("initdb").exists())?;
        let directory = scratch.join("postgres");
        std::fs::create_dir(&directory).unwrap();
        for path in [scratch, &directory] {
            let opened = Command::new("chmod").arg("777").arg(path).status();
            assert!(opened.unwrap().success());
        }
        let data = directory.join("data");
        let mut make = as_postgres(&bin.join("initdb"));
        make.arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "bench"]);
        assert!(make.stdout(Stdio::null()).status().unwrap().success());
        let mut run = as_postgres(&bin.join("postgres"));
        run.arg("-D").arg(&data).arg("-k").arg(&directory);
        // Durable, as it comes; room for all of it in memory, and no compiler for queries this short.
        for setting in [
            "listen_addresses=",
            "shared_buffers=256MB",
            "work_mem=64MB",
            "jit=off",
        ] {
            run.args(["-c", setting]);
        }
        let process = run.stderr(Stdio::null()).spawn().unwrap();
        let server = Self {
            bin,
            directory,
            process,
        };
        while !server.ready() {
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(server)
    }

    fn ready(&self) -> bool {
        let mut ask = Command::new(self.bin.join("pg_isready"));
        ask.arg("-q")
            .arg("-h")
            .arg(&self.directory)
            .status()
            .unwrap()
            .success()
    }

    fn session(&self) -> Session {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.arg("-h").arg(&self.directory);
        psql.args([
            "-U",
            "bench",
            "-d",
            "postgres",
            "-qXAt",
            "-v",
            "ON_ERROR_STOP=1",
        ]);
        let mut process = psql
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Session {
            input: BufWriter::new(process.stdin.take().unwrap()),
            output: BufReader::new(process.stdout.take().unwrap()),
            process: Process(process),
        }
    }

    /// Of the server and of all it started.
    fn cpu(&self) -> Duration {
        let own = self.process.id().to_string();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let names = processes.filter_map(|entry| entry.file_name().into_string().ok());
        let all = names.filter(|pid| {
            *pid == own || super::stat(pid).is_some_and(|fields| fields.get(1) == Some(&own))
        });
        all.map(|pid| super::cpu(&pid)).sum()
    }
}
