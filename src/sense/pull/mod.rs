//! From guests to pending: who is asked when, one conversation, and what came of it.

pub mod exchange;
pub mod failure;
pub mod lanes;
pub mod run;
pub mod schedule;
