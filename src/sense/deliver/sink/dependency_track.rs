//! `dependency-track+https://`: `POST {base}/api/v1/bom`, a project for each guest.
//!
//! | Answer | |
//! |---|---|
//! | 2xx with a token | accepted; whether it was processed by then is not waited for |
//! | 400, 413, 422 | this document is refused, with the errors of the validation |
//! | 401, 403, 404; 2xx without a token | the key, the permissions, the parent or the address is wrong: everything waits |
//! | 409, 5xx | again |
//!
//! - What it has is not uploaded again: a refresh of content that it accepted last counts as accepted.
//! - Uploads into one project are made one after another: two that make it at once are refused there.
//! - Facts alone are in no bill of materials; they count as accepted.

use super::http::classify;
use super::project::Project;
use super::since::since;
use super::{BlockingSink, Delivery, DocumentForm, DocumentKind};
use crate::clock::{self, WallTime};
use crate::http::{self, ApiKey, Client, HttpResponse};
use crate::sense::deliver::outcome::{Outcome, answered};
use serde::Deserialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Longest bill of materials that it takes, in characters.
const LONGEST: usize = 20_000_000;

/// Longest time that an upload waits for another one into the same project.
const TURN: Duration = Duration::from_secs(5);

/// Characters of the errors of a validation that are kept for people.
const SHOWN: usize = 1000;

/// Dependency-Track.
pub(super) struct DependencyTrackSink {
    url: String,
    client: Client,
    key_file: Option<PathBuf>,
    project: Project,
    /// Since when it is this server and these projects: what was accepted before is not there.
    since: WallTime,
    turns: Turns,
}

/// Projects into which something is uploaded.
#[derive(Default)]
struct Turns {
    taken: Mutex<HashSet<String>>,
    ended: Condvar,
}

/// The right to upload into a project, until it is dropped.
struct Turn<'a>(&'a Turns, String);

/// What it says of a document that is not valid.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    detail: String,
    #[serde(default)]
    errors: Vec<String>,
}

/// What it says of a document that it took.
#[derive(Deserialize)]
struct Receipt {
    token: String,
}

impl DependencyTrackSink {
    /// Longest time of one upload: the document is validated meanwhile.
    pub(super) const DEADLINE: Duration = Duration::from_secs(60);

    /// Uploads below `base`. The key is read anew for every upload, so that it can be changed without a
    /// restart. `memory` is a file that is the sink's own.
    pub(super) fn new(
        base: &str,
        client: http::HttpOptions,
        key_file: Option<PathBuf>,
        project: Project,
        memory: Option<&Path>,
    ) -> Self {
        Self {
            since: since(memory, &format!("{base}\n{project:?}")),
            url: format!("{base}/api/v1/bom"),
            client: Client::new(client),
            key_file,
            project,
            turns: Turns::default(),
        }
    }

    fn upload(&self, delivery: &Delivery) -> Outcome {
        let key = match self.key_file.as_deref().map(ApiKey::from_file) {
            Some(Err(error)) => return Outcome::Unauthorized(error.to_string()),
            Some(Ok(key)) => Some(key),
            None => None,
        };
        let fields = self.project.fields(&delivery.vm, &delivery.os);
        let name = fields.first().map(|(_, name)| name.clone());
        let Some(_turn) = self.turns.take(name.unwrap_or_default()) else {
            return Outcome::Postponed;
        };
        let boundary = format!("{:032x}", fastrand::u128(..));
        let body = form(&boundary, &fields, &delivery.body);
        let content_type = format!("multipart/form-data; boundary={boundary}");
        let mut headers = vec![("Content-Type", content_type.as_str())];
        headers.extend(key.as_ref().map(ApiKey::header));
        match self.client.post(&self.url, &headers, &body) {
            Ok(answer) => self.meaning(&answer),
            Err(error) => classify(&error),
        }
    }

    fn meaning(&self, answer: &HttpResponse) -> Outcome {
        let said = answered(answer.status, &answer.body);
        let ours = |what: &str| Outcome::Unauthorized(format!("{said}: {what}"));
        let url = &self.url;
        match answer.status {
            200..300 => match serde_json::from_slice::<Receipt>(&answer.body) {
                Ok(receipt) if !receipt.token.is_empty() => Outcome::Accepted,
                _ => ours(&format!(
                    "{url} does not answer as Dependency-Track does: give the address of its API server"
                )),
            },
            300..400 => ours(&format!(
                "{url} leads to another address, and an upload is not redirected: give that one"
            )),
            400 => Outcome::Refused(problem(&answer.body).unwrap_or(said)),
            401 => ours(
                "the key in the token file is not known, or lacks BOM_UPLOAD, or PROJECT_CREATION_UPLOAD for a new project",
            ),
            403 => ours("the key has no access to the project, or to its parent"),
            404 => ours(
                "there is no such parent project, or nothing of Dependency-Track at this address",
            ),
            409 => Outcome::Failed(said),
            status => {
                let now = Duration::from_millis(clock::wall_now().unix_ms());
                Outcome::of_status(status, http::retry_after(answer, now), &answer.body)
            }
        }
    }
}

impl BlockingSink for DependencyTrackSink {
    fn deliver(&self, delivery: &Delivery) -> Outcome {
        let is_there = delivery.accepted_at.is_some_and(|at| at >= self.since);
        if delivery.kind == DocumentKind::Facts || is_there {
            return Outcome::Accepted;
        }
        match delivery.body.len() {
            bytes if bytes > LONGEST => Outcome::RefusedForGood(format!(
                "a bill of materials of {bytes} bytes, and Dependency-Track takes {LONGEST} at most"
            )),
            _ => self.upload(delivery),
        }
    }

    fn form(&self) -> DocumentForm {
        DocumentForm::CycloneDx
    }
}

impl Turns {
    /// Waits until nothing else is uploaded into the project; `None`: that takes too long.
    fn take(&self, project: String) -> Option<Turn<'_>> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .ended
            .wait_timeout_while(taken, TURN, |taken| taken.contains(&project));
        let (mut taken, _) = waited.unwrap_or_else(PoisonError::into_inner);
        taken.insert(project.clone()).then(|| Turn(self, project))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let Self(turns, project) = self;
        let mut taken = turns.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.remove(project);
        turns.ended.notify_all();
    }
}

/// The form of an upload. No value has a line break, and nobody knows the boundary before.
fn form(boundary: &str, fields: &[(&str, String)], document: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(document.len() + 2048);
    let mut part = |head: &str, content: &[u8]| {
        let start = format!("--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        body.extend_from_slice(start.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    };
    for (name, value) in fields {
        part(&format!("name=\"{name}\""), value.as_bytes());
    }
    // Plain: older servers unpack nothing.
    let file = "name=\"bom\"; filename=\"bom.json\"\r\nContent-Type: application/octet-stream";
    part(file, document);
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    body
}

/// What is wrong with a document, where it says so in the form of RFC 9457.
fn problem(body: &[u8]) -> Option<String> {
    let Problem { detail, errors } = serde_json::from_slice(body).ok()?;
    let said = std::iter::once(detail).chain(errors);
    let said: Vec<String> = said.filter(|text| !text.is_empty()).collect();
    let said = said.join("; ");
    let said: String = said.chars().take(SHOWN).collect();
    (!said.is_empty()).then(|| format!("400: {said}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_a_validation_are_kept_and_cut() {
        let body =
            br#"{"title":"x","detail":"Schema validation failed","errors":["$.a: no","$.b: no"]}"#;
        let said = problem(body).unwrap();
        assert_eq!(said, "400: Schema validation failed; $.a: no; $.b: no");
        let long = format!("{{\"errors\":[\"{}\"]}}", "e".repeat(5000));
        assert_eq!(
            problem(long.as_bytes()).unwrap().len(),
            "400: ".len() + SHOWN
        );
        assert_eq!(problem(b"no form"), None);
        assert_eq!(problem(b"{}"), None);
    }
}
