//! Tests of the loop of pulling.

use super::super::dial::Dialer;
use super::super::schedule::Timing;
use super::*;
use crate::blocking::Blocking;
use crate::clock::WallClock;
use crate::clock::WallTime;
use crate::report::{Epoch, Generation, GuestId, Report, ReportKey};
use crate::sense::SinkName;
use crate::sense::limits::ConcurrencyLimits;
use crate::sense::mapping::run::SharedPushes;
use crate::sense::metrics::Metrics;
use crate::sense::queue::Pending;
use crate::sense::queue::policy::QueuePolicy;
use crate::sense::queue::table::{self, DocumentId, Echo, StoredPending};
use crate::sense::queue::writer::StoreWriter;
use crate::sense::roster::RosterEntry;
use crate::sense::seen::SeenClock;
use crate::store::Store;
use std::path::Path;
use tokio::task::JoinHandle;

fn pull_loop(dir: &Path) -> PullLoop {
    pull_loop_after(dir, &StoredPending::default()).0
}

/// With what was stored before; and the writer, which ends after the loop.
fn pull_loop_after(dir: &Path, stored: &StoredPending) -> (PullLoop, JoinHandle<()>) {
    let opened = Store::open(dir, "sense.redb", 1 << 20).unwrap();
    let (store, wall) = (Arc::new(opened.store), WallClock::default());
    let (writer, written) =
        StoreWriter::start(store.clone(), None, Blocking::Inline, Box::new(|| ()));
    let sinks = vec![(SinkName::default(), QueuePolicy::default())];
    let pending = Pending::new(sinks, &store, writer, &wall, stored);
    let minute = Duration::from_secs(60);
    let timing = Timing::new(minute, 60 * minute);
    let pull_loop = PullLoop {
        guests: Arc::new(Mutex::new(GuestTable::new(timing))),
        shared: Arc::new(Shared {
            dial: Arc::new(Dialer {
                tls: None,
                kube: None,
            }),
            pending: Arc::new(pending),
            fleet: None,
            limits: Arc::new(ConcurrencyLimits::new(2)),
            metrics: Arc::new(Metrics::new()),
            pushes: Arc::new(SharedPushes::new(1)),
            full_pulls: tokio::sync::mpsc::unbounded_channel().0,
            seen: Arc::new(SeenClock::new(WallTime::default())),
            blocking: Blocking::Inline,
            wall,
        }),
    };
    (pull_loop, written)
}

/// All guests, as a source names them.
fn roster(entries: &[&str], domain: Option<Uuid>) -> KnownGuests {
    let entries = entries.iter().map(|text| {
        let entry: RosterEntry = text.parse().unwrap();
        (entry.vm.clone(), Arc::new(RosterEntry { domain, ..entry }))
    });
    KnownGuests {
        guests: entries.collect(),
        is_complete: true,
    }
}

/// Loss prevented: one guest whose answer meets a fault of ours ends the sensor of ten thousand.
#[tokio::test]
async fn a_panic_over_one_guest_is_its_failure_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let pulling = pull_loop(dir.path());
    let known = roster(&["a=unix:/a", "b=unix:/b"], None);
    pulling.take_over(known, &mut StoredGuests::default());
    let vm: VmId = "a".parse().unwrap();
    let mut exchanges = JoinSet::new();
    {
        let mut table = pulling.guests();
        let taken = table.schedule.take_due(clock::now(), 0.5).unwrap();
        assert_eq!(taken, (vm.clone(), Ask::Full));
        let guest = table.guests.get_mut(&vm).unwrap();
        guest.asked = Some(Ask::Full);
        guest.exchange = Some(exchanges.spawn(async { unreachable!("a fault") }));
    }
    pulling.settle(exchanges.join_next_with_id().await.unwrap());
    {
        let guests = pulling.guests();
        let guest = guests.guest(&vm).unwrap();
        assert!(
            matches!(&guest.failure, Some(Failure::Panicked(said)) if said.to_string().contains("a fault"))
        );
        // It backs off, and the other is asked.
        assert!(matches!(guests.schedule.look(&vm), Some((1, Some(at))) if at > clock::now()));
        assert!(guests.schedule.next_due().unwrap() <= clock::now());
    }
}

fn document() -> DocumentId {
    DocumentId {
        key: ReportKey {
            epoch: Epoch::new(7),
            generation: Generation::new(3).unwrap(),
        },
        digest: Report::default().digest(),
        facts: None,
    }
}

/// Loss prevented: the report of a machine that is no more passes for that of the one with its name.
#[tokio::test]
async fn a_domain_of_the_same_name_and_another_uuid_is_another_machine() {
    let [first, second] = [1, 2].map(|n| Some(Uuid::from_u128(n)));
    let dir = tempfile::tempdir().unwrap();
    let vm: VmId = "a".parse().unwrap();
    let accepted = (document(), WallTime::from_unix_ms(1));
    let row = GuestRow {
        known: Some(document()),
        echo: Echo::Pair {
            key: document().key,
            digest: None,
        },
        guest_id: Some(GuestId::of_machine("m")),
        waits: true,
        full_at: clock::wall_now(),
        tokens: 4,
        ..GuestRow::default()
    };
    let loaded = StoredPending {
        guests: vec![(
            vm.clone(),
            GuestRow {
                accepted: Some(accepted),
                ..row.clone()
            },
        )],
        ..StoredPending::default()
    };
    let (pulling, written) = pull_loop_after(dir.path(), &loaded);
    let mut stored = StoredGuests {
        rows: HashMap::from([(vm.clone(), row.clone())]),
        ..StoredGuests::default()
    };
    let mut named = |domain| {
        pulling.take_over(roster(&["a=unix:/a"], domain), &mut stored);
        let mut guests = pulling.guests();
        let asked = guests.schedule.take_due(clock::now(), 0.5);
        let guest = guests.guest(&vm).unwrap();
        let accepted = pulling
            .shared
            .pending
            .only()
            .state()
            .accepted(&vm)
            .is_some();
        (
            GuestRow::clone(&guest.row),
            guest.before.clone(),
            accepted,
            asked,
        )
    };
    // From a file, then from libvirt: whatever is known may well be of this domain.
    assert_eq!(named(None).0, row);
    let of_first = GuestRow {
        domain: first,
        ..row
    };
    for domain in [first, None, first] {
        let (row, before, is_accepted, asked) = named(domain);
        assert_eq!((row, before, is_accepted), (of_first.clone(), None, true));
        assert!(!matches!(asked, Some((_, Ask::Full))), "{asked:?}");
    }
    assert_eq!(pulling.shared.metrics.machine_changes.get(), 0);

    let (row, before, is_accepted, asked) = named(second);
    let of_second = GuestRow {
        domain: second,
        tokens: 4,
        ..GuestRow::default()
    };
    assert_eq!((row, is_accepted), (of_second.clone(), false));
    assert_eq!(asked, Some((vm.clone(), Ask::Full)));
    let before = before.unwrap();
    assert_eq!(before.domain, first);
    assert_eq!(before.guest_id, of_first.guest_id);
    assert_eq!(pulling.shared.metrics.machine_changes.get(), 1);
    // It is said for as long as the guest stays, whatever else changes about it.
    assert_eq!(named(None).1, Some(before));
    drop(pulling);
    written.await.unwrap();
    let store = Store::open(dir.path(), "sense.redb", 1 << 20)
        .unwrap()
        .store;
    assert_eq!(table::load(&store).unwrap().guests, [(vm, of_second)]);
}
