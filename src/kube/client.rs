//! Questions to the API server: each has a connection of its own.
//!
//! A connection costs one TLS handshake, resumed where the server allows it; in return no answer waits behind
//! another, and a watch or a websocket is ended by dropping it.

use super::KubeError;
use super::config::ApiAccess;
use super::connection::Connection;
use super::message::{self, BodyLength, Chunked, Head};
use super::refusal::ApiRefusal;
use super::source::KubeSource;
use super::websocket::{UpgradeKey, WebSocket};
use crate::file_stamp::FileStamp;
use rustls::pki_types::ServerName;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Longest body of a refusal that is read.
const REFUSAL: usize = 16 << 10;

/// Read at once.
const READ: usize = 16 << 10;

/// How long each step may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Name, TCP and TLS.
    pub connect: Duration,
    /// From the request to the head of the response.
    pub head: Duration,
    /// Between two parts of a body.
    pub body: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
        }
    }
}

/// Asks one API server.
pub struct KubeClient {
    source: KubeSource,
    deadlines: Deadlines,
    loaded: Mutex<Option<Loaded>>,
}

#[derive(Clone)]
struct Loaded {
    access: Arc<ApiAccess>,
    tls: TlsConnector,
    stamps: Vec<Option<FileStamp>>,
}

impl KubeClient {
    /// As `source` says; nothing is read before the first question.
    pub fn new(source: KubeSource) -> Self {
        Self::with_deadlines(source, Deadlines::default())
    }

    /// The same with other deadlines.
    pub fn with_deadlines(source: KubeSource, deadlines: Deadlines) -> Self {
        Self {
            source,
            deadlines,
            loaded: Mutex::new(None),
        }
    }

    /// Asks for `target`, a path with its query; the body arrives as it is read. A token that is not accepted is
    /// read again, once.
    ///
    /// # Errors
    /// There is no answer, or it is no 200.
    pub async fn get(&self, target: &str) -> Result<Body, KubeError> {
        let (head, connection) = self.ask(target, "Connection: close\r\n").await?;
        let body = Body::new(&head, connection, self.deadlines.body);
        match head.code {
            200 => Ok(body),
            _ => Err(refusal(&head, body).await),
        }
    }

    /// Upgrades `target` to a websocket.
    pub(super) async fn upgrade(&self, target: &str) -> Result<WebSocket, KubeError> {
        let key = UpgradeKey::new();
        let (head, connection) = self.ask(target, &key.fields()).await?;
        if head.code != 101 {
            let body = Body::new(&head, connection, self.deadlines.body);
            return Err(refusal(&head, body).await);
        }
        key.check(head.accept.as_deref())?;
        Ok(WebSocket::new(connection))
    }

    async fn ask(&self, target: &str, more: &str) -> Result<(Head, Connection), KubeError> {
        let answer = self.ask_once(target, more).await?;
        match answer.0.code {
            401 => self.ask_once(target, more).await,
            _ => Ok(answer),
        }
    }

    async fn ask_once(&self, target: &str, more: &str) -> Result<(Head, Connection), KubeError> {
        let Loaded { access, tls, .. } = self.current()?;
        let token = access.token()?;
        let connecting = timeout(self.deadlines.connect, connect(&access, &tls));
        let mut connection = connecting
            .await
            .map_err(|_| KubeError::Timeout("connection"))??;
        let target = format!("{}{target}", access.prefix);
        if !message::is_field_value(&target) {
            let what = "a name has characters that no name has".to_owned();
            return Err(KubeError::Configuration(what));
        }
        let request = message::request(&access.authority(), &target, token.as_deref(), more);
        let head = async {
            let stream = &mut connection.stream;
            stream
                .write_all(&request)
                .await
                .map_err(KubeError::broken)?;
            stream.flush().await.map_err(KubeError::broken)?;
            connection.read_head().await
        };
        let head = timeout(self.deadlines.head, head).await;
        let head = head.map_err(|_| KubeError::Timeout("answer"))??;
        Ok((head, connection))
    }

    /// What the files say; they are read again when one of them changed.
    fn current(&self) -> Result<Loaded, KubeError> {
        let mut kept = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = &*kept
            && loaded.stamps == loaded.access.stamps(self.source.file())
        {
            return Ok(loaded.clone());
        }
        let access = self.source.load()?;
        let stamps = access.stamps(self.source.file());
        let loaded = Loaded {
            tls: TlsConnector::from(Arc::new(access.tls()?)),
            access: Arc::new(access),
            stamps,
        };
        Ok(kept.insert(loaded).clone())
    }
}

async fn connect(access: &ApiAccess, tls: &TlsConnector) -> Result<Connection, KubeError> {
    let failed = |why: String| KubeError::NoConnection {
        server: access.authority(),
        why,
    };
    let name = ServerName::try_from(access.tls_name.clone());
    let name = name.map_err(|error| KubeError::Configuration(error.to_string()))?;
    let tcp = TcpStream::connect((access.host.as_str(), access.port)).await;
    let tcp = tcp.map_err(|error| failed(error.to_string()))?;
    tcp.set_nodelay(true)
        .map_err(|error| failed(error.to_string()))?;
    let stream = tls.connect(name, tcp).await;
    let stream = stream.map_err(|error| failed(format!("TLS: {error}")))?;
    Ok(Connection {
        stream,
        buffered: Vec::new(),
    })
}

async fn refusal(head: &Head, mut body: Body) -> KubeError {
    let mut text = Vec::new();
    // What came before it broke off may say enough.
    while text.len() < REFUSAL && body.next(&mut text).await.is_ok_and(|more| more) {}
    text.truncate(REFUSAL);
    KubeError::Refused(ApiRefusal::read(head.code, head.retry_after, &text))
}

/// The body of an answer, as it arrives.
pub struct Body {
    connection: Connection,
    length: BodyLength,
    chunked: Chunked,
    read_timeout: Duration,
}

impl Body {
    fn new(head: &Head, connection: Connection, read_timeout: Duration) -> Self {
        Self {
            connection,
            length: head.body,
            chunked: Chunked::default(),
            read_timeout,
        }
    }

    /// Other than the client's, the longest time between two parts.
    pub fn set_read_timeout(&mut self, read_timeout: Duration) {
        self.read_timeout = read_timeout;
    }

    /// Appends the next part to `out`; `false`: the body is over, and nothing was appended. What was appended
    /// before it is given up stays.
    ///
    /// # Errors
    /// It breaks off before its end, or nothing comes in time.
    pub async fn next(&mut self, out: &mut Vec<u8>) -> Result<bool, KubeError> {
        let before = out.len();
        loop {
            if self.length == BodyLength::Known(0) || self.chunked.is_done() {
                return Ok(false);
            }
            let mut part = Vec::with_capacity(READ);
            let reading = timeout(self.read_timeout, self.connection.read_buf(&mut part));
            let read = reading
                .await
                .map_err(|_| KubeError::Timeout("more of its answer"))?;
            let has_ended = match read {
                Ok(read) => read == 0,
                // Nobody has to say goodbye in TLS where the length is known otherwise.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => true,
                Err(error) => return Err(KubeError::broken(error)),
            };
            match &mut self.length {
                BodyLength::UntilClosed if has_ended => return Ok(false),
                _ if has_ended => {
                    return Err(KubeError::broken("it breaks off in the middle"));
                }
                BodyLength::UntilClosed => out.append(&mut part),
                BodyLength::Known(left) => {
                    let len = usize::try_from(*left).unwrap_or(usize::MAX);
                    part.truncate(len);
                    *left -= part.len() as u64;
                    out.append(&mut part);
                }
                BodyLength::Chunked => self.chunked.decode(&part, out)?,
            }
            if out.len() > before {
                return Ok(true);
            }
        }
    }

    /// All of a short body.
    ///
    /// # Errors
    /// The same, and it is over this many bytes.
    pub async fn read_all(mut self, most: usize) -> Result<Vec<u8>, KubeError> {
        let mut all = Vec::new();
        while self.next(&mut all).await? {
            if all.len() > most {
                return Err(KubeError::broken("it is over its bound"));
            }
        }
        Ok(all)
    }
}
