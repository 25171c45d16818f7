//! Every question of `afferent fleet`, asked of one sensor, and again of its file after it was killed.

use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::Program;
use afferent::clock::WallTime;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use tempfile::TempDir;

/// Three guests, each with one change: `c`, `a` and `b`, in this order.
struct World {
    dir: TempDir,
    sensor: Program,
    /// When each of them changed.
    changed_at: Vec<WallTime>,
    _agents: Vec<FakeAgent>,
}

fn script(agent: &'static str, os: (&'static str, &'static str), packages: &[&str]) -> Script {
    Script {
        agent,
        os,
        packages: packages.iter().map(|text| (*text).to_owned()).collect(),
        ..Script::new()
    }
}

/// `afferent` with this state directory in its environment alone.
fn afferent(state: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afferent"))
        .args(args)
        .env("AFFERENT_STATE_DIR", state)
        .output()
        .unwrap()
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let kernel = |script: &mut Script, running: &str| {
            let facts = &mut script.facts;
            facts.insert("kernel_running".into(), running.into());
            facts.insert("reboot_needed".into(), "kernel".into());
        };
        let old = [
            "bash 5.1-1",
            "openssl 1:3.0.7-27.el9",
            "kernel 5.14-1",
            "kernel 5.14-2",
            "only-a 1-1",
        ];
        let new = [
            "bash 5.1-1",
            "openssl 1:3.0.7-28.el9_4",
            "kernel 5.14-2",
            "kernel 5.14-3",
            "zlib 1-2",
            "x 1-1",
        ];
        let mut scripts = [
            script("0.3.0", ("rhel", "9.4"), &old),
            script("0.2.0", ("rhel", "8.10"), &["kernel 4.18-1"]),
            script("0.2.1", ("fedora", "40"), &new),
        ];
        kernel(&mut scripts[0], "5.14-1.x86_64");
        kernel(&mut scripts[2], "5.14-3.x86_64");
        scripts[1].waits = false;
        let agents = scripts.into_iter().zip(["a", "b", "c"]);
        let agents: Vec<FakeAgent> = agents
            .map(|(script, vm)| FakeAgent::start(&dir.path().join(vm), script))
            .collect();
        let vms: Vec<String> = agents
            .iter()
            .zip(["a", "b", "c"])
            .map(|(it, vm)| it.vm(vm))
            .collect();
        let sink = format!("file:{}", dir.path().join("out").display());
        let vms = vms.iter().flat_map(|vm| ["--vm", vm]).collect::<Vec<_>>();
        let sensor = Program::sense(&dir.path().join("state"), &sink, &vms);
        let mut world = Self {
            dir,
            sensor,
            changed_at: Vec::new(),
            _agents: Vec::new(),
        };
        eventually("all guests", || {
            let list = world.json(&["fleet"]).pop()?;
            (list["guests"].as_array()?.len() == 3).then_some(())
        });
        let changes: [(usize, &str, &str); 3] = [
            (2, "zlib 1-2", "zlib 1-3"),
            (0, "only-a 1-1", "only-a 1-2"),
            (1, "none", "added-b 1-1"),
        ];
        for (number, (agent, old, new)) in changes.into_iter().enumerate() {
            agents[agent].replace(old, new);
            // A guest that is polled is not heard of for minutes.
            let state = world.state().display().to_string();
            let vm = ["a", "b", "c"][agent];
            world.asked(&["rescan", "--vm", vm, "--state-dir", &state], 0);
            let at = eventually("the change", || {
                let changes = world.json(&["fleet", "changes"]);
                let newest = changes.get(number)?;
                newest
                    .to_string()
                    .contains(new.split_once(' ')?.0)
                    .then(|| newest["at"].clone())
            });
            world.changed_at.push(at.as_str().unwrap().parse().unwrap());
        }
        world._agents = agents;
        world
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// What is printed, with this code.
    fn asked(&self, args: &[&str], code: i32) -> String {
        let out = afferent(&self.state(), args);
        let text = [out.stdout, out.stderr]
            .map(|bytes| String::from_utf8(bytes).unwrap())
            .concat();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {text}");
        text
    }

    /// The documents that are printed, one a line; none without an answer.
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = afferent(&self.state(), &[args, &["--json"]].concat());
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    fn only(&self, args: &[&str]) -> Value {
        let mut answers = self.json(args);
        assert_eq!(answers.len(), 1, "{args:?}: {answers:?}");
        answers.remove(0)
    }

    fn vms(&self, args: &[&str]) -> Vec<String> {
        let answer = self.only(args);
        let guests = answer["guests"].as_array().unwrap().iter();
        guests
            .map(|guest| guest["vm"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The questions that a sensor and its file answer alike.
    fn check_answers(&self) {
        for (args, expected) in [
            (&[][..], &["a", "b", "c"][..]),
            (&["--sort", "name"], &["a", "b", "c"]),
            (&["--sort", "os"], &["c", "b", "a"]),
            (&["--sort", "packages"], &["c", "a", "b"]),
            (&["--sort", "agent"], &["b", "c", "a"]),
            (&["--sort", "changed"], &["b", "a", "c"]),
            (&["--os", "rhel"], &["a", "b"]),
            (&["--os", "rhel-9"], &["a"]),
            (&["--os", "rhel-9.4"], &["a"]),
            (&["--os", "rhel-9.5"], &[]),
            (&["--os", "rhel", "--sort", "agent"], &["b", "a"]),
            (&["find", "kernel", "--running"], &["a"]),
            (&["find", "kernel", "--running", "--os", "fedora"], &[]),
            (&["find", "openssl >= 1:3.0.7-28.el9_4"], &["c"]),
            (&["find", "openssl", "--not"], &["b"]),
        ] {
            assert_eq!(self.vms(&[&["fleet"], args].concat()), expected, "{args:?}");
        }
        let running = self.asked(&["fleet", "find", "kernel", "--running"], 0);
        let row = "a      rhel-9.4  5.14-1.noarch 5.14-2.noarch  5.14-1.x86_64";
        let rest = "1 of 3 guests; 1 more does not tell which kernel runs";
        assert!(running.contains(row) && running.contains(rest), "{running}");

        let after_first = self.changed_at[0]
            .after(Duration::from_millis(1))
            .to_string();
        let last = self.changed_at[2].to_string();
        for (args, expected) in [
            (&[][..], &["c", "a", "b"][..]),
            (&["--vm", "a"], &["a"]),
            (&["--package", "zlib"], &["c"]),
            (&["--vm", "a", "--package", "zlib"], &[]),
            (&["--since", &after_first], &["a", "b"]),
            (&["--since", &last], &["b"]),
            (&["--since", "1h"], &["c", "a", "b"]),
            (&["--since", "1h", "--vm", "b"], &["b"]),
            (&["--since", "2100-01-01T00:00:00Z"], &[]),
            (&["--vm", "unknown"], &[]),
        ] {
            let changes = self.json(&[&["fleet", "changes"], args].concat());
            let vms: Vec<&str> = changes
                .iter()
                .map(|it| it["vm"].as_str().unwrap())
                .collect();
            assert_eq!(vms, expected, "{args:?}");
        }

        let package =
            |name: &str, version: &str| json!({"name": name, "arch": "noarch", "version": version});
        assert_eq!(
            self.only(&["fleet", "diff", "a", "c"]),
            json!({
                "from": "a", "to": "c", "downgraded": [], "changed": [],
                "upgraded": [{"name": "openssl", "arch": "noarch", "from": "1:3.0.7-27.el9", "to": "1:3.0.7-28.el9_4"}],
                "added": [package("kernel", "5.14-3"), package("x", "1-1"), package("zlib", "1-3")],
                "removed": [package("kernel", "5.14-1"), package("only-a", "1-2")],
            })
        );
        assert_eq!(
            self.asked(&["fleet", "diff", "c", "a"], 0),
            "from c to a:\n\
             downgraded openssl.noarch 1:3.0.7-28.el9_4 -> 1:3.0.7-27.el9\n\
             added kernel.noarch 5.14-1\nadded only-a.noarch 1-2\n\
             removed kernel.noarch 5.14-3\nremoved x.noarch 1-1\nremoved zlib.noarch 1-3\n"
        );
        assert_eq!(
            self.asked(&["fleet", "diff", "b", "b"], 0),
            "b and b have the same packages\n"
        );

        let before = self.changed_at[1]
            .before(Duration::from_millis(1))
            .to_string();
        for (at, version) in [(before, "1-1"), (self.changed_at[1].to_string(), "1-2")] {
            let show = self.only(&["fleet", "show", "a", "--at", &at]);
            let installed = show["installed"].as_array().unwrap();
            let only_a = installed.iter().find(|package| package["name"] == "only-a");
            assert_eq!(only_a.unwrap()["version"], version, "{at}");
            assert_eq!(show["at"], at.as_str());
        }

        let export = self.asked(&["fleet", "export"], 0);
        assert_eq!(export, self.asked(&["fleet", "export", "--json"], 0));
        let export: Value = serde_json::from_str(&export).unwrap();
        let counts = export.as_array().unwrap().iter();
        let counts: Vec<_> = counts
            .map(|guest| {
                (
                    guest["vm"].clone(),
                    guest["packages"].as_array().unwrap().len(),
                )
            })
            .collect();
        assert_eq!(json!(counts), json!([["a", 5], ["b", 2], ["c", 6]]));
        let csv = self.asked(&["fleet", "export", "--format", "csv"], 0);
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 1 + 5 + 2 + 6);
        assert!(lines[0].starts_with("vm,os,name,version,arch,"), "{csv}");
        assert!(csv.contains("\nc,fedora-40,kernel,5.14-3,noarch,"), "{csv}");
        let one = self.asked(&["fleet", "export", "--format", "csv", "--vm", "b"], 0);
        assert_eq!(one.lines().count(), 3, "{one}");
    }

    /// What is not there is no error where it was looked for; what makes no sense is one of whoever asks.
    fn check_codes(&self) {
        for (args, code) in [
            (&["find", "nothing"][..], 0),
            (&["find", "nothing", "--running"], 0),
            (&["versions", "nothing"], 0),
            (&["versions", "--os", "plan9"], 0),
            (&["changes", "--vm", "unknown"], 0),
            (&["--os", "plan9"], 0),
            (&["show", "unknown"], 1),
            (&["diff", "a", "unknown"], 1),
            (&["export", "--vm", "unknown"], 1),
            (&["export", "--format", "csv", "--vm", "unknown"], 1),
            (&["find"], 2),
            (&["find", "a <"], 2),
            (&["find", "a ~ 1"], 2),
            (&["find", "a = :1"], 2),
            (&["--sort", "size"], 2),
            (&["--state", "asleep"], 2),
            (&["--json", "find", "bash"], 2),
            (&["changes", "--since", "yesterday"], 2),
            (&["show", "a", "--at", "noon"], 2),
            (&["show", "a", "--at", "1999-01-01T00:00:00Z"], 2),
            (&["diff", "a"], 2),
            (&["export", "--format", "xml"], 2),
            (&["export", "--format", "csv", "--json"], 2),
            (&["export", "--format", "json", "--output", "/tmp"], 2),
            (&["nonsense"], 2),
        ] {
            self.asked(&[&["fleet"], args].concat(), code);
        }
    }
}

#[test]
fn every_question_is_answered_by_the_sensor_and_after_it_was_killed_from_its_file() {
    let mut world = World::new();
    for (state, expected) in [
        ("waiting", &["a", "c"][..]),
        ("polled", &["b"]),
        ("silent", &[]),
    ] {
        assert_eq!(world.vms(&["fleet", "--state", state]), expected, "{state}");
    }
    let sorted = world.vms(&["fleet", "--state", "waiting", "--sort", "agent"]);
    assert_eq!(sorted, ["c", "a"]);
    world.check_answers();
    world.check_codes();
    world.sensor.kill();
    world.check_answers();
    world.check_codes();
    let said = world.asked(&["fleet", "--state", "waiting"], 1);
    assert!(said.contains("leave --state away"), "{said}");
    let said = world.asked(&["fleet", "changes", "--follow"], 1);
    assert!(said.contains("leave --follow away"), "{said}");
}

/// The loss: a page for whoever can reach the socket of the sensor.
#[test]
fn a_login_is_for_root_and_the_user_of_the_service_alone() {
    let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok();
    if !nix::unistd::geteuid().is_root() || !has_setpriv {
        println!("skipped: only root can become another user, with setpriv");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let open_to_all = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    };
    let agent = FakeAgent::start(&dir.path().join("a"), Script::new());
    let (state, program) = (dir.path().join("state"), dir.path().join("afferent"));
    fs::copy(env!("CARGO_BIN_EXE_afferent"), &program).unwrap();
    let more = ["--vm", &agent.vm("a"), "--fleet-listen", "127.0.0.1:0"];
    let mut sensor = Program::sense(&state, "file:/dev/null", &more);
    eventually("root logs in", || {
        afferent(&state, &["fleet", "login"])
            .status
            .success()
            .then_some(())
    });
    let login = |user: &str| {
        let out = Command::new("setpriv")
            .args([
                &format!("--reuid={user}"),
                "--regid=65534",
                "--clear-groups",
            ])
            .arg(&program)
            .args(["fleet", "login", "--state-dir"])
            .arg(&state)
            .output()
            .unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        (
            out.status.code(),
            String::from_utf8(out.stdout).unwrap(),
            said,
        )
    };
    for path in [dir.path(), &program] {
        open_to_all(path);
    }
    let (code, address, said) = login("65534");
    assert_eq!((code, address.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("ermission denied"), "{said}");
    // Even where somebody opens the directory and the socket up.
    open_to_all(&state);
    open_to_all(&state.join("control.sock"));
    let (code, address, said) = login("65534");
    assert_eq!((code, address.as_str()), (Some(1), ""), "{said}");
    assert!(
        said.contains("only root and the user of the service"),
        "{said}"
    );
    let (code, address, _) = login("0");
    assert!(
        code == Some(0) && address.contains("/login?code="),
        "{address}"
    );
    assert!(sensor.terminate().success());
}
