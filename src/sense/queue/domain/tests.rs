//! Tests of guests whose name another domain has taken.

use super::super::fixture::{arrived, pending, stored};
use super::super::policy::QueuePolicy;
use super::super::settlement::Settlement;
use super::super::sink_queue::{Dispatch, NextDelivery};
use super::*;
use crate::clock;

const FIRST: Uuid = Uuid::from_u128(1);
const SECOND: Uuid = Uuid::from_u128(2);

fn vm() -> VmId {
    "a".parse().unwrap()
}

fn dispatch(pending: &Pending) -> Dispatch {
    match pending.only().next(clock::now()) {
        NextDelivery::Send(dispatch) => dispatch,
        other => panic!("nothing to send: {other:?}"),
    }
}

/// A report of the machine with this domain is durable and queued.
async fn arrive(pending: &Arc<Pending>, domain: Uuid, generation: u32, package: &str) -> GuestRow {
    let mut document = arrived("a", generation, package);
    document.guest.domain = Some(domain);
    let row = document.guest.clone();
    pending.clone().arrived(document).await.unwrap();
    row
}

fn accept(pending: &Pending, sent: &Dispatch) {
    pending
        .only()
        .settled(&sent.vm, sent.report, Settlement::Accepted, None);
}

/// Loss prevented: what Central has of a machine that is no more passes for what it has of the one with its
/// name, which it is then told nothing of.
#[tokio::test]
async fn the_acceptance_of_a_former_domains_report_does_not_count_for_the_new_one() {
    for restarts in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (pending, writer) = pending(dir.path(), QueuePolicy::default());
        let mut row = Arc::new(arrive(&pending, FIRST, 1, "p").await);
        let older = dispatch(&pending);
        // One more, which waits for the answer to the first.
        arrive(&pending, FIRST, 2, "q").await;
        let note = pending.note_domain(&vm(), SECOND, &mut row);
        assert_eq!(note, DomainNote::AnotherMachine);
        assert_eq!((row.known, row.domain), (None, Some(SECOND)));
        let (pending, writer) = if restarts {
            drop(pending);
            writer.await.unwrap();
            super::super::fixture::pending(dir.path(), QueuePolicy::default())
        } else {
            accept(&pending, &older);
            (pending, writer)
        };
        // What is pending of the former machine is still delivered.
        let newer = dispatch(&pending);
        assert_eq!(newer.report.key.generation.get(), 2);
        accept(&pending, &newer);
        assert_eq!(
            pending.only().state().accepted(&vm()),
            None,
            "restarts: {restarts}"
        );
        // The first report of the new one counts, although it is the very same.
        arrive(&pending, SECOND, 2, "q").await;
        let first = dispatch(&pending);
        assert_eq!(first.precedent, super::super::Precedent::New);
        accept(&pending, &first);
        assert!(pending.only().state().accepted(&vm()).is_some());
        drop(pending);
        writer.await.unwrap();
        let (_, kept) = stored(dir.path()).guests.remove(0);
        assert_eq!(kept.accepted.map(|(known, _)| known), Some(first.report));
        assert_eq!(kept.domain, Some(SECOND));
    }
}

/// Loss prevented: a report that was pulled from the former machine, and is durable only after another took
/// its name, is taken for the new one's.
#[tokio::test]
async fn a_former_domains_report_that_arrives_late_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, writer) = pending(dir.path(), QueuePolicy::default());
    let mut row = Arc::new(GuestRow::default());
    let note = pending.note_domain(&vm(), FIRST, &mut row);
    assert_eq!(note, DomainNote::SameMachine);
    assert_eq!(
        pending.note_domain(&vm(), SECOND, &mut row),
        DomainNote::AnotherMachine
    );
    arrive(&pending, FIRST, 1, "p").await;
    assert!(pending.only().state().queue().slot(&vm()).is_none());
    // While the sensor is away the roster may be one that names no domains: that may be any.
    let document = arrived("a", 1, "p");
    pending.clone().arrived(document).await.unwrap();
    let sent = dispatch(&pending);
    accept(&pending, &sent);
    assert!(pending.only().state().accepted(&vm()).is_some());
    drop(pending);
    writer.await.unwrap();
}

/// Loss prevented: a machine that left with a report under way, and whose successor gets the answer to it.
#[tokio::test]
async fn a_domain_that_comes_after_its_name_left_the_roster_is_another_machine() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, writer) = pending(dir.path(), QueuePolicy::default());
    pending.note_domain(&vm(), FIRST, &mut Arc::new(GuestRow::default()));
    arrive(&pending, FIRST, 1, "p").await;
    let sent = dispatch(&pending);
    pending.forget(&vm());
    let mut row = Arc::new(GuestRow::default());
    let note = pending.note_domain(&vm(), SECOND, &mut row);
    assert_eq!(note, DomainNote::AnotherMachine);
    accept(&pending, &sent);
    assert_eq!(pending.only().state().accepted(&vm()), None);
    drop(pending);
    writer.await.unwrap();
}
