//! What is shown of sinks.

use super::guest::age;
use crate::clock::WallTime;
use crate::report::VmId;
use crate::sense::deliver::breaker::Breaker;
use crate::sense::engine::RunningSink;
use crate::sense::queue::PendingState;
use crate::sense::queue::slot::State;
use crate::telemetry::metrics::Page;
use serde_json::{Value, json};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

/// A sink, and where it is.
pub struct ShownSink {
    /// Its address.
    pub to: String,
    /// Its parts that run.
    pub sink: RunningSink,
}

/// What is counted over the slots of a sink, or of all.
#[derive(Clone, Copy, Default)]
pub(super) struct SlotTotals {
    pub(super) reactive: u32,
    pub(super) routine: u32,
    pub(super) in_flight: usize,
    pub(super) dead: u32,
    pub(super) oldest: Option<WallTime>,
    /// Longest that the last routine report waits, where the rate is limited.
    pub(super) worst_case_wait: Option<Duration>,
}

impl SlotTotals {
    fn of(state: &PendingState) -> Self {
        let mut totals = Self {
            in_flight: state.queue().in_flight(),
            worst_case_wait: state.queue().worst_case_wait(),
            ..Self::default()
        };
        for (vm, slot) in state.queue().slots() {
            if slot.state == State::Dead {
                totals.dead += 1;
                continue;
            }
            match slot.place.reactive {
                Some(_) => totals.reactive += 1,
                None => totals.routine += 1,
            }
            let since = state.detail(vm).map(|detail| detail.since);
            totals.oldest = earlier(totals.oldest, since);
        }
        totals
    }

    /// Over this sink as well.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            reactive: self.reactive + other.reactive,
            routine: self.routine + other.routine,
            in_flight: self.in_flight + other.in_flight,
            dead: self.dead + other.dead,
            oldest: earlier(self.oldest, other.oldest),
            worst_case_wait: self.worst_case_wait.max(other.worst_case_wait),
        }
    }

    pub(super) fn json(&self, now: WallTime) -> Value {
        json!({
            "reactive": self.reactive,
            "routine": self.routine,
            "in_flight": self.in_flight,
            "dead": self.dead,
            "oldest_s": age(self.oldest, now).as_secs(),
            "worst_case_wait_s": self.worst_case_wait.map(|wait| wait.as_secs()),
        })
    }
}

fn earlier(a: Option<WallTime>, b: Option<WallTime>) -> Option<WallTime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

impl ShownSink {
    pub(super) fn name(&self) -> &str {
        self.sink.queue.name().as_str()
    }

    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
        let breaker = self.sink.breaker.lock();
        breaker.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn totals(&self) -> SlotTotals {
        SlotTotals::of(&self.sink.queue.state())
    }

    /// As people call it: the sink without a name is Central.
    fn called(&self) -> String {
        match self.sink.queue.name() {
            name if name.is_default() => "Central".into(),
            name => format!("the sink {name}"),
        }
    }

    /// What is wrong with it.
    pub(super) fn trouble(&self) -> Vec<String> {
        let breaker = self.breaker();
        let mut trouble = Vec::new();
        if let Some((reason, said)) = breaker.trouble() {
            trouble.push(match reason {
                "store" => format!("the store cannot be read: {said}"),
                reason => format!("{} is {reason}: {said}", self.called()),
            });
        }
        let state = self.sink.queue.state();
        let is_pending = |vm: &&VmId| state.queue().slot(vm).is_some();
        let forbidden = breaker.forbidden().filter(is_pending).count();
        if forbidden > 0 {
            let called = self.called();
            trouble.push(format!(
                "guests whose reports {called} forbids: {forbidden}"
            ));
        }
        trouble
    }

    pub(super) fn json(&self, now: WallTime) -> Value {
        let breaker = self.breaker();
        let trouble = breaker.trouble();
        let trouble = trouble.map(|(reason, said)| json!({ "reason": reason, "said": said }));
        let facts_skipped = breaker.facts_skipped().map(str::to_owned);
        drop(breaker);
        json!({
            "name": self.name(),
            "deliver": self.to,
            "pending": self.totals().json(now),
            "trouble": trouble,
            "facts_skipped": facts_skipped,
        })
    }
}

/// Series of every sink. Those without the label are over all sinks.
pub(super) fn write_metrics(sinks: &[ShownSink], now: WallTime, page: &mut Page) {
    let totals: Vec<_> = sinks.iter().map(|sink| (sink, sink.totals())).collect();
    let pending = totals.iter().flat_map(|(sink, totals)| {
        let (reactive, routine) = (totals.reactive.into(), totals.routine.into());
        [
            ([sink.name(), "reactive"], reactive),
            ([sink.name(), "routine"], routine),
        ]
    });
    page.gauges_by(
        "afferent_sink_pending_reports",
        "Reports that a sink has not accepted yet, by class.",
        ["sink", "class"],
        pending,
    );
    let all = |of: fn(&SlotTotals, WallTime) -> f64| {
        let totals = totals.iter();
        totals.map(move |(sink, totals)| ([sink.name()], of(totals, now)))
    };
    page.gauges_by(
        "afferent_sink_pending_oldest_age_seconds",
        "Age of what waits longest for a sink.",
        ["sink"],
        all(|totals, now| age(totals.oldest, now).as_secs_f64()),
    );
    page.gauges_by(
        "afferent_sink_dead_letters",
        "Reports that a sink refused, kept until their guest's next one.",
        ["sink"],
        all(|totals, _| totals.dead.into()),
    );
    page.gauges_by(
        "afferent_sink_trouble",
        "1 while deliveries to a sink pause.",
        ["sink"],
        sinks.iter().map(|sink| {
            let pauses = sink.breaker().trouble().is_some();
            ([sink.name()], f64::from(u8::from(pauses)))
        }),
    );
    let deliveries = sinks.iter();
    page.counters_by(
        "afferent_sink_deliveries_total",
        "Deliveries to a sink by what came of them.",
        ["sink", "outcome"],
        deliveries.map(|sink| (sink.name(), &*sink.sink.deliveries)),
    );
}
