//! Every `https` address takes a file with a token and one with an authority of the operator's own.
//!
//! Loss prevented, in every test: a site without a public authority that cannot be served, or a token that
//! is shown to somebody who only claims to be the server.

use crate::support::agent::Launch;
use crate::support::authority::Authority;
use crate::support::central::Central;
use crate::support::core_server::{Answer, CoreServer, page};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::mirror::{Mirror, finish};
use crate::support::program::{Program, status};
use crate::support::rpm_root::{RpmRoot, Spec};
use crate::support::tls_front::TlsFront;
use serde_json::json;
use std::fs;
use std::path::Path;

const TOKEN: &str = "Bearer of-the-test";

/// Files in a directory: the token, the right authority, another one.
struct Files {
    dir: tempfile::TempDir,
    ours: Authority,
}

impl Files {
    fn new() -> Self {
        let (dir, ours) = (tempfile::tempdir().unwrap(), Authority::new());
        for (name, text) in [
            ("token", "of-the-test\n"),
            ("right", ours.ca.as_str()),
            ("wrong", Authority::new().ca.as_str()),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Self { dir, ours }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }
}

/// Whether a service with this state says why the server is not trusted.
fn says_why(state: &Path) -> Option<()> {
    let reasons = status(state, &[]).0["reasons"].to_string();
    reasons.to_lowercase().contains("certificate").then_some(())
}

#[test]
fn the_sensor_shows_its_token_to_a_central_of_the_given_authority_alone() {
    let files = Files::new();
    let central = Central::start();
    let front = TlsFront::start(&files.ours, &central.url);
    let socket = files.dir.path().join("a.sock");
    let _agent = FakeAgent::start(&socket, Script::new());
    let vm = format!("a=unix:{}", socket.display());
    let state = files.dir.path().join("state");
    for (ca, is_trusted) in [("wrong", false), ("right", true)] {
        let (token, ca) = (files.path("token"), files.path(ca));
        let flags = ["--vm", &vm, "--token-file", &token, "--ca-file", &ca];
        let mut sense = Program::sense(&state, &front.url, &flags);
        if is_trusted {
            let received = eventually("it is delivered", || central.received().pop());
            assert_eq!(received.authorization.as_deref(), Some(TOKEN));
        } else {
            eventually("the sensor says why", || says_why(&state));
            assert_eq!(central.received().len(), 0);
        }
        assert!(sense.terminate().success());
    }
}

#[test]
fn the_mirror_shows_its_token_to_a_core_of_the_given_authority_alone() {
    let files = Files::new();
    let core = CoreServer::start(|_| page(&json!([]), 0));
    let front = TlsFront::start(&files.ours, &core.url);
    let mirror = Mirror::new();
    for (ca, code) in [("wrong", 1), ("right", 0)] {
        let (token, ca) = (files.path("token"), files.path(ca));
        let site = "5a1e0000-0000-4000-8000-000000000001";
        let mut command = mirror.command(&["run", "--once", "--core", &front.url, "--org", "o"]);
        command.args(["--site-id", site, "--token-file", &token, "--ca-file", &ca]);
        command.args(["--request-deadline", "2s"]);
        let ran = finish(&command.output().unwrap());
        assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
        let requests = core.requests();
        let said = format!("{}{}", ran.stdout, ran.stderr).to_lowercase();
        match code {
            0 => assert!(
                !requests.is_empty()
                    && requests.iter().all(|r| r.headers["authorization"] == TOKEN),
                "{requests:?}"
            ),
            _ => assert!(
                requests.is_empty() && said.contains("certificate"),
                "{said}"
            ),
        }
    }
}

#[test]
fn the_agent_shows_its_token_to_a_source_of_cpes_of_the_given_authority_alone() {
    let files = Files::new();
    let mapping = br#"{"data": {}}"#;
    let source = CoreServer::start(|_| Answer::Plain(200, Vec::new(), mapping.to_vec()));
    let front = TlsFront::start(&files.ours, &source.url);
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let url = format!("{}/repository-to-cpe.json", front.url);
    for (ca, is_trusted) in [("wrong", false), ("right", true)] {
        let launch = Launch::on(root.path())
            .flag("repo-cpe", &url)
            .flag("repo-cpe-token-file", &files.path("token"))
            .flag("repo-cpe-ca-file", &files.path(ca));
        let agent = launch.start();
        if is_trusted {
            let request = eventually("it is asked", || source.requests().pop());
            assert_eq!(request.headers["authorization"], TOKEN);
            assert_eq!(request.path, "/repository-to-cpe.json");
            let copy = launch.state_dir().join("repo-cpe.json");
            eventually("its answer is kept", || {
                fs::read(&copy).ok().filter(|c| c == mapping)
            });
        } else {
            agent.wait_until_said("invalid peer certificate");
            assert_eq!(source.requests().len(), 0);
        }
        assert!(agent.terminate().success());
    }
}
