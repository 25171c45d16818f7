//! What StackRox's own agent does, by name: protocol, framing, mapping, TLS of KubeVirt. Ours does the same, or more
//! where the table says so.
//!
//! The other tests of these areas go further; this table is the list of what a Sensor and virt-handler rely on.

use super::guests::{self, MAPPING, item};
use crate::support::agent::{Agent, Launch};
use crate::support::authority::Authority;
use crate::support::ca_bundle::{Behaviour as Bundle, CaBundle};
use crate::support::eventually;
use crate::support::held::Held;
use crate::support::pull_client::Client;
use crate::support::rpm_root::RpmRoot;
use crate::support::virt_handler::{Identity, client, pull};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

/// A case: its name, what StackRox's own agent does, and whether ours does.
type Case = (&'static str, &'static str, fn());

const CASES: &[Case] = &[
    ("full", "generation 0 is answered with the report", full),
    (
        "unchanged",
        "the known generation and epoch, or generation alone, are answered with `unchanged` and no report",
        unchanged,
    ),
    (
        "mismatch",
        "another generation or epoch is answered with the report",
        mismatch,
    ),
    ("not ready", "before the first scan: NOT_READY", not_ready),
    (
        "unknown method",
        "no method, or one of a later version: UNKNOWN_METHOD",
        unknown_method,
    ),
    (
        "mapping required",
        "before the first mapping: MAPPING_REQUIRED, with the path and an empty hash",
        mapping_required,
    ),
    (
        "oversize",
        "a frame over 1 MiB, or a push over 6 MiB: REQUEST_TOO_LARGE; a mapping over 5 MiB: MALFORMED_REQUEST",
        oversize,
    ),
    (
        "deferred sync",
        "a mapping that comes while nothing can be scanned is answered at once, and used by the next scan",
        deferred_sync,
    ),
    (
        "overlap bundle",
        "clients of each authority in the bundle are let in",
        overlap_bundle,
    ),
    (
        "hard cut-over",
        "an authority that is not in the bundle any more lets nobody in, from the next handshake on",
        hard_cut_over,
    ),
    (
        "failed refresh keeps the old CA",
        "while the bundle cannot be fetched the one before counts",
        failed_refresh_keeps_the_old_ca,
    ),
    (
        "second connection",
        "roxagent answers BUSY to it; ours answers with the report",
        second_connection,
    ),
    (
        "deadlines",
        "a peer that does not finish its request is closed; one request a connection",
        deadlines,
    ),
];

/// Loss prevented: a Sensor or a virt-handler that gets something else than from the agent that it was made for.
#[test]
fn every_behaviour_of_stackroxs_own_agent_that_its_peers_rely_on_is_ours() {
    let failed: Vec<&str> = CASES
        .iter()
        .filter(|(name, rule, check)| {
            println!("{name}: {rule}");
            catch_unwind(check).is_err()
        })
        .map(|(name, ..)| *name)
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(CASES.len(), 13);
}

/// A guest with a package from a repository of the mapping, and its agent with these flags.
struct Guest {
    // Ends first, while its log is still there.
    agent: Agent,
    launch: Launch,
    root: RpmRoot,
}

impl Guest {
    fn with(flags: &[(&str, &str)]) -> Self {
        let root = guests::with(&["plain"]);
        guests::dnf4(root.path(), &[item("plain", "baseos", 1, 1)]);
        let mut launch = Launch::on(root.path());
        for (name, value) in flags {
            launch = launch.flag(name, value);
        }
        let agent = launch.start();
        Self {
            agent,
            launch,
            root,
        }
    }

    fn scanned(flags: &[(&str, &str)]) -> Self {
        let guest = Self::with(flags);
        eventually("the first scan has ended", || {
            guest.agent.get().refusal().is_none().then_some(())
        });
        guest
    }

    fn client(&self) -> Client {
        Client::of(self.agent.socket())
    }

    fn push(&self, mapping: &[u8]) -> Value {
        let file = self.root.path().join("mapping.json");
        fs::write(&file, mapping).unwrap();
        self.client().ask(&json!({"push_file": file}))
    }
}

fn is_full(answer: &Value) -> bool {
    answer["get_report"]["index_report"]["contents"]["packages"].is_object()
}

fn is_unchanged(answer: &Value) -> bool {
    answer["get_report"] == json!({"unchanged": true})
}

/// Generation and epoch.
fn key(answer: &Value) -> (u64, u64) {
    let number = |field: &str| answer["meta"][field].as_u64().unwrap();
    (number("report_generation"), number("epoch"))
}

fn full() {
    let guest = Guest::scanned(&[]);
    let mut client = guest.client();
    for fields in [json!({}), json!({"known_epoch": 5})] {
        assert!(is_full(&client.get(&fields)), "{fields}");
    }
    let mut second = Client::of_generation(guest.agent.socket(), "second");
    let answer = second.get_report_v1(&json!({"last_known_token": ""}));
    assert!(is_full(&answer), "{answer}");
}

fn unchanged() {
    let guest = Guest::scanned(&[]);
    let mut client = guest.client();
    let (generation, epoch) = key(&client.get(&json!({})));
    for fields in [
        json!({"last_known_generation": generation, "known_epoch": epoch}),
        json!({"last_known_generation": generation}),
    ] {
        let answer = client.get(&fields);
        assert!(is_unchanged(&answer), "{fields}: {answer}");
        assert_eq!(key(&answer), (generation, epoch));
        // Facts travel also then.
        assert!(answer["meta"]["facts"]["detected_os"].is_string());
    }
}

fn mismatch() {
    let guest = Guest::scanned(&[]);
    let mut client = guest.client();
    let (generation, epoch) = key(&client.get(&json!({})));
    for (known, of) in [(generation, epoch ^ 1), (generation + 1, epoch ^ 1), (7, 0)] {
        let fields = json!({"last_known_generation": known, "known_epoch": of});
        assert!(is_full(&client.get(&fields)), "{fields}");
    }
    let mut second = Client::of_generation(guest.agent.socket(), "second");
    let answer = second.get_report_v1(&json!({"last_known_token": "0123456789abcdef"}));
    assert!(is_full(&answer), "{answer}");
}

fn not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let launch = Launch::on(dir.path());
    let agent = launch.start();
    let mut client = Client::of(agent.socket());
    let answer = client.ask(&json!({"get_report": {}}));
    assert_eq!(answer["error"]["code"], "NOT_READY", "{answer}");
    assert_eq!(answer["meta"]["update_path"], 1);
}

fn unknown_method() {
    let guest = Guest::scanned(&[]);
    let mut client = guest.client();
    for request in [
        json!({"raw": "00000000"}),
        json!({"meta": {"request_id": "only this"}}),
        // Field 99, with a message in it.
        json!({"raw": "000000049a060101"}),
    ] {
        assert_eq!(client.refusal(&request), "UNKNOWN_METHOD", "{request}");
    }
}

fn mapping_required() {
    let guest = Guest::with(&[("require-mapping", "on")]);
    let answer = guest.client().ask(&json!({"get_report": {}}));
    assert_eq!(answer["error"]["code"], "MAPPING_REQUIRED", "{answer}");
    assert_eq!(answer["meta"]["update_path"], 1);
    let answer = guest.push(MAPPING.as_bytes());
    assert_eq!(answer["sync_repo_cpe_mapping"], json!({"updated": true}));
    eventually("the report", || {
        is_full(&guest.client().get(&json!({}))).then_some(())
    });
}

fn oversize() {
    let guest = Guest::scanned(&[]);
    assert_eq!(
        guest.client().refusal(&json!({"length": (1 << 20) + 1})),
        "REQUEST_TOO_LARGE"
    );
    let of = |len: usize| format!("{{\"data\": {{}}}}{}", " ".repeat(len - 12)).into_bytes();
    assert_eq!(
        guest.push(&of(5 << 20))["sync_repo_cpe_mapping"],
        json!({"updated": true})
    );
    assert_eq!(
        guest.push(&of((5 << 20) + 1))["error"]["code"],
        "MALFORMED_REQUEST"
    );
    assert_eq!(
        guest.push(&of(6 << 20))["error"]["code"],
        "REQUEST_TOO_LARGE"
    );
}

fn deferred_sync() {
    let guest = Guest::scanned(&[]);
    let before = key(&guest.client().get(&json!({})));
    // No scan begins while rpm holds its lock.
    let lock = Held::lock(&guest.root.dbpath().join(".rpm.lock"));
    let answer = guest.push(MAPPING.as_bytes());
    assert_eq!(answer["sync_repo_cpe_mapping"], json!({"updated": true}));
    let meanwhile = guest.client().get(&json!({}));
    assert_eq!(key(&meanwhile), before);
    drop(lock);
    eventually("a report with CPEs", || {
        let answer = guest.client().get(&json!({}));
        let repositories = &answer["get_report"]["index_report"]["contents"]["repositories"];
        repositories.is_object().then_some(())
    });
    assert!(guest.launch.state_dir().exists());
}

/// An agent under KubeVirt's TLS whose authority is this one, and the service that says so.
fn under_tls(bundle: &str) -> (Guest, CaBundle, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let service = CaBundle::start(&dir.path().join("ca"), Bundle::Bundle(bundle.into()));
    let listen = format!("unix:{},tls=kubevirt", socket(dir.path()).display());
    let source = service.address();
    let guest = Guest::scanned(&[
        ("listen", &listen),
        ("tls-ca-source", &source),
        ("tls-ca-timeout", "300ms"),
    ]);
    (guest, service, dir)
}

fn socket(dir: &Path) -> std::path::PathBuf {
    dir.join("tls")
}

fn overlap_bundle() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let (_guest, _service, dir) = under_tls(&format!("{}{}", old.ca, new.ca));
    for authority in [&old, &new] {
        let identity = Identity::of(authority, &client());
        assert!(pull(&socket(dir.path()), Some(&identity)).is_ok());
    }
}

fn hard_cut_over() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let [by_old, by_new] = [&old, &new].map(|authority| Identity::of(authority, &client()));
    let (_guest, service, dir) = under_tls(&old.ca);
    assert!(pull(&socket(dir.path()), Some(&by_old)).is_ok());
    service.set(Bundle::Bundle(new.ca));
    assert!(pull(&socket(dir.path()), Some(&by_old)).is_err());
    assert!(pull(&socket(dir.path()), Some(&by_new)).is_ok());
}

fn failed_refresh_keeps_the_old_ca() {
    let [old, new] = [(); 2].map(|()| Authority::new());
    let [by_old, by_new] = [&old, &new].map(|authority| Identity::of(authority, &client()));
    let (_guest, service, dir) = under_tls(&old.ca);
    assert!(pull(&socket(dir.path()), Some(&by_old)).is_ok());
    for broken in [Bundle::Status(14), Bundle::Silent, Bundle::Garbage] {
        let calls = service.calls();
        service.set(broken);
        assert!(pull(&socket(dir.path()), Some(&by_old)).is_ok());
        assert!(service.calls() > calls, "it was asked");
        assert!(pull(&socket(dir.path()), Some(&by_new)).is_err());
    }
}

fn second_connection() {
    let guest = Guest::scanned(&[]);
    let _idle: Vec<_> = (0..5).map(|_| guest.agent.connect().unwrap()).collect();
    let mut held = guest.client();
    let (generation, epoch) = key(&held.get(&json!({})));
    held.send(&json!({"wait_report": {
        "last_known_generation": generation, "known_epoch": epoch, "timeout_ms": 60_000,
    }}));
    eventually("the wait is held", || {
        (guest.agent.connections() == 6).then_some(())
    });
    assert!(is_full(&guest.client().get(&json!({}))));
    let answer = guest.push(MAPPING.as_bytes());
    assert_eq!(answer["sync_repo_cpe_mapping"], json!({"updated": true}));
    // And what it brought is told to the one who waits.
    assert!(is_full(&held.receive()));
}

fn deadlines() {
    let guest = Guest::scanned(&[("conn-deadline", "5s")]);
    let beginnings = [&b""[..], b"\x00", b"\x00\x00\x00\x09\x12"];
    let start = Instant::now();
    let streams = beginnings.map(|beginning| {
        let mut stream = guest.agent.connect().unwrap();
        stream.write_all(beginning).unwrap();
        stream
    });
    for (mut stream, beginning) in streams.into_iter().zip(beginnings) {
        let mut answer = Vec::new();
        // An end, or a reset of what was not read.
        let _ = stream.read_to_end(&mut answer);
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(4900),
            "{beginning:?}: {took:?}"
        );
        assert!(took < Duration::from_secs(40), "{beginning:?}: {took:?}");
        assert!(answer.is_empty(), "{answer:?}");
    }
    // The second request of a connection is not read.
    let mut stream = guest.agent.connect().unwrap();
    let request = b"\x00\x00\x00\x02\x12\x00";
    stream.write_all(request).unwrap();
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let (head, rest) = answer.split_first_chunk().unwrap();
    assert_eq!(u32::from_be_bytes(*head) as usize, rest.len(), "one answer");
}
