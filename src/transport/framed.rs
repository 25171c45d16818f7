//! Frames on a byte stream; the rules of a frame are those of [`crate::wire::frame`].

use crate::wire::frame::{self, FrameError, HEADER};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The body grows by this much at the most ahead of what has arrived: an announced length alone
/// makes nobody take memory.
const STEP: usize = 64 << 10;

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The peer closed before the first byte.
    #[error("closed without a word")]
    Closed,
    /// The peer closed in the middle.
    #[error("closed in the middle of a frame")]
    Truncated,
    /// The frame is over the bound.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection broke.
    #[error(transparent)]
    Io(io::Error),
}

/// Reads one frame and gives its body. It may take for ever: the caller sets the deadline.
pub async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    max: u32,
) -> Result<Vec<u8>, ReadError> {
    let len = read_len(stream, max).await?;
    read_body(stream, len).await
}

/// Reads the head of a frame: the length of the body that follows.
pub async fn read_len(stream: &mut (impl AsyncRead + Unpin), max: u32) -> Result<usize, ReadError> {
    let mut header = [0; HEADER];
    match stream.read(&mut header).await {
        Ok(0) => return Err(ReadError::Closed),
        Ok(read) => {
            let rest = header.get_mut(read..).unwrap_or_default();
            stream.read_exact(rest).await.map_err(broken)?;
        }
        Err(error) => return Err(ReadError::Io(error)),
    }
    Ok(frame::body_len(header, max)?)
}

/// Reads a body of this length.
pub async fn read_body(
    stream: &mut (impl AsyncRead + Unpin),
    len: usize,
) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    read_rest(stream, &mut body, len).await?;
    Ok(body)
}

/// Reads on until the body has this length.
pub async fn read_rest(
    stream: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
    len: usize,
) -> Result<(), ReadError> {
    while body.len() < len {
        read_some(stream, body, len).await?;
    }
    Ok(())
}

/// Reads on as far as something has arrived, at most until the body has this length.
pub async fn read_some(
    stream: &mut (impl AsyncRead + Unpin),
    body: &mut Vec<u8>,
    len: usize,
) -> Result<(), ReadError> {
    let step = STEP.min(len.saturating_sub(body.len()));
    body.reserve(step);
    let mut part = (&mut *stream).take(step as u64);
    match part.read_buf(body).await.map_err(broken)? {
        0 if step > 0 => Err(ReadError::Truncated),
        _ => Ok(()),
    }
}

/// Writes `bytes`, a frame or several, and makes sure they left.
pub async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn broken(error: io::Error) -> ReadError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ReadError::Truncated
    } else {
        ReadError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_frame_arrives_however_it_is_cut() {
        let body: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
        let (mut ours, mut theirs) = tokio::io::duplex(1000);
        let sent = body.clone();
        tokio::spawn(async move {
            let len = u32::try_from(sent.len()).unwrap().to_be_bytes();
            write_frame(&mut theirs, &len).await.unwrap();
            write_frame(&mut theirs, &sent).await.unwrap();
        });
        assert_eq!(read_frame(&mut ours, 1 << 20).await.unwrap(), body);
    }

    #[tokio::test]
    async fn a_peer_that_closes_is_told_from_one_that_breaks_off() {
        assert!(matches!(
            read_frame(&mut &b""[..], 10).await,
            Err(ReadError::Closed)
        ));
        for part in [&b"\0\0"[..], b"\0\0\0\x05abc"] {
            let mut part = part;
            assert!(matches!(
                read_frame(&mut part, 10).await,
                Err(ReadError::Truncated)
            ));
        }
        let mut large = &b"\0\0\0\x0b"[..];
        assert!(matches!(
            read_frame(&mut large, 10).await,
            Err(ReadError::Frame(_))
        ));
    }
}
