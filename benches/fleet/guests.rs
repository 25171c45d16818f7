//! Simulated guests: two processes, a unix socket for each guest, the real protocol.
//!
//! A process is told by lines on its standard input what happens in its guests, and says on its
//! standard output when each change was.

use super::process::wall_nanos;
use afferent::clock;
use afferent::report::{Evr, Origin, Package, Report};
use afferent::transport::{ListenAddress, Listener, Stream, read_frame, write_frame};
use afferent::wire::message::{
    self, GetReportResponse, ResponseMeta, VmServiceRequest, VmServiceResponse, request, response,
};
use afferent::wire::{self, method};
use prost::Message as _;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt};
use tokio::sync::watch;

const PROCESSES: u32 = 2;
const PACKAGES: u32 = 600;
/// A guest that is told to be slow begins to answer after this time.
pub const SLOW: Duration = Duration::from_millis(500);
/// Stands in the template where each guest and generation write their own number.
const MARK: &str = "0000000000";

/// When a guest made a generation, in nanoseconds since 1970.
type Changes = Arc<Mutex<HashMap<(u32, u32), u128>>>;

pub struct Guests {
    children: Vec<(Child, Mutex<ChildStdin>)>,
    changes: Changes,
}

impl Guests {
    /// Starts guests of these numbers with sockets in `dir/guests`, and waits until all listen.
    pub fn start(dir: &Path, numbers: Range<u32>, waits: bool) -> Self {
        Self::start_with(dir, numbers, waits, ReportForm::Usual)
    }

    /// The same with reports of this form.
    pub fn start_with(dir: &Path, numbers: Range<u32>, waits: bool, form: ReportForm) -> Self {
        let sockets = dir.join("guests");
        std::fs::create_dir(&sockets).unwrap();
        let changes = Changes::default();
        let children = (0..PROCESSES)
            .map(|n| {
                let count = numbers.end - numbers.start;
                let nth = |n: u32| numbers.start + n * count / PROCESSES;
                let range = nth(n)..nth(n + 1);
                let mut child = Command::new("sh")
                    .args(["-c", "ulimit -n $(ulimit -Hn); exec \"$0\" \"$@\""])
                    .arg(std::env::current_exe().unwrap())
                    .arg("--simulate")
                    .arg(&sockets)
                    .args([range.start.to_string(), range.end.to_string()])
                    .arg(waits.to_string())
                    .arg(form.word())
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
                assert_eq!(lines.next().unwrap().unwrap(), "ready");
                let heard = changes.clone();
                thread::spawn(move || {
                    for line in lines.map_while(Result::ok) {
                        let mut words = line.split(' ');
                        let mut number = || words.next().unwrap().parse::<u128>().unwrap();
                        let key = (number() as u32, number() as u32);
                        heard.lock().unwrap().insert(key, number());
                    }
                });
                let stdin = Mutex::new(child.stdin.take().unwrap());
                (child, stdin)
            })
            .collect();
        Self { children, changes }
    }

    /// Tells all processes; each knows which guests are its own.
    pub fn tell(&self, line: &str) {
        for (_, stdin) in &self.children {
            writeln!(stdin.lock().unwrap(), "{line}").unwrap();
        }
    }

    pub fn changes(&self) -> HashMap<(u32, u32), u128> {
        self.changes.lock().unwrap().clone()
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Which agent the reports are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportForm {
    /// This one, 600 packages.
    Usual,
    /// This one, 517 packages.
    Ours,
    /// Version 0.1.0, 517 packages: neither CPEs nor vendors and licences.
    Old,
    /// StackRox's, 517 packages: each of them twice, with the fields that only that agent fills.
    Roxagent,
}

impl ReportForm {
    const ALL: [Self; 4] = [Self::Usual, Self::Ours, Self::Old, Self::Roxagent];

    fn word(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::Ours => "ours",
            Self::Old => "old",
            Self::Roxagent => "roxagent",
        }
    }

    /// Bytes of a report.
    pub fn len(self) -> usize {
        payload(self).len()
    }
}

/// Bytes of a real report of StackRox's agent with 517 packages.
const ROXAGENT: usize = 513_275;

/// What stands in old fields of [`message::Contents`] once more.
#[derive(Clone, PartialEq, prost::Message)]
struct OldContents {
    #[prost(message, repeated, tag = "1")]
    packages: Vec<message::Package>,
    #[prost(message, repeated, tag = "3")]
    repositories: Vec<message::Repository>,
    #[prost(btree_map = "string, message", tag = "4")]
    environments: BTreeMap<String, message::EnvironmentList>,
}

/// The payload of a response with a report of this form.
fn payload(form: ReportForm) -> Vec<u8> {
    let packages = match form {
        ReportForm::Usual => PACKAGES,
        _ => 517,
    };
    let mut report = wire::report_to_wire(&report(packages));
    let contents = report.contents.as_mut().unwrap();
    match form {
        ReportForm::Usual | ReportForm::Ours => {}
        ReportForm::Old => shorten(contents),
        ReportForm::Roxagent => {
            contents.packages.values_mut().for_each(leave_ours_out);
            // Its hints are as long as makes the report as long as a real one.
            let spare = ROXAGENT.saturating_sub(roxagent(report.clone(), 0).len());
            return roxagent(report, spare / (4 * packages as usize));
        }
    }
    let get = GetReportResponse {
        index_report: Some(report),
        unchanged: false,
    };
    VmServiceResponse {
        meta: None,
        payload: Some(response::Payload::GetReport(get)),
    }
    .encode_to_vec()
}

/// Fields that only this agent sends.
fn leave_ours_out(package: &mut message::Package) {
    (package.vendor, package.license) = (String::new(), String::new());
}

/// Leaves out what version 0.1.0 did not send.
fn shorten(contents: &mut message::Contents) {
    for package in contents.packages.values_mut() {
        leave_ours_out(package);
        package.cpe.clear();
        // Names as long as those of a real system.
        package.name = package.name.replace("package-name", "p");
        if let Some(source) = &mut package.source {
            source.cpe.clear();
            source.name = source.name.replace("source-name", "s");
        }
    }
    let lists = contents.environments.values_mut();
    lists
        .flat_map(|list| &mut list.environments)
        .for_each(|environment| environment.introduced_in.clear());
}

/// The same payload with the fields that StackRox's agent fills, and so much more in each hint.
fn roxagent(mut report: message::IndexReport, hint: usize) -> Vec<u8> {
    let mut contents = report.contents.take().unwrap();
    for package in contents.packages.values_mut() {
        let own = std::mem::take(&mut package.repository_hint);
        let hash = "a".repeat(hint);
        package.repository_hint = format!("{own}&hash=sha256%3A{hash}");
        let hint = package.repository_hint.clone();
        let database = package.package_db.clone();
        let source = package.source.get_or_insert_default();
        (source.repository_hint, source.package_db) = (hint, database);
    }
    let old = OldContents {
        packages: contents.packages.values().cloned().collect(),
        repositories: contents.repositories.values().cloned().collect(),
        environments: contents.environments.clone(),
    };
    // Messages one after the other are one message with the fields of both.
    let contents = [contents.encode_to_vec(), old.encode_to_vec()].concat();
    let report = [report.encode_to_vec(), field(5, &contents)].concat();
    field(2, &field(1, &report))
}

/// A field that is a message.
fn field(tag: u8, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag << 3 | 2];
    prost::encode_length_delimiter(message.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(message);
    bytes
}

/// A report of so many packages, one of which has [`MARK`] as its version.
fn report(packages: u32) -> Report {
    let package = |n: u32| Package {
        name: format!("package-name-{n:04}"),
        evr: Evr::parse(&format!("1.{n}.0-{n}.el9")),
        arch: Some("x86_64".into()),
        source_rpm: Some(format!("source-name-{:04}-1.{n}.0-{n}.el9.src.rpm", n / 3)),
        modularity_label: None,
        vendor: Some("Example, Inc.".into()),
        license: Some("GPLv2+ and MIT".into()),
        origin: Origin::Repository(
            if n.is_multiple_of(3) {
                "baseos"
            } else {
                "appstream"
            }
            .into(),
        ),
    };
    let mut report = Report {
        packages: (1..packages).map(package).collect(),
        package_db: "sqlite:var/lib/rpm".into(),
        ..Report::default()
    };
    report.packages.push(Package {
        name: "changing".into(),
        evr: Evr::parse(&format!("{MARK}-1")),
        ..Package::default()
    });
    report.normalize();
    report
}

/// What a guest is at.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Guest {
    generation: u32,
    reactive: bool,
    hangs: bool,
    slow: bool,
}

/// The process of `args`: directory, first guest, the one after the last, waits, form of the reports.
pub fn simulate(args: &[String]) {
    let sockets = PathBuf::from(&args[0]);
    let range: Range<u32> = args[1].parse().unwrap()..args[2].parse().unwrap();
    let waits = args[3] == "true";
    let form = ReportForm::ALL.into_iter().find(|it| it.word() == args[4]);
    let template = Rc::new(Template::new(form.unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let mut guests = HashMap::new();
        for n in range {
            let address = ListenAddress::Unix(sockets.join(format!("g-{n}.sock")));
            let listener = Listener::bind(&address).unwrap();
            let (guest, state) = watch::channel(Guest {
                generation: 1,
                reactive: false,
                hangs: false,
                slow: false,
            });
            guests.insert(n, guest);
            let template = template.clone();
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(serve(
                        stream,
                        n,
                        waits,
                        state.clone(),
                        template.clone(),
                    ));
                }
            });
        }
        println!("ready");
        let mut lines = tokio::io::BufReader::new(stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let words: Vec<&str> = line.split(' ').collect();
            let mut said = String::new();
            for n in words[1].parse::<u32>().unwrap()..words[2].parse().unwrap() {
                let Some(guest) = guests.get(&n) else {
                    continue;
                };
                guest.send_modify(|guest| match words[0] {
                    "hang" => guest.hangs = true,
                    "slow" => guest.slow = true,
                    word => {
                        guest.generation += 1;
                        guest.reactive = word == "change";
                        said += &format!("{n} {} {}\n", guest.generation, wall_nanos());
                    }
                });
            }
            let mut out = std::io::stdout().lock();
            out.write_all(said.as_bytes()).unwrap();
            out.flush().unwrap();
        }
    });
}

/// Standard input as a stream: a thread that copies it into a pipe of the runtime.
fn stdin() -> impl tokio::io::AsyncRead + Unpin {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    thread::spawn(move || std::io::copy(&mut std::io::stdin().lock(), &mut &theirs));
    ours.set_nonblocking(true).unwrap();
    tokio::net::UnixStream::from_std(ours).unwrap()
}

async fn serve(
    mut stream: Stream,
    n: u32,
    waits: bool,
    mut state: watch::Receiver<Guest>,
    template: Rc<Template>,
) {
    let Ok(bytes) = read_frame(&mut stream, wire::MAX_REQUEST).await else {
        return;
    };
    let request = VmServiceRequest::decode(bytes.as_slice()).unwrap();
    let known = match request.method {
        Some(request::Method::GetReport(get)) => get.last_known_generation,
        Some(request::Method::WaitReport(wait)) => {
            let known = wait.last_known_generation;
            let timeout = Duration::from_millis(wait.timeout_ms.into());
            let changed = state.wait_for(|guest| guest.generation != known);
            tokio::select! {
                _ = tokio::time::timeout(timeout, changed) => {}
                // The sensor went away.
                _ = stream.read_u8() => return,
            }
            known
        }
        Some(request::Method::SyncRepoCpeMapping(_)) | None => return,
    };
    let guest = *state.borrow();
    if guest.slow {
        tokio::time::sleep(SLOW).await;
    }
    if guest.hangs && n.is_multiple_of(3) {
        return std::future::pending().await;
    }
    let frame = template.answer(n, guest, waits, guest.generation == known);
    if guest.hangs {
        let part = if n % 3 == 1 { 2 } else { frame.len() / 2 };
        let _ = write_frame(&mut stream, &frame[..part]).await;
        return std::future::pending().await;
    }
    let _ = write_frame(&mut stream, &frame).await;
}

/// The bytes of a report, made once; a guest's own number is written into them.
struct Template {
    payload: Vec<u8>,
    mark_at: usize,
}

impl Template {
    fn new(form: ReportForm) -> Self {
        let payload = payload(form);
        let mark_at = payload
            .windows(MARK.len())
            .position(|bytes| bytes == MARK.as_bytes())
            .unwrap();
        Self { payload, mark_at }
    }

    fn answer(&self, n: u32, guest: Guest, waits: bool, unchanged: bool) -> Vec<u8> {
        let trigger = if guest.reactive {
            "reactive"
        } else {
            "scheduled"
        };
        let facts = BTreeMap::from([
            ("scan_trigger".to_owned(), trigger.to_owned()),
            ("guest_id".to_owned(), format!("{n:032x}")),
        ]);
        let mut methods = vec![method::GET_REPORT.to_owned()];
        methods.extend(waits.then(|| method::WAIT_REPORT.to_owned()));
        let mut answer = VmServiceResponse {
            meta: Some(ResponseMeta {
                agent_version: "fleet".into(),
                report_generated_at: Some(clock::wall_now().into()),
                report_generation: guest.generation,
                supported_methods: methods,
                facts,
                epoch: n + 1,
                ..ResponseMeta::default()
            }),
            payload: None,
        };
        if unchanged {
            answer.payload = Some(response::Payload::GetReport(GetReportResponse {
                index_report: None,
                unchanged: true,
            }));
            return wire::frame::encode(&answer);
        }
        // Messages one after the other are one message with the fields of both.
        let mut body = answer.encode_to_vec();
        let at = body.len() + self.mark_at;
        body.extend_from_slice(&self.payload);
        let number = format!("{:010}", u64::from(n) * 1000 + u64::from(guest.generation));
        body[at..at + MARK.len()].copy_from_slice(&number.as_bytes()[..MARK.len()]);
        let mut frame = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        frame.append(&mut body);
        frame
    }
}
