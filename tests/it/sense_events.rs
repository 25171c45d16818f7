//! Events of guests, in a file and in a stream of a real nats-server: replayed from nothing by the very code of
//! `docs/consumers.md`, they give what is installed.

use crate::support::agent::{Agent, Launch};
use crate::support::documents::{EVENTS, docs, lines};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{JETSTREAM, NatsServer, STREAM};
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The stream of events.
const CHANGES: &str = "CHANGES";

/// Feeds all events to `follow`; prints what is kept of each guest.
const DRIVER: &str = r#"
import json, sys
kept = {}
for event in json.load(sys.stdin):
    guest = event["vm"]["id"]
    kept[guest] = follow(kept.get(guest), event, datetime.now(timezone.utc))
print(json.dumps({guest: {"report": state["report"], "packages": sorted(map(list, state["packages"].elements()))}
                  for guest, state in kept.items()}))
"#;

/// What is kept of each guest after these events.
fn replay(events: &[Value]) -> BTreeMap<String, Value> {
    let page = fs::read_to_string(docs().join("consumers.md")).unwrap();
    let code = page
        .split("```python\n")
        .find(|it| it.contains("def follow("));
    let code = code.unwrap().split("```").next().unwrap();
    let mut python = Command::new("python3")
        .args(["-c", &format!("{code}{DRIVER}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(events).unwrap();
    python.stdin.take().unwrap().write_all(&input).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "the events are not one chain");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn is_event(document: &Value) -> bool {
    EVENTS.iter().any(|kind| document["type"] == *kind)
}

fn of_kind(events: &[Value], kind: &str) -> usize {
    events.iter().filter(|it| it["type"] == kind).count()
}

/// Packages of a report, as the replay has them.
fn installed(report: &Value) -> Value {
    let packages = report["report"]["packages"].as_array().unwrap().iter();
    let text = |package: &Value, name: &str| package[name].as_str().unwrap().to_owned();
    let packages = packages.filter(|it| it["name"] != "gpg-pubkey");
    let mut packages: Vec<[String; 3]> = packages
        .map(|it| ["name", "arch", "version"].map(|name| text(it, name)))
        .collect();
    packages.sort();
    json!(packages)
}

/// A guest with a real rpm database, its agent, and a sensor with two sinks that take events.
struct World {
    root: RpmRoot,
    launch: Launch,
    server: NatsServer,
    packages: Vec<PathBuf>,
    steps: usize,
}

impl World {
    fn new() -> Self {
        let root = RpmRoot::new();
        root.add(&Spec::default());
        let build = |name: &str, version: &str| {
            root.build(&Spec {
                name,
                version,
                ..Spec::default()
            })
        };
        let all = [
            ("first", "1"),
            ("first", "2"),
            ("second", "1"),
            ("second", "2"),
        ];
        let all = all.into_iter().chain([("kernel", "1"), ("kernel", "2")]);
        let packages = all.map(|(name, version)| build(name, version)).collect();
        let launch = Launch::on(root.path())
            .flag("reactive-debounce", "0s")
            .flag("reactive-burst", "10000");
        let server = NatsServer::start(JETSTREAM);
        Self {
            root,
            launch,
            server,
            packages,
            steps: 0,
        }
    }

    fn out(&self) -> PathBuf {
        self.launch.home().join("out/events.ndjson")
    }

    fn state(&self) -> PathBuf {
        self.launch.home().join("sense")
    }

    fn sense(&self) -> Program {
        fs::create_dir_all(self.out().parent().unwrap()).unwrap();
        let vm = format!(
            "web-1.x=unix:{}",
            self.launch.home().join("socket").display()
        );
        let file = format!("log=file:{}?events=on", self.out().display());
        let more = ["--deliver", &file, "--events", CHANGES, "--vm", &vm];
        Program::sense(&self.state(), &self.server.url(), &more)
    }

    /// The next transaction: installs, upgrades, downgrades, erases; kernels stand beside one another.
    fn step(&mut self) {
        let at = |n: usize| &self.packages[n];
        match self.steps % 8 {
            0 => self.root.install(&[at(0), at(4)]),
            1 => self.root.upgrade(&[at(1)]),
            2 => self.root.install(&[at(2), at(5)]),
            3 => self.root.upgrade(&[at(0), at(3)]),
            4 => self.root.erase(&["kernel-1-1"]),
            5 => self.root.upgrade(&[at(2)]),
            6 => self.root.erase(&["first", "second"]),
            _ => self.root.erase(&["kernel"]),
        }
        self.steps += 1;
    }

    /// Waits until both sinks have what the agent has, and that is what is installed; gives its key.
    fn arrives(&self, agent: &Agent) -> (u32, u32) {
        agent.wait_for_rpm(&self.root);
        let consumer = self.server.consumer();
        let key = eventually("the report is in both places", || {
            // Put back to a snapshot, the agent begins another epoch once it is asked.
            let (epoch, generation) = agent.get().key();
            let is = |document: &Value| {
                let meta = &document["meta"];
                meta["epoch"] == epoch && meta["generation"] == generation
            };
            let in_file = lines(&self.out());
            let in_file = in_file.iter().rfind(|it| !is_event(it));
            let stored = consumer.newest("web-1%2Ex")?;
            let in_stream = is(&serde_json::from_slice(&stored.body).unwrap());
            (in_file.is_some_and(is) && in_stream).then_some((epoch, generation))
        });
        eventually("nothing is pending", || {
            let (answer, _) = status(&self.state(), &[]);
            let sinks = answer["sinks"].as_array()?.iter();
            let pending = |sink: &Value| {
                let counts = ["reactive", "routine", "in_flight", "dead"];
                Some(counts.iter().any(|it| sink["pending"][it] != 0))
            };
            sinks.map(pending).all(|it| it == Some(false)).then_some(())
        });
        key
    }

    /// All events so far, in the file and in the stream.
    fn events(&self) -> [Vec<Value>; 2] {
        let in_file = lines(&self.out()).into_iter().filter(is_event).collect();
        let messages = self.server.consumer().messages(CHANGES);
        let in_stream = messages.iter().map(|message| {
            assert_eq!(message.subject, "afferent.changes.web-1%2Ex");
            let event: Value = serde_json::from_slice(&message.body).unwrap();
            crate::support::documents::judge(None, &event);
            assert_eq!(message.header("Nats-Msg-Id"), event["id"].as_str());
            event
        });
        [in_file, in_stream.collect()]
    }

    /// Replayed, both give what the last report has, and that is what rpm lists.
    fn check(&self) -> [Vec<Value>; 2] {
        let report = self.server.consumer().newest("web-1%2Ex").unwrap();
        let report: Value = serde_json::from_slice(&report.body).unwrap();
        let query = ["-qa", "--qf", "%{NAME}\n"];
        let listed = self.root.rpm().args(query).output().unwrap().stdout;
        let listed = String::from_utf8(listed).unwrap().lines().count();
        let packages = installed(&report);
        assert_eq!(packages.as_array().unwrap().len(), listed);
        let events = self.events();
        for events in &events {
            let kept = replay(events);
            let guest = &kept["web-1.x"];
            assert_eq!(guest["packages"], packages);
            let (epoch, generation) = (&report["meta"]["epoch"], &report["meta"]["generation"]);
            assert_eq!(
                guest["report"],
                json!({ "epoch": epoch, "generation": generation })
            );
        }
        events
    }
}

// The loss: an event that comes too early, twice under two names, or never, after which a consumer has another list
// than the guest.
#[test]
fn replayed_events_give_the_last_report_through_kills_refusals_and_a_restored_snapshot() {
    let kills: usize = std::env::var("AFFERENT_KILLS").map_or(20, |n| n.parse().unwrap());
    let mut world = World::new();
    let (mut agent, mut sensor) = (world.launch.start(), world.sense());
    world.arrives(&agent);
    for kill in 0..3 * kills {
        world.step();
        let end = Instant::now() + Duration::from_micros(fastrand::u64(0..80_000));
        while Instant::now() < end {
            std::thread::yield_now();
        }
        match kill % 3 {
            0 => {
                sensor.kill();
                sensor = world.sense();
            }
            1 => {
                agent.kill();
                agent = world.launch.spawn();
            }
            _ => {
                world.server.kill();
                world.server.start_again(JETSTREAM);
            }
        }
    }
    agent.kill();
    let agent = world.launch.start();
    world.arrives(&agent);
    let [in_file, in_stream] = world.check();
    println!(
        "{kills} kills of each: {} events in the file, {} in the stream, {} transactions",
        in_file.len(),
        in_stream.len(),
        world.steps
    );
    for events in [&in_file, &in_stream] {
        assert_eq!(events[0]["type"], "state");
        assert!(of_kind(events, "change") > 1, "nothing changed");
        assert_eq!(
            of_kind(events, "state"),
            1,
            "a change is known, and the whole state is told"
        );
    }

    // The stream of reports refuses what comes, and the file is not there.
    let consumer = world.server.consumer();
    let stream = consumer.stream().unwrap()["config"].clone();
    let update = |config: &Value| {
        consumer
            .ask(&format!("STREAM.UPDATE.{STREAM}"), config)
            .unwrap()
    };
    let mut refusing = stream.clone();
    refusing["max_msg_size"] = json!(10);
    assert!(update(&refusing)["error"].is_null());
    let place = world.out().parent().unwrap().to_owned();
    fs::rename(&place, place.with_extension("away")).unwrap();
    for _ in 0..3 {
        world.step();
        agent.wait_for_rpm(&world.root);
    }
    eventually("it was refused", || {
        let (answer, _) = status(&world.state(), &["--dead"]);
        answer.to_string().contains("max_msg_size").then_some(())
    });
    assert!(update(&stream)["error"].is_null());
    fs::rename(place.with_extension("away"), &place).unwrap();
    world.step();
    let before = world.arrives(&agent);
    world.check();

    // The guest is put back to a snapshot, and goes on from there.
    let snapshot = tempfile::tempdir().unwrap();
    let steps = world.steps;
    agent.kill();
    let places = [world.root.dbpath(), world.launch.state_dir().to_owned()];
    let kept = |n: usize| snapshot.path().join(n.to_string());
    (0..2).for_each(|n| copy(&places[n], &kept(n)));
    let agent = world.launch.start();
    for _ in 0..2 {
        world.step();
        world.arrives(&agent);
    }
    agent.kill();
    (0..2).for_each(|n| copy(&kept(n), &places[n]));
    world.steps = steps;
    let agent = world.launch.start();
    let after = world.arrives(&agent);
    assert_ne!(after.0, before.0, "an epoch of its own");
    for events in world.check() {
        assert_eq!(events.last().unwrap()["type"], "state");
    }
    println!("back from a snapshot: {before:?}, then {after:?}");

    // An agent that lost its state counts from the beginning, in an epoch of its own.
    agent.kill();
    fs::remove_dir_all(&places[1]).unwrap();
    let states = world.events().map(|events| of_kind(&events, "state"));
    world.step();
    let agent = world.launch.start();
    let last = world.arrives(&agent);
    assert_ne!(last.0, after.0);
    let events = world.check();
    for (events, before) in events.iter().zip(states) {
        assert!(of_kind(events, "state") > before);
        assert_eq!(events.last().unwrap()["type"], "state");
    }
    assert!(sensor.terminate().success());
}

/// Puts the files of a directory in place of those of another.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

/// A guest of a fake agent, and a sensor with these flags beside it.
fn sense(dir: &Path, deliver: &str, agent: &FakeAgent, more: &[&str]) -> Program {
    let vm = agent.vm("web-1");
    let more = [&["--vm", &vm], more].concat();
    Program::sense(&dir.join("state"), deliver, &more)
}

fn rescan(dir: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args(["rescan", "--state-dir"])
        .arg(dir.join("state"));
    assert!(command.output().unwrap().status.success());
}

/// Loss prevented: events that are switched on later, or go to a stream that is made anew, lead on from nothing.
#[test]
fn events_begin_with_the_state_of_every_guest_wherever_they_begin() {
    let dir = tempfile::tempdir().unwrap();
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let server = NatsServer::start(JETSTREAM);
    let consumer = server.consumer();
    let mut sensor = sense(dir.path(), &server.url(), &agent, &[]);
    let generation = |generation: u32| {
        eventually("the report is there", || {
            (consumer.newest("web-1")?.now().0 == generation).then_some(())
        });
    };
    generation(1);
    assert!(consumer.messages(CHANGES).is_empty());
    sensor.kill();
    let mut sensor = sense(dir.path(), &server.url(), &agent, &["--events", CHANGES]);
    let kinds = |wanted: &[&str]| {
        eventually(&format!("the events are {wanted:?}"), || {
            let events = consumer.messages(CHANGES).into_iter();
            let events: Vec<Value> = events
                .map(|it| serde_json::from_slice(&it.body).unwrap())
                .collect();
            let kinds: Vec<&str> = events.iter().filter_map(|it| it["type"].as_str()).collect();
            (kinds == wanted).then_some(events)
        })
    };
    eventually("it runs", || {
        (status(&dir.path().join("state"), &[]).0["service"] == "sense").then_some(())
    });
    // The next full report, although nothing changed.
    rescan(dir.path());
    kinds(&["state"]);
    let config = consumer
        .ask(&format!("STREAM.INFO.{CHANGES}"), &json!({}))
        .unwrap()["config"]
        .clone();
    assert_eq!(config["max_age"], 30 * 86_400 * 1_000_000_000_u64);
    assert_eq!(config["subjects"], json!(["afferent.changes.>"]));
    agent.install("openssl");
    generation(2);
    agent.install("vim");
    generation(3);
    let events = kinds(&["state", "change", "change"]);
    replay(&events);
    // Nothing is new.
    rescan(dir.path());
    agent.install("git");
    generation(4);
    kinds(&["state", "change", "change", "change"]);
    let deleted = consumer.ask(&format!("STREAM.DELETE.{CHANGES}"), &json!({}));
    assert_eq!(deleted.unwrap()["success"], true);
    agent.install("curl");
    generation(5);
    let events = kinds(&["state"]);
    assert_eq!(events[0]["meta"]["generation"], 5);
    assert_eq!(events[0]["packages"].as_array().unwrap().len(), 5);
    assert!(sensor.terminate().success());
}

/// Loss prevented: with the permissions that docs/consumers.md names, events are refused.
#[test]
fn with_create_no_publishing_is_all_that_must_be_allowed() {
    let server = NatsServer::start(&format!(
        "{JETSTREAM}accounts {{ A: {{ jetstream: enabled, users: [\
         {{ user: admin, password: a }},\
         {{ user: sensor, password: s, permissions: {{\
         publish: [\"afferent.reports.>\", \"afferent.facts.>\", \"afferent.changes.>\"],\
         subscribe: [\"_INBOX.>\"] }} }}] }} }}\n"
    ));
    let dir = tempfile::tempdir().unwrap();
    let secret = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let url = |user: &str| format!("nats://{user}@{}?stream={STREAM}", server.place);
    let admin =
        crate::support::nats_server::Consumer::new(&url("admin"), Some(secret("admin", "a")), None);
    for (stream, subjects) in [
        (STREAM, json!(["afferent.reports.>", "afferent.facts.>"])),
        (CHANGES, json!(["afferent.changes.>"])),
    ] {
        let made = admin.ask(
            &format!("STREAM.CREATE.{stream}"),
            &json!({ "name": stream, "subjects": subjects, "storage": "file" }),
        );
        assert!(made.unwrap()["error"].is_null());
    }
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let token = secret("sensor", "s").display().to_string();
    let deliver = format!("{}&create=no", url("sensor"));
    let more = ["--events", CHANGES, "--token-file", &token];
    let mut sensor = sense(dir.path(), &deliver, &agent, &more);
    eventually("the state is there", || {
        (admin.messages(CHANGES).len() == 1).then_some(())
    });
    agent.install("openssl");
    eventually("the change is there", || {
        (admin.messages(CHANGES).len() == 2).then_some(())
    });
    assert!(sensor.terminate().success());
}

#[test]
fn check_config_says_where_events_cannot_go() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, said) in [
        (
            "deliver = 'file:/o'\nevents = 'E'\n",
            "one nats:// sink, and there are 0",
        ),
        (
            "deliver = 'nats://n?stream=R'\nevents = 'E'\nfleet = 'off'\n",
            "events come from the fleet store",
        ),
        (
            "deliver = 'file:/o?events=on'\nfleet = 'off'\n",
            "events come from the fleet store",
        ),
        ("deliver = 'nats://n?stream=R'\nevents = 'E'\n", ""),
    ] {
        fs::write(file.path(), format!("vm = ['a=unix:/a']\n{text}")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
        let checked = command
            .args(["check-config", "sense"])
            .arg(file.path())
            .output()
            .unwrap();
        let errors = String::from_utf8(checked.stderr).unwrap();
        assert_eq!(
            checked.status.code(),
            Some(if said.is_empty() { 0 } else { 3 }),
            "{errors}"
        );
        assert!(errors.contains(said), "{errors}");
    }
}
