//! The API server of Dependency-Track as far as uploads go: it refuses what the real one refuses, and fails the
//! test that asks for anything else.
//!
//! Every bill of materials that it takes is kept; with `AFFERENT_KEEP_UPLOADS` set to a directory, there as
//! a file, too, for a validator of others.

use super::{documents, http_request};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// How long an upload takes at least, unless another one into the same project comes meanwhile.
const SLOW: Duration = Duration::from_millis(100);

/// Parts of a form that the API knows.
const PARTS: [&str; 11] = [
    "project",
    "autoCreate",
    "projectName",
    "projectVersion",
    "projectTags",
    "parentName",
    "parentVersion",
    "parentUUID",
    "isLatest",
    "isActive",
    "bom",
];

/// Name and version.
type ProjectId = (String, String);

#[derive(Clone, Debug, Default)]
pub struct StoredProject {
    pub boms: Vec<Value>,
    pub tags: String,
    pub parent: Option<String>,
    pub is_latest: bool,
    /// It takes no bills of materials of its own.
    pub is_collection: bool,
    /// The key has no access to it.
    pub is_closed: bool,
}

pub struct State {
    /// The only key that is known.
    pub key: String,
    /// Whether the key may make projects.
    pub may_create: bool,
    /// The newest form of CycloneDX that it knows, as the 6 of 1.6.
    pub newest: u32,
    pub projects: BTreeMap<ProjectId, StoredProject>,
    /// What the next uploads are answered with, whatever they are.
    pub answers: VecDeque<(u16, &'static str)>,
    /// Status of every answer.
    pub answered: Vec<u16>,
    /// Uploads take a while, and two into one project at once are a fault.
    pub is_slow: bool,
    under_way: Vec<String>,
    faults: Vec<String>,
}

/// Listens until the test ends.
pub struct DependencyTrack {
    pub url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl DependencyTrack {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("dependency-track+http://{}", listener.local_addr().unwrap());
        let state = State {
            key: "odt_k3y".into(),
            may_create: true,
            newest: 6,
            projects: BTreeMap::new(),
            answers: VecDeque::new(),
            answered: Vec::new(),
            is_slow: false,
            under_way: Vec::new(),
            faults: Vec::new(),
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let server = Self { url, shared };
        let shared = server.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || converse(&stream, &shared));
            }
        });
        server
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Names of the packages in the newest bill of materials of a project, sorted.
    pub fn packages(&self, name: &str, version: &str) -> Option<Vec<String>> {
        let state = self.state();
        let project = state.projects.get(&(name.into(), version.into()))?;
        Some(documents::packages_of_bom(project.boms.last()?))
    }

    /// Number of bills of materials that it took.
    pub fn uploads(&self) -> usize {
        let state = self.state();
        state.projects.values().map(|it| it.boms.len()).sum()
    }
}

impl Drop for DependencyTrack {
    fn drop(&mut self) {
        if !thread::panicking() {
            let faults = self.state().faults.join("\n");
            assert!(faults.is_empty(), "{faults}");
        }
    }
}

/// Status, type and text of an answer.
type Answer = (u16, &'static str, String);

fn text(status: u16, said: &str) -> Answer {
    (status, "text/plain", said.to_owned())
}

fn invalid(errors: &[&str]) -> Answer {
    let problem = json!({
        "status": 400,
        "title": "The uploaded BOM is invalid",
        "detail": "Schema validation failed",
        "errors": errors,
    });
    (400, "application/problem+json", problem.to_string())
}

fn converse(stream: &TcpStream, shared: &(Mutex<State>, Condvar)) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = http_request::read(&mut reader, stream) {
        let (status, kind, said) = answer(&head, &body, shared);
        shared.0.lock().unwrap().answered.push(status);
        let length = said.len();
        let head =
            format!("HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n");
        let answer = format!("{head}\r\n{said}");
        if (&*stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(head: &[String], body: &[u8], shared: &(Mutex<State>, Condvar)) -> Answer {
    let (lock, came) = shared;
    let mut state = lock.lock().unwrap();
    if head[0] != "POST /api/v1/bom HTTP/1.1" {
        // Least of all whether something was processed.
        state.faults.push(format!("asked for {}", head[0]));
        return text(404, "");
    }
    if let Some((status, said)) = state.answers.pop_front() {
        return text(status, said);
    }
    if http_request::header(head, "x-api-key") != Some(state.key.as_str()) {
        return text(401, "");
    }
    let parts = match parts(
        http_request::header(head, "content-type").unwrap_or_default(),
        body,
    ) {
        Ok(parts) => parts,
        Err(fault) => {
            state.faults.push(fault);
            return text(400, "no form");
        }
    };
    let part = |name: &str| {
        let value = parts
            .get(name)
            .map(|it| String::from_utf8(it.clone()).unwrap());
        value.filter(|it| !it.trim().is_empty())
    };
    let (Some(name), Some(version)) = (part("projectName"), part("projectVersion")) else {
        state.faults.push("no project".into());
        return text(400, "no project");
    };
    if state.is_slow {
        if state.under_way.contains(&name) {
            state
                .faults
                .push(format!("two uploads at once into {name}"));
            came.notify_all();
            return text(409, "The project was created concurrently");
        }
        state.under_way.push(name.clone());
        let quiet = |state: &mut State| state.faults.is_empty();
        state = came.wait_timeout_while(state, SLOW, quiet).unwrap().0;
        state.under_way.retain(|it| *it != name);
    }
    let id = (name, version);
    if !state.projects.contains_key(&id) {
        if part("autoCreate").as_deref() != Some("true") {
            return text(404, "The project could not be found.");
        }
        if !state.may_create {
            return text(
                401,
                "The principal does not have permission to create project.",
            );
        }
        if let (None, Some(name)) = (part("parentUUID"), part("parentName")) {
            let parent = (name, part("parentVersion").unwrap_or_default());
            if !state.projects.contains_key(&parent) {
                return text(404, "The parent component could not be found.");
            }
        }
    }
    let known = state.projects.get(&id);
    if known.is_some_and(|project| project.is_closed) {
        return text(403, "Access to the specified project is forbidden");
    }
    if known.is_some_and(|project| project.is_collection) {
        return text(400, "BOM cannot be uploaded to collection project.");
    }
    let Some(bom) = parts.get("bom") else {
        return text(400, "no bom");
    };
    let bom = match valid(bom, state.newest) {
        Ok(bom) => bom,
        Err(errors) => return invalid(&errors),
    };
    keep(&parts["bom"]);
    let latest = part("isLatest").as_deref() == Some("true");
    let others = state.projects.iter_mut();
    others
        .filter(|(other, _)| latest && other.0 == id.0)
        .for_each(|(_, it)| it.is_latest = false);
    let project = state.projects.entry(id).or_default();
    project.boms.push(bom);
    project.tags = part("projectTags").unwrap_or_default();
    project.parent = part("parentUUID").or_else(|| part("parentName"));
    project.is_latest = latest;
    let token = "00000000-0000-4000-8000-000000000000";
    (
        200,
        "application/json",
        json!({ "token": token }).to_string(),
    )
}

/// The parts of a form, by name; every byte must be where RFC 7578 has it.
fn parts(content_type: &str, body: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let boundary = content_type.strip_prefix("multipart/form-data; boundary=");
    let boundary = boundary.ok_or_else(|| format!("{content_type:?} is no form"))?;
    let delimiter = format!("\r\n--{boundary}");
    let body = [b"\r\n", body].concat();
    let mut rest = body
        .strip_prefix(delimiter.as_bytes())
        .ok_or("no first part")?;
    let mut found = BTreeMap::new();
    while let Some(part) = rest.strip_prefix(b"\r\n") {
        let at = position(part, b"\r\n\r\n").ok_or("a part without an end of its head")?;
        let head = std::str::from_utf8(&part[..at]).map_err(|it| it.to_string())?;
        let content = &part[at + 4..];
        let end = position(content, delimiter.as_bytes()).ok_or("a part without an end")?;
        let name = head.strip_prefix("Content-Disposition: form-data; name=\"");
        let name = name
            .and_then(|it| it.split('"').next())
            .ok_or("a part without a name")?;
        if !PARTS.contains(&name) {
            return Err(format!("no part {name} is known"));
        }
        if found
            .insert(name.to_owned(), content[..end].to_vec())
            .is_some()
        {
            return Err(format!("{name} is there twice"));
        }
        rest = &content[end + delimiter.len()..];
    }
    match rest {
        b"--\r\n" => Ok(found),
        _ => Err("something behind the last part".into()),
    }
}

fn position(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|it| it == what)
}

/// What old servers look at, and the part of the schema that a document of ours could break.
fn valid(bom: &[u8], newest: u32) -> Result<Value, Vec<&'static str>> {
    if bom.len() > 20_000_000 {
        return Err(vec!["$.bom: too long"]);
    }
    let first = b"{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"1.";
    let Some(rest) = bom.strip_prefix(first) else {
        return Err(vec!["$.bomFormat: is missing but it is required"]);
    };
    let minor = rest.first().map_or(9, |digit| u32::from(digit - b'0'));
    if minor > newest {
        let said = "$.specVersion: does not have a value in the enumeration";
        return Err(vec![said, "$.components: is not known"]);
    }
    let bom: Value = serde_json::from_slice(bom).map_err(|_| vec!["$: is no JSON"])?;
    let known = [
        "bomFormat",
        "specVersion",
        "serialNumber",
        "version",
        "metadata",
        "components",
        "dependencies",
    ];
    let all = bom.as_object().unwrap();
    if all.keys().any(|key| !known.contains(&key.as_str())) {
        return Err(vec!["$: is not defined in the schema"]);
    }
    let components = bom["components"].as_array().ok_or(vec!["$.components"])?;
    let types = ["library", "operating-system"];
    let is_valid = |it: &Value| {
        let is_known = it["type"]
            .as_str()
            .is_some_and(|kind| types.contains(&kind));
        is_known && it["name"].as_str().is_some_and(|name| !name.is_empty())
    };
    match components.iter().all(is_valid) {
        true => Ok(bom),
        false => Err(vec!["$.components[0].type"]),
    }
}

fn keep(bom: &[u8]) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let directory = std::env::var_os("AFFERENT_KEEP_UPLOADS");
    // The longest that there may be says nothing to a validator.
    if let Some(directory) = directory.filter(|_| bom.len() < 1_000_000) {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{count}.cdx.json", std::process::id());
        fs::write(Path::new(&directory).join(name), bom).unwrap();
    }
}
