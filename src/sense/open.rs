//! Opening `sense.redb` at the start of a service, which a command may be reading.
//!
//! `afferent fleet` reads the file itself where no service runs, as after one was killed. A start that comes then waits
//! for the command, and gives up when the file stays in use: another service has it.

use super::{CACHE, DATABASE};
use crate::clock;
use crate::store::{Limits, Opened, Store, StoreError, StoreOptions};
use std::path::Path;
use std::time::Duration;

/// How long a start waits. A command holds the file for one answer, and before it for the repair after a kill.
const LONGEST: Duration = Duration::from_secs(10);

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(50);

/// Opens the database in this directory, or begins it.
///
/// # Errors
/// As of [`Store::open_with`]; a file in use is one after [`LONGEST`].
pub(super) async fn open_store(state_dir: &Path, aside: Limits) -> Result<Opened, StoreError> {
    let options = StoreOptions {
        aside,
        ..StoreOptions::new(CACHE)
    };
    let until = clock::now() + LONGEST;
    let mut is_told = false;
    loop {
        match Store::open_with(state_dir, DATABASE, options) {
            Err(StoreError::InUse { path }) if clock::now() < until => {
                if !is_told {
                    tracing::info!(path = %path.display(), "the database is in use: waiting for whoever reads it");
                    is_told = true;
                }
                tokio::time::sleep(AGAIN).await;
            }
            opened => return opened,
        }
    }
}
