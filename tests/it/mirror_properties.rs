//! What holds for every fleet, tried on small random ones in which everything clashes.
//!
//! Each test loses something worth having when it fails: rows that flap, a swap that aborts a
//! transaction, a column of somebody else overwritten, deletes because of half an answer.

use crate::support::mirror::without_times;
use afferent::inventory::Kind;
use afferent::mirror::core::{Core, Device, Pull, Pulled};
use afferent::mirror::cycle::{AlwaysOpen, Cycle, run_cycle};
use afferent::mirror::diagnostics::Summary;
use afferent::mirror::dump;
use afferent::mirror::entry::CoreEntry;
use afferent::mirror::planfile::{PlanSnapshot, PlanView, preview};
use afferent::mirror::policy::{
    Clear, Duplicates, Empty, Identity, Labels, Legacy, Names, Policy, Profile,
};
use afferent::mirror::query::{self, AuditFilter, AuditView};
use afferent::mirror::{self, Store};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use tempfile::TempDir;
use uuid::Uuid;

/// What Core says of one type.
#[derive(Clone, Debug)]
enum List {
    Absent,
    Failed,
    Torn(Vec<Value>),
    Whole(Vec<Value>),
}

/// What Core says, one list per type.
#[derive(Clone, Debug)]
struct Says([List; 4]);

impl Core for Says {
    fn begin(&mut self) {}

    fn expected(&mut self, kind: Kind) -> Pull<CoreEntry> {
        let at = Kind::ALL.iter().position(|k| *k == kind).unwrap();
        let (entries, complete) = match &self.0[at] {
            List::Absent => return Pull::Absent,
            List::Failed => return Pull::Failed("as the test says".into()),
            List::Torn(entries) => (entries, false),
            List::Whole(entries) => (entries, true),
        };
        let read = |entry: &Value| serde_json::from_value(entry.clone()).unwrap();
        Pull::Done(Pulled {
            entries: entries.iter().map(read).collect(),
            complete,
            warnings: Vec::new(),
            no_positions: None,
        })
    }

    fn observed(&mut self, _kind: Kind) -> Pull<Device> {
        Pull::Absent
    }

    fn source(&self) -> String {
        "test".into()
    }
}

/// Tables in a directory, with ids that are counted instead of drawn.
struct Tables {
    _directory: TempDir,
    store: Store,
    policy: Policy,
    next_id: u128,
}

impl Tables {
    fn new(policy: Policy) -> Self {
        let directory = TempDir::new().unwrap();
        Self {
            store: mirror::open(directory.path()).unwrap(),
            _directory: directory,
            policy,
            // Version 4, as real ones are.
            next_id: 0x4000_8000_0000_0000_0000,
        }
    }

    fn cycle(&mut self, says: &Says) -> Summary {
        let next = &mut self.next_id;
        let mut new_id = || {
            *next += 1;
            Uuid::from_u128(*next)
        };
        let cycle = Cycle {
            policy: &self.policy,
            approval: None,
            mirror: true,
            now: "2026-11-21T10:00:00.000Z".into(),
            new_id: &mut new_id,
            gatekeeper: &AlwaysOpen,
        };
        let summary = run_cycle(&self.store, &mut says.clone(), cycle);
        let failed: Vec<_> = summary
            .errors
            .iter()
            .filter(|e| e.code.starts_with("tx_failed"))
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(
            mirror::check(&self.store.snapshot().unwrap()).unwrap(),
            Vec::<String>::new()
        );
        summary
    }

    fn dump(&self) -> Value {
        without_times(&dump::dump(&self.store.snapshot().unwrap()).unwrap())
    }

    fn audit(&self) -> Vec<AuditView> {
        query::audit(&self.store.snapshot().unwrap(), &AuditFilter::default()).unwrap()
    }

    /// Other programs write their columns, and DPUs are observed.
    fn let_others_write(&mut self) {
        let mut tables = dump::dump(&self.store.snapshot().unwrap()).unwrap();
        for (n, row) in tables["rack"]
            .as_array_mut()
            .unwrap()
            .iter_mut()
            .enumerate()
        {
            row["status"] = json!("ingested");
            row["ingested_at"] = json!("2026-01-02T03:04:05Z");
            row["nvldomain_id"] = json!(format!("domain {n}"));
        }
        let components = tables["component"].as_array_mut().unwrap();
        let mut dpus = Vec::new();
        for (n, row) in components.iter_mut().enumerate() {
            row["external_id"] = json!(format!("device {n}"));
            row["firmware_version"] = json!("1.2");
            row["power_state"] = json!("On");
            row["health"] = json!({"n": n});
            row["leak_status"] = json!("DETECTED");
            if n % 2 == 0 {
                // One of them has an address that Core will name.
                let mac = if n == 0 {
                    mac(7)
                } else {
                    format!("02:00:5e:dd:00:{n:02x}")
                };
                dpus.push(json!({"mac_address": mac, "type": "DPU", "component_id": row["id"]}));
            }
        }
        let bmcs = tables["bmc"].as_array_mut().unwrap();
        bmcs.retain(|bmc| bmc["mac_address"] != mac(7));
        bmcs.extend(dpus);
        let next = &mut self.next_id;
        let mut new_id = || {
            *next += 1;
            Uuid::from_u128(*next)
        };
        dump::load(
            &self.store,
            tables,
            "test".into(),
            "2026-11-21T09:00:00Z".into(),
            &mut new_id,
        )
        .unwrap();
    }
}

fn mac(n: u8) -> String {
    format!("02:00:5e:00:00:{n:02x}")
}

fn label_list(labels: &[(&str, Option<String>)]) -> Value {
    let there = labels
        .iter()
        .filter_map(|(key, value)| Some((key, value.as_ref()?)));
    there
        .map(|(key, value)| json!({"key": key, "value": value}))
        .collect()
}

fn rack() -> impl Strategy<Value = Value> {
    let text = |prefix: &'static str, most: u8| {
        option::weighted(0.9, (0..most).prop_map(move |n| format!("{prefix}{n}")))
    };
    (text("r", 5), text("Name", 4), text("M", 2), text("S", 4), text("text", 2), text("dc", 2)).prop_map(
        |(rack_id, name, manufacturer, serial, text, place)| {
            json!({"rack_id": rack_id, "metadata": {"name": name, "description": text, "labels": label_list(&[
                ("chassis.manufacturer", manufacturer),
                ("chassis.serial-number", serial),
                ("location.datacenter", place),
            ])}})
        },
    )
}

/// A component; `pool` keeps types apart, or lets them clash.
fn component(pool: u8) -> impl Strategy<Value = Value> {
    let position = option::of(select(vec!["0", "1", "7", "abc", "-3", ""]));
    let ip = option::of(select(vec![
        "10.0.0.1",
        "2001:db8::1",
        "2001:0db8::0001",
        "none",
    ]));
    (
        option::weighted(0.9, 0..8u8),
        option::weighted(0.9, (0..2u8).prop_map(|n| format!("M{n}"))),
        option::weighted(0.9, (0..4u8).prop_map(move |n| format!("S{pool}{n}"))),
        option::of((0..6u8).prop_map(|n| format!("r{n}"))),
        option::of(select(vec!["one", "two"])),
        position,
        ip,
    )
        .prop_map(move |(address, manufacturer, serial, rack, text, position, ip)| {
            let address = address.map(|n| mac(n + pool * 16));
            json!({"bmc_mac_address": address, "bmc_ip_address": ip, "serial_number": serial, "rack_id": rack,
                   "metadata": {"name": text, "description": text, "labels": label_list(&[
                       ("manufacturer", manufacturer),
                       ("slot_id", position.map(str::to_owned)),
                   ])}})
        })
}

fn list(entry: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = List> {
    (0..8u8, vec(entry, 0..6)).prop_map(|(how, entries)| match how {
        0 => List::Absent,
        1 => List::Failed,
        2 => List::Torn(entries),
        _ => List::Whole(entries),
    })
}

/// What Core says; with `apart` no two types name the same hardware.
fn says(apart: bool) -> impl Strategy<Value = Says> {
    let pool = move |n: u8| if apart { n } else { 0 };
    (
        list(rack()),
        list(component(pool(0))),
        list(component(pool(1))),
        list(component(pool(2))),
    )
        .prop_map(|(a, b, c, d)| Says([a, b, c, d]))
}

fn policy() -> impl Strategy<Value = Policy> {
    let profile = select(vec![Profile::NaturalKey, Profile::HostMac]);
    (
        profile,
        option::weighted(0.4, any::<(bool, bool, bool, bool, bool, bool, u8)>()),
        0..3u32,
    )
        .prop_map(|(profile, knobs, max_deletes)| {
            let mut policy = Policy {
                max_deletes,
                ..Policy::of(profile)
            };
            if let Some((identity, names, duplicates, legacy, labels, clear, empty)) = knobs {
                policy.identity = if identity {
                    Identity::Pair
                } else {
                    Identity::HostMac
                };
                policy.names = if names { Names::Unique } else { Names::Free };
                policy.duplicates = if duplicates {
                    Duplicates::Last
                } else {
                    Duplicates::Both
                };
                policy.legacy = if legacy {
                    Legacy::Exempt
                } else {
                    Legacy::Delete
                };
                policy.labels = if labels {
                    Labels::Required
                } else {
                    Labels::Optional
                };
                policy.clear = if clear { Clear::Clear } else { Clear::Preserve };
                policy.empty =
                    [Empty::Skip, Empty::Authoritative, Empty::Guarded][usize::from(empty % 3)];
            }
            policy
        })
}

fn shuffled(says: &Says, dice: &[Index]) -> Says {
    let mut says = says.clone();
    for list in &mut says.0 {
        if let List::Torn(entries) | List::Whole(entries) = list {
            for (i, dice) in (0..entries.len()).zip(dice) {
                let j = dice.index(entries.len());
                entries.swap(i, j);
            }
        }
    }
    says
}

/// Rows of one table by key.
fn by_key<'a>(dump: &'a Value, table: &str) -> BTreeMap<String, &'a Value> {
    let key = if table == "bmc" { "mac_address" } else { "id" };
    let rows = dump[table].as_array().unwrap().iter();
    rows.map(|row| (row[key].to_string(), row)).collect()
}

fn live(dump: &Value, table: &str) -> HashSet<String> {
    let rows = by_key(dump, table).into_iter();
    rows.filter(|(_, row)| row["deleted_at"].is_null())
        .map(|(key, _)| key)
        .collect()
}

fn cases() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("CASES").map_or(48, |n| n.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Otherwise every cycle writes, audits and wears the disk, and nobody sees the real changes.
    #[test]
    fn the_same_response_twice_writes_once(policy in policy(), before in vec(says(true), 0..3), last in says(true)) {
        let mut tables = Tables::new(policy);
        for says in &before {
            tables.cycle(says);
        }
        tables.cycle(&last);
        let (first, generation) = (tables.dump(), mirror::generation(&tables.store.snapshot().unwrap()).unwrap());
        tables.cycle(&last);
        prop_assert_eq!(tables.dump(), first);
        prop_assert_eq!(mirror::generation(&tables.store.snapshot().unwrap()).unwrap(), generation);
    }

    /// Types that claim the same hardware may need one more cycle, but never go back and forth.
    #[test]
    fn types_that_claim_the_same_hardware_come_to_rest(policy in policy(), before in vec(says(false), 0..3), last in says(false)) {
        let mut tables = Tables::new(policy);
        for says in before.iter().chain([&last, &last]) {
            tables.cycle(says);
        }
        let generation = mirror::generation(&tables.store.snapshot().unwrap()).unwrap();
        tables.cycle(&last);
        prop_assert_eq!(mirror::generation(&tables.store.snapshot().unwrap()).unwrap(), generation);
    }

    /// Otherwise what is mirrored depends on how a database on the other side happens to sort.
    #[test]
    fn the_order_of_a_response_does_not_matter(
        policy in policy(), before in vec(says(false), 0..2), last in says(false), dice in vec(any::<Index>(), 6)
    ) {
        let mut one = Tables::new(policy);
        let mut other = Tables::new(policy);
        for says in before.iter().chain([&last]) {
            one.cycle(says);
            other.cycle(&shuffled(says, &dice));
        }
        prop_assert_eq!(one.dump(), other.dump());
    }

    /// Ingestion, firmware and health are known to other programs only.
    #[test]
    fn columns_of_others_and_dpu_rows_stay_as_they_are(policy in policy(), before in vec(says(true), 1..3), last in says(true)) {
        let mut tables = Tables::new(policy);
        for says in &before {
            tables.cycle(says);
        }
        tables.let_others_write();
        let before = tables.dump();
        tables.cycle(&last);
        let after = tables.dump();
        for (table, columns) in [
            ("rack", vec!["id", "status", "ingested_at", "nvldomain_id"]),
            ("component", vec!["id", "type", "external_id", "firmware_version", "power_state", "health", "leak_status"]),
        ] {
            let now = by_key(&after, table);
            for (key, row) in by_key(&before, table) {
                // A tombstone may have gone for good, to make room for a name.
                let Some(now) = now.get(&key) else {
                    prop_assert_eq!(table, "rack");
                    continue;
                };
                for column in &columns {
                    prop_assert_eq!(&row[column], &now[column], "{} of {}", column, table);
                }
            }
        }
        let dpus = |dump: &Value| -> Vec<Value> {
            let bmcs = dump["bmc"].as_array().unwrap();
            bmcs.iter().filter(|bmc| bmc["type"] == "DPU").cloned().collect()
        };
        prop_assert_eq!(dpus(&before), dpus(&after));
    }

    /// A type is its own transaction: what it does not own it does not write.
    #[test]
    fn one_type_never_touches_the_rows_of_another(policy in policy(), before in vec(says(true), 1..3), last in says(true)) {
        let mut tables = Tables::new(policy);
        for says in &before {
            tables.cycle(says);
        }
        for (n, kind) in Kind::ALL.into_iter().enumerate() {
            let before = tables.dump();
            let mut only = Says([List::Absent, List::Absent, List::Absent, List::Absent]);
            only.0[n] = last.0[n].clone();
            tables.cycle(&only);
            let after = tables.dump();
            prop_assert!(kind == Kind::Rack || before["rack"] == after["rack"]);
            let others = |dump: &Value| -> Vec<Value> {
                let rows = dump["component"].as_array().unwrap().iter();
                rows.filter(|row| row["type"] != kind.name()).cloned().collect()
            };
            prop_assert_eq!(others(&before), others(&after));
        }
    }

    /// What people approve is what happens.
    #[test]
    fn a_plan_is_what_a_run_does(policy in policy(), before in vec(says(false), 0..3), last in says(false)) {
        let mut tables = Tables::new(policy);
        for says in &before {
            tables.cycle(says);
        }
        let untouched = tables.dump();
        let look = || {
            let snapshot = PlanSnapshot::take(&mut last.clone(), &policy);
            let (planned, digest) = preview(&tables.store, snapshot, &policy, false).unwrap();
            PlanView::new(&planned, digest)
        };
        let plan = look();
        prop_assert_eq!(serde_json::to_string(&plan).unwrap(), serde_json::to_string(&look()).unwrap());
        prop_assert_eq!(&tables.dump(), &untouched);
        let known = tables.audit().len();
        let summary = tables.cycle(&last);
        prop_assert_eq!(&plan.types, &summary.types);
        // A row without any name is called by its id, which is drawn only by the run.
        let key = |key: &str| key.parse::<Uuid>().map_or(key.to_owned(), |_| "an id".to_owned());
        let mut planned: Vec<String> = plan.changes.iter()
            .map(|c| format!("{} {} {} {} {:?}", c.kind, c.op, c.table, key(&c.key), c.field)).collect();
        let mut done: Vec<String> = tables.audit()[known..].iter().filter(|row| row.op != "withhold")
            .map(|r| format!("{} {} {} {} {:?}", r.kind, r.op, r.table, key(&r.key), r.field)).collect();
        planned.sort();
        done.sort();
        prop_assert_eq!(planned, done);
    }

    /// Half an answer says nothing about what is not in it.
    #[test]
    fn no_incomplete_pull_ever_deletes(policy in policy(), before in vec(says(false), 1..3), last in says(false)) {
        let mut tables = Tables::new(policy);
        for says in &before {
            tables.cycle(says);
        }
        let torn = Says(last.0.map(|list| match list {
            List::Whole(entries) => List::Torn(entries),
            other => other,
        }));
        let before = tables.dump();
        tables.cycle(&torn);
        let after = tables.dump();
        for table in ["rack", "component"] {
            let (before, after) = (live(&before, table), live(&after, table));
            prop_assert!(before.is_subset(&after), "{} lost {:?}", table, before.difference(&after));
        }
        // Nor does a tombstone go: its entry may be in the half that is missing.
        let (before, after) = (by_key(&before, "rack"), by_key(&after, "rack"));
        prop_assert!(before.keys().all(|key| after.contains_key(key)));
    }

    /// A rack that comes back must come back under its id: everything else refers to it by that.
    #[test]
    fn a_rack_that_core_lists_keeps_its_row(policy in policy(), before in vec(says(true), 1..4), last in says(true)) {
        let mut tables = Tables::new(policy);
        for says in &before {
            tables.cycle(says);
        }
        let before = tables.dump();
        tables.cycle(&last);
        let after = tables.dump();
        let (List::Torn(entries) | List::Whole(entries)) = &last.0[0] else { return Ok(()) };
        let listed: HashSet<&Value> = entries.iter().map(|entry| &entry["rack_id"]).collect();
        let after = by_key(&after, "rack");
        for (key, row) in by_key(&before, "rack") {
            let listed = row["external_id"].is_string() && listed.contains(&row["external_id"]);
            prop_assert!(!listed || after.contains_key(&key), "{} is gone", row);
        }
    }
}

/// What 300 random histories come to: rows, audit rows and summaries, hashed. Whoever changes how plans are
/// made, and not what they are, finds that this stays as it is.
#[test]
fn random_histories_come_to_the_same_rows_and_audit_as_ever() {
    let mut runner = TestRunner::deterministic();
    let histories = (
        policy(),
        any::<bool>(),
        vec((says(true), says(false)), 1..4),
    );
    let mut digest = Sha256::new();
    for _ in 0..300 {
        let (policy, apart, history) = histories.new_tree(&mut runner).unwrap().current();
        let mut tables = Tables::new(policy);
        for (n, (clean, clashing)) in history.iter().enumerate() {
            let summary = tables.cycle(if apart { clean } else { clashing });
            digest.update(serde_json::to_vec(&summary).unwrap());
            if n == 0 {
                tables.let_others_write();
            }
        }
        digest.update(tables.dump().to_string());
        digest.update(serde_json::to_vec(&tables.audit()).unwrap());
    }
    let digest: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        digest,
        "4ed00781f7cea3dea9b70468961417e55ca3eab2d3a75bea107e0cdc29eba816"
    );
}
