//! The response to each request: checked first for its method, its host, and the access of who asks.

use super::WebName;
use super::access::Access;
use super::answer::{self, MimeType};
use super::health::WebHealth;
use super::routes::{self, BadRequest, Route, StaticFile, WebCall};
use crate::clock;
use crate::listen::{HttpConnection, HttpHandler, HttpResponse, ResponseBody};
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, StatusCode};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

/// What browsers say of where a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The files of a page.
pub(crate) struct PageFiles {
    pub(crate) index: &'static str,
    pub(crate) script: &'static str,
    pub(crate) style: &'static str,
    pub(crate) openapi: &'static str,
}

/// What a service answers over HTTP beside what all do.
pub(crate) trait WebApp: Send + Sync + 'static {
    /// What is asked for.
    type Call: Send + 'static;

    /// The paths that it answers, beside its files and logins.
    fn routes(&self) -> &'static [Route<Self::Call>];

    /// The page.
    fn files(&self) -> &'static PageFiles;

    /// The response to somebody who has access until this time.
    fn answer(
        &self,
        call: Self::Call,
        request: &Parts,
        until: Instant,
    ) -> impl Future<Output = HttpResponse> + Send;
}

/// Answers requests.
pub(super) struct Responder<A> {
    name: WebName,
    app: Arc<A>,
    access: Arc<Access>,
    health: Arc<WebHealth>,
    has_tls: bool,
}

impl<A: WebApp> Responder<A> {
    pub(super) fn new(
        name: WebName,
        app: Arc<A>,
        access: Arc<Access>,
        health: Arc<WebHealth>,
        has_tls: bool,
    ) -> Self {
        Self {
            name,
            app,
            access,
            health,
            has_tls,
        }
    }

    async fn answer(&self, request: &Parts, connection: &HttpConnection) -> HttpResponse {
        if request.method != Method::GET && request.method != Method::HEAD {
            let response = answer::error(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only");
            return answer::with(response, header::ALLOW, "GET, HEAD");
        }
        if !self.is_for_us(request, connection) {
            let what = format!(
                "this server has no such name; give it one with {}",
                self.name.flag("host")
            );
            return answer::error(StatusCode::MISDIRECTED_REQUEST, &what);
        }
        let uri = &request.uri;
        let call = routes::read(
            self.app.routes(),
            uri.path(),
            uri.query().unwrap_or_default(),
            clock::wall_now(),
        );
        let call = match call {
            Ok(WebCall::Static(file)) => return static_file(self.app.files(), file),
            Ok(WebCall::Login { code: None }) => {
                let command = self.name.command;
                let what = format!(
                    "a login address has one parameter, its code: open the one that `afferent {command} login` prints"
                );
                return answer::error(StatusCode::BAD_REQUEST, &what);
            }
            Ok(WebCall::Login { code: Some(code) }) => {
                return self.login(&code, request.method == Method::HEAD);
            }
            Ok(WebCall::Ask(call)) => Ok(call),
            Err(error) => Err(error),
        };
        if is_foreign(&request.headers) {
            return answer::error(StatusCode::FORBIDDEN, "asked by a page of another server");
        }
        let until = self.access.until(&request.headers);
        self.health.token(self.access.trouble());
        let Some(until) = until else {
            self.health.denied();
            let response = answer::error(StatusCode::UNAUTHORIZED, &self.log_in());
            return answer::with(response, header::WWW_AUTHENTICATE, "Bearer");
        };
        connection.grant();
        match call {
            Ok(call) => self.app.answer(call, request, until).await,
            Err(BadRequest::NoRoute) => answer::error(
                StatusCode::NOT_FOUND,
                "no such path; /openapi.json lists them",
            ),
            Err(BadRequest::Usage(what)) => answer::error(StatusCode::BAD_REQUEST, &what),
        }
    }

    /// What is said to those without access.
    fn log_in(&self) -> String {
        let WebName { command, service } = self.name;
        format!(
            "log in: open the address that `afferent {command} login` prints on the {service}'s machine, or send \
             `Authorization: Bearer` with the token of its {}",
            self.name.flag("token-file")
        )
    }

    /// Whether the request names this server, in its target and in its one `Host`.
    fn is_for_us(&self, request: &Parts, connection: &HttpConnection) -> bool {
        let mut hosts = request.headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return false;
        };
        let is_ours = |host: &str| self.access.hosts.allows(host, connection.local);
        let target = request.uri.authority();
        host.to_str().is_ok_and(is_ours) && target.is_none_or(|target| is_ours(target.as_str()))
    }

    /// Opens a session. Programs that look at an address before people do ask for its head alone.
    fn login(&self, code: &str, is_head: bool) -> HttpResponse {
        let redeemed = match is_head {
            true => return answer::error(StatusCode::OK, "a login address is opened with GET"),
            false => self.access.redeem(code),
        };
        match redeemed {
            Ok(Some(cookie)) => {
                let body = ResponseBody::whole("");
                let response = answer::response(StatusCode::SEE_OTHER, MimeType::Html, body);
                let response = answer::with(response, header::SET_COOKIE, &cookie);
                answer::with(response, header::LOCATION, "/")
            }
            Ok(None) => {
                self.health.denied();
                let used = format!(
                    "this login address was used or is older than 5 minutes; `afferent {} login` prints a new one",
                    self.name.command
                );
                answer::error(StatusCode::UNAUTHORIZED, &used)
            }
            Err(error) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error),
        }
    }
}

impl<A: WebApp> HttpHandler for Responder<A> {
    fn respond(
        self: Arc<Self>,
        request: Parts,
        connection: HttpConnection,
    ) -> Pin<Box<dyn Future<Output = HttpResponse> + Send>> {
        Box::pin(async move {
            self.health.request();
            let response = self.answer(&request, &connection).await;
            match self.has_tls {
                true => answer::with(
                    response,
                    header::STRICT_TRANSPORT_SECURITY,
                    "max-age=31536000",
                ),
                false => response,
            }
        })
    }

    fn accepted(&self, accepted: Result<(), &io::Error>) {
        match accepted {
            Ok(()) => self.health.works(),
            Err(error) => self.health.failed(error),
        }
    }
}

/// Whether a browser says that the page of another server asks, also one of another port of this machine.
fn is_foreign(headers: &HeaderMap) -> bool {
    let site = headers.get(FETCH_SITE);
    site.is_some_and(|site| site != "same-origin" && site != "none")
}

fn static_file(files: &PageFiles, file: StaticFile) -> HttpResponse {
    let (kind, text) = match file {
        StaticFile::Index => (MimeType::Html, files.index),
        StaticFile::Shell => (MimeType::Script, include_str!("page/shell.js")),
        StaticFile::Script => (MimeType::Script, files.script),
        StaticFile::ShellStyle => (MimeType::Style, include_str!("page/shell.css")),
        StaticFile::Style => (MimeType::Style, files.style),
        StaticFile::OpenApi => (MimeType::Json, files.openapi),
    };
    answer::file(kind, text.as_bytes())
}
