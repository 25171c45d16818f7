//! KubeVirt's CABundle service on a unix socket: gRPC over HTTP/2, with answers that a test chooses.

use h2::server::SendResponse;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::{UnixListener, UnixStream};

/// What the service does when it is called.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with these certificates.
    Bundle(String),
    /// Answers with an error of gRPC in the headers, without a body.
    Status(u8),
    /// Answers with bytes that are no message.
    Garbage,
    /// Answers with an HTTP error.
    Http(u16),
    /// Answers with a good message and an error in the trailers.
    LateError(String),
    /// Accepts the call and never answers.
    Silent,
}

/// A running service; it ends when dropped.
pub struct CaBundle {
    socket: PathBuf,
    shared: Arc<Mutex<(Behaviour, usize)>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl CaBundle {
    pub fn start(socket: &Path, behaviour: Behaviour) -> Self {
        let shared = Arc::new(Mutex::new((behaviour, 0)));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _context = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(listener, for_thread) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            socket: socket.to_owned(),
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    pub fn set(&self, behaviour: Behaviour) {
        self.shared.lock().unwrap().0 = behaviour;
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.shared.lock().unwrap().1
    }
}

impl Drop for CaBundle {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().unwrap().join();
        let _ = std::fs::remove_file(&self.socket);
    }
}

async fn serve(listener: UnixListener, shared: Arc<Mutex<(Behaviour, usize)>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(stream: UnixStream, shared: Arc<Mutex<(Behaviour, usize)>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(call(request, respond, Arc::clone(&shared)));
    }
}

async fn call(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<bytes::Bytes>,
    shared: Arc<Mutex<(Behaviour, usize)>>,
) {
    let (head, mut body) = request.into_parts();
    let mut message = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        message.extend_from_slice(&part);
    }
    let is_call = head.method == "POST"
        && head.uri.path() == "/kubevirt.vsock.system.v1.System/CABundle"
        && head.headers["content-type"] == "application/grpc"
        && message == [0; 5];
    let behaviour = {
        let mut shared = shared.lock().unwrap();
        shared.1 += 1;
        shared.0.clone()
    };
    let behaviour = if is_call {
        behaviour
    } else {
        Behaviour::Status(12)
    };
    let head = http::Response::builder().header("content-type", "application/grpc");
    let (message, status) = match behaviour {
        Behaviour::Silent => std::future::pending().await,
        Behaviour::Http(status) => {
            let head = head.status(status).body(()).unwrap();
            respond.send_response(head, true).unwrap();
            return;
        }
        Behaviour::Status(status) => {
            let head = head
                .header("grpc-status", status.to_string())
                .header("grpc-message", "as the test wants it");
            respond.send_response(head.body(()).unwrap(), true).unwrap();
            return;
        }
        Behaviour::Garbage => (b"no message of gRPC".to_vec(), "0"),
        Behaviour::Bundle(pem) => (encoded(&pem), "0"),
        Behaviour::LateError(pem) => (encoded(&pem), "13"),
    };
    let mut stream = respond
        .send_response(head.body(()).unwrap(), false)
        .unwrap();
    stream.send_data(message.into(), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("grpc-message", "".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

/// A message of gRPC around `{ bytes raw = 1 }`.
fn encoded(pem: &str) -> Vec<u8> {
    let mut message = vec![0x0a];
    prost::encoding::encode_varint(pem.len() as u64, &mut message);
    message.extend(pem.as_bytes());
    let len = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &len, &message].concat()
}
