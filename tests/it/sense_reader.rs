//! `afferent sense --reports-from` with a real NATS server, real sensors and fake agents: the fleet store of a reader
//! says what the guests have, whatever happens on the way.

use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{Consumer, JETSTREAM, NatsServer, STREAM};
use crate::support::program::{Program, free_port, http_get, status};
use crate::support::web::{TOKEN, Web, bearer, session, write_token};
use afferent::clock;
use afferent::nats::{Message, NatsClient, NatsOptions};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Sensors with guests, one stream, and a reader.
struct World {
    dir: tempfile::TempDir,
    server: NatsServer,
    /// Guests of each sensor.
    agents: Vec<Vec<FakeAgent>>,
}

impl World {
    fn new(sensors: usize, guests: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agents = (0..sensors).map(|sensor| {
            let agents = (0..guests).map(|guest| {
                let socket = dir.path().join(format!("{sensor}-{guest}.sock"));
                FakeAgent::start(&socket, Script::new())
            });
            agents.collect()
        });
        Self {
            agents: agents.collect(),
            server: NatsServer::start(JETSTREAM),
            dir,
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sensor(&self, sensor: usize) -> Program {
        let guests = self.agents[sensor].iter().enumerate();
        let vms: Vec<String> = guests
            .map(|(guest, agent)| agent.vm(&name(sensor, guest)))
            .collect();
        let vms: Vec<&str> = vms.iter().flat_map(|vm| ["--vm", vm]).collect();
        let state = self.place(&format!("sensor-{sensor}"));
        Program::sense(&state, &self.server.url(), &vms)
    }

    fn reader(&self) -> Program {
        let state = self.place("reader");
        started(reader(&state, &self.server.url(), &[]), &state)
    }

    /// The reader has of every guest what it has.
    fn reader_is_right(&self) {
        for (sensor, agents) in self.agents.iter().enumerate() {
            for (guest, agent) in agents.iter().enumerate() {
                let vm = name(sensor, guest);
                let (generation, packages) = agent.now();
                let wanted = (format!("77:{generation}"), packages);
                eventually(&format!("the reader has {wanted:?} of {vm}"), || {
                    (shown(&self.place("reader"), &vm)? == wanted).then_some(())
                });
            }
        }
    }
}

fn name(sensor: usize, guest: usize) -> String {
    format!("host-{sensor}.web-{guest}")
}

fn reader(state: &Path, from: &str, more: &[&str]) -> Program {
    let text = state.display().to_string();
    let args = ["sense", "--state-dir", &text, "--reports-from", from];
    Program::start(&[&args, more].concat())
}

/// Waits until it answers: before, a question would read the file, which it could not open meanwhile.
fn started(program: Program, state: &Path) -> Program {
    eventually("the reader answers", || {
        (status(state, &[]).0["service"] == "sense").then_some(())
    });
    program
}

fn fleet(state: &Path, args: &[&str]) -> Option<Value> {
    let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .arg("fleet")
        .args(args)
        .args(["--json", "--state-dir"])
        .arg(state)
        .output()
        .unwrap();
    serde_json::from_slice(&out.stdout).ok()
}

/// Which report of a guest is stored, and its packages, sorted.
fn shown(state: &Path, vm: &str) -> Option<(String, Vec<String>)> {
    let show = fleet(state, &["show", vm])?;
    let packages = show["installed"].as_array()?.iter();
    let mut packages: Vec<String> = packages
        .map(|package| package["name"].as_str().unwrap().to_owned())
        .collect();
    packages.sort();
    Some((show["report"].as_str()?.to_owned(), packages))
}

/// Waits until everything in the stream is taken, and gives the status.
fn caught_up(state: &Path, consumer: &Consumer) -> Value {
    eventually("nothing in the stream waits for the reader", || {
        let (answer, _) = status(state, &[]);
        let name = answer["reports_from"]["consumer"].as_str()?;
        let info = consumer
            .ask(&format!("CONSUMER.INFO.{STREAM}.{name}"), &json!({}))
            .ok()?;
        let is_empty = info["num_pending"] == 0 && info["num_ack_pending"] == 0;
        // Read after that: the one before may be older than the last message.
        let (answer, _) = status(state, &[]);
        (is_empty && answer["reports_from"]["lag"] == 0).then_some(answer)
    })
}

fn publish(server: &NatsServer, subject: &str, headers: &[(&str, &str)], payload: &[u8]) {
    let options = NatsOptions {
        connect: Duration::from_secs(30),
        answer: Duration::from_secs(30),
        secret_file: None,
        ca_file: None,
    };
    let client = NatsClient::new(server.url().parse().unwrap(), options);
    let message = Message {
        subject,
        headers,
        payload,
    };
    let until = clock::now() + Duration::from_secs(60);
    let answer = client.request(&message, until).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert!(answer["seq"].is_u64(), "{answer}");
}

#[test]
fn what_two_sensors_deliver_is_what_one_reader_answers() {
    let world = World::new(2, 3);
    let mut sensors = [world.sensor(0), world.sensor(1)];
    let port = free_port();
    let state = world.place("reader");
    let metrics = ["--metrics", &port.to_string()];
    let mut program = started(reader(&state, &world.server.url(), &metrics), &state);
    world.reader_is_right();
    world.agents[0][1].install("openssl");
    world.agents[1][2].install("openssl");
    world.agents[1][2].change(|script| {
        script.facts.insert("kernel_running".into(), "6.1".into());
    });
    world.reader_is_right();
    let found = fleet(&state, &["find", "openssl"]).unwrap();
    let found: Vec<_> = found["guests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["vm"])
        .collect();
    assert_eq!(found, ["host-0.web-1", "host-1.web-2"]);
    let answer = caught_up(&state, &world.server.consumer());
    assert_eq!(
        (&answer["service"], &answer["state"]),
        (&json!("sense"), &json!("ok"))
    );
    assert_eq!(answer["fleet"]["guests"], 6);
    assert_eq!(answer["documents"]["bad"], 0);
    assert!(answer["reports_from"]["last"]["vm"].is_string(), "{answer}");
    // Of facts that came alone, too.
    eventually("the facts", || {
        let show = fleet(&state, &["show", "host-1.web-2"])?;
        (show["facts"]["kernel_running"] == "6.1").then_some(())
    });
    let (_, page) = http_get(port, "/metrics").unwrap();
    for line in [
        "afferent_reader_reading 1\n",
        "afferent_reader_lag_documents 0\n",
        "afferent_fleet_rows{table=\"guests\"} 6\n",
        "afferent_reader_agents{version=\"other\"} 0\n",
        "afferent_reader_documents_total{outcome=\"bad\"} 0\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let mut lines = page.lines();
    let agents = lines.find(|line| line.starts_with("afferent_reader_agents{"));
    assert!(agents.unwrap().ends_with(" 6"), "{agents:?}");
    let text = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["status", "--state-dir"])
        .arg(&state)
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(
        text.contains("reports_from") && text.contains(STREAM),
        "{text}"
    );
    // The same from its file.
    assert!(program.terminate().success());
    world.reader_is_right();
    sensors
        .iter_mut()
        .for_each(|sensor| assert!(sensor.terminate().success()));
}

/// Loss prevented: one place that answers for all hosts, and no page for it.
#[test]
fn a_reader_answers_over_http_and_lets_people_in() {
    let world = World::new(2, 2);
    let mut sensors = [world.sensor(0), world.sensor(1)];
    let (state, port) = (world.place("reader"), free_port());
    write_token(&world.place("token"), TOKEN);
    let token = world.place("token").display().to_string();
    let listen = format!("127.0.0.1:{port}");
    let http = ["--fleet-listen", &listen, "--fleet-token-file", &token];
    let mut program = started(reader(&state, &world.server.url(), &http), &state);
    world.reader_is_right();
    let web = Web::Tcp(port);
    assert_eq!(web.get("/v1/guests", "").code, 401);
    assert_eq!(web.get("/", "").code, 200);
    let browser = session(&web, &state);
    let get = |target: &str| {
        let answer = web.get(target, &browser);
        assert_eq!(answer.code, 200, "{target}: {answer:?}");
        answer.json()
    };
    let mut events = web.events("/v1/changes/stream", &bearer(TOKEN));
    events.until("retry: ");
    world.agents[1][0].install("openssl");
    let (_, change) = events.next();
    assert_eq!(
        (&change["vm"], &change["added"][0]["name"]),
        (&json!("host-1.web-0"), &json!("openssl"))
    );
    let found = fleet(&state, &["find", "openssl"]).unwrap();
    assert_eq!(get("/v1/packages?name=openssl"), found);
    assert_eq!(found["guests"].as_array().unwrap().len(), 1);
    assert_eq!(get("/v1/guests")["guests"].as_array().unwrap().len(), 4);
    caught_up(&state, &world.server.consumer());
    let summary = get("/v1/summary");
    assert_eq!(
        (
            &summary["state"],
            &summary["stored"],
            &summary["reports_from"]["lag"]
        ),
        (&json!("ok"), &json!(4), &json!(0))
    );
    assert_eq!(summary["newest_change"]["vm"], "host-1.web-0");
    assert!(summary["reports_from"]["last"]["vm"].is_string());
    for of_a_sensor in [
        "deliver",
        "guests",
        "oldest_unreachable",
        "pending",
        "latency",
    ] {
        assert!(summary.get(of_a_sensor).is_none(), "{summary}");
    }
    assert!(status(&state, &[]).0["fleet_api"]["requests"].as_u64() > Some(5));
    // Who may not read has trouble that the status shows.
    fs::remove_file(world.place("token")).unwrap();
    assert_eq!(web.get("/v1/guests", &bearer(TOKEN)).code, 401);
    let (answer, code) = status(&state, &[]);
    assert!(
        answer["reasons"].to_string().contains("fleet API"),
        "{answer}"
    );
    assert_eq!(code, 4);
    drop(events);
    assert!(program.terminate().success());
    assert!(web.connect().is_err());
    for sensor in &mut sensors {
        assert!(sensor.terminate().success());
    }
}

/// Loss prevented: a change that the stream thinks is stored, and is not.
#[test]
fn killed_at_any_moment_a_reader_loses_nothing() {
    let world = World::new(2, 4);
    let _sensors = [world.sensor(0), world.sensor(1)];
    for n in 0..15 {
        let mut program = reader(&world.place("reader"), &world.server.url(), &[]);
        for agent in world.agents.iter().flatten() {
            agent.install(&format!("package-{n}"));
        }
        // Not to wait for something: the moment of the kill is what varies.
        std::thread::sleep(Duration::from_micros(fastrand::u64(..200_000)));
        program.kill();
    }
    let mut program = world.reader();
    world.reader_is_right();
    caught_up(&world.place("reader"), &world.server.consumer());
    assert!(program.terminate().success());
}

#[test]
fn a_reader_that_is_there_before_the_server_and_the_stream_waits_for_them() {
    let mut world = World::new(1, 1);
    world.server.kill();
    let mut program = world.reader();
    let state = world.place("reader");
    let said = |words: &str| {
        eventually(words, || {
            let (answer, code) = status(&state, &[]);
            let is_said = answer["reasons"].to_string().contains(words);
            (is_said && answer["state"] == "degraded" && code == 4).then_some(())
        });
    };
    said("no connection");
    world.server.start_again(JETSTREAM);
    said("is not there yet");
    let mut sensor = world.sensor(0);
    world.reader_is_right();
    // The server goes, and comes back with what it had.
    world.server.kill();
    said("no reports are read");
    world.server.start_again(JETSTREAM);
    world.agents[0][0].install("after the restart");
    world.reader_is_right();
    eventually("it is well again", || {
        (status(&state, &[]).1 == 0).then_some(())
    });
    assert!(program.terminate().success());
    assert!(sensor.terminate().success());
}

/// Loss prevented: the guest of today shown as that of yesterday, since an old host delivered late.
#[test]
fn a_guest_that_moved_is_what_its_new_sensor_says_whenever_the_old_one_delivers() {
    let world = World::new(1, 1);
    let state = world.place("reader");
    let mut program = world.reader();
    let mut old = world.sensor(0);
    world.reader_is_right();
    let consumer = world.server.consumer();
    let vm = name(0, 0);
    let subject = format!("afferent.reports.{}", vm.replace('.', "%2E"));
    let late = consumer.newest_at(&subject).unwrap();
    assert!(old.terminate().success());
    // The guest goes on at another host.
    world.agents[0][0].install("at the new host");
    let guest = world.agents[0][0].vm(&vm);
    let mut new = Program::sense(&world.place("new"), &world.server.url(), &["--vm", &guest]);
    world.reader_is_right();
    publish(&world.server, &subject, &[], &late.payload);
    let answer = caught_up(&state, &consumer);
    assert_eq!(answer["documents"]["older"], 1, "{answer}");
    world.reader_is_right();
    assert!(new.terminate().success());
    assert!(program.terminate().success());
}

#[test]
fn what_is_no_document_is_left_out_for_good_and_holds_up_nothing() {
    let world = World::new(1, 1);
    let mut sensor = world.sensor(0);
    let consumer = world.server.consumer();
    let mut program = world.reader();
    world.reader_is_right();
    let of_another = consumer.newest("host-0%2Eweb-0").unwrap().payload;
    let change = json!({"type": "change", "vm": {"id": "a"}, "meta": {
        "seen_at": "2026-11-21T10:00:00Z", "epoch": 1, "generation": 1, "digest": "", "generated_at": ""}});
    for (subject, headers, payload) in [
        ("afferent.reports.a", &[][..], &b"no JSON \x1b[2J"[..]),
        ("afferent.reports.b", &[], b"{}"),
        ("afferent.reports.c", &[("Content-Encoding", "gzip")], b"{}"),
        ("afferent.reports.other", &[], &of_another),
        ("afferent.facts.d", &[], b""),
        ("afferent.reports.e", &[], change.to_string().as_bytes()),
    ] {
        publish(&world.server, subject, headers, payload);
    }
    let state = world.place("reader");
    let answer = eventually("all of them are judged", || {
        let (answer, _) = status(&state, &[]);
        (answer["documents"]["bad"] == 5 && answer["documents"]["ignored"] == 1).then_some(answer)
    });
    assert_eq!(
        (&answer["state"], &answer["fleet"]["guests"]),
        (&json!("ok"), &json!(1))
    );
    world.agents[0][0].install("after it");
    world.reader_is_right();
    caught_up(&state, &consumer);
    // They do not come again.
    assert!(program.terminate().success());
    let mut program = world.reader();
    let answer = caught_up(&state, &consumer);
    assert_eq!(answer["documents"]["bad"], 0, "{answer}");
    assert!(program.terminate().success());
    assert!(sensor.terminate().success());
}

/// Loss prevented: guests that are missing for hours, since the stream knows the reader but its file is gone.
#[test]
fn a_reader_whose_file_is_gone_reads_the_stream_anew() {
    let world = World::new(1, 3);
    let mut sensor = world.sensor(0);
    let mut program = world.reader();
    world.reader_is_right();
    let consumer = world.server.consumer();
    let before = caught_up(&world.place("reader"), &consumer);
    assert!(sensor.terminate().success());
    assert!(program.terminate().success());
    fs::remove_file(world.place("reader").join("sense.redb")).unwrap();
    let mut program = world.reader();
    world.reader_is_right();
    let after = caught_up(&world.place("reader"), &consumer);
    let name = |answer: &Value| answer["reports_from"]["consumer"].clone();
    assert_ne!(name(&before), name(&after));
    assert!(program.terminate().success());
}

/// The least that a reader must be allowed.
#[test]
fn with_create_no_pulling_and_acknowledging_is_all_that_must_be_allowed() {
    let users = format!(
        "authorization {{ users: [\n\
         {{ user: admin, password: all }}\n\
         {{ user: reader, password: few, permissions: {{ publish: [\n\
           \"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.fleet\", \"$JS.ACK.{STREAM}.fleet.>\"\n\
         ], subscribe: [\"_INBOX.>\"] }} }}\n] }}\n"
    );
    let world = World {
        server: NatsServer::start(&format!("{JETSTREAM}{users}")),
        ..World::new(1, 2)
    };
    let (few, all) = (world.place("few"), world.place("all"));
    fs::write(&few, "few\n").unwrap();
    fs::write(&all, "all\n").unwrap();
    let [few_text, all_text] = [&few, &all].map(|file| file.display().to_string());
    let url = |user: &str| {
        world
            .server
            .url()
            .replace("nats://", &format!("nats://{user}@"))
    };
    let guests = [0, 1].map(|n| world.agents[0][n].vm(&name(0, n)));
    let args = [
        "--vm",
        &guests[0],
        "--vm",
        &guests[1],
        "--token-file",
        &all_text,
    ];
    let mut sensor = Program::sense(&world.place("sensor-0"), &url("admin"), &args);
    let admin = Consumer::new(&url("admin"), Some(all), None);
    let state = world.place("reader");
    let said = |words: &str| {
        eventually(words, || {
            let (answer, _) = status(&state, &[]);
            answer["reasons"].to_string().contains(words).then_some(())
        });
    };
    let secret = ["--token-file", few_text.as_str()];
    let mut program = reader(&state, &url("reader"), &secret);
    said("create=no&consumer=NAME");
    assert!(program.terminate().success());
    let from = format!("{}&create=no&consumer=fleet", url("reader"));
    let mut program = reader(&state, &from, &secret);
    said("a consumer fleet?");
    let config = json!({"stream_name": STREAM, "config": {
        "durable_name": "fleet", "ack_policy": "explicit", "max_ack_pending": 2000}});
    eventually("the consumer is made", || {
        let made = admin.ask(&format!("CONSUMER.DURABLE.CREATE.{STREAM}.fleet"), &config);
        made.ok()?["config"].is_object().then_some(())
    });
    world.reader_is_right();
    caught_up(&state, &admin);
    assert!(program.terminate().success());
    assert!(sensor.terminate().success());
}

#[test]
fn settings_of_guests_and_delivery_are_a_configuration_error_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sense.toml");
    fs::write(
        &file,
        "reports_from = \"nats://c?stream=R\"\ndeliver = \"file:/x\"\n",
    )
    .unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(["check-config", "sense"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(3), "{said}");
    assert!(
        said.contains("deliver: means nothing with reports_from"),
        "{said}"
    );
}
