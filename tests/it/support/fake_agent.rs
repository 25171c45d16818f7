//! An agent that speaks the real protocol on a unix socket and says whatever a test wants.

use afferent::clock;
use afferent::report::{Evr, MappingHash, Package, Report};
use afferent::transport::{ListenAddress, Listener, Stream, read_frame, write_frame};
use afferent::wire::message::{
    Error, ErrorCode, GetReportResponse, ResponseMeta, SyncRepoCpeMappingResponse, Timestamp,
    VmServiceResponse, response,
};
use afferent::wire::request::{Method, Request};
use afferent::wire::{self, frame};
use prost::Message as _;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

/// Longest request that is read: a push, in bytes.
const LONGEST_PUSH: u32 = 6 << 20;

/// What an agent has to say.
#[derive(Clone, Debug)]
pub struct Script {
    pub epoch: u32,
    pub generation: u32,
    /// Each `NAME`, or `NAME EPOCH:VERSION-RELEASE`.
    pub packages: Vec<String>,
    /// The version of the agent.
    pub agent: &'static str,
    /// `ID` and `VERSION_ID` of its system.
    pub os: (&'static str, &'static str),
    pub trigger: &'static str,
    pub guest_id: String,
    /// Beside those that every agent sends.
    pub facts: BTreeMap<String, String>,
    pub waits: bool,
    /// Set for an agent that counts nothing and names its report by this token alone.
    pub token: Option<String>,
    /// Who brings its mapping, and the hash of the one that its report was made with.
    pub mapping: (u32, String),
    pub pushes: PushManner,
    /// Behind the socket of a hypervisor, on this port; others are closed.
    pub behind_port: Option<u32>,
    pub manner: Manner,
}

/// What it does with a mapping that is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PushManner {
    /// Takes it, and its report is made with it from then on.
    Takes,
    /// Takes it, and its report never shows it.
    TakesAndHides,
    /// Answers with this error.
    Says(ErrorCode),
    /// Answers nothing.
    Hangs,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Proper,
    /// Answers with this error.
    Says(ErrorCode),
    /// Answers with this error and message.
    Complains(ErrorCode, &'static str),
    /// Closes without a word.
    Closes,
    /// Closes after half of its answer.
    BreaksOff,
    /// Sends half of its answer and nothing more.
    Stalls,
    /// Accepts, and says nothing.
    Hangs,
    /// Announces 17 MiB.
    AnnouncesTooMuch,
    /// Sends bytes that are no message.
    Babbles,
    /// Says "unchanged" whatever is asked.
    AlwaysUnchanged,
    /// Sends its report whatever is known.
    NeverUnchanged,
    /// Sends an answer of 16 MiB that is nothing but empty entries of a map, or of facts.
    Floods { facts: bool },
}

/// The meta of an agent that knows only tokens.
#[derive(Clone, PartialEq, prost::Message)]
struct TokenMeta {
    #[prost(string, tag = "1")]
    agent_version: String,
    #[prost(message, optional, tag = "2")]
    report_generated_at: Option<Timestamp>,
    #[prost(string, tag = "3")]
    token: String,
    #[prost(string, repeated, tag = "4")]
    supported_methods: Vec<String>,
    #[prost(btree_map = "string, string", tag = "5")]
    facts: BTreeMap<String, String>,
    #[prost(string, tag = "6")]
    mapping_hash: String,
    #[prost(uint32, tag = "7")]
    update_path: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TokenResponse {
    #[prost(message, optional, tag = "1")]
    meta: Option<TokenMeta>,
}

/// A request as the agent saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub wait: bool,
    pub generation: u32,
    pub epoch: u32,
    pub token: String,
}

/// Requests of all kinds so far.
#[derive(Debug, Default)]
struct Log {
    seen: Vec<Seen>,
    /// Mappings that were pushed, as far as they were read.
    pushed: Vec<Vec<u8>>,
}

/// A running agent; it stops when dropped.
pub struct FakeAgent {
    pub path: PathBuf,
    script: watch::Sender<Script>,
    log: Arc<Mutex<Log>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Script {
    pub fn new() -> Self {
        Self {
            epoch: 77,
            generation: 1,
            packages: vec!["bash-5.1-1".into()],
            agent: "fake",
            os: ("", ""),
            trigger: "scheduled",
            guest_id: "0123456789abcdef0123456789abcdef".into(),
            facts: BTreeMap::new(),
            waits: true,
            token: None,
            mapping: (0, String::new()),
            pushes: PushManner::Takes,
            behind_port: None,
            manner: Manner::Proper,
        }
    }

    fn report(&self) -> Report {
        let mut report = Report {
            packages: self
                .packages
                .iter()
                .map(|text| {
                    // A name may have spaces.
                    let split = text.rsplit_once(' ');
                    let split = split.filter(|(_, version)| version.contains('-'));
                    let (name, version) = split.unwrap_or((text, "1-1"));
                    Package {
                        name: name.into(),
                        evr: Evr::parse(version),
                        arch: Some("noarch".into()),
                        ..Package::default()
                    }
                })
                .collect(),
            package_db: "sqlite:var/lib/rpm".into(),
            ..Report::default()
        };
        let (id, version_id) = self.os;
        report.distribution.id = id.into();
        report.distribution.version_id = version_id.into();
        report.normalize();
        report
    }

    fn meta(&self) -> ResponseMeta {
        let mut facts = self.facts.clone();
        facts.insert("scan_trigger".into(), self.trigger.into());
        if !self.guest_id.is_empty() {
            facts.insert("guest_id".into(), self.guest_id.clone());
        }
        let mut methods = vec![wire::method::GET_REPORT.to_owned()];
        methods.extend(self.waits.then(|| wire::method::WAIT_REPORT.to_owned()));
        ResponseMeta {
            agent_version: self.agent.into(),
            report_generated_at: Some(clock::wall_now().into()),
            report_generation: self.generation,
            supported_methods: methods,
            facts,
            epoch: self.epoch,
            update_path: self.mapping.0,
            mapping_hash: Some(self.mapping.1.clone()),
            ..ResponseMeta::default()
        }
    }

    /// A frame.
    fn answer(&self, unchanged: bool) -> Vec<u8> {
        self.frame(response::Payload::GetReport(GetReportResponse {
            index_report: (!unchanged).then(|| wire::report_to_wire(&self.report())),
            unchanged,
        }))
    }

    /// A frame.
    fn error(&self, code: ErrorCode) -> Vec<u8> {
        let message = match self.manner {
            Manner::Complains(_, message) => message,
            _ => "",
        };
        self.frame(response::Payload::Error(Error {
            code: code.into(),
            message: message.into(),
            ..Error::default()
        }))
    }

    fn frame(&self, payload: response::Payload) -> Vec<u8> {
        let (meta, payload) = (self.meta(), Some(payload));
        let Some(token) = &self.token else {
            let meta = Some(meta);
            return frame::encode(&VmServiceResponse { meta, payload });
        };
        let meta = TokenMeta {
            agent_version: meta.agent_version,
            report_generated_at: meta.report_generated_at,
            token: token.clone(),
            supported_methods: meta.supported_methods,
            facts: meta.facts,
            mapping_hash: meta.mapping_hash.unwrap_or_default(),
            update_path: meta.update_path,
        };
        let mut body = TokenResponse { meta: Some(meta) }.encode_to_vec();
        body.extend(
            VmServiceResponse {
                meta: None,
                payload,
            }
            .encode_to_vec(),
        );
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.extend(body);
        frame
    }

    /// As the contract has it: same digest, else same generation and epoch.
    fn is_known(&self, known: &Seen, digest: &[u8]) -> bool {
        let (generation, epoch) = (known.generation, known.epoch);
        if let Some(token) = &self.token {
            return known.token == *token;
        }
        if generation == 0 {
            return false;
        }
        if !digest.is_empty() && self.epoch != 0 {
            return digest == self.report().digest().as_bytes();
        }
        generation == self.generation && (epoch == 0 || epoch == self.epoch)
    }
}

impl FakeAgent {
    /// Starts an agent at `path`.
    pub fn start(path: &Path, script: Script) -> Self {
        let (script_tx, script_rx) = watch::channel(script);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log = Arc::new(Mutex::new(Log::default()));
        let (address, logged) = (ListenAddress::Unix(path.to_owned()), log.clone());
        let changes = script_tx.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = Listener::bind(&address).unwrap();
                ready.send(()).unwrap();
                tokio::select! {
                    () = accept(&listener, &changes, &script_rx, &logged) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().unwrap();
        Self {
            path: path.to_owned(),
            script: script_tx,
            log,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Changes what it has to say; waits are answered.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        self.script.send_modify(change);
    }

    /// A transaction in the guest: one more generation, with these packages.
    pub fn install(&self, package: &str) {
        self.change(|script| {
            script.generation += 1;
            script.packages.push(package.to_owned());
            script.trigger = "reactive";
        });
    }

    /// A transaction that replaces one package by another.
    pub fn replace(&self, old: &str, new: &str) {
        self.change(|script| script.packages.retain(|package| package != old));
        self.install(new);
    }

    /// Its generation and its packages, sorted.
    pub fn now(&self) -> (u32, Vec<String>) {
        let script = self.script.borrow();
        let mut packages = script.packages.clone();
        packages.sort();
        (script.generation, packages)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.log.lock().unwrap().seen.clone()
    }

    /// Every mapping that was pushed so far.
    pub fn pushed(&self) -> Vec<Vec<u8>> {
        self.log.lock().unwrap().pushed.clone()
    }

    /// As `--vm` takes it.
    pub fn vm(&self, id: &str) -> String {
        format!("{id}=unix:{}", self.path.display())
    }
}

impl Drop for FakeAgent {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(
    listener: &Listener,
    changes: &watch::Sender<Script>,
    script: &watch::Receiver<Script>,
    log: &Arc<Mutex<Log>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let changes = changes.clone();
        tokio::spawn(serve(stream, changes, script.clone(), log.clone()));
    }
}

/// Answers a push.
async fn take(mut stream: Stream, mapping: &[u8], changes: watch::Sender<Script>) {
    let script = changes.borrow().clone();
    let sync = |updated| {
        let answer = SyncRepoCpeMappingResponse { updated };
        script.frame(response::Payload::SyncRepoCpeMapping(answer))
    };
    let answer = match script.pushes {
        PushManner::Takes => {
            let hash = MappingHash::of(mapping).to_string();
            let is_new = script.mapping.1 != hash;
            changes.send_modify(|script| script.mapping.1 = hash);
            sync(is_new)
        }
        PushManner::TakesAndHides => sync(true),
        PushManner::Says(code) => script.error(code),
        PushManner::Hangs => std::future::pending().await,
    };
    let _ = write_frame(&mut stream, &answer).await;
}

async fn serve(
    mut stream: Stream,
    changes: watch::Sender<Script>,
    mut script: watch::Receiver<Script>,
    log: Arc<Mutex<Log>>,
) {
    let behind = script.borrow().behind_port;
    if let Some(port) = behind
        && !greet(&mut stream, port).await
    {
        return;
    }
    let Ok(bytes) = read_frame(&mut stream, LONGEST_PUSH).await else {
        return;
    };
    let request = Request::decode(&bytes).unwrap();
    let (known, timeout) = match request.method {
        Some(Method::GetReport(known)) => (known, None),
        Some(Method::WaitReport(known, ms)) => (known, Some(Duration::from_millis(ms.into()))),
        Some(Method::SyncMapping(mapping)) => {
            log.lock().unwrap().pushed.push(mapping.to_vec());
            return take(stream, mapping, changes).await;
        }
        None => return,
    };
    let digest = known.digest.to_vec();
    let asked = Seen {
        wait: timeout.is_some(),
        generation: known.generation,
        epoch: known.epoch,
        token: known.token.to_owned(),
    };
    log.lock().unwrap().seen.push(asked.clone());
    let known = |script: &Script| script.is_known(&asked, &digest);
    let now = script.borrow().clone();
    if let (Some(timeout), Manner::Proper) = (timeout, now.manner) {
        if !now.waits {
            let answer = now.error(ErrorCode::UnknownMethod);
            let _ = write_frame(&mut stream, &answer).await;
            return;
        }
        let changed = script.wait_for(|s| s.manner != Manner::Proper || !known(s));
        let _ = tokio::time::timeout(timeout, changed).await;
    }
    let script = script.borrow().clone();
    let answer = script.answer(known(&script));
    let half = answer.get(..answer.len() / 2).unwrap();
    let _ = match script.manner {
        Manner::Proper => write_frame(&mut stream, &answer).await,
        Manner::Says(code) | Manner::Complains(code, _) => {
            write_frame(&mut stream, &script.error(code)).await
        }
        Manner::Closes => Ok(()),
        Manner::BreaksOff => write_frame(&mut stream, half).await,
        Manner::Stalls => {
            let _ = write_frame(&mut stream, half).await;
            std::future::pending().await
        }
        Manner::Hangs => std::future::pending().await,
        Manner::AnnouncesTooMuch => write_frame(&mut stream, &(17u32 << 20).to_be_bytes()).await,
        Manner::Babbles => write_frame(&mut stream, b"\0\0\0\x03\xff\xff\xff").await,
        Manner::AlwaysUnchanged => write_frame(&mut stream, &script.answer(true)).await,
        Manner::NeverUnchanged => write_frame(&mut stream, &script.answer(false)).await,
        Manner::Floods { facts } => write_frame(&mut stream, &flood(facts)).await,
    };
}

/// The hypervisor's part: `CONNECT PORT`, answered with `OK` where an agent listens.
async fn greet(stream: &mut Stream, port: u32) -> bool {
    let mut line = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        if byte == b'\n' {
            break;
        }
        line.push(byte);
    }
    let is_right = line == format!("CONNECT {port}").as_bytes();
    is_right && write_frame(stream, b"OK 1073741824\n").await.is_ok()
}

/// As many bytes as a frame may have, each two of them an empty entry.
fn flood(facts: bool) -> Vec<u8> {
    let len = wire::MAX_RESPONSE as usize - 64;
    let field = |number: u8, bytes: &[u8]| {
        let mut field = vec![number << 3 | 2];
        prost::encode_length_delimiter(bytes.len(), &mut field).unwrap();
        field.extend_from_slice(bytes);
        field
    };
    let entries = [if facts { 4 << 3 | 2 } else { 5 << 3 | 2 }, 0].repeat(len / 2);
    let body = match facts {
        true => field(1, &entries),
        false => field(2, &field(1, &field(5, &entries))),
    };
    let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(body);
    frame
}
