//! The API of a Kubernetes cluster, as far as a sensor needs it: lists and watches of objects, and the VSOCK
//! of KubeVirt's virtual machines.
//!
//! ```text
//! config       where the API server is, whom to trust, who asks     in-cluster, or a kubeconfig
//! client       one connection a request: TCP, TLS, HTTP/1.1         message *, refusal *
//! reflect      list, watch, again and again, of one kind of object  object *, items *, event *, turn *
//! websocket    a byte stream over binary messages                   frame *
//! vsock        dials a virtual machine through the API              budget *, tls_choice *
//! ```
//!
//! Files with a star are pure. A client of its own, because what is needed of the protocol is small: no object is
//! ever written, and three requests are known. With the crate `kube` 5 for lists and watches the static binary is
//! 3.9 MB larger, more than it may be; ten thousand machines take 29 MiB in place of 15, since whole pages are held;
//! and its websockets do not offer KubeVirt's subprotocol.

mod budget;
mod client;
mod config;
mod connection;
mod event;
mod frame;
mod items;
mod kubeconfig;
mod message;
mod object;
mod reflect;
mod refusal;
mod source;
mod tls_choice;
mod turn;
mod vsock;
mod websocket;

pub use budget::DialBudget;
pub use client::{Deadlines, KubeClient};
pub use config::SERVICE_ACCOUNT;
pub use event::{WatchEvent, read_event};
pub use frame::{Decoder, FrameFault, Piece};
pub use items::{ItemSplitter, SplitFault};
pub use object::{KubeObject, ObjectMeta, OwnerReference, Told};
pub use reflect::Reflector;
pub use refusal::ApiRefusal;
pub use source::KubeSource;
pub use tls_choice::TlsChoice;
pub use turn::{Turn, TurnPolicy};
pub use vsock::{Seat, VsockDialer, VsockTarget};
pub use websocket::WebSocket;

/// Why a question to the API has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KubeError {
    /// The settings, or a file that they name, cannot be used.
    #[error("{0}")]
    Configuration(String),
    /// There is no connection to the API server.
    #[error("no connection to the API server at {server}: {why}")]
    NoConnection {
        /// Host and port.
        server: String,
        /// What failed.
        why: String,
    },
    /// A step took longer than it may.
    #[error("the API server gave no {0} in time")]
    Timeout(&'static str),
    /// The API server answered with an error.
    #[error("{0}")]
    Refused(ApiRefusal),
    /// The connection broke, or what came is not what the protocol says.
    #[error("the API server's answer cannot be used: {0}")]
    Broken(String),
}

impl KubeError {
    #[allow(clippy::needless_pass_by_value, reason = "it stands in map_err")]
    fn broken(error: impl ToString) -> Self {
        let text = error.to_string();
        Self::Broken(crate::visible::visible(&text).into_owned())
    }

    /// The refusal of the API server, if it is one.
    pub fn refusal(&self) -> Option<&ApiRefusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}
