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
        let line = format!("{:>9}.{:03} {actor:<10} {event}", ms / 1000, ms % 1000);
        self.lines.lock().unwrap().push(line);
    }

    /// The last events that name one of these actors.
    pub(crate) fn last_of(&self, actors: &[&str], most: usize) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let named = |line: &&String| actors.iter().any(|actor| line.contains(actor));
        let found: Vec<_> = lines.iter().filter(named).cloned().collect();
        found[found.len().saturating_sub(most)..].to_vec()
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
