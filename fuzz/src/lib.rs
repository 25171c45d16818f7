//! The readers of package databases and of messages, and what they need, without the rest of the product: a fuzzer
//! is rebuilt often, and every dependency would be built once more with its instruments.

#[path = "../../src/clock/mod.rs"]
pub mod clock;
#[path = "../../src/nats/protocol.rs"]
pub mod nats;
#[path = "../../src/report/mod.rs"]
pub mod report;
#[path = "../../src/rpmdb/mod.rs"]
pub mod rpmdb;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
