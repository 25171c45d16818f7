//! A guest: its packages, and the agent's own report store and answers over pipes in memory.

use crate::trace::Trace;
use afferent::clock::WallTime;
use afferent::report::{Digest, Epoch, Evr, GuestId, Package, Report, Trigger};
use afferent::serve::Scan;
use afferent::serve::mapping::{MappingState, UpdatePath};
use afferent::serve::refusal::{NotReady, Refusal};
use afferent::serve::report_store::{Machine, Recorded, ReportStore};
use afferent::serve::respond::{self, Call, Published, Verdict};
use afferent::store::Limits;
use afferent::transport::{Stream, read_body, read_len, write_frame};
use afferent::wire::MAX_REQUEST;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;

/// What is installed: names and versions.
pub(crate) type Packages = BTreeMap<String, u32>;

/// How a guest treats connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// It answers.
    #[default]
    Well,
    /// Nobody is there.
    Absent,
    /// It accepts, and says nothing.
    Hangs,
    /// It closes in the middle of each answer.
    BreaksOff,
    /// It stops in the middle of each answer, and does not close.
    Stalls,
}

/// A guest, and the disk of its agent.
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) packages: Packages,
    pub(crate) behaviour: Behaviour,
    report_store: Option<ReportStore>,
    published: watch::Sender<Option<Arc<Published>>>,
    /// Boots so far: connections do not survive one.
    boots: watch::Sender<u32>,
    state_dir: PathBuf,
    snapshot: Option<(Packages, PathBuf)>,
}

impl Guest {
    /// A guest that has just been installed, in this directory.
    pub(crate) fn new(name: &str, dir: &Path, now: WallTime) -> Self {
        let state_dir = dir.join(name);
        let mut guest = Self {
            name: name.to_owned(),
            packages: Packages::from([("bash".into(), 1), (format!("host-{name}"), 1)]),
            behaviour: Behaviour::Well,
            report_store: None,
            published: watch::channel(None).0,
            boots: watch::channel(0).0,
            state_dir,
            snapshot: None,
        };
        guest.start_agent(now);
        guest
    }

    /// Starts the agent, as after a boot: what is stored is served, then scanned again.
    pub(crate) fn start_agent(&mut self, now: WallTime) {
        self.report_store = None;
        let machine = Machine::Known(Some(GuestId::of_machine(&self.name)));
        let opened = ReportStore::open(&self.state_dir, Limits::default(), machine, epoch);
        let (report_store, stored) = opened.expect("the disk of a guest is well");
        let guest_id = report_store.guest_id().cloned();
        self.report_store = Some(report_store);
        let published = stored.map(|stored| {
            let scan = scan(stored.row.generated_at);
            Arc::new(Published::new(&stored, guest_id.as_ref(), scan, MAPPING))
        });
        self.published.send_replace(published);
        self.scan(Trigger::Scheduled, now);
    }

    /// Installs, upgrades or erases a package.
    pub(crate) fn change(&mut self, random: &mut fastrand::Rng, now: WallTime) {
        let name = format!("p{}", random.u32(..20));
        match random.u32(..4) {
            0 => drop(self.packages.remove(&name)),
            _ => *self.packages.entry(name).or_default() += 1,
        }
        self.scan(Trigger::Reactive, now);
    }

    /// Copies the state of the machine: what is installed, and the disk of its agent.
    pub(crate) fn take_snapshot(&mut self) {
        let copy = self.state_dir.with_extension("snapshot");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(&copy).unwrap();
        self.report_store = None;
        for entry in fs::read_dir(&self.state_dir).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
        self.snapshot = Some((self.packages.clone(), copy));
    }

    /// Returns to the last snapshot, if there is one, and boots.
    pub(crate) fn restore_snapshot(&mut self, now: WallTime) -> bool {
        let Some((packages, copy)) = self.snapshot.clone() else {
            return false;
        };
        self.report_store = None;
        for entry in fs::read_dir(&copy).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, self.state_dir.join(path.file_name().unwrap())).unwrap();
        }
        self.packages = packages;
        self.boots.send_modify(|boots| *boots += 1);
        self.start_agent(now);
        true
    }

    /// The digest of what it serves.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.published.borrow().as_ref().map(|it| it.digest())
    }

    /// Scans, as the agent does when it was told of a change.
    fn scan(&mut self, trigger: Trigger, now: WallTime) {
        let packages = self.packages.iter().map(|(name, version)| Package {
            name: name.clone(),
            evr: Evr::parse(&format!("{version}-1")),
            ..Package::default()
        });
        let mut report = Report {
            packages: packages.collect(),
            ..Report::default()
        };
        report.normalize();
        let report_store = self.report_store.as_mut().expect("the agent runs");
        let recorded = report_store.record(&report, trigger, &scan(now), epoch);
        let guest_id = report_store.guest_id().cloned();
        match recorded.expect("the disk of a guest is well") {
            Recorded::New(stored) => {
                let published = Published::new(&stored, guest_id.as_ref(), scan(now), MAPPING);
                self.published.send_replace(Some(Arc::new(published)));
            }
            Recorded::Same => {
                self.published.send_modify(|published| {
                    if let Some(before) = published {
                        *published = Some(Arc::new(before.scanned_again(scan(now))));
                    }
                });
            }
        }
    }

    /// Begins a new epoch: a sensor knows what this agent never made.
    fn renew(&mut self) {
        let report_store = self.report_store.as_mut().expect("the agent runs");
        if let Some(row) = report_store
            .renew(epoch())
            .expect("the disk of a guest is well")
        {
            self.published.send_modify(|published| {
                if let Some(before) = published {
                    *published = Some(Arc::new(before.renamed(row)));
                }
            });
        }
    }
}

fn epoch() -> Epoch {
    Epoch::new(fastrand::u32(1..)).expect("not zero")
}

fn scan(at: WallTime) -> Scan {
    Scan {
        at,
        facts: afferent::report::Facts::new(),
        mapping: None,
    }
}

/// Nobody pushes a mapping.
const MAPPING: MappingState = MappingState {
    path: UpdatePath::Sensor,
    hash: None,
};

/// Connects to a guest; gives the sensor's end.
pub(crate) fn connect(guest: &Arc<Mutex<Guest>>, trace: &Trace) -> Option<Stream> {
    let behaviour = guest.lock().unwrap().behaviour;
    if behaviour == Behaviour::Absent {
        return None;
    }
    let (ours, theirs) = duplex(64 << 10);
    let mut boots = guest.lock().unwrap().boots.subscribe();
    let (guest, trace) = (guest.clone(), trace.clone());
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = boots.changed() => None,
            answered = serve(guest, theirs, behaviour, trace) => answered,
        }
    });
    Some(Stream::Memory(ours))
}

/// One request and its answer, by the agent's own rules.
async fn serve(
    guest: Arc<Mutex<Guest>>,
    stream: DuplexStream,
    behaviour: Behaviour,
    trace: Trace,
) -> Option<()> {
    let mut stream = Stream::Memory(stream);
    if behaviour == Behaviour::Hangs {
        std::future::pending::<()>().await;
    }
    let len = read_len(&mut stream, MAX_REQUEST).await.ok()?;
    let body = read_body(&mut stream, len).await.ok()?;
    let call = respond::understand(&body, &MAPPING).expect("the sensor sends requests");
    let Call::Report(asked) = call else {
        unreachable!("the sensor pushes nothing");
    };
    let mut published = guest.lock().unwrap().published.subscribe();
    if let Some(time) = asked.wait {
        let is_other = |published: &Option<Arc<Published>>| {
            let verdict = published.as_ref().map(|it| it.compare(&asked.known));
            verdict != Some(Verdict::Same)
        };
        let _ = tokio::time::timeout(time, published.wait_for(is_other)).await;
    }
    let verdict =
        |published: &Option<Arc<Published>>| published.as_ref().map(|it| it.compare(&asked.known));
    let mut now = published.borrow().clone();
    if verdict(&now) == Some(Verdict::Impossible) {
        let mut guest = guest.lock().unwrap();
        trace.event(&guest.name, "a peer knows what it never made: new epoch");
        guest.renew();
        now = published.borrow().clone();
    }
    let frame = match &now {
        None => {
            let refusal = Refusal::not_ready(NotReady::FirstScan).to(asked.is_report_v1);
            respond::refuse(&refusal, &MAPPING)
        }
        Some(it) if it.compare(&asked.known) == Verdict::Same => it.unchanged(asked.is_report_v1),
        Some(it) => {
            let (head, payload) = it.full(asked.is_report_v1);
            [&head, payload].concat()
        }
    };
    let sent = match behaviour {
        Behaviour::BreaksOff | Behaviour::Stalls => &frame[..frame.len() / 2],
        _ => &frame[..],
    };
    write_frame(&mut stream, sent).await.ok()?;
    if behaviour == Behaviour::Stalls {
        std::future::pending::<()>().await;
    }
    Some(())
}
