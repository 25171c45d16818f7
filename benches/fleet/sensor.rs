//! The sensor's process, as /proc and its own metrics show it.

use super::process;
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

pub struct Sensor {
    child: Child,
    command: Vec<String>,
    port: u16,
    durable: Durable,
}

/// When the report of a guest and generation was durable in the sensor, in nanoseconds since 1970, as
/// its log says.
type Durable = Arc<Mutex<HashMap<(u32, u32), u128>>>;

impl Sensor {
    /// Starts `afferent sense` on the sockets in `dir/guests`.
    pub fn start(dir: &Path, state: &str, deliver: &str, more: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let path = |name: &str| -> String { dir.join(name).display().to_string() };
        let mut command: Vec<String> = ["sense", "--discover", &path("guests")]
            .iter()
            .chain(&["--state-dir", &path(state), "--deliver", deliver])
            .chain(&["--metrics", &port.to_string()])
            .chain(more)
            .map(|text| (*text).to_owned())
            .collect();
        command.insert(0, binary().display().to_string());
        let durable = Durable::default();
        let child = spawn(&command, &durable);
        Self {
            child,
            command,
            port,
            durable,
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts it again as it was.
    pub fn again(&mut self) {
        self.child = spawn(&self.command, &self.durable);
    }

    /// How long `afferent status` takes, and how much it says.
    pub fn status(&self, format: &[&str]) -> (Duration, usize) {
        let at = self.command.iter().position(|word| word == "--state-dir");
        let state = &self.command[at.unwrap() + 1];
        let from = Instant::now();
        let said = Command::new(binary())
            .args(["status", "--state-dir", state])
            .args(format)
            .output()
            .unwrap();
        assert!(said.status.success(), "{said:?}");
        (from.elapsed(), said.stdout.len())
    }

    pub fn rss_mib(&self) -> u64 {
        process::rss_kib(self.pid()) / 1024
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Duration {
        process::cpu(self.pid())
    }

    /// When each report was durable.
    pub fn durable(&self) -> HashMap<(u32, u32), u128> {
        self.durable.lock().unwrap().clone()
    }

    /// How many reports were durable so far, without asking the sensor, whose time is measured.
    pub fn durable_count(&self) -> usize {
        self.durable.lock().unwrap().len()
    }

    fn metric(&self, name: &str) -> u64 {
        let page = process::page(self.port);
        let line = page.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until nothing is pending and the CPU rests.
    pub fn settle(&self) {
        let mut quiet_since = Instant::now();
        let mut before = self.cpu();
        while quiet_since.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.cpu();
            let pending = self.metric("afferent_pending_reports{class=\"reactive\"} ")
                + self.metric("afferent_pending_reports{class=\"routine\"} ");
            if pending > 0 || now - before > Duration::from_millis(100) {
                quiet_since = Instant::now();
            }
            before = now;
        }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program that is measured.
pub fn binary() -> PathBuf {
    std::env::var_os("FLEET_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_afferent").into(), PathBuf::from)
}

fn spawn(command: &[String], durable: &Durable) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\""])
        .args(command)
        .env(
            "AFFERENT_LOG",
            "error,afferent::sense::pull=debug,afferent::sense::queue=debug",
        )
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let durable = durable.clone();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some((key, at)) = durable_line(&line) {
                durable.lock().unwrap().insert(key, at);
            } else if line.contains("ERROR") {
                eprintln!("{line}");
            }
        }
    });
    child
}

/// `2026-11-21T10:00:00.123456Z DEBUG pending vm=g-7 generation=8:2 class=Reactive`
fn durable_line(line: &str) -> Option<((u32, u32), u128)> {
    let (time, rest) = line.split_once(' ')?;
    let rest = rest.split_once("pending vm=g-")?.1;
    let (guest, rest) = rest.split_once(" generation=")?;
    let key = rest.split(' ').next()?;
    let (_, generation) = key.split_once(':')?;
    let time = humantime::parse_rfc3339(time).ok()?;
    let at = time.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(((guest.parse().ok()?, generation.parse().ok()?), at))
}
