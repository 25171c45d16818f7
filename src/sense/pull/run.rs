//! The loop of pulling: an exchange with every guest that is due, and what came of each.

use super::agent::AgentInfo;
use super::failure::Failure;
use super::guests::{Guest, GuestTable, MachineBefore};
use super::job::{Exchange, PullJob, PullResult, Shared, changed_machine};
use super::layers::{LayerOutcomes, Pipeline, Protocol};
use super::schedule::{Ask, Memory, PullOutcome};
use crate::clock::{self, WallTime};
use crate::report::VmId;
use crate::sense::mapping::MappingStatus;
use crate::sense::queue::domain::DomainNote;
use crate::sense::queue::table::GuestRow;
use crate::sense::queue::{FullPull, Whereabouts};
use crate::sense::roster::{Guests, KnownGuests};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use uuid::Uuid;

/// A wait answered "unchanged" before this time is no wait.
const HASTY: Duration = Duration::from_secs(1);

/// After about this time the guest of a report that Central refused is pulled in full: what was wrong for a
/// moment is over by then, and a thousand refused guests are not pulled in the same second.
const AFTER_REFUSAL: Duration = Duration::from_secs(10);

/// The loop of pulling, and everything that it needs.
pub struct PullLoop {
    /// The guests.
    pub guests: Arc<Mutex<GuestTable>>,
    /// What all exchanges use.
    pub shared: Arc<Shared>,
}

/// What earlier runs knew of guests.
#[derive(Default)]
pub struct StoredGuests {
    /// Rows of guests that no source named since the start.
    pub rows: HashMap<VmId, GuestRow>,
    /// Guests that are asked for a full report: the fleet store or a sink does not have their last one.
    pub to_ask: HashSet<VmId>,
}

/// What reaches the loop from outside.
pub struct Inbox {
    /// The roster, whenever it changed.
    pub roster: watch::Receiver<KnownGuests>,
    /// Guests to be asked for a full report.
    pub full_pulls: mpsc::UnboundedReceiver<(VmId, FullPull)>,
    /// Guests that were given a mapping.
    pub mapped: mpsc::UnboundedReceiver<VmId>,
    /// The store was lost: ask everybody for everything.
    pub lost: mpsc::UnboundedReceiver<()>,
    /// Stop.
    pub stop: watch::Receiver<bool>,
}

impl PullLoop {
    /// Pulls until told to stop.
    pub async fn run(self, mut stored: StoredGuests, mut inbox: Inbox) {
        let mut exchanges = JoinSet::new();
        let first = inbox.roster.borrow_and_update().clone();
        self.take_over(first, &mut stored);
        let mut refused = RefusedGuests::default();
        loop {
            for vm in refused.due(clock::now()) {
                self.pull_in_full(&vm);
            }
            self.start(&mut exchanges);
            let due = self.guests().schedule.next_due();
            let due = due.into_iter().chain(refused.next_due()).min();
            tokio::select! {
                biased;
                _ = inbox.stop.wait_for(|stop| *stop) => break,
                Some(exchange) = exchanges.join_next_with_id() => self.settle(exchange),
                Some((vm, full_pull)) = inbox.full_pulls.recv() => match full_pull {
                    FullPull::AtOnce => self.pull_in_full(&vm),
                    FullPull::OnDemand => {
                        self.pull_in_full(&vm);
                        self.guests().schedule.ask_although_it_failed(&vm, clock::now());
                    }
                    FullPull::AfterPause => refused.add(vm, clock::now(), fastrand::f64()),
                },
                Some(vm) = inbox.mapped.recv() => self.ask_if_it_lacked_a_mapping(&vm),
                Some(()) = inbox.lost.recv() => self.pull_all_in_full(),
                Ok(()) = inbox.roster.changed() => {
                    let roster = inbox.roster.borrow_and_update().clone();
                    self.take_over(roster, &mut stored);
                }
                () = clock::sleep_until(due) => {}
            }
        }
        // Documents that are being stored go on in tasks of their own; the writer ends after them.
        exchanges.shutdown().await;
    }

    fn start(&self, exchanges: &mut JoinSet<Exchange>) {
        let mut table = self.guests();
        let now = clock::now();
        while let Some((vm, ask)) = table.schedule.take_due(now, fastrand::f64()) {
            let Some(guest) = table.guests.get_mut(&vm) else {
                continue;
            };
            let job = PullJob {
                entry: guest.entry.clone(),
                row: guest.row.clone(),
                ask,
                shared: self.shared.clone(),
            };
            guest.asked = Some(ask);
            guest.exchange = Some(exchanges.spawn(job.run()));
        }
    }

    fn settle(&self, ended: Result<(Id, Exchange), JoinError>) {
        let (id, exchange) = match ended {
            Ok(ended) => ended,
            // Its guest left, or moved to another address.
            Err(error) if error.is_cancelled() => return,
            Err(error) => return self.settle_panic(&error),
        };
        let Exchange {
            vm,
            asked,
            took,
            agent,
            result,
        } = exchange;
        let mut table = self.guests();
        let Some(guest) = table.guests.get_mut(&vm).filter(|guest| guest.is_in(id)) else {
            return;
        };
        guest.ended();
        if let Some(agent) = agent {
            self.note_agent(&vm, guest, agent);
        }
        self.count(&vm, asked, took, &result);
        let outcome = self.note(&vm, guest, asked, took, result);
        let (now, jitter) = (clock::now(), fastrand::f64());
        table.schedule.finished(&vm, outcome, now, jitter);
    }

    /// Takes note of what an agent says of itself.
    fn note_agent(&self, vm: &VmId, guest: &mut Guest, agent: AgentInfo) {
        let Shared {
            pushes, metrics, ..
        } = &*self.shared;
        let is_mismatch = pushes.lock().answered(vm, agent.mapping, clock::now());
        pushes.notify();
        if is_mismatch {
            let status = MappingStatus::UrlHashMismatch.label();
            metrics.mapping.inc(status);
        }
        match &mut guest.agent {
            Some(known) => known.update(agent),
            None => guest.agent = Some(Box::new(agent)),
        }
    }

    /// The outcome in each layer of an exchange that ended.
    fn layers(&self, vm: &VmId, result: &Result<PullResult, Failure>) -> LayerOutcomes {
        let protocol = match result {
            Ok(PullResult::Unchanged { .. }) => Protocol::Unchanged,
            Ok(PullResult::Refused { .. }) => Protocol::Report,
            Ok(PullResult::Stored { is_report, .. }) => match is_report {
                true => Protocol::Report,
                false => Protocol::Unchanged,
            },
            Err(failure) => return LayerOutcomes::from(failure),
        };
        let pipeline = match result {
            Ok(PullResult::Stored { .. }) => Pipeline::Stored,
            _ => match self.shared.pending.whereabouts(vm) {
                Whereabouts::Pending => Pipeline::Stored,
                Whereabouts::DeadLetter => Pipeline::Refused,
                Whereabouts::Delivered => Pipeline::Delivered,
            },
        };
        LayerOutcomes::answered(protocol, pipeline)
    }

    fn count(&self, vm: &VmId, asked: Ask, took: Duration, result: &Result<PullResult, Failure>) {
        let metrics = &self.shared.metrics;
        metrics.layers.count(self.layers(vm, result));
        if let Err(Failure::MappingRequired) = result {
            metrics.mapping.inc(MappingStatus::Required.label());
        }
        metrics.pulls.inc(match result {
            Ok(PullResult::Stored { .. }) => "report",
            Ok(PullResult::Refused { .. }) => "refused_before",
            Ok(PullResult::Unchanged { .. }) => "unchanged",
            Err(failure) => failure.label(),
        });
        if !matches!(asked, Ask::Wait(_)) {
            metrics.pull_seconds.observe_time(took);
        }
    }

    /// Takes note of what a guest answered; says what that means for the schedule.
    fn note(
        &self,
        vm: &VmId,
        guest: &mut Guest,
        asked: Ask,
        took: Duration,
        result: Result<PullResult, Failure>,
    ) -> PullOutcome {
        let hasty = matches!(asked, Ask::Wait(_)) && took < HASTY;
        guest.has_answered |= result.is_ok();
        let can_wait = guest.entry.address.can_hold_waits();
        match result {
            Ok(PullResult::Unchanged { learned }) => {
                guest.failure = None;
                let waits = learned.waits && can_wait;
                if learned.note(&mut guest.row) {
                    self.shared.pending.learn(vm, GuestRow::clone(&guest.row));
                }
                PullOutcome::Unchanged { waits, hasty }
            }
            Ok(PullResult::Refused { row }) => {
                guest.failure = None;
                let waits = row.waits && can_wait;
                if guest.row != row {
                    self.shared.pending.learn(vm, GuestRow::clone(&row));
                    guest.row = row;
                }
                PullOutcome::Refused { waits }
            }
            Ok(PullResult::Stored { row, .. }) => {
                guest.failure = None;
                let waits = row.waits && can_wait;
                if let Some(then) = changed_machine(&guest.row, row.guest_id.as_ref()) {
                    guest.before = Some(MachineBefore {
                        guest_id: Some(then.clone()),
                        domain: None,
                        until: row.full_at,
                    });
                }
                guest.row = row;
                PullOutcome::Report { waits }
            }
            Err(failure @ Failure::EmptyDatabase { waits }) => {
                if guest.failure.as_ref() != Some(&failure) {
                    tracing::info!(%vm, "has no package to report yet");
                }
                (guest.failure, guest.has_answered) = (Some(failure), true);
                let waits = waits && can_wait;
                PullOutcome::NoPackages { waits, hasty }
            }
            Err(failure) => {
                let outcome = match failure.is_hang() && !guest.entry.address.can_hold_waits() {
                    true => PullOutcome::Hung,
                    false => failure.next_step(asked),
                };
                if guest.failure.as_ref() != Some(&failure) {
                    tracing::warn!(%vm, address = %guest.entry.address, %failure, "not pulled");
                }
                guest.failure = Some(failure);
                outcome
            }
        }
    }

    /// A fault in handling the answer of one guest is that guest's failure, and no other's.
    fn settle_panic(&self, error: &JoinError) {
        let mut table = self.guests();
        let mut guests = table.guests.iter_mut();
        let Some((vm, guest)) = guests.find(|(_, guest)| guest.is_in(error.id())) else {
            return;
        };
        let vm = vm.clone();
        let failure = Failure::Panicked(error.to_string().as_str().into());
        tracing::error!(%vm, address = %guest.entry.address, %failure, "not pulled");
        let metrics = &self.shared.metrics;
        metrics.pulls.inc(failure.label());
        metrics.layers.count(LayerOutcomes::from(&failure));
        guest.ended();
        guest.failure = Some(failure);
        let (now, jitter) = (clock::now(), fastrand::f64());
        table
            .schedule
            .finished(&vm, PullOutcome::Failed, now, jitter);
    }

    /// Takes over a roster: new guests are asked at once, those gone no more; what is pending of
    /// them stays until it is delivered.
    ///
    /// `stored` is what is known of guests that no source named since the start. They are gone once all
    /// sources were read: one that cannot be read yet may name them.
    fn take_over(&self, roster: KnownGuests, stored: &mut StoredGuests) {
        let KnownGuests {
            guests: roster,
            is_complete,
        } = roster;
        self.take_over_guests(roster, stored);
        if is_complete {
            let present = self.guests().guests.keys().cloned().collect();
            self.shared.pending.set_present(present);
            for (vm, _) in stored.rows.drain() {
                self.shared.pending.forget(&vm);
            }
        }
    }

    fn take_over_guests(&self, roster: Guests, stored: &mut StoredGuests) {
        let mut table = self.guests();
        let all = table.guests.keys();
        let gone: Vec<VmId> = all
            .filter(|vm| !roster.contains_key(*vm))
            .cloned()
            .collect();
        for vm in &gone {
            table.remove(vm);
            self.shared.pending.forget(vm);
            self.shared.pushes.lock().forget(vm);
        }
        let (now, wall) = (clock::now(), self.shared.wall.now());
        for (vm, entry) in roster {
            let is_restored = stored.rows.contains_key(&vm);
            let (mut row, mut before) = match table.guests.get_mut(&vm) {
                Some(guest) if guest.entry.is_reached_as(&entry) => {
                    guest.entry = entry;
                    continue;
                }
                Some(_) => table.remove(&vm).map(|guest| (guest.row, guest.before)),
                None => stored.rows.remove(&vm).map(|row| (Arc::new(row), None)),
            }
            .unwrap_or_default();
            if let Some(domain) = entry.domain {
                before = self.note_domain(&vm, domain, &mut row, wall).or(before);
            }
            let memory = Memory {
                knows_report: row.known.is_some(),
                waits: row.waits && entry.address.can_hold_waits(),
                full_age: match stored.to_ask.remove(&vm) {
                    true => Duration::MAX,
                    false => wall.since(row.full_at),
                },
                is_restored,
            };
            let jitter = fastrand::f64();
            table.schedule.add(vm.clone(), memory, now, jitter);
            if entry.idle.is_some() {
                table.schedule.remove(&vm);
            }
            let guest = Guest {
                before,
                ..Guest::new(entry, row)
            };
            table.guests.insert(vm, Box::new(guest));
        }
        tracing::info!(guests = table.guests.len(), gone = gone.len(), "roster");
    }

    /// Notes which domain a guest is; gives the machine before, if there was another.
    fn note_domain(
        &self,
        vm: &VmId,
        domain: Uuid,
        row: &mut Arc<GuestRow>,
        now: WallTime,
    ) -> Option<MachineBefore> {
        let (guest_id, was) = (row.guest_id.clone(), row.domain);
        match self.shared.pending.note_domain(vm, domain, row) {
            DomainNote::SameMachine => None,
            DomainNote::AnotherMachine => {
                self.shared.metrics.machine_changes.inc();
                let shown = was.map(tracing::field::display);
                tracing::warn!(%vm, was = shown, now = %domain, "the domain of this name is another machine; a full report is asked for");
                Some(MachineBefore {
                    guest_id,
                    domain: was,
                    until: now,
                })
            }
        }
    }

    /// Asks a guest for a full report now; a wait is given up for it.
    fn pull_in_full(&self, vm: &VmId) {
        let now = clock::now();
        let mut table = self.guests();
        if let Some(guest) = table.guests.get_mut(vm)
            && matches!(guest.asked, Some(Ask::Wait(_)))
        {
            if let Some(exchange) = &guest.exchange {
                exchange.abort();
            }
            guest.ended();
            table.schedule.interrupted(vm, now);
        }
        table.schedule.want_full_now(vm, now);
    }

    /// A guest took the mapping: if it gave no report for lack of one, it is asked again.
    fn ask_if_it_lacked_a_mapping(&self, vm: &VmId) {
        let mut table = self.guests();
        let failure = table
            .guests
            .get(vm)
            .and_then(|guest| guest.failure.as_ref());
        if failure == Some(&Failure::MappingRequired) {
            table.schedule.ask_soon(vm, clock::now());
        }
    }

    fn pull_all_in_full(&self) {
        self.shared.pending.lose_all();
        let mut table = self.guests();
        let all: Vec<VmId> = table.guests.keys().cloned().collect();
        for vm in all {
            table.schedule.want_full(&vm);
        }
    }

    fn guests(&self) -> MutexGuard<'_, GuestTable> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guests whose reports Central refused, by when they are pulled in full.
#[derive(Default)]
struct RefusedGuests(BTreeSet<(Instant, VmId)>);

impl RefusedGuests {
    /// `jitter` is uniform in 0..1.
    fn add(&mut self, vm: VmId, now: Instant, jitter: f64) {
        let pause = AFTER_REFUSAL.mul_f64(0.9 + jitter / 5.0);
        self.0.insert((now + pause, vm));
    }

    fn next_due(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    fn due(&mut self, now: Instant) -> Vec<VmId> {
        let mut due = Vec::new();
        while self.next_due().is_some_and(|at| at <= now) {
            due.extend(self.0.pop_first().map(|(_, vm)| vm));
        }
        due
    }
}

#[cfg(test)]
mod tests;
