//! Which of the rows that nobody claimed are deleted now.

use super::{Given, Plan};
use crate::mirror::diagnostics::Withheld;
use crate::mirror::policy::{Empty, Policy};
use uuid::Uuid;

/// A live row that a complete response lacks.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Its place among the present rows.
    pub(super) row: usize,
    pub(super) id: Uuid,
    pub(super) label: String,
}

/// Gives the rows that are deleted now, and notes in the plan what becomes of the others. `live` counts all live
/// rows of the type; `empty` says that the response held no entry at all.
pub(super) fn judge(
    given: &Given<'_>,
    plan: &mut Plan,
    candidates: Vec<Candidate>,
    live: usize,
    empty: bool,
) -> Vec<Candidate> {
    let (policy, absent) = (given.policy, given.absent);
    if empty && policy.empty == Empty::Skip && live > 0 {
        let why = format!("the response is empty: {live} live rows are kept");
        plan.warn("empty_response_delete_skipped", "", why);
        return Vec::new();
    }
    let note = |plan: &mut Plan, candidate: &Candidate, rule: &str| {
        if given.trace {
            let keys = vec![candidate.label.clone(), candidate.id.to_string()];
            plan.note(keys, format!("nobody claimed it: {rule}"));
        }
    };
    let grace = policy.delete_grace.max(1);
    let mut due = Vec::new();
    for candidate in candidates {
        let before = absent.get(&candidate.id).copied().unwrap_or(0);
        let times = before.saturating_add(1).min(grace);
        if times == grace {
            due.push((candidate, before));
            continue;
        }
        plan.absences.push((candidate.id, times));
        let rule = format!("missing in {times} complete pulls so far, not deleted yet");
        note(plan, &candidate, &rule);
    }
    if due.is_empty() {
        return Vec::new();
    }
    let deletes = due.len();
    // A ceiling that somebody typed holds for an empty response too.
    let trusted = empty && policy.empty == Empty::Authoritative && policy.approve_deletes.is_none();
    let approval = given
        .approval
        .filter(|approval| approval.kind == given.kind);
    let ids = due.iter().map(|(candidate, _)| candidate.id);
    let approved = approval.is_some_and(|approval| approval.is_for(given.kind, ids));
    if approval.is_some() && !approved {
        let why = "the rows that Core lacks are not those whose deletion was approved";
        plan.warn("approval_stale", "", why);
    }
    if !trusted && !approved && trips(deletes, live, policy) {
        let kind = given.kind.name();
        let why = format!(
            "{deletes} of {live} live rows would be deleted and are kept; if they are right, `afferent mirror approve {kind} {deletes}` \
             lets a running service delete them, and without one `afferent mirror run --once --approve-deletes {deletes}`"
        );
        plan.warn("guard_tripped", "", why);
        for (candidate, before) in due {
            note(plan, &candidate, "the guard withheld the delete");
            // With a grace of 1 there is nothing to remember.
            if grace > 1 && grace != before {
                plan.absences.push((candidate.id, grace));
            }
            plan.withheld.push(Withheld {
                kind: given.kind.name().to_owned(),
                id: candidate.id.to_string(),
                key: candidate.label,
            });
        }
        return Vec::new();
    }
    if trusted {
        // The guard lets it through, but somebody should look.
        let why = format!(
            "the response is empty and believed: {deletes} of {live} live rows are deleted"
        );
        plan.warn("empty_response_believed", "", why);
    }
    plan.approved = approved;
    let deleted = due.into_iter().map(|(candidate, _)| {
        note(plan, &candidate, "deleted");
        // A tombstone is not waiting for anything.
        if absent.contains_key(&candidate.id) {
            plan.absences.push((candidate.id, 0));
        }
        candidate
    });
    deleted.collect()
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
    use crate::inventory::Kind;
    use crate::mirror::approval::Approval;
    use crate::mirror::policy::Profile;
    use std::collections::HashMap;

    /// How many are deleted, and the plan.
    fn judged(deletes: usize, live: usize, empty: bool, policy: &Policy) -> (usize, Plan) {
        judged_with(None, deletes, live, empty, policy)
    }

    fn judged_with(
        approval: Option<&Approval>,
        deletes: usize,
        live: usize,
        empty: bool,
        policy: &Policy,
    ) -> (usize, Plan) {
        let candidates = (0..deletes).map(|row| Candidate {
            row,
            id: Uuid::from_u128(row as u128),
            label: row.to_string(),
        });
        let given = Given {
            kind: Kind::Compute,
            skipped: &[],
            complete: true,
            absent: &HashMap::new(),
            policy,
            approval,
            now: "now",
            trace: false,
        };
        let mut plan = Plan::new(given.kind);
        let deleted = judge(&given, &mut plan, candidates.collect(), live, empty);
        (deleted.len(), plan)
    }

    #[test]
    fn both_limits_must_be_exceeded_before_anything_is_withheld() {
        let policy = Policy::of(Profile::NaturalKey);
        for (deletes, live, withheld) in [(1, 3, 0), (10, 10, 0), (11, 110, 0), (11, 109, 11)] {
            let (_, plan) = judged(deletes, live, false, &policy);
            assert_eq!(plan.withheld.len(), withheld);
        }
    }

    #[test]
    fn an_approval_is_a_ceiling_and_one_more_trips_again() {
        let mut policy = Policy::of(Profile::NaturalKey);
        policy.approve_deletes = Some(30);
        assert_eq!(judged(30, 40, false, &policy).0, 30);
        assert_eq!(judged(31, 40, false, &policy).1.withheld.len(), 31);
    }

    fn codes(plan: &Plan) -> Vec<&str> {
        let warnings = plan.warnings.iter();
        warnings.map(|warning| warning.code.as_ref()).collect()
    }

    #[test]
    fn an_approval_holds_for_exactly_its_rows_and_else_the_guard_decides() {
        let policy = Policy::of(Profile::NaturalKey);
        let approval = |rows: std::ops::Range<u128>| Approval {
            kind: Kind::Compute,
            rows: rows.map(Uuid::from_u128).collect(),
            user: Some(7),
        };
        let (deleted, plan) = judged_with(Some(&approval(0..30)), 30, 40, false, &policy);
        assert_eq!((deleted, plan.approved), (30, true));
        // As many others.
        let (deleted, plan) = judged_with(Some(&approval(1..31)), 30, 40, false, &policy);
        assert_eq!(
            (deleted, plan.withheld.len(), plan.approved),
            (0, 30, false)
        );
        assert_eq!(codes(&plan), ["approval_stale", "guard_tripped"]);
        // So few that nobody has to approve them.
        let (deleted, plan) = judged_with(Some(&approval(0..30)), 3, 40, false, &policy);
        assert_eq!((deleted, plan.approved), (3, false));
        assert_eq!(codes(&plan), ["approval_stale"]);
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
            let (count, plan) = judged(20, 20, true, &policy);
            assert_eq!(count, deleted, "{empty:?}");
            // Whatever becomes of them, an empty response is worth a look.
            assert_eq!(plan.warnings.len(), 1, "{empty:?}");
        }
        policy.approve_deletes = Some(19);
        assert_eq!(judged(20, 20, true, &policy).1.withheld.len(), 20);
    }
}
