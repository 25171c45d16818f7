//! One run: guests, a sensor on a disk that tears, Central, and a plan of faults drawn from the seed.

use crate::central::{Central, Mode};
use crate::guest::{self, Behaviour, Guest};
use crate::torn_disk::TornDisk;
use crate::trace::Trace;
use afferent::blocking::Blocking;
use afferent::clock::{WallClock, WallTime};
use afferent::report::VmId;
use afferent::sense::engine::{Engine, Parts};
use afferent::sense::fleet::FleetLimits;
use afferent::sense::metrics::Metrics;
use afferent::sense::pull::dial::{Dial, Dialing};
use afferent::sense::pull::failure::Failure;
use afferent::sense::pull::schedule::Timing;
use afferent::sense::queue::policy::{LONGEST_DEFERRAL, QueuePolicy};
use afferent::sense::queue::slot::State;
use afferent::sense::roster::{KnownGuests, Roster, RosterSource};
use afferent::store::Store;
use afferent::transport::DialAddress;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// The refresh interval: short, so that the quiet period at the end is short, too; and no shorter than the
/// longest time for which Central may defer a document.
const REFRESH: Duration = LONGEST_DEFERRAL;

/// Time of day at the start of every run: 2026-01-01T00:00:00Z.
const BEGINNING: u64 = 1_767_225_600_000;

/// A guest is in the schedule this long after it came into the roster.
const GRACE: Duration = Duration::from_secs(5);

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Number of guests.
    pub(crate) guests: usize,
    /// Faults and changes, one after the other.
    pub(crate) steps: usize,
}

/// Connects to the guests of the run.
struct SimulatedDial {
    guests: BTreeMap<String, Arc<Mutex<Guest>>>,
    trace: Trace,
}

impl Dial for SimulatedDial {
    fn dial<'a>(&'a self, address: &'a DialAddress) -> Dialing<'a> {
        Box::pin(async move {
            sleep(Duration::from_millis(1)).await;
            let name = address.to_string();
            let guest = &self.guests[name.trim_start_matches("unix:/")];
            let refused = || Failure::Unreachable("connection refused".into());
            guest::connect(guest, &self.trace).ok_or_else(refused)
        })
    }

    fn has_tls(&self) -> bool {
        false
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Everything in a run.
pub(crate) struct World {
    random: fastrand::Rng,
    trace: Trace,
    started: Instant,
    guests: BTreeMap<String, Arc<Mutex<Guest>>>,
    /// Guests that are in the roster.
    present: BTreeMap<String, bool>,
    roster: watch::Sender<KnownGuests>,
    roster_file: PathBuf,
    central: Central,
    disk: TornDisk,
    engine: Option<Engine>,
    /// Reads the roster again and again.
    reading: Option<AbortOnDrop>,
    /// When a guest came into the roster.
    listed_at: BTreeMap<String, Instant>,
    is_roster_whole: bool,
    /// Since when the sensor that runs could read the roster.
    read_since: Option<Instant>,
    /// How far the sensor's wall clock is from the world's, in milliseconds.
    skew: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

/// How a run ended.
pub(crate) struct Ended {
    /// Invariants that were broken, with the events that led there.
    pub(crate) broken: Vec<String>,
    /// Equal for two equal runs.
    pub(crate) hash: u64,
    /// Documents that Central took.
    pub(crate) taken: u32,
}

/// Runs the world of one seed.
pub(crate) async fn run(seed: u64, size: Size) -> Ended {
    // Jitter of the program comes from here, too: it all runs on this thread.
    fastrand::seed(seed);
    let mut world = World::new(seed, size.guests);
    for _ in 0..size.steps {
        world.check_schedule();
        world.check_nothing_lost();
        world.step();
        let pause = world.random.u64(..60_000);
        sleep(Duration::from_millis(pause)).await;
    }
    world.end().await
}

impl World {
    fn new(seed: u64, guests: usize) -> Self {
        let trace = Trace::new();
        // In memory, where there is such a place.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let now = WallTime::from_unix_ms(BEGINNING);
        let guests: BTreeMap<String, _> = (0..guests)
            .map(|n| format!("vm-{n}"))
            .map(|name| {
                let guest = Guest::new(&name, dir.path(), now);
                (name, Arc::new(Mutex::new(guest)))
            })
            .collect();
        let mut world = Self {
            random: fastrand::Rng::with_seed(seed),
            started: Instant::now(),
            present: guests.keys().map(|name| (name.clone(), true)).collect(),
            guests,
            roster: watch::channel(KnownGuests::default()).0,
            roster_file: dir.path().join("roster.toml"),
            central: Central::new(trace.clone()),
            disk: TornDisk::new(),
            engine: None,
            reading: None,
            listed_at: BTreeMap::new(),
            is_roster_whole: true,
            read_since: None,
            skew: Arc::default(),
            _dir: dir,
            trace,
        };
        world.write_roster();
        world.start_sensor();
        world
    }

    /// The time of day, as it is.
    fn now(&self) -> WallTime {
        let passed = u64::try_from(self.started.elapsed().as_millis()).unwrap();
        WallTime::from_unix_ms(BEGINNING + passed)
    }

    /// Writes the roster as it is.
    fn write_roster(&mut self) {
        self.is_roster_whole = true;
        self.read_since.get_or_insert(Instant::now());
        let there = self.present.iter().filter(|(_, is_there)| **is_there);
        let entry = |(name, _)| format!("[[vm]]\nid = \"{name}\"\naddress = \"unix:/{name}\"\n");
        let text: String = there.map(entry).collect();
        // Left out altogether, as somebody who has no guests writes it.
        let text = if text.is_empty() {
            "vm = []\n".to_owned()
        } else {
            text
        };
        self.replace_roster(text.as_bytes());
    }

    fn replace_roster(&self, text: &[u8]) {
        let _ = fs::remove_dir(&self.roster_file);
        fs::write(&self.roster_file, text).unwrap();
    }

    /// Makes the roster a file that cannot be read as what it was.
    fn break_roster(&mut self) -> &'static str {
        self.is_roster_whole = false;
        let whole = fs::read(&self.roster_file).unwrap_or_default();
        match self.random.u32(..4) {
            0 => {
                self.replace_roster(b"");
                "empty"
            }
            1 => {
                let half = &whole[..whole.len() / 2];
                self.replace_roster(&[half, b"\n[[vm"].concat());
                "half written"
            }
            2 => {
                let _ = fs::remove_file(&self.roster_file);
                let _ = fs::create_dir(&self.roster_file);
                "a directory"
            }
            _ => {
                self.replace_roster(b"[[vm]]\nid = \"vm-0\"\n\xff");
                "no text"
            }
        }
    }

    fn start_sensor(&mut self) {
        self.read_since = self.is_roster_whole.then(Instant::now);
        let store = Store::on_backend(self.disk.clone()).expect("a disk after a crash is a store");
        let (started, skew) = (self.started, self.skew.clone());
        let wall = WallClock::simulated(move || {
            let passed = i64::try_from(started.elapsed().as_millis()).unwrap();
            let now = BEGINNING.cast_signed() + passed + skew.load(Relaxed);
            WallTime::from_unix_ms(u64::try_from(now).unwrap_or(0))
        });
        // As after a start of the process: nothing is known of the sources, and they are read at once.
        let mut roster = Roster::new(vec![RosterSource::File(self.roster_file.clone())]);
        self.roster = watch::channel(roster.read()).0;
        let known = self.roster.clone();
        self.reading = Some(AbortOnDrop(tokio::spawn(async move {
            loop {
                sleep(Duration::from_secs(2)).await;
                let now = roster.read();
                known.send_if_modified(|before| {
                    let is_other = *before != now;
                    *before = now;
                    is_other
                });
            }
        })));
        let minute = Duration::from_secs(60);
        let engine = Engine::start(Parts {
            store: Arc::new(store),
            sink: Arc::new(self.central.clone()),
            dial: Arc::new(SimulatedDial {
                guests: self.guests.clone(),
                trace: self.trace.clone(),
            }),
            roster: self.roster.subscribe(),
            fleet: Some(FleetLimits::default()),
            policy: QueuePolicy::default(),
            timing: Timing::new(5 * minute, REFRESH),
            sensor_id: "sim".into(),
            blocking: Blocking::Inline,
            wall,
            metrics: Arc::new(Metrics::new()),
        });
        self.engine = Some(engine.expect("a disk after a crash can be read"));
    }

    /// Draws one event and lets it happen.
    fn step(&mut self) {
        let now = self.now();
        let n = self.random.usize(..self.guests.len());
        let (name, guest) = self.guests.iter().nth(n).unwrap();
        let (name, guest) = (name.clone(), guest.clone());
        let mut guest = guest.lock().unwrap();
        let event = match self.random.u32(..100) {
            0..40 => {
                guest.change(&mut self.random, now);
                "a package changed".to_owned()
            }
            40..45 => {
                guest.start_agent(now);
                "its agent restarted".to_owned()
            }
            45..50 => {
                guest.take_snapshot();
                guest.start_agent(now);
                "a snapshot was taken".to_owned()
            }
            50..58 => {
                if !guest.restore_snapshot(now) {
                    return;
                }
                // What changes before anybody asks again counts the same generations once more.
                let changes = self.random.u32(..3);
                for _ in 0..changes {
                    guest.change(&mut self.random, now);
                }
                format!("its snapshot was restored, and {changes} packages changed")
            }
            58..66 => {
                let all = [
                    Behaviour::Absent,
                    Behaviour::Hangs,
                    Behaviour::BreaksOff,
                    Behaviour::Stalls,
                    Behaviour::Well,
                ];
                guest.behaviour = all[self.random.usize(..all.len())];
                format!("it is {:?} now", guest.behaviour)
            }
            66..72 => {
                drop(guest);
                self.crash();
                return;
            }
            72..82 => {
                drop(guest);
                let all = [
                    Mode::Well,
                    Mode::Well,
                    Mode::Fails,
                    Mode::Absent,
                    Mode::Busy,
                    Mode::Unauthorized,
                    Mode::LosesAnswers,
                    Mode::Slow,
                ];
                let mode = all[self.random.usize(..all.len())];
                self.trace.event("central", &format!("it is {mode:?} now"));
                self.central.with(|state| state.mode = mode);
                return;
            }
            82..88 => {
                let is_on = self.random.bool();
                self.central.with(|state| match is_on {
                    true => state.refused.insert(name.clone()),
                    false => state.refused.remove(&name),
                });
                format!("its content is refused: {is_on}")
            }
            88..92 => {
                let is_on = self.random.bool();
                self.central.with(|state| match is_on {
                    true => state.forbidden.insert(name.clone()),
                    false => state.forbidden.remove(&name),
                });
                format!("it is forbidden: {is_on}")
            }
            92..94 => {
                let is_there = self.random.bool();
                self.present.insert(name.clone(), is_there);
                self.listed_at.insert(name.clone(), Instant::now());
                drop(guest);
                self.write_roster();
                self.trace
                    .event(&name, &format!("it is in the roster: {is_there}"));
                return;
            }
            94..96 => {
                drop(guest);
                let what = self.break_roster();
                self.trace.event("sensor", &format!("its roster is {what}"));
                return;
            }
            96..98 => {
                drop(guest);
                let is_full = self.random.bool();
                self.disk.set_full(is_full);
                self.trace
                    .event("sensor", &format!("its disk is full: {is_full}"));
                return;
            }
            _ => {
                let year: i64 = 365 * 86_400_000;
                let all = [0, 10 * year, -60 * year, 3_600_000, -3_600_000];
                let skew = all[self.random.usize(..all.len())];
                self.skew.store(skew, Relaxed);
                self.trace
                    .event("sensor", &format!("its clock is {skew} ms off"));
                return;
            }
        };
        self.trace.event(&name, &event);
    }

    /// Kills the sensor and its machine, and starts it on what the disk still has.
    fn crash(&mut self) {
        // A store that needs repair cannot be opened on a full disk: somebody makes room.
        self.disk.set_full(false);
        self.disk = self.disk.after_a_crash(&mut self.random);
        if let Some(engine) = self.engine.take() {
            engine.kill();
        }
        self.trace
            .event("sensor", "it crashed, and is started again");
        self.start_sensor();
    }

    /// Everything becomes well; after the quiet period Central must know what is installed.
    async fn end(mut self) -> Ended {
        self.trace.event("world", "everything is well from now on");
        for guest in self.guests.values() {
            guest.lock().unwrap().behaviour = Behaviour::Well;
        }
        self.central.with(|state| {
            state.mode = Mode::Well;
            state.refused.clear();
            state.forbidden.clear();
        });
        self.skew.store(0, Relaxed);
        for is_there in self.present.values_mut() {
            *is_there = true;
        }
        self.write_roster();
        self.disk.set_full(false);
        self.check_dead_letters();
        sleep(REFRESH + Duration::from_secs(360)).await;
        self.check_central();
        let (broken, taken) = self
            .central
            .with(|state| (state.broken.clone(), state.taken));
        if let Some(engine) = self.engine.take() {
            engine.stop().await;
        }
        Ended {
            broken,
            hash: self.trace.hash(),
            taken,
        }
    }

    /// Invariant 7: a guest of the roster is in the schedule, whatever became of the file meanwhile. What a
    /// sensor that started since could not read, it cannot know.
    fn check_schedule(&self) {
        let Some(engine) = &self.engine else { return };
        let table = engine.guests.lock().unwrap();
        for (name, is_there) in &self.present {
            let since = self.listed_at.get(name).copied().unwrap_or(self.started);
            let since = self.read_since.map(|read| read.max(since));
            let is_due = *is_there && since.is_some_and(|since| since.elapsed() > GRACE);
            if is_due && table.guest(&name.parse().unwrap()).is_none() {
                self.broken(
                    name,
                    "invariant 7: it is in the roster, and not in the schedule",
                );
            }
        }
    }

    /// Invariant 3: what the sensor knows of a guest and does not hold is at Central.
    fn check_nothing_lost(&self) {
        let Some(engine) = &self.engine else { return };
        let table = engine.guests.lock().unwrap();
        for (vm, known) in table.guests() {
            let guest = self.guests[vm.as_str()].lock().unwrap();
            let is_current = |digest| guest.digest() == Some(digest);
            let known = known.row.known.map(|known| known.digest);
            if known.is_some_and(is_current)
                && !engine.pending.has(vm)
                && self.central.packages_of(vm.as_str()).as_ref() != Some(&guest.packages)
            {
                self.broken(vm.as_str(), "invariant 3: it was pulled, and is nowhere");
            }
        }
    }

    /// Invariant 4: a dead letter only after two refusals of its content.
    fn check_dead_letters(&self) {
        let Some(engine) = &self.engine else { return };
        let state = engine.pending.state();
        let dead = state
            .queue()
            .slots()
            .filter(|(_, slot)| slot.state == State::Dead);
        for (vm, slot) in dead {
            let refusals = self
                .central
                .refusals_of(vm.as_str(), &slot.report.digest.to_string());
            if refusals < 2 {
                self.broken(
                    vm.as_str(),
                    &format!("invariant 4: dead after {refusals} refusals"),
                );
            }
        }
    }

    /// Invariant 2: Central's state of every guest equals what is installed.
    fn check_central(&self) {
        for (name, guest) in &self.guests {
            let installed = guest.lock().unwrap().packages.clone();
            let known = self.central.packages_of(name);
            if known.as_ref() != Some(&installed) {
                let vm: VmId = name.parse().unwrap();
                let engine = self.engine.as_ref().expect("it runs");
                let slot = engine.pending.state().queue().slot(&vm).cloned();
                let what = format!(
                    "invariant 2: Central has {known:?}, installed is {installed:?}; pending: {slot:?}"
                );
                self.broken(name, &what);
            }
        }
    }

    fn broken(&self, actor: &str, what: &str) {
        let events = self
            .trace
            .last_of(&[actor, "sensor", "world", "central  "], 40);
        let text = format!("{actor}: {what}\n{}", events.join("\n"));
        self.central.with(|state| state.broken.push(text));
    }
}
