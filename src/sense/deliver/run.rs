//! The loop of delivery: as much as the queue and the breaker allow, each in one blocking step.

use super::breaker::{Breaker, Gate};
use super::outcome::Outcome;
use super::sink::{Delivery, Kind, Sink};
use crate::clock::{self, WallTime};
use crate::report::VmId;
use crate::sense::limits::{ConcurrencyLimits, Permit, Urgency};
use crate::sense::metrics::Metrics;
use crate::sense::queue::pending::{Pending, Precedent};
use crate::sense::queue::queue::Next;
use crate::sense::queue::table::{self, DocumentId, StoredEnvelope};
use crate::store::{Store, StoreError};
use crate::wire::document::{Document, UnchangedDocument};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long deliveries under way are waited for when the sensor stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Reports from this many bytes on are delivered one at a time: no machine has one, and as JSON it may
/// be six times as long.
const LONG: usize = 4 << 20;

/// How many times as long most reports are as JSON: room for it is taken at once.
const AS_JSON: usize = 3;

/// Deliveries at the same time while guests wait to be pulled: what is durable here can
/// wait, what only its guest has may be lost with it.
const FEW: usize = 2;

/// Held by the one that is being delivered.
static LONG_ONES: Mutex<()> = Mutex::new(());

/// Everything that delivering needs.
pub struct Delivering {
    /// Queue.
    pub pending: Arc<Pending>,
    /// Shared with pulling: they tell when guests stand in line.
    pub limits: Arc<ConcurrencyLimits>,
    /// Pending reports.
    pub store: Arc<Store>,
    /// Where they go.
    pub sink: Arc<dyn Sink>,
    /// State of Central, for status and metrics.
    pub breaker: Arc<Mutex<Breaker>>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Id of this sensor.
    pub sensor: Arc<str>,
    /// Guests that must be asked for a full report.
    pub ask_full: mpsc::UnboundedSender<VmId>,
}

struct Finished {
    vm: VmId,
    report: DocumentId,
    outcome: Outcome,
    took: Duration,
    /// When the agent made the report, if it was made because something changed.
    changed_at: Option<WallTime>,
}

impl Delivering {
    /// Delivers until told to stop, then waits for what is under way, for a bounded time.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut deliveries = JoinSet::new();
        loop {
            let wake = self.start(&mut deliveries);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(finished) = deliveries.join_next() => self.settle(finished),
                () = self.pending.news.notified() => {}
                () = sleep_until(wake) => {}
            }
        }
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(finished) = deliveries.join_next().await {
                self.settle(finished);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(
                under_way = deliveries.len(),
                "stopping without their answers; they will be sent again"
            );
        }
    }

    /// Starts what may start; gives the time of the next decision.
    fn start(&self, deliveries: &mut JoinSet<Finished>) -> Option<Instant> {
        loop {
            if deliveries.len() >= FEW && self.limits.has_no_free_transfer() {
                // The next of them that lands asks again.
                return None;
            }
            let now = clock::now();
            match self.breaker().gate(now, deliveries.len()) {
                Gate::Open | Gate::Probe => {}
                Gate::Shut(until) => return Some(until),
                Gate::Probing => return None,
            }
            match self.pending.select(now) {
                Next::Send(vm, report) => {
                    let limits = self.limits.clone();
                    let job = Job {
                        is_reactive: self.pending.is_reactive(&vm),
                        precedent: self.pending.precedent(&vm, report),
                        store: self.store.clone(),
                        sink: self.sink.clone(),
                        sensor: self.sensor.clone(),
                        vm,
                        report,
                    };
                    deliveries.spawn(async move {
                        let permit = limits
                            .encode_permit(Urgency::of_change(job.is_reactive))
                            .await;
                        let work = move || job.guarded(|job| job.deliver(permit));
                        match tokio::task::spawn_blocking(work).await {
                            Ok(finished) => finished,
                            Err(error) => std::panic::resume_unwind(error.into_panic()),
                        }
                    });
                }
                Next::At(at) => return Some(at),
                Next::Idle => return None,
            }
        }
    }

    fn settle(&self, finished: Result<Finished, tokio::task::JoinError>) {
        // A panic in a sink would leave its slot in flight for ever: let it be seen.
        let finished = match finished {
            Ok(finished) => finished,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Finished {
            vm,
            report,
            outcome,
            took,
            changed_at,
        } = finished;
        let now = clock::now();
        self.metrics.delivery_seconds.observe_time(took);
        if let (Outcome::Accepted, Some(at)) = (&outcome, changed_at) {
            let latency = clock::wall_now().since(at);
            self.metrics.reactive_latency.observe_time(latency);
        }
        let was_in_trouble = self.breaker().trouble().is_some();
        let counts = self.breaker().note(&vm, &outcome, now, fastrand::f64());
        let outcome = match outcome {
            // A consumer of an older kind: the next report brings them.
            Outcome::Refused(said) | Outcome::RefusedForGood(said) if report.facts.is_some() => {
                Outcome::Skipped(said)
            }
            outcome => outcome,
        };
        self.metrics.deliveries.inc(outcome.label());
        self.say(&vm, report, &outcome, took, was_in_trouble);
        self.pending.settle(&vm, report, &outcome, counts);
        if matches!(
            outcome,
            Outcome::Refused(_) | Outcome::RefusedForGood(_) | Outcome::Damaged(_)
        ) {
            // Fails only while stopping.
            let _ = self.ask_full.send(vm);
        }
    }

    fn say(
        &self,
        vm: &VmId,
        report: DocumentId,
        outcome: &Outcome,
        took: Duration,
        in_trouble: bool,
    ) {
        let (result, said) = (outcome.label(), outcome.said().unwrap_or_default());
        let said = &*said;
        match outcome {
            Outcome::Accepted => {
                if in_trouble {
                    tracing::info!("Central accepts reports again");
                }
                tracing::debug!(%vm, generation = %report.key, took_ms = took.as_millis(), "accepted");
            }
            Outcome::Superseded(_) | Outcome::Postponed => {}
            Outcome::Skipped(_) => {
                let known = self.pending.board().facts_skipped.clone();
                if known.as_deref() != Some(said) {
                    tracing::warn!(%vm, said, "facts that change alone are not taken; reports still bring them");
                }
            }
            Outcome::Unreachable(_)
            | Outcome::Unauthorized(_)
            | Outcome::StoreUnreadable(_)
            | Outcome::Busy { .. }
                if in_trouble => {}
            _ => tracing::warn!(%vm, generation = %report.key, result, said, "not delivered"),
        }
    }

    fn breaker(&self) -> std::sync::MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One delivery.
struct Job {
    store: Arc<Store>,
    sink: Arc<dyn Sink>,
    sensor: Arc<str>,
    vm: VmId,
    report: DocumentId,
    /// It was pulled because its guest changed.
    is_reactive: bool,
    precedent: Precedent,
}

impl Job {
    /// A fault in handling the report of one guest is a failed delivery of that report, and no other's.
    fn guarded(self, deliver: impl FnOnce(Self) -> Finished) -> Finished {
        let (vm, report, started) = (self.vm.clone(), self.report, clock::now());
        let finished = catch_unwind(AssertUnwindSafe(move || deliver(self)));
        finished.unwrap_or_else(|_| {
            tracing::error!(%vm, generation = %report.key, "a fault of afferent in delivering it");
            Finished {
                vm,
                report,
                outcome: Outcome::Failed("a fault of afferent, see its log".into()),
                took: clock::now().saturating_duration_since(started),
                changed_at: None,
            }
        })
    }

    /// Reads, checks and sends one document; blocks. `place`: given back when nothing is left but to
    /// wait for Central.
    fn deliver(self, permit: Permit) -> Finished {
        let started = clock::now();
        let mut made_at = None;
        let outcome = match fetch(&self.store, &self.vm) {
            Ok(stored) => {
                let turn = match stored.len() > LONG {
                    true => LONG_ONES.try_lock().map(Some),
                    false => Ok(None),
                };
                // The one before it may wait for Central for long: no thread waits with it.
                let prepared = match &turn {
                    Err(TryLockError::WouldBlock) => Err(Outcome::Postponed),
                    Ok(_) | Err(TryLockError::Poisoned(_)) => self.prepare(&stored),
                };
                // Only what is sent stays in memory while Central takes its time.
                drop((stored, permit));
                match prepared {
                    Ok((delivery, made)) => {
                        made_at = Some(made);
                        self.sink.deliver(&delivery)
                    }
                    Err(outcome) => outcome,
                }
            }
            Err(outcome) => outcome,
        };
        Finished {
            vm: self.vm,
            report: self.report,
            outcome,
            took: clock::now().saturating_duration_since(started),
            changed_at: made_at.filter(|_| self.is_reactive),
        }
    }

    /// A pending document as it is sent, and when its agent made it.
    fn prepare(&self, stored: &StoredEnvelope) -> Result<(Delivery, WallTime), Outcome> {
        let envelope = stored.open(&self.vm).map_err(|error| unreadable(&error))?;
        let summary = envelope.summary();
        if DocumentId::from(&summary) != self.report {
            return Err(Outcome::Superseded(Box::new(summary)));
        }
        let idempotency_key = envelope.idempotency_key();
        let mut body = Vec::with_capacity(stored.len() * AS_JSON);
        let written = if self.precedent == Precedent::Same && self.sink.shortens_unchanged() {
            let document = UnchangedDocument::new(&envelope, &self.sensor, &idempotency_key);
            serde_json::to_writer(&mut body, &document)
        } else {
            serde_json::to_writer(&mut body, &Document::new(&envelope, &self.sensor))
        };
        written.map_err(|error| Outcome::RefusedForGood(error.to_string()))?;
        body.shrink_to_fit();
        let kind = match envelope.report {
            Some(_) => Kind::Report,
            None => Kind::Facts,
        };
        let message_id = match (kind, self.precedent) {
            (Kind::Report, Precedent::New) => idempotency_key.clone(),
            _ => format!("{idempotency_key}/{}", envelope.seen_at.unix_ms()),
        };
        let delivery = Delivery {
            kind,
            message_id,
            idempotency_key,
            vm: self.vm.as_str().to_owned(),
            body,
        };
        Ok((delivery, envelope.generated_at))
    }
}

fn fetch(store: &Store, vm: &VmId) -> Result<StoredEnvelope, Outcome> {
    table::read(store, vm)
        .map_err(|error| unreadable(&error))?
        .ok_or_else(|| Outcome::Damaged("pending does not hold it".into()))
}

fn unreadable(error: &StoreError) -> Outcome {
    match error.is_corrupt() || error.is_row() {
        true => Outcome::Damaged(error.to_string()),
        false => Outcome::StoreUnreadable(error.to_string()),
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
    use crate::report::{Envelope, Facts, Generation, Package, Report, ReportKey, Trigger};
    use crate::sense::queue::table::{Change, GuestRow, Place as SlotPlace, SealedReport, SlotRow};

    /// Accepts everything.
    struct Accepting;

    impl Sink for Accepting {
        fn deliver(&self, _: &Delivery) -> Outcome {
            Outcome::Accepted
        }
    }

    /// A job for a pending report with a name of so many bytes in it.
    fn job(store: Store, name: usize) -> Job {
        let vm: VmId = "a".parse().unwrap();
        let report = Report {
            packages: vec![Package {
                name: "x".repeat(name),
                ..Package::default()
            }],
            ..Report::default()
        };
        let envelope = Envelope {
            vm: vm.clone(),
            address: "unix:/a".into(),
            guest_id: None,
            key: ReportKey {
                epoch: None,
                generation: Generation::new(1).unwrap(),
            },
            digest: report.digest(),
            seen_at: WallTime::default(),
            trigger: Trigger::Scheduled,
            generated_at: WallTime::default(),
            agent_version: String::new(),
            facts: Facts::new(),
            report: Some(report.view()),
        };
        let report = DocumentId::from(&envelope.summary());
        let put = Change::Put {
            vm: vm.clone(),
            slot: SlotRow {
                report,
                trigger: Trigger::Scheduled,
                generated_at: WallTime::default(),
                since: WallTime::default(),
                packages: 1,
                place: SlotPlace::default(),
                attempts: 0,
                not_before: WallTime::default(),
                demoted: false,
                dead: None,
                last_error: None,
            },
            guest: GuestRow::default(),
            report: SealedReport::new(&envelope).unwrap(),
            seen_at: WallTime::default(),
        };
        table::apply(&store, &[put]).unwrap();
        Job {
            store: Arc::new(store),
            sink: Arc::new(Accepting),
            sensor: "s".into(),
            vm,
            report,
            is_reactive: false,
            precedent: Precedent::New,
        }
    }

    fn store(dir: &tempfile::TempDir) -> Store {
        let opened = Store::open(dir.path(), "sense.redb", 1 << 20).unwrap();
        opened.store
    }

    #[test]
    fn a_panic_over_one_report_is_a_failed_delivery_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(store(&dir), 10);
        let (vm, report) = (job.vm.clone(), job.report);
        let finished = job.guarded(|_| unreachable!("a fault"));
        assert_eq!((finished.vm, finished.report), (vm, report));
        assert_eq!(finished.outcome.label(), "failed");
    }

    /// Loss prevented: every thread of delivery waits behind one long report that Central takes slowly.
    #[tokio::test]
    async fn a_long_report_waits_for_another_without_a_thread() {
        let limits = ConcurrencyLimits::new(2, None);
        let sent = |name: usize, place| {
            let dir = tempfile::tempdir().unwrap();
            job(store(&dir), name).deliver(place).outcome
        };
        let mut places = Vec::new();
        for _ in 0..3 {
            places.push(limits.encode_permit(Urgency::Routine).await);
        }
        let mut sent = |name| sent(name, places.pop().unwrap());
        let held = LONG_ONES.lock().unwrap();
        assert_eq!(sent(LONG), Outcome::Postponed);
        assert_eq!(sent(10), Outcome::Accepted);
        drop(held);
        assert_eq!(sent(LONG), Outcome::Accepted);
    }
}
