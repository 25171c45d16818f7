//! A real `nats-server`, and a consumer that looks at what its stream holds.

use super::{documents, eventually};
use afferent::clock;
use afferent::nats::{Message, NatsClient, NatsError, NatsOptions};
use data_encoding::BASE64;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Name of the stream in every test.
pub const STREAM: &str = "REPORTS";

/// Keeps what it is given in a directory.
pub const JETSTREAM: &str = "jetstream { store_dir: \"store\" }\n";

/// A running server; killed when dropped.
pub struct NatsServer {
    /// Configuration and storage.
    pub dir: TempDir,
    /// `ADDRESS:PORT`, the same after a restart.
    pub place: String,
    child: Child,
}

impl NatsServer {
    /// With this configuration, on an address of its own: while the server is down, nobody else
    /// gets its port.
    pub fn start(configuration: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let ip = format!("127.{}.{}.{count}", process / 200 % 200 + 1, process % 200);
        Self::start_at(&ip, tempfile::tempdir().unwrap(), configuration)
    }

    /// The same on this address, with files that `configuration` names in this directory.
    pub fn start_at(ip: &str, dir: TempDir, configuration: &str) -> Self {
        let child = spawn(dir.path(), &format!("{ip}:-1"), configuration);
        let ports = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let place = eventually("the server says its port", || {
            let ports: Value = serde_json::from_str(&fs::read_to_string(&ports).ok()?).ok()?;
            let url = ports["nats"][0].as_str()?;
            Some(url.split_once("://")?.1.to_owned())
        });
        Self { dir, place, child }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After [`NatsServer::kill`]: again, with what it had stored.
    pub fn start_again(&mut self, configuration: &str) {
        self.child = spawn(self.dir.path(), &self.place, configuration);
    }

    /// Where a sensor delivers to.
    pub fn url(&self) -> String {
        format!("nats://{}?stream={STREAM}", self.place)
    }

    /// Somebody who reads the stream.
    pub fn consumer(&self) -> Consumer {
        Consumer::new(&self.url(), None, None)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        let ended = self.child.try_wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let said = |name: &str| fs::read_to_string(self.dir.path().join(name));
            let (log, errors) = (
                said("log").unwrap_or_default(),
                said("stderr").unwrap_or_default(),
            );
            eprintln!("nats-server at {} ({ended:?}):\n{log}{errors}", self.place);
        }
    }
}

fn spawn(dir: &Path, listen: &str, configuration: &str) -> Child {
    let file = dir.join("nats.conf");
    let head = format!("listen: \"{listen}\"\nports_file_dir: \".\"\nlogfile: \"log\"\n");
    fs::write(&file, head + configuration).unwrap();
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/nats-server");
    let program = match unpacked.exists() {
        true => unpacked,
        false => PathBuf::from("nats-server"),
    };
    Command::new(program)
        .arg("-c")
        .arg(&file)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("stderr")).unwrap())
        .spawn()
        .expect("nats-server: packaging/install-deps.sh nats")
}

/// Reads a stream.
pub struct Consumer(NatsClient);

/// A message in the stream.
#[derive(Clone, Debug)]
pub struct Stored {
    pub subject: String,
    pub headers: String,
    /// As it is stored.
    pub payload: Vec<u8>,
    /// Unpacked.
    pub body: Vec<u8>,
}

impl Stored {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Generation and names of the packages, sorted.
    pub fn now(&self) -> (u32, Vec<String>) {
        let document: Value = serde_json::from_slice(&self.body).unwrap();
        let packages = document["report"]["packages"].as_array().unwrap();
        let name = |package: &Value| package["name"].as_str().unwrap().to_owned();
        let mut packages: Vec<String> = packages.iter().map(name).collect();
        packages.sort();
        let generation = document["meta"]["generation"].as_u64().unwrap();
        (u32::try_from(generation).unwrap(), packages)
    }
}

impl Consumer {
    /// With these secrets and this authority.
    pub fn new(url: &str, secret_file: Option<PathBuf>, ca_file: Option<PathBuf>) -> Self {
        let options = NatsOptions {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            secret_file,
            ca_file,
        };
        Self(NatsClient::new(url.parse().unwrap(), options))
    }

    /// Asks the API of JetStream.
    pub fn ask(&self, what: &str, request: &Value) -> Result<Value, NatsError> {
        let (subject, request) = (format!("$JS.API.{what}"), request.to_string());
        let message = Message {
            subject: &subject,
            headers: &[],
            payload: request.as_bytes(),
        };
        let until = clock::now() + Duration::from_secs(10);
        let answer = self.0.request(&message, until)?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    /// The stream: its `config` and its `state`; `None` while there is none.
    pub fn stream(&self) -> Option<Value> {
        let info = self
            .ask(&format!("STREAM.INFO.{STREAM}"), &json!({}))
            .ok()?;
        info["config"].is_object().then_some(info)
    }

    /// The newest report of a guest, as the contract has it.
    pub fn newest(&self, word: &str) -> Option<Stored> {
        self.newest_at(&format!("afferent.reports.{word}"))
    }

    /// The newest document on a subject, as the contract has it.
    pub fn newest_at(&self, subject: &str) -> Option<Stored> {
        let stored = self.message_at(subject)?;
        let document = serde_json::from_slice(&stored.body).unwrap();
        documents::judge_message(stored.header("Nats-Msg-Id"), &document);
        Some(stored)
    }

    /// The newest bill of materials of a guest.
    pub fn newest_bom(&self, word: &str) -> Option<Stored> {
        self.message_at(&format!("afferent.sbom.{word}"))
    }

    /// All messages of a stream, the oldest first; none while there is no such stream.
    pub fn messages(&self, stream: &str) -> Vec<Stored> {
        let state = self.state_of(stream).unwrap_or_default();
        let (Some(first), Some(last)) = (state["first_seq"].as_u64(), state["last_seq"].as_u64())
        else {
            return Vec::new();
        };
        let all = (first..=last).filter_map(|seq| self.get(stream, &json!({ "seq": seq })));
        all.collect()
    }

    /// The newest message on a subject, whatever is in it.
    fn message_at(&self, subject: &str) -> Option<Stored> {
        self.state_of(STREAM)?;
        self.get(STREAM, &json!({ "last_by_subj": subject }))
    }

    /// The state of a stream that holds a message. Version 2.9 of the server crashes when it is asked for one of a
    /// stream that is just being made; one that holds a message has been made.
    fn state_of(&self, stream: &str) -> Option<Value> {
        let info = self
            .ask(&format!("STREAM.INFO.{stream}"), &json!({}))
            .ok()?;
        let state = &info["state"];
        (state["messages"].as_u64()? > 0).then(|| state.clone())
    }

    fn get(&self, stream: &str, which: &Value) -> Option<Stored> {
        let answer = self.ask(&format!("STREAM.MSG.GET.{stream}"), which).ok()?;
        let message = answer["message"].as_object()?;
        let bytes = |name: &str| {
            BASE64
                .decode(message[name].as_str().unwrap().as_bytes())
                .unwrap()
        };
        let (headers, payload) = (String::from_utf8(bytes("hdrs")).unwrap(), bytes("data"));
        let mut stored = Stored {
            subject: message["subject"].as_str().unwrap().to_owned(),
            headers,
            body: payload.clone(),
            payload,
        };
        if stored.header("Content-Encoding") == Some("gzip") {
            stored.body.clear();
            let mut unpacked = GzDecoder::new(stored.payload.as_slice());
            unpacked.read_to_end(&mut stored.body).unwrap();
        }
        Some(stored)
    }
}
