//! `http(s)://`: `POST {base}/v1/reports`.

use super::gzip::{COMPRESS_FROM, gzip};
use super::{BlockingSink, Delivery};
use crate::clock;
use crate::http::{self, Bearer, Client, HttpError};
use crate::sense::deliver::outcome::Outcome;
use flate2::Compression;
use std::path::PathBuf;
use std::time::Duration;

/// Central over HTTP.
pub(super) struct HttpSink {
    url: String,
    client: Client,
    token_file: Option<PathBuf>,
}

impl HttpSink {
    /// Longest time of one delivery.
    pub(super) const DEADLINE: Duration = Duration::from_secs(30);
    /// Longest answer that is read, in bytes; its text is only for people.
    pub(super) const MAX_ANSWER: u64 = 1 << 20;

    /// Delivers below `base`. The token is read anew for every delivery, so that it can be changed
    /// without a restart.
    pub(super) fn new(base: &str, options: http::HttpOptions, token_file: Option<PathBuf>) -> Self {
        Self {
            url: format!("{base}/v1/reports"),
            client: Client::new(options),
            token_file,
        }
    }
}

impl BlockingSink for HttpSink {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let bearer = match self.token_file.as_deref().map(Bearer::from_file) {
            Some(Err(error)) => return Outcome::Unauthorized(error.to_string()),
            Some(Ok(bearer)) => Some(bearer),
            None => None,
        };
        let packed = (delivery.body.len() >= COMPRESS_FROM)
            .then(|| gzip(&delivery.body, Compression::fast()));
        let mut headers = vec![
            ("Content-Type", "application/json"),
            ("Idempotency-Key", delivery.idempotency_key.as_str()),
        ];
        headers.extend(bearer.as_ref().map(Bearer::header));
        if packed.is_some() {
            headers.push(("Content-Encoding", "gzip"));
        }
        let body = packed.as_ref().unwrap_or(&delivery.body);
        match self.client.post(&self.url, &headers, body) {
            Ok(answer) => {
                let now = Duration::from_millis(clock::wall_now().unix_ms());
                let pause = http::retry_after(&answer, now);
                match answer.header("location").filter(|_| answer.is_redirect()) {
                    Some(to) => Outcome::Failed(format!(
                        "{}: leads to {to}, and a redirect of a report is not followed",
                        answer.status
                    )),
                    None => Outcome::of_status(answer.status, pause, &answer.body),
                }
            }
            Err(error) => classify(&error),
        }
    }
}

/// What it means that there was no answer.
pub(super) fn classify(error: &HttpError) -> Outcome {
    let said = error.to_string();
    match error {
        HttpError::NoConnection(_) => Outcome::Unreachable(said),
        HttpError::Configuration(_) => Outcome::Unauthorized(said),
        HttpError::Deadline(_) | HttpError::Broken(_) | HttpError::TooLong(_) => {
            Outcome::Failed(said)
        }
    }
}
