//! An agent under KubeVirt's TLS: a real agent, a CABundle service that rotates its authority, and clients with
//! every certificate that virt-handler and others may show.

use crate::support::agent::{Agent, Launch};
use crate::support::authority::Authority;
use crate::support::ca_bundle::{Behaviour, CaBundle};
use crate::support::eventually;
use crate::support::program::status;
use crate::support::rpm_root::{RpmRoot, Spec};
use crate::support::virt_handler::{Identity, client, client_named, pull, pull_with};
use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tempfile::TempDir;

/// An agent with a plaintext address and one under KubeVirt's TLS, and the service that it asks.
struct Guest {
    // Ends first, while its log is still there.
    agent: Agent,
    dir: TempDir,
    _root: RpmRoot,
    launch: Launch,
    service: CaBundle,
}

impl Guest {
    fn start(bundle: &str, flags: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let service = CaBundle::start(&dir.path().join("ca"), Behaviour::Bundle(bundle.into()));
        let root = RpmRoot::new();
        root.add(&Spec::default());
        let address = format!("unix:{},tls=kubevirt", dir.path().join("tls").display());
        let mut launch = Launch::on(root.path())
            .flag("listen", &address)
            .flag("tls-ca-source", &service.address());
        for (name, value) in flags {
            launch = launch.flag(name, value);
        }
        let agent = launch.start();
        eventually("the first report", || {
            (!agent.get().list().is_empty()).then_some(())
        });
        Self {
            dir,
            _root: root,
            launch,
            service,
            agent,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("tls")
    }

    #[track_caller]
    fn answers(&self, identity: &Identity) {
        match pull(&self.socket(), Some(identity)) {
            Ok(answer) => assert!(!answer.list().is_empty()),
            Err(error) => panic!("no answer: {error}\n{}", self.agent.log()),
        }
    }

    /// Refuses this client for this reason, once.
    #[track_caller]
    fn refuses(&self, identity: Option<&Identity>, reason: &str) {
        let before = self.count(reason);
        assert!(pull(&self.socket(), identity).is_err(), "{reason}");
        eventually(reason, || (self.count(reason) == before + 1).then_some(()));
    }

    fn count(&self, reason: &str) -> u64 {
        let status = status(self.launch.state_dir(), &[]).0;
        status["refused_handshakes"][reason].as_u64().unwrap_or(0)
    }

    fn reasons(&self) -> String {
        status(self.launch.state_dir(), &[]).0["reasons"].to_string()
    }
}

/// Loss prevented: a guest that Central never hears of again because KubeVirt replaced its authority, or one that
/// goes on to trust an authority that was withdrawn.
#[test]
fn the_bundle_of_the_moment_decides_and_a_failed_refresh_keeps_the_one_before() {
    let [old, new, newest] = [(); 3].map(|()| Authority::new());
    let [by_old, by_new, by_newest] =
        [&old, &new, &newest].map(|authority| Identity::of(authority, &client()));
    let guest = Guest::start(&old.ca, &[("tls-ca-timeout", "300ms")]);
    guest.answers(&by_old);
    guest.refuses(Some(&by_new), "unknown_issuer");

    let overlap = format!("{}{}", old.ca, new.ca);
    guest.service.set(Behaviour::Bundle(overlap));
    guest.answers(&by_new);
    guest.answers(&by_old);

    guest.service.set(Behaviour::Bundle(newest.ca));
    guest.refuses(Some(&by_old), "unknown_issuer");
    guest.refuses(Some(&by_new), "unknown_issuer");
    guest.answers(&by_newest);

    for (behaviour, said) in [
        (Behaviour::Status(14), "grpc-status 14"),
        (Behaviour::Silent, "no answer within 300 ms"),
        (Behaviour::Garbage, "not a message"),
        (Behaviour::Http(503), "HTTP status 503"),
        (Behaviour::LateError(old.ca.clone()), "grpc-status 13"),
        (Behaviour::Bundle(String::new()), "no certificate"),
    ] {
        let calls = guest.service.calls();
        guest.service.set(behaviour);
        guest.answers(&by_newest);
        assert_eq!(guest.service.calls(), calls + 1, "asked at every handshake");
        assert!(
            guest.reasons().contains(said),
            "{said}: {}",
            guest.reasons()
        );
        guest.refuses(Some(&by_old), "unknown_issuer");
    }
    guest.agent.wait_until_said("the one before stays in use");

    guest.service.set(Behaviour::Bundle(old.ca));
    guest.answers(&by_old);
    assert!(
        !guest.reasons().contains("client CA"),
        "{}",
        guest.reasons()
    );
    guest.agent.wait_until_said("can be fetched again");
}

/// Loss prevented: whoever has some certificate of KubeVirt's authority reads what is installed, or an operator
/// looks for days for a peer that "closed without a word".
#[test]
fn each_refused_client_is_counted_under_its_reason_and_told_of() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let guest = Guest::start(&authority.ca, &[]);
    let good = Identity::of(&authority, &client());
    guest.answers(&good);

    let refused = |authority: &Authority, params: &rcgen::CertificateParams, reason: &str| {
        guest.refuses(Some(&Identity::of(authority, params)), reason);
        guest.answers(&good);
    };
    refused(&stranger, &client(), "unknown_issuer");
    for name in ["kubevirt.io:system:client:migration", "", "x"] {
        refused(&authority, &client_named(name), "wrong_name");
    }
    let mut params = client();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(&authority, &params, "wrong_usage");
    params.extended_key_usages = Vec::new();
    refused(&authority, &params, "wrong_usage");
    let mut params = client();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 2, 2);
    refused(&authority, &params, "expired");
    let mut params = client();
    params.not_before = date_time_ymd(2201, 1, 1);
    params.not_after = date_time_ymd(2202, 1, 1);
    refused(&authority, &params, "not_valid_yet");
    guest.refuses(None, "no_certificate");
    // Under TLS 1.2 a session may be taken up again without a certificate.
    assert!(pull_with(&guest.socket(), Some(&good), &rustls::version::TLS12).is_err());
    eventually("TLS 1.2", || (guest.count("protocol") == 1).then_some(()));

    let log = guest.agent.wait_until_said("no_certificate");
    for (reason, said) in [
        ("wrong_name", "kubevirt.io:system:client:migration"),
        ("wrong_usage", "is not for clients"),
        ("expired", "was valid until 2002-02-02"),
        ("not_valid_yet", "is valid from 2201-01-01"),
        ("not_valid_yet", "the clock of this machine says 20"),
        ("unknown_issuer", "not signed by the trusted authority"),
    ] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(reason)).collect();
        assert_eq!(lines.len(), 1, "one line a minute: {lines:#?}");
        assert!(lines[0].contains(said), "{said}: {}", lines[0]);
    }
}

/// Loss prevented: a client of another part of KubeVirt is wanted, and cannot be let in.
#[test]
fn another_common_name_can_be_demanded() {
    let authority = Authority::new();
    let guest = Guest::start(&authority.ca, &[("tls-client-cn", "a:b:*")]);
    guest.answers(&Identity::of(&authority, &client_named("a:b:c")));
    guest.refuses(Some(&Identity::of(&authority, &client())), "wrong_name");
}

/// Loss prevented: one agent serves either a StackRox Sensor or the sensor of its node, or a wrong port is told as
/// "frame of 352518912 bytes".
#[test]
fn each_address_has_its_mode_and_a_peer_of_the_other_is_told_of() {
    let authority = Authority::new();
    let guest = Guest::start(&authority.ca, &[]);
    let good = Identity::of(&authority, &client());
    guest.answers(&good);
    assert!(!guest.agent.get().list().is_empty(), "plaintext");

    assert!(pull(guest.agent.socket(), Some(&good)).is_err());
    let log = guest.agent.wait_until_said("tls_on_plaintext");
    assert!(log.contains("the peer speaks TLS, and this address is plaintext"));
    assert_eq!(guest.count("tls_on_plaintext"), 1);

    let mut plain = UnixStream::connect(guest.socket()).unwrap();
    plain.write_all(b"\x00\x00\x00\x02\x12\x00").unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.first_chunk(), Some(&[0x15, 0x03]), "an alert of TLS");
    let log = guest.agent.wait_until_said("reason=\"plaintext\"");
    assert!(log.contains("the peer does not speak TLS"), "{log}");
    guest.answers(&good);
    assert!(!guest.agent.get().list().is_empty(), "plaintext");
}

/// Loss prevented: peers that say nothing, or a host whose service hangs, keep the guest from answering.
#[test]
fn silent_peers_and_a_silent_service_hold_up_nobody() {
    let authority = Authority::new();
    let flags = [("tls-ca-timeout", "2s"), ("conn-deadline", "5s")];
    let guest = Guest::start(&authority.ca, &flags);
    let good = Identity::of(&authority, &client());
    guest.answers(&good);
    let calls = guest.service.calls();
    let silent: Vec<UnixStream> = (0..100)
        .map(|n| {
            let mut stream = UnixStream::connect(guest.socket()).unwrap();
            // The head of a ClientHello, for every second one.
            if n % 2 == 0 {
                stream.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
            }
            stream
        })
        .collect();
    guest.answers(&good);
    assert_eq!(guest.service.calls(), calls + 1, "nobody else shook hands");
    guest.service.set(Behaviour::Silent);
    // They come together and wait for one fetch, or two, not for one each.
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| guest.answers(&good));
        }
        assert!(!guest.agent.get().list().is_empty(), "plaintext meanwhile");
    });
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
    assert!(
        guest.service.calls() <= calls + 4,
        "{}",
        guest.service.calls()
    );
    eventually("the silent are timed out", || {
        (guest.count("timed_out") == 100).then_some(())
    });
    drop(silent);
}

/// Loss prevented: a guest that was started before its host's service lets anybody in, or never anybody.
#[test]
fn without_any_bundle_nobody_is_let_in_until_there_is_one() {
    let authority = Authority::new();
    let guest = Guest::start("", &[]);
    let good = Identity::of(&authority, &client());
    guest.refuses(Some(&good), "no_client_ca");
    assert!(guest.reasons().contains("cannot be fetched"));
    guest.service.set(Behaviour::Bundle(authority.ca));
    guest.answers(&good);
}
