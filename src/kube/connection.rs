//! A connection to the API server, from the head of a response on.

use super::KubeError;
use super::message::{Head, read_head};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Read at once.
const READ: usize = 16 << 10;

/// A connection on which the head of a response was read.
pub(super) struct Connection {
    pub(super) stream: TlsStream<TcpStream>,
    /// What came behind the head.
    pub(super) buffered: Vec<u8>,
}

impl Connection {
    pub(super) async fn read_head(&mut self) -> Result<Head, KubeError> {
        loop {
            // 1xx but the upgrade are followed by the head that counts.
            while let Some((head, len)) = read_head(&self.buffered)? {
                self.buffered.drain(..len);
                if head.code >= 200 || head.code == 101 {
                    return Ok(head);
                }
            }
            self.buffered.reserve(READ);
            let read = self.stream.read_buf(&mut self.buffered).await;
            if read.map_err(KubeError::broken)? == 0 {
                return Err(KubeError::broken("it closed without an answer"));
            }
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.buffered.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let len = this.buffered.len().min(buffer.remaining());
        buffer.put_slice(this.buffered.get(..len).unwrap_or_default());
        this.buffered.drain(..len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
