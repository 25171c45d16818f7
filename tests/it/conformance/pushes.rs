//! The mapping from repositories to CPEs as our own sensor pushes it: to our own agents, to agents of other kinds,
//! and to guests that make it hard.

use super::guests::{self, MAPPING, item};
use crate::support::agent::{Agent, Launch};
use crate::support::central::Central;
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, PushManner, Script};
use crate::support::program::{Program, free_port, http_get, status};
use crate::support::rpm_root::RpmRoot;
use afferent::report::MappingHash;
use afferent::wire::message::ErrorCode;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

const EMPTY: &str = r#"{"data": {}}"#;

/// A sensor with a mapping in a file, its Central, and where its guests are.
struct Host {
    dir: tempfile::TempDir,
    central: Central,
    vms: Vec<String>,
    metrics: u16,
}

impl Host {
    fn new() -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            central: Central::start(),
            vms: Vec::new(),
            metrics: free_port(),
        };
        host.write(MAPPING);
        host
    }

    fn mapping(&self) -> PathBuf {
        self.dir.path().join("repository-to-cpe.json")
    }

    /// Puts a mapping into the file at once.
    fn write(&self, mapping: &str) {
        let new = self.dir.path().join("new");
        fs::write(&new, mapping).unwrap();
        fs::rename(new, self.mapping()).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn sense(&self, more: &[&str]) -> Program {
        let (mapping, port) = (self.mapping(), self.metrics.to_string());
        let mut args = vec!["--repo-cpe", mapping.to_str().unwrap(), "--metrics", &port];
        self.vms.iter().for_each(|vm| args.extend(["--vm", vm]));
        args.extend(more);
        Program::sense(&self.state(), &self.central.url, &args)
    }

    fn status(&self) -> Value {
        status(&self.state(), &[]).0
    }

    /// What `status` says of the mapping of a guest, once it looks like this.
    fn guest(&self, vm: &str, looks: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the mapping of {vm}"), || {
            let answer = self.status();
            let mut guests = answer["guests"].as_array()?.iter();
            let guest = guests.find(|guest| guest["vm"] == vm)?;
            looks(&guest["mapping"]).then(|| guest.clone())
        })
    }

    fn in_sync(&self, vm: &str, mapping: &str) {
        let hash = hash(mapping);
        self.guest(vm, |mapping| {
            mapping["state"] == "in_sync" && mapping["hash"] == hash
        });
    }

    fn counted(&self, status: &str) -> u64 {
        let name = format!("afferent_sense_mapping_total{{status=\"{status}\"}} ");
        let page = http_get(self.metrics, "/metrics").map_or_else(String::new, |(_, page)| page);
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.map_or(0, |count| count.parse().unwrap())
    }

    /// The CPEs of the repositories in the newest report that Central has of a guest.
    fn cpes(&self, vm: &str) -> Option<Vec<String>> {
        let received = self.central.received();
        let of = |body: &&Value| body["vm"]["id"] == vm && body["report"].is_object();
        let report = received.iter().rev().map(|r| &r.body).find(of)?;
        let repositories = report["report"]["repositories"].as_array()?.iter();
        let cpes = repositories.map(|r| r["cpe"].as_str().unwrap_or_default().to_owned());
        Some(cpes.filter(|cpe| !cpe.is_empty()).collect())
    }

    fn has_cpes(&self, vm: &str, count: usize) {
        eventually(&format!("{count} CPEs of {vm} at Central"), || {
            (self.cpes(vm)?.len() == count).then_some(())
        });
    }
}

fn hash(mapping: &str) -> String {
    MappingHash::of(mapping.as_bytes()).to_string()
}

fn hang_up(program: &Program) {
    let pid = program.pid().to_string();
    let sent = Command::new("kill").args(["-HUP", &pid]).status();
    assert!(sent.unwrap().success());
}

/// A guest with a package from a repository of the mapping.
fn guest() -> RpmRoot {
    let root = guests::with(&["plain"]);
    guests::dnf4(root.path(), &[item("plain", "baseos", 1, 1)]);
    root
}

fn vm(name: &str, agent: &Agent) -> String {
    format!("{name}=unix:{}", agent.socket().display())
}

/// Loss prevented: guests without internet whose packages match nothing, for want of a mapping.
#[test]
fn a_guest_is_given_the_mapping_and_the_next_one_and_none_that_it_has() {
    let root = guest();
    let launch = Launch::on(root.path());
    let agent = launch.start();
    let mut host = Host::new();
    host.vms = vec![vm("a", &agent)];
    let mut sense = host.sense(&[]);
    host.has_cpes("a", 2);
    host.in_sync("a", MAPPING);
    assert_eq!(host.counted("sync_success"), 1);
    let answer = host.status();
    let about = &answer["mapping"];
    assert_eq!(about["hash"], hash(MAPPING));
    assert_eq!(about["source"], host.mapping().to_str().unwrap());
    assert_eq!(
        (&about["guests"], &about["error"]),
        (&json!({"in_sync": 1}), &Value::Null)
    );
    let guest = &answer["guests"][0];
    assert_eq!(guest["mapping"]["path"], "sensor");
    assert_eq!(guest["agent_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(guest["facts"]["rpmdb_backend"], "sqlite");
    let version = json!([{"version": env!("CARGO_PKG_VERSION"), "guests": 1}]);
    assert_eq!(answer["agents"], version);
    let page = http_get(host.metrics, "/metrics").unwrap().1;
    let line = format!(
        "afferent_sense_agents{{version=\"{}\"}} 1\n",
        env!("CARGO_PKG_VERSION")
    );
    assert!(page.contains(&line), "{page}");

    // Another one, then one that is none: the last good one stays, which log and status say.
    host.write(EMPTY);
    hang_up(&sense);
    host.has_cpes("a", 0);
    host.in_sync("a", EMPTY);
    host.write("nonsense");
    hang_up(&sense);
    let reasons = || host.status()["reasons"].to_string();
    eventually("the error is told", || {
        reasons()
            .contains("the mapping of repositories to CPEs cannot be read")
            .then_some(())
    });
    assert_eq!(host.status()["mapping"]["hash"], hash(EMPTY));
    assert_eq!(status(&host.state(), &[]).1, 4, "degraded");
    host.write(EMPTY);
    hang_up(&sense);
    eventually("the error is over", || {
        (!reasons().contains("mapping")).then_some(())
    });
    assert_eq!(host.counted("sync_success"), 2);

    // After a restart nobody is given what it has; one that lost everything is given it again.
    sense.kill();
    let mut sense = host.sense(&[]);
    host.in_sync("a", EMPTY);
    host.write(MAPPING);
    hang_up(&sense);
    host.in_sync("a", MAPPING);
    assert_eq!(host.counted("sync_success"), 1);
    agent.kill();
    fs::remove_dir_all(launch.state_dir()).unwrap();
    let agent = launch.start();
    eventually("it is pushed again", || {
        (host.counted("sync_success") == 2).then_some(())
    });
    host.in_sync("a", MAPPING);
    host.has_cpes("a", 2);
    assert!(sense.terminate().success());
    drop(agent);
}

/// Loss prevented: a report without CPEs of a guest that was to give none, or minutes until its first one.
#[test]
fn a_guest_that_demands_a_mapping_reports_as_soon_as_it_has_one() {
    let root = guest();
    let launch = Launch::on(root.path()).flag("require-mapping", "on");
    let agent = launch.start();
    let mut host = Host::new();
    host.vms = vec![vm("a", &agent)];
    let start = Instant::now();
    let mut sense = host.sense(&[]);
    host.has_cpes("a", 2);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    assert!(host.counted("mapping_required") >= 1);
    assert_eq!(host.counted("sync_success"), 1);
    assert_eq!(host.central.received().len(), 1, "never one without CPEs");
    assert!(sense.terminate().success());
}

/// Loss prevented: what an operator gave one guest is overwritten, or differs from what all others have and nobody
/// knows.
#[test]
fn a_guest_with_a_mapping_of_its_own_is_left_alone_and_counted_if_it_is_another() {
    let host_mapping = guest();
    let file = host_mapping.path().join("own.json");
    fs::write(&file, EMPTY).unwrap();
    let launch = Launch::on(host_mapping.path()).flag("repo-cpe", file.to_str().unwrap());
    let agent = launch.start();
    let mut host = Host::new();
    host.vms = vec![vm("a", &agent)];
    let mut sense = host.sense(&[]);
    let is_mismatch = |mapping: &Value| mapping["state"] == "url_hash_mismatch";
    let guest = host.guest("a", is_mismatch);
    assert_eq!(guest["mapping"]["path"], "url");
    assert_eq!(guest["mapping"]["hash"], hash(EMPTY));
    assert_eq!(host.counted("url_hash_mismatch"), 1);
    host.write(EMPTY);
    hang_up(&sense);
    host.guest("a", |mapping| mapping["state"] == "url");
    assert_eq!(
        (
            host.counted("url_hash_mismatch"),
            host.counted("sync_success")
        ),
        (1, 0)
    );
    assert!(sense.terminate().success());
}

/// Loss prevented: a guest or a sensor that died at the wrong moment has no mapping for ever.
#[test]
fn a_kill_of_either_at_any_moment_of_a_push_ends_in_sync() {
    let root = guest();
    let launch = Launch::on(root.path());
    let mut agent = launch.start();
    let mut host = Host::new();
    host.vms = vec![vm("a", &agent)];
    let mut sense = host.sense(&["--poll-interval", "1s"]);
    host.has_cpes("a", 2);
    for round in 0..6u64 {
        let mapping = match round % 2 {
            0 => format!(
                "{EMPTY}{}",
                " ".repeat((2 << 20) + usize::try_from(round).unwrap())
            ),
            _ => MAPPING.to_owned(),
        };
        host.write(&mapping);
        hang_up(&sense);
        // Somewhere between the first byte and the next report.
        std::thread::sleep(Duration::from_millis(fastrand::u64(0..120)));
        if round % 3 == 0 {
            agent.kill();
            agent = launch.start();
        } else {
            sense.kill();
            sense = host.sense(&["--poll-interval", "1s"]);
        }
        host.in_sync("a", &mapping);
        host.has_cpes("a", if round % 2 == 0 { 0 } else { 2 });
    }
    assert!(sense.terminate().success());
    drop(agent);
}

/// Loss prevented: guests that never read what they are sent hold up the reports of the others, or the pushes.
#[test]
fn guests_that_hang_hold_up_no_report_and_only_so_many_pushes() {
    let mut host = Host::new();
    let dir = host.dir.path().to_owned();
    let hanging: Vec<FakeAgent> = (0..24)
        .map(|n| {
            let mut script = Script::new();
            script.mapping.0 = 1;
            script.pushes = PushManner::Hangs;
            FakeAgent::start(&dir.join(format!("h{n}.sock")), script)
        })
        .collect();
    let names = hanging.iter().enumerate();
    host.vms = names.map(|(n, agent)| agent.vm(&format!("h{n}"))).collect();
    // Two megabytes, which no socket holds.
    host.write(&format!("{EMPTY}{}", " ".repeat(2 << 20)));
    let mut sense = host.sense(&[]);
    let begun = || {
        hanging
            .iter()
            .map(|agent| agent.pushed().len())
            .sum::<usize>()
    };
    eventually("all are waited for", || {
        let waits = hanging
            .iter()
            .filter(|agent| agent.seen().iter().any(|s| s.wait));
        (waits.count() == hanging.len()).then_some(())
    });
    eventually("pushes begin", || (begun() == 8).then_some(()));
    let slowest = (0..5).map(|n| {
        let agent = &hanging[n * 5];
        let start = Instant::now();
        agent.install("another");
        eventually("its report", || {
            let report = format!("h{}/77/2", n * 5);
            host.central
                .received()
                .iter()
                .any(|r| r.report() == report)
                .then_some(())
        });
        start.elapsed()
    });
    let slowest = slowest.max().unwrap();
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    let begun = begun() as u64;
    assert!(begun <= 8 + host.counted("sync_error"), "{begun} at a time");
    assert!(sense.terminate().success());
}

/// Loss prevented: an agent of StackRox's own, of either generation, that our sensor gives no mapping; or one that
/// refuses it and is sent it with every answer.
#[test]
fn agents_of_other_kinds_are_given_it_and_those_that_refuse_are_left_alone_for_a_while() {
    let mut host = Host::new();
    let dir = host.dir.path().to_owned();
    let agent = |name: &str, change: &dyn Fn(&mut Script)| {
        let mut script = Script::new();
        // They answer at once, and often.
        (script.waits, script.mapping.0) = (false, 1);
        change(&mut script);
        FakeAgent::start(&dir.join(name), script)
    };
    let first = agent("first", &|_| {});
    let second = agent("second", &|script| {
        script.token = Some("0123456789abcdef".into());
    });
    let busy = agent("busy", &|script| {
        script.pushes = PushManner::Says(ErrorCode::Busy);
    });
    let old = agent("old", &|script| {
        script.pushes = PushManner::Says(ErrorCode::UnknownMethod);
    });
    let managed = agent("managed", &|script| {
        script.pushes = PushManner::Says(ErrorCode::MappingNotSensorManaged);
    });
    let hides = agent("hides", &|script| script.pushes = PushManner::TakesAndHides);
    let silent = agent("silent", &|script| script.mapping.0 = 0);
    let all = [&first, &second, &busy, &old, &managed, &hides, &silent];
    let names = [
        "first", "second", "busy", "old", "managed", "hides", "silent",
    ];
    host.vms = all
        .iter()
        .zip(names)
        .map(|(agent, name)| agent.vm(name))
        .collect();
    let mut sense = host.sense(&["--poll-interval", "1s"]);
    for name in ["first", "second"] {
        host.in_sync(name, MAPPING);
    }
    let state =
        |name: &str, state: &'static str| host.guest(name, |mapping| mapping["state"] == state);
    let busy_now = state("busy", "sync_error");
    assert_eq!(busy_now["mapping"]["error"], "BUSY: ");
    state("old", "sync_error");
    state("managed", "sync_not_managed");
    state("hides", "taken");
    state("silent", "unspecified");
    assert_eq!(first.pushed(), [MAPPING.as_bytes()]);
    assert_eq!(second.pushed(), [MAPPING.as_bytes()]);
    // Many answers later nothing was sent again but to those whose first backoff is over.
    let asked = hides.seen().len();
    eventually("more polls", || {
        (hides.seen().len() > asked + 3).then_some(())
    });
    let counts = all.map(|agent| agent.pushed().len());
    assert_eq!(
        (counts[0], counts[1], counts[4], counts[5], counts[6]),
        (1, 1, 1, 1, 0)
    );
    assert!(counts[2] <= 2 && counts[3] <= 2, "{counts:?}");
    assert_eq!(host.counted("sync_success"), 3);
    assert_eq!(host.counted("sync_not_managed"), 1);
    assert!(host.counted("sync_error") >= 2);
    assert!(sense.terminate().success());
}
