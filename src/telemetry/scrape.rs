//! The port on which a service is asked how it is: `/metrics`, `/healthz`, `/readyz`.
//!
//! Healthy is who answers at all: the answer comes from the loop that does the work. Ready is who
//! has everything it needs.

use super::connections::Connections;
use super::request::{HttpRequest, NOT_ALLOWED, TOO_LONG};
use crate::visible::visible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Longest request that is read, in bytes.
const LONGEST: usize = 8 << 10;

/// Pages that are made at the same time; the threads for it are those that deliver.
const PAGES: usize = 2;

/// Longest time of one exchange.
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

/// Binds the address of `--metrics`, and says so in the log.
///
/// # Errors
/// It cannot be bound; the error names the flag and the address.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("--metrics {address}: {error}")))?;
    tracing::info!(address = %listener.local_addr()?, "metrics");
    Ok(listener)
}

/// Answers until it is dropped.
pub async fn listen(listener: TcpListener, health: Arc<dyn Health>) {
    let mut connections = Connections::default();
    let pages = Arc::new(Semaphore::new(PAGES));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (health, pages) = (health.clone(), pages.clone());
                connections.serve(async move {
                    // A scraper that goes away is no event.
                    let _ = tokio::time::timeout(DEADLINE, exchange(stream, health, pages)).await;
                });
            }
            // Out of descriptors: let others give some back.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn exchange(
    mut stream: TcpStream,
    health: Arc<dyn Health>,
    pages: Arc<Semaphore>,
) -> io::Result<()> {
    let (mut reader, mut writer) = stream.split();
    let mut bytes = Vec::new();
    let request = loop {
        if reader.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        match HttpRequest::parse(&bytes) {
            Ok(None) if bytes.len() < LONGEST => {}
            Ok(None) => break Err(TOO_LONG),
            Ok(Some(request)) => break Ok(request),
            Err(status) => break Err(status),
        }
    };
    let is_head = matches!(&request, Ok(request) if request.is_head);
    let (status, body) = match request {
        Ok(request) => answer(&request, health, pages).await,
        Err(status) => (status, String::new()),
    };
    let allow = match status {
        NOT_ALLOWED => "Allow: GET, HEAD\r\n",
        _ => "",
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         {allow}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    writer.write_all(head.as_bytes()).await?;
    if !is_head {
        writer.write_all(body.as_bytes()).await?;
    }
    writer.shutdown().await
}

async fn answer(
    request: &HttpRequest,
    health: Arc<dyn Health>,
    pages: Arc<Semaphore>,
) -> (&'static str, String) {
    if !request.is_get && !request.is_head {
        return (NOT_ALLOWED, "GET or HEAD only\n".into());
    }
    type Page = fn(&dyn Health) -> (&'static str, String);
    let page: Page = match request.path.as_str() {
        "/healthz" => return ("200 OK", "ok\n".into()),
        "/metrics" => |health| ("200 OK", health.metrics()),
        "/readyz" => |health| match health.ready() {
            Ok(()) => ("200 OK", "ready\n".into()),
            Err(why) => ("503 Service Unavailable", format!("{}\n", visible(&why))),
        },
        _ => return ("404 Not Found", "/metrics, /healthz or /readyz\n".into()),
    };
    // A page over ten thousand guests takes long enough to hold up the loop.
    let permit = pages.acquire_owned().await;
    let made = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        page(&*health)
    });
    let failed = |error: tokio::task::JoinError| {
        let why = visible(&error.to_string()).into_owned();
        ("500 Internal Server Error", format!("{why}\n"))
    };
    made.await.unwrap_or_else(failed)
}

#[cfg(test)]
mod tests {
    use super::super::connections::MOST;
    use super::*;
    use tokio::task::JoinSet;

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
            ("PUT /metrics HTTP/1.1\r\n\r\n", "405", "GET or HEAD only\n"),
            (
                "GET /metrics?collect[]=x HTTP/1.1\r\nHost: x\r\n\r\n",
                "200",
                "a 1\n",
            ),
            ("GET /healthz?verbose HTTP/1.1\r\n\r\n", "200", "ok\n"),
            ("GET http://h:1/healthz?x HTTP/1.1\r\n\r\n", "200", "ok\n"),
            ("HEAD /healthz HTTP/1.1\r\n\r\n", "200", ""),
            ("HEAD /readyz? HTTP/1.0\r\n\r\n", "503", ""),
            ("\r\nGET /healthz HTTP/1.1\r\n\r\n", "200", "ok\n"),
            ("GET\t/healthz\r\n\r\n", "400", ""),
        ] {
            let (at, _server) = started().await;
            let text = ask(&at, request.as_bytes()).await;
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status}")),
                "{request}: {text}"
            );
            assert!(
                text.ends_with(&format!("\r\n\r\n{body}")),
                "{request}: {text}"
            );
        }
    }

    #[tokio::test]
    async fn the_answer_to_head_has_the_length_of_the_page_and_no_page() {
        let (at, _server) = started().await;
        let text = ask(&at, b"HEAD /metrics HTTP/1.1\r\n\r\n").await;
        assert!(
            text.contains("Content-Length: 4\r\n") && !text.contains("a 1"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_is_refused_at_its_bound() {
        let (at, _server) = started().await;
        let long = [
            b"GET /healthz HTTP/1.1\r\nX: ".to_vec(),
            vec![b'x'; LONGEST],
        ]
        .concat();
        assert!(ask(&at, &long).await.starts_with("HTTP/1.1 431"));
    }

    /// Loss prevented: a probe that finds no answer in time, so that a service that works is restarted.
    #[tokio::test(start_paused = true)]
    async fn silent_connections_delay_nobody() {
        let (at, _server) = started().await;
        let mut silent = Vec::new();
        for _ in 0..3 * MOST {
            silent.push(TcpStream::connect(at).await.unwrap());
        }
        let began = tokio::time::Instant::now();
        let text = ask(&at, b"GET /healthz HTTP/1.1\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert_eq!(began.elapsed(), Duration::ZERO);
        // The oldest were closed to make room.
        assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
    }

    async fn started() -> (SocketAddr, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(listen(listener, Arc::new(Sick)));
        (at, server)
    }

    async fn ask(at: &SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut text = String::new();
        // What is left unread of a request that is too long resets the connection.
        let _ = stream.read_to_string(&mut text).await;
        text
    }

    #[test]
    fn a_bare_port_is_one_on_the_loopback_device() {
        assert_eq!(address("9818").unwrap().to_string(), "127.0.0.1:9818");
        assert_eq!(address("[::]:1").unwrap().to_string(), "[::]:1");
        assert!(address("host:1").is_err());
    }
}
