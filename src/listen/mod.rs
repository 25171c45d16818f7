//! A server of HTTP/1.1 for people and programs: where it listens, its limits, and the glue to hyper.
//!
//! ```text
//! address   unix:PATH, ADDRESS:PORT
//! server    accept, TLS, at most MOST connections; a request is given to the HttpHandler
//! io        a byte stream as hyper reads and writes it, closed when nothing moves
//! body      the body of a response: bytes, or a stream of them
//! ```
//!
//! Requests have no bodies. Whoever asks nothing, asks slowly or does not read the answer is disconnected, and
//! never keeps others out: a connection that never had access granted gives way to a new one.

mod address;
mod body;
mod io;
mod server;

pub use address::HttpAddress;
pub(crate) use body::ResponseBody;
pub(crate) use server::{HttpConnection, HttpHandler, HttpListener, HttpResponse};
