//! What happened, in virtual time: printed when a seed fails.

use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// Events in order: time, actor, event.
#[derive(Clone)]
pub(crate) struct Trace {
    started: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            lines: Arc::default(),
        }
    }

    /// Something happened.
    pub(crate) fn event(&self, actor: &str, event: &str) {
        let ms = self.started.elapsed().as_millis();
        let (s, ms) = (ms / 1000, ms % 1000);
        let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
        let line = format!("{h:>3}:{m:02}:{s:02}.{ms:03} {actor:<9} {event}");
        self.lines.lock().unwrap().push(line);
    }

    /// The last events that concern this actor: those that name it, and those of no guest.
    pub(crate) fn last_of(&self, actor: &str, most: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let names = |line: &str, name: &str| {
            line.split(|c: char| !c.is_alphanumeric() && c != '-')
                .any(|word| word == name)
        };
        let concerns = |line: &&String| {
            names(line, actor) || !line.contains("vm-") || actor.starts_with("sensor")
        };
        let found: Vec<_> = lines.iter().filter(concerns).cloned().collect();
        found[found.len().saturating_sub(most)..].to_vec()
    }

    /// Everything.
    pub(crate) fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// A number that two equal runs share.
    pub(crate) fn hash(&self) -> u64 {
        let lines = self.lines.lock().unwrap();
        let bytes = lines.iter().flat_map(|line| line.bytes());
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}
