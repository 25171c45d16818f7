//! A connection of any kind, plain or under TLS.

use super::certificate::Holder;
use super::certificate_names::guest_of;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio_rustls::TlsStream;
use tokio_vsock::VsockStream;

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + std::fmt::Debug + Send + Sync + Unpin> ByteStream for T {}

/// A byte stream to a peer.
#[derive(Debug)]
pub enum Stream {
    /// VSOCK.
    Vsock(VsockStream),
    /// Unix domain socket, also the one of a hypervisor after its greeting.
    Unix(UnixStream),
    /// A connection that another protocol carries, as a websocket.
    Carried(Box<dyn ByteStream>),
    /// A pipe in memory: between the two ends of a simulation.
    Memory(DuplexStream),
    /// Any of them under TLS.
    Tls(Box<TlsStream<Stream>>),
}

impl Stream {
    /// The guest that the peer's certificate is made out to, where its chain was verified and names one.
    pub fn certified_guest(&self) -> Option<String> {
        let Self::Tls(stream) = self else {
            return None;
        };
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates()?.first()?;
        let holder = Holder::read(certificate)?;
        guest_of(holder.dns_names).map(str::to_ascii_lowercase)
    }

    /// Whether a peer that ended its sending side still reads. Only unix sockets tell the two apart
    /// before something is sent; elsewhere the end of one side counts as the end.
    pub async fn still_listens(&self) -> bool {
        match self {
            Self::Unix(stream) => stream
                .ready(Interest::WRITABLE)
                .await
                .is_ok_and(|ready| !ready.is_write_closed()),
            Self::Vsock(_) | Self::Carried(_) | Self::Memory(_) | Self::Tls(_) => false,
        }
    }
}

macro_rules! whichever {
    ($stream:expr, $method:ident($($argument:expr),*)) => {
        match $stream.get_mut() {
            Self::Vsock(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Self::Memory(stream) => Pin::new(stream).$method($($argument),*),
            Self::Carried(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
            Self::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        whichever!(self, poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        whichever!(self, poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        whichever!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_peer_that_has_nothing_more_to_say_is_told_from_one_that_is_gone() {
        for (half, listens) in [(true, true), (false, false)] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let mut ours = Stream::Unix(ours);
            theirs.shutdown().await.unwrap();
            if !half {
                drop(theirs);
            }
            assert_eq!(ours.read(&mut [0; 1]).await.unwrap(), 0);
            assert_eq!(ours.still_listens().await, listens);
        }
    }
}
