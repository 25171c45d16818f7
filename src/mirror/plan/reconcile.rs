//! One reconciliation of stored rows with what Core wants, over any [`Entity`].
//!
//! An entity says how its rows are recognised, what only one of them may have, and what a row shall hold;
//! the steps, their order, tombstones, the guard, counters and decisions are the same for all.

use super::guard::{Candidate, judge};
use super::{FastMap, FastSet, Given, Plan};
use crate::inventory::{Component, Pair, Record};
use crate::mirror::change::{Draft, Op, Ops};
use crate::mirror::spec::{Seen, WantedRow};
use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use uuid::Uuid;

/// A kind of row that Core decides about.
pub(super) trait Entity<'a> {
    /// An entry as Core wants it, checked.
    type Wanted: WantedRow + 'a;
    /// A stored row.
    type Row: Record + 'a;

    /// Claims rows for entries: all identities before all fallbacks.
    fn claim(&mut self, work: &mut Of<'a, Self>);

    /// Decides who gets what only one may have, and takes out entries that cannot be written.
    fn settle(&mut self, _work: &mut Of<'a, Self>) {}

    /// Whether an entry that claims nothing may be this row, by other marks than its hardware.
    fn is_seen(&self, _work: &Of<'a, Self>, _row: &Self::Row) -> bool {
        false
    }

    /// What becomes of a live row that no entry claimed.
    fn unclaimed(&mut self, work: &mut Of<'a, Self>, row: &'a Self::Row) -> Fate {
        work.fate_unless_seen(self, row)
    }

    /// Frees what entries are about to take, once it is known which rows go.
    fn make_room(&mut self, _work: &mut Of<'a, Self>) {}

    /// The row of an entry as it will be; borrowed where it stays as it is.
    fn row(&mut self, work: &mut Of<'a, Self>, at: &MatchOf<'a, Self>) -> Cow<'a, Self::Row>;

    /// Counts what is written, and says what it is called; nothing is where the row stays as it is.
    fn written(
        &mut self,
        work: &mut Of<'a, Self>,
        at: &MatchOf<'a, Self>,
        after: &Self::Row,
    ) -> Ops {
        work.count(at.stored, after)
    }
}

/// The reconciliation of an entity.
pub(super) type Of<'a, E> = Work<'a, <E as Entity<'a>>::Wanted, <E as Entity<'a>>::Row>;

/// An entry of an entity, and its row.
pub(super) type MatchOf<'a, E> = Match<'a, <E as Entity<'a>>::Wanted, <E as Entity<'a>>::Row>;

/// An entry that is written, and the row that it has.
pub(super) struct Match<'a, W, R> {
    /// Place of the entry.
    pub(super) i: usize,
    pub(super) entry: &'a W,
    pub(super) stored: Option<&'a R>,
    /// Id for a row that is not there yet.
    pub(super) new_id: Uuid,
}

/// What becomes of a row that no entry claimed.
pub(super) enum Fate {
    Keep,
    /// It becomes a tombstone, as far as grace and guard let it.
    Delete,
    /// It goes for good, unguarded.
    Remove(Op, &'static str),
}

/// One reconciliation while it is under way: entry by entry and row by row what was decided.
///
/// Places of entries and rows come from counting these lists, never from what is in them: lists with one element
/// for each of them are indexed.
pub(super) struct Work<'a, W, R> {
    pub(super) given: Given<'a>,
    pub(super) entries: &'a [W],
    /// All rows, tombstones included, by key.
    pub(super) rows: &'a [R],
    row_of: Vec<Option<usize>>,
    entry_of: Vec<Option<usize>>,
    /// How each entry came to its row, or why it has none.
    rules: Vec<&'static str>,
    /// Entries that may not have the pair they want.
    pub(super) lost_pair: Vec<bool>,
    /// Entries that are not written at all.
    pub(super) out: Vec<bool>,
    /// The row that holds the pair of each entry.
    holders: Vec<Option<usize>>,
    /// Places of rows by id, once one was looked for.
    row_of_id: OnceCell<FastMap<Uuid, usize>>,
    /// Marks of entries that claim nothing.
    pub(super) seen: Seen,
    /// The response held no entry at all.
    empty: bool,
    /// Pairs that go to entries recognise no other row.
    takes_pairs: bool,
    /// These pairs, once somebody asked.
    taken_pairs: OnceCell<FastSet<Pair<'a>>>,
    /// Rows that become tombstones.
    pub(super) deleted: HashSet<usize>,
    pub(super) draft: Draft,
    pub(super) plan: Plan,
}

impl<'a, W: WantedRow, R: Record> Work<'a, W, R> {
    /// Entries are sorted, and none names a row twice; rows are sorted by key.
    pub(super) fn new(given: Given<'a>, entries: &'a [W], rows: &'a [R], plan: Plan) -> Self {
        let pairs = rows.iter().enumerate();
        let row_of_pair: FastMap<Pair<'a>, usize> = pairs
            .filter_map(|(i, row)| Some((row.pair()?, i)))
            .collect();
        let holder = |entry: &W| row_of_pair.get(&entry.pair()?).copied();
        let holders = match row_of_pair.is_empty() {
            true => vec![None; entries.len()],
            false => entries.iter().map(holder).collect(),
        };
        Self {
            given,
            entries,
            rows,
            row_of: vec![None; entries.len()],
            entry_of: vec![None; rows.len()],
            rules: vec!["nothing is there that it could be"; entries.len()],
            lost_pair: vec![false; entries.len()],
            out: vec![false; entries.len()],
            holders,
            row_of_id: OnceCell::new(),
            seen: Seen::default(),
            empty: false,
            takes_pairs: false,
            taken_pairs: OnceCell::new(),
            deleted: HashSet::new(),
            draft: Draft::default(),
            plan,
        }
    }

    /// Counts the response. Entries that are skipped or `dropped` claim nothing, but are there.
    pub(super) fn see(&mut self, dropped: &[W]) {
        let skipped = self.given.skipped;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.plan.counters.skipped_invalid = count(skipped.len());
        self.plan.counters.pulled = count(self.entries.len() + dropped.len() + skipped.len());
        self.empty = self.plan.counters.pulled == 0;
        let reasons = skipped.iter().flat_map(|entry| &entry.reasons);
        self.plan.warnings.extend(reasons.cloned());
        let dropped = dropped.iter().map(W::sighting);
        for sighting in skipped.iter().map(|s| s.sighting.clone()).chain(dropped) {
            self.seen.add(&sighting);
            if self.given.trace {
                let rule = "entry skipped (see the warnings); it counts as present, so its row is not deleted";
                self.plan.note(sighting.keys(), rule);
            }
        }
    }

    /// Takes every step.
    pub(super) fn reconcile<E: Entity<'a, Wanted = W, Row = R>>(
        &mut self,
        entity: &mut E,
        new_id: &mut dyn FnMut() -> Uuid,
    ) {
        entity.claim(self);
        entity.settle(self);
        self.forget_absences(entity);
        self.delete(entity);
        entity.make_room(self);
        self.write(entity, new_id);
    }

    /// The plan, with its changes.
    pub(super) fn finish(mut self) -> Plan {
        self.plan.changes = self.draft.finish(self.given.now);
        self.plan
    }

    /// The row that an entry claimed.
    pub(super) fn row(&self, entry: usize) -> Option<&'a R> {
        self.rows.get(self.claimed(entry)?)
    }

    pub(super) fn claimed(&self, entry: usize) -> Option<usize> {
        self.row_of.get(entry).copied().flatten()
    }

    /// The entry that claimed a row.
    pub(super) fn claimant(&self, row: usize) -> Option<usize> {
        self.entry_of.get(row).copied().flatten()
    }

    /// The row that holds the pair that an entry wants and did not lose.
    pub(super) fn holder(&self, entry: usize) -> Option<usize> {
        let holder = self.holders.get(entry).copied().flatten();
        holder.filter(|_| !self.lost_pair[entry])
    }

    pub(super) fn row_of_id(&self, id: Uuid) -> Option<usize> {
        let rows = self.row_of_id.get_or_init(|| {
            let rows = self.rows.iter().enumerate();
            rows.filter_map(|(i, row)| Some((row.key().id()?, i)))
                .collect()
        });
        rows.get(&id).copied()
    }

    /// The pair that an entry wants and did not lose.
    pub(super) fn pair(&self, entry: usize) -> Option<Pair<'a>> {
        let pair = self.entries.get(entry)?.pair();
        pair.filter(|_| !self.lost_pair[entry])
    }

    /// Entries and their pairs.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (usize, Pair<'a>)> + Clone {
        (0..self.entries.len()).filter_map(|i| Some((i, self.pair(i)?)))
    }

    /// One round of claims: each entry without a row takes the one that `find` gives unless another has it. An
    /// error is why it may not have one.
    pub(super) fn claim_by(
        &mut self,
        rule: &'static str,
        find: impl Fn(&Self, usize) -> Result<Option<usize>, &'static str>,
    ) {
        for entry in 0..self.entries.len() {
            if self.row_of[entry].is_some() {
                continue;
            }
            match find(self, entry) {
                Err(why) => self.rules[entry] = why,
                Ok(Some(row)) if self.entry_of[row].is_none() => {
                    self.row_of[entry] = Some(row);
                    self.entry_of[row] = Some(entry);
                    self.rules[entry] = rule;
                }
                Ok(_) => {}
            }
        }
    }

    pub(super) fn take_out(&mut self, entry: usize, rule: &'static str) {
        self.out[entry] = true;
        self.rules[entry] = rule;
    }

    /// Counts the write of a row that may have been a tombstone, and says what it is called.
    pub(super) fn count(&mut self, stored: Option<&R>, after: &R) -> Ops {
        let counters = &mut self.plan.counters;
        let Some(stored) = stored else {
            counters.inserted += 1;
            return Cow::Borrowed(&[(Op::Insert, "Core lists it")]);
        };
        if std::ptr::eq(stored, after) || stored == after {
            return Ops::default();
        }
        counters.updated += 1;
        if stored.is_live() {
            return Cow::Borrowed(&[(Op::Update, "Core says so")]);
        }
        counters.resurrected += 1;
        Cow::Borrowed(&[
            (Op::Resurrect, "Core lists it again"),
            (Op::Update, "Core says so"),
        ])
    }

    /// From now on the pairs that go to entries recognise no other row.
    pub(super) fn take_pairs(&mut self) {
        self.takes_pairs = true;
    }

    /// Whether an entry that claims nothing may be this row. What goes to another entry in this
    /// very plan recognises the row no longer: next time it would not, and the row would flap.
    pub(super) fn was_seen<E>(&self, entity: &E, row: &R) -> bool
    where
        E: Entity<'a, Wanted = W, Row = R> + ?Sized,
    {
        let (manufacturer, serial) = row.halves();
        let loses_pair = || {
            let is_taken = |pair| self.takes_pairs && self.taken_pairs().contains(&pair);
            row.pair().is_some_and(is_taken)
        };
        entity.is_seen(self, row) || (self.seen.hardware(manufacturer, serial) && !loses_pair())
    }

    /// What becomes of a row by whether it was seen.
    pub(super) fn fate_unless_seen<E>(&self, entity: &E, row: &R) -> Fate
    where
        E: Entity<'a, Wanted = W, Row = R> + ?Sized,
    {
        match self.was_seen(entity, row) {
            true => Fate::Keep,
            false => Fate::Delete,
        }
    }

    fn taken_pairs(&self) -> &FastSet<Pair<'a>> {
        self.taken_pairs.get_or_init(|| {
            let taken = self.pairs().filter(|(i, _)| !self.out[*i]);
            taken.map(|(_, pair)| pair).collect()
        })
    }

    /// A row that was seen is not missing any more.
    fn forget_absences<E: Entity<'a, Wanted = W, Row = R>>(&mut self, entity: &E) {
        let is_missing = |id: &Uuid| {
            let place = self.row_of_id(*id);
            let row = place.filter(|place| self.entry_of[*place].is_none());
            let row = row.map(|place| &self.rows[place]);
            row.is_some_and(|row| row.is_live() && !self.was_seen(entity, row))
        };
        let absent = self.given.absent.keys();
        let mut back: Vec<Uuid> = absent.copied().filter(|id| !is_missing(id)).collect();
        back.sort_unstable();
        self.plan.absences = back.into_iter().map(|id| (id, 0)).collect();
    }

    /// Live rows nobody claimed and nobody saw.
    fn delete<E: Entity<'a, Wanted = W, Row = R>>(&mut self, entity: &mut E) {
        if !self.given.complete {
            return;
        }
        let mut candidates = Vec::new();
        let mut live = 0;
        for (i, row) in self.rows.iter().enumerate().filter(|(_, r)| r.is_live()) {
            live += 1;
            if self.entry_of[i].is_some() {
                continue;
            }
            match (entity.unclaimed(self, row), row.key().id()) {
                (Fate::Delete, Some(id)) => candidates.push(Candidate {
                    row: i,
                    id,
                    label: row.label(),
                }),
                (Fate::Remove(op, why), _) => {
                    self.draft.remove(row, op, why);
                    self.plan.counters.hard_deleted += 1;
                }
                (Fate::Keep | Fate::Delete, _) => {}
            }
        }
        for candidate in judge(&self.given, &mut self.plan, candidates, live, self.empty) {
            let (row, why) = (&self.rows[candidate.row], "Core does not list it any more");
            let row = self.draft.edit(row, Op::SoftDelete, why);
            row.bury(self.given.now);
            self.deleted.insert(candidate.row);
            self.plan.counters.soft_deleted += 1;
        }
        let withheld = u64::try_from(self.plan.withheld.len());
        self.plan.counters.withheld_deletes = withheld.unwrap_or(u64::MAX);
    }

    /// Whoever holds a pair that goes to an entry lets go of it, in whatever state. `foreign` are rows of other
    /// types that hold one, by [`Pair::key`].
    pub(super) fn release_pairs(
        &mut self,
        foreign: &HashMap<Box<str>, Component>,
        why: &'static str,
    ) {
        for i in 0..self.entries.len() {
            let holder = self.holder(i);
            if self.out[i] || (holder.is_some() && holder == self.claimed(i)) {
                continue;
            }
            // No key is made where nobody could have it.
            let pair = self
                .pair(i)
                .filter(|_| holder.is_none() && !foreign.is_empty());
            match (holder, pair.and_then(|pair| foreign.get(&pair.key()))) {
                // A holder that is written, by the entry itself or another, gets its own pair then.
                (Some(row), _) if self.claimant(row).is_some_and(|entry| !self.out[entry]) => {}
                (Some(row), _) => {
                    let row = self.draft.edit(&self.rows[row], Op::PairRelease, why);
                    row.release_pair();
                }
                (None, Some(row)) => self.draft.edit(row, Op::PairRelease, why).release_pair(),
                (None, None) => {}
            }
        }
    }

    fn write<E: Entity<'a, Wanted = W, Row = R>>(
        &mut self,
        entity: &mut E,
        new_id: &mut dyn FnMut() -> Uuid,
    ) {
        for (i, entry) in self.entries.iter().enumerate() {
            let stored = self.row(i);
            if self.given.trace {
                self.note_entry(i, entry, stored);
            }
            if self.out[i] {
                continue;
            }
            let at = Match {
                i,
                entry,
                stored,
                new_id: stored.map_or_else(&mut *new_id, |_| Uuid::nil()),
            };
            let after = entity.row(self, &at);
            let ops = entity.written(self, &at, &after);
            if !ops.is_empty() {
                self.draft.put(stored, after.into_owned(), ops);
            }
        }
    }

    fn note_entry(&mut self, i: usize, entry: &W, row: Option<&R>) {
        let mut keys = entry.sighting().keys();
        keys.extend(entry.name().map(str::to_owned));
        keys.extend(row.map(|row| row.key().to_string()));
        let (label, rule) = (entry.label(), self.rules[i]);
        let rule = match row {
            Some(row) => format!("entry {label} has row {}: {rule}", row.key()),
            None if self.out[i] => format!("entry {label}: {rule}"),
            None => format!("entry {label} gets a new row: {rule}"),
        };
        self.plan.note(keys, rule);
    }
}

/// Entries that lose a value which only one of them may have, in order: it goes to the one that `has` it, else
/// to the first that wants it.
pub(super) fn losers<K: Eq + Hash>(
    wants: impl Iterator<Item = (usize, K)> + Clone,
    has: impl Fn(usize, &K) -> bool,
) -> Vec<usize> {
    let mut wanted = FastSet::default();
    if wants.clone().all(|(_, value)| wanted.insert(value)) {
        return Vec::new();
    }
    drop(wanted);
    let mut owner: FastMap<K, usize> = FastMap::default();
    for (i, value) in wants.clone() {
        if has(i, &value) {
            owner.entry(value).or_insert(i);
        }
    }
    let lost = wants.filter_map(|(i, value)| (*owner.entry(value).or_insert(i) != i).then_some(i));
    lost.collect()
}

#[cfg(test)]
mod tests {
    use super::losers;

    /// The loss: two entries with one pair and one BMC take turns in every cycle.
    #[test]
    fn a_value_goes_to_the_first_that_has_it_else_to_the_first_that_wants_it() {
        let wants = [(0, 'a'), (1, 'b'), (2, 'a'), (3, 'a'), (4, 'b')];
        let lost = |has: &[usize]| losers(wants.into_iter(), |i, _| has.contains(&i));
        assert_eq!(lost(&[]), [2, 3, 4]);
        assert_eq!(lost(&[2, 3]), [0, 3, 4]);
        assert_eq!(lost(&[0, 3, 4]), [1, 2, 3]);
    }
}
