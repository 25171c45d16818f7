//! From pending to Central: what goes next, where to, and what the answer means.

pub mod breaker;
mod budgets;
mod gzip;
mod limit;
pub mod outcome;
pub mod policy;
pub mod queue;
mod rings;
pub mod run;
pub mod sink;
mod sink_file;
mod sink_http;
mod sink_nats;
pub mod slot;
