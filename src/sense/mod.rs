//! `afferent sense`: on the host, pulls from guests and delivers onward.
//!
//! ```text
//! roster ──► pull ──────────────► queue ─────────────────► deliver ──► Central
//!            who is due, exchange   durable, then in order    sink, and what its answer means
//! ```
//!
//! Everything runs on one thread but what blocks: decoding reports, the store, and the sinks each do it
//! in one hop. A report counts as known only when it is on disk here, and leaves the disk only when
//! Central has it: kill the process anywhere, and nothing is lost.

mod api;
mod bill_of_materials;
mod control;
pub mod deliver;
pub mod engine;
pub mod fleet;
mod follow;
pub mod limits;
pub mod mapping;
pub mod metrics;
mod open;
pub mod pull;
mod questions;
pub mod queue;
pub mod reader;
pub mod recent;
pub mod roster;
pub mod seen;
mod service;
mod sink_name;
pub mod status;

use crate::kube::{KubeSource, TlsChoice};
use crate::store::{Limits, StoreError};
use crate::transport::{AgentName, TlsError, TlsFiles};
use crate::web::WebListen;
use deliver::sink::{SinkAddress, SinkOptions};
use fleet::FleetLimits;
pub use follow::ReadConfig;
use mapping::SensorMappingSource;
use queue::policy::Rate;
use roster::RosterSource;
pub use sink_name::SinkName;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Name of the database in the state directory.
pub const DATABASE: &str = "sense.redb";

/// Bound of redb's page cache, in bytes.
const CACHE: usize = 4 << 20;

/// Threads for what blocks, beside deliveries: understanding and encoding reports, the store, questions.
const BLOCKING: usize = 10;

/// Deliveries of a sink at a time, each on a thread of its own.
const DELIVERIES: usize = 20;

/// What `sense` needs to know.
#[derive(Clone, Debug)]
pub struct SenseConfig {
    /// Where guests are listed.
    pub sources: Vec<RosterSource>,
    /// Where reports go, at least one.
    pub deliver: Vec<SinkConfig>,
    /// Where the API of the cluster is whose machines are dialed through it.
    pub kube: KubeSource,
    /// Whether virt-handler speaks TLS to agents.
    pub kube_tls: TlsChoice,
    /// Mutual TLS with guests.
    pub tls: Option<TlsFiles>,
    /// Which name their certificates must have.
    pub tls_name: AgentName,
    /// Names this sensor in documents.
    pub sensor_id: String,
    /// Directory of the database.
    pub state_dir: PathBuf,
    /// How much of the fleet's history is kept; `None`: there is no fleet store.
    pub fleet: Option<FleetLimits>,
    /// Where the fleet is answered for over HTTP.
    pub fleet_listen: Option<WebListen>,
    /// What is kept of databases that were moved aside because they were damaged.
    pub damaged: Limits,
    /// Between two polls of a guest that cannot hold a wait.
    pub poll_interval: Duration,
    /// After which a full report is asked for.
    pub refresh_interval: Duration,
    /// Whether guests that come together are asked one after the other.
    pub spread: bool,
    /// The mapping from repositories to CPEs that is pushed to guests.
    pub repo_cpe: Option<SensorMappingSource>,
    /// Where metrics are read.
    pub metrics: Option<SocketAddr>,
}

/// Where reports go.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Tells it apart.
    pub name: SinkName,
    /// Its address.
    pub to: SinkAddress,
    /// Token and roots for it.
    pub options: SinkOptions,
    /// How much it takes.
    pub rate: Option<Rate>,
}

impl SenseConfig {
    /// Where reports go, in one line.
    fn deliver_shown(&self) -> String {
        let sinks = self
            .deliver
            .iter()
            .map(|sink| match sink.name.is_default() {
                true => sink.to.to_string(),
                false => format!("{}={}", sink.name, sink.to),
            });
        sinks.collect::<Vec<_>>().join(", ")
    }
}

/// Why the sensor could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SenseError {
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The sink cannot be used.
    #[error("cannot deliver: {0}")]
    Sink(String),
    /// The certificates cannot be used.
    #[error("mutual TLS: {0}")]
    Tls(#[from] TlsError),
    /// The listener of the fleet API cannot be used.
    #[error("{0}")]
    Listen(String),
    /// A part of the sensor that must never end has ended.
    #[error("stopped: {0}")]
    Stopped(String),
    /// The system refuses something basic.
    #[error("cannot start: {0}")]
    Start(#[from] std::io::Error),
}

/// Runs until SIGTERM or SIGINT. At SIGHUP the configuration is read again.
pub fn run(config: SenseConfig, reread: ReadConfig) -> Result<(), SenseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING + DELIVERIES * config.deliver.len())
        .thread_keep_alive(Duration::from_secs(5))
        .build()?;
    let result = runtime.block_on(service::serve(config, reread));
    // A delivery that hangs is sent again after the next start: it must not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    result
}
