//! What a service is asked.

#[path = "../../src/telemetry/metrics.rs"]
pub mod metrics;
#[path = "../../src/telemetry/request.rs"]
pub mod request;
