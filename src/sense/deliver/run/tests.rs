//! Tests of the loop of delivery.

use super::*;
use crate::sense::deliver::sink::Delivering;
use crate::sense::queue::fixture::{arrived, pending, stored};
use crate::sense::queue::policy::QueuePolicy;
use crate::sense::queue::slot::State;
use crate::sense::queue::{FullPull, Pending, Settlement};
use std::collections::VecDeque;
use std::path::Path;

/// Gives the outcomes that it was told to, then accepts everything; keeps what it was given.
#[derive(Default)]
struct Scripted {
    outcomes: Mutex<VecDeque<Outcome>>,
    deliveries: Mutex<Vec<Delivery>>,
    /// Each delivery takes this long.
    takes: Duration,
}

impl Sink for Scripted {
    fn deliver(&self, delivery: Delivery) -> Delivering<'_> {
        Box::pin(async move {
            tokio::time::sleep(self.takes).await;
            self.deliveries.lock().unwrap().push(delivery);
            let outcome = self.outcomes.lock().unwrap().pop_front();
            outcome.unwrap_or(Outcome::Accepted)
        })
    }
}

/// A loop that runs, and its surroundings.
struct Running {
    pending: Arc<Pending>,
    full_pulls: mpsc::UnboundedReceiver<(VmId, FullPull)>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    writer: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(dir: &Path, sink: Arc<Scripted>) -> Self {
        let (pending, writer) = pending(dir, QueuePolicy::default());
        let (full_pulls_tx, full_pulls) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(false);
        let delivery = DeliveryLoop {
            queue: pending.only().clone(),
            deliveries: Arc::new(Counters::new(&Outcome::LABELS)),
            limits: Arc::new(ConcurrencyLimits::new(20)),
            sink,
            breaker: Arc::default(),
            metrics: Arc::new(Metrics::new()),
            sensor: "s".into(),
            blocking: Blocking::Inline,
            wall: WallClock::default(),
            full_pulls: full_pulls_tx,
            log: None,
        };
        Self {
            pending,
            full_pulls,
            stop,
            task: tokio::spawn(delivery.run(stopped)),
            writer,
        }
    }

    async fn arrive(&self, vm: &str, generation: u32, package: &str) {
        let document = arrived(vm, generation, package);
        self.pending.clone().arrived(document).await.unwrap();
    }

    /// Waits until the guest's document is in this state; `None`: gone.
    async fn until(&self, vm: &str, is: fn(Option<State>) -> bool) {
        let vm: VmId = vm.parse().unwrap();
        let state = || {
            self.pending
                .only()
                .state()
                .queue()
                .slot(&vm)
                .map(|slot| slot.state)
        };
        while !is(state()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
        drop(self.pending);
        self.writer.await.unwrap();
    }
}

fn sink(outcomes: impl IntoIterator<Item = Outcome>) -> Arc<Scripted> {
    Arc::new(Scripted {
        outcomes: Mutex::new(outcomes.into_iter().collect()),
        ..Scripted::default()
    })
}

#[tokio::test(start_paused = true)]
async fn an_accepted_report_is_gone_from_memory_and_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink([]);
    let running = Running::start(dir.path(), sink.clone());
    running.arrive("a", 1, "p").await;
    running.until("a", |state| state.is_none()).await;
    running.stop().await;
    assert_eq!(sink.deliveries.lock().unwrap().len(), 1);
    assert!(stored(dir.path()).slots.is_empty());
}

/// Loss prevented: a report that Central does not want is sent for ever, or given up after one word.
#[tokio::test(start_paused = true)]
async fn a_refused_report_is_pulled_in_full_and_dead_only_if_that_is_refused_too() {
    let dir = tempfile::tempdir().unwrap();
    let refused = || Outcome::Refused("422: no".into());
    let sink = sink([refused(), refused()]);
    let mut running = Running::start(dir.path(), sink.clone());
    running.arrive("a", 1, "p").await;
    let (vm, full_pull) = running.full_pulls.recv().await.unwrap();
    assert_eq!((vm.as_str(), full_pull), ("a", FullPull::AfterPause));
    running
        .until("a", |state| matches!(state, Some(State::Backoff(_))))
        .await;
    running.arrive("a", 1, "p").await;
    running.until("a", |state| state == Some(State::Dead)).await;
    assert_eq!(sink.deliveries.lock().unwrap().len(), 2);
    // A dead letter asks for nothing; at its guest's refresh it is tried once more.
    assert!(running.full_pulls.try_recv().is_err());
    sink.outcomes.lock().unwrap().push_back(refused());
    running.arrive("a", 1, "p").await;
    running.until("a", |state| state == Some(State::Dead)).await;
    assert_eq!(sink.deliveries.lock().unwrap().len(), 3);
    assert!(running.full_pulls.try_recv().is_err());
    running.stop().await;
    let slots = stored(dir.path()).slots;
    assert_eq!(slots[0].1.dead.as_deref(), Some("422: no"));
}

/// Loss prevented: an outage of Central, of any length, makes a dead letter of one guest's report.
#[tokio::test(start_paused = true)]
async fn an_outage_of_an_hour_costs_no_report_and_no_attempt_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let failed = (0..500).map(|_| Outcome::Failed("500".into()));
    let sink = sink(failed);
    let running = Running::start(dir.path(), sink.clone());
    running.arrive("a", 1, "p").await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    {
        let state = running.pending.only().state();
        let slot = state.queue().slot(&"a".parse().unwrap()).unwrap();
        assert!(slot.state != State::Dead && slot.attempts < 10, "{slot:?}");
    }
    sink.outcomes.lock().unwrap().clear();
    running.until("a", |state| state.is_none()).await;
    running.stop().await;
}

/// Loss prevented: facts that Central does not take keep the guest's reports from it.
#[tokio::test(start_paused = true)]
async fn a_refusal_of_content_counts_only_for_its_guest() {
    let dir = tempfile::tempdir().unwrap();
    let sink = sink([Outcome::Refused("400".into())]);
    let running = Running::start(dir.path(), sink.clone());
    running.arrive("a", 1, "p").await;
    running
        .until("a", |state| matches!(state, Some(State::Backoff(_))))
        .await;
    running.arrive("b", 1, "p").await;
    running.until("b", |state| state.is_none()).await;
    running.stop().await;
}

/// Loss prevented: a delivery that was under way at the end is not known to have been accepted.
#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_answers_and_no_longer_than_its_bound() {
    for (takes, is_gone) in [(DRAIN / 2, true), (DRAIN * 2, false)] {
        let dir = tempfile::tempdir().unwrap();
        let sink = Arc::new(Scripted {
            takes,
            ..Scripted::default()
        });
        let running = Running::start(dir.path(), sink);
        running.arrive("a", 1, "p").await;
        running
            .until("a", |state| state == Some(State::InFlight))
            .await;
        let started = clock::now();
        running.stop().await;
        assert!(clock::now() - started <= DRAIN + Duration::from_secs(1));
        assert_eq!(stored(dir.path()).slots.is_empty(), is_gone);
    }
}

/// Loss prevented: every document waits behind one long report that Central takes slowly.
#[tokio::test(start_paused = true)]
async fn a_long_report_waits_for_another_one_and_holds_up_no_short_one() {
    let dir = tempfile::tempdir().unwrap();
    let minute = Duration::from_secs(60);
    let sink = Arc::new(Scripted {
        takes: minute,
        ..Scripted::default()
    });
    let running = Running::start(dir.path(), sink.clone());
    let long = "x".repeat(LONG);
    let started = clock::now();
    for vm in ["a", "b"] {
        running.arrive(vm, 1, &long).await;
    }
    running.arrive("c", 1, "short").await;
    running.until("c", |state| state.is_none()).await;
    assert!(clock::now() - started < minute + Duration::from_secs(2));
    running.until("b", |state| state.is_none()).await;
    assert!(clock::now() - started >= 2 * minute);
    running.stop().await;
}

/// Loss prevented: a report that is not what the queue holds is sent under the name of the other, or
/// waits for ever.
#[tokio::test]
async fn what_the_disk_holds_in_place_of_a_document_decides_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let (pending, _writer) = pending(dir.path(), QueuePolicy::default());
    let (first, second) = (arrived("a", 1, "p"), arrived("a", 2, "q"));
    let reports = [&first, &second].map(|document| DocumentId::from(&document.summary));
    pending.clone().arrived(first).await.unwrap();
    let prepare = |vm: &str, report| {
        let job = Job {
            dispatch: Dispatch {
                vm: vm.parse().unwrap(),
                report,
                is_reactive: false,
                precedent: Precedent::New,
                is_restored: false,
                is_retry: false,
            },
            queue: pending.only().clone(),
            sensor: "s".into(),
            shortens_unchanged: false,
            form: DocumentForm::Report,
            events_since: None,
            long: Arc::new(Semaphore::new(1)),
            log: None,
        };
        job.prepare()
    };
    assert!(prepare("a", reports[0]).is_ok());
    // Nothing, so its guest is pulled again.
    let missing = prepare("b", reports[0]).map(drop).unwrap_err();
    assert!(matches!(missing.settlement(false), Settlement::Damaged));
    // Another document of the guest: that one takes the place.
    pending.clone().arrived(second).await.unwrap();
    let other = prepare("a", reports[0]).map(drop).unwrap_err();
    let Settlement::Replaced(found) = other.settlement(false) else {
        unreachable!("it is there")
    };
    assert_eq!(DocumentId::from(&*found), reports[1]);
}
