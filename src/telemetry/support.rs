//! What a service tells `afferent status --bundle` beside its status: configuration, metrics, and where
//! its files are.

use super::scrape::Health;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The word on the control socket.
pub const WORD: &str = "support";

/// The configuration of this process, as it was read last: a process runs one service.
static CONFIGURATION: Mutex<Value> = Mutex::new(Value::Null);

/// Keeps the configuration that was read: a list of objects with `key`, `values` and `from`.
pub fn set_configuration(configuration: Value) {
    *CONFIGURATION.lock().unwrap_or_else(PoisonError::into_inner) = configuration;
}

/// The answer; paths in it count from `directory`. `configuration` has the addresses as they were given, so whoever passes it on masks them.
pub(super) fn answer(state_dir: &Path, metrics: Option<&dyn Health>) -> Value {
    let configuration = CONFIGURATION.lock().unwrap_or_else(PoisonError::into_inner);
    json!({
        "configuration": *configuration,
        "directory": std::env::current_dir().unwrap_or_default().to_string_lossy(),
        "metrics": metrics.map(Health::metrics),
        "pid": std::process::id(),
        "state_dir": state_dir.to_string_lossy(),
    })
}
