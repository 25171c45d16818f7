//! Domains of libvirt that are defined anew, or get another name, while their sensor runs or is away.
//!
//! The domains are files as libvirt writes them. Their agents cannot be reached where there is no VSOCK; what
//! a sensor then knows of a guest it has learned over a unix socket under the same name.

use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, free_port, http_get, status};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const FIRST: &str = "0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11";
const SECOND: &str = "5d1f6d62-0b7e-4c0f-9d59-0a2f6f0b2222";
const THIRD: &str = "d0a5c2f4-33f5-4b3e-8f0e-6f1f5a3b3333";

/// A state directory, a file to deliver to, and libvirt's directory.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("qemu")).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Defines and starts a domain, as libvirt replaces its file.
    fn start(&self, name: &str, uuid: &str) {
        let text = format!(
            "<domstatus state='running'><domain type='kvm' id='4'><name>{name}</name>\
             <uuid>{uuid}</uuid><devices><vsock model='virtio'><cid auto='yes' address='3'/>\
             </vsock></devices></domain></domstatus>"
        );
        fs::write(self.path("new"), text).unwrap();
        let file = self.path("qemu").join(format!("{name}.xml"));
        fs::rename(self.path("new"), file).unwrap();
    }

    fn sense(&self, more: &[&str]) -> Program {
        let deliver = format!("file:{}", self.path("out").display());
        Program::sense(&self.path("state"), &deliver, more)
    }

    fn of_libvirt(&self) -> [String; 2] {
        let directory = self.path("qemu");
        let source = format!("libvirt:{}", directory.display());
        ["--discover".into(), source]
    }

    /// The guest of this name in `afferent status`, once it looks like this.
    fn guest(&self, name: &str, looks: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{name} is shown so"), || {
            let answer = status(&self.path("state"), &[]).0;
            let guests = answer["guests"].as_array()?.iter();
            let guest = guests.into_iter().find(|guest| guest["vm"] == name)?;
            looks(guest).then(|| guest.clone())
        })
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.path("out"))
    }
}

/// Loss prevented: the report of a machine that is no more passes for that of the one with its name, which is
/// then never asked in full, or told as "unchanged".
#[test]
fn a_domain_that_is_defined_anew_is_another_machine() {
    let host = Host::new();
    let socket = host.path("a.sock");
    let _agent = FakeAgent::start(&socket, Script::new());
    let over_unix = ["--vm".to_owned(), format!("web=unix:{}", socket.display())];
    let over_unix = over_unix.each_ref().map(String::as_str);
    let libvirt = host.of_libvirt();
    let libvirt = libvirt.each_ref().map(String::as_str);
    let is_accepted = |guest: &Value| guest["accepted"]["key"].is_string();

    let mut sense = host.sense(&over_unix);
    let known = host.guest("web", is_accepted);
    assert_eq!(known["domain"], Value::Null);
    assert!(sense.terminate().success());

    // What is known may well be of this domain: nobody said before which it was. From now on it is.
    host.start("web", FIRST);
    let is = |uuid: &'static str| move |guest: &Value| guest["domain"] == uuid;
    for round in ["noted", "kept"] {
        let mut sense = host.sense(&libvirt);
        let guest = host.guest("web", is(FIRST));
        assert_eq!(guest["known"], known["known"], "{round}");
        assert_eq!(guest["accepted"], known["accepted"], "{round}");
        assert_eq!(guest["machine_before"], Value::Null, "{round}");
        assert!(sense.terminate().success());
    }

    // Defined anew while the sensor is away, and once more while it runs.
    host.start("web", SECOND);
    let port = free_port();
    let metrics = port.to_string();
    let mut sense = host.sense(&[&libvirt[..], &["--metrics", &metrics]].concat());
    for (uuid, before, changes) in [(SECOND, FIRST, 1), (THIRD, SECOND, 2)] {
        host.start("web", uuid);
        let guest = host.guest("web", is(uuid));
        for nothing in ["known", "accepted", "guest_id", "reported_at"] {
            assert_eq!(guest[nothing], Value::Null, "{nothing} in {guest}");
        }
        assert_eq!(guest["machine_before"]["domain"], before, "{guest}");
        let page = http_get(port, "/metrics").unwrap().1;
        let count = format!("\nafferent_machine_changes_total {changes}\n");
        assert!(page.contains(&count), "{page}");
    }
    assert!(sense.terminate().success());

    // The agent has the very same report: it is delivered in full, as the first of this machine.
    assert_eq!(host.lines().len(), 1);
    let mut sense = host.sense(&over_unix);
    let guest = host.guest("web", is_accepted);
    assert_eq!(
        (&guest["known"], &guest["domain"]),
        (&known["known"], &Value::from(THIRD))
    );
    assert!(sense.terminate().success());
    let told = host.lines();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0]["report"], told[1]["report"]);
    assert!(told[1]["report"]["packages"].is_array(), "{told:?}");
}

/// Keys and subjects follow the name: another name is another guest.
#[test]
fn a_domain_with_another_name_is_a_new_guest_and_the_old_one_is_gone() {
    let host = Host::new();
    let libvirt = host.of_libvirt();
    host.start("web", FIRST);
    let mut sense = host.sense(&libvirt.each_ref().map(String::as_str));
    let has_uuid = |guest: &Value| guest["domain"] == FIRST;
    host.guest("web", has_uuid);
    fs::remove_file(host.path("qemu").join("web.xml")).unwrap();
    host.start("shop", FIRST);
    let guest = host.guest("shop", has_uuid);
    assert_eq!(guest["machine_before"], Value::Null);
    let names = |state: &Path| {
        let guests = status(state, &[]).0["guests"].clone();
        let names = guests.as_array()?.iter().map(|g| g["vm"].to_string());
        Some(names.collect::<Vec<_>>())
    };
    assert_eq!(names(&host.path("state")).unwrap(), ["\"shop\""]);
    assert!(sense.terminate().success());
}
