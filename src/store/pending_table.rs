//! What the sensor must not forget: each guest's newest undelivered report, its place in the queue,
//! and what is known of the guest.
//!
//! ```text
//! guests    vm id -> GuestRow      known generation, whose machine it is, when it was last heard
//! slots     vm id -> SlotRow       place in the queue, attempts, why it is a dead letter
//! blobs     vm id -> Envelope      the report itself, at most one per guest
//! ```
//!
//! - A report, its slot and the guest's known generation change in one transaction: a generation is
//!   known only when its report is here or was accepted by Central.
//! - [`Change::Clear`] takes a report away only if it is still the one that was accepted.
//! - A report is given out only if its bytes have the hash under which they were stored.

use super::blob::{Blobs, OpenBlobs, Sealed};
use super::{Store, StoreError, TxError, codec};
use crate::clock::WallTime;
use crate::report::{Digest, Envelope, GuestId, Headline, ReportKey, Trigger, VmId};
use redb::{ReadableTable, Table, TableDefinition, TableError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const GUESTS: TableDefinition<&str, &[u8]> = TableDefinition::new("sense_guests");
const SLOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("pending_slots");
const BLOBS: Blobs = Blobs {
    heads: TableDefinition::new("pending_heads"),
    chunks: TableDefinition::new("pending_chunks"),
};

/// One report of a guest, by name and content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Known {
    /// Epoch and generation, as the guest counts.
    pub key: ReportKey,
    /// Over the content.
    pub digest: Digest,
}

impl From<&Headline> for Known {
    fn from(headline: &Headline) -> Self {
        Self {
            key: headline.key,
            digest: headline.digest,
        }
    }
}

/// What is kept of a guest between conversations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRow {
    /// The newest report that is, or was, in pending.
    pub known: Option<Known>,
    /// The machine that answered last.
    pub guest_id: Option<GuestId>,
    /// Whether it can hold a wait.
    pub waits: bool,
    /// When its agent made the known report: tells apart restarts of agents without an epoch.
    pub generated_at: WallTime,
    /// When it last sent a whole report.
    pub full_at: WallTime,
    /// The report that Central accepted last, and when; kept up by [`Change::Clear`] alone.
    pub accepted: Option<(Known, WallTime)>,
}

/// Places in the two rings of the queue; lower goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Among reactive reports.
    pub reactive: Option<u64>,
    /// Among routine reports.
    pub routine: Option<u64>,
}

impl Place {
    /// In neither ring.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A pending report, all but its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// Which report.
    pub report: Known,
    /// Why its scan ran.
    pub trigger: Trigger,
    /// When the agent made it.
    pub generated_at: WallTime,
    /// Since when the guest has something undelivered.
    pub since: WallTime,
    /// Number of packages in it.
    pub packages: u32,
    /// Where it stands in the queue.
    pub place: Place,
    /// Deliveries that failed.
    pub attempts: u32,
    /// Not to be sent before.
    pub not_before: WallTime,
    /// Whether Central refused it once: its retries are routine.
    pub demoted: bool,
    /// Why it is no longer sent; `None`: it is.
    pub dead: Option<String>,
    /// What the last attempt said.
    pub last_error: Option<String>,
}

/// A report made ready for [`Change::Put`], outside of any transaction.
pub struct SealedReport(Sealed);

impl SealedReport {
    /// Encodes, compresses and hashes.
    pub fn new(envelope: &Envelope<'_>) -> Result<Self, String> {
        Sealed::new(envelope)
            .map(Self)
            .map_err(|error| error.to_string())
    }
}

/// One change; several are applied together.
pub enum Change {
    /// A report arrived: it replaces the one before it.
    Put {
        /// The guest.
        vm: VmId,
        /// Its slot from now on.
        slot: SlotRow,
        /// What is known of it from now on.
        guest: GuestRow,
        /// The report.
        report: SealedReport,
    },
    /// The slot has another place or state; nothing happens when it holds another report by now.
    Move {
        /// The guest.
        vm: VmId,
        /// Its slot from now on.
        slot: SlotRow,
    },
    /// Central accepted this report: it goes, unless a newer one took its place.
    Clear {
        /// The guest.
        vm: VmId,
        /// What was accepted.
        report: Known,
        /// When.
        at: WallTime,
    },
    /// Something else is known of the guest.
    Learn {
        /// The guest.
        vm: VmId,
        /// What is known from now on.
        guest: GuestRow,
    },
    /// The guest left the roster and has nothing pending.
    Forget {
        /// The guest.
        vm: VmId,
    },
}

/// Everything in the file but the reports.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Guests, by id.
    pub guests: Vec<(VmId, GuestRow)>,
    /// Slots, by guest.
    pub slots: Vec<(VmId, SlotRow)>,
}

/// Applies all of `changes` in one transaction: all of them are on disk, or none.
pub fn apply(store: &Store, changes: &[Change]) -> Result<(), StoreError> {
    store.write(|tx| {
        let mut tables = Tables {
            guests: tx.open_table(GUESTS)?,
            slots: tx.open_table(SLOTS)?,
            blobs: BLOBS.open(tx)?,
        };
        for change in changes {
            tables.apply(change)?;
        }
        Ok(())
    })
}

type Rows<'tx> = Table<'tx, &'static str, &'static [u8]>;

/// The tables, open to be written.
struct Tables<'tx> {
    guests: Rows<'tx>,
    slots: Rows<'tx>,
    blobs: OpenBlobs<'tx>,
}

impl Tables<'_> {
    fn apply(&mut self, change: &Change) -> Result<(), TxError> {
        let Self {
            guests,
            slots,
            blobs,
        } = self;
        match change {
            Change::Put {
                vm,
                slot,
                guest,
                report,
            } => {
                put(slots, vm, slot)?;
                learn(guests, vm, guest)?;
                blobs.put(vm.as_str(), &report.0)
            }
            Change::Move { vm, slot } => match get::<SlotRow>(slots, vm)? {
                Some(held) if held.report == slot.report => put(slots, vm, slot),
                _ => Ok(()),
            },
            Change::Clear { vm, report, at } => {
                if let Some(mut guest) = get::<GuestRow>(guests, vm)? {
                    guest.accepted = Some((*report, *at));
                    put(guests, vm, &guest)?;
                }
                match get::<SlotRow>(slots, vm)? {
                    Some(held) if held.report == *report => {
                        slots.remove(vm.as_str())?;
                        blobs.remove(vm.as_str()).map(drop)
                    }
                    _ => Ok(()),
                }
            }
            Change::Learn { vm, guest } => learn(guests, vm, guest),
            Change::Forget { vm } => {
                if get::<SlotRow>(slots, vm)?.is_none() {
                    guests.remove(vm.as_str())?;
                }
                Ok(())
            }
        }
    }
}

/// What Central accepted is written by [`Change::Clear`] alone.
fn learn(guests: &mut Rows<'_>, vm: &VmId, guest: &GuestRow) -> Result<(), TxError> {
    let accepted = get::<GuestRow>(guests, vm)?.and_then(|held| held.accepted);
    let guest = GuestRow {
        accepted,
        ..guest.clone()
    };
    put(guests, vm, &guest)
}

fn put(rows: &mut Rows<'_>, vm: &VmId, row: &impl Serialize) -> Result<(), TxError> {
    rows.insert(vm.as_str(), codec::encode(row)?.as_slice())?;
    Ok(())
}

fn get<T: DeserializeOwned>(rows: &Rows<'_>, vm: &VmId) -> Result<Option<T>, TxError> {
    match rows.get(vm.as_str())? {
        Some(bytes) => Ok(Some(codec::decode(bytes.value())?)),
        None => Ok(None),
    }
}

/// Reads all rows, as a sensor does when it starts.
pub fn load(store: &Store) -> Result<Loaded, StoreError> {
    store.read(|tx| {
        let (guests, slots) = match (tx.open_table(GUESTS), tx.open_table(SLOTS)) {
            (Ok(guests), Ok(slots)) => (guests, slots),
            (Err(TableError::TableDoesNotExist(_)), _)
            | (_, Err(TableError::TableDoesNotExist(_))) => return Ok(Loaded::default()),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
        Ok(Loaded {
            guests: all(&guests)?,
            slots: all(&slots)?,
        })
    })
}

fn all<T: DeserializeOwned>(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Vec<(VmId, T)>, TxError> {
    rows.iter()?
        .map(|row| {
            let (vm, bytes) = row?;
            let vm = vm
                .value()
                .parse()
                .map_err(|_| TxError::Corrupt("a row under no VM id".into()))?;
            Ok((vm, codec::decode(bytes.value())?))
        })
        .collect()
}

/// A pending report as it was stored, checked against its hash.
pub struct StoredEnvelope {
    plain: Vec<u8>,
    path: PathBuf,
}

impl StoredEnvelope {
    /// Bytes of it, unpacked.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.plain.len()
    }

    /// The report of this guest.
    ///
    /// # Errors
    /// When it is another's, or cannot be read: the file is damaged.
    pub fn open(&self, vm: &VmId) -> Result<Envelope<'_>, StoreError> {
        let envelope: Envelope<'_> = codec::decode_borrowed(&self.plain)
            .map_err(|error| super::explain(&self.path, error.into()))?;
        if envelope.vm != *vm {
            let what = TxError::Corrupt(format!("the report of {vm} is another's"));
            return Err(super::explain(&self.path, what));
        }
        Ok(envelope)
    }
}

/// The pending report of a guest.
pub fn read(store: &Store, vm: &VmId) -> Result<Option<StoredEnvelope>, StoreError> {
    let plain = store.read(|tx| {
        let (heads, chunks) = match (tx.open_table(BLOBS.heads), tx.open_table(BLOBS.chunks)) {
            (Ok(heads), Ok(chunks)) => (heads, chunks),
            (Err(TableError::TableDoesNotExist(_)), _)
            | (_, Err(TableError::TableDoesNotExist(_))) => return Ok(None),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
        Blobs::get_plain(&heads, &chunks, vm.as_str())
    })?;
    let path = store.path().to_owned();
    Ok(plain.map(|plain| StoredEnvelope { plain, path }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Epoch, Facts, Generation, Package, Report};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_report_its_slot_and_the_known_generation_arrive_together() {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(&dir);
            assert!(load(&store).unwrap().slots.is_empty());
            apply(&store, &[arrival("a", 1), arrival("b", 1), arrival("a", 2)]).unwrap();
        }
        let store = open(&dir);
        let loaded = load(&store).unwrap();
        let known: Vec<_> = loaded
            .guests
            .iter()
            .map(|(_, g)| g.known.unwrap())
            .collect();
        let held: Vec<_> = loaded.slots.iter().map(|(_, s)| s.report).collect();
        assert_eq!(known, [report("a", 2), report("b", 1)]);
        assert_eq!(known, held);
        let read = read(&store, &vm("a")).unwrap().unwrap();
        assert_eq!(read.open(&vm("a")).unwrap().key, report("a", 2).key);
    }

    /// Otherwise the newer report would be lost with the answer to the older one.
    #[test]
    fn an_answer_to_an_older_report_leaves_the_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        apply(&store, &[arrival("a", 1), arrival("a", 2), clear("a", 1)]).unwrap();
        assert!(read(&store, &vm("a")).unwrap().is_some());
        apply(&store, &[clear("a", 2)]).unwrap();
        assert!(read(&store, &vm("a")).unwrap().is_none());
        let loaded = load(&store).unwrap();
        assert!(loaded.slots.is_empty());
        let (accepted, _) = loaded.guests[0].1.accepted.unwrap();
        assert_eq!(accepted, report("a", 2));
    }

    #[test]
    fn moving_a_slot_that_holds_another_report_by_now_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let mut late = slot("a", 1);
        late.dead = Some("refused".into());
        let changes = [
            arrival("a", 2),
            Change::Move {
                vm: vm("a"),
                slot: late,
            },
        ];
        apply(&store, &changes).unwrap();
        assert_eq!(load(&store).unwrap().slots[0].1, slot("a", 2));
    }

    #[test]
    fn a_guest_with_something_pending_is_not_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let forget = || Change::Forget { vm: vm("a") };
        apply(&store, &[arrival("a", 1), forget()]).unwrap();
        assert_eq!(load(&store).unwrap().guests.len(), 1);
        apply(&store, &[clear("a", 1), forget()]).unwrap();
        assert!(load(&store).unwrap().guests.is_empty());
    }

    #[test]
    fn the_report_of_another_guest_is_never_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        let Change::Put { slot, guest, .. } = arrival("a", 1) else {
            unreachable!()
        };
        let mixed_up = Change::Put {
            vm: vm("a"),
            slot,
            guest,
            report: SealedReport::new(&envelope(&content(1), "b", 1)).unwrap(),
        };
        apply(&store, &[mixed_up]).unwrap();
        let read = read(&store, &vm("a")).unwrap().unwrap();
        assert!(read.open(&vm("a")).unwrap_err().is_corrupt());
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Arrive {
            guest: u8,
        },
        Move {
            guest: u8,
            behind: u32,
        },
        Clear {
            guest: u8,
            behind: u32,
        },
        Forget {
            guest: u8,
        },
        /// What was given since the last one is one transaction.
        Commit,
        /// What was given since the last commit is lost with the process.
        Crash,
    }

    /// Loss prevented: a report that was durable and is not, one that was accepted and comes back,
    /// or a newer one that goes with the answer to an older one.
    #[test]
    fn random_changes_with_crashes_leave_what_a_simple_model_says() {
        let guest = 0u8..3;
        let op = prop_oneof![
            5 => guest.clone().prop_map(|guest| Op::Arrive { guest }),
            2 => (guest.clone(), 0u32..2).prop_map(|(guest, behind)| Op::Move { guest, behind }),
            4 => (guest.clone(), 0u32..2).prop_map(|(guest, behind)| Op::Clear { guest, behind }),
            1 => guest.prop_map(|guest| Op::Forget { guest }),
            4 => Just(Op::Commit),
            1 => Just(Op::Crash),
        ];
        let config = ProptestConfig::with_cases(40);
        proptest!(config, |(ops in proptest::collection::vec(op, 1..60))| {
            let dir = tempfile::tempdir().unwrap();
            let mut store = open(&dir);
            let mut generations = [0u32; 3];
            let mut batch = Vec::new();
            let mut durable = Model::default();
            let mut model = Model::default();
            for op in ops {
                match op {
                    Op::Commit => {
                        apply(&store, &std::mem::take(&mut batch)).unwrap();
                        durable = model.clone();
                    }
                    Op::Crash => {
                        batch.clear();
                        model = durable.clone();
                        drop(store);
                        store = open(&dir);
                    }
                    op => batch.extend(model.step(op, &mut generations)),
                }
                if batch.is_empty() {
                    durable.check(&store);
                }
            }
        });
    }

    /// Generation of the pending report and whether it was moved; and the guests that are known.
    #[derive(Clone, Default)]
    struct Model {
        pending: BTreeMap<String, (u32, bool)>,
        known: BTreeMap<String, (Option<u32>, Option<u32>)>,
    }

    impl Model {
        fn step(&mut self, op: Op, generations: &mut [u32; 3]) -> Option<Change> {
            let name = |guest: u8| format!("g{guest}");
            match op {
                Op::Arrive { guest } => {
                    let (id, generation) = (name(guest), &mut generations[usize::from(guest)]);
                    *generation += 1;
                    self.pending.insert(id.clone(), (*generation, false));
                    self.known.entry(id.clone()).or_default().0 = Some(*generation);
                    Some(arrival(&id, *generation))
                }
                Op::Move { guest, behind } => {
                    let generation = generations[usize::from(guest)].checked_sub(behind)?.max(1);
                    let id = name(guest);
                    if let Some(held) = self.pending.get_mut(&id).filter(|h| h.0 == generation) {
                        held.1 = true;
                    }
                    let mut moved = slot(&id, generation);
                    moved.attempts = 1;
                    Some(Change::Move {
                        vm: vm(&id),
                        slot: moved,
                    })
                }
                Op::Clear { guest, behind } => {
                    let generation = generations[usize::from(guest)].checked_sub(behind)?.max(1);
                    let id = name(guest);
                    if let Some(known) = self.known.get_mut(&id) {
                        known.1 = Some(generation);
                    }
                    if self
                        .pending
                        .get(&id)
                        .is_some_and(|held| held.0 == generation)
                    {
                        self.pending.remove(&id);
                    }
                    Some(clear(&id, generation))
                }
                Op::Forget { guest } => {
                    let id = name(guest);
                    if !self.pending.contains_key(&id) {
                        self.known.remove(&id);
                    }
                    Some(Change::Forget { vm: vm(&id) })
                }
                Op::Commit | Op::Crash => None,
            }
        }

        fn check(&self, store: &Store) {
            let loaded = load(store).unwrap();
            let number = |known: Known| known.key.generation.get();
            let pending: BTreeMap<_, _> = loaded
                .slots
                .iter()
                .map(|(vm, slot)| (vm.to_string(), (number(slot.report), slot.attempts == 1)))
                .collect();
            assert_eq!(pending, self.pending);
            let known: BTreeMap<_, _> = loaded
                .guests
                .iter()
                .map(|(vm, row)| {
                    let accepted = row.accepted.map(|(known, _)| number(known));
                    (vm.to_string(), (row.known.map(number), accepted))
                })
                .collect();
            assert_eq!(known, self.known);
            for id in ["g0", "g1", "g2"] {
                let vm = vm(id);
                let read = read(store, &vm).unwrap();
                let held = self.pending.get(id).map(|held| held.0);
                let read = read.map(|stored| stored.open(&vm).unwrap().key.generation.get());
                assert_eq!(read, held);
            }
        }
    }

    fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path(), "sense.redb", 1 << 20)
            .unwrap()
            .store
    }

    fn vm(id: &str) -> VmId {
        id.parse().unwrap()
    }

    fn clear(id: &str, generation: u32) -> Change {
        Change::Clear {
            vm: vm(id),
            report: report(id, generation),
            at: WallTime::from_unix_ms(9),
        }
    }

    fn arrival(id: &str, generation: u32) -> Change {
        let content = content(generation);
        let envelope = envelope(&content, id, generation);
        Change::Put {
            vm: vm(id),
            slot: slot(id, generation),
            guest: GuestRow {
                known: Some(report(id, generation)),
                ..GuestRow::default()
            },
            report: SealedReport::new(&envelope).unwrap(),
        }
    }

    fn slot(id: &str, generation: u32) -> SlotRow {
        SlotRow {
            report: report(id, generation),
            trigger: Trigger::Reactive,
            generated_at: WallTime::default(),
            since: WallTime::default(),
            packages: 1,
            place: Place {
                reactive: Some(3),
                routine: None,
            },
            attempts: 0,
            not_before: WallTime::default(),
            demoted: false,
            dead: None,
            last_error: None,
        }
    }

    fn report(id: &str, generation: u32) -> Known {
        let content = content(generation);
        let envelope = envelope(&content, id, generation);
        Known {
            key: envelope.key,
            digest: envelope.digest,
        }
    }

    fn content(generation: u32) -> Report {
        Report {
            packages: vec![Package {
                name: format!("package-{generation}"),
                ..Package::default()
            }],
            ..Report::default()
        }
    }

    fn envelope<'a>(report: &'a Report, id: &str, generation: u32) -> Envelope<'a> {
        Envelope {
            vm: vm(id),
            address: "unix:/a".into(),
            guest_id: None,
            key: ReportKey {
                epoch: Epoch::new(1),
                generation: Generation::new(generation).unwrap(),
            },
            digest: report.digest(),
            trigger: Trigger::Reactive,
            generated_at: WallTime::default(),
            agent_version: String::new(),
            facts: Facts::new(),
            report: report.view(),
        }
    }
}
