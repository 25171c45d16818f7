//! What commands do beside a running service: they ask it over its control socket, and read its file.

use super::settings::not_opened;
use super::{DONE, Stop, complain};
use crate::clock;
use crate::mirror::{InventoryError, Snapshot};
use crate::telemetry::control;
use serde_json::Value;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

/// The service may be one of systemd, whose socket is in a directory of its own.
const RUNTIME: &str = "/run/afferent/mirror";

/// Asks for the directory of a service, and for the commits that its tables had seen when a cycle ended last.
const COMMIT: &str = "commit";

/// What the service with this state directory answers to these words: at the socket that is in it, else at that of
/// systemd's unit.
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
    let not_asked = |error| match control::is_not_running(&error) {
        true => format!(
            "no service answers at {} or {}",
            own.display(),
            of_unit.display()
        ),
        false => failed(&of_unit, error),
    };
    // The unit may have another directory than the one that was named.
    let commit = control::ask(&of_unit, COMMIT).map_err(not_asked)?;
    let is_other = |of: &&str| match std::fs::canonicalize(state_dir) {
        Ok(named) => named != Path::new(of),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if let Some(of) = commit["state_dir"].as_str().filter(is_other) {
        return Err(format!(
            "no service answers at {}; the one at {} has its mirror in {of}",
            own.display(),
            of_unit.display()
        ));
    }
    control::ask(&of_unit, words).map_err(not_asked)
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
    ask(state_dir, COMMIT).ok()?["generation"].as_u64()
}
