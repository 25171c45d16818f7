//! Where pulling hands over to delivering: the queue, and beside it what people want to know.
//!
//! Both sides run on one thread; the lock is held for one step of the policy and never across a
//! wait.

use super::policy::{Policy, Rate};
use super::queue::{Next, Queue};
use super::slot::{Arrival, Class, Nack, Slot, State};
use super::writer::StoreWriter;
use crate::clock::{self, WallTime};
use crate::report::{ReportKey, ReportSummary, Trigger, VmId};
use crate::sense::deliver::outcome::{LONGEST_PAUSE, Outcome};
use crate::sense::queue::table::{Change, DocumentId, SlotRow};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a report waits of which Central said that it came too soon, and no more; and a long one while
/// another is being sent.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The queue as both sides share it.
pub struct Pending {
    board: Mutex<PendingState>,
    store_writer: Arc<StoreWriter>,
    /// Something may be sent that could not be before.
    pub news: Notify,
}

/// The queue, and what it does not need to know of its reports.
pub struct PendingState {
    /// Order and state.
    pub queue: Queue,
    details: HashMap<VmId, Detail>,
    /// What Central accepted last of each guest.
    accepted: HashMap<VmId, (DocumentId, WallTime)>,
    /// The highest key that Central accepted, of guests that went back to a lower one.
    highest: HashMap<VmId, ReportKey>,
    /// Guests in the roster; `None` until all of it was read.
    present: Option<HashSet<VmId>>,
    /// Why facts alone were not taken the last time; `None` while they are.
    pub facts_skipped: Option<String>,
}

/// How a report stands to those of its guest that were accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precedent {
    /// None of them had its key.
    New,
    /// It is the one that was accepted last: a refresh.
    Same,
    /// One may have had its key, and another one was accepted since: the guest went back.
    Back,
}

fn goes_back(highest: ReportKey, key: ReportKey) -> bool {
    key.epoch == highest.epoch && key.generation <= highest.generation
}

/// What people want to know of a pending report.
#[derive(Clone, Debug, Default)]
pub struct Detail {
    /// When the agent made it.
    pub generated_at: WallTime,
    /// Since when the guest has something undelivered.
    pub since: WallTime,
    /// Packages in it.
    pub packages: u32,
    /// What the last attempt said.
    pub last_error: Option<String>,
}

impl Pending {
    /// With what was stored; slots keep their places.
    pub fn new(
        policy: Policy,
        store_writer: Arc<StoreWriter>,
        stored: Vec<(VmId, SlotRow)>,
        accepted: HashMap<VmId, (DocumentId, WallTime)>,
    ) -> Self {
        let (now, wall) = (clock::now(), clock::wall_now());
        let (retries, forbidden) = (policy.backoff.ceiling, policy.forbidden.ceiling);
        let mut board = PendingState {
            queue: Queue::new(policy, now),
            details: HashMap::new(),
            accepted,
            highest: HashMap::new(),
            present: None,
            facts_skipped: None,
        };
        for (vm, row) in stored {
            let state = if row.dead.is_some() {
                State::Dead
            } else if row.place.is_none() || row.not_before > wall {
                // A clock set back, or one that was ahead, holds nothing up.
                let longest = match row.place.is_none() {
                    true => retries,
                    false => LONGEST_PAUSE.max(forbidden),
                };
                State::Backoff(now + row.not_before.since(wall).min(longest))
            } else {
                State::Queued
            };
            let detail = Detail {
                generated_at: row.generated_at,
                since: row.since,
                packages: row.packages,
                last_error: row.dead.clone().or(row.last_error.clone()),
            };
            board.details.insert(vm.clone(), detail);
            let mut slot = Slot::stored(row.report, row.trigger, row.place, state);
            (slot.attempts, slot.demoted) = (row.attempts, row.demoted);
            board.queue.restore(vm, slot);
        }
        Self {
            board: Mutex::new(board),
            store_writer,
            news: Notify::new(),
        }
    }

    /// The queue, for a look.
    pub fn board(&self) -> MutexGuard<'_, PendingState> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the arrival of a report; gives the row to be written with it.
    pub fn admit(&self, vm: &VmId, summary: &ReportSummary, class: Class) -> (Arrival, SlotRow) {
        let report = DocumentId::from(summary);
        let mut board = self.board();
        let arrival = board
            .queue
            .admit(vm, report, summary.trigger, class, clock::now());
        let since = board
            .details
            .get(vm)
            .map_or_else(clock::wall_now, |detail| detail.since);
        let detail = Detail {
            generated_at: summary.generated_at,
            since,
            packages: summary.packages,
            last_error: None,
        };
        let place = board.queue.place_of(vm, &arrival);
        let row = match board.queue.slot(vm) {
            // The same again: what was held against it stays.
            Some(slot) if slot.report == report => {
                let mut row = row_of(slot, &detail, clock::now());
                row.last_error = board.details.get(vm).and_then(|d| d.last_error.clone());
                row
            }
            _ => {
                let slot = Slot::stored(report, summary.trigger, place, State::Queued);
                row_of(&slot, &detail, clock::now())
            }
        };
        (arrival, row)
    }

    /// The report is durable, under `row`: it stands in the queue.
    pub fn enqueue(&self, vm: &VmId, arrival: Arrival, row: &SlotRow) {
        let mut board = self.board();
        board.details.insert(
            vm.clone(),
            Detail {
                generated_at: row.generated_at,
                since: row.since,
                packages: row.packages,
                last_error: row.last_error.clone(),
            },
        );
        // While the commit was under way the older report may have been delivered, and its place
        // with it.
        let moved = board.queue.place_of(vm, &arrival) != row.place;
        board.queue.enqueue(vm, arrival);
        if moved {
            self.write_row(&board, vm);
        }
        drop(board);
        self.news.notify_one();
    }

    /// Central's rate limit is another one from now on.
    pub fn set_rate(&self, rate: Option<Rate>, now: Instant) {
        self.board().queue.set_rate(rate, now);
        self.news.notify_one();
    }

    /// Decides what to send now.
    pub fn select(&self, now: Instant) -> Next {
        let mut board = self.board();
        let next = board.queue.select(now);
        self.write_changed(&mut board);
        next
    }

    /// Whether the report of this guest that is in flight is about a change.
    pub fn is_reactive(&self, vm: &VmId) -> bool {
        self.board()
            .queue
            .slot(vm)
            .is_some_and(|slot| slot.is_reactive)
    }

    /// How a report stands to those of the guest that Central accepted.
    pub fn precedent(&self, vm: &VmId, report: DocumentId) -> Precedent {
        let board = self.board();
        match board.accepted(vm) {
            Some((accepted, _)) if accepted == report => Precedent::Same,
            Some((accepted, _)) => {
                let highest = board.highest.get(vm).copied().unwrap_or(accepted.key);
                match goes_back(highest, report.key) {
                    true => Precedent::Back,
                    false => Precedent::New,
                }
            }
            None => Precedent::New,
        }
    }

    /// What becomes of a report after `outcome`; `counts` says whether it is held against it.
    pub fn settle(&self, vm: &VmId, report: DocumentId, outcome: &Outcome, counts: bool) {
        let now = clock::now();
        let mut board = self.board();
        if let (Some(said), Some(detail)) = (outcome.said(), board.details.get_mut(vm)) {
            detail.last_error = Some(said.into_owned());
        }
        let nack = match outcome {
            Outcome::Accepted => {
                if board.queue.ack(vm, report) {
                    let at = clock::wall_now();
                    match report.facts {
                        None => board.accept(vm, report, at),
                        Some(_) => board.facts_skipped = None,
                    }
                    let vm = vm.clone();
                    self.store_writer.note(Change::Clear { vm, report, at });
                }
                None
            }
            Outcome::Skipped(_) => {
                board.facts_skipped = outcome.said().map(Cow::into_owned);
                if board.queue.ack(vm, report) {
                    let at = clock::wall_now();
                    let vm = vm.clone();
                    self.store_writer.note(Change::Clear { vm, report, at });
                }
                None
            }
            Outcome::Damaged(_) => {
                board.queue.discard(vm);
                None
            }
            Outcome::Refused(_) | Outcome::RefusedForGood(_) if counts => Some(Nack::Refused),
            Outcome::Failed(_) if counts => Some(Nack::Failed),
            Outcome::Busy { retry_after, .. } => {
                board.queue.rate_limited(now);
                let until = now + retry_after.unwrap_or(DEFAULT_RETRY_AFTER);
                board.queue.defer_until(vm, report, until);
                None
            }
            Outcome::Forbidden(_) => {
                board.queue.forbid(vm, report, now, fastrand::f64());
                None
            }
            Outcome::Failed(_) => {
                board.queue.requeue_last(vm, report);
                None
            }
            Outcome::Postponed => {
                board
                    .queue
                    .defer_until(vm, report, now + DEFAULT_RETRY_AFTER);
                None
            }
            Outcome::Superseded(found) => {
                let known = DocumentId::from(&**found);
                if board
                    .queue
                    .replace_in_flight(vm, report, known, found.trigger)
                    && let Some(detail) = board.details.get_mut(vm)
                {
                    (detail.generated_at, detail.packages) = (found.generated_at, found.packages);
                }
                None
            }
            Outcome::Unreachable(_)
            | Outcome::Unauthorized(_)
            | Outcome::StoreUnreadable(_)
            | Outcome::Refused(_)
            | Outcome::RefusedForGood(_) => {
                board.queue.requeue_same_place(vm, report);
                None
            }
        };
        if let Some(nack) = nack {
            board.queue.nack(vm, report, nack, now, fastrand::f64());
        }
        if board.queue.slot(vm).is_none() {
            board.details.remove(vm);
            self.forget_departed(&mut board, vm);
        }
        self.write_changed(&mut board);
    }

    /// The guests of the roster, all of which was read.
    pub fn set_present(&self, guests: HashSet<VmId>) {
        self.board().present = Some(guests);
    }

    /// Nothing is left to be delivered of a guest: if it left the roster, nothing is kept of it either.
    fn forget_departed(&self, board: &mut PendingState, vm: &VmId) {
        if board.present.as_ref().is_some_and(|all| !all.contains(vm)) {
            board.forget(vm);
            self.store_writer.note(Change::Forget { vm: vm.clone() });
        }
    }

    /// Everything pending is gone with the file it was in.
    pub fn lose_all(&self) {
        let mut board = self.board();
        let all: Vec<VmId> = board.queue.slots().map(|(vm, _)| vm.clone()).collect();
        for vm in all {
            board.queue.discard(&vm);
        }
        board.details.clear();
    }

    /// Sends dead letters again, all or one guest's; gives their number.
    pub fn revive(&self, vm: Option<&VmId>) -> usize {
        let mut board = self.board();
        let dead: Vec<VmId> = board
            .queue
            .slots()
            .filter(|(id, slot)| slot.state == State::Dead && vm.is_none_or(|vm| vm == *id))
            .map(|(id, _)| id.clone())
            .collect();
        for vm in &dead {
            board.queue.revive(vm);
        }
        self.write_changed(&mut board);
        drop(board);
        self.news.notify_one();
        dead.len()
    }

    /// Ends the dead letter of a guest: it is gone from the disk, too. Says whether there was one.
    /// `is_departed`: one that was refused and waits to be pulled again is a dead letter, too.
    pub fn drop_dead(&self, vm: &VmId, is_departed: bool) -> bool {
        let mut board = self.board();
        let ends = |slot: &&Slot| match slot.state {
            State::Dead => true,
            State::Backoff(_) => is_departed && slot.demoted,
            State::Queued | State::InFlight => false,
        };
        let dead = board.queue.slot(vm).filter(ends);
        let Some(report) = dead.map(|slot| slot.report) else {
            return false;
        };
        board.queue.discard(vm);
        board.details.remove(vm);
        self.store_writer.note(Change::Drop {
            vm: vm.clone(),
            report,
        });
        self.forget_departed(&mut board, vm);
        true
    }

    /// Guests whose report was refused, and has been waiting since before this time.
    pub fn refused_since_before(&self, time: WallTime) -> Vec<VmId> {
        let board = self.board();
        let is_old = |vm: &VmId| board.detail(vm).is_some_and(|detail| detail.since < time);
        let is_refused = |slot: &Slot| slot.demoted || slot.state == State::Dead;
        let slots = board.queue.slots();
        let refused = slots.filter(|(_, slot)| is_refused(slot));
        refused
            .map(|(vm, _)| vm)
            .filter(|vm| is_old(vm))
            .cloned()
            .collect()
    }

    fn write_changed(&self, board: &mut PendingState) {
        for vm in board.queue.take_changed() {
            self.write_row(board, &vm);
        }
    }

    fn write_row(&self, board: &PendingState, vm: &VmId) {
        if let (Some(slot), Some(detail)) = (board.queue.slot(vm), board.details.get(vm)) {
            self.store_writer.note(Change::Move {
                vm: vm.clone(),
                slot: row_of(slot, detail, clock::now()),
            });
        }
    }
}

impl PendingState {
    /// What people want to know of a guest's pending report.
    pub fn detail(&self, vm: &VmId) -> Option<&Detail> {
        self.details.get(vm)
    }

    /// What Central accepted last of a guest, and when.
    pub fn accepted(&self, vm: &VmId) -> Option<(DocumentId, WallTime)> {
        self.accepted.get(vm).copied()
    }

    fn accept(&mut self, vm: &VmId, report: DocumentId, at: WallTime) {
        let before = self.accepted.insert(vm.clone(), (report, at));
        if let Some((before, _)) = before {
            let highest = self.highest.get(vm).copied().unwrap_or(before.key);
            match goes_back(highest, report.key) {
                true => self.highest.insert(vm.clone(), highest),
                false => self.highest.remove(vm),
            };
        }
    }

    /// A guest left the roster.
    pub fn forget(&mut self, vm: &VmId) {
        self.queue.forget_budget(vm);
        self.accepted.remove(vm);
        self.highest.remove(vm);
    }
}

fn row_of(slot: &Slot, detail: &Detail, now: Instant) -> SlotRow {
    let not_before = match slot.state {
        State::Backoff(until) => clock::wall_now().after(until.saturating_duration_since(now)),
        State::Queued | State::InFlight | State::Dead => WallTime::default(),
    };
    let last_error = detail.last_error.clone();
    SlotRow {
        report: slot.report,
        trigger: slot.trigger,
        generated_at: detail.generated_at,
        since: detail.since,
        packages: detail.packages,
        place: slot.place,
        attempts: slot.attempts,
        not_before,
        demoted: slot.demoted,
        dead: (slot.state == State::Dead)
            .then(|| last_error.clone().unwrap_or_else(|| "refused".into())),
        last_error,
    }
}

/// The class of a document: urgent only if something changed, and not at the first meeting, when
/// everything is new.
pub fn class_of(summary: &ReportSummary, known: Option<DocumentId>) -> Class {
    let is_reactive = summary.facts_alone.is_none() && summary.trigger == Trigger::Reactive;
    match known {
        Some(known) if known.digest != summary.digest && is_reactive => Class::Reactive,
        _ => Class::Routine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Facts, FactsHash, Generation, Report};
    use crate::sense::queue::table::{self, GuestRow, Place};
    use crate::store::Store;

    /// Loss prevented: what is known of guests that come and go grows without end.
    #[test]
    fn nothing_is_kept_of_a_guest_that_left_once_its_last_report_is_delivered() {
        for stays in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let open = || {
                Store::open(dir.path(), "sense.redb", 1 << 20)
                    .unwrap()
                    .store
            };
            let (store_writer, writer) =
                StoreWriter::start(Arc::new(open()), Box::new(|| ())).unwrap();
            let (store_writer, vm) = (Arc::new(store_writer), "a".parse::<VmId>().unwrap());
            let pending = Pending::new(
                Policy::default(),
                store_writer.clone(),
                Vec::new(),
                HashMap::new(),
            );
            store_writer.note(Change::Learn {
                vm: vm.clone(),
                guest: GuestRow::default(),
            });
            let key = ReportKey {
                epoch: None,
                generation: Generation::new(1).unwrap(),
            };
            let summary = ReportSummary {
                guest_id: None,
                seen_at: WallTime::default(),
                facts: FactsHash::of(&Facts::default()),
                key,
                digest: Report::default().digest(),
                facts_alone: None,
                trigger: Trigger::Scheduled,
                generated_at: WallTime::default(),
                packages: 1,
            };
            let (arrival, row) = pending.admit(&vm, &summary, Class::Routine);
            pending.enqueue(&vm, arrival, &row);
            pending.set_present(stays.then(|| vm.clone()).into_iter().collect());
            let Next::Send(_, report) = pending.select(clock::now()) else {
                unreachable!("it is pending")
            };
            pending.settle(&vm, report, &Outcome::Accepted, true);
            assert_eq!(pending.board().accepted(&vm).is_some(), stays);
            drop((pending, store_writer));
            writer.join().unwrap();
            let kept = table::load(&open()).unwrap().guests;
            assert_eq!(kept.len(), usize::from(stays));
        }
    }

    /// Loss prevented: reports that wait for years because the clock was wrong when they were stored.
    #[test]
    fn a_stored_deadline_is_no_farther_than_any_that_can_be_set() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "sense.redb", 1 << 20)
            .unwrap()
            .store;
        let (store_writer, writer) = StoreWriter::start(Arc::new(store), Box::new(|| ())).unwrap();
        let (store_writer, vm) = (Arc::new(store_writer), "a".parse::<VmId>().unwrap());
        let years = Duration::from_secs(10 * 365 * 86_400);
        let policy = Policy::default();
        let held = Place {
            reactive: Some(1),
            routine: None,
        };
        for (place, longest) in [
            (Place::default(), policy.backoff.ceiling),
            (held, LONGEST_PAUSE),
        ] {
            let row = SlotRow {
                report: DocumentId {
                    key: ReportKey {
                        epoch: None,
                        generation: Generation::new(1).unwrap(),
                    },
                    digest: Report::default().digest(),
                    facts: None,
                },
                trigger: Trigger::Reactive,
                generated_at: WallTime::default(),
                since: WallTime::default(),
                packages: 1,
                place,
                attempts: 1,
                not_before: clock::wall_now().after(years),
                demoted: false,
                dead: None,
                last_error: None,
            };
            let stored = vec![(vm.clone(), row)];
            let pending =
                Pending::new(policy.clone(), store_writer.clone(), stored, HashMap::new());
            let now = clock::now();
            let Next::At(at) = pending.select(now) else {
                unreachable!("it waits")
            };
            assert!(at <= now + longest, "{place:?}: {:?}", at - now);
        }
        drop(store_writer);
        writer.join().unwrap();
    }
}
