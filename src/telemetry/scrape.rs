//! The port on which a service is asked how it is: `/metrics`, `/healthz`, `/readyz`.
//!
//! Healthy is who answers at all: the answer comes from the loop that does the work. Ready is who
//! has everything it needs.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Conversations at the same time; more wait to be accepted.
const MOST: usize = 16;

/// Longest request that is read, in bytes.
const LONGEST: u64 = 8 << 10;

/// Longest time of one conversation.
const DEADLINE: Duration = Duration::from_secs(5);

/// What a service says about itself.
pub trait Health: Send + Sync + 'static {
    /// The page of metrics.
    fn metrics(&self) -> String;

    /// Whether it can do its work, or why not.
    fn ready(&self) -> Result<(), String>;
}

/// Reads `PORT` (on the loopback device) or `ADDRESS:PORT`.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    text.parse()
        .map_err(|_| format!("{text:?} is neither PORT nor ADDRESS:PORT, for example 9818"))
}

/// Answers until it is dropped.
pub async fn listen(listener: TcpListener, health: Arc<dyn Health>) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let health = health.clone();
                tokio::spawn(async move {
                    // A scraper that goes away is no event.
                    let _ = tokio::time::timeout(DEADLINE, converse(stream, &*health)).await;
                    drop(permit);
                });
            }
            // Out of descriptors: let others give some back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn converse(mut stream: TcpStream, health: &dyn Health) -> io::Result<()> {
    let mut request = Vec::new();
    let (reader, mut writer) = stream.split();
    let mut reader = reader.take(LONGEST);
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if reader.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = answer(&request, health);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes()).await?;
    writer.write_all(body.as_bytes()).await?;
    writer.shutdown().await
}

fn answer(request: &[u8], health: &dyn Health) -> (&'static str, String) {
    let line = String::from_utf8_lossy(request);
    let mut words = line.split_ascii_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some("/metrics")) => ("200 OK", health.metrics()),
        (Some("GET"), Some("/healthz")) => ("200 OK", "ok\n".into()),
        (Some("GET"), Some("/readyz")) => match health.ready() {
            Ok(()) => ("200 OK", "ready\n".into()),
            Err(why) => ("503 Service Unavailable", format!("{why}\n")),
        },
        (Some("GET"), _) => ("404 Not Found", "/metrics, /healthz or /readyz\n".into()),
        _ => ("405 Method Not Allowed", "GET only\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sick;

    impl Health for Sick {
        fn metrics(&self) -> String {
            "a 1\n".into()
        }

        fn ready(&self) -> Result<(), String> {
            Err("no disk".into())
        }
    }

    #[tokio::test]
    async fn who_is_not_ready_says_why_and_is_healthy_all_the_same() {
        for (request, status, body) in [
            ("GET /metrics HTTP/1.1\r\n\r\n", "200", "a 1\n"),
            ("GET /healthz HTTP/1.1\r\n\r\n", "200", "ok\n"),
            ("GET /readyz HTTP/1.1\r\n\r\n", "503", "no disk\n"),
            (
                "GET / HTTP/1.1\r\n\r\n",
                "404",
                "/metrics, /healthz or /readyz\n",
            ),
            ("PUT /metrics HTTP/1.1\r\n\r\n", "405", "GET only\n"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let at = listener.local_addr().unwrap();
            let server = tokio::spawn(listen(listener, Arc::new(Sick)));
            let mut stream = TcpStream::connect(at).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
            assert!(text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
            server.abort();
        }
    }

    #[test]
    fn a_bare_port_is_one_on_the_loopback_device() {
        assert_eq!(address("9818").unwrap().to_string(), "127.0.0.1:9818");
        assert_eq!(address("[::]:1").unwrap().to_string(), "[::]:1");
        assert!(address("host:1").is_err());
    }
}
