//! A guest: its packages and rpm transactions, the disk of its agent, and what befalls the machine.

use crate::agent::{self, Agent, Told};
use crate::plan::Ending;
use crate::torn_disk::TornDisk;
use afferent::clock::WallTime;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// What is installed: names and versions.
pub(crate) type Packages = BTreeMap<String, u32>;

/// A package that is there only while a transaction is half done.
pub(crate) const HALF: &str = "half-done";

/// Longer than an agent waits for a transaction.
const HANG: Duration = Duration::from_secs(15 * 60);

/// A sensor that is well has learnt of a change after this time.
const LEARNT: Duration = Duration::from_secs(3);

/// A change of an idle machine is scanned after this time.
const SCANNED: Duration = Duration::from_millis(500);

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

/// Which agent a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AgentKind {
    /// This one.
    Current,
    /// One of the first generation of the protocol: a counter that begins anew with its process, nothing else.
    Pair,
    /// One of the second generation: a token, no waits.
    Token,
}

/// A task that ends with its owner.
pub(crate) struct AbortOnDrop(pub(crate) JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The beginning of the time of day in every run: 2026-01-01T00:00:00Z.
pub(crate) const BEGINNING: u64 = 1_767_225_600_000;

/// The time of day `ms` off, when the run began at `started`.
pub(crate) fn wall(started: Instant, ms: i64) -> WallTime {
    let passed = i64::try_from(started.elapsed().as_millis()).unwrap();
    let now = BEGINNING.cast_signed() + passed + ms;
    WallTime::from_unix_ms(u64::try_from(now).unwrap_or(0))
}

/// A guest that more than one task knows.
pub(crate) type SharedGuest = Arc<Mutex<Guest>>;

/// The state of a machine at one moment.
#[derive(Clone)]
struct Snapshot {
    packages: Packages,
    machine_id: String,
    kind: AgentKind,
    disk: TornDisk,
}

/// A guest, and the disk of its agent.
pub(crate) struct Guest {
    pub(crate) name: String,
    pub(crate) packages: Packages,
    pub(crate) behaviour: Behaviour,
    pub(crate) kind: AgentKind,
    pub(crate) agent: Agent,
    /// The process that holds the transaction lock.
    pub(crate) lock: Option<i32>,
    /// Since when.
    pub(crate) locked_at: Instant,
    /// Writes to the rpm database so far.
    pub(crate) writes: u64,
    /// Since when a write was not scanned.
    pub(crate) unscanned: Option<Instant>,
    /// A transaction was reported half done before its time.
    pub(crate) was_hasty: bool,
    /// Boots so far: nothing is answered any more on connections of an earlier one.
    pub(crate) boots: watch::Sender<u32>,
    /// Connections that are open at the other end.
    pub(crate) open: Arc<AtomicUsize>,
    machine_id: String,
    disk: TornDisk,
    skew: i64,
    started: Instant,
    snapshot: Option<Snapshot>,
    living: Option<AbortOnDrop>,
    transaction: Option<AbortOnDrop>,
}

impl Guest {
    /// A guest that has just been installed.
    pub(crate) fn new(name: &str, started: Instant) -> SharedGuest {
        let guest = Arc::new(Mutex::new(Self {
            name: name.to_owned(),
            packages: Packages::from([("bash".into(), 1), (format!("host-{name}"), 1)]),
            behaviour: Behaviour::Well,
            kind: AgentKind::Current,
            agent: Agent::default(),
            lock: None,
            locked_at: started,
            writes: 0,
            unscanned: None,
            was_hasty: false,
            boots: watch::channel(0).0,
            open: Arc::new(AtomicUsize::new(0)),
            machine_id: name.to_owned(),
            disk: TornDisk::new(),
            skew: 0,
            started,
            snapshot: None,
            living: None,
            transaction: None,
        }));
        start_agent(&guest);
        guest
    }

    /// The guest's time of day.
    pub(crate) fn now(&self) -> WallTime {
        wall(self.started, self.skew)
    }

    /// Connections that sensors hold open.
    pub(crate) fn open_streams(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// Bytes on the disk of its agent.
    pub(crate) fn disk_bytes(&self) -> usize {
        self.disk.size()
    }

    /// The clock is this much off.
    pub(crate) fn set_clock(&mut self, ms: i64) {
        self.skew = ms;
    }

    fn wrote(&mut self) {
        self.writes += 1;
        self.unscanned.get_or_insert(Instant::now());
        self.agent.tell(Told::Touched { lock_closed: false });
    }

    /// Installs, upgrades or erases a package.
    fn change(&mut self, random: &mut fastrand::Rng) {
        let name = format!("p{}", random.u32(..20));
        match random.u32(..4) {
            0 => drop(self.packages.remove(&name)),
            _ => *self.packages.entry(name).or_default() += 1,
        }
        self.wrote();
    }

    /// One more package of a transaction.
    fn half_done(&mut self, random: &mut fastrand::Rng) {
        *self.packages.entry(HALF.into()).or_default() += 1;
        self.change(random);
    }

    /// The database is rebuilt: same content.
    pub(crate) fn rebuild(&mut self) {
        self.wrote();
    }

    /// A transaction that is over at once.
    pub(crate) fn install(&mut self, random: &mut fastrand::Rng) {
        if self.lock.is_none() {
            self.change(random);
            self.agent.tell(Told::Touched { lock_closed: true });
        }
    }

    /// The same, of this version of a package.
    pub(crate) fn install_version(&mut self, name: &str, version: u32) {
        self.packages.insert(name.to_owned(), version);
        self.wrote();
        self.agent.tell(Told::Touched { lock_closed: true });
    }

    /// The mapping with which reports are made is another one.
    pub(crate) fn map(&mut self) {
        *self.packages.entry("mapping".into()).or_default() += 1;
        self.agent.tell(Told::ScanRequested);
    }

    /// What the transaction under way did so far stays.
    pub(crate) fn end_transaction(&mut self) {
        self.transaction = None;
        if self.lock.take().is_some() {
            self.packages.remove(HALF);
            self.wrote();
            self.agent.tell(Told::Touched { lock_closed: true });
        }
    }

    /// Copies the state of the machine: what is installed, and the disk of its agent.
    pub(crate) fn take_snapshot(&mut self) {
        self.snapshot = Some(self.copy());
    }

    fn copy(&self) -> Snapshot {
        let mut packages = self.packages.clone();
        packages.remove(HALF);
        Snapshot {
            packages,
            machine_id: self.machine_id.clone(),
            kind: self.kind,
            disk: self.disk.copy(),
        }
    }

    /// The power fails, for the agent as for everything.
    fn stop(&mut self) {
        (self.living, self.transaction) = (None, None);
        self.agent.stop();
        (self.lock, self.unscanned) = (None, None);
        self.packages.remove(HALF);
        self.boots.send_modify(|boots| *boots += 1);
    }

    fn become_copy(&mut self, of: Snapshot) {
        (self.packages, self.machine_id) = (of.packages, of.machine_id);
        (self.kind, self.disk) = (of.kind, of.disk.copy());
    }
}

/// Starts the agent, as after a boot.
fn start_agent(shared: &SharedGuest) {
    let mut guest = shared.lock().unwrap();
    guest.living = None;
    guest.agent.stop();
    // A process that starts begins to wait anew.
    guest.unscanned = guest.unscanned.map(|_| Instant::now());
    let (kind, disk, id, now) = (
        guest.kind,
        guest.disk.clone(),
        guest.machine_id.clone(),
        guest.now(),
    );
    let inbox = guest.agent.start(kind, disk, &id, now);
    let living = tokio::spawn(agent::live(shared.clone(), inbox));
    guest.living = Some(AbortOnDrop(living));
}

/// The agent's process is started again.
pub(crate) fn restart(shared: &SharedGuest) {
    shared
        .lock()
        .unwrap()
        .boots
        .send_modify(|boots| *boots += 1);
    start_agent(shared);
}

/// An agent of another generation takes the place of the one before.
pub(crate) fn install_agent(shared: &SharedGuest, kind: AgentKind) {
    shared.lock().unwrap().kind = kind;
    restart(shared);
}

/// The machine loses power and boots.
pub(crate) fn reboot(shared: &SharedGuest, random: &mut fastrand::Rng) {
    let mut guest = shared.lock().unwrap();
    guest.stop();
    guest.disk = guest.disk.after_a_crash(random);
    drop(guest);
    start_agent(shared);
}

/// The machine returns to its last snapshot and boots, and so many packages change. Where there is no snapshot, one is
/// taken; a fresh one is taken before as many packages change, which sensors learn of.
pub(crate) async fn restore_again(
    shared: SharedGuest,
    mut random: fastrand::Rng,
    changes: u32,
    is_fresh: bool,
) {
    if is_fresh {
        shared.lock().unwrap().take_snapshot();
        for _ in 0..changes {
            shared.lock().unwrap().install(&mut random);
            sleep(LEARNT).await;
        }
    }
    if restore(&shared) {
        for _ in 0..changes {
            shared.lock().unwrap().install(&mut random);
            sleep(SCANNED).await;
        }
    }
}

fn restore(shared: &SharedGuest) -> bool {
    let mut guest = shared.lock().unwrap();
    let Some(snapshot) = guest.snapshot.clone() else {
        guest.take_snapshot();
        return false;
    };
    guest.stop();
    guest.become_copy(snapshot);
    drop(guest);
    start_agent(shared);
    true
}

/// The machine is a copy of another one from now on.
pub(crate) fn clone_from(shared: &SharedGuest, of: &SharedGuest, new_id: Option<String>) {
    let copy = of.lock().unwrap().copy();
    let mut guest = shared.lock().unwrap();
    guest.stop();
    guest.become_copy(copy);
    if let Some(id) = new_id {
        guest.machine_id = id;
    }
    drop(guest);
    start_agent(shared);
}

/// Runs an rpm transaction, one package after the other, unless one is running.
pub(crate) fn transact(
    shared: &SharedGuest,
    mut random: fastrand::Rng,
    packages: u32,
    pause: Duration,
    ending: Ending,
) {
    let mut guest = shared.lock().unwrap();
    if guest.lock.is_some() {
        return;
    }
    guest.lock = Some(random.i32(2..30_000));
    guest.locked_at = Instant::now();
    let of = shared.clone();
    let running = tokio::spawn(async move {
        for _ in 0..packages {
            of.lock().unwrap().half_done(&mut random);
            sleep(pause).await;
        }
        if ending == Ending::Hangs {
            sleep(HANG).await;
        }
        of.lock().unwrap().end_transaction();
    });
    guest.transaction = Some(AbortOnDrop(running));
}
