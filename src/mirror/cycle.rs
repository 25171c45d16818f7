//! One cycle: racks, machines, switches, shelves, then drift. A type that fails stops no other.

use super::apply::{Checked, Run, mirror, observe_type};
use super::core::{Core, Pull};
use super::observe::Observation;
use super::plan::{Earlier, Plan};
use super::policy::Policy;
use super::report::{Counters, DriftSummary, Report, Summary};
use crate::inventory::Kind;
use crate::store::Store;
use crate::store::audit_table::AuditRun;
use crate::store::inventory_table::{Ending, Fault, InventoryError};
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
        earlier: Earlier::default(),
        unknown: Vec::new(),
        new_id: cycle.new_id,
        trace: false,
    };
    if cycle.mirror {
        for kind in Kind::ALL {
            let pull = core.expected(kind);
            let Some(mut checked) = checked(kind, pull, &mut run, &mut summary) else {
                continue;
            };
            let (pulled, skipped) = (checked.pulled(), checked.skipped());
            let complete = checked.complete;
            let done = store.inventory(|tables| {
                let (plan, wrote) = mirror(tables, &mut run, kind, &mut checked)?;
                let ending = ending(wrote, cycle.gatekeeper, kind.name())?;
                Ok((plan, ending))
            });
            match done {
                Ok(plan) => take(&mut summary, plan),
                Err(error) => {
                    let counters = Counters {
                        pulled,
                        skipped_invalid: skipped,
                        ..Counters::default()
                    };
                    summary.types.insert(kind.name().to_owned(), counters);
                    failed_tx(&mut summary, kind, kind.name(), &error);
                }
            }
            if !complete || summary_failed(&summary, kind) {
                run.unknown.push(kind);
            }
        }
    }
    for kind in Kind::ALL {
        observe_kind(store, core, kind, &mut run, cycle.gatekeeper, &mut summary);
    }
    if cycle.mirror {
        look_for_dangling(store, &mut summary);
    }
    summary
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
    pulls: Vec<(Kind, Pull<super::page::Entry>)>,
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
        earlier: Earlier::default(),
        unknown: Vec::new(),
        new_id: cycle.new_id,
        trace,
    };
    store.inventory(|tables| {
        let generation = tables.generation()?;
        let mut plans = Vec::new();
        for (kind, pull) in pulls {
            let Some(mut checked) = checked(kind, pull, &mut run, &mut summary) else {
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

/// The entries of a pull, unless there are none to work with.
fn checked(
    kind: Kind,
    pull: Pull<super::page::Entry>,
    run: &mut Run<'_>,
    summary: &mut Summary,
) -> Option<Checked> {
    match pull {
        Pull::Absent => None,
        Pull::Failed(why) => {
            let code = format!("pull_failed:{kind}");
            summary.errors.push(Report::new(code, kind, "", why));
            run.unknown.push(kind);
            None
        }
        Pull::Done(pulled) => {
            if !pulled.complete {
                summary.incomplete.push(kind.name().to_owned());
            }
            Some(Checked::new(kind, pulled, run.policy))
        }
    }
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
    let report = Report::new(code, kind, "", error.to_string());
    summary.errors.push(report);
}

fn summary_failed(summary: &Summary, kind: Kind) -> bool {
    let code = format!("tx_failed:{kind}");
    summary.errors.iter().any(|error| error.code == code)
}

fn observe_kind(
    store: &Store,
    core: &mut dyn Core,
    kind: Kind,
    run: &mut Run<'_>,
    gatekeeper: &dyn Gatekeeper,
    summary: &mut Summary,
) {
    let what = format!("drift:{kind}");
    let pulled = match core.observed(kind) {
        Pull::Absent => return,
        Pull::Done(pulled) if pulled.complete => pulled,
        other => {
            let why = match other {
                Pull::Failed(why) => why,
                _ => "the list of devices is not complete".to_owned(),
            };
            let code = format!("pull_failed:{what}");
            summary.errors.push(Report::new(code, kind, "", why));
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
        }
        Err(error) => failed_tx(summary, kind, &what, &error),
    }
    summary.drift.insert(kind.name().to_owned(), drift);
}

/// Components that a failed pull left pointing to a rack that is gone.
fn look_for_dangling(store: &Store, summary: &mut Summary) {
    let found = store.inventory(|tables| {
        let live: HashSet<Uuid> = tables
            .racks()?
            .into_iter()
            .filter(|rack| rack.is_live())
            .map(|rack| rack.id)
            .collect();
        let mut racks = tables.racks_pointed_to()?;
        racks.retain(|rack| !live.contains(rack));
        Ok((racks, Ending::Discard))
    });
    match found {
        Ok(racks) => summary.warnings.extend(racks.into_iter().map(|rack| {
            let why = "components still point to this rack, which is deleted";
            Report::new(
                "component_points_to_deleted_rack",
                Kind::Rack,
                rack.to_string(),
                why,
            )
        })),
        Err(error) => {
            let report = Report::general("store_failed", error.to_string());
            summary.errors.push(report);
        }
    }
}
