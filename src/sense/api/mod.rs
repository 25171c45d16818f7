//! The fleet over HTTP: questions for programs, and a page for people. Who may ask is of [`crate::web`].
//!
//! ```text
//! request ──► ApiCall ──► respond, of one snapshot, made beside the loop
//!                     └─► stream, changes as they come
//! ```
//!
//! Everything is bounded: connections, requests, questions at a time, streams, sessions.

mod latency;
mod request;
mod respond;
mod stream;

use super::questions::FleetQuestions;
use crate::web::{Doorkeeper, WebHealth, WebListen, WebName, WebServer};
use respond::FleetApp;
use serde_json::{Value, json};
use std::sync::Arc;

/// What the page is called.
const NAME: WebName = WebName {
    command: "fleet",
    service: "sensor",
};

/// A bound listener.
pub(super) struct FleetApi(WebServer);

impl FleetApi {
    /// Binds the address and reads the files.
    ///
    /// # Errors
    /// One of them cannot be used; says which one.
    pub(super) async fn bind(config: &WebListen) -> Result<Self, String> {
        WebServer::bind(NAME, config).await.map(Self)
    }

    /// How the listener is, for `status`.
    pub(super) fn health(&self) -> Arc<WebHealth> {
        self.0.health()
    }

    /// Answers `afferent fleet login`.
    pub(super) fn doorkeeper(&self) -> Doorkeeper {
        self.0.doorkeeper()
    }

    /// Answers until it is dropped.
    pub(super) async fn run(self, questions: FleetQuestions) {
        let app = Arc::new(FleetApp::new(questions, self.health()));
        let noted = app.clone();
        let note = async move {
            loop {
                tokio::time::sleep(latency::NOTE_EVERY).await;
                noted.note_latency();
            }
        };
        tokio::join!(self.0.run(app), note);
    }
}

/// An address for the browser of who asks on the control socket, where there is a page.
pub(super) fn login(doorkeeper: Option<&Doorkeeper>, user: Option<u32>) -> Value {
    let answer = match doorkeeper {
        None => Err("this sensor has no page; its setting `fleet_listen` gives it one"),
        Some(doorkeeper) => doorkeeper.login(user),
    };
    answer.unwrap_or_else(|error| json!({ "error": error, "is_usage": false }))
}

#[cfg(test)]
mod tests;
