//! `afferent sense --reports-from`: one fleet store of what any number of sensors deliver to a stream.
//!
//! ```text
//! JetStream ──► follow ────────► intake ──────────────────► fleet store
//!               pull, acknowledge  read, newest of a guest     one transaction
//! ```
//!
//! - A document is acknowledged when its transaction is on disk. Kill the process anywhere: what was not
//!   acknowledged comes again, and what comes twice changes nothing.
//! - Documents count by `seen_at`, as docs/consumers.md has it, in whatever order they come.
//! - What is no document is terminated, counted and named in the log: it holds up nothing.
//! - The consumer is named after a number in the store: a store that is new, or was lost, reads the stream from its
//!   beginning, and two readers have two consumers.

mod address;
mod follow;
mod intake;
mod service;
mod status;

pub use address::ReportsAddress;
pub use intake::{IncomingDocument, IntakeOutcome, ReportIntake};

use super::SenseError;
use super::fleet::FleetLimits;
use crate::store::Limits;
use crate::web::WebListen;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What a reader needs to know.
#[derive(Clone, Debug)]
pub struct ReaderConfig {
    /// The stream.
    pub address: ReportsAddress,
    /// File with the secret for NATS.
    pub token_file: Option<PathBuf>,
    /// The only authorities to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Directory of the database.
    pub state_dir: PathBuf,
    /// How much of the fleet's history is kept.
    pub fleet: FleetLimits,
    /// What is kept of databases that were moved aside because they were damaged.
    pub damaged: Limits,
    /// Where the fleet is answered for over HTTP.
    pub fleet_listen: Option<WebListen>,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: ReaderConfig) -> Result<(), SenseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(Duration::from_secs(5))
        .build()?;
    let result = runtime.block_on(service::serve(config));
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
