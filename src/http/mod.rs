//! Requests to Central and to Core: one client, with limits that every request has.
//!
//! ```text
//! Client::get / post / send -> HttpResponse (any status)  or  HttpError (there was no answer)
//! ```
//!
//! - Connecting has a deadline and so has the whole exchange, the last byte of the body included.
//! - A body longer than the cap is refused, whatever its header says; that of the answer to a POST is cut.
//! - A redirect is followed only by [`Client::get`], at most three times, and only within the same scheme, host and
//!   port, so that no header ever reaches a machine it was not meant for.
//! - Certificates are checked against the system's roots, or against those of one file, and both are read
//!   again when they are renewed.
//! - The proxy variables of the environment hold for `https`.
//! - A status is not an error: what it means is for the caller to say.

mod base;
mod bearer;
mod proxy;
mod redirect;
mod retry_after;

pub(crate) use base::check_base;
pub(crate) use bearer::{ApiKey, Bearer};
pub(crate) use retry_after::retry_after;

use crate::clock;
use crate::file_stamp::FileStamp;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Redirects within one host that are followed before giving up.
const MAX_REDIRECTS: usize = 3;

/// Connections that are kept for the next request: as many as anybody here has requests under way at
/// one place, so that none is dialed anew while there is work.
const KEPT: usize = 20;

/// Each of the two buffers of a connection, in bytes: the longest header fits, and most bodies pass in
/// one or two parts.
const BUFFER: usize = 64 << 10;

/// Limits and trust of a [`Client`].
#[derive(Clone, Debug)]
pub(crate) struct HttpOptions {
    /// Longest time until there is a connection, TLS included.
    pub connect: Duration,
    /// Longest time of one exchange, from the name lookup to the last byte of the answer.
    pub deadline: Duration,
    /// Longest body of an answer, in bytes.
    pub body_cap: u64,
    /// PEM file with the only roots to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            deadline: Duration::from_secs(60),
            body_cap: 64 << 20,
            ca_file: None,
        }
    }
}

/// Why there is no answer, named for what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection came about, so nothing was asked: try again.
    #[error("no connection: {0}")]
    NoConnection(String),
    /// The deadline passed; the request may have been carried out.
    #[error("no complete answer within {}", crate::http::seconds(*.0))]
    Deadline(Duration),
    /// The connection broke, or what came is not HTTP; the request may have been carried out.
    #[error("the answer broke off: {0}")]
    Broken(String),
    /// The answer is longer than the cap: asking again will not help.
    #[error("the answer is longer than {0} bytes")]
    TooLong(u64),
    /// The address, the certificates or a header is wrong: somebody has to change something.
    #[error("{0}")]
    Configuration(String),
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct HttpResponse {
    /// HTTP status code.
    pub status: u16,
    headers: ureq::http::HeaderMap,
    /// The body, at most as long as the cap.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// An answer of a server that is simulated. Headers that are none are left out.
    pub fn new(status: u16, headers: &[(&str, &str)], body: Vec<u8>) -> Self {
        let headers = headers.iter().filter_map(|(name, value)| {
            let name = ureq::http::HeaderName::try_from(*name).ok()?;
            Some((name, ureq::http::HeaderValue::try_from(*value).ok()?))
        });
        Self {
            status,
            headers: headers.collect(),
            body,
        }
    }

    /// The first header of this name, in any case; `None` also when it is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the status is 3xx.
    pub fn is_redirect(&self) -> bool {
        (300..400).contains(&self.status)
    }

    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// An agent for `https`, and the CA file that it trusts as it was then.
type Trusting = (ureq::Agent, Option<FileStamp>);

/// Sends requests; cheap to clone, keeps connections open between them.
#[derive(Clone)]
pub(crate) struct Client {
    options: HttpOptions,
    plain: ureq::Agent,
    /// Made at the first `https` request, because reading all roots takes time, and again when the CA file
    /// is another one.
    tls: Arc<Mutex<Option<Trusting>>>,
}

impl Client {
    /// A client with these limits. Roots are read at the first `https` request.
    pub(crate) fn new(options: HttpOptions) -> Self {
        let plain = agent(&options, None);
        Self {
            options,
            plain,
            tls: Arc::default(),
        }
    }

    /// Asks for `url`, following redirects within its own origin.
    pub(crate) fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
    ) -> Result<HttpResponse, HttpError> {
        self.get_within(url, headers, self.options.deadline)
    }

    /// The same, with its own deadline for all exchanges it takes together.
    pub(crate) fn get_within(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        deadline: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let mut url = url.to_owned();
        let until = clock::now() + deadline;
        for _ in 0..=MAX_REDIRECTS {
            let left = until.saturating_duration_since(clock::now());
            let late = |error| match error {
                HttpError::Deadline(_) => HttpError::Deadline(deadline),
                error => error,
            };
            let response = self
                .exchange("GET", &url, headers, &[], left)
                .map_err(late)?;
            match redirect::target(&url, &response)? {
                Some(target) => url = target,
                None => return Ok(response),
            }
        }
        Err(HttpError::Configuration(format!(
            "more than {MAX_REDIRECTS} redirects, the last to {url}"
        )))
    }

    /// Posts `body` to `url`. Redirects are answers like any other. The answer is its status: of a longer
    /// body than the cap the beginning is read.
    ///
    /// A server may answer and close before it has read the body (413, 401); what it said is then lost
    /// with the connection. So the request is sent again when the connection broke, and its body only
    /// after the server asked for it or said nothing for a second.
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<HttpResponse, HttpError> {
        let until = clock::now() + self.options.deadline;
        match self.exchange("POST", url, headers, body, self.options.deadline) {
            Err(HttpError::Broken(_)) => {
                let headers = [headers, &[("Expect", "100-continue")]].concat();
                let left = until.saturating_duration_since(clock::now());
                self.exchange("POST", url, &headers, body, left)
            }
            answered => answered,
        }
    }

    /// One exchange, no redirect followed.
    fn exchange(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        deadline: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let agent = self.agent_for(url)?;
        let proxy = proxy::proxy_for(url, |name| std::env::var(name).ok())?;
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        // The message of `http` names no header value, so no secret can get into it.
        let wrong = |error: ureq::http::Error| HttpError::Configuration(error.to_string());
        let is_get = method == "GET";
        let response = if is_get {
            let request = request.body(()).map_err(wrong)?;
            let request = agent.configure_request(request).proxy(proxy);
            agent.run(request.timeout_global(Some(deadline)).build())
        } else {
            let request = request.body(body).map_err(wrong)?;
            let request = agent.configure_request(request).proxy(proxy);
            agent.run(request.timeout_global(Some(deadline)).build())
        };
        let response = response.map_err(|error| self.explain(error, deadline));
        if let Err(HttpError::Configuration(_)) = &response {
            self.forget_roots();
        }
        let (parts, body) = response?.into_parts();
        let body = match is_get {
            true => body
                .into_with_config()
                .limit(self.options.body_cap)
                .read_to_vec()
                .map_err(|error| self.explain(error, deadline))?,
            false => beginning(body.into_reader(), self.options.body_cap),
        };
        Ok(HttpResponse {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    fn agent_for(&self, url: &str) -> Result<ureq::Agent, HttpError> {
        if url
            .get(..6)
            .is_none_or(|s| !s.eq_ignore_ascii_case("https:"))
        {
            return Ok(self.plain.clone());
        }
        let seen = self.options.ca_file.as_deref().and_then(FileStamp::of);
        let mut tls = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((agent, made_of)) = tls.as_ref()
            && *made_of == seen
        {
            return Ok(agent.clone());
        }
        let agent = agent(&self.options, Some(roots(&self.options)?));
        Ok(tls.insert((agent, seen)).0.clone())
    }

    /// The next request reads the roots again: those of the system may have been renewed.
    fn forget_roots(&self) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn explain(&self, error: ureq::Error, deadline: Duration) -> HttpError {
        use ureq::Error as E;
        match error {
            E::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                HttpError::NoConnection(format!("gave up after {}", seconds(self.options.connect)))
            }
            E::Timeout(_) => HttpError::Deadline(deadline),
            E::HostNotFound | E::ConnectionFailed => HttpError::NoConnection(error.to_string()),
            E::Io(ref source) => match source.kind() {
                std::io::ErrorKind::ConnectionRefused
                | std::io::ErrorKind::HostUnreachable
                | std::io::ErrorKind::NetworkUnreachable
                | std::io::ErrorKind::AddrNotAvailable => {
                    HttpError::NoConnection(source.to_string())
                }
                // rustls reports a bad certificate as invalid data during the handshake.
                std::io::ErrorKind::InvalidData => HttpError::Configuration(source.to_string()),
                _ => HttpError::Broken(source.to_string()),
            },
            E::ConnectProxyFailed(why) => HttpError::NoConnection(format!("proxy: {why}")),
            E::BodyExceedsLimit(_) => HttpError::TooLong(self.options.body_cap),
            E::BadUri(_)
            | E::Http(_)
            | E::Tls(_)
            | E::Pem(_)
            | E::Rustls(_)
            | E::InvalidProxyUrl
            | E::TlsRequired => HttpError::Configuration(error.to_string()),
            other => HttpError::Broken(other.to_string()),
        }
    }
}

fn agent(options: &HttpOptions, roots: Option<RootCerts>) -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .timeout_connect(Some(options.connect))
        .timeout_global(Some(options.deadline))
        .http_status_as_error(false)
        // Chosen for each request, see `proxy`.
        .proxy(None)
        .max_redirects(0)
        .max_idle_connections(KEPT)
        .max_idle_connections_per_host(KEPT)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .user_agent(concat!("afferent/", env!("CARGO_PKG_VERSION")));
    if let Some(roots) = roots {
        config = config.tls_config(
            TlsConfig::builder()
                .provider(TlsProvider::Rustls)
                .unversioned_rustls_crypto_provider(Arc::new(
                    rustls::crypto::ring::default_provider(),
                ))
                .root_certs(roots)
                .build(),
        );
    }
    config.build().new_agent()
}

fn roots(options: &HttpOptions) -> Result<RootCerts, HttpError> {
    let certificates: Vec<Certificate<'static>> = match &options.ca_file {
        Some(path) => {
            let wrong =
                |what: String| HttpError::Configuration(format!("{}: {what}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                    Ok(_) => None,
                    Err(error) => Some(Err(wrong(error.to_string()))),
                })
                .collect::<Result<_, _>>()?
        }
        None => rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|der| Certificate::from_der(der).to_owned())
            .collect(),
    };
    if certificates.is_empty() {
        return Err(HttpError::Configuration(
            "no root certificates: name a CA file, or install the system's".into(),
        ));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// What can be read of a body, and at most `cap` bytes.
fn beginning(body: impl Read, cap: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before it broke off is there.
    let _ = body.take(cap).read_to_end(&mut bytes);
    bytes
}

/// A time as people read it in a message.
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f32())
}

#[cfg(test)]
mod tests;
