//! Pure files: policy and formats, which take `now` as an argument and touch neither a clock, a file, a
//! socket nor a runtime.

use crate::sources::{Source, has_name, sources};

/// Files and folders that are pure.
const PURE: &[&str] = &[
    "clock/backoff.rs",
    "clock/token_bucket.rs",
    "inventory/",
    "kube/budget.rs",
    "kube/event.rs",
    "kube/frame.rs",
    "kube/items.rs",
    "kube/kubeconfig.rs",
    "kube/message.rs",
    "kube/object.rs",
    "kube/refusal.rs",
    "kube/tls_choice.rs",
    "kube/turn.rs",
    "mirror/api/request.rs",
    "mirror/entry/",
    "mirror/plan/",
    "report/",
    "sbom/",
    "sense/api/latency.rs",
    "sense/api/request.rs",
    "sense/deliver/breaker.rs",
    "sense/deliver/outcome.rs",
    "sense/fleet/ids.rs",
    "sense/fleet/query/find.rs",
    "sense/pull/answer.rs",
    "sense/pull/schedule.rs",
    "sense/queue/budgets.rs",
    "sense/queue/policy.rs",
    "sense/queue/queue.rs",
    "sense/queue/rate_limit.rs",
    "sense/queue/rings.rs",
    "sense/queue/settlement.rs",
    "sense/queue/slot.rs",
    "sense/queue/state.rs",
    "serve/rescan.rs",
    "web/host.rs",
    "web/login.rs",
    "web/routes.rs",
    "wire/",
];

/// What a pure file does not name.
const IMPURE: &[&str] = &[
    "async",
    "tokio::",
    "std::fs",
    "TcpStream",
    "UnixStream",
    "std::thread",
    "clock::now",
    "clock::wall_now",
    "WallClock",
    "Instant::now",
    "SystemTime::now",
    "fastrand::",
    "redb::",
];

fn impure(sources: &[Source]) -> Vec<String> {
    let pure = sources.iter().filter(|source| {
        let is_in = |place: &&str| source.name.starts_with(*place);
        PURE.iter().any(is_in) && !is_test(&source.name)
    });
    pure.flat_map(|source| {
        let named = IMPURE.iter().filter(|name| {
            let mut lines = source.code();
            lines.any(|line| has_name(line, name))
        });
        named.map(|name| format!("{} names {name}", source.name))
    })
    .collect()
}

fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.ends_with("properties.rs")
}

#[test]
fn pure_files_touch_neither_clock_nor_file_nor_socket_nor_runtime() {
    let sources = sources();
    for place in PURE {
        let is_there = |source: &Source| source.name.starts_with(place);
        assert!(sources.iter().any(is_there), "{place} is not there");
    }
    let wrong = impure(&sources);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_pure_file_that_reads_a_clock_is_found() {
    for (line, is_wrong) in [
        ("let now = clock::now();", true),
        ("pub async fn f() {}", true),
        ("// clock::now", false),
        ("fn f(now: Instant) {}", false),
    ] {
        let source = Source::made_up("sense/queue/queue.rs", line);
        assert_eq!(!impure(&[source]).is_empty(), is_wrong, "{line}");
    }
}
