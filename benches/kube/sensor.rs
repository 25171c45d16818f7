//! The sensor's process, as /proc and its own metrics show it.

use super::process;
use super::support::kube_api::FakeApi;
use super::support::kubeconfig::kubeconfig;
use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The real program, and what /proc says of it.
pub struct Sensor {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

impl Sensor {
    /// Starts it with these flags more.
    pub fn start(api: &FakeApi, more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = api.dir.path().join("pki/ca.crt");
        let kubeconfig = kubeconfig(dir.path(), &api.server, &authority, "sense-token");
        let kubeconfig = kubeconfig.display().to_string();
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .unwrap()
            .port();
        let child = Command::new(binary())
            .args(["sense", "--discover", "kubevirt", "--kube-cluster", "bench"])
            .args(["--kubeconfig", &kubeconfig])
            .args([
                "--state-dir",
                &dir.path().join("state").display().to_string(),
            ])
            .args([
                "--deliver",
                &format!("file:{}", dir.path().join("out").display()),
            ])
            .args(["--metrics", &port.to_string()])
            .args(more)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, port, dir }
    }

    /// Waits until it knows so many machines.
    pub fn wait_for(&self, machines: u32) {
        while self.sum("afferent_guests{") != Some(machines.into()) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The sum of the metrics whose lines begin so; `None` while it does not answer.
    pub fn sum(&self, prefix: &str) -> Option<u64> {
        let page = process::page(self.port);
        let values = page
            .lines()
            .filter_map(|line| line.strip_prefix(prefix))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        (!page.is_empty()).then(|| values.sum())
    }

    /// The file that it delivers to.
    pub fn delivered(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// The share of a core, in percent, while something else goes on.
    pub fn share(&self, meanwhile: impl FnOnce()) -> f64 {
        let (before, from) = (self.cpu(), Instant::now());
        meanwhile();
        100.0 * (self.cpu() - before).as_secs_f64() / from.elapsed().as_secs_f64()
    }

    pub fn rss_kib(&self) -> u64 {
        process::rss_kib(self.child.id())
    }

    pub fn cpu(&self) -> Duration {
        process::cpu(self.child.id())
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `KUBE_BINARY`, or the one that was built beside this.
fn binary() -> OsString {
    std::env::var_os("KUBE_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_afferent").into())
}
