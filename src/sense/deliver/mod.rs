//! Delivery: sends pending reports to a sink, and tells the queue what became of each.
//!
//! ```text
//! queue::next ──► breaker: may anything be sent? ──► read, encode ──► sink ──► Outcome ──► queue::settled
//! ```

pub mod breaker;
mod changes;
pub mod departed;
pub mod outcome;
pub mod run;
pub mod sink;
