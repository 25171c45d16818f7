//! What a NATS server sends.

#[path = "../../src/nats/address.rs"]
mod address;
#[path = "../../src/nats/jetstream.rs"]
pub mod jetstream;
#[path = "../../src/nats/protocol.rs"]
pub mod protocol;

pub use address::NatsAddress;
