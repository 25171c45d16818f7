//! Mutual TLS between a real agent and a real sensor.

use crate::support::agent::Launch;
use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use afferent::report::GuestId;
use afferent::transport::guest_name;
use rcgen::CertificateParams;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Loss prevented: a guest with a certificate of the fleet's authority answers in the name of another one.
#[test]
fn a_certificate_made_out_to_a_guest_is_of_no_use_to_another() {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &authority.ca).unwrap();
    let issue = |name: &str, names: &[String]| {
        let directory = dir.path().join(name);
        authority.issue(&directory, &CertificateParams::new(names).unwrap());
        directory
    };
    let root = RpmRoot::new();
    root.add(&Spec::default());
    fs::write(root.path().join("etc/machine-id"), "0".repeat(31) + "7\n").unwrap();
    let id = GuestId::of_machine(&("0".repeat(31) + "7"));
    let launch = |identity: &Path, name_from: bool| {
        let text = |path: &Path| path.display().to_string();
        let mut launch = Launch::on(root.path())
            .flag("tls-cert", &text(&identity.join("cert.pem")))
            .flag("tls-key", &text(&identity.join("key.pem")))
            .flag("tls-client-ca", &text(&ca));
        if name_from {
            launch = launch.flag("tls-name-from", "id");
        }
        launch
    };
    let sensor = issue("sensor", &["afferent".into()]);
    let pulled = |launch: &Launch| {
        let agent = launch.spawn();
        let pull = || {
            let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
                .arg("pull")
                .arg(format!("unix:{}", agent.socket().display()))
                .arg("--tls-cert")
                .arg(sensor.join("cert.pem"))
                .arg("--tls-key")
                .arg(sensor.join("key.pem"))
                .arg("--tls-ca")
                .arg(&ca)
                .args(["--tls-name-from", "id"])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            let is_early = said.contains("NOT_READY") || said.contains("No such file");
            (!is_early).then_some((out.status.success(), said))
        };
        eventually("an answer", pull)
    };

    let own = issue("own", &["afferent".into(), guest_name(id.as_str())]);
    let (is_success, said) = pulled(&launch(&own, true));
    assert!(is_success, "{said}");

    // The agent itself says so, where it is asked to.
    let other = issue("other", &[guest_name(&"e".repeat(32))]);
    let launched = launch(&other, true);
    let mut refused = launched.spawn();
    assert!(!refused.ended().success());
    let log = refused.log();
    assert!(log.contains(&guest_name(id.as_str())), "{log}");

    for (name, identity, said) in [
        ("of own", &own, ":1"),
        ("of other", &other, "with a certificate of eeee"),
    ] {
        let launch = launch(identity, false);
        let agent = launch.spawn();
        eventually("the agent listens", || agent.connect().ok());
        let vm = format!("a=unix:{}", agent.socket().display());
        let file = |name: &str| sensor.join(name).display().to_string();
        let (cert, key, ca) = (file("cert.pem"), file("key.pem"), ca.display().to_string());
        let state = dir.path().join(name);
        let flags = [
            "--vm",
            &vm,
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
            "--tls-ca",
            &ca,
            "--tls-name-from",
            "id",
        ];
        let mut sense = Program::sense(&state, "file:/dev/null", &flags);
        eventually(name, || {
            let guest = status(&state, &[]).0["guests"][0].clone();
            let shown = format!("{} {}", guest["error"], guest["known"]);
            shown.contains(said).then_some(())
        });
        assert!(sense.terminate().success());
    }

    let (is_success, said) = pulled(&launch(&other, false));
    assert!(
        !is_success && said.contains("its certificate is made out to eeee"),
        "{said}"
    );
    let shared = issue("shared", &["afferent".into()]);
    let (is_success, said) = pulled(&launch(&shared, false));
    assert!(!is_success && said.contains("names no guest"), "{said}");
}

/// Loss prevented: every local user of a host may ask its guests, or an operator looks for a guest that
/// "closed without an answer" while the certificate is the wrong one.
#[test]
fn a_sensor_without_a_certificate_of_the_authority_is_refused_and_told_why() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, &ours.ca).unwrap();
    let issued = |name: &str, authority: &Authority| {
        let leaf = CertificateParams::new(["afferent".to_owned()]).unwrap();
        let directory = dir.path().join(name);
        authority.issue(&directory, &leaf);
        let text = |path: &Path| path.display().to_string();
        let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
        [text(&cert), text(&key), text(&ca)]
    };
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let mut launch = Launch::on(root.path());
    let names = ["tls-cert", "tls-key", "tls-ca"];
    let flags_of_serve = ["tls-cert", "tls-key", "tls-client-ca"];
    for (name, file) in flags_of_serve.iter().zip(issued("agent", &ours)) {
        launch = launch.flag(name, &file);
    }
    let agent = launch.spawn();
    eventually("the agent listens", || agent.connect().ok());
    let vm = format!("a=unix:{}", agent.socket().display());
    let error = |case: &str, files: Option<[String; 3]>, said: &str| {
        let state = dir.path().join(case);
        let mut flags = vec!["--vm".to_owned(), vm.clone()];
        for (name, file) in names.iter().zip(files.into_iter().flatten()) {
            flags.extend([format!("--{name}"), file]);
        }
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let mut sense = Program::sense(&state, "file:/dev/null", &flags);
        eventually(case, || {
            let guest = status(&state, &[]).0["guests"][0].clone();
            let shown = format!("{} {}", guest["error"], guest["known"]);
            shown.contains(said).then_some(())
        });
        assert!(sense.terminate().success());
    };
    error("right", Some(issued("right", &ours)), ":1");
    error("none", None, "the guest wants TLS");
    let strangers = issued("stranger", &theirs);
    error(
        "stranger",
        Some(strangers),
        "the guest refused our certificate",
    );
}

/// Accepts every delivery over TLS with the certificate in this directory; gives its port.
fn central_with_tls(directory: &Path) -> u16 {
    let certificate = CertificateDer::from_pem_file(directory.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut reader = BufReader::new(StreamOwned::new(connection, stream));
            let mut length = 0;
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            // Otherwise the peer did not trust this.
            if length > 0 && reader.read_exact(&mut vec![0; length]).is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                reader.get_mut().write_all(answer).unwrap();
            }
        }
    });
    port
}

/// Loss prevented: reports that wait for a restart because the roots of the system were renewed.
#[test]
fn renewed_system_roots_are_used_without_a_restart() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
    ours.issue(&dir.path().join("central"), &leaf);
    let port = central_with_tls(&dir.path().join("central"));
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let (roots, state) = (dir.path().join("roots.pem"), dir.path().join("state"));
    fs::write(&roots, &theirs.ca).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_afferent"));
    command
        .args(["sense", "--deliver", &format!("https://localhost:{port}")])
        .args(["--vm", &agent.vm("a"), "--state-dir"])
        .arg(&state)
        .env("SSL_CERT_FILE", &roots)
        .env_remove("SSL_CERT_DIR")
        .env("NO_PROXY", "localhost");
    let mut sense = Program::start_logged(command, &dir.path().join("log"));
    let guest = || status(&state, &[]).0["guests"][0].clone();
    eventually("Central is not trusted", || {
        let said = guest()["pending"]["error"].to_string();
        said.to_lowercase().contains("certificate").then_some(())
    });
    assert!(guest()["accepted"].is_null());
    // As a package does it: beside, then renamed.
    let renewed = dir.path().join("renewed.pem");
    fs::write(&renewed, format!("{}{}", theirs.ca, ours.ca)).unwrap();
    fs::rename(renewed, &roots).unwrap();
    eventually("Central is trusted", || {
        guest()["accepted"]["key"].is_string().then_some(())
    });
    assert!(sense.terminate().success());
}
