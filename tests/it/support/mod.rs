//! What several tests share: scratch systems with a real rpm database, peers, the program itself.
#![allow(dead_code, reason = "each test uses a part")]

pub mod agent;
pub mod authority;
pub mod bulk;
pub mod ca_bundle;
pub mod central;
pub mod core_server;
pub mod dependency_track;
pub mod dnf_history;
pub mod documents;
pub mod fake_agent;
pub mod fixtures;
pub mod fleet_rig;
pub mod headers;
pub mod held;
pub mod http_request;
pub mod https;
pub mod kube_api;
pub mod kubeconfig;
pub mod mirror;
pub mod mirror_rig;
pub mod nats_server;
pub mod old;
pub mod openapi;
pub mod program;
pub mod pull_client;
pub mod rig;
pub mod rpm_root;
pub mod tap;
pub mod tls_front;
pub mod virt_handler;
pub mod web;

use std::time::{Duration, Instant};

/// What can be observed is waited for this long: far longer than it takes on a busy machine.
pub const LONGEST_WAIT: Duration = Duration::from_secs(90);

/// Looks again and again until there is something to see.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    eventually_or(look, || panic!("waited in vain until {what}"))
}

/// The same, with a better explanation.
pub fn eventually_or<T>(mut look: impl FnMut() -> Option<T>, explain: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    while start.elapsed() < LONGEST_WAIT {
        if let Some(seen) = look() {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    explain()
}
