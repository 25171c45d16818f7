//! The rows of the entries as they will be.

use super::{Planner, find_bmc, sighting_keys};
use crate::inventory::{Bmc, BmcType, Component, Json, Row};
use crate::mirror::plan::{Decision, Op, same_text};
use crate::mirror::policy::{Clear, Identity, Profile};
use crate::mirror::spec::component::{Address, Position, WantedComponent};
use std::borrow::Cow;
use uuid::Uuid;

/// The key under which a component's description keeps what Core says.
const EXPECTED_DESCRIPTION: &str = "expected_description";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Same,
    Updated,
    Resurrected,
    Inserted,
}

impl Planner<'_> {
    /// Whoever holds a pair that goes to an entry lets go of it, in whatever type or state.
    pub(super) fn release_pairs(&mut self) {
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
                        let row = self.draft.edit(row, Op::PairRelease, why);
                        (row.manufacturer, row.serial_number) = (None, None);
                    }
                }
                None if self.input.present.foreign.is_empty() => {}
                None => {
                    if let Some(row) = self.input.present.foreign.get(&pair.key()) {
                        let row = self.draft.edit(row, Op::PairRelease, why);
                        (row.manufacturer, row.serial_number) = (None, None);
                    }
                }
            }
        }
    }

    pub(super) fn write(&mut self, new_id: &mut dyn FnMut() -> Uuid) {
        let entries = self.entries;
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
            let bmc_changed = !self.no_bmc[i] && self.write_bmc(i, entry, id);
            match outcome {
                Outcome::Inserted => self.counters.inserted += 1,
                Outcome::Resurrected => {
                    self.counters.resurrected += 1;
                    self.counters.updated += 1;
                }
                Outcome::Updated => self.counters.updated += 1,
                Outcome::Same if bmc_changed => self.counters.updated += 1,
                Outcome::Same => {}
            }
        }
    }

    fn resolve_rack(&mut self, entry: &WantedComponent) -> Option<Uuid> {
        let rack_id = entry.rack_id.as_ref()?;
        let found = self.input.present.racks.get(rack_id.as_str()).copied();
        if found.is_none() && self.input.racks_pulled {
            let why = format!("no live rack {}", rack_id.as_str());
            self.warn("unresolved_rack", entry.label(), why);
        } else if found.is_none() {
            self.unresolved_racks += 1;
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
        let after = self.draft.edit(row, op, why);
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
        self.draft.put(
            None,
            Row::Component(Box::new(row)),
            Op::Insert,
            "Core lists it",
        );
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
    fn write_bmc(&mut self, i: usize, entry: &WantedComponent, id: Uuid) -> bool {
        let stored = self.bmc_of[i].copied();
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
        let hosts = self.claims.row(i).map(|row| self.hosts.of(row).to_vec());
        for mac in hosts.unwrap_or_default() {
            // A BMC that another entry has is evicted by that entry.
            if mac == entry.mac || self.taken_macs.contains(&mac) {
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
