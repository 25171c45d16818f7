//! One mirror: its tables, its source and its knobs, and a cycle over them.

use super::approval::Approval;
use super::core::Core;
use super::cycle::{AlwaysOpen, Cycle, Gatekeeper};
use super::diagnostics::{Diagnostic, Summary};
use super::policy::{Policy, Profile};
use super::retention::{self, AuditBounds, WithinBounds};
use super::skip_unchanged::SkipUnchanged;
use crate::clock::WallClock;
use crate::store::Store;
use std::sync::Arc;
use uuid::Uuid;

/// What a cycle needs.
pub struct Mirror {
    /// The tables; others may take snapshots of them at any time.
    pub store: Arc<Store>,
    /// Where inventory comes from.
    pub core: Box<dyn Core + Send>,
    /// The knobs.
    pub policy: Policy,
    /// What the gate says, read from the environment.
    pub gate: Gate,
    /// What the last cycle said.
    pub skip_unchanged: SkipUnchanged,
    /// How much of the audit log is kept.
    pub audit: AuditBounds,
    /// What is known of the audit log, which is not read for its bounds in a quiet cycle.
    pub within_bounds: WithinBounds,
    /// Deletes that an operator approved, for the next cycle.
    pub approval: Option<Approval>,
    /// Gives the time of runs.
    pub clock: WallClock,
    /// Draws ids of runs and of new rows.
    pub new_id: Box<dyn FnMut() -> Uuid + Send>,
}

/// Whether expected inventory is mirrored at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Nothing was said: running the command is enough.
    Unset,
    /// It is.
    On,
    /// It is not; drift is looked at all the same.
    Off,
    /// What was said is neither: it is not.
    Unclear(String),
}

impl Gate {
    /// Reads the variable's value. Set but empty says nothing under `host-mac`, and nothing clear
    /// under `natural-key`.
    pub fn read(value: Option<&str>, profile: Profile) -> Self {
        match value {
            None => Self::Unset,
            Some("") if profile == Profile::HostMac => Self::Unset,
            Some("1" | "t" | "T" | "TRUE" | "true" | "True") => Self::On,
            Some("0" | "f" | "F" | "FALSE" | "false" | "False") => Self::Off,
            Some(other) => Self::Unclear(other.to_owned()),
        }
    }

    /// Whether cycles mirror.
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Unset | Self::On)
    }
}

impl Mirror {
    /// That has not run yet, with the time of this machine and random ids. Nothing is removed from its audit
    /// log.
    pub fn new(store: Store, core: Box<dyn Core + Send>, policy: Policy, gate: Gate) -> Self {
        Self {
            store: Arc::new(store),
            core,
            policy,
            gate,
            skip_unchanged: SkipUnchanged::default(),
            audit: AuditBounds::default(),
            within_bounds: WithinBounds::default(),
            approval: None,
            clock: WallClock::default(),
            new_id: Box::new(Uuid::new_v4),
        }
    }

    /// One cycle now.
    pub fn once(&mut self) -> Summary {
        self.cycle(&AlwaysOpen)
    }

    /// One cycle, whose commits `gatekeeper` may refuse. It runs to its end on the caller's thread, reads no
    /// other clock than that of the mirror and waits for nothing but Core.
    pub fn cycle(&mut self, gatekeeper: &dyn Gatekeeper) -> Summary {
        let approval = self.approval.take();
        let cycle = Cycle {
            policy: &self.policy,
            approval: approval.as_ref(),
            mirror: self.gate.is_open(),
            now: self.clock.now().to_string(),
            new_id: &mut self.new_id,
            gatekeeper,
        };
        let mut summary = self
            .skip_unchanged
            .run_cycle(&self.store, self.core.as_mut(), cycle);
        self.keep_audit_bounds(&mut summary);
        // An approval was given for what was looked at then, not for whatever goes missing later.
        self.policy.approve_deletes = None;
        if let Gate::Unclear(value) = &self.gate {
            let why =
                format!("{value:?} is neither on nor off: expected inventory is not mirrored");
            let report = Diagnostic::general("gate_not_boolean", why);
            summary.warnings.insert(0, report);
        }
        summary
    }
}

impl Mirror {
    fn keep_audit_bounds(&mut self, summary: &mut Summary) {
        let (now, run) = (self.clock.now(), &mut self.new_id);
        let kept = retention::keep_unless_known(
            &mut self.within_bounds,
            &self.store,
            self.audit,
            now,
            run,
        );
        match kept {
            Ok(None) => {}
            Ok(Some(removed)) => {
                let (rows, from) = (removed.rows, removed.from);
                tracing::info!(rows, from, "audit rows removed, a checkpoint written");
            }
            Err(error) => {
                let why = format!("no audit rows were removed: {error}");
                summary
                    .warnings
                    .push(Diagnostic::general("audit_not_removed", why));
            }
        }
    }
}

/// One line per type that was pulled, one per thing worth saying.
pub fn log(summary: &Summary) {
    for (kind, c) in &summary.types {
        tracing::info!(
            kind, run = %summary.run, pulled = c.pulled, inserted = c.inserted, updated = c.updated,
            adopted = c.adopted, resurrected = c.resurrected, soft_deleted = c.soft_deleted,
            evicted = c.evicted, hard_deleted = c.hard_deleted, withheld = c.withheld_deletes,
            skipped = c.skipped_invalid, "mirrored"
        );
    }
    for report in &summary.warnings {
        let (kind, key) = about(report);
        tracing::warn!(code = %report.code, kind, key, "{}", report.message);
    }
    for report in &summary.errors {
        let (kind, key) = about(report);
        tracing::error!(code = %report.code, kind, key, "{}", report.message);
    }
}

/// The type and the entry that it is about; a line says nothing of what there is not.
fn about(report: &Diagnostic) -> (Option<&str>, Option<&str>) {
    let key = report.key.as_str();
    (
        report.kind.as_deref(),
        Some(key).filter(|key| !key.is_empty()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_obeys_plain_truth_values_and_nothing_else() {
        let read = |value| Gate::read(value, Profile::NaturalKey);
        for on in ["1", "t", "T", "TRUE", "true", "True"] {
            assert!(read(Some(on)).is_open(), "{on}");
        }
        for off in [
            "0", "f", "F", "FALSE", "false", "False", "on", " true", "yes",
        ] {
            assert!(!read(Some(off)).is_open(), "{off}");
        }
        assert!(read(None).is_open());
        assert!(matches!(read(Some("on")), Gate::Unclear(_)));
        assert!(matches!(read(Some("")), Gate::Unclear(_)));
        assert!(Gate::read(Some(""), Profile::HostMac).is_open());
    }
}
