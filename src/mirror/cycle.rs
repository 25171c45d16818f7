//! One cycle: all lists are pulled, then racks, machines, switches, topology and shelves are written, then
//! drift.
//! A type that fails stops no other; lists of several sites stop the cycle before it writes.

use super::apply::{Checked, Run, mirror, observe_type, write_topology};
use super::approval::Approval;
use super::core::{Core, Device, Pull, Pulled, Topology};
use super::diagnostics::{Diagnostic, DriftSummary, Summary, TypeCounters};
use super::entry::CoreEntry;
use super::observe::Observation;
use super::plan::{Earlier, Plan};
use super::policy::Policy;
use super::topology;
use crate::inventory::Kind;
use crate::mirror::table::audit::AuditRun;
use crate::mirror::table::{Ending, Fault, InventoryError};
use crate::store::Store;
use std::collections::HashSet;
use uuid::Uuid;

/// Asked before a transaction is committed; a service that is to stop says no.
pub trait Gatekeeper {
    /// `what` is a type, or `drift:` and a type. An error gives the transaction up.
    fn may_commit(&self, what: &str) -> Result<(), String>;
}

/// Lets everything through.
pub struct AlwaysOpen;

impl Gatekeeper for AlwaysOpen {
    fn may_commit(&self, _what: &str) -> Result<(), String> {
        Ok(())
    }
}

/// What a cycle needs to know beside the store and Core.
pub struct Cycle<'a> {
    /// The knobs.
    pub policy: &'a Policy,
    /// Deletes that an operator approved.
    pub approval: Option<&'a Approval>,
    /// Whether expected inventory is mirrored; drift is looked at all the same.
    pub mirror: bool,
    /// Time of the run, RFC 3339.
    pub now: String,
    /// Draws ids of new rows and of the run.
    pub new_id: &'a mut dyn FnMut() -> Uuid,
    /// May refuse commits.
    pub gatekeeper: &'a dyn Gatekeeper,
}

/// Runs one cycle.
pub fn run_cycle(store: &Store, core: &mut dyn Core, cycle: Cycle<'_>) -> Summary {
    core.begin();
    begun(store, core, cycle)
}

/// The same, of what Core was already asked to forget.
pub(super) fn begun(store: &Store, core: &mut dyn Core, cycle: Cycle<'_>) -> Summary {
    let id = (cycle.new_id)();
    let mut summary = Summary::new(id.to_string());
    summary.mirror_ran = cycle.mirror;
    let mut run = Run {
        policy: cycle.policy,
        audit: AuditRun {
            id,
            time: cycle.now,
            source: core.source(),
        },
        approval: cycle.approval,
        earlier: Earlier::default(),
        racks_pulled: false,
        unknown: Vec::new(),
        new_id: cycle.new_id,
        trace: false,
    };
    let lists = Lists::pull(core, cycle.mirror, cycle.policy);
    core.end();
    if let Some(why) = core.several_sites() {
        summary
            .errors
            .push(Diagnostic::general("several_sites", why));
        return summary;
    }
    let mut topology = Some(lists.topology);
    for (kind, list) in lists.expected {
        mirror_kind(store, kind, list, &mut run, cycle.gatekeeper, &mut summary);
        if kind == Kind::NVSwitch
            && let Some(lists) = topology.take()
        {
            mirror_topology(store, &lists, &mut run, cycle.gatekeeper, &mut summary);
        }
    }
    // Where nothing is mirrored it is observed all the same.
    if let Some(lists) = topology {
        mirror_topology(store, &lists, &mut run, cycle.gatekeeper, &mut summary);
    }
    for (kind, pull) in lists.observed {
        observe_kind(store, kind, pull, &mut run, cycle.gatekeeper, &mut summary);
    }
    if cycle.mirror {
        look_for_dangling(store, &mut summary);
    }
    summary
}

/// Everything that Core said, before anything is written.
struct Lists {
    expected: Vec<(Kind, Listed)>,
    observed: Vec<(Kind, Pull<Device>)>,
    topology: Topology,
}

/// An expected list, its entries checked.
enum Listed {
    Absent,
    Failed(String),
    Checked(Checked),
}

impl Lists {
    fn pull(core: &mut dyn Core, expected: bool, policy: &Policy) -> Self {
        let kinds = Kind::ALL.into_iter();
        Self {
            expected: kinds
                .clone()
                .filter(|_| expected)
                .map(|kind| (kind, Listed::pull(core, kind, policy)))
                .collect(),
            observed: kinds.map(|kind| (kind, core.observed(kind))).collect(),
            topology: core.topology(),
        }
    }
}

impl Listed {
    /// Asks for a list and checks its entries as they come.
    fn pull(core: &mut dyn Core, kind: Kind, policy: &Policy) -> Self {
        let mut checked = Checked::empty(kind);
        match core.expected_each(kind, &mut |entry| checked.add(&entry, kind, policy)) {
            Pull::Absent => Self::Absent,
            Pull::Failed(why) => Self::Failed(why),
            Pull::Done(pulled) => Self::Checked(checked.end(pulled)),
        }
    }

    fn new(kind: Kind, pull: Pull<CoreEntry>, policy: &Policy) -> Self {
        match pull {
            Pull::Absent => Self::Absent,
            Pull::Failed(why) => Self::Failed(why),
            Pull::Done(pulled) => Self::Checked(Checked::new(kind, pulled, policy)),
        }
    }

    /// The entries, unless there are none to work with.
    fn checked(self, kind: Kind, run: &mut Run<'_>, summary: &mut Summary) -> Option<Checked> {
        match self {
            Self::Absent => None,
            Self::Failed(why) => {
                let code = format!("pull_failed:{kind}");
                summary.errors.push(Diagnostic::new(code, kind, "", why));
                run.unknown.push(kind);
                None
            }
            Self::Checked(checked) => {
                if !checked.complete {
                    summary.incomplete.push(kind.name().to_owned());
                }
                run.racks_pulled |= kind == Kind::Rack;
                Some(checked)
            }
        }
    }
}

fn mirror_kind(
    store: &Store,
    kind: Kind,
    list: Listed,
    run: &mut Run<'_>,
    gatekeeper: &dyn Gatekeeper,
    summary: &mut Summary,
) {
    let Some(mut checked) = list.checked(kind, run, summary) else {
        return;
    };
    let (pulled, skipped) = (checked.pulled(), checked.skipped());
    let complete = checked.complete;
    let done = store.inventory(|tables| {
        let (plan, wrote) = mirror(tables, run, kind, &mut checked)?;
        let ending = ending(wrote, gatekeeper, kind.name())?;
        Ok((plan, ending))
    });
    let failed = done.is_err();
    match done {
        Ok(plan) => take(summary, plan),
        Err(error) => {
            let counters = TypeCounters {
                pulled,
                skipped_invalid: skipped,
                ..TypeCounters::default()
            };
            summary.types.insert(kind.name().to_owned(), counters);
            failed_tx(summary, kind, kind.name(), &error);
        }
    }
    if complete && !failed {
        summary.complete.push(kind.name().to_owned());
    } else {
        run.unknown.push(kind);
    }
}

/// What a plan says would happen, and the ids it used for new rows.
pub struct Planned {
    /// One per type that was pulled.
    pub plans: Vec<Plan>,
    /// Everything else a run would say.
    pub summary: Summary,
    /// Commits the store had seen.
    pub generation: u64,
}

/// Plans every type in one transaction that is never committed: exactly what a run would do.
pub(crate) fn plan_cycle(
    store: &Store,
    lists: Vec<(Kind, Pull<CoreEntry>)>,
    source: String,
    cycle: Cycle<'_>,
    trace: bool,
) -> Result<Planned, InventoryError> {
    let id = (cycle.new_id)();
    let mut summary = Summary::new(id.to_string());
    summary.mirror_ran = true;
    let mut run = Run {
        policy: cycle.policy,
        audit: AuditRun {
            id,
            time: cycle.now,
            source,
        },
        approval: cycle.approval,
        earlier: Earlier::default(),
        racks_pulled: false,
        unknown: Vec::new(),
        new_id: cycle.new_id,
        trace,
    };
    store.inventory(|tables| {
        let generation = tables.generation()?;
        let mut plans = Vec::new();
        for (kind, pull) in lists {
            let list = Listed::new(kind, pull, run.policy);
            let Some(mut checked) = list.checked(kind, &mut run, &mut summary) else {
                continue;
            };
            let (plan, _) = mirror(tables, &mut run, kind, &mut checked)?;
            if !checked.complete {
                run.unknown.push(kind);
            }
            plans.push(plan);
        }
        for plan in &mut plans {
            let counters = plan.counters;
            summary.types.insert(plan.kind.name().to_owned(), counters);
            summary.warnings.append(&mut plan.warnings);
            summary.errors.append(&mut plan.errors);
            summary.withheld.extend(plan.withheld.iter().cloned());
        }
        let planned = Planned {
            plans,
            summary,
            generation,
        };
        Ok((planned, Ending::Discard))
    })
}

fn ending(wrote: bool, gatekeeper: &dyn Gatekeeper, what: &str) -> Result<Ending, Fault> {
    gatekeeper.may_commit(what).map_err(Fault::GiveUp)?;
    Ok(if wrote {
        Ending::Commit
    } else {
        Ending::Discard
    })
}

fn take(summary: &mut Summary, plan: Plan) {
    summary
        .types
        .insert(plan.kind.name().to_owned(), plan.counters);
    summary.warnings.extend(plan.warnings);
    summary.errors.extend(plan.errors);
    summary.withheld.extend(plan.withheld);
}

fn failed_tx(summary: &mut Summary, kind: Kind, what: &str, error: &InventoryError) {
    let code = format!("tx_failed:{what}");
    let report = Diagnostic::new(code, kind, "", error.to_string());
    summary.errors.push(report);
}

fn observe_kind(
    store: &Store,
    kind: Kind,
    pull: Pull<Device>,
    run: &mut Run<'_>,
    gatekeeper: &dyn Gatekeeper,
    summary: &mut Summary,
) {
    let what = format!("drift:{kind}");
    let mut warn = |pulled: &mut Pulled<Device>| summary.warnings.append(&mut pulled.warnings);
    let pulled = match pull {
        Pull::Absent => return,
        Pull::Done(mut pulled) if pulled.complete => {
            warn(&mut pulled);
            pulled
        }
        other => {
            let why = match other {
                Pull::Failed(why) => why,
                Pull::Done(mut pulled) => {
                    warn(&mut pulled);
                    "the list of devices is not complete".to_owned()
                }
                Pull::Absent => return,
            };
            let code = format!("pull_failed:{what}");
            summary.errors.push(Diagnostic::new(code, kind, "", why));
            summary
                .drift
                .insert(kind.name().to_owned(), DriftSummary::default());
            return;
        }
    };
    let done = store.inventory(|tables| {
        let (observation, wrote) = observe_type(tables, run, kind, &pulled)?;
        Ok((observation, ending(wrote, gatekeeper, &what)?))
    });
    let mut drift = DriftSummary::default();
    match done {
        Ok(Observation {
            received,
            complete,
            rows,
            errors,
            ..
        }) => {
            drift = DriftSummary {
                received,
                complete,
                rows,
            };
            summary.errors.extend(errors);
            if complete {
                summary.complete.push(what.clone());
            }
        }
        Err(error) => failed_tx(summary, kind, &what, &error),
    }
    summary.drift.insert(kind.name().to_owned(), drift);
}

fn mirror_topology(
    store: &Store,
    lists: &Topology,
    run: &mut Run<'_>,
    gatekeeper: &dyn Gatekeeper,
    summary: &mut Summary,
) {
    let what = topology::TYPE;
    let mut any = false;
    let mut failed = |why: Option<String>, list: &str| {
        if let Some(why) = why {
            let code = format!("pull_failed:{what}");
            summary
                .errors
                .push(Diagnostic::about(code, what, list, why));
        }
    };
    failed(failure(&lists.groups, &mut any), "rack_groups");
    failed(failure(&lists.domains, &mut any), "nvlink_domains");
    failed(failure(&lists.health, &mut any), "rack_health");
    if !any {
        return;
    }
    let done = store.inventory(|tables| {
        let (plan, wrote) = write_topology(tables, run, lists)?;
        Ok((plan, ending(wrote, gatekeeper, what)?))
    });
    match done {
        Ok(plan) => {
            summary.types.insert(what.to_owned(), plan.counters);
            summary.warnings.extend(plan.warnings);
        }
        Err(error) => {
            let code = format!("tx_failed:{what}");
            summary
                .errors
                .push(Diagnostic::about(code, what, "", error.to_string()));
        }
    }
}

/// Why a list failed; notes whether any list was read.
fn failure<T>(pull: &Pull<T>, any: &mut bool) -> Option<String> {
    *any |= matches!(pull, Pull::Done(_));
    match pull {
        Pull::Failed(why) => Some(why.clone()),
        Pull::Absent | Pull::Done(_) => None,
    }
}

/// Components that a failed pull left pointing to a rack that is gone.
fn look_for_dangling(store: &Store, summary: &mut Summary) {
    let found = store
        .snapshot()
        .map_err(InventoryError::from)
        .and_then(|snapshot| {
            snapshot.view(|tables| {
                let live: HashSet<Uuid> = tables
                    .racks()?
                    .into_iter()
                    .filter(|rack| rack.is_live())
                    .map(|rack| rack.id)
                    .collect();
                let mut racks = tables.racks_pointed_to()?;
                racks.retain(|rack| !live.contains(rack));
                Ok(racks)
            })
        });
    match found {
        Ok(racks) => summary.warnings.extend(racks.into_iter().map(|rack| {
            let why = "components still point to this rack, which is deleted";
            Diagnostic::new(
                "component_points_to_deleted_rack",
                Kind::Rack,
                rack.to_string(),
                why,
            )
        })),
        Err(error) => {
            let report = Diagnostic::general("store_failed", error.to_string());
            summary.errors.push(report);
        }
    }
}
