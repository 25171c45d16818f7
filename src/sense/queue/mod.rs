//! The pending queues: the newest undelivered report of every guest for each sink, in memory and on disk.
//!
//! ```text
//! pulling ── arrived ──► Pending ──► SinkQueue ── next, read ──► delivery, one loop a sink
//!            forget         │           │  ▲   ◄── settled ─────────
//!                           │           ▼  │
//!                           ▼        state: the queue
//!                 writer: sense.redb
//! ```
//!
//! Pulling hands documents over, delivery takes them in the order of the policy and says what became of
//! them. Nobody else changes the queues.

mod budgets;
mod dead_letters;
pub mod domain;
#[cfg(test)]
pub(crate) mod fixture;
pub mod pending;
pub mod policy;
#[expect(
    clippy::module_inception,
    reason = "the order of delivery, beside what surrounds it"
)]
pub mod queue;
mod rate_limit;
mod refusal;
mod rings;
pub mod settlement;
pub mod sink_queue;
pub mod slot;
pub mod state;
pub mod table;
pub mod writer;

pub use dead_letters::Whereabouts;
pub use pending::{ArrivedDocument, Pending, PendingAt};
pub use settlement::{FullPull, Settlement};
pub use sink_queue::{Dispatch, NextDelivery, SinkQueue};
pub use state::{PendingState, Precedent};
