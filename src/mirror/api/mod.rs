//! The inventory over HTTP: questions for programs, and a page for people. Who may ask is of [`crate::web`].
//!
//! ```text
//! request ──► MirrorCall ──► respond, of the commit before the cycle that runs, made beside the loop
//! ```
//!
//! Everything is bounded: connections, questions at a time, rows of an answer, rows that are looked at for one.

mod request;
mod respond;

use super::cycle_snapshot::CycleSnapshot;
use super::metrics::Metrics;
use super::query::ByComponent;
use super::status::Status;
use super::{InventoryError, Snapshot, generation};
use crate::blocking::Blocking;
use crate::telemetry::control;
use crate::web::{WebName, WebServer};
use respond::MirrorApp;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What the page is called.
pub(super) const NAME: WebName = WebName {
    command: "mirror",
    service: "mirror",
};

/// What questions are answered from.
#[derive(Clone)]
pub(super) struct Questions {
    pub(super) snapshot: Arc<CycleSnapshot>,
    pub(super) status: Arc<Status>,
    pub(super) metrics: Arc<Metrics>,
    /// What a command needs to reach this service: nothing, or ` --state-dir DIR`.
    pub(super) reach: String,
    pub(super) blocking: Blocking,
    /// What the tables have no index for, of the commit that was asked about last.
    pub(super) by_component: Arc<Mutex<Option<Arc<ByComponent>>>>,
}

impl Questions {
    /// BMCs and drift rows by component: read once a commit, and not for every question.
    fn by_component(&self, snapshot: &Snapshot) -> Result<Arc<ByComponent>, InventoryError> {
        let known = self.by_component.lock();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        let generation = generation(snapshot)?;
        if let Some(found) = known.as_ref().filter(|of| of.generation() == generation) {
            return Ok(found.clone());
        }
        // What is of no use any more goes before the next takes as much.
        *known = None;
        let read = Arc::new(ByComponent::read(snapshot)?);
        *known = Some(read.clone());
        Ok(read)
    }
}

/// Answers until it is dropped.
pub(super) async fn run(server: WebServer, questions: Questions) {
    let app = MirrorApp::new(questions, server.health());
    server.run(Arc::new(app)).await;
}

/// Directories in which a command finds a service by itself.
const USUAL: [&str; 2] = ["/run/afferent/mirror", "/var/lib/afferent"];

/// What a command needs to reach the service with this state directory: nothing, or ` --state-dir DIR`.
pub(super) fn reach(state_dir: &Path) -> String {
    let socket = control::socket_of(state_dir);
    let directory = socket.parent().unwrap_or(state_dir);
    if USUAL.iter().any(|usual| directory == Path::new(usual)) {
        return String::new();
    }
    let directory = state_dir.display().to_string();
    format!(" --state-dir '{}'", directory.replace('\'', r"'\''"))
}
