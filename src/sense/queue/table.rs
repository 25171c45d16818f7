//! The tables of `sense.redb`: each guest's newest undelivered report, its place in the queue,
//! and what is known of the guest.
//!
//! ```text
//! guests    vm id -> GuestRow      known generation, whose machine it is, when it last sent a report
//! slots     vm id -> SlotRow       place in the queue, attempts, why it is a dead letter; of named sinks by
//!                                  vm id and sink, with what each accepted last
//! blobs     vm id -> Envelope      the report itself, at most one per guest, for all sinks
//! meta      seen_at                the highest of all documents; dropping a guest never lowers it
//! ```
//!
//! - A row that cannot be read is that guest's failure: it counts as absent, and the guest is asked for
//!   a full report.
//! - A report, its slot and the guest's known generation change in one transaction: a generation is
//!   known only when its report is here or was accepted by Central.
//! - [`PendingChange::Clear`] takes a slot away only if it still holds the report that was accepted, and the
//!   report with the last slot that needs it.
//! - A report is given out only if its bytes have the hash under which they were stored.

mod rows;
mod slots;
mod v1;
mod v2;

use crate::clock::WallTime;
use crate::report::{Envelope, VmId};
use crate::sense::fleet::{Fleet, FleetDocument, FleetTx};
use crate::sense::sink_name::SinkName;
use crate::store::codec::Row;
use crate::store::{Blobs, CodecError, OpenBlobs, Sealed, Store, StoreError, TxError, codec};
use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};
pub use rows::{DocumentId, Echo, GuestRow, QueuePlace, SlotRow};
use slots::{NamedSinks, SLOTS, Slots};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

const GUESTS: TableDefinition<&str, &[u8]> = TableDefinition::new("sense_guests");
/// One row, [`SEEN_AT`].
const META: TableDefinition<&str, u64> = TableDefinition::new("sense_meta");
/// The highest `seen_at` of any document that was ever pending, in milliseconds since 1970.
const SEEN_AT: &str = "seen_at";
const BLOBS: Blobs = Blobs {
    heads: TableDefinition::new("pending_heads"),
    chunks: TableDefinition::new("pending_chunks"),
};

/// A report made ready for [`PendingChange::Put`], outside of any transaction.
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
#[allow(
    clippy::large_enum_variant,
    reason = "few exist at a time, and nearly all are of the large kind"
)]
pub enum PendingChange {
    /// A report arrived: it replaces the one before it.
    Put {
        /// The guest.
        vm: VmId,
        /// Its slots from now on, one for each sink.
        slots: Vec<(SinkName, SlotRow)>,
        /// What is known of it from now on.
        guest: GuestRow,
        /// The report.
        report: SealedReport,
        /// The same for the fleet store, where there is one.
        fleet: Option<FleetDocument>,
        /// When it was seen.
        seen_at: WallTime,
    },
    /// The slot has another place or state; nothing happens when it holds another report by now.
    Move {
        /// Whose slot.
        sink: SinkName,
        /// The guest.
        vm: VmId,
        /// Its slot from now on.
        slot: SlotRow,
    },
    /// A sink has this document: it goes, unless a newer one took its place.
    Clear {
        /// Who has it.
        sink: SinkName,
        /// The guest.
        vm: VmId,
        /// What was accepted.
        report: DocumentId,
        /// When the guest's report was accepted; `None`: it says nothing of that.
        at: Option<WallTime>,
    },
    /// This report is not delivered to a sink any more: it goes, unless a newer one took its place.
    Drop {
        /// To which sink.
        sink: SinkName,
        /// The guest.
        vm: VmId,
        /// What is dropped.
        report: DocumentId,
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
    /// Nothing is delivered to this sink any more.
    DropSink {
        /// Which one.
        sink: SinkName,
    },
}

/// Everything in the file but the reports.
#[derive(Debug, Default)]
pub struct StoredPending {
    /// Guests, by id.
    pub guests: Vec<(VmId, GuestRow)>,
    /// Slots of the sink without a name, by guest. What it accepted is in [`StoredPending::guests`].
    pub slots: Vec<(VmId, SlotRow)>,
    /// What is stored of named sinks, whether there are such sinks now or not.
    pub named: BTreeMap<SinkName, StoredSink>,
    /// The highest `seen_at` that was ever given.
    pub seen_at: WallTime,
}

/// What is stored of a sink.
#[derive(Clone, Debug, Default)]
pub struct StoredSink {
    /// Its slots, by guest.
    pub slots: Vec<(VmId, SlotRow)>,
    /// What it accepted last, and when, by guest.
    pub accepted: HashMap<VmId, (DocumentId, WallTime)>,
}

impl StoredPending {
    /// What is stored of a sink.
    pub fn sink(&self, sink: &SinkName) -> StoredSink {
        if !sink.is_default() {
            return self.named.get(sink).cloned().unwrap_or_default();
        }
        let accepted = self.guests.iter();
        let accepted = accepted.filter_map(|(vm, row)| Some((vm.clone(), row.accepted?)));
        StoredSink {
            slots: self.slots.clone(),
            accepted: accepted.collect(),
        }
    }

    /// Sinks that have slots, with their number.
    pub fn pending(&self) -> impl Iterator<Item = (SinkName, usize)> + '_ {
        let named = self.named.iter();
        let named = named.map(|(name, stored)| (name.clone(), stored.slots.len()));
        let all = std::iter::once((SinkName::default(), self.slots.len())).chain(named);
        all.filter(|(_, slots)| *slots > 0)
    }
}

/// Applies all of `changes` in one transaction: all of them are on disk, or none. The fleet store changes in
/// the same one.
pub fn apply(
    store: &Store,
    fleet: Option<&Fleet>,
    changes: &[PendingChange],
) -> Result<(), StoreError> {
    let staged = store.write(|tx| {
        let mut tables = Tables {
            guests: tx.open_table(GUESTS)?,
            slots: Slots::open(tx)?,
            blobs: BLOBS.open(tx)?,
            fleet: match fleet {
                Some(fleet) if changes.iter().any(concerns_fleet) => {
                    Some(FleetTx::begin(fleet, tx)?)
                }
                _ => None,
            },
        };
        for change in changes {
            tables.apply(change)?;
        }
        let staged = tables.fleet.map(FleetTx::end).transpose()?;
        raise_seen_at(tx, changes)?;
        Ok(staged)
    })?;
    if let (Some(fleet), Some(staged)) = (fleet, staged) {
        fleet.committed(staged);
    }
    Ok(())
}

fn concerns_fleet(change: &PendingChange) -> bool {
    matches!(
        change,
        PendingChange::Put { fleet: Some(_), .. } | PendingChange::Forget { .. }
    )
}

/// The mark is as high as the documents of this transaction, whatever it was.
fn raise_seen_at(tx: &WriteTransaction, changes: &[PendingChange]) -> Result<(), TxError> {
    let highest = changes.iter().filter_map(|change| match change {
        PendingChange::Put { seen_at, .. } => Some(seen_at.unix_ms()),
        _ => None,
    });
    if let Some(highest) = highest.max() {
        let mut meta = tx.open_table(META)?;
        let before = meta.get(SEEN_AT)?.map_or(0, |mark| mark.value());
        meta.insert(SEEN_AT, highest.max(before))?;
    }
    Ok(())
}

type Rows<'tx> = Table<'tx, &'static str, &'static [u8]>;

/// The tables, open to be written.
struct Tables<'f, 'tx> {
    guests: Rows<'tx>,
    slots: Slots<'tx>,
    blobs: OpenBlobs<'tx>,
    fleet: Option<FleetTx<'f, 'tx>>,
}

impl Tables<'_, '_> {
    fn apply(&mut self, change: &PendingChange) -> Result<(), TxError> {
        let Self {
            guests,
            slots,
            blobs,
            fleet: fleet_tx,
        } = self;
        match change {
            PendingChange::Put {
                vm,
                slots: rows,
                guest,
                report,
                fleet,
                seen_at: _,
            } => {
                for (sink, row) in rows {
                    slots.put(sink, vm, row)?;
                }
                learn(guests, slots, vm, guest)?;
                blobs.put(vm.as_str(), &report.0)?;
                match (fleet_tx, fleet) {
                    (Some(tables), Some(document)) => tables.put(vm, document),
                    _ => Ok(()),
                }
            }
            PendingChange::Move { sink, vm, slot } => match slots.get(sink, vm)? {
                Some(held) if held.report == slot.report => slots.put(sink, vm, slot),
                _ => Ok(()),
            },
            PendingChange::Clear {
                sink,
                vm,
                report,
                at,
            } => {
                if let Some(at) = at {
                    accept(guests, slots, sink, vm, (*report, *at))?;
                }
                remove(slots, blobs, sink, vm, *report)
            }
            PendingChange::Drop { sink, vm, report } => remove(slots, blobs, sink, vm, *report),
            PendingChange::Learn { vm, guest } => learn(guests, slots, vm, guest),
            PendingChange::DropSink { sink } => {
                for vm in slots.guests_of(sink)? {
                    // What has another name is not ours, and stays.
                    let Ok(vm) = vm.parse() else { continue };
                    if slots.remove(sink, &vm)? {
                        blobs.remove(vm.as_str())?;
                    }
                }
                slots.forget_sink(sink)
            }
            PendingChange::Forget { vm } => {
                if !slots.is_pending(vm)? {
                    guests.remove(vm.as_str())?;
                    // What is there all the same cannot be read.
                    if slots.forget(vm)? {
                        blobs.remove(vm.as_str())?;
                    }
                    if let Some(tables) = fleet_tx {
                        tables.forget(vm)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// Removes a slot, if it holds this report; with the last slot the report itself.
fn remove(
    slots: &mut Slots<'_>,
    blobs: &mut OpenBlobs<'_>,
    sink: &SinkName,
    vm: &VmId,
    report: DocumentId,
) -> Result<(), TxError> {
    match slots.get(sink, vm)? {
        Some(held) if held.report == report => match slots.remove(sink, vm)? {
            true => blobs.remove(vm.as_str()).map(drop),
            false => Ok(()),
        },
        _ => Ok(()),
    }
}

/// A sink accepted a report of a guest that is known.
fn accept(
    guests: &mut Rows<'_>,
    slots: &mut Slots<'_>,
    sink: &SinkName,
    vm: &VmId,
    (report, at): (DocumentId, WallTime),
) -> Result<(), TxError> {
    let Some(mut guest) = get::<GuestRow>(guests, vm)? else {
        return Ok(());
    };
    if !sink.is_default() {
        return slots.accept(sink, vm, report, at);
    }
    guest.accepted = Some((report, at));
    put(guests, vm, &guest)
}

/// What a sink accepted is written by [`PendingChange::Clear`] alone. What it accepted of another domain with
/// the same name is nothing that it has of this one.
fn learn(
    guests: &mut Rows<'_>,
    slots: &mut Slots<'_>,
    vm: &VmId,
    guest: &GuestRow,
) -> Result<(), TxError> {
    let held = get::<GuestRow>(guests, vm)?;
    let is_another = held.as_ref();
    if is_another.is_some_and(|held| held.is_of_another_domain(guest.domain)) {
        slots.forget_accepted(vm)?;
    }
    let accepted = held
        .filter(|held| !held.is_of_another_domain(guest.domain))
        .and_then(|held| held.accepted);
    let guest = GuestRow {
        accepted,
        ..guest.clone()
    };
    put(guests, vm, &guest)
}

fn put<'a, T: Row<'a>>(rows: &mut Rows<'_>, vm: &VmId, row: &T) -> Result<(), TxError> {
    rows.insert(vm.as_str(), codec::encode(row)?.as_slice())?;
    Ok(())
}

/// The row of a guest; `None` also when it cannot be read.
fn get<T: for<'a> Row<'a>>(rows: &Rows<'_>, vm: &VmId) -> Result<Option<T>, TxError> {
    Ok(rows
        .get(vm.as_str())?
        .and_then(|bytes| readable(vm.as_str(), codec::decode(bytes.value()))))
}

/// The value, unless it cannot be read, which is logged.
fn readable<T>(vm: &str, row: Result<T, CodecError>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(vm, %error, "a stored row of this guest is left out"))
        .ok()
}

/// Reads all rows, as a sensor does when it starts. A guest one of whose rows cannot be read counts as
/// one whose report is not known.
pub fn load(store: &Store) -> Result<StoredPending, StoreError> {
    store.read(|tx| {
        let (guests, slots) = match (tx.open_table(GUESTS), tx.open_table(SLOTS)) {
            (Ok(guests), Ok(slots)) => (guests, slots),
            (Err(TableError::TableDoesNotExist(_)), _)
            | (_, Err(TableError::TableDoesNotExist(_))) => return Ok(StoredPending::default()),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
        let slots = all::<SlotRow>(&slots)?;
        let NamedSinks {
            sinks: named,
            unreadable,
        } = slots::load_named(tx)?;
        let mut guests = all::<GuestRow>(&guests)?.readable;
        for (vm, row) in &mut guests {
            if slots.unreadable.contains(vm) || unreadable.contains(vm) {
                row.known = None;
            }
        }
        // A file of format 1 has no mark: documents of it were seen when their guests sent them.
        let earlier = guests.iter().map(|(_, row)| row.full_at).max();
        let mark = match tx.open_table(META) {
            Ok(meta) => meta.get(SEEN_AT)?.map(|mark| mark.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(StoredPending {
            guests,
            slots: slots.readable,
            named,
            seen_at: mark
                .map(WallTime::from_unix_ms)
                .or(earlier)
                .unwrap_or_default(),
        })
    })
}

/// The rows of a table.
struct Read<T> {
    readable: Vec<(VmId, T)>,
    /// Guests whose rows cannot be read.
    unreadable: HashSet<VmId>,
}

/// Reads all rows.
fn all<T: for<'a> Row<'a>>(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Read<T>, TxError> {
    let mut read = Read {
        readable: Vec::new(),
        unreadable: HashSet::new(),
    };
    for row in rows.iter()? {
        let (key, bytes) = row?;
        let Ok(vm) = key.value().parse::<VmId>() else {
            tracing::error!(key = ?key.value(), "a stored row under no VM id is left out");
            continue;
        };
        match readable(vm.as_str(), codec::decode(bytes.value())) {
            Some(row) => read.readable.push((vm, row)),
            None => drop(read.unreadable.insert(vm)),
        }
    }
    Ok(read)
}

/// A pending report as it was stored, checked against its hash.
pub struct StoredEnvelope {
    plain: Vec<u8>,
    /// When its guest last sent a whole report.
    full_at: WallTime,
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
        let mut envelope: Envelope<'_> =
            codec::decode(&self.plain).map_err(|error| TxError::from(error).in_file(&self.path))?;
        if envelope.seen_at == WallTime::default() {
            // Of a file of format 1, which did not say.
            envelope.seen_at = self.full_at;
        }
        if envelope.vm != *vm {
            let what = TxError::Corrupt(format!("the report of {vm} is another's"));
            return Err(what.in_file(&self.path));
        }
        Ok(envelope)
    }
}

/// The pending report of a guest.
pub fn read(store: &Store, vm: &VmId) -> Result<Option<StoredEnvelope>, StoreError> {
    let stored = store.read(|tx| {
        let (heads, chunks) = match (tx.open_table(BLOBS.heads), tx.open_table(BLOBS.chunks)) {
            (Ok(heads), Ok(chunks)) => (heads, chunks),
            (Err(TableError::TableDoesNotExist(_)), _)
            | (_, Err(TableError::TableDoesNotExist(_))) => return Ok(None),
            (Err(error), _) | (_, Err(error)) => return Err(error.into()),
        };
        let Some(plain) = Blobs::get_plain(&heads, &chunks, vm.as_str())? else {
            return Ok(None);
        };
        let row = tx
            .open_table(GUESTS)?
            .get(vm.as_str())?
            .and_then(|bytes| readable::<GuestRow>(vm.as_str(), codec::decode(bytes.value())));
        Ok(Some((
            plain,
            row.map_or_else(WallTime::default, |row| row.full_at),
        )))
    })?;
    let path = store.path().to_owned();
    Ok(stored.map(|(plain, full_at)| StoredEnvelope {
        plain,
        full_at,
        path,
    }))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod properties;
