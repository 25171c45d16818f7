//! How the fleet is, in one small object: for the head of a page.

use super::View;
use super::guest::{age, state_of};
use super::parts::each_guest;
use crate::clock::{self, WallTime};
use crate::report::VmId;
use crate::sense::fleet::Fleet;
use crate::sense::questions::FleetService;
use crate::sense::recent::RecentAcceptances;
use crate::telemetry::metrics::Histogram;
use serde_json::{Value, json};
use std::collections::HashMap;

impl FleetService for View {
    fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_deref()
    }

    fn states(&self) -> HashMap<String, &'static str> {
        let mut states = HashMap::new();
        each_guest(
            || self.guests(),
            |guests, vm, guest| {
                states.insert(vm.as_str().to_owned(), state_of(guests, vm, guest));
            },
        );
        states
    }

    fn latency(&self) -> Option<&Histogram> {
        Some(&self.metrics.reactive_latency)
    }

    fn accepted(&self) -> Option<&RecentAcceptances> {
        Some(&self.metrics.accepted)
    }

    /// Guests by state, what is pending, and what is wrong.
    fn summary(&self) -> Value {
        let totals = self.totals();
        let reasons = self.trouble(&totals);
        let now = clock::wall_now();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": now.to_string(),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "deliver": self.deliver,
            "guests": {
                "waiting": totals.waiting,
                "polled": totals.polled,
                "failing": totals.failing,
                "silent": totals.silent,
                "new": totals.new,
                "idle": totals.idle,
            },
            "oldest_unreachable": self.oldest_unreachable(),
            "pending": {
                "reactive": totals.slots.reactive,
                "routine": totals.slots.routine,
                "dead": totals.slots.dead,
                "oldest_s": age(totals.slots.oldest, now).as_secs(),
            },
        })
    }
}

impl View {
    /// The guest of which nothing was heard for the longest time, of those that do not answer.
    fn oldest_unreachable(&self) -> Option<Value> {
        let mut oldest: Option<(Option<WallTime>, VmId, &str)> = None;
        each_guest(
            || self.guests(),
            |guests, vm, guest| {
                let state = state_of(guests, vm, guest);
                if !matches!(state, "failing" | "silent") {
                    return;
                }
                let reported = guest.row.known.is_some().then_some(guest.row.full_at);
                // A guest that never reported is older than all.
                let is_older = |(held, name, _): &(_, VmId, _)| (reported, vm) < (*held, name);
                if oldest.as_ref().is_none_or(is_older) {
                    oldest = Some((reported, vm.clone(), state));
                }
            },
        );
        oldest.map(|(reported, vm, state)| {
            json!({
                "vm": vm.as_str(),
                "state": state,
                "reported_at": reported.map(|at| at.to_string()),
            })
        })
    }
}
