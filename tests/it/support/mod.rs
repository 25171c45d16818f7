//! What several tests share: scratch systems with a real rpm database.
#![allow(dead_code, reason = "each test uses a part")]

pub mod fixtures;
pub mod headers;
pub mod rpm_root;
