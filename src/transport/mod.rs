//! Addresses, and byte streams to and from them.
//!
//! ```text
//! listen   vsock:PORT   unix:PATH
//! dial     vsock:CID:PORT   unix:PATH   hybrid:PATH:PORT
//! ```
//!
//! An address says where something is reached, never who answers there.

mod framed;
mod hybrid;
mod stream;
mod tls;
mod unix;

pub use framed::{ReadError, read_body, read_frame, read_len, write_frame};
pub use stream::Stream;
pub use tls::{ClientTls, SERVER_NAME, ServerTls, TlsError, TlsFiles};
pub use unix::BoundSocket;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use tokio::net::UnixStream;
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener, VsockStream};

/// Port on which an agent listens unless told otherwise.
pub const DEFAULT_PORT: u32 = 818;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// `vsock:PORT`, on every CID of this machine.
    Vsock(u32),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// Where a client finds a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DialAddress {
    /// `vsock:CID:PORT`.
    Vsock {
        /// Context id of the machine.
        cid: u32,
        /// Port there.
        port: u32,
    },
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `hybrid:PATH:PORT`: a guest's VSOCK port behind the unix socket of Firecracker, Cloud
    /// Hypervisor or vhost-device-vsock.
    Hybrid {
        /// The hypervisor's socket.
        path: PathBuf,
        /// VSOCK port in the guest.
        port: u32,
    },
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address to listen on: vsock:PORT or unix:PATH");
        match text.split_once(':') {
            Some(("vsock", port)) => port.parse().map(Self::Vsock).map_err(|_| wrong()),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl FromStr for DialAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not an address to dial: vsock:CID:PORT, unix:PATH or hybrid:PATH:PORT"
            )
        };
        match text.split_once(':') {
            Some(("vsock", rest)) => {
                let (cid, port) = rest.split_once(':').ok_or_else(wrong)?;
                Ok(Self::Vsock {
                    cid: cid.parse().map_err(|_| wrong())?,
                    port: port.parse().map_err(|_| wrong())?,
                })
            }
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("hybrid", rest)) => match rest.rsplit_once(':') {
                Some((path, port)) if !path.is_empty() => Ok(Self::Hybrid {
                    path: path.into(),
                    port: port.parse().map_err(|_| wrong())?,
                }),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock(port) => write!(f, "vsock:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for DialAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock:{cid}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Hybrid { path, port } => write!(f, "hybrid:{}:{port}", path.display()),
        }
    }
}

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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_text() {
        for text in [
            "vsock:3:818",
            "unix:/run/a:b.sock",
            "hybrid:/run/vm:1.sock:818",
        ] {
            assert_eq!(text.parse::<DialAddress>().unwrap().to_string(), text);
        }
        for text in ["vsock:818", "unix:/run/afferent.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_allowed() {
        for text in [
            "",
            "vsock",
            "vsock:3",
            "vsock:a:1",
            "unix:",
            "hybrid:/x",
            "hybrid::1",
            "tcp:1",
        ] {
            let error = text.parse::<DialAddress>().unwrap_err();
            assert!(error.contains("vsock:CID:PORT"), "{error}");
        }
    }
}
