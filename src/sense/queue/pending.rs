//! The pending documents of all guests, for every sink, in memory and on disk: what pulling sees of the queue.
//!
//! ```text
//! pulling ── arrived: durable, then in every queue ──► SinkQueue, one for each sink ──► delivery
//!            forget, learn
//! ```
//!
//! A document is in the queues only once it is on disk. It is stored once; each sink has a slot of its own for it,
//! so that none waits for another.

use super::policy::QueuePolicy;
use super::sink_queue::SinkQueue;
use super::slot::Class;
use super::table::{GuestRow, PendingChange, SealedReport, StoredPending};
use super::writer::{StoreWriter, WriteError};
use crate::clock::WallClock;
use crate::report::{ReportSummary, VmId};
use crate::sense::fleet::FleetDocument;
use crate::sense::sink_name::SinkName;
use crate::store::Store;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The pending documents of all sinks, and the way to their file.
pub struct Pending {
    pub(super) sinks: Vec<Arc<SinkQueue>>,
    /// Slots of sinks that there are no more, by sink.
    orphaned: Mutex<Vec<(SinkName, usize)>>,
    pub(super) writer: StoreWriter,
}

/// A document that was pulled and is not durable yet.
pub struct ArrivedDocument {
    /// The guest.
    pub vm: VmId,
    /// What the document says of itself.
    pub summary: ReportSummary,
    /// How urgent it is.
    pub class: Class,
    /// Its content, encoded.
    pub sealed: SealedReport,
    /// What is known of the guest once the document is durable.
    pub guest: GuestRow,
    /// The document for the fleet store, where there is one.
    pub fleet: Option<FleetDocument>,
}

/// How many sinks have something pending of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingAt {
    /// None has.
    NoSink,
    /// Some have, and some took everything.
    SomeSinks,
    /// All have.
    AllSinks,
}

impl Pending {
    /// Restores the queues of these sinks from the store; documents keep their places.
    pub fn new(
        sinks: Vec<(SinkName, QueuePolicy)>,
        store: &Arc<Store>,
        writer: StoreWriter,
        wall: &WallClock,
        stored: &StoredPending,
    ) -> Self {
        let orphaned = stored.pending();
        let orphaned = orphaned.filter(|(name, _)| sinks.iter().all(|(sink, _)| sink != name));
        let orphaned = Mutex::new(orphaned.collect());
        let queues = sinks.into_iter().map(|(name, policy)| {
            let (store, writer, wall) = (store.clone(), writer.clone(), wall.clone());
            Arc::new(SinkQueue::new(name, policy, store, writer, wall, stored))
        });
        Self {
            sinks: queues.collect(),
            orphaned,
            writer,
        }
    }

    /// The queue of each sink, at least one.
    pub fn sinks(&self) -> &[Arc<SinkQueue>] {
        &self.sinks
    }

    /// Why no report is kept at the moment, where the disk refuses.
    pub fn write_trouble(&self) -> Option<String> {
        self.writer.trouble()
    }

    /// Makes a document durable and puts it into the queues. Runs to its end whatever becomes of the
    /// caller: what is on disk must be in the queues.
    ///
    /// # Errors
    /// The document is not durable, and in no queue.
    pub async fn arrived(self: Arc<Self>, document: ArrivedDocument) -> Result<(), WriteError> {
        let stored = tokio::spawn(async move {
            let ArrivedDocument {
                vm,
                summary,
                class,
                sealed,
                guest,
                fleet,
            } = document;
            let domain = guest.domain;
            let mut sinks = self.sinks.iter();
            if sinks.any(|sink| sink.state().is_of_former(&vm, domain)) {
                tracing::info!(%vm, "a report of the machine that had this name before is left out");
                return Ok(());
            }
            let sinks = self.sinks.iter();
            let admitted = sinks.map(|sink| sink.admit(&vm, &summary, class));
            let (arrivals, rows): (Vec<_>, Vec<_>) = admitted.unzip();
            let names = self.sinks.iter().map(|sink| sink.name().clone());
            let put = PendingChange::Put {
                vm: vm.clone(),
                slots: names.zip(rows.iter().cloned()).collect(),
                guest,
                report: sealed,
                fleet,
                seen_at: summary.seen_at,
            };
            self.writer.write(put).await?;
            let arrivals = arrivals.into_iter().zip(&rows);
            for (sink, (arrival, row)) in self.sinks.iter().zip(arrivals) {
                sink.enqueue(&vm, arrival, row, domain);
            }
            tracing::debug!(%vm, generation = %summary.key, ?class, "pending");
            Ok(())
        });
        match stored.await {
            Ok(stored) => stored,
            Err(error) => Err(WriteError::Refused(error.to_string())),
        }
    }

    /// Something else is known of a guest, without a document.
    pub fn learn(&self, vm: &VmId, guest: GuestRow) {
        let vm = vm.clone();
        self.writer.note(PendingChange::Learn { vm, guest });
    }

    /// How many sinks have not taken the newest document of this guest.
    pub fn pending_at(&self, vm: &VmId) -> PendingAt {
        let sinks = self.sinks.iter();
        let pending = sinks.filter(|sink| sink.state().queue.slot(vm).is_some());
        match pending.count() {
            0 => PendingAt::NoSink,
            all if all == self.sinks.len() => PendingAt::AllSinks,
            _ => PendingAt::SomeSinks,
        }
    }

    /// A guest left the roster: what is pending of it stays until it is delivered.
    pub fn forget(&self, vm: &VmId) {
        for sink in &self.sinks {
            sink.state().forget(vm);
        }
        self.writer.note(PendingChange::Forget { vm: vm.clone() });
    }

    /// Sets which guests the roster has, once all of its sources were read.
    pub fn set_present(&self, guests: HashSet<VmId>) {
        let guests = Arc::new(guests);
        for sink in &self.sinks {
            sink.state().present = Some(guests.clone());
        }
    }

    /// Everything pending is gone with the file it was in.
    pub fn lose_all(&self) {
        for sink in &self.sinks {
            sink.lose_all();
        }
        self.orphaned().clear();
    }

    /// Guests of which a sink has nothing pending and accepted nothing, of those that are known: it is a new one.
    pub fn unknown_to_a_sink(&self, stored: &StoredPending) -> HashSet<VmId> {
        let known = stored.guests.iter().filter(|(_, row)| row.known.is_some());
        let lacks = |vm: &VmId| {
            let mut sinks = self.sinks.iter();
            sinks.any(|sink| {
                let state = sink.state();
                state.queue.slot(vm).is_none() && state.accepted(vm).is_none()
            })
        };
        let unknown = known.filter(|(vm, _)| lacks(vm));
        unknown.map(|(vm, _)| vm.clone()).collect()
    }

    /// Sinks that there are no more, and the number of slots that each has left.
    pub fn orphaned(&self) -> std::sync::MutexGuard<'_, Vec<(SinkName, usize)>> {
        self.orphaned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is left of a sink that there is no more; gives the number of its slots.
    ///
    /// # Errors
    /// There is such a sink, or nothing is left of it.
    pub fn drop_sink(&self, name: &SinkName) -> Result<usize, String> {
        if self.sinks.iter().any(|sink| sink.name() == name) {
            return Err(format!(
                "the sink {name} is in use: take it out of the configuration first"
            ));
        }
        let mut orphaned = self.orphaned();
        let Some(at) = orphaned.iter().position(|(sink, _)| sink == name) else {
            return Err(format!("nothing is left of a sink {name}"));
        };
        let (sink, slots) = orphaned.swap_remove(at);
        drop(orphaned);
        self.writer.note(PendingChange::DropSink { sink });
        Ok(slots)
    }
}

#[cfg(test)]
mod tests;
