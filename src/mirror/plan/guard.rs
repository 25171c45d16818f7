//! Which of the rows that nobody claimed are deleted now.

use super::super::approval::Approval;
use super::super::diagnostics::{Diagnostic, Withheld};
use super::super::policy::{Empty, Policy};
use crate::inventory::Kind;
use std::collections::HashMap;
use uuid::Uuid;

/// A live row that a complete response lacks.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Its place among the present rows.
    pub(super) row: usize,
    pub(super) id: Uuid,
    pub(super) label: String,
}

/// What was decided about the candidates.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) delete: Vec<Candidate>,
    pub(super) withheld: Vec<Withheld>,
    pub(super) waiting: Vec<(Candidate, u32)>,
    pub(super) absences: Vec<(Uuid, u32)>,
    pub(super) approved: bool,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Decides. `live` counts all live rows of the type, `absent` says how often in a row each was
/// missing before; `empty` that the response held no entry at all.
pub(super) fn judge(
    kind: Kind,
    candidates: Vec<Candidate>,
    live: usize,
    empty: bool,
    absent: &HashMap<Uuid, u32>,
    policy: &Policy,
    approval: Option<&Approval>,
) -> Verdict {
    let approval = approval.filter(|approval| approval.kind == kind);
    let mut verdict = Verdict::default();
    if empty && policy.empty == Empty::Skip && live > 0 {
        let why = format!("the response is empty: {live} live rows are kept");
        let report = Diagnostic::new("empty_response_delete_skipped", kind, "", why);
        verdict.warnings.push(report);
        return verdict;
    }
    let grace = policy.delete_grace.max(1);
    let mut due = Vec::new();
    for candidate in candidates {
        let before = absent.get(&candidate.id).copied().unwrap_or(0);
        let times = before.saturating_add(1).min(grace);
        // With a grace of 1 there is nothing to remember.
        if grace > 1 && times != before {
            verdict.absences.push((candidate.id, times));
        }
        if times < grace {
            verdict.waiting.push((candidate, times));
        } else {
            due.push(candidate);
        }
    }
    if due.is_empty() {
        return verdict;
    }
    // A ceiling that somebody typed holds for an empty response too.
    let trusted = empty && policy.empty == Empty::Authoritative && policy.approve_deletes.is_none();
    let approved = approval.is_some_and(|a| a.is_for(kind, due.iter().map(|c| c.id)));
    if approval.is_some() && !approved {
        let why = "the rows that Core lacks are not those whose deletion was approved";
        let report = Diagnostic::new("approval_stale", kind, "", why);
        verdict.warnings.push(report);
    }
    if !trusted && !approved && trips(due.len(), live, policy) {
        verdict.warnings.push(Diagnostic::new(
            "guard_tripped",
            kind,
            "",
            format!(
                "{} of {live} live rows would be deleted and are kept; to delete them run once with --approve-deletes {}",
                due.len(),
                due.len()
            ),
        ));
        verdict.withheld = due
            .into_iter()
            .map(|candidate| Withheld {
                kind: kind.name().to_owned(),
                id: candidate.id.to_string(),
                key: candidate.label,
            })
            .collect();
    } else {
        if trusted {
            // The guard lets it through, but somebody should look.
            let why = format!(
                "the response is empty and believed: {} of {live} live rows are deleted",
                due.len()
            );
            let report = Diagnostic::new("empty_response_believed", kind, "", why);
            verdict.warnings.push(report);
        }
        // A tombstone is not waiting for anything.
        for candidate in &due {
            verdict.absences.retain(|(id, _)| *id != candidate.id);
            if absent.contains_key(&candidate.id) {
                verdict.absences.push((candidate.id, 0));
            }
        }
        verdict.delete = due;
        verdict.approved = approved;
    }
    verdict
}

/// More than both limits, or more than was approved.
fn trips(deletes: usize, live: usize, policy: &Policy) -> bool {
    let deletes = u64::try_from(deletes).unwrap_or(u64::MAX);
    let live = u64::try_from(live).unwrap_or(u64::MAX);
    match policy.approve_deletes {
        Some(ceiling) => deletes > u64::from(ceiling),
        None => {
            deletes > u64::from(policy.max_deletes)
                && deletes.saturating_mul(100)
                    > live.saturating_mul(u64::from(policy.max_delete_percent))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::policy::Profile;

    fn judged(deletes: usize, live: usize, policy: &Policy) -> Verdict {
        let candidates = (0..deletes)
            .map(|row| Candidate {
                row,
                id: Uuid::from_u128(row as u128),
                label: row.to_string(),
            })
            .collect();
        judge(
            Kind::Compute,
            candidates,
            live,
            false,
            &HashMap::new(),
            policy,
            None,
        )
    }

    #[test]
    fn both_limits_must_be_exceeded_before_anything_is_withheld() {
        let policy = Policy::of(Profile::NaturalKey);
        for (deletes, live, withheld) in [(1, 3, 0), (10, 10, 0), (11, 110, 0), (11, 109, 11)] {
            assert_eq!(judged(deletes, live, &policy).withheld.len(), withheld);
        }
    }

    #[test]
    fn an_approval_is_a_ceiling_and_one_more_trips_again() {
        let mut policy = Policy::of(Profile::NaturalKey);
        policy.approve_deletes = Some(30);
        assert_eq!(judged(30, 40, &policy).delete.len(), 30);
        assert_eq!(judged(31, 40, &policy).withheld.len(), 31);
    }

    #[test]
    fn an_empty_response_is_believed_only_as_far_as_the_knob_says() {
        let mut policy = Policy::of(Profile::NaturalKey);
        for (empty, deleted) in [
            (Empty::Skip, 0),
            (Empty::Guarded, 0),
            (Empty::Authoritative, 20),
        ] {
            policy.empty = empty;
            let candidates = (0..20).map(|row| Candidate {
                row,
                id: Uuid::from_u128(row as u128),
                label: String::new(),
            });
            let verdict = judge(
                Kind::Rack,
                candidates.collect(),
                20,
                true,
                &HashMap::new(),
                &policy,
                None,
            );
            assert_eq!(verdict.delete.len(), deleted, "{empty:?}");
            // Whatever becomes of them, an empty response is worth a look.
            assert_eq!(verdict.warnings.len(), 1, "{empty:?}");
        }
        policy.approve_deletes = Some(19);
        let candidates = (0..20).map(|row| Candidate {
            row,
            id: Uuid::from_u128(row as u128),
            label: String::new(),
        });
        let all = candidates.collect();
        let verdict = judge(Kind::Rack, all, 20, true, &HashMap::new(), &policy, None);
        assert_eq!(verdict.withheld.len(), 20);
    }
}
