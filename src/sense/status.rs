//! Status of the sensor: for `afferent status` and for Prometheus.
//!
//! Everything is looked up when somebody asks, beside the loop, and the locks are held for a few guests
//! at a time: an answer about ten thousand must not hold up the loop.

mod guest;
mod parts;
mod shared;
mod sinks;
mod summary;
mod totals;

use super::fleet::Fleet;
use super::mapping::read::MappingSource;
use super::mapping::run::SharedPushes;
use super::metrics::Metrics;
use super::pull::agent::{OTHER, count_versions};
use super::pull::guests::GuestTable;
use super::queue::Pending;
use super::queue::slot::State;
use super::roster::{Named, SourceStatus};
use super::sink_name::SinkName;
use crate::clock;
use crate::report::VmId;
use crate::telemetry::metrics::Page;
use crate::telemetry::scrape::Health;
use crate::web::WebHealth;
pub use guest::GUEST_STATES;
use guest::{GuestView, age, state_of};
use parts::{AT_ONCE, each_guest};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use shared::Shared;
pub use sinks::ShownSink;
use sinks::SlotTotals;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use totals::Totals;

/// Everything that can be looked at.
pub struct View {
    /// Guests.
    pub guests: Arc<Mutex<GuestTable>>,
    /// Pending reports.
    pub pending: Arc<Pending>,
    /// Where reports go, at least one.
    pub sinks: Vec<ShownSink>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The listener of the fleet API, if there is one.
    pub(super) api: Option<Arc<WebHealth>>,
    /// The fleet store, if there is one.
    pub fleet: Option<Arc<Fleet>>,
    /// The sources of the roster.
    pub named: Arc<Mutex<Named>>,
    /// Who lacks the mapping.
    pub pushes: Arc<SharedPushes>,
    /// Where the mapping comes from, if one is pushed.
    pub mapping: Option<Arc<MappingSource>>,
    /// The same in one line.
    pub deliver: String,
}

/// What is shown of each guest.
#[derive(Default)]
struct Rows {
    guests: Vec<Box<RawValue>>,
    addresses: Shared,
    machines: Shared,
}

/// The answer to `afferent status`. Guests are text at once: as a tree of values ten thousand of
/// them would take ten times the memory, and the process would keep it.
#[derive(Serialize)]
pub struct StatusAnswer {
    #[serde(flatten)]
    head: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    guests: Option<Vec<Box<RawValue>>>,
}

impl From<Value> for StatusAnswer {
    fn from(head: Value) -> Self {
        Self { head, guests: None }
    }
}

impl View {
    fn guests(&self) -> MutexGuard<'_, GuestTable> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        each_guest(
            || self.guests(),
            |guests, vm, guest| match state_of(guests, vm, guest) {
                "waiting" => totals.waiting += 1,
                "polled" => totals.polled += 1,
                "failing" => totals.failing += 1,
                "silent" => totals.silent += 1,
                "idle" => totals.idle += 1,
                _ => totals.new += 1,
            },
        );
        let slots = self.sinks.iter().map(ShownSink::totals);
        totals.slots = slots.fold(SlotTotals::default(), SlotTotals::and);
        totals
    }

    fn trouble(&self, totals: &Totals) -> Vec<String> {
        let mut trouble: Vec<String> = self.sinks.iter().flat_map(ShownSink::trouble).collect();
        let refused = self.pending.write_trouble();
        trouble.extend(refused.map(|error| format!("reports cannot be kept: {error}")));
        for (sink, slots) in self.pending.orphaned().iter() {
            trouble.push(format!("reports for a sink {sink} that is configured no more: {slots} (status --drop-sink {sink})"));
        }
        if totals.slots.dead > 0 {
            trouble.push(format!(
                "dead letters: {} (status --dead)",
                totals.slots.dead
            ));
        }
        trouble.extend(totals.guest_trouble());
        let named = self.named();
        trouble.extend(named.errors().map(|error| format!("roster: {error}")));
        let unread = self.mapping.as_ref();
        let unread = unread.and_then(|source| source.status().error.clone());
        trouble.extend(
            unread.map(|error| {
                format!("the mapping of repositories to CPEs cannot be read: {error}")
            }),
        );
        trouble.extend(self.api.iter().flat_map(|api| api.trouble()));
        trouble
    }

    /// One row a guest, by name, and what several of them share.
    fn rows(&self, only_dead: bool) -> Rows {
        let mut vms: BTreeSet<VmId> = self.guests().guests().map(|(vm, _)| vm.clone()).collect();
        // Guests that left the roster with something undelivered are shown, too.
        for sink in self.pending.sinks() {
            vms.extend(sink.state().queue().slots().map(|(vm, _)| vm.clone()));
        }
        let vms: Vec<VmId> = vms.into_iter().collect();
        let now = clock::wall_now();
        let mut rows = Rows::default();
        for part in vms.chunks(AT_ONCE) {
            let guests = self.guests();
            let sinks = self.pending.sinks().iter();
            let sinks: Vec<_> = sinks.map(|sink| (sink.name(), sink.state())).collect();
            let named = self.named();
            let pushes = self.pushes.lock();
            for vm in part {
                let guest = guests.guest(vm);
                let slots = || sinks.iter().filter_map(|(_, state)| state.queue().slot(vm));
                let state = match guest {
                    Some(guest) => {
                        rows.addresses.add(guest.entry.address.to_string(), vm);
                        if let Some(id) = &guest.row.guest_id {
                            rows.machines.add(id.as_str().to_owned(), vm);
                        }
                        state_of(&guests, vm, guest)
                    }
                    None if slots().next().is_none() => continue,
                    None => "departed",
                };
                if !only_dead || slots().any(|slot| slot.state == State::Dead) {
                    let source = named.source_of(vm);
                    let view = GuestView {
                        vm,
                        guest,
                        state,
                        source,
                        sinks: &sinks,
                        pushes: &pushes,
                        now,
                    };
                    rows.guests.extend(view.json());
                }
            }
        }
        rows
    }

    /// Agents by version, those that answered.
    fn with_versions<T>(&self, of: impl FnOnce(&[(&str, usize)]) -> T) -> T {
        let guests = self.guests();
        let agents = guests
            .guests()
            .filter_map(|(_, guest)| guest.agent.as_ref());
        of(&count_versions(agents.map(|agent| &*agent.version)))
    }

    fn agents(&self) -> Value {
        self.with_versions(|counts| {
            let counts = counts.iter();
            let rows =
                counts.map(|(version, guests)| json!({"version": version, "guests": guests}));
            rows.collect()
        })
    }

    /// The sensor's mapping, and how guests stand to it.
    fn mapping_json(&self) -> Value {
        let Some(source) = &self.mapping else {
            return Value::Null;
        };
        let counts = self.pushes.lock().counts();
        let guests = counts.into_iter().filter(|(_, count)| *count > 0);
        let guests: BTreeMap<&str, usize> =
            guests.map(|(sync, count)| (sync.label(), count)).collect();
        let source = source.status();
        json!({
            "source": source.source,
            "hash": source.hash.map(|hash| hash.to_string()),
            "read_at": source.read_at.map(|at| at.to_string()),
            "error": source.error,
            "guests": guests,
        })
    }

    fn status(&self, only_dead: bool) -> StatusAnswer {
        let totals = self.totals();
        let reasons = self.trouble(&totals);
        let Rows {
            guests,
            addresses,
            machines,
        } = self.rows(only_dead);
        let sources: Vec<Value> = self.named().sources.iter().map(source_json).collect();
        let now = clock::wall_now();
        let mut skipped = self.sinks.iter();
        let skipped = skipped.find_map(|sink| sink.breaker().facts_skipped().map(str::to_owned));
        let sinks: Vec<Value> = self.sinks.iter().map(|sink| sink.json(now)).collect();
        let head = json!({
            "service": "sense",
            "version": env!("CARGO_PKG_VERSION"),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "deliver": self.deliver,
            "facts_skipped": skipped,
            "sinks": sinks,
            "orphaned_sinks": self.orphaned_json(),
            "agents": self.agents(),
            "mapping": self.mapping_json(),
            "fleet_api": self.api.as_ref().map(|api| api.json()),
            "sources": sources,
            "shared_addresses": addresses.json(),
            "shared_guest_ids": machines.json(),
            "pending": totals.slots.json(now),
            "guest_states": {
                "waiting": totals.waiting,
                "polled": totals.polled,
                "failing": totals.failing,
                "silent": totals.silent,
                "new": totals.new,
                "idle": totals.idle,
            },
        });
        StatusAnswer {
            head,
            guests: Some(guests),
        }
    }
}

fn source_json(source: &SourceStatus) -> Value {
    json!({
        "name": source.name,
        "read_at": source.read_at.map(|at| at.to_string()),
        "guests": source.guests,
        "named_before": source.named_before,
        "error": source.error,
    })
}

impl View {
    fn mapping_metrics(&self, page: &mut Page) {
        let counts = self.pushes.lock().counts();
        page.gauges_by(
            "afferent_sense_mapping_guests",
            "Guests by how they stand to the mapping that this sensor pushes.",
            ["state"],
            counts.map(|(sync, count)| ([sync.label()], count as f64)),
        );
        let source = self.mapping.as_ref();
        let is_unread = source.is_some_and(|source| source.status().error.is_some());
        page.gauge(
            "afferent_sense_mapping_unread",
            "1 if the source of the mapping cannot be read; the one before stays in use.",
            f64::from(u8::from(is_unread)),
        );
    }

    fn orphaned_json(&self) -> Value {
        let orphaned = self.pending.orphaned();
        let rows = orphaned.iter();
        rows.map(|(sink, slots)| json!({ "name": sink.as_str(), "pending": slots }))
            .collect()
    }

    fn drop_letter(&self, vm: &VmId) -> usize {
        let is_departed = self.guests().guest(vm).is_none();
        let dropped = self.pending.drop_dead(vm, is_departed);
        if dropped > 0 {
            tracing::warn!(%vm, "dead letter dropped, as somebody asked for");
        }
        dropped
    }

    fn drop_sink(&self, name: &str) -> Value {
        let dropped = name.parse::<SinkName>();
        match dropped.and_then(|name| self.pending.drop_sink(&name)) {
            Ok(dropped) => {
                tracing::warn!(
                    sink = name,
                    dropped,
                    "what was left of a sink is dropped, as somebody asked for"
                );
                json!({ "dropped": dropped })
            }
            Err(error) => json!({ "error": error }),
        }
    }

    /// The answer to the words of `afferent status`.
    pub fn answer(&self, words: &[&str]) -> StatusAnswer {
        let said = match words {
            ["status"] => return self.status(false),
            ["status", "dead"] => return self.status(true),
            ["retry"] => json!({ "retried": self.pending.revive(None) }),
            ["retry", vm] => match vm.parse() {
                Ok(vm) => json!({ "retried": self.pending.revive(Some(&vm)) }),
                Err(error) => json!({ "error": error.to_string() }),
            },
            ["drop", vm] => match vm.parse() {
                Ok(vm) => json!({ "dropped": self.drop_letter(&vm) }),
                Err(error) => json!({ "error": error.to_string() }),
            },
            ["drop-sink", name] => self.drop_sink(name),
            _ => {
                json!({ "error": "sense answers: status, status dead, retry, retry VM, drop VM, drop-sink NAME, rescan, rescan VM, fleet QUESTION, login" })
            }
        };
        said.into()
    }
}

impl Health for View {
    fn metrics(&self) -> String {
        let totals = self.totals();
        let mut page = Page::new();
        self.metrics.write(&mut page);
        if let Some(fleet) = &self.fleet {
            fleet.write_metrics(&mut page);
        }
        page.gauges(
            "afferent_guests",
            "Guests by state.",
            &[
                (&[("state", "waiting")], totals.waiting.into()),
                (&[("state", "polled")], totals.polled.into()),
                (&[("state", "failing")], totals.failing.into()),
                (&[("state", "silent")], totals.silent.into()),
                (&[("state", "new")], totals.new.into()),
                (&[("state", "idle")], totals.idle.into()),
            ],
        );
        page.gauges(
            "afferent_pending_reports",
            "Reports that Central has not accepted yet, by class.",
            &[
                (&[("class", "reactive")], totals.slots.reactive.into()),
                (&[("class", "routine")], totals.slots.routine.into()),
            ],
        );
        page.gauge(
            "afferent_pending_oldest_age_seconds",
            "Age of what waits longest.",
            age(totals.slots.oldest, clock::wall_now()).as_secs_f64(),
        );
        page.gauge(
            "afferent_dead_letters",
            "Reports that Central refused, kept until their guest's next one.",
            totals.slots.dead.into(),
        );
        self.with_versions(|counts| {
            let has_others = counts.last().is_some_and(|(version, _)| *version == OTHER);
            // Shown from the start.
            let none = [(OTHER, 0)];
            let none = none.iter().filter(|_| !has_others);
            page.gauges_by(
                "afferent_sense_agents",
                "Guests by the version of their agent, the 20 most frequent and the others together.",
                ["version"],
                counts.iter().chain(none).map(|(version, guests)| ([*version], *guests as f64)),
            );
        });
        self.mapping_metrics(&mut page);
        let unread = self.named().errors().count();
        page.gauge(
            "afferent_roster_sources_unread",
            "Sources of the roster that cannot be read, in full or in part.",
            unread as f64,
        );
        page.gauge(
            "afferent_deliveries_in_flight",
            "Deliveries under way.",
            totals.slots.in_flight as f64,
        );
        if let Some(wait) = totals.slots.worst_case_wait {
            page.gauge(
                "afferent_worst_case_wait_seconds",
                "Longest that the last routine report waits if nothing more comes.",
                wait.as_secs_f64(),
            );
        }
        sinks::write_metrics(&self.sinks, clock::wall_now(), &mut page);
        let breakers: Vec<_> = self.sinks.iter().map(ShownSink::breaker).collect();
        let open = |word: &str| {
            let mut reasons = breakers.iter().filter_map(|breaker| breaker.trouble());
            f64::from(u8::from(reasons.any(|(reason, _)| reason == word)))
        };
        page.gauges(
            "afferent_central_trouble",
            "1 for the reason why deliveries to a sink pause.",
            &[
                (&[("reason", "unreachable")], open("unreachable")),
                (&[("reason", "failing")], open("failing")),
                (&[("reason", "unauthorized")], open("unauthorized")),
                (&[("reason", "busy")], open("busy")),
                (&[("reason", "store")], open("store")),
            ],
        );
        page.gauges(
            "afferent_build_info",
            "Version of this program.",
            &[(&[("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        );
        page.finish()
    }

    fn ready(&self) -> Result<(), String> {
        self.named().ready()
    }
}
