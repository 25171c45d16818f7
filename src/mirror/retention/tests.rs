//! A checkpoint and the rest of the log make the tables, wherever the log was cut.

use super::*;
use crate::mirror::core::FileCore;
use crate::mirror::cycle::{AlwaysOpen, Cycle, run_cycle};
use crate::mirror::dump;
use crate::mirror::policy::{Policy, Profile};
use crate::mirror::query::{self, AuditFilter};
use std::collections::BTreeMap;
use std::path::Path;

type Tables = BTreeMap<(String, String), Map<String, Value>>;

/// What the log does not say: when a rack was written.
fn audited(mut columns: Map<String, Value>) -> Map<String, Value> {
    columns.retain(|name, value| !value.is_null() && name != "created_at" && name != "updated_at");
    columns
}

fn stored(store: &Store) -> Tables {
    let read = |tables: &crate::mirror::table::View| {
        let mut rows = Tables::new();
        for table in TABLES {
            for row in tables.rows_of(table)? {
                let key = (table.to_owned(), row.key().to_string());
                rows.insert(key, audited(row.columns()));
            }
        }
        Ok(rows)
    };
    store.snapshot().unwrap().view(read).unwrap()
}

fn replayed(store: &Store) -> Tables {
    let snapshot = store.snapshot().unwrap();
    let mut rows = Tables::new();
    let (from, checkpoint) = query::checkpoint(&snapshot).unwrap().unwrap_or_default();
    for row in checkpoint {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        let columns = row["columns"].as_object().unwrap().clone();
        rows.insert((text("table"), text("row")), audited(columns));
    }
    let filter = AuditFilter {
        cursor: from.checked_sub(1),
        ..AuditFilter::default()
    };
    for row in query::audit(&snapshot, &filter).unwrap() {
        if row.row.is_empty() || row.op == "withhold" {
            continue;
        }
        let key = (row.table, row.row);
        match (row.field, row.new) {
            (Some(field), new) => {
                let columns = rows
                    .get_mut(&key)
                    .expect("a column changes in a row that is there");
                columns.insert(field, new.unwrap_or_default());
                columns.retain(|_, value| !value.is_null());
            }
            (None, Some(Value::Object(columns))) => drop(rows.insert(key, audited(columns))),
            (None, _) => drop(rows.remove(&key)),
        }
    }
    rows
}

fn cycle(store: &Store, path: &Path, document: &Value) {
    std::fs::write(path, document.to_string()).unwrap();
    let mut policy = Policy::of(Profile::NaturalKey);
    policy.max_deletes = 100;
    let cycle = Cycle {
        policy: &policy,
        approval: None,
        mirror: true,
        now: crate::clock::wall_now().to_string(),
        new_id: &mut Uuid::new_v4,
        gatekeeper: &AlwaysOpen,
    };
    let summary = run_cycle(store, &mut FileCore::at_path(path.into(), None), cycle);
    assert!(summary.errors.is_empty(), "{:?}", summary.errors);
}

/// Racks and machines that come, change, swap their BMCs, go and come again.
fn history() -> Store {
    let store = Store::in_memory().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("core.json");
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..12 {
        let mut racks: Vec<u8> = (0..4).filter(|_| random.bool()).collect();
        random.shuffle(&mut racks);
        let racks = racks.iter().enumerate().map(|(n, rack)| {
            serde_json::json!({"rack_id": format!("r{rack}"), "metadata": {"name": format!("n{n}"), "labels":
                {"chassis.manufacturer": "M", "chassis.serial-number": format!("S{rack}")}}})
        });
        let mut macs: Vec<u8> = (1..9).collect();
        random.shuffle(&mut macs);
        let machines = macs.iter().take(6).enumerate().map(|(n, mac)| {
            serde_json::json!({"bmc_mac_address": format!("02:00:00:00:00:{mac:02x}"), "serial_number": format!("A{n}"),
                "manufacturer": "M", "name": format!("x{}", random.u8(0..3)), "rack_id": format!("r{}", random.u8(0..4))})
        });
        let machines: Vec<Value> = machines.collect();
        let racks: Vec<Value> = racks.collect();
        cycle(
            &store,
            &path,
            &serde_json::json!({"expected_racks": racks, "expected_machines": machines}),
        );
    }
    store
}

fn numbers(store: &Store) -> Vec<u64> {
    let rows = query::audit(&store.snapshot().unwrap(), &AuditFilter::default()).unwrap();
    rows.iter().map(|row| row.number).collect()
}

fn run() -> AuditRun {
    AuditRun {
        id: Uuid::new_v4(),
        time: "2026-11-21T10:00:00Z".into(),
        source: "test".into(),
    }
}

/// The loss: a log that was cut and no longer says how the tables came to be what they are.
#[test]
fn wherever_the_log_is_cut_the_checkpoint_and_the_rest_make_the_tables() {
    let whole = history();
    assert_eq!(replayed(&whole), stored(&whole));
    let last = numbers(&whole).last().copied().unwrap();
    assert!(last > 60, "{last} rows");
    let steps = (1..=last + 1).step_by(7).chain([u64::MAX]);
    for before in steps {
        let store = history();
        // The ids of a history are drawn, its log is not as long each time.
        let kept = store.inventory(|tables| {
            let removed = remove(tables, before, None, &run())?;
            Ok((removed, Ending::Commit))
        });
        let removed = kept.unwrap().expect("rows are removed");
        assert!(removed.rows > 0);
        assert_eq!(replayed(&store), stored(&store), "cut before {before}");
    }
}

#[test]
fn a_second_removal_replays_from_its_own_checkpoint() {
    let store = history();
    for before in [20, 45, 70] {
        let kept =
            store.inventory(|tables| Ok((remove(tables, before, None, &run())?, Ending::Commit)));
        assert_eq!(kept.unwrap().unwrap().from, before);
        assert_eq!(replayed(&store), stored(&store));
    }
}

/// The loss: a row that is gone for good, and whose only copy goes before what says less.
#[test]
fn last_copies_of_rows_outlive_all_others_and_go_only_for_the_size() {
    let store = history();
    let all = query::audit(&store.snapshot().unwrap(), &AuditFilter::default()).unwrap();
    let is_copy =
        |row: &query::AuditView| row.field.is_none() && row.old.is_some() && row.new.is_none();
    let copies: Vec<u64> = all
        .iter()
        .filter(|row| is_copy(row))
        .map(|row| row.number)
        .collect();
    assert!(copies.len() > 3, "{copies:?}");
    let bounds = AuditBounds {
        max_age: Some(Duration::from_secs(60)),
        max_bytes: None,
    };
    let later = crate::clock::wall_now().after(Duration::from_secs(3600));
    keep(&store, bounds, later, &mut Uuid::new_v4)
        .unwrap()
        .unwrap();
    let left = numbers(&store);
    assert!(
        copies.iter().all(|copy| left.contains(copy)),
        "{copies:?} {left:?}"
    );
    // The copies, the row that was the last, and the checkpoint's.
    assert!(left.len() <= copies.len() + 2, "{copies:?} {left:?}");
    // The row that was the last is not any more; then nothing is left to do.
    let again = keep(&store, bounds, later, &mut Uuid::new_v4).unwrap();
    assert_eq!(again.map(|removed| removed.rows), Some(1));
    assert_eq!(
        keep(&store, bounds, later, &mut Uuid::new_v4).unwrap(),
        None
    );
    let bounds = AuditBounds {
        max_age: None,
        max_bytes: Some(1),
    };
    keep(&store, bounds, later, &mut Uuid::new_v4)
        .unwrap()
        .unwrap();
    let left = numbers(&store);
    assert!(
        copies.iter().all(|copy| !left.contains(copy)),
        "{copies:?} {left:?}"
    );
    assert_eq!(replayed(&store), stored(&store));
}

#[test]
fn nothing_is_removed_within_the_bounds_and_some_more_than_needed_beyond() {
    let at = |seconds: u64| WallTime::from_unix_ms(seconds * 1000);
    let head = |number: u64| AuditHead {
        number: number * 10,
        last: number * 10 + 9,
        time: at(number).to_string(),
        bytes: 10,
    };
    let heads: Vec<AuditHead> = (0..100).map(head).collect();
    let cut = |age: Option<u64>, bytes: Option<u64>| {
        let bounds = AuditBounds {
            max_age: age.map(Duration::from_secs),
            max_bytes: bytes,
        };
        bounds.cut(&heads, at(99))
    };
    assert_eq!(cut(None, None), None);
    assert_eq!(cut(Some(99), Some(1000)), None);
    // An eighth more is tolerated; then all that is older goes.
    assert_eq!(cut(Some(88), None), None);
    assert_eq!(cut(Some(80), None), Some(190));
    assert_eq!(cut(None, Some(999)), Some(250));
    assert_eq!(cut(None, Some(1)), Some(u64::MAX));
    assert_eq!(cut(Some(80), Some(999)), Some(250));
}

#[test]
fn bounds_that_hold_write_nothing() {
    let store = history();
    let generation = || crate::mirror::generation(&store.snapshot().unwrap()).unwrap();
    let (before, known) = (generation(), numbers(&store));
    let bounds = AuditBounds {
        max_age: Some(Duration::from_secs(3600)),
        max_bytes: Some(1 << 20),
    };
    let now = crate::clock::wall_now();
    assert_eq!(keep(&store, bounds, now, &mut Uuid::new_v4).unwrap(), None);
    assert_eq!((generation(), numbers(&store)), (before, known));
    assert!(dump::dump(&store.snapshot().unwrap()).is_ok());
}

/// The loss: a service that reads the heads of a long log in every cycle although nobody wrote to it.
#[test]
fn a_quiet_cycle_knows_that_there_is_nothing_to_remove() {
    let store = history();
    let generation = || crate::mirror::generation(&store.snapshot().unwrap()).unwrap();
    let day = Duration::from_secs(24 * 3600);
    let bounds = AuditBounds {
        max_age: Some(day),
        max_bytes: Some(1 << 20),
    };
    let mut known = WithinBounds::default();
    let now = crate::clock::wall_now();
    assert!(!known.holds(bounds, generation(), now));
    keep_unless_known(&mut known, &store, bounds, now, &mut Uuid::new_v4).unwrap();
    assert!(known.holds(bounds, generation(), now));
    // It holds for this log and these bounds alone, and until a row is too old.
    let other = AuditBounds {
        max_bytes: Some(1),
        ..bounds
    };
    assert!(!known.holds(bounds, generation() + 1, now));
    assert!(!known.holds(other, generation(), now));
    assert!(!known.holds(bounds, generation(), now.after(2 * day)));
    for hours in 0..40 {
        let later = now.after(Duration::from_secs(3600 * hours));
        if known.holds(bounds, generation(), later) {
            let kept = keep(&store, bounds, later, &mut Uuid::new_v4).unwrap();
            assert_eq!(kept, None, "{hours} h later");
        }
    }
}

/// The loss: a write transaction in every cycle, because rows that are too old may not be removed.
#[test]
fn last_copies_that_stay_are_looked_at_once() {
    let store = history();
    let generation = || crate::mirror::generation(&store.snapshot().unwrap()).unwrap();
    let bounds = AuditBounds {
        max_age: Some(Duration::from_secs(60)),
        max_bytes: None,
    };
    let later = crate::clock::wall_now().after(Duration::from_secs(3600));
    let mut known = WithinBounds::default();
    let mut removals = 0;
    while !known.holds(bounds, generation(), later) {
        let kept = keep_unless_known(&mut known, &store, bounds, later, &mut Uuid::new_v4);
        removals += u32::from(kept.unwrap().is_some());
        assert!(removals < 5, "it never ends");
    }
    assert!(removals > 0);
    let left = numbers(&store).len();
    assert!(left > 3, "{left} rows");
    // The checkpoint's own row goes for its age, as any other.
    let much_later = later.after(Duration::from_secs(3600));
    assert!(!known.holds(bounds, generation(), much_later));
}
