//! The sensor's process, as /proc and its own metrics show it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Sensor {
    child: Child,
    command: Vec<String>,
    port: u16,
}

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
        let child = spawn(&command);
        Self {
            child,
            command,
            port,
        }
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again as it was.
    pub fn again(&mut self) {
        self.child = spawn(&self.command);
    }

    pub fn rss_mib(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kib / 1024
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }

    /// Reports that are durable in the sensor since its start.
    pub fn reports(&self) -> u64 {
        self.metric("afferent_pulls_total{outcome=\"report\"} ")
    }

    fn metric(&self, name: &str) -> u64 {
        let page = self.page();
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

    fn page(&self) -> String {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        ask().unwrap_or_default()
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> PathBuf {
    std::env::var_os("FLEET_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_afferent").into(), PathBuf::from)
}

fn spawn(command: &[String]) -> Child {
    Command::new("sh")
        .args(["-c", "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\""])
        .args(command)
        .env("AFFERENT_LOG", "error")
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}
