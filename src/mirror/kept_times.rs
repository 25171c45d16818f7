//! When each list was last read whole and written, kept beside the store: what is stale stays so after a restart.
//!
//! A small file that a rename puts in place, once a minute at most. It is not synced: the next whole cycle says the
//! same anew, and all that a power failure takes is an age. A file that is of another store, or of what a store was
//! before it was put back from a backup, says nothing.

use crate::clock::WallTime;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Name of the file in the state directory.
const NAME: &str = "mirror.complete.json";
/// Shortest time between two writes.
const BETWEEN: Duration = Duration::from_secs(60);

/// Times by list.
pub(super) type CompleteTimes = BTreeMap<String, WallTime>;

/// The file of one mirror.
pub(super) struct KeptTimes {
    path: PathBuf,
    /// When it was written last.
    written: Mutex<Option<WallTime>>,
}

impl KeptTimes {
    /// In this state directory.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(NAME),
            written: Mutex::default(),
        }
    }

    /// What was kept of a store that has seen `generation` commits since.
    pub(super) fn read(&self, generation: u64) -> CompleteTimes {
        let text = std::fs::read(&self.path).unwrap_or_default();
        let kept: Value = serde_json::from_slice(&text).unwrap_or_default();
        if kept["generation"].as_u64().is_none_or(|of| of > generation) {
            return CompleteTimes::new();
        }
        let lists = kept["complete"].as_object().into_iter().flatten();
        let times = lists.filter_map(|(list, at)| Some((list.clone(), at.as_str()?.parse().ok()?)));
        times.collect()
    }

    /// Keeps the times, unless that was done a moment ago.
    pub(super) fn keep(&self, times: &CompleteTimes, generation: u64, now: WallTime) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if times.is_empty() || written.is_some_and(|at| at <= now && now.since(at) < BETWEEN) {
            return;
        }
        let times = times.iter().map(|(list, at)| (list, at.to_string()));
        let times: BTreeMap<&String, String> = times.collect();
        let text = json!({"generation": generation, "complete": times}).to_string();
        let new = self.path.with_extension("json.new");
        let kept = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.path));
        match kept {
            Ok(()) => *written = Some(now),
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "not kept: after a restart nobody knows how old the lists are");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_once_a_minute_and_for_the_store_they_are_of() {
        let directory = tempfile::tempdir().unwrap();
        let at = |seconds: u64| WallTime::from_unix_ms(seconds * 1000);
        let times = |seconds: u64| CompleteTimes::from([("rack".to_owned(), at(seconds))]);
        let kept = KeptTimes::new(directory.path());
        assert_eq!(kept.read(9), CompleteTimes::new());
        kept.keep(&times(100), 7, at(100));
        kept.keep(&times(159), 7, at(159));
        let again = KeptTimes::new(directory.path());
        assert_eq!(again.read(7), times(100));
        kept.keep(&times(160), 8, at(160));
        assert_eq!(again.read(8), times(160));
        assert_eq!(again.read(9), times(160));
        assert_eq!(again.read(7), CompleteTimes::new(), "an older store");
        // A clock that went back does not stop it.
        kept.keep(&times(50), 8, at(50));
        assert_eq!(again.read(8), times(50));
        std::fs::write(directory.path().join(NAME), "{").unwrap();
        assert_eq!(again.read(8), CompleteTimes::new());
    }
}
