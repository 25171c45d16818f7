//! One conversation with a guest, from the request to the durable report.

use super::answer::{self, Context};
use super::exchange;
use super::failure::Failure;
use super::schedule::Ask;
use crate::clock;
use crate::report::{FactsHash, GuestId, ReportSummary, VmId};
use crate::sense::limits::{ConcurrencyLimits, Transfer};
use crate::sense::metrics::Metrics;
use crate::sense::queue::pending::{self, Pending};
use crate::sense::queue::table::{Change, DocumentId, Echo, GuestRow, SealedReport};
use crate::sense::queue::writer::StoreWriter;
use crate::sense::roster::Entry;
use crate::sense::seen::SeenClock;
use std::sync::Arc;
use std::time::Duration;

/// A conversation that has ended.
pub(super) struct Exchange {
    pub(super) vm: VmId,
    pub(super) asked: Ask,
    pub(super) took: Duration,
    pub(super) result: Result<PullResult, Failure>,
}

/// What came of a conversation.
pub(super) enum PullResult {
    /// No document.
    Unchanged { learned: Learned },
    /// A document that is durable now, and what is known of the guest with it.
    Kept { row: Arc<GuestRow> },
}

/// What an answer without a document tells of the guest.
pub(super) struct Learned {
    pub(super) waits: bool,
    echo: Echo,
    facts: FactsHash,
}

impl Learned {
    /// Notes it in the row; whether that changed anything.
    pub(super) fn note(self, row: &mut Arc<GuestRow>) -> bool {
        // Facts that were sent before are in the row already; those that wait for their turn are not.
        let facts = row.facts.or(Some(self.facts));
        if row.waits == self.waits && row.echo == self.echo && row.facts == facts {
            return false;
        }
        let row = Arc::make_mut(row);
        (row.waits, row.echo, row.facts) = (self.waits, self.echo, facts);
        true
    }
}

/// One conversation, from the first byte to the durable report.
pub(super) struct Conversation {
    pub(super) entry: Arc<Entry>,
    pub(super) row: Arc<GuestRow>,
    pub(super) ask: Ask,
    pub(super) pending: Arc<Pending>,
    pub(super) store_writer: Arc<StoreWriter>,
    pub(super) limits: Arc<ConcurrencyLimits>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) seen: Arc<SeenClock>,
}

impl Conversation {
    pub(super) async fn hold(self) -> Exchange {
        let started = clock::now();
        let (vm, asked) = (self.entry.vm.clone(), self.ask);
        let result = self.talk().await;
        Exchange {
            vm,
            asked,
            took: clock::now().saturating_duration_since(started),
            result,
        }
    }

    async fn talk(self) -> Result<PullResult, Failure> {
        let (bytes, transfer) =
            exchange::converse(&self.entry.address, self.ask, &self.row.echo, &self.limits).await?;
        // Apart from the wait, which ten thousand guests are in at a time: it stays small.
        Box::pin(self.take_in(bytes, transfer)).await
    }

    /// What becomes of an answer, up to the durable report.
    async fn take_in(
        self,
        bytes: Vec<u8>,
        mut transfer: Option<Transfer>,
    ) -> Result<PullResult, Failure> {
        let (started, len) = (clock::now(), bytes.len());
        let Understood { learned, document } = self.understand(bytes, transfer.as_ref()).await?;
        // Facts alone wait until what is pending of the guest was delivered; it may bring them.
        let must_wait = |summary: &ReportSummary| {
            summary.facts_alone.is_some()
                && self.pending.board().queue.slot(&self.entry.vm).is_some()
        };
        let Some((summary, sealed)) = document.filter(|(summary, _)| !must_wait(summary)) else {
            return Ok(PullResult::Unchanged { learned });
        };
        if let Some(transfer) = &mut transfer {
            transfer.keep(&self.limits).await;
        }
        let metrics = self.metrics.clone();
        if summary.facts_alone.is_none() {
            metrics.triggers.inc(summary.trigger.as_str());
            metrics.report_bytes.observe(len as f64);
            metrics.report_packages.observe(f64::from(summary.packages));
        }
        let arrived = Arrived {
            vm: self.entry.vm.clone(),
            row: self.learn(&summary, learned),
            before: self.row,
            summary,
            sealed,
        };
        let kept = tokio::spawn(arrived.keep(self.pending, self.store_writer));
        let kept = kept.await.map_err(|e| Failure::WriteError(e.to_string()))?;
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
        let (seen, now) = (self.seen.clone(), clock::wall_now());
        let work = move || {
            let context = Context {
                vm: &entry.vm,
                address: &entry.address,
                row: &row,
                ask,
                seen: &seen,
                now,
            };
            let answer = answer::understand(&bytes, context)?;
            check_machine(entry.guest_id.as_ref(), answer.guest_id.as_ref())?;
            let document = match &answer.document {
                Some(envelope) => {
                    let sealed = SealedReport::new(envelope).map_err(Failure::WriteError)?;
                    Some((envelope.summary(), sealed))
                }
                None => None,
            };
            let learned = Learned {
                waits: answer.waits,
                echo: answer.echo,
                facts: answer.facts,
            };
            Ok(Understood { learned, document })
        };
        let Some(transfer) = transfer else {
            return work();
        };
        let _hand = self.limits.cpu_permit(transfer.urgency).await;
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Failure::WriteError(error.to_string()))?
    }

    /// What is known of the guest once this document is durable.
    fn learn(&self, summary: &ReportSummary, learned: Learned) -> GuestRow {
        if summary.facts_alone.is_some() {
            return GuestRow {
                waits: learned.waits,
                echo: learned.echo,
                facts: Some(summary.facts),
                ..GuestRow::clone(&self.row)
            };
        }
        if let Some(then) = changed_machine(&self.row, summary.guest_id.as_ref()) {
            let now = summary.guest_id.as_ref().map(GuestId::as_str);
            self.metrics.machine_changes.inc();
            tracing::warn!(vm = %self.entry.vm, %then, now, "another machine answers here");
        }
        if let Some(known) = self.row.known
            && known.key.epoch == summary.key.epoch
            && known.key.generation > summary.key.generation
        {
            self.metrics.went_back.inc();
            tracing::warn!(vm = %self.entry.vm, from = %known.key, to = %summary.key, "generation went back: was a snapshot restored?");
        }
        let tokens = match &learned.echo {
            Echo::Token(_) => summary.key.generation.get(),
            Echo::Nothing | Echo::Pair { .. } => self.row.tokens,
        };
        GuestRow {
            known: Some(DocumentId::from(summary)),
            echo: learned.echo,
            guest_id: summary.guest_id.clone(),
            waits: learned.waits,
            generated_at: summary.generated_at,
            full_at: clock::wall_now(),
            accepted: None,
            facts: Some(summary.facts),
            tokens,
        }
    }
}

/// What an answer said.
struct Understood {
    learned: Learned,
    document: Option<(ReportSummary, SealedReport)>,
}

/// A report that is not yet durable.
struct Arrived {
    vm: VmId,
    /// What was known of the guest.
    before: Arc<GuestRow>,
    /// What is known of it from now on.
    row: GuestRow,
    summary: ReportSummary,
    sealed: SealedReport,
}

impl Arrived {
    /// Makes the report durable and puts it into the queue. Runs to its end whatever becomes of the
    /// guest meanwhile: what is on disk must be in the queue.
    async fn keep(
        self,
        pending: Arc<Pending>,
        store_writer: Arc<StoreWriter>,
    ) -> Result<PullResult, Failure> {
        let Self {
            vm,
            before,
            row,
            summary,
            sealed,
        } = self;
        let same_machine = before.guest_id.is_none() || before.guest_id == row.guest_id;
        let known = before.known.filter(|_| same_machine);
        let class = pending::class_of(&summary, known);
        let (arrival, slot) = pending.admit(&vm, &summary, class);
        let put = Change::Put {
            vm: vm.clone(),
            slot: slot.clone(),
            guest: row.clone(),
            report: sealed,
            seen_at: summary.seen_at,
        };
        store_writer
            .keep(put)
            .await
            .map_err(|error| Failure::WriteError(error.to_string()))?;
        pending.enqueue(&vm, arrival, &slot);
        tracing::debug!(%vm, generation = %slot.report.key, ?class, "pending");
        Ok(PullResult::Kept { row: Arc::new(row) })
    }
}

/// The machine that answered before, if now it is another.
pub(super) fn changed_machine<'a>(row: &'a GuestRow, now: Option<&GuestId>) -> Option<&'a GuestId> {
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
