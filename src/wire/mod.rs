//! What is said over a socket, as bytes and as values.
//!
//! ```text
//! frame     ┌──────────────┬──────────────────────┐
//!           │ length u32 BE│ one protobuf message │     one request per connection
//!           └──────────────┴──────────────────────┘
//!
//! sensor ── VMServiceRequest { meta, get_report | wait_report | mapping } ──► agent
//! sensor ◄─ VMServiceResponse { meta, report | unchanged | error | updated } agent
//! ```
//!
//! The messages are those of StackRox's VM service, with our extensions under field numbers it
//! does not use, so that either side also works with theirs. Nothing here does IO, and no byte of a
//! peer can make it panic or take more memory than the named bounds.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

pub mod ca_bundle;
pub mod change_document;
mod convert;
pub mod document;
pub mod event_document;
pub mod fields;
pub mod frame;
pub mod message;
pub mod meta;
pub mod read_document;
pub mod request;
pub mod response;

pub use convert::{MAPPED_KEY, hint_of, report_to_wire};

/// Largest request an agent reads, in bytes.
pub const MAX_REQUEST: u32 = 1 << 20;

/// Largest request that pushes a mapping, in bytes.
pub const MAX_PUSH: u32 = 6 << 20;

/// Largest response a sensor reads, in bytes.
pub const MAX_RESPONSE: u32 = 16 << 20;

/// Method names as `supported_methods` lists them.
pub mod method {
    /// The report, or word that it is unchanged, at once.
    pub const GET_REPORT: &str = "get_report";
    /// The same, as soon as the report is another than the one known.
    pub const WAIT_REPORT: &str = "wait_report";
    /// Takes a mapping from repositories to CPEs.
    pub const SYNC_REPO_CPE_MAPPING: &str = "sync_repo_cpe_mapping";
}
