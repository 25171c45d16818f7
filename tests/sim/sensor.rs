//! One sensor: the real engine, on a disk that tears, with a roster in a file and a clock of its own.

use crate::agent;
use crate::central::Central;
use crate::check::GRACE;
use crate::guest::{AbortOnDrop, SharedGuest, wall};
use crate::order::Order;
use crate::plan::BadRoster;
use crate::torn_disk::TornDisk;
use crate::trace::Trace;
use crate::world::REFRESH;
use afferent::blocking::Blocking;
use afferent::clock::{WallClock, WallTime};
use afferent::report::VmId;
use afferent::sense::SinkName;
use afferent::sense::deliver::sink::{Delivering, Delivery, Sink};
use afferent::sense::engine::{Engine, Parts, SinkParts};
use afferent::sense::fleet::FleetLimits;
use afferent::sense::metrics::Metrics;
use afferent::sense::pull::dial::{Dial, Dialing};
use afferent::sense::pull::failure::Failure;
use afferent::sense::pull::schedule::Timing;
use afferent::sense::queue::SinkQueue;
use afferent::sense::queue::policy::QueuePolicy;
use afferent::sense::queue::table::{self, QueuePlace, StoredEnvelope};
use afferent::sense::roster::{Roster, RosterSource};
use afferent::store::Store;
use afferent::transport::DialAddress;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

/// Between polls of a guest that holds no wait.
pub(crate) const POLL: Duration = Duration::from_secs(300);

/// Later than any run ends.
const NEVER: Duration = Duration::from_secs(365 * 86_400);

/// The roster is read this long after it changed, and as often again as it may change by itself: never.
const READ: Duration = Duration::from_secs(2);

/// Connects to the guests of the run.
struct SimulatedDial {
    guests: Arc<BTreeMap<String, SharedGuest>>,
    trace: Trace,
}

impl Dial for SimulatedDial {
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a> {
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            let name = address.to_string();
            let guest = &self.guests[name.trim_start_matches("unix:/")];
            let refused = || Failure::Unreachable("connection refused".into());
            agent::connect(guest, &self.trace).ok_or_else(refused)
        })
    }

    fn has_tls(&self) -> bool {
        false
    }
}

/// The way to Central, on which is seen in which order documents go, and that they are on the disk.
struct WatchedSink {
    sensor: String,
    central: Central,
    disk: TornDisk,
    order: Arc<Mutex<Order>>,
    /// Set once the engine runs.
    pending: Mutex<Weak<SinkQueue>>,
}

impl WatchedSink {
    /// Whether what is sent would be there after a crash that loses all it may lose.
    fn is_durable(&self, pending: &SinkQueue, delivery: &Delivery) -> bool {
        let vm: VmId = delivery.vm.parse().unwrap();
        let key = |stored: Option<StoredEnvelope>| {
            let stored = stored?;
            let envelope = stored.open(&vm).ok()?;
            Some(envelope.idempotency_key())
        };
        let sent = Some(delivery.idempotency_key.clone());
        // A newer one may have taken its place meanwhile.
        if key(pending.read(&vm).ok().flatten()) != sent {
            return true;
        }
        let safe = Store::on_backend(self.disk.copy());
        let safe = safe.and_then(|store| table::read(&store, &vm));
        key(safe.ok().flatten()) == sent
    }
}

impl Sink for WatchedSink {
    fn events_since(&self) -> Option<WallTime> {
        Some(WallTime::default())
    }

    fn deliver(&self, delivery: Delivery) -> Delivering<'_> {
        let pending = self.pending.lock().unwrap().upgrade();
        if let Some(pending) = pending {
            if !self.disk.is_synced() && !self.is_durable(&pending, &delivery) {
                let what = "invariant 3: a document is sent that is not durable";
                self.central.broken(&delivery.vm, what);
            }
            let broken = self
                .order
                .lock()
                .unwrap()
                .dispatched(&delivery.vm, pending.state().queue());
            for what in broken {
                self.central.broken(&self.sensor, &what);
            }
        }
        Box::pin(async move {
            let vm = delivery.vm.clone();
            let outcome = self.central.receive(&self.sensor, delivery).await;
            self.order.lock().unwrap().answered(&vm, &outcome);
            outcome
        })
    }
}

/// A disk, and since when it takes what is written.
type Disk = (TornDisk, Arc<Mutex<Option<Instant>>>);

/// A sensor, and its machine.
pub(crate) struct Sensor {
    pub(crate) name: String,
    pub(crate) engine: Option<Engine>,
    pub(crate) disk: TornDisk,
    /// The store of the engine that runs.
    store: Weak<Store>,
    /// Guests of its roster, and since when they are in it.
    pub(crate) listed: BTreeMap<String, Instant>,
    /// Since when the sensor that runs could read the roster.
    pub(crate) read_since: Option<Instant>,
    pub(crate) order: Arc<Mutex<Order>>,
    /// Since when it runs, and its disk takes what is written.
    pub(crate) well_since: Arc<Mutex<Option<Instant>>>,
    /// Documents that were seen in the queue, and since when at the same place.
    pub(crate) queued: RefCell<BTreeMap<VmId, (QueuePlace, Instant)>>,
    guests: Arc<BTreeMap<String, SharedGuest>>,
    sinks: [Central; 2],
    trace: Trace,
    started: Instant,
    roster_file: PathBuf,
    is_whole: bool,
    changed: Arc<Notify>,
    reading: Option<AbortOnDrop>,
    /// How far its clock is from the world's, in milliseconds.
    skew: Arc<AtomicI64>,
}

impl Sensor {
    /// A sensor of these guests, with its files in a directory.
    pub(crate) fn new(
        name: &str,
        dir: &std::path::Path,
        guests: Arc<BTreeMap<String, SharedGuest>>,
        sinks: [Central; 2],
        trace: Trace,
        listed: BTreeSet<String>,
    ) -> Self {
        let started = Instant::now();
        let mut sensor = Self {
            name: name.to_owned(),
            engine: None,
            disk: TornDisk::new(),
            store: Weak::new(),
            listed: listed.into_iter().map(|name| (name, started)).collect(),
            read_since: None,
            order: Arc::default(),
            well_since: Arc::new(Mutex::new(Some(started))),
            queued: RefCell::default(),
            guests,
            sinks,
            trace,
            started,
            roster_file: dir.join(name),
            is_whole: true,
            changed: Arc::default(),
            reading: None,
            skew: Arc::default(),
        };
        sensor.write_roster();
        sensor.start();
        sensor
    }

    /// A guest comes into the roster, or leaves it. Says whether that changed anything.
    pub(crate) fn list(&mut self, guest: &str, is_there: bool) -> bool {
        let before = self.listed.contains_key(guest);
        match is_there {
            true if !before => drop(self.listed.insert(guest.to_owned(), Instant::now())),
            false => drop(self.listed.remove(guest)),
            true => {}
        }
        before != is_there
    }

    /// Writes the roster as it is.
    pub(crate) fn write_roster(&mut self) {
        self.is_whole = true;
        let now = Instant::now();
        self.read_since.get_or_insert(now);
        let listed = self.listed.values_mut();
        listed.for_each(|since| *since = now.min(*since));
        let entry =
            |name: &String| format!("[[vm]]\nid = \"{name}\"\naddress = \"unix:/{name}\"\n");
        let text: String = self.listed.keys().map(entry).collect();
        // Left out altogether, as somebody who has no guests writes it.
        let text = match text.is_empty() {
            true => "vm = []\n".to_owned(),
            false => text,
        };
        self.replace_roster(text.as_bytes());
    }

    fn replace_roster(&self, text: &[u8]) {
        let _ = fs::remove_dir(&self.roster_file);
        fs::write(&self.roster_file, text).unwrap();
        self.changed.notify_one();
    }

    /// Makes the roster a file that cannot be read as what it was.
    pub(crate) fn break_roster(&mut self, how: BadRoster) {
        self.is_whole = false;
        // What was listed a moment ago may not have been read: it counts from the next whole roster on.
        let unread = self.listed.values_mut();
        let unread = unread.filter(|since| since.elapsed() <= GRACE);
        unread.for_each(|since| *since = Instant::now() + NEVER);
        // The same of all of them, when a sensor that started without a roster had a whole one for a moment.
        self.read_since = self.read_since.filter(|since| since.elapsed() > GRACE);
        let whole = fs::read(&self.roster_file).unwrap_or_default();
        match how {
            BadRoster::Empty => self.replace_roster(b""),
            BadRoster::HalfWritten => {
                let half = &whole[..whole.len() / 2];
                self.replace_roster(&[half, b"\n[[vm"].concat());
            }
            BadRoster::Directory => {
                let _ = fs::remove_file(&self.roster_file);
                let _ = fs::create_dir(&self.roster_file);
                self.changed.notify_one();
            }
            BadRoster::NoText => self.replace_roster(b"[[vm]]\nid = \"vm-0\"\n\xff"),
        }
    }

    /// The clock is this much off.
    pub(crate) fn set_clock(&self, ms: i64) {
        self.skew.store(ms, Relaxed);
    }

    /// Its name, and its disk with the time since when that takes what is written.
    pub(crate) fn disk_of(&self) -> (String, Disk) {
        let disk = (self.disk.clone(), self.well_since.clone());
        (self.name.clone(), disk)
    }

    /// Nothing can be written to this disk for some time.
    pub(crate) async fn fill((disk, well_since): Disk, time: Duration) {
        disk.set_full(true);
        *well_since.lock().unwrap() = None;
        sleep(time).await;
        disk.set_full(false);
        *well_since.lock().unwrap() = Some(Instant::now());
    }

    /// The disk takes what is written from now on.
    pub(crate) fn make_room(&mut self) {
        self.disk.set_full(false);
    }

    fn start(&mut self) {
        self.read_since = self.is_whole.then(Instant::now);
        self.well_since = Arc::new(Mutex::new(Some(Instant::now())));
        let store = Store::on_backend(self.disk.clone()).expect("a disk after a crash is a store");
        let store = Arc::new(store);
        self.store = Arc::downgrade(&store);
        let (started, skew) = (self.started, self.skew.clone());
        // As after a start of the process: nothing is known of the sources, and they are read at once.
        let mut roster = Roster::new(vec![RosterSource::File(self.roster_file.clone())]);
        roster.read();
        let (known, subscriber) = watch::channel(roster.known());
        let changed = self.changed.clone();
        self.reading = Some(AbortOnDrop(tokio::spawn(async move {
            loop {
                // A file that cannot be read is read again whether it changed or not.
                let _ = timeout(100 * READ, changed.notified()).await;
                sleep(READ).await;
                if roster.read() {
                    known.send_replace(roster.known());
                }
            }
        })));
        self.order = Arc::default();
        let orders = [self.order.clone(), Arc::default()];
        let watched = self.sinks.iter().zip(orders).map(|(central, order)| {
            Arc::new(WatchedSink {
                sensor: self.name.clone(),
                central: central.clone(),
                disk: self.disk.clone(),
                order,
                pending: Mutex::default(),
            })
        });
        let watched: Vec<Arc<WatchedSink>> = watched.collect();
        let names = [SinkName::default(), "second".parse().unwrap()];
        let sinks = watched.iter().zip(names).map(|(sink, name)| SinkParts {
            name,
            sink: sink.clone(),
            policy: QueuePolicy::default(),
        });
        let engine = Engine::start(Parts {
            store,
            sinks: sinks.collect(),
            dial: Arc::new(SimulatedDial {
                guests: self.guests.clone(),
                trace: self.trace.clone(),
            }),
            roster: subscriber,
            fleet: Some(FleetLimits::default()),
            timing: Timing::new(POLL, REFRESH),
            mapping: None,
            sensor_id: self.name.as_str().into(),
            blocking: Blocking::Inline,
            wall: WallClock::simulated(move || wall(started, skew.load(Relaxed))),
            metrics: Arc::new(Metrics::new()),
        });
        let engine = engine.expect("a disk after a crash can be read");
        for (watched, sink) in watched.iter().zip(&engine.sinks) {
            *watched.pending.lock().unwrap() = Arc::downgrade(&sink.queue);
        }
        self.engine = Some(engine);
    }

    /// Its store, while it runs.
    pub(crate) fn store(&self) -> Option<Arc<Store>> {
        self.store.upgrade()
    }

    /// Kills the sensor and its machine, and starts it on what the disk still has.
    pub(crate) fn crash(&mut self, random: &mut fastrand::Rng) {
        // A store that needs repair cannot be opened on a full disk: somebody makes room.
        self.disk.set_full(false);
        self.disk = self.disk.after_a_crash(random);
        if let Some(engine) = self.engine.take() {
            engine.kill();
        }
        self.start();
    }
}
