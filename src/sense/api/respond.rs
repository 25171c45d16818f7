//! The response to each question about the fleet.

use super::latency::LatencyWindow;
use super::request::{ApiCall, ROUTES};
use super::stream::ChangeStreams;
use crate::blocking::Blocking;
use crate::clock;
use crate::listen::{HttpResponse, ResponseBody};
use crate::sense::fleet::query::{AnswerPage, FleetAnswer, FleetQuery};
use crate::sense::questions::FleetQuestions;
use crate::web::answer::{self, MimeType};
use crate::web::routes::Route;
use crate::web::{Beside, PageFiles, WebApp, WebHealth};
use http::header::{self, HeaderName};
use http::request::Parts;
use http::{Method, StatusCode};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Questions that are answered at the same time; the threads for it are those that deliver.
const QUESTIONS: usize = 2;

/// Browsers and programs continue an interrupted stream behind the last event that they saw.
const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// The page.
const FILES: PageFiles = PageFiles {
    index: include_str!("page/index.html"),
    script: include_str!("page/app.js"),
    style: include_str!("page/style.css"),
    openapi: include_str!("openapi.json"),
};

/// Answers questions about the fleet.
pub(super) struct FleetApp {
    questions: FleetQuestions,
    streams: ChangeStreams,
    beside: Arc<Beside>,
    /// Of the last hour, where something is delivered.
    latency: Option<Arc<Mutex<LatencyWindow>>>,
}

impl FleetApp {
    pub(super) fn new(questions: FleetQuestions, health: Arc<WebHealth>) -> Self {
        let beside = Arc::new(Beside::new(Blocking::Threads, QUESTIONS, health));
        let latency = questions.service.latency().map(|counted| {
            let now = clock::wall_now();
            let window = LatencyWindow::new(counted.bounds(), now, counted.counts());
            Arc::new(Mutex::new(window))
        });
        Self {
            streams: ChangeStreams::new(questions.clone(), beside.clone()),
            questions,
            beside,
            latency,
        }
    }

    /// Notes the latencies that were counted until now.
    pub(super) fn note_latency(&self) {
        let counted = self.questions.service.latency();
        if let (Some(latency), Some(counted)) = (&self.latency, counted) {
            let mut latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
            latency.note(clock::wall_now(), counted.counts());
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
                if let (Some(latency), Some(counted)) = (&latency, questions.service.latency()) {
                    let latency = latency.lock().unwrap_or_else(PoisonError::into_inner);
                    summary["latency"] = latency.json(&counted.counts());
                }
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
        let questions = self.questions.clone();
        self.beside.run(move || make(&questions)).await
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
        answer::response(StatusCode::OK, MimeType::Events, body)
    }
}

impl WebApp for FleetApp {
    type Call = ApiCall;

    fn routes(&self) -> &'static [Route<ApiCall>] {
        ROUTES
    }

    fn files(&self) -> &'static PageFiles {
        &FILES
    }

    async fn answer(&self, call: ApiCall, request: &Parts, until: Instant) -> HttpResponse {
        match call {
            ApiCall::Ask { query, page } => self.ask(query, page).await,
            ApiCall::Summary => self.summary().await,
            ApiCall::Stream { after } => self.stream(request, after, until),
        }
    }
}
