//! A kind that exists in tests only: what a new one costs is this `impl`, and its entry in `inventory::Kind`.

use super::reconcile::{Entity, Match, Work};
use super::{Given, Plan};
use crate::inventory::{Component, ComponentType, Kind, Pair};
use crate::mirror::policy::{Policy, Profile};
use crate::mirror::spec::{Sighting, SkippedEntry, WantedRow};
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::HashMap;
use uuid::Uuid;

/// A coolant distribution unit: recognised by its hardware, and nothing of it is shared.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct WantedCdu {
    serial: SmolStr,
    name: Option<SmolStr>,
}

impl WantedRow for WantedCdu {
    fn pair(&self) -> Option<Pair<'_>> {
        Pair::of(Some("Motivair"), Some(&self.serial))
    }

    fn label(&self) -> String {
        self.serial.to_string()
    }

    fn sighting(&self) -> Sighting {
        Sighting {
            manufacturer: Some("Motivair".into()),
            serial: Some(self.serial.clone()),
            ..Sighting::default()
        }
    }
}

struct Cdus;

impl<'a> Entity<'a> for Cdus {
    type Wanted = WantedCdu;
    type Row = Component;

    fn claim(&mut self, work: &mut Work<'a, WantedCdu, Component>) {
        work.claim_by("identity: same pair", |work, i| Ok(work.holder(i)));
    }

    fn row(
        &mut self,
        _: &mut Work<'a, WantedCdu, Component>,
        at: &Match<'a, WantedCdu, Component>,
    ) -> Cow<'a, Component> {
        let new = || Component::new(at.new_id, ComponentType::Cdu);
        Cow::Owned(Component {
            manufacturer: Some("Motivair".into()),
            serial_number: Some(at.entry.serial.clone()),
            name: at.entry.name.clone(),
            deleted_at: None,
            ..at.stored.cloned().unwrap_or_else(new)
        })
    }
}

/// A table of units, and what Core says of it.
struct Table {
    rows: Vec<Component>,
    absent: HashMap<Uuid, u32>,
    policy: Policy,
}

impl Table {
    fn cycle(
        &mut self,
        serials: &[(&str, &str)],
        skipped: &[SkippedEntry],
        complete: bool,
    ) -> Plan {
        let wanted = serials.iter().map(|(serial, name)| WantedCdu {
            serial: (*serial).into(),
            name: (!name.is_empty()).then(|| (*name).into()),
        });
        let mut entries: Vec<WantedCdu> = wanted.collect();
        entries.sort_unstable();
        let given = Given {
            kind: Kind::PowerShelf,
            skipped,
            complete,
            absent: &self.absent,
            policy: &self.policy,
            approval: None,
            now: "2026-11-21T10:00:00Z",
            trace: true,
        };
        let mut next = self.rows.len() as u128;
        let mut new_id = || {
            next += 1;
            Uuid::from_u128(next)
        };
        let mut work = Work::new(given, &entries, &self.rows, Plan::new(given.kind));
        work.see(&[]);
        work.reconcile(&mut Cdus, &mut new_id);
        let plan = work.finish();
        for change in &plan.changes {
            self.rows.retain(|row| row.id != change.key.id().unwrap());
            if let Some(crate::inventory::Row::Component(row)) = &change.after {
                self.rows.push(row.as_ref().clone());
            }
        }
        self.rows.sort_unstable_by_key(|row| row.id);
        for (id, times) in &plan.absences {
            self.absent.insert(*id, *times);
        }
        plan
    }

    fn live(&self) -> Vec<&str> {
        let live = self.rows.iter().filter(|row| row.is_live());
        live.filter_map(|row| row.serial_number.as_deref())
            .collect()
    }
}

fn table(delete_grace: u32) -> Table {
    Table {
        rows: Vec::new(),
        absent: HashMap::new(),
        policy: Policy {
            delete_grace,
            max_deletes: 1,
            ..Policy::of(Profile::NaturalKey)
        },
    }
}

/// The loss: a kind that has to bring its own tombstones, guard and counters, and forgets one of them.
#[test]
fn a_new_kind_is_inserted_updated_deleted_and_lives_again_under_its_id() {
    let mut table = table(1);
    let plan = table.cycle(&[("a", ""), ("b", "")], &[], true);
    assert_eq!((plan.counters.pulled, plan.counters.inserted), (2, 2));
    assert!(
        table
            .cycle(&[("b", ""), ("a", "")], &[], true)
            .changes
            .is_empty()
    );
    let plan = table.cycle(&[("a", "left"), ("b", "")], &[], true);
    assert_eq!((plan.counters.updated, plan.changes.len()), (1, 1));
    let id = table.rows[0].id;
    let plan = table.cycle(&[("b", "")], &[], true);
    assert_eq!(plan.counters.soft_deleted, 1);
    assert_eq!(table.live(), ["b"]);
    let plan = table.cycle(&[("a", "right"), ("b", "")], &[], true);
    assert_eq!(plan.counters.resurrected, 1);
    assert_eq!((table.rows[0].id, table.live()), (id, vec!["a", "b"]));
}

#[test]
fn a_new_kind_is_protected_by_guard_grace_and_what_was_seen() {
    let mut table = table(2);
    table.cycle(&[("a", ""), ("b", ""), ("c", "")], &[], true);
    // Half an answer says nothing about the rest, and an entry that lacks something is still there.
    assert!(table.cycle(&[], &[], false).changes.is_empty());
    let skipped = SkippedEntry {
        reasons: Vec::new(),
        sighting: Sighting {
            serial: Some("b".into()),
            ..Sighting::default()
        },
    };
    let plan = table.cycle(&[("c", "")], std::slice::from_ref(&skipped), true);
    assert_eq!(plan.absences, [(table.rows[0].id, 1)]);
    let plan = table.cycle(&[("c", "")], &[skipped], true);
    assert_eq!(plan.counters.soft_deleted, 1);
    assert_eq!(table.live(), ["b", "c"]);
    table.cycle(&[], &[], true);
    // Two of two are more than the guard lets go, once both were missing twice.
    table.policy.empty = crate::mirror::policy::Empty::Guarded;
    table.cycle(&[], &[], true);
    let plan = table.cycle(&[], &[], true);
    assert_eq!(plan.counters.withheld_deletes, 2);
    assert!(
        plan.trace
            .iter()
            .all(|decision| decision.rule.contains("withheld"))
    );
    assert_eq!(table.live(), ["b", "c"]);
}
