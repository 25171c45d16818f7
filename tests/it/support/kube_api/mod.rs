//! An API server of Kubernetes with KubeVirt in this process, for faults, scale and time.
//!
//! It answers what the contract in `kube_contract.rs` says, which is held against a real kube-apiserver, too. Agents
//! are unix sockets `agents/NAMESPACE.NAME.PORT`, as with the real one's double of virt-api.

mod request;
mod watch;
mod websocket;
use super::authority::Authority;
use super::https::{Https, client_config};
use rcgen::{CertificateParams, SanType};
use request::{Request, read_request};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio_rustls::TlsAcceptor;

/// What goes wrong, once each time it is set.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A request whose target contains this is answered so: code, field, body.
    Answer(&'static str, u16, &'static str, String),
    /// A page after the first has expired.
    ExpiredPage,
    /// A watch says that its version is too old.
    ExpiredWatch,
    /// A watch is cut in the middle of a line.
    CutWatch,
    /// A watch says nothing, and does not end.
    SilentWatch,
    /// A request whose target contains this is never answered.
    Silence(&'static str),
    /// A websocket answers with this and closes.
    Bytes(Vec<u8>),
}

/// What was seen of clients.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Targets of all requests.
    pub targets: Vec<String>,
    /// Websockets that are open now, and most at a time.
    pub open: usize,
    pub most_open: usize,
    /// When each was opened.
    pub dialed: Vec<Instant>,
    /// Close frames that came with 1000.
    pub closed_well: usize,
}

#[derive(Default)]
struct State {
    /// By plural, then `namespace/name`.
    objects: BTreeMap<String, BTreeMap<String, Value>>,
    version: u64,
    /// Everything that ever happened: version, plural, type, object; and the object before.
    log: Vec<(u64, String, Value, Value)>,
    /// Watches from before this version are too old.
    compacted: u64,
    faults: Vec<Fault>,
    tokens: BTreeMap<String, Vec<&'static str>>,
    absent: BTreeSet<String>,
    bookmark_every: Option<Duration>,
    /// Watches of an earlier term have ended.
    term: u64,
    seen: Seen,
}

/// The server; it ends with the test process.
pub struct FakeApi {
    pub dir: tempfile::TempDir,
    pub server: String,
    state: Arc<Mutex<State>>,
}

const NAMES: [&str; 2] = ["virtualmachineinstances", "virtualmachines"];

impl FakeApi {
    /// Starts with no objects, and the tokens `admin-token`, `sense-token` and `nobody-token`.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let mut leaf = CertificateParams::new([]).unwrap();
        leaf.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let pki = dir.path().join("pki");
        authority.issue(&pki, &leaf);
        std::fs::write(pki.join("ca.crt"), &authority.ca).unwrap();
        std::fs::create_dir(dir.path().join("agents")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from_pem_file(pki.join("cert.pem")).unwrap()],
                PrivateKeyDer::from_pem_file(pki.join("key.pem")).unwrap(),
            )
            .unwrap();
        // As the real one: whoever offers h2 gets it, and no upgrade.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("https://{}", listener.local_addr().unwrap());
        let mut state = State {
            version: 100,
            compacted: 50,
            ..State::default()
        };
        let all = vec!["virtualmachineinstances", "virtualmachines", "vsock"];
        state.tokens.insert("admin-token".into(), all.clone());
        state.tokens.insert("sense-token".into(), all);
        state.tokens.insert("nobody-token".into(), Vec::new());
        let state = Arc::new(Mutex::new(state));
        let (shared, agents) = (state.clone(), dir.path().join("agents"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            runtime.block_on(listen(listener, acceptor, shared, agents));
        });
        Self { dir, server, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// A client that writes, as an administrator.
    pub fn https(&self) -> Https {
        Https::new(&self.server, &self.dir.path().join("pki/ca.crt"))
    }

    pub fn fail(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Faults that did not happen yet.
    pub fn faults_left(&self) -> usize {
        self.state().faults.len()
    }

    /// Gives a token these rights: plurals, and `vsock`.
    pub fn allow(&self, token: &str, rights: &[&'static str]) {
        self.state().tokens.insert(token.into(), rights.to_vec());
    }

    pub fn revoke(&self, token: &str) {
        self.state().tokens.remove(token);
    }

    /// Removes the definition of a kind: all its objects are deleted, and then there is no such resource.
    pub fn remove_kind(&self, plural: &str) {
        let mut state = self.state();
        let keys: Vec<String> = state.of(plural).keys().cloned().collect();
        for key in keys {
            state.delete(plural, &key);
        }
        state.absent.insert(plural.into());
    }

    pub fn restore_kind(&self, plural: &str) {
        self.state().absent.remove(plural);
    }

    /// Ends all watches, as when their time is over.
    pub fn end_watches(&self) {
        self.state().term += 1;
    }

    /// Between two bookmarks of a watch.
    pub fn bookmark_every(&self, time: Duration) {
        self.state().bookmark_every = Some(time);
    }

    pub fn seen(&self) -> Seen {
        self.state().seen.clone()
    }

    /// Makes or replaces an object, past HTTP.
    pub fn put(&self, plural: &str, object: Value) {
        self.state().put(plural, object);
    }

    pub fn remove(&self, plural: &str, key: &str) {
        self.state().delete(plural, key);
    }
}

impl State {
    fn of(&mut self, plural: &str) -> &mut BTreeMap<String, Value> {
        self.objects.entry(plural.into()).or_default()
    }

    fn put(&mut self, plural: &str, mut object: Value) -> Value {
        self.version += 1;
        let version = self.version;
        let meta = &mut object["metadata"];
        let key = format!(
            "{}/{}",
            meta["namespace"].as_str().unwrap(),
            meta["name"].as_str().unwrap()
        );
        meta["resourceVersion"] = version.to_string().into();
        let before = self.of(plural).get(&key).cloned();
        match &before {
            Some(before) => meta["uid"] = before["metadata"]["uid"].clone(),
            None if meta["uid"].is_null() => {
                meta["uid"] = uuid::Uuid::from_u128(u128::from(version) << 64)
                    .to_string()
                    .into();
            }
            None => {}
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = "2026-11-27T10:00:00Z".into();
        }
        object["apiVersion"] = "kubevirt.io/v1".into();
        object["kind"] = kind_of(plural).into();
        self.of(plural).insert(key, object.clone());
        let kind = if before.is_some() {
            "MODIFIED"
        } else {
            "ADDED"
        };
        let event = json!({"type": kind, "object": object});
        self.log
            .push((version, plural.into(), event, before.unwrap_or_default()));
        object
    }

    fn delete(&mut self, plural: &str, key: &str) -> Option<Value> {
        let mut object = self.of(plural).remove(key)?;
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let event = json!({"type": "DELETED", "object": object});
        self.log
            .push((self.version, plural.into(), event, object.clone()));
        Some(object)
    }

    /// Takes the first fault that is one of these.
    fn take(&mut self, is: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.faults.iter().position(is)?;
        Some(self.faults.remove(at))
    }
}

fn kind_of(plural: &str) -> &'static str {
    match plural {
        "virtualmachineinstances" => "VirtualMachineInstance",
        _ => "VirtualMachine",
    }
}

/// Code, fields and body.
type Reply = (u16, String, String);

fn status(code: u16, reason: &str, message: &str, more: Value) -> Reply {
    let mut status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    if !more.is_null() {
        status["details"] = more;
    }
    (
        code,
        "Content-Type: application/json\r\n".into(),
        status.to_string(),
    )
}

fn text(code: u16, body: &str, fields: &str) -> Reply {
    let fields = format!("Content-Type: text/plain; charset=utf-8\r\n{fields}");
    (code, fields, format!("{body}\n"))
}

async fn listen(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    state: Arc<Mutex<State>>,
    agents: PathBuf,
) {
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state, agents) = (acceptor.clone(), state.clone(), agents.clone());
        tokio::spawn(async move {
            if let Ok(mut stream) = acceptor.accept(stream).await
                && stream.get_ref().1.alpn_protocol() != Some(b"h2")
            {
                // A client may go away at any moment.
                let _ = answer(&mut stream, &state, &agents).await;
                let _ = stream.shutdown().await;
            }
        });
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    state: &Mutex<State>,
    agents: &Path,
) -> std::io::Result<()> {
    let (target, request) = read_request(stream).await?;
    let fault = {
        let mut state = state.lock().unwrap();
        state.seen.targets.push(target.clone());
        state.take(|fault| {
            matches!(fault, Fault::Answer(part, ..) | Fault::Silence(part) if target.contains(part))
        })
    };
    match fault {
        Some(Fault::Answer(_, code, fields, body)) => {
            return send(stream, (code, fields.to_owned(), body)).await;
        }
        Some(Fault::Silence(_)) => {
            // Until the client gives up.
            let _ = stream.read_u8().await;
            return Ok(());
        }
        _ => {}
    }
    let refused = state.lock().unwrap().refuses(&request);
    if let Some(refused) = refused {
        return send(stream, refused).await;
    }
    if request.path.ends_with("/vsock") {
        return websocket::websocket(stream, &request, state, agents).await;
    }
    if request.query.get("watch").is_some_and(|v| v == "true") {
        return watch::watch(stream, &request, state).await;
    }
    let reply = state.lock().unwrap().reply(&request);
    send(stream, reply).await
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), reply: Reply) -> std::io::Result<()> {
    let (code, fields, body) = reply;
    let head = format!(
        "HTTP/1.1 {code} X\r\n{fields}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.flush().await
}

impl State {
    /// Authentication, authorization, and whether there is such a resource.
    fn refuses(&self, request: &Request) -> Option<Reply> {
        let rights = match &request.token {
            None => &Vec::new(),
            Some(token) => match self.tokens.get(token) {
                Some(rights) => rights,
                None => return Some(status(401, "Unauthorized", "Unauthorized", Value::Null)),
            },
        };
        if request.path.starts_with("/api/") {
            return None;
        }
        let (plural, namespace, name) = request.object();
        let is_vsock = request.path.ends_with("/vsock");
        let right = if is_vsock { "vsock" } else { plural.as_str() };
        if !rights.contains(&right) && (is_vsock || NAMES.contains(&plural.as_str())) {
            let user = match request.token.as_deref() {
                None => "system:anonymous",
                Some(token) => token.trim_end_matches("-token"),
            };
            let watches = request.query.contains_key("watch");
            let (verb, resource, group) = match () {
                () if is_vsock => (
                    "get",
                    "virtualmachineinstances/vsock".to_owned(),
                    "subresources.kubevirt.io",
                ),
                () if watches => ("watch", plural.clone(), "kubevirt.io"),
                () => ("list", plural.clone(), "kubevirt.io"),
            };
            let name = name.map_or(String::new(), |name| format!(" \"{name}\""));
            let scope = namespace.map_or("at the cluster scope".into(), |it| {
                format!("in the namespace \"{it}\"")
            });
            let message = format!(
                "{}.{group}{name} is forbidden: User \"{user}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}",
                plural
            );
            let details = json!({"group": group, "kind": plural});
            return Some(status(403, "Forbidden", &message, details));
        }
        let is_there = NAMES.contains(&plural.as_str()) && !self.absent.contains(&plural);
        (!is_there).then(|| text(404, "404 page not found", ""))
    }

    fn reply(&mut self, request: &Request) -> Reply {
        if request.path.starts_with("/api/") {
            return (201, String::new(), "{}".into());
        }
        let (plural, namespace, name) = request.object();
        match (request.method.as_str(), namespace, name) {
            ("POST" | "PUT", Some(namespace), _) => {
                let mut object: Value = serde_json::from_slice(&request.body).unwrap();
                object["metadata"]["namespace"] = namespace.into();
                let code = if request.method == "POST" { 201 } else { 200 };
                (code, String::new(), self.put(&plural, object).to_string())
            }
            ("DELETE", Some(namespace), Some(name)) => {
                match self.delete(&plural, &format!("{namespace}/{name}")) {
                    Some(object) => (200, String::new(), object.to_string()),
                    None => status(404, "NotFound", "not found", Value::Null),
                }
            }
            (_, Some(namespace), Some(name)) => {
                match self.of(&plural).get(&format!("{namespace}/{name}")) {
                    Some(object) => (200, String::new(), object.to_string()),
                    None => {
                        let message = format!("{plural}.kubevirt.io \"{name}\" not found");
                        let details = json!({"name": name, "group": "kubevirt.io", "kind": plural});
                        status(404, "NotFound", &message, details)
                    }
                }
            }
            (_, namespace, None) => self.list(&plural, namespace.as_deref(), request),
            _ => text(404, "404 page not found", ""),
        }
    }

    fn list(&mut self, plural: &str, namespace: Option<&str>, request: &Request) -> Reply {
        let query = |name: &str| request.query.get(name).filter(|value| !value.is_empty());
        if let Some(selector) = query("fieldSelector") {
            let field = selector.split('=').next().unwrap();
            let message = format!("field label not supported: {field}");
            return status(400, "BadRequest", &message, Value::Null);
        }
        if let Some(version) = query("resourceVersion") {
            match version.parse::<u64>() {
                Err(_) => {
                    return status(
                        400,
                        "BadRequest",
                        "resourceVersion: Invalid value",
                        Value::Null,
                    );
                }
                Ok(version) if version > self.version => {
                    let message = format!(
                        "Timeout: Too large resource version: {version}, current: {}",
                        self.version
                    );
                    let details = json!({"causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}], "retryAfterSeconds": 1});
                    let (code, fields, body) = status(504, "Timeout", &message, details);
                    return (code, format!("{fields}Retry-After: 1\r\n"), body);
                }
                Ok(_) => {}
            }
        }
        let (mut from, mut version) = (String::new(), self.version);
        if let Some(token) = query("continue") {
            if self
                .take(|fault| matches!(fault, Fault::ExpiredPage))
                .is_some()
            {
                let (code, fields, body) = status(
                    410,
                    "Expired",
                    "The provided continue parameter is too old",
                    Value::Null,
                );
                let mut body: Value = serde_json::from_str(&body).unwrap();
                // The token that goes on from another version.
                body["metadata"]["continue"] = "inconsistent".into();
                return (code, fields, body.to_string());
            }
            match token.split_once('@') {
                Some((last, of)) => (from, version) = (last.into(), of.parse().unwrap()),
                None => {
                    return status(
                        400,
                        "BadRequest",
                        "continue key is not valid: illegal base64 data",
                        Value::Null,
                    );
                }
            }
        }
        let limit = query("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let selector = query("labelSelector").cloned();
        let objects = self.of(plural).iter();
        let mut matching = objects.filter(|(key, object)| {
            **key > from && is_in(object, namespace) && matches(object, selector.as_deref())
        });
        let items: Vec<(String, Value)> = matching
            .by_ref()
            .take(limit)
            .map(|(k, o)| (k.clone(), o.clone()))
            .collect();
        let left = matching.count();
        let mut metadata = json!({"continue": "", "resourceVersion": version.to_string()});
        if left > 0 {
            metadata["continue"] = format!("{}@{version}", items.last().unwrap().0).into();
            if selector.is_none() {
                metadata["remainingItemCount"] = left.into();
            }
        }
        let items: Vec<Value> = items.into_iter().map(|(_, object)| object).collect();
        let kind = format!("{}List", kind_of(plural));
        let list = json!({"apiVersion": "kubevirt.io/v1", "items": items, "kind": kind, "metadata": metadata});
        (
            200,
            "Content-Type: application/json\r\n".into(),
            list.to_string(),
        )
    }
}

fn is_in(object: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|it| object["metadata"]["namespace"] == it)
}

fn matches(object: &Value, selector: Option<&str>) -> bool {
    selector
        .and_then(|it| it.split_once('='))
        .is_none_or(|(label, value)| object["metadata"]["labels"][label] == value)
}
