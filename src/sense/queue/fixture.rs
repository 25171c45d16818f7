//! Documents and stores for the tests of the queue and of its two sides.

use super::pending::{ArrivedDocument, Pending};
use super::policy::QueuePolicy;
use super::sink_queue::SinkQueue;
use super::slot::Class;
use super::table::{self, DocumentId, GuestRow, SealedReport, StoredPending};
use super::writer::StoreWriter;
use crate::blocking::Blocking;
use crate::clock::{WallClock, WallTime};
use crate::report::{Envelope, Facts, Generation, Package, Report, ReportKey, Trigger, VmId};
use crate::sense::sink_name::SinkName;
use crate::store::Store;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// The database of a test, in this directory.
pub(crate) fn store(dir: &Path) -> Arc<Store> {
    let opened = Store::open(dir, "sense.redb", 1 << 20).unwrap();
    Arc::new(opened.store)
}

/// What is in the database of this directory; nobody may have it open.
pub(crate) fn stored(dir: &Path) -> StoredPending {
    table::load(&store(dir)).unwrap()
}

/// Pending documents of one sink with what is stored in the directory, and the task of their writer.
pub(crate) fn pending(dir: &Path, policy: QueuePolicy) -> (Arc<Pending>, JoinHandle<()>) {
    let store = store(dir);
    let loaded = table::load(&store).unwrap();
    let (writer, task) = StoreWriter::start(store.clone(), None, Blocking::Inline, Box::new(|| ()));
    let sinks = vec![(SinkName::default(), policy)];
    let pending = Pending::new(sinks, &store, writer, &WallClock::default(), &loaded);
    (Arc::new(pending), task)
}

impl Pending {
    /// The queue of the only sink.
    pub(crate) fn only(&self) -> &Arc<SinkQueue> {
        &self.sinks[0]
    }
}

/// A report that arrived from a guest, with one package of this name.
pub(crate) fn arrived(vm: &str, generation: u32, package: &str) -> ArrivedDocument {
    let vm: VmId = vm.parse().unwrap();
    let report = Report {
        packages: vec![Package {
            name: package.to_owned(),
            ..Package::default()
        }],
        ..Report::default()
    };
    let envelope = Envelope {
        vm: vm.clone(),
        address: "unix:/a".into(),
        guest_id: None,
        key: ReportKey {
            epoch: None,
            generation: Generation::new(generation).unwrap(),
        },
        digest: report.digest(),
        seen_at: WallTime::from_unix_ms(generation.into()),
        trigger: Trigger::Scheduled,
        generated_at: WallTime::default(),
        agent_version: String::new(),
        facts: Facts::new(),
        report: Some(report.view()),
    };
    let summary = envelope.summary();
    let guest = GuestRow {
        known: Some(DocumentId::from(&summary)),
        ..GuestRow::default()
    };
    ArrivedDocument {
        vm,
        class: Class::Routine,
        sealed: SealedReport::new(&envelope).unwrap(),
        summary,
        guest,
        fleet: None,
    }
}
