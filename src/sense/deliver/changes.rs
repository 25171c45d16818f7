//! What changed in a guest since a sink accepted a report of it, for what is sent to that sink next.
//!
//! The changes stand beside the content of a document: its key and digest are the same whatever they are, and each
//! sink is told those that it lacks.

use crate::clock::WallTime;
use crate::report::Envelope;
use crate::sense::fleet::query::{ChangeLog, ChangePath};
use crate::sense::queue::table::DocumentId;
use crate::wire::change_document::ChangesDocument;

/// What changed since the report that a sink accepted at a time, in all; `None` where the log does not say. Blocks.
pub(super) fn net(
    log: &ChangeLog,
    envelope: &Envelope<'_>,
    (accepted, at): (DocumentId, WallTime),
) -> Option<ChangesDocument> {
    let report = envelope.report.as_ref()?;
    let name = (envelope.key, envelope.digest);
    let path = match (accepted.key, accepted.digest) == name {
        true => ChangePath::default(),
        false => path(log, envelope, (accepted, at))?,
    };
    Some(ChangesDocument::new(accepted.key, &path.net(report)))
}

/// The changes one by one. A log that cannot be read costs the changes, and no report.
fn path(
    log: &ChangeLog,
    envelope: &Envelope<'_>,
    (accepted, at): (DocumentId, WallTime),
) -> Option<ChangePath> {
    let from = ((accepted.key, accepted.digest), at);
    let path = log.path(&envelope.vm, from, (envelope.key, envelope.digest));
    path.unwrap_or_else(|error| {
        tracing::warn!(vm = %envelope.vm, %error, "the change log cannot be read: a report is sent without its changes");
        None
    })
}
