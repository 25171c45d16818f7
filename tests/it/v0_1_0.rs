//! What version 0.1.0 left on disk and says over sockets, and that this program reads it as 0.1.0 did.
//!
//! Loss prevented, in every test: an upgrade that forgets reports, dead letters or inventory, or that
//! takes a guest for a new one.

use crate::support::agent::{self, Agent, Launch};
use crate::support::central::Central;
use crate::support::eventually;
use crate::support::mirror::Mirror;
use crate::support::old::{self, assert_contains};
use crate::support::program::{Program, status};
use afferent::report::cpe::Cpe;
use afferent::wire::hint_of;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use tempfile::TempDir;

#[test]
fn a_serve_store_of_0_1_0_serves_the_same_report() {
    let expected = &old::expected()["serve"];
    let (agent, _launch, _dirs) = serving("serve", expected);
    assert_served(&agent, expected);
    let mut wanted = expected["pull"].clone();
    for repository in wanted["report"]["repositories"].as_array_mut().unwrap() {
        // Sent in the form that Scanner V4 reads.
        if let Ok(cpe) = repository["cpe"].as_str().unwrap().parse::<Cpe>() {
            repository["cpe"] = cpe.as_str().into();
            repository["uri"] = hint_of(repository["id"].as_str().unwrap()).into();
        }
    }
    let found = pull(agent.socket());
    assert_contains(&found["report"], &wanted["report"]);
    for key in ["epoch", "generation", "digest", "trigger", "generated_at"] {
        assert_eq!(found["meta"][key], wanted["meta"][key], "{key}");
    }
    assert!(agent.terminate().success());
}

#[test]
fn a_serve_store_of_0_1_0_with_a_report_in_several_chunks_serves_the_same_report() {
    let expected = &old::expected()["serve_long"];
    let (agent, _launch, _dirs) = serving("serve-long", expected);
    assert_served(&agent, expected);
    assert!(agent.terminate().success());
}

/// An agent that has nothing but this store: where its machine-id is, there is no rpm database.
fn serving(store: &str, expected: &Value) -> (Agent, Launch, [TempDir; 2]) {
    let (state, _) = old::store(store);
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let machine_id = expected["machine_id"].as_str().unwrap();
    fs::write(root.path().join("etc/machine-id"), machine_id).unwrap();
    let launch = Launch::on(root.path()).state_dir_at(state.path());
    let agent = launch.start();
    (agent, launch, [state, root])
}

fn assert_served(agent: &Agent, expected: &Value) {
    let answer = agent.wait_for_list(expected["packages_tsv"].as_str().unwrap());
    let (epoch, generation) = answer.key();
    let found = json!({
        "epoch": epoch,
        "generation": generation,
        "digest": answer.digest(),
        "guest_id": answer.fact("guest_id"),
    });
    for key in ["epoch", "generation", "digest", "guest_id"] {
        assert_eq!(found[key], expected[key], "{key}");
    }
}

#[test]
fn a_sense_store_of_0_1_0_keeps_what_is_held_against_each_report_and_what_was_accepted() {
    let (state, _) = old::store("sense");
    let expected = &old::expected()["sense"];
    // Neither guests nor Central change anything: to be asked for patience counts against no report.
    let central = Central::start();
    central.always_answer("", 503, "Retry-After: 3600\r\n");
    let mut sense = sensing(state.path(), &central.url, expected);
    let (answer, _) = answered(state.path(), &[]);
    for (vm, wanted) in expected["guests"].as_object().unwrap() {
        let found = row(&answer, vm);
        for key in ["guest_id", "known", "generated_at", "accepted"] {
            assert_eq!(found[key], wanted[key], "{key} of {vm}");
        }
        // A state depends on the time, and an error on what was tried last.
        for key in ["key", "trigger", "attempts", "packages"] {
            assert_eq!(
                found["pending"][key], wanted["pending"][key],
                "{key} of {vm}"
            );
        }
    }
    assert!(sense.terminate().success());
}

#[test]
fn a_sense_store_of_0_1_0_delivers_what_is_pending_and_shows_the_dead_letter() {
    let (state, _) = old::store("sense");
    let expected = &old::expected()["sense"];
    let guests = expected["guests"].as_object().unwrap();
    let central = Central::start();
    let mut sense = sensing(state.path(), &central.url, expected);
    let is_pending = |guest: &&Value| guest["pending"].is_object();
    let waiting = guests.values().filter(is_pending);
    let waiting: Vec<&Value> = waiting
        .filter(|g| g["pending"]["state"] != "dead")
        .collect();
    assert_eq!(waiting.len(), 4);
    for guest in waiting {
        assert_delivered(&central, guest);
    }

    let (answer, code) = answered(state.path(), &["--dead"]);
    assert_eq!(code, 4);
    let dead = answer["guests"].as_array().unwrap();
    let names: Vec<&Value> = dead.iter().map(|guest| &guest["vm"]).collect();
    assert_eq!(json!(names), expected["dead"]);
    assert_contains(&dead[0]["pending"], &guests["dead"]["pending"]);
    // It is kept whole: it can be sent again.
    let (_, code) = status(state.path(), &["--retry", "dead"]);
    assert_eq!(code, 0);
    assert_delivered(&central, &guests["dead"]);
    assert_eq!(central.received().len(), 5, "nothing was delivered twice");
    assert!(sense.terminate().success());
}

/// A sensor on this store that knows the same guests, none of which is there.
fn sensing(state: &Path, url: &str, expected: &Value) -> Program {
    let guests = expected["guests"].as_object().unwrap();
    let nobody = state.join("nobody.sock").display().to_string();
    let vms: Vec<String> = guests
        .keys()
        .map(|vm| format!("{vm}=unix:{nobody}"))
        .collect();
    let flags: Vec<&str> = vms.iter().flat_map(|vm| ["--vm", vm]).collect();
    Program::sense(state, url, &flags)
}

/// What `afferent status` says as soon as the service answers.
fn answered(state: &Path, flags: &[&str]) -> (Value, i32) {
    eventually("there is a status", || {
        Some(status(state, flags)).filter(|(answer, _)| answer.is_object())
    })
}

fn row<'a>(answer: &'a Value, vm: &str) -> &'a Value {
    let guests = answer["guests"].as_array().unwrap();
    let found = guests.iter().find(|guest| guest["vm"] == vm);
    found.unwrap_or_else(|| panic!("no {vm} in {answer:#}"))
}

fn assert_delivered(central: &Central, guest: &Value) {
    let document = &guest["document"];
    let key = format!(
        "{}/{}/{}",
        document["vm"]["id"].as_str().unwrap(),
        guest["epoch"],
        guest["generation"]
    );
    let received = eventually(&format!("{key} is delivered"), || {
        central.received().into_iter().find(|r| r.report() == key)
    });
    assert_contains(&received.body, document);
}

#[test]
fn a_mirror_store_of_0_1_0_has_the_same_rows_drift_and_audit_log() {
    let mirror = Mirror::new();
    old::unpack("mirror", &mirror.state());
    let expected = &old::expected()["mirror"];
    for command in ["dump", "drift", "audit", "check"] {
        let output = mirror.output(&[command, "--json"]);
        assert_contains(&parsed(&output), &expected[command]);
    }
}

/// Also what no command shows: how often a row was missing, and what is withheld already.
#[test]
fn a_mirror_store_of_0_1_0_goes_on_as_0_1_0_would() {
    let mirror = Mirror::new();
    old::unpack("mirror", &mirror.state());
    let next = &old::expected()["mirror"]["next"];
    let flags = next["flags"].as_array().unwrap().iter();
    let flags: Vec<&str> = flags.map(|flag| flag.as_str().unwrap()).collect();
    let ran = mirror.run(&next["core"], &flags);
    assert_eq!(json!(ran.code), next["code"], "{}", ran.stderr);
    assert_contains(&ran.summary["types"], &next["types"]);
    mirror.check();
}

#[test]
fn answers_of_0_1_0_say_what_they_said_to_0_1_0() {
    let expected = old::expected();
    for wanted in expected["wire"].as_array().unwrap() {
        let name = wanted["name"].as_str().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (_, response) = old::exchange(name);
        let answering = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            read_frame(&mut stream);
            stream.write_all(&response).unwrap();
        });
        let output = run_pull(&socket);
        answering.join().unwrap();
        match &wanted["pull"] {
            Value::Null => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert_eq!(output.status.code(), Some(1), "{name}: {said}");
                assert!(said.contains(refusal(wanted)), "{name}: {said}");
            }
            pull => assert_contains(&parsed(&output), pull),
        }
    }
}

#[test]
fn requests_of_0_1_0_are_understood_as_0_1_0_understood_them() {
    let expected = old::expected();
    let (agent, _launch, _dirs) = serving("serve", &expected["serve"]);
    for wanted in expected["wire"].as_array().unwrap() {
        let name = wanted["name"].as_str().unwrap();
        let mut stream = agent.connect().unwrap();
        let (request, _) = old::exchange(name);
        stream.write_all(&request).unwrap();
        let answer = agent::receive(&mut stream).unwrap();
        match &wanted["request"] {
            Value::Null => {
                let code = answer.refusal().unwrap().name();
                assert_eq!(code, refusal(wanted), "{name}");
            }
            // Whatever report it knows, it is not this one. What digest this one has it is not told.
            _ => {
                let serve = &expected["serve"];
                let packages = serve["packages_tsv"].as_str().unwrap();
                assert_eq!(answer.list(), agent::as_it_travels(packages), "{name}");
                assert_eq!(answer.key().1, serve["generation"], "{name}");
                assert_eq!(answer.digest(), "", "{name}");
            }
        }
    }
    assert!(agent.terminate().success());
}

/// The code of an error as 0.1.0 printed it: `afferent: ADDRESS: CODE: message`.
fn refusal(wanted: &Value) -> &str {
    let said = wanted["pull_failed"].as_str().unwrap();
    said.split(": ").nth(2).unwrap()
}

fn read_frame(stream: &mut UnixStream) {
    let mut head = [0; 4];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).unwrap();
}

/// What `afferent pull` prints of the agent behind this socket.
fn pull(socket: &Path) -> Value {
    parsed(&run_pull(socket))
}

fn run_pull(socket: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg("pull")
        .arg(format!("unix:{}", socket.display()))
        .args(["--format", "json"])
        .output()
        .unwrap()
}

fn parsed(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Loss prevented: a script or a unit of an operator that ends with a usage error after an upgrade.
#[test]
fn every_command_and_flag_of_0_1_0_is_still_there() {
    let Some(old) = old::binary() else {
        println!("skipped: version 0.1.0 is not here; `make v0.1.0` builds it");
        return;
    };
    let new = Path::new(env!("CARGO_BIN_EXE_afferent"));
    let mut commands = vec![Vec::new()];
    let mut flags = 0;
    while let Some(words) = commands.pop() {
        let [before, now] = [&old, new].map(|program| Help::of(program, &words));
        let lost: Vec<_> = before.flags.difference(&now.flags).collect();
        assert!(lost.is_empty(), "afferent {}: {lost:?}", words.join(" "));
        flags += before.flags.len();
        for command in before.commands {
            assert!(now.commands.contains(&command), "{words:?} {command}");
            commands.push([&words[..], &[command]].concat());
        }
    }
    assert!(flags > 100, "read only {flags} flags");
}

/// What `--help` offers behind some words.
struct Help {
    commands: BTreeSet<String>,
    flags: BTreeSet<String>,
}

impl Help {
    fn of(program: &Path, words: &[String]) -> Self {
        let output = Command::new(program)
            .args(words)
            .arg("--help")
            .output()
            .unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut help = Self {
            commands: BTreeSet::new(),
            flags: BTreeSet::new(),
        };
        let mut section = "";
        for line in text.lines() {
            if let (Some(title), false) = (line.strip_suffix(':'), line.starts_with(' ')) {
                section = title;
            }
            // An item begins after two spaces; what is said of it stands further in.
            let item = line
                .strip_prefix("  ")
                .filter(|item| !item.starts_with(' '));
            let Some(name) = item.and_then(|item| item.split_whitespace().next()) else {
                continue;
            };
            match section {
                "Commands" => drop(help.commands.insert(name.to_owned())),
                "Options" => drop(help.flags.insert(name.trim_end_matches(',').to_owned())),
                _ => {}
            }
        }
        help
    }
}
