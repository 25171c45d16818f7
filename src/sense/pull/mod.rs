//! From guests to pending: who is asked when, one conversation, and what came of it.

pub mod answer;
mod conversation;
pub mod exchange;
pub mod failure;
pub mod run;
pub mod schedule;
