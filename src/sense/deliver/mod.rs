//! From pending to Central: what goes next, where to, and what the answer means.

pub mod breaker;
mod gzip;
pub mod outcome;
pub mod policy;
pub mod queue;
pub mod run;
pub mod sink;
mod sink_file;
mod sink_http;
mod sink_nats;
pub mod slot;
