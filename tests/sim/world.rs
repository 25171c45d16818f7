//! One run: guests, sensors, Central, and a plan that is played.

use crate::central::{Central, Mode};
use crate::guest::{self, Behaviour, Guest, SharedGuest};
use crate::plan::{Event, Size, Step};
use crate::sensor::Sensor;
use crate::trace::Trace;
use afferent::sense::queue::policy::LONGEST_DEFERRAL;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The refresh interval: short, so that the quiet period at the end is short, too; and no shorter than the
/// longest time for which Central may defer a document.
pub(crate) const REFRESH: Duration = LONGEST_DEFERRAL;

/// After so long without trouble, what a sensor takes for delivered is what is installed.
pub(crate) const SETTLED: Duration = Duration::from_secs(12 * 60);

/// The quiet period. What a sensor held back while its clock was years ahead goes within the longest deferral,
/// with a time that Central takes for that of its arrival: until the refresh an older report stands there.
const QUIET: Duration = Duration::from_secs(LONGEST_DEFERRAL.as_secs() + REFRESH.as_secs() + 360);

/// How a run ended.
pub(crate) struct Ended {
    /// Invariants that were broken, with the events that led there.
    pub(crate) broken: Vec<String>,
    /// Equal for two equal runs.
    pub(crate) hash: u64,
    /// Documents that Central took.
    pub(crate) taken: u32,
    /// Documents of which the change logs of the fleet stores still had the packages.
    pub(crate) replayed: usize,
    /// Everything that happened.
    pub(crate) trace: String,
}

/// Everything in a run.
pub(crate) struct World {
    pub(crate) trace: Trace,
    pub(crate) guests: Arc<BTreeMap<String, SharedGuest>>,
    pub(crate) sensors: Vec<Sensor>,
    /// The sensor of each guest, whether it is in the roster or not.
    home: BTreeMap<String, usize>,
    pub(crate) central: Central,
    /// The second sink of every sensor: what happens to Central happens to it afterwards.
    pub(crate) second: Central,
    _dir: tempfile::TempDir,
}

/// Plays the plan of one seed.
pub(crate) async fn run(seed: u64, size: Size, plan: Vec<Step>) -> Ended {
    // Jitter of the program comes from here, too: it all runs on this thread.
    fastrand::seed(seed);
    let mut world = World::new(size);
    for Step { pause, seed, event } in plan {
        sleep(pause).await;
        world.check();
        let random = fastrand::Rng::with_seed(seed);
        world.play(random, event);
        // The first broken invariant is the one to look at.
        if world.is_broken() {
            break;
        }
    }
    world.end().await
}

impl World {
    fn new(size: Size) -> Self {
        let trace = Trace::new();
        // In memory, where there is such a place.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let started = Instant::now();
        let guests: BTreeMap<String, _> = (0..size.guests)
            .map(|n| format!("vm-{n}"))
            .map(|name| (name.clone(), Guest::new(&name, started)))
            .collect();
        let home: BTreeMap<_, _> = guests
            .keys()
            .enumerate()
            .map(|(n, name)| (name.clone(), n % size.sensors))
            .collect();
        let guests = Arc::new(guests);
        let (central, second) = (Central::new(trace.clone()), Central::new(trace.clone()));
        let sensors = (0..size.sensors).map(|n| {
            let of = |(name, at): (&String, &usize)| (*at == n).then(|| name.clone());
            let listed: BTreeSet<String> = home.iter().filter_map(of).collect();
            let (sinks, trace) = ([central.clone(), second.clone()], trace.clone());
            let name = format!("sensor-{n}");
            Sensor::new(&name, dir.path(), guests.clone(), sinks, trace, listed)
        });
        Self {
            sensors: sensors.collect(),
            guests,
            home,
            central,
            second,
            _dir: dir,
            trace,
        }
    }

    /// Name and state of a guest.
    fn guest(&self, n: usize) -> (&String, &SharedGuest) {
        self.guests.iter().nth(n).unwrap()
    }

    /// Lets a step happen.
    fn play(&mut self, mut random: fastrand::Rng, event: Event) {
        match event {
            Event::Crash { .. }
            | Event::Disk { .. }
            | Event::Roster { .. }
            | Event::SensorClock { .. }
            | Event::Listed { .. }
            | Event::Move { .. } => self.play_sensor(random, event),
            Event::Central { mode, time } => self.central_is(mode, time),
            Event::Refuse { guest, is_on } => {
                let name = self.guest(guest).0.clone();
                self.trace
                    .event(&name, &format!("its content is refused: {is_on}"));
                self.central.with(|state| match is_on {
                    true => state.refused.insert(name),
                    false => state.refused.remove(&name),
                });
            }
            Event::Forbid { guest, is_on } => {
                let name = self.guest(guest).0.clone();
                self.trace
                    .event(&name, &format!("it is forbidden: {is_on}"));
                self.central.with(|state| match is_on {
                    true => state.forbidden.insert(name),
                    false => state.forbidden.remove(&name),
                });
            }
            Event::Wave { guests } => self.wave(&mut random, guests),
            Event::Backlog {
                sensor,
                guests,
                time,
            } => {
                self.central_is(Mode::Absent, time / 2);
                self.wave(&mut random, guests);
                let (name, disk) = self.sensors[sensor].disk_of();
                let trace = self.trace.clone();
                tokio::spawn(async move {
                    sleep(Duration::from_secs(2)).await;
                    trace.event(&name, &format!("its disk is full for {time:.0?}"));
                    Sensor::fill(disk, time).await;
                });
            }
            event => self.play_guest(random, event),
        }
    }

    fn central_is(&self, mode: Mode, time: Duration) {
        let what = format!("it is {mode:?} for {time:.0?}");
        self.trace.event("central", &what);
        self.central.set_mode(mode);
        let (central, second) = (self.central.clone(), self.second.clone());
        tokio::spawn(async move {
            sleep(time).await;
            central.set_mode(Mode::Well);
            second.set_mode(mode);
            sleep(time).await;
            second.set_mode(Mode::Well);
        });
    }

    /// Both sinks, with the place of their queue.
    pub(crate) fn sinks(&self) -> impl Iterator<Item = (usize, &Central)> {
        [&self.central, &self.second].into_iter().enumerate()
    }

    fn is_broken(&self) -> bool {
        self.sinks()
            .any(|(_, sink)| sink.with(|state| !state.broken.is_empty()))
    }

    fn wave(&self, random: &mut fastrand::Rng, guests: usize) {
        let what = format!("{guests} guests are upgraded");
        self.trace.event("world", &what);
        let first = random.usize(..self.guests.len());
        for n in 0..guests {
            let (_, guest) = self.guest((first + n) % self.guests.len());
            guest.lock().unwrap().install(random);
        }
    }

    fn play_guest(&mut self, mut random: fastrand::Rng, event: Event) {
        let (n, said) = match &event {
            Event::Change { guest } => (*guest, "a package changes".into()),
            Event::Transaction {
                guest,
                packages,
                ending,
                ..
            } => (
                *guest,
                format!("a transaction of {packages} packages {ending:?}"),
            ),
            Event::Mapping { guest, .. } => (*guest, "a package changes, then the mapping".into()),
            Event::Rebuild { guest } => (*guest, "its database is rebuilt".into()),
            Event::Restart { guest, changes } => (
                *guest,
                format!("its agent restarts, {changes} packages change"),
            ),
            Event::Reboot { guest } => (*guest, "it loses power and boots".into()),
            Event::Snapshot { guest } => (*guest, "a snapshot is taken".into()),
            Event::Restore {
                guest,
                changes,
                is_fresh,
            } => {
                let what = match is_fresh {
                    true => "a snapshot is taken, packages change, and then",
                    false => "",
                };
                let what = format!("{what} its snapshot is restored, {changes} packages change");
                (*guest, what.trim_start().to_owned())
            }
            Event::Clone {
                guest,
                of,
                keeps_id,
            } => (
                *guest,
                format!("it is a copy of vm {of}, same id: {keeps_id}"),
            ),
            Event::Install { guest, kind } => (*guest, format!("its agent is {kind:?} now")),
            Event::GuestClock { guest, ms } => (*guest, format!("its clock is {ms} ms off")),
            Event::Behave { guest, as_if, time } => {
                (*guest, format!("it is {as_if:?} for {time:.0?}"))
            }
            other => unreachable!("{other:?} is of no guest"),
        };
        let (name, shared) = self.guest(n);
        let shared = shared.clone();
        self.trace.event(name, &said);
        let mut guest = shared.lock().unwrap();
        match event {
            Event::Change { .. } => guest.install(&mut random),
            Event::Rebuild { .. } => guest.rebuild(),
            Event::Snapshot { .. } => guest.take_snapshot(),
            Event::GuestClock { ms, .. } => guest.set_clock(ms),
            Event::Behave { as_if, time, .. } => {
                guest.behaviour = as_if;
                drop(guest);
                tokio::spawn(async move {
                    sleep(time).await;
                    shared.lock().unwrap().behaviour = Behaviour::Well;
                });
            }
            Event::Mapping { pause, .. } => {
                guest.install(&mut random);
                drop(guest);
                tokio::spawn(async move {
                    sleep(pause).await;
                    shared.lock().unwrap().map();
                });
            }
            event => {
                drop(guest);
                self.befall(&shared, random, event);
            }
        }
    }

    /// What happens to a machine as a whole, or takes time.
    fn befall(&self, shared: &SharedGuest, mut random: fastrand::Rng, event: Event) {
        match event {
            Event::Transaction {
                packages,
                pause,
                ending,
                ..
            } => guest::transact(shared, random, packages, pause, ending),
            Event::Restart { changes, .. } => {
                guest::restart(shared);
                let shared = shared.clone();
                tokio::spawn(async move {
                    for _ in 0..changes {
                        sleep(Duration::from_millis(500)).await;
                        shared.lock().unwrap().install(&mut random);
                    }
                });
            }
            Event::Reboot { .. } => guest::reboot(shared, &mut random),
            Event::Restore {
                changes, is_fresh, ..
            } => {
                let shared = shared.clone();
                tokio::spawn(guest::restore_again(shared, random, changes, is_fresh));
            }
            Event::Clone {
                guest,
                of,
                keeps_id,
            } => {
                if guest != of {
                    let id = (!keeps_id).then(|| format!("clone-{}", random.u32(..)));
                    guest::clone_from(shared, self.guest(of).1, id);
                }
            }
            Event::Install { kind, .. } => guest::install_agent(shared, kind),
            other => unreachable!("{other:?} is of no machine"),
        }
    }

    fn play_sensor(&mut self, mut random: fastrand::Rng, event: Event) {
        let (n, said) = match event {
            Event::Crash { sensor } => {
                self.sensors[sensor].crash(&mut random);
                (sensor, "it crashed, and is started again".into())
            }
            Event::Disk { sensor, time } => {
                let (_, disk) = self.sensors[sensor].disk_of();
                tokio::spawn(Sensor::fill(disk, time));
                (sensor, format!("its disk is full for {time:.0?}"))
            }
            Event::Roster { sensor, how } => {
                self.sensors[sensor].break_roster(how);
                (sensor, format!("its roster is {how:?}"))
            }
            Event::SensorClock { sensor, ms } => {
                self.sensors[sensor].set_clock(ms);
                (sensor, format!("its clock is {ms} ms off"))
            }
            Event::Listed { guest, is_there } => {
                let name = self.guest(guest).0.clone();
                let sensor = self.home[&name];
                self.list(&name, is_there);
                (sensor, format!("{name} is in its roster: {is_there}"))
            }
            Event::Move { guest, to } => {
                let name = self.guest(guest).0.clone();
                self.list(&name, false);
                self.home.insert(name.clone(), to);
                self.list(&name, true);
                (to, format!("{name} moves to it"))
            }
            other => unreachable!("{other:?} is of no sensor"),
        };
        self.trace.event(&self.sensors[n].name, &said);
    }

    fn list(&mut self, name: &str, is_there: bool) {
        let sensor = &mut self.sensors[self.home[name]];
        sensor.list(name, is_there);
        sensor.write_roster();
    }

    /// Everything becomes well; after the quiet period Central must know what is installed.
    async fn end(mut self) -> Ended {
        let mut replayed = 0;
        if !self.is_broken() {
            self.check();
            self.be_well();
            sleep(SETTLED).await;
            self.check();
            self.check_settled();
            sleep(QUIET - SETTLED).await;
            self.check();
            self.check_central();
            self.check_fleet();
            replayed = self.check_fleet_history();
        }
        for sensor in &mut self.sensors {
            if let Some(engine) = sensor.engine.take() {
                engine.kill();
            }
        }
        let (mut broken, mut taken) = (Vec::new(), 0);
        for (_, sink) in self.sinks() {
            sink.with(|state| {
                broken.append(&mut state.broken);
                taken += state.taken;
            });
        }
        Ended {
            broken,
            hash: self.trace.hash(),
            taken,
            replayed,
            trace: self.trace.text(),
        }
    }

    fn be_well(&mut self) {
        self.trace.event("world", "everything is well from now on");
        for guest in self.guests.values() {
            let mut guest = guest.lock().unwrap();
            guest.behaviour = Behaviour::Well;
            guest.set_clock(0);
            guest.end_transaction();
        }
        self.central.set_mode(Mode::Well);
        // What was to come for it afterwards comes before this, or not at all.
        self.second.retire_modes();
        self.central.with(|state| {
            state.refused.clear();
            state.forbidden.clear();
        });
        for sensor in &mut self.sensors {
            sensor.set_clock(0);
            sensor.make_room();
        }
        for name in self.home.keys().cloned().collect::<Vec<_>>() {
            self.list(&name, true);
        }
    }
}
