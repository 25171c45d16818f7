//! The pending queue: the newest undelivered report of every guest, in memory and on disk.
//!
//! ```text
//! pulling ── arrived ──► Pending ── next, read ──► delivery
//!            forget       │  ▲  ◄── settled ─────────
//!                         ▼  │
//!                 state: the queue       writer: sense.redb
//! ```
//!
//! Pulling hands documents over, delivery takes them in the order of the policy and says what became of
//! them. Nobody else changes the queue.

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
pub mod slot;
pub mod state;
pub mod table;
pub mod writer;

pub use dead_letters::Whereabouts;
pub use pending::{ArrivedDocument, Dispatch, NextDelivery, Pending};
pub use settlement::{FullPull, Settlement};
pub use state::{PendingState, Precedent};
