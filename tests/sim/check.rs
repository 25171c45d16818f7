//! The invariants that are checked from outside, at every step or at the end; `docs/testing.md` lists all.

use crate::guest::Packages;
use crate::sensor::{POLL, Sensor};
use crate::world::World;
use afferent::clock;
use afferent::report::VmId;
use afferent::sense::engine::Engine;
use afferent::sense::queue::policy::{LONGEST_DEFERRAL, QueuePolicy};
use afferent::sense::queue::slot::State;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A guest is in the schedule this long after it came into the roster.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The breaker probes at least this often, whatever Central said before.
const RECOVERED: Duration = Duration::from_secs(330);

/// A document that may be sent is sent within this time, and that of a probe for each forbidden guest before it.
const STANDSTILL: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(10);

/// A change is scanned within this time, or its transaction is reported half done.
const SCANNED: Duration = Duration::from_secs(8 * 60);

/// Connections that one guest may see at a time: one, and those of sensors that it just left.
const STREAMS: usize = 3;

/// Bytes of a sensor's store beside what is pending, and for each guest.
const STORE: (usize, usize) = (4 << 20, 64 << 10);

/// Bytes of an agent's store: one small report.
const AGENT_STORE: usize = 4 << 20;

/// Whether a document of the guest waits in the queue of a sink.
fn is_pending(engine: &Engine, sink: usize, vm: &VmId) -> bool {
    let state = engine.sinks[sink].queue.state();
    state.queue().slot(vm).is_some()
}

impl World {
    /// What always holds.
    pub(crate) fn check(&self) {
        for sensor in &self.sensors {
            self.check_schedule(sensor);
            self.check_nothing_lost(sensor);
            self.check_waits(sensor);
            self.check_goes_on(sensor);
            self.check_attempts(sensor);
            self.check_bounds(sensor);
        }
        self.check_guests();
        self.check_dead_letters();
    }

    /// Invariant 7: a guest of the roster is in the schedule, whatever became of the file meanwhile. What a
    /// sensor that started since could not read, it cannot know.
    fn check_schedule(&self, sensor: &Sensor) {
        let Some(engine) = &sensor.engine else { return };
        let table = engine.guests.lock().unwrap();
        for (name, since) in &sensor.listed {
            let since = sensor.read_since.map(|read| read.max(*since));
            let is_due = since.is_some_and(|since| since.elapsed() > GRACE);
            if is_due && table.guest(&name.parse().unwrap()).is_none() {
                let what = "invariant 7: it is in the roster, and not in the schedule";
                self.central.broken(name, what);
            }
        }
    }

    /// Invariant 3: what the sensor knows of a guest and does not hold, it delivered.
    fn check_nothing_lost(&self, sensor: &Sensor) {
        let Some(engine) = &sensor.engine else { return };
        let table = engine.guests.lock().unwrap();
        for (vm, known) in table.guests() {
            let guest = self.guests[vm.as_str()].lock().unwrap();
            let is_current = |digest| guest.agent.digest() == Some(digest);
            let known = known.row.known.map(|known| known.digest);
            if !known.is_some_and(is_current) {
                continue;
            }
            for (n, sink) in self.sinks() {
                let delivered = sink.delivered(&sensor.name, vm.as_str());
                let is_there = is_pending(engine, n, vm) || delivered == guest.agent.found;
                if guest.agent.found.is_some() && !is_there {
                    let what = format!("invariant 3: it was pulled, and is nowhere for sink {n}");
                    self.central.broken(vm.as_str(), &what);
                }
            }
        }
    }

    /// Invariant 8: nothing waits longer than its rule says.
    fn check_waits(&self, sensor: &Sensor) {
        let Some(engine) = &sensor.engine else { return };
        let now = clock::now();
        let policy = QueuePolicy::default();
        let longest = LONGEST_DEFERRAL
            .max(policy.backoff.ceiling)
            .max(policy.forbidden.ceiling);
        let state = engine.sinks[0].queue.state();
        for (vm, slot) in state.queue().slots() {
            if let State::Backoff(until) = slot.state
                && until.saturating_duration_since(now) > longest
            {
                let wait = until.saturating_duration_since(now);
                let what = format!("invariant 8: its document waits for {wait:?}");
                self.central.broken(vm.as_str(), &what);
            }
        }
        drop(state);
        let table = engine.guests.lock().unwrap();
        for (vm, _) in table.guests() {
            let Some((_, Some(at))) = table.schedule.look(vm) else {
                continue;
            };
            let wait = at.saturating_duration_since(now);
            if wait > POLL {
                let what = format!("invariant 8: it is asked again in {wait:?}");
                self.central.broken(vm.as_str(), &what);
            }
        }
    }

    /// Invariant 8: while Central and the disk are well, what stands in the queue is sent. What Central holds
    /// against one guest is no reason for the others to wait.
    fn check_goes_on(&self, sensor: &Sensor) {
        let Some(engine) = &sensor.engine else { return };
        let is_well = |since: Option<Instant>| since.is_some_and(|it| it.elapsed() > RECOVERED);
        let is_well = is_well(*sensor.well_since.lock().unwrap())
            && is_well(self.central.with(|c| c.well_since));
        let forbidden = self.central.with(|central| central.forbidden.len());
        let longest = STANDSTILL + PROBE * u32::try_from(forbidden).unwrap();
        let state = engine.sinks[0].queue.state();
        let mut queued = sensor.queued.borrow_mut();
        let mut now = BTreeMap::new();
        for (vm, slot) in state.queue().slots() {
            if slot.state != State::Queued {
                continue;
            }
            let since = match queued.get(vm) {
                Some((place, since)) if *place == slot.place => *since,
                _ => Instant::now(),
            };
            if is_well && since.elapsed() > longest {
                let breaker = engine.sinks[0].breaker.lock().unwrap();
                let waits = since.elapsed();
                let what = format!("invariant 8: it is in the queue since {waits:?}: {breaker:?}");
                drop(breaker);
                self.central.broken(vm.as_str(), &what);
            }
            now.insert(vm.clone(), (slot.place, since));
        }
        *queued = now;
    }

    /// Invariant 4: nothing counts against a document but what Central answered.
    fn check_attempts(&self, sensor: &Sensor) {
        let Some(engine) = &sensor.engine else { return };
        let state = engine.sinks[0].queue.state();
        for (vm, slot) in state.queue().slots() {
            let failures = self.central.failures_of(vm.as_str());
            if slot.attempts > failures {
                let what = format!(
                    "invariant 4: {} attempts, and {failures} answers that count",
                    slot.attempts
                );
                self.central.broken(vm.as_str(), &what);
            }
        }
    }

    /// Invariant 9: rows, bytes and streams stay under their bounds.
    fn check_bounds(&self, sensor: &Sensor) {
        let Some(engine) = &sensor.engine else { return };
        let slots = engine.sinks[0].queue.state().queue().slots().count();
        let bytes = sensor.disk.size();
        let (base, each) = STORE;
        if slots > self.guests.len() || bytes > base + each * self.guests.len() {
            let what = format!("invariant 9: {slots} slots, {bytes} bytes of store");
            self.central.broken(&sensor.name, &what);
        }
    }

    fn check_guests(&self) {
        for (name, guest) in self.guests.iter() {
            let guest = guest.lock().unwrap();
            if guest
                .unscanned
                .is_some_and(|since| since.elapsed() > SCANNED)
            {
                let what = "invariant 8: a change is not scanned";
                self.central.broken(name, what);
            }
            if guest.was_hasty {
                let what = "invariant 6: a transaction is not waited for";
                self.central.broken(name, what);
            }
            let (streams, bytes) = (guest.open_streams(), guest.disk_bytes());
            if streams > STREAMS || bytes > AGENT_STORE {
                let what = format!("invariant 9: {streams} streams, {bytes} bytes of store");
                self.central.broken(name, &what);
            }
        }
    }

    /// Invariant 4: a dead letter only after two refusals of its content.
    fn check_dead_letters(&self) {
        for sensor in &self.sensors {
            let Some(engine) = &sensor.engine else {
                continue;
            };
            let state = engine.sinks[0].queue.state();
            let slots = state.queue().slots();
            for (vm, slot) in slots.filter(|(_, slot)| slot.state == State::Dead) {
                let digest = slot.report.digest.to_string();
                let refusals = self.central.refusals_of(vm.as_str(), &digest);
                if refusals < 2 {
                    let what = format!("invariant 4: dead after {refusals} refusals");
                    self.central.broken(vm.as_str(), &what);
                }
            }
        }
    }

    /// Invariant 2, soon after the last trouble: what a sensor takes for delivered is what is installed. Agents
    /// of other generations cannot always tell, until they are asked for everything.
    pub(crate) fn check_settled(&self) {
        for sensor in &self.sensors {
            let Some(engine) = &sensor.engine else {
                continue;
            };
            for name in sensor.listed.keys() {
                let vm: VmId = name.parse().unwrap();
                let guest = self.guests[name].lock().unwrap();
                for (n, sink) in self.sinks() {
                    let delivered = sink.delivered(&sensor.name, name);
                    let is_other = delivered.as_ref() != Some(&guest.packages);
                    if is_other && !is_pending(engine, n, &vm) {
                        let (kind, installed) = (guest.kind, &guest.packages);
                        let what = format!(
                            "invariant 2: {} takes {delivered:?} for what is installed at sink {n}, which is {installed:?} ({kind:?})",
                            sensor.name
                        );
                        self.central.broken(name, &what);
                    }
                }
            }
        }
    }

    /// Invariant 2: the state of every guest at each sink equals what is installed.
    pub(crate) fn check_central(&self) {
        for (name, guest) in self.guests.iter() {
            let installed = guest.lock().unwrap().packages.clone();
            for (n, sink) in self.sinks() {
                let known = sink.packages_of(name);
                if known.as_ref() != Some(&installed) {
                    self.report_other(n, name, &known, &installed);
                }
            }
        }
    }

    fn report_other(&self, n: usize, name: &str, known: &Option<Packages>, installed: &Packages) {
        let vm: VmId = name.parse().unwrap();
        let slots = self.sensors.iter().filter_map(|sensor| {
            let engine = sensor.engine.as_ref()?;
            engine.sinks[n].queue.state().queue().slot(&vm).cloned()
        });
        let what = format!(
            "invariant 2: sink {n} has {known:?}, installed is {installed:?}; pending: {:?}",
            slots.collect::<Vec<_>>()
        );
        self.central.broken(name, &what);
    }
}
