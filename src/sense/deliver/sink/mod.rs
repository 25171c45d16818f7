//! Sinks: where documents go. One file per kind, `open.rs` for their addresses.

mod dependency_track;
mod file;
mod gzip;
mod http;
mod nats;
mod nats_events;
mod nats_stream;
mod open;
mod project;
mod sbom;
mod since;
mod subject;
mod written;

use crate::blocking::Blocking;
use crate::clock::WallTime;
use crate::sense::deliver::outcome::Outcome;
use crate::sense::roster::KnownGuests;
pub(crate) use nats::{FACTS, REPORTS};
pub use open::{DepartedFiles, EventOptions, SinkAddress, SinkOptions, open};
pub use project::{ParentProject, Template};
pub(crate) use sbom::SbomSink;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
pub(crate) use subject::word;
use tokio::sync::watch;

/// What a delivery brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DocumentKind {
    /// A report, whole or as the short line of a sink that has it already.
    Report,
    /// Facts that changed after the report.
    Facts,
}

/// What is made of a report for a sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DocumentForm {
    /// A document of our own, as docs/consumers.md has it.
    #[default]
    Report,
    /// A bill of materials in the form of CycloneDX. Facts alone are documents of our own all the same.
    CycloneDx,
}

/// A document ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// What is in the body.
    pub kind: DocumentKind,
    /// See [`crate::report::Envelope::idempotency_key`]: one key never stands for two contents.
    pub idempotency_key: String,
    /// Names this document for a server that drops what it had within the last hour: the key, and where
    /// the same content may have been sent before something else also the document's time. A retry has
    /// the same.
    pub message_id: String,
    /// The guest.
    pub vm: String,
    /// Its system, as `rhel-9.4`; empty where the body is no bill of materials.
    pub os: String,
    /// When the sink accepted this content, where nothing else of the guest was accepted since.
    pub accepted_at: Option<WallTime>,
    /// The JSON object, without a newline at its end.
    pub body: Vec<u8>,
    /// What led to it, oldest first, for a sink that takes events.
    pub events: Vec<Event>,
}

/// An event of a guest, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same whenever it is sent again.
    pub id: String,
    /// The JSON object, without a newline at its end.
    pub body: Vec<u8>,
}

/// A delivery under way.
pub type Delivering<'a> = Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>;

/// The removal of what is kept of guests that left.
pub type Removing<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>;

/// Takes documents.
pub trait Sink: Send + Sync {
    /// Delivers one document. [`Outcome::Accepted`] means that it is durable there.
    fn deliver(&self, delivery: Delivery) -> Delivering<'_>;

    /// Whether it keeps every document, so that a report that it has already is a short line.
    fn shortens_unchanged(&self) -> bool {
        false
    }

    /// What it takes.
    fn form(&self) -> DocumentForm {
        DocumentForm::Report
    }

    /// Since when it takes events; `None`: it takes none. What it accepted before came without.
    fn events_since(&self) -> Option<WallTime> {
        None
    }

    /// Removes what it keeps of guests that are not in the roster, where it is one that does so.
    fn remove_departed(&self, _roster: watch::Receiver<KnownGuests>) -> Removing<'_> {
        Box::pin(async { Ok(()) })
    }
}

/// A sink that blocks the thread that delivers.
trait BlockingSink: Send + Sync + 'static {
    fn deliver(&self, delivery: &Delivery) -> Outcome;

    /// As [`Sink::shortens_unchanged`].
    fn shortens_unchanged(&self) -> bool {
        false
    }

    /// As [`Sink::form`].
    fn form(&self) -> DocumentForm {
        DocumentForm::Report
    }

    /// As [`Sink::events_since`].
    fn events_since(&self) -> Option<WallTime> {
        None
    }

    /// As [`Sink::remove_departed`].
    fn remove_departed(&self, _roster: &watch::Receiver<KnownGuests>) -> io::Result<()> {
        Ok(())
    }
}

/// A [`BlockingSink`] on a thread per delivery.
struct OnThreads<S>(Arc<S>);

impl<S: BlockingSink> Sink for OnThreads<S> {
    fn deliver(&self, delivery: Delivery) -> Delivering<'_> {
        let sink = self.0.clone();
        Box::pin(async move {
            let sent = Blocking::Threads.run(move || sink.deliver(&delivery));
            sent.await
                .unwrap_or_else(|error| Outcome::of_panic(&error.to_string()))
        })
    }

    fn shortens_unchanged(&self) -> bool {
        self.0.shortens_unchanged()
    }

    fn form(&self) -> DocumentForm {
        self.0.form()
    }

    fn events_since(&self) -> Option<WallTime> {
        self.0.events_since()
    }

    fn remove_departed(&self, roster: watch::Receiver<KnownGuests>) -> Removing<'_> {
        let sink = self.0.clone();
        Box::pin(async move {
            let removed = Blocking::Threads.run(move || sink.remove_departed(&roster));
            removed
                .await
                .unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
        })
    }
}
