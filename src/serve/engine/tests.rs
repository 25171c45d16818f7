//! Tests of the agent's glue on one thread, in virtual time where time matters.

use super::*;
use crate::report::{Epoch, Package, Report};
use crate::scan::{BesideReport, HistoryState, Lock, Mode, OnLock, ScanError, Scanned, Stats};
use crate::serve::Config;
use crate::serve::listen::Listen;
use crate::serve::machine::NextTouch;
use crate::serve::repo_cpe::Source;
use crate::serve::rescan::Pace;
use crate::serve::worker::tests::{config, parts};
use crate::transport::ListenAddress;
use crate::watch::Touch;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// The loss: an agent that is up, and that nobody can ask any more.
#[tokio::test]
async fn the_end_of_a_part_that_must_not_end_is_the_end_of_the_agent() {
    let ends: [(fn(), &str); 2] = [(|| {}, "it returned"), (|| panic!("a defect"), "a defect")];
    for (end, why) in ends {
        let (root, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = Config {
            listen: vec![Listen {
                address: ListenAddress::Unix(state.path().join("socket")),
                tls: TlsMode::Off,
            }],
            ..config(root.path(), state.path())
        };
        let reread: Reread = Box::new(|| Err("nothing to read".into()));
        let mut engine = AgentEngine::start(AgentParts::of_this_machine(config, reread)).unwrap();
        engine.servers.spawn(async move { end() });
        let ended = engine.failed().await.to_string();
        let what = "the task that accepts connections";
        assert!(ended.contains(what) && ended.contains(why), "{ended}");
        engine.looping.abort();
        let ended = engine.failed().await.to_string();
        assert!(ended.contains("the loop of the agent"), "{ended}");
    }
}

/// A machine in memory.
#[derive(Default)]
struct Simulated {
    touch: tokio::sync::Notify,
    state: Mutex<SimulatedState>,
}

#[derive(Default)]
struct SimulatedState {
    packages: Vec<String>,
    touched: Option<Touch>,
    lock: Option<i32>,
    writes: u64,
    noted: u64,
    /// Times of scans that read something.
    scans: Vec<Instant>,
}

impl Simulated {
    fn with<T>(&self, act: impl FnOnce(&mut SimulatedState) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A package is written, or the lock is closed.
    fn touch(&self, touch: Touch, act: impl FnOnce(&mut SimulatedState)) {
        self.with(|state| {
            act(state);
            state.writes += 1;
            state.touched = Some(state.touched.unwrap_or_default() | touch);
        });
        self.touch.notify_one();
    }
}

struct SimulatedChanges(Arc<Simulated>);

impl ChangeSource for SimulatedChanges {
    fn touched(&mut self) -> NextTouch<'_> {
        Box::pin(async {
            loop {
                if let Some(touch) = self.0.with(|state| state.touched.take()) {
                    return touch;
                }
                self.0.touch.notified().await;
            }
        })
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn trouble(&self) -> Option<&str> {
        None
    }

    fn note_state(&mut self) {
        self.0.with(|state| state.noted = state.writes);
    }

    fn differs(&self) -> bool {
        self.0.with(|state| state.noted != state.writes)
    }

    fn transaction_running(&self) -> Option<i32> {
        self.0.with(|state| state.lock)
    }
}

struct SimulatedPackages(Arc<Simulated>);

impl PackageSource for SimulatedPackages {
    fn scan(&mut self, _: Mode, on_lock: OnLock) -> Result<Scanned, ScanError> {
        self.0.with(|state| {
            if let (Some(pid), OnLock::Wait) = (state.lock, on_lock) {
                return Err(ScanError::TransactionRunning {
                    path: PathBuf::from("/.rpm.lock"),
                    pid: Some(pid),
                    waited: Duration::ZERO,
                });
            }
            state.scans.push(clock::now());
            let packages = state.packages.iter().map(|name| Package {
                name: name.clone(),
                ..Package::default()
            });
            let mut report = Report {
                packages: packages.collect(),
                ..Report::default()
            };
            report.normalize();
            Ok(Scanned {
                report: Arc::new(report),
                changed: true,
                main_file: PathBuf::from("/rpmdb.sqlite"),
                skipped: Vec::new(),
                history_repositories: Vec::new(),
                provenance: HistoryState::default(),
                no_history: None,
                beside: BesideReport::default(),
                distribution_trouble: None,
                stats: Stats {
                    headers: state.packages.len(),
                    parsed: state.packages.len(),
                    keys: 0,
                    attempts: 1,
                    lock: Lock::Free,
                },
            })
        })
    }

    fn reset(&mut self) {}

    fn progress(&self) -> Arc<AtomicU64> {
        Arc::default()
    }
}

/// An agent on a machine in memory, with a state directory.
fn simulated(machine: &Arc<Simulated>, state: &tempfile::TempDir) -> AgentParts {
    let config = config(state.path(), state.path());
    let worker = parts(&config);
    AgentParts {
        config: Config {
            pace: Pace {
                debounce: Duration::from_millis(100),
                burst: 20,
                ..config.pace
            },
            ..config
        },
        reread: Box::new(|| Err("nothing to read".into())),
        changes: Box::new(SimulatedChanges(machine.clone())),
        packages: Box::new(SimulatedPackages(machine.clone())),
        machine: worker.machine,
        blocking: Blocking::Inline,
        wall: WallClock::default(),
        draw_epoch: || Epoch::new(fastrand::u32(1..)).unwrap(),
    }
}

/// The generation of the first report with so many packages, and when it was there.
async fn published(engine: &AgentEngine, packages: usize) -> (u32, Instant) {
    let mut published = engine.published();
    let found = published
        .wait_for(|it| it.as_ref().is_some_and(|it| it.packages() == packages))
        .await;
    let generation = found.unwrap().as_ref().unwrap().key().generation.get();
    (generation, clock::now())
}

#[tokio::test(start_paused = true)]
async fn one_thread_in_virtual_time_drives_the_agent() {
    let state = tempfile::tempdir().unwrap();
    let machine = Arc::new(Simulated::default());
    machine.with(|state| state.packages.push("bash".into()));
    let engine = AgentEngine::start(simulated(&machine, &state)).unwrap();
    assert_eq!(published(&engine, 1).await.0, 1);

    // A transaction of three minutes: nothing of it is reported before its end.
    machine.touch(Touch::DATA, |state| {
        state.lock = Some(7);
        state.packages.push("half".into());
    });
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(machine.with(|state| state.scans.len()), 1);
    machine.touch(Touch::LOCK_CLOSED, |state| {
        state.lock = None;
        state.packages.push("whole".into());
    });
    let ended = clock::now();
    let (generation, at) = published(&engine, 3).await;
    assert_eq!(generation, 2);
    assert!(at - ended <= Duration::from_millis(150), "{:?}", at - ended);

    // A killed agent leaves its state directory to the next one.
    engine.kill().await;
    let engine = AgentEngine::start(simulated(&machine, &state)).unwrap();
    assert_eq!(published(&engine, 3).await.0, 2);
    let mut peer = engine.connect().await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut peer, &[0; 4])
        .await
        .unwrap();
    let mut answer = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut peer, &mut answer)
        .await
        .unwrap();
    assert!(u32::from_be_bytes(answer) > 0, "it answers");
    engine.stop().await;
}

// The loss: an operator who is told that all is well, while repositories get no CPEs.
#[tokio::test(start_paused = true)]
async fn a_mapping_that_cannot_be_fetched_is_in_the_status() {
    let state = tempfile::tempdir().unwrap();
    let machine = Arc::new(Simulated::default());
    machine.with(|state| state.packages.push("bash".into()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let mut parts = simulated(&machine, &state);
    parts.config.repo_cpe = Source::Url(format!("http://{address}/mapping.json"));
    let engine = AgentEngine::start(parts).unwrap();
    published(&engine, 1).await;
    let answer = engine.control();
    let status = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let status = answer(&["status"]);
            if status["reasons"]
                .to_string()
                .contains("the last fetch failed")
            {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(status.await.unwrap()["state"], "degraded");
    engine.stop().await;
}
