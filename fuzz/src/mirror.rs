//! From Core's lists to a plan.

#[path = "../../src/mirror/approval.rs"]
pub mod approval;
#[path = "../../src/mirror/change.rs"]
pub mod change;
#[path = "../../src/mirror/core/mod.rs"]
pub mod core;
#[path = "../../src/mirror/diagnostics.rs"]
pub mod diagnostics;
#[path = "../../src/mirror/entry/mod.rs"]
pub mod entry;
#[path = "../../src/mirror/plan/mod.rs"]
pub mod plan;
#[path = "../../src/mirror/policy.rs"]
pub mod policy;
#[path = "../../src/mirror/progress.rs"]
pub mod progress;
#[path = "../../src/mirror/spec/mod.rs"]
pub mod spec;
