//! `afferent sense` and a real NATS server that asks who it is, and shows who it is itself.

use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::nats_server::{Consumer, JETSTREAM, NatsServer};
use crate::support::program::{Program, status};
use rcgen::{CertificateParams, SanType};
use std::fs;
use std::path::PathBuf;

/// A user's key: its secret half, and the public one that a server is told.
const SEED: &str = "SUAC4QSYFQ3RBBOZYZIHCJ52AZYH7XYOZX6P7ROBEEUNFQ3S6CFXEHXBUE";
const PUBLIC: &str = "UDKROVO3O5BN65HOQDPZAH3XPEBA6GXXMVPNWGA2ZQNOY6G3QODKXFS2";

#[test]
fn each_kind_of_secret_lets_us_in_and_a_wrong_one_is_said_and_never_shown() {
    for (configuration, user, secret) in [
        ("authorization { token: s3cret }".to_owned(), "", "s3cret"),
        (
            "authorization { user: u, password: s3cret }".to_owned(),
            "u@",
            "s3cret",
        ),
        (
            format!("authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}"),
            "",
            SEED,
        ),
        (
            include_str!("../fixtures/nats/accounts.conf").to_owned(),
            "",
            include_str!("../fixtures/nats/sensor.creds"),
        ),
    ] {
        let server = NatsServer::start(&format!("{JETSTREAM}{configuration}\n"));
        let url = server.url().replace("nats://", &format!("nats://{user}"));
        let mut guest = Guest::new();
        let file = guest.file("secret", "wr0ng\n");
        let mut sense = guest.sense(&url, &["--token-file", &file]);
        guest.said(&["unauthorized", "Authorization Violation"]);
        let (answer, _) = status(&guest.state, &[]);
        assert!(!answer.to_string().contains("wr0ng"), "{answer}");
        assert!(sense.terminate().success());
        guest.file("secret", &format!("{secret}\n"));
        let mut sense = guest.sense(&url, &["--token-file", &file]);
        guest.accepted(&Consumer::new(&url, Some(file.into()), None));
        assert!(sense.terminate().success());
    }
}

/// The least that a sensor must be allowed.
#[test]
fn with_create_no_publishing_is_all_that_must_be_allowed() {
    let users = "authorization { users: [\n\
        { user: admin, password: all }\n\
        { user: sensor, password: few, permissions: \
          { publish: [\"afferent.reports.*\"], subscribe: [\"_INBOX.>\"] } }\n] }\n";
    let server = NatsServer::start(&format!("{JETSTREAM}{users}"));
    let mut guest = Guest::new();
    let (few, all) = (guest.file("few", "few"), guest.file("all", "all"));
    let url = |user: &str| server.url().replace("nats://", &format!("nats://{user}@"));
    let mut sense = guest.sense(&url("sensor"), &["--token-file", &few]);
    guest.said(&["Permissions Violation", "create=no"]);
    assert!(sense.terminate().success());
    let admin = Consumer::new(&url("admin"), Some(all.clone().into()), None);
    let mut sense = guest.sense(&url("admin"), &["--token-file", &all]);
    guest.accepted(&admin);
    assert!(sense.terminate().success());
    guest.agent.install("more");
    let restricted = format!("{}&create=no", url("sensor"));
    let mut sense = guest.sense(&restricted, &["--token-file", &few]);
    guest.accepted(&admin);
    assert!(sense.terminate().success());
}

#[test]
fn a_server_with_a_certificate_of_the_given_authority_is_trusted_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = server_of(&ours);
    let mut guest = Guest::new();
    let (right, wrong) = (
        guest.file("right", &ours.ca),
        guest.file("wrong", &theirs.ca),
    );
    let plain = server.url();
    let tls = plain.replace("nats://", "tls://");
    let mut sense = guest.sense(&tls, &["--ca-file", &wrong]);
    guest.said(&["unauthorized", "certificate"]);
    let consumer = Consumer::new(&tls, None, Some(right.clone().into()));
    // The authority is renewed: the sensor needs no restart.
    std::fs::copy(&right, &wrong).unwrap();
    guest.accepted(&consumer);
    assert!(sense.terminate().success());
    guest.agent.install("after the renewal");
    // A server that wants TLS gets it, whatever the address says.
    for url in [&tls, &plain] {
        let mut sense = guest.sense(url, &["--ca-file", &right]);
        guest.accepted(&consumer);
        assert!(sense.terminate().success());
        guest.agent.install("more");
    }
    // Nothing is said to one that does not do TLS, where we want it.
    let open = NatsServer::start(JETSTREAM);
    for (url, args) in [
        (open.url().replace("nats://", "tls://"), &[][..]),
        (open.url(), &["--ca-file", &right]),
    ] {
        let mut sense = guest.sense(&url, args);
        guest.said(&["does not do TLS"]);
        assert!(sense.terminate().success());
    }
}

/// A reader of the stream asks and is asked in the same way.
#[test]
fn a_reader_trusts_a_server_of_the_given_authority_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let server = server_of(&ours);
    let mut guest = Guest::new();
    let (right, trusted) = (
        guest.file("right", &ours.ca),
        guest.file("trusted", &theirs.ca),
    );
    let tls = server.url().replace("nats://", "tls://");
    let mut sense = guest.sense(&tls, &["--ca-file", &right]);
    guest.accepted(&Consumer::new(&tls, None, Some(right.clone().into())));
    assert!(sense.terminate().success());
    let state = guest.dir.path().join("reader");
    let shown = state.display().to_string();
    let args = ["sense", "--state-dir", &shown, "--reports-from", &tls];
    let mut reader = Program::start(&[&args[..], &["--ca-file", &trusted]].concat());
    eventually("the certificate is refused", || {
        let (answer, _) = status(&state, &[]);
        let reasons = answer["reasons"].to_string();
        reasons.contains("certificate").then_some(())
    });
    // The authority is renewed: the reader needs no restart.
    fs::copy(&right, &trusted).unwrap();
    eventually("the guest is read", || {
        let (answer, code) = status(&state, &[]);
        (answer["fleet"]["guests"] == 1 && code == 0).then_some(())
    });
    assert!(reader.terminate().success());
}

/// A guest with something to say, and the state of its sensor.
struct Guest {
    dir: tempfile::TempDir,
    state: PathBuf,
    agent: FakeAgent,
}

impl Guest {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            state: dir.path().join("state"),
            agent: FakeAgent::start(&dir.path().join("a.sock"), Script::new()),
            dir,
        }
    }

    fn file(&mut self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn sense(&self, url: &str, more: &[&str]) -> Program {
        let vm = self.agent.vm("a");
        Program::sense(&self.state, url, &[&["--vm", &vm], more].concat())
    }

    fn said(&self, words: &[&str]) {
        eventually(&format!("{words:?} is said"), || {
            let (answer, _) = status(&self.state, &[]);
            let reasons = answer["reasons"].to_string();
            words
                .iter()
                .all(|word| reasons.contains(word))
                .then_some(())
        });
    }

    fn accepted(&self, consumer: &Consumer) {
        eventually("the newest is stored", || {
            (consumer.newest("a")?.now() == self.agent.now()).then_some(())
        });
        eventually("nothing is pending", || {
            let pending = status(&self.state, &[]).0["pending"].clone();
            (pending["routine"] == 0 && pending["reactive"] == 0).then_some(())
        });
    }
}

/// A server with a certificate for the address that it listens on.
fn server_of(authority: &Authority) -> NatsServer {
    let ip = "127.0.0.1";
    let dir = tempfile::tempdir().unwrap();
    let mut leaf = CertificateParams::new([]).unwrap();
    leaf.subject_alt_names = vec![SanType::IpAddress(ip.parse().unwrap())];
    authority.issue(dir.path(), &leaf);
    let tls = "tls { cert_file: \"cert.pem\", key_file: \"key.pem\" }\n";
    NatsServer::start_at(ip, dir, &format!("{JETSTREAM}{tls}"))
}
