//! What is asked: path and query of a request, as text of somebody else, made into a question.
//!
//! [`ROUTES`] is all there is; `openapi.json` describes the same. A parameter that a route does not have, or
//! that comes twice, is a mistake: it is refused, so that nobody reads an answer to another question.

use crate::clock::{self, WallTime};
use crate::percent;
use crate::report::VmId;
use crate::sense::fleet::query::find::PackageFilter;
use crate::sense::fleet::query::{AnswerPage, FleetQuery};
use std::str::FromStr;

/// Guests on a page, unless told otherwise.
const GUESTS: usize = 1000;

/// Most guests on a page.
const MOST_GUESTS: usize = 10_000;

/// Most changes on a page, and as many unless told otherwise.
const MOST_CHANGES: usize = 1000;

/// A file of the page, or the description of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StaticFile {
    Index,
    Script,
    Style,
    OpenApi,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ApiCall {
    /// A file, which everybody may read.
    Static(StaticFile),
    /// A session, for this code.
    Login { code: String },
    /// A part of the answer to a question.
    Ask { query: FleetQuery, page: AnswerPage },
    /// Changes as they come, behind this number or from now on.
    Stream { after: Option<u64> },
    /// How the fleet is.
    Summary,
}

/// Why a request is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BadRequest {
    /// There is no such path.
    NoRoute,
    /// It is not understood.
    Usage(String),
}

impl From<String> for BadRequest {
    fn from(what: String) -> Self {
        Self::Usage(what)
    }
}

impl From<&str> for BadRequest {
    fn from(what: &str) -> Self {
        Self::Usage(what.to_owned())
    }
}

type Parse = fn(&Parameters<'_>, WallTime) -> Result<ApiCall, BadRequest>;

/// A path, the parameters that it takes, and how they are read.
pub(super) struct Route {
    /// A segment in braces stands for any text.
    pub(super) path: &'static str,
    pub(super) parameters: &'static [&'static str],
    parse: Parse,
}

/// All paths.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/",
        parameters: &[],
        parse: |_, _| Ok(ApiCall::Static(StaticFile::Index)),
    },
    Route {
        path: "/app.js",
        parameters: &[],
        parse: |_, _| Ok(ApiCall::Static(StaticFile::Script)),
    },
    Route {
        path: "/style.css",
        parameters: &[],
        parse: |_, _| Ok(ApiCall::Static(StaticFile::Style)),
    },
    Route {
        path: "/openapi.json",
        parameters: &[],
        parse: |_, _| Ok(ApiCall::Static(StaticFile::OpenApi)),
    },
    Route {
        path: "/login",
        parameters: &["code"],
        parse: |given, _| {
            let code = given.needed("code")?.to_owned();
            Ok(ApiCall::Login { code })
        },
    },
    Route {
        path: "/v1/guests",
        parameters: &["os", "cursor", "limit"],
        parse: guests,
    },
    Route {
        path: "/v1/guests/{id}",
        parameters: &["at"],
        parse: guest,
    },
    Route {
        path: "/v1/packages",
        parameters: &[
            "name", "op", "version", "arch", "os", "not", "running", "cursor", "limit",
        ],
        parse: packages,
    },
    Route {
        path: "/v1/versions",
        parameters: &["name"],
        parse: |given, _| {
            let name = given.needed("name")?.to_owned();
            ask(FleetQuery::Versions { name }, AnswerPage::default())
        },
    },
    Route {
        path: "/v1/changes",
        parameters: &["since", "vm", "package", "cursor", "limit"],
        parse: changes,
    },
    Route {
        path: "/v1/changes/stream",
        parameters: &["cursor"],
        parse: |given, _| {
            let after = given.number("cursor")?;
            Ok(ApiCall::Stream { after })
        },
    },
    Route {
        path: "/v1/summary",
        parameters: &[],
        parse: |_, _| Ok(ApiCall::Summary),
    },
];

/// The parameters of a request, each once.
struct Parameters<'r> {
    given: Vec<(&'r str, String)>,
    /// What stands in the place of the segment in braces.
    segment: String,
}

impl<'r> Parameters<'r> {
    fn read(query: &'r str, allowed: &[&str], segment: String) -> Result<Self, BadRequest> {
        let mut given: Vec<(&str, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !allowed.contains(&name) {
                let what = match allowed {
                    [] => "none".to_owned(),
                    allowed => allowed.join(", "),
                };
                return Err(format!("no such parameter {name:?}; allowed: {what}").into());
            }
            if given.iter().any(|(before, _)| *before == name) {
                return Err(format!("{name} is given twice").into());
            }
            let value = percent::decode(&value.replace('+', " "));
            let value = value.ok_or_else(|| format!("{name}: is no percent-encoded text"))?;
            given.push((name, value));
        }
        Ok(Self { given, segment })
    }

    /// A parameter; an empty one counts as not given, as forms send it.
    fn get(&self, name: &str) -> Option<&str> {
        let mut given = self.given.iter().filter(|(given, _)| *given == name);
        let value = given.next().map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    fn needed(&self, name: &str) -> Result<&str, BadRequest> {
        self.get(name)
            .ok_or_else(|| format!("{name} is needed").into())
    }

    fn parsed<T: FromStr<Err: ToString>>(&self, name: &str) -> Result<Option<T>, BadRequest> {
        let value = self.get(name).map(str::parse::<T>).transpose();
        value.map_err(|error| format!("{name}: {}", error.to_string()).into())
    }

    fn number(&self, name: &str) -> Result<Option<u64>, BadRequest> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|_| !text.starts_with('+'));
        number
            .map(Some)
            .ok_or_else(|| format!("{name}: {text:?} is not a whole number").into())
    }

    fn limit(&self, default: usize, most: usize) -> Result<Option<usize>, BadRequest> {
        let wanted = self.number("limit")?.map(usize::try_from);
        match wanted.unwrap_or(Ok(default)) {
            Ok(limit) if (1..=most).contains(&limit) => Ok(Some(limit)),
            _ => Err(format!("limit: must be from 1 to {most}").into()),
        }
    }

    fn is_set(&self, name: &str) -> Result<bool, BadRequest> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(format!("{name}: {text:?} is neither true nor false").into()),
        }
    }

    fn guest(&self, name: &str) -> Result<Option<String>, BadRequest> {
        let id: Option<VmId> = self.parsed(name)?;
        Ok(id.map(|id| id.as_str().to_owned()))
    }
}

/// The question of a request for this path and query.
pub(super) fn read(path: &str, query: &str, now: WallTime) -> Result<ApiCall, BadRequest> {
    for route in ROUTES {
        if let Some(segment) = matched(route.path, path) {
            let segment = percent::decode(segment);
            let segment = segment.ok_or("the path is no percent-encoded text")?;
            let parameters = Parameters::read(query, route.parameters, segment)?;
            return (route.parse)(&parameters, now);
        }
    }
    Err(BadRequest::NoRoute)
}

/// What of the path stands in the place of the segment in braces, which is the last one; nothing, where there
/// is none.
fn matched<'p>(pattern: &str, path: &'p str) -> Option<&'p str> {
    let Some((before, _)) = pattern.split_once('{') else {
        return (path == pattern).then_some("");
    };
    let segment = path.strip_prefix(before)?;
    (!segment.is_empty() && !segment.contains('/')).then_some(segment)
}

fn ask(query: FleetQuery, page: AnswerPage) -> Result<ApiCall, BadRequest> {
    Ok(ApiCall::Ask { query, page })
}

fn guests(given: &Parameters<'_>, _: WallTime) -> Result<ApiCall, BadRequest> {
    let page = AnswerPage {
        after: given.guest("cursor")?,
        limit: given.limit(GUESTS, MOST_GUESTS)?,
    };
    let os = given.text("os");
    ask(FleetQuery::Guests { os }, page)
}

fn guest(given: &Parameters<'_>, _: WallTime) -> Result<ApiCall, BadRequest> {
    let vm: Result<VmId, _> = given.segment.parse();
    let vm = vm.map_err(|error| error.to_string())?;
    let at: Option<WallTime> = given.parsed("at")?;
    let query = FleetQuery::Show {
        vm: vm.as_str().to_owned(),
        at: at.map(WallTime::unix_ms),
    };
    ask(query, AnswerPage::default())
}

fn packages(given: &Parameters<'_>, _: WallTime) -> Result<ApiCall, BadRequest> {
    let name = given.needed("name")?;
    let text = match (given.get("op"), given.get("version")) {
        (None, None) => name.to_owned(),
        (Some(op), Some(version)) => format!("{name} {} {version}", sign(op)?),
        _ => return Err("op and version belong together".into()),
    };
    let package: Result<PackageFilter, _> = text.parse();
    let package = package.map_err(|error| error.to_string())?;
    if package.name != name.trim() {
        return Err("name: an operator stands in op".into());
    }
    let query = FleetQuery::Find {
        package: package.to_string(),
        arch: given.text("arch"),
        os: given.text("os"),
        not: given.is_set("not")?,
        running: given.is_set("running")?,
    };
    let page = AnswerPage {
        after: given.guest("cursor")?,
        limit: given.limit(MOST_GUESTS, MOST_GUESTS)?,
    };
    ask(query, page)
}

fn sign(op: &str) -> Result<&'static str, BadRequest> {
    Ok(match op {
        "lt" => "<",
        "le" => "<=",
        "eq" => "=",
        "ge" => ">=",
        "gt" => ">",
        "ne" => "!=",
        _ => return Err(format!("op: {op:?} is none of lt, le, eq, ge, gt, ne").into()),
    })
}

fn changes(given: &Parameters<'_>, now: WallTime) -> Result<ApiCall, BadRequest> {
    let since = given
        .get("since")
        .map(|text| since(text, now))
        .transpose()?;
    let query = FleetQuery::Changes {
        since: since.map(WallTime::unix_ms),
        vm: given.guest("vm")?,
        package: given.text("package"),
        after: given.number("cursor")?,
    };
    let page = AnswerPage {
        after: None,
        limit: given.limit(MOST_CHANGES, MOST_CHANGES)?,
    };
    ask(query, page)
}

/// A time, or a duration until now.
fn since(text: &str, now: WallTime) -> Result<WallTime, BadRequest> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let time = clock::parse_duration(text)
        .map_err(|_| format!("since: {text:?} is neither a time nor a duration such as 1h"))?;
    Ok(now.before(time))
}

#[cfg(test)]
mod tests;
