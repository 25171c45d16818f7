//! The fleet over HTTP: questions for programs, and a page for people. Read only, and never on the port of the
//! metrics.
//!
//! ```text
//! listener ──► host ──► request ──► access ──► answer
//!              a name    ApiCall     session    of one snapshot, made beside the loop,
//!              of ours?              or token   or changes as they come
//! ```
//!
//! - The inventory of all tenants is for those who log in: `afferent fleet login` prints an address that works
//!   once and opens a session; programs show the token of a file. Only the files of the page are for everybody.
//! - Everything is bounded: connections, requests, questions at a time, streams, sessions.
//! - Nothing here ends the sensor: a fault is told in the log and in `status`, and the listener goes on.

mod access;
mod answer;
pub(super) mod health;
mod host;
mod latency;
mod login;
mod request;
mod respond;
mod secret;
mod stream;
mod token;

use super::questions::FleetQuestions;
use crate::listen::{HttpAddress, HttpListener};
use crate::transport::{CertificateFiles, WebTls};
use access::Access;
use health::ApiHealth;
use respond::Responder;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between the end of a listener that failed and the next one.
const AGAIN: Duration = Duration::from_secs(1);

/// Where the fleet is answered for over HTTP, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetListen {
    /// Where.
    pub address: HttpAddress,
    /// The certificate, needed unless the address is this machine's alone.
    pub tls: Option<CertificateFiles>,
    /// The token of programs; without one there is no access for them.
    pub token_file: Option<PathBuf>,
    /// Further names of this server.
    pub hosts: Vec<String>,
}

impl FleetListen {
    /// Whether an operator may give this server this name.
    pub fn is_host(text: &str) -> bool {
        host::is_name(text)
    }
}

/// A bound listener, and who may ask.
pub(super) struct FleetApi {
    listener: Arc<HttpListener>,
    access: Arc<Access>,
    health: Arc<ApiHealth>,
    config: FleetListen,
}

impl FleetApi {
    /// Binds the address and reads the files.
    ///
    /// # Errors
    /// One of them cannot be used; says which one.
    pub(super) async fn bind(config: &FleetListen) -> Result<Self, String> {
        let tls = config.tls.clone().map(WebTls::load).transpose();
        let tls = tls.map_err(|error| format!("--fleet-tls-cert: {error}"))?;
        let access = Access::new(config)?;
        let listener = HttpListener::bind(&config.address, tls).await;
        let listener =
            listener.map_err(|error| format!("--fleet-listen {}: {error}", config.address))?;
        let api = Self {
            listener: Arc::new(listener),
            access: Arc::new(access),
            health: Arc::default(),
            config: config.clone(),
        };
        tracing::info!(address = api.address(), "fleet API");
        Ok(api)
    }

    /// How the listener is, for `status`.
    pub(super) fn health(&self) -> Arc<ApiHealth> {
        self.health.clone()
    }

    /// Answers `afferent fleet login`.
    pub(super) fn doorkeeper(&self) -> Doorkeeper {
        Doorkeeper {
            access: self.access.clone(),
            address: self.address(),
        }
    }

    /// The address that people open.
    fn address(&self) -> String {
        let scheme = match self.listener.has_tls() {
            true => "https",
            false => "http",
        };
        let port = self.listener.address().map(|address| address.port());
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        let name = match (self.config.hosts.first(), self.listener.address()) {
            (Some(name), _) if name.contains(':') => format!("[{name}]"),
            (Some(name), _) => name.clone(),
            (None, Some(at)) if at.is_ipv6() && !at.ip().is_unspecified() => {
                format!("[{}]", at.ip())
            }
            (None, Some(at)) if !at.ip().is_unspecified() => at.ip().to_string(),
            (None, _) => "localhost".to_owned(),
        };
        format!("{scheme}://{name}{port}/")
    }

    /// Answers until it is dropped.
    pub(super) async fn run(self, questions: FleetQuestions) {
        let responder = Responder::new(
            questions,
            self.access,
            self.health.clone(),
            self.listener.has_tls(),
        );
        let responder = Arc::new(responder);
        let mut running = JoinSet::new();
        loop {
            running.spawn(self.listener.clone().serve(responder.clone()));
            let ended = loop {
                tokio::select! {
                    ended = running.join_next() => break ended,
                    () = tokio::time::sleep(latency::NOTE_EVERY) => responder.note_latency(),
                }
            };
            if let Some(Err(error)) = ended {
                tracing::error!(%error, "the listener of the fleet API failed; it begins anew");
                self.health.failed(&error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Lets people in.
pub(super) struct Doorkeeper {
    access: Arc<Access>,
    address: String,
}

impl Doorkeeper {
    /// An address that opens a session, once.
    pub(super) fn login(&self) -> Value {
        match self.access.issue() {
            Ok(code) => json!({
                "address": format!("{}login?code={}", self.address, code.text()),
                "expires_in_s": login::CODE_LIFE.as_secs(),
            }),
            Err(error) => json!({ "error": error, "is_usage": false }),
        }
    }
}
