//! The racks as they will be.

use super::Planner;
use crate::inventory::{Json, Rack, Row};
use crate::mirror::plan::component::sighting_keys;
use crate::mirror::plan::{Decision, Op};
use crate::mirror::policy::Clear;
use crate::mirror::spec::rack::WantedRack;
use uuid::Uuid;

impl Planner<'_> {
    /// Whoever holds a pair that goes to an entry lets go of it.
    pub(super) fn release_pairs(&mut self) {
        if !self.pairs_follow_core() {
            return;
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair().filter(|_| !self.lost_pair[i] && !self.out[i]) else {
                continue;
            };
            let Some(holder) = self.row_of_pair.get(&pair).copied() else {
                continue;
            };
            // A holder that is written, by the entry itself or another, gets its own pair then.
            if self
                .claims
                .entry(holder)
                .is_some_and(|entry| !self.out[entry])
            {
                continue;
            }
            if let Some(row) = self.input.present.rows.get(holder) {
                let why = "the pair goes to another rack";
                let row = self.draft.edit(row, Op::PairRelease, why);
                (row.manufacturer, row.serial_number) = (None, None);
            }
        }
    }

    pub(super) fn write(&mut self, new_id: &mut dyn FnMut() -> Uuid) {
        for (i, entry) in self.entries.iter().enumerate() {
            let claimed = self.claims.row(i).and_then(|row| self.row(row));
            if self.input.trace {
                let mut keys = sighting_keys(&entry.sighting());
                keys.push(entry.name.clone());
                keys.extend(claimed.map(|row| row.id.to_string()));
                let rule = match claimed {
                    Some(row) => format!(
                        "entry {} has row {}: {}",
                        entry.label(),
                        row.id,
                        self.rules[i]
                    ),
                    None if self.out[i] => format!("entry {}: {}", entry.label(), self.rules[i]),
                    None => format!("entry {} gets a new row: {}", entry.label(), self.rules[i]),
                };
                self.trace.push(Decision { keys, rule });
            }
            if self.out[i] {
                continue;
            }
            match claimed {
                Some(row) => self.update(i, entry, row),
                None => self.insert(i, entry, new_id()),
            }
        }
    }

    fn update(&mut self, i: usize, entry: &WantedRack, row: &Rack) {
        let mut after = row.clone();
        after.deleted_at = None;
        after.external_id = entry.rack_id.as_ref().map(|id| id.as_str().to_owned());
        let adopted = after.external_id != row.external_id && after.external_id.is_some();
        if !self.lost_name[i] && !entry.name.is_empty() {
            after.name.clone_from(&entry.name);
        }
        if self.pairs_follow_core() {
            let lost = self.lost_pair[i];
            after.manufacturer = entry.manufacturer.clone().filter(|_| !lost);
            after.serial_number = entry.serial.clone().filter(|_| !lost);
        }
        after.description = self.description(entry, row.description.as_ref());
        after.location = self.location(entry, row.location.as_ref());
        after.rack_profile_id.clone_from(&entry.rack_profile_id);
        if after == *row {
            return;
        }
        let resurrected = !row.is_live();
        if adopted {
            self.counters.adopted += 1;
            let why = "the rack with this pair has this rack_id";
            self.draft.edit(row, Op::Adopt, why);
        }
        if resurrected {
            self.counters.resurrected += 1;
            self.draft.edit(row, Op::Resurrect, "Core lists it again");
        }
        self.counters.updated += 1;
        *self.draft.edit(row, Op::Update, "Core says so") = after;
    }

    fn insert(&mut self, i: usize, entry: &WantedRack, id: Uuid) {
        let lost = self.lost_pair[i];
        let row = Rack {
            manufacturer: entry.manufacturer.clone().filter(|_| !lost),
            serial_number: entry.serial.clone().filter(|_| !lost),
            external_id: entry.rack_id.as_ref().map(|id| id.as_str().to_owned()),
            description: self.description(entry, None),
            location: entry.location.clone(),
            rack_profile_id: entry.rack_profile_id.clone(),
            ..Rack::new(id, entry.name.clone())
        };
        self.counters.inserted += 1;
        self.draft
            .put(None, Row::Rack(Box::new(row)), Op::Insert, "Core lists it");
    }

    /// The location as it will be.
    fn location(&self, entry: &WantedRack, stored: Option<&Json>) -> Option<Json> {
        match self.input.policy.clear {
            Clear::Preserve => entry.location.as_ref().or(stored).cloned(),
            Clear::Clear => entry.location.clone(),
        }
    }

    /// `{model, text}` as it will be.
    fn description(&self, entry: &WantedRack, stored: Option<&Json>) -> Option<Json> {
        let kept = match (&entry.text, self.input.policy.clear) {
            (None, Clear::Preserve) => {
                stored.and_then(|json| json.entries().get("text")?.as_str().map(str::to_owned))
            }
            _ => None,
        };
        let text = entry.text.as_deref().or(kept.as_deref());
        Json::object([("model", entry.model.as_deref()), ("text", text)])
    }
}
