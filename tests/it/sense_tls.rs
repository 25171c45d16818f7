//! Mutual TLS between a real agent and a real sensor.

use crate::support::agent::Launch;
use crate::support::authority::Authority;
use crate::support::eventually;
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use rcgen::CertificateParams;
use std::fs;
use std::path::Path;

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
