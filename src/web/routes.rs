//! What is asked: path and query of a request, as text of somebody else, made into a question.
//!
//! A parameter that a route does not have, or that comes twice, is a mistake: it is refused, so that nobody reads an
//! answer to another question.

use crate::clock::{self, WallTime};
use crate::percent;
use std::str::FromStr;

/// A file of the page, or the description of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StaticFile {
    /// The document.
    Index,
    /// Script that all pages share.
    Shell,
    /// Script of this page.
    Script,
    /// Style that all pages share.
    ShellStyle,
    /// Style of this page.
    Style,
    /// Description of the API.
    OpenApi,
}

/// Files that everybody may read.
const FILES: [(&str, StaticFile); 6] = [
    ("/", StaticFile::Index),
    ("/shell.js", StaticFile::Shell),
    ("/app.js", StaticFile::Script),
    ("/shell.css", StaticFile::ShellStyle),
    ("/style.css", StaticFile::Style),
    ("/openapi.json", StaticFile::OpenApi),
];

/// Opens a session.
const LOGIN: &str = "/login";

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum WebCall<C> {
    /// A file, which everybody may read.
    Static(StaticFile),
    /// A session, for this code; `None`: the address of a login is more or less than that.
    Login { code: Option<String> },
    /// Something that only those with access get.
    Ask(C),
}

/// Why a request is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadRequest {
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

type Parse<C> = fn(&Parameters<'_>, WallTime) -> Result<C, BadRequest>;

/// A path, the parameters that it takes, and how they are read.
pub(crate) struct Route<C: 'static> {
    /// A segment in braces stands for any text.
    pub(crate) path: &'static str,
    /// Names.
    pub(crate) parameters: &'static [&'static str],
    /// Makes them a question.
    pub(crate) parse: Parse<C>,
}

/// The parameters of a request, each once.
pub(crate) struct Parameters<'r> {
    given: Vec<(&'r str, String)>,
    /// What stands in the place of the segment in braces.
    pub(crate) segment: String,
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
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut given = self.given.iter().filter(|(given, _)| *given == name);
        let value = given.next().map(|(_, value)| value.as_str());
        value.filter(|value| !value.is_empty())
    }

    /// The same, owned.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// A parameter that must be there.
    pub(crate) fn needed(&self, name: &str) -> Result<&str, BadRequest> {
        self.get(name)
            .ok_or_else(|| format!("{name} is needed").into())
    }

    /// A parameter of another type.
    pub(crate) fn parsed<T: FromStr<Err: ToString>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, BadRequest> {
        let value = self.get(name).map(str::parse::<T>).transpose();
        value.map_err(|error| format!("{name}: {}", error.to_string()).into())
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, BadRequest> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text.parse().ok().filter(|_| !text.starts_with('+'));
        number
            .map(Some)
            .ok_or_else(|| format!("{name}: {text:?} is not a whole number").into())
    }

    /// How many rows a page has: from 1 to `most`.
    pub(crate) fn limit(&self, default: usize, most: usize) -> Result<Option<usize>, BadRequest> {
        let wanted = self.number("limit")?.map(usize::try_from);
        match wanted.unwrap_or(Ok(default)) {
            Ok(limit) if (1..=most).contains(&limit) => Ok(Some(limit)),
            _ => Err(format!("limit: must be from 1 to {most}").into()),
        }
    }

    /// `true` or `false`, which is also what absence means.
    pub(crate) fn is_set(&self, name: &str) -> Result<bool, BadRequest> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(format!("{name}: {text:?} is neither true nor false").into()),
        }
    }
}

/// What a request for this path and query asks, where these are the routes.
pub(crate) fn read<C>(
    routes: &[Route<C>],
    path: &str,
    query: &str,
    now: WallTime,
) -> Result<WebCall<C>, BadRequest> {
    if let Some((_, file)) = FILES.iter().find(|(of_file, _)| *of_file == path) {
        // Whatever the parameters: no answer of a file could be that to another question.
        return Ok(WebCall::Static(*file));
    }
    if path == LOGIN {
        let given = Parameters::read(query, &["code"], String::new());
        let code = given.ok().and_then(|given| given.text("code"));
        return Ok(WebCall::Login { code });
    }
    for route in routes {
        if let Some(segment) = matched(route.path, path) {
            let segment = percent::decode(segment);
            let segment = segment.ok_or("the path is no percent-encoded text")?;
            let parameters = Parameters::read(query, route.parameters, segment)?;
            return (route.parse)(&parameters, now).map(WebCall::Ask);
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

/// A time, or a duration until now.
pub(crate) fn since(text: &str, now: WallTime) -> Result<WallTime, BadRequest> {
    let read = clock::time_or_age(text, now);
    Ok(read.map_err(|why| format!("since: {why}"))?)
}

/// Asserts that a description in OpenAPI lists exactly the routes and their parameters, and who may ask.
#[cfg(test)]
pub(crate) fn assert_described<C>(routes: &[Route<C>], text: &str) {
    use std::collections::BTreeMap;

    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    let parameters = |item: &serde_json::Value, place: &str| {
        let parameters = item["get"]["parameters"].as_array();
        let parameters = parameters.into_iter().flatten();
        let of_place = parameters.filter(|it| it["in"] == place);
        let names = of_place.map(|it| it["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    let described: BTreeMap<&str, Vec<String>> = paths
        .iter()
        .map(|(path, item)| (path.as_str(), parameters(item, "query")))
        .collect();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut routed: BTreeMap<&str, Vec<String>> = routes
        .iter()
        .map(|route| (route.path, owned(route.parameters)))
        .collect();
    routed.extend(FILES.map(|(path, _)| (path, Vec::new())));
    routed.insert(LOGIN, owned(&["code"]));
    assert_eq!(described, routed);
    for (path, item) in paths {
        let methods: Vec<&String> = item.as_object().unwrap().keys().collect();
        assert_eq!(methods, ["get"], "{path}");
        assert_eq!(
            parameters(item, "path").len(),
            path.matches('{').count(),
            "{path}"
        );
        assert_eq!(
            item["get"]["security"].is_array(),
            !path.starts_with("/v1/"),
            "{path}"
        );
    }
}
