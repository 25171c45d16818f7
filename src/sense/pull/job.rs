//! One pull of a guest, from the request to the durable document.

use super::agent::AgentInfo;
use super::answer::{self, Context};
use super::dial::Dial;
use super::exchange::{self, Received};
use super::failure::Failure;
use super::schedule::Ask;
use crate::blocking::Blocking;
use crate::clock::{self, WallClock};
use crate::report::{Envelope, FactsHash, GuestId, ReportSummary, VmId, facts};
use crate::sense::fleet::{Fleet, FleetDocument};
use crate::sense::limits::{ConcurrencyLimits, Transfer};
use crate::sense::mapping::run::SharedPushes;
use crate::sense::metrics::Metrics;
use crate::sense::queue::slot::Class;
use crate::sense::queue::table::{DocumentId, Echo, GuestRow, SealedReport};
use crate::sense::queue::{ArrivedDocument, FullPull, Pending, PendingAt};
use crate::sense::roster::RosterEntry;
use crate::sense::seen::SeenClock;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;

/// What all exchanges use.
pub struct Shared {
    /// Connects to guests.
    pub dial: Arc<dyn Dial>,
    /// Where documents are put.
    pub pending: Arc<Pending>,
    /// Where each guest's last report is kept for questions, if it is.
    pub fleet: Option<Arc<Fleet>>,
    /// Concurrency limits, shared with delivery.
    pub limits: Arc<ConcurrencyLimits>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who lacks the sensor's mapping.
    pub pushes: Arc<SharedPushes>,
    /// Guests to be asked for a full report.
    pub full_pulls: UnboundedSender<(VmId, FullPull)>,
    /// Gives documents their time.
    pub seen: Arc<SeenClock>,
    /// Where long answers are decoded.
    pub blocking: Blocking,
    /// Time of day.
    pub wall: WallClock,
}

/// An exchange with a guest that has ended.
pub(super) struct Exchange {
    pub(super) vm: VmId,
    pub(super) asked: Ask,
    pub(super) took: Duration,
    /// What the agent says of itself, if it answered.
    pub(super) agent: Option<AgentInfo>,
    pub(super) result: Result<PullResult, Failure>,
}

/// What came of an exchange.
pub(super) enum PullResult {
    /// No document.
    Unchanged { learned: Learned },
    /// A document that is durable now, and what is known of the guest with it.
    Stored {
        row: Arc<GuestRow>,
        /// It is a report, and not facts that changed alone.
        is_report: bool,
    },
    /// A report whose content is the guest's dead letter: it is sent again when its refresh is due.
    Refused { row: Arc<GuestRow> },
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
        // Facts that were sent before are in the row already; those that are deferred are not.
        let facts = row.facts.or(Some(self.facts));
        if row.waits == self.waits && row.echo == self.echo && row.facts == facts {
            return false;
        }
        let row = Arc::make_mut(row);
        (row.waits, row.echo, row.facts) = (self.waits, self.echo, facts);
        true
    }
}

/// A pull of a guest that is due.
pub(super) struct PullJob {
    pub(super) entry: Arc<RosterEntry>,
    pub(super) row: Arc<GuestRow>,
    pub(super) ask: Ask,
    pub(super) shared: Arc<Shared>,
}

/// A document, ready to be stored.
struct DecodedDocument {
    summary: ReportSummary,
    sealed: SealedReport,
    fleet: Option<FleetDocument>,
}

/// An answer, decoded.
struct Decoded {
    learned: Learned,
    document: Option<DecodedDocument>,
}

impl PullJob {
    pub(super) async fn run(self) -> Exchange {
        let started = clock::now();
        let (vm, asked) = (self.entry.vm.clone(), self.ask);
        let mut agent = None;
        let result = self.pull(&mut agent).await;
        Exchange {
            vm,
            asked,
            took: clock::now().saturating_duration_since(started),
            agent,
            result,
        }
    }

    async fn pull(self, agent: &mut Option<AgentInfo>) -> Result<PullResult, Failure> {
        let Shared { dial, limits, .. } = &*self.shared;
        let (address, echo) = (&self.entry.address, &self.row.echo);
        let received = exchange::pull(&**dial, address, self.ask, echo, limits).await?;
        // Apart from the wait, which ten thousand guests are in at a time: it stays small.
        Box::pin(self.store(received, agent)).await
    }

    /// Decodes an answer and stores its document, if it brings one.
    async fn store(
        self,
        received: Received,
        agent: &mut Option<AgentInfo>,
    ) -> Result<PullResult, Failure> {
        let Received {
            bytes,
            mut transfer,
            certified,
        } = received;
        let (started, len) = (clock::now(), bytes.len());
        let decoded;
        (*agent, decoded) = self.decode(bytes, transfer.as_ref(), certified).await;
        let Decoded { learned, document } = decoded?;
        let Shared {
            pending,
            limits,
            metrics,
            ..
        } = &*self.shared;
        let document = document.filter(|document| !self.defers(&document.summary, pending));
        let Some(DecodedDocument {
            summary,
            sealed,
            fleet,
        }) = document
        else {
            return Ok(PullResult::Unchanged { learned });
        };
        if self.is_refused(&summary, pending) {
            let row = GuestRow {
                tokens: self.tokens_after(&summary, &learned.echo),
                echo: learned.echo,
                waits: learned.waits,
                generated_at: summary.generated_at,
                ..GuestRow::clone(&self.row)
            };
            return Ok(PullResult::Refused { row: Arc::new(row) });
        }
        if let Some(transfer) = &mut transfer {
            transfer.wait_for_store(limits).await;
        }
        if summary.facts_alone.is_none() {
            metrics.triggers.inc(summary.trigger.as_str());
            metrics.report_bytes.observe(len as f64);
            metrics.report_packages.observe(f64::from(summary.packages));
        }
        let is_report = summary.facts_alone.is_none();
        let row = self.learn(&summary, learned);
        let before = &self.row;
        let same_machine = before.guest_id.is_none() || before.guest_id == row.guest_id;
        let arrived = ArrivedDocument {
            vm: self.entry.vm.clone(),
            class: Class::of(&summary, before.known.filter(|_| same_machine)),
            summary,
            sealed,
            guest: row.clone(),
            fleet,
        };
        let stored = pending.clone().arrived(arrived).await;
        drop(transfer);
        let took = clock::now().saturating_duration_since(started);
        metrics.transfer_seconds.observe_time(took);
        stored.map_err(|error| Failure::NotStored(error.to_string()))?;
        let row = Arc::new(row);
        Ok(PullResult::Stored { row, is_report })
    }

    /// Facts alone wait until what is pending of the guest was delivered; it may bring them. Where that holds up a
    /// sink that has nothing pending, a full report brings them to all.
    fn defers(&self, summary: &ReportSummary, pending: &Pending) -> bool {
        if summary.facts_alone.is_none() {
            return false;
        }
        let vm = &self.entry.vm;
        let pending_at = pending.pending_at(vm);
        if pending_at == PendingAt::SomeSinks {
            // Fails only while stopping.
            let _ = self.shared.full_pulls.send((vm.clone(), FullPull::AtOnce));
        }
        pending_at != PendingAt::NoSink
    }

    /// Whether Central refused this content for good, and its refresh is not due.
    fn is_refused(&self, summary: &ReportSummary, pending: &Pending) -> bool {
        self.ask != Ask::Refresh
            && changed_machine(&self.row, summary.guest_id.as_ref()).is_none()
            && pending.is_dead_letter(&self.entry.vm, DocumentId::from(summary))
    }

    /// Decodes an answer: a short one here, a long one where that holds up nobody. Gives what the agent says of
    /// itself as well.
    async fn decode(
        &self,
        bytes: Vec<u8>,
        transfer: Option<&Transfer>,
        certified: Option<String>,
    ) -> (Option<AgentInfo>, Result<Decoded, Failure>) {
        let (entry, row, ask) = (self.entry.clone(), self.row.clone(), self.ask);
        let (seen, now) = (self.shared.seen.clone(), self.shared.wall.now());
        let fleet = self.shared.fleet.clone();
        let demands_name = self.shared.dial.demands_guest_name();
        let understand = move |agent: &mut Option<AgentInfo>| {
            let context = Context {
                vm: &entry.vm,
                address: &entry.address,
                row: &row,
                ask,
                seen: &seen,
                now,
            };
            let mut answer = answer::understand(&bytes, context, agent)?;
            check_machine(entry.guest_id.as_ref(), answer.guest_id.as_ref())?;
            if demands_name {
                check_certificate(certified.as_deref(), answer.guest_id.as_ref())?;
            }
            if let Some(envelope) = &mut answer.document {
                add_facts(&entry, envelope);
            }
            let document = match &answer.document {
                Some(envelope) => {
                    let sealed = SealedReport::new(envelope).map_err(Failure::NotStored)?;
                    Some(DecodedDocument {
                        summary: envelope.summary(),
                        sealed,
                        fleet: fleet.and_then(|fleet| fleet.prepare(envelope)),
                    })
                }
                None => None,
            };
            let learned = Learned {
                waits: answer.waits,
                echo: answer.echo,
                facts: answer.facts,
            };
            Ok(Decoded { learned, document })
        };
        let work = move || {
            let mut agent = None;
            let decoded = understand(&mut agent);
            (agent, decoded)
        };
        let Some(transfer) = transfer else {
            return work();
        };
        let _permit = self.shared.limits.cpu_permit(transfer.urgency).await;
        let decoded = self.shared.blocking.run(work).await;
        decoded.unwrap_or_else(|error| {
            let failure = Failure::Panicked(error.to_string().as_str().into());
            (None, Err(failure))
        })
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
        let metrics = &self.shared.metrics;
        if let Some(then) = changed_machine(&self.row, summary.guest_id.as_ref()) {
            let now = summary.guest_id.as_ref().map(GuestId::as_str);
            metrics.machine_changes.inc();
            tracing::warn!(vm = %self.entry.vm, %then, now, "another machine answers here");
        }
        if let Some(known) = self.row.known
            && known.key.epoch == summary.key.epoch
            && known.key.generation > summary.key.generation
        {
            metrics.went_back.inc();
            tracing::warn!(vm = %self.entry.vm, from = %known.key, to = %summary.key, "generation went back: was a snapshot restored?");
        }
        let tokens = self.tokens_after(summary, &learned.echo);
        GuestRow {
            known: Some(DocumentId::from(summary)),
            echo: learned.echo,
            guest_id: summary.guest_id.clone(),
            waits: learned.waits,
            generated_at: summary.generated_at,
            full_at: self.shared.wall.now(),
            accepted: None,
            facts: Some(summary.facts),
            tokens,
            domain: self.row.domain,
        }
    }

    /// Number of different tokens of the agent, when this report of it is known under that echo: its count is the
    /// generation of its report.
    fn tokens_after(&self, summary: &ReportSummary, echo: &Echo) -> u32 {
        match echo {
            Echo::Token(_) => summary.key.generation.get(),
            Echo::Nothing | Echo::Pair { .. } => self.row.tokens,
        }
    }
}

/// Adds what the roster says of the guest. No guest says these facts of itself.
fn add_facts(entry: &RosterEntry, envelope: &mut Envelope<'_>) {
    let facts = &mut envelope.facts;
    facts.retain(|name, _| !name.starts_with(facts::KUBEVIRT));
    if let Some(of_source) = &entry.facts {
        of_source.add_to(facts);
    }
}

/// The machine that answered before, if now it is another.
pub(super) fn changed_machine<'a>(row: &'a GuestRow, now: Option<&GuestId>) -> Option<&'a GuestId> {
    row.guest_id
        .as_ref()
        .filter(|then| now.is_some_and(|now| now != *then))
}

/// Whether the certificate of an agent is that of the guest that it says it is.
fn check_certificate(certified: Option<&str>, found: Option<&GuestId>) -> Result<(), Failure> {
    let said = found.map_or("nobody", GuestId::as_str);
    match certified {
        Some(certified) if certified == said => Ok(()),
        _ => Err(Failure::WrongGuest(format!(
            "it says that it is {said}, with a certificate of {}",
            certified.unwrap_or("nobody")
        ))),
    }
}

fn check_machine(allowed: Option<&GuestId>, found: Option<&GuestId>) -> Result<(), Failure> {
    match allowed {
        Some(allowed) if Some(allowed) != found => Err(Failure::WrongGuest(
            found.map_or_else(|| "it does not say which".into(), ToString::to_string),
        )),
        _ => Ok(()),
    }
}
