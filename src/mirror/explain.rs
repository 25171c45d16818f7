//! Which rule decided about a key.

use super::cycle::Planned;
use super::diagnostics::Diagnostic;
use super::planfile::{PlanView, mentions};
use crate::inventory::{Mac, Row};
use crate::mirror::table::InventoryError;
use crate::store::Snapshot;

/// An address is found in whatever spelling.
fn canonical(key: &str) -> String {
    key.parse::<Mac>()
        .map_or(key.to_owned(), |mac| mac.to_string())
}

/// Rows that `key` names, one line each, for when a plan says nothing about it.
pub fn untouched(snapshot: &Snapshot, key: &str) -> Result<Vec<String>, InventoryError> {
    let key = canonical(key);
    snapshot.view(|tables| {
        let racks = tables.rows_of("rack")?.into_iter();
        let lines = racks
            .chain(tables.rows_of("component")?)
            .filter(|row| mentions(row, &key))
            .map(|row| {
                let live = match &row {
                    Row::Rack(rack) => rack.is_live(),
                    Row::Component(component) => component.is_live(),
                    Row::Bmc(_) | Row::Drift(_) | Row::Domain(_) => true,
                };
                let why = if live {
                    "a live row of a type that was not pulled completely: left alone"
                } else {
                    "a tombstone that Core does not list: left alone"
                };
                format!("{} {}: {why}", row.key().table(), row.key())
            });
        Ok(lines.collect())
    })
}

/// Everything a plan says about `key`, one line each; empty when it says nothing.
pub fn explain(planned: &Planned, key: &str) -> Vec<String> {
    let key = canonical(key);
    let mut lines = Vec::new();
    let mut known: Vec<&str> = vec![&key];
    for plan in &planned.plans {
        for decision in plan.trace.iter().filter(|d| d.keys.contains(&key)) {
            lines.push(format!("{}: {}", plan.kind, decision.rule));
            known.extend(decision.keys.iter().map(String::as_str));
        }
    }
    // What is said about it may name it otherwise.
    let about = |report: &&Diagnostic| {
        known.contains(&report.key.as_str()) || report.message.contains(&key)
    };
    let say = |level: &str, report: &Diagnostic| {
        let of = report.kind.as_deref().unwrap_or("run");
        format!(
            "{of}: {level} {}: {}: {}",
            report.code, report.key, report.message
        )
    };
    let summary = &planned.summary;
    lines.extend(
        summary
            .warnings
            .iter()
            .filter(about)
            .map(|r| say("warning", r)),
    );
    lines.extend(summary.errors.iter().filter(about).map(|r| say("error", r)));
    let view = PlanView::new(planned, String::new());
    let touched: Vec<String> = planned
        .plans
        .iter()
        .flat_map(|plan| &plan.changes)
        .filter(|change| {
            let rows = change.before.iter().chain(&change.after);
            rows.into_iter().any(|row| mentions(row, &key))
        })
        .map(|change| change.key.to_string())
        .collect();
    for change in &view.changes {
        let id = change
            .id
            .strip_prefix("new:")
            .map_or(change.id.clone(), |n| {
                uuid::Uuid::from_u128(n.parse().unwrap_or_default()).to_string()
            });
        if touched.contains(&id) {
            let field = change
                .field
                .as_ref()
                .map(|f| format!(" {f}"))
                .unwrap_or_default();
            lines.push(format!(
                "{}: would {}{field} of {} {} ({})",
                change.kind, change.op, change.table, change.key, change.reason
            ));
        }
    }
    lines
}
