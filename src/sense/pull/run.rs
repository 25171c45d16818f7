//! The loop of pulling: a conversation with every guest whose turn it is, and what came of each.

use super::answer;
use super::exchange;
use super::failure::Failure;
use super::schedule::{Ask, Heard, Memory, Schedule, Timing};
use crate::clock::{self, WallTime};
use crate::report::{GuestId, Headline, VmId};
use crate::sense::desk::{self, Desk};
use crate::sense::keeper::Keeper;
use crate::sense::lanes::{Lanes, Transfer};
use crate::sense::metrics::Metrics;
use crate::sense::roster::{Entry, Guests};
use crate::store::pending_table::{Change, GuestRow, Known, SealedReport};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// A wait answered "unchanged" before this time is no wait.
const HASTY: Duration = Duration::from_secs(1);

/// Guests and their turns, as pulling keeps them and `status` shows them.
pub struct Book {
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
    pub heard: bool,
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
    pub book: Arc<Mutex<Book>>,
    /// The queue.
    pub desk: Arc<Desk>,
    /// The writer.
    pub keeper: Arc<Keeper>,
    /// What bounds conversations.
    pub lanes: Arc<Lanes>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// What reaches the loop from outside.
pub struct Inbox {
    /// The roster, whenever it changed.
    pub roster: watch::Receiver<Guests>,
    /// Guests to be asked for a full report.
    pub ask_full: mpsc::UnboundedReceiver<VmId>,
    /// The store was lost: ask everybody for everything.
    pub lost: mpsc::UnboundedReceiver<()>,
    /// Stop.
    pub stop: watch::Receiver<bool>,
}

struct Talk {
    vm: VmId,
    asked: Ask,
    took: Duration,
    result: Result<News, Failure>,
}

enum News {
    Unchanged { waits: bool },
    Kept { row: Arc<GuestRow> },
}

impl Book {
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
        for vm in stored.into_keys() {
            self.forget(&vm);
        }
        loop {
            self.start(&mut talks);
            let due = self.book().schedule.next_due();
            tokio::select! {
                biased;
                _ = inbox.stop.wait_for(|stop| *stop) => break,
                Some(talk) = talks.join_next_with_id() => self.settle(talk),
                Some(vm) = inbox.ask_full.recv() => self.book().schedule.want_full(&vm),
                Some(()) = inbox.lost.recv() => self.ask_all(),
                Ok(()) = inbox.roster.changed() => {
                    let roster = inbox.roster.borrow_and_update().clone();
                    self.take_over(roster, &mut HashMap::new());
                }
                () = sleep_until(due) => {}
            }
        }
        // Reports that are being stored go on in tasks of their own; the keeper ends after them.
        talks.shutdown().await;
    }

    fn start(&self, talks: &mut JoinSet<Talk>) {
        let mut book = self.book();
        let now = clock::now();
        while let Some((vm, ask)) = book.schedule.take_due(now, fastrand::f64()) {
            let Some(guest) = book.guests.get_mut(&vm) else {
                continue;
            };
            let conversation = Conversation {
                entry: guest.entry.clone(),
                row: guest.row.clone(),
                ask,
                desk: self.desk.clone(),
                keeper: self.keeper.clone(),
                lanes: self.lanes.clone(),
                metrics: self.metrics.clone(),
            };
            guest.asked = Some(ask);
            guest.talk = Some(talks.spawn(conversation.hold()));
        }
    }

    fn settle(&self, talk: Result<(Id, Talk), JoinError>) {
        let (id, talk) = match talk {
            Ok(talk) => talk,
            // Its guest left, or moved to another address.
            Err(error) if error.is_cancelled() => return,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let mut book = self.book();
        let Talk {
            vm,
            asked,
            took,
            result,
        } = talk;
        let is_current = |guest: &&mut Guest| guest.talk.as_ref().is_some_and(|t| t.id() == id);
        let Some(guest) = book.guests.get_mut(&vm).filter(is_current) else {
            return;
        };
        (guest.talk, guest.asked) = (None, None);
        guest.heard |= result.is_ok();
        self.metrics.pulls.inc(match &result {
            Ok(News::Kept { .. }) => "report",
            Ok(News::Unchanged { .. }) => "unchanged",
            Err(failure) => failure.label(),
        });
        if !matches!(asked, Ask::Wait(_)) {
            self.metrics.pull_seconds.observe_time(took);
        }
        let heard = match result {
            Ok(News::Unchanged { waits }) => {
                guest.failure = None;
                if guest.row.waits != waits {
                    Arc::make_mut(&mut guest.row).waits = waits;
                    self.keeper.note(Change::Learn {
                        vm: vm.clone(),
                        guest: GuestRow::clone(&guest.row),
                    });
                }
                let hasty = matches!(asked, Ask::Wait(_)) && took < HASTY;
                Heard::Unchanged { waits, hasty }
            }
            Ok(News::Kept { row }) => {
                guest.failure = None;
                let waits = row.waits;
                if let Some(then) = changed_machine(&guest.row, row.guest_id.as_ref()) {
                    guest.before = Some((then.clone(), row.full_at));
                }
                guest.row = row;
                Heard::Report { waits }
            }
            Err(failure) => {
                let heard = failure.next_step(asked);
                if guest.failure.as_ref() != Some(&failure) {
                    tracing::warn!(%vm, address = %guest.entry.address, %failure, "not pulled");
                }
                guest.failure = Some(failure);
                heard
            }
        };
        book.schedule
            .finished(&vm, heard, clock::now(), fastrand::f64());
    }

    /// Takes over a roster: new guests are asked at once, those gone no more; what is pending of
    /// them stays until it is delivered.
    fn take_over(&self, roster: Guests, stored: &mut HashMap<VmId, GuestRow>) {
        let mut book = self.book();
        let gone: Vec<VmId> = book
            .guests
            .keys()
            .filter(|vm| !roster.contains_key(*vm))
            .cloned()
            .collect();
        for vm in &gone {
            book.remove(vm);
            self.forget(vm);
        }
        let (now, wall) = (clock::now(), clock::wall_now());
        for (vm, entry) in roster {
            let row = match book.guests.get(&vm) {
                Some(guest) if guest.entry == entry => continue,
                Some(_) => book.remove(&vm).map(|guest| guest.row),
                None => stored.remove(&vm).map(Arc::new),
            }
            .unwrap_or_default();
            let memory = Memory {
                knows_report: row.known.is_some(),
                waits: row.waits,
                full_age: wall.since(row.full_at),
            };
            book.schedule.add(vm.clone(), memory, now, fastrand::f64());
            let guest = Guest {
                entry,
                row,
                heard: false,
                failure: None,
                before: None,
                talk: None,
                asked: None,
            };
            book.guests.insert(vm, guest);
        }
        tracing::info!(guests = book.guests.len(), gone = gone.len(), "roster");
    }

    fn forget(&self, vm: &VmId) {
        self.keeper.note(Change::Forget { vm: vm.clone() });
        self.desk.board().forget(vm);
    }

    fn ask_all(&self) {
        self.desk.lose_all();
        let mut book = self.book();
        let all: Vec<VmId> = book.guests.keys().cloned().collect();
        for vm in all {
            book.schedule.want_full(&vm);
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn remove(&mut self, vm: &VmId) -> Option<Guest> {
        self.schedule.remove(vm);
        let guest = self.guests.remove(vm)?;
        if let Some(talk) = &guest.talk {
            talk.abort();
        }
        Some(guest)
    }
}

/// One conversation, from the first byte to the durable report.
struct Conversation {
    entry: Arc<Entry>,
    row: Arc<GuestRow>,
    ask: Ask,
    desk: Arc<Desk>,
    keeper: Arc<Keeper>,
    lanes: Arc<Lanes>,
    metrics: Arc<Metrics>,
}

impl Conversation {
    async fn hold(self) -> Talk {
        let started = clock::now();
        let (vm, asked) = (self.entry.vm.clone(), self.ask);
        let result = self.talk().await;
        Talk {
            vm,
            asked,
            took: clock::now().saturating_duration_since(started),
            result,
        }
    }

    async fn talk(self) -> Result<News, Failure> {
        let (bytes, transfer) =
            exchange::converse(&self.entry.address, self.ask, self.row.known, &self.lanes).await?;
        // Apart from the wait, which ten thousand guests are in at a time: it stays small.
        Box::pin(self.take_in(bytes, transfer)).await
    }

    /// What becomes of an answer, up to the durable report.
    async fn take_in(
        self,
        bytes: Vec<u8>,
        mut transfer: Option<Transfer>,
    ) -> Result<News, Failure> {
        let (started, len) = (clock::now(), bytes.len());
        let Understood { waits, report } = self.understand(bytes, transfer.as_ref()).await?;
        let Some((headline, sealed)) = report else {
            return Ok(News::Unchanged { waits });
        };
        if let Some(transfer) = &mut transfer {
            transfer.keep(&self.lanes).await;
        }
        let metrics = self.metrics.clone();
        metrics.triggers.inc(headline.trigger.as_str());
        metrics.report_bytes.observe(len as f64);
        metrics
            .report_packages
            .observe(f64::from(headline.packages));
        let arrived = Arrived {
            vm: self.entry.vm.clone(),
            row: self.learn(&headline, waits),
            before: self.row,
            headline,
            sealed,
        };
        let kept = tokio::spawn(arrived.keep(self.desk, self.keeper));
        let kept = kept.await.map_err(|e| Failure::NotKept(e.to_string()))?;
        drop(transfer);
        metrics
            .transfer_seconds
            .observe_time(clock::now().saturating_duration_since(started));
        kept
    }

    /// Understands an answer: a short one here, a long one where it holds nobody up.
    async fn understand(
        &self,
        bytes: Vec<u8>,
        transfer: Option<&Transfer>,
    ) -> Result<Understood, Failure> {
        let (entry, row, ask) = (self.entry.clone(), self.row.clone(), self.ask);
        let work = move || {
            let answer = answer::understand(&bytes, &entry.vm, &entry.address, &row, ask)?;
            check_machine(entry.guest_id.as_ref(), answer.guest_id.as_ref())?;
            let report = match &answer.report {
                Some(envelope) => {
                    let sealed = SealedReport::new(envelope).map_err(Failure::NotKept)?;
                    Some((envelope.headline(), sealed))
                }
                None => None,
            };
            let waits = answer.waits;
            Ok(Understood { waits, report })
        };
        let Some(transfer) = transfer else {
            return work();
        };
        let _hand = self.lanes.hand(transfer.urgency).await;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Failure::NotKept(error.to_string()))?
    }

    /// What is known of the guest once this report is durable.
    fn learn(&self, headline: &Headline, waits: bool) -> GuestRow {
        if let Some(then) = changed_machine(&self.row, headline.guest_id.as_ref()) {
            let now = headline.guest_id.as_ref().map(GuestId::as_str);
            self.metrics.machine_changes.inc();
            tracing::warn!(vm = %self.entry.vm, %then, now, "another machine answers here");
        }
        if let Some(known) = self.row.known
            && known.key.epoch == headline.key.epoch
            && known.key.generation > headline.key.generation
        {
            self.metrics.went_back.inc();
            tracing::warn!(vm = %self.entry.vm, from = %known.key, to = %headline.key, "generation went back: was a snapshot restored?");
        }
        GuestRow {
            known: Some(Known::from(headline)),
            guest_id: headline.guest_id.clone(),
            waits,
            generated_at: headline.generated_at,
            full_at: clock::wall_now(),
            accepted: None,
        }
    }
}

/// What an answer said.
struct Understood {
    waits: bool,
    report: Option<(Headline, SealedReport)>,
}

/// A report that is not yet durable.
struct Arrived {
    vm: VmId,
    /// What was known of the guest.
    before: Arc<GuestRow>,
    /// What is known of it from now on.
    row: GuestRow,
    headline: Headline,
    sealed: SealedReport,
}

impl Arrived {
    /// Makes the report durable and puts it into the queue. Runs to its end whatever becomes of the
    /// guest meanwhile: what is on disk must be in the queue.
    async fn keep(self, desk: Arc<Desk>, keeper: Arc<Keeper>) -> Result<News, Failure> {
        let Self {
            vm,
            before,
            row,
            headline,
            sealed,
        } = self;
        let same_machine = before.guest_id.is_none() || before.guest_id == row.guest_id;
        let known = before.known.filter(|_| same_machine);
        let class = desk::class_of(headline.trigger, known, Known::from(&headline));
        let (arrival, slot) = desk.admit(&vm, &headline, class);
        let put = Change::Put {
            vm: vm.clone(),
            slot: slot.clone(),
            guest: row.clone(),
            report: sealed,
        };
        keeper
            .keep(put)
            .await
            .map_err(|error| Failure::NotKept(error.to_string()))?;
        desk.enqueue(&vm, arrival, &slot);
        tracing::debug!(%vm, generation = %slot.report.key, ?class, "pending");
        Ok(News::Kept { row: Arc::new(row) })
    }
}

/// The machine that answered before, if now it is another.
fn changed_machine<'a>(row: &'a GuestRow, now: Option<&GuestId>) -> Option<&'a GuestId> {
    row.guest_id
        .as_ref()
        .filter(|then| now.is_some_and(|now| now != *then))
}

fn check_machine(allowed: Option<&GuestId>, found: Option<&GuestId>) -> Result<(), Failure> {
    match allowed {
        Some(allowed) if Some(allowed) != found => Err(Failure::WrongGuest(
            found.map_or_else(|| "it does not say which".into(), ToString::to_string),
        )),
        _ => Ok(()),
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
