//! The page of a service and its API over HTTP: who may ask, and how a request becomes a question. Read only.
//!
//! ```text
//! listener ──► host ──► routes ──► access ──► WebApp
//!              a name    WebCall     session    answers what it has a route for
//!              of ours?              or token
//! ```
//!
//! - `sense` has one over its fleet, `mirror` one over its inventory; both are of tenants, so they are for those who
//!   log in: a command prints an address that works once and opens a session; programs show the token of a file.
//!   Only the files of the page are for everybody.
//! - `page/` has the shell of both pages: style, tables, the choice of a view.
//! - Nothing here ends the service: a fault is told in the log and in `status`, and the listener goes on.

mod access;
pub(crate) mod answer;
mod beside;
mod health;
mod host;
mod login;
mod respond;
pub(crate) mod routes;
mod secret;
mod token;

pub(crate) use beside::Beside;
pub(crate) use health::WebHealth;
pub(crate) use respond::{PageFiles, WebApp};

use crate::listen::{HttpAddress, HttpListener};
use crate::transport::{CertificateFiles, WebTls};
use access::Access;
use nix::unistd::Uid;
use respond::Responder;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Between the end of a listener that failed and the next one.
const AGAIN: Duration = Duration::from_secs(1);

/// Where a service answers over HTTP, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebListen {
    /// Where.
    pub address: HttpAddress,
    /// The certificate, needed unless the address is this machine's alone.
    pub tls: Option<CertificateFiles>,
    /// The token of programs; without one there is no access for them.
    pub token_file: Option<PathBuf>,
    /// Further names of this server.
    pub hosts: Vec<String>,
}

impl WebListen {
    /// Whether an operator may give this server this name.
    pub fn is_host(text: &str) -> bool {
        host::is_name(text)
    }
}

/// What a page is called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WebName {
    /// First word of its settings, and the command that logs in: `fleet` has `--fleet-listen` and
    /// `afferent fleet login`.
    pub(crate) command: &'static str,
    /// The service that answers: `sensor`.
    pub(crate) service: &'static str,
}

impl WebName {
    /// A setting of it, as a flag.
    fn flag(self, setting: &str) -> String {
        format!("--{}-{setting}", self.command)
    }
}

/// A bound listener, and who may ask.
pub(crate) struct WebServer {
    name: WebName,
    listener: Arc<HttpListener>,
    access: Arc<Access>,
    health: Arc<WebHealth>,
    config: WebListen,
}

impl WebServer {
    /// Binds the address and reads the files.
    ///
    /// # Errors
    /// One of them cannot be used; says which one.
    pub(crate) async fn bind(name: WebName, config: &WebListen) -> Result<Self, String> {
        let tls = config.tls.clone().map(WebTls::load).transpose();
        let tls = tls.map_err(|error| format!("{}: {error}", name.flag("tls-cert")))?;
        let access = Access::new(name, config)?;
        let listener = HttpListener::bind(&config.address, tls).await;
        let listener = listener
            .map_err(|error| format!("{} {}: {error}", name.flag("listen"), config.address))?;
        let server = Self {
            name,
            listener: Arc::new(listener),
            access: Arc::new(access),
            health: Arc::new(WebHealth::of(name)),
            config: config.clone(),
        };
        tracing::info!(address = server.address(), "{} API", name.command);
        Ok(server)
    }

    /// How the listener is, for `status`.
    pub(crate) fn health(&self) -> Arc<WebHealth> {
        self.health.clone()
    }

    /// Answers the command that logs in.
    pub(crate) fn doorkeeper(&self) -> Doorkeeper {
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
    pub(crate) async fn run<A: WebApp>(self, app: Arc<A>) {
        let has_tls = self.listener.has_tls();
        let responder = Responder::new(self.name, app, self.access, self.health.clone(), has_tls);
        let responder = Arc::new(responder);
        let mut running = JoinSet::new();
        loop {
            running.spawn(self.listener.clone().serve(responder.clone()));
            if let Some(Err(error)) = running.join_next().await {
                let api = self.name.command;
                tracing::error!(%error, "the listener of the {api} API failed; it begins anew");
                self.health.failed(&error);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Lets people in.
pub(crate) struct Doorkeeper {
    access: Arc<Access>,
    address: String,
}

impl Doorkeeper {
    /// An address that opens a session, once, for this user of the control socket: root or the user of the service,
    /// and nobody else even where somebody opens that socket up.
    ///
    /// # Errors
    /// It is somebody else.
    pub(crate) fn login(&self, user: Option<u32>) -> Result<Value, &'static str> {
        if !user.is_some_and(|user| user == 0 || user == Uid::effective().as_raw()) {
            return Err("only root and the user of the service may log in");
        }
        Ok(match self.access.issue() {
            Ok(code) => json!({
                "address": format!("{}login?code={}", self.address, code.text()),
                "expires_in_s": login::CODE_LIFE.as_secs(),
            }),
            Err(error) => json!({ "error": error, "is_usage": false }),
        })
    }
}
