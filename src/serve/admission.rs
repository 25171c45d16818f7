//! Which connections a server keeps when there are too many.
//!
//! A peer that stalls must not keep out one that does not: a connection that has not sent its
//! request yet gives way, the oldest first, to a new one; where there is none, the one does that has
//! taken nothing of its answer for the longest time. Those waiting for a change never do, nor does
//! one that had no time to be called stalled: while nothing gives way, new ones wait to be accepted.

use crate::clock;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::time::sleep;

/// Connections of all kinds at a time.
const MAX_CONNECTIONS: usize = 256;

/// Requests that wait for a change, at a time.
pub(super) const MAX_WAITS: usize = 64;

/// A peer that came, or has taken a part of its answer, within this time is no stalled one.
const STALLED: Duration = Duration::from_millis(100);

/// Between two looks for a place. There are more places than waits, and all others are stalled or
/// done within [`STALLED`] or go on to be so: none is looked for in vain.
const PAUSE: Duration = Duration::from_millis(5);

/// Counts connections and decides which of them stay.
#[derive(Clone, Default)]
pub(super) struct Admission(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    open: usize,
    waiting: usize,
    /// Those that have not sent their request yet, the oldest first; dropping the sender ends one.
    silent: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
    /// Those that have not taken their answer yet, the one that was longest idle first.
    answering: BTreeMap<u64, (Instant, oneshot::Sender<()>)>,
}

/// A place among the connections, given back when dropped.
pub(super) struct Place {
    admission: Admission,
    number: u64,
    /// As long as it waits for a change, nobody takes the place away.
    waiting: Option<oneshot::Sender<()>>,
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Ends one connection: its task ends and gives back its place; until then there is one too
    /// many. `None` when there is none to be ended.
    fn evict(&mut self, now: Instant) -> Option<()> {
        let is_stalled = |since: Instant| now.saturating_duration_since(since) >= STALLED;
        [&mut self.silent, &mut self.answering]
            .into_iter()
            .find_map(|places| {
                let (_, (since, _)) = places.first_key_value()?;
                is_stalled(*since).then(|| places.pop_first())?.map(drop)
            })
    }
}

impl Admission {
    /// A place, as soon as there is one, and what ends when it is taken away again.
    pub(super) async fn enter(&self) -> (Place, oneshot::Receiver<()>) {
        loop {
            match self.try_enter(clock::now()) {
                Some(entered) => return entered,
                None => sleep(PAUSE).await,
            }
        }
    }

    fn try_enter(&self, now: Instant) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut state = self.lock();
        if state.open >= MAX_CONNECTIONS {
            state.evict(now)?;
        }
        let number = state.number();
        let (keep, taken_away) = oneshot::channel();
        state.open += 1;
        state.silent.insert(number, (now, keep));
        let place = Place {
            admission: self.clone(),
            number,
            waiting: None,
        };
        Some((place, taken_away))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The request is here. `false`: the place was taken away already.
    pub(super) fn request_received(&mut self, now: Instant) -> bool {
        let mut state = self.admission.lock();
        let Some((_, keep)) = state.silent.remove(&self.number) else {
            return false;
        };
        self.number = state.number();
        state.answering.insert(self.number, (now, keep));
        true
    }

    /// The peer has taken a part of its answer.
    pub(super) fn progressed(&mut self, now: Instant) {
        let mut state = self.admission.lock();
        if let Some((_, keep)) = state.answering.remove(&self.number) {
            self.number = state.number();
            state.answering.insert(self.number, (now, keep));
        }
    }

    /// The request waits for a change; `false` when too many do, or the place was taken away.
    pub(super) fn wait(&mut self) -> bool {
        let mut state = self.admission.lock();
        if state.waiting >= MAX_WAITS {
            return false;
        }
        let answering = state.answering.remove(&self.number);
        self.waiting = answering.map(|(_, keep)| keep);
        state.waiting += usize::from(self.waiting.is_some());
        self.waiting.is_some()
    }

    /// There is something to answer now.
    pub(super) fn waited(&mut self, now: Instant) {
        if let Some(keep) = self.waiting.take() {
            let mut state = self.admission.lock();
            state.waiting -= 1;
            self.number = state.number();
            state.answering.insert(self.number, (now, keep));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.open -= 1;
        state.waiting -= usize::from(self.waiting.is_some());
        state.silent.remove(&self.number);
        state.answering.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entered = (Place, oneshot::Receiver<()>);

    #[test]
    fn silent_connections_give_way_and_then_those_that_do_not_take_their_answer() {
        let (admission, now) = (Admission::default(), Instant::now());
        let mut places = fill(&admission, now);
        assert!(admission.try_enter(now).is_none(), "all have just come");
        assert!(places[0].0.request_received(now));
        let now = now + STALLED;
        let mut newcomer = admission.try_enter(now).unwrap();
        assert!(is_over(&mut places[1]) && !is_over(&mut places[0]));
        assert!(!places[1].0.request_received(now) && newcomer.0.request_received(now));
        drop(places.remove(1));
        for (place, _) in places.iter_mut().skip(1) {
            place.request_received(now);
        }
        places[0].0.progressed(now);
        assert!(
            admission.try_enter(now).is_none(),
            "all have just been asked"
        );
        let now = now + STALLED;
        places[0].0.progressed(now);
        assert!(admission.try_enter(now).is_some());
        assert!(is_over(&mut newcomer) && !is_over(&mut places[0]));
    }

    #[test]
    fn waits_have_a_bound_of_their_own_and_never_give_way() {
        let (admission, mut now) = (Admission::default(), Instant::now());
        let mut places: Vec<Entered> = (0..=MAX_WAITS)
            .filter_map(|_| admission.try_enter(now))
            .collect();
        let granted: Vec<bool> = places
            .iter_mut()
            .map(|(place, _)| place.request_received(now) && place.wait())
            .collect();
        assert_eq!(granted.iter().filter(|g| **g).count(), MAX_WAITS);
        places.pop();
        for _ in 0..3 {
            fill(&admission, now);
            now += STALLED;
        }
        assert!(!places.iter_mut().any(is_over));
        places[0].0.waited(now);
        let (mut newcomer, _taken_away) = admission.try_enter(now).unwrap();
        assert!(newcomer.request_received(now) && newcomer.wait());
    }

    fn fill(admission: &Admission, now: Instant) -> Vec<Entered> {
        (0..MAX_CONNECTIONS)
            .filter_map(|_| admission.try_enter(now))
            .collect()
    }

    fn is_over((_, taken_away): &mut Entered) -> bool {
        taken_away
            .try_recv()
            .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
    }
}
