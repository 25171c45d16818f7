//! Central: takes documents by the rules of the contract, or fails as it is told to.

use crate::changes::Followed;
use crate::guest::{HALF, Packages, wall};
use crate::moves::Consumer;
use crate::trace::Trace;
use afferent::clock::WallTime;
use afferent::report::facts;
use afferent::sense::deliver::outcome::Outcome;
use afferent::sense::deliver::sink::{Delivery, DocumentKind};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A document that was seen so much later than now was seen when it came.
const AHEAD: Duration = Duration::from_secs(300);

/// How Central treats what it is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By the contract.
    #[default]
    Well,
    /// By the contract, with 409 for a key that came before.
    Conflicts,
    /// 500, without looking.
    Fails,
    /// Nobody is there.
    Absent,
    /// 429 with a pause.
    Busy,
    /// 503 that asks for ten years.
    Maintained,
    /// 401.
    Unauthorized,
    /// 413, whatever it is.
    TooLarge,
    /// Takes the document; the answer is lost.
    LosesAnswers,
    /// Takes every other document and closes the connection instead of an answer.
    Resets,
    /// Answers after half a minute.
    Slow,
    /// Never answers.
    Hangs,
}

impl Mode {
    /// All faults, some more often than others.
    pub(crate) const ALL: [Self; 16] = [
        Self::Conflicts,
        Self::Conflicts,
        Self::Fails,
        Self::Fails,
        Self::Absent,
        Self::Absent,
        Self::Absent,
        Self::LosesAnswers,
        Self::Busy,
        Self::Maintained,
        Self::Unauthorized,
        Self::TooLarge,
        Self::LosesAnswers,
        Self::Resets,
        Self::Slow,
        Self::Hangs,
    ];
}

/// What Central knows, and what it holds against the sensors.
#[derive(Default)]
pub(crate) struct State {
    mode: Mode,
    /// No fault comes any more.
    is_retired: bool,
    /// Guests for which documents are forbidden.
    pub(crate) forbidden: BTreeSet<String>,
    /// Guests whose content is refused.
    pub(crate) refused: BTreeSet<String>,
    /// Newest content of each guest, and when it was seen.
    guests: BTreeMap<String, (WallTime, Packages)>,
    /// Content that came under each key.
    keys: BTreeMap<String, Packages>,
    /// What the events of each sensor led to, of each guest.
    pub(crate) followed: BTreeMap<(String, String), Followed>,
    /// What each sensor delivered of a guest, by when it was seen.
    delivered: BTreeMap<(String, String), BTreeMap<WallTime, Packages>>,
    /// Refusals of each content of a guest.
    refusals: BTreeMap<(String, String), u32>,
    /// Takes what is taken here.
    consumer: Option<Consumer>,
    /// Answers that may count against a document of a guest.
    failures: BTreeMap<String, u32>,
    /// Since when it keeps the contract; `None` while it does not.
    pub(crate) well_since: Option<Instant>,
    /// Documents that were taken.
    pub(crate) taken: u32,
    /// Invariants that were broken.
    pub(crate) broken: Vec<String>,
}

/// Central, shared by all sensors of its time.
#[derive(Clone)]
pub(crate) struct Central {
    state: Arc<Mutex<State>>,
    started: Instant,
    trace: Trace,
}

impl Central {
    /// It knows nothing.
    pub(crate) fn new(trace: Trace) -> Self {
        let central = Self {
            state: Arc::default(),
            started: Instant::now(),
            trace,
        };
        central.set_mode(Mode::Well);
        central
    }

    /// Changes or looks at its state.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap())
    }

    /// An invariant is broken; the first one of a run is the one that counts.
    pub(crate) fn broken(&self, actor: &str, what: &str) {
        self.trace.event(actor, what);
        let events = self.trace.last_of(actor, 60);
        let text = format!("{actor}: {what}\n{}", events.join("\n"));
        self.with(|state| state.broken.push(text));
    }

    /// What it knows of a guest.
    pub(crate) fn packages_of(&self, vm: &str) -> Option<Packages> {
        self.with(|state| state.guests.get(vm).map(|(_, packages)| packages.clone()))
    }

    /// What this sensor delivered last of a guest.
    pub(crate) fn delivered(&self, sensor: &str, vm: &str) -> Option<Packages> {
        let key = (sensor.to_owned(), vm.to_owned());
        self.with(|state| {
            let (_, packages) = state.delivered.get(&key)?.last_key_value()?;
            Some(packages.clone())
        })
    }

    /// What this sensor delivered of a guest, by when it was seen.
    pub(crate) fn taken_of(&self, sensor: &str, vm: &str) -> BTreeMap<WallTime, Packages> {
        let key = (sensor.to_owned(), vm.to_owned());
        self.with(|state| state.delivered.get(&key).cloned().unwrap_or_default())
    }

    /// Contents that came under keys that begin like this.
    pub(crate) fn contents_of(&self, key: &str) -> Vec<Packages> {
        self.with(|state| {
            let keys = state.keys.range(key.to_owned()..);
            let keys = keys.take_while(|(other, _)| other.starts_with(key));
            keys.map(|(_, packages)| packages.clone()).collect()
        })
    }

    /// Refusals of the content with this digest.
    pub(crate) fn refusals_of(&self, vm: &str, digest: &str) -> u32 {
        let key = (vm.to_owned(), digest.to_owned());
        self.with(|state| state.refusals.get(&key).copied().unwrap_or(0))
    }

    /// Answers about a guest that may count against its documents.
    pub(crate) fn failures_of(&self, vm: &str) -> u32 {
        self.with(|state| state.failures.get(vm).copied().unwrap_or(0))
    }

    /// Passes everything that it takes to a consumer.
    pub(crate) fn feed(&self, consumer: Consumer) {
        self.with(|state| state.consumer = Some(consumer));
    }

    /// It is well, and stays so.
    pub(crate) fn retire_modes(&self) {
        self.set_mode(Mode::Well);
        self.with(|state| state.is_retired = true);
    }

    /// Treats everybody like this from now on.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.with(|state| {
            if state.is_retired {
                return;
            }
            state.mode = mode;
            state.well_since = (mode == Mode::Well).then(Instant::now);
        });
    }

    /// Takes a document of a sensor, or does not.
    pub(crate) async fn receive(&self, sensor: &str, delivery: Delivery) -> Outcome {
        let vm = delivery.vm.clone();
        let outcome = self.answer(sensor, delivery).await;
        if matches!(
            outcome,
            Outcome::Failed(_) | Outcome::Refused(_) | Outcome::Forbidden(_)
        ) {
            self.with(|state| *state.failures.entry(vm).or_default() += 1);
        }
        outcome
    }

    async fn answer(&self, sensor: &str, delivery: Delivery) -> Outcome {
        sleep(Duration::from_millis(20)).await;
        let mode = self.with(|state| state.mode);
        match mode {
            Mode::Well | Mode::Conflicts => self.take(sensor, &delivery),
            Mode::Fails => Outcome::of_status(500, None, b""),
            Mode::Absent => Outcome::Unreachable("connection refused".into()),
            Mode::Busy => Outcome::of_status(429, Some(Duration::from_secs(5)), b""),
            Mode::Maintained => {
                Outcome::of_status(503, Some(Duration::from_secs(10 * 365 * 86_400)), b"")
            }
            Mode::Unauthorized => Outcome::of_status(401, None, b""),
            Mode::TooLarge => self.refuse(&delivery, 413),
            Mode::LosesAnswers => {
                self.take(sensor, &delivery);
                Outcome::Failed("no answer in 30 s".into())
            }
            Mode::Resets => {
                if fastrand::bool() {
                    self.take(sensor, &delivery);
                }
                Outcome::Failed("connection reset".into())
            }
            Mode::Slow => {
                sleep(Duration::from_secs(30)).await;
                self.take(sensor, &delivery)
            }
            Mode::Hangs => {
                sleep(Duration::from_secs(30)).await;
                Outcome::Failed("no answer in 30 s".into())
            }
        }
    }

    fn refuse(&self, delivery: &Delivery, status: u16) -> Outcome {
        let document: Value = serde_json::from_slice(&delivery.body).expect("documents are JSON");
        let digest = document["meta"]["digest"].as_str().unwrap().to_owned();
        let key = (delivery.vm.clone(), digest);
        self.with(|state| *state.refusals.entry(key).or_default() += 1);
        Outcome::of_status(status, None, b"")
    }

    fn take(&self, sensor: &str, delivery: &Delivery) -> Outcome {
        let vm = delivery.vm.clone();
        if self.with(|state| state.forbidden.contains(&vm)) {
            return Outcome::of_status(403, None, b"");
        }
        self.with(|state| {
            if let Some(consumer) = &state.consumer {
                consumer.take(delivery);
            }
        });
        if delivery.kind == DocumentKind::Facts {
            return Outcome::of_status(200, None, b"");
        }
        if self.with(|state| state.refused.contains(&vm)) {
            return self.refuse(delivery, 422);
        }
        let document: Value = serde_json::from_slice(&delivery.body).expect("documents are JSON");
        let seen_at = document["meta"]["seen_at"].as_str().unwrap();
        let seen_at: WallTime = seen_at.parse().unwrap();
        let packages = packages_in(&document);
        self.check(sensor, delivery, &document, seen_at, &packages);
        self.check_changes(sensor, delivery, &document, &packages);
        let now = wall(self.started, 0);
        let counts_as = match now.after(AHEAD) < seen_at {
            true => now,
            false => seen_at,
        };
        let mut state = self.state.lock().unwrap();
        let key = delivery.idempotency_key.clone();
        let is_known = state.keys.insert(key, packages.clone()).is_some();
        let of = (sensor.to_owned(), vm.clone());
        let delivered = state.delivered.entry(of).or_default();
        delivered.insert(seen_at, packages.clone());
        let newest = state.guests.entry(vm).or_default();
        if newest.0 <= counts_as {
            *newest = (counts_as, packages);
        }
        state.taken += 1;
        let status = match state.mode {
            Mode::Conflicts if is_known => 409,
            _ => 200,
        };
        drop(state);
        self.trace.event(
            "central",
            &format!("took {} of {sensor}", delivery.idempotency_key),
        );
        Outcome::of_status(status, None, b"")
    }

    /// What must be true of every document that comes.
    fn check(
        &self,
        sensor: &str,
        delivery: &Delivery,
        document: &Value,
        seen_at: WallTime,
        packages: &Packages,
    ) {
        let Delivery {
            vm,
            idempotency_key: key,
            ..
        } = delivery;
        let of = (sensor.to_owned(), vm.clone());
        let (same_key, before) = self.with(|state| {
            let before = state
                .delivered
                .get(&of)
                .and_then(|taken| taken.keys().next_back().copied());
            (state.keys.get(key).cloned(), before)
        });
        if same_key.is_some_and(|before| before != *packages) {
            let what = format!("invariant 1: {key} stands for two contents");
            self.broken(vm, &what);
        }
        if before.is_some_and(|before| seen_at < before) {
            let what =
                format!("invariant 2: {key} was seen at {seen_at}, before the one before it");
            self.broken(vm, &what);
        }
        let is_marked = document["meta"]["facts"][facts::MID_TRANSACTION] == "true";
        if packages.contains_key(HALF) && !is_marked {
            let what = format!("invariant 6: {key} is of a transaction that is half done");
            self.broken(vm, &what);
        }
    }
}

pub(crate) fn packages_in(document: &Value) -> Packages {
    let packages = document["report"]["packages"].as_array().unwrap();
    let package = |package: &Value| {
        let name = package["name"].as_str().unwrap().to_owned();
        let version = package["version"].as_str().unwrap();
        (name, version.trim_end_matches("-1").parse().unwrap())
    };
    packages.iter().map(package).collect()
}
