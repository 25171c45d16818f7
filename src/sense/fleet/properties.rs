//! The fleet store after random reports, restarts and refused transactions, against a simple model of it.

use super::fixture::{Rig, envelope, report, second};
use super::ids;
use super::query::{FleetAnswer, FleetQuery};
use super::row::{self, ChangeEvent, ChangeRow};
use super::table::{CHANGES, GUESTS, PACKAGES, readable};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use redb::ReadableTable;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const PACKAGES_OF: [&str; 7] = [
    "kernel 5-1",
    "kernel 5-2",
    "kernel 5-3",
    "bash 1-1",
    "bash 2-1",
    "vim 1-1",
    "gpg-pubkey 1-1",
];

#[derive(Clone, Debug)]
enum Op {
    Report {
        guest: u8,
        packages: Vec<usize>,
        reaches_disk: bool,
    },
    Facts {
        guest: u8,
    },
    Forget {
        guest: u8,
    },
    Restart,
    SpoilGuest {
        guest: u8,
    },
    SpoilPackage {
        nth: usize,
    },
}

/// What a guest has, and had at each second.
#[derive(Clone, Default)]
struct Guest {
    generation: u32,
    packages: Vec<String>,
    past: BTreeMap<u64, Vec<String>>,
}

#[test]
fn random_reports_and_restarts_leave_what_a_simple_model_says() {
    let config = ProptestConfig::with_cases(60);
    proptest!(config, |(ops in vec(op(), 1..40))| {
        run(ops, FleetLimits::default(), true);
    });
}

/// Loss prevented: a package that a guest has, or that the history names, is freed.
#[test]
fn with_little_room_for_history_everything_that_is_named_is_there() {
    let config = ProptestConfig::with_cases(60);
    let limits = FleetLimits {
        bytes: 300,
        ..FleetLimits::default()
    };
    proptest!(config, |(ops in vec(op(), 1..40))| {
        run(ops, limits, false);
    });
}

fn run(ops: Vec<Op>, limits: FleetLimits, has_history: bool) {
    SPOILT.with(|flag| flag.set(false));
    let mut rig = Rig::new(limits);
    let mut model: BTreeMap<String, Guest> = BTreeMap::new();
    let mut generation = 0;
    for (second_of_op, op) in (1u64..).zip(ops) {
        match op {
            Op::Report {
                guest,
                packages,
                reaches_disk,
            } => {
                generation += 1;
                let (id, texts) = (id(guest), texts(&packages));
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                let report = report(&texts);
                let envelope = envelope(&id, generation, second_of_op, &report);
                if !reaches_disk {
                    rig.refuse(&envelope);
                    continue;
                }
                rig.put(&envelope);
                let guest = model.entry(id).or_default();
                guest.packages = kept(&texts);
                guest.past.insert(second_of_op, guest.packages.clone());
                guest.generation = generation;
            }
            Op::Facts { guest } => {
                let report = report(&[]);
                let mut facts = envelope(&id(guest), 1, second_of_op, &report);
                (facts.report, facts.agent_version) = (None, format!("v{second_of_op}"));
                rig.put(&facts);
            }
            Op::Forget { guest } => {
                rig.forget(&id(guest));
                model.remove(&id(guest));
            }
            Op::Restart => rig.restart(),
            Op::SpoilGuest { guest } => {
                spoil(&rig, &id(guest));
                rig.restart();
                if model.remove(&id(guest)).is_some() {
                    assert!(rig.fleet.missing().contains(&id(guest).parse().unwrap()));
                }
            }
            Op::SpoilPackage { nth } => {
                let lost = spoil_package(&rig, nth);
                rig.restart();
                for name in lost {
                    model.remove(&name);
                    assert!(rig.fleet.missing().contains(&name.parse().unwrap()));
                }
            }
        }
        check(&rig, &model);
        if has_history {
            check_history(&rig, &model);
        }
    }
}

/// The tables hold what the model says, name nothing that is not there, and the index counts right.
fn check(rig: &Rig, model: &BTreeMap<String, Guest>) {
    let answer = ask(rig, &FleetQuery::Guests { os: None });
    let found: Vec<_> = answer["guests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| g["vm"].as_str().unwrap())
        .collect();
    assert_eq!(found, model.keys().collect::<Vec<_>>());
    for (vm, guest) in model {
        let answer = ask(
            rig,
            &FleetQuery::Show {
                vm: vm.clone(),
                at: None,
            },
        );
        assert_eq!(installed(&answer), guest.packages);
        assert!(
            answer["report"]
                .as_str()
                .unwrap()
                .ends_with(&format!(":{}", guest.generation))
        );
    }
    let counts = rig.fleet.counts();
    assert_eq!(counts.guests, model.len() as u64);
    let fresh = Fleet::load(&rig.store, rig.limits, &rig.known).unwrap();
    for index in [
        |fleet: &Fleet| held(&fleet.packages).references(),
        |fleet: &Fleet| held(&fleet.platforms).references(),
    ] {
        assert_eq!(index(&fresh), index(&rig.fleet));
    }
    let (held, read) = (rig.fleet.state().tally.clone(), fresh.state().tally.clone());
    assert_eq!(held.agents(), read.agents());
    assert!(held.provenance().eq(read.provenance()) && held.kernels().eq(read.kernels()));
    let (fresh, counts) = (fresh.counts(), rig.fleet.counts());
    assert_eq!(
        (fresh.changes, fresh.change_bytes, fresh.reboot_needed),
        (counts.changes, counts.change_bytes, counts.reboot_needed)
    );
    let (mut named, mut stored) = (BTreeSet::new(), BTreeSet::new());
    rig.store
        .read(|tx| {
            let (Ok(guests), Ok(changes), Ok(packages)) = (
                tx.open_table(GUESTS),
                tx.open_table(CHANGES),
                tx.open_table(PACKAGES),
            ) else {
                return Ok(());
            };
            for row in guests.iter()? {
                let (name, bytes) = row?;
                if let Some(state) = readable(name.value(), bytes.value()) {
                    named.extend(ids::unpack(state.ids).unwrap());
                }
            }
            for row in changes.iter()? {
                let (_, bytes) = row?;
                let row: ChangeRow<'_> = row::open(bytes.value())?;
                if let Some(set) = ChangeEvent::set(row.event) {
                    named.extend(set.gone().chain(set.came()));
                }
            }
            for row in packages.iter()? {
                if StoredPackage::read(row.as_ref().unwrap().1.value()).is_ok() {
                    stored.insert(row?.0.value());
                }
            }
            Ok(())
        })
        .unwrap();
    let lost: Vec<_> = named.difference(&stored).collect();
    let spoilt = SPOILT.with(std::cell::Cell::get);
    assert!(lost.is_empty() || spoilt, "named, but not there: {lost:?}");
}

thread_local! {
    /// A package row was spoilt: the history may name what cannot be read any more.
    static SPOILT: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// At every second since the guest's first report its packages were those that the model says.
fn check_history(rig: &Rig, model: &BTreeMap<String, Guest>) {
    if SPOILT.with(std::cell::Cell::get) {
        return;
    }
    for (vm, guest) in model {
        let mut then = None;
        for (at, packages) in &guest.past {
            let ask_at = |at: u64| {
                ask(
                    rig,
                    &FleetQuery::Show {
                        vm: vm.clone(),
                        at: Some(second(at).unix_ms()),
                    },
                )
            };
            if then.is_none() {
                assert!(
                    ask_at(at - 1)["error"]
                        .as_str()
                        .unwrap()
                        .contains("first report")
                );
            }
            let answer = ask_at(*at);
            assert_eq!(installed(&answer), *packages, "{vm} at {at}");
            then = Some(packages);
        }
    }
}

fn ask(rig: &Rig, query: &FleetQuery) -> Value {
    let query = FleetQuery::from_word(&query.to_word()).unwrap();
    let answer: FleetAnswer = query.ask(&rig.store, &|_| None);
    serde_json::to_value(answer).unwrap()
}

fn installed(answer: &Value) -> Vec<String> {
    let packages = answer["installed"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    let mut texts: Vec<String> = packages
        .iter()
        .map(|package| {
            format!(
                "{} {}",
                package["name"].as_str().unwrap(),
                package["version"].as_str().unwrap()
            )
        })
        .collect();
    texts.sort();
    texts
}

fn spoil(rig: &Rig, vm: &str) {
    rig.store
        .write(|tx| {
            let mut guests = tx.open_table(GUESTS)?;
            if guests.get(vm)?.is_some() {
                guests.insert(vm, &[1, 2, 3][..])?;
            }
            Ok(())
        })
        .unwrap();
}

/// Spoils a package; gives the guests that have it.
fn spoil_package(rig: &Rig, nth: usize) -> Vec<String> {
    let mut lost = Vec::new();
    rig.store
        .write(|tx| {
            let mut packages = tx.open_table(PACKAGES)?;
            let mut ids_of = Vec::new();
            for row in packages.iter()? {
                ids_of.push(row?.0.value());
            }
            let Some(spoilt) = ids_of.get(nth % ids_of.len().max(1)) else {
                return Ok(());
            };
            SPOILT.with(|flag| flag.set(true));
            packages.insert(spoilt, &[9][..])?;
            let guests = tx.open_table(GUESTS)?;
            for row in guests.iter()? {
                let (name, bytes) = row?;
                let state = readable(name.value(), bytes.value());
                if state.is_some_and(|state| ids::unpack(state.ids).unwrap().contains(spoilt)) {
                    lost.push(name.value().to_owned());
                }
            }
            Ok(())
        })
        .unwrap();
    lost
}

fn texts(packages: &[usize]) -> Vec<String> {
    packages
        .iter()
        .map(|n| PACKAGES_OF[*n].to_owned())
        .collect()
}

fn kept(texts: &[&str]) -> Vec<String> {
    let kept = texts.iter().filter(|text| !text.starts_with("gpg-pubkey"));
    let mut kept: Vec<String> = kept.map(|text| (*text).to_owned()).collect();
    kept.sort();
    kept
}

fn op() -> impl Strategy<Value = Op> {
    let guest = 0u8..3;
    let packages = vec(0..PACKAGES_OF.len(), 0..6);
    prop_oneof![
        12 => (guest.clone(), packages, prop::bool::weighted(0.8)).prop_map(|(guest, packages, reaches_disk)| Op::Report { guest, packages, reaches_disk }),
        2 => guest.clone().prop_map(|guest| Op::Facts { guest }),
        2 => guest.clone().prop_map(|guest| Op::Forget { guest }),
        2 => Just(Op::Restart),
        1 => guest.prop_map(|guest| Op::SpoilGuest { guest }),
        1 => (0usize..9).prop_map(|nth| Op::SpoilPackage { nth }),
    ]
}

fn id(guest: u8) -> String {
    format!("g{guest}")
}

/// Loss prevented: the vendor of one guest's package, shown for that of another.
#[test]
fn packages_that_differ_in_vendor_or_licence_alone_are_rows_of_their_own() {
    let mut rig = Rig::new(FleetLimits::default());
    let plain = report(&["a 1-1"]);
    let mut vendor = plain.clone();
    vendor.packages[0].vendor = Some("w".into());
    let mut licence = plain.clone();
    licence.packages[0].license = Some("MIT".into());
    for (n, (vm, report)) in [
        ("a", &plain),
        ("b", &vendor),
        ("c", &licence),
        ("d", &plain),
    ]
    .into_iter()
    .enumerate()
    {
        rig.put(&envelope(vm, 1, n as u64, report));
    }
    assert_eq!(rig.fleet.counts().packages, 3);
    let shown = |vm: &str| {
        let show = ask(
            &rig,
            &FleetQuery::Show {
                vm: vm.into(),
                at: None,
            },
        );
        let package = &show["installed"][0];
        (package["vendor"].clone(), package["license"].clone())
    };
    assert_eq!(shown("a"), (serde_json::json!("v"), Value::Null));
    assert_eq!(shown("b"), (serde_json::json!("w"), Value::Null));
    assert_eq!(
        shown("c"),
        (serde_json::json!("v"), serde_json::json!("MIT"))
    );
    let vms = ("a".to_owned(), "b".to_owned());
    let differs = ask(&rig, &FleetQuery::Diff { vms });
    assert_eq!(
        differs["changed"][0]["differs"],
        serde_json::json!(["vendor"])
    );
    // It is one version all the same.
    let versions = FleetQuery::Versions {
        name: "a".into(),
        os: None,
    };
    assert_eq!(ask(&rig, &versions)["versions"][0]["guests"], 4);
}

/// Loss prevented: a disk that is full of history.
#[test]
fn rows_of_the_change_log_take_no_more_bytes_than_they_may() {
    let limits = FleetLimits {
        bytes: 2000,
        ..FleetLimits::default()
    };
    let mut rig = Rig::new(limits);
    let mut most = 0;
    for n in 1..=200u32 {
        let name = "n".repeat(n as usize % 40 + 1);
        rig.put(&envelope(
            "a",
            n,
            n.into(),
            &report(&[&format!("{name} {n}-1")]),
        ));
        let stored = rig.store.read(|tx| {
            let (mut rows, mut bytes) = (0, 0);
            for row in tx.open_table(CHANGES)?.iter()? {
                (rows, bytes) = (rows + 1, bytes + row?.1.value().len() as u64);
            }
            Ok((rows, bytes))
        });
        let (rows, bytes) = stored.unwrap();
        let counts = rig.fleet.counts();
        assert_eq!((counts.changes, counts.change_bytes), (rows, bytes));
        assert!(bytes <= limits.bytes, "{bytes} bytes after {n} changes");
        most = most.max(bytes);
    }
    // No more goes than has to.
    assert!(most > limits.bytes * 9 / 10, "{most}");
    let all = FleetQuery::Changes {
        since: None,
        vm: None,
        package: None,
        after: None,
    };
    let answer = ask(&rig, &all);
    let newest = answer["changes"].as_array().unwrap().last().unwrap();
    assert_eq!(newest["report"], "7:200");
    // Packages that no row names any more go as well.
    assert!(rig.fleet.counts().packages < rig.fleet.counts().changes * 2 + 5);
}
