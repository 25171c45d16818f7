//! VSOCK reached through a unix socket: write `CONNECT <port>\n`, read `OK <number>\n`.
//!
//! The protocol of Firecracker (docs/vsock.md), which Cloud Hypervisor and vhost-device-vsock share.
//! A port where nobody listens is answered by closing the connection, without a line.

use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// `OK 4294967295\n` and some room: more than this is no greeting.
const LONGEST_LINE: usize = 32;

/// Speaks the greeting; what follows on `stream` is the guest's.
pub(super) async fn greet(stream: &mut UnixStream, port: u32) -> io::Result<()> {
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .await?;
    let mut line = Vec::with_capacity(LONGEST_LINE);
    // Byte by byte: whatever follows the line already belongs to the guest.
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => break,
            Ok(byte) if line.len() < LONGEST_LINE => line.push(byte),
            Ok(_) => return Err(no_greeting(&line)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("nobody listens on port {port} in the guest"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
    let number = line
        .strip_prefix(b"OK ")
        .and_then(|n| std::str::from_utf8(n).ok());
    match number.and_then(|n| n.trim_end().parse::<u32>().ok()) {
        Some(_) => Ok(()),
        None => Err(no_greeting(&line)),
    }
}

fn no_greeting(line: &[u8]) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "{:?} is not the answer of a hypervisor's VSOCK socket",
            String::from_utf8_lossy(line)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_after_the_greeting_are_left_for_the_guest() {
        let (result, mut stream) = answered(b"OK 1073741824\nhello").await;
        result.unwrap();
        let mut rest = [0; 5];
        stream.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"hello");
    }

    #[tokio::test]
    async fn a_closed_port_and_a_stranger_are_told_apart() {
        let (closed, _) = answered(b"").await;
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        for stranger in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            &[b'x'; 100],
            b"OK yes\n",
        ] {
            let (result, _) = answered(stranger).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    async fn answered(answer: &'static [u8]) -> (io::Result<()>, UnixStream) {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let hypervisor = tokio::spawn(async move {
            let mut line = [0; 12];
            theirs.read_exact(&mut line).await.unwrap();
            assert_eq!(&line, b"CONNECT 818\n");
            theirs.write_all(answer).await.unwrap();
        });
        let result = greet(&mut ours, 818).await;
        hypervisor.await.unwrap();
        (result, ours)
    }
}
