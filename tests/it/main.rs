//! The behaviour of the program as a whole; each module is named for one.

#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod sense_delivers;
#[allow(dead_code, reason = "helpers for more tests than there are yet")]
mod support;
