//! What `afferent sense` makes of each answer of Central, and what it says about it.

use crate::support::central::{Central, Received};
use crate::support::eventually;
use crate::support::fake_agent::{FakeAgent, Script};
use crate::support::program::{Program, free_port, http_get, status};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// Loss prevented: guests that Central does not like, or for which it hangs, keep those waiting that
/// it does like. Twelve of a kind, because ten failures in a row are taken for Central's own; and
/// the first in the queue.
#[test]
fn what_central_holds_against_some_guests_keeps_no_other_waiting() {
    for (status, headers, bad) in [
        (500, "", 12),
        (429, "Retry-After: 3600\r\n", 6),
        (503, "", 6),
        (422, "", 12),
        (413, "", 12),
        (403, "", 1),
        (0, "", 12),
    ] {
        let fleet = Fleet::new(&[("bad", bad), ("good", 3)]);
        let central = Central::start();
        central.always_answer("bad", status, headers);
        let mut sense = fleet.sense(&central.url, &[]);
        for generation in 1..4 {
            for agent in fleet.of("good") {
                eventually(&format!("{status}: good {generation} is delivered"), || {
                    let key = format!("{}/77/{generation}", name(agent));
                    accepted(&central, &key).then_some(())
                });
                agent.install(&format!("package-{generation}"));
            }
        }
        let bad = central.received().into_iter();
        assert!(
            bad.filter(|r| r.key.starts_with("bad"))
                .all(|r| r.answered == status)
        );
        // What was held against them is forgotten with their next report.
        central.forget_rules();
        if matches!(status, 422 | 413) {
            for agent in fleet.of("bad") {
                agent.install("another");
                eventually("the newer report is delivered", || {
                    accepted(&central, &format!("{}/77/2", name(agent))).then_some(())
                });
            }
        }
        sense.kill();
    }
}

/// Loss prevented: a Central that asks for patience is asked again too early, or never again.
#[test]
fn patience_is_kept_whether_it_is_asked_for_in_seconds_or_as_a_date() {
    for status_code in [429, 503] {
        let fleet = Fleet::new(&[("a", 1)]);
        let central = Central::start();
        central.always_answer("a", status_code, "Retry-After: 2\r\n");
        let mut sense = fleet.sense(&central.url, &[]);
        eventually("it is tried again", || {
            (central.received().len() > 1).then_some(())
        });
        central.forget_rules();
        eventually("accepted", || accepted(&central, "a0/77/1").then_some(()));
        let all = central.received();
        for pair in all.windows(2) {
            let pause = pair[1].at - pair[0].at;
            assert!(pause >= Duration::from_secs(2), "{status_code}: {pause:?}");
            assert_eq!(pair[0].key, pair[1].key);
            assert_eq!(pair[0].body, pair[1].body);
        }
        assert!(sense.terminate().success());
    }
    let fleet = Fleet::new(&[("a", 1)]);
    let central = Central::start();
    let date = Command::new("date")
        .args(["-u", "-d", "+3 seconds", "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output();
    let date = String::from_utf8(date.unwrap().stdout).unwrap();
    let from = SystemTime::now();
    central.always_answer("a", 503, &format!("Retry-After: {}\r\n", date.trim()));
    let mut sense = fleet.sense(&central.url, &[]);
    eventually("refused", || central.received().pop());
    central.forget_rules();
    eventually("accepted", || accepted(&central, "a0/77/1").then_some(()));
    assert!(from.elapsed().unwrap() >= Duration::from_secs(2));
    assert!(sense.terminate().success());
}

/// Loss prevented: a token that expired looks like a network that is slow, or costs reports.
#[test]
fn a_token_that_is_refused_is_said_and_the_next_one_is_taken_without_a_restart() {
    let fleet = Fleet::new(&[("a", 2)]);
    let token = fleet.dir.path().join("token");
    fs::write(&token, "old\n").unwrap();
    let central = Central::start();
    central.always_answer("a", 401, "");
    let token_file = token.display().to_string();
    let mut sense = fleet.sense(&central.url, &["--token-file", &token_file]);
    eventually("it is said", || {
        let (answer, code) = status(&fleet.state(), &[]);
        let is_said = answer["reasons"].to_string().contains("unauthorized");
        (is_said && code == 4 && answer["pending"]["routine"] == 2).then_some(())
    });
    fs::write(&token, "new\n").unwrap();
    central.forget_rules();
    let both = || (accepted(&central, "a0/77/1") && accepted(&central, "a1/77/1")).then_some(());
    eventually("both are delivered", both);
    let tokens: Vec<_> = central
        .received()
        .into_iter()
        .filter_map(|r| r.authorization)
        .collect();
    assert_eq!(tokens.first().unwrap(), "Bearer old");
    assert_eq!(tokens.last().unwrap(), "Bearer new");
    eventually("all is well", || {
        (status(&fleet.state(), &[]).1 == 0).then_some(())
    });
    assert!(sense.terminate().success());
}

#[test]
fn what_central_already_has_is_accepted_and_every_answer_is_counted() {
    let fleet = Fleet::new(&[("a", 4)]);
    let central = Central::start();
    central.always_answer("a0", 409, "");
    central.always_answer("a1", 400, "");
    central.always_answer("a2", 204, "");
    central.always_answer("a3", 413, "");
    let port = free_port();
    let mut sense = fleet.sense(&central.url, &["--metrics", &port.to_string()]);
    let counted = |outcome: &str| format!("afferent_deliveries_total{{outcome=\"{outcome}\"}} ");
    metric(port, &counted("accepted"), |value| value == 2.0);
    // Each is pulled in full and tried again by itself: its first backoff is ten seconds at most.
    metric(port, &counted("refused"), |value| value == 4.0);
    metric(port, "afferent_dead_letters ", |value| value == 2.0);
    let (answer, code) = status(&fleet.state(), &["--dead"]);
    assert_eq!(code, 4);
    let dead = answer["guests"].as_array().unwrap();
    let names: Vec<_> = dead.iter().map(|guest| &guest["vm"]).collect();
    assert_eq!(names, ["a1", "a3"]);
    let (head, page) = http_get(port, "/metrics").unwrap();
    assert!(head.contains("200"));
    check_metrics(&page);
    assert!(http_get(port, "/healthz").unwrap().0.contains("200"));
    assert!(http_get(port, "/readyz").unwrap().0.contains("200"));
    assert!(sense.terminate().success());
}

/// Loss prevented: a Central that is away is knocked at by ten thousand, or found again only by a
/// restart.
#[test]
fn a_central_that_is_away_is_asked_for_by_one_probe_at_a_time_and_found_again() {
    let fleet = Fleet::new(&[("a", 40)]);
    let port = free_port();
    let metrics = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let mut sense = fleet.sense(&url, &["--metrics", &metrics.to_string()]);
    let away = "afferent_central_trouble{reason=\"unreachable\"} ";
    metric(metrics, away, |value| value == 1.0);
    metric(
        metrics,
        "afferent_pending_reports{class=\"routine\"} ",
        |value| value == 40.0,
    );
    let tried = "afferent_deliveries_total{outcome=\"unreachable\"} ";
    // At most twenty were under way when the first failed; from then on it is one at a time.
    metric(metrics, tried, |value| (3.0..30.0).contains(&value));
    let central = Central::start_on(port);
    eventually("all are delivered", || {
        (0..40)
            .all(|n| accepted(&central, &format!("a{n}/77/1")))
            .then_some(())
    });
    metric(metrics, away, |value| value == 0.0);
    assert!(sense.terminate().success());
}

/// Guests in a directory.
struct Fleet {
    dir: tempfile::TempDir,
    agents: Vec<FakeAgent>,
}

impl Fleet {
    /// As many guests of each name as it says.
    fn new(names: &[(&str, usize)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("guests")).unwrap();
        let all = names
            .iter()
            .flat_map(|(name, count)| (0..*count).map(move |n| (name, n)));
        let agents = all
            .map(|(name, n)| {
                let path = dir.path().join(format!("guests/{name}{n}.sock"));
                FakeAgent::start(&path, Script::new())
            })
            .collect();
        Self { dir, agents }
    }

    fn of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a FakeAgent> {
        self.agents
            .iter()
            .filter(move |agent| name(agent).starts_with(prefix))
    }

    fn state(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    fn sense(&self, url: &str, more: &[&str]) -> Program {
        let guests = self.dir.path().join("guests").display().to_string();
        let mut all = vec!["--discover", &guests];
        all.extend(more);
        Program::sense(&self.state(), url, &all)
    }
}

fn name(agent: &FakeAgent) -> String {
    let name: &Path = agent.path.file_stem().unwrap().as_ref();
    name.display().to_string()
}

fn accepted(central: &Central, key: &str) -> bool {
    let is_it = |r: &Received| r.report() == key && matches!(r.answered, 200..300 | 409);
    central.received().iter().any(is_it)
}

/// Waits until a sample has such a value.
fn metric(port: u16, sample: &str, is_right: impl Fn(f64) -> bool) {
    eventually(sample, || {
        let (_, page) = http_get(port, "/metrics")?;
        let value = page.lines().find_map(|line| line.strip_prefix(sample))?;
        is_right(value.parse().unwrap()).then_some(())
    });
}

/// Everything that people and alerts look for is there, and `promtool` finds nothing wrong.
fn check_metrics(page: &str) {
    for name in [
        "afferent_reactive_latency_seconds_bucket{le=\"300.0\"}",
        "afferent_reactive_latency_seconds_bucket{le=\"600.0\"}",
        "afferent_scan_trigger_total{trigger=\"unknown\"}",
        "afferent_pulls_total{outcome=\"report\"}",
        "afferent_pull_duration_seconds_count",
        "afferent_transfer_duration_seconds_count",
        "afferent_delivery_duration_seconds_count",
        "afferent_report_bytes_count",
        "afferent_report_packages_count",
        "afferent_pending_oldest_age_seconds",
        "afferent_guests{state=\"waiting\"}",
        "afferent_build_info{version=",
    ] {
        assert!(page.contains(name), "{name} is missing:\n{page}");
    }
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        println!("promtool is not installed: the page is not checked by it");
        return;
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let out = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.is_empty(), "{said}");
}
