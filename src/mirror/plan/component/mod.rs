//! Machines, switches and shelves.
//!
//! ```text
//! duplicates.rs  entries that name one component twice
//! mod.rs         what is there, what was seen, what is deleted
//! hosts.rs       which row has which Host BMCs
//! claims.rs      who has which row, pair and BMC
//! write.rs       the rows as they will be
//! ```

mod claims;
mod duplicates;
mod hosts;
mod write;

use super::guard::{Candidate, judge};
use super::{Claims, Decision, Draft, Earlier, Op, Plan};
use crate::inventory::{Bmc, BmcType, Component, Kind, Mac, Pair, Row};
use crate::mirror::approval::Approval;
use crate::mirror::diagnostics::{Counters, Diagnostic, Withheld};
use crate::mirror::policy::Policy;
use crate::mirror::spec::component::{Address, WantedComponent};
use crate::mirror::spec::{Seen, Sighting, Skipped};
use duplicates::without_duplicates;
use hosts::Hosts;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use uuid::Uuid;

/// BMCs at a shared address that are named one by one; of more there is a count.
const MOST_SHARED_IPS: usize = 10;

/// What is there, read in the transaction that will write.
#[derive(Debug, Default)]
pub struct PresentComponents {
    /// All rows of the type, tombstones included.
    pub rows: Vec<Component>,
    /// All BMCs of all types, by address.
    pub bmcs: Vec<Bmc>,
    /// Rows of other types that hold a pair wanted here, by [`Pair::key`].
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
    /// Whether racks were pulled in this cycle: else a rack that is not there is no surprise.
    pub racks_pulled: bool,
    /// The knobs.
    pub policy: &'a Policy,
    /// Deletes that an operator approved.
    pub approval: Option<&'a Approval>,
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
    /// Each entry's BMC as it is there.
    bmc_of: Vec<Option<&'a Bmc>>,
    hosts: Hosts,
    seen: Seen,
    /// Components whose rack is not there, when racks were not pulled.
    unresolved_racks: u64,
    /// Deletes happen because an operator approved them.
    approved: bool,
    /// BMCs that go to entries.
    taken_macs: HashSet<Mac>,
    /// Pairs that go to entries.
    taken_pairs: HashSet<Pair<'a>>,
    draft: Draft,
    counters: Counters,
    warnings: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
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
    planner.note_taken();
    let absences = planner.forget_absences();
    let (withheld, more_absences) = planner.delete(empty);
    planner.release_pairs();
    planner.write(new_id);
    planner.warn_of_unresolved_racks();
    planner.warn_of_shared_ips();
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
        approved: planner.approved,
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
impl<'a> Planner<'a> {
    fn new(
        input: &'a ComponentInput<'a>,
        earlier: &'a Earlier,
        entries: &'a [WantedComponent],
        warnings: Vec<Diagnostic>,
    ) -> Self {
        let present = input.present;
        let rows = &present.rows;
        let row_of_id: HashMap<Uuid, usize> = rows
            .iter()
            .enumerate()
            .map(|(i, row)| (row.id, i))
            .collect();
        Self {
            input,
            earlier,
            entries,
            claims: Claims::new(entries.len(), rows.len()),
            rules: vec!["nothing is there that it could be"; entries.len()],
            lost_pair: vec![false; entries.len()],
            out: vec![false; entries.len()],
            no_bmc: vec![false; entries.len()],
            bmc_of: entries
                .iter()
                .map(|entry| find_bmc(&present.bmcs, entry.mac))
                .collect(),
            hosts: Hosts::new(&present.bmcs, &row_of_id, rows.len()),
            row_of_id,
            row_of_pair: rows
                .iter()
                .enumerate()
                .filter_map(|(i, row)| Some((row.pair()?, i)))
                .collect(),
            seen: Seen::default(),
            unresolved_racks: 0,
            approved: false,
            taken_macs: HashSet::with_capacity(entries.len()),
            taken_pairs: HashSet::with_capacity(entries.len()),
            draft: Draft::default(),
            counters: Counters::default(),
            warnings,
            errors: Vec::new(),
            trace: Vec::new(),
        }
    }

    fn warn_of_unresolved_racks(&mut self) {
        if self.unresolved_racks > 0 {
            let why = format!(
                "{} components name racks that are not there, and racks were not pulled",
                self.unresolved_racks
            );
            self.warn("unresolved_racks", "", why);
        }
    }

    /// Two BMCs that answer at one address: one of them does not. Those of other types count if they were
    /// pulled before in this cycle.
    fn warn_of_shared_ips(&mut self) {
        let mut holder: HashMap<IpAddr, Mac> = HashMap::new();
        let of_others = self.input.present.bmcs.iter();
        let of_others = of_others
            .filter(|bmc| bmc.kind == BmcType::Host && self.earlier.mac(bmc.mac).is_some());
        holder.extend(of_others.filter_map(|bmc| Some((bmc.ip?, bmc.mac))));
        let mut more = 0_u64;
        let mut told = 0;
        for (i, entry) in self.entries.iter().enumerate() {
            let Address::At(Some(ip)) = entry.ip else {
                continue;
            };
            if self.out[i] || self.no_bmc[i] || ip.is_unspecified() {
                continue;
            }
            let first = *holder.entry(ip).or_insert(entry.mac);
            if first == entry.mac {
                continue;
            }
            if told == MOST_SHARED_IPS {
                more += 1;
                continue;
            }
            told += 1;
            let why = format!("{first} and {} have the address {ip}", entry.mac);
            self.warn("duplicate_bmc_ip", entry.label(), why);
        }
        if more > 0 {
            let why = format!("so have {more} more BMCs an address that another one has");
            self.warn("duplicate_bmc_ip", "", why);
        }
    }

    fn warn(&mut self, code: &str, key: impl Into<String>, why: impl Into<String>) {
        let report = Diagnostic::new(code, self.input.kind, key, why);
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

    /// The row of this type whose Host BMC the entry names.
    fn row_of_bmc(&self, entry: usize) -> Option<usize> {
        let bmc = self.bmc_of.get(entry).copied().flatten()?;
        if bmc.kind != BmcType::Host {
            return None;
        }
        self.row_of_id.get(&bmc.component_id).copied()
    }

    fn row(&self, index: usize) -> Option<&'a Component> {
        self.input.present.rows.get(index)
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

    /// Whether an entry that claims nothing may be this row. What goes to another entry in this
    /// very plan recognises the row no longer: next time it would not, and the row would flap.
    fn was_seen(&self, row: &Component) -> bool {
        let (manufacturer, serial) = (row.manufacturer.as_deref(), row.serial_number.as_deref());
        let loses_pair = row
            .pair()
            .is_some_and(|pair| self.taken_pairs.contains(&pair));
        let by_hardware = !loses_pair && self.seen.hardware(manufacturer, serial);
        by_hardware
            || self
                .hosts_of(row.id)
                .iter()
                .any(|mac| self.seen.mac(*mac) && !self.taken_macs.contains(mac))
    }

    /// Notes which pairs and BMCs go to entries.
    fn note_taken(&mut self) {
        for (i, entry) in self
            .entries
            .iter()
            .enumerate()
            .filter(|(i, _)| !self.out[*i])
        {
            if !self.no_bmc[i] {
                self.taken_macs.insert(entry.mac);
            }
            if !self.lost_pair[i] {
                self.taken_pairs.extend(entry.pair());
            }
        }
    }

    /// Host BMCs of a row of this type; a row that is yet to come has none.
    fn hosts_of(&self, id: Uuid) -> &[Mac] {
        self.row_of_id
            .get(&id)
            .map_or(&[], |row| self.hosts.of(*row))
    }

    /// Live rows nobody claimed and nobody saw.
    fn delete(&mut self, empty: bool) -> (Vec<Withheld>, Vec<(Uuid, u32)>) {
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
                label: Row::Component(Box::new(row.clone())).label(),
            })
            .collect();
        let verdict = judge(
            self.input.kind,
            candidates,
            live,
            empty,
            &self.input.present.absent,
            self.input.policy,
            self.input.approval,
        );
        self.approved = verdict.approved;
        self.warnings.extend(verdict.warnings);
        for candidate in &verdict.delete {
            let Some(row) = self.input.present.rows.get(candidate.row) else {
                continue;
            };
            let row = self
                .draft
                .edit(row, Op::SoftDelete, "Core does not list it any more");
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
}

fn find_bmc(bmcs: &[Bmc], mac: Mac) -> Option<&Bmc> {
    let found = bmcs.binary_search_by_key(&mac, |bmc| bmc.mac).ok()?;
    bmcs.get(found)
}

/// Everything an entry is known by.
pub(in crate::mirror::plan) fn sighting_keys(sighting: &Sighting) -> Vec<String> {
    let mut keys = Vec::new();
    keys.extend(sighting.rack_id.as_ref().map(|id| id.as_str().to_owned()));
    keys.extend(sighting.mac.map(|mac| mac.to_string()));
    keys.extend(sighting.serial.clone());
    if let Some(pair) = Pair::of(sighting.manufacturer.as_deref(), sighting.serial.as_deref()) {
        keys.push(pair.to_string());
    }
    keys
}
