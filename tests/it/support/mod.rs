//! Peers and helpers that tests share.
#![allow(dead_code, reason = "each test uses a part")]

pub mod central;
pub mod core_server;
pub mod fake_agent;
pub mod mirror;
pub mod program;
pub mod rpm_root;

use std::time::{Duration, Instant};

/// Longest time that anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `look` sees something; gives up after [`PATIENCE`].
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
