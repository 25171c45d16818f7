//! What Core's REST interface may do wrong, and that nothing is lost by it.
//!
//! Every fault leaves what is stored as it was, says so with exit code 1, and ends in time.

use crate::support::core_server::{Answer, CoreServer, Request, page, status};
use crate::support::mirror::{Mirror, Ran, finish, without_times};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LIST: &str = "expected-machine";
/// The site that is asked for, and another.
const SITE: &str = "5a1e0000-0000-4000-8000-000000000001";
const OTHER_SITE: &str = "5a1e0000-0000-4000-8000-000000000002";

/// A machine as Core has it.
fn machine(n: u8) -> Value {
    json!({"id": format!("entry-{n}"), "siteId": SITE, "bmcMacAddress": format!("02:00:5e:40:00:{n:02x}"),
           "chassisSerialNumber": format!("MC-{n}"), "manufacturer": "Foxwell", "name": format!("node-{n}"),
           "bmcUsername": "root", "bmcPassword": "never-to-be-stored"})
}

/// Two machines that are stored, and what a test does to the server that knows them.
struct Fleet {
    mirror: Mirror,
    token: std::path::PathBuf,
}

impl Fleet {
    fn new() -> Self {
        let mirror = Mirror::new();
        let token = mirror.path("token");
        std::fs::write(&token, "the-token\n").unwrap();
        let fleet = Self { mirror, token };
        let core = CoreServer::start(|request| match request.path.ends_with(LIST) {
            true => page(&json!([machine(1), machine(2)]), 2),
            false => page(&json!([]), 0),
        });
        let ran = fleet.run(&core.url, &[]);
        assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
        fleet
    }

    fn run(&self, url: &str, more: &[&str]) -> Ran {
        let token = self.token.to_str().unwrap();
        let mut arguments = vec!["--org", "org one", "--site-id", SITE, "--token-file", token];
        arguments.extend(["--request-deadline", "2s", "--connect-timeout", "1s"]);
        arguments.extend(more);
        let mut all = vec!["run", "--once", "--json", "--core", url];
        all.extend(arguments);
        let mut command = self.mirror.command(&all);
        // Nothing is said that must not be, however much is asked for.
        let ran = finish(&command.env("AFFERENT_LOG", "trace").output().unwrap());
        for secret in ["the-token", "never-to-be-stored"] {
            assert!(
                !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                "{secret} was said"
            );
        }
        ran
    }

    /// Runs against a server that answers for machines like this; nothing may change.
    fn survives(
        &self,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> (Ran, CoreServer) {
        let core = CoreServer::start(move |request| match request.path.ends_with(LIST) {
            true => answer(request),
            false => page(&json!([]), 0),
        });
        let before = without_times(&self.mirror.dump());
        let begin = Instant::now();
        let ran = self.run(&core.url, &[]);
        assert!(
            begin.elapsed() < Duration::from_secs(60),
            "took {:?}",
            begin.elapsed()
        );
        assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.codes("errors"), ["pull_failed:Compute"]);
        assert_eq!(without_times(&self.mirror.dump()), before);
        (ran, core)
    }

    fn live(&self) -> usize {
        let dump = self.mirror.dump();
        let rows = dump["component"].as_array().unwrap();
        rows.iter()
            .filter(|row| row["deleted_at"].is_null())
            .count()
    }
}

#[test]
fn questions_are_asked_as_core_wants_them() {
    let fleet = Fleet::new();
    let core = CoreServer::start(|_| page(&json!([]), 0));
    fleet.run(&core.url, &[]);
    let asked = core.requests_for(LIST);
    let question = asked.first().unwrap();
    assert_eq!(question.path, "/v2/org/org%20one/nico/expected-machine");
    let query = |name: &str| question.query.get(name).map(String::as_str);
    assert_eq!(query("siteId"), Some(SITE));
    assert_eq!(
        (query("pageNumber"), query("pageSize")),
        (Some("1"), Some("100"))
    );
    assert_eq!(query("orderBy"), Some("BMC_MAC_ADDRESS_ASC"));
    let racks = core.requests_for("expected-rack");
    assert_eq!(racks[0].query["orderBy"], "RACK_ID_ASC");
    assert_eq!(question.headers["authorization"], "Bearer the-token");
}

#[test]
fn nobody_listening_fails_every_type_and_changes_nothing() {
    let fleet = Fleet::new();
    let before = fleet.mirror.dump();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let ran = fleet.run(&format!("http://127.0.0.1:{port}"), &[]);
    assert_eq!(ran.code, Some(1));
    assert_eq!(ran.codes("errors").len(), 5, "four lists and the devices");
    assert_eq!(fleet.mirror.dump(), before);
}

#[test]
fn an_answer_that_cannot_be_used_changes_nothing() {
    let html = b"<html>Sign in</html>".to_vec();
    let cut = json!([machine(1)]).to_string().into_bytes();
    let truncated = cut[..cut.len() - 9].to_vec();
    let answers: [(&str, Answer); 6] = [
        ("HTML with 200", Answer::Plain(200, Vec::new(), html)),
        ("truncated JSON", Answer::Plain(200, Vec::new(), truncated)),
        ("no content", status(204)),
        ("an object", Answer::Plain(200, Vec::new(), b"{}".to_vec())),
        ("silence", Answer::Silence),
        ("100 MiB", Answer::Huge(100 << 20)),
    ];
    let fleet = Fleet::new();
    for (what, answer) in answers {
        let (ran, core) = fleet.survives(move |_| answer.clone());
        assert_eq!(
            core.requests_for(LIST).len(),
            1,
            "{what} is not asked for twice"
        );
        assert!(!ran.stderr.contains("panicked"), "{what}: {}", ran.stderr);
    }
}

/// A reset, or a proxy that gives up in the middle: asking changes nothing, so it is done again.
#[test]
fn an_answer_that_breaks_off_is_asked_for_again() {
    let fleet = Fleet::new();
    let cut = json!([machine(1)]).to_string().into_bytes();
    let (ran, core) = fleet.survives(move |_| Answer::CutOff(cut.clone()));
    assert_eq!(core.requests_for(LIST).len(), 3);
    let message = ran.summary["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("broke off"), "{message}");
    let asked = AtomicUsize::new(0);
    let core = CoreServer::start(move |request| {
        let whole = json!([machine(1), machine(2)]);
        match request.path.ends_with(LIST) {
            true if asked.fetch_add(1, Ordering::Relaxed) == 0 => {
                Answer::CutOff(whole.to_string().into_bytes())
            }
            true => page(&whole, 2),
            false => page(&json!([]), 0),
        }
    });
    let ran = fleet.run(&core.url, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
}

#[test]
fn a_body_that_trickles_past_the_deadline_is_given_up() {
    let fleet = Fleet::new();
    fleet.survives(|_| {
        Answer::Slowly(
            200,
            Vec::new(),
            vec![b' '; 1000],
            Duration::from_millis(100),
        )
    });
}

#[test]
fn what_asking_again_cannot_mend_is_asked_once() {
    let fleet = Fleet::new();
    for code in [400, 403, 404] {
        let (ran, core) = fleet.survives(move |_| {
            let said = json!({"source": "nico", "message": "no\u{7} you may not", "data": null});
            Answer::Plain(code, Vec::new(), said.to_string().into_bytes())
        });
        assert_eq!(core.requests_for(LIST).len(), 1);
        let message = ran.summary["errors"][0]["message"].as_str().unwrap();
        assert!(
            message.contains(&code.to_string()) && message.contains("you may not"),
            "{message}"
        );
        assert!(code != 403 || message.contains("role"), "{message}");
    }
}

#[test]
fn a_server_in_trouble_is_asked_three_times() {
    let fleet = Fleet::new();
    for code in [500, 502, 503, 504] {
        let (_, core) = fleet.survives(move |_| status(code));
        assert_eq!(core.requests_for(LIST).len(), 3, "{code}");
    }
}

#[test]
fn a_server_that_asks_for_patience_longer_than_the_deadline_is_left_alone() {
    let fleet = Fleet::new();
    let (_, core) = fleet
        .survives(|_| Answer::Plain(429, vec![("Retry-After".into(), "30".into())], Vec::new()));
    assert_eq!(core.requests_for(LIST).len(), 1);
}

#[test]
fn a_new_token_is_read_when_the_old_one_is_refused() {
    let fleet = Fleet::new();
    let token = fleet.token.clone();
    let core = CoreServer::start(move |request| {
        if request.headers["authorization"] == "Bearer the-new-token" {
            let machines = if request.path.ends_with(LIST) {
                json!([machine(1), machine(2)])
            } else {
                json!([])
            };
            let total = machines.as_array().unwrap().len() as u64;
            return page(&machines, total);
        }
        // Whoever rotates tokens does it just now.
        std::fs::write(&token, "the-new-token").unwrap();
        status(401)
    });
    let ran = fleet.run(&core.url, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert_eq!(core.requests_for("expected-rack").len(), 2);
    assert_eq!(core.requests_for(LIST).len(), 1, "the new token is kept");
}

#[test]
fn a_token_that_stays_wrong_is_tried_twice_and_never_repeated() {
    let fleet = Fleet::new();
    let (ran, core) = fleet.survives(|request| {
        // A server may even say it back.
        let said = json!({"message": format!("bad {}", request.headers["authorization"])});
        Answer::Plain(401, Vec::new(), said.to_string().into_bytes())
    });
    assert_eq!(core.requests_for(LIST).len(), 2);
    assert!(ran.stdout.contains("***"), "{}", ran.stdout);
    let audit = fleet.mirror.audit().to_string();
    assert!(!audit.contains("the-token") && !audit.contains("never-to-be-stored"));
    let file = std::fs::read(fleet.mirror.state().join("mirror.redb")).unwrap();
    let holds = |secret: &[u8]| file.windows(secret.len()).any(|bytes| bytes == secret);
    assert!(holds(b"Foxwell"), "the search finds what is there");
    assert!(!holds(b"the-token") && !holds(b"never-to-be-stored"));
}

#[test]
fn a_redirect_to_another_host_takes_no_token_there() {
    let fleet = Fleet::new();
    let elsewhere = CoreServer::start(|_| page(&json!([]), 0));
    // The same address by another name, and another port: neither is where the token belongs.
    let location = format!("{}/here", elsewhere.url.replace("127.0.0.1", "localhost"));
    fleet.survives(move |_| {
        Answer::Plain(302, vec![("Location".into(), location.clone())], Vec::new())
    });
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_total_that_moves_is_pulled_again_and_then_believed() {
    let fleet = Fleet::new();
    let asked = AtomicUsize::new(0);
    let core = CoreServer::start(move |request| {
        if !request.path.ends_with(LIST) {
            return page(&json!([]), 0);
        }
        let many = |from: u8, to: u8| Value::from_iter((from..to).map(machine));
        match (
            asked.fetch_add(1, Ordering::Relaxed),
            request.query["pageNumber"].as_str(),
        ) {
            (0, "1") => page(&many(0, 100), 150),
            (1, "2") => page(&many(100, 150), 149),
            (_, "1") => page(&many(0, 100), 149),
            _ => page(&many(100, 149), 149),
        }
    });
    let ran = fleet.run(&core.url, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(ran.codes("warnings").is_empty());
    assert_eq!(fleet.live(), 149);
    assert_eq!(core.requests_for(LIST).len(), 4);
}

#[test]
fn pages_that_never_fit_together_update_and_delete_nothing() {
    // Another total every time; an entry on two pages; fewer entries than there should be.
    let torn: [fn(usize) -> Answer; 3] = [
        |asked| page(&json!([machine(1), machine(3)]), 90 + asked as u64),
        |_| page(&json!([machine(1), machine(1)]), 2),
        |_| page(&json!([machine(1)]), 2),
    ];
    for answer in torn {
        let fleet = Fleet::new();
        let asked = Mutex::new(0);
        let core = CoreServer::start(move |request| {
            if !request.path.ends_with(LIST) {
                return page(&json!([]), 0);
            }
            let mut asked = asked.lock().unwrap();
            *asked += 1;
            answer(*asked)
        });
        let ran = fleet.run(&core.url, &["--max-deletes", "100"]);
        assert!(
            ran.codes("warnings")
                .contains(&"pagination_inconsistent".to_owned()),
            "{}",
            ran.stdout
        );
        assert_eq!(ran.summary["incomplete"], json!(["Compute"]));
        assert_eq!((ran.code, ran.codes("errors").len()), (Some(1), 0));
        assert!(fleet.live() >= 2, "nothing was deleted");
        assert_eq!(core.requests_for(LIST).len() % 2, 0, "pulled twice");
    }
}

#[test]
fn entries_of_another_site_are_ignored_and_nothing_is_deleted() {
    let fleet = Fleet::new();
    let core = CoreServer::start(|request| {
        if !request.path.ends_with(LIST) {
            return page(&json!([]), 0);
        }
        let mut foreign = machine(9);
        foreign["siteId"] = json!(OTHER_SITE);
        page(&json!([machine(1), foreign]), 2)
    });
    let ran = fleet.run(&core.url, &[]);
    assert_eq!(ran.codes("warnings"), ["foreign_site_row"]);
    assert_eq!(fleet.live(), 2);
}

/// A rack_id means something within one site only: lists of two sites cannot be told apart.
#[test]
fn lists_of_two_sites_without_a_site_id_write_nothing() {
    let machine_of = |site: &str| {
        let mut machine = machine(2);
        machine["siteId"] = json!(site);
        machine
    };
    for (list, entry) in [
        ("expected-switch", machine_of(OTHER_SITE)),
        ("machine", json!({"id": "m-1", "siteId": OTHER_SITE})),
    ] {
        let mirror = Mirror::new();
        let core = CoreServer::start(move |request| match request.path.rsplit('/').next() {
            Some("expected-rack") => page(
                // The same site in another case is the same site.
                &json!([{"id": "r", "siteId": SITE.to_uppercase(), "rackId": "r", "name": "r",
                "labels": {"chassis.manufacturer": "Q", "chassis.serial-number": "1"}}]),
                1,
            ),
            Some("expected-machine") => page(&json!([machine(1)]), 1),
            Some(other) if other == list => page(&json!([entry]), 1),
            _ => page(&json!([]), 0),
        });
        let rest = ["--org", "o", "--profile", "host-mac"];
        let ran = mirror.run_from(&core.url, &rest);
        assert_eq!(ran.code, Some(1), "{}", ran.stdout);
        assert_eq!(ran.codes("errors"), ["several_sites"]);
        let message = ran.summary["errors"][0]["message"].as_str().unwrap();
        assert!(
            message.contains(OTHER_SITE) && message.contains("--site-id"),
            "{message}"
        );
        for (table, rows) in mirror.dump().as_object().unwrap() {
            assert_eq!(rows, &json!([]), "{table}");
        }
        assert_eq!(mirror.audit(), json!([]));
    }
}

#[test]
fn a_site_id_that_is_no_uuid_is_a_usage_error_and_nobody_is_asked() {
    let mirror = Mirror::new();
    let core = CoreServer::start(|_| page(&json!([]), 0));
    for id in [
        "x",
        "5a1e00000000400080000000000000aa",
        "{5a1e0000-0000-4000-8000-000000000001}",
    ] {
        let ran = mirror.run_from(&core.url, &["--org", "o", "--site-id", id]);
        assert_eq!(ran.code, Some(2), "{id}: {}", ran.stderr);
        assert!(ran.stderr.contains("site-id"), "{}", ran.stderr);
    }
    assert!(core.requests().is_empty());
}

/// A total is a number that somebody counted before the pages were read.
#[test]
fn a_list_ends_at_a_short_page_and_not_at_its_total() {
    let fleet = Fleet::new();
    let many = |from: u8, to: u8| Value::from_iter((from..to).map(machine));
    // Two full pages and a total that fits: the third page shows that there is no more.
    let core = CoreServer::start(move |request| {
        let number = request.query.get("pageNumber").map(String::as_str);
        match (request.path.ends_with(LIST), number) {
            (true, Some("1")) => page(&many(0, 100), 200),
            (true, Some("2")) => page(&many(100, 200), 200),
            (true, _) => page(&json!([]), 200),
            _ => page(&json!([]), 0),
        }
    });
    let ran = fleet.run(&core.url, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert_eq!((fleet.live(), core.requests_for(LIST).len()), (200, 3));
    // A total that is too small: half of the fleet would be deleted.
    let core = CoreServer::start(move |request| {
        let number = request.query.get("pageNumber").map(String::as_str);
        match (request.path.ends_with(LIST), number) {
            (true, Some("1")) => page(&many(0, 100), 100),
            (true, Some("2")) => page(&many(100, 199), 100),
            _ => page(&json!([]), 0),
        }
    });
    let ran = fleet.run(&core.url, &["--max-deletes", "1000"]);
    assert_eq!(ran.codes("warnings"), ["pagination_inconsistent"]);
    assert_eq!((ran.code, fleet.live()), (Some(1), 200));
}

/// Core's limiter lets a number of requests through at once, then some a second, and says nothing about
/// when to come back.
#[test]
fn a_rate_limit_without_retry_after_is_survived() {
    let fleet = Fleet::new();
    let tokens = Mutex::new((5.0, Instant::now()));
    let core = CoreServer::start(move |request| {
        let mut tokens = tokens.lock().unwrap();
        let refill = tokens.1.elapsed().as_secs_f64() * 10.0;
        *tokens = ((tokens.0 + refill).min(5.0), Instant::now());
        if tokens.0 < 1.0 {
            return status(429);
        }
        tokens.0 -= 1.0;
        let number: u32 = request.query["pageNumber"].parse().unwrap();
        if !request.path.ends_with(LIST) {
            return page(&json!([]), 0);
        }
        let first = (number - 1) * 100;
        let machines = (first..(first + 100).min(1950)).map(|n| {
            json!({"id": n.to_string(), "bmcMacAddress": format!("02:00:5e:41:{:02x}:{:02x}", n >> 8, n & 255),
                   "chassisSerialNumber": format!("MC-{n}"), "manufacturer": "Foxwell"})
        });
        page(&machines.collect(), 1950)
    });
    let ran = fleet.run(&core.url, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let refused = core.requests().len() - 24;
    assert!(refused > 0, "the limiter never refused anything");
    assert_eq!(ran.summary["types"]["Compute"]["pulled"], 1950);
}

/// One deadline for everything: each answer comes in time, all of them together do not.
#[test]
fn lists_that_take_longer_than_the_deadline_for_all_fail_and_change_nothing() {
    let fleet = Fleet::new();
    let before = without_times(&fleet.mirror.dump());
    let core = CoreServer::start(|request| {
        let number: u8 = request.query["pageNumber"].parse().unwrap();
        if !request.path.ends_with(LIST) || number > 200 {
            return page(&json!([]), 0);
        }
        // The pace is the behaviour under test; the list would take a minute.
        std::thread::sleep(Duration::from_millis(300));
        let entry = |n: u8| json!({"id": format!("{number}-{n}"), "bmcMacAddress": format!("02:00:5e:42:{number:02x}:{n:02x}")});
        page(&Value::from_iter((0..100).map(entry)), 20_000)
    });
    let begin = Instant::now();
    let ran = fleet.run(&core.url, &["--core-deadline", "2s"]);
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    let failed = ["NVSwitch", "PowerShelf"].map(|kind| format!("pull_failed:{kind}"));
    let failed: Vec<String> = std::iter::once("pull_failed:Compute".to_owned())
        .chain(failed)
        .chain(["pull_failed:drift:Compute".to_owned()])
        .collect();
    assert_eq!(ran.codes("errors"), failed);
    let message = ran.summary["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("--core-deadline 2s"), "{message}");
    assert_eq!(without_times(&fleet.mirror.dump()), before);
}

#[test]
fn a_list_longer_than_its_cap_fails_and_names_the_setting() {
    let fleet = Fleet::new();
    let (ran, _) = {
        let core = CoreServer::start(|request| {
            let number: u8 = request.query["pageNumber"].parse().unwrap();
            if !request.path.ends_with(LIST) {
                return page(&json!([]), 0);
            }
            let text = "x".repeat(2000);
            let entry = |n: u8| json!({"id": format!("{number}-{n}"), "description": text});
            page(&Value::from_iter((0..100).map(entry)), 20_000)
        });
        (fleet.run(&core.url, &["--core-list-cap", "1"]), core)
    };
    assert_eq!(ran.codes("errors"), ["pull_failed:Compute"]);
    let message = ran.summary["errors"][0]["message"].as_str().unwrap();
    assert!(message.contains("--core-list-cap"), "{message}");
    assert_eq!(fleet.live(), 2);
}

#[test]
fn observed_machines_come_from_core_too() {
    let fleet = Fleet::new();
    let core = CoreServer::start(|request| {
        if request.path.ends_with("/machine") {
            let device = json!({"id": "m-1", "serialNumber": "MC-1", "controllerMachineType": "x", "status": "Ready", "health": {},
                "metadata": {"bmcInfo": {"mac": "02:00:5e:40:00:01", "ip": "10.0.0.1", "version": "1", "firmwareRevision": "7.1"}}});
            return page(&json!([device]), 1);
        }
        match request.path.ends_with(LIST) {
            true => page(&json!([machine(1), machine(2)]), 2),
            false => page(&json!([]), 0),
        }
    });
    assert_eq!(fleet.run(&core.url, &[]).code, Some(0));
    let dump = fleet.mirror.dump();
    let rows = dump["component"].as_array().unwrap();
    let observed = rows
        .iter()
        .find(|row| row["serial_number"] == "MC-1")
        .unwrap();
    assert_eq!(
        (&observed["external_id"], &observed["firmware_version"]),
        (&json!("m-1"), &json!("7.1"))
    );
    let drift = dump["component_drift"].as_array().unwrap();
    assert_eq!(drift.len(), 1);
    assert_eq!(drift[0]["drift_type"], "missing_in_actual");
}

/// A document behind an address is worth as much patience as a list.
#[test]
fn a_document_is_asked_for_again_while_its_server_is_in_trouble() {
    let asked = AtomicUsize::new(0);
    let core = CoreServer::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => status(503),
        _ => Answer::Plain(200, Vec::new(), br#"{"expected_racks":[]}"#.to_vec()),
    });
    let mirror = Mirror::new();
    let ran = mirror.run_from(&core.url, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert_eq!(core.requests().len(), 2);
    let gone = CoreServer::start(|_| status(404));
    let ran = mirror.run_from(&gone.url, &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stdout);
    assert_eq!(gone.requests().len(), 1);
}
