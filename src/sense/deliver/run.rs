//! The loop of delivery to one sink: sends as many documents as its queue and its breaker allow.
//!
//! ```text
//! next ── encode permit ── read, check, encode ── sink ── breaker: whose failure? ── settled
//! ```

use super::breaker::{Breaker, BreakerGate};
use super::changes::Changes;
use super::outcome::Outcome;
use super::sink::{Delivery, DocumentForm, DocumentKind, Sink};
use crate::blocking::Blocking;
use crate::clock::{self, WallClock, WallTime};
use crate::report::VmId;
use crate::sbom;
use crate::sense::bill_of_materials;
use crate::sense::fleet::query::ChangeLog;
use crate::sense::limits::{ConcurrencyLimits, Urgency};
use crate::sense::metrics::Metrics;
use crate::sense::queue::table::{DocumentId, StoredEnvelope};
use crate::sense::queue::{Dispatch, FullPull, NextDelivery, Precedent, SinkQueue};
use crate::store::StoreError;
use crate::telemetry::metrics::Counters;
use crate::wire::document::{Document, UnchangedDocument};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};

/// How long deliveries under way are waited for when the sensor stops.
const DRAIN: Duration = Duration::from_secs(10);

/// Reports from this many bytes on are delivered one at a time: no machine has one, and as JSON it may
/// be six times as long.
const LONG: usize = 4 << 20;

/// How many times as long most reports are as JSON: memory for it is taken at once.
const AS_JSON: usize = 3;

/// Deliveries at the same time while guests wait for a transfer: what is durable here can wait, what
/// only its guest has may be lost with it.
const WHILE_PULLS_WAIT: usize = 2;

/// The loop of delivery, and everything that it needs.
pub struct DeliveryLoop {
    /// Pending documents of the sink.
    pub queue: Arc<SinkQueue>,
    /// Shared with pulling, and with the loops of other sinks.
    pub limits: Arc<ConcurrencyLimits>,
    /// Where documents go.
    pub sink: Arc<dyn Sink>,
    /// State of the sink, for status and metrics.
    pub breaker: Arc<Mutex<Breaker>>,
    /// Deliveries by what came of them.
    pub deliveries: Arc<Counters>,
    /// Counters of the whole sensor.
    pub metrics: Arc<Metrics>,
    /// Id of this sensor.
    pub sensor: Arc<str>,
    /// Where documents are read and encoded.
    pub blocking: Blocking,
    /// Time of day.
    pub wall: WallClock,
    /// Guests that must be pulled in full.
    pub full_pulls: mpsc::UnboundedSender<(VmId, FullPull)>,
    /// What changed, where there is a fleet store.
    pub log: Option<ChangeLog>,
}

/// A delivery that has ended.
struct Finished {
    dispatch: Dispatch,
    outcome: Outcome,
    took: Duration,
    /// When the agent made the report, if it was made because something changed.
    changed_at: Option<WallTime>,
}

impl DeliveryLoop {
    /// Delivers until told to stop, then waits for what is under way, for a bounded time.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let long = Arc::new(Semaphore::new(1));
        let mut deliveries = JoinSet::new();
        loop {
            let wake = self.start(&mut deliveries, &long);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                Some(finished) = deliveries.join_next() => self.settle(finished),
                () = self.queue.ready.notified() => {}
                () = clock::sleep_until(wake) => {}
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
    fn start(&self, deliveries: &mut JoinSet<Finished>, long: &Arc<Semaphore>) -> Option<Instant> {
        loop {
            if deliveries.len() >= WHILE_PULLS_WAIT && self.limits.has_no_free_transfer() {
                // The next of them that ends asks again.
                return None;
            }
            let now = clock::now();
            match self.breaker().gate(now, deliveries.len()) {
                BreakerGate::Open | BreakerGate::Probe => {}
                BreakerGate::Shut(until) => return Some(until),
                BreakerGate::Probing => return None,
            }
            match self.queue.next(now) {
                NextDelivery::Send(dispatch) => {
                    let job = Job {
                        dispatch,
                        queue: self.queue.clone(),
                        sensor: self.sensor.clone(),
                        shortens_unchanged: self.sink.shortens_unchanged(),
                        form: self.sink.form(),
                        events_since: self.sink.events_since(),
                        long: long.clone(),
                        log: self.log.clone(),
                    };
                    let (limits, sink) = (self.limits.clone(), self.sink.clone());
                    deliveries.spawn(deliver(job, limits, sink, self.blocking));
                }
                NextDelivery::At(at) => return Some(at),
                NextDelivery::Idle => return None,
            }
        }
    }

    fn settle(&self, finished: Result<Finished, JoinError>) {
        // A panic of a sink's glue would leave its document in flight for ever: it ends the process.
        let finished = match finished {
            Ok(finished) => finished,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Finished {
            dispatch,
            outcome,
            took,
            changed_at,
        } = finished;
        let Dispatch { vm, report, .. } = &dispatch;
        let report = *report;
        self.metrics.delivery_seconds.observe_time(took);
        if let (Outcome::Accepted, Some(at)) = (&outcome, changed_at) {
            let latency = self.wall.now().since(at);
            self.metrics.reactive_latency.observe_time(latency);
            if report.facts.is_none() {
                let (sink, now) = (self.queue.name(), clock::now());
                let accepted = &self.metrics.accepted;
                accepted.note(vm, report.key, sink, latency, now);
            }
        }
        let was_in_trouble = self.breaker().trouble().is_some();
        let counts = self
            .breaker()
            .note(vm, &outcome, clock::now(), fastrand::f64());
        let outcome = match outcome {
            // A consumer of an older kind: the next report brings them.
            Outcome::Refused(said) | Outcome::RefusedForGood(said) if report.facts.is_some() => {
                Outcome::Skipped(said)
            }
            outcome => outcome,
        };
        self.metrics.deliveries.inc(outcome.label());
        self.deliveries.inc(outcome.label());
        if let (Outcome::Accepted, Some(reason)) = (&outcome, dispatch.may_repeat()) {
            self.metrics.repeats.inc(reason);
        }
        self.log(&dispatch, &outcome, took, was_in_trouble);
        let said = outcome.said().map(|said| said.into_owned());
        let settlement = outcome.settlement(counts);
        if let Some(full_pull) = self.queue.settled(vm, report, settlement, said) {
            // Fails only while stopping.
            let _ = self.full_pulls.send((vm.clone(), full_pull));
        }
    }

    fn log(&self, dispatch: &Dispatch, outcome: &Outcome, took: Duration, was_in_trouble: bool) {
        let Dispatch { vm, report, .. } = dispatch;
        let (result, said) = (outcome.label(), outcome.said().unwrap_or_default());
        let said = &*said;
        // The sink without a name is what people call Central.
        let sink = self.queue.name();
        let sink = (!sink.is_default()).then(|| tracing::field::display(sink));
        let is_other_answer = report.facts.is_some() && self.breaker().note_facts(outcome);
        match outcome {
            Outcome::Accepted => {
                if was_in_trouble {
                    tracing::info!(sink, "Central accepts reports again");
                }
                let took_ms = took.as_millis();
                let may_repeat = dispatch.may_repeat();
                tracing::debug!(%vm, sink, generation = %report.key, took_ms, may_repeat, "accepted");
            }
            Outcome::Superseded(_) | Outcome::Postponed => {}
            Outcome::Skipped(_) => {
                if is_other_answer {
                    tracing::warn!(%vm, sink, said, "facts that change alone are not taken; reports still bring them");
                }
            }
            Outcome::Unreachable(_)
            | Outcome::Unauthorized(_)
            | Outcome::StoreUnreadable(_)
            | Outcome::Busy { .. }
                if was_in_trouble => {}
            _ => tracing::warn!(%vm, sink, generation = %report.key, result, said, "not delivered"),
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads, encodes and sends one document.
async fn deliver(
    job: Job,
    limits: Arc<ConcurrencyLimits>,
    sink: Arc<dyn Sink>,
    blocking: Blocking,
) -> Finished {
    let dispatch = job.dispatch.clone();
    let urgency = Urgency::of_change(dispatch.is_reactive);
    let permit = limits.encode_permit(urgency).await;
    let started = clock::now();
    let prepared = blocking.run(move || job.prepare()).await;
    // Only what is sent stays in memory while Central takes its time.
    drop(permit);
    let (outcome, made_at) = match prepared {
        Ok(Ok(prepared)) => {
            let outcome = sink.deliver(prepared.delivery).await;
            (outcome, Some(prepared.made_at))
        }
        Ok(Err(outcome)) => (outcome, None),
        Err(error) => (Outcome::of_panic(&error.to_string()), None),
    };
    Finished {
        outcome,
        took: clock::now().saturating_duration_since(started),
        changed_at: made_at.filter(|_| dispatch.is_reactive),
        dispatch,
    }
}

/// A document to be read and encoded.
struct Job {
    dispatch: Dispatch,
    queue: Arc<SinkQueue>,
    sensor: Arc<str>,
    shortens_unchanged: bool,
    form: DocumentForm,
    events_since: Option<WallTime>,
    /// Held by the long document that is being sent.
    long: Arc<Semaphore>,
    log: Option<ChangeLog>,
}

/// A document ready to be sent.
#[derive(Debug)]
struct Prepared {
    delivery: Delivery,
    /// When its agent made it.
    made_at: WallTime,
    _long: Option<OwnedSemaphorePermit>,
}

impl Job {
    /// Reads, checks and encodes the document; blocks.
    fn prepare(self) -> Result<Prepared, Outcome> {
        let vm = &self.dispatch.vm;
        let stored = self.queue.read(vm).map_err(|error| unreadable(&error))?;
        let stored = stored.ok_or_else(|| Outcome::Damaged("pending does not hold it".into()))?;
        let long = match stored.len() > LONG {
            true => {
                let permit = self.long.clone().try_acquire_owned();
                Some(permit.map_err(|_| Outcome::Postponed)?)
            }
            false => None,
        };
        let (delivery, made_at) = self.encode(&stored)?;
        Ok(Prepared {
            delivery,
            made_at,
            _long: long,
        })
    }

    /// A pending document as it is sent, and when its agent made it.
    fn encode(&self, stored: &StoredEnvelope) -> Result<(Delivery, WallTime), Outcome> {
        let Dispatch {
            vm,
            report,
            precedent,
            ..
        } = &self.dispatch;
        let envelope = stored.open(vm).map_err(|error| unreadable(&error))?;
        let summary = envelope.summary();
        if DocumentId::from(&summary) != *report {
            return Err(Outcome::Superseded(Box::new(summary)));
        }
        let idempotency_key = envelope.idempotency_key();
        let accepted = self.queue.state().accepted(vm);
        let is_wanted = self.form == DocumentForm::Report || self.events_since.is_some();
        let log = self.log.as_ref().filter(|_| is_wanted);
        let changes = Changes::read(log, &envelope, accepted);
        let (mut body, mut os) = (Vec::with_capacity(stored.len() * AS_JSON), String::new());
        let written = match (self.form, &envelope.report) {
            (DocumentForm::CycloneDx, Some(report)) => {
                let (vm, report) = (envelope.vm.as_str(), report.to_report());
                let (digest, at) = (envelope.digest, envelope.generated_at);
                body = bill_of_materials::of_guest(vm, &report, digest, at);
                os = sbom::system_name(&report.distribution);
                Ok(())
            }
            _ if *precedent == Precedent::Same && self.shortens_unchanged => {
                let document = UnchangedDocument::new(&envelope, &self.sensor, &idempotency_key);
                serde_json::to_writer(&mut body, &document)
            }
            _ => {
                let changes = changes.document().filter(|_| log.is_some());
                let document = Document::new(&envelope, &self.sensor);
                serde_json::to_writer(&mut body, &document.with_changes(changes.as_ref()))
            }
        };
        let refused = |error: serde_json::Error| Outcome::RefusedForGood(error.to_string());
        written.map_err(refused)?;
        let events = self
            .events_since
            .map(|since| changes.events(&self.sensor, since));
        body.shrink_to_fit();
        let kind = match envelope.report {
            Some(_) => DocumentKind::Report,
            None => DocumentKind::Facts,
        };
        let message_id = match (kind, precedent) {
            (DocumentKind::Report, Precedent::New) => idempotency_key.clone(),
            _ => format!("{idempotency_key}/{}", envelope.seen_at.unix_ms()),
        };
        let accepted = accepted.filter(|(accepted, _)| accepted.digest == report.digest);
        let delivery = Delivery {
            kind,
            message_id,
            idempotency_key,
            vm: vm.as_str().to_owned(),
            os,
            accepted_at: accepted.map(|(_, at)| at),
            body,
            events: events.transpose().map_err(refused)?.unwrap_or_default(),
        };
        Ok((delivery, envelope.generated_at))
    }
}

fn unreadable(error: &StoreError) -> Outcome {
    match error.is_corrupt() || error.is_row() {
        true => Outcome::Damaged(error.to_string()),
        false => Outcome::StoreUnreadable(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
