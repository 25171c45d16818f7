//! What an agent answers, as a client sees it that shares no code with it: Python's protobuf and a
//! schema made from the field numbers alone. Another connection sits idle all the while.

use crate::support::agent::{Launch, is_root, receive, send};
use crate::support::eventually;
use crate::support::pull_client::Client;
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::wire::message::{WaitReport, request};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The CPE of everything.
const WILDCARD: &str = "cpe:2.3:*:*:*:*:*:*:*:*:*:*:*";

fn root_with(packages: &[Spec<'_>]) -> RpmRoot {
    let root = RpmRoot::new();
    let files: Vec<_> = packages.iter().map(|spec| root.build(spec)).collect();
    root.install(&files);
    root
}

fn epoch(answer: &Value) -> u64 {
    answer["meta"]["epoch"].as_u64().unwrap()
}

fn generation(answer: &Value) -> u64 {
    answer["meta"]["report_generation"].as_u64().unwrap()
}

fn is_full(answer: &Value) -> bool {
    answer["get_report"]["index_report"]["contents"]["packages"].is_object()
}

fn is_unchanged(answer: &Value) -> bool {
    answer["get_report"] == json!({"unchanged": true})
}

// The loss: an agent that only our own sensor understands.
#[test]
fn a_foreign_client_reads_every_field_of_a_report() {
    let root = root_with(&[
        Spec {
            name: "plain",
            ..Spec::default()
        },
        Spec {
            name: "special",
            epoch: Some(3),
            version: "2.0~rc1",
            arch: "x86_64",
            modularity_label: Some("mod:stream:1:ctx"),
            ..Spec::default()
        },
    ]);
    let machine = "0123456789abcdef0123456789abcdef";
    fs::write(root.path().join("etc/machine-id"), format!("{machine}\n")).unwrap();
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let _idle = agent.connect().unwrap();
    let mut client = Client::of(agent.socket());

    let answer = client.get(&json!({}));
    let meta = &answer["meta"];
    assert_eq!(
        meta["supported_methods"],
        json!(["get_report", "wait_report", "sync_repo_cpe_mapping"])
    );
    assert_eq!(meta["agent_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(meta["report_generation"], 1);
    assert!(epoch(&answer) > 0);
    assert!(meta["report_generated_at"]["seconds"].is_string());
    assert_eq!(meta["facts"]["detected_os"], "RHEL");
    assert_eq!(meta["facts"]["scan_trigger"], "scheduled");
    assert_eq!(meta["facts"]["guest_id"].as_str().unwrap().len(), 32);
    assert!(
        !answer.to_string().contains(machine),
        "the machine-id leaves"
    );

    let index = &answer["get_report"]["index_report"];
    assert_eq!(
        (&index["state"], &index["success"]),
        (&json!("IndexFinished"), &json!(true))
    );
    // A sensor of version 0.1 would compare it with a digest of another form.
    assert_eq!(meta["facts"]["report_digest"], Value::Null);
    let told = client.get_report_v1(&json!({}));
    assert_eq!(
        index["hash_id"], told["meta"]["facts"]["report_digest"],
        "{told}"
    );
    let contents = &index["contents"];
    assert_eq!(contents["distributions"]["1"]["did"], "rhel");
    let packages: Vec<&Value> = contents["packages"].as_object().unwrap().values().collect();
    assert_eq!(packages.len(), 2);
    let special = packages.iter().find(|p| p["name"] == "special").unwrap();
    assert_eq!(
        **special,
        json!({
            "id": special["id"], "name": "special", "version": "3:2.0~rc1-1", "kind": "binary",
            "source": {"name": "special", "version": "2.0~rc1-1", "kind": "source", "cpe": WILDCARD},
            "package_db": "sqlite:var/lib/rpm", "module": "mod:stream", "arch": "x86_64",
            "cpe": WILDCARD, "license": "MIT",
        })
    );
}

// The loss: a full report every time, or a false "unchanged" that hides a change for ever.
#[test]
fn unchanged_is_said_only_to_one_who_has_this_very_report() {
    let root = root_with(&[Spec::default()]);
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let _idle = agent.connect().unwrap();
    let mut client = Client::of(agent.socket());

    let full = client.get_report_v1(&json!({}));
    let (epoch, generation) = (epoch(&full), generation(&full));
    let digest = full["meta"]["facts"]["report_digest"].as_str().unwrap();
    let digest = base64(digest.strip_prefix("sha256:").unwrap());
    let other = base64(&"00".repeat(32));
    for (fields, unchanged) in [
        (
            json!({"last_known_generation": generation, "known_epoch": epoch}),
            true,
        ),
        // A peer of an older protocol knows no epoch.
        (json!({"last_known_generation": generation}), true),
        (
            json!({"last_known_generation": generation, "known_epoch": epoch ^ 1}),
            false,
        ),
        (
            json!({"last_known_generation": generation + 1, "known_epoch": epoch ^ 1}),
            false,
        ),
        (
            json!({"last_known_generation": 0, "known_epoch": epoch}),
            false,
        ),
        (
            json!({"last_known_generation": 0, "known_epoch": epoch, "known_digest": digest}),
            false,
        ),
        // The same content under another key.
        (
            json!({"last_known_generation": 9, "known_epoch": epoch ^ 1, "known_digest": digest}),
            true,
        ),
    ] {
        let answer = client.get_report_v1(&fields);
        assert_eq!(
            (is_unchanged(&answer), is_full(&answer)),
            (unchanged, !unchanged),
            "{fields}: {answer}"
        );
        assert_eq!(answer["meta"]["report_generation"], generation);
    }
    // Version 0.1 sends a digest that it computed in a form of its own.
    let fields =
        json!({"last_known_generation": generation, "known_epoch": epoch, "known_digest": other});
    assert!(is_unchanged(&client.get(&fields)));
    // The same from a peer that sends back what it was sent: this agent never said that.
    let answer = client.get_report_v1(&fields);
    assert!(is_full(&answer), "{answer}");
    assert_ne!(self::epoch(&answer), epoch);
    assert_eq!(self::generation(&answer), 1);
}

// The loss: a peer of the one or the other generation that is refused, or reads something else.
#[test]
fn clients_of_both_generations_read_the_same_answer() {
    let root = root_with(&[Spec::default()]);
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let mut first = Client::of(agent.socket());
    let mut second = Client::of_generation(agent.socket(), "second");
    let by_first = first.get_report_v1(&json!({}));
    let by_second = second.get_report_v1(&json!({"last_known_token": ""}));
    assert_eq!(by_first["get_report"], by_second["get_report"]);
    for field in ["agent_version", "supported_methods", "facts"] {
        assert_eq!(by_first["meta"][field], by_second["meta"][field], "{field}");
    }
    let digest = by_first["meta"]["facts"]["report_digest"].as_str().unwrap();
    let token = format!("{}:{}:{}", epoch(&by_first), 1, &digest[7..23]);
    assert_eq!(by_second["meta"]["token"], token);

    let unchanged = |client: &mut Client, token: &str| {
        let answer = client.get_report_v1(&json!({"last_known_token": token}));
        assert_ne!(is_unchanged(&answer), is_full(&answer), "{answer}");
        is_unchanged(&answer)
    };
    assert!(unchanged(&mut second, &token));
    for other in ["0123456789abcdef", "1:1:0123456789abcdef", "é"] {
        assert!(!unchanged(&mut second, other), "{other}");
    }
    // One that is not known to read both gets the first generation's answer to a token as well.
    second.send(&json!({"meta": {}, "get_report": {"last_known_token": ""}}));
    let plain = second.receive_any();
    assert_eq!(plain["meta"]["token"], Value::Null, "{plain}");
    assert!(is_full(&plain));

    root.add(&Spec {
        name: "another",
        ..Spec::default()
    });
    agent.wait_for_rpm(&root);
    assert!(!unchanged(&mut second, &token));
}

// The loss: a peer that cannot tell what it did wrong, or one bad peer that harms the others.
#[test]
fn what_is_no_request_is_answered_with_the_reason() {
    let root = root_with(&[Spec::default()]);
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let _idle = agent.connect().unwrap();
    let mut half = agent.connect().unwrap();
    half.write_all(&[0, 0, 0, 9, 1]).unwrap();
    let mut client = Client::of(agent.socket());

    assert_eq!(
        client.refusal(&json!({"raw": "00000003ffffff"})),
        "MALFORMED_REQUEST"
    );
    assert_eq!(client.refusal(&json!({"length": 7})), "MALFORMED_REQUEST");
    assert_eq!(
        client.refusal(&json!({"raw": "00000000"})),
        "UNKNOWN_METHOD"
    );
    assert_eq!(
        client.refusal(&json!({"meta": {"request_id": "only this"}})),
        "UNKNOWN_METHOD"
    );
    // The whole 2 MiB are sent before the answer is read, as a simple client does.
    assert_eq!(
        client.refusal(&json!({"length": 2 << 20})),
        "REQUEST_TOO_LARGE"
    );
    assert!(is_full(&client.get(&json!({}))));
}

// The loss: an empty report that looks like a clean system.
#[test]
fn before_the_first_scan_the_answer_is_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::on(dir.path());
    let agent = launch.start();
    let _idle = agent.connect().unwrap();
    let mut client = Client::of(agent.socket());
    assert_eq!(client.refusal(&json!({"get_report": {}})), "NOT_READY");
    assert_eq!(
        client.refusal(&json!({"wait_report": {"timeout_ms": 60_000}})),
        "NOT_READY"
    );
}

// The loss: changes that arrive late, or waits that never end.
#[test]
fn a_wait_is_answered_by_a_change_or_when_its_time_is_over() {
    let root = root_with(&[Spec::default()]);
    let next = root.build(&Spec {
        name: "next",
        ..Spec::default()
    });
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    let _idle = agent.connect().unwrap();
    let mut client = Client::of(agent.socket());

    let first = client.get(&json!({}));
    let known = |time: u64| {
        json!({"wait_report": {
            "last_known_generation": generation(&first), "known_epoch": epoch(&first), "timeout_ms": time,
        }})
    };
    let answer = client.ask(&known(300));
    assert!(is_unchanged(&answer), "{answer}");
    assert!(answer["seconds"].as_f64().unwrap() >= 0.3);

    client.send(&known(60_000));
    root.install(&[next]);
    let answer = client.receive();
    assert!(is_full(&answer), "{answer}");
    assert_eq!(generation(&answer), generation(&first) + 1);
    assert!(answer["seconds"].as_f64().unwrap() < 40.0);

    // One who does not know the newest report has nothing to wait for.
    let answer = client.ask(&known(60_000));
    assert!(is_full(&answer) && answer["seconds"].as_f64().unwrap() < 20.0);
}

// The loss: a list of what can be attacked, for everybody who asks; a log that a stranger fills.
#[test]
fn a_stranger_gets_no_answer_and_is_mentioned_once() {
    if !is_root() {
        return;
    }
    let root = root_with(&[Spec::default()]);
    let launch = Launch::on(root.path());
    let agent = launch.start();
    agent.wait_for_rpm(&root);
    fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = "import socket, sys\n\
         for n in range(30):\n    \
             with socket.socket(socket.AF_UNIX) as s:\n        \
                 s.connect(sys.argv[1])\n        \
                 try:\n            \
                     s.sendall(bytes([0, 0, 0, 2, 0x12, 0]))\n            \
                     answer = s.recv(1)\n        \
                 except (BrokenPipeError, ConnectionResetError):\n            \
                     answer = b''\n        \
                 assert answer == b'', answer\n";
    let status = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["/usr/bin/python3", "-c", script])
        .arg(agent.socket())
        .status();
    assert!(status.unwrap().success());
    assert!(agent.get().refusal().is_none());
    let log = agent.wait_until_said("uid 65534");
    assert_eq!(log.matches("refused").count(), 1, "{log}");
}

// The loss: a sensor that takes a stopping agent for a broken one; a stop that a silent peer delays.
#[test]
fn an_agent_that_stops_answers_those_who_wait() {
    let root = root_with(&[Spec::default()]);
    let launch = Launch::on(root.path());
    let agent = launch.start();
    let first = agent.wait_for_rpm(&root);
    let mut client = Client::of(agent.socket());
    client.send(&json!({"wait_report": {
        "last_known_generation": first.meta.generation, "timeout_ms": 60_000,
    }}));
    eventually("the wait has arrived", || {
        (agent.connections() == 1).then_some(())
    });
    let _idle = agent.connect().unwrap();
    eventually("the idle one has arrived", || {
        (agent.connections() == 2).then_some(())
    });
    let (socket, log) = (agent.socket().to_owned(), agent.log_file().to_owned());
    assert!(agent.terminate().success());
    assert!(is_unchanged(&client.receive()));
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("WARN"), "{log}");
    assert!(!socket.exists(), "the socket is left behind");
}

// The loss: a change that a peer never hears of because it said that its request was all.
#[test]
fn a_peer_that_ends_its_sending_side_still_hears_of_a_change() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let launch = Launch::on(root.path());
    let agent = launch.start();
    let first = agent.wait_for_rpm(&root);
    let mut peer = agent.connect().unwrap();
    let wait = request::Method::WaitReport(WaitReport {
        last_known_generation: first.meta.generation,
        known_epoch: first.meta.epoch,
        known_digest: Vec::new(),
        timeout_ms: 60_000,
    });
    send(&mut peer, wait).unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    root.add(&Spec {
        name: "afterwards",
        ..Spec::default()
    });
    assert_ne!(receive(&mut peer).unwrap().key(), first.key());
}

fn base64(hex: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect();
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let bits = part
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - part.len()));
        for n in 0..4 {
            text.push(match n <= part.len() {
                true => char::from(LETTERS[(bits >> (18 - 6 * n)) as usize & 63]),
                false => '=',
            });
        }
    }
    text
}
