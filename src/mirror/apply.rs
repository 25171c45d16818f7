//! One plan, one transaction: read, plan, write, audit.

use super::approval::Approval;
use super::change::{Change, Op};
use super::core::{Device, Pulled, Topology};
use super::diagnostics::{Diagnostic, Withheld};
use super::entry::CoreEntry;
use super::observe::{Observation, PresentDevices, observe};
use super::plan::{Earlier, Given, Plan, PresentComponents, plan_components, plan_racks};
use super::policy::Policy;
use super::spec::component::WantedComponent;
use super::spec::named::NamedBytes;
use super::spec::rack::WantedRack;
use super::spec::{self, SkippedEntry, WantedRow};
use super::topology::{self, PresentTopology, TopologyPlan};
use crate::inventory::{BmcType, Kind, Pair, Row};
use crate::mirror::table::audit::{AuditRow, AuditRun, StoredAuditRow};
use crate::mirror::table::{Fault, Tables};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Columns that change because others do.
const UNAUDITED: [&str; 2] = ["created_at", "updated_at"];

/// What is the same for all types of a run.
pub(crate) struct Run<'a> {
    /// The knobs.
    pub(crate) policy: &'a Policy,
    /// Names the run in the audit log.
    pub(crate) audit: AuditRun,
    /// Deletes that an operator approved.
    pub(crate) approval: Option<&'a Approval>,
    /// What types before took.
    pub(crate) earlier: Earlier,
    /// Whether there was an answer with racks in it.
    pub(crate) racks_pulled: bool,
    /// Types before whose claims are not known: what they have stored counts instead.
    pub(crate) unknown: Vec<Kind>,
    /// Draws ids.
    pub(crate) new_id: &'a mut dyn FnMut() -> Uuid,
    /// Whether decisions are noted for `explain`.
    pub(crate) trace: bool,
}

/// A response, checked.
pub(crate) struct Checked {
    wanted: Wanted,
    skipped: Vec<SkippedEntry>,
    /// Whether absence means something.
    pub(crate) complete: bool,
    warnings: Vec<Diagnostic>,
}

enum Wanted {
    Racks(Vec<WantedRack>),
    Components(Vec<WantedComponent>),
}

impl Checked {
    /// Of a response none of whose entries came yet.
    pub(crate) fn empty(kind: Kind) -> Self {
        Self {
            wanted: match kind {
                Kind::Rack => Wanted::Racks(Vec::new()),
                _ => Wanted::Components(Vec::new()),
            },
            skipped: Vec::new(),
            complete: false,
            warnings: Vec::new(),
        }
    }

    /// Checks every entry of a response.
    pub(crate) fn new(kind: Kind, pulled: Pulled<CoreEntry>, policy: &Policy) -> Self {
        let mut checked = Self::empty(kind);
        for entry in &pulled.entries {
            checked.add(entry, kind, policy);
        }
        checked.end(pulled)
    }

    /// Checks an entry.
    pub(crate) fn add(&mut self, entry: &CoreEntry, kind: Kind, policy: &Policy) {
        let checked = match &mut self.wanted {
            Wanted::Racks(racks) => spec::rack::wanted(entry, policy).map(|(rack, warnings)| {
                racks.push(rack);
                warnings
            }),
            Wanted::Components(components) => {
                let wanted = spec::component::wanted(entry, kind, policy);
                wanted.map(|(component, warnings)| {
                    components.push(component);
                    warnings
                })
            }
        };
        match checked {
            Ok(warnings) => self.warnings.extend(warnings),
            Err(skipped) => self.skipped.push(skipped),
        }
    }

    /// What is known of the response as a whole comes first.
    pub(crate) fn end<T>(mut self, pulled: Pulled<T>) -> Self {
        self.complete = pulled.complete;
        self.warnings.splice(0..0, pulled.warnings);
        self
    }

    /// Adds what Core said to a digest; the order of the entries does not matter.
    pub(crate) fn digest(&self, digest: &mut Sha256) {
        let mut entries: Vec<Vec<u8>> = match &self.wanted {
            Wanted::Racks(racks) => racks
                .iter()
                .map(|r| bytes_of(|b| r.name_bytes(b)))
                .collect(),
            Wanted::Components(components) => {
                let components = components.iter();
                components.map(|c| bytes_of(|b| c.name_bytes(b))).collect()
            }
        };
        let skipped = self.skipped.iter();
        entries.extend(skipped.map(|skipped| bytes_of(|b| skipped.sighting.name_bytes(b))));
        entries.sort_unstable();
        let (complete, count) = (self.complete, entries.len());
        digest.update(format!("complete {complete} entries {count}\n"));
        for entry in entries {
            digest.update(format!("{}:", entry.len()));
            digest.update(entry);
        }
    }

    /// Entries in it.
    pub(crate) fn pulled(&self) -> u64 {
        let wanted = match &self.wanted {
            Wanted::Racks(racks) => racks.len(),
            Wanted::Components(components) => components.len(),
        };
        u64::try_from(wanted + self.skipped.len()).unwrap_or(u64::MAX)
    }

    /// Entries that lack what identifies them.
    pub(crate) fn skipped(&self) -> u64 {
        u64::try_from(self.skipped.len()).unwrap_or(u64::MAX)
    }
}

fn bytes_of(write: impl FnOnce(&mut NamedBytes)) -> Vec<u8> {
    let mut bytes = NamedBytes::default();
    write(&mut bytes);
    bytes.into_bytes()
}

/// Plans one type within a transaction and writes what was planned. Whether anything was.
pub(crate) fn mirror(
    tables: &mut Tables<'_>,
    run: &mut Run<'_>,
    kind: Kind,
    checked: &mut Checked,
) -> Result<(Plan, bool), Fault> {
    let absent = tables.absent(kind.component_type())?.into_iter().collect();
    let complete = checked.complete;
    let wanted = std::mem::replace(&mut checked.wanted, Wanted::Racks(Vec::new()));
    let given = Given {
        kind,
        skipped: &checked.skipped,
        complete,
        absent: &absent,
        policy: run.policy,
        approval: run.approval,
        now: &run.audit.time,
        trace: run.trace,
    };
    let mut plan = match wanted {
        Wanted::Racks(wanted) => plan_racks(given, wanted, &tables.racks()?, run.new_id),
        Wanted::Components(wanted) => {
            let mut present = present_components(tables, kind, &wanted)?;
            present.racks_pulled = run.racks_pulled;
            let unknown = std::mem::take(&mut run.unknown);
            protect_unpulled_types(tables, unknown, &mut run.earlier, &present)?;
            plan_components(given, wanted, &present, &mut run.earlier, run.new_id)
        }
    };
    plan.warnings.splice(0..0, checked.warnings.drain(..));
    let wrote = write(tables, &run.audit, kind, &plan, complete)?;
    if let Some(approval) = run.approval.filter(|_| plan.approved) {
        tables.audit(&run.audit, [approve_row(approval)])?;
    }
    Ok((plan, wrote))
}

fn present_components(
    tables: &Tables<'_>,
    kind: Kind,
    wanted: &[WantedComponent],
) -> Result<PresentComponents, Fault> {
    let Some(component_type) = kind.component_type() else {
        return Ok(PresentComponents::default());
    };
    let rows = tables.components(component_type)?;
    let mut foreign = HashMap::new();
    // Where there are no rows of other types none of them holds anything.
    if tables.count_components()? > rows.len() {
        let own: HashSet<Pair<'_>> = rows.iter().filter_map(|row| row.pair()).collect();
        for pair in wanted.iter().filter_map(WantedComponent::pair) {
            if !own.contains(&pair)
                && let Some(holder) = tables.component_of_pair(pair)?
            {
                foreign.insert(pair.key(), holder);
            }
        }
    }
    let racks = tables.racks()?.into_iter().filter(|rack| rack.is_live());
    Ok(PresentComponents {
        rows,
        bmcs: tables.bmcs()?,
        foreign,
        racks: racks
            .filter_map(|rack| Some((rack.external_id?, rack.id)))
            .collect(),
        racks_pulled: false,
    })
}

/// A type that was to come first and whose claims are not known keeps what it has.
fn protect_unpulled_types(
    tables: &Tables<'_>,
    unknown: Vec<Kind>,
    earlier: &mut Earlier,
    present: &PresentComponents,
) -> Result<(), Fault> {
    for kind in unknown {
        let Some(component_type) = kind.component_type() else {
            continue;
        };
        let rows = tables.components(component_type)?;
        let live: HashSet<Uuid> = rows.iter().filter(|r| r.is_live()).map(|r| r.id).collect();
        for row in rows.iter().filter(|row| row.is_live()) {
            if let Some(pair) = row.pair() {
                earlier.take_pair(pair, kind);
            }
        }
        for bmc in &present.bmcs {
            if bmc.kind == BmcType::Host && live.contains(&bmc.component_id) {
                earlier.take_mac(bmc.mac, kind);
            }
        }
    }
    Ok(())
}

fn write(
    tables: &mut Tables<'_>,
    run: &AuditRun,
    kind: Kind,
    plan: &Plan,
    complete: bool,
) -> Result<bool, Fault> {
    let list = format!("withheld:{kind}");
    let stored = tables.list(&list)?;
    let withheld: Vec<String> = plan.withheld.iter().map(|w| w.id.clone()).collect();
    // Only a complete pull says anything about what is missing.
    let withheld_changed = complete && stored != withheld;
    if plan.changes.is_empty() && plan.absences.is_empty() && !withheld_changed {
        return Ok(false);
    }
    write_changes(tables, run, |_| kind.name(), &plan.changes)?;
    tables.set_absent(kind.component_type(), &plan.absences)?;
    if withheld_changed {
        let new = plan.withheld.iter().filter(|w| !stored.contains(&w.id));
        tables.audit(run, new.map(|w| withhold_row(kind, w)))?;
        tables.set_list(&list, &withheld)?;
    }
    Ok(true)
}

/// Writes changes and their audit rows; `kind` says for which type a change is made.
pub(crate) fn write_changes(
    tables: &mut Tables<'_>,
    run: &AuditRun,
    kind: impl Fn(&Change) -> &'static str,
    changes: &[Change],
) -> Result<(), Fault> {
    let rows: Vec<(Option<&Row>, Option<&Row>)> = changes
        .iter()
        .map(|change| (change.before.as_ref(), change.after.as_ref()))
        .collect();
    tables.apply(&rows)?;
    // Bit by bit: the log of a first load is as long as what is loaded.
    for changes in changes.chunks(1000) {
        let mut rows: Vec<StoredAuditRow> = Vec::with_capacity(changes.len());
        for change in changes {
            match (&change.before, &change.after) {
                (None, Some(row)) => {
                    let op = change.ops.last().map_or(Op::Insert, |(op, _)| *op);
                    let why = reason(change, op);
                    rows.push(StoredAuditRow::came(kind(change), op.name(), why, row)?);
                }
                _ => rows.extend(audit_rows(kind(change), change).into_iter().map(Into::into)),
            }
        }
        tables.audit(run, rows)?;
    }
    Ok(())
}

/// Looks at what was observed within a transaction and writes what follows. Whether anything was.
pub(crate) fn observe_type(
    tables: &mut Tables<'_>,
    run: &mut Run<'_>,
    kind: Kind,
    pulled: &Pulled<Device>,
) -> Result<(Observation, bool), Fault> {
    let Some(component_type) = kind.component_type() else {
        return Err(Fault::GiveUp("racks are not observed".into()));
    };
    let present = PresentDevices {
        components: tables.components(component_type)?,
        bmcs: tables.bmcs()?,
        drifts: tables.drifts()?,
    };
    let observation = observe(
        kind,
        &pulled.entries,
        pulled.no_positions.as_deref(),
        &present,
        run.policy,
        &run.audit.time,
        run.new_id,
    );
    write_changes(tables, &run.audit, |_| kind.name(), &observation.changes)?;
    let wrote = !observation.changes.is_empty();
    Ok((observation, wrote))
}

/// Writes what was observed of the topology. Whether anything was written.
pub(crate) fn write_topology(
    tables: &mut Tables<'_>,
    run: &mut Run<'_>,
    lists: &Topology,
) -> Result<(TopologyPlan, bool), Fault> {
    let present = PresentTopology {
        racks: tables.racks()?,
        domains: tables.domains()?,
    };
    let plan = topology::plan(lists, &present, run.policy, &run.audit.time, run.new_id);
    write_changes(tables, &run.audit, |_| topology::TYPE, &plan.changes)?;
    let wrote = !plan.changes.is_empty();
    Ok((plan, wrote))
}

fn approve_row(approval: &Approval) -> AuditRow {
    let user = approval
        .user
        .map_or("unknown".into(), |uid| uid.to_string());
    let what = serde_json::json!({"deletes": approval.rows.len(), "user": approval.user});
    AuditRow {
        kind: approval.kind.name().into(),
        table: table_of(approval.kind).into(),
        op: "approve".into(),
        row: String::new(),
        key: format!("{} deletes", approval.rows.len()),
        field: None,
        old: None,
        new: Some(what.to_string()),
        reason: format!("approved by the user with the id {user}").into(),
    }
}

fn table_of(kind: Kind) -> &'static str {
    match kind.component_type() {
        None => "rack",
        Some(_) => "component",
    }
}

fn withhold_row(kind: Kind, withheld: &Withheld) -> AuditRow {
    AuditRow {
        kind: kind.name().into(),
        table: table_of(kind).into(),
        op: "withhold".into(),
        row: withheld.id.clone(),
        key: withheld.key.clone(),
        field: None,
        old: None,
        new: None,
        reason: "the delete guard tripped".into(),
    }
}

/// The audit rows of a change: one per column that differs, one for a row as a whole.
pub(crate) fn audit_rows(kind: &'static str, change: &Change) -> Vec<AuditRow> {
    let label = change
        .after
        .as_ref()
        .or(change.before.as_ref())
        .map(Row::label);
    let row = |op: Op, field: Option<&str>, old: Option<String>, new: Option<String>| AuditRow {
        kind: kind.into(),
        table: change.key.table().into(),
        op: op.name().into(),
        row: change.key.to_string(),
        key: label.clone().unwrap_or_default(),
        field: field.map(str::to_owned),
        old,
        new,
        reason: reason(change, op).into(),
    };
    let whole = |row: &Row| Some(row.text());
    let first = change.ops.first().map_or(Op::Update, |(op, _)| *op);
    let last = change.ops.last().map_or(Op::Update, |(op, _)| *op);
    match (&change.before, &change.after) {
        (None, None) => Vec::new(),
        (None, Some(after)) => vec![row(last, None, None, whole(after))],
        (Some(before), None) => vec![row(last, None, whole(before), None)],
        (Some(before), Some(after)) if first == Op::BmcEvict => vec![
            row(Op::BmcEvict, None, whole(before), None),
            row(last, None, None, whole(after)),
        ],
        (Some(before), Some(after)) => {
            let (before, after) = (before.columns(), after.columns());
            let names: std::collections::BTreeSet<&String> =
                before.keys().chain(after.keys()).collect();
            let differs = |name: &&String| {
                before.get(*name) != after.get(*name) && !UNAUDITED.contains(&name.as_str())
            };
            let text = |value: Option<&Value>| value.map(Value::to_string);
            names
                .into_iter()
                .filter(differs)
                .map(|name| {
                    let op = op_of(name, change, last);
                    row(
                        op,
                        Some(name),
                        text(before.get(name)),
                        text(after.get(name)),
                    )
                })
                .collect()
        }
    }
}

/// Which of a change's operations a column is about.
fn op_of(column: &str, change: &Change, otherwise: Op) -> Op {
    let about: &[Op] = match column {
        "deleted_at" => &[Op::SoftDelete, Op::Resurrect],
        "external_id" => &[Op::Adopt],
        "manufacturer" | "serial_number" => &[Op::PairRelease],
        _ => &[],
    };
    let done = |op: &&Op| change.ops.iter().any(|(done, _)| done == *op);
    match about.iter().find(done) {
        Some(op) => *op,
        None if matches!(
            otherwise,
            Op::SoftDelete | Op::Resurrect | Op::Adopt | Op::PairRelease
        ) =>
        {
            Op::Update
        }
        None => otherwise,
    }
}

fn reason(change: &Change, op: Op) -> &'static str {
    let found = change.ops.iter().rev().find(|(done, _)| *done == op);
    found.map_or("Core says so", |(_, why)| *why)
}
