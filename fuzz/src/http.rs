//! HTTP as the mirror and the mapping use it, with answers from the input of the fuzzer in place of a network.

#[allow(dead_code, reason = "the mirror needs no API key")]
#[path = "../../src/http/bearer.rs"]
mod bearer;
#[path = "../../src/http/retry_after.rs"]
mod retry_after;

pub(crate) use bearer::Bearer;
pub(crate) use retry_after::retry_after;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// Limits and trust, of which there is no need here.
#[derive(Clone, Debug, Default)]
pub struct HttpOptions {
    pub body_cap: u64,
    pub ca_file: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("no connection: {0}")]
    NoConnection(String),
    #[error("no complete answer within {0:?}")]
    Deadline(Duration),
    #[error("the answer broke off: {0}")]
    Broken(String),
    #[error("{0}")]
    Configuration(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    pub status: u16,
    pub pagination: Option<String>,
    pub body: Vec<u8>,
}

impl HttpResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        let pagination = self.pagination.as_deref();
        pagination.filter(|_| name == "x-pagination")
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// Gives one answer after the other, and an error when there is none left.
pub struct Client(Mutex<VecDeque<HttpResponse>>);

impl Client {
    pub fn new(_options: HttpOptions) -> Self {
        Self::of(Vec::new())
    }

    pub fn of(answers: Vec<HttpResponse>) -> Self {
        Self(Mutex::new(answers.into()))
    }

    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<HttpResponse, HttpError> {
        self.get_within(url, headers, Duration::MAX)
    }

    pub fn get_within(
        &self,
        _url: &str,
        _headers: &[(&str, &str)],
        _deadline: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let next = self.0.lock().expect("one thread").pop_front();
        next.ok_or_else(|| HttpError::Configuration("nobody answers any more".into()))
    }
}
