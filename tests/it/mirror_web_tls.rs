//! The mirror's page over TLS, of a real service.

use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::https::Https;
use crate::support::mirror::Mirror;
use crate::support::program::{Program, free_port, status};
use crate::support::web::{TOKEN, write_token};
use crate::support::web::{Web, login_address_of};
use rcgen::CertificateParams;
use serde_json::json;
use std::fs;

/// The loss: the inventory of a site, read by whoever is on the way.
#[test]
fn the_inventory_is_answered_over_tls_to_its_token_and_in_no_other_way() {
    let (mirror, authority) = (Mirror::new(), Authority::new());
    let files = tempfile::tempdir().unwrap();
    let leaf = CertificateParams::new(["mirror.example.org".into(), "127.0.0.1".into()]).unwrap();
    authority.issue(files.path(), &leaf);
    let path = |name: &str| files.path().join(name).display().to_string();
    fs::write(path("ca.pem"), &authority.ca).unwrap();
    write_token(&mirror.path("token"), TOKEN);
    let racks = json!({"expected_racks": [{"rack_id": "r1", "metadata": {"name": "one", "labels": [
        {"key": "chassis.manufacturer", "value": "Q"}, {"key": "chassis.serial-number", "value": "1"}]}}]});
    let core = format!("file:{}", mirror.file("core.json", &racks).display());
    let (state, token) = (mirror.state().display().to_string(), mirror.path("token"));
    let port = free_port();
    let listen = format!("0.0.0.0:{port}");
    let mut arguments = vec!["mirror", "run", "--core", &core, "--state-dir", &state];
    arguments.extend(["--interval", "1h", "--mirror-listen", &listen]);
    let (cert, key, token) = (
        path("cert.pem"),
        path("key.pem"),
        token.display().to_string(),
    );
    arguments.extend(["--mirror-tls-cert", &cert, "--mirror-tls-key", &key]);
    arguments.extend(["--mirror-host", "mirror.example.org"]);
    arguments.extend(["--mirror-token-file", &token]);
    let _service = Program::start(&arguments);
    eventually("the first cycle", || {
        (status(&mirror.state(), &[]).0["cycles"] == 1).then_some(())
    });
    let server = format!("https://127.0.0.1:{port}");
    let https = Https::new(&server, &files.path().join("ca.pem"));
    let get = |path: &str, token| https.ask("GET", path, token, "");
    assert_eq!(get("/v1/racks", None).code, 401);
    let answer = get("/v1/racks", Some(TOKEN));
    assert_eq!(
        (answer.code, &answer.json()["racks"][0]["external_id"]),
        (200, &json!("r1"))
    );
    assert!(answer.head.contains("strict-transport-security"));
    let (server, target) = login_address_of("mirror", &mirror.state());
    assert_eq!(server, format!("https://mirror.example.org:{port}"));
    let opened = get(&target, None);
    assert!(
        opened.code == 303 && opened.head.contains("; secure"),
        "{opened:?}"
    );
    // Who speaks no TLS gets no answer.
    let plain = Web::Tcp(port).raw("GET /v1/racks HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(plain.is_err() || plain.unwrap().code == 0);
}
