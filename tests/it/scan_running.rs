//! Facts of the machine that runs from a root, with the real rpm.

use crate::support::central::{Central, Received};
use crate::support::eventually;
use crate::support::program::Program;
use crate::support::rpm_root::{RpmRoot, Spec};
use serde_json::Value;
use std::process::Command;

fn facts_of(mut scan: Command) -> Value {
    let output = scan.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    document["facts"].clone()
}

/// `afferent` on the root of this machine, where the database in it is that of `root`.
fn on_this_machine(root: &RpmRoot, arguments: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "sh", "-c"])
        .arg("mount --bind \"$0\" /var/lib/rpm && exec \"$@\" --dbpath var/lib/rpm")
        .arg(root.dbpath())
        .arg(env!("CARGO_BIN_EXE_afferent"))
        .args(arguments);
    command
}

fn scan_of_this_machine(root: &RpmRoot) -> Command {
    on_this_machine(root, &["scan", "--format", "json"])
}

fn can_mount() -> bool {
    let mut probe = Command::new("unshare");
    probe.args([
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "--bind",
        "/tmp",
        "/var/lib/rpm",
    ]);
    probe.output().is_ok_and(|output| output.status.success())
}

// The loss: a machine that still runs what was updated long ago, and nobody knows.
#[test]
fn a_kernel_and_a_library_installed_after_the_boot_are_reasons_for_another() {
    if !can_mount() {
        println!(
            "skipped: this machine lets nobody mount in a namespace of its own, or has no /var/lib/rpm"
        );
        return;
    }
    let root = RpmRoot::new();
    let kernel = |release| Spec {
        name: "kernel-core",
        version: "5.14.0",
        release,
        arch: "x86_64",
        ..Spec::default()
    };
    root.add(&Spec::default());
    let facts = facts_of(scan_of_this_machine(&root));
    assert_eq!(facts["reboot_needed"], "no");
    assert_eq!(facts["rpmdb_packages"], "1");
    assert_eq!(facts["kernel_installed"], Value::Null);
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(facts["kernel_running"], release.trim());
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(facts["boot_id"], boot_id.trim());
    assert!(facts["booted_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(facts["agent_started_at"], Value::Null, "a scan is no agent");

    root.install(&[
        root.build(&kernel("503.el9")),
        root.build(&kernel("70.el9")),
    ]);
    root.add(&Spec {
        name: "openssl-libs",
        ..Spec::default()
    });
    let facts = facts_of(scan_of_this_machine(&root));
    assert_eq!(facts["reboot_needed"], "kernel,openssl");
    // Not in the order of letters.
    assert_eq!(facts["kernel_installed"], "5.14.0-503.el9.x86_64");
    assert_eq!(facts["rpmdb_packages"], "4");
}

// The loss: nobody sees that an agent was started anew, or when.
#[test]
fn a_restart_of_the_agent_reaches_central_as_a_fact_with_the_packages_it_had() {
    if !can_mount() {
        println!(
            "skipped: this machine lets nobody mount in a namespace of its own, or has no /var/lib/rpm"
        );
        return;
    }
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (listen, state) = (format!("unix:{}", path("socket")), path("agent"));
    let serve = || {
        let arguments = ["serve", "--listen", &listen, "--state-dir", &state];
        Program::start_logged(on_this_machine(&root, &arguments), &dir.path().join("log"))
    };
    let central = Central::start();
    let vm = format!("a={listen}");
    let polls = ["--vm", &vm, "--poll-interval", "1s"];
    let _sense = Program::sense(&dir.path().join("sense"), &central.url, &polls);
    let started_at = |received: &Received| {
        let at = &received.body["meta"]["facts"]["agent_started_at"];
        at.as_str().map(str::to_owned)
    };
    let mut agent = serve();
    let first = eventually("the report is at Central", || {
        central.received().first().cloned()
    });
    let begun = started_at(&first).expect("the agent says when it was started");
    agent.kill();
    let _agent = serve();
    let second = eventually("the restart is at Central", || {
        let mut received = central.received().into_iter();
        received.find(|received| started_at(received).is_some_and(|at| at > begun))
    });
    let digest = |received: &Received| received.body["meta"]["digest"].clone();
    assert!(digest(&first).is_string(), "{}", first.body);
    assert_eq!(digest(&first), digest(&second));
    assert_eq!(first.report(), second.report());
}

#[test]
fn an_image_has_facts_of_what_is_installed_and_none_of_what_runs() {
    let root = RpmRoot::new();
    root.add(&Spec {
        name: "kernel-core",
        version: "5.14.0",
        release: "503.el9",
        arch: "x86_64",
        ..Spec::default()
    });
    let mut scan = Command::new(env!("CARGO_BIN_EXE_afferent"));
    scan.args(["scan", "--format", "json", "--root"])
        .arg(root.path());
    let facts = facts_of(scan);
    assert_eq!(facts["kernel_installed"], "5.14.0-503.el9.x86_64");
    assert_eq!(
        (&facts["rpmdb_packages"], &facts["provenance"]),
        (&"1".into(), &"none".into())
    );
    for name in [
        "kernel_running",
        "reboot_needed",
        "boot_id",
        "booted_at",
        "agent_started_at",
    ] {
        assert_eq!(facts[name], Value::Null, "{name}");
    }
}
