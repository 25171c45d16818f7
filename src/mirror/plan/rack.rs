//! Racks: recognised by external_id, else by their pair; where names are unique, each has one rack.

use super::names::{Bid, decide};
use super::reconcile::{Entity, Fate, MatchOf, Work, losers};
use super::{Given, Plan};
use crate::inventory::{Json, Pair, Rack, Record};
use crate::mirror::change::{Op, Ops};
use crate::mirror::policy::{Clear, Duplicates, Legacy, Names, Profile};
use crate::mirror::spec::WantedRow;
use crate::mirror::spec::duplicates::distinct_racks;
use crate::mirror::spec::rack::WantedRack;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Plans the racks. `rows` are all of them, tombstones included, by id.
pub fn plan_racks(
    given: Given<'_>,
    wanted: Vec<WantedRack>,
    rows: &[Rack],
    new_id: &mut dyn FnMut() -> Uuid,
) -> Plan {
    let mut plan = Plan::new(given.kind);
    let warn = |code: &str, key, why| plan.warn(code, key, why);
    let (entries, dropped) = distinct_racks(wanted, given.policy.duplicates, warn);
    let mut racks = Racks {
        pairs_follow_core: given.policy.profile == Profile::HostMac,
        pairs: entries.iter().filter_map(WantedRack::pair).collect(),
        lost_name: vec![false; entries.len()],
    };
    let mut work = Work::new(given, &entries, rows, plan);
    work.see(&dropped);
    work.reconcile(&mut racks, new_id);
    work.finish()
}

struct Racks<'a> {
    /// Whether pairs of rows that are there follow Core.
    pairs_follow_core: bool,
    /// Pairs of all entries.
    pairs: HashSet<Pair<'a>>,
    /// Entries that do not get the name they want.
    lost_name: Vec<bool>,
}

type Working<'a> = Work<'a, WantedRack, Rack>;

impl<'a> Entity<'a> for Racks<'a> {
    type Wanted = WantedRack;
    type Row = Rack;

    /// By external_id first, by pair second.
    fn claim(&mut self, work: &mut Working<'a>) {
        let rows = work.rows.iter().enumerate();
        let by_external: HashMap<&str, usize> = rows
            .filter_map(|(i, row)| Some((row.external_id.as_deref()?, i)))
            .collect();
        let ids = work.entries.iter().map(WantedRack::rack_id);
        let reported: HashSet<&str> = ids.flatten().collect();
        work.claim_by("identity: same external_id", |work, i| {
            let id = work.entries.get(i).and_then(WantedRack::rack_id);
            Ok(id.and_then(|id| by_external.get(id).copied()))
        });
        let rule = "adoption: same pair, external_id unknown or retired";
        work.claim_by(rule, |work, i| {
            let row = work.holder(i);
            let owner = row.and_then(|row| work.rows.get(row)?.external_id.as_deref());
            if owner.is_some_and(|id| reported.contains(id) || work.seen.rack_id(id)) {
                return Err(
                    "adoption refused: Core still reports the external_id of the row with this pair",
                );
            }
            Ok(row)
        });
    }

    /// Who has which pair in the end: whoever has it, else the first in order.
    fn settle(&mut self, work: &mut Working<'a>) {
        let follow = self.pairs_follow_core;
        // Else the pair of a row that is there is what it was when it was inserted.
        let wants = work.pairs();
        let wants = wants.filter(|(i, _)| follow || work.claimed(*i).is_none());
        let has = |i, pair: &_| work.row(i).and_then(Rack::pair) == Some(*pair);
        let lost = losers(wants.clone(), has);
        let lost = wants.filter(|(i, _)| {
            lost.binary_search(i).is_ok() || (!follow && work.holder(*i).is_some())
        });
        for (i, pair) in lost.collect::<Vec<_>>() {
            let Some(entry) = work.entries.get(i) else {
                continue;
            };
            let why = format!("another rack keeps the chassis {pair}");
            work.plan.warn("duplicate_chassis", entry.label(), why);
            work.lost_pair[i] = true;
            // Without rack_id and pair nothing would find its row again.
            if work.given.policy.duplicates == Duplicates::Last || entry.rack_id.is_none() {
                work.take_out(i, "skipped: another rack has its chassis");
            }
        }
        if follow {
            work.take_pairs();
        }
    }

    fn is_seen(&self, work: &Working<'a>, row: &Rack) -> bool {
        let id = row.external_id.as_deref();
        id.is_some_and(|id| work.seen.rack_id(id))
    }

    /// Racks that Core never knew are kept where the policy says so.
    fn unclaimed(&mut self, work: &mut Working<'a>, row: &'a Rack) -> Fate {
        if row.external_id.is_some() || work.given.policy.legacy != Legacy::Exempt {
            return work.fate_unless_seen(self, row);
        }
        let pair = Record::pair(row);
        if !pair.is_some_and(|pair| self.pairs.contains(&pair)) && !work.seen.pair(pair) {
            work.plan.counters.legacy_exempt += 1;
            let why = "a live rack that Core never listed; it is kept";
            work.plan
                .warn("legacy_rack_not_in_core", Record::label(row), why);
        }
        Fate::Keep
    }

    fn make_room(&mut self, work: &mut Working<'a>) {
        let names = self.settle_names(work);
        if self.pairs_follow_core {
            work.release_pairs(&HashMap::new(), "the pair goes to another rack");
        }
        // Tombstones in the way of a name go for good.
        for (i, row) in work.rows.iter().enumerate() {
            let stays_dead = !row.is_live() && work.claimant(i).is_none();
            if (stays_dead || work.deleted.contains(&i)) && names.contains(row.name.as_str()) {
                let why = "a tombstone is in the way of a name";
                work.draft.remove(row, Op::TombstoneGc, why);
                work.plan.counters.hard_deleted += 1;
            }
        }
    }

    fn row(&mut self, work: &mut Working<'a>, at: &MatchOf<'a, Self>) -> Cow<'a, Rack> {
        let (entry, lost_pair) = (at.entry, work.lost_pair[at.i]);
        let new = || Rack::new(at.new_id, entry.name.clone());
        let mut row = at.stored.cloned().unwrap_or_else(new);
        row.deleted_at = None;
        row.external_id = entry.rack_id().map(str::to_owned);
        if !self.lost_name[at.i] && !entry.name.is_empty() {
            row.name.clone_from(&entry.name);
        }
        if at.stored.is_none() || self.pairs_follow_core {
            let keeps = |half: &Option<SmolStr>| {
                let half = half.as_ref().filter(|_| !lost_pair);
                half.map(SmolStr::to_string)
            };
            row.manufacturer = keeps(&entry.manufacturer);
            row.serial_number = keeps(&entry.serial);
        }
        let clear = work.given.policy.clear;
        row.description = description(entry, row.description.as_ref(), clear);
        if clear == Clear::Clear || entry.location.is_some() {
            row.location.clone_from(&entry.location);
        }
        row.rack_profile_id = entry.rack_profile_id.as_ref().map(SmolStr::to_string);
        Cow::Owned(row)
    }

    fn written(&mut self, work: &mut Working<'a>, at: &MatchOf<'a, Self>, after: &Rack) -> Ops {
        let mut ops = work.count(at.stored, after);
        let id = after.external_id.as_ref();
        if id.is_some() && at.stored.is_some_and(|row| row.external_id.as_ref() != id) {
            work.plan.counters.adopted += 1;
            ops.to_mut()
                .insert(0, (Op::Adopt, "the rack with this pair has this rack_id"));
        }
        ops
    }
}

impl<'a> Racks<'a> {
    /// Who gets which name. Gives the names that were won.
    fn settle_names(&mut self, work: &mut Working<'a>) -> HashSet<&'a str> {
        let mut names: HashSet<&'a str> = HashSet::new();
        if work.given.policy.names != Names::Unique {
            return names;
        }
        let fixed = self.fixed_names(work);
        let bidders = work.entries.iter().enumerate();
        let bidders = bidders.filter(|(i, _)| !work.out[*i]);
        let bidders = bidders.map(|(i, entry)| (i, entry, work.row(i)));
        let bidders: Vec<(usize, &'a WantedRack, Option<&'a Rack>)> = bidders.collect();
        let live = bidders
            .iter()
            .filter_map(|(.., row)| row.filter(|row| row.is_live()));
        let mut held: HashSet<&str> = live.map(|row| row.name.as_str()).collect();
        held.extend(&fixed);
        let bids = bidders.iter().map(|(_, entry, row)| {
            // A tombstone that Core lists again has its name too, unless a live rack has it.
            let has = row.filter(|row| row.is_live() || held.insert(&row.name));
            Bid {
                wants: entry.name.as_str(),
                has: has.map(|row| row.name.as_str()),
            }
        });
        let bids: Vec<Bid<'a>> = bids.collect();
        let won = decide(&bids, &fixed);
        for (((i, entry, row), bid), won) in bidders.into_iter().zip(&bids).zip(won) {
            if won {
                names.insert(bid.wants);
                continue;
            }
            self.lost_name[i] = true;
            work.plan.counters.skipped_name_taken += 1;
            if row.is_none_or(|row| !row.is_live()) {
                work.take_out(i, "skipped: another rack has its name");
            }
            let why = format!("another rack has the name {:?}", bid.wants);
            work.plan.warn("rack_name_taken", entry.label(), why);
        }
        names
    }

    /// Names of rows that take part in nothing and are not up for anybody: live ones, and
    /// tombstones that Core still lists, because they are to live again under their old id. From
    /// an incomplete response nobody knows which those are.
    fn fixed_names(&self, work: &Working<'a>) -> HashSet<&'a str> {
        let fixed = work.rows.iter().enumerate().filter(|(i, row)| {
            // A row whose entry is left out keeps its name as well.
            let claimant = work.claimant(*i);
            let bids = claimant.is_some_and(|entry| !work.out[entry]);
            let listed = !work.given.complete || claimant.is_some() || work.was_seen(self, row);
            !bids && !work.deleted.contains(i) && (row.is_live() || listed)
        });
        fixed.map(|(_, row)| row.name.as_str()).collect()
    }
}

/// `{model, text}` as it will be.
fn description(entry: &WantedRack, stored: Option<&Json>, clear: Clear) -> Option<Json> {
    let kept = match (&entry.text, clear) {
        (None, Clear::Preserve) => {
            stored.and_then(|json| json.entries().get("text")?.as_str().map(str::to_owned))
        }
        _ => None,
    };
    let text = entry.text.as_deref().or(kept.as_deref());
    Json::object([("model", entry.model.as_deref()), ("text", text)])
}
