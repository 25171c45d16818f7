//! What pending holds after random changes, and after crashes and power cuts among them, against a
//! simple model of it.

use super::tests::{arrival, clear, content, envelope, open, report, slot, vm};
use super::*;
use crate::report::Digest;
use crate::sense::fleet::FleetLimits;
use crate::store::torn_disk::TornDisk;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};

const GUESTS: u8 = 3;

/// The sink without a name, and a named one.
const SINKS: u8 = 2;

#[derive(Clone, Copy, Debug)]
enum Op {
    Arrive { guest: u8 },
    Move { sink: u8, guest: u8, behind: u32 },
    Clear { sink: u8, guest: u8, behind: u32 },
    Learn { guest: u8 },
    Forget { guest: u8 },
    DropSink { sink: u8 },
}

#[derive(Clone, Debug)]
enum Step {
    /// One transaction.
    Commit(Vec<Op>),
    /// The process is killed.
    Crash,
}

/// Loss prevented: a report that was durable and is not, one that was accepted and comes back, or a
/// newer one that goes with the answer to an older one.
#[test]
fn random_changes_with_crashes_leave_what_a_simple_model_says() {
    let step = prop_oneof![
        4 => vec(op(), 0..6).prop_map(Step::Commit),
        1 => Just(Step::Crash),
    ];
    let config = ProptestConfig::with_cases(40);
    proptest!(config, |(steps in vec(step, 1..20))| {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(&dir);
        let mut fleet = fleet_of(&store);
        let mut generations = Generations::default();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit(ops) => {
                    let batch = with_fleet(model.batch(ops, &mut generations), &fleet);
                    apply(&store, Some(&fleet), &batch).unwrap();
                }
                Step::Crash => {
                    drop(store);
                    store = open(&dir);
                    fleet = fleet_of(&store);
                }
            }
            prop_assert!(model.is_in(&store));
        }
    });
}

/// Loss prevented: a power cut, or one more while the store recovers from it, takes a batch that was
/// durable, leaves half of one, or makes the whole file a damaged one.
#[test]
fn after_power_cuts_the_last_batch_is_there_as_a_whole_or_not_at_all() {
    let batches = vec(vec(op(), 1..6), 20..40);
    let cuts = vec((1usize..60, any::<u64>()), 1..8);
    let config = ProptestConfig::with_cases(100);
    proptest!(config, |(batches in batches, cuts in cuts)| {
        let disk = TornDisk::new();
        drop(Store::on_backend(disk.clone()).unwrap());
        let mut batches = batches.into_iter();
        let mut generations = Generations::default();
        let mut possible = vec![Model::default()];
        for (operations, seed) in cuts {
            disk.fail_after(operations);
            possible = live(&disk, possible, &mut batches, &mut generations);
            disk.fail_after(0);
            disk.recover(&mut fastrand::Rng::with_seed(seed));
        }
        live(&disk, possible, &mut batches, &mut generations);
    });
}

/// Lives until the power fails or all is done; gives what may be on the disk then.
fn live(
    disk: &TornDisk,
    mut possible: Vec<Model>,
    batches: &mut impl Iterator<Item = Vec<Op>>,
    generations: &mut Generations,
) -> Vec<Model> {
    let store = match Store::on_backend(disk.clone()) {
        Ok(store) => store,
        Err(error) => {
            assert!(disk.is_dark(), "not opened after a power cut: {error}");
            return possible;
        }
    };
    possible.retain(|model| model.is_in(&store));
    let mut model = possible
        .pop()
        .expect("neither with the last batch nor without it");
    let fleet = fleet_of(&store);
    for ops in batches {
        let before = model.clone();
        let batch = with_fleet(model.batch(ops, generations), &fleet);
        if apply(&store, Some(&fleet), &batch).is_err() {
            assert!(disk.is_dark());
            disk.fail_after(0);
            return vec![before, model];
        }
        assert!(model.is_in(&store));
    }
    disk.fail_after(0);
    vec![model]
}

/// The fleet store as a sensor opens it. It has the last report of every guest of which one is known, and of
/// no other: both were written together.
fn fleet_of(store: &Store) -> Fleet {
    let loaded = load(store).unwrap();
    let known = loaded.guests.iter();
    let known = known.filter_map(|(vm, row)| Some((vm.clone(), row.known?.digest)));
    let known: HashMap<VmId, Digest> = known.collect();
    let fleet = Fleet::load(store, FleetLimits::default(), &known).unwrap();
    assert_eq!(fleet.missing(), HashSet::new());
    assert_eq!(fleet.counts().guests, known.len() as u64);
    fleet
}

/// The same changes, whose reports enter the fleet store too.
fn with_fleet(changes: Vec<PendingChange>, fleet: &Fleet) -> Vec<PendingChange> {
    let changes = changes.into_iter().map(|mut change| {
        if let PendingChange::Put {
            vm,
            slots,
            fleet: document,
            ..
        } = &mut change
        {
            let generation = slots[0].1.report.key.generation.get();
            let content = content(generation);
            *document = fleet.prepare(&envelope(&content, vm.as_str(), generation));
        }
        change
    });
    changes.collect()
}

/// The newest generation of each guest, whether it was written or lost.
#[derive(Default)]
struct Generations([u32; GUESTS as usize]);

impl Generations {
    fn next(&mut self, guest: u8) -> u32 {
        self.0[usize::from(guest)] += 1;
        self.0[usize::from(guest)]
    }

    fn behind(&self, guest: u8, behind: u32) -> u32 {
        self.0[usize::from(guest)].saturating_sub(behind).max(1)
    }
}

/// The rows of all tables.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    slots: BTreeMap<(VmId, SinkName), SlotRow>,
    /// What the named sink accepted.
    accepted: BTreeMap<(VmId, SinkName), DocumentId>,
    guests: BTreeMap<VmId, GuestRow>,
}

impl Model {
    fn batch(&mut self, ops: Vec<Op>, generations: &mut Generations) -> Vec<PendingChange> {
        ops.into_iter()
            .map(|op| self.step(op, generations))
            .collect()
    }

    fn step(&mut self, op: Op, generations: &mut Generations) -> PendingChange {
        match op {
            Op::Arrive { guest } => {
                let (id, generation) = (id(guest), generations.next(guest));
                let rows = (0..SINKS).map(|sink| (sink_name(sink), slot(&id, generation)));
                let rows: Vec<(SinkName, SlotRow)> = rows.collect();
                for (sink, row) in &rows {
                    self.slots.insert((vm(&id), sink.clone()), row.clone());
                }
                self.learn(
                    GuestRow {
                        known: Some(report(&id, generation)),
                        ..GuestRow::default()
                    },
                    &id,
                );
                let mut put = arrival(&id, generation);
                if let PendingChange::Put { slots, .. } = &mut put {
                    *slots = rows;
                }
                put
            }
            Op::Move {
                sink,
                guest,
                behind,
            } => {
                let sink = sink_name(sink);
                let (id, generation) = (id(guest), generations.behind(guest, behind));
                let mut moved = slot(&id, generation);
                moved.attempts = 1;
                if self.holds(&sink, &id, generation) {
                    self.slots.insert((vm(&id), sink.clone()), moved.clone());
                }
                PendingChange::Move {
                    sink,
                    vm: vm(&id),
                    slot: moved,
                }
            }
            Op::Clear {
                sink,
                guest,
                behind,
            } => {
                let sink = sink_name(sink);
                let (id, generation) = (id(guest), generations.behind(guest, behind));
                let accepted = report(&id, generation);
                match self.guests.get_mut(&vm(&id)) {
                    Some(row) if sink.is_default() => {
                        row.accepted = Some((accepted, WallTime::from_unix_ms(9)));
                    }
                    Some(_) => drop(self.accepted.insert((vm(&id), sink.clone()), accepted)),
                    None => {}
                }
                if self.holds(&sink, &id, generation) {
                    self.slots.remove(&(vm(&id), sink.clone()));
                }
                let mut change = clear(&id, generation);
                if let PendingChange::Clear { sink: of, .. } = &mut change {
                    *of = sink;
                }
                change
            }
            Op::DropSink { sink } => {
                let sink = sink_name(sink);
                self.slots.retain(|(_, name), _| *name != sink);
                self.accepted.retain(|(_, name), _| *name != sink);
                PendingChange::DropSink { sink }
            }
            Op::Learn { guest } => {
                let id = id(guest);
                let mut row = self.guests.get(&vm(&id)).cloned().unwrap_or_default();
                row.waits = !row.waits;
                row.accepted = None;
                self.learn(row.clone(), &id);
                PendingChange::Learn {
                    vm: vm(&id),
                    guest: row,
                }
            }
            Op::Forget { guest } => {
                let vm = vm(&id(guest));
                if self.slots.keys().all(|(id, _)| *id != vm) {
                    self.guests.remove(&vm);
                    self.accepted.retain(|(id, _), _| *id != vm);
                }
                PendingChange::Forget { vm }
            }
        }
    }

    fn holds(&self, sink: &SinkName, id: &str, generation: u32) -> bool {
        let held = self.slots.get(&(vm(id), sink.clone()));
        held.is_some_and(|held| held.report == report(id, generation))
    }

    fn learn(&mut self, row: GuestRow, id: &str) {
        let held = self.guests.get(&vm(id));
        let accepted = held.and_then(|held| held.accepted);
        self.guests.insert(vm(id), GuestRow { accepted, ..row });
    }

    /// Whether this, and nothing else, is stored. Every report has to be the one of its slot.
    fn is_in(&self, store: &Store) -> bool {
        let loaded = load(store).unwrap();
        let mut found = Self::default();
        for name in (0..SINKS).map(sink_name) {
            let StoredSink { slots, accepted } = loaded.sink(&name);
            let slots = slots.into_iter();
            found
                .slots
                .extend(slots.map(|(vm, row)| ((vm, name.clone()), row)));
            if !name.is_default() {
                let accepted = accepted.into_iter();
                found
                    .accepted
                    .extend(accepted.map(|(vm, (report, _))| ((vm, name.clone()), report)));
            }
        }
        found.guests = loaded.guests.into_iter().collect();
        for guest in 0..GUESTS {
            let (id, vm) = (id(guest), vm(&id(guest)));
            let stored = read(store, &vm).unwrap();
            let report = stored.as_ref().map(|stored| stored.open(&vm).unwrap());
            // A slot of any sink keeps the report, which is the newest.
            let mut slots = found.slots.iter().filter(|((of, _), _)| *of == vm);
            let generation = slots.next().map(|(_, slot)| slot.report.key.generation);
            let content = generation.map(|generation| content(generation.get()));
            let expected = generation.zip(content.as_ref());
            let expected = expected.map(|(n, content)| envelope(content, &id, n.get()));
            assert_eq!(report, expected);
        }
        found == *self
    }
}

fn op() -> impl Strategy<Value = Op> {
    let guest = 0..GUESTS;
    let old = (0..SINKS, guest.clone(), 0u32..2);
    prop_oneof![
        5 => guest.clone().prop_map(|guest| Op::Arrive { guest }),
        2 => old.clone().prop_map(|(sink, guest, behind)| Op::Move { sink, guest, behind }),
        4 => old.prop_map(|(sink, guest, behind)| Op::Clear { sink, guest, behind }),
        1 => guest.clone().prop_map(|guest| Op::Learn { guest }),
        1 => guest.prop_map(|guest| Op::Forget { guest }),
        1 => (0..SINKS).prop_map(|sink| Op::DropSink { sink }),
    ]
}

fn sink_name(sink: u8) -> SinkName {
    match sink {
        0 => SinkName::default(),
        _ => "siem".parse().unwrap(),
    }
}

fn id(guest: u8) -> String {
    format!("g{guest}")
}
