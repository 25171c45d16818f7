//! Machines, switches and shelves: recognised by their pair or by their Host BMC, as the policy says.

use super::bmc::{WantedBmc, place_of_bmc, plan_bmcs, warn_of_shared_ips};
use super::reconcile::{Entity, MatchOf, Work, losers};
use super::{Earlier, FastMap, Given, Plan};
use crate::inventory::{Bmc, BmcType, Component, ComponentType, Json, Mac, Pair};
use crate::mirror::change::Ops;
use crate::mirror::policy::{Clear, Identity, Profile};
use crate::mirror::spec::WantedRow;
use crate::mirror::spec::component::{Position, WantedComponent};
use crate::mirror::spec::duplicates::distinct_components;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// The key under which a component's description keeps what Core says.
const EXPECTED_DESCRIPTION: &str = "expected_description";

/// What is there, read in the transaction that will write.
#[derive(Debug, Default)]
pub struct PresentComponents {
    /// All rows of the type, tombstones included, by id.
    pub rows: Vec<Component>,
    /// All BMCs of all types, by address.
    pub bmcs: Vec<Bmc>,
    /// Rows of other types that hold a pair wanted here, by [`Pair::key`].
    pub foreign: HashMap<Box<str>, Component>,
    /// Live racks by external_id.
    pub racks: FastMap<String, Uuid>,
    /// Whether racks were pulled in this cycle: else a rack that is not there is no surprise.
    pub racks_pulled: bool,
}

impl PresentComponents {
    /// The pair of the row of the type that has this Host BMC.
    fn pair_of_host(&self, mac: Mac) -> Option<Pair<'_>> {
        let bmc = self.bmcs.get(place_of_bmc(&self.bmcs, mac)?)?;
        let is_host = bmc.kind == BmcType::Host;
        let id = |row: &Component| row.id;
        let row = self.rows.binary_search_by_key(&bmc.component_id, id);
        self.rows.get(row.ok().filter(|_| is_host)?)?.pair()
    }
}

/// Plans one type. `earlier` says what types before it took in this cycle, and is told what this
/// one takes.
pub fn plan_components(
    given: Given<'_>,
    wanted: Vec<WantedComponent>,
    present: &PresentComponents,
    earlier: &mut Earlier,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Plan {
    let mut plan = Plan::new(given.kind);
    let (entries, dropped) = distinct_components(
        wanted,
        given.policy,
        |mac| present.pair_of_host(mac),
        |mac| earlier.mac(mac).map(|kind| kind.name()),
        |code, key, why| plan.warn(code, key, why),
    );
    let mut work = Work::new(given, &entries, &present.rows, plan);
    work.see(&dropped);
    drop(dropped);
    let mut components = Components::new(&work, present, earlier);
    work.reconcile(&mut components, new_id);
    let (unresolved, bmcs) = (components.unresolved_racks, components.bmcs);
    plan_bmcs(&mut work, &bmcs, &present.bmcs);
    if unresolved > 0 {
        let why = format!(
            "{unresolved} components name racks that are not there, and racks were not pulled"
        );
        work.plan.warn("unresolved_racks", "", why);
    }
    warn_of_shared_ips(&mut work.plan, &bmcs, &present.bmcs, earlier);
    for bmc in &bmcs {
        earlier.take_mac(bmc.entry.mac, given.kind);
    }
    for (_, pair) in work.pairs().filter(|(i, _)| !work.out[*i]) {
        earlier.take_pair(pair, given.kind);
    }
    work.finish()
}

struct Components<'a, 'e> {
    present: &'a PresentComponents,
    earlier: &'e Earlier,
    by_pair: bool,
    /// Place of each entry's BMC among those that are there.
    bmc_of: Vec<Option<usize>>,
    /// Entries whose BMC is left alone.
    no_bmc: Vec<bool>,
    /// Rows one of whose Host BMCs was seen and goes to no entry.
    seen: HashSet<Uuid>,
    /// BMCs of entries, now that their components have ids.
    bmcs: Vec<WantedBmc<'a>>,
    /// Components whose rack is not there, when racks were not pulled.
    unresolved_racks: u64,
}

type Working<'a> = Work<'a, WantedComponent, Component>;

impl<'a, 'e> Components<'a, 'e> {
    fn new(work: &Working<'a>, present: &'a PresentComponents, earlier: &'e Earlier) -> Self {
        let bmcs = work
            .entries
            .iter()
            .map(|entry| place_of_bmc(&present.bmcs, entry.mac));
        Self {
            present,
            earlier,
            by_pair: work.given.policy.identity == Identity::Pair,
            bmc_of: bmcs.collect(),
            no_bmc: vec![false; work.entries.len()],
            seen: HashSet::new(),
            bmcs: Vec::with_capacity(work.entries.len()),
            unresolved_racks: 0,
        }
    }

    /// The BMC of an entry as it is there.
    fn stored_bmc(&self, entry: usize) -> Option<&'a Bmc> {
        self.present.bmcs.get(self.bmc_of[entry]?)
    }

    /// The row of this type whose Host BMC the entry names.
    fn row_of_bmc(&self, work: &Working<'a>, entry: usize) -> Option<usize> {
        let bmc = self.stored_bmc(entry)?;
        let is_host = bmc.kind == BmcType::Host;
        is_host.then(|| work.row_of_id(bmc.component_id)).flatten()
    }

    /// Pairs that go to other entries.
    fn lose_pairs(work: &mut Working<'a>, lost: Vec<usize>) {
        for i in lost {
            if let Some((entry, pair)) = work.entries.get(i).zip(work.pair(i)) {
                let why = format!("another entry keeps the pair {pair}");
                work.plan
                    .warn("duplicate_component", entry.mac.to_string(), why);
                work.lost_pair[i] = true;
            }
        }
    }

    /// Pairs that components of another type have or took in this cycle.
    fn settle_pairs_of_others(&self, work: &mut Working<'a>) {
        if self.earlier.is_empty() && self.present.foreign.is_empty() {
            return;
        }
        let taken = work.pairs().filter_map(|(i, pair)| {
            let stored = || self.present.foreign.get(&pair.key());
            let holder = match self.earlier.pair(pair) {
                Some(kind) => kind.name(),
                None if self.by_pair && work.holder(i).is_none() => {
                    stored().filter(|row| row.is_live())?.kind.name()
                }
                None => return None,
            };
            Some((i, format!("{holder} has the pair {pair}")))
        });
        for (i, why) in taken.collect::<Vec<_>>() {
            let label = work.entries.get(i).map(WantedComponent::label);
            work.plan
                .warn("duplicate_pair_other_type", label.unwrap_or_default(), why);
            if !self.by_pair {
                work.lost_pair[i] = true;
            } else if work.claimed(i).is_none() {
                let rule = "skipped: its pair belongs to a component of another type";
                work.take_out(i, rule);
            }
        }
    }

    /// Who has which BMC in the end, and which entries get none.
    fn settle_bmcs(&mut self, work: &mut Working<'a>) {
        let entries = work.entries.iter().enumerate();
        let wants = entries.filter(|(i, _)| !work.out[*i]);
        let wants = wants.filter(|(_, entry)| self.earlier.mac(entry.mac).is_none());
        let lost = losers(wants.map(|(i, entry)| (i, entry.mac)), |i, _| {
            work.claimed(i)
                .is_some_and(|row| self.row_of_bmc(work, i) == Some(row))
        });
        for (i, entry) in work.entries.iter().enumerate() {
            if work.out[i] {
                self.no_bmc[i] = true;
                continue;
            }
            if let Some(kind) = self.earlier.mac(entry.mac) {
                self.no_bmc[i] = true;
                let why = format!("{} already has the BMC {}", kind.name(), entry.mac);
                work.plan
                    .warn("duplicate_mac_other_type", entry.label(), why);
            } else if lost.binary_search(&i).is_ok() {
                self.no_bmc[i] = true;
                let why = format!("another entry has the same BMC {}", entry.mac);
                work.plan.warn("duplicate_mac", entry.label(), why);
            } else if let Some(bmc) = self.stored_bmc(i).filter(|bmc| bmc.kind != BmcType::Host) {
                self.no_bmc[i] = true;
                let kind = bmc.kind.name();
                let why = format!("{} is a {kind} BMC; only Host BMCs are touched", entry.mac);
                work.plan
                    .refuse("bmc_mac_held_by_non_host", entry.label(), why);
            }
            // Nothing would find its row again next time.
            if self.no_bmc[i] && work.pair(i).is_none() && work.claimed(i).is_none() {
                let rule = "skipped: neither a Host BMC nor a pair would recognise its row";
                work.take_out(i, rule);
            }
        }
    }

    /// Notes which rows are recognised by a Host BMC of an entry that claims nothing.
    fn note_seen(&mut self, work: &Working<'a>) {
        if !work.seen.has_macs() {
            return;
        }
        let taken = work.entries.iter().zip(&self.no_bmc);
        let taken = taken.filter(|(_, no_bmc)| !**no_bmc);
        let taken: HashSet<Mac> = taken.map(|(entry, _)| entry.mac).collect();
        let is_seen = |bmc: &&Bmc| work.seen.mac(bmc.mac) && !taken.contains(&bmc.mac);
        let hosts = self.present.bmcs.iter();
        let seen = hosts
            .filter(|bmc| bmc.kind == BmcType::Host)
            .filter(is_seen);
        self.seen = seen.map(|bmc| bmc.component_id).collect();
    }

    fn resolve_rack(&mut self, work: &mut Working<'a>, entry: &WantedComponent) -> Option<Uuid> {
        let rack_id = entry.rack_id.as_ref()?;
        let found = self.present.racks.get(rack_id.as_str()).copied();
        if found.is_none() && self.present.racks_pulled {
            let why = format!("no live rack {}", rack_id.as_str());
            work.plan.warn("unresolved_rack", entry.label(), why);
        } else if found.is_none() {
            self.unresolved_racks += 1;
        }
        found
    }
}

impl<'a> Entity<'a> for Components<'a, '_> {
    type Wanted = WantedComponent;
    type Row = Component;

    fn claim(&mut self, work: &mut Working<'a>) {
        if !self.by_pair {
            let rule = "identity: same Host BMC";
            work.claim_by(rule, |work, i| Ok(self.row_of_bmc(work, i)));
            let rule = "fallback: same pair, the row's own Host BMC was claimed by nobody";
            work.claim_by(rule, |work, i| Ok(work.holder(i)));
            return;
        }
        // Where two rows are kept, the entry whose BMC the present owner has keeps the pair.
        let lost = losers(work.pairs(), |i, _| {
            let owner = work.holder(i);
            owner.is_some() && self.row_of_bmc(work, i) == owner
        });
        Self::lose_pairs(work, lost);
        work.claim_by("identity: same pair", |work, i| Ok(work.holder(i)));
        let rule = "fallback: same Host BMC, the pair belongs to another entry";
        work.claim_by(rule, |work, i| {
            // Only entries that lost their pair: their row has none either.
            let row = self.row_of_bmc(work, i).filter(|_| work.lost_pair[i]);
            Ok(row.filter(|row| work.rows.get(*row).is_some_and(|row| row.pair().is_none())))
        });
    }

    fn settle(&mut self, work: &mut Working<'a>) {
        if !self.by_pair {
            let has = |i, pair: &_| work.row(i).and_then(Component::pair) == Some(*pair);
            let lost = losers(work.pairs(), has);
            Self::lose_pairs(work, lost);
        }
        self.settle_pairs_of_others(work);
        self.settle_bmcs(work);
        self.note_seen(work);
        work.take_pairs();
    }

    fn is_seen(&self, _: &Working<'a>, row: &Component) -> bool {
        self.seen.contains(&row.id)
    }

    fn make_room(&mut self, work: &mut Working<'a>) {
        work.release_pairs(&self.present.foreign, "the pair goes to another row");
    }

    fn row(&mut self, work: &mut Working<'a>, at: &MatchOf<'a, Self>) -> Cow<'a, Component> {
        let (entry, stored, lost_pair) = (at.entry, at.stored, work.lost_pair[at.i]);
        let kind = work.given.kind.component_type();
        let new = || Component::new(at.new_id, kind.unwrap_or(ComponentType::Unknown));
        let mut row = stored.map_or_else(|| Cow::Owned(new()), Cow::Borrowed);
        let rack_id = self.resolve_rack(work, entry);
        if !row.is_live() || row.rack_id != rack_id {
            let row = row.to_mut();
            (row.deleted_at, row.rack_id) = (None, rack_id);
        }
        let policy = work.given.policy;
        if stored.is_none() || !self.by_pair {
            let keeps = |half: &'a Option<SmolStr>| half.as_ref().filter(|_| !lost_pair);
            set_text(&mut row, MANUFACTURER, keeps(&entry.manufacturer));
            set_text(&mut row, SERIAL_NUMBER, keeps(&entry.serial));
        }
        if entry.name.is_some() {
            set_text(&mut row, NAME, entry.name.as_ref());
        }
        set_text(&mut row, MODEL, entry.model.as_ref());
        let mut positions = [row.slot_id, row.tray_index, row.host_id];
        for (stored_at, position) in positions.iter_mut().zip(entry.positions) {
            *stored_at = match position {
                Position::At(position) => position,
                Position::Malformed if stored.is_some() => *stored_at,
                Position::Unknown | Position::Malformed => policy.unknown_position,
            };
        }
        if positions != [row.slot_id, row.tray_index, row.host_id] {
            let row = row.to_mut();
            [row.slot_id, row.tray_index, row.host_id] = positions;
        }
        if policy.profile == Profile::HostMac {
            let text = entry.description.as_deref();
            if let Some(description) = describe(row.description.as_ref(), text, policy.clear) {
                row.to_mut().description = description;
            }
        }
        row
    }

    fn written(
        &mut self,
        work: &mut Working<'a>,
        at: &MatchOf<'a, Self>,
        after: &Component,
    ) -> Ops {
        let ops = work.count(at.stored, after);
        if !self.no_bmc[at.i] {
            self.bmcs.push(WantedBmc {
                entry: at.entry,
                stored: self.bmc_of[at.i],
                component: after.id,
                was_there: at.stored.is_some(),
                is_counted: !ops.is_empty(),
            });
        }
        ops
    }
}

/// A column, to be read and to be written.
type TextColumn = (
    fn(&Component) -> Option<&SmolStr>,
    fn(&mut Component) -> &mut Option<SmolStr>,
);
const MANUFACTURER: TextColumn = (|row| row.manufacturer.as_ref(), |row| &mut row.manufacturer);
const SERIAL_NUMBER: TextColumn = (
    |row| row.serial_number.as_ref(),
    |row| &mut row.serial_number,
);
const NAME: TextColumn = (|row| row.name.as_ref(), |row| &mut row.name);
const MODEL: TextColumn = (|row| row.model.as_ref(), |row| &mut row.model);

/// NULL and the empty text are the same: what is there stays as it is spelled.
fn set_text(row: &mut Cow<'_, Component>, (stored, column): TextColumn, wanted: Option<&SmolStr>) {
    let wanted_text = wanted.map(SmolStr::as_str).unwrap_or_default();
    if stored(row).map(SmolStr::as_str).unwrap_or_default() != wanted_text {
        *column(row.to_mut()) = wanted.cloned();
    }
}

/// The description with our key as Core says it; other owners have theirs. `None`: as it is stored.
fn describe(stored: Option<&Json>, text: Option<&str>, clear: Clear) -> Option<Option<Json>> {
    if text.is_none() && (stored.is_none() || clear == Clear::Preserve) {
        return None;
    }
    let mut entries = stored.map(Json::entries).unwrap_or_default();
    let known = entries
        .get(EXPECTED_DESCRIPTION)
        .and_then(serde_json::Value::as_str);
    if known == text {
        return None;
    }
    match text {
        Some(text) => entries.insert(EXPECTED_DESCRIPTION.into(), text.into()),
        None => entries.remove(EXPECTED_DESCRIPTION),
    };
    let object = serde_json::Value::Object(entries);
    Some((object != serde_json::json!({})).then(|| Json::new(&object)))
}
