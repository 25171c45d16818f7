//! The REST dialect: one paged list per type.
//!
//! Pages are counted by offset, so an entry that is deleted meanwhile shifts others onto pages
//! that were already read: totals and ids are compared, and a pull that does not fit together is
//! made once more before it is used without deletes.

use super::patience::{Patience, asked_to_wait, passes};
use super::{Core, Device, Pull, Pulled, Site, came_twice, decode, from_result, shorten};
use crate::http::{Bearer, Client, HttpError, Response};
use crate::inventory::Kind;
use crate::mirror::page::{self, Entry, Pagination};
use crate::mirror::report::Report;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

/// Entries asked for at once.
const PAGE_SIZE: u64 = 100;
/// Pages of one type before somebody is wrong about something: a million entries.
const MAX_PAGES: u64 = 10_000;

/// What is needed to ask.
#[derive(Clone, Debug)]
pub struct RestOptions {
    /// `https://host[/prefix]`.
    pub base: String,
    /// Organisation in the path.
    pub org: String,
    /// The one site whose entries count.
    pub site: Option<String>,
    /// File with a bearer token.
    pub token_file: Option<PathBuf>,
    /// Longest time for one page, retries included.
    pub deadline: Duration,
}

/// Core over REST.
pub struct RestCore {
    options: RestOptions,
    client: Client,
    bearer: Option<Bearer>,
    site: Site,
}

/// One pass over all pages.
struct Pass<T> {
    pulled: Pulled<T>,
    /// The pages do not fit together.
    torn: Option<String>,
}

impl RestCore {
    /// Asks with `client`, whose limits are those of one exchange.
    pub fn new(options: RestOptions, client: Client) -> Self {
        Self {
            site: Site::new(options.site.clone()),
            options,
            client,
            bearer: None,
        }
    }

    fn pull<T: serde::de::DeserializeOwned>(
        &mut self,
        kind: Kind,
        list: &str,
        order: Option<&str>,
        id: impl Fn(&T) -> Option<&str>,
    ) -> Result<Pulled<T>, String> {
        let mut pass = self.pass(kind, list, order, &id)?;
        if pass.torn.is_some()
            && let Ok(again) = self.pass(kind, list, order, &id)
        {
            pass = again;
        }
        if let Some(why) = pass.torn {
            pass.pulled.complete = false;
            let report = Report::new("pagination_inconsistent", kind, list, why);
            pass.pulled.warnings.push(report);
        }
        Ok(pass.pulled)
    }

    fn pass<T: serde::de::DeserializeOwned>(
        &mut self,
        kind: Kind,
        list: &str,
        order: Option<&str>,
        id: &impl Fn(&T) -> Option<&str>,
    ) -> Result<Pass<T>, String> {
        let mut all: Pulled<T> = decode(kind, &[]);
        let mut total = None;
        let mut read: u64 = 0;
        let mut torn = None;
        let mut headerless = false;
        for number in 1..=MAX_PAGES {
            let response = self.page(list, order, number)?;
            let elements = page::elements(&response.body)?;
            let count = u64::try_from(elements.len()).unwrap_or(u64::MAX);
            read += count;
            let decoded = decode(kind, &elements);
            all.complete &= decoded.complete;
            all.entries.extend(decoded.entries);
            all.warnings.extend(decoded.warnings);
            let header = response.header("x-pagination");
            let header: Option<Pagination> = header.and_then(|h| serde_json::from_str(h).ok());
            let Some(header) = header else {
                headerless = true;
                if count < PAGE_SIZE {
                    break;
                }
                continue;
            };
            let expected = *total.get_or_insert(header.total);
            if header.total != expected {
                torn = Some(format!(
                    "the total went from {expected} to {}",
                    header.total
                ));
                break;
            }
            if read >= expected {
                break;
            }
            if count < header.page_size.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE) {
                break;
            }
        }
        match total {
            Some(total) if read != total && torn.is_none() => {
                torn = Some(format!("{read} entries, but the total is {total}"));
            }
            _ => {}
        }
        if torn.is_none() && came_twice(all.entries.iter().filter_map(id)) {
            torn = Some("an entry came twice".into());
        }
        if headerless {
            all.complete = false;
            let why = "no readable X-Pagination: nobody knows whether this is everything";
            all.warnings
                .push(Report::new("pagination_header_missing", kind, list, why));
        }
        Ok(Pass { pulled: all, torn })
    }

    /// One page, asked for as often as makes sense within the deadline.
    fn page(&mut self, list: &str, order: Option<&str>, number: u64) -> Result<Response, String> {
        let url = self.url(list, order, number);
        let mut patience = Patience::new(self.options.deadline);
        let mut fresh_token = false;
        loop {
            let bearer = self.bearer()?;
            let headers: Vec<(&str, &str)> = bearer.iter().map(Bearer::header).collect();
            let answer = self.client.get_within(&url, &headers, patience.left());
            let (why, wait) = match answer {
                Ok(response) if response.status == 200 => return Ok(response),
                Ok(response) if response.status == 401 && !fresh_token && bearer.is_some() => {
                    fresh_token = true;
                    self.bearer = None;
                    continue;
                }
                Ok(response) => {
                    let why = self.refusal(&response);
                    if !passes(response.status) {
                        return Err(why);
                    }
                    (why, asked_to_wait(&response))
                }
                Err(error @ HttpError::NoConnection(_)) => (error.to_string(), None),
                Err(error) => return Err(error.to_string()),
            };
            if !patience.wait(wait) {
                return Err(why);
            }
            tracing::debug!(list, number, %why, "asking again");
        }
    }

    /// The token, read from its file unless it is known.
    fn bearer(&mut self) -> Result<Option<Bearer>, String> {
        if let (None, Some(path)) = (&self.bearer, &self.options.token_file) {
            self.bearer = Some(Bearer::from_file(path).map_err(|error| error.to_string())?);
        }
        Ok(self.bearer.clone())
    }

    fn url(&self, list: &str, order: Option<&str>, number: u64) -> String {
        let base = self.options.base.trim_end_matches('/');
        let org = encode(&self.options.org);
        let mut url = format!("{base}/v2/org/{org}/nico/{list}?");
        if let Some(site) = &self.options.site {
            url.push_str(&format!("siteId={}&", encode(site)));
        }
        url.push_str(&format!("pageNumber={number}&pageSize={PAGE_SIZE}"));
        if let Some(order) = order {
            url.push_str(&format!("&orderBy={order}"));
        }
        url
    }

    /// What a status means, with what Core says about it. A server that repeats the token in its
    /// message does not get it into ours.
    fn refusal(&self, response: &Response) -> String {
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
                "the token's account lacks a role that may read expected inventory of the organisation (provider administrator or viewer)"
            }
            404 => "no such organisation or list",
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

impl Core for RestCore {
    fn begin(&mut self) {
        self.site.begin();
    }

    fn expected(&mut self, kind: Kind) -> Pull<Entry> {
        let (list, order) = match kind {
            Kind::Rack => ("expected-rack", "RACK_ID_ASC"),
            Kind::Compute => ("expected-machine", "BMC_MAC_ADDRESS_ASC"),
            Kind::NVSwitch => ("expected-switch", "BMC_MAC_ADDRESS_ASC"),
            Kind::PowerShelf => ("expected-power-shelf", "BMC_MAC_ADDRESS_ASC"),
        };
        let pulled = self.pull(kind, list, Some(order), |entry: &Entry| {
            entry.id.as_ref().map(|id| id.0.as_str())
        });
        from_result(pulled.and_then(|pulled| self.site.keep_own(kind, pulled)))
    }

    fn observed(&mut self, kind: Kind) -> Pull<Device> {
        // Core's REST interface lists observed machines only.
        if kind != Kind::Compute {
            return Pull::Absent;
        }
        from_result(self.pull(kind, "machine", None, Device::id))
    }

    fn source(&self) -> String {
        format!("{} org {}", self.options.base, self.options.org)
    }
}

/// A path segment or query value.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
