//! The pending queue: the newest undelivered report of every guest, in memory and on disk.
//!
//! Pulling hands reports over, delivery takes them in the order of the policy and says what became of
//! them. Nobody else changes the queue.

mod budgets;
pub mod pending;
pub mod policy;
#[expect(
    clippy::module_inception,
    reason = "the order of delivery, beside what surrounds it"
)]
pub mod queue;
mod rate_limit;
mod rings;
pub mod slot;
pub mod table;
pub mod writer;
