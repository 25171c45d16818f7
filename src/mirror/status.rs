//! What `afferent status` shows of a mirror.

use super::report::{Report, Summary};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};

/// The state of a running mirror: how its last cycle ended.
pub struct Status {
    source: Mutex<String>,
    last: Mutex<Option<Ended>>,
}

/// A cycle that ended.
struct Ended {
    at: String,
    cycles: u64,
    summary: Summary,
}

impl Status {
    /// Of a mirror of `source` that has not run yet.
    pub fn new(source: String) -> Self {
        Self {
            source: Mutex::new(source),
            last: Mutex::default(),
        }
    }

    /// Inventory comes from another place from now on.
    pub fn set_source(&self, source: String) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// A cycle ended at `at`.
    pub fn note(&self, at: String, summary: Summary) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let cycles = last.as_ref().map_or(0, |ended| ended.cycles) + 1;
        *last = Some(Ended {
            at,
            cycles,
            summary,
        });
    }

    /// The object that answers a question for the status.
    pub(super) fn show(&self) -> Value {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.as_ref();
        let reasons = reasons(last);
        let mut answer = json!({
            "service": "mirror",
            "version": env!("CARGO_PKG_VERSION"),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "core": *self.source.lock().unwrap_or_else(PoisonError::into_inner),
            "cycles": last.map_or(0, |ended| ended.cycles),
            "last_cycle": last.map(|Ended { at, summary, .. }| json!({
                "run": summary.run,
                "ended_at": at,
                "mirrored": summary.mirror_ran,
                "warnings": summary.warnings.len(),
            })),
        });
        for (kind, counters) in last.into_iter().flat_map(|ended| &ended.summary.types) {
            let mut counters = json!(counters);
            if let Some(counters) = counters.as_object_mut() {
                counters.retain(|name, count| name == "pulled" || *count != 0);
            }
            answer["types"][kind] = counters;
        }
        answer
    }
}

/// What is not as it should be.
fn reasons(last: Option<&Ended>) -> Vec<String> {
    let Some(Ended { summary, .. }) = last else {
        return vec!["the first cycle has not ended yet".into()];
    };
    let say = |report: &Report| match &report.kind {
        Some(kind) => format!("{kind} {}: {}", report.key, report.message),
        None => report.message.clone(),
    };
    let mut found: Vec<String> = summary.errors.iter().map(say).collect();
    let part = |kind: &String| format!("{kind}: pulled in part only, so nothing is deleted");
    found.extend(summary.incomplete.iter().map(part));
    for (kind, counters) in &summary.types {
        let withheld = counters.withheld_deletes;
        if withheld > 0 {
            found.push(format!(
                "{kind}: {withheld} deletes are withheld, see --approve-deletes"
            ));
        }
    }
    let unclear = |report: &&Report| report.code == "gate_not_boolean";
    found.extend(summary.warnings.iter().filter(unclear).map(say));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Kind;

    #[test]
    fn reasons_are_told_until_a_cycle_ends_without_it() {
        let status = Status::new("file:core.json".into());
        let reasons = |status: &Status| status.show()["reasons"].clone();
        assert_eq!(
            reasons(&status),
            json!(["the first cycle has not ended yet"])
        );
        let mut bad = Summary::new("r1".into());
        let error = Report::new("pull_failed", Kind::Rack, "rack", "timeout");
        bad.errors.push(error);
        bad.types.get_mut("Compute").unwrap().withheld_deletes = 40;
        bad.incomplete.push("NVSwitch".into());
        status.note("t1".into(), bad);
        assert_eq!(
            reasons(&status),
            json!([
                "rack rack: timeout",
                "NVSwitch: pulled in part only, so nothing is deleted",
                "Compute: 40 deletes are withheld, see --approve-deletes"
            ])
        );
        status.note("t2".into(), Summary::new("r2".into()));
        let answer = status.show();
        assert_eq!(answer["reasons"], json!([]));
        assert_eq!(answer["state"], "ok");
        assert_eq!(answer["cycles"], 2);
        assert_eq!(answer["last_cycle"]["run"], "r2");
        assert_eq!(answer["types"]["Compute"], json!({"pulled": 0}));
    }
}
