//! Why the agent cannot run.

use crate::store::StoreError;
use crate::transport::{ListenAddress, TlsError};
use std::io;

/// Why the agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}{}", hint(.source))]
    Listen {
        /// As configured.
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// The state directory belongs to somebody else.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificates do not load.
    #[error("TLS: {0}")]
    Tls(#[from] TlsError),
    /// An address asks for TLS with files, and there are none.
    #[error("TLS: the mode files needs --tls-cert, --tls-key and --tls-client-ca")]
    NoTlsFiles,
    /// The certificate is to be made out to the guest's id, which is not known.
    #[error(
        "TLS: --tls-name-from id needs the guest's id, and there is no machine-id in this root"
    )]
    NoGuestId,
    /// The operating system refused something basic.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need CAP_NET_BIND_SERVICE, a unix socket a directory that may be written"
        }
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => {
            "; does this machine have a VSOCK device?"
        }
        _ => "",
    }
}
