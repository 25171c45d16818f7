//! Answers as responses: status, headers and body.

use crate::listen::{HttpResponse, ResponseBody};
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MimeType {
    Html,
    Script,
    Style,
    Json,
    Events,
}

impl MimeType {
    fn mime(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Script => "text/javascript; charset=utf-8",
            Self::Style => "text/css; charset=utf-8",
            Self::Json => "application/json",
            Self::Events => "text/event-stream",
        }
    }
}

/// Headers of every response: nothing of another server runs in the page, nobody shows it in a frame of his,
/// and a browser takes nothing for something else.
const ALWAYS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// A response with these bytes, that nobody keeps.
pub(crate) fn response(status: StatusCode, kind: MimeType, body: ResponseBody) -> HttpResponse {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.mime()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The same with a header more.
pub(crate) fn with(mut response: HttpResponse, name: HeaderName, value: &str) -> HttpResponse {
    // A value that no header can carry is left out: ours are ASCII.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
    response
}

/// A file of the page. The next version of the program may bring another one.
pub(crate) fn file(kind: MimeType, bytes: &'static [u8]) -> HttpResponse {
    let response = response(StatusCode::OK, kind, ResponseBody::whole(bytes));
    with(response, header::CACHE_CONTROL, "no-cache")
}

/// Data.
pub(crate) fn data(status: StatusCode, answer: &impl Serialize) -> HttpResponse {
    match serde_json::to_vec(answer) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            response(status, MimeType::Json, ResponseBody::whole(bytes))
        }
        Err(problem) => error(StatusCode::INTERNAL_SERVER_ERROR, &problem.to_string()),
    }
}

/// What is wrong, in words.
pub(crate) fn error(status: StatusCode, what: &str) -> HttpResponse {
    let body = format!("{}\n", json!({ "error": what }));
    response(status, MimeType::Json, ResponseBody::whole(body))
}
