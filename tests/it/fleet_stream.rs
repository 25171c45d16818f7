//! The fleet API of a real sensor while guests change: the stream over reconnections, pages, and every parameter.

use crate::support::eventually;
use crate::support::fleet_rig::FleetRig;
use crate::support::web::{TOKEN, assert_refused, bearer, session};
use serde_json::Value;
use std::sync::atomic::{AtomicBool, Ordering};

/// The loss: a change that nobody saw, or saw twice, since a browser lost its connection and continued.
#[test]
fn a_client_that_reconnects_in_its_session_gets_every_change_once() {
    const CHANGES: usize = 40;
    let rig = FleetRig::on_tcp(2);
    let browser = session(&rig.web, &rig.state());
    let mut first = rig.web.events("/v1/changes/stream", &browser);
    first.until("retry: ");
    let mut seen: Vec<(u64, Value)> = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..CHANGES {
                let agent = &rig.agents[n % 2];
                let before = agent.now().0;
                agent.install(&format!("package-{n}"));
                // Each in a row of its own: what comes together may be one change.
                eventually("the change is stored", || {
                    let guest = rig.data(&format!("/v1/guests/g{}", n % 2));
                    let report = guest["report"].as_str()?.split_once(':')?.1;
                    (report.parse::<u32>().ok()? > before).then_some(())
                });
            }
        });
        let mut events = first;
        while seen.len() < CHANGES {
            for _ in 0..fastrand::usize(1..6).min(CHANGES - seen.len()) {
                seen.push(events.next());
            }
            // The connection goes, in the middle of whatever is sent.
            drop(events);
            let last = seen.last().unwrap().0;
            events = match seen.len() % 2 {
                0 => rig.web.events(
                    "/v1/changes/stream",
                    &format!("{browser}Last-Event-ID: {last}\r\n"),
                ),
                _ => rig
                    .web
                    .events(&format!("/v1/changes/stream?cursor={last}"), &browser),
            };
        }
    });
    let log = rig.data("/v1/changes");
    let log: Vec<u64> = log["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| change["number"].as_u64().unwrap())
        .collect();
    let numbers: Vec<u64> = seen.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, log);
    assert_eq!(numbers.len(), CHANGES);
}

/// The loss: a guest that no page has, or that two have, since others changed between them.
#[test]
fn pages_give_every_guest_once_while_guests_change() {
    let rig = FleetRig::on_tcp(7);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !is_over.load(Ordering::Relaxed) {
                n += 1;
                let agent = &rig.agents[n % 7];
                agent.install(&format!("package-{n}"));
                let newest = format!("/v1/packages?name=package-{n}");
                eventually("the change", || {
                    let found = rig.data(&newest)["guests"].as_array()?.len();
                    (found == 1).then_some(())
                });
            }
        });
        for target in ["/v1/guests?limit=2", "/v1/packages?name=bash-5.1-1&limit=3"] {
            for _ in 0..10 {
                let (rows, _) = rig.web.pages(target, "guests");
                let seen: Vec<&str> = rows.iter().map(|it| it["vm"].as_str().unwrap()).collect();
                let all: Vec<String> = (0..7).map(|n| format!("g{n}")).collect();
                assert_eq!(seen, all, "{target}");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

/// Values that a parameter does not take, by its schema.
fn bad_values(name: &str, schema: &Value) -> Vec<String> {
    let mut bad = Vec::new();
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("integer"), _) => {
            bad.extend(["x", "-1", "+1", "1.5", "1e3", "99999999999999999999"].map(str::to_owned));
            if let Some(most) = schema["maximum"].as_u64() {
                bad.extend(["0".to_owned(), (most + 1).to_string()]);
            }
        }
        (_, Some("date-time")) => {
            bad.extend(["yesterday", "2026-13-01T00:00:00Z", "1h"].map(str::to_owned));
        }
        (Some("boolean"), _) => bad.extend(["yes", "1", "TRUE"].map(str::to_owned)),
        _ if schema["enum"].is_array() => bad.extend(["nonsense", "%3C", "LT"].map(str::to_owned)),
        _ => {}
    }
    bad.extend(match name {
        "since" => vec!["yesterday".to_owned(), "1x".to_owned(), "-1h".to_owned()],
        "vm" | "id" => vec!["a%20b".to_owned(), "a%2Fb".to_owned(), "a".repeat(129)],
        _ => vec![],
    });
    bad
}

/// The loss: an answer to another question than the one that was asked, since a parameter was misspelt or misread.
#[test]
fn every_parameter_that_is_wrong_is_answered_with_400_and_a_message_that_names_it() {
    let rig = FleetRig::on_tcp(1);
    let description = rig.data("/openapi.json");
    let refused = |target: &str, named: &str| assert_refused(&rig.web, &[(target, 400, named)]);
    let mut checked = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        if !path.starts_with("/v1/") {
            continue;
        }
        let place = path.replace("{id}", "g0");
        let parameters = item["get"]["parameters"].as_array().cloned();
        let parameters = parameters.unwrap_or_default();
        // What must be there beside the one that is wrong.
        let needed = |but: &str| -> String {
            let needed = parameters
                .iter()
                .filter(|it| it["in"] == "query" && it["required"] == true && it["name"] != but);
            needed
                .map(|it| format!("{}=a&", it["name"].as_str().unwrap()))
                .collect()
        };
        refused(&format!("{place}?{}nonsense=1", needed("")), "nonsense");
        for parameter in &parameters {
            let name = parameter["name"].as_str().unwrap();
            let schema = match parameter["schema"].get("anyOf") {
                Some(of) => &of[0],
                None => &parameter["schema"],
            };
            if parameter["in"] == "path" {
                for value in bad_values(name, schema) {
                    let answer = rig.web.get(&path.replace("{id}", &value), &bearer(TOKEN));
                    assert!([400, 404].contains(&answer.code), "{value}: {answer:?}");
                    checked += 1;
                }
                continue;
            }
            let rest = needed(name);
            // `op` means nothing without a version.
            let rest = if name == "op" {
                format!("{rest}version=1&")
            } else {
                rest
            };
            refused(&format!("{place}?{rest}{name}=a&{name}=a"), name);
            refused(&format!("{place}?{rest}{name}=%zz"), name);
            for value in bad_values(name, schema) {
                refused(&format!("{place}?{rest}{name}={value}"), name);
                checked += 1;
            }
            if parameter["required"] == true {
                refused(&format!("{place}?{rest}"), name);
                refused(&format!("{place}?{rest}{name}="), name);
            }
        }
    }
    assert!(checked > 60, "only {checked} values");
    for (target, said) in [
        ("/v1/packages?name=a&op=lt", "belong together"),
        ("/v1/packages?name=a&version=1", "belong together"),
        ("/v1/packages?name=a%20%3C%201", "operator"),
        ("/v1/packages?name=a&op=lt&version=%3A1", "epoch"),
        ("/v1/versions?cursor=x", "cursor"),
        ("/v1/versions?name=a&limit=1", "limit"),
        ("/v1/guests?cursor=a%20b", "cursor"),
        ("/v1/packages?name=a&cursor=a%20b", "cursor"),
        ("/v1/guests/g0?at=1999-01-01T00:00:00Z", "first report"),
    ] {
        refused(target, said);
    }
}
