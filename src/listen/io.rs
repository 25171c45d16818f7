//! A byte stream as hyper reads and writes it, and the clock that hyper looks at.
//!
//! A stream on which no byte moved for [`IDLE`] is broken off: a peer that does not read its answer, or one
//! that is gone without a word. A stream of events writes more often than that.

use crate::clock;
use crate::transport::ByteStream;
use hyper::rt::{Read, ReadBufCursor, Sleep, Timer, Write};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Longest time in which no byte moves.
const IDLE: Duration = Duration::from_secs(60);

/// Read at once.
const READ: usize = 4 << 10;

/// A byte stream for hyper.
pub(super) struct HyperStream {
    stream: Box<dyn ByteStream>,
    idle: Pin<Box<tokio::time::Sleep>>,
}

impl HyperStream {
    pub(super) fn new(stream: Box<dyn ByteStream>) -> Self {
        Self {
            stream,
            idle: Box::pin(tokio::time::sleep(IDLE)),
        }
    }

    /// Bytes moved.
    fn moved(&mut self) {
        self.idle.as_mut().reset((clock::now() + IDLE).into());
    }

    /// What an operation that waits says: nothing yet, or that it waited too long.
    fn waited<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        ready!(self.idle.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for HyperStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut bytes = [0; READ];
        let room = bytes.get_mut(..to.remaining().min(READ));
        let mut buffer = ReadBuf::new(room.unwrap_or_default());
        match Pin::new(&mut this.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return this.waited(cx),
            Poll::Ready(read) => read?,
        }
        this.moved();
        to.put_slice(buffer.filled());
        Poll::Ready(Ok(()))
    }
}

impl Write for HyperStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Pending => this.waited(cx),
            Poll::Ready(written) => {
                this.moved();
                Poll::Ready(written)
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_flush(cx) {
            Poll::Pending => this.waited(cx),
            done => done,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match Pin::new(&mut this.stream).poll_shutdown(cx) {
            Poll::Pending => this.waited(cx),
            done => done,
        }
    }
}

/// The runtime's clock.
pub(super) struct HyperClock;

impl Timer for HyperClock {
    fn sleep(&self, time: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + time)
    }

    fn sleep_until(&self, at: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HyperSleep(Box::pin(tokio::time::sleep_until(at.into()))))
    }

    fn now(&self) -> Instant {
        clock::now()
    }
}

struct HyperSleep(Pin<Box<tokio::time::Sleep>>);

impl Future for HyperSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Sleep for HyperSleep {}
