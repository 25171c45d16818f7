//! A stream of bytes over the binary messages of a websocket.
//!
//! The end of the connection without a close frame is the end of the stream: KubeVirt never sends one. Pings
//! are answered while somebody reads. What is dropped says goodbye, so that the node lets go of the guest.

use super::KubeError;
use super::connection::Connection;
use super::frame::{self, Decoder, Piece};
use data_encoding::BASE64;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest payload of a frame that is written.
const LONGEST_FRAME: usize = 16 << 10;

/// Read at once.
const READ: usize = 16 << 10;

/// The subprotocol of KubeVirt's streams.
pub(super) const PROTOCOL: &str = "plain.kubevirt.io";

/// What RFC 6455 has both sides append to the key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key of an upgrade, and what a websocket server answers to it.
pub(super) struct UpgradeKey(String);

impl UpgradeKey {
    pub(super) fn new() -> Self {
        Self(BASE64.encode(&fastrand::u128(..).to_be_bytes()))
    }

    /// The fields of the request.
    pub(super) fn fields(&self) -> String {
        format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {}\r\nSec-WebSocket-Protocol: {PROTOCOL}\r\n",
            self.0
        )
    }

    /// Looks at `Sec-WebSocket-Accept`: a proxy that answers 101 to anything is no websocket server.
    pub(super) fn check(&self, accept: Option<&str>) -> Result<(), KubeError> {
        let both = format!("{}{GUID}", self.0);
        let algorithm = &ring::digest::SHA1_FOR_LEGACY_USE_ONLY;
        let expected = BASE64.encode(ring::digest::digest(algorithm, both.as_bytes()).as_ref());
        match accept {
            Some(accept) if accept == expected => Ok(()),
            _ => Err(KubeError::broken("it is no answer of a websocket server")),
        }
    }
}

/// A websocket after its upgrade.
pub struct WebSocket {
    connection: Connection,
    decoder: Decoder,
    /// Data that was not read by the caller yet, from `at` on.
    ready: Vec<u8>,
    at: usize,
    outgoing: Vec<u8>,
    is_closed: bool,
    has_ended: bool,
}

impl WebSocket {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            decoder: Decoder::default(),
            ready: Vec::new(),
            at: 0,
            outgoing: Vec::new(),
            is_closed: false,
            has_ended: false,
        }
    }

    /// Decodes what arrived.
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() && !self.has_ended {
            let (taken, piece) = self
                .decoder
                .decode(bytes, &mut self.ready)
                .map_err(|fault| io::Error::new(io::ErrorKind::InvalidInput, fault))?;
            bytes = bytes.get(taken..).unwrap_or_default();
            match piece {
                Piece::Data => {}
                // One answer is enough for pings that nobody was there to answer.
                Piece::Ping(payload) if self.outgoing.len() < LONGEST_FRAME => {
                    frame::write_pong(&payload, mask(), &mut self.outgoing);
                }
                Piece::Ping(_) => {}
                Piece::Close => {
                    self.close();
                    self.has_ended = true;
                }
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        if !self.is_closed {
            frame::write_close(mask(), &mut self.outgoing);
            self.is_closed = true;
        }
    }

    /// Writes what is waiting.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(Pin::new(&mut self.connection).poll_write(cx, &self.outgoing))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outgoing.drain(..written);
        }
        Pin::new(&mut self.connection).poll_flush(cx)
    }
}

fn mask() -> [u8; 4] {
    fastrand::u32(..).to_be_bytes()
}

impl AsyncRead for WebSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let ready = this.ready.get(this.at..).unwrap_or_default();
            if !ready.is_empty() {
                let len = ready.len().min(buffer.remaining());
                buffer.put_slice(ready.get(..len).unwrap_or_default());
                this.at += len;
                if this.at == this.ready.len() {
                    this.ready.clear();
                    this.at = 0;
                }
                return Poll::Ready(Ok(()));
            }
            if this.has_ended {
                return Poll::Ready(Ok(()));
            }
            // A pong that does not go out holds up no reader.
            let _ = this.poll_drain(cx);
            let mut bytes = [0; READ];
            let mut arrived = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut this.connection).poll_read(cx, &mut arrived)) {
                Ok(()) if arrived.filled().is_empty() => this.has_ended = true,
                Ok(()) => this.take(arrived.filled())?,
                Err(error) if is_end(&error) => this.has_ended = true,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Whether an error is how a connection ends whose other side just closed it.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

impl AsyncWrite for WebSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_drain(cx))?;
        let part = bytes.get(..bytes.len().min(LONGEST_FRAME)).unwrap_or(bytes);
        frame::write_binary(part, mask(), &mut this.outgoing);
        match this.poll_drain(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // What is not out yet goes with the next call.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(part.len())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close();
        this.poll_drain(cx)
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        self.close();
        // The few bytes fit the socket's buffer, or the other side is gone anyway.
        let _ = self.poll_drain(&mut Context::from_waker(Waker::noop()));
    }
}

impl std::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebSocket").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn the_answer_to_a_key_is_checked() {
        let key = UpgradeKey("dGhlIHNhbXBsZSBub25jZQ==".into());
        assert!(key.check(Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")).is_ok());
        assert!(key.check(Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")).is_err());
        assert!(key.check(None).is_err());
    }
}
