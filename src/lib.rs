//! `afferent`: what is installed in every RPM-based VM, at Central within a second of it changing.
//!
//! Five groups, from plain values to the edges of the process. A folder's `mod.rs` is its front
//! page; `tests/tidy` holds which folder may import which.
//!
//! ```text
//! serve   inotify -> Touch -> debounce -> rescan decides -> scan -> Report -> report_table
//!           digest changed? the next generation is given in the same transaction
//!         socket -> frame -> Request -> respond, from a read transaction -> Response -> frame -> socket
//! sense   schedule: guest is due -> transport -> exchange -> Envelope -> queue::table, durable
//!         queue::table -> queue -> http or nats -> outcome: taken -> remove, if still that generation
//!                                               refused or lost -> stays, backoff
//! mirror  http -> page -> spec -> Records -> plan against table -> apply -> table::audit
//! ```

// values: no IO, no clock reads, no async
pub mod blocking;
pub mod clock;
pub mod file_stamp;
pub mod inventory;
pub mod report;
pub mod visible;

// bytes: translation to and from values
pub mod rpmdb;
pub mod sbom;
pub mod wire;

// ports: each is the only place that touches one part of the world
pub mod http;
pub mod nats;
pub mod root;
pub mod scan;
pub mod store;
pub mod telemetry;
pub mod transport;
pub mod watch;

// commands: one folder per subcommand
pub mod mirror;
pub mod sense;
pub mod serve;

// edges
pub mod cli;
