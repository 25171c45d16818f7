//! Which connections a server keeps when there are too many.
//!
//! A peer that says nothing must not keep out one that does: a connection that has not sent its
//! request yet gives way, the oldest first, to a new one. Those being answered or waiting for a
//! change never do; when nothing but such are left, the new one is told BUSY.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Connections of all kinds at a time.
const MAX_CONNECTIONS: usize = 256;

/// Requests that wait for a change, at a time.
const MAX_WAITS: usize = 64;

/// Counts connections and decides which of them stay.
#[derive(Clone, Default)]
pub(super) struct Admission(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    next: u64,
    open: usize,
    waiting: usize,
    /// Those that have not sent their request yet, the oldest first; dropping the sender ends one.
    silent: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place among the connections, given back when dropped.
pub(super) struct Place {
    admission: Admission,
    number: u64,
    waiting: bool,
}

impl Admission {
    /// A place, and what ends when the place is taken away again; `None` when all are in use.
    pub(super) fn enter(&self) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut state = self.lock();
        if state.open >= MAX_CONNECTIONS {
            // Its task ends and gives back its place; until then there is one too many.
            state.silent.pop_first()?;
        }
        let number = state.next;
        let (keep, taken_away) = oneshot::channel();
        state.next += 1;
        state.open += 1;
        state.silent.insert(number, keep);
        let place = Place {
            admission: self.clone(),
            number,
            waiting: false,
        };
        Some((place, taken_away))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The request is here: the place is kept until the answer is sent. `false`: it was taken
    /// away already.
    pub(super) fn spoke(&self) -> bool {
        self.admission.lock().silent.remove(&self.number).is_some()
    }

    /// The request waits for a change; `false` when too many do.
    pub(super) fn wait(&mut self) -> bool {
        let mut state = self.admission.lock();
        if state.waiting >= MAX_WAITS {
            return false;
        }
        state.waiting += 1;
        self.waiting = true;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.admission.lock();
        state.open -= 1;
        state.waiting -= usize::from(self.waiting);
        state.silent.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_connection_gives_way_and_a_speaking_one_does_not() {
        let admission = Admission::default();
        let mut places: Vec<_> = (0..MAX_CONNECTIONS)
            .filter_map(|_| admission.enter())
            .collect();
        assert_eq!(places.len(), MAX_CONNECTIONS);
        assert!(places[0].0.spoke());
        let newcomer = admission.enter().expect("the oldest silent one gives way");
        assert!(
            places[1]
                .1
                .try_recv()
                .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
        );
        assert!(!places[1].0.spoke());
        assert!(newcomer.0.spoke());
        for (place, _) in &places {
            place.spoke();
        }
        drop(places.remove(1));
        assert!(admission.enter().is_none(), "all are being answered");
        places.pop();
        assert!(admission.enter().is_some());
    }

    #[test]
    fn waits_have_a_bound_of_their_own() {
        let admission = Admission::default();
        let mut places: Vec<_> = (0..=MAX_WAITS).filter_map(|_| admission.enter()).collect();
        let granted: Vec<bool> = places.iter_mut().map(|(place, _)| place.wait()).collect();
        assert_eq!(granted.iter().filter(|g| **g).count(), MAX_WAITS);
        places.pop();
        places.pop();
        assert!(admission.enter().unwrap().0.wait());
    }
}
