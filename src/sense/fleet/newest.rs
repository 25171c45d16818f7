//! The rule by which documents of many sensors are kept, that of docs/consumers.md: the highest `seen_at` counts,
//! whatever the order in which documents come.

use super::document::FleetDocument;
use crate::clock::WallTime;
use crate::report::Digest;
use std::time::Duration;

/// By how much the clock of a sensor may be ahead of ours.
const AHEAD: Duration = Duration::from_secs(5 * 60);

/// What becomes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It takes the place of what was here.
    Taken,
    /// It came before, or something newer did.
    Older,
    /// Facts of a report that is not here.
    Unmatched,
}

impl Intake {
    /// What becomes of a document, of what is kept of its guest: when that was seen, and the digest of its report.
    pub(super) fn of(kept: Option<(WallTime, Digest)>, document: &FleetDocument) -> Self {
        match (kept, &document.content) {
            (Some((seen_at, _)), _) if document.seen_at <= seen_at => Self::Older,
            (_, Some(_)) => Self::Taken,
            (Some((_, digest)), None) if digest == document.digest => Self::Taken,
            (_, None) => Self::Unmatched,
        }
    }
}

/// When a document that comes `now` counts as seen: a host's clock that was years ahead must not deafen us.
pub fn effective_seen_at(seen_at: WallTime, now: WallTime) -> WallTime {
    match seen_at.since(now) > AHEAD {
        true => now,
        false => seen_at,
    }
}
