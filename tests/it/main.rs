//! One integration binary; each module is named for a behaviour.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a failed helper fails its test, and its numbers are small"
)]
#![allow(unreachable_pub, reason = "support is public to every module here")]

mod support;

mod rpmdb_real;
mod rpmdb_sqlite;
mod scan_fire;
mod scan_incremental;
mod scan_live;
