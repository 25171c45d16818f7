//! The tables of `sense.redb`: each guest's newest undelivered report, its place in the queue,
//! and what is known of the guest.
//!
//! ```text
//! guests    vm id -> GuestRow      known generation, whose machine it is, when it last sent a report
//! slots     vm id -> SlotRow       place in the queue, attempts, why it is a dead letter
//! blobs     vm id -> Envelope      the report itself, at most one per guest
//! meta      seen_at                the highest of all documents; dropping a guest never lowers it
//! ```
//!
//! - A row that cannot be read is that guest's failure: it counts as absent, and the guest is asked for
//!   a full report.
//! - A report, its slot and the guest's known generation change in one transaction: a generation is
//!   known only when its report is here or was accepted by Central.
//! - [`PendingChange::Clear`] takes a report away only if it is still the one that was accepted.
//! - A report is given out only if its bytes have the hash under which they were stored.

mod v1;
mod v2;

use crate::clock::WallTime;
use crate::report::{
    Digest, Envelope, FactsHash, GuestId, ReportKey, ReportSummary, Trigger, VmId,
};
use crate::sense::fleet::{Fleet, FleetDocument, FleetTx};
use crate::store::codec::{Row, second_version};
use crate::store::{Blobs, CodecError, OpenBlobs, Sealed, Store, StoreError, TxError, codec};
use redb::{ReadableTable, Table, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::PathBuf;
use uuid::Uuid;

const GUESTS: TableDefinition<&str, &[u8]> = TableDefinition::new("sense_guests");
const SLOTS: TableDefinition<&str, &[u8]> = TableDefinition::new("pending_slots");
/// One row, [`SEEN_AT`].
const META: TableDefinition<&str, u64> = TableDefinition::new("sense_meta");
/// The highest `seen_at` of any document that was ever pending, in milliseconds since 1970.
const SEEN_AT: &str = "seen_at";
const BLOBS: Blobs = Blobs {
    heads: TableDefinition::new("pending_heads"),
    chunks: TableDefinition::new("pending_chunks"),
};

second_version!(
    SlotRow: v1::SlotRow,
    Envelope<'a>: v1::Envelope<'a>,
);

impl Row<'_> for GuestRow {
    const VERSION: u8 = 3;

    fn read_old(version: u8, fields: &[u8]) -> Result<Self, CodecError> {
        match version {
            1 => codec::fields::<v1::GuestRow>(fields).map(Into::into),
            2 => codec::fields::<v2::GuestRow>(fields).map(Into::into),
            other => Err(CodecError::UnknownVersion(Some(other))),
        }
    }
}

/// Names one document about a guest: a report, or the facts that changed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DocumentId {
    /// Epoch and generation, as the guest counts.
    pub key: ReportKey,
    /// The sensor's own hash over the content of the report.
    pub digest: Digest,
    /// Set for a document of facts alone: the hash over them.
    pub facts: Option<FactsHash>,
}

/// What an agent said last of its report, to be sent back to it as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Echo {
    /// No report of it is known.
    #[default]
    Nothing,
    /// Its generation and epoch, and the fact `report_digest`.
    Pair {
        /// Generation and epoch.
        key: ReportKey,
        /// As the agent issued it; `None` where it did not say.
        digest: Option<Digest>,
    },
    /// The token of an agent that counts no generations.
    Token(String),
}

impl From<&ReportSummary> for DocumentId {
    fn from(summary: &ReportSummary) -> Self {
        Self {
            key: summary.key,
            digest: summary.digest,
            facts: summary.facts_alone,
        }
    }
}

/// What is kept of a guest between exchanges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRow {
    /// The newest report that is, or was, in pending.
    pub known: Option<DocumentId>,
    /// What its agent said of that report.
    pub echo: Echo,
    /// The machine that answered last.
    pub guest_id: Option<GuestId>,
    /// Whether it can hold a wait.
    pub waits: bool,
    /// When its agent made the known report: tells apart restarts of agents without an epoch.
    pub generated_at: WallTime,
    /// When it last sent a whole report.
    pub full_at: WallTime,
    /// The report that Central accepted last, and when; kept up by [`PendingChange::Clear`] alone.
    pub accepted: Option<(DocumentId, WallTime)>,
    /// Over the facts in the newest document that is, or was, in pending.
    pub facts: Option<FactsHash>,
    /// Number of different tokens of an agent that counts no generations.
    pub tokens: u32,
    /// UUID of the libvirt domain that all of this is known of; `None`: no source has named one.
    pub domain: Option<Uuid>,
}

impl GuestRow {
    /// Whether it is known of another domain than this one. A guest of which no source says what domain
    /// it is may be any.
    pub fn is_of_another_domain(&self, domain: Option<Uuid>) -> bool {
        self.domain.is_some() && domain.is_some() && self.domain != domain
    }
}

/// Places in the two rings of the queue; lower goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePlace {
    /// Among reactive reports.
    pub reactive: Option<u64>,
    /// Among routine reports.
    pub routine: Option<u64>,
}

impl QueuePlace {
    /// In neither ring.
    pub fn is_none(self) -> bool {
        self == Self::default()
    }
}

/// A pending report, all but its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRow {
    /// Which report.
    pub report: DocumentId,
    /// Why its scan ran.
    pub trigger: Trigger,
    /// When the agent made it.
    pub generated_at: WallTime,
    /// Since when the guest has something undelivered.
    pub since: WallTime,
    /// Number of packages in it.
    pub packages: u32,
    /// Where it stands in the queue.
    pub place: QueuePlace,
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
        /// Its slot from now on.
        slot: SlotRow,
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
        /// The guest.
        vm: VmId,
        /// Its slot from now on.
        slot: SlotRow,
    },
    /// Central has this document: it goes, unless a newer one took its place.
    Clear {
        /// The guest.
        vm: VmId,
        /// What was accepted.
        report: DocumentId,
        /// When the guest's report was accepted; `None`: it says nothing of that.
        at: Option<WallTime>,
    },
    /// This report is not delivered any more: it goes, unless a newer one took its place.
    Drop {
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
}

/// Everything in the file but the reports.
#[derive(Debug, Default)]
pub struct StoredPending {
    /// Guests, by id.
    pub guests: Vec<(VmId, GuestRow)>,
    /// Slots, by guest.
    pub slots: Vec<(VmId, SlotRow)>,
    /// The highest `seen_at` that was ever given.
    pub seen_at: WallTime,
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
            slots: tx.open_table(SLOTS)?,
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
    slots: Rows<'tx>,
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
                slot,
                guest,
                report,
                fleet,
                seen_at: _,
            } => {
                put(slots, vm, slot)?;
                learn(guests, vm, guest)?;
                blobs.put(vm.as_str(), &report.0)?;
                match (fleet_tx, fleet) {
                    (Some(tables), Some(document)) => tables.put(vm, document),
                    _ => Ok(()),
                }
            }
            PendingChange::Move { vm, slot } => match get::<SlotRow>(slots, vm)? {
                Some(held) if held.report == slot.report => put(slots, vm, slot),
                _ => Ok(()),
            },
            PendingChange::Clear { vm, report, at } => {
                if let Some(at) = at
                    && let Some(mut guest) = get::<GuestRow>(guests, vm)?
                {
                    guest.accepted = Some((*report, *at));
                    put(guests, vm, &guest)?;
                }
                remove(slots, blobs, vm, *report)
            }
            PendingChange::Drop { vm, report } => remove(slots, blobs, vm, *report),
            PendingChange::Learn { vm, guest } => learn(guests, vm, guest),
            PendingChange::Forget { vm } => {
                if get::<SlotRow>(slots, vm)?.is_none() {
                    guests.remove(vm.as_str())?;
                    // What is there all the same cannot be read.
                    if slots.remove(vm.as_str())?.is_some() {
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

/// Removes a slot and its report, if it is this one.
fn remove(
    slots: &mut Rows<'_>,
    blobs: &mut OpenBlobs<'_>,
    vm: &VmId,
    report: DocumentId,
) -> Result<(), TxError> {
    match get::<SlotRow>(slots, vm)? {
        Some(held) if held.report == report => {
            slots.remove(vm.as_str())?;
            blobs.remove(vm.as_str()).map(drop)
        }
        _ => Ok(()),
    }
}

/// What Central accepted is written by [`PendingChange::Clear`] alone. What it accepted of another domain with
/// the same name is nothing that it has of this one.
fn learn(guests: &mut Rows<'_>, vm: &VmId, guest: &GuestRow) -> Result<(), TxError> {
    let held = get::<GuestRow>(guests, vm)?;
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
        let mut guests = all::<GuestRow>(&guests)?.readable;
        for (vm, row) in &mut guests {
            if slots.unreadable.contains(vm) {
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
