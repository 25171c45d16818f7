//! What is asked about the inventory: the parameters of a request, as text of somebody else, made into a question.
//!
//! [`ROUTES`] is all there is beside the page and logins; `openapi.json` describes the same.

use crate::clock::WallTime;
use crate::inventory::{ComponentType, DriftType};
use crate::mirror::query::{AuditFilter, DriftAge, DriftFilter, audit_kind};
use crate::web::routes::{BadRequest, Parameters, Route, since};
use uuid::Uuid;

/// Rows of a page, unless told otherwise.
pub(super) const ROWS: usize = 1000;

/// Most rows of a page.
pub(super) const MOST_ROWS: usize = 5000;

/// Longest text that is looked for, in bytes.
const LONGEST_TEXT: usize = 512;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MirrorCall {
    /// Racks behind this one.
    Racks { after: Option<Uuid>, limit: usize },
    /// A rack by id or Core's name of it.
    Rack { name: String },
    /// Drift, the oldest first.
    Drift {
        filter: DriftFilter,
        after: Option<DriftAge>,
    },
    /// What was done, the newest first.
    Audit { filter: AuditFilter },
    /// Withheld deletes, so many rows of each type.
    Withheld { limit: usize },
    /// How the mirror is.
    Status,
}

/// All paths.
pub(super) const ROUTES: &[Route<MirrorCall>] = &[
    Route {
        path: "/v1/racks",
        parameters: &["cursor", "limit"],
        parse: |given, _| {
            Ok(MirrorCall::Racks {
                after: given.parsed("cursor")?,
                limit: limit(given)?,
            })
        },
    },
    Route {
        path: "/v1/racks/{id}",
        parameters: &[],
        parse: |given, _| {
            let name = short("id", given.segment.clone())?;
            Ok(MirrorCall::Rack { name })
        },
    },
    Route {
        path: "/v1/drift",
        parameters: &["kind", "rack", "since", "code", "cursor", "limit"],
        parse: drift,
    },
    Route {
        path: "/v1/audit",
        parameters: &["since", "kind", "rack", "code", "row", "cursor", "limit"],
        parse: audit,
    },
    Route {
        path: "/v1/withheld",
        parameters: &["limit"],
        parse: |given, _| {
            let limit = limit(given)?;
            Ok(MirrorCall::Withheld { limit })
        },
    },
    Route {
        path: "/v1/status",
        parameters: &[],
        parse: |_, _| Ok(MirrorCall::Status),
    },
];

fn limit(given: &Parameters<'_>) -> Result<usize, BadRequest> {
    Ok(given.limit(ROWS, MOST_ROWS)?.unwrap_or(ROWS))
}

fn short(name: &str, text: String) -> Result<String, BadRequest> {
    match text.len() <= LONGEST_TEXT {
        true => Ok(text),
        false => Err(format!("{name}: is longer than {LONGEST_TEXT} bytes").into()),
    }
}

fn text(given: &Parameters<'_>, name: &str) -> Result<Option<String>, BadRequest> {
    let text = given.text(name);
    text.map(|text| short(name, text)).transpose()
}

fn from(given: &Parameters<'_>, now: WallTime) -> Result<Option<WallTime>, BadRequest> {
    let text = given.get("since");
    text.map(|text| since(text, now)).transpose()
}

fn drift(given: &Parameters<'_>, now: WallTime) -> Result<MirrorCall, BadRequest> {
    let kind: Option<ComponentType> = given.parsed("kind")?;
    let code: Option<DriftType> = given.parsed("code")?;
    let filter = DriftFilter {
        kind: kind.map(|kind| kind.name().to_owned()),
        rack: text(given, "rack")?,
        code: code.map(|code| code.name().to_owned()),
        since: from(given, now)?,
        cursor: None,
        limit: Some(limit(given)?),
    };
    let after = given.parsed("cursor")?;
    Ok(MirrorCall::Drift { filter, after })
}

fn audit(given: &Parameters<'_>, now: WallTime) -> Result<MirrorCall, BadRequest> {
    let filter = AuditFilter {
        run: None,
        row: text(given, "row")?,
        kind: given.get("kind").map(audit_kind).transpose()?,
        rack: text(given, "rack")?,
        code: text(given, "code")?,
        since: from(given, now)?,
        until: None,
        cursor: given.number("cursor")?,
        limit: Some(limit(given)?),
    };
    Ok(MirrorCall::Audit { filter })
}

#[cfg(test)]
mod tests;
