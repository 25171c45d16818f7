//! The mirror: its real pull of a document, plan, apply and audit, on a disk that tears, from a Core that answers
//! in part, twice, for other sites, or not at all.

use crate::torn_disk::TornDisk;
use afferent::clock::WallTime;
use afferent::mirror::core::FileCore;
use afferent::mirror::cycle::{AlwaysOpen, Cycle, run_cycle};
use afferent::mirror::policy::{Policy, Profile};
use afferent::mirror::query::{self, AuditFilter};
use afferent::mirror::retention::{self, AuditBounds};
use afferent::mirror::{self, Store, dump};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use uuid::Uuid;

/// Cycles of a run before the quiet ones.
pub(crate) const CYCLES: usize = 40;

/// Between two cycles.
const PAUSE: Duration = Duration::from_secs(300);

/// Racks, and machines, that there may be at a time.
const MOST: u8 = 12;

/// Bytes that the audit log may take in the file, and what the file may have beside it.
const AUDIT: u64 = 24 << 10;
const FILE: usize = 8 << 20;

/// What happens to the answer of Core, or to the mirror's machine, in one cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// The document ends in the middle.
    Torn,
    /// Some entries cannot be read.
    Partial,
    /// An entry came twice, and another one not at all.
    Twice,
    /// Entries of another site are among them.
    Sites,
    /// A list is an error.
    Refused,
    /// A list is not there.
    Missing,
    /// A list is empty.
    Empty,
    /// There is no document.
    Absent,
    /// The power fails after so many changes and syncs of the disk.
    Power(usize),
    /// Nothing can be written.
    Full,
}

/// One cycle of a plan.
struct Step {
    seed: u64,
    fault: Fault,
    changes: u32,
}

/// A machine as Core expects it.
#[derive(Clone)]
struct Machine {
    mac: u8,
    name: u32,
    rack: u8,
}

/// Everything in a run.
struct MirrorWorld {
    random: fastrand::Rng,
    racks: BTreeMap<u8, u32>,
    machines: BTreeMap<u8, Machine>,
    document: PathBuf,
    disk: TornDisk,
    store: Option<Store>,
    core: FileCore,
    next_id: u128,
    now: WallTime,
    /// Id of each rack and machine when it was first seen.
    ids: BTreeMap<String, Value>,
    trace: Vec<String>,
    broken: Option<String>,
}

type Tables = BTreeMap<(String, String), Map<String, Value>>;

/// Plays these cycles of the plan of a seed, or all; gives the first broken invariant with what led there.
pub(crate) fn run(seed: u64, kept: Option<&[usize]>) -> Option<String> {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let plan: Vec<Step> = (0..CYCLES)
        .map(|_| Step {
            seed: random.u64(..),
            fault: fault(&mut random),
            changes: random.u32(..4),
        })
        .collect();
    let mut world = MirrorWorld::new(random, directory.path().join("core.json"));
    for (n, step) in plan.into_iter().enumerate() {
        if kept.is_none_or(|kept| kept.contains(&n)) && world.broken.is_none() {
            world.random = fastrand::Rng::with_seed(step.seed);
            world.step(n, &step);
        }
    }
    if world.broken.is_none() {
        world.be_well();
    }
    let broken = world.broken.take()?;
    Some(format!("{}\n{broken}", world.trace.join("\n")))
}

fn fault(random: &mut fastrand::Rng) -> Fault {
    match random.u32(..24) {
        0..8 => Fault::None,
        8 | 9 => Fault::Torn,
        10..12 => Fault::Partial,
        12..14 => Fault::Twice,
        14 => Fault::Sites,
        15 => Fault::Refused,
        16 => Fault::Missing,
        17 => Fault::Empty,
        18 => Fault::Absent,
        19..23 => Fault::Power(random.usize(..60)),
        _ => Fault::Full,
    }
}

impl MirrorWorld {
    fn new(random: fastrand::Rng, document: PathBuf) -> Self {
        let disk = TornDisk::new();
        Self {
            random,
            racks: BTreeMap::from([(0, 0), (1, 0)]),
            machines: BTreeMap::new(),
            store: Some(Store::on_backend(disk.clone()).unwrap()),
            disk,
            core: FileCore::at_path(document.clone(), None),
            document,
            // Version 4, as real ones are.
            next_id: 0x4000_8000_0000_0000_0000,
            now: WallTime::from_unix_ms(crate::guest::BEGINNING),
            ids: BTreeMap::new(),
            trace: Vec::new(),
            broken: None,
        }
    }

    fn break_invariant(&mut self, what: &str) {
        self.broken.get_or_insert(format!("invariant 10: {what}"));
    }

    /// The data centre changes.
    fn change(&mut self) {
        let n = self.random.u8(..MOST);
        let rack = self.random.u8(..MOST);
        match self.random.u32(..7) {
            0 => *self.racks.entry(n).or_default() += 1,
            1 => drop(self.racks.remove(&n)),
            2 => drop(self.machines.remove(&n)),
            3 => {
                // Two machines swap their BMCs.
                let other = self.random.u8(..MOST);
                if let (Some(one), Some(two)) = (
                    self.machines.get(&n).map(|m| m.mac),
                    self.machines.get(&other).map(|m| m.mac),
                ) {
                    self.machines.entry(n).and_modify(|m| m.mac = two);
                    self.machines.entry(other).and_modify(|m| m.mac = one);
                }
            }
            _ => {
                let used: BTreeSet<u8> = self.machines.values().map(|m| m.mac).collect();
                let free = (1..=2 * MOST).find(|mac| !used.contains(mac)).unwrap();
                let machine = self.machines.entry(n).or_insert(Machine {
                    mac: free,
                    name: 0,
                    rack,
                });
                (machine.name, machine.rack) = (machine.name + 1, rack);
            }
        }
    }

    /// What Core says when it says everything.
    fn lists(&self) -> [Vec<Value>; 2] {
        let site = "11111111-0000-4000-8000-000000000001";
        let racks = self.racks.iter().map(|(n, version)| {
            let labels = json!({"chassis.manufacturer": "M", "chassis.serial-number": format!("R{n}")});
            let metadata = json!({"name": format!("rack {n}"), "description": version.to_string(), "labels": labels});
            json!({"id": format!("rack-{n}"), "site_id": site, "rack_id": format!("r{n}"), "metadata": metadata})
        });
        let machines = self.machines.iter().map(|(n, machine)| {
            let Machine { mac, name, rack } = machine;
            json!({"id": format!("machine-{n}"), "site_id": site, "manufacturer": "M",
                "bmc_mac_address": format!("02:00:00:00:00:{mac:02x}"), "serial_number": format!("S{n}"),
                "name": format!("x{name}"), "rack_id": format!("r{rack}")})
        });
        [racks.collect(), machines.collect()]
    }

    /// Writes what Core says; gives for racks and machines whether that is all there is.
    fn write(&mut self, fault: Fault) -> [bool; 2] {
        let mut lists = self.lists();
        let at = self.random.usize(..2);
        let mut whole = [true, true];
        let list = &mut lists[at];
        let n = self.random.usize(..=list.len().saturating_sub(1));
        let name = ["expected_racks", "expected_machines"][at];
        let mut replaced = None;
        match fault {
            Fault::Partial if !list.is_empty() => {
                list[n] = json!(7);
                list.truncate(n + 1);
                whole[at] = false;
            }
            Fault::Twice if list.len() > 1 => {
                list[n] = list[(n + 1) % list.len()].clone();
                whole[at] = false;
            }
            Fault::Sites if !list.is_empty() => {
                list[n]["site_id"] = json!("22222222-0000-4000-8000-000000000002");
                // A single entry is a site of its own.
                if lists.iter().map(Vec::len).sum::<usize>() > 1 {
                    whole = [false, false];
                }
            }
            Fault::Refused => {
                replaced = Some(json!({"error": "no"}));
                whole[at] = false;
            }
            Fault::Missing => {
                replaced = Some(Value::Null);
                whole[at] = false;
            }
            Fault::Empty => {
                list.clear();
                // Under this profile it says nothing.
                whole[at] = false;
            }
            _ => {}
        }
        let [racks, machines] = lists;
        let mut document = json!({"expected_racks": racks, "expected_machines": machines});
        if let Some(value) = replaced {
            document[name] = value;
        }
        let mut text = document.to_string();
        if fault == Fault::Torn {
            text.truncate(self.random.usize(..text.len()));
            whole = [false, false];
        }
        fs::write(&self.document, text).unwrap();
        if fault == Fault::Absent {
            fs::remove_file(&self.document).unwrap();
            whole = [false, false];
        }
        whole
    }

    fn step(&mut self, n: usize, step: &Step) {
        for _ in 0..step.changes {
            self.change();
        }
        let whole = self.write(step.fault);
        let (racks, machines) = (self.racks.len(), self.machines.len());
        let what = format!(
            "cycle {n:>2}: {racks} racks, {machines} machines, {:?}",
            step.fault
        );
        self.trace.push(what);
        let before = self.live();
        match step.fault {
            Fault::Power(operations) => self.disk.fail_after(operations),
            Fault::Full => self.disk.set_full(true),
            _ => {}
        }
        self.cycle();
        self.disk.set_full(false);
        if matches!(step.fault, Fault::Power(_)) {
            self.store = None;
            self.disk = self.disk.after_a_crash(&mut self.random);
            self.store =
                Some(Store::on_backend(self.disk.clone()).expect("it opens after a crash"));
        }
        self.check(&before, whole);
    }

    fn cycle(&mut self) {
        let mut policy = Policy::of(Profile::NaturalKey);
        policy.max_deletes = 100;
        self.now = self.now.after(PAUSE);
        let next = &mut self.next_id;
        let mut new_id = || {
            *next += 1;
            Uuid::from_u128(*next)
        };
        let cycle = Cycle {
            policy: &policy,
            approval: None,
            mirror: true,
            now: self.now.to_string(),
            new_id: &mut new_id,
            gatekeeper: &AlwaysOpen,
        };
        let store = self.store.as_ref().unwrap();
        run_cycle(store, &mut self.core, cycle);
        let bounds = AuditBounds {
            max_age: None,
            max_bytes: Some(AUDIT),
        };
        // On a disk that takes nothing it fails, and is tried again in the next cycle.
        let _ = retention::keep(store, bounds, self.now, &mut new_id);
    }

    /// All rows; those of which the power took the store away are read by nobody.
    fn tables(&self) -> Value {
        let store = self.store.as_ref().unwrap();
        dump::dump(&store.snapshot().unwrap()).unwrap()
    }

    /// Ids of the live racks, and of the live machines.
    fn live(&self) -> [BTreeSet<String>; 2] {
        let tables = self.tables();
        ["rack", "component"].map(|table| {
            let rows = tables[table].as_array().into_iter().flatten();
            let live = rows.filter(|row| row["deleted_at"].is_null());
            live.map(|row| row["id"].as_str().unwrap().to_owned())
                .collect()
        })
    }

    fn check(&mut self, before: &[BTreeSet<String>; 2], whole: [bool; 2]) {
        let wrong = mirror::check(&self.store.as_ref().unwrap().snapshot().unwrap()).unwrap();
        if !wrong.is_empty() {
            self.break_invariant(&format!("indexes: {wrong:?}"));
        }
        let now = self.live();
        for at in 0..2 {
            let gone: Vec<_> = before[at].difference(&now[at]).collect();
            if !whole[at] && !gone.is_empty() {
                let what = format!("{gone:?} deleted by a pull that is not complete");
                self.break_invariant(&what);
            }
        }
        self.check_identities();
        let (stored, replayed) = (self.stored(), self.replayed());
        if stored != replayed {
            let what = differing(&stored, &replayed);
            self.break_invariant(&format!(
                "the audit log does not replay to the tables: {what}"
            ));
        }
        let size = self.disk.size();
        if size > FILE {
            self.break_invariant(&format!("{size} bytes of store"));
        }
    }

    /// What Core calls by one name has one id for ever.
    fn check_identities(&mut self) {
        let tables = self.tables();
        for (table, name) in [("rack", "external_id"), ("component", "serial_number")] {
            for row in tables[table].as_array().into_iter().flatten() {
                let name = format!("{table} {}", row[name]);
                let first = self.ids.entry(name.clone()).or_insert(row["id"].clone());
                if *first != row["id"] {
                    let what = format!("{name} was {first}, and is {}", row["id"]);
                    self.break_invariant(&what);
                }
            }
        }
    }

    fn stored(&self) -> Tables {
        let mut all = Tables::new();
        let Value::Object(tables) = self.tables() else {
            return all;
        };
        for (table, rows) in tables {
            for row in rows.as_array().into_iter().flatten() {
                let columns = row.as_object().unwrap().clone();
                let key = match table.as_str() {
                    "bmc" => &row["mac_address"],
                    _ => &row["id"],
                };
                let key = key.as_str().unwrap().to_owned();
                all.insert((table.clone(), key), audited(columns));
            }
        }
        all
    }

    /// The tables as the audit log has them, from its last checkpoint on.
    fn replayed(&self) -> Tables {
        let snapshot = self.store.as_ref().unwrap().snapshot().unwrap();
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
                    let columns = rows.entry(key).or_default();
                    columns.insert(field, new.unwrap_or_default());
                    columns.retain(|_, value| !value.is_null());
                }
                (None, Some(Value::Object(columns))) => {
                    rows.insert(key, audited(columns));
                }
                (None, _) => drop(rows.remove(&key)),
            }
        }
        rows
    }

    /// Everything is well: the tables are what Core says.
    fn be_well(&mut self) {
        self.trace.push("everything is well from now on".into());
        for _ in 0..2 {
            let (before, whole) = (self.live(), self.write(Fault::None));
            self.cycle();
            self.check(&before, whole);
        }
        let tables = self.tables();
        let live = |table: &str, column: &str| -> BTreeSet<String> {
            let rows = tables[table].as_array().into_iter().flatten();
            let live = rows.filter(|row| row["deleted_at"].is_null());
            live.map(|row| row[column].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        let racks = self.racks.keys().map(|n| format!("r{n}")).collect();
        let machines = self.machines.keys().map(|n| format!("S{n}")).collect();
        let (found, stored) = (
            live("rack", "external_id"),
            live("component", "serial_number"),
        );
        // An empty list says nothing under this profile.
        if !self.racks.is_empty() && found != racks {
            self.break_invariant(&format!("racks are {found:?}, Core has {racks:?}"));
        }
        if !self.machines.is_empty() && stored != machines {
            self.break_invariant(&format!("machines are {stored:?}, Core has {machines:?}"));
        }
    }
}

/// What the log does not say: when a rack was written.
fn audited(mut columns: Map<String, Value>) -> Map<String, Value> {
    columns.retain(|name, value| !value.is_null() && name != "created_at" && name != "updated_at");
    columns
}

fn differing(stored: &Tables, replayed: &Tables) -> String {
    let mut keys = stored.keys().chain(replayed.keys());
    let key = keys.find(|key| stored.get(*key) != replayed.get(*key));
    key.map_or_else(String::new, |key| {
        format!("{key:?}: {:?} is {:?}", replayed.get(key), stored.get(key))
    })
}
