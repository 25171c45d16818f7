//! Which connections a server keeps when there are too many.
//!
//! A peer that stalls must not keep out one that does not: a connection that has not sent its
//! request yet gives way, the oldest first, to a new one; where there is none, the oldest of those
//! that have not taken their answer yet does. Those waiting for a change never do; when nothing but
//! such are left, the new one is told BUSY.

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
    /// Those that have not taken their answer yet.
    answering: BTreeMap<u64, oneshot::Sender<()>>,
}

/// A place among the connections, given back when dropped.
pub(super) struct Place {
    admission: Admission,
    number: u64,
    /// As long as it waits for a change, nobody takes the place away.
    waiting: Option<oneshot::Sender<()>>,
}

impl Admission {
    /// A place, and what ends when the place is taken away again; `None` when all are in use.
    pub(super) fn enter(&self) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut state = self.lock();
        if state.open >= MAX_CONNECTIONS {
            // Its task ends and gives back its place; until then there is one too many.
            let first = state.silent.pop_first();
            first.or_else(|| state.answering.pop_first())?;
        }
        let number = state.next;
        let (keep, taken_away) = oneshot::channel();
        state.next += 1;
        state.open += 1;
        state.silent.insert(number, keep);
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
    /// The request is here: the place is kept as long as any other can be given away. `false`: it
    /// was taken away already.
    pub(super) fn spoke(&self) -> bool {
        let mut state = self.admission.lock();
        match state.silent.remove(&self.number) {
            Some(keep) => state.answering.insert(self.number, keep).is_none(),
            None => false,
        }
    }

    /// The request waits for a change; `false` when too many do, or the place was taken away.
    pub(super) fn wait(&mut self) -> bool {
        let mut state = self.admission.lock();
        if state.waiting >= MAX_WAITS {
            return false;
        }
        self.waiting = state.answering.remove(&self.number);
        state.waiting += usize::from(self.waiting.is_some());
        self.waiting.is_some()
    }

    /// There is something to answer now.
    pub(super) fn waited(&mut self) {
        if let Some(keep) = self.waiting.take() {
            let mut state = self.admission.lock();
            state.waiting -= 1;
            state.answering.insert(self.number, keep);
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

    #[test]
    fn silent_connections_give_way_and_then_those_that_do_not_take_their_answer() {
        let admission = Admission::default();
        let mut places: Vec<_> = (0..MAX_CONNECTIONS)
            .filter_map(|_| admission.enter())
            .collect();
        assert_eq!(places.len(), MAX_CONNECTIONS);
        assert!(places[0].0.spoke());
        let newcomer = admission.enter().expect("the oldest silent one gives way");
        assert!(is_over(&mut places[1].1) && !is_over(&mut places[0].1));
        assert!(!places[1].0.spoke());
        assert!(newcomer.0.spoke());
        drop(places.remove(1));
        for (place, _) in &places {
            place.spoke();
        }
        let second = admission.enter().expect("one that was asked gives way");
        assert!(is_over(&mut places[0].1) && !is_over(&mut places[1].1));
        assert!(second.0.spoke());
    }

    #[test]
    fn waits_have_a_bound_of_their_own_and_never_give_way() {
        let admission = Admission::default();
        let mut places: Vec<_> = (0..=MAX_WAITS).filter_map(|_| admission.enter()).collect();
        let granted: Vec<bool> = places
            .iter_mut()
            .map(|(place, _)| place.spoke() && place.wait())
            .collect();
        assert_eq!(granted.iter().filter(|g| **g).count(), MAX_WAITS);
        let mut others: Vec<_> = (0..MAX_CONNECTIONS)
            .filter_map(|_| admission.enter())
            .collect();
        assert_eq!(others.len(), MAX_CONNECTIONS);
        assert!(!places.iter_mut().any(|(_, taken)| is_over(taken)));
        places[0].0.waited();
        places[1].0.waited();
        others.clear();
        let (mut newcomer, _taken_away) = admission.enter().unwrap();
        assert!(newcomer.spoke() && newcomer.wait());
    }

    fn is_over(taken_away: &mut oneshot::Receiver<()>) -> bool {
        taken_away
            .try_recv()
            .is_err_and(|e| e == oneshot::error::TryRecvError::Closed)
    }
}
