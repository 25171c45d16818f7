//! The readers of package databases, of messages and of lists, and what they need, without the rest of the
//! product: a fuzzer is rebuilt often, and every dependency would be built once more with its instruments.
//!
//! Only HTTP is not the product's: a client here takes its answers from the input of the fuzzer.

#[path = "../../src/clock/mod.rs"]
pub mod clock;
#[path = "../../src/file_stamp.rs"]
pub mod file_stamp;
pub mod http;
#[path = "../../src/inventory/mod.rs"]
#[allow(dead_code, reason = "the store reads with it")]
pub mod inventory;
pub mod kube;
pub mod mirror;
pub mod nats;
#[allow(dead_code, reason = "the rest of the program decodes, too")]
#[path = "../../src/percent.rs"]
mod percent;
#[path = "../../src/report/mod.rs"]
pub mod report;
#[path = "../../src/root/mod.rs"]
pub mod root;
#[path = "../../src/sense/roster/mod.rs"]
pub mod roster;
#[path = "../../src/rpmdb/mod.rs"]
pub mod rpmdb;
pub mod serve;
pub mod telemetry;
pub mod transport;
#[path = "../../src/visible.rs"]
pub mod visible;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
