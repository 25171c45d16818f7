//! One integration binary; each module is named for a behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed helper fails its test"
)]
#![allow(unreachable_pub, reason = "support is public to every module here")]

mod support;

mod mirror_scenarios;
mod scan_live;
mod sense_delivers;
