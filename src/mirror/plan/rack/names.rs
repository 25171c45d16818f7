//! Names of racks, where each belongs to one row.

use super::Planner;
use crate::inventory::{Rack, Row};
use crate::mirror::plan::Op;
use crate::mirror::plan::names::{Bid, decide};
use crate::mirror::policy::Names;
use crate::mirror::spec::rack::WantedRack;
use std::collections::HashSet;

impl<'a> Planner<'a> {
    /// Who gets which name. Gives the names that were won.
    pub(super) fn settle_names(&mut self) -> HashSet<&'a str> {
        let mut names: HashSet<&'a str> = HashSet::new();
        if self.input.policy.names != Names::Unique {
            return names;
        }
        let fixed = self.fixed_names();
        let bidders: Vec<usize> = (0..self.entries.len()).filter(|i| !self.out[*i]).collect();
        let rows = bidders
            .iter()
            .map(|i| self.claims.row(*i).and_then(|row| self.row(row)));
        let rows: Vec<Option<&'a Rack>> = rows.collect();
        let live = rows.iter().flatten().filter(|row| row.is_live());
        let mut held: HashSet<&str> = live.map(|row| row.name.as_str()).collect();
        held.extend(&fixed);
        let entries = self.entries;
        let bids: Vec<Bid<'a>> = bidders
            .iter()
            .zip(&rows)
            .filter_map(|(i, row)| {
                // A tombstone that Core lists again has its name too, unless a live rack has it.
                let has = row.filter(|row| row.is_live() || held.insert(&row.name));
                Some(Bid {
                    wants: &entries.get(*i)?.name,
                    has: has.map(|row| row.name.as_str()),
                })
            })
            .collect();
        let won = decide(&bids, &fixed);
        for (((i, row), bid), won) in bidders.iter().zip(&rows).zip(&bids).zip(won) {
            if won {
                names.insert(bid.wants);
                continue;
            }
            self.lost_name[*i] = true;
            self.counters.skipped_name_taken += 1;
            if row.is_none_or(|row| !row.is_live()) {
                self.out[*i] = true;
                self.rules[*i] = "skipped: another rack has its name";
            }
            let label = self.entries.get(*i).map(WantedRack::label);
            let why = format!("another rack has the name {:?}", bid.wants);
            self.warn("rack_name_taken", label.unwrap_or_default(), why);
        }
        names
    }

    /// Names of rows that take part in nothing and are not up for anybody: live ones, and
    /// tombstones that Core still lists, because they are to live again under their old id. From
    /// an incomplete response nobody knows which those are.
    fn fixed_names(&self) -> HashSet<&'a str> {
        let rows = self.input.present.rows.iter().enumerate();
        let fixed = rows.filter(|(i, row)| {
            // A row whose entry is left out keeps its name as well.
            let bids = self.claims.entry(*i).is_some_and(|entry| !self.out[entry]);
            let listed = !self.input.complete || self.claims.is_claimed(*i) || self.was_seen(row);
            !bids && !self.deleted.contains(i) && (row.is_live() || listed)
        });
        fixed.map(|(_, row)| row.name.as_str()).collect()
    }

    /// Tombstones in the way of a name go for good.
    pub(super) fn clear_tombstones(&mut self, names: &HashSet<&str>) {
        for (i, row) in self.input.present.rows.iter().enumerate() {
            let stays_dead = !row.is_live() && !self.claims.is_claimed(i);
            if (stays_dead || self.deleted.contains(&i)) && names.contains(row.name.as_str()) {
                let why = "a tombstone is in the way of a name";
                self.draft
                    .remove(Row::Rack(Box::new(row.clone())), Op::TombstoneGc, why);
                self.counters.hard_deleted += 1;
            }
        }
    }
}
