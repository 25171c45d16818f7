//! A sensor that runs in the search, one step after the other, and what is checked after each.

use super::doubles::{Guest, Guests, HeldSink, Machine, Said, SinkState, Taken, digest_of};
use crate::guest::wall;
use crate::order::keeps;
use crate::torn_disk::TornDisk;
use afferent::blocking::Blocking;
use afferent::clock::{self, WallClock};
use afferent::report::VmId;
use afferent::sense::SinkName;
use afferent::sense::engine::{Engine, Parts, SinkParts};
use afferent::sense::metrics::Metrics;
use afferent::sense::pull::schedule::Timing;
use afferent::sense::queue::policy::QueuePolicy;
use afferent::sense::queue::slot::State;
use afferent::sense::queue::table::QueuePlace;
use afferent::sense::roster::{KnownGuests, RosterEntry};
use afferent::store::Store;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Everything that can happen without time has happened.
const STILL: Duration = Duration::from_millis(2);

/// Longer than the pause before a refused guest is pulled again, and than any between two probes.
pub(super) const SHORT: Duration = Duration::from_secs(12);

/// Longer than any backoff.
const LONG: Duration = Duration::from_secs(310);

/// After so long without trouble everything has arrived: what was deferred waits for an hour where the clock went
/// back and the sensor was started anew.
const QUIET: Duration = Duration::from_secs(75 * 60);

/// How far a clock goes back.
const BACK: i64 = 3_600_000;

/// How often something happened, or may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Contents of each guest.
    pub(super) contents: u32,
    /// Returns to a snapshot.
    pub(super) returns: u32,
    /// Answers of sinks that are no success.
    pub(super) faults: u32,
    pub(super) crashes: u32,
    /// Times that the disk is full.
    pub(super) full: u32,
    /// Times that the clock goes back.
    pub(super) clocks: u32,
}

/// What is searched.
#[derive(Clone)]
pub(super) struct Bounds {
    pub(super) name: &'static str,
    pub(super) guests: usize,
    pub(super) sinks: usize,
    pub(super) most: Counts,
    pub(super) said: &'static [Said],
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Change(usize),
    Return(usize),
    /// A guest answers what it was asked.
    Answer(usize),
    /// A sink takes the document of a guest, and answers later.
    Take(usize, usize),
    Say(usize, usize, Said),
    /// Time passes, in which guests answer by themselves.
    Pass(Duration),
    DiskIsFull(bool),
    ClockBack,
    Crash,
}

/// What a crash leaves.
pub(super) struct Checkpoint {
    disk: TornDisk,
    machines: Vec<Machine>,
    taken: Vec<Taken>,
    used: Counts,
    /// Milliseconds that the clock is ahead of that of the runtime.
    skew: i64,
}

impl Checkpoint {
    /// Before the first start.
    pub(super) fn new(bounds: &Bounds) -> Self {
        let disk = TornDisk::new();
        drop(Store::on_backend(disk.clone()).unwrap());
        Self {
            disk: disk.copy(),
            machines: vec![Machine::new(); bounds.guests],
            taken: vec![Taken::default(); bounds.sinks],
            used: Counts::default(),
            skew: 0,
        }
    }
}

/// A sensor that runs.
pub(super) struct Live<'b> {
    bounds: &'b Bounds,
    pub(super) guests: Guests,
    pub(super) sinks: Vec<Arc<Mutex<SinkState>>>,
    pub(super) engine: Engine,
    pub(super) store: Arc<Store>,
    pub(super) disk: TornDisk,
    pub(super) used: Counts,
    pub(super) is_full: bool,
    pub(super) broken: Vec<String>,
    pub(super) wall: WallClock,
    skew: Arc<AtomicI64>,
    started: Instant,
    _roster: watch::Sender<KnownGuests>,
}

pub(super) fn vm(n: usize) -> VmId {
    format!("vm-{n}").parse().unwrap()
}

impl<'b> Live<'b> {
    /// The sensor starts on what a crash left.
    pub(super) async fn start(bounds: &'b Bounds, from: &Checkpoint) -> Self {
        fastrand::seed(1);
        let (started, skew) = (Instant::now(), Arc::new(AtomicI64::new(from.skew)));
        let disk = from.disk.copy();
        let store = Arc::new(Store::on_backend(disk.clone()).expect("a store after a crash opens"));
        let machines = from.machines.iter().map(|machine| Guest {
            machine: machine.clone(),
            asking: None,
            may_answer: false,
        });
        let guests = Guests {
            all: Arc::new(Mutex::new(machines.collect())),
            answers: watch::channel(false).0,
        };
        let entry = |n: usize| {
            let entry = RosterEntry {
                vm: vm(n),
                address: format!("unix:/vm-{n}").parse().unwrap(),
                guest_id: None,
                domain: None,
                run: None,
                idle: None,
                facts: None,
            };
            (vm(n), Arc::new(entry))
        };
        let (roster, subscriber) = watch::channel(KnownGuests {
            guests: (0..bounds.guests).map(entry).collect(),
            is_complete: true,
        });
        let sinks: Vec<_> = from
            .taken
            .iter()
            .map(|taken| {
                let taken = taken.clone();
                Arc::new(Mutex::new(SinkState {
                    taken,
                    ..SinkState::default()
                }))
            })
            .collect();
        let parts = sinks.iter().enumerate().map(|(n, state)| {
            let name = match n {
                0 => SinkName::default(),
                n => format!("sink-{n}").parse().unwrap(),
            };
            SinkParts {
                name: name.clone(),
                sink: Arc::new(HeldSink {
                    name,
                    state: state.clone(),
                    disk: disk.clone(),
                }),
                // One on its way, so that another waits in the queue.
                policy: QueuePolicy {
                    in_flight: 1,
                    priorities: 100,
                    ..QueuePolicy::default()
                },
            }
        });
        let mut timing = Timing::new(Duration::from_secs(300), Duration::from_secs(3_600_000));
        timing.wait = Duration::from_secs(3000);
        let wall = {
            let skew = skew.clone();
            WallClock::simulated(move || wall(started, skew.load(Relaxed)))
        };
        let engine = Engine::start(Parts {
            store: store.clone(),
            sinks: parts.collect(),
            dial: Arc::new(guests.clone()),
            roster: subscriber,
            fleet: None,
            timing: timing.with_spread(false),
            mapping: None,
            sensor_id: "search".into(),
            blocking: Blocking::Inline,
            wall: wall.clone(),
            metrics: Arc::new(Metrics::new()),
        });
        let engine = engine.expect("a disk after a crash can be read");
        sleep(STILL).await;
        Self {
            bounds,
            guests,
            sinks,
            engine,
            store,
            disk,
            used: from.used,
            is_full: false,
            broken: Vec::new(),
            wall,
            skew,
            started,
            _roster: roster,
        }
    }

    /// What may happen next.
    pub(super) fn enabled(&self) -> Vec<Step> {
        let (most, used) = (&self.bounds.most, &self.used);
        let mut steps = Vec::new();
        let mut waits = false;
        for (n, guest) in self.guests.all.lock().unwrap().iter().enumerate() {
            if guest.machine.made < most.contents {
                steps.push(Step::Change(n));
            }
            if used.returns < most.returns && guest.machine.generation > 1 {
                steps.push(Step::Return(n));
            }
            if guest.asking.is_some_and(|asking| asking.is_due) {
                steps.push(Step::Answer(n));
            }
            waits |= guest.asking.is_none();
        }
        for (s, sink) in self.sinks.iter().enumerate() {
            for (n, document) in &sink.lock().unwrap().in_flight {
                let (n, may_fail) = (*n, used.faults < most.faults);
                if document.is_taken {
                    steps.push(Step::Say(n, s, Said::Ok));
                } else {
                    steps.push(Step::Take(n, s));
                }
                let said = self.bounds.said.iter().filter(|_| may_fail);
                let said = said.filter(|said| (**said == Said::NoAnswer) == document.is_taken);
                steps.extend(said.map(|said| Step::Say(n, s, *said)));
            }
            let running = &self.engine.sinks[s];
            let state = running.queue.state();
            waits |= state
                .queue()
                .slots()
                .any(|(_, slot)| matches!(slot.state, State::Queued | State::Backoff(_)));
        }
        if waits {
            steps.extend([Step::Pass(SHORT), Step::Pass(LONG)]);
        }
        if self.is_full || used.full < most.full {
            steps.push(Step::DiskIsFull(!self.is_full));
        }
        if used.clocks < most.clocks {
            steps.push(Step::ClockBack);
        }
        if used.crashes < most.crashes {
            steps.push(Step::Crash);
        }
        steps
    }

    /// Lets something happen that is no crash; gives the number of syncs of the disk in it.
    pub(super) async fn step(&mut self, step: Step) -> usize {
        let before = self.disk.syncs();
        let mut place = None;
        match step {
            Step::Change(n) => self.machine(n, Machine::change),
            Step::Return(n) => {
                self.used.returns += 1;
                self.machine(n, Machine::go_back);
            }
            Step::Answer(n) => {
                self.guests.all.lock().unwrap()[n].may_answer = true;
                self.guests.wake();
            }
            Step::Take(n, s) => self.sinks[s].lock().unwrap().take(n),
            Step::Say(n, s, said) => {
                self.used.faults += u32::from(said != Said::Ok);
                if said == Said::Absent {
                    place = self.place(n, s).map(|place| (n, s, place));
                }
                self.sinks[s].lock().unwrap().say(n, said);
            }
            Step::Pass(time) => {
                self.guests.answers.send_replace(true);
                sleep(time).await;
                sleep(STILL).await;
                self.guests.answers.send_replace(false);
            }
            Step::DiskIsFull(is_full) => {
                self.used.full += u32::from(is_full);
                self.is_full = is_full;
                self.disk.set_full(is_full);
            }
            Step::ClockBack => {
                self.used.clocks += 1;
                self.skew.fetch_sub(BACK, Relaxed);
            }
            Step::Crash => unreachable!("a crash ends it"),
        }
        sleep(STILL).await;
        if let Some((n, s, before)) = place
            && let now = self.place(n, s)
            && !now.is_some_and(|now| keeps(before, now))
        {
            let what = format!("invariant 5: vm-{n} was not sent, and lost {before:?} for {now:?}");
            self.broken.push(what);
        }
        self.disk.syncs() - before
    }

    fn machine(&self, n: usize, change: impl FnOnce(&mut Machine)) {
        change(&mut self.guests.all.lock().unwrap()[n].machine);
        self.guests.wake();
    }

    fn place(&self, n: usize, s: usize) -> Option<QueuePlace> {
        let state = self.engine.sinks[s].queue.state();
        let slot = state.queue().slot(&vm(n));
        slot.map(|slot| slot.place)
    }

    /// The sensor and its machine die; what was not synced is lost.
    pub(super) fn crash(mut self) -> (Checkpoint, Vec<String>) {
        self.collect();
        self.used.crashes += 1;
        let guests = self.guests.all.lock().unwrap();
        let machines = guests.iter().map(|guest| guest.machine.clone());
        let taken = self
            .sinks
            .iter()
            .map(|sink| sink.lock().unwrap().taken.clone());
        let passed = i64::try_from(self.started.elapsed().as_millis()).unwrap();
        let checkpoint = Checkpoint {
            disk: self.disk.copy(),
            machines: machines.collect(),
            taken: taken.collect(),
            used: self.used,
            skew: self.skew.load(Relaxed) + passed,
        };
        drop(guests);
        self.engine.kill();
        (checkpoint, self.broken)
    }

    /// What sinks found broken.
    fn collect(&mut self) {
        for sink in &self.sinks {
            self.broken.append(&mut sink.lock().unwrap().broken);
        }
    }

    /// Checks what holds in every state.
    pub(super) fn check(&mut self) {
        self.collect();
        let mut broken = Vec::new();
        for (s, sink) in self.sinks.iter().enumerate() {
            let sink = sink.lock().unwrap();
            let state = self.engine.sinks[s].queue.state();
            for n in 0..self.bounds.guests {
                let vm = vm(n);
                let last = sink
                    .taken
                    .last
                    .get(&n)
                    .map(|(_, content)| digest_of(*content));
                let Some(slot) = state.queue().slot(&vm) else {
                    let table = self.engine.guests.lock().unwrap();
                    let known = table.guest(&vm).and_then(|guest| guest.row.known);
                    if known.is_some_and(|known| Some(known.digest) != last) {
                        broken.push(format!(
                            "invariant 3: {vm} was pulled, and is nowhere for sink {s}"
                        ));
                    }
                    continue;
                };
                let stored = self.engine.sinks[s].queue.read(&vm).ok().flatten();
                let stored = stored.and_then(|stored| Some(stored.open(&vm).ok()?.digest));
                // A store that met a full disk is read again when there is room.
                if !self.is_full && stored != Some(slot.newest().digest) {
                    broken.push(format!(
                        "invariant 3: what sink {s} lacks of {vm} is not on the disk"
                    ));
                }
                let failures = sink.taken.failures.get(&n).copied().unwrap_or(0);
                if slot.attempts > failures {
                    broken.push(format!(
                        "invariant 4: {} attempts of {vm}, and {failures} answers that count",
                        slot.attempts
                    ));
                }
                let refusals = sink.taken.refusals.iter();
                let refusals = refusals.filter(|((of, content), _)| {
                    *of == n && digest_of(*content) == slot.report.digest
                });
                let refusals: u32 = refusals.map(|(_, count)| *count).sum();
                if slot.state == State::Dead && refusals < 2 {
                    broken.push(format!(
                        "invariant 4: {vm} is dead after {refusals} refusals"
                    ));
                }
            }
        }
        self.broken.append(&mut broken);
    }

    /// Everything is well from now on: every sink gets what is installed, but for dead letters.
    pub(super) async fn check_quiet(&mut self) {
        self.disk.set_full(false);
        self.is_full = false;
        self.guests.answers.send_replace(true);
        for sink in &self.sinks {
            let mut sink = sink.lock().unwrap();
            sink.is_free = true;
            let on_their_way: Vec<usize> = sink.in_flight.keys().copied().collect();
            for n in on_their_way {
                if !sink.in_flight[&n].is_taken {
                    sink.take(n);
                }
                sink.say(n, Said::Ok);
            }
        }
        sleep(QUIET).await;
        self.check();
        let guests = self.guests.all.lock().unwrap();
        for (s, sink) in self.sinks.iter().enumerate() {
            let sink = sink.lock().unwrap();
            let state = self.engine.sinks[s].queue.state();
            for (n, guest) in guests.iter().enumerate() {
                let slot = state.queue().slot(&vm(n));
                let last = sink.taken.last.get(&n).map(|(_, content)| *content);
                let is_dead = slot.is_some_and(|slot| {
                    slot.state == State::Dead
                        && slot.report.digest == digest_of(guest.machine.content)
                });
                if !is_dead && (slot.is_some() || last != Some(guest.machine.content)) {
                    let installed = guest.machine.content;
                    self.broken.push(format!("invariant 2: sink {s} has {last:?} of vm-{n}, installed is {installed}; pending: {slot:?}"));
                }
            }
        }
    }

    /// A time that has passed, in words that are equal in states that go on alike.
    pub(super) fn wait_class(wait: Duration) -> &'static str {
        match wait {
            Duration::ZERO => "over",
            wait if wait <= SHORT => "short",
            _ => "long",
        }
    }

    /// Ends the sensor.
    pub(super) fn end(self) -> Vec<String> {
        self.engine.kill();
        self.broken
    }

    pub(super) fn until(at: std::time::Instant) -> &'static str {
        Self::wait_class(at.saturating_duration_since(clock::now()))
    }
}
