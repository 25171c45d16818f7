//! Pulling: asks every guest that is due for its report, and puts documents into the queue.
//!
//! ```text
//! roster ──► GuestTable: schedule ──► PullJob: exchange ── answer ──► queue::arrived
//!                 ▲                                   │
//!                 └──────────── PullOutcome ──────────┘
//! ```

pub mod agent;
pub mod answer;
pub mod dial;
pub mod exchange;
pub mod failure;
pub mod guests;
pub mod job;
pub mod layers;
pub mod run;
pub mod schedule;
