//! An agent that is told to read its configuration again.

use crate::support::agent::{Agent, Launch};
use crate::support::eventually;
use crate::support::rpm_root::{RpmRoot, Spec};
use std::fs;
use std::process::Command;

// The loss: an agent that a typing error stops, or that goes on with half of a configuration.
#[test]
fn a_good_edit_holds_at_once_and_a_bad_one_changes_nothing() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let launch = Launch::on(root.path());
    let file = launch.home().join("serve.toml");
    fs::write(&file, "reactive_scan = 'off'\n").unwrap();
    let launch = launch.flag("config", file.to_str().unwrap());
    let agent = launch.start();
    let first = agent.wait_for_rpm(&root);

    fs::write(&file, "reactive_scan = 'sometimes'\n").unwrap();
    hang_up(&agent);
    eventually("the bad edit is refused, by its key", || {
        let log = agent.log();
        (log.contains("not taken over") && log.contains("reactive_scan")).then_some(())
    });

    fs::write(&file, "reactive_scan = 'on'\nsafety_poll = '30m'\n").unwrap();
    hang_up(&agent);
    agent.wait_until_said("configuration read again");
    // What needs a restart is named.
    agent.wait_until_said("safety_poll");
    assert_eq!(agent.get().key(), first.key());
    root.add(&Spec {
        name: "afterwards",
        ..Spec::default()
    });
    agent.wait_for_rpm(&root);
    assert!(agent.terminate().success());
}

fn hang_up(agent: &Agent) {
    let pid = agent.pid().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status().unwrap();
    assert!(sent.success());
}
