//! What `afferent status` shows of a guest.

use crate::clock::WallTime;
use crate::report::{GuestId, VmId};
use crate::sense::mapping::pushes::Pushes;
use crate::sense::pull::guests::{Guest, GuestTable};
use crate::sense::pull::schedule::Ask;
use crate::sense::queue::PendingState;
use crate::sense::queue::slot::State;
use crate::sense::roster::SourceStatus;
use crate::sense::sink_name::SinkName;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use std::sync::MutexGuard;
use std::time::Duration;

/// Failures in a row after which a guest counts as silent.
const SILENT: u32 = 3;

/// The states of [`state_of`].
pub const GUEST_STATES: [&str; 6] = ["waiting", "polled", "new", "failing", "silent", "idle"];

/// `waiting` (in a wait), `polled`, `failing`, `silent` (for a while), `new` (not answered yet), `idle` (not
/// asked: it does not run, or has no VSOCK).
pub(in crate::sense) fn state_of(guests: &GuestTable, vm: &VmId, guest: &Guest) -> &'static str {
    if guest.entry.idle.is_some() {
        return "idle";
    }
    let failures = match guest.failure {
        Some(_) => guests.schedule.look(vm).map_or(0, |(failures, _)| failures),
        None => 0,
    };
    match (failures, guest.asked) {
        (SILENT.., _) => "silent",
        (1.., _) => "failing",
        (0, Some(Ask::Wait(_))) => "waiting",
        (0, _) if !guest.has_answered => "new",
        (0, _) if guest.row.waits && guest.entry.address.can_hold_waits() => "waiting",
        (0, _) => "polled",
    }
}

/// What is looked at of a guest.
pub(super) struct GuestView<'a> {
    pub(super) vm: &'a VmId,
    /// `None`: it left, and something of it is not delivered.
    pub(super) guest: Option<&'a Guest>,
    pub(super) state: &'a str,
    pub(super) source: Option<&'a SourceStatus>,
    /// The state of each sink's queue.
    pub(super) sinks: &'a [(&'a SinkName, MutexGuard<'a, PendingState>)],
    pub(super) pushes: &'a Pushes,
    pub(super) now: WallTime,
}

impl GuestView<'_> {
    pub(super) fn json(&self) -> Option<Box<RawValue>> {
        let Self {
            vm,
            guest,
            state,
            source,
            sinks,
            pushes,
            now,
        } = *self;
        let row = guest.map(|guest| &guest.row);
        let agent = guest.and_then(|guest| guest.agent.as_ref());
        let document = sinks
            .iter()
            .find_map(|(_, state)| pending_json(vm, state, now));
        let known = row.and_then(|row| row.known);
        let accepted = sinks
            .first()
            .and_then(|(_, state)| accepted_json(vm, state));
        let row = json!({
            "vm": vm.as_str(),
            "address": guest.map(|guest| guest.entry.address.to_string()),
            "source": source.map(|source| &source.name),
            "source_read_at": source.and_then(|source| source.read_at).map(|at| at.to_string()),
            "state": state,
            "guest_id": row.and_then(|row| row.guest_id.as_ref()).map(|id| id.as_str()),
            "domain": row.and_then(|row| row.domain).map(|domain| domain.to_string()),
            "machine_before": guest.and_then(|guest| guest.before.as_ref()).map(|before| json!({
                "guest_id": before.guest_id.as_ref().map(GuestId::as_str),
                "domain": before.domain.map(|domain| domain.to_string()),
                "until": before.until.to_string(),
            })),
            "known": known.map(|known| known.key.to_string()),
            "reported_at": row.filter(|row| row.known.is_some()).map(|row| row.full_at.to_string()),
            "reported_ago_s": row
                .filter(|row| row.known.is_some())
                .map(|row| now.since(row.full_at).as_secs()),
            "generated_at": row.filter(|row| row.known.is_some()).map(|row| row.generated_at.to_string()),
            "accepted": accepted,
            "pending": document,
            "sinks": (sinks.len() > 1).then(|| sinks_json(vm, sinks, now)),
            "agent_version": agent.map(|agent| &*agent.version),
            "facts": agent.and_then(|agent| serde_json::from_str::<Value>(&agent.facts).ok()),
            "mapping": mapping_json(vm, pushes),
            "idle": guest.and_then(|guest| guest.entry.idle.as_ref()).map(ToString::to_string),
            "error": guest.and_then(|guest| guest.failure.as_ref()).map(ToString::to_string),
        });
        // Fails for no value of this kind.
        to_raw_value(&row).ok()
    }
}

/// Which mapping the agent of a guest has, and how that stands to the sensor's.
fn mapping_json(vm: &VmId, pushes: &Pushes) -> Option<Value> {
    let agent = pushes.agent(vm)?;
    let (sync, error) = pushes.look(vm)?;
    Some(json!({
        "path": agent.path.label(),
        "hash": agent.hash.map(|hash| hash.to_string()),
        "state": sync.label(),
        "error": error,
    }))
}

/// What each sink accepted of a guest, and what it has not yet.
fn sinks_json(
    vm: &VmId,
    sinks: &[(&SinkName, MutexGuard<'_, PendingState>)],
    now: WallTime,
) -> Value {
    let sinks = sinks.iter().map(|(name, state)| {
        let row = json!({
            "accepted": accepted_json(vm, state),
            "pending": pending_json(vm, state, now),
        });
        (name.to_string(), row)
    });
    Value::Object(sinks.collect())
}

fn accepted_json(vm: &VmId, state: &PendingState) -> Option<Value> {
    let (known, at) = state.accepted(vm)?;
    Some(json!({
        "key": known.key.to_string(),
        "at": at.to_string(),
    }))
}

fn pending_json(vm: &VmId, pending: &PendingState, now: WallTime) -> Option<Value> {
    let slot = pending.queue().slot(vm)?;
    let detail = pending.detail(vm);
    let state = match slot.state {
        State::Queued => "queued",
        State::Backoff(_) => "backoff",
        State::InFlight => "in_flight",
        State::Dead => "dead",
    };
    Some(json!({
        "key": slot.newest().key.to_string(),
        "facts_alone": slot.newest().facts.is_some(),
        "trigger": slot.trigger.as_str(),
        "state": state,
        "attempts": slot.attempts,
        "packages": detail.map(|detail| detail.packages),
        "since_s": age(detail.map(|detail| detail.since), now).as_secs(),
        "error": detail.and_then(|detail| detail.last_error.clone()),
    }))
}

pub(super) fn age(since: Option<WallTime>, now: WallTime) -> Duration {
    since.map_or(Duration::ZERO, |since| now.since(since))
}
