//! The response to each request: checked first for its method, its host, and the access of who asks.

use super::access::Access;
use super::answer::{self, Kind};
use super::health::ApiHealth;
use super::latency::LatencyWindow;
use super::request::{self, ApiCall, BadRequest, StaticFile};
use super::stream::ChangeStreams;
use crate::blocking::Blocking;
use crate::clock;
use crate::listen::{HttpConnection, HttpHandler, HttpResponse, ResponseBody};
use crate::sense::fleet::query::{AnswerPage, FleetAnswer, FleetQuery};
use crate::sense::questions::FleetQuestions;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::{Method, StatusCode};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Questions that are answered at the same time; the threads for it are those that deliver.
const QUESTIONS: usize = 2;

/// What browsers say of where a request comes from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Browsers and programs continue an interrupted stream behind the last event that they saw.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// What is said to those without access.
const LOG_IN: &str = "log in: open the address that `afferent fleet login` prints on the sensor's machine, or send \
                      `Authorization: Bearer` with the token of its --fleet-token-file";

/// Answers requests.
pub(super) struct Responder {
    questions: FleetQuestions,
    access: Arc<Access>,
    health: Arc<ApiHealth>,
    streams: Arc<ChangeStreams>,
    permits: Arc<Semaphore>,
    latency: Arc<Mutex<LatencyWindow>>,
    has_tls: bool,
}

impl Responder {
    pub(super) fn new(
        questions: FleetQuestions,
        access: Arc<Access>,
        health: Arc<ApiHealth>,
        has_tls: bool,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(QUESTIONS));
        let counted = &questions.view.metrics.reactive_latency;
        let latency = LatencyWindow::new(counted.bounds(), clock::wall_now(), counted.counts());
        Self {
            streams: Arc::new(ChangeStreams::new(questions.clone(), permits.clone())),
            questions,
            access,
            health,
            permits,
            latency: Arc::new(Mutex::new(latency)),
            has_tls,
        }
    }

    /// Notes the latencies that were counted until now.
    pub(super) fn note_latency(&self) {
        let counts = self.questions.view.metrics.reactive_latency.counts();
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        latency.note(clock::wall_now(), counts);
    }

    async fn answer(&self, request: &Parts, connection: &HttpConnection) -> HttpResponse {
        if request.method != Method::GET && request.method != Method::HEAD {
            let response = answer::error(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD only");
            return answer::with(response, header::ALLOW, "GET, HEAD");
        }
        if !self.is_for_us(request, connection) {
            let what = "this server has no such name; give it one with --fleet-host";
            return answer::error(StatusCode::MISDIRECTED_REQUEST, what);
        }
        let uri = &request.uri;
        let call = request::read(
            uri.path(),
            uri.query().unwrap_or_default(),
            clock::wall_now(),
        );
        let call = match call {
            Ok(ApiCall::Static(file)) => return static_file(file),
            Ok(ApiCall::Login { code }) => {
                return self.login(&code, request.method == Method::HEAD);
            }
            call => call,
        };
        if is_foreign(&request.headers) {
            return answer::error(StatusCode::FORBIDDEN, "asked by a page of another server");
        }
        let until = self.access.until(&request.headers);
        self.health.token(self.access.trouble());
        let Some(until) = until else {
            self.health.denied();
            let response = answer::error(StatusCode::UNAUTHORIZED, LOG_IN);
            return answer::with(response, header::WWW_AUTHENTICATE, "Bearer");
        };
        connection.grant();
        match call {
            Ok(ApiCall::Ask { query, page }) => self.ask(query, page).await,
            Ok(ApiCall::Summary) => self.summary().await,
            Ok(ApiCall::Stream { after }) => self.stream(request, after, until),
            Ok(ApiCall::Static(_) | ApiCall::Login { .. }) | Err(BadRequest::NoRoute) => {
                answer::error(
                    StatusCode::NOT_FOUND,
                    "no such path; /openapi.json lists them",
                )
            }
            Err(BadRequest::Usage(what)) => answer::error(StatusCode::BAD_REQUEST, &what),
        }
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
        let used = "this login address was used or is older than 5 minutes; `afferent fleet login` prints a new one";
        let redeemed = match is_head {
            true => return answer::error(StatusCode::OK, "a login address is opened with GET"),
            false => self.access.redeem(code),
        };
        match redeemed {
            Ok(Some(cookie)) => {
                let response =
                    answer::response(StatusCode::SEE_OTHER, Kind::Html, ResponseBody::whole(""));
                let response = answer::with(response, header::SET_COOKIE, &cookie);
                answer::with(response, header::LOCATION, "/")
            }
            Ok(None) => {
                self.health.denied();
                answer::error(StatusCode::UNAUTHORIZED, used)
            }
            Err(error) => answer::error(StatusCode::INTERNAL_SERVER_ERROR, &error),
        }
    }

    async fn ask(&self, query: FleetQuery, page: AnswerPage) -> HttpResponse {
        self.beside(move |questions| {
            let answer = questions.ask(&query, &page);
            let status = match &answer {
                FleetAnswer::Error { is_usage: true, .. } => StatusCode::BAD_REQUEST,
                FleetAnswer::Error {
                    is_unknown: true, ..
                } => StatusCode::NOT_FOUND,
                FleetAnswer::Error { .. } => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::OK,
            };
            match answer {
                FleetAnswer::Error { error, .. } => answer::error(status, &error),
                answer => answer::data(status, &answer),
            }
        })
        .await
    }

    async fn summary(&self) -> HttpResponse {
        let latency = self.latency.clone();
        self.beside(move |questions| match questions.summary() {
            Ok(mut summary) => {
                let counts = questions.view.metrics.reactive_latency.counts();
                let latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
                summary["latency"] = latency.json(&counts);
                drop(latency);
                answer::data(StatusCode::OK, &summary)
            }
            Err(error) => answer::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
        })
        .await
    }

    /// A response that takes long enough to hold up the loop.
    async fn beside(
        &self,
        make: impl FnOnce(&FleetQuestions) -> HttpResponse + Send + 'static,
    ) -> HttpResponse {
        let permit = self.permits.clone().acquire_owned().await;
        let questions = self.questions.clone();
        let made = Blocking::Threads.run(move || {
            let _permit = permit;
            make(&questions)
        });
        made.await.unwrap_or_else(|fault| {
            self.health.failed(&fault);
            answer::error(
                StatusCode::INTERNAL_SERVER_ERROR,
                "a fault of afferent; its log says more",
            )
        })
    }

    fn stream(&self, request: &Parts, after: Option<u64>, until: Instant) -> HttpResponse {
        let seen = request
            .headers
            .get(LAST_EVENT)
            .and_then(|id| id.to_str().ok());
        let after = match seen.map(str::parse) {
            None => after,
            Some(Ok(seen)) => Some(seen),
            Some(Err(_)) => {
                let what = "Last-Event-ID: is not the number of a change";
                return answer::error(StatusCode::BAD_REQUEST, what);
            }
        };
        let body = match request.method == Method::HEAD {
            true => ResponseBody::whole(""),
            false => match self.streams.begin(after, until) {
                Some(body) => body,
                None => {
                    let what = "too many streams; `/v1/changes` answers all the same";
                    let response = answer::error(StatusCode::SERVICE_UNAVAILABLE, what);
                    return answer::with(response, header::RETRY_AFTER, "30");
                }
            },
        };
        answer::response(StatusCode::OK, Kind::Events, body)
    }
}

impl HttpHandler for Responder {
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

fn static_file(file: StaticFile) -> HttpResponse {
    match file {
        StaticFile::Index => answer::file(Kind::Html, include_bytes!("page/index.html")),
        StaticFile::Script => answer::file(Kind::Script, include_bytes!("page/app.js")),
        StaticFile::Style => answer::file(Kind::Style, include_bytes!("page/style.css")),
        StaticFile::OpenApi => answer::file(Kind::Json, include_bytes!("openapi.json")),
    }
}
