//! The agent in the guest: it watches the RPM database, scans it, stores the report and serves it.
//!
//! ```text
//! machine ──Touch──► rescan ──Scan──► worker (a thread) ──Report──► report_store ──► published
//!                      ▲                                                                 │
//!                   the clock                          server: get_report ◄──────────────┤
//!                                                              wait_report ◄─────────────┘
//! ```
//!
//! One thread runs everything but scans and writes to disk, which run where
//! [`Blocking`](crate::blocking::Blocking) says. What is published is on disk already.

mod admission;
mod cpe_refresh;
pub mod engine;
mod error;
mod handshakes;
mod installed;
mod listen;
pub mod machine;
pub mod mapping;
mod mapping_table;
mod pushed_mapping;
mod rate_limited_log;
pub mod refusal;
mod renewal;
pub mod repo_cpe;
pub mod report_store;
pub mod report_table;
mod requests;
pub mod rescan;
pub mod respond;
mod run;
mod scan_log;
mod scanned;
mod server;
mod service;
mod status;
mod timer;
mod worker;

pub use error::ServeError;
pub use listen::{Listen, TlsConfig, TlsMode};
pub use rescan::Pace;
pub use run::Reread;
pub use scanned::Scan;
pub use service::run;

use crate::store::Limits;
use std::path::PathBuf;
use std::time::Duration;

/// What `afferent serve` needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: Vec<Listen>,
    /// The root below which it scans.
    pub root: PathBuf,
    /// Where its database is, relative to the root, if not where distributions have it.
    pub dbpath: Option<PathBuf>,
    /// Where it keeps its report.
    pub state_dir: PathBuf,
    /// When it scans.
    pub pace: Pace,
    /// Which machines may ask over VSOCK, by context id.
    pub allow_cid: Vec<u32>,
    /// Longest an exchange takes, the time of a wait not counted.
    pub conn_deadline: Duration,
    /// What the modes of these addresses need.
    pub tls: TlsConfig,
    /// Where CPEs of repositories come from.
    pub repo_cpe: repo_cpe::Source,
    /// Whether reports are withheld until a sensor has pushed a mapping.
    pub require_mapping: bool,
    /// Token and roots for it, if it is a URL.
    pub repo_cpe_fetch: repo_cpe::FetchOptions,
    /// How often the database files are compared with what they were, should events be missed.
    pub safety_poll: Duration,
    /// What is kept of databases that were moved aside because they were damaged.
    pub damaged: Limits,
}
