//! Events of guests in a stream of their own: one message a change, on `afferent.changes.<vm id>`.
//!
//! - Events of a document are published after it, in their order, each with its acknowledgement; the document counts
//!   as accepted with the last of them. So no event comes before the one before it of the same guest.
//! - A stream that was missing and is made has no event: from then on what was accepted before counts as not told,
//!   and each guest begins anew with its whole state.

use super::nats_stream::{Published, Readiness, SinkStream, StreamMessage};
use super::subject::word;
use super::{Event, EventOptions, since};
use crate::clock::{self, WallTime};
use crate::nats::jetstream::Kept;
use crate::nats::{NatsAddress, NatsClient};
use crate::sense::deliver::outcome::Outcome;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What stands before the guest in the subject of its events.
const CHANGES: &str = "afferent.changes";

/// Longest time of all events of one document.
const DEADLINE: Duration = Duration::from_secs(120);

/// The stream of events.
pub(super) struct EventStream {
    stream: SinkStream,
    /// Since when it has every event.
    since: Mutex<WallTime>,
    memory: Option<PathBuf>,
    /// What is remembered of it.
    what: String,
}

impl EventStream {
    /// On the server of this address.
    pub(super) fn new(
        client: &Arc<NatsClient>,
        address: &NatsAddress,
        options: &EventOptions,
        memory: Option<&Path>,
    ) -> Self {
        let place = (address.create, address.replicas);
        let kept = Kept::For(options.max_age);
        let stream = SinkStream::new(client, &options.stream, place, kept, (CHANGES, None));
        let what = format!("{address}\nevents {}", options.stream);
        Self {
            stream,
            since: Mutex::new(since::since(memory, &what)),
            memory: memory.map(Path::to_owned),
            what,
        }
    }

    /// Since when it has every event.
    pub(super) fn since(&self) -> WallTime {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the stream, or makes it. One that was made takes other events than those that are to be sent.
    pub(super) fn be_ready(&self, until: Instant) -> Result<(), Outcome> {
        self.take_over(self.stream.be_ready(until)?)
    }

    fn take_over(&self, readiness: Readiness) -> Result<(), Outcome> {
        match readiness {
            Readiness::Found => Ok(()),
            Readiness::Made => {
                let anew = since::since_now(self.memory.as_deref(), &self.what);
                *self.since.lock().unwrap_or_else(PoisonError::into_inner) = anew;
                Err(Outcome::Postponed)
            }
        }
    }

    /// Publishes events of a guest, in their order.
    pub(super) fn publish(&self, vm: &str, events: &[Event]) -> Result<(), Outcome> {
        let until = clock::now() + DEADLINE;
        let subject = format!("{CHANGES}.{}", word(vm));
        for event in events {
            let message = StreamMessage {
                what: "an event",
                subject: &subject,
                id: &event.id,
                content_type: "application/json",
                body: &event.body,
            };
            if let Published::NoStream(said) = self.stream.publish(&message, until)? {
                self.take_over(self.stream.make_ready(until)?)?;
                return Err(Outcome::Unreachable(said));
            }
        }
        Ok(())
    }
}
