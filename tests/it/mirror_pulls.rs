//! Pulls that take too long, hang, or meet another version of Core, and what is known of them meanwhile.

use crate::mirror_rest::{MACHINES, May, SITE, Version, answer, run};
use crate::support::core_server::{Answer, CoreServer, Request, page, status as answer_status};
use crate::support::eventually;
use crate::support::mirror::{Mirror, without_times};
use crate::support::program::{Program, free_port, http_get, status};
use serde_json::{Value, json};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A service over REST, with its metrics on a port.
struct Service {
    mirror: Mirror,
    program: Program,
    port: u16,
}

impl Service {
    fn start(mirror: Mirror, core: &CoreServer, more: &[&str]) -> Self {
        let core = ["--core", &core.url, "--org", "o", "--site-id", SITE];
        Self::of(mirror, &[&core, more].concat(), &[])
    }

    fn of(mirror: Mirror, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let metrics = port.to_string();
        let mut command = mirror.command(&["run", "--metrics", &metrics]);
        command.args(arguments).envs(environment.iter().copied());
        let program = Program::start_logged(command, &mirror.path("log"));
        Self {
            mirror,
            program,
            port,
        }
    }

    fn status(&self) -> Value {
        status(&self.mirror.state(), &[]).0
    }

    /// The first status that is as wanted.
    fn until(&self, what: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || Some(self.status()).filter(&is_wanted))
    }

    /// The first page of metrics with a series; it follows the end of a cycle.
    fn metrics(&self, series: &str) -> String {
        eventually(series, || {
            let page = http_get(self.port, "/metrics")?.1;
            page.contains(series).then_some(page)
        })
    }

    /// Values of these series on a page.
    fn values<const N: usize>(page: &str, series: [&str; N]) -> [f64; N] {
        series.map(|series| {
            let line = page.lines().find_map(|line| line.strip_prefix(series));
            let value = line.unwrap_or_else(|| panic!("no {series} in {page}"));
            value.trim().parse().unwrap()
        })
    }
}

/// The loss: rows that are taken for observed although the time was over before everything was read.
#[test]
fn optional_lists_that_come_too_late_fail_their_types_and_change_nothing() {
    let cases = [
        ("--observe-dpus", "/dpu", &["Compute"][..]),
        (
            "--observe-endpoints",
            "/site-explorer/endpoint",
            &["Compute"],
        ),
        (
            "--observe-trays",
            "/tray",
            &["Compute", "NVSwitch", "PowerShelf"],
        ),
    ];
    std::thread::scope(|scope| {
        for (flag, path, kinds) in cases {
            scope.spawn(move || {
                let mirror = Mirror::new();
                let well = CoreServer::start(|request| answer(request, Version::V2, May::All, 0));
                assert_eq!(run(&mirror, &well, "natural-key", &[flag]).code, Some(0));
                let before = without_times(&mirror.dump());
                let late = CoreServer::start(move |request| match request.path.ends_with(path) {
                    true => Answer::Silence,
                    // Health at another time: nothing of it is written.
                    false => answer(request, Version::V2, May::All, 7),
                });
                let limits = [flag, "--core-deadline", "5s"];
                let ran = run(&mirror, &late, "natural-key", &limits);
                assert_eq!(ran.code, Some(1), "{flag}: {}", ran.stdout);
                let failed = kinds.iter().map(|kind| format!("pull_failed:drift:{kind}"));
                assert_eq!(ran.codes("errors"), failed.collect::<Vec<_>>(), "{flag}");
                let why = ran.summary["errors"][0]["message"].as_str().unwrap();
                assert!(
                    why.contains(&path[1..]) && why.contains("--core-deadline 5s"),
                    "{why}"
                );
                assert_eq!(without_times(&mirror.dump()), before, "{flag}");
            });
        }
    });
}

/// The loss: a site that is deleted or doubled because its Core was upgraded, or went back.
#[test]
fn one_store_goes_through_both_versions_of_the_interface_and_back() {
    let mirror = Mirror::new();
    let mut dumps = Vec::new();
    for version in [Version::V1, Version::V2, Version::V1] {
        let core = CoreServer::start(move |request| answer(request, version, May::View, 0));
        let ran = run(&mirror, &core, "natural-key", &[]);
        assert_eq!(ran.code, Some(0), "{}", ran.stdout);
        let said = (ran.codes("warnings"), ran.codes("errors"));
        assert_eq!(said, (vec![], vec![]));
        if !dumps.is_empty() {
            for (kind, counters) in ran.summary["types"].as_object().unwrap() {
                for counter in ["inserted", "updated", "soft_deleted", "hard_deleted"] {
                    assert_eq!(counters[counter], 0, "{kind} {counter}");
                }
            }
        }
        mirror.check();
        dumps.push(mirror.dump());
    }
    // Ids and all columns are what they were; only places are compared where there are any.
    for table in ["rack", "component", "bmc"] {
        assert_eq!(dumps[1][table], dumps[0][table], "{table}");
        assert_eq!(dumps[2][table], dumps[0][table], "{table}");
    }
    let drifts = |dump: &Value, kind: &str| {
        let rows = dump["component_drift"].as_array().unwrap().iter();
        rows.filter(|row| row["drift_type"] == kind).count()
    };
    let mismatches = dumps.iter().map(|dump| drifts(dump, "mismatch"));
    assert_eq!(mismatches.collect::<Vec<_>>(), [0, 1, 0]);
    let missing = dumps.iter().map(|dump| drifts(dump, "missing_in_actual"));
    assert_eq!(missing.collect::<Vec<_>>(), [MACHINES - 20; 3]);
}

/// The loss: a Core that takes connections and gives no list, behind a state that is ok.
#[test]
fn a_pull_that_hangs_ends_in_time_and_status_and_metrics_say_which_list_it_was() {
    let mirror = Mirror::new();
    let systemd = UnixDatagram::bind(mirror.path("notify")).unwrap();
    // The socket is read all the time, as systemd does.
    let beats = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&beats);
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length) = systemd.recv(&mut message) {
            let is_beat = message[..length].starts_with(b"WATCHDOG=1");
            counted.fetch_add(u64::from(is_beat), Ordering::Relaxed);
        }
    });
    let does = Arc::new(AtomicU8::new(0));
    let now = Arc::clone(&does);
    let core = CoreServer::start(move |request| {
        let hangs = request.path.ends_with("/expected-machine");
        match (hangs, now.load(Ordering::Relaxed)) {
            (true, 1) => Answer::Silence,
            // Headers, and a byte in a day.
            (true, 2) => Answer::Slowly(200, vec![], vec![b' '; 99], Duration::from_secs(86_400)),
            _ => answer(request, Version::V2, May::View, 0),
        }
    });
    let (notify, url) = (mirror.path("notify").display().to_string(), &core.url);
    let mut arguments = vec!["--core", url, "--org", "o", "--site-id", SITE];
    arguments.extend(["--interval", "1s", "--request-deadline", "2s"]);
    let environment = [("NOTIFY_SOCKET", &*notify), ("WATCHDOG_USEC", "200000")];
    let mut service = Service::of(mirror, &arguments, &environment);
    service.until("a cycle", |status| {
        status["state"] == "ok" && status["last_complete"]["Compute"].is_string()
    });
    for hangs in [1, 2] {
        does.store(hangs, Ordering::Relaxed);
        let hanging_cycle = || {
            let status = service.status();
            let doing = status["running"]["doing"].as_str().unwrap_or_default();
            (doing == "asking Core for expected-machine").then(|| status["cycles"].as_u64())
        };
        eventually("the watchdog is fed while one cycle hangs", || {
            let cycle = hanging_cycle()?;
            let before = beats.load(Ordering::Relaxed);
            let is_same = hanging_cycle() == Some(cycle);
            (is_same && beats.load(Ordering::Relaxed) > before).then_some(())
        });
        let broken = service.until("the pull is given up", |status| {
            let is_stale = status["stale"]["Compute expected"].is_object();
            status["state"] == "degraded" && is_stale
        });
        let reason = broken["reasons"][0].as_str().unwrap();
        let which = "Compute: what is expected was not read: ";
        assert!(
            reason.starts_with(which) && reason.contains("no complete answer within"),
            "{broken}"
        );
        let stale = &broken["stale"]["Compute expected"];
        assert_eq!(stale["complete_at"], broken["last_complete"]["Compute"]);
        assert!(reason.ends_with(stale["why"].as_str().unwrap()), "{broken}");
        let shown = Command::new(env!("CARGO_BIN_EXE_afferent"))
            .args(["status", "--state-dir"])
            .arg(service.mirror.state())
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains(which), "{shown}");
        // The other lists go on being read.
        eventually("the age of one list grows alone", || {
            let page = service.metrics("afferent_mirror_cycles_total{");
            let of = |list| {
                format!(r#"afferent_mirror_last_complete_timestamp_seconds{{list="{list}"}}"#)
            };
            let failed = r#"afferent_mirror_cycles_total{outcome="failed"}"#;
            let series = [&*of("Compute"), &of("rack"), failed];
            let [compute, rack, failed] = Service::values(&page, series);
            (compute < rack && failed >= f64::from(hangs)).then_some(())
        });
        does.store(0, Ordering::Relaxed);
        let well = service.until("it is well again", |status| status["state"] == "ok");
        assert_eq!(well["stale"], json!({}));
    }
    assert!(service.program.terminate().success());
}

/// The loss: an operator who cannot tell a pull that takes an hour from one that hangs.
#[test]
fn a_long_pull_shows_how_far_it_is() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let core = CoreServer::start(move |request| {
        let is_last = request.query["pageNumber"] == "3";
        if request.path.ends_with("/expected-machine") && is_last {
            let (open, opened) = &*held;
            drop(opened.wait_while(open.lock().unwrap(), |open| !*open));
        }
        answer(request, Version::V2, May::View, 0)
    });
    let service = Service::start(Mirror::new(), &core, &["--interval", "1h"]);
    let far = "reading expected-machine from Core: 200 of 251 entries";
    let running = service.until("two pages are read", |status| {
        status["running"]["doing"] == far
    });
    assert_eq!(running["cycles"], 0);
    assert!(running["running"]["no_step_for_s"].is_u64(), "{running}");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let ended = service.until("the cycle ends", |status| status["cycles"] == 1);
    assert_eq!(ended["types"]["Compute"]["pulled"], MACHINES);
}

fn machine(n: usize, rack: &str) -> Value {
    json!({"id": format!("entry-{n}"), "siteId": SITE, "bmcMacAddress": format!("02:00:5e:43:00:{n:02x}"),
           "chassisSerialNumber": format!("MC-{n}"), "manufacturer": "Foxwell", "rackId": rack})
}

/// The loss: numbers that alerts and panels are made of, and that count something else.
#[test]
fn metrics_are_what_was_asked_answered_warned_of_and_withheld() {
    let machines = |from: usize, to: usize| -> Value {
        let rack = |n: usize| if n < 3 { "nowhere" } else { "" };
        (from..to).map(|n| machine(n, rack(n))).collect()
    };
    let list = move |request: &Request, count: usize| {
        let number: usize = request.query["pageNumber"].parse().unwrap();
        match request.path.ends_with("/expected-machine") {
            true => {
                let (from, to) = ((number - 1) * 100, (number * 100).min(count));
                page(&machines(from.min(to), to), count as u64)
            }
            false => page(&json!([]), 0),
        }
    };
    let mirror = Mirror::new();
    let all = CoreServer::start(move |request| list(request, 220));
    let ran = run(&mirror, &all, "natural-key", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let counts = Arc::new([const { AtomicU64::new(0) }; 3]);
    let counted = Arc::clone(&counts);
    let most = CoreServer::start(move |request| {
        let [pages, bytes, refused] = &*counted;
        let is_switch = request.path.ends_with("/expected-switch");
        if is_switch && refused.fetch_add(1, Ordering::Relaxed) == 0 {
            return answer_status(503);
        }
        let answer = list(request, 120);
        if let Answer::Plain(200, _, body) = &answer {
            pages.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
        answer
    });
    let service = Service::start(mirror, &most, &["--interval", "1h"]);
    let page = service.metrics("afferent_mirror_rows{");
    let pulled = [
        "afferent_mirror_pull_pages_total",
        "afferent_mirror_pull_bytes_total",
        "afferent_mirror_pull_retries_total",
    ];
    let [pages, bytes, _] = &*counts;
    let [pages, bytes] = [pages, bytes].map(|count| count.load(Ordering::Relaxed));
    assert!(pages >= 6 && bytes > 10_000, "{pages} pages, {bytes} bytes");
    assert_eq!(
        Service::values(&page, pulled),
        [pages as f64, bytes as f64, 1.0]
    );
    for line in [
        r#"afferent_mirror_withheld_deletes{type="Compute"} 100"#,
        r#"afferent_mirror_withheld_deletes{type="rack"} 0"#,
        r#"afferent_mirror_warnings{code="unresolved_rack"} 3"#,
        r#"afferent_mirror_rows{type="Compute",state="live"} 220"#,
        r#"afferent_mirror_cycles_total{outcome="withheld"} 1"#,
        r#"afferent_mirror_cycles_total{outcome="failed"} 0"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    // A document is one page.
    let mirror = Mirror::new();
    let document = mirror.file("core.json", &json!({"expected_racks": []}));
    let length = std::fs::metadata(&document).unwrap().len();
    let core = format!("file:{}", document.display());
    let service = Service::of(mirror, &["--core", &core, "--interval", "1h"], &[]);
    service.until("the cycle ends", |status| status["cycles"] == 1);
    let page = service.metrics("afferent_mirror_last_complete_timestamp_seconds{");
    assert_eq!(Service::values(&page, pulled), [1.0, length as f64, 0.0]);
}

/// The loss: a restart that ends the alert about rows of yesterday.
#[test]
fn a_list_that_is_stale_is_as_old_as_before_after_a_restart() {
    let mirror = Mirror::new();
    let racks = json!({"expected_racks": [{"rack_id": "r1", "metadata": {"labels": [
        {"key": "chassis.manufacturer", "value": "Q"}, {"key": "chassis.serial-number", "value": "1"}]}}]});
    let core = format!("file:{}", mirror.file("core.json", &racks).display());
    let arguments = ["--core", &core, "--interval", "1h"];
    let mut service = Service::of(mirror, &arguments, &[]);
    let well = service.until("the cycle ends", |status| status["cycles"] == 1);
    let complete = well["last_complete"]["rack"].clone();
    assert!(complete.is_string(), "{well}");
    let series = r#"afferent_mirror_last_complete_timestamp_seconds{list="rack"}"#;
    let age = |service: &Service| Service::values(&service.metrics(series), [series]);
    let before = age(&service);
    let kept = service.mirror.state().join("mirror.complete.json");
    eventually("the times are kept", || kept.exists().then_some(()));
    service.program.kill();
    std::fs::write(service.mirror.path("core.json"), "{").unwrap();
    let Service { mirror, .. } = service;
    let service = Service::of(mirror, &arguments, &[]);
    let stale = service.until("the cycle ends", |status| status["cycles"] == 1);
    assert_eq!(stale["state"], "degraded");
    assert_eq!(stale["last_complete"]["rack"], complete);
    assert_eq!(stale["stale"]["rack expected"]["complete_at"], complete);
    assert_eq!(age(&service), before);
}

/// The loss: a store that outgrows its disk: 100,000 components are to take 120 MB at most. Of one run they take 385
/// bytes each, and 1,147 where the log is not packed.
#[test]
fn a_compacted_store_takes_at_most_600_bytes_a_component() {
    const COMPONENTS: usize = 4_000;
    let mirror = Mirror::new();
    let rack = |n: usize| {
        json!({"rack_id": format!("r{n}"), "metadata": {"name": format!("Hall2 R{n}"), "labels": [
        {"key": "chassis.manufacturer", "value": "Quanta"}, {"key": "chassis.serial-number", "value": format!("QR-{n}")}]}})
    };
    let component = |n: usize| {
        json!({"bmc_mac_address": format!("02:00:61:00:{:02x}:{:02x}", n >> 8, n & 255), "chassis_serial_number": format!("MC-{n}"),
               "bmc_ip_address": format!("10.20.{}.{}", n >> 8, n & 255), "rack_id": format!("r{}", n / 18),
               "metadata": {"name": format!("node-{n}"), "labels": [{"key": "manufacturer", "value": "Foxwell"},
                   {"key": "model", "value": "CT-2"}, {"key": "slot_id", "value": "3"}, {"key": "tray_idx", "value": "1"}]}})
    };
    let racks: Vec<Value> = (0..COMPONENTS / 18 + 1).map(rack).collect();
    let machines: Vec<Value> = (0..COMPONENTS).map(component).collect();
    let document = json!({"expected_racks": racks, "expected_machines": machines});
    assert_eq!(mirror.run(&document, &[]).code, Some(0));
    let output = mirror.output(&["compact", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = std::fs::metadata(mirror.state().join("mirror.redb")).unwrap();
    // Closing it takes some pages more.
    let after = said["bytes_after"].as_u64().unwrap();
    assert!(file.len().abs_diff(after) < 1 << 16, "{said}");
    let each = file.len() / COMPONENTS as u64;
    println!("{each} bytes a component");
    assert!((100..=600).contains(&each), "{each} bytes a component");
    mirror.check();
}
