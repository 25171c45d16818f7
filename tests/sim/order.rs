//! The order in which one sensor sends: what waits keeps its place, and nobody waits longer than the policy says.

use afferent::sense::deliver::outcome::Outcome;
use afferent::sense::queue::policy::QueuePolicy;
use afferent::sense::queue::queue::Queue;
use afferent::sense::queue::slot::State;
use afferent::sense::queue::table::QueuePlace;
use std::collections::BTreeMap;

/// Guests that are watched at the same time: enough to find a rule broken, few enough to be fast.
const WATCHED: usize = 16;

/// What was seen of a guest that waits.
struct Waits {
    place: QueuePlace,
    /// Dispatches until which it must have gone.
    until: u64,
}

/// What was seen of a sensor's queue.
#[derive(Default)]
pub(crate) struct Order {
    dispatches: u64,
    waiting: BTreeMap<String, Waits>,
    /// Places of documents that Central did not get at all: they return there.
    unsent: BTreeMap<String, QueuePlace>,
    in_flight: BTreeMap<String, QueuePlace>,
}

impl Order {
    /// A document is sent; gives what is wrong with that.
    pub(crate) fn dispatched(&mut self, vm: &str, queue: &Queue) -> Vec<String> {
        self.dispatches += 1;
        self.waiting.remove(vm);
        self.unsent.remove(vm);
        let mut broken = Vec::new();
        let weight = u64::from(QueuePolicy::default().weight);
        if let Some((_, slot)) = queue.slots().find(|(name, _)| name.as_str() == vm) {
            self.in_flight.insert(vm.to_owned(), slot.place);
        }
        if !self.dispatches.is_multiple_of(7) && !self.waiting.is_empty() {
            return broken;
        }
        let (reactive, routine) = queue.waiting();
        let mut seen = BTreeMap::new();
        for (name, slot) in queue.slots() {
            let name = name.as_str();
            if slot.state != State::Queued {
                continue;
            }
            if let Some(before) = self.unsent.remove(name)
                && !keeps(before, slot.place)
            {
                let place = slot.place;
                let what = format!(
                    "invariant 5: {name} was not sent, and lost its place {before:?} for {place:?}"
                );
                broken.push(what);
            }
            match self.waiting.remove(name) {
                Some(before) if before.until < self.dispatches => {
                    let what = format!(
                        "invariant 5: {name} waits beyond its bound at {:?}",
                        slot.place
                    );
                    broken.push(what);
                }
                Some(before) if !keeps(before.place, slot.place) => {
                    let (then, now) = (before.place, slot.place);
                    let what = format!("invariant 5: {name} lost its place {then:?} for {now:?}");
                    broken.push(what);
                }
                Some(before) => drop(seen.insert(name.to_owned(), before)),
                None if seen.len() < WATCHED => {
                    // Whoever stands in a ring stands at most at its end; a share of what is in flight may
                    // come back before it.
                    let rank = match slot.place.reactive {
                        Some(_) => reactive as u64 * (weight + 1) / weight,
                        None => routine as u64 * (weight + 1),
                    };
                    let until = self.dispatches + rank + 2 * (weight + 1) * 20;
                    let place = slot.place;
                    seen.insert(name.to_owned(), Waits { place, until });
                }
                None => {}
            }
        }
        self.waiting = seen;
        broken
    }

    /// Central answered, or did not.
    pub(crate) fn answered(&mut self, vm: &str, outcome: &Outcome) {
        let place = self.in_flight.remove(vm);
        if let (Outcome::Unreachable(_), Some(place)) = (outcome, place) {
            self.unsent.insert(vm.to_owned(), place);
        }
    }
}

/// Whether every place stayed; one more may have come.
pub(crate) fn keeps(before: QueuePlace, now: QueuePlace) -> bool {
    let stays = |before: Option<u64>, now: Option<u64>| before.is_none() || now == before;
    stays(before.reactive, now.reactive) && stays(before.routine, now.routine)
}
