//! What `afferent sense` makes of guests that do not behave, change, or are not who they were.

use crate::support::agent::proc_status;
use crate::support::central::Central;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Manner, Script};
use crate::support::program::{Program, status};
use afferent::wire::message::ErrorCode;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Loss prevented: a guest that writes lines of its own into the log of its host, or to a terminal.
#[test]
fn what_a_guest_says_stays_one_line_of_visible_text() {
    let evil = "x\n<0>forged\u{1b}[31mred\r";
    let dir = tempfile::tempdir().unwrap();
    let script = Script {
        manner: Manner::Complains(ErrorCode::Internal, evil),
        ..Script::new()
    };
    let agent = FakeAgent::start(&dir.path().join("a.sock"), script);
    let state = dir.path().join("state");
    let log = dir.path().join("log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args([
            "sense",
            "--deliver",
            "file:/dev/null",
            "--vm",
            &agent.vm("a"),
        ])
        .arg("--state-dir")
        .arg(&state)
        .env("JOURNAL_STREAM", "1:1");
    let mut sense = Program::start_logged(command, &log);
    let shown = "x\\n<0>forged\\x1b[31mred\\x0d";
    eventually("it is said in the log and in status", || {
        let log = fs::read_to_string(&log).unwrap();
        let guests = status(&state, &[]).0["guests"].clone();
        let is_said = |text: &str| text.contains(shown);
        let in_status = guests[0]["error"].as_str().is_some_and(is_said);
        (in_status && log.lines().any(is_said)).then_some(())
    });
    sense.kill();
    for line in fs::read_to_string(&log).unwrap().lines() {
        let priority = line.get(..3).unwrap();
        assert!(["<3>", "<4>", "<6>"].contains(&priority), "{line}");
    }
    agent.change(|script| {
        script.manner = Manner::Proper;
        script.facts.insert("fact\u{1b}[31m".into(), evil.into());
    });
    let address = format!("unix:{}", agent.path.display());
    let pull = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["pull", &address])
        .output()
        .unwrap();
    let text = String::from_utf8(pull.stdout).unwrap();
    assert!(text.contains(&format!("fact\\x1b[31m {shown}\n")), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

/// Loss prevented: a guest that fails in some way is taken for one that is well, or is asked
/// without end.
#[test]
fn each_way_to_misbehave_has_its_own_name_and_none_harms_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let manners = [
        ("busy", Manner::Says(ErrorCode::Busy), "busy"),
        ("not-ready", Manner::Says(ErrorCode::NotReady), "not ready"),
        (
            "unknown",
            Manner::Says(ErrorCode::UnknownMethod),
            "does not know this method",
        ),
        (
            "internal",
            Manner::Says(ErrorCode::Internal),
            "its agent says",
        ),
        ("closes", Manner::Closes, "closed without an answer"),
        ("breaks-off", Manner::BreaksOff, "closed in the middle"),
        ("too-much", Manner::AnnouncesTooMuch, "over the limit"),
        ("babbles", Manner::Babbles, "cannot be understood"),
        ("unchanged", Manner::AlwaysUnchanged, "says unchanged"),
        ("hangs", Manner::Hangs, "no answer in time"),
        ("stalls", Manner::Stalls, "stalled in the middle"),
        ("floods", Manner::Floods { facts: false }, "over the limit"),
    ];
    let mut agents: Vec<FakeAgent> = manners
        .iter()
        .map(|(name, manner, _)| agent(dir.path(), name, |script| script.manner = *manner))
        .collect();
    agents.push(agent(dir.path(), "empty", |script| script.packages.clear()));
    agents.push(agent(dir.path(), "good", |_| {}));
    let central = Central::start();
    let state = dir.path().join("state");
    let sockets = dir.path().join("guests").display().to_string();
    let mut sense = Program::sense(&state, &central.url, &["--discover", &sockets]);
    eventually("the good one is delivered", || central.received().pop());
    let expected = manners
        .iter()
        .map(|(name, _, said)| (*name, *said))
        .chain([("empty", "lists no packages")]);
    for (name, said) in expected {
        eventually(&format!("{name} is {said}"), || {
            let guest = guest(&state, name)?;
            guest["error"].as_str()?.contains(said).then_some(())
        });
    }
    agents.last().unwrap().install("new");
    eventually("the good one is delivered again", || {
        central
            .received()
            .iter()
            .any(|r| r.report() == "good/77/2")
            .then_some(())
    });
    assert_eq!(
        central.received().len(),
        2,
        "only the good one is delivered"
    );
    // None is asked more often than its backoff allows.
    assert!(agents.iter().all(|agent| agent.seen().len() < 30));
    assert!(sense.terminate().success());
}

/// Loss prevented: domains that libvirt starts, stops or gives another's context id are not followed.
#[test]
fn the_domains_that_libvirt_runs_are_the_guests() {
    let dir = tempfile::tempdir().unwrap();
    let (domains, state) = (dir.path().join("domains"), dir.path().join("state"));
    std::fs::create_dir(&domains).unwrap();
    let write = |name: &str, run_state: &str, cid: u32| {
        let text = format!(
            "<domstatus state='{run_state}' reason='booted' pid='1'><domain type='kvm' id='1'>\
             <name>{name}</name><devices><vsock model='virtio'><cid auto='yes' address='{cid}'/>\
             </vsock></devices></domain></domstatus>"
        );
        std::fs::write(domains.join(format!("{name}.xml")), text).unwrap();
    };
    // Numbers that no machine has here: that nobody answers is seen, and what is asked is the point.
    write("web", "running", 40_001);
    write("db", "shutoff", 40_002);
    let central = Central::start();
    let discover = format!("libvirt:{}", domains.display());
    let mut sense = Program::sense(&state, &central.url, &["--discover", &discover]);
    let address = |name: &str| Some(guest(&state, name)?["address"].as_str()?.to_owned());
    let at = |name: &str, wanted: Option<&str>| {
        eventually(&format!("{name} is at {wanted:?}"), || {
            (status(&state, &[]).0["service"] == "sense" && address(name).as_deref() == wanted)
                .then_some(())
        });
    };
    at("web", Some("vsock:40001:818"));
    at("db", None);
    eventually("that nobody answers is said", || {
        guest(&state, "web")?["error"].as_str().map(drop)
    });
    // The one ends, the other starts and is given its number.
    std::fs::remove_file(domains.join("web.xml")).unwrap();
    write("db", "running", 40_001);
    at("web", None);
    at("db", Some("vsock:40001:818"));
    assert!(sense.terminate().success());
}

/// Loss prevented: some guests that were taken over by somebody take all memory of the host.
#[test]
fn the_worst_answers_of_many_guests_at_once_fit_into_memory() {
    let dir = tempfile::tempdir().unwrap();
    let agents: Vec<_> = (0..24)
        .map(|n| {
            agent(dir.path(), &format!("bad-{n}"), |script| {
                script.manner = Manner::Floods { facts: n % 2 == 0 };
            })
        })
        .collect();
    let good = agent(dir.path(), "good", |_| {});
    let central = Central::start();
    let state = dir.path().join("state");
    let sockets = dir.path().join("guests").display().to_string();
    let mut sense = Program::sense(&state, &central.url, &["--discover", &sockets]);
    eventually("all are over the limit", || {
        let (answer, _) = status(&state, &[]);
        let guests = answer["guests"].as_array()?;
        let is_over = |guest: &&Value| guest["error"].to_string().contains("over the limit");
        (guests.iter().filter(is_over).count() == agents.len()).then_some(())
    });
    eventually("the good one is delivered", || central.received().pop());
    let peak = proc_status(sense.pid(), "VmHWM") >> 10;
    assert!(peak < 256, "{peak} MiB");
    drop(good);
    assert!(sense.terminate().success());
}

/// Firecracker, Cloud Hypervisor, vhost-device-vsock: a socket a machine, the agent behind its port.
#[test]
fn guests_are_found_behind_the_sockets_of_their_hypervisors() {
    let dir = tempfile::tempdir().unwrap();
    let good = agent(dir.path(), "a", |script| script.behind_port = Some(818));
    let closed = agent(dir.path(), "b", |script| script.behind_port = Some(5));
    let central = Central::start();
    let state = dir.path().join("state");
    let discover = format!("hybrid:{}:818", dir.path().join("guests").display());
    let by_hand = format!("c=hybrid:{}:818", good.path.display());
    let mut sense = Program::sense(
        &state,
        &central.url,
        &["--discover", &discover, "--vm", &by_hand],
    );
    for name in ["a", "c"] {
        eventually(name, || {
            let key = format!("{name}/77/1");
            central
                .received()
                .iter()
                .any(|r| r.report() == key)
                .then_some(())
        });
    }
    eventually("nobody listens", || {
        let error = guest(&state, "b")?["error"].as_str()?.to_owned();
        error.contains("nobody listens on port 818").then_some(())
    });
    good.install("new");
    eventually("the change, by the wait", || {
        central
            .received()
            .iter()
            .any(|r| r.report() == "a/77/2")
            .then_some(())
    });
    drop(closed);
    assert!(sense.terminate().success());
}

/// An agent that lost its state counts from 1 again: never taken for the report that is known.
#[test]
fn a_generation_that_is_used_again_in_a_new_epoch_is_another_report() {
    for (epoch, waits) in [(88, true), (88, false), (0, false)] {
        let dir = tempfile::tempdir().unwrap();
        let agent = agent(dir.path(), "a", |script| {
            script.waits = waits;
            script.epoch = if epoch == 0 { 0 } else { 77 };
        });
        let central = Central::start();
        let mut sense = Program::sense(
            &dir.path().join("state"),
            &central.url,
            &["--vm", &agent.vm("a"), "--poll-interval", "1s"],
        );
        eventually("the first", || central.received().pop());
        agent.change(|script| {
            script.epoch = epoch;
            script.packages = vec!["another".into()];
        });
        let last = eventually("the other", || {
            central
                .received()
                .into_iter()
                .find(|r| r.body["report"]["packages"][0]["name"] == "another")
        });
        assert_eq!(last.report(), format!("a/{epoch}/1"));
        assert!(sense.terminate().success());
    }
}

/// A socket or CID is an address: another machine behind it must not inherit what is known.
#[test]
fn another_machine_at_the_same_address_is_a_new_guest() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "a", |_| {});
    let central = Central::start();
    let state = dir.path().join("state");
    let mut sense = Program::sense(
        &state,
        &central.url,
        &["--vm", &agent.vm("a"), "--poll-interval", "1s"],
    );
    eventually("the first", || central.received().pop());
    let other = "f".repeat(32);
    // The same content, and its agent says "unchanged": it is another machine all the same.
    agent.change(|script| {
        script.guest_id = other.clone();
        script.manner = Manner::AlwaysUnchanged;
    });
    eventually("doubt", || guest(&state, "a")?["error"].as_str().map(drop));
    agent.change(|script| script.manner = Manner::Proper);
    eventually(
        "the other machine is known, and the one before is named",
        || {
            let guest = guest(&state, "a")?;
            let before = guest["machine_before"]["guest_id"].as_str()?;
            (guest["guest_id"] == *other && before.starts_with("0123")).then_some(())
        },
    );
    assert!(sense.terminate().success());
}

#[test]
fn an_entry_that_names_its_machine_refuses_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let agent = agent(dir.path(), "a", |_| {});
    let roster = dir.path().join("roster.toml");
    let text = format!(
        "[[vm]]\nid = 'a'\naddress = 'unix:{}'\nguest_id = '{}'\n",
        agent.path.display(),
        "e".repeat(32)
    );
    std::fs::write(&roster, text).unwrap();
    let central = Central::start();
    let state = dir.path().join("state");
    let roster = roster.display().to_string();
    let mut sense = Program::sense(&state, &central.url, &["--roster", &roster]);
    eventually("refused", || {
        let error = guest(&state, "a")?["error"].as_str()?.to_owned();
        error.contains("another machine").then_some(())
    });
    assert!(central.received().is_empty());
    assert!(sense.terminate().success());
}

/// Loss prevented: what was pulled of a machine that is gone disappears with it.
#[test]
fn a_guest_that_left_the_roster_keeps_its_report_until_it_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let a = agent(dir.path(), "a", |_| {});
    let b = agent(dir.path(), "b", |_| {});
    let central = Central::start();
    for _ in 0..3 {
        central.answer_next(503, "Retry-After: 2\r\n");
    }
    let state = dir.path().join("state");
    let sockets = dir.path().join("guests").display().to_string();
    let mut sense = Program::sense(&state, &central.url, &["--discover", &sockets]);
    eventually("pending", || {
        guest(&state, "a")?["pending"].is_object().then_some(())
    });
    std::fs::remove_file(&a.path).unwrap();
    eventually("departed", || {
        (guest(&state, "a")?["state"] == "departed").then_some(())
    });
    eventually("delivered", || {
        let all = central.received();
        all.iter()
            .any(|r| r.report() == "a/77/1" && r.answered == 200)
            .then_some(())
    });
    eventually("gone", || guest(&state, "a").is_none().then_some(()));
    drop(b);
    assert!(sense.terminate().success());
}

#[test]
fn status_shows_dead_letters_says_degraded_and_sends_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = agent(dir.path(), "a", |_| {});
    let central = Central::start();
    // Refused, pulled in full, and refused again.
    central.answer_next(413, "");
    central.answer_next(413, "");
    let state = dir.path().join("state");
    let mut sense = Program::sense(&state, &central.url, &["--vm", &a.vm("a")]);
    let dead = eventually("a dead letter", || {
        let (answer, code) = status(&state, &["--dead"]);
        (answer["pending"]["dead"] == 1 && code == 4).then_some(answer)
    });
    assert_eq!(dead["guests"][0]["pending"]["error"], "413");
    // It survives a restart, and nothing sends it again by itself.
    sense.kill();
    let mut sense = Program::sense(&state, &central.url, &["--vm", &a.vm("a")]);
    eventually("the dead letter again", || {
        let (answer, code) = status(&state, &[]);
        (answer["pending"]["dead"] == 1 && code == 4).then_some(())
    });
    assert_eq!(central.received().len(), 2);
    let full = a.seen().iter().filter(|seen| seen.generation == 0).count();
    assert!(full >= 2, "{:?}", a.seen());
    let (answer, _) = status(&state, &["--retry", "a"]);
    assert_eq!(answer["retried"], 1);
    eventually("delivered, and all is well", || {
        (central.received().len() == 3 && status(&state, &[]).1 == 0).then_some(())
    });
    assert!(sense.terminate().success());
}

/// Loss prevented: a sensor that is degraded for ever because of a guest that is gone.
#[test]
fn the_dead_letter_of_a_departed_guest_can_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let a = agent(dir.path(), "a", |_| {});
    let central = Central::start();
    central.always_answer("a", 413, "");
    let (state, roster) = (dir.path().join("state"), dir.path().join("roster.toml"));
    let address = format!("unix:{}", a.path.display());
    fs::write(
        &roster,
        format!("[[vm]]\nid = 'a'\naddress = '{address}'\n"),
    )
    .unwrap();
    let roster_text = roster.display().to_string();
    let mut sense = Program::sense(&state, &central.url, &["--roster", &roster_text]);
    let dead = |count: u64| {
        eventually("dead letters", || {
            (status(&state, &[]).0["pending"]["dead"] == count).then_some(())
        });
    };
    dead(1);
    fs::write(&roster, "vm = []\n").unwrap();
    eventually("it departed", || {
        (guest(&state, "a")?["state"] == "departed").then_some(())
    });
    for wish in ["--drop", "--retry"] {
        assert_eq!(status(&state, &[wish, "b"]).1, 1, "{wish}: b has none");
        assert_eq!(
            status(&state, &[wish, "a b"]).1,
            2,
            "{wish}: no guest's name"
        );
    }
    assert_eq!(status(&state, &["--state", "asleep"]).1, 2);
    let (answer, code) = status(&state, &["--drop", "a"]);
    assert_eq!((&answer["dropped"], code), (&json!(1), 0));
    assert_eq!(status(&state, &[]).1, 0, "all is well");
    // For good.
    assert!(sense.terminate().success());
    let mut sense = Program::sense(&state, &central.url, &["--roster", &roster_text]);
    dead(0);
    assert!(guest(&state, "a").is_none());
    assert!(sense.terminate().success());
}

fn agent(dir: &Path, name: &str, change: impl FnOnce(&mut Script)) -> FakeAgent {
    let sockets = dir.join("guests");
    std::fs::create_dir_all(&sockets).unwrap();
    let mut script = Script::new();
    change(&mut script);
    FakeAgent::start(&sockets.join(format!("{name}.sock")), script)
}

fn guest(state: &Path, name: &str) -> Option<Value> {
    let (answer, _) = status(state, &[]);
    let guests = answer["guests"].as_array()?;
    guests.iter().find(|guest| guest["vm"] == name).cloned()
}
