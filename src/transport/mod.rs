//! Addresses, and byte streams to and from them.
//!
//! ```text
//! listen   vsock:PORT   unix:PATH
//! dial     vsock:CID:PORT   unix:PATH   hybrid:PATH:PORT   kubevirt:NAMESPACE/NAME
//! ```
//!
//! An address says where something is reached, never who answers there.

mod address;
mod advice;
mod certificate;
mod certificate_names;
mod framed;
mod handshake;
mod hybrid;
mod kubevirt;
mod stream;
mod tls;
mod unix;
mod web_tls;

pub use address::{DEFAULT_PORT, DialAddress, ListenAddress};
pub use advice::explain;
pub use certificate_names::{CommonName, guest_name};
pub use framed::{ReadError, read_body, read_frame, read_len, read_rest, read_some, write_frame};
pub use handshake::{Reason, Refused};
pub use kubevirt::{KubevirtOptions, KubevirtTls};
pub use stream::{ByteStream, Stream};
pub use tls::{AgentName, ClientTls, SERVER_NAME, ServerTls, TlsError, TlsFiles};
pub use unix::BoundSocket;
pub use web_tls::{CertificateFiles, WebTls};

use std::fmt;
use std::io;
use tokio::net::UnixStream;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// Who is at the other end of an accepted connection, as the kernel says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The machine with this context id; set by the hypervisor, it cannot be forged in a guest.
    Cid(u32),
    /// A process of this user on this machine.
    Uid(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cid(cid) => write!(f, "CID {cid}"),
            Self::Uid(uid) => write!(f, "uid {uid}"),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// VSOCK.
    Vsock(VsockListener),
    /// Unix domain socket; its file is removed with it.
    Unix(BoundSocket),
}

impl Listener {
    /// Binds `address`, on a unix socket as [`BoundSocket::bind`] does.
    ///
    /// # Errors
    /// The address is in use, or the system refused.
    pub fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Vsock(port) => {
                VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, *port)).map(Self::Vsock)
            }
            ListenAddress::Unix(path) => BoundSocket::bind(path).map(Self::Unix),
        }
    }

    /// Waits for the next connection.
    pub async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Vsock(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Stream::Vsock(stream), Peer::Cid(peer.cid())))
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.listener().accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok((Stream::Unix(stream), Peer::Uid(uid)))
            }
        }
    }
}

/// Connects to `address`. It may take for ever: the caller sets the deadline.
pub async fn dial(address: &DialAddress) -> io::Result<Stream> {
    match address {
        DialAddress::Vsock { cid, port } => VsockStream::connect(VsockAddr::new(*cid, *port))
            .await
            .map(Stream::Vsock),
        DialAddress::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        DialAddress::Hybrid { path, port } => {
            let mut stream = UnixStream::connect(path).await?;
            hybrid::greet(&mut stream, *port).await?;
            Ok(Stream::Unix(stream))
        }
        // Whoever has a client of the API dials these.
        DialAddress::Kubevirt { .. } => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a virtual machine of a cluster is dialed by `afferent sense` only",
        )),
    }
}
