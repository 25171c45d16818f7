//! Tests of the pending documents.

use super::super::fixture::{arrived, pending, stored};
use super::super::policy::LONGEST_DEFERRAL;
use super::super::settlement::Settlement;
use super::super::sink_queue::{Dispatch, NextDelivery};
use super::super::slot::State;
use super::super::state::Precedent;
use super::super::table::{DocumentId, QueuePlace, SlotRow};
use super::super::writer::StoreWriter;
use super::*;
use crate::blocking::Blocking;
use crate::clock::{self, WallTime};
use crate::report::{Facts, FactsHash, Generation, Report, Trigger};
use crate::sense::queue::fixture;
use std::time::Duration;

fn dispatch(pending: &Pending) -> Option<Dispatch> {
    match pending.only().next(clock::now()) {
        NextDelivery::Send(dispatch) => Some(dispatch),
        NextDelivery::At(_) | NextDelivery::Idle => None,
    }
}

fn vm() -> VmId {
    "a".parse().unwrap()
}

/// Loss prevented: what is known of guests that come and go grows without end.
#[tokio::test]
async fn nothing_is_kept_of_a_guest_that_left_once_its_last_report_is_delivered() {
    for stays in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (pending, writer) = pending(dir.path(), QueuePolicy::default());
        let arrival = pending.clone().arrived(arrived("a", 1, "p"));
        arrival.await.unwrap();
        pending.set_present(stays.then(vm).into_iter().collect());
        let sent = dispatch(&pending).unwrap();
        pending
            .only()
            .settled(&sent.vm, sent.report, Settlement::Accepted, None);
        assert_eq!(pending.only().state().accepted(&vm()).is_some(), stays);
        drop(pending);
        writer.await.unwrap();
        let kept = stored(dir.path());
        assert_eq!(kept.guests.len(), usize::from(stays));
        assert!(kept.slots.is_empty());
    }
}

/// Loss prevented: a document that is on disk, and in no queue, because whoever pulled it was given up.
#[tokio::test]
async fn a_document_is_queued_although_the_exchange_that_brought_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, writer) = pending(dir.path(), QueuePolicy::default());
    let mut arrival = Box::pin(pending.clone().arrived(arrived("a", 1, "p")));
    // As far as its first wait, then given up.
    let given_up = tokio::time::timeout(Duration::ZERO, &mut arrival).await;
    drop(arrival);
    if given_up.is_err() {
        pending.only().ready.notified().await;
    }
    assert_eq!(dispatch(&pending).unwrap().vm, vm());
    drop(pending);
    writer.await.unwrap();
    assert_eq!(stored(dir.path()).slots.len(), 1);
}

/// Loss prevented: the newer of two reports, taken away by the answer to the older one.
#[tokio::test]
async fn the_answer_to_an_older_report_leaves_the_newer_one_in_memory_and_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, writer) = pending(dir.path(), QueuePolicy::default());
    pending
        .clone()
        .arrived(arrived("a", 1, "old"))
        .await
        .unwrap();
    let older = dispatch(&pending).unwrap();
    pending
        .clone()
        .arrived(arrived("a", 2, "new"))
        .await
        .unwrap();
    pending
        .only()
        .settled(&older.vm, older.report, Settlement::Accepted, None);
    let newer = dispatch(&pending).unwrap();
    assert_eq!(newer.report.key.generation.get(), 2);
    // The process ends before its answer.
    drop(pending);
    writer.await.unwrap();
    let slots = stored(dir.path()).slots;
    assert_eq!(slots[0].1.report, newer.report);
}

/// Loss prevented: after a restart a refused report is tried as if nothing had been said of it.
#[tokio::test]
async fn what_was_said_of_a_document_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    {
        let (pending, writer) = pending(dir.path(), QueuePolicy::default());
        pending.clone().arrived(arrived("a", 1, "p")).await.unwrap();
        let sent = dispatch(&pending).unwrap();
        let said = Some("422: no".to_owned());
        pending
            .only()
            .settled(&sent.vm, sent.report, Settlement::Refused, said);
        drop(pending);
        writer.await.unwrap();
    }
    let (pending, _) = pending(dir.path(), QueuePolicy::default());
    let state = pending.only().state();
    let slot = state.queue().slot(&vm()).unwrap();
    assert!(slot.demoted && slot.attempts == 1);
    assert!(matches!(slot.state, State::Backoff(_)));
    let said = &state.detail(&vm()).unwrap().last_error;
    assert_eq!(said.as_deref(), Some("422: no"));
}

/// Loss prevented: content that was sent before under a key, taken for what the key stands for now.
#[tokio::test]
async fn a_report_that_returns_to_an_older_key_is_told_from_a_new_and_from_the_same_one() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, _writer) = pending(dir.path(), QueuePolicy::default());
    for (generation, package, precedent) in [
        (3, "a", Precedent::New),
        (3, "a", Precedent::Same),
        (4, "b", Precedent::New),
        (3, "c", Precedent::Back),
        (4, "d", Precedent::Back),
        (5, "e", Precedent::New),
    ] {
        let document = arrived("a", generation, package);
        pending.clone().arrived(document).await.unwrap();
        let sent = dispatch(&pending).unwrap();
        assert_eq!(sent.precedent, precedent, "{generation} {package}");
        pending
            .only()
            .settled(&sent.vm, sent.report, Settlement::Accepted, None);
    }
}

/// Loss prevented: an hour of reading code to find out why Central has the same report twice.
#[tokio::test]
async fn of_a_document_that_central_may_have_had_before_it_is_said_why_it_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let document = |generation, package| arrived("a", generation, package);
    {
        let (pending, writer) = pending(dir.path(), QueuePolicy::default());
        pending.clone().arrived(document(1, "p")).await.unwrap();
        assert_eq!(dispatch(&pending).unwrap().may_repeat(), None);
        // The process ends before its answer.
        drop(pending);
        writer.await.unwrap();
    }
    let (pending, _writer) = pending(dir.path(), QueuePolicy::default());
    let mut sent = dispatch(&pending).unwrap();
    assert_eq!(sent.may_repeat(), Some("restart"));
    for (generation, package, reason) in [
        (2, "q", None),
        (2, "q", Some("refresh")),
        (1, "p", Some("went_back")),
        (3, "r", None),
    ] {
        pending
            .only()
            .settled(&sent.vm, sent.report, Settlement::Accepted, None);
        let next = document(generation, package);
        pending.clone().arrived(next).await.unwrap();
        sent = dispatch(&pending).unwrap();
        assert_eq!(sent.may_repeat(), reason, "{generation}");
    }
    // The answer is lost.
    pending
        .only()
        .settled(&sent.vm, sent.report, Settlement::Failed, None);
    let later = clock::now() + Duration::from_secs(3600);
    let NextDelivery::Send(again) = pending.only().next(later) else {
        panic!("it is not sent again");
    };
    assert_eq!(again.may_repeat(), Some("retry"));
    // Facts that changed alone are new, though the report of their key was accepted.
    let facts = Dispatch {
        precedent: Precedent::Back,
        report: DocumentId {
            facts: Some(FactsHash::of(&Facts::new())),
            ..again.report
        },
        is_retry: false,
        ..again
    };
    assert_eq!(facts.may_repeat(), None);
}

/// Loss prevented: reports that wait for years because the clock was wrong when they were stored.
#[tokio::test]
async fn a_stored_deadline_is_no_farther_than_any_that_can_be_set() {
    let dir = tempfile::tempdir().unwrap();
    let store = fixture::store(dir.path());
    let (writer, _) = StoreWriter::start(store.clone(), None, Blocking::Inline, Box::new(|| ()));
    let years = Duration::from_secs(10 * 365 * 86_400);
    let policy = QueuePolicy::default();
    let deferred = QueuePlace {
        reactive: Some(1),
        routine: None,
    };
    for (place, longest) in [
        (QueuePlace::default(), policy.backoff.ceiling),
        (deferred, LONGEST_DEFERRAL),
    ] {
        let row = SlotRow {
            report: DocumentId {
                key: crate::report::ReportKey {
                    epoch: None,
                    generation: Generation::new(1).unwrap(),
                },
                digest: Report::default().digest(),
                facts: None,
            },
            trigger: Trigger::Reactive,
            generated_at: WallTime::default(),
            since: WallTime::default(),
            packages: 1,
            place,
            attempts: 1,
            not_before: clock::wall_now().after(years),
            demoted: false,
            dead: None,
            last_error: None,
        };
        let stored = StoredPending {
            slots: vec![(vm(), row)],
            ..StoredPending::default()
        };
        let wall = WallClock::default();
        let sinks = vec![(SinkName::default(), policy.clone())];
        let pending = Pending::new(sinks, &store, writer.clone(), &wall, &stored);
        let now = clock::now();
        let NextDelivery::At(at) = pending.only().next(now) else {
            unreachable!("it waits")
        };
        assert!(at <= now + longest, "{place:?}: {:?}", at - now);
    }
}
