//! The loop of pulling: a conversation with every guest whose turn it is, and what came of each.

use super::conversation::{Conversation, Exchange, PullResult, changed_machine};
use super::failure::Failure;
use super::schedule::{Ask, Memory, PullOutcome, Schedule, Timing};
use crate::clock::{self, WallTime};
use crate::report::{GuestId, VmId};
use crate::sense::limits::ConcurrencyLimits;
use crate::sense::metrics::Metrics;
use crate::sense::queue::pending::Pending;
use crate::sense::queue::table::{Change, GuestRow};
use crate::sense::queue::writer::StoreWriter;
use crate::sense::roster::{Entry, Guests, Known};
use crate::sense::seen::SeenClock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// A wait answered "unchanged" before this time is no wait.
const HASTY: Duration = Duration::from_secs(1);

/// Guests and their turns, as pulling keeps them and `status` shows them.
pub struct GuestTable {
    /// Whose turn it is.
    pub schedule: Schedule,
    guests: HashMap<VmId, Guest>,
}

/// A guest that is being asked.
pub struct Guest {
    /// Where it is.
    pub entry: Arc<Entry>,
    /// What is known of it; shared with the conversation, which most guests are always in.
    pub row: Arc<GuestRow>,
    /// Whether it answered since the start.
    pub has_answered: bool,
    /// What went wrong last time.
    pub failure: Option<Failure>,
    /// Which machine answered here before, and since when another does.
    pub before: Option<(GuestId, WallTime)>,
    talk: Option<AbortHandle>,
    /// What it is being asked for.
    pub asked: Option<Ask>,
}

/// Everything that pulling needs.
pub struct Pulling {
    /// Guests.
    pub guests: Arc<Mutex<GuestTable>>,
    /// The queue.
    pub pending: Arc<Pending>,
    /// The writer.
    pub store_writer: Arc<StoreWriter>,
    /// What bounds conversations.
    pub limits: Arc<ConcurrencyLimits>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Gives documents their time.
    pub seen: Arc<SeenClock>,
}

/// What reaches the loop from outside.
pub struct Inbox {
    /// The roster, whenever it changed.
    pub roster: watch::Receiver<Known>,
    /// Guests to be asked for a full report.
    pub ask_full: mpsc::UnboundedReceiver<VmId>,
    /// The store was lost: ask everybody for everything.
    pub lost: mpsc::UnboundedReceiver<()>,
    /// Stop.
    pub stop: watch::Receiver<bool>,
}

impl GuestTable {
    /// Nobody yet; guests get `timing` when they come.
    pub fn new(timing: Timing) -> Self {
        Self {
            schedule: Schedule::new(timing),
            guests: HashMap::new(),
        }
    }

    /// A guest.
    pub fn guest(&self, vm: &VmId) -> Option<&Guest> {
        self.guests.get(vm)
    }

    /// All guests.
    pub fn guests(&self) -> impl Iterator<Item = (&VmId, &Guest)> {
        self.guests.iter()
    }
}

impl Pulling {
    /// Pulls until told to stop. `stored` is what earlier runs knew of guests.
    pub async fn run(self, mut stored: HashMap<VmId, GuestRow>, mut inbox: Inbox) {
        let mut talks = JoinSet::new();
        let first = inbox.roster.borrow_and_update().clone();
        self.take_over(first, &mut stored);
        loop {
            self.start(&mut talks);
            let due = self.guests().schedule.next_due();
            tokio::select! {
                biased;
                _ = inbox.stop.wait_for(|stop| *stop) => break,
                Some(talk) = talks.join_next_with_id() => self.settle(talk),
                Some(vm) = inbox.ask_full.recv() => self.ask_full(&vm),
                Some(()) = inbox.lost.recv() => self.ask_all(),
                Ok(()) = inbox.roster.changed() => {
                    let roster = inbox.roster.borrow_and_update().clone();
                    self.take_over(roster, &mut stored);
                }
                () = sleep_until(due) => {}
            }
        }
        // Reports that are being stored go on in tasks of their own; the store_writer ends after them.
        talks.shutdown().await;
    }

    fn start(&self, talks: &mut JoinSet<Exchange>) {
        let mut guests = self.guests();
        let now = clock::now();
        while let Some((vm, ask)) = guests.schedule.take_due(now, fastrand::f64()) {
            let Some(guest) = guests.guests.get_mut(&vm) else {
                continue;
            };
            let conversation = Conversation {
                entry: guest.entry.clone(),
                row: guest.row.clone(),
                ask,
                pending: self.pending.clone(),
                store_writer: self.store_writer.clone(),
                limits: self.limits.clone(),
                metrics: self.metrics.clone(),
                seen: self.seen.clone(),
            };
            guest.asked = Some(ask);
            guest.talk = Some(talks.spawn(conversation.hold()));
        }
    }

    fn settle(&self, talk: Result<(Id, Exchange), JoinError>) {
        let (id, talk) = match talk {
            Ok(talk) => talk,
            // Its guest left, or moved to another address.
            Err(error) if error.is_cancelled() => return,
            Err(error) => return self.settle_panic(&error),
        };
        let mut guests = self.guests();
        let Exchange {
            vm,
            asked,
            took,
            result,
        } = talk;
        let is_current = |guest: &&mut Guest| guest.talk.as_ref().is_some_and(|t| t.id() == id);
        let Some(guest) = guests.guests.get_mut(&vm).filter(is_current) else {
            return;
        };
        (guest.talk, guest.asked) = (None, None);
        guest.has_answered |= result.is_ok();
        self.metrics.pulls.inc(match &result {
            Ok(PullResult::Kept { .. }) => "report",
            Ok(PullResult::Unchanged { .. }) => "unchanged",
            Err(failure) => failure.label(),
        });
        if !matches!(asked, Ask::Wait(_)) {
            self.metrics.pull_seconds.observe_time(took);
        }
        let outcome = match result {
            Ok(PullResult::Unchanged { learned }) => {
                guest.failure = None;
                let waits = learned.waits;
                if learned.note(&mut guest.row) {
                    self.store_writer.note(Change::Learn {
                        vm: vm.clone(),
                        guest: GuestRow::clone(&guest.row),
                    });
                }
                let hasty = matches!(asked, Ask::Wait(_)) && took < HASTY;
                PullOutcome::Unchanged { waits, hasty }
            }
            Ok(PullResult::Kept { row }) => {
                guest.failure = None;
                let waits = row.waits;
                if let Some(then) = changed_machine(&guest.row, row.guest_id.as_ref()) {
                    guest.before = Some((then.clone(), row.full_at));
                }
                guest.row = row;
                PullOutcome::Report { waits }
            }
            Err(failure @ Failure::EmptyDatabase { waits }) => {
                if guest.failure.as_ref() != Some(&failure) {
                    tracing::info!(%vm, "has no package to report yet");
                }
                (guest.failure, guest.has_answered) = (Some(failure), true);
                let hasty = matches!(asked, Ask::Wait(_)) && took < HASTY;
                PullOutcome::NoPackages { waits, hasty }
            }
            Err(failure) => {
                let outcome = failure.next_step(asked);
                if guest.failure.as_ref() != Some(&failure) {
                    tracing::warn!(%vm, address = %guest.entry.address, %failure, "not pulled");
                }
                guest.failure = Some(failure);
                outcome
            }
        };
        guests
            .schedule
            .finished(&vm, outcome, clock::now(), fastrand::f64());
    }

    /// A fault in handling what one guest said is that guest's failure, and no other's.
    fn settle_panic(&self, error: &JoinError) {
        let mut guests = self.guests();
        let is_current = |guest: &Guest| guest.talk.as_ref().is_some_and(|t| t.id() == error.id());
        let Some((vm, guest)) = guests
            .guests
            .iter_mut()
            .find(|(_, guest)| is_current(guest))
        else {
            return;
        };
        let vm = vm.clone();
        let failure = Failure::Panicked(error.to_string().as_str().into());
        tracing::error!(%vm, address = %guest.entry.address, %failure, "not pulled");
        self.metrics.pulls.inc(failure.label());
        (guest.talk, guest.asked) = (None, None);
        guest.failure = Some(failure);
        guests
            .schedule
            .finished(&vm, PullOutcome::Failed, clock::now(), fastrand::f64());
    }

    /// Takes over a roster: new guests are asked at once, those gone no more; what is pending of
    /// them stays until it is delivered.
    ///
    /// `stored` is what is known of guests that no source named since the start. They are gone once all
    /// sources were read: one that cannot be read yet may name them.
    fn take_over(&self, roster: Known, stored: &mut HashMap<VmId, GuestRow>) {
        let Known {
            guests: roster,
            is_complete,
        } = roster;
        self.take_over_guests(roster, stored);
        if is_complete {
            let present = self.guests().guests.keys().cloned().collect();
            self.pending.set_present(present);
            for (vm, _) in stored.drain() {
                self.forget(&vm);
            }
        }
    }

    fn take_over_guests(&self, roster: Guests, stored: &mut HashMap<VmId, GuestRow>) {
        let mut guests = self.guests();
        let gone: Vec<VmId> = guests
            .guests
            .keys()
            .filter(|vm| !roster.contains_key(*vm))
            .cloned()
            .collect();
        for vm in &gone {
            guests.remove(vm);
            self.forget(vm);
        }
        let (now, wall) = (clock::now(), clock::wall_now());
        for (vm, entry) in roster {
            let row = match guests.guests.get(&vm) {
                Some(guest) if guest.entry == entry => continue,
                Some(_) => guests.remove(&vm).map(|guest| guest.row),
                None => stored.remove(&vm).map(Arc::new),
            }
            .unwrap_or_default();
            let memory = Memory {
                knows_report: row.known.is_some(),
                waits: row.waits,
                full_age: wall.since(row.full_at),
            };
            guests
                .schedule
                .add(vm.clone(), memory, now, fastrand::f64());
            let guest = Guest {
                entry,
                row,
                has_answered: false,
                failure: None,
                before: None,
                talk: None,
                asked: None,
            };
            guests.guests.insert(vm, guest);
        }
        tracing::info!(guests = guests.guests.len(), gone = gone.len(), "roster");
    }

    fn forget(&self, vm: &VmId) {
        self.store_writer.note(Change::Forget { vm: vm.clone() });
        self.pending.board().forget(vm);
    }

    /// Asks a guest for a full report now; a wait is broken off for it.
    fn ask_full(&self, vm: &VmId) {
        let now = clock::now();
        let mut guests = self.guests();
        if let Some(guest) = guests.guests.get_mut(vm)
            && matches!(guest.asked, Some(Ask::Wait(_)))
        {
            guest.asked = None;
            if let Some(talk) = guest.talk.take() {
                talk.abort();
            }
            guests.schedule.interrupted(vm, now);
        }
        guests.schedule.want_full_now(vm, now);
    }

    fn ask_all(&self) {
        self.pending.lose_all();
        let mut guests = self.guests();
        let all: Vec<VmId> = guests.guests.keys().cloned().collect();
        for vm in all {
            guests.schedule.want_full(&vm);
        }
    }

    fn guests(&self) -> MutexGuard<'_, GuestTable> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GuestTable {
    fn remove(&mut self, vm: &VmId) -> Option<Guest> {
        self.schedule.remove(vm);
        let guest = self.guests.remove(vm)?;
        if let Some(talk) = &guest.talk {
            talk.abort();
        }
        Some(guest)
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::queue::policy::Policy;
    use crate::store::Store;

    /// Loss prevented: one guest whose answer meets a fault of ours ends the sensor of ten thousand.
    #[tokio::test]
    async fn a_panic_over_one_guest_is_its_failure_and_the_others_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(
            Store::open(dir.path(), "sense.redb", 1 << 20)
                .unwrap()
                .store,
        );
        let (store_writer, writer) = StoreWriter::start(store, Box::new(|| ())).unwrap();
        let store_writer = Arc::new(store_writer);
        let pending = Pending::new(
            Policy::default(),
            store_writer.clone(),
            Vec::new(),
            HashMap::new(),
        );
        let minute = Duration::from_secs(60);
        let pulling = Pulling {
            guests: Arc::new(Mutex::new(GuestTable::new(Timing::new(
                minute,
                60 * minute,
            )))),
            pending: Arc::new(pending),
            store_writer,
            limits: Arc::new(ConcurrencyLimits::new(2, None)),
            metrics: Arc::new(Metrics::new()),
            seen: Arc::new(SeenClock::new(WallTime::default())),
        };
        let entries = ["a=unix:/a", "b=unix:/b"].map(|text| text.parse::<Entry>().unwrap());
        let known = Known {
            guests: entries
                .map(|entry| (entry.vm.clone(), Arc::new(entry)))
                .into(),
            is_complete: true,
        };
        pulling.take_over(known, &mut HashMap::new());
        let vm: VmId = "a".parse().unwrap();
        let mut talks = JoinSet::new();
        {
            let mut guests = pulling.guests();
            let taken = guests.schedule.take_due(clock::now(), 0.5).unwrap();
            assert_eq!(taken, (vm.clone(), Ask::Full));
            let guest = guests.guests.get_mut(&vm).unwrap();
            guest.asked = Some(Ask::Full);
            guest.talk = Some(talks.spawn(async { unreachable!("a fault") }));
        }
        pulling.settle(talks.join_next_with_id().await.unwrap());
        {
            let guests = pulling.guests();
            let guest = guests.guest(&vm).unwrap();
            assert!(
                matches!(&guest.failure, Some(Failure::Panicked(said)) if said.to_string().contains("a fault"))
            );
            // It backs off, and the other is asked.
            assert!(matches!(guests.schedule.look(&vm), Some((1, Some(at))) if at > clock::now()));
            assert!(guests.schedule.next_due().unwrap() <= clock::now());
        }
        drop(pulling);
        writer.join().unwrap();
    }
}
