//! Tests of the loop of pulling.

use super::super::dial::Dialer;
use super::super::schedule::Timing;
use super::*;
use crate::blocking::Blocking;
use crate::clock::WallClock;
use crate::clock::WallTime;
use crate::sense::limits::ConcurrencyLimits;
use crate::sense::metrics::Metrics;
use crate::sense::queue::Pending;
use crate::sense::queue::policy::QueuePolicy;
use crate::sense::queue::table::StoredPending;
use crate::sense::queue::writer::StoreWriter;
use crate::sense::roster::RosterEntry;
use crate::sense::seen::SeenClock;
use crate::store::Store;
use std::path::Path;

fn pull_loop(dir: &Path) -> PullLoop {
    let opened = Store::open(dir, "sense.redb", 1 << 20).unwrap();
    let (store, wall) = (Arc::new(opened.store), WallClock::default());
    let (writer, _) = StoreWriter::start(store.clone(), Blocking::Inline, Box::new(|| ()));
    let stored = StoredPending::default();
    let pending = Pending::new(QueuePolicy::default(), store, writer, wall.clone(), &stored);
    let minute = Duration::from_secs(60);
    let timing = Timing::new(minute, 60 * minute);
    PullLoop {
        guests: Arc::new(Mutex::new(GuestTable::new(timing))),
        shared: Arc::new(Shared {
            dial: Arc::new(Dialer { tls: None }),
            pending: Arc::new(pending),
            limits: Arc::new(ConcurrencyLimits::new(2)),
            metrics: Arc::new(Metrics::new()),
            seen: Arc::new(SeenClock::new(WallTime::default())),
            blocking: Blocking::Inline,
            wall,
        }),
    }
}

/// Loss prevented: one guest whose answer meets a fault of ours ends the sensor of ten thousand.
#[tokio::test]
async fn a_panic_over_one_guest_is_its_failure_and_the_others_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let pulling = pull_loop(dir.path());
    let entries = ["a=unix:/a", "b=unix:/b"].map(|text| text.parse::<RosterEntry>().unwrap());
    let known = KnownGuests {
        guests: entries
            .map(|entry| (entry.vm.clone(), Arc::new(entry)))
            .into(),
        is_complete: true,
    };
    pulling.take_over(known, &mut HashMap::new());
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
