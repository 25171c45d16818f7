//! What became of a delivery, named for what the queue does next.

use crate::report::ReportSummary;
use std::time::Duration;

/// What the queue does with a document that was in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// The sink has it: it goes, on disk too.
    Accepted,
    /// The sink never takes documents of its kind: it goes.
    Skipped,
    /// It cannot be read any more: it goes, and its guest must be pulled again.
    Damaged,
    /// Its content was refused: it backs off, and is a dead letter once it was pulled again and refused
    /// again.
    Refused,
    /// It failed for no known reason: it backs off.
    Failed,
    /// The sink gets too many: the mirror of its limit is emptied, and the document waits for this long.
    RateLimited(Duration),
    /// It waits for this long, then follows those that wait now. Nothing is counted.
    Deferred(Duration),
    /// The sink takes nothing of this guest: it waits, longer each time.
    Forbidden,
    /// It follows those that wait now. Nothing is counted.
    Last,
    /// It keeps its place. Nothing is counted.
    SamePlace,
    /// Pending holds this other document: nothing was sent, and this one takes the place.
    Replaced(Box<ReportSummary>),
}

/// When a guest is pulled in full, whatever is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullPull {
    /// Now: its document is gone.
    AtOnce,
    /// In ten seconds or so: its document was refused, and is sent once more when it was pulled again.
    AfterPause,
    /// Now, and also where it failed lately: somebody asks for it, who may just have mended it.
    OnDemand,
}
