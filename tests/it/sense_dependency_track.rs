//! `afferent sense --deliver dependency-track+https://...`: a project for each guest, and what is made of each answer.

use crate::support::agent::Launch;
use crate::support::dependency_track::{DependencyTrack, StoredProject};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{JETSTREAM, NatsServer};
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::clock::WallTime;
use afferent::sense::deliver::outcome::Outcome;
use afferent::sense::deliver::sink::{self, Delivery, DocumentKind, Sink, SinkOptions};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// What the agents of these tests run on.
const OS: &str = "rhel-9.4";

struct World {
    dir: tempfile::TempDir,
    agents: Vec<FakeAgent>,
}

impl World {
    fn new(guests: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("guests")).unwrap();
        fs::write(dir.path().join("key"), "odt_k3y\n").unwrap();
        let socket = |n| dir.path().join(format!("guests/web-{n}.sock"));
        let agents = (0..guests).map(|n| {
            let mut script = Script::new();
            script.os = ("rhel", "9.4");
            FakeAgent::start(&socket(n), script)
        });
        Self {
            agents: agents.collect(),
            dir,
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sense(&self, server: &DependencyTrack) -> Program {
        let guests = self.place("guests").display().to_string();
        let key = self.place("key").display().to_string();
        let args = ["--discover", &guests, "--token-file", &key];
        Program::sense(&self.place("state"), &server.url, &args)
    }

    /// Every guest's project has the packages of the guest, and nothing is pending.
    fn all_are_there(&self, server: &DependencyTrack) {
        for (n, agent) in self.agents.iter().enumerate() {
            let (_, packages) = agent.now();
            eventually(&format!("web-{n} has {packages:?}"), || {
                (server.packages(&format!("web-{n}"), OS)? == packages).then_some(())
            });
        }
        self.nothing_is_pending();
    }

    fn nothing_is_pending(&self) {
        eventually("nothing is pending", || {
            let (answer, _) = status(&self.place("state"), &[]);
            let pending = &answer["pending"];
            let is_none = |key: &str| pending[key] == 0;
            (is_none("reactive") && is_none("routine") && is_none("dead")).then_some(())
        });
    }

    /// Pulls every guest in full, and waits until what came is settled.
    fn refresh(&self) {
        let full = |n: usize| {
            let seen = self.agents[n].seen();
            seen.iter()
                .filter(|it| !it.wait && it.generation == 0)
                .count()
        };
        let before: Vec<usize> = (0..self.agents.len()).map(full).collect();
        let mut rescan = Command::new(env!("CARGO_BIN_EXE_afferent"));
        rescan
            .args(["rescan", "--state-dir"])
            .arg(self.place("state"));
        assert!(rescan.output().unwrap().status.success());
        for (n, before) in before.iter().enumerate() {
            eventually("a full pull", || (full(n) > *before).then_some(()));
        }
        // The next question comes once what the last one brought is stored.
        for (n, agent) in self.agents.iter().enumerate() {
            let asked = agent.seen().len();
            eventually(&format!("web-{n} is waited on"), || {
                let seen = agent.seen();
                (seen.len() >= asked && seen.last()?.wait).then_some(())
            });
        }
        self.nothing_is_pending();
    }

    /// Waits until `status` says this.
    fn said(&self, words: &[&str]) {
        eventually(&format!("status says {words:?}"), || {
            let (answer, _) = status(&self.place("state"), &[]);
            let reasons = answer["reasons"].to_string();
            words
                .iter()
                .all(|word| reasons.contains(word))
                .then_some(())
        });
    }
}

/// Loss prevented: 42 GB a day for ten thousand guests of which nothing changed.
#[test]
fn a_change_is_uploaded_and_a_refresh_is_not_even_after_a_restart() {
    let world = World::new(2);
    let server = DependencyTrack::start();
    let mut sense = world.sense(&server);
    world.all_are_there(&server);
    assert_eq!(server.uploads(), 2);
    let project = ("web-0".to_owned(), OS.to_owned());
    let stored = server.state().projects[&project].clone();
    assert!(stored.is_latest && stored.parent.is_none() && stored.tags.is_empty());
    let bom = &stored.boms[0];
    assert_eq!(bom["metadata"]["component"]["name"], "web-0");
    world.refresh();
    world.agents[0].install("openssl");
    world.all_are_there(&server);
    world.refresh();
    assert_eq!(server.uploads(), 3);
    assert!(sense.terminate().success());
    let mut sense = world.sense(&server);
    eventually("it runs", || {
        (status(&world.place("state"), &[]).0["service"] == "sense").then_some(())
    });
    world.refresh();
    assert_eq!(server.uploads(), 3);
    assert!(sense.terminate().success());
    // Another server has nothing of what this one accepted.
    let other = DependencyTrack::start();
    let mut sense = world.sense(&other);
    eventually("it runs", || {
        (status(&world.place("state"), &[]).0["service"] == "sense").then_some(())
    });
    world.refresh();
    world.all_are_there(&other);
    assert_eq!((server.uploads(), other.uploads()), (3, 2));
    assert!(sense.terminate().success());
}

/// The whole path: real rpm, the agent that watches its database, and a sensor with a sink of each kind.
#[test]
fn a_real_upgrade_replaces_the_file_and_is_in_dependency_track_and_at_nats_as_report_and_event() {
    let root = RpmRoot::new();
    let package = |version| {
        root.build(&Spec {
            name: "first",
            epoch: Some(2),
            version,
            ..Spec::default()
        })
    };
    let (old, new) = (package("1"), package("2"));
    root.install(&[old]);
    let launch = Launch::on(root.path()).flag("safety-poll", "1h");
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    fs::create_dir(place("sboms")).unwrap();
    fs::write(place("key"), "odt_k3y\n").unwrap();
    let (server, nats) = (DependencyTrack::start(), NatsServer::start(JETSTREAM));
    let consumer = nats.consumer();
    let vm = format!("web-1=unix:{}", agent.socket().display());
    let key = format!("dt={}", place("key").display());
    let files = format!("files=sbom:{}", place("sboms").display());
    let (dt, bus) = (format!("dt={}", server.url), format!("bus={}", nats.url()));
    let args = [
        &["--vm", &vm, "--deliver", &dt, "--token-file", &key][..],
        &["--deliver", &bus, "--events", "CHANGES"],
    ];
    let mut sensor = Program::sense(&place("state"), &files, &args.concat());
    let version_in = |list: &Value| {
        let mut packages = list.as_array()?.iter();
        let first = packages.find(|it| it["name"] == "first")?;
        let version = first["version"].as_str().or(first["to"].as_str());
        Some(version?.to_owned())
    };
    let in_file = || {
        let text = fs::read(place("sboms/web-1.cdx.json")).ok()?;
        let bom: Value = serde_json::from_slice(&text).expect("a whole document");
        version_in(&bom["components"])
    };
    let uploaded = || {
        let state = server.state();
        let mut projects = state.projects.iter();
        let (_, project) = projects.find(|((name, _), _)| name == "web-1")?;
        version_in(&project.boms.last()?["components"])
    };
    let reported = || {
        let report: Value = serde_json::from_slice(&consumer.newest("web-1")?.body).unwrap();
        version_in(&report["report"]["packages"])
    };
    let told = || {
        let event: Value =
            serde_json::from_slice(&consumer.messages("CHANGES").pop()?.body).unwrap();
        version_in(&event["packages"]).or_else(|| version_in(&event["changes"]["upgraded"]))
    };
    type Place<'p> = (&'static str, &'p dyn Fn() -> Option<String>);
    let places: [Place<'_>; 4] = [
        ("the file", &in_file),
        ("Dependency-Track", &uploaded),
        ("the report at NATS", &reported),
        ("the event at NATS", &told),
    ];
    let all_have = |wanted: &str| {
        let from = Instant::now();
        let mut after = BTreeMap::new();
        eventually(&format!("{wanted} is in all places"), || {
            for (name, version) in places {
                if !after.contains_key(name) && version().is_some_and(|it| it.starts_with(wanted)) {
                    after.insert(name, from.elapsed().as_millis());
                }
            }
            (after.len() == places.len()).then_some(())
        });
        after
    };
    all_have("2:1-");
    root.upgrade(&[new]);
    println!("milliseconds after rpm -U: {:?}", all_have("2:2-"));
    let event: Value =
        serde_json::from_slice(&consumer.messages("CHANGES").pop().unwrap().body).unwrap();
    assert_eq!(
        (&event["type"], &event["changes"]["upgraded"]),
        (
            &json!("change"),
            &json!([{ "name": "first", "arch": "noarch", "from": "2:1-1", "to": "2:2-1" }])
        )
    );
    assert!(sensor.terminate().success());
}

/// Loss prevented: reports that are given up because of a key, a permission or a wrong address.
#[test]
fn a_key_or_a_permission_that_is_wrong_makes_everything_wait_until_it_is_right() {
    let world = World::new(1);
    fs::write(world.place("key"), "odt_old\n").unwrap();
    let server = DependencyTrack::start();
    server.state().may_create = false;
    let mut sense = world.sense(&server);
    world.said(&["unauthorized", "the key in the token file"]);
    // The next try, which is later every time, gets further.
    fs::write(world.place("key"), "odt_k3y\n").unwrap();
    world.said(&["does not have permission to create project"]);
    let (answer, _) = status(&world.place("state"), &[]);
    assert_eq!(answer["pending"]["dead"], 0);
    server.state().may_create = true;
    world.all_are_there(&server);
    assert_eq!(server.state().answered.last(), Some(&200));
    assert!(sense.terminate().success());
}

/// Loss prevented: a document that cannot be valid is sent for ever, or nobody learns why.
#[test]
fn a_document_refused_twice_is_a_dead_letter_with_the_errors_and_others_go_on() {
    let world = World::new(2);
    let server = DependencyTrack::start();
    let collection = StoredProject {
        is_collection: true,
        ..StoredProject::default()
    };
    let first = ("web-0".to_owned(), OS.to_owned());
    server.state().projects.insert(first.clone(), collection);
    let mut sense = world.sense(&server);
    let dead = |vm: usize, words: &[&str]| {
        eventually(&format!("the dead letter says {words:?}"), || {
            let (answer, _) = status(&world.place("state"), &["--dead"]);
            let guests = answer["guests"].as_array()?.iter();
            let mut guests = guests.filter(|it| it["vm"] == format!("web-{vm}").as_str());
            let said: &Value = &guests.next()?["pending"];
            let text = said["error"].as_str()?;
            (said["state"] == "dead" && words.iter().all(|it| text.contains(it))).then_some(())
        });
    };
    dead(0, &["400", "collection project"]);
    eventually("the other one is there", || server.packages("web-1", OS));
    // A server of another version, which does not know 1.6.
    server.state().newest = 5;
    world.agents[1].install("openssl");
    let errors = ["$.specVersion: does not", "$.components: is not known"];
    dead(1, &[&["Schema validation failed"], &errors[..]].concat());
    let refused = server
        .state()
        .answered
        .iter()
        .filter(|it| **it == 400)
        .count();
    assert_eq!(refused, 4);
    server.state().newest = 6;
    server
        .state()
        .projects
        .get_mut(&first)
        .unwrap()
        .is_collection = false;
    world.agents.iter().for_each(|agent| agent.install("vim"));
    world.all_are_there(&server);
    assert!(sense.terminate().success());
}

#[test]
fn a_conflict_and_faults_of_the_server_are_tried_again() {
    let world = World::new(1);
    let server = DependencyTrack::start();
    for answer in [
        (409, "created concurrently"),
        (500, "oh"),
        (503, "later"),
        (502, ""),
    ] {
        server.state().answers.push_back(answer);
    }
    let mut sense = world.sense(&server);
    world.all_are_there(&server);
    assert_eq!(server.state().answered, [409, 500, 503, 502, 200]);
    assert!(sense.terminate().success());
}

/// Loss prevented: a front end that answers every path with its page takes all reports.
#[test]
fn what_does_not_answer_as_dependency_track_does_accepts_nothing() {
    let world = World::new(1);
    let server = DependencyTrack::start();
    server.state().answers.push_back((200, "<!doctype html>"));
    let mut sense = world.sense(&server);
    world.said(&["unauthorized", "address of its API server"]);
    world.all_are_there(&server);
    assert!(sense.terminate().success());
}

/// A sink without a sensor.
struct Bare {
    sink: Arc<dyn Sink>,
    runtime: tokio::runtime::Runtime,
}

impl Bare {
    fn new(server: &DependencyTrack, key: &std::path::Path, options: SinkOptions) -> Self {
        fs::write(key, "odt_k3y").unwrap();
        let options = SinkOptions {
            token_file: Some(key.to_owned()),
            ..options
        };
        Self {
            sink: sink::open(&server.url.parse().unwrap(), &options).unwrap(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    fn deliver(&self, delivery: Delivery) -> Outcome {
        self.runtime.block_on(self.sink.deliver(delivery))
    }
}

fn delivery(vm: &str, padding: usize) -> Delivery {
    let head = "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.6\",\"version\":1,\"components\":";
    let name = "x".repeat(padding + 1);
    let body = format!("{head}[{{\"type\":\"library\",\"name\":\"{name}\"}}]}}");
    Delivery {
        kind: DocumentKind::Report,
        idempotency_key: String::new(),
        message_id: String::new(),
        vm: vm.to_owned(),
        os: OS.to_owned(),
        accepted_at: None,
        body: body.into_bytes(),
        events: Vec::new(),
    }
}

#[test]
fn a_project_has_the_name_the_tags_and_the_parent_that_were_given() {
    let dir = tempfile::tempdir().unwrap();
    let server = DependencyTrack::start();
    let options = SinkOptions {
        project: Some("host-7/{vm}".parse().unwrap()),
        version: Some("{os} x".parse().unwrap()),
        tags: vec!["vm".into(), "tier 1".into()],
        parent: Some("Guests@all".parse().unwrap()),
        ..SinkOptions::default()
    };
    let sink = Bare::new(&server, &dir.path().join("key"), options);
    // A parent that is not there is no fault of the document.
    let outcome = sink.deliver(delivery("web-1", 0));
    assert!(
        matches!(&outcome, Outcome::Unauthorized(said) if said.contains("parent")),
        "{outcome:?}"
    );
    let parent = ("Guests".to_owned(), "all".to_owned());
    server
        .state()
        .projects
        .insert(parent, StoredProject::default());
    assert_eq!(sink.deliver(delivery("web-1", 0)), Outcome::Accepted);
    let id = ("host-7/web-1".to_owned(), "rhel-9.4 x".to_owned());
    let project = server.state().projects[&id].clone();
    assert_eq!(
        (project.tags.as_str(), project.parent.as_deref()),
        ("vm,tier 1", Some("Guests"))
    );
    server.state().projects.get_mut(&id).unwrap().is_closed = true;
    let outcome = sink.deliver(delivery("web-1", 0));
    assert!(
        matches!(&outcome, Outcome::Unauthorized(said) if said.contains("no access")),
        "{outcome:?}"
    );
    // The next system of the guest is another version, and the latest.
    let upgraded = Delivery {
        os: "rhel-10.0".into(),
        ..delivery("web-1", 0)
    };
    assert_eq!(sink.deliver(upgraded), Outcome::Accepted);
    let latest = |version: &str| {
        let id = ("host-7/web-1".to_owned(), version.to_owned());
        server.state().projects[&id].is_latest
    };
    assert_eq!((latest("rhel-9.4 x"), latest("rhel-10.0 x")), (false, true));
}

#[test]
fn uploads_into_one_project_are_made_one_after_another() {
    let dir = tempfile::tempdir().unwrap();
    let server = DependencyTrack::start();
    server.state().is_slow = true;
    let options = SinkOptions {
        project: Some("fleet".parse().unwrap()),
        version: Some("{vm}".parse().unwrap()),
        ..SinkOptions::default()
    };
    let sink = Bare::new(&server, &dir.path().join("key"), options);
    let all = (0..8).map(|n| {
        let sink = sink.sink.clone();
        async move { sink.deliver(delivery(&format!("web-{n}"), 0)).await }
    });
    let all: Vec<_> = all.map(|it| sink.runtime.spawn(it)).collect();
    for upload in all {
        assert_eq!(sink.runtime.block_on(upload).unwrap(), Outcome::Accepted);
    }
    assert_eq!(server.uploads(), 8);
}

#[test]
fn what_is_too_long_is_refused_here_and_names_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let server = DependencyTrack::start();
    let sink = Bare::new(&server, &dir.path().join("key"), SinkOptions::default());
    let over = 20_000_001 - delivery("web-1", 0).body.len();
    let outcome = sink.deliver(delivery("web-1", over));
    assert!(
        matches!(&outcome, Outcome::RefusedForGood(said) if said.contains("20000000 at most")),
        "{outcome:?}"
    );
    assert_eq!(server.state().answered, [0; 0]);
    assert_eq!(sink.deliver(delivery("web-1", over - 1)), Outcome::Accepted);
    // Facts are in no bill of materials, and what was accepted since the sink is this one is there.
    let facts = Delivery {
        kind: DocumentKind::Facts,
        ..delivery("web-2", 0)
    };
    let refresh = Delivery {
        accepted_at: Some(WallTime::from_unix_ms(u64::MAX / 2)),
        ..delivery("web-2", 0)
    };
    assert_eq!(sink.deliver(facts), Outcome::Accepted);
    assert_eq!(sink.deliver(refresh), Outcome::Accepted);
    assert_eq!(server.uploads(), 1);
}
