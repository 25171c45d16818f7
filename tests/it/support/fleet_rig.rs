//! A sensor that answers for its fleet over HTTP, with fake agents.

use super::eventually;
use super::fake_agent::{FakeAgent, Script};
use super::program::{Program, free_port};
use super::web::{TOKEN, Web, write_token};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// A sensor with fake agents `g0`, `g1`, ... that answers over HTTP.
pub struct FleetRig {
    pub dir: TempDir,
    pub agents: Vec<FakeAgent>,
    pub sensor: Program,
    pub web: Web,
}

impl FleetRig {
    pub fn on_tcp(guests: usize) -> Self {
        let port = free_port();
        Self::start(guests, Web::Tcp(port), &format!("127.0.0.1:{port}"), &[])
    }

    pub fn start(guests: usize, web: Web, listen: &str, more: &[&str]) -> Self {
        Self::start_with(guests, web, listen, more, guests)
    }

    /// The same with further guests among the settings; so many in all are waited for.
    pub fn start_with(guests: usize, web: Web, listen: &str, more: &[&str], all: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agents: Vec<FakeAgent> = (0..guests)
            .map(|n| FakeAgent::start(&dir.path().join(format!("g{n}.sock")), Script::new()))
            .collect();
        let vms: Vec<String> = (0..guests)
            .map(|n| agents[n].vm(&format!("g{n}")))
            .collect();
        write_token(&dir.path().join("token"), TOKEN);
        let token = dir.path().join("token").display().to_string();
        let mut args = vec!["--fleet-listen", listen, "--fleet-token-file", &token];
        args.extend(vms.iter().flat_map(|vm| ["--vm", vm]));
        args.extend(more);
        let sink = format!("file:{}", dir.path().join("out").display());
        let sensor = Program::sense(&dir.path().join("state"), &sink, &args);
        let rig = Self {
            agents,
            sensor,
            web,
            dir,
        };
        eventually("all guests are stored", || {
            let (text, _) = rig.cli(&["fleet", "--json"]);
            let answer: Value = serde_json::from_str(&text).ok()?;
            (answer["guests"].as_array()?.len() == all).then_some(())
        });
        rig
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What a command prints, and its exit code.
    pub fn cli(&self, args: &[&str]) -> (String, i32) {
        let out = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(args)
            .arg("--state-dir")
            .arg(self.state())
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        (text, out.status.code().unwrap())
    }

    pub fn data(&self, target: &str) -> Value {
        self.web.data(target)
    }
}
