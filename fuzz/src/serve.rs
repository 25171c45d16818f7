//! The mapping of repositories to CPEs.

#[path = "../../src/serve/repo_cpe.rs"]
pub mod repo_cpe;
