//! Where a real sensor answers for its fleet: a unix socket, TLS, and addresses that cannot be used.

use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::fleet_rig::FleetRig;
use crate::support::https::Https;
use crate::support::program::{Program, free_port};
use crate::support::web::{TOKEN, Web, bearer, login_address, session};
use rcgen::CertificateParams;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

#[test]
fn a_unix_socket_is_for_its_owner_and_needs_a_login_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fleet.sock");
    let listen = format!("unix:{}", path.display());
    let mut rig = FleetRig::start(1, Web::Unix(path.clone()), &listen, &[]);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(rig.web.get("/v1/guests", "").code, 401);
    assert_eq!(rig.data("/v1/guests")["guests"][0]["vm"], "g0");
    assert_eq!(
        rig.web
            .get(
                "/v1/guests",
                &format!("Host: 10.0.0.1\r\n{}", bearer(TOKEN))
            )
            .code,
        421
    );
    let browser = session(&rig.web, &rig.state());
    assert_eq!(rig.web.get("/v1/guests", &browser).code, 200);
    assert!(rig.sensor.terminate().success());
    assert!(!path.exists());
}

#[test]
fn over_tls_a_renewed_certificate_is_shown_and_cookies_are_secure() {
    let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
    let issue = || {
        let leaf =
            CertificateParams::new(["fleet.example.org".into(), "127.0.0.1".into()]).unwrap();
        authority.issue(files.path(), &leaf);
    };
    issue();
    let path = |name: &str| files.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    fs::write(path("ca.pem"), &authority.ca).unwrap();
    let port = free_port();
    let tls = [
        "--fleet-tls-cert",
        &cert,
        "--fleet-tls-key",
        &key,
        "--fleet-host",
        "fleet.example.org",
    ];
    let rig = FleetRig::start(1, Web::Tcp(port), &format!("0.0.0.0:{port}"), &tls);
    let https = Https::new(
        &format!("https://127.0.0.1:{port}"),
        &files.path().join("ca.pem"),
    );
    let get = |path: &str, token| https.ask("GET", path, token, "");
    assert_eq!(get("/v1/guests", None).code, 401);
    let answer = get("/v1/guests", Some(TOKEN));
    assert_eq!(
        (answer.code, &answer.json()["guests"][0]["vm"]),
        (200, &json!("g0"))
    );
    assert!(answer.head.contains("strict-transport-security"));
    let (server, target) = login_address(&rig.state());
    assert_eq!(server, format!("https://fleet.example.org:{port}"));
    let opened = get(&target, None);
    assert!(
        opened.code == 303 && opened.head.contains("; secure"),
        "{opened:?}"
    );
    issue();
    assert_eq!(
        get("/v1/guests", Some(TOKEN)).code,
        200,
        "the new certificate"
    );
    // Who speaks no TLS gets no answer, and keeps nobody from one.
    let plain = rig.web.raw("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(plain.is_err() || plain.unwrap().code == 0);
    assert_eq!(get("/", None).code, 200);
}

#[test]
fn what_cannot_be_listened_on_is_an_error_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    fs::write(dir.path().join("open"), TOKEN).unwrap();
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o644)).unwrap();
    let open = dir.path().join("open").display().to_string();
    for (args, code, said) in [
        (
            &["--fleet-listen", &taken][..],
            1,
            "--fleet-listen 127.0.0.1:",
        ),
        (
            &["--fleet-listen", "unix:/nowhere/at/all"],
            1,
            "--fleet-listen unix:/nowhere",
        ),
        (&["--fleet-listen", "0.0.0.0:0"], 2, "fleet-tls-cert"),
        (
            &[
                "--fleet-listen",
                "127.0.0.1:0",
                "--fleet-token-file",
                "/nowhere",
            ],
            1,
            "--fleet-token-file: /nowhere",
        ),
        (
            &["--fleet-listen", "127.0.0.1:0", "--fleet-token-file", &open],
            1,
            "everybody may read",
        ),
        (
            &[
                "--fleet-listen",
                "[::]:0",
                "--fleet-tls-cert",
                "/c",
                "--fleet-tls-key",
                "/k",
            ],
            1,
            "--fleet-tls-cert: /c",
        ),
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args([
                "sense",
                "--vm",
                "a=unix:/nowhere",
                "--deliver",
                "file:/dev/null",
                "--state-dir",
            ])
            .arg(dir.path().join("state"))
            .args(args)
            .output()
            .unwrap();
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(
            out.status.code() == Some(code) && text.contains(said),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn without_a_listener_there_is_no_login_and_the_answer_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let agent = FakeAgent::start(&dir.path().join("a.sock"), Script::new());
    let login = || {
        let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["fleet", "login", "--state-dir"])
            .arg(&state)
            .output()
            .unwrap();
        (
            String::from_utf8(out.stderr).unwrap(),
            out.status.code().unwrap(),
        )
    };
    let (text, code) = login();
    assert!(code == 1 && text.contains("no sensor runs here"), "{text}");
    let _sensor = Program::sense(&state, "file:/dev/null", &["--vm", &agent.vm("a")]);
    eventually("the answer of the sensor", || {
        login().0.contains("fleet_listen").then_some(())
    });
    assert_eq!(login().1, 1);
}
