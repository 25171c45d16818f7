//! TCP, with TLS on top where it is wanted, under one deadline from the name lookup on.

use super::{NatsError, NatsHost};
use crate::clock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// A connected socket.
pub(super) enum Socket {
    /// Everybody on the way can read it.
    Plain(Timed),
    /// Nobody can.
    Tls(Box<StreamOwned<ClientConnection, Timed>>),
}

impl Socket {
    /// Connects to the first address of `host` that answers.
    pub(super) fn connect(host: &NatsHost, until: Instant) -> io::Result<Self> {
        let mut last = io::Error::other("the name has no address");
        for address in resolve(host, until)? {
            match TcpStream::connect_timeout(&address, left(until)?) {
                Ok(tcp) => {
                    tcp.set_nodelay(true)?;
                    return Ok(Self::Plain(Timed { tcp, until }));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The same socket under TLS; the handshake is over.
    pub(super) fn secure(
        self,
        host: &NatsHost,
        config: Arc<ClientConfig>,
    ) -> Result<Self, NatsError> {
        let denied = |what: String| NatsError::Denied(format!("{host}: {what}"));
        let Self::Plain(timed) = self else {
            return Ok(self);
        };
        let name = ServerName::try_from(host.name.clone());
        let name = name.map_err(|error| denied(error.to_string()))?;
        let tls = ClientConnection::new(config, name).map_err(|error| denied(error.to_string()))?;
        let mut stream = StreamOwned::new(tls, timed);
        while stream.conn.is_handshaking() {
            match stream.conn.complete_io(&mut stream.sock) {
                Ok(_) => {}
                // rustls reports a bad certificate as invalid data.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return Err(denied(error.to_string()));
                }
                Err(error) => return Err(NatsError::NoConnection(format!("{host}: {error}"))),
            }
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Whatever is read or written from here on must be done by then.
    pub(super) fn set_deadline(&mut self, until: Instant) {
        self.timed().until = until;
    }

    /// Reads what is there already; none of it is `WouldBlock`.
    pub(super) fn read_waiting(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.timed().tcp.set_nonblocking(true)?;
        let read = self.read(buffer);
        self.timed().tcp.set_nonblocking(false)?;
        read
    }

    fn timed(&mut self) -> &mut Timed {
        match self {
            Self::Plain(timed) => timed,
            Self::Tls(stream) => &mut stream.sock,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// A socket whose every call ends by one time, however little the other end gives or takes.
pub(super) struct Timed {
    tcp: TcpStream,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tcp.set_read_timeout(Some(left(self.until)?))?;
        self.tcp.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tcp.set_write_timeout(Some(left(self.until)?))?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether an error says that the deadline has passed.
pub(super) fn is_deadline(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// The time left; an error where there is none.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(clock::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// Looks a name up in a thread of its own: the system's resolver takes as long as it likes.
fn resolve(host: &NatsHost, until: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.name.parse() {
        return Ok(vec![SocketAddr::new(ip, host.port)]);
    }
    let (found, answer) = channel();
    let (name, port) = (host.name.clone(), host.port);
    thread::Builder::new()
        .name("resolver".into())
        .spawn(move || {
            let addresses = (name.as_str(), port).to_socket_addrs();
            // Nobody waits any more when the deadline has passed.
            let _ = found.send(addresses.map(Vec::from_iter));
        })?;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the name lookup takes too long");
    answer.recv_timeout(left(until)?).map_err(late)?
}

/// What TLS needs: the roots to trust, those of a file or the system's.
pub(super) fn tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let wrong = |what: String| format!("{}: {what}", path.display());
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(error.to_string()))?;
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(error.to_string()))?;
            }
        }
        None => {
            // The system's may hold one that rustls does not understand: the others count.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err("no root certificates: name a CA file, or install the system's".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
