//! Questions and streams beside a loop, in virtual time.

use super::NAME;
use super::request::ApiCall;
use super::respond::FleetApp;
use super::stream::ChangeStreams;
use crate::blocking::Blocking;
use crate::clock;
use crate::listen::ResponseBody;
use crate::report::VmId;
use crate::sense::fleet::fixture::{envelope, report};
use crate::sense::fleet::query::{AnswerPage, FleetQuery};
use crate::sense::fleet::{Fleet, FleetLimits};
use crate::sense::questions::{FleetQuestions, FleetService};
use crate::sense::queue::fixture::store;
use crate::sense::recent::RecentAcceptances;
use crate::sense::sink_name::SinkName;
use crate::store::Store;
use crate::telemetry::metrics::Histogram;
use crate::web::{Beside, WebApp as _, WebHealth};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// A service that notes on which thread it is asked what takes long.
struct Stub {
    fleet: Fleet,
    accepted: RecentAcceptances,
    asked_on: Mutex<Vec<ThreadId>>,
}

impl Stub {
    fn note(&self) {
        let mut asked_on = self.asked_on.lock().unwrap();
        asked_on.push(std::thread::current().id());
    }
}

impl FleetService for Stub {
    fn fleet(&self) -> Option<&Fleet> {
        Some(&self.fleet)
    }

    fn states(&self) -> HashMap<String, &'static str> {
        self.note();
        HashMap::new()
    }

    fn summary(&self) -> Value {
        self.note();
        json!({})
    }

    fn latency(&self) -> Option<&Histogram> {
        None
    }

    fn accepted(&self) -> Option<&RecentAcceptances> {
        Some(&self.accepted)
    }
}

/// A fleet of one guest.
struct Rig {
    _dir: TempDir,
    service: Arc<Stub>,
    store: Arc<Store>,
    beside: Arc<Beside>,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path());
        let fleet = Fleet::load(&store, FleetLimits::default(), &HashMap::new()).unwrap();
        let rig = Self {
            _dir: dir,
            service: Arc::new(Stub {
                fleet,
                accepted: RecentAcceptances::default(),
                asked_on: Mutex::default(),
            }),
            store,
            beside: Arc::new(Beside::new(
                Blocking::Threads,
                2,
                Arc::new(WebHealth::of(NAME)),
            )),
        };
        rig.put(1);
        rig
    }

    /// The guest has a package of this version.
    fn put(&self, version: u32) {
        let report = report(&[&format!("vim {version}-1")]);
        let envelope = envelope("a", version, u64::from(version), &report);
        let document = self.service.fleet.prepare(&envelope).unwrap();
        let documents = [(&envelope.vm, &document)];
        let taken = self.service.fleet.take_newest(&self.store, &documents);
        assert_eq!(taken.unwrap().len(), 1);
    }

    fn questions(&self) -> FleetQuestions {
        FleetQuestions {
            service: self.service.clone(),
            store: self.store.clone(),
        }
    }

    fn stream(&self, after: Option<u64>, until: Instant) -> Parts {
        let streams = ChangeStreams::new(self.questions(), self.beside.clone());
        match streams.begin(after, until) {
            Some(ResponseBody::Stream(parts)) => Parts(parts),
            _ => unreachable!("there is a place"),
        }
    }
}

/// What a stream sends.
struct Parts(mpsc::Receiver<Vec<u8>>);

impl Parts {
    async fn next(&mut self) -> Option<String> {
        let part = self.0.recv().await?;
        Some(String::from_utf8(part).unwrap())
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Loss prevented: a connection that both ends take for alive, of which one is gone.
#[tokio::test(start_paused = true)]
async fn a_stream_shows_signs_of_life_between_changes_and_ends_after_an_hour() {
    let rig = Rig::new();
    let began = clock::now();
    let mut parts = rig.stream(None, began + seconds(12 * 3600));
    assert_eq!(parts.next().await.unwrap(), "retry: 2000\n\n");
    let mut last = clock::now();
    for _ in 0..4 {
        assert_eq!(parts.next().await.unwrap(), ": alive\n\n");
        let pause = clock::now() - last;
        assert!((seconds(15)..seconds(16)).contains(&pause), "{pause:?}");
        last = clock::now();
    }
    tokio::time::sleep(seconds(10)).await;
    rig.put(2);
    let change = parts.next().await.unwrap();
    assert!(
        change.starts_with("id: 1\nevent: change\ndata: {"),
        "{change}"
    );
    let last = clock::now();
    assert_eq!(parts.next().await.unwrap(), ": alive\n\n");
    let pause = clock::now() - last;
    assert!(
        (seconds(15)..seconds(16)).contains(&pause),
        "a change is a sign of life: {pause:?}"
    );
    while let Some(part) = parts.next().await {
        assert_eq!(part, ": alive\n\n");
    }
    let lasted = clock::now() - began;
    assert!(
        (seconds(3600)..seconds(3601)).contains(&lasted),
        "{lasted:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_with_the_session() {
    let rig = Rig::new();
    let began = clock::now();
    let mut parts = rig.stream(None, began + seconds(100));
    while parts.next().await.is_some() {}
    let lasted = clock::now() - began;
    assert!((seconds(100)..seconds(101)).contains(&lasted), "{lasted:?}");
}

#[tokio::test(start_paused = true)]
async fn acceptances_have_no_id_and_who_continues_is_told_of_recent_ones() {
    let rig = Rig::new();
    let long = clock::now() + seconds(3600);
    let (vm, sink): (VmId, SinkName) = ("a".parse().unwrap(), "siem".parse().unwrap());
    let note = |generation: u32| {
        let key = envelope("a", generation, 1, &report(&[])).key;
        let after = Duration::from_millis(143);
        let accepted = &rig.service.accepted;
        accepted.note(&vm, key, &sink, after, clock::now());
    };
    note(1);
    tokio::time::sleep(seconds(61)).await;
    let mut new = rig.stream(None, long);
    assert_eq!(new.next().await.unwrap(), "retry: 2000\n\n");
    rig.put(2);
    assert!(new.next().await.unwrap().starts_with("id: 1\n"));
    note(2);
    let event = "event: accepted\ndata: {\"vm\":\"a\",\"report\":\"7:2\",\"sink\":\"siem\",\"after_ms\":143}\n\n";
    assert_eq!(new.next().await.unwrap(), event);
    // The one of a minute ago is past.
    let mut again = rig.stream(Some(1), long);
    assert_eq!(again.next().await.unwrap(), "retry: 2000\n\n");
    assert_eq!(again.next().await.unwrap(), event);
    assert_eq!(again.next().await.unwrap(), ": alive\n\n");
}

/// Loss prevented: a loop that pulls and delivers nothing while it reads the change log for a browser.
#[tokio::test(start_paused = true)]
async fn a_stream_reads_nothing_without_a_permit_of_those_off_the_loop() {
    let rig = Rig::new();
    let all = rig.beside.permits().acquire_many_owned(2).await.unwrap();
    let mut parts = rig.stream(None, clock::now() + seconds(7200));
    let waited = tokio::time::timeout(seconds(600), parts.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(all);
    assert_eq!(parts.next().await.unwrap(), "retry: 2000\n\n");
    let all = rig.beside.permits().acquire_many_owned(2).await.unwrap();
    rig.put(2);
    let waited = tokio::time::timeout(seconds(600), parts.next()).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(all);
    assert!(parts.next().await.unwrap().starts_with("id: 1\n"));
}

/// The same of every other question: what looks at guests and tables runs on another thread.
#[tokio::test]
async fn questions_are_answered_off_the_thread_of_the_loop() {
    let rig = Rig::new();
    let app = FleetApp::new(rig.questions(), Arc::new(WebHealth::of(NAME)));
    let find = FleetQuery::Find {
        package: "vim".into(),
        arch: None,
        os: None,
        not: false,
        running: false,
    };
    let show = FleetQuery::Show {
        vm: "a".into(),
        at: None,
    };
    let queries = [FleetQuery::Guests { os: None }, find, show];
    let mut calls: Vec<ApiCall> = queries
        .into_iter()
        .map(|query| ApiCall::Ask {
            query,
            page: AnswerPage::default(),
        })
        .collect();
    calls.push(ApiCall::Summary);
    let (head, ()) = Request::new(()).into_parts();
    let until = clock::now() + seconds(60);
    for (n, call) in calls.into_iter().enumerate() {
        let response = app.answer(call, &head, until).await;
        assert_eq!(response.status(), StatusCode::OK);
        let asked_on = rig.service.asked_on.lock().unwrap();
        assert_eq!(asked_on.len(), n + 1);
        assert_ne!(asked_on[n], std::thread::current().id());
    }
}
