//! Reading one list of Core's REST interface: its pages, retries, the token, and whether the pages
//! belong together.
//!
//! Pages are counted by offset, so an entry that is deleted during a pull shifts others onto pages
//! that were already read. A list therefore ends only at an empty or short page, totals and ids are
//! compared, and a pull that contradicts itself is made once more before it is used without deletes.

use super::RestOptions;
use crate::clock;
use crate::http::{Bearer, HttpError, HttpResponse};
use crate::inventory::Kind;
use crate::mirror::core::retry::{RetryBudget, asked_to_wait, passes};
use crate::mirror::core::{Exchange, Pulled, decode, shorten};
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::entry::{self, Pagination};
use crate::mirror::progress::Progress;
use crate::percent::encode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Entries asked for at once; Core refuses more.
const PAGE_SIZE: u64 = 100;
/// Pages of one list before it is given up: a million entries.
const MAX_PAGES: u64 = 10_000;
/// Time between two log lines about one list that is being read.
const PROGRESS: Duration = Duration::from_secs(5);

/// Reads lists with one token, within one deadline for all of them.
pub(super) struct Pages {
    options: RestOptions,
    exchange: Box<dyn Exchange>,
    bearer: Option<Bearer>,
    /// When the time for all lists of this cycle is over.
    until: Instant,
    progress: Progress,
}

/// What to ask for.
pub(super) struct List<'a, T> {
    pub(super) kind: Kind,
    /// Last part of the path.
    pub(super) name: &'a str,
    /// Query beside the site and the page.
    pub(super) query: &'a [(&'a str, &'a str)],
    /// What identifies an entry within the list.
    pub(super) id: fn(&T) -> Option<&str>,
}

/// Why there is no list.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) cause: Cause,
    pub(super) why: String,
}

/// What kept a list away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The last answer had this status.
    Status(u16),
    /// The time for all lists of the cycle was over.
    OutOfTime,
    /// There was no answer, or none that could be used.
    Other,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        let cause = Cause::Other;
        Self { cause, why }
    }
}

/// One pass over all pages.
struct Pass<T> {
    pulled: Pulled<T>,
    /// Why the pages do not belong together.
    torn: Option<String>,
}

impl Pages {
    pub(super) fn new(options: RestOptions, exchange: Box<dyn Exchange>) -> Self {
        Self {
            until: clock::now(),
            options,
            exchange,
            bearer: None,
            progress: Progress::default(),
        }
    }

    /// Tells `progress` of every answer from now on.
    pub(super) fn report_to(&mut self, progress: Progress) {
        self.progress = progress;
    }

    /// Where it asks.
    pub(super) fn options(&self) -> &RestOptions {
        &self.options
    }

    /// A cycle begins: the time for all its lists starts now.
    pub(super) fn begin(&mut self) {
        self.until = clock::now() + self.options.all_lists;
    }

    /// Reads a whole list.
    pub(super) fn read<T: DeserializeOwned>(
        &mut self,
        list: &List<'_, T>,
    ) -> Result<Pulled<T>, Refused> {
        let mut pass = self.pass(list)?;
        if pass.torn.is_some()
            && let Ok(again) = self.pass(list)
        {
            pass = again;
        }
        if let Some(why) = pass.torn {
            pass.pulled.complete = false;
            let report = Diagnostic::new("pagination_inconsistent", list.kind, list.name, why);
            pass.pulled.warnings.push(report);
        }
        Ok(pass.pulled)
    }

    /// Reads a list that has no pages.
    pub(super) fn read_unpaged<T: DeserializeOwned>(
        &mut self,
        kind: Kind,
        path: &str,
    ) -> Result<Pulled<T>, Refused> {
        self.progress.step(format!("asking Core for {path}"));
        let response = self.ask(path, &[])?;
        Ok(decode(kind, &entry::elements(&response.body)?))
    }

    fn pass<T: DeserializeOwned>(&mut self, list: &List<'_, T>) -> Result<Pass<T>, Refused> {
        let mut all: Pulled<T> = decode(list.kind, &[]);
        let mut total = None;
        let mut read: u64 = 0;
        let mut bytes: u64 = 0;
        let mut torn = None;
        let mut headerless = false;
        let mut ids: HashSet<String> = HashSet::new();
        let mut told = clock::now();
        self.progress.step(format!("asking Core for {}", list.name));
        let mut ended = false;
        for number in 1..=MAX_PAGES {
            let response = self.page(list, number)?;
            bytes += u64::try_from(response.body.len()).unwrap_or(u64::MAX);
            if bytes > self.options.list_cap {
                let cap = self.options.list_cap;
                return Err(format!("longer than {cap} bytes, see --core-list-cap").into());
            }
            let elements = entry::elements(&response.body)?;
            let count = u64::try_from(elements.len()).unwrap_or(u64::MAX);
            read += count;
            let decoded = decode(list.kind, &elements);
            all.complete &= decoded.complete;
            all.warnings.extend(decoded.warnings);
            let mut seen = decoded.entries.iter().filter_map(list.id);
            let came_twice = !seen.all(|id| id.is_empty() || ids.insert(id.to_owned()));
            all.entries.extend(decoded.entries);
            if came_twice {
                torn = Some("an entry came twice".into());
                break;
            }
            let header = response.header("x-pagination");
            let header: Option<Pagination> = header.and_then(|h| serde_json::from_str(h).ok());
            headerless |= header.is_none();
            let full = header.and_then(|h| h.page_size).unwrap_or(PAGE_SIZE);
            if let Some(header) = header {
                let expected = *total.get_or_insert(header.total);
                if header.total != expected {
                    torn = Some(format!(
                        "the total went from {expected} to {}",
                        header.total
                    ));
                    break;
                }
            }
            if count < full.clamp(1, PAGE_SIZE) {
                ended = true;
                break;
            }
            let of = total.map_or_else(String::new, |total| format!(" of {total}"));
            let name = list.name;
            let far = format!("reading {name} from Core: {read}{of} entries");
            self.progress.step(far);
            if clock::now().saturating_duration_since(told) >= PROGRESS {
                told = clock::now();
                tracing::info!(list = list.name, read, total, "reading from Core");
            }
        }
        if torn.is_none() && !ended {
            torn = Some(format!("more than {MAX_PAGES} pages"));
        }
        if let Some(total) = total.filter(|total| *total != read)
            && torn.is_none()
        {
            torn = Some(format!("{read} entries, but the total is {total}"));
        }
        if headerless {
            all.complete = false;
            let why = "no readable X-Pagination: nobody knows whether this is everything";
            all.warnings.push(Diagnostic::new(
                "pagination_header_missing",
                list.kind,
                list.name,
                why,
            ));
        }
        Ok(Pass { pulled: all, torn })
    }

    fn page<T>(&mut self, list: &List<'_, T>, number: u64) -> Result<HttpResponse, Refused> {
        let number = number.to_string();
        let size = PAGE_SIZE.to_string();
        let mut query = vec![("pageNumber", number.as_str()), ("pageSize", size.as_str())];
        query.extend(list.query);
        self.ask(list.name, &query)
    }

    /// One answer with status 200, asked for as often as makes sense within both deadlines.
    fn ask(&mut self, path: &str, query: &[(&str, &str)]) -> Result<HttpResponse, Refused> {
        let url = self.url(path, query);
        let left = self.until.saturating_duration_since(clock::now());
        if left.is_zero() {
            return Err(self.out_of_time(path));
        }
        let mut budget = RetryBudget::new(self.options.deadline.min(left));
        let mut fresh_token = false;
        loop {
            let bearer = self.bearer()?;
            let headers: Vec<(&str, &str)> = bearer.iter().map(Bearer::header).collect();
            let answer = self.exchange.get(&url, &headers, budget.left());
            let (refused, wait) = match answer {
                Ok(response) if response.status == 200 => {
                    self.progress.page(path, response.body.len());
                    return Ok(response);
                }
                Ok(response) if response.status == 401 && !fresh_token && bearer.is_some() => {
                    fresh_token = true;
                    self.bearer = None;
                    continue;
                }
                Ok(response) => {
                    let refused = Refused {
                        cause: Cause::Status(response.status),
                        why: self.refusal(&response),
                    };
                    if !passes(response.status) {
                        return Err(refused);
                    }
                    (refused, asked_to_wait(&response))
                }
                // A question changes nothing, so it may be put again after a reset.
                Err(error @ (HttpError::NoConnection(_) | HttpError::Broken(_))) => {
                    (error.to_string().into(), None)
                }
                Err(HttpError::Deadline(_)) if clock::now() >= self.until => {
                    return Err(self.out_of_time(path));
                }
                Err(error) => return Err(error.to_string().into()),
            };
            if !budget.wait(self.exchange.as_ref(), wait) {
                return Err(refused);
            }
            self.progress.retry(path);
            tracing::debug!(path, why = %refused.why, "asking again");
        }
    }

    fn out_of_time(&self, path: &str) -> Refused {
        let limit = clock::show_duration(self.options.all_lists);
        Refused {
            cause: Cause::OutOfTime,
            why: format!("{path}: the lists took longer than --core-deadline {limit}"),
        }
    }

    /// The token, read from its file unless it is known.
    fn bearer(&mut self) -> Result<Option<Bearer>, String> {
        if let (None, Some(path)) = (&self.bearer, &self.options.token_file) {
            self.bearer = Some(Bearer::from_file(path).map_err(|error| error.to_string())?);
        }
        Ok(self.bearer.clone())
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> String {
        let base = self.options.base.trim_end_matches('/');
        let org = encode(&self.options.org);
        let path: Vec<String> = path.split('/').map(encode).collect();
        let site = self.options.site.as_deref().map(|site| ("siteId", site));
        let query = site.into_iter().chain(query.iter().copied());
        let query: Vec<String> = query
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        format!(
            "{base}/v2/org/{org}/nico/{}?{}",
            path.join("/"),
            query.join("&")
        )
    }

    /// What a status means, with what Core says about it. A server that repeats the token in its
    /// message does not get it into ours.
    fn refusal(&self, response: &HttpResponse) -> String {
        #[derive(Deserialize)]
        struct Message {
            message: String,
        }
        let status = response.status;
        let meaning = match status {
            301..=308 => "a redirect to another host, which is not followed",
            400 => "the question is wrong: check --org and --site-id",
            401 => "the token is not accepted",
            403 => {
                "the token's account lacks a role that may read this list (provider administrator or viewer)"
            }
            404 => "no such organisation or list",
            412 => "the site does not have what this list needs",
            429 => "too many questions",
            204 => "an answer without content",
            _ => "not a list",
        };
        let said = serde_json::from_slice::<Message>(&response.body);
        let mut said = said.map(|body| body.message).unwrap_or_default();
        if let Some((_, value)) = self.bearer.as_ref().map(Bearer::header) {
            said = said.replace(value, "***");
            said = said.replace(value.trim_start_matches("Bearer "), "***");
        }
        if said.is_empty() {
            return format!("status {status}: {meaning}");
        }
        format!("status {status}: {meaning}; Core says {:?}", shorten(&said))
    }
}
