//! A plan to read, to save, and to carry out only while it still holds.
//!
//! A saved plan names the generation of the store, a digest of what Core said, and the knobs.
//! Carrying it out asks Core again; if the store or Core changed, nothing is written. Otherwise
//! the same inputs give the same plan, which is what is then applied.

use super::apply;
use super::change::Change;
use super::core::{Core, Pull};
use super::cycle::{Cycle, Planned, plan_cycle};
use super::diagnostics::{Diagnostic, TypeCounters, Withheld};
use super::entry::CoreEntry;
use super::policy::Policy;
use crate::inventory::{Kind, Row};
use crate::mirror::table::InventoryError;
use crate::store::Store;
use crate::visible::visible;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;
use uuid::Uuid;

/// Version of the file, and of the bytes that the digest in it is over. In version 1 the digest was over the
/// program's own way to print values, which another build may not share.
const FORMAT: u32 = 2;

/// A saved plan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanFile {
    /// Version of the file.
    pub format: u32,
    /// Commits the store had seen.
    pub generation: u64,
    /// SHA-256 over what Core said, entry by entry as named bytes, in hexadecimal digits.
    pub snapshot: String,
    /// Where it came from.
    pub source: String,
    /// The knobs it was made with.
    pub policy: Policy,
    /// What would happen, for people.
    pub plan: Value,
}

/// A plan, ready to print.
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    /// Commits the store had seen.
    pub generation: u64,
    /// SHA-256 over what Core said, in hexadecimal digits.
    pub snapshot: String,
    /// TypeCounters as they would be.
    pub types: BTreeMap<String, TypeCounters>,
    /// Changes in order of types, then of rows.
    pub changes: Vec<ChangeView>,
    /// Deletes the guard would refuse.
    pub withheld: Vec<Withheld>,
    /// What somebody should look at.
    pub warnings: Vec<Diagnostic>,
    /// What failed.
    pub errors: Vec<Diagnostic>,
}

/// One change of one column, or of a row as a whole.
#[derive(Clone, Debug, Serialize)]
pub struct ChangeView {
    /// Type it belongs to.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is done.
    pub op: String,
    /// Table of the row.
    pub table: String,
    /// Id or address; `new:N` for the N-th new row.
    pub id: String,
    /// What people call the row.
    pub key: String,
    /// The column, unless it is about the row as a whole.
    pub field: Option<String>,
    /// Value as it is.
    pub old: Option<Value>,
    /// Value as it would be.
    pub new: Option<Value>,
    /// Why.
    pub reason: String,
}

/// What Core said, kept so that it is asked only once.
pub struct PlanSnapshot {
    pulls: Vec<(Kind, Pull<CoreEntry>)>,
    source: String,
    digest: String,
    several_sites: Option<String>,
}

impl PlanSnapshot {
    /// Asks for every type.
    pub fn take(core: &mut dyn Core, policy: &Policy) -> Self {
        core.begin();
        let pulls: Vec<(Kind, Pull<CoreEntry>)> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, core.expected(kind)))
            .collect();
        let mut digest = Sha256::new();
        for (kind, pull) in &pulls {
            digest.update(format!("{kind}\n"));
            match pull {
                Pull::Absent => digest.update("absent\n"),
                Pull::Failed(_) => digest.update("failed\n"),
                Pull::Done(pulled) => {
                    apply::Checked::new(*kind, pulled.clone(), policy).digest(&mut digest);
                }
            }
        }
        let mut hex = String::with_capacity(64);
        for byte in digest.finalize() {
            let _ = write!(hex, "{byte:02x}");
        }
        Self {
            pulls,
            source: core.source(),
            digest: hex,
            several_sites: core.several_sites(),
        }
    }
}

/// Core as it was when the snapshot was taken.
impl Core for PlanSnapshot {
    fn begin(&mut self) {}

    fn expected(&mut self, kind: Kind) -> Pull<CoreEntry> {
        let found = self.pulls.iter_mut().find(|(of, _)| *of == kind);
        found.map_or(Pull::Absent, |(_, pull)| {
            std::mem::replace(pull, Pull::Absent)
        })
    }

    fn observed(&mut self, _kind: Kind) -> Pull<super::core::Device> {
        Pull::Absent
    }

    fn several_sites(&self) -> Option<String> {
        self.several_sites.clone()
    }

    fn source(&self) -> String {
        self.source.clone()
    }
}

/// Numbers in the place of ids: they show that nothing has been drawn yet, and repeat.
fn placeholders() -> impl FnMut() -> Uuid {
    let mut next: u128 = 0;
    move || {
        let id = Uuid::from_u128(next);
        next += 1;
        id
    }
}

/// What a run would do now, with decisions if `trace` asks for them.
pub fn preview(
    store: &Store,
    snapshot: PlanSnapshot,
    policy: &Policy,
    trace: bool,
) -> Result<(Planned, String), InventoryError> {
    let mut new_id = placeholders();
    let cycle = Cycle {
        policy,
        approval: None,
        mirror: true,
        // A time would make every plan look different.
        now: "now".into(),
        new_id: &mut new_id,
        gatekeeper: &super::cycle::AlwaysOpen,
    };
    let lists = match &snapshot.several_sites {
        None => snapshot.pulls,
        Some(_) => Vec::new(),
    };
    let mut planned = plan_cycle(store, lists, snapshot.source, cycle, trace)?;
    let refused = snapshot.several_sites.into_iter();
    let refused = refused.map(|why| Diagnostic::general("several_sites", why));
    planned.summary.errors.extend(refused);
    Ok((planned, snapshot.digest))
}

impl PlanView {
    /// For printing and saving.
    pub fn new(planned: &Planned, snapshot: String) -> Self {
        let changes = planned.plans.iter().flat_map(|plan| {
            let kind = plan.kind.name();
            plan.changes
                .iter()
                .flat_map(move |change| views(kind, change))
        });
        Self {
            generation: planned.generation,
            snapshot,
            types: planned.summary.types.clone(),
            changes: changes.collect(),
            withheld: planned.summary.withheld.clone(),
            warnings: planned.summary.warnings.clone(),
            errors: planned.summary.errors.clone(),
        }
    }
}

/// Which part of a plan is asked for; `None` is all.
#[derive(Clone, Debug, Default)]
pub struct PlanFilter {
    /// Type of changes, warnings, errors and withheld deletes.
    pub kind: Option<String>,
    /// What a change does, or the code of a warning or error.
    pub code: Option<String>,
    /// Only changes behind the one with this number, which begins at 1.
    pub cursor: Option<usize>,
    /// At most as many changes.
    pub limit: Option<usize>,
}

impl PlanFilter {
    fn is_asked(&self, kind: Option<&str>, code: &str) -> bool {
        let same = |asked: &Option<String>, value: &str| {
            asked
                .as_ref()
                .is_none_or(|asked| asked.eq_ignore_ascii_case(value))
        };
        same(&self.kind, kind.unwrap_or_default()) && same(&self.code, code)
    }
}

impl PlanView {
    /// The part that is asked for, and the number of its last change. TypeCounters are those of the whole.
    #[must_use]
    pub fn page(self, filter: &PlanFilter) -> (Self, Option<usize>) {
        let reports = |reports: Vec<Diagnostic>| {
            let asked = reports.into_iter();
            let asked = asked.filter(|r| filter.is_asked(r.kind.as_deref(), &r.code));
            asked.collect::<Vec<Diagnostic>>()
        };
        let changes = self.changes.into_iter().zip(1..);
        let (changes, numbers): (Vec<ChangeView>, Vec<usize>) = changes
            .filter(|(_, number)| filter.cursor.is_none_or(|cursor| *number > cursor))
            .filter(|(change, _)| filter.is_asked(Some(&change.kind), &change.op))
            .take(filter.limit.unwrap_or(usize::MAX))
            .unzip();
        let withheld = self.withheld.into_iter();
        let page = Self {
            changes,
            withheld: withheld
                .filter(|row| filter.is_asked(Some(&row.kind), "withheld"))
                .collect(),
            warnings: reports(self.warnings),
            errors: reports(self.errors),
            ..self
        };
        (page, numbers.last().copied())
    }
}

impl PlanFile {
    /// A plan to be saved.
    pub fn new(view: &PlanView, source: String, policy: &Policy) -> Result<Self, String> {
        Ok(Self {
            format: FORMAT,
            generation: view.generation,
            snapshot: view.snapshot.clone(),
            source,
            policy: *policy,
            plan: serde_json::to_value(view).map_err(|error| error.to_string())?,
        })
    }

    /// Reads a saved plan.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if file.format != FORMAT {
            return Err(format!(
                "the plan has format {}, this program reads format {FORMAT}: make it again with `afferent mirror plan --plan-out`",
                file.format
            ));
        }
        Ok(file)
    }

    /// Why it must not be carried out any more.
    pub fn stale(&self, snapshot: &PlanSnapshot, generation: u64) -> Option<String> {
        if generation != self.generation {
            return Some(format!(
                "the store was written since: generation {generation}, planned at {}",
                self.generation
            ));
        }
        (snapshot.digest != self.snapshot).then(|| "Core says something else now".to_owned())
    }
}

fn views(kind: &'static str, change: &Change) -> Vec<ChangeView> {
    apply::audit_rows(kind, change)
        .into_iter()
        .map(|row| ChangeView {
            kind: kind.to_owned(),
            op: row.op.into_owned(),
            table: row.table.into_owned(),
            id: named(&row.row),
            key: row.key,
            field: row.field,
            old: row.old.map(|text| value(&text)),
            new: row.new.map(|text| value(&text)),
            reason: row.reason.into_owned(),
        })
        .collect()
}

fn value(text: &str) -> Value {
    let mut value: Value = serde_json::from_str(text).unwrap_or_default();
    rename(&mut value);
    // The times of a plan would make every one look different.
    if let Value::Object(columns) = &mut value {
        columns.retain(|name, _| name != "created_at" && name != "updated_at");
    }
    value
}

fn rename(value: &mut Value) {
    match value {
        Value::String(text) => *text = named(text),
        Value::Object(columns) => columns.values_mut().for_each(rename),
        _ => {}
    }
}

/// `new:N` for a placeholder; real ids carry a version and never look like one.
fn named(text: &str) -> String {
    match text.parse::<Uuid>() {
        Ok(id) if text.len() == 36 && id.as_u128() < 1 << 64 => format!("new:{}", id.as_u128()),
        _ => text.to_owned(),
    }
}

/// The plan for people: one line per change.
pub fn show(view: &PlanView) -> String {
    let mut text = String::new();
    for change in &view.changes {
        let key = visible(&change.key);
        let _ = write!(text, "{:<11} {:<15} {key}", change.kind, change.op);
        if let Some(field) = &change.field {
            let (old, new) = (show_value(&change.old), show_value(&change.new));
            let _ = write!(text, "  {field}: {old} -> {new}");
        }
        let _ = writeln!(text, "  ({})", change.reason);
    }
    for withheld in &view.withheld {
        let _ = writeln!(
            text,
            "{:<11} {:<15} {}",
            withheld.kind,
            "withheld",
            visible(&withheld.key)
        );
    }
    if text.is_empty() {
        text.push_str("nothing to do\n");
    }
    text
}

fn show_value(value: &Option<Value>) -> String {
    value
        .as_ref()
        .map_or_else(|| "null".into(), Value::to_string)
}

/// Rows as a plan shows them must be found by whatever people call them.
pub fn mentions(row: &Row, key: &str) -> bool {
    let columns = row.columns();
    row.label() == key || columns.values().any(|value| value.as_str() == Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::core::FileCore;
    use crate::mirror::policy::Profile;

    fn digest(document: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("core.json");
        std::fs::write(&path, document).unwrap();
        let policy = Policy::of(Profile::NaturalKey);
        PlanSnapshot::take(&mut FileCore::at_path(path, None), &policy).digest
    }

    const DOCUMENT: &str = r#"{
        "expected_racks": [{"rack_id": "r1", "metadata": {"name": "Rack", "description": "text", "labels":
            {"chassis.manufacturer": "M", "chassis.serial-number": "S", "chassis.model": "X", "location.room": "1"}}}],
        "expected_machines": [
            {"bmc_mac_address": "02:00:00:00:00:01", "bmc_ip_address": "10.0.0.1", "serial_number": "A",
             "manufacturer": "M", "model": "X", "slot_id": "3", "tray_idx": "x", "rack_id": "r1"},
            {"bmc_mac_address": "02:00:00:00:00:02", "bmc_ip_address": "none", "serial_number": "B", "manufacturer": "M"},
            {"serial_number": "C"}],
        "expected_switches": {"error": "down"}}"#;

    /// The loss: a plan that one build saved and another calls stale, or holds for its own although it is not.
    #[test]
    fn the_digest_of_a_document_is_the_same_on_every_build() {
        let expected = "20e4fd4e80b92318719bbb94db5c8ce11ad98921361b27f4caf04c9f2fe7f626";
        assert_eq!(digest(DOCUMENT), expected);
    }

    #[test]
    fn the_digest_differs_with_every_value_and_not_with_the_order() {
        let known = digest(DOCUMENT);
        for (from, to) in [
            ("Rack", "rack"),
            ("\"text\"", "\"\""),
            ("\"chassis.model\": \"X\"", "\"chassis.model\": \"Y\""),
            ("10.0.0.1", "10.0.0.2"),
            ("\"none\"", "\"\""),
            ("\"tray_idx\": \"x\", ", ""),
            ("\"C\"", "\"D\""),
            ("{\"error\": \"down\"}", "[]"),
        ] {
            assert!(DOCUMENT.contains(from), "{from}");
            assert_ne!(digest(&DOCUMENT.replace(from, to)), known, "{from}");
        }
        let moved = DOCUMENT
            .replace("{\"serial_number\": \"C\"}]", "]")
            .replace("},\n            ]", "}]");
        let moved = moved.replace(
            "\"expected_machines\": [",
            "\"expected_machines\": [{\"serial_number\": \"C\"},",
        );
        assert_ne!(moved, DOCUMENT);
        assert_eq!(digest(&moved), known);
    }

    /// The loss: a plan of an older program that is called stale, without a word on what to do.
    #[test]
    fn a_plan_of_the_first_format_is_refused_with_what_to_do() {
        let policy = serde_json::to_string(&Policy::of(Profile::NaturalKey)).unwrap();
        let old = format!(
            r#"{{"format":1,"generation":7,"snapshot":"00","source":"x","policy":{policy},"plan":{{}}}}"#
        );
        let why = PlanFile::read(&old).unwrap_err();
        assert!(
            why.contains("format 1") && why.contains("make it again"),
            "{why}"
        );
    }
}
