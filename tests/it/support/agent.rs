//! `afferent serve` as a process: started on a unix socket, asked, stopped, killed.

use super::rpm_root::RpmRoot;
use super::{eventually, eventually_or};
use afferent::cli::format;
use afferent::report::escape::escape;
use afferent::report::{Report, facts};
use afferent::wire::frame;
use afferent::wire::message::{
    ErrorCode, GetReport, RequestMeta, VmServiceRequest, WaitReport, request,
};
use afferent::wire::meta::{Meta, REPORT_V1};
use afferent::wire::response::{Payload, Response};
use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How `afferent serve` is started; the same place may be started many times.
pub struct Launch {
    home: TempDir,
    program: PathBuf,
    root: PathBuf,
    state_dir: PathBuf,
    flags: Vec<String>,
    /// Command that runs the agent, in place of itself or as its child.
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
}

/// A running agent; killed when dropped.
pub struct Agent {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

/// What an agent answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub meta: Meta,
    pub what: What,
}

/// The answer proper.
#[derive(Debug, Clone)]
pub enum What {
    Report(Box<Report>),
    /// A report without packages, which no sensor takes.
    NoPackages,
    Unchanged,
    Refused(ErrorCode, String),
}

impl Launch {
    /// On `root`, with a state directory and a socket of its own.
    pub fn on(root: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Self {
            state_dir: home.path().join("state"),
            home,
            program: env!("CARGO_BIN_EXE_afferent").into(),
            root: root.to_owned(),
            flags: Vec::new(),
            wrapper: Vec::new(),
            environment: Vec::new(),
        }
    }

    pub fn flag(mut self, name: &str, value: &str) -> Self {
        self.flags.extend([format!("--{name}"), value.to_owned()]);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// From now on another program than the one that was built.
    pub fn set_program(&mut self, program: &Path) {
        program.clone_into(&mut self.program);
    }

    pub fn state_dir_at(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.state_dir);
        self
    }

    /// Runs the agent with the help of another command: `strace ..`, `setpriv ..`.
    pub fn under<S: Into<String>>(mut self, wrapper: impl IntoIterator<Item = S>) -> Self {
        self.wrapper.extend(wrapper.into_iter().map(Into::into));
        self
    }

    /// As a user who owns nothing. Needs root.
    pub fn unprivileged(mut self) -> Self {
        // The one that was built may lie where only its owner gets.
        let program = self.home.path().join("afferent");
        fs::copy(&self.program, &program).unwrap();
        self.program = program;
        self.under([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Where its database is.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("serve.redb")
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) -> Agent {
        let mut agent = self.spawn();
        eventually("the agent answers", || {
            assert!(
                agent.child.try_wait().unwrap().is_none(),
                "the agent ended:\n{}",
                agent.log()
            );
            agent.try_get(0, 0).ok()
        });
        agent
    }

    /// Starts it and does not wait.
    pub fn spawn(&self) -> Agent {
        let socket = self.home.path().join("socket");
        let log = self.home.path().join("log");
        let mut words: Vec<OsString> = self.wrapper.iter().map(OsString::from).collect();
        words.push(self.program.clone().into());
        let (first, rest) = words.split_first().unwrap();
        let child = Command::new(first)
            .args(rest)
            .arg("serve")
            .arg("--listen")
            .arg(format!("unix:{}", socket.display()))
            .arg("--root")
            .arg(&self.root)
            .arg("--state-dir")
            .arg(&self.state_dir)
            .args(&self.flags)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .unwrap(),
            )
            .spawn()
            .unwrap_or_else(|error| panic!("{first:?}: {error}"));
        Agent { child, socket, log }
    }
}

impl Agent {
    /// Process id of the agent itself, also below a wrapper that stays.
    pub fn pid(&self) -> u32 {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let child = children.unwrap_or_default();
        child
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok())
            .unwrap_or(own)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn connect(&self) -> io::Result<UnixStream> {
        let stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// `get_report`, as one who knows this generation of this epoch.
    pub fn try_get(&self, generation: u32, epoch: u32) -> io::Result<Answer> {
        let mut stream = self.connect()?;
        send(
            &mut stream,
            request::Method::GetReport(GetReport {
                last_known_generation: generation,
                known_epoch: epoch,
                known_digest: Vec::new(),
            }),
        )?;
        receive(&mut stream)
    }

    /// A full report, or why there is none.
    pub fn get(&self) -> Answer {
        self.try_get(0, 0)
            .unwrap_or_else(|error| panic!("no answer: {error}\n{}", self.log()))
    }

    /// A full report as it comes, not looked into.
    pub fn get_bytes(&self) -> Vec<u8> {
        let mut stream = self.connect().unwrap();
        send(
            &mut stream,
            request::Method::GetReport(GetReport::default()),
        )
        .unwrap();
        receive_bytes(&mut stream).unwrap()
    }

    /// `wait_report`, as one who has this answer.
    pub fn wait_for_other_than(&self, known: &Answer, time: Duration) -> Answer {
        let mut stream = self.connect().unwrap();
        send(
            &mut stream,
            request::Method::WaitReport(WaitReport {
                last_known_generation: known.meta.generation,
                known_epoch: known.meta.epoch,
                known_digest: Vec::new(),
                timeout_ms: u32::try_from(time.as_millis()).unwrap(),
            }),
        )
        .unwrap();
        receive(&mut stream).unwrap()
    }

    /// Waits until the package list that is served is this one, and gives the answer.
    pub fn wait_for_list(&self, wanted: &str) -> Answer {
        let wanted = as_it_travels(wanted);
        let mut last = None;
        eventually_or(
            || {
                let answer = self.get();
                let is_it = answer.list() == wanted;
                last = Some(answer.clone());
                is_it.then_some(answer)
            },
            || {
                let last = self.get();
                panic!(
                    "served is\n{}but wanted is\n{wanted}log:\n{}",
                    last.list(),
                    self.log()
                )
            },
        )
    }

    /// Waits until what is served is what `rpm -qa` lists.
    pub fn wait_for_rpm(&self, root: &RpmRoot) -> Answer {
        self.wait_for_list(&root.rpm_qa())
    }

    /// Where it writes what it says.
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// All it said so far, also in earlier runs.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said this, and returns all it said. What a test can see of an agent's doings
    /// may come before the line about it: never look into the log without waiting.
    pub fn wait_until_said(&self, text: &str) -> String {
        eventually_or(
            || Some(self.log()).filter(|log| log.contains(text)),
            || panic!("never said: {text}\n{}", self.log()),
        )
    }

    /// SIGKILL: no instruction runs after it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        eventually("the agent ends", || self.child.try_wait().unwrap())
    }

    /// How it ended, when it does by itself.
    pub fn ended(&mut self) -> ExitStatus {
        eventually("the agent ends", || self.child.try_wait().unwrap())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Connections that it has accepted and not closed.
    pub fn connections(&self) -> usize {
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        let path = self.socket.to_str().unwrap();
        let ours: HashSet<String> = sockets
            .lines()
            .filter(|line| line.ends_with(path))
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            // State 3 is connected; 1 is the listener.
            .filter(|columns| columns[5] == "03")
            .map(|columns| format!("socket:[{}]", columns[6]))
            .collect();
        let open = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        open.flatten()
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|link| ours.contains(link.to_str().unwrap_or_default()))
            .count()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Inodes that it watches, as the kernel tells them.
    pub fn watched_inodes(&self) -> Vec<u64> {
        let infos = fs::read_dir(format!("/proc/{}/fdinfo", self.pid())).unwrap();
        let texts = infos.filter_map(|info| fs::read_to_string(info.unwrap().path()).ok());
        texts
            .collect::<String>()
            .lines()
            .filter_map(|line| line.strip_prefix("inotify wd:")?.split_once("ino:"))
            .filter_map(|(_, rest)| u64::from_str_radix(rest.split(' ').next()?, 16).ok())
            .collect()
    }

    /// A field of /proc/PID/status, in KiB where it is a size.
    pub fn proc_status(&self, field: &str) -> u64 {
        proc_status(self.pid(), field)
    }
}

/// A field of /proc/PID/status.
pub fn proc_status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .and_then(|value| value.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{field} in {status}"))
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.runs() {
            let pid = self.pid();
            if pid != self.child.id() {
                let _ = Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .status();
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let newest = lines.len().saturating_sub(30);
            eprintln!("the agent's log:\n{}", lines[newest..].join("\n"));
        }
    }
}

impl Answer {
    /// The packages, in the form of `afferent scan --format tsv`; empty when there are none.
    pub fn list(&self) -> String {
        match &self.what {
            What::Report(report) => {
                let mut out = Vec::new();
                format::tsv(report, &mut out).unwrap();
                escape(&out).into_owned()
            }
            What::NoPackages | What::Unchanged | What::Refused(..) => String::new(),
        }
    }

    pub fn digest(&self) -> &str {
        self.fact(facts::REPORT_DIGEST)
    }

    pub fn fact(&self, name: &str) -> &str {
        self.meta.facts.get(name).map_or("", String::as_str)
    }

    pub fn key(&self) -> (u32, u32) {
        (self.meta.epoch, self.meta.generation)
    }

    pub fn refusal(&self) -> Option<ErrorCode> {
        match &self.what {
            What::Refused(code, _) => Some(*code),
            What::Report(_) | What::NoPackages | What::Unchanged => None,
        }
    }
}

/// Writes a request frame.
pub fn send(stream: &mut impl Write, method: request::Method) -> io::Result<()> {
    let request = VmServiceRequest {
        meta: Some(RequestMeta {
            capabilities: vec![REPORT_V1.into()],
            ..RequestMeta::default()
        }),
        method: Some(method),
    };
    stream.write_all(&frame::encode(&request))
}

/// Reads a response frame.
pub fn receive(stream: &mut impl Read) -> io::Result<Answer> {
    receive_bytes(stream).map(|body| decode(&body))
}

fn receive_bytes(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Understands a response. Where the report was sent, it is checked against the digest sent beside
/// it: no wrong byte goes unnoticed.
pub fn decode(body: &[u8]) -> Answer {
    let response = Response::decode(body).unwrap();
    let meta = response.meta;
    let what = match response.payload.expect("a payload") {
        Payload::Error(error) => What::Refused(
            ErrorCode::try_from(error.code).expect("a known code"),
            error.message,
        ),
        Payload::Synced { .. } => panic!("nothing was pushed"),
        Payload::Report(answer) if answer.unchanged => {
            assert!(answer.index.is_none(), "unchanged, and yet a report");
            What::Unchanged
        }
        Payload::Report(answer) => {
            let index = answer.index.expect("a report");
            match index.into_report(facts::content_of(&meta.facts)) {
                // A digest of another form cannot be computed here.
                Ok(report) if !meta.facts.contains_key(facts::DIGEST_FORM) => {
                    What::Report(Box::new(report.to_report()))
                }
                Ok(report) => {
                    assert_eq!(
                        meta.facts.get(facts::REPORT_DIGEST),
                        Some(&report.digest().to_string()),
                        "the report is not the one its digest is of"
                    );
                    What::Report(Box::new(report.to_report()))
                }
                Err(_) => What::NoPackages,
            }
        }
    };
    Answer { meta, what }
}

/// A list of `rpm -qa` as a report carries it: of a module only name and stream travel.
pub fn as_it_travels(list: &str) -> String {
    let line = |line: &str| {
        let (columns, label) = line.rsplit_once('\t').unwrap();
        let label: Vec<&str> = label.split(':').take(2).collect();
        format!("{columns}\t{}\n", label.join(":"))
    };
    let mut lines: Vec<String> = list.lines().map(line).collect();
    lines.sort_unstable();
    lines.concat()
}

/// Whether what needs root and mounts can be shown here: not in every container.
pub fn is_root() -> bool {
    let may_mount = || {
        let unshared = Command::new("unshare").args(["-m", "true"]).status();
        unshared.is_ok_and(|status| status.success())
    };
    let root = nix::unistd::geteuid().is_root() && may_mount();
    if !root {
        println!("no root, or none that may mount: this part is left out");
    }
    root
}

/// Names, sizes and times of everything in a directory, and of itself.
pub fn listing(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let stat = |path: PathBuf| {
        let meta = fs::symlink_metadata(&path).unwrap();
        (path, meta.len(), meta.modified().unwrap())
    };
    let mut all: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| stat(entry.unwrap().path()))
        .collect();
    all.push(stat(directory.to_owned()));
    all.sort();
    all
}
