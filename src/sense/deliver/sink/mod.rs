//! Where reports go: one trait, one file per kind.

mod file;
mod gzip;
mod http;
mod nats;
mod open;

use super::outcome::Outcome;
pub use open::{SinkAddress, SinkOptions, open};

/// What a delivery brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A report, whole or as the short line of a sink that has it already.
    Report,
    /// Facts that changed after the report.
    Facts,
}

/// A report ready to be sent.
pub struct Delivery {
    /// What is in the body.
    pub kind: Kind,
    /// See [`crate::report::Envelope::idempotency_key`]: one key never stands for two contents.
    pub idempotency_key: String,
    /// Names this document for a server that drops what it had within the last hour: the key, and where
    /// the same content may have been sent before something else also the document's time. A retry has
    /// the same.
    pub message_id: String,
    /// The guest.
    pub vm: String,
    /// The JSON object, without a newline at its end.
    pub body: Vec<u8>,
}

/// Takes reports. Blocks until the report is durable there, or is not.
pub trait Sink: Send + Sync {
    /// Delivers one document.
    fn deliver(&self, delivery: &Delivery) -> Outcome;

    /// Whether it keeps every document, so that a report that it has already is a short line.
    fn shortens_unchanged(&self) -> bool {
        false
    }
}
