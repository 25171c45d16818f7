//! Guests and sinks of the search: each holds what it was asked for until a step lets it answer.

use crate::agent::get_report_frame;
use crate::guest::Packages;
use crate::torn_disk::TornDisk;
use afferent::clock::WallTime;
use afferent::report::{Digest, Evr, Package, Report, VmId, facts};
use afferent::sense::SinkName;
use afferent::sense::deliver::outcome::Outcome;
use afferent::sense::deliver::sink::{Delivering, Delivery, Sink};
use afferent::sense::pull::dial::{Dial, Dialing};
use afferent::sense::queue::table;
use afferent::store::Store;
use afferent::transport::{DialAddress, Stream, read_body, read_len, write_frame};
use afferent::wire::message::ResponseMeta;
use afferent::wire::request::{Knowledge, Method, Request};
use afferent::wire::{MAX_REQUEST, meta, method};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::{oneshot, watch};

/// The only package of a guest; its version is the content.
const PACKAGE: &str = "p";

/// What a machine reports, and how its agent counts that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Machine {
    pub(super) content: u32,
    /// Contents that there were so far: no later one is equal to one of them.
    pub(super) made: u32,
    pub(super) generation: u32,
    epoch: u32,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            content: 1,
            made: 1,
            generation: 1,
            epoch: 7,
        }
    }

    /// Another package.
    pub(super) fn change(&mut self) {
        self.made += 1;
        self.generation += 1;
        self.content = self.made;
    }

    /// It returns to the snapshot that was taken of it when it was new.
    pub(super) fn go_back(&mut self) {
        (self.content, self.generation) = (1, 1);
    }

    /// Whether a peer that knows this knows what is there now. One that knows what this agent never made
    /// begins a new epoch.
    fn is_known(&mut self, known: &Knowledge<'_>) -> bool {
        let digest = digest_of(self.content);
        let is_same = known.digest.is_empty() || known.digest == digest.as_bytes();
        let is_ours = known.generation > 0 && known.epoch == self.epoch;
        if is_ours && (known.generation > self.generation || self.is_count(known) && !is_same) {
            self.epoch += 1;
        }
        known.epoch == self.epoch && self.is_count(known) && is_same
    }

    fn is_count(&self, known: &Knowledge<'_>) -> bool {
        known.generation == self.generation
    }

    /// The frame of an answer.
    fn answer(&self, is_unchanged: bool) -> Vec<u8> {
        let report = report_of(self.content);
        let digest = report.digest().to_string();
        let meta = ResponseMeta {
            agent_version: "search".into(),
            report_generated_at: Some(WallTime::from_unix_ms(u64::from(self.made)).into()),
            report_generation: self.generation,
            epoch: self.epoch,
            supported_methods: vec![method::GET_REPORT.into(), method::WAIT_REPORT.into()],
            facts: BTreeMap::from([
                (facts::REPORT_DIGEST.into(), digest),
                (facts::SCAN_TRIGGER.into(), "reactive".into()),
            ]),
            ..ResponseMeta::default()
        };
        let meta = meta::encode(&meta, None);
        get_report_frame(&meta, (!is_unchanged).then_some(&report))
    }
}

fn report_of(content: u32) -> Report {
    let mut report = Report {
        packages: vec![Package {
            name: PACKAGE.into(),
            evr: Evr::parse(&format!("{content}-1")),
            ..Package::default()
        }],
        ..Report::default()
    };
    report.normalize();
    report
}

/// The digest of a content.
pub(super) fn digest_of(content: u32) -> Digest {
    report_of(content).digest()
}

/// What is asked of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    is_wait: bool,
    /// It would answer now.
    pub(super) is_due: bool,
}

/// A guest while a sensor runs.
pub(super) struct Guest {
    pub(super) machine: Machine,
    pub(super) asking: Option<Asking>,
    /// It may answer once.
    pub(super) may_answer: bool,
}

/// All guests, and whether they answer by themselves.
#[derive(Clone)]
pub(super) struct Guests {
    pub(super) all: Arc<Mutex<Vec<Guest>>>,
    /// Changes whenever one of them does; `true`: they answer by themselves.
    pub(super) answers: watch::Sender<bool>,
}

impl Guests {
    /// Lets everybody look at its guest again.
    pub(super) fn wake(&self) {
        self.answers.send_modify(|_| {});
    }
}

impl Dial for Guests {
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a> {
        let number = number_of(&address.to_string());
        Box::pin(async move {
            let (ours, theirs) = duplex(64 << 10);
            tokio::spawn(serve(self.clone(), number, theirs));
            Ok(Stream::Memory(ours))
        })
    }

    fn has_tls(&self) -> bool {
        false
    }
}

/// `vm-3`, at the end of a name, is 3.
pub(super) fn number_of(name: &str) -> usize {
    name.rsplit('-').next().unwrap().parse().unwrap()
}

/// One request and its answer.
async fn serve(guests: Guests, number: usize, mut stream: DuplexStream) -> Option<()> {
    let len = read_len(&mut stream, MAX_REQUEST).await.ok()?;
    let body = read_body(&mut stream, len).await.ok()?;
    let request = Request::decode(&body).expect("the sensor sends requests");
    let (known, wait) = match request.method {
        Some(Method::GetReport(known)) => (known, None),
        Some(Method::WaitReport(known, ms)) => (known, Some(Duration::from_millis(ms.into()))),
        other => unreachable!("the sensor asks for reports: {other:?}"),
    };
    let over = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(86_400)));
    tokio::pin!(over);
    let mut answers = guests.answers.subscribe();
    let mut byte = [0];
    let frame = loop {
        let is_free = *answers.borrow_and_update();
        if let Some(frame) = look(&guests, number, &known, wait.is_some(), is_free) {
            break frame;
        }
        tokio::select! {
            biased;
            _ = answers.changed() => {}
            // The sensor gave the exchange up.
            _ = stream.read(&mut byte) => {
                guests.all.lock().unwrap()[number].asking = None;
                return None;
            }
            () = &mut over => {
                let mut all = guests.all.lock().unwrap();
                all[number].asking = None;
                break all[number].machine.answer(true);
            }
        }
    };
    write_frame(&mut stream, &frame).await.ok()
}

/// The answer, if there is one and it may be given.
fn look(
    guests: &Guests,
    number: usize,
    known: &Knowledge<'_>,
    is_wait: bool,
    is_free: bool,
) -> Option<Vec<u8>> {
    let mut all = guests.all.lock().unwrap();
    let guest = &mut all[number];
    let is_known = guest.machine.is_known(known);
    let is_due = !is_wait || !is_known;
    guest.asking = Some(Asking { is_wait, is_due });
    if !is_due || !is_free && !guest.may_answer {
        return None;
    }
    (guest.asking, guest.may_answer) = (None, false);
    Some(guest.machine.answer(is_known))
}

/// What a sink has, and what it answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// Content that came under each key.
    keys: BTreeMap<String, u32>,
    /// Content that was taken last of each guest, and when it was seen.
    pub(super) last: BTreeMap<usize, (WallTime, u32)>,
    /// Refusals of each content of a guest.
    pub(super) refusals: BTreeMap<(usize, u32), u32>,
    /// Answers that may count against a document of a guest.
    pub(super) failures: BTreeMap<usize, u32>,
}

impl Taken {
    /// What of it decides what may happen next.
    pub(super) fn print(&self) -> String {
        let last: Vec<_> = self
            .last
            .iter()
            .map(|(n, (_, content))| (n, content))
            .collect();
        format!(
            "{:?}{last:?}{:?}{:?}",
            self.keys, self.refusals, self.failures
        )
    }
}

/// A document on its way.
pub(super) struct InFlight {
    delivery: Delivery,
    pub(super) content: u32,
    seen_at: WallTime,
    /// Central has it, and has not answered.
    pub(super) is_taken: bool,
    /// It had its key before.
    is_known: bool,
    answer: oneshot::Sender<Outcome>,
}

/// What a sink says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ok,
    /// Nothing, although it has it.
    NoAnswer,
    Refused,
    Failed,
    Absent,
    Busy,
    Forbidden,
}

/// A sink while a sensor runs.
#[derive(Default)]
pub(super) struct SinkState {
    pub(super) taken: Taken,
    pub(super) in_flight: BTreeMap<usize, InFlight>,
    /// It takes everything at once.
    pub(super) is_free: bool,
    pub(super) broken: Vec<String>,
}

impl SinkState {
    /// It has what is on its way.
    pub(super) fn take(&mut self, guest: usize) {
        let Some(document) = self.in_flight.get_mut(&guest) else {
            return;
        };
        let (key, content) = (&document.delivery.idempotency_key, document.content);
        document.is_taken = true;
        let before = self.taken.keys.insert(key.clone(), content);
        document.is_known = before.is_some();
        if before.is_some_and(|before| before != content) {
            self.broken
                .push(format!("invariant 1: {key} stands for two contents"));
        }
        let seen_at = document.seen_at;
        let last = self.taken.last.insert(guest, (seen_at, content));
        if last.is_some_and(|(last, _)| seen_at < last) {
            self.broken
                .push(format!("invariant 2: {key} is older than the one before"));
        }
    }

    /// It answers, or its answer is lost.
    pub(super) fn say(&mut self, guest: usize, said: Said) {
        let Some(document) = self.in_flight.remove(&guest) else {
            return;
        };
        if matches!(
            said,
            Said::NoAnswer | Said::Refused | Said::Failed | Said::Forbidden
        ) {
            *self.taken.failures.entry(guest).or_default() += 1;
        }
        if said == Said::Refused {
            let of = (guest, document.content);
            *self.taken.refusals.entry(of).or_default() += 1;
        }
        let outcome = match said {
            Said::Ok if document.is_known => Outcome::of_status(409, None, b""),
            Said::Ok => Outcome::of_status(200, None, b""),
            Said::NoAnswer => Outcome::Failed("no answer in 30 s".into()),
            Said::Refused => Outcome::of_status(422, None, b""),
            Said::Failed => Outcome::of_status(500, None, b""),
            Said::Absent => Outcome::Unreachable("connection refused".into()),
            Said::Busy => Outcome::of_status(429, Some(Duration::from_secs(5)), b""),
            Said::Forbidden => Outcome::of_status(403, None, b""),
        };
        // Fails only where the sensor was killed.
        let _ = document.answer.send(outcome);
    }
}

/// A sink that holds its answers.
pub(super) struct HeldSink {
    pub(super) name: SinkName,
    pub(super) state: Arc<Mutex<SinkState>>,
    pub(super) disk: TornDisk,
}

impl HeldSink {
    /// Whether what is sent, or something newer of its guest, would be there after a crash that loses all it may lose.
    /// Asked also where the disk has nothing to sync: what was never written is not there to be synced.
    fn is_durable(&self, vm: &VmId, seen_at: WallTime) -> bool {
        let safe = Store::on_backend(self.disk.copy()).unwrap();
        let stored = table::read(&safe, vm).ok().flatten();
        stored.is_some_and(|stored| stored.open(vm).is_ok_and(|it| it.seen_at >= seen_at))
    }
}

impl Sink for HeldSink {
    fn deliver(&self, delivery: Delivery) -> Delivering<'_> {
        // What a sensor sends after its power failed is not sent.
        if self.disk.is_dark() {
            return Box::pin(std::future::pending());
        }
        let (answer, answered) = oneshot::channel();
        let mut state = self.state.lock().unwrap();
        let guest = number_of(&delivery.vm);
        let document: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
        let packages: Packages = crate::central::packages_in(&document);
        let seen_at = document["meta"]["seen_at"].as_str().unwrap();
        let seen_at = seen_at.parse().unwrap();
        if !self.is_durable(&delivery.vm.parse().unwrap(), seen_at) {
            let (key, name) = (&delivery.idempotency_key, &self.name);
            let what = format!("invariant 3: {key} is sent to {name:?} and not durable");
            state.broken.push(what);
        }
        let document = InFlight {
            content: packages[PACKAGE],
            seen_at,
            delivery,
            is_taken: false,
            is_known: false,
            answer,
        };
        state.in_flight.insert(guest, document);
        if state.is_free {
            state.take(guest);
            state.say(guest, Said::Ok);
        }
        drop(state);
        Box::pin(async move { answered.await.unwrap_or(Outcome::Postponed) })
    }
}
