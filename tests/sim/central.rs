//! Central: takes documents by the rules of the contract, or fails as it is told to.

use crate::guest::Packages;
use crate::trace::Trace;
use afferent::sense::deliver::outcome::Outcome;
use afferent::sense::deliver::sink::{Delivering, Delivery, DocumentKind, Sink};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How Central treats what it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By the contract.
    #[default]
    Well,
    /// 500, without looking.
    Fails,
    /// Nobody is there.
    Absent,
    /// 429 with a pause.
    Busy,
    /// 401.
    Unauthorized,
    /// Takes the document; the answer is lost.
    LosesAnswers,
    /// Answers after half a minute.
    Slow,
}

/// What Central knows, and what it holds against the sensor.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) mode: Mode,
    /// Guests for which documents are forbidden.
    pub(crate) forbidden: BTreeSet<String>,
    /// Guests whose content is refused.
    pub(crate) refused: BTreeSet<String>,
    /// Newest content of each guest, and when it was seen.
    guests: BTreeMap<String, (String, Packages)>,
    /// Content that came under each key.
    keys: BTreeMap<String, Packages>,
    /// Refusals of each content of a guest.
    refusals: BTreeMap<(String, String), u32>,
    /// Documents that were taken.
    pub(crate) taken: u32,
    /// Invariants that were broken.
    pub(crate) broken: Vec<String>,
}

/// Central, shared by all sensors of its time.
#[derive(Clone)]
pub(crate) struct Central {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

impl Central {
    /// It knows nothing.
    pub(crate) fn new(trace: Trace) -> Self {
        Self {
            state: Arc::default(),
            trace,
        }
    }

    /// Changes or looks at its state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    /// What it knows of a guest.
    pub(crate) fn packages_of(&self, vm: &str) -> Option<Packages> {
        self.with(|state| state.guests.get(vm).map(|(_, packages)| packages.clone()))
    }

    /// Refusals of the content with this digest.
    pub(crate) fn refusals_of(&self, vm: &str, digest: &str) -> u32 {
        let key = (vm.to_owned(), digest.to_owned());
        self.with(|state| state.refusals.get(&key).copied().unwrap_or(0))
    }

    fn take(&self, delivery: &Delivery) -> Outcome {
        let document: Value = serde_json::from_slice(&delivery.body).expect("documents are JSON");
        let vm = document["vm"]["id"].as_str().unwrap().to_owned();
        let seen_at = document["meta"]["seen_at"].as_str().unwrap().to_owned();
        let digest = document["meta"]["digest"].as_str().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        if state.forbidden.contains(&vm) {
            return Outcome::of_status(403, None, b"");
        }
        if delivery.kind == DocumentKind::Facts {
            return Outcome::of_status(200, None, b"");
        }
        if state.refused.contains(&vm) {
            *state.refusals.entry((vm, digest)).or_default() += 1;
            return Outcome::of_status(422, None, b"");
        }
        let packages = packages_in(&document);
        let key = delivery.idempotency_key.clone();
        if let Some(before) = state.keys.get(&key)
            && *before != packages
        {
            let what = format!("invariant 1: {key} stands for two contents");
            state.broken.push(what);
        }
        state.keys.insert(key, packages.clone());
        let newest = state.guests.entry(vm).or_default();
        // RFC 3339 in UTC with milliseconds: text sorts as time does.
        if newest.0 <= seen_at {
            *newest = (seen_at, packages);
        }
        state.taken += 1;
        drop(state);
        self.trace
            .event("central", &format!("took {}", delivery.idempotency_key));
        Outcome::of_status(200, None, b"")
    }
}

fn packages_in(document: &Value) -> Packages {
    let packages = document["report"]["packages"].as_array().unwrap();
    let package = |package: &Value| {
        let name = package["name"].as_str().unwrap().to_owned();
        let version = package["version"].as_str().unwrap();
        (name, version.trim_end_matches("-1").parse().unwrap())
    };
    packages.iter().map(package).collect()
}

impl Sink for Central {
    fn deliver(&self, delivery: Delivery) -> Delivering<'_> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mode = self.with(|state| state.mode);
            match mode {
                Mode::Well => self.take(&delivery),
                Mode::Fails => Outcome::of_status(500, None, b""),
                Mode::Absent => Outcome::Unreachable("connection refused".into()),
                Mode::Busy => Outcome::of_status(429, Some(Duration::from_secs(5)), b""),
                Mode::Unauthorized => Outcome::of_status(401, None, b""),
                Mode::LosesAnswers => {
                    self.take(&delivery);
                    Outcome::Failed("no answer in 30 s".into())
                }
                Mode::Slow => {
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    self.take(&delivery)
                }
            }
        })
    }
}
