//! Machines, switches and shelves.

use super::guard::{Candidate, judge};
use super::{Claims, Decision, Draft, Earlier, Op, Plan, pair_key, same_text};
use crate::inventory::{Bmc, BmcType, Component, Json, Kind, Mac, Pair, Row};
use crate::mirror::policy::{Clear, Duplicates, Identity, Policy, Profile};
use crate::mirror::report::{Counters, Report};
use crate::mirror::spec::component::{Address, Position, WantedComponent};
use crate::mirror::spec::{Seen, Sighting, Skipped};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The key under which a component's description keeps what Core says.
const EXPECTED_DESCRIPTION: &str = "expected_description";

/// What is there, read in the transaction that will write.
#[derive(Debug, Default)]
pub struct PresentComponents {
    /// All rows of the type, tombstones included.
    pub rows: Vec<Component>,
    /// All BMCs of all types, by address.
    pub bmcs: Vec<Bmc>,
    /// Rows of other types that hold a pair wanted here, by [`pair_key`].
    pub foreign: HashMap<Box<str>, Component>,
    /// Live racks by external_id.
    pub racks: HashMap<String, Uuid>,
    /// In how many complete pulls in a row a row was missing.
    pub absent: HashMap<Uuid, u32>,
}

/// Everything a plan is made of.
pub struct ComponentInput<'a> {
    /// Which type.
    pub kind: Kind,
    /// Checked entries.
    pub wanted: Vec<WantedComponent>,
    /// Entries that lack something.
    pub skipped: &'a [Skipped],
    /// Whether the response is all there is, so that absence means something.
    pub complete: bool,
    /// What is there.
    pub present: &'a PresentComponents,
    /// The knobs.
    pub policy: &'a Policy,
    /// Time of the run, RFC 3339.
    pub now: &'a str,
    /// Whether decisions are noted for `explain`.
    pub trace: bool,
}

/// The entries that are left after duplicates, and how each may be recognised.
struct Planner<'a> {
    input: &'a ComponentInput<'a>,
    earlier: &'a Earlier,
    entries: &'a [WantedComponent],
    claims: Claims,
    /// How each entry came to its row.
    rules: Vec<&'static str>,
    /// Entries that may not have the pair they want.
    lost_pair: Vec<bool>,
    /// Entries that are not written at all.
    out: Vec<bool>,
    /// Entries whose BMC is left alone.
    no_bmc: Vec<bool>,
    row_of_id: HashMap<Uuid, usize>,
    row_of_pair: HashMap<Pair<'a>, usize>,
    /// Host BMCs by component.
    hosts: Vec<(Uuid, Mac)>,
    seen: Seen,
    draft: Draft,
    counters: Counters,
    warnings: Vec<Report>,
    errors: Vec<Report>,
    trace: Vec<Decision>,
}

/// Plans one type. `earlier` says what types before it took in this cycle, and is told what this
/// one takes.
pub fn plan_components(
    mut input: ComponentInput<'_>,
    earlier: &mut Earlier,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Plan {
    let wanted = std::mem::take(&mut input.wanted);
    let empty = wanted.is_empty() && input.skipped.is_empty();
    let pulled = wanted.len() + input.skipped.len();
    let mut warnings = Vec::new();
    let (entries, dropped) = without_duplicates(wanted, &input, earlier, &mut warnings);
    let mut planner = Planner::new(&input, earlier, &entries, warnings);
    planner.counters.pulled = u64::try_from(pulled).unwrap_or(u64::MAX);
    planner.see(input.skipped, &dropped);
    planner.claim();
    planner.settle_pairs();
    planner.settle_bmcs();
    let absences = planner.forget_absences();
    let (withheld, more_absences) = planner.delete(empty);
    planner.release_pairs();
    planner.write(new_id);
    let landed: Vec<bool> = planner.out.iter().map(|out| !out).collect();
    let keeps_pair: Vec<bool> = planner.lost_pair.iter().map(|lost| !lost).collect();
    let keeps_bmc: Vec<bool> = planner.no_bmc.iter().map(|no| !no).collect();
    let plan = Plan {
        kind: input.kind,
        changes: planner.draft.finish(input.now),
        counters: Counters {
            withheld_deletes: u64::try_from(withheld.len()).unwrap_or(u64::MAX),
            ..planner.counters
        },
        warnings: planner.warnings,
        errors: planner.errors,
        withheld,
        absences: absences.into_iter().chain(more_absences).collect(),
        trace: planner.trace,
    };
    for (i, entry) in entries.iter().enumerate() {
        if landed[i] && keeps_bmc[i] {
            earlier.take_mac(entry.mac, input.kind);
        }
        if let Some(pair) = entry.pair().filter(|_| landed[i] && keeps_pair[i]) {
            earlier.take_pair(pair, input.kind);
        }
    }
    plan
}

/// Sorts the entries and takes out those that cannot have a row of their own. What is taken out
/// was still seen.
fn without_duplicates(
    mut wanted: Vec<WantedComponent>,
    input: &ComponentInput<'_>,
    earlier: &Earlier,
    warnings: &mut Vec<Report>,
) -> (Vec<WantedComponent>, Vec<WantedComponent>) {
    let mut kept = Vec::with_capacity(wanted.len());
    let mut dropped = Vec::new();
    let mut drop = |entry: WantedComponent, code: &str, why: String| {
        warnings.push(Report::new(code, input.kind, entry.label(), why));
        dropped.push(entry);
    };
    let last_wins = input.policy.duplicates == Duplicates::Last;
    if input.policy.identity == Identity::Pair {
        wanted.sort_unstable();
        for entry in wanted {
            if last_wins
                && let Some(before) =
                    kept.pop_if(|e: &mut WantedComponent| e.pair() == entry.pair())
            {
                let why = "another entry has the same manufacturer and serial number";
                drop(before, "duplicate_component", why.into());
            }
            kept.push(entry);
        }
        return (kept, dropped);
    }
    wanted.sort_unstable_by(|a, b| a.mac.cmp(&b.mac).then_with(|| a.cmp(b)));
    let owner_pair = |mac: Mac| {
        let bmc = find_bmc(&input.present.bmcs, mac).filter(|b| b.kind == BmcType::Host)?;
        let rows = &input.present.rows;
        let row = rows
            .binary_search_by_key(&bmc.component_id, |row| row.id)
            .ok()?;
        rows.get(row)?.pair()
    };
    for entry in wanted {
        if let Some(kind) = earlier.mac(entry.mac) {
            let why = format!("{} already has the BMC {}", kind.name(), entry.mac);
            drop(entry, "duplicate_mac_other_type", why);
            continue;
        }
        let Some(before) = kept.pop_if(|e: &mut WantedComponent| e.mac == entry.mac) else {
            kept.push(entry);
            continue;
        };
        // Whoever has the BMC now keeps it; else the first in order.
        let owner = owner_pair(entry.mac);
        let change = owner.is_some() && entry.pair() == owner && before.pair() != owner;
        let (keep, lose) = if change {
            (entry, before)
        } else {
            (before, entry)
        };
        let why = format!("another entry has the same BMC {}", keep.mac);
        kept.push(keep);
        drop(lose, "duplicate_mac", why);
    }
    if last_wins {
        let mut seen: HashSet<Box<str>> = HashSet::new();
        let mut unique = Vec::with_capacity(kept.len());
        for entry in kept.into_iter().rev() {
            if entry
                .pair()
                .is_some_and(|pair| !seen.insert(pair_key(pair)))
            {
                let why = "another entry has the same manufacturer and serial number";
                drop(entry, "duplicate_component", why.into());
            } else {
                unique.push(entry);
            }
        }
        unique.reverse();
        kept = unique;
    }
    (kept, dropped)
}

fn find_bmc(bmcs: &[Bmc], mac: Mac) -> Option<&Bmc> {
    let found = bmcs.binary_search_by_key(&mac, |bmc| bmc.mac).ok()?;
    bmcs.get(found)
}

impl<'a> Planner<'a> {
    fn new(
        input: &'a ComponentInput<'a>,
        earlier: &'a Earlier,
        entries: &'a [WantedComponent],
        warnings: Vec<Report>,
    ) -> Self {
        let present = input.present;
        let rows = &present.rows;
        let mut hosts: Vec<(Uuid, Mac)> = present
            .bmcs
            .iter()
            .filter(|bmc| bmc.kind == BmcType::Host)
            .map(|bmc| (bmc.component_id, bmc.mac))
            .collect();
        hosts.sort_unstable();
        Self {
            input,
            earlier,
            entries,
            claims: Claims::new(entries.len(), rows.len()),
            rules: vec!["nothing is there that it could be"; entries.len()],
            lost_pair: vec![false; entries.len()],
            out: vec![false; entries.len()],
            no_bmc: vec![false; entries.len()],
            row_of_id: rows
                .iter()
                .enumerate()
                .map(|(i, row)| (row.id, i))
                .collect(),
            row_of_pair: rows
                .iter()
                .enumerate()
                .filter_map(|(i, row)| Some((row.pair()?, i)))
                .collect(),
            hosts,
            seen: Seen::default(),
            draft: Draft::default(),
            counters: Counters::default(),
            warnings,
            errors: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn warn(&mut self, code: &str, key: impl Into<String>, why: impl Into<String>) {
        let report = Report::new(code, self.input.kind, key, why);
        self.warnings.push(report);
    }

    /// Entries that claim nothing are still there.
    fn see(&mut self, skipped: &[Skipped], dropped: &[WantedComponent]) {
        self.counters.skipped_invalid = u64::try_from(skipped.len()).unwrap_or(u64::MAX);
        for entry in skipped {
            self.warnings.extend(entry.reasons.iter().cloned());
        }
        let dropped = dropped.iter().map(WantedComponent::sighting);
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

    /// The row of this type whose Host BMC this is.
    fn row_of_mac(&self, mac: Mac) -> Option<usize> {
        let bmc = find_bmc(&self.input.present.bmcs, mac)?;
        if bmc.kind != BmcType::Host {
            return None;
        }
        self.row_of_id.get(&bmc.component_id).copied()
    }

    fn row(&self, index: usize) -> Option<&'a Component> {
        self.input.present.rows.get(index)
    }

    /// All identity claims first, fallbacks second.
    fn claim(&mut self) {
        let by_pair = self.input.policy.identity == Identity::Pair;
        if by_pair {
            self.lose_pairs_to_the_owner();
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let found = if by_pair {
                let pair = entry.pair().filter(|_| !self.lost_pair[i]);
                pair.and_then(|pair| self.row_of_pair.get(&pair).copied())
            } else {
                self.row_of_mac(entry.mac)
            };
            if found.is_some_and(|row| self.claims.claim(i, row)) {
                self.rules[i] = if by_pair {
                    "identity: same pair"
                } else {
                    "identity: same Host BMC"
                };
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            if self.claims.row(i).is_some() {
                continue;
            }
            let found = if by_pair {
                // Only entries that lost their pair: their row has none either.
                let row = self.row_of_mac(entry.mac).filter(|_| self.lost_pair[i]);
                row.filter(|row| self.row(*row).is_some_and(|r| r.pair().is_none()))
            } else {
                let pair = entry.pair();
                pair.and_then(|pair| self.row_of_pair.get(&pair).copied())
            };
            if found.is_some_and(|row| self.claims.claim(i, row)) {
                self.rules[i] = if by_pair {
                    "fallback: same Host BMC, the pair belongs to another entry"
                } else {
                    "fallback: same pair, the row's own Host BMC was claimed by nobody"
                };
            }
        }
    }

    /// Where the pair is the identity and both rows are kept: the entry whose BMC the present
    /// owner has keeps the pair, else the first.
    fn lose_pairs_to_the_owner(&mut self) {
        let mut owner: HashMap<Pair<'a>, usize> = HashMap::new();
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair() else { continue };
            let current = self.row_of_pair.get(&pair);
            if current.is_some() && self.row_of_mac(entry.mac).as_ref() == current {
                owner.insert(pair, i);
            }
        }
        self.lose_pairs(owner);
    }

    fn lose_pairs(&mut self, mut owner: HashMap<Pair<'a>, usize>) {
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair() else { continue };
            if *owner.entry(pair).or_insert(i) != i {
                self.lost_pair[i] = true;
                self.warn(
                    "duplicate_component",
                    entry.mac.to_string(),
                    format!("another entry keeps the pair {pair}"),
                );
            }
        }
    }

    /// Who has which pair in the end.
    fn settle_pairs(&mut self) {
        let by_pair = self.input.policy.identity == Identity::Pair;
        if !by_pair {
            let owner = self
                .entries
                .iter()
                .enumerate()
                .filter_map(|(i, entry)| {
                    let stored = self.row(self.claims.row(i)?)?.pair()?;
                    (entry.pair() == Some(stored)).then_some((stored, i))
                })
                .collect();
            self.lose_pairs(owner);
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair().filter(|_| !self.lost_pair[i]) else {
                continue;
            };
            let stored_here = self.row_of_pair.contains_key(&pair);
            let taken = self.earlier.pair(pair);
            let foreign = || self.input.present.foreign.get(&pair_key(pair));
            let holder = match taken {
                Some(kind) => Some(kind.name()),
                None if by_pair && !stored_here => {
                    let live = foreign().filter(|row| row.is_live());
                    live.map(|row| row.kind.name())
                }
                None => None,
            };
            let Some(holder) = holder else { continue };
            let why = format!("{holder} has the pair {pair}");
            self.warn("duplicate_pair_other_type", entry.label(), why);
            if by_pair && self.claims.row(i).is_none() {
                self.out[i] = true;
                self.rules[i] = "skipped: its pair belongs to a component of another type";
            } else if !by_pair {
                self.lost_pair[i] = true;
            }
        }
    }

    /// Who has which BMC in the end, and which entries get none.
    fn settle_bmcs(&mut self) {
        let mut owner: HashMap<Mac, usize> = HashMap::with_capacity(self.entries.len());
        for (i, entry) in self.entries.iter().enumerate() {
            let row = self.claims.row(i);
            if row.is_some() && self.row_of_mac(entry.mac) == row && !self.out[i] {
                owner.insert(entry.mac, i);
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            if self.out[i] {
                self.no_bmc[i] = true;
                continue;
            }
            let key = entry.label();
            if let Some(kind) = self.earlier.mac(entry.mac) {
                self.no_bmc[i] = true;
                let why = format!("{} already has the BMC {}", kind.name(), entry.mac);
                self.warn("duplicate_mac_other_type", key, why);
            } else if *owner.entry(entry.mac).or_insert(i) != i {
                self.no_bmc[i] = true;
                let why = format!("another entry has the same BMC {}", entry.mac);
                self.warn("duplicate_mac", key, why);
            } else if let Some(bmc) = find_bmc(&self.input.present.bmcs, entry.mac)
                .filter(|bmc| bmc.kind != BmcType::Host)
            {
                self.no_bmc[i] = true;
                self.errors.push(Report::new(
                    "bmc_mac_held_by_non_host",
                    self.input.kind,
                    key,
                    format!(
                        "{} is a {} BMC; only Host BMCs are touched",
                        entry.mac,
                        bmc.kind.name()
                    ),
                ));
                // Nothing would find its row again next time.
                let nameless = entry.pair().is_none() || self.lost_pair[i];
                if nameless && self.claims.row(i).is_none() {
                    self.out[i] = true;
                    self.rules[i] =
                        "skipped: neither a Host BMC nor a pair would recognise its row";
                }
            }
        }
    }

    /// A row that was seen is not missing any more.
    fn forget_absences(&self) -> Vec<(Uuid, u32)> {
        let mut seen: Vec<Uuid> = self
            .input
            .present
            .absent
            .keys()
            .copied()
            .filter(|id| {
                let row = self.row_of_id.get(id).copied();
                row.is_none_or(|row| {
                    self.claims.is_claimed(row)
                        || self
                            .row(row)
                            .is_some_and(|r| !r.is_live() || self.was_seen(r))
                })
            })
            .collect();
        seen.sort_unstable();
        seen.into_iter().map(|id| (id, 0)).collect()
    }

    fn was_seen(&self, row: &Component) -> bool {
        let (manufacturer, serial) = (row.manufacturer.as_deref(), row.serial_number.as_deref());
        self.seen.hardware(manufacturer, serial)
            || self
                .hosts_of(row.id)
                .iter()
                .any(|(_, mac)| self.seen.mac(*mac))
    }

    fn hosts_of(&self, id: Uuid) -> &[(Uuid, Mac)] {
        let begin = self.hosts.partition_point(|(owner, _)| *owner < id);
        let rest = self.hosts.get(begin..).unwrap_or_default();
        let count = rest.partition_point(|(owner, _)| *owner == id);
        rest.get(..count).unwrap_or_default()
    }

    /// Live rows nobody claimed and nobody saw.
    fn delete(&mut self, empty: bool) -> (Vec<crate::mirror::report::Withheld>, Vec<(Uuid, u32)>) {
        if !self.input.complete {
            return Default::default();
        }
        let rows = &self.input.present.rows;
        let live = rows.iter().filter(|row| row.is_live()).count();
        let candidates: Vec<Candidate> = rows
            .iter()
            .enumerate()
            .filter(|(i, row)| row.is_live() && !self.claims.is_claimed(*i) && !self.was_seen(row))
            .map(|(i, row)| Candidate {
                row: i,
                id: row.id,
                label: Row::Component(row.clone()).label(),
            })
            .collect();
        let verdict = judge(
            self.input.kind,
            candidates,
            live,
            empty,
            &self.input.present.absent,
            self.input.policy,
        );
        self.warnings.extend(verdict.warnings);
        for candidate in &verdict.delete {
            let Some(row) = self.input.present.rows.get(candidate.row) else {
                continue;
            };
            let row = self
                .draft
                .component(row, Op::SoftDelete, "Core does not list it any more");
            row.deleted_at = Some(self.input.now.to_owned());
            self.counters.soft_deleted += 1;
        }
        if self.input.trace {
            let fate = |rule: &str, label: &str, id: &str| Decision {
                keys: vec![label.to_owned(), id.to_owned()],
                rule: rule.to_owned(),
            };
            let delete = verdict
                .delete
                .iter()
                .map(|c| fate("nobody claimed it: deleted", &c.label, &c.id.to_string()));
            let waiting = verdict.waiting.iter().map(|(c, times)| {
                let rule = format!(
                    "nobody claimed it: missing in {times} complete pulls so far, not deleted yet"
                );
                fate(&rule, &c.label, &c.id.to_string())
            });
            let withheld = verdict.withheld.iter().map(|w| {
                fate(
                    "nobody claimed it: the guard withheld the delete",
                    &w.key,
                    &w.id,
                )
            });
            self.trace.extend(delete.chain(waiting).chain(withheld));
        }
        (verdict.withheld, verdict.absences)
    }

    /// Whoever holds a pair that goes to an entry lets go of it, in whatever type or state.
    fn release_pairs(&mut self) {
        let entries = self.entries;
        for (i, entry) in entries.iter().enumerate() {
            let Some(pair) = entry.pair().filter(|_| !self.lost_pair[i] && !self.out[i]) else {
                continue;
            };
            let why = "the pair goes to another row";
            match self.row_of_pair.get(&pair).copied() {
                Some(holder) if self.claims.row(i) == Some(holder) => {}
                // A claimed holder gets its own pair when it is written.
                Some(holder) if self.claims.is_claimed(holder) => {}
                Some(holder) => {
                    if let Some(row) = self.input.present.rows.get(holder) {
                        let row = self.draft.component(row, Op::PairRelease, why);
                        (row.manufacturer, row.serial_number) = (None, None);
                    }
                }
                None if self.input.present.foreign.is_empty() => {}
                None => {
                    if let Some(row) = self.input.present.foreign.get(&pair_key(pair)) {
                        let row = self.draft.component(row, Op::PairRelease, why);
                        (row.manufacturer, row.serial_number) = (None, None);
                    }
                }
            }
        }
    }

    fn write(&mut self, new_id: &mut dyn FnMut() -> Uuid) {
        let entries = self.entries;
        let owned: HashSet<Mac> = entries
            .iter()
            .enumerate()
            .filter(|(i, _)| !self.no_bmc[*i])
            .map(|(_, entry)| entry.mac)
            .collect();
        for (i, entry) in entries.iter().enumerate() {
            if self.input.trace {
                let row = self.claims.row(i).and_then(|row| self.row(row));
                let mut keys = sighting_keys(&entry.sighting());
                keys.extend(entry.name.clone());
                keys.extend(row.map(|row| row.id.to_string()));
                self.trace.push(Decision {
                    keys,
                    rule: match row {
                        Some(row) => format!(
                            "entry {} has row {}: {}",
                            entry.label(),
                            row.id,
                            self.rules[i]
                        ),
                        None if self.out[i] => {
                            format!("entry {}: {}", entry.label(), self.rules[i])
                        }
                        None => {
                            format!("entry {} gets a new row: {}", entry.label(), self.rules[i])
                        }
                    },
                });
            }
            if self.out[i] {
                continue;
            }
            let rack_id = self.resolve_rack(entry);
            let claimed = self.claims.row(i).and_then(|row| self.row(row));
            let (id, outcome) = match claimed {
                Some(row) => (row.id, self.update(i, entry, row, rack_id)),
                None => {
                    let id = new_id();
                    self.insert(i, entry, id, rack_id);
                    (id, Outcome::Inserted)
                }
            };
            let bmc_changed = !self.no_bmc[i] && self.write_bmc(entry, id, &owned);
            match outcome {
                Outcome::Inserted => self.counters.inserted += 1,
                Outcome::Resurrected => self.counters.resurrected += 1,
                Outcome::Updated => self.counters.updated += 1,
                Outcome::Same if bmc_changed => self.counters.updated += 1,
                Outcome::Same => {}
            }
        }
    }

    fn resolve_rack(&mut self, entry: &WantedComponent) -> Option<Uuid> {
        let rack_id = entry.rack_id.as_ref()?;
        let found = self.input.present.racks.get(rack_id.as_str()).copied();
        if found.is_none() {
            let why = format!("no live rack {}", rack_id.as_str());
            self.warn("unresolved_rack", entry.label(), why);
        }
        found
    }

    /// The pair the entry ends up with.
    fn final_pair<'e>(
        &self,
        i: usize,
        entry: &'e WantedComponent,
    ) -> (Option<&'e str>, Option<&'e str>) {
        if self.lost_pair[i] {
            (None, None)
        } else {
            (entry.manufacturer.as_deref(), entry.serial.as_deref())
        }
    }

    fn update(
        &mut self,
        i: usize,
        entry: &WantedComponent,
        row: &Component,
        rack_id: Option<Uuid>,
    ) -> Outcome {
        let unknown = self.input.policy.unknown_position;
        let now = [row.slot_id, row.tray_index, row.host_id];
        let stored = |n: usize, p: Position| p.stored(now[n], unknown);
        let [slot, tray, host] = entry.positions;
        let positions = [stored(0, slot), stored(1, tray), stored(2, host)];
        // Without any name Core has nothing to say about the stored one.
        let name = entry.name.as_deref().or(row.name.as_deref());
        let (manufacturer, serial) = match self.input.policy.identity {
            Identity::Pair => (row.manufacturer.as_deref(), row.serial_number.as_deref()),
            Identity::HostMac => self.final_pair(i, entry),
        };
        let description = self.description(row.description.as_ref(), entry);
        let same = same_text(row.name.as_deref(), name)
            && same_text(row.model.as_deref(), entry.model.as_deref())
            && same_text(row.manufacturer.as_deref(), manufacturer)
            && same_text(row.serial_number.as_deref(), serial)
            && now == positions
            && row.rack_id == rack_id
            && description.as_deref() == row.description.as_ref();
        if same && row.is_live() {
            return Outcome::Same;
        }
        let resurrected = !row.is_live();
        let op = if resurrected {
            Op::Resurrect
        } else {
            Op::Update
        };
        let why = if resurrected {
            "Core lists it again"
        } else {
            "Core says so"
        };
        let after = self.draft.component(row, op, why);
        after.deleted_at = None;
        for (column, value) in [
            (&mut after.name, name),
            (&mut after.model, entry.model.as_deref()),
            (&mut after.manufacturer, manufacturer),
            (&mut after.serial_number, serial),
        ] {
            // NULL and "" are the same: what is there stays as it is spelled.
            if !same_text(column.as_deref(), value) {
                *column = value.map(str::to_owned);
            }
        }
        [after.slot_id, after.tray_index, after.host_id] = positions;
        after.rack_id = rack_id;
        after.description = description.map(Cow::into_owned);
        if resurrected {
            Outcome::Resurrected
        } else {
            Outcome::Updated
        }
    }

    fn insert(&mut self, i: usize, entry: &WantedComponent, id: Uuid, rack_id: Option<Uuid>) {
        let Some(kind) = self.input.kind.component_type() else {
            return;
        };
        let unknown = self.input.policy.unknown_position;
        let [slot, tray, host] = entry.positions.map(|p| p.stored(unknown, unknown));
        let (manufacturer, serial) = self.final_pair(i, entry);
        let row = Component {
            name: entry.name.clone(),
            model: entry.model.clone(),
            manufacturer: manufacturer.map(str::to_owned),
            serial_number: serial.map(str::to_owned),
            rack_id,
            slot_id: slot,
            tray_index: tray,
            host_id: host,
            description: self.description(None, entry).map(Cow::into_owned),
            ..Component::new(id, kind)
        };
        self.draft
            .put(None, Row::Component(row), Op::Insert, "Core lists it");
    }

    /// The description column as it will be: only our key of it changes.
    fn description<'r>(
        &self,
        stored: Option<&'r Json>,
        entry: &WantedComponent,
    ) -> Option<Cow<'r, Json>> {
        let same = stored.map(Cow::Borrowed);
        if self.input.policy.profile != Profile::HostMac {
            return same;
        }
        let text = entry.description.as_deref();
        if text.is_none() && (stored.is_none() || self.input.policy.clear == Clear::Preserve) {
            return same;
        }
        let mut entries = stored.map(Json::entries).unwrap_or_default();
        if entries
            .get(EXPECTED_DESCRIPTION)
            .and_then(serde_json::Value::as_str)
            == text
        {
            return same;
        }
        match text {
            Some(text) => entries.insert(EXPECTED_DESCRIPTION.into(), text.into()),
            None => entries.remove(EXPECTED_DESCRIPTION),
        };
        let object = serde_json::Value::Object(entries);
        (object != serde_json::json!({})).then(|| Cow::Owned(Json::new(&object)))
    }

    /// Makes the BMC of `entry` the only Host BMC of component `id`; whether anything changes.
    fn write_bmc(&mut self, entry: &WantedComponent, id: Uuid, owned: &HashSet<Mac>) -> bool {
        let stored = find_bmc(&self.input.present.bmcs, entry.mac).copied();
        let ip = match (entry.ip, stored) {
            (Address::At(ip), _) => ip,
            (Address::Malformed, Some(stored)) if stored.component_id == id => stored.ip,
            (Address::Malformed, _) => None,
        };
        let wanted = Bmc {
            mac: entry.mac,
            kind: BmcType::Host,
            component_id: id,
            ip,
        };
        let mut changed = true;
        match stored {
            Some(stored) if stored == wanted => changed = false,
            Some(stored) if stored.component_id == id => {
                let why = "Core says so";
                self.draft.put_bmc(Some(stored), wanted, Op::BmcUpdate, why);
            }
            Some(stored) => {
                self.counters.evicted += 1;
                let why = format!(
                    "the BMC {} moves here from component {}",
                    entry.mac, stored.component_id
                );
                self.warn("bmc_evicted", entry.label(), why);
                let why = "Core gives this BMC to another component";
                self.draft.remove(Row::Bmc(stored), Op::BmcEvict, why);
                self.draft.put_bmc(Some(stored), wanted, Op::BmcInsert, why);
            }
            None => self
                .draft
                .put_bmc(None, wanted, Op::BmcInsert, "Core lists it"),
        }
        for (_, mac) in self.hosts_of(id).to_vec() {
            // A BMC that another entry has is evicted by that entry.
            if mac == entry.mac || owned.contains(&mac) {
                continue;
            }
            if let Some(other) = find_bmc(&self.input.present.bmcs, mac) {
                let why = "a component has one Host BMC, and Core names another";
                self.draft.remove(Row::Bmc(*other), Op::BmcHardDelete, why);
                self.counters.hard_deleted += 1;
                changed = true;
            }
        }
        changed
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Same,
    Updated,
    Resurrected,
    Inserted,
}

pub(super) fn sighting_keys(sighting: &Sighting) -> Vec<String> {
    let mut keys = Vec::new();
    keys.extend(sighting.rack_id.as_ref().map(|id| id.as_str().to_owned()));
    keys.extend(sighting.mac.map(|mac| mac.to_string()));
    keys.extend(sighting.serial.clone());
    if let Some(pair) = Pair::of(sighting.manufacturer.as_deref(), sighting.serial.as_deref()) {
        keys.push(pair.to_string());
    }
    keys
}
