//! What commands do beside a running service: they ask it over its control socket, and read its file.

use super::settings::not_opened;
use super::{DONE, Stop, complain};
use crate::clock;
use crate::mirror::{InventoryError, Snapshot};
use crate::telemetry::control;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// The service may be one of systemd, whose socket is in a directory of its own.
const RUNTIME: &str = "/run/afferent/mirror";

/// What the service at the socket of this directory, else of systemd's unit, answers to these words.
pub(super) fn ask(state_dir: &Path, words: &str) -> Result<Value, String> {
    let own = control::socket_of(state_dir);
    let failed =
        |socket: &Path, error| format!("{}: no service answers: {error}", socket.display());
    match control::ask(&own, words) {
        Ok(answer) => return Ok(answer),
        // A service that was killed leaves its socket behind.
        Err(error) if control::is_not_running(&error) => {}
        Err(error) => return Err(failed(&own, error)),
    }
    let of_unit = PathBuf::from(RUNTIME).join(control::SOCKET);
    let answer = control::ask(&of_unit, words);
    answer.map_err(|error| match control::is_not_running(&error) {
        true => format!(
            "no service answers at {} or {}",
            own.display(),
            of_unit.display()
        ),
        false => failed(&of_unit, error),
    })
}

/// Longest wait for a cycle that is being written.
const LONGEST_WRITE: Duration = Duration::from_secs(30);
/// Between two looks whether it is written.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What `mirror.redb` in `state_dir` holds, whether the service runs or not. A cycle writes one type after the
/// other: what a running service has written of one is not read before all of it is there.
pub(super) fn look(state_dir: &Path) -> Result<Snapshot, Stop> {
    if crate::mirror::is_absent(state_dir) {
        // Nothing differs, and all is to be planned; whoever named the wrong directory is told. Who follows the log
        // looks again and again.
        static TOLD: Once = Once::new();
        TOLD.call_once(|| {
            let why = format!(
                "warning: there is no mirror in {}, and it is read as an empty one; --state-dir names another directory",
                state_dir.display()
            );
            let _ = complain(DONE, &why);
        });
    }
    let failed = |error| match error {
        InventoryError::Store(error) => not_opened(&error),
        other => Stop::failed(other),
    };
    let until = clock::now() + LONGEST_WRITE;
    let read = || {
        let snapshot = crate::mirror::look(state_dir).map_err(failed)?;
        let generation = crate::mirror::generation(&snapshot).map_err(failed)?;
        Ok::<_, Stop>((snapshot, generation))
    };
    loop {
        let (snapshot, generation) = read()?;
        // The service says which commit was the last of a cycle after it is read: a newer one may be in between.
        let is_whole = match last_of_cycle(state_dir) {
            Some(whole) => whole == generation,
            // It may have written the rest and stopped before it was asked.
            None => read()?.1 == generation,
        };
        if is_whole {
            return Ok(snapshot);
        }
        if clock::now() >= until {
            let limit = clock::show_duration(LONGEST_WRITE);
            let why = format!(
                "warning: the service writes a cycle for more than {limit}; types that it has written are of that cycle, the others of the one before"
            );
            let _ = complain(DONE, &why);
            return Ok(snapshot);
        }
        drop(snapshot);
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Refuses a directory in which there is no mirror.
pub(super) fn must_exist(state_dir: &Path) -> Result<(), Stop> {
    if !crate::mirror::is_absent(state_dir) {
        return Ok(());
    }
    Err(Stop::failed(format!(
        "there is no mirror in {}: no cycle has run with this directory; --state-dir names another one",
        state_dir.display()
    )))
}

/// Commits that the tables had seen when a cycle ended last, if a service with this directory runs and says so.
fn last_of_cycle(state_dir: &Path) -> Option<u64> {
    let answer = ask(state_dir, "commit").ok()?;
    let of = answer["state_dir"].as_str()?;
    let is_same = std::fs::canonicalize(state_dir).ok()? == Path::new(of);
    answer["generation"].as_u64().filter(|_| is_same)
}
