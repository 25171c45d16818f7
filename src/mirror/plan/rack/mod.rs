//! Racks.

mod names;
mod write;

use super::component::sighting_keys;
use super::guard::{Candidate, judge};
use super::{Claims, Decision, Draft, Op, Plan};
use crate::inventory::{Kind, Pair, Rack, Row};
use crate::mirror::approval::Approval;
use crate::mirror::diagnostics::{Counters, Diagnostic, Withheld};
use crate::mirror::policy::{Duplicates, Legacy, Policy, Profile};
use crate::mirror::spec::rack::WantedRack;
use crate::mirror::spec::{Seen, Skipped};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// What is there, read in the transaction that will write.
#[derive(Debug, Default)]
pub struct PresentRacks {
    /// All rows, tombstones included.
    pub rows: Vec<Rack>,
    /// In how many complete pulls in a row a row was missing.
    pub absent: HashMap<Uuid, u32>,
}

/// Everything a plan is made of.
pub struct RackInput<'a> {
    /// Checked entries.
    pub wanted: Vec<WantedRack>,
    /// Entries that lack something.
    pub skipped: &'a [Skipped],
    /// Whether the response is all there is, so that absence means something.
    pub complete: bool,
    /// What is there.
    pub present: &'a PresentRacks,
    /// The knobs.
    pub policy: &'a Policy,
    /// Deletes that an operator approved.
    pub approval: Option<&'a Approval>,
    /// Time of the run, RFC 3339.
    pub now: &'a str,
    /// Whether decisions are noted for `explain`.
    pub trace: bool,
}

struct Planner<'a> {
    input: &'a RackInput<'a>,
    entries: &'a [WantedRack],
    claims: Claims,
    rules: Vec<&'static str>,
    /// Entries that may not have the pair they want.
    lost_pair: Vec<bool>,
    /// Entries that are not written at all.
    out: Vec<bool>,
    /// Entries that do not get the name they want.
    lost_name: Vec<bool>,
    row_of_pair: HashMap<Pair<'a>, usize>,
    seen: Seen,
    /// Rows that become tombstones.
    deleted: HashSet<usize>,
    draft: Draft,
    counters: Counters,
    warnings: Vec<Diagnostic>,
    /// Deletes happen because an operator approved them.
    approved: bool,
    trace: Vec<Decision>,
}

/// Plans the racks.
pub fn plan_racks(mut input: RackInput<'_>, new_id: &mut dyn FnMut() -> Uuid) -> Plan {
    let wanted = std::mem::take(&mut input.wanted);
    let empty = wanted.is_empty() && input.skipped.is_empty();
    let pulled = wanted.len() + input.skipped.len();
    let mut warnings = Vec::new();
    let (entries, dropped) = without_duplicates(wanted, input.policy, &mut warnings);
    let mut planner = Planner::new(&input, &entries, warnings);
    planner.counters.pulled = u64::try_from(pulled).unwrap_or(u64::MAX);
    planner.see(&dropped);
    planner.claim();
    planner.settle_pairs();
    let mut absences = planner.forget_absences();
    let (withheld, more_absences) = planner.delete(empty);
    absences.extend(more_absences);
    let names = planner.settle_names();
    planner.release_pairs();
    planner.clear_tombstones(&names);
    planner.write(new_id);
    Plan {
        kind: Kind::Rack,
        changes: planner.draft.finish(input.now),
        counters: Counters {
            withheld_deletes: u64::try_from(withheld.len()).unwrap_or(u64::MAX),
            ..planner.counters
        },
        warnings: planner.warnings,
        errors: Vec::new(),
        withheld,
        absences,
        approved: planner.approved,
        trace: planner.trace,
    }
}

/// Sorts the entries and takes out those that name a rack a second time.
fn without_duplicates(
    mut wanted: Vec<WantedRack>,
    policy: &Policy,
    warnings: &mut Vec<Diagnostic>,
) -> (Vec<WantedRack>, Vec<WantedRack>) {
    wanted.sort_unstable();
    let mut kept: Vec<WantedRack> = Vec::with_capacity(wanted.len());
    let mut dropped = Vec::new();
    for entry in wanted {
        let same = |before: &mut WantedRack| {
            before.rack_id == entry.rack_id
                && (before.rack_id.is_some() || before.pair() == entry.pair())
        };
        let Some(before) = kept.pop_if(same) else {
            kept.push(entry);
            continue;
        };
        // One rack twice: the last one where the policy says so, else the first.
        let last = policy.duplicates == Duplicates::Last && before.pair() == entry.pair();
        let (keep, lose) = if last {
            (entry, before)
        } else {
            (before, entry)
        };
        let (code, why) = match &keep.rack_id {
            Some(_) => ("duplicate_rack_id", "another entry has the same rack_id"),
            None => ("duplicate_chassis", "another entry has the same chassis"),
        };
        warnings.push(Diagnostic::new(code, Kind::Rack, keep.label(), why));
        kept.push(keep);
        dropped.push(lose);
    }
    (kept, dropped)
}

impl<'a> Planner<'a> {
    fn new(input: &'a RackInput<'a>, entries: &'a [WantedRack], warnings: Vec<Diagnostic>) -> Self {
        let rows = &input.present.rows;
        Self {
            input,
            entries,
            claims: Claims::new(entries.len(), rows.len()),
            rules: vec!["nothing is there that it could be"; entries.len()],
            lost_pair: vec![false; entries.len()],
            out: vec![false; entries.len()],
            lost_name: vec![false; entries.len()],
            row_of_pair: rows
                .iter()
                .enumerate()
                .filter_map(|(i, row)| Some((row.pair()?, i)))
                .collect(),
            seen: Seen::default(),
            deleted: HashSet::new(),
            draft: Draft::default(),
            counters: Counters::default(),
            warnings,
            approved: false,
            trace: Vec::new(),
        }
    }

    fn warn(&mut self, code: &str, key: impl Into<String>, why: impl Into<String>) {
        self.warnings
            .push(Diagnostic::new(code, Kind::Rack, key, why));
    }

    fn row(&self, index: usize) -> Option<&'a Rack> {
        self.input.present.rows.get(index)
    }

    /// Entries that claim nothing are still there.
    fn see(&mut self, dropped: &[WantedRack]) {
        let skipped = self.input.skipped;
        self.counters.skipped_invalid = u64::try_from(skipped.len()).unwrap_or(u64::MAX);
        for entry in skipped {
            self.warnings.extend(entry.reasons.iter().cloned());
        }
        let dropped = dropped.iter().map(WantedRack::sighting);
        for sighting in skipped.iter().map(|s| s.sighting.clone()).chain(dropped) {
            self.seen.add(&sighting);
            if self.input.trace {
                self.trace.push(Decision {
                    keys: sighting_keys(&sighting),
                    rule: "entry skipped (see the warnings); it counts as present, so its row is not deleted".into(),
                });
            }
        }
    }

    /// Whether Core still reports a rack_id, in whatever shape.
    fn reported(&self) -> HashSet<&'a str> {
        let entries = self.entries.iter();
        entries
            .filter_map(|entry| Some(entry.rack_id.as_ref()?.as_str()))
            .collect()
    }

    /// All claims by external_id first, by pair second.
    fn claim(&mut self) {
        let rows = &self.input.present.rows;
        let by_external: HashMap<&str, usize> = rows
            .iter()
            .enumerate()
            .filter_map(|(i, row)| Some((row.external_id.as_deref()?, i)))
            .collect();
        for (i, entry) in self.entries.iter().enumerate() {
            let rack_id = entry.rack_id.as_ref().map(|id| id.as_str());
            let found = rack_id.and_then(|id| by_external.get(id).copied());
            if found.is_some_and(|row| self.claims.claim(i, row)) {
                self.rules[i] = "identity: same external_id";
            }
        }
        let reported = self.reported();
        for (i, entry) in self.entries.iter().enumerate() {
            if self.claims.row(i).is_some() {
                continue;
            }
            let found = entry.pair().and_then(|pair| self.row_of_pair.get(&pair));
            let Some(found) = found.copied() else {
                continue;
            };
            let owner = self.row(found).and_then(|row| row.external_id.as_deref());
            if owner.is_some_and(|id| reported.contains(id) || self.seen.rack_id(id)) {
                self.rules[i] = "adoption refused: Core still reports the external_id of the row with this pair";
                continue;
            }
            if self.claims.claim(i, found) {
                self.rules[i] = "adoption: same pair, external_id unknown or retired";
            }
        }
    }

    /// Whether pairs of rows that are there follow Core.
    fn pairs_follow_core(&self) -> bool {
        self.input.policy.profile == Profile::HostMac
    }

    /// Who has which pair in the end: whoever has it, else the first in order.
    fn settle_pairs(&mut self) {
        let follow = self.pairs_follow_core();
        let mut owner: HashMap<Pair<'a>, usize> = HashMap::new();
        for (i, entry) in self.entries.iter().enumerate() {
            let stored = self.claims.row(i).and_then(|row| self.row(row)?.pair());
            if let Some(stored) = stored.filter(|pair| entry.pair() == Some(*pair)) {
                owner.insert(stored, i);
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair() else { continue };
            let claimed = self.claims.row(i).is_some();
            if claimed && !follow {
                // Its pair is what it was when it was inserted.
                continue;
            }
            let held = !follow && self.row_of_pair.contains_key(&pair);
            if !held && *owner.entry(pair).or_insert(i) == i {
                continue;
            }
            self.warn(
                "duplicate_chassis",
                entry.label(),
                format!("another rack keeps the chassis {pair}"),
            );
            self.lost_pair[i] = true;
            // Without rack_id and pair nothing would find its row again.
            if self.input.policy.duplicates == Duplicates::Last || entry.rack_id.is_none() {
                self.out[i] = true;
                self.rules[i] = "skipped: another rack has its chassis";
            }
        }
    }

    fn forget_absences(&self) -> Vec<(Uuid, u32)> {
        let rows = self.input.present.rows.iter().enumerate();
        let missing: HashSet<Uuid> = rows
            .filter(|(i, row)| row.is_live() && !self.claims.is_claimed(*i) && !self.was_seen(row))
            .map(|(_, row)| row.id)
            .collect();
        let absent = self.input.present.absent.keys().copied();
        let mut seen: Vec<Uuid> = absent.filter(|id| !missing.contains(id)).collect();
        seen.sort_unstable();
        seen.into_iter().map(|id| (id, 0)).collect()
    }

    fn was_seen(&self, row: &Rack) -> bool {
        let by_id = row.external_id.as_deref();
        // A pair that goes to another rack in this very plan recognises the row no longer.
        let loses_pair = self.pairs_follow_core()
            && row.pair().is_some_and(|pair| {
                let mut entries = self.entries.iter().enumerate();
                entries.any(|(i, e)| !self.lost_pair[i] && !self.out[i] && e.pair() == Some(pair))
            });
        by_id.is_some_and(|id| self.seen.rack_id(id))
            || (!loses_pair
                && self
                    .seen
                    .hardware(row.manufacturer.as_deref(), row.serial_number.as_deref()))
    }

    /// Live rows nobody claimed and nobody saw; those Core never knew as the policy says.
    fn delete(&mut self, empty: bool) -> (Vec<Withheld>, Vec<(Uuid, u32)>) {
        if !self.input.complete {
            return Default::default();
        }
        let exempt = self.input.policy.legacy == Legacy::Exempt;
        let pairs: HashSet<Pair<'_>> = self.entries.iter().filter_map(WantedRack::pair).collect();
        let rows = &self.input.present.rows;
        let mut candidates = Vec::new();
        let mut live = 0;
        for (i, row) in rows.iter().enumerate().filter(|(_, row)| row.is_live()) {
            live += 1;
            if self.claims.is_claimed(i) {
                continue;
            }
            let label = Row::Rack(Box::new(row.clone())).label();
            if row.external_id.is_none() && exempt {
                let listed = row.pair().is_some_and(|pair| pairs.contains(&pair))
                    || self.seen.pair(row.pair());
                if !listed {
                    self.counters.legacy_exempt += 1;
                    let why = "a live rack that Core never listed; it is kept";
                    self.warn("legacy_rack_not_in_core", label, why);
                }
            } else if !self.was_seen(row) {
                candidates.push(Candidate {
                    row: i,
                    id: row.id,
                    label,
                });
            }
        }
        let absent = &self.input.present.absent;
        let verdict = judge(
            Kind::Rack,
            candidates,
            live,
            empty,
            absent,
            self.input.policy,
            self.input.approval,
        );
        self.approved = verdict.approved;
        self.warnings.extend(verdict.warnings);
        for candidate in &verdict.delete {
            let Some(row) = rows.get(candidate.row) else {
                continue;
            };
            let why = "Core does not list it any more";
            self.draft.edit(row, Op::SoftDelete, why).deleted_at = Some(self.input.now.to_owned());
            self.deleted.insert(candidate.row);
            self.counters.soft_deleted += 1;
        }
        if self.input.trace {
            let fate = |rule: String, label: &str, id: String| Decision {
                keys: vec![label.to_owned(), id],
                rule,
            };
            for c in &verdict.delete {
                let rule = "nobody claimed it: deleted".to_owned();
                self.trace.push(fate(rule, &c.label, c.id.to_string()));
            }
            for (c, times) in &verdict.waiting {
                let rule = format!(
                    "nobody claimed it: missing in {times} complete pulls so far, not deleted yet"
                );
                self.trace.push(fate(rule, &c.label, c.id.to_string()));
            }
            for w in &verdict.withheld {
                let rule = "nobody claimed it: the guard withheld the delete".to_owned();
                self.trace.push(fate(rule, &w.key, w.id.clone()));
            }
        }
        (verdict.withheld, verdict.absences)
    }
}
