//! Peers that ask too much, too slowly or not at all, on real sockets.

use super::*;
use crate::clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Grants access to those who ask for `/in`, and answers with the path.
struct Echo;

impl HttpHandler for Echo {
    fn respond(
        self: Arc<Self>,
        request: http::request::Parts,
        connection: HttpConnection,
    ) -> Pin<Box<dyn Future<Output = HttpResponse> + Send>> {
        Box::pin(async move {
            let path = request.uri.path().to_owned();
            if path == "/in" {
                connection.grant();
            }
            let body = match path.as_str() {
                "/large" => vec![b'x'; 64 << 20],
                path => path.as_bytes().to_vec(),
            };
            Response::new(ResponseBody::whole(body))
        })
    }

    fn accepted(&self, accepted: Result<(), &io::Error>) {
        accepted.unwrap();
    }
}

async fn started() -> (SocketAddr, JoinSet<()>) {
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = Arc::new(HttpListener::bind(&address, None).await.unwrap());
    let at = listener.address().unwrap();
    let mut server = JoinSet::new();
    server.spawn(listener.serve(Arc::new(Echo)));
    (at, server)
}

/// What is answered to these bytes until the connection ends.
async fn ask(at: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut text = Vec::new();
    // What is left unread of a request resets the connection.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other_on_one_connection() {
    let (at, _server) = started().await;
    let both = [b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), get("/b")].concat();
    let text = ask(at, &both).await;
    assert!(
        text.contains("\r\n\r\n/a") && text.ends_with("\r\n\r\n/b"),
        "{text}"
    );
}

/// The loss: memory or a thread for a request that nobody means.
#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let (at, _server) = started().await;
    let many = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n{}\r\n",
        "a: b\r\n".repeat(10_000)
    );
    let long = format!(
        "GET / HTTP/1.1\r\nHost: x\r\na: {}\r\n\r\n",
        "b".repeat(1 << 20)
    );
    let uri = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "b".repeat(1 << 20));
    for (request, status) in [(many, "431"), (long, "431"), (uri, "4")] {
        let text = ask(at, request.as_bytes()).await;
        // A peer that still sends when the connection ends may see the reset before the answer.
        let is_refused = text.is_empty() || text.starts_with(&format!("HTTP/1.1 {status}"));
        assert!(is_refused, "{text}");
    }
    let fits = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
        "a: b\r\n".repeat(70)
    );
    assert!(ask(at, fits.as_bytes()).await.starts_with("HTTP/1.1 431"));
    for body in [
        "Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ] {
        let text = ask(
            at,
            format!("GET / HTTP/1.1\r\nHost: x\r\n{body}").as_bytes(),
        )
        .await;
        assert!(text.starts_with("HTTP/1.1 413"), "{text}");
    }
    assert!(ask(at, &get("/")).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_asks_slowly_or_not_at_all_is_disconnected() {
    let (at, _server) = started().await;
    for (sent, longest) in [(&b""[..], HEAD), (b"GET / HTTP/1.1\r\nHost:", HEAD)] {
        let began = clock::now();
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut end = Vec::new();
        let _ = stream.read_to_end(&mut end).await;
        assert!(began.elapsed() <= longest + Duration::from_secs(5));
    }
    // One byte a second moves something all the time.
    let mut stream = TcpStream::connect(at).await.unwrap();
    let began = clock::now();
    while stream.write_all(b"G").await.is_ok() && began.elapsed() < 4 * HEAD {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() <= 2 * HEAD, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_peer_that_ends_its_side_ends_the_connection() {
    let (at, _server) = started().await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /a HTTP/1.1\r\nHo").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
}

/// The loss: a handful of silent connections, and nobody can ask any more.
#[tokio::test]
async fn silent_connections_give_way_and_those_with_access_do_not() {
    let (at, _server) = started().await;
    let mut known = TcpStream::connect(at).await.unwrap();
    known
        .write_all(b"GET /in HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut seen = [0; 12];
    known.read_exact(&mut seen).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..2 * MOST {
        silent.push(TcpStream::connect(at).await.unwrap());
    }
    assert!(ask(at, &get("/a")).await.ends_with("/a"));
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
    known.write_all(&get("/b")).await.unwrap();
    let mut rest = String::new();
    known.read_to_string(&mut rest).await.unwrap();
    assert!(rest.ends_with("/b"), "{rest}");
}

#[tokio::test]
async fn where_all_have_access_a_new_one_is_turned_away() {
    let (at, _server) = started().await;
    let mut known = Vec::new();
    for _ in 0..MOST {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream
            .write_all(b"GET /in HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut seen = [0; 12];
        stream.read_exact(&mut seen).await.unwrap();
        known.push(stream);
    }
    assert_eq!(ask(at, &get("/a")).await, "");
    drop(known.pop());
    // Until the server has seen that one is gone.
    while ask(at, &get("/a")).await.is_empty() {}
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let address = HttpAddress::Unix(path.clone());
    let listener = HttpListener::bind(&address, None).await.unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(HttpListener::bind(&address, None).await.is_err());
    drop(listener);
    assert!(!path.exists());
}
