//! What is asked about the fleet: the parameters of a request, as text of somebody else, made into a question.
//!
//! [`ROUTES`] is all there is beside the page and logins; `openapi.json` describes the same.

use crate::clock::WallTime;
use crate::report::VmId;
use crate::sense::fleet::query::find::PackageFilter;
use crate::sense::fleet::query::{AnswerPage, DriftPlace, FleetQuery};
use crate::web::routes::{BadRequest, Parameters, Route, since};

/// Guests on a page, unless told otherwise.
const GUESTS: usize = 1000;

/// Most guests on a page.
const MOST_GUESTS: usize = 10_000;

/// Packages on a page, unless told otherwise.
const PACKAGES: usize = 1000;

/// Most packages on a page.
const MOST_PACKAGES: usize = 10_000;

/// Most changes on a page, and as many unless told otherwise.
const MOST_CHANGES: usize = 1000;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ApiCall {
    /// A part of the answer to a question.
    Ask { query: FleetQuery, page: AnswerPage },
    /// Changes as they come, behind this number or from now on.
    Stream { after: Option<u64> },
    /// How the fleet is.
    Summary,
}

/// All paths.
pub(super) const ROUTES: &[Route<ApiCall>] = &[
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
        parameters: &["name", "os", "cursor", "limit"],
        parse: versions,
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

fn guest_id(given: &Parameters<'_>, name: &str) -> Result<Option<String>, BadRequest> {
    let id: Option<VmId> = given.parsed(name)?;
    Ok(id.map(|id| id.as_str().to_owned()))
}

fn ask(query: FleetQuery, page: AnswerPage) -> Result<ApiCall, BadRequest> {
    Ok(ApiCall::Ask { query, page })
}

fn guests(given: &Parameters<'_>, _: WallTime) -> Result<ApiCall, BadRequest> {
    let page = AnswerPage {
        after: guest_id(given, "cursor")?,
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
        after: guest_id(given, "cursor")?,
        limit: given.limit(MOST_GUESTS, MOST_GUESTS)?,
    };
    ask(query, page)
}

fn versions(given: &Parameters<'_>, _: WallTime) -> Result<ApiCall, BadRequest> {
    let os = given.text("os");
    if let Some(name) = given.text("name") {
        if given.get("cursor").or(given.get("limit")).is_some() {
            return Err("cursor and limit: the versions of one package are one page".into());
        }
        return ask(FleetQuery::Versions { name, os }, AnswerPage::default());
    }
    let cursor: Option<DriftPlace> = given.parsed("cursor")?;
    let page = AnswerPage {
        after: cursor.map(|cursor| cursor.to_string()),
        limit: given.limit(PACKAGES, MOST_PACKAGES)?,
    };
    ask(FleetQuery::Drift { os }, page)
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
        vm: guest_id(given, "vm")?,
        package: given.text("package"),
        after: given.number("cursor")?,
    };
    let page = AnswerPage {
        after: None,
        limit: given.limit(MOST_CHANGES, MOST_CHANGES)?,
    };
    ask(query, page)
}

#[cfg(test)]
mod tests;
