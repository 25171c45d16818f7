//! One integration binary; each module is named for a behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed helper fails its test and says what it saw"
)]
#![allow(unreachable_pub, reason = "support is public to every module here")]

mod support;

mod everything_killed;
mod mirror_scenarios;
mod rpmdb_real;
mod scan_live;
mod sense_delivers;
mod serve_attacked;
mod serve_blind;
mod serve_faults;
mod serve_killed;
mod serve_ndb;
mod serve_protocol;
mod serve_rpm;
