//! The agent of a guest: the real rescan policy, report store and answers, with scans that take a moment of virtual
//! time; and two agents of other generations of the protocol.

use crate::guest::{AgentKind, Behaviour, HALF, Packages, SharedGuest};
use crate::torn_disk::TornDisk;
use crate::trace::Trace;
use afferent::clock::{self, WallTime};
use afferent::report::{Epoch, Evr, Facts, GuestId, Package, Report, Trigger, facts};
use afferent::serve::mapping::{MappingState, UpdatePath};
use afferent::serve::refusal::{NotReady, Refusal};
use afferent::serve::report_store::{Machine, Recorded, ReportStore};
use afferent::serve::rescan::{Ended, Next, Rescan};
use afferent::serve::respond::{self, Asked, Call, Published, Verdict};
use afferent::serve::{Pace, Scan};
use afferent::store::Store;
use afferent::transport::{Stream, read_body, read_len, write_frame};
use afferent::wire::message::{self as wire, ResponseMeta, VmServiceResponse, response};
use afferent::wire::request::{Method, Request};
use afferent::wire::{MAX_REQUEST, meta, method, report_to_wire};
use prost::Message as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// The defaults of `afferent serve`, with a shorter wait for transactions.
pub(crate) const PACE: Pace = Pace {
    reactive: true,
    debounce: Duration::from_millis(100),
    max_delay: Duration::from_secs(30),
    burst: 20,
    refill: Duration::from_secs(10),
    transaction_timeout: Duration::from_secs(5 * 60),
    interval: Duration::from_secs(4 * 3600),
};

/// How long a scan takes.
const SCAN: Duration = Duration::from_millis(200);

/// Nobody pushes a mapping.
const MAPPING: MappingState = MappingState {
    path: UpdatePath::Sensor,
    hash: None,
};

/// What reaches the loop of an agent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// The database was written to, or the lock released.
    Touched { lock_closed: bool },
    /// Something else changed what a report says.
    ScanRequested,
}

/// What an agent keeps.
#[derive(Default)]
pub(crate) struct Agent {
    report_store: Option<ReportStore>,
    published: Option<watch::Sender<Option<Arc<Published>>>>,
    other: Option<OtherAgent>,
    inbox: Option<mpsc::UnboundedSender<Told>>,
    /// What the last scan of this process found.
    pub(crate) found: Option<Packages>,
}

/// An agent of another generation: it keeps nothing on disk.
struct OtherAgent {
    kind: AgentKind,
    count: u32,
    process: u32,
    report: Option<(Report, WallTime)>,
}

impl Agent {
    /// Its process ends.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// Its process starts: what is stored is served.
    pub(crate) fn start(
        &mut self,
        kind: AgentKind,
        disk: TornDisk,
        machine_id: &str,
        now: WallTime,
    ) -> mpsc::UnboundedReceiver<Told> {
        let (tell, told) = mpsc::unbounded_channel();
        self.inbox = Some(tell);
        if kind != AgentKind::Current {
            self.other = Some(OtherAgent {
                kind,
                count: 0,
                process: fastrand::u32(..),
                report: None,
            });
            return told;
        }
        let store = Store::on_backend(disk).expect("the disk of a guest is well");
        let machine = Machine::Known(Some(GuestId::of_machine(machine_id)));
        let opened = ReportStore::on_store(store, machine, epoch);
        let (report_store, stored) = opened.expect("the disk of a guest is well");
        let guest_id = report_store.guest_id().cloned();
        let published = stored.map(|stored| {
            let published = Published::new(&stored, guest_id.as_ref(), scan_of(now), MAPPING);
            Arc::new(published)
        });
        self.report_store = Some(report_store);
        self.published = Some(watch::channel(published).0);
        told
    }

    /// Tells the loop something.
    pub(crate) fn tell(&self, what: Told) {
        if let Some(inbox) = &self.inbox {
            // Fails only while the machine is down.
            let _ = inbox.send(what);
        }
    }

    /// Keeps what a scan found.
    fn record(&mut self, report: &Report, trigger: Trigger, now: WallTime) {
        if let Some(other) = &mut self.other {
            let is_same = |(before, _): &(Report, WallTime)| before.digest() == report.digest();
            if !other.report.as_ref().is_some_and(is_same) {
                other.count += 1;
                other.report = Some((report.clone(), now));
            }
            return;
        }
        let (Some(report_store), Some(published)) = (&mut self.report_store, &self.published)
        else {
            return;
        };
        let recorded = report_store.record(report, trigger, &scan_of(now), epoch);
        let guest_id = report_store.guest_id().cloned();
        match recorded.expect("the disk of a guest is well") {
            Recorded::New(stored) => {
                let new = Published::new(&stored, guest_id.as_ref(), scan_of(now), MAPPING);
                published.send_replace(Some(Arc::new(new)));
            }
            Recorded::Same => {
                published.send_if_modified(|published| {
                    *published = published
                        .as_ref()
                        .map(|p| Arc::new(p.scanned_again(scan_of(now))));
                    false
                });
            }
        }
    }

    /// Begins a new epoch: a sensor knows what this agent never made.
    fn renew(&mut self) {
        let (Some(report_store), Some(published)) = (&mut self.report_store, &self.published)
        else {
            return;
        };
        let renewed = report_store.renew(epoch());
        if let Some(row) = renewed.expect("the disk of a guest is well") {
            published.send_modify(|published| {
                *published = published.as_ref().map(|p| Arc::new(p.renamed(row)));
            });
        }
    }

    /// The digest of the current agent's report.
    pub(crate) fn digest(&self) -> Option<afferent::report::Digest> {
        let published = self.published.as_ref()?.borrow().clone()?;
        Some(published.digest())
    }
}

impl OtherAgent {
    /// The answer to a request, by the rules of its generation: what it named comes back, or it sends the report.
    fn answer(&self, request: &Request<'_>) -> Vec<u8> {
        let Some((report, at)) = &self.report else {
            return respond::refuse(&Refusal::not_ready(NotReady::FirstScan), &MAPPING);
        };
        let Some(Method::GetReport(known)) = &request.method else {
            let refusal = Refusal::new(wire::ErrorCode::UnknownMethod, "get_report");
            return respond::refuse(&refusal, &MAPPING);
        };
        let token = format!("{:x}-{}", self.process, self.count);
        let is_same = match self.kind {
            AgentKind::Token => known.token == token,
            _ => known.generation == self.count,
        };
        let meta = ResponseMeta {
            agent_version: "other".into(),
            report_generated_at: Some((*at).into()),
            report_generation: match self.kind {
                AgentKind::Token => 0,
                _ => self.count,
            },
            supported_methods: vec![method::GET_REPORT.into()],
            facts: report.facts.clone(),
            ..ResponseMeta::default()
        };
        let meta = match self.kind {
            AgentKind::Token => meta::encode(&meta, Some(&token)),
            _ => meta::encode(&meta, None),
        };
        get_report_frame(&meta, (!is_same).then_some(report))
    }
}

/// The answer to `get_report` with this encoded `meta` in front, as a frame; without a report it is "unchanged".
pub(crate) fn get_report_frame(meta: &[u8], report: Option<&Report>) -> Vec<u8> {
    let payload = response::Payload::GetReport(wire::GetReportResponse {
        index_report: report.map(report_to_wire),
        unchanged: report.is_none(),
    });
    let payload = VmServiceResponse {
        meta: None,
        payload: Some(payload),
    };
    let payload = payload.encode_to_vec();
    let len = u32::try_from(meta.len() + payload.len()).unwrap();
    [&len.to_be_bytes()[..], meta, &payload].concat()
}

fn epoch() -> Epoch {
    Epoch::new(fastrand::u32(1..)).expect("not zero")
}

fn scan_of(at: WallTime) -> Scan {
    Scan {
        at,
        facts: Facts::new(),
        mapping: None,
    }
}

fn report_of(packages: &Packages, mid_transaction: bool) -> Report {
    let package = |(name, version): (&String, &u32)| Package {
        name: name.clone(),
        evr: Evr::parse(&format!("{version}-1")),
        ..Package::default()
    };
    let mut report = Report {
        packages: packages.iter().map(package).collect(),
        ..Report::default()
    };
    if mid_transaction {
        report
            .facts
            .insert(facts::MID_TRANSACTION.into(), "true".into());
    }
    report.normalize();
    report
}

/// The loop of an agent: what `serve::run` does, without sockets and threads.
pub(crate) async fn live(guest: SharedGuest, mut inbox: mpsc::UnboundedReceiver<Told>) {
    let mut rescan = Rescan::new(PACE, clock::now());
    let mut scan = None;
    loop {
        let until = loop {
            match rescan.next(clock::now()) {
                Next::WaitUntil(at) => break Some(at),
                Next::WaitForScan => break None,
                Next::LookAtLock => {
                    let holder = guest.lock().unwrap().lock;
                    rescan.lock_seen(clock::now(), holder);
                }
                Next::Scan {
                    trigger,
                    mid_transaction,
                } => scan = Some(Box::pin(scan_once(&guest, trigger, mid_transaction))),
            }
        };
        let scanned = async {
            match &mut scan {
                Some(scan) => scan.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            ended = scanned => {
                scan = None;
                rescan.ended(clock::now(), ended);
            }
            told = inbox.recv() => match told {
                Some(Told::Touched { lock_closed }) => rescan.touched(clock::now(), lock_closed),
                Some(Told::ScanRequested) => rescan.request_scan(clock::now()),
                None => return,
            },
            () = clock::sleep_until(until) => {}
        }
    }
}

/// Reads what is installed at one moment, and keeps it if no transaction began meanwhile.
async fn scan_once(guest: &SharedGuest, trigger: Trigger, mid_transaction: bool) -> Ended {
    let begun = {
        let guest = guest.lock().unwrap();
        let is_kept_out = guest.lock.is_some() && !mid_transaction;
        (!is_kept_out).then(|| (guest.packages.clone(), guest.writes))
    };
    let Some((packages, writes)) = begun else {
        return Ended::Overtaken;
    };
    sleep(SCAN).await;
    let mut guest = guest.lock().unwrap();
    if !mid_transaction && guest.lock.is_some() {
        return Ended::Overtaken;
    }
    if !mid_transaction && guest.writes != writes {
        return Ended::Changing;
    }
    if guest.writes == writes {
        guest.unscanned = None;
    }
    let waited = guest.locked_at.elapsed() >= PACE.transaction_timeout;
    guest.was_hasty |= mid_transaction && guest.lock.is_some() && !waited;
    let now = guest.now();
    let mid_transaction = mid_transaction && packages.contains_key(HALF);
    let report = report_of(&packages, mid_transaction);
    guest.agent.record(&report, trigger, now);
    guest.agent.found = Some(packages);
    Ended::Done
}

/// Connects to a guest; gives the sensor's end.
pub(crate) fn connect(shared: &SharedGuest, trace: &Trace) -> Option<Stream> {
    let guest = shared.lock().unwrap();
    let behaviour = guest.behaviour;
    if behaviour == Behaviour::Absent {
        return None;
    }
    let (ours, theirs) = duplex(64 << 10);
    let mut boots = guest.boots.subscribe();
    let open = guest.open.clone();
    drop(guest);
    let (guest, trace) = (shared.clone(), trace.clone());
    open.fetch_add(1, Relaxed);
    tokio::spawn(async move {
        let mut theirs = theirs;
        let boot = *boots.borrow_and_update();
        tokio::select! {
            biased;
            _ = boots.wait_for(|now| *now != boot) => {}
            _ = serve(&guest, &mut theirs, behaviour, &trace) => {}
        }
        // Where a machine was reset nobody closes: the other end must notice by itself.
        let is_silent = *boots.borrow() != boot && boot % 2 == 1;
        if is_silent || matches!(behaviour, Behaviour::Hangs | Behaviour::Stalls) {
            let mut rest = Vec::new();
            let _ = theirs.read_to_end(&mut rest).await;
        }
        open.fetch_sub(1, Relaxed);
    });
    Some(Stream::Memory(ours))
}

/// One request and its answer.
async fn serve(
    guest: &SharedGuest,
    stream: &mut DuplexStream,
    behaviour: Behaviour,
    trace: &Trace,
) -> Option<()> {
    if behaviour == Behaviour::Hangs {
        return None;
    }
    let len = read_len(stream, MAX_REQUEST).await.ok()?;
    let body = read_body(stream, len).await.ok()?;
    let kind = guest.lock().unwrap().kind;
    let frame = match kind {
        AgentKind::Current => answer(guest, stream, &body, trace).await?,
        AgentKind::Pair | AgentKind::Token => {
            let request = Request::decode(&body).expect("the sensor sends requests");
            let guest = guest.lock().unwrap();
            guest.agent.other.as_ref()?.answer(&request)
        }
    };
    let sent = match behaviour {
        Behaviour::BreaksOff | Behaviour::Stalls => &frame[..frame.len() / 2],
        _ => &frame[..],
    };
    write_frame(stream, sent).await.ok()?;
    stream.flush().await.ok()
}

/// The frame by which the current agent answers, by its own rules.
async fn answer(
    guest: &SharedGuest,
    stream: &mut DuplexStream,
    body: &[u8],
    trace: &Trace,
) -> Option<Vec<u8>> {
    let call = respond::understand(body, &MAPPING).expect("the sensor sends requests");
    let Call::Report(asked) = call else {
        unreachable!("the sensor pushes nothing");
    };
    let mut published = guest.lock().unwrap().agent.published.as_ref()?.subscribe();
    if let Some(time) = asked.wait {
        let is_other = |now: &Option<Arc<Published>>| verdict(now, &asked) != Some(Verdict::Same);
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = timeout(time, published.wait_for(is_other)) => {}
            // The sensor gave the wait up.
            _ = stream.read(&mut byte) => return None,
        }
    }
    let mut now = published.borrow().clone();
    if verdict(&now, &asked) == Some(Verdict::Impossible) {
        let mut guest = guest.lock().unwrap();
        trace.event(&guest.name, "a peer knows what it never made: new epoch");
        guest.agent.renew();
        now = published.borrow().clone();
    }
    Some(match &now {
        None => {
            let refusal = Refusal::not_ready(NotReady::FirstScan).to(asked.is_report_v1);
            respond::refuse(&refusal, &MAPPING)
        }
        Some(it) if it.compare(&asked.known) == Verdict::Same => it.unchanged(asked.is_report_v1),
        Some(it) => {
            let (head, payload) = it.full(asked.is_report_v1);
            [&head, payload].concat()
        }
    })
}

fn verdict(published: &Option<Arc<Published>>, asked: &Asked) -> Option<Verdict> {
    published.as_ref().map(|it| it.compare(&asked.known))
}
