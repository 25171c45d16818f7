//! Connections to a server of HTTP: accepted, under TLS where there is a certificate, few, and none that keeps
//! others out.

use super::address::HttpAddress;
use super::body::ResponseBody;
use super::io::{HyperClock, HyperStream};
use crate::transport::{BoundSocket, ByteStream, WebTls};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

/// Connections at the same time.
const MOST: usize = 64;

/// Longest time for a handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Longest time from the end of an answer to the end of the head of the next request.
const HEAD: Duration = Duration::from_secs(20);

/// Longest head of a request, in bytes.
const HEAD_BYTES: usize = 16 << 10;

/// Most lines of such a head.
const HEADERS: usize = 64;

/// Between two attempts to accept where the system refuses.
const REFUSED: Duration = Duration::from_millis(200);

/// A response.
pub(crate) type HttpResponse = Response<ResponseBody>;

/// A connection, as those who answer see it.
#[derive(Clone)]
pub(crate) struct HttpConnection {
    /// The address that the peer connected to; `None` on a unix socket.
    pub(crate) local: Option<IpAddr>,
    has_access: Arc<AtomicBool>,
}

impl HttpConnection {
    /// The peer has access: the connection no longer gives way to others.
    pub(crate) fn grant(&self) {
        self.has_access.store(true, Ordering::Relaxed);
    }
}

/// Who answers requests.
pub(crate) trait HttpHandler: Send + Sync + 'static {
    /// The response to a request without a body.
    fn respond(
        self: Arc<Self>,
        request: http::request::Parts,
        connection: HttpConnection,
    ) -> Pin<Box<dyn Future<Output = HttpResponse> + Send>>;

    /// A connection was accepted, or could not be.
    fn accepted(&self, accepted: Result<(), &io::Error>);
}

enum Socket {
    Tcp(TcpListener),
    Unix(BoundSocket),
}

/// A bound address.
pub(crate) struct HttpListener {
    socket: Socket,
    tls: Option<WebTls>,
}

impl HttpListener {
    /// Binds an address; a unix socket is its owner's alone, and is removed with this.
    ///
    /// # Errors
    /// The address is in use, or the system refused.
    pub(crate) async fn bind(address: &HttpAddress, tls: Option<WebTls>) -> io::Result<Self> {
        let socket = match address {
            HttpAddress::Tcp(address) => Socket::Tcp(TcpListener::bind(address).await?),
            HttpAddress::Unix(path) => {
                let socket = BoundSocket::bind(path)?;
                fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
                Socket::Unix(socket)
            }
        };
        Ok(Self { socket, tls })
    }

    /// The address that is bound; `None` for a unix socket.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok(),
            Socket::Unix(_) => None,
        }
    }

    /// Whether peers speak TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Answers until it is dropped.
    pub(crate) async fn serve(self: Arc<Self>, handler: Arc<dyn HttpHandler>) {
        let mut connections = WebConnections::default();
        loop {
            let (stream, local) = match self.accept().await {
                Ok(accepted) => accepted,
                // Out of descriptors: let others give some back.
                Err(error) => {
                    handler.accepted(Err(&error));
                    tokio::time::sleep(REFUSED).await;
                    continue;
                }
            };
            handler.accepted(Ok(()));
            let connection = HttpConnection {
                local,
                has_access: Arc::default(),
            };
            let (listener, handler) = (self.clone(), handler.clone());
            connections.serve(connection.clone(), async move {
                if let Some(stream) = listener.secured(stream).await {
                    converse(stream, connection, handler).await;
                }
            });
        }
    }

    async fn accept(&self) -> io::Result<(Box<dyn ByteStream>, Option<IpAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let local = stream.local_addr()?.ip();
                // Events are small and late is useless.
                stream.set_nodelay(true)?;
                Ok((Box::new(stream), Some(local)))
            }
            Socket::Unix(socket) => {
                let (stream, _) = socket.listener().accept().await?;
                Ok((Box::new(stream), None))
            }
        }
    }

    /// The stream under TLS, where there is a certificate; `None`: the peer did not shake hands.
    async fn secured(&self, stream: Box<dyn ByteStream>) -> Option<Box<dyn ByteStream>> {
        let Some(tls) = &self.tls else {
            return Some(stream);
        };
        match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a handshake of TLS failed");
                None
            }
            Err(_) => None,
        }
    }
}

/// Answers the requests of one connection.
async fn converse(
    stream: Box<dyn ByteStream>,
    connection: HttpConnection,
    handler: Arc<dyn HttpHandler>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (handler, connection) = (handler.clone(), connection.clone());
        async move {
            let (request, body) = request.into_parts();
            Ok::<_, Infallible>(match body.is_end_stream() {
                true => handler.respond(request, connection).await,
                false => with_body(),
            })
        }
    });
    let served = http1::Builder::new()
        .timer(HyperClock)
        .header_read_timeout(HEAD)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .max_header_size(HEAD_BYTES)
        .serve_connection(HyperStream::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection over HTTP broke off");
    }
}

/// The answer to a request that has a body: it is not read, so that nothing may follow it.
fn with_body() -> HttpResponse {
    let mut response = Response::new(ResponseBody::whole("requests have no body here\n"));
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    let close = http::HeaderValue::from_static("close");
    response
        .headers_mut()
        .insert(http::header::CONNECTION, close);
    response
}

/// The open connections; all are closed when this is dropped. When one too many comes, the oldest without
/// access is closed; where all have access the new one is.
#[derive(Default)]
struct WebConnections {
    tasks: JoinSet<()>,
    /// The oldest first.
    order: VecDeque<(AbortHandle, HttpConnection)>,
}

impl WebConnections {
    fn serve(
        &mut self,
        connection: HttpConnection,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a fault while answering a request over HTTP");
            }
        }
        self.order.retain(|(task, _)| !task.is_finished());
        if self.order.len() >= MOST {
            let mut order = self.order.iter();
            let idle = order.position(|(_, it)| !it.has_access.load(Ordering::Relaxed));
            let Some((oldest, _)) = idle.and_then(|at| self.order.remove(at)) else {
                return;
            };
            oldest.abort();
        }
        self.order.push_back((self.tasks.spawn(task), connection));
    }
}

#[cfg(test)]
mod tests;
