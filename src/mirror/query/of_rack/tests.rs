//! Against an answer made the long way: every row of the log is decoded, and every value of it read.

use crate::clock::WallTime;
use crate::mirror::dump;
use crate::mirror::query::{AuditFilter, AuditView, audit, newest_audit};
use crate::store::{Snapshot, Store};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

const RACKS: u128 = 3;

/// What a component is at one time: the rack that has it, whether it is a tombstone, and the number of its BMC.
type Placed = (Option<u128>, bool, Option<u8>);

fn rack_id(n: u128) -> Uuid {
    Uuid::from_u128(n + 1)
}

/// A site as a dump has it. Names and descriptions look like the columns that name a rack.
fn site(version: usize, components: &[Placed]) -> Value {
    let forged = |n: usize| {
        let rack = rack_id(n as u128 % RACKS);
        let text = json!({"rack_id": rack}).to_string();
        (text, json!({"v": version, "rack_id": rack}))
    };
    let racks = (0..RACKS).map(|n| json!({"id": rack_id(n), "name": format!("v{version}-{n}"), "external_id": format!("r{n}")}));
    let id = |n: usize| Uuid::from_u128(100 + n as u128);
    let placed = components.iter().enumerate();
    let rows = placed.clone().map(|(n, (rack, is_gone, _))| {
        let (name, description) = forged(n + version);
        json!({"id": id(n), "type": "Compute", "name": name, "description": description,
               "rack_id": rack.map(rack_id), "deleted_at": is_gone.then_some("then")})
    });
    let mut macs = Vec::new();
    let mut bmcs = Vec::new();
    for (n, (.., bmc)) in placed {
        if let Some(bmc) = bmc.filter(|bmc| !macs.contains(bmc)) {
            macs.push(bmc);
            let mac = format!("02:00:5e:00:00:{bmc:02x}");
            bmcs.push(json!({"mac_address": mac, "type": "Host", "component_id": id(n)}));
        }
    }
    let drifts = [
        json!({"id": Uuid::from_u128(1000 + version as u128), "component_id": id(version), "component_type": "Compute",
        "drift_type": "missing_in_actual"}),
    ];
    json!({"rack": racks.collect::<Vec<_>>(), "component": rows.collect::<Vec<_>>(), "bmc": bmcs, "component_drift": drifts})
}

fn rows_of<'a>(tables: &'a Value, table: &str) -> impl Iterator<Item = &'a Value> {
    tables[table].as_array().unwrap().iter()
}

/// The numbers of the rows of the log that are about a rack.
fn about(snapshot: &Snapshot, rack: Uuid) -> Vec<u64> {
    let tables = dump::dump(snapshot).unwrap();
    let mut owners = vec![json!(rack)];
    let components = rows_of(&tables, "component").filter(|row| row["rack_id"] == json!(rack));
    owners.extend(components.map(|row| row["id"].clone()));
    let bmcs = rows_of(&tables, "bmc").filter(|row| owners.contains(&row["component_id"]));
    let bmcs: Vec<&Value> = bmcs.map(|row| &row["mac_address"]).collect();
    let is_about = |row: &AuditView| {
        let name = json!(row.row);
        let values = || [&row.old, &row.new].into_iter().flatten();
        let is_named = match row.field.as_deref() {
            Some("rack_id" | "component_id") => values().any(|value| owners.contains(value)),
            Some(_) => false,
            None => values().any(|value| {
                owners.contains(&value["rack_id"]) || owners.contains(&value["component_id"])
            }),
        };
        owners.contains(&name) || bmcs.contains(&&name) || is_named
    };
    let all = audit(snapshot, &AuditFilter::default()).unwrap();
    let found = all.iter().filter(|row| is_about(row));
    found.map(|row| row.number).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// The loss: an answer that is quick and lacks a row.
    #[test]
    fn rows_that_are_not_decoded_are_about_another_rack(
        history in prop::collection::vec(
            prop::collection::vec((prop::option::of(0..RACKS), any::<bool>(), prop::option::of(0_u8..6)), 4),
            1..4,
        )
    ) {
        let store = Store::in_memory().unwrap();
        for (version, components) in history.iter().enumerate() {
            let now = WallTime::from_unix_ms(1000 * version as u64).to_string();
            dump::load(&store, site(version, components), "a test".into(), now, &mut Uuid::new_v4).unwrap();
        }
        let snapshot = store.snapshot().unwrap();
        for n in 0..RACKS {
            let filter = AuditFilter { rack: Some(format!("r{n}")), ..AuditFilter::default() };
            let numbers = |rows: Vec<AuditView>| rows.iter().map(|row| row.number).collect::<Vec<_>>();
            let expected = about(&snapshot, rack_id(n));
            prop_assert!(!expected.is_empty());
            prop_assert_eq!(&numbers(audit(&snapshot, &filter).unwrap()), &expected);
            let mut newest = numbers(newest_audit(&snapshot, &filter).unwrap().rows);
            newest.reverse();
            prop_assert_eq!(&newest, &expected);
        }
    }
}
