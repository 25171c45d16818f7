//! Guests of a KubeVirt cluster: found by its API and asked through it, by the real program.
//!
//! The first test runs against a real kube-apiserver, too, where there is one (`make check-kube`).

use crate::kube_contract::{Peer, vmi};
use crate::support::documents::lines;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Manner, Script};
use crate::support::kube_api::{FakeApi, Fault};
use crate::support::program::{Program, free_port, http_get, status};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

const VMIS: &str = "virtualmachineinstances";
const VMS: &str = "virtualmachines";

/// A directory for a sensor and what it delivers.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sense(&self, kubeconfig: &Path, more: &[&str]) -> Program {
        let kubeconfig = kubeconfig.display().to_string();
        let deliver = format!("file:{}", self.path("out").display());
        let args = [
            &[
                "--discover",
                "kubevirt",
                "--kube-cluster",
                "prod",
                "--kubeconfig",
                &kubeconfig,
            ],
            &["--poll-interval", "1s"][..],
            more,
        ];
        Program::sense(&self.path("state"), &deliver, &args.concat())
    }

    fn status(&self) -> Value {
        status(&self.path("state"), &[]).0
    }

    /// The guest of this id in `afferent status`, once it looks like this.
    fn guest(&self, id: &str, looks: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("{id} is shown so"), || {
            let answer = self.status();
            let guest = answer["guests"]
                .as_array()?
                .iter()
                .find(|guest| guest["vm"] == id)?;
            looks(guest).then(|| guest.clone())
        })
    }

    /// The error of the cluster in `afferent status`, once it has this in it.
    fn source_error(&self, part: &str) -> String {
        eventually(&format!("an error says {part}"), || {
            let status = self.status();
            let error = status["sources"]
                .as_array()?
                .iter()
                .find_map(|source| source["error"].as_str())?;
            error.contains(part).then(|| error.to_owned())
        })
    }

    /// Documents of this guest that were delivered.
    fn delivered(&self, id: &str) -> Vec<Value> {
        lines(&self.path("out"))
            .into_iter()
            .filter(|line| line["vm"]["id"] == id)
            .collect()
    }
}

fn peer(fake: &FakeApi) -> Peer {
    Peer::new(&fake.server, fake.dir.path())
}

/// A machine and its run.
fn create(peer: &Peer, namespace: &str, name: &str) -> Value {
    let template = json!({"spec": {"domain": {"devices": {"autoattachVSOCK": true}}}});
    let machine = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": name},
        "spec": {"runStrategy": "Always", "template": template},
    });
    let machine = peer.create(namespace, VMS, &machine);
    let run = run_of(&machine, name, 7);
    peer.create(namespace, VMIS, &run);
    machine
}

fn run_of(machine: &Value, name: &str, cid: u32) -> Value {
    let mut run = vmi(name, cid);
    run["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name,
        "uid": machine["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
    }]);
    run
}

fn is_running(guest: &Value) -> bool {
    guest["idle"].is_null()
}

/// Loss prevented: a virtual machine of a cluster that nobody asks, or that passes for another of its name.
fn found_asked_stopped_and_recreated(peer: &Peer) {
    let host = Host::new();
    let namespace = peer.namespace();
    let id = format!("prod:{namespace}:web");
    let machine = create(peer, &namespace, "web");
    // An agent without TLS: what works is found out.
    let agent = FakeAgent::start(&peer.agent(&namespace, "web"), Script::new());
    let kubeconfig = peer.kubeconfig(host.dir.path(), "sense-token");
    let only = ["--kube-namespace", &namespace];
    let mut sense = host.sense(&kubeconfig, &only);

    let first = eventually("a report is delivered", || host.delivered(&id).pop());
    assert_eq!(first["vm"]["address"], format!("kubevirt:{namespace}/web"));
    assert_eq!(first["meta"]["facts"]["kubevirt.node"], "n1");
    assert_eq!(first["meta"]["facts"]["kubevirt.cid"], "7");
    let guest = host.guest(&id, |guest| guest["accepted"]["key"].is_string());
    assert_eq!(guest["domain"], machine["metadata"]["uid"]);
    assert_eq!(
        guest["state"], "polled",
        "no wait is held through the API: {guest}"
    );

    agent.change(|script| {
        script.generation = 2;
        script.packages.push("zsh-5.9-1".into());
    });
    eventually("the change is delivered", || {
        let text = host.delivered(&id).pop()?.to_string();
        text.contains("zsh").then_some(())
    });

    // Stopped: it stays, and is not asked. Started: it is the same, whatever its CID.
    peer.delete(&namespace, VMIS, "web");
    let stopped = host.guest(&id, |guest| guest["state"] == "idle");
    assert_eq!(stopped["idle"], "it does not run");
    peer.create(&namespace, VMIS, &run_of(&machine, "web", 9));
    let again = host.guest(&id, |guest| is_running(guest) && guest["state"] == "polled");
    assert_eq!(again["machine_before"], Value::Null);
    assert_eq!(again["known"], host.guest(&id, is_running)["known"]);

    // Recreated: the same name, another machine.
    peer.delete(&namespace, VMIS, "web");
    peer.delete(&namespace, VMS, "web");
    let other = create(peer, &namespace, "web");
    assert_ne!(other["metadata"]["uid"], machine["metadata"]["uid"]);
    let new = host.guest(&id, |guest| guest["domain"] == other["metadata"]["uid"]);
    assert_eq!(new["machine_before"]["domain"], machine["metadata"]["uid"]);
    assert!(
        agent.seen().iter().all(|request| !request.wait),
        "a wait occupies a seat"
    );
    assert!(sense.terminate().success());
}

#[test]
fn a_machine_of_a_cluster_is_found_asked_stopped_and_recreated() {
    let fake = FakeApi::start();
    found_asked_stopped_and_recreated(&peer(&fake));
    let seen = fake.seen();
    assert!(
        seen.most_open <= 1,
        "one exchange at a time with one guest: {seen:?}"
    );
}

#[test]
fn a_machine_is_found_asked_stopped_and_recreated_through_a_real_kube_apiserver() {
    match Peer::real() {
        Some(peer) => found_asked_stopped_and_recreated(&peer),
        None => println!("skipped: no real kube-apiserver; make check-kube builds and starts one"),
    }
}

/// Whoever may not do one thing is told which: the API's own message.
fn a_right_is_missing(peer: &Peer) {
    let host = Host::new();
    let kubeconfig = peer.kubeconfig(host.dir.path(), "nobody-token");
    let port = free_port();
    let mut sense = host.sense(&kubeconfig, &["--metrics", &port.to_string()]);
    let error = host.source_error("cannot list");
    assert!(error.contains("\"nobody\""), "{error}");
    let (line, body) = eventually("health is served", || http_get(port, "/readyz"));
    assert!(
        line.contains("503") && body.contains("cannot list"),
        "{line} {body}"
    );
    assert!(sense.runs());
}

#[test]
fn a_missing_right_is_said_in_the_words_of_the_api() {
    a_right_is_missing(&peer(&FakeApi::start()));
    match Peer::real() {
        Some(peer) => a_right_is_missing(&peer),
        None => println!("skipped: no real kube-apiserver; make check-kube builds and starts one"),
    }
}

#[test]
fn a_missing_right_is_logged_once_however_often_it_is_met() {
    let fake = FakeApi::start();
    let host = Host::new();
    let file = peer(&fake).kubeconfig(host.dir.path(), "nobody-token");
    let mut sense = std::process::Command::new(env!("CARGO_BIN_EXE_afferent"));
    sense
        .args(["sense", "--discover", "kubevirt", "--kube-cluster", "prod"])
        .args(["--deliver", &format!("file:{}", host.path("out").display())])
        .args(["--state-dir", &host.path("state").display().to_string()])
        .args(["--kubeconfig", &file.display().to_string()]);
    let log = host.path("log");
    let _sense = Program::start_logged(sense, &log);
    eventually("each kind was asked for five times", || {
        (fake.seen().targets.len() >= 10).then_some(())
    });
    let log = std::fs::read_to_string(log).unwrap();
    for kind in [VMIS, VMS] {
        let error = format!("{kind}: the API server forbids it (403)");
        assert!(log.matches(&error).count() <= 1, "{log}");
    }
    assert!(log.contains("cannot list"), "{log}");
}

/// Loss prevented: a DaemonSet each pod of which lists the whole cluster.
#[test]
fn a_node_asks_for_its_own_machines_alone_and_a_cluster_for_all() {
    let on_node = ["--dial", "node", "--kube-node", "n1"];
    let label = "labelSelector=kubevirt.io%2FnodeName%3Dn1";
    for (flags, selector, kinds) in [(&[][..], None, 2), (&on_node, Some(label), 1)] {
        let fake = FakeApi::start();
        let host = Host::new();
        let kubeconfig = peer(&fake).kubeconfig(host.dir.path(), "sense-token");
        let _sense = host.sense(&kubeconfig, flags);
        let targets = eventually("everything is listed and watched", || {
            let targets = fake.seen().targets;
            let watches = targets.iter().filter(|it| it.contains("watch=true"));
            (watches.count() == kinds).then_some(targets)
        });
        assert_eq!(targets.len(), 2 * kinds, "{targets:?}");
        for target in targets {
            let mut pairs = target.split('&').flat_map(|part| part.split('?'));
            let sent = pairs.find(|pair| pair.contains("Selector="));
            assert_eq!(sent, selector, "{target}");
        }
    }
}

/// Loss prevented: connections through the API that are open and ask nothing, until the agent ends them.
#[test]
fn each_dial_through_the_api_asks_one_question() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    create(&peer, &namespace, "web");
    let agent = FakeAgent::start(&peer.agent(&namespace, "web"), Script::new());
    let _sense = host.sense(
        &peer.kubeconfig(host.dir.path(), "sense-token"),
        &["--kube-tls", "false"],
    );
    eventually("four questions, and nothing is open", || {
        let seen = fake.seen();
        let asked = agent.seen().len();
        assert!(
            seen.dialed.len() <= asked + 1,
            "{asked} questions: {seen:?}"
        );
        (asked >= 4 && seen.open == 0).then_some(())
    });
}

#[test]
fn a_machine_without_vsock_is_shown_with_what_to_set() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    let mut detached = vmi("web", 3);
    detached["spec"] = json!({"domain": {"devices": {}}});
    peer.create(&namespace, VMIS, &detached);
    let _sense = host.sense(&peer.kubeconfig(host.dir.path(), "sense-token"), &[]);
    let guest = host.guest(&format!("prod:{namespace}:web"), |guest| {
        guest["state"] == "idle"
    });
    let idle = guest["idle"].as_str().unwrap();
    assert!(idle.contains("autoattachVSOCK: true"), "{idle}");
}

/// Whatever the API server does, guests stay, and the next one is found.
#[test]
fn faults_of_the_api_cost_no_guest() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    let put = |name: &str| {
        let mut object = vmi(name, 3);
        object["metadata"]["namespace"] = namespace.clone().into();
        object["status"]["phase"] = "Scheduling".into();
        fake.put(VMIS, object);
    };
    // Two pages, the second of which has expired.
    (0..600).for_each(|n| put(&format!("vm-{n}")));
    fake.fail(Fault::ExpiredPage);
    let mut sense = host.sense(&peer.kubeconfig(host.dir.path(), "sense-token"), &[]);
    let guests = |count: usize| {
        eventually(&format!("{count} guests are known"), || {
            let status = host.status();
            (status["guests"].as_array()?.len() == count).then_some(())
        });
    };
    guests(600);
    assert!(
        fake.seen()
            .targets
            .iter()
            .all(|target| !target.contains("inconsistent")),
        "the token for another version was used"
    );
    let json = "Content-Type: application/json\r\n";
    let busy = Fault::Answer(
        "watch=true",
        429,
        "Retry-After: 1\r\n",
        "Too many requests, please try again later.\n".into(),
    );
    let away = Fault::Answer("watch=true", 503, "", "service unavailable\n".into());
    let expired = Fault::Answer(
        "watch=true",
        410,
        json,
        json!({"reason": "Expired", "message": "too old", "code": 410}).to_string(),
    );
    let broken = Fault::Answer(
        "watch=true",
        200,
        json,
        "{\"type\":\"ADDED\",\"object\":{\"metadata\":{}}}\n{\"ty".into(),
    );
    let faults = [
        Fault::CutWatch,
        Fault::ExpiredWatch,
        busy,
        away,
        expired,
        broken,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        println!("fault: {fault:?}");
        // The watches that are open end with the next event; the fault meets the ones after.
        fake.fail(fault);
        fake.fail(Fault::CutWatch);
        put(&format!("more-{n}"));
        fake.end_watches();
        guests(601 + n);
        eventually("the faults have happened", || {
            put(&format!("more-{n}"));
            (fake.faults_left() == 0).then_some(())
        });
        guests(601 + n);
    }
    // The definition is removed, for an upgrade perhaps: everything is DELETED, and nobody leaves.
    fake.remove_kind(VMIS);
    let error = host.source_error("KubeVirt is not installed");
    assert!(error.starts_with("virtualmachineinstances: "), "{error}");
    guests(606);
    fake.restore_kind(VMIS);
    (0..600).for_each(|n| put(&format!("vm-{n}")));
    eventually("the cluster is well again", || {
        host.status()["sources"][1]["error"].is_null().then_some(())
    });
    assert!(sense.runs());
}

/// Loss prevented: a token that is renewed every hour, and a sensor that is blind from then on.
#[test]
fn a_token_that_is_renewed_is_read_again() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    fake.allow("first", &[VMIS, VMS, "vsock"]);
    let token = host.path("token");
    std::fs::write(&token, "first").unwrap();
    let kubeconfig = peer.kubeconfig(host.dir.path(), "sense-token");
    let text = std::fs::read_to_string(&kubeconfig).unwrap();
    let text = text.replace(
        "token: sense-token",
        &format!("tokenFile: {}", token.display()),
    );
    std::fs::write(&kubeconfig, text).unwrap();
    create(&peer, &namespace, "web");
    let agent = FakeAgent::start(&peer.agent(&namespace, "web"), Script::new());
    let _sense = host.sense(&kubeconfig, &[]);
    let id = format!("prod:{namespace}:web");
    eventually("a report is delivered", || host.delivered(&id).pop());
    fake.revoke("first");
    fake.end_watches();
    host.source_error("does not accept the token");
    fake.allow("second", &[VMIS, VMS, "vsock"]);
    std::fs::write(&token, "second").unwrap();
    agent.change(|script| script.generation = 2);
    eventually("the next report is delivered", || {
        (host.delivered(&id).len() > 1).then_some(())
    });
    eventually("the cluster is well again", || {
        host.status()["sources"][1]["error"].is_null().then_some(())
    });
}

#[test]
fn every_end_of_a_dial_is_said_with_what_it_may_be() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    create(&peer, &namespace, "none");
    let _sense = host.sense(
        &peer.kubeconfig(host.dir.path(), "sense-token"),
        &["--kube-tls", "false"],
    );
    let id = format!("prod:{namespace}:none");
    let said = |part: &str| {
        host.guest(&id, |guest| {
            guest["error"]
                .as_str()
                .is_some_and(|error| error.contains(part))
        })
    };
    let ended = said("without a byte")["error"].as_str().unwrap().to_owned();
    assert!(
        ended.contains("no agent on the port") && ended.contains("--kube-tls"),
        "{ended}"
    );
    // A TLS alert, where plaintext was expected.
    (0..20).for_each(|_| fake.fail(Fault::Bytes(vec![0x15, 3, 3, 0, 2, 2, 40])));
    said("the agent wants TLS");
}

/// Loss prevented: a connection in virt-handler for each try at a guest that hangs.
#[test]
fn a_guest_that_hangs_is_left_alone_for_minutes() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    create(&peer, &namespace, "web");
    let script = Script {
        manner: Manner::Hangs,
        ..Script::new()
    };
    let _agent = FakeAgent::start(&peer.agent(&namespace, "web"), script);
    let port = free_port();
    let _sense = host.sense(
        &peer.kubeconfig(host.dir.path(), "sense-token"),
        &["--kube-tls", "false", "--metrics", &port.to_string()],
    );
    let id = format!("prod:{namespace}:web");
    host.guest(&id, |guest| guest["error"] == "no answer in time");
    let page = http_get(port, "/metrics").unwrap().1;
    assert!(
        page.contains("afferent_pulls_total{outcome=\"no_answer\"} 1"),
        "{page}"
    );
    let dialed = fake.seen().dialed.len();
    // A second sensor would have asked ten times by now, at the interval of polls.
    std::thread::sleep(Duration::from_secs(10));
    assert_eq!(fake.seen().dialed.len(), dialed);
}

/// A sensor never occupies more than 20 seats of the API server, nor dials more than 50 times a second.
#[test]
fn many_guests_share_twenty_seats() {
    let fake = FakeApi::start();
    let (peer, host) = (peer(&fake), Host::new());
    let namespace = peer.namespace();
    let guests = 120;
    let _agents: Vec<FakeAgent> = (0..guests)
        .map(|n| {
            let name = format!("vm-{n}");
            create(&peer, &namespace, &name);
            FakeAgent::start(&peer.agent(&namespace, &name), Script::new())
        })
        .collect();
    let _sense = host.sense(
        &peer.kubeconfig(host.dir.path(), "sense-token"),
        &["--kube-tls", "false"],
    );
    eventually("every guest was asked twice", || {
        (fake.seen().dialed.len() > 2 * guests).then_some(())
    });
    let seen = fake.seen();
    assert!(seen.most_open <= 20, "{} seats at once", seen.most_open);
    for (n, first) in seen.dialed.iter().enumerate() {
        let within = seen.dialed[n..]
            .iter()
            .take_while(|at| **at - *first < Duration::from_secs(1));
        // A burst of ten and fifty a second; the clock is that of the server.
        assert!(within.count() <= 65);
    }
}
