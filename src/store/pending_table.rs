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
    use std::sync::LazyLock;

    static NOISE: LazyLock<String> = LazyLock::new(|| {
        let mut random = fastrand::Rng::with_seed(1);
        std::iter::repeat_with(|| random.alphanumeric())
            .take(150_000)
            .collect()
    });

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

    pub(super) fn open(dir: &tempfile::TempDir) -> Store {
        Store::open(dir.path(), "sense.redb", 1 << 20)
            .unwrap()
            .store
    }

    pub(super) fn vm(id: &str) -> VmId {
        id.parse().unwrap()
    }

    pub(super) fn clear(id: &str, generation: u32) -> Change {
        Change::Clear {
            vm: vm(id),
            report: report(id, generation),
            at: WallTime::from_unix_ms(9),
        }
    }

    pub(super) fn arrival(id: &str, generation: u32) -> Change {
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

    pub(super) fn slot(id: &str, generation: u32) -> SlotRow {
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

    pub(super) fn report(id: &str, generation: u32) -> Known {
        let content = content(generation);
        let envelope = envelope(&content, id, generation);
        Known {
            key: envelope.key,
            digest: envelope.digest,
        }
    }

    /// Of a few bytes, or some that do not compress: a page of them, or more than a chunk.
    pub(super) fn content(generation: u32) -> Report {
        let noise = [0, 5_000, 0, 150_000][generation as usize % 4];
        Report {
            packages: vec![Package {
                name: format!("package-{generation}-{}", &NOISE[..noise]),
                ..Package::default()
            }],
            ..Report::default()
        }
    }

    pub(super) fn envelope<'a>(report: &'a Report, id: &str, generation: u32) -> Envelope<'a> {
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

#[cfg(test)]
mod properties;
