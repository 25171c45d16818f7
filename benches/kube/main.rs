//! What the discovery of KubeVirt costs the sensor: ten thousand virtual machines, listed and watched.
//!
//! `cargo bench --bench kube`; `KUBE_MACHINES` makes it smaller. The API server is that of the tests, in this
//! process; the sensor is the real program. Machines run without a VSOCK device, so that nobody is asked and only
//! the discovery is measured. Objects are as large as real ones, with two fifths of `managedFields`.
//!
//! Measured with 10,000 machines on two busy cores, x86-64 with glibc, without LTO: 18 MiB more than with no machine,
//! which is 1.5 times what the sensor has without (12.4 MiB), and 1.9 KB a machine, its entry among the sensor's
//! guests included; listing takes 1.1 s of CPU; then 0.4 % of a core without a change, 1.2 % with 20 changes a
//! second. How long the list takes is as much the API server's time as the sensor's: a debug build of it takes 40 s.

#![allow(clippy::print_stdout, reason = "the numbers are the result")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench that cannot run has no result"
)]

#[allow(unreachable_pub, reason = "one program")]
#[path = "support/process.rs"]
mod process;
#[path = "../tests/it/support/mod.rs"]
#[allow(
    clippy::print_stderr,
    unreachable_pub,
    unused_imports,
    reason = "shared with the tests, which use the rest"
)]
mod support;

use serde_json::{Value, json};
use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::kube_api::FakeApi;
use support::kubeconfig::kubeconfig;

/// How long an idle sensor is watched, and one to which changes come.
const WATCHED: Duration = Duration::from_secs(SECONDS as u64);
const SECONDS: usize = 15;

/// Changes a second: ten thousand machines whose objects change once in 500 s.
const CHANGES: u32 = 20;

fn main() {
    let machines: usize = std::env::var("KUBE_MACHINES").map_or(10_000, |n| n.parse().unwrap());
    let none = Sensor::start(&FakeApi::start(), 0);
    let without = none.rss_kib();
    drop(none);

    let api = FakeApi::start();
    for n in 0..machines {
        let machine = json!({"metadata": meta(n), "spec": {"runStrategy": "Always"}});
        api.put("virtualmachines", machine);
        api.put("virtualmachineinstances", instance(n, "10.0.0.7"));
    }
    let bytes = instance(0, "10.0.0.7").to_string().len();
    println!("{machines} virtual machines, {bytes} bytes each as an instance");
    let began = Instant::now();
    let sensor = Sensor::start(&api, machines);
    println!(
        "listed after               {:>7.2} s, with {:.2} s of CPU",
        began.elapsed().as_secs_f64(),
        sensor.cpu().as_secs_f64()
    );
    let idle = sensor.share(|| std::thread::sleep(WATCHED));
    println!(
        "RSS, watching              {:>7.1} MiB more than with no machine ({:.1} MiB)",
        (sensor.rss_kib() as f64 - without as f64) / 1024.0,
        without as f64 / 1024.0
    );
    println!("watched, without a change  {idle:>7.2} % of a core");
    let changing = sensor.share(|| {
        for n in 0..SECONDS * CHANGES as usize {
            api.put(
                "virtualmachineinstances",
                instance(n % machines, &format!("10.1.0.{}", n % 250)),
            );
            std::thread::sleep(Duration::from_secs(1) / CHANGES);
        }
    });
    println!("watched, {CHANGES} changes a second {changing:>5.2} % of a core");
    println!(
        "RSS, after them            {:>7.1} MiB more than with no machine",
        (sensor.rss_kib() as f64 - without as f64) / 1024.0
    );
}

fn meta(n: usize) -> Value {
    let field = "f:spec\":{\"f:domain\":{\"f:devices\":{\"f:disks\":{},\"f:interfaces\":{}}}},";
    json!({
        "name": format!("vm-{n:05}"), "namespace": format!("team-{}", n % 40),
        "labels": {"kubevirt.io/nodeName": format!("node-{}", n % 100), "app": "database"},
        "uid": uuid::Uuid::from_u128(n as u128 + 1).to_string(),
        "managedFields": [{"manager": "virt-controller", "operation": "Update", "apiVersion": "kubevirt.io/v1",
            "fieldsType": "FieldsV1", "fieldsV1": field.repeat(40)}],
    })
}

fn instance(n: usize, address: &str) -> Value {
    let mut meta = meta(n);
    meta["ownerReferences"] = json!([{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "name": meta["name"], "uid": meta["uid"], "controller": true, "blockOwnerDeletion": true}]);
    meta["uid"] = uuid::Uuid::from_u128((1 << 100) + n as u128)
        .to_string()
        .into();
    // What is in an object and not read.
    let volumes: Vec<Value> = (0..20)
        .map(|disk| json!({"name": format!("disk-{disk}"), "persistentVolumeClaim": {"claimName": format!("claim-{n}-{disk}"), "readOnly": false}, "size": "20Gi"}))
        .collect();
    json!({
        "metadata": meta,
        "spec": {"domain": {"devices": {"autoattachVSOCK": false}}, "volumes": volumes},
        "status": {"phase": "Running", "nodeName": format!("node-{}", n % 100), "volumeStatus": volumes,
            "interfaces": [{"name": "default", "ipAddress": address, "ipAddresses": [address, "fd00:10:244::17"]}],
            "guestOSInfo": {"id": "rhel", "prettyName": "Red Hat Enterprise Linux 9.4 (Plow)", "kernelRelease": "5.14.0-427.13.1.el9_4.x86_64"}},
    })
}

/// The real program, and what /proc says of it.
struct Sensor {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Sensor {
    /// Starts it and waits until it knows so many machines.
    fn start(api: &FakeApi, machines: usize) -> Self {
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
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut sensor = Self {
            child,
            port,
            _dir: dir,
        };
        while !sensor.knows(machines) {
            assert!(sensor.child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        sensor
    }

    fn knows(&self, machines: usize) -> bool {
        let page = process::page(self.port);
        let guests = page
            .lines()
            .filter_map(|line| line.strip_prefix("afferent_guests{"))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
            .sum::<usize>();
        !page.is_empty() && guests == machines
    }

    /// The share of a core, in percent, while something else goes on.
    fn share(&self, meanwhile: impl FnOnce()) -> f64 {
        let (before, from) = (self.cpu(), Instant::now());
        meanwhile();
        100.0 * (self.cpu() - before).as_secs_f64() / from.elapsed().as_secs_f64()
    }

    fn rss_kib(&self) -> u64 {
        process::rss_kib(self.child.id())
    }

    fn cpu(&self) -> Duration {
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
