//! A state as text: equal for states from which the same may happen. Numbers that only grow (places, times) are
//! replaced by their order, or by how long they still hold.

use super::live::{Live, vm};
use afferent::sense::queue::slot::State;
use afferent::sense::queue::table::{self, DocumentId, QueuePlace};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// The order of places.
struct Order(BTreeSet<u64>);

impl Order {
    fn of(places: impl Iterator<Item = QueuePlace>) -> Self {
        Self(
            places
                .flat_map(|place| [place.reactive, place.routine])
                .flatten()
                .collect(),
        )
    }

    fn rank(&self, place: QueuePlace) -> [Option<usize>; 2] {
        let rank = |seq: Option<u64>| seq.map(|seq| self.0.range(..seq).count());
        [rank(place.reactive), rank(place.routine)]
    }
}

fn name(id: DocumentId) -> String {
    let facts = id.facts.is_some();
    format!("{} {} {facts}", id.key, id.digest.short())
}

/// Without points in time.
fn timeless(text: &str) -> String {
    let mut parts = text.split("Instant {");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + part.split_once('}').map_or("", |(_, rest)| rest)
    })
}

impl Live<'_> {
    /// The number of the state.
    pub(super) fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.text().hash(&mut hasher);
        hasher.finish()
    }

    /// The state.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{:?} full {}\n", self.used, self.is_full);
        let table = self.engine.guests.lock().unwrap();
        for (n, guest) in self.guests.all.lock().unwrap().iter().enumerate() {
            let known = table.guest(&vm(n)).unwrap();
            let look = table.schedule.look(&vm(n));
            let look = look.map(|(failures, at)| (failures, at.map(Self::until)));
            let (machine, asking, failure) = (&guest.machine, guest.asking, &known.failure);
            let row = (known.row.known.map(name), &known.row.echo, known.row.waits);
            let _ = writeln!(
                text,
                "{n}: {machine:?} {asking:?} {row:?} {look:?} {failure:?}"
            );
        }
        drop(table);
        for (s, sink) in self.sinks.iter().enumerate() {
            let running = &self.engine.sinks[s];
            let sink = sink.lock().unwrap();
            let in_flight = sink.in_flight.iter();
            let in_flight: Vec<_> = in_flight
                .map(|(n, it)| (n, it.content, it.is_taken))
                .collect();
            let breaker = timeless(&format!("{:?}", running.breaker.lock().unwrap()));
            let gate = running
                .breaker
                .lock()
                .unwrap()
                .gate(afferent::clock::now(), 0);
            let gate = match gate {
                afferent::sense::deliver::breaker::BreakerGate::Shut(until) => Self::until(until),
                _ => "open",
            };
            let _ = writeln!(
                text,
                "sink {s}: {} {in_flight:?} {breaker} {gate}",
                sink.taken.print()
            );
            let state = running.queue.state();
            let order = Order::of(state.queue().slots().map(|(_, slot)| slot.place));
            for n in 0..self.guests.all.lock().unwrap().len() {
                let accepted = state.accepted(&vm(n)).map(|(id, _)| name(id));
                let Some(slot) = state.queue().slot(&vm(n)) else {
                    let _ = writeln!(text, "  {n}: none, {accepted:?}");
                    continue;
                };
                let stands = match slot.state {
                    State::Backoff(until) => Self::until(until).to_owned(),
                    other => format!("{other:?}"),
                };
                let held = (
                    slot.attempts,
                    slot.demoted,
                    slot.is_reactive,
                    slot.is_restored,
                );
                let (report, newest) = (name(slot.report), name(slot.newest()));
                let place = order.rank(slot.place);
                let _ = writeln!(
                    text,
                    "  {n}: {report} {newest} {stands} {place:?} {held:?} {accepted:?}"
                );
            }
        }
        self.stored(&mut text);
        text
    }

    /// What is on the disk.
    fn stored(&self, text: &mut String) {
        let Ok(stored) = table::load(&self.store) else {
            text.push_str("unreadable: the disk is full");
            return;
        };
        let now = self.wall.now();
        for (vm, row) in &stored.guests {
            let report = table::read(&self.store, vm).ok().flatten();
            let report = report.and_then(|it| Some(it.open(vm).ok()?.idempotency_key()));
            let _ = writeln!(
                text,
                "{vm}: {:?} {:?} {report:?}",
                row.known.map(name),
                row.echo
            );
        }
        for sink in &self.engine.sinks {
            let of = stored.sink(sink.queue.name());
            let order = Order::of(of.slots.iter().map(|(_, row)| row.place));
            for (vm, row) in &of.slots {
                let wait = Self::wait_class(row.not_before.since(now));
                let place = order.rank(row.place);
                let held = (
                    row.attempts,
                    row.demoted,
                    row.dead.is_some(),
                    name(row.report),
                );
                let _ = writeln!(text, "  {vm} {place:?} {wait} {held:?}");
            }
            let accepted: std::collections::BTreeMap<_, _> = of
                .accepted
                .iter()
                .map(|(vm, (id, _))| (vm, name(*id)))
                .collect();
            let _ = writeln!(text, "  {accepted:?}");
        }
    }
}
