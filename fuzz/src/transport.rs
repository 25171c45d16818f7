//! Addresses, without the streams to them.

#[path = "../../src/transport/address.rs"]
mod address;

pub use address::{DEFAULT_PORT, DialAddress, ListenAddress};
