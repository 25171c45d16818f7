//! What changed in a guest since a sink accepted a report of it, for what is sent to that sink next.
//!
//! - The changes stand beside the content of a document: its key and digest are the same whatever they are, and each
//!   sink is told those that it lacks.
//! - An event is a row of the change log, not their sum: after a crash the same rows lead on from what was accepted,
//!   so that what is sent again is the same event. Where no rows lead on, the event is the whole state.
//! - A document counts as accepted once its events do.

use super::sink::Event;
use crate::clock::WallTime;
use crate::report::Envelope;
use crate::report::diff::ChangeSet;
use crate::sense::fleet::query::{ChangeLog, ChangePath};
use crate::sense::queue::table::DocumentId;
use crate::wire::change_document::ChangesDocument;
use crate::wire::event_document::{EventDocument, EventReport};

/// The report that a sink accepted last, and when.
pub(super) type Accepted = (DocumentId, WallTime);

/// What leads to the document in an envelope from what its sink accepted last.
pub(super) struct Changes<'e> {
    envelope: &'e Envelope<'e>,
    accepted: Option<Accepted>,
    path: Option<ChangePath>,
    /// The sink accepted this report before, no path leads here from then, and the log has rows since.
    has_gap: bool,
}

impl<'e> Changes<'e> {
    /// Reads the change log; blocks. One that cannot be read costs the changes, and no report.
    pub(super) fn read(
        log: Option<&ChangeLog>,
        envelope: &'e Envelope<'e>,
        accepted: Option<Accepted>,
    ) -> Self {
        let path = match (log, accepted, &envelope.report) {
            (Some(log), Some((accepted, at)), Some(_)) => {
                let from = ((accepted.key, accepted.digest), at);
                let path = log.path(&envelope.vm, from, (envelope.key, envelope.digest));
                path.unwrap_or_else(|error| {
                    tracing::warn!(vm = %envelope.vm, %error, "the change log cannot be read: a report is sent without its changes");
                    None
                })
            }
            _ => None,
        };
        // Where the sink has another content there is the whole state to tell, whatever the log has.
        let has_gap = match (log, accepted.filter(|(it, _)| is_of(*it, envelope)), &path) {
            (Some(log), Some((_, at)), None) if envelope.report.is_some() => {
                log.has_row_after(&envelope.vm, at).unwrap_or(true)
            }
            _ => false,
        };
        Self {
            envelope,
            accepted,
            path,
            has_gap,
        }
    }

    /// All changes together; `None` where the log does not have them.
    pub(super) fn document(&self) -> Option<ChangesDocument> {
        let report = self.envelope.report.as_ref()?;
        let (accepted, _) = self.accepted?;
        let changes = match self.is_known(accepted) {
            true => ChangeSet::default(),
            false => self.path.as_ref()?.net(report),
        };
        Some(ChangesDocument::new(accepted.key, &changes))
    }

    /// The changes one by one, for a sink that is told of events since a time: what it accepted before was no event.
    ///
    /// # Errors
    /// JSON cannot be made.
    pub(super) fn events(
        &self,
        sensor: &str,
        since: WallTime,
    ) -> Result<Vec<Event>, serde_json::Error> {
        let Some(report) = &self.envelope.report else {
            return Ok(Vec::new());
        };
        let told = self.accepted.filter(|(_, at)| *at >= since);
        let events: Vec<EventDocument<'_>> = match (told, &self.path) {
            (Some(_), Some(path)) => {
                let steps = path.steps().iter();
                let steps = steps.map(|step| {
                    let report = EventReport {
                        key: step.to.0,
                        digest: step.to.1,
                        seen_at: step.at,
                        trigger: step.trigger,
                    };
                    let changes = ChangesDocument::new(step.from.0, &path.changes(step));
                    EventDocument::change(self.envelope, sensor, report, changes)
                });
                steps.collect()
            }
            // Its row is older than the log.
            (Some((accepted, _)), None) if self.is_known(accepted) && !self.has_gap => Vec::new(),
            _ => vec![EventDocument::state(self.envelope, sensor, report)],
        };
        let events = events.into_iter().map(|event| {
            Ok(Event {
                body: serde_json::to_vec(&event)?,
                id: event.id,
            })
        });
        events.collect()
    }

    /// Whether the sink has this content.
    fn is_known(&self, accepted: DocumentId) -> bool {
        is_of(accepted, self.envelope)
    }
}

/// Whether this names the report in the envelope.
fn is_of(accepted: DocumentId, envelope: &Envelope<'_>) -> bool {
    (accepted.key, accepted.digest) == (envelope.key, envelope.digest)
}

#[cfg(test)]
mod tests;
