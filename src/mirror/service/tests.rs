//! The service over doubles of Core, on the real clock and in virtual time.

use super::*;
use crate::clock::WallTime;
use crate::http::{HttpError, HttpResponse};
use crate::inventory::Kind;
use crate::mirror::core::{Device, Exchange, Observe, Pull, RestCore, RestOptions};
use crate::mirror::entry::CoreEntry;
use crate::mirror::policy::Profile;
use crate::mirror::query::{self, AuditFilter};
use crate::store::Store;
use crate::telemetry::scrape::Health;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;

/// A Core whose answers meet a defect of this program now and then.
struct Panicking(bool);

impl Core for Panicking {
    fn begin(&mut self) {}

    fn expected(&mut self, _kind: Kind) -> Pull<CoreEntry> {
        assert!(!self.0, "a defect");
        Pull::Absent
    }

    fn observed(&mut self, _kind: Kind) -> Pull<Device> {
        Pull::Absent
    }

    fn source(&self) -> String {
        "a test".into()
    }
}

/// A Core that says when it is asked, and answers when it is told to.
struct Hanging {
    asked: mpsc::Sender<()>,
    may_answer: mpsc::Receiver<()>,
}

impl Core for Hanging {
    fn begin(&mut self) {
        self.asked.send(()).unwrap();
        self.may_answer.recv().unwrap();
    }

    fn expected(&mut self, _kind: Kind) -> Pull<CoreEntry> {
        Pull::Absent
    }

    fn observed(&mut self, _kind: Kind) -> Pull<Device> {
        Pull::Absent
    }

    fn source(&self) -> String {
        "a test".into()
    }
}

/// The loss: a service that hangs for ever, because systemd is told that all is well; or one that is killed while it
/// gets on.
#[test]
fn the_watchdog_is_fed_until_a_cycle_has_made_no_step_for_twenty_minutes() {
    let directory = tempfile::tempdir().unwrap();
    // Dropped last: it waits for the cycle, which ends when nobody can answer it any more.
    let host = ServiceHost::start().unwrap();
    let (asked, is_asked) = mpsc::channel();
    let (answer, may_answer) = mpsc::channel();
    let mut service = service(directory.path(), Hanging { asked, may_answer });
    let start = clock::now();
    let mut watchdog = Watchdog::new(HUNG, start);
    let is_fed = |service: &Service, watchdog: &mut Watchdog, minutes: u64| {
        let mut is_fed = false;
        let now = start + Duration::from_secs(60 * minutes);
        service.feed(watchdog, now, |told| {
            is_fed = matches!(told, [sd_notify::NotifyState::Watchdog]);
        });
        is_fed
    };
    // No cycle runs, for as long as it likes.
    assert!(is_fed(&service, &mut watchdog, 100));
    host.runtime.block_on(async {
        service.begin_cycle();
        let asked = tokio::task::spawn_blocking(move || is_asked.recv());
        asked.await.unwrap().unwrap();
    });
    let cycle = service.running.take().unwrap();
    assert!(is_fed(&service, &mut watchdog, 101));
    assert!(is_fed(&service, &mut watchdog, 119));
    service.progress.step("a page");
    assert!(is_fed(&service, &mut watchdog, 122));
    assert!(is_fed(&service, &mut watchdog, 141));
    assert!(!is_fed(&service, &mut watchdog, 142));
    assert!(!is_fed(&service, &mut watchdog, 1000));
    answer.send(()).unwrap();
    host.runtime.block_on(cycle).unwrap();
    assert!(is_fed(&service, &mut watchdog, 1001));
}

fn service(directory: &Path, core: impl Core + Send + 'static) -> Service {
    let store = crate::mirror::open(directory).unwrap();
    let policy = Policy::of(Profile::NaturalKey);
    let mirror = Mirror::new(store, Box::new(core), policy, Gate::Unset);
    Service::new(mirror, Blocking::Threads)
}

/// The loss: a service that mirrors, and that nobody can ask any more: its alerts stay as they were.
#[test]
fn the_end_of_a_task_that_answers_is_the_end_of_the_service() {
    let ends: [fn(); 2] = [|| {}, || panic!("a defect")];
    for (end, said) in ends.into_iter().zip(["it returned", "a defect"]) {
        let directory = tempfile::tempdir().unwrap();
        let host = ServiceHost::start().unwrap();
        let ended = host.runtime.block_on(async {
            let mut answering = JoinSet::new();
            answering.spawn(async move { end() });
            let options = ServiceOptions {
                interval: Duration::from_secs(3600),
                state_dir: directory.path(),
                metrics: None,
                listen: None,
                damaged: Limits::default(),
                blocking: Blocking::Threads,
                reread: &|| Err("nothing to read".into()),
            };
            let interval = options.interval;
            service(directory.path(), Panicking(false))
                .live(
                    &options,
                    async || std::future::pending().await,
                    interval,
                    &mut answering,
                )
                .await
        });
        let why = ended.unwrap_err().to_string();
        assert!(
            why.contains("control socket") && why.contains(said),
            "{why}"
        );
    }
}

/// The loss: a service that is up, and whose cycles are not.
#[test]
fn a_cycle_that_panics_is_told_of_until_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let service = service(directory.path(), Panicking(true));
    let view = View {
        status: Arc::clone(&service.status),
        metrics: Arc::clone(&service.metrics),
        progress: service.progress.clone(),
    };
    let run = || {
        let mut mirror = service.mirror.lock().unwrap();
        cycle(
            &mut mirror,
            &service.clock,
            &service.stop,
            (&service.status, &service.metrics),
            || None,
        );
    };
    run();
    let status = service.status.show();
    assert_eq!(status["state"], "degraded");
    let reason = status["reasons"][0].as_str().unwrap();
    assert!(
        reason.contains("panicked") && reason.contains("a defect"),
        "{reason}"
    );
    assert!(view.ready().unwrap_err().contains("panicked"));
    let counted = r#"afferent_mirror_cycles_total{outcome="panicked"} 1"#;
    assert!(view.metrics().contains(counted), "{}", view.metrics());
    assert!(!service.status.is_running());
    service.mirror.lock().unwrap().core = Box::new(Panicking(false));
    run();
    assert_eq!(service.status.show()["state"], "ok");
    assert_eq!(view.ready(), Ok(()));
    assert!(
        view.metrics()
            .contains(r#"afferent_mirror_cycles_total{outcome="converged"} 1"#)
    );
}

/// A server of Core without a network: it takes 2 s for an answer, and refuses every third question once.
struct Simulated {
    asked: AtomicU32,
    machines: Arc<AtomicU32>,
}

impl Exchange for Simulated {
    fn get(
        &self,
        url: &str,
        _headers: &[(&str, &str)],
        within: Duration,
    ) -> Result<HttpResponse, HttpError> {
        let took = Duration::from_secs(2);
        if within < took {
            return Err(HttpError::Deadline(within));
        }
        self.pause(took);
        if self.asked.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            let headers = [("retry-after", "7")];
            return Ok(HttpResponse::new(429, &headers, Vec::new()));
        }
        let count = match url.contains("expected-machine") {
            true => self.machines.load(Ordering::Relaxed),
            false => 0,
        };
        let machines = (0..count).map(|n| {
            json!({"bmcMacAddress": format!("02:00:00:00:00:{n:02x}"), "manufacturer": "M",
                   "chassisSerialNumber": format!("S{n}")})
        });
        let body = Value::from_iter(machines).to_string();
        let total = json!({"total": count}).to_string();
        let headers = [("x-pagination", total.as_str())];
        Ok(HttpResponse::new(200, &headers, body.into_bytes()))
    }

    fn pause(&self, time: Duration) {
        // The clock moves with the first poll.
        let mut advance = std::pin::pin!(tokio::time::advance(time));
        let waker = std::task::Waker::noop();
        let _ = advance
            .as_mut()
            .poll(&mut std::task::Context::from_waker(waker));
    }
}

/// The loss: a loop that no simulation can drive, so that what it does in an unlucky order is never tried.
#[test]
fn a_day_of_cycles_over_rest_runs_on_one_thread_in_virtual_time() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let machines = Arc::new(AtomicU32::new(3));
    let exchange = Simulated {
        asked: AtomicU32::new(0),
        machines: Arc::clone(&machines),
    };
    let rest = RestOptions {
        base: "https://core.example".into(),
        org: "o".into(),
        site: None,
        token_file: None,
        deadline: Duration::from_secs(60),
        all_lists: Duration::from_secs(600),
        list_cap: 1 << 20,
        observe: Observe::default(),
    };
    let store = runtime.block_on(async {
        let policy = Policy::of(Profile::NaturalKey);
        let (start, noon) = (clock::now(), "2026-11-21T12:00:00.000Z");
        let noon: WallTime = noon.parse().unwrap();
        let mut ids = 0;
        let store = Store::in_memory().unwrap();
        let core = Box::new(RestCore::new(rest, exchange));
        let mirror = Mirror {
            clock: WallClock::simulated(move || noon.after(clock::now() - start)),
            new_id: Box::new(move || {
                ids += 1;
                uuid::Uuid::from_u128(ids)
            }),
            ..Mirror::new(store, core, policy, Gate::Unset)
        };
        let store = Arc::clone(&mirror.store);
        let options = ServiceOptions {
            interval: Duration::from_secs(600),
            state_dir: Path::new("/nonexistent"),
            metrics: None,
            listen: None,
            damaged: Limits::default(),
            blocking: Blocking::Inline,
            reread: &|| Err("nothing to read".into()),
        };
        let half = Duration::from_secs(12 * 3600);
        let midnight = start + half;
        let mut grown = false;
        let next_order = async || {
            if !grown {
                clock::sleep_until(Some(midnight)).await;
                machines.store(5, Ordering::Relaxed);
                grown = true;
            }
            clock::sleep_until(Some(midnight + half)).await;
            Order::Stop
        };
        run_loop(mirror, &options, next_order).await.unwrap();
        store
    });
    let snapshot = store.snapshot().unwrap();
    let rows = query::audit(&snapshot, &AuditFilter::default()).unwrap();
    let inserted = rows.iter().filter(|row| row.op == "insert");
    let times: Vec<&str> = inserted.map(|row| row.time.as_str()).collect();
    let hours: Vec<&str> = times.iter().map(|time| &time[..13]).collect();
    let first = ["2026-11-21T12"; 3].into_iter();
    let expected: Vec<&str> = first.chain(["2026-11-22T00"; 2]).collect();
    assert_eq!(hours, expected, "{times:?}");
}
