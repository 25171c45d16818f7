//! A guest's place in the queue: its newest report, where it stands, and what was held against it.

use crate::report::{ReportSummary, Trigger};
use crate::sense::queue::table::{DocumentId, QueuePlace};
use std::time::Instant;

/// How urgent a report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something changed in the guest.
    Reactive,
    /// A refresh, a first report, or one over its guest's budget.
    Routine,
}

impl Class {
    /// The class of a document: urgent only if something changed since the `known` one, and not when
    /// the guest is met first, when everything is new.
    pub fn of(summary: &ReportSummary, known: Option<DocumentId>) -> Self {
        let is_reactive = summary.facts_alone.is_none() && summary.trigger == Trigger::Reactive;
        match known {
            Some(known) if known.digest != summary.digest && is_reactive => Self::Reactive,
            _ => Self::Routine,
        }
    }
}

/// A report on its way into the queue: its class after the budget, and its place at the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Which report.
    pub report: DocumentId,
    /// Its class.
    pub class: Class,
    pub(super) seq: u64,
    /// Why its scan ran.
    pub trigger: Trigger,
    /// It was pulled because its guest changed, within its budget or over it.
    pub is_reactive: bool,
    /// It is about the machine that had its guest's name before.
    pub of_former: bool,
}

/// What is known of a failed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// Central looked at it and did not want it; perhaps it wants the full one that is pulled then.
    Refused,
    /// Nobody knows: an error or no answer in time.
    Failed,
}

/// Where a slot stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In a ring.
    Queued,
    /// Not before this time.
    Backoff(Instant),
    /// Sent, no answer yet.
    InFlight,
    /// No longer sent; kept until the guest's next report.
    Dead,
}

/// A guest's place in the queue, and the report that stands there.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The newest report; while in flight, the one that was sent.
    pub report: DocumentId,
    /// Why its scan ran.
    pub trigger: Trigger,
    /// Where it stands.
    pub state: State,
    /// Its places, also while it is in flight: it goes back there if it could not be sent at all. Kept
    /// in a backoff that Central asked for: it goes back to the tails of these rings.
    pub place: QueuePlace,
    /// Deliveries of this report that failed.
    pub attempts: u32,
    /// Whether it was refused once: it is tried again among the routine ones.
    pub demoted: bool,
    /// It is about the machine that had its guest's name before: that Central accepts it says nothing of
    /// the machine that has the name now. Not stored: of the other one no report is known then.
    pub of_former: bool,
    /// It was pulled because its guest changed: urgent, and the time to its acceptance is measured.
    /// A refresh is no change, whatever its agent once made the report for.
    pub is_reactive: bool,
    /// It was pending when the sensor started: Central may have accepted it of the run before, which stopped
    /// before it knew.
    pub is_restored: bool,
    /// A newer report that came during the flight.
    pub(super) newer: Option<Arrival>,
}

impl Slot {
    /// A slot as it was stored.
    pub fn stored(report: DocumentId, trigger: Trigger, place: QueuePlace, state: State) -> Self {
        Self {
            report,
            trigger,
            state,
            place,
            attempts: 0,
            demoted: false,
            of_former: false,
            is_restored: false,
            // What it was is not written; this is where what is urgent can be.
            is_reactive: trigger == Trigger::Reactive
                && (place.reactive.is_some() || place.is_none()),
            newer: None,
        }
    }

    /// A slot for a report that is the only one of its guest.
    pub(super) fn new(arrival: &Arrival, place: QueuePlace) -> Self {
        let mut slot = Self::stored(arrival.report, arrival.trigger, place, State::Queued);
        (slot.is_reactive, slot.of_former) = (arrival.is_reactive, arrival.of_former);
        slot
    }

    /// A newer report takes over: nothing that was held against other content counts.
    pub(super) fn take_on(&mut self, arrival: &Arrival, place: QueuePlace) {
        if !self.has_content_of(arrival.report) {
            (self.attempts, self.demoted) = (0, false);
        }
        self.report = arrival.report;
        self.is_restored = false;
        self.trigger = arrival.trigger;
        self.state = State::Queued;
        self.place = place;
        (self.is_reactive, self.of_former) = (arrival.is_reactive, arrival.of_former);
    }

    /// Whether its report says the same, perhaps under another key: that of an agent that was started anew.
    pub(super) fn has_content_of(&self, report: DocumentId) -> bool {
        (self.report.digest, self.report.facts) == (report.digest, report.facts)
    }

    /// A report that came during the flight takes over the places of the one that was sent. Says
    /// whether there was one.
    pub(super) fn goes_on_with_newer(&mut self) -> bool {
        let Some(newer) = self.newer.take() else {
            return false;
        };
        self.take_on(&newer, taken_over(self.place, &newer));
        true
    }

    /// Whether it waits for its guest to be pulled in full, because Central refused it.
    pub(super) fn is_refused(&self) -> bool {
        self.demoted && !self.is_deferred()
    }

    /// Whether it waits because Central asked for patience: its places are not lost.
    pub(super) fn is_deferred(&self) -> bool {
        matches!(self.state, State::Backoff(_)) && !self.place.is_none()
    }

    /// The newest report, also while an older one is in flight.
    pub fn newest(&self) -> DocumentId {
        self.newer.map_or(self.report, |newer| newer.report)
    }
}

pub(super) fn place_in(class: Class, seq: u64) -> QueuePlace {
    match class {
        Class::Reactive => QueuePlace {
            reactive: Some(seq),
            routine: None,
        },
        Class::Routine => QueuePlace {
            reactive: None,
            routine: Some(seq),
        },
    }
}

pub(super) fn fresh(arrival: &Arrival) -> QueuePlace {
    place_in(arrival.class, arrival.seq)
}

/// Every place is kept; a reactive report also takes one among the reactive.
pub(super) fn taken_over(place: QueuePlace, arrival: &Arrival) -> QueuePlace {
    let urgent = arrival.class == Class::Reactive;
    QueuePlace {
        reactive: place.reactive.or(urgent.then_some(arrival.seq)),
        routine: place.routine,
    }
}
