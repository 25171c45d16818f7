//! What an answer of Central means: named for what the sensor does next.

use crate::report::ReportSummary;
use crate::sense::queue::Settlement;
use crate::sense::queue::policy::LONGEST_DEFERRAL;
use crate::visible::visible;
use std::borrow::Cow;
use std::time::Duration;

/// How long a document waits that Central deferred without saying for how long; and a long one while
/// another is being sent.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Characters of an answer that are kept for people.
const SHOWN: usize = 200;

/// What became of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Central has it: forget it.
    Accepted,
    /// Central refused this content: the guest is pulled in full, and the report sent again.
    Refused(String),
    /// No sink can take it as it is: the guest is pulled in full; the text names what to change.
    RefusedForGood(String),
    /// Our configuration is wrong: keep everything, try slowly.
    Unauthorized(String),
    /// We may not deliver for this guest, perhaps for none: it waits, the others are tried.
    Forbidden(String),
    /// Our own store cannot be read now: pause, count nothing.
    StoreUnreadable(String),
    /// Central gets too much: pause, count nothing.
    Busy {
        /// How long Central asked for.
        retry_after: Option<Duration>,
        /// The text of the answer.
        said: String,
    },
    /// Central is not there: pause, count nothing.
    Unreachable(String),
    /// Something went wrong with this one; perhaps with Central.
    Failed(String),
    /// The sink takes no facts alone: forget these.
    Skipped(String),
    /// Pending holds this other report by now: nothing was sent.
    Superseded(Box<ReportSummary>),
    /// Something else comes first, such as a long one that is being sent: it is read and sent anew soon.
    Postponed,
    /// Pending does not hold what was stored: nothing was sent.
    Damaged(String),
}

impl Outcome {
    /// Every word of [`Outcome::label`].
    pub const LABELS: [&'static str; 13] = [
        "accepted",
        "refused",
        "refused_for_good",
        "unauthorized",
        "forbidden",
        "store_unreadable",
        "busy",
        "unreachable",
        "failed",
        "skipped",
        "superseded",
        "postponed",
        "damaged",
    ];

    /// What the status of an HTTP answer means.
    pub fn of_status(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let said = answered(status, body);
        match status {
            200..300 | 409 => Self::Accepted,
            400 | 413 | 422 => Self::Refused(said),
            401 => Self::Unauthorized(said),
            403 => Self::Forbidden(said),
            429 | 503 => Self::Busy {
                retry_after: retry_after.map(|pause| pause.min(LONGEST_DEFERRAL)),
                said,
            },
            _ => Self::Failed(said),
        }
    }

    /// A fault of this program in handling one document: a failure of that document, and no other's.
    pub fn of_panic(said: &str) -> Self {
        tracing::error!(error = %visible(said), "a fault of afferent in delivering a document");
        Self::Failed("a fault of afferent, see its log".into())
    }

    /// A word for metrics and `status`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(_) => "refused",
            Self::RefusedForGood(_) => "refused_for_good",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::StoreUnreadable(_) => "store_unreadable",
            Self::Busy { .. } => "busy",
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) => "failed",
            Self::Skipped(_) => "skipped",
            Self::Superseded(_) => "superseded",
            Self::Postponed => "postponed",
            Self::Damaged(_) => "damaged",
        }
    }

    /// What the queue does next. `counts`: whether the outcome is held against the document, or against
    /// Central.
    pub fn settlement(self, counts: bool) -> Settlement {
        match self {
            Self::Accepted => Settlement::Accepted,
            Self::Skipped(_) => Settlement::Skipped,
            Self::Damaged(_) => Settlement::Damaged,
            Self::Refused(_) | Self::RefusedForGood(_) if counts => Settlement::Refused,
            Self::Failed(_) if counts => Settlement::Failed,
            Self::Failed(_) => Settlement::Last,
            Self::Busy { retry_after, .. } => {
                Settlement::RateLimited(retry_after.unwrap_or(DEFAULT_RETRY_AFTER))
            }
            Self::Forbidden(_) => Settlement::Forbidden,
            Self::Postponed => Settlement::Deferred(DEFAULT_RETRY_AFTER),
            Self::Superseded(found) => Settlement::Replaced(found),
            Self::Unreachable(_)
            | Self::Unauthorized(_)
            | Self::StoreUnreadable(_)
            | Self::Refused(_)
            | Self::RefusedForGood(_) => Settlement::SamePlace,
        }
    }

    /// The text of the answer, where there is one, made visible: it came from outside.
    pub fn said(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Accepted | Self::Superseded(_) | Self::Postponed => None,
            Self::Refused(said)
            | Self::RefusedForGood(said)
            | Self::Unauthorized(said)
            | Self::Forbidden(said)
            | Self::StoreUnreadable(said)
            | Self::Busy { said, .. }
            | Self::Unreachable(said)
            | Self::Failed(said)
            | Self::Skipped(said)
            | Self::Damaged(said) => Some(visible(said)),
        }
    }
}

/// `422: what the body says`, on one line and not too long.
pub(super) fn answered(status: u16, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body.get(..body.len().min(4 * SHOWN)).unwrap_or_default());
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    match line.trim() {
        "" => status.to_string(),
        line => format!("{status}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_leads_to_the_step_that_the_contract_names() {
        let label = |status| Outcome::of_status(status, None, b"").label();
        let table = [
            (200, "accepted"),
            (202, "accepted"),
            (409, "accepted"),
            (400, "refused"),
            (422, "refused"),
            (413, "refused"),
            (401, "unauthorized"),
            (403, "forbidden"),
            (429, "busy"),
            (503, "busy"),
            (500, "failed"),
            (301, "failed"),
            (404, "failed"),
        ];
        for (status, expected) in table {
            assert_eq!(label(status), expected, "{status}");
        }
    }

    #[test]
    fn a_pause_is_bounded_whatever_central_asks_for() {
        let outcome = Outcome::of_status(429, Some(Duration::from_secs(1 << 40)), b"");
        assert!(
            matches!(outcome, Outcome::Busy { retry_after: Some(pause), .. } if pause == LONGEST_DEFERRAL)
        );
    }

    #[test]
    fn what_was_said_in_any_outcome_is_visible() {
        let busy = |said: &str| Outcome::Busy {
            retry_after: None,
            said: said.into(),
        };
        let outcome = busy("-ERR '\u{1b}[2J\n\u{202e}'");
        assert_eq!(outcome.said().unwrap(), "-ERR '\\x1b[2J\\n\\u202e'");
    }

    #[test]
    fn what_central_says_is_one_short_line() {
        let outcome = Outcome::of_status(422, None, "no\nsuch\tüser".repeat(100).as_bytes());
        let said = outcome.said().unwrap();
        assert!(said.starts_with("422: no such üser") && said.chars().count() < 210);
        assert!(!said.contains('\n'));
    }
}
