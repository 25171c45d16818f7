//! `afferent`: what is installed in every RPM-based VM, at Central within a second of it changing.
//!
//! Five groups, from plain values to the command line. The `mod.rs` of a folder says what the folder is;
//! `tests/tidy` checks which folder may import which, and docs/architecture.md shows the path of data.
//!
//! ```text
//! serve   inotify -> debounce -> scan -> Report -> report_table
//!           digest changed? the next generation is given in the same transaction
//!         socket -> frame -> Request -> respond, from a read transaction -> Response -> frame -> socket
//! sense   schedule: guest is due -> transport -> exchange -> Envelope -> queue, in memory and durable
//!         queue -> deliver: file, http or nats -> outcome: accepted -> row removed, if still that generation
//!                                                          refused or lost -> stays, backoff
//! mirror  http -> entry -> spec -> Records -> plan against table -> apply -> table::audit
//! ```
//!
//! # What is public
//!
//! This crate is a program and no library: nothing outside this repository uses it, and nothing here is
//! stable. A module is `pub` when a test, a benchmark or the simulation drives it without a process
//! around it:
//!
//! | Module | Used by |
//! |---|---|
//! | `cli` | `main.rs`; `tests/packaging` compares help, man pages and completions with [`cli::settings`] |
//! | `report`, `wire`, `transport`, `clock` | tests that speak the protocol to a real agent, and `benches/` |
//! | `rpmdb`, `scan` | tests that compare with `rpm`, and `benches/rpmdb.rs` |
//! | `serve`, `sense`, `mirror`, `store`, `inventory`, `blocking` | the simulation, properties and benches that run a product on one thread |
//! | `listen` | the configuration of `sense`, which names an address of it |
//! | `kube` | tests that hold the API of a cluster to a table of answers |
//! | `nats`, `telemetry` | tests that answer in place of a server, and that ask a control socket |
//! | `root`, `visible`, `file_stamp` | fuzz targets, which include files by path into a crate of their own |
//!
//! The others are private, so that the compiler reports what nobody uses.

// values: no IO, no clock reads, no async
pub mod blocking;
pub mod clock;
pub mod file_stamp;
pub mod inventory;
mod percent;
pub mod report;
pub mod visible;

// bytes: translation to and from values
pub mod rpmdb;
pub mod sbom;
pub mod wire;

// ports: each is the only place that touches one part of the world
mod http;
pub mod kube;
pub mod listen;
pub mod nats;
pub mod root;
pub mod scan;
pub mod store;
pub mod telemetry;
pub mod transport;
mod watch;
pub mod web;

// commands: one folder per subcommand
pub mod mirror;
pub mod sense;
pub mod serve;

// edges
pub mod cli;
