//! What `afferent status` shows of a mirror.

use super::approval::Approval;
use super::diagnostics::{Diagnostic, Summary, Withheld};
use super::kept_times::CompleteTimes;
use super::progress::Progress;
use crate::clock::{self, WallTime};
use crate::inventory::Kind;
use crate::telemetry::metrics::Page;
use crate::web::WebHealth;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A cycle that makes no step for this long stands still, and people are told: more than a request with its
/// retries takes by default, and than the largest commit.
const STANDS_STILL: Duration = Duration::from_secs(5 * 60);

/// The state of a running mirror: what it does, and how its last cycle ended.
pub struct Status {
    progress: Progress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    source: String,
    cycles: u64,
    /// When the cycle that runs began.
    began: Option<WallTime>,
    last: Option<Ended>,
    /// When each list was last read whole and written.
    complete: CompleteTimes,
    /// Commits the store had seen when no cycle ran: the last time that the tables were those of one cycle.
    generation: Option<u64>,
    /// The listener of the API, where there is one.
    api: Option<Arc<WebHealth>>,
}

/// A cycle that ended.
struct Ended {
    began: WallTime,
    at: WallTime,
    /// `None` after a panic.
    summary: Result<Summary, String>,
}

impl Status {
    /// Of a mirror of `source` that has not run yet.
    pub fn new(source: String, progress: Progress) -> Self {
        let state = State {
            source,
            ..State::default()
        };
        Self {
            progress,
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inventory comes from another place from now on.
    pub fn set_source(&self, source: String) {
        self.state().source = source;
    }

    /// The API is answered by this listener.
    pub(super) fn set_api(&self, api: Arc<WebHealth>) {
        self.state().api = Some(api);
    }

    /// What was known before a restart.
    pub(super) fn set_complete(&self, complete: CompleteTimes) {
        self.state().complete = complete;
    }

    /// When each list was last read whole and written.
    pub(super) fn complete(&self) -> CompleteTimes {
        self.state().complete.clone()
    }

    /// The tables are those of one cycle, after as many commits.
    pub(super) fn set_generation(&self, generation: Option<u64>) {
        self.state().generation = generation;
    }

    /// Commits the store had seen when the last cycle ended, also while the next one writes.
    pub(super) fn generation(&self) -> Option<u64> {
        self.state().generation
    }

    /// A cycle began.
    pub fn begin(&self, at: WallTime) {
        self.progress.step("beginning");
        self.state().began = Some(at);
    }

    /// Whether a cycle runs.
    pub fn is_running(&self) -> bool {
        self.state().began.is_some()
    }

    /// The cycle that ran ended, with a summary or a panic.
    pub fn end(&self, at: WallTime, summary: Result<Summary, String>) {
        let mut state = self.state();
        let began = state.began.take().unwrap_or(at);
        state.cycles += 1;
        for list in summary.iter().flat_map(|summary| &summary.complete) {
            state.complete.insert(list.clone(), at);
        }
        state.last = Some(Ended { began, at, summary });
    }

    /// The object that answers a question for the status.
    pub(super) fn show(&self) -> Value {
        self.show_at(clock::now())
    }

    fn show_at(&self, now: Instant) -> Value {
        let stale = self.stale();
        let state = self.state();
        let mut reasons = reasons(state.last.as_ref());
        let still = self.progress.still_for(now);
        if state.began.is_some() && still > STANDS_STILL {
            let (still, doing) = (clock::show_duration(still), self.progress.doing());
            reasons.push(format!(
                "the cycle that runs has got no further for {still}: {doing}"
            ));
        }
        reasons.extend(state.api.iter().flat_map(|api| api.trouble()));
        let complete: BTreeMap<&String, String> = state
            .complete
            .iter()
            .map(|(list, at)| (list, at.to_string()))
            .collect();
        let mut answer = json!({
            "service": "mirror",
            "version": env!("CARGO_PKG_VERSION"),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "core": state.source,
            "mirror_api": state.api.as_ref().map(|api| api.json()),
            "cycles": state.cycles,
            "running": state.began.map(|began| json!({
                "began_at": began.to_string(),
                "doing": self.progress.doing(),
                "no_step_for_s": still.as_secs(),
            })),
            "last_complete": complete,
            "stale": stale,
            "last_cycle": state.last.as_ref().map(|ended| {
                let summary = ended.summary.as_ref().ok();
                json!({
                    "run": summary.map(|summary| &summary.run),
                    "began_at": ended.began.to_string(),
                    "ended_at": ended.at.to_string(),
                    "mirrored": summary.map(|summary| summary.mirror_ran),
                    "warnings": summary.map(|summary| summary.warnings.len()),
                })
            }),
        });
        let last = state
            .last
            .as_ref()
            .and_then(|ended| ended.summary.as_ref().ok());
        for (kind, counters) in last.into_iter().flat_map(|summary| &summary.types) {
            let mut counters = json!(counters);
            if let Some(counters) = counters.as_object_mut() {
                counters.retain(|name, count| name == "pulled" || *count != 0);
            }
            answer["types"][kind] = counters;
        }
        answer
    }

    /// Lists that the last cycle did not read whole and write: since when they are stale, and why.
    fn stale(&self) -> BTreeMap<String, Value> {
        let pulls = self.pulls();
        let stale = pulls.as_array().into_iter().flatten();
        let stale = stale.filter(|pull| pull["state"] == "failed" || pull["state"] == "in part");
        let named = stale.filter_map(|pull| {
            let list = format!("{} {}", pull["type"].as_str()?, pull["list"].as_str()?);
            Some((
                list,
                json!({"complete_at": pull["complete_at"], "why": pull["why"]}),
            ))
        });
        named.collect()
    }

    /// How each list was last read: of a type what is expected, then what is observed.
    pub(super) fn pulls(&self) -> Value {
        let state = self.state();
        let expected = Kind::ALL.map(|kind| (kind, kind.name().to_owned()));
        let observed = Kind::ALL.map(|kind| (kind, format!("drift:{kind}")));
        let observed = observed.into_iter().filter(|(kind, _)| *kind != Kind::Rack);
        let pulls = expected.into_iter().chain(observed);
        let pulls = pulls.map(|(kind, list)| {
            let (pull, why) = pull_state(state.last.as_ref(), kind, &list);
            json!({
                "type": kind.name(),
                "list": if list == kind.name() { "expected" } else { "observed" },
                "state": pull,
                "why": why,
                "complete_at": state.complete.get(&list).map(ToString::to_string),
            })
        });
        pulls.collect()
    }

    /// Deletes that the last cycle withheld, by type, each with at most `limit` rows and the command that lets them
    /// happen; `reach` is what that needs to reach this service.
    pub(super) fn withheld(&self, limit: usize, reach: &str) -> Value {
        let state = self.state();
        let summary = state.last.as_ref();
        let summary = summary.and_then(|ended| ended.summary.as_ref().ok());
        let types = summary.into_iter().flat_map(|summary| {
            let mut by_type: BTreeMap<&str, Vec<&Withheld>> = BTreeMap::new();
            for row in &summary.withheld {
                by_type.entry(&row.kind).or_default().push(row);
            }
            by_type
        });
        let types = types.map(|(kind, rows)| {
            let deletes = rows.len();
            json!({
                "type": kind,
                "deletes": deletes,
                "approve": format!("afferent mirror approve {kind} {deletes}{reach}"),
                "rows": rows.iter().take(limit).collect::<Vec<_>>(),
            })
        });
        types.collect()
    }

    /// What an operator approves, if it is what the last cycle withheld.
    pub(super) fn approve(
        &self,
        kind: &str,
        deletes: &str,
        user: Option<u32>,
    ) -> Result<Approval, String> {
        let state = self.state();
        let last = state
            .last
            .as_ref()
            .and_then(|ended| ended.summary.as_ref().ok());
        Approval::of(kind, deletes, user, last)
    }

    /// Whether tables can be relied on: a cycle ended without an error.
    pub(super) fn ready(&self) -> Result<(), String> {
        match self.state().last.as_ref().map(|ended| &ended.summary) {
            None => Err("the first cycle has not ended yet".into()),
            Some(Err(panic)) => Err(panicked(panic)),
            Some(Ok(summary)) => match summary.errors.first() {
                Some(error) => Err(say(error)),
                None => Ok(()),
            },
        }
    }

    /// Writes what is known of the last cycle onto a page of metrics.
    pub(super) fn write(&self, page: &mut Page) {
        let state = self.state();
        let times = state.complete.iter();
        page.gauges_by(
            "afferent_mirror_last_complete_timestamp_seconds",
            "When each list was last read whole and written, in Unix time.",
            ["list"],
            times.map(|(list, at)| ([list.as_str()], seconds(*at))),
        );
        let last = state.last.as_ref();
        page.gauge(
            "afferent_mirror_last_cycle_timestamp_seconds",
            "When the last cycle ended, in Unix time; 0 before.",
            last.map_or(0.0, |ended| seconds(ended.at)),
        );
        let summary = last.and_then(|ended| ended.summary.as_ref().ok());
        let mut codes: BTreeMap<&str, f64> = BTreeMap::new();
        for report in summary.into_iter().flat_map(|summary| &summary.warnings) {
            *codes.entry(&report.code).or_default() += 1.0;
        }
        page.gauges_by(
            "afferent_mirror_warnings",
            "Warnings of the last cycle by code.",
            ["code"],
            codes.into_iter().map(|(code, n)| ([code], n)),
        );
        let types = summary.into_iter().flat_map(|summary| &summary.types);
        page.gauges_by(
            "afferent_mirror_withheld_deletes",
            "Deletes that the guard withheld in the last cycle.",
            ["type"],
            types.map(|(kind, counters)| {
                let n = u32::try_from(counters.withheld_deletes).unwrap_or(u32::MAX);
                ([kind.as_str()], f64::from(n))
            }),
        );
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "whole milliseconds of this age fit"
)]
fn seconds(at: WallTime) -> f64 {
    at.unix_ms() as f64 / 1000.0
}

fn panicked(panic: &str) -> String {
    format!("the last cycle panicked, which is a defect of this program: {panic}")
}

fn say(report: &Diagnostic) -> String {
    let (kind, message) = match &report.kind {
        Some(kind) => (kind, &report.message),
        None => return report.message.clone(),
    };
    match (report.code.strip_prefix("pull_failed:"), &*report.key) {
        (Some(list), "") if list.starts_with("drift:") => {
            format!("{kind}: what is observed was not read: {message}")
        }
        (Some(_), "") => format!("{kind}: what is expected was not read: {message}"),
        (Some(_), list) => format!("{kind}: {list} was not read: {message}"),
        (None, "") => format!("{kind}: {message}"),
        (None, key) => format!("{kind} {key}: {message}"),
    }
}

/// How a list was read by the last cycle, and why not as it should be.
fn pull_state(last: Option<&Ended>, kind: Kind, list: &str) -> (&'static str, Option<String>) {
    let summary = match last.map(|ended| &ended.summary) {
        None => return ("waiting", Some("the first cycle has not ended yet".into())),
        Some(Err(panic)) => return ("failed", Some(panicked(panic))),
        Some(Ok(summary)) => summary,
    };
    let code = format!("pull_failed:{list}");
    let of_list = |error: &&Diagnostic| {
        // What failed after the pull is of the expected list of its type.
        let is_other = error.code.starts_with("pull_failed:") && error.code != code;
        let is_of_type = error.kind.as_deref() == Some(kind.name()) && list == kind.name();
        error.code == code || (is_of_type && !is_other)
    };
    if let Some(error) = summary.errors.iter().find(of_list) {
        return ("failed", Some(error.message.clone()));
    }
    if summary.incomplete.iter().any(|name| name == list) {
        let why = "read in part only, so nothing of it is deleted";
        return ("in part", Some(why.into()));
    }
    match summary.complete.iter().any(|name| name == list) {
        true => ("complete", None),
        false => (
            "not read",
            Some("its source has no such list, or it was not asked for".into()),
        ),
    }
}

/// What is not as it should be.
fn reasons(last: Option<&Ended>) -> Vec<String> {
    let summary = match last.map(|ended| &ended.summary) {
        None => return vec!["the first cycle has not ended yet".into()],
        Some(Err(panic)) => return vec![panicked(panic)],
        Some(Ok(summary)) => summary,
    };
    let mut found: Vec<String> = summary.errors.iter().map(say).collect();
    let part = |kind: &String| format!("{kind}: pulled in part only, so nothing is deleted");
    found.extend(summary.incomplete.iter().map(part));
    for (kind, counters) in &summary.types {
        let withheld = counters.withheld_deletes;
        if withheld > 0 {
            found.push(format!(
                "{kind}: {withheld} deletes are withheld; if that is right: afferent mirror approve {kind} {withheld}"
            ));
        }
    }
    let unclear = |report: &&Diagnostic| report.code == "gate_not_boolean";
    found.extend(summary.warnings.iter().filter(unclear).map(say));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Kind;

    #[test]
    fn reasons_are_told_until_a_cycle_ends_without_it() {
        let status = Status::new("file:core.json".into(), Progress::default());
        let at = |n: u64| WallTime::from_unix_ms(n * 1000);
        let reasons = |status: &Status| status.show()["reasons"].clone();
        assert_eq!(
            reasons(&status),
            json!(["the first cycle has not ended yet"])
        );
        let mut bad = Summary::new("r1".into());
        let error = Diagnostic::new("pull_failed", Kind::Rack, "rack", "timeout");
        bad.errors.push(error);
        bad.types.get_mut("Compute").unwrap().withheld_deletes = 40;
        bad.incomplete.push("NVSwitch".into());
        status.begin(at(1));
        status.end(at(2), Ok(bad));
        assert_eq!(
            reasons(&status),
            json!([
                "rack rack: timeout",
                "NVSwitch: pulled in part only, so nothing is deleted",
                "Compute: 40 deletes are withheld; if that is right: afferent mirror approve Compute 40"
            ])
        );
        // Which list, and what happened.
        let mut unread = Summary::new("r1".into());
        for (code, key) in [
            ("pull_failed:Compute", ""),
            ("pull_failed:drift:Compute", ""),
            ("tx_failed:Compute", "MC-1"),
        ] {
            let error = Diagnostic::new(code, Kind::Compute, key, "no answer");
            unread.errors.push(error);
        }
        status.begin(at(2));
        status.end(at(2), Ok(unread));
        assert_eq!(
            reasons(&status),
            json!([
                "Compute: what is expected was not read: no answer",
                "Compute: what is observed was not read: no answer",
                "Compute MC-1: no answer",
            ])
        );
        let stale = &status.show()["stale"];
        let expected = json!({"complete_at": null, "why": "no answer"});
        assert_eq!(
            (&stale["Compute expected"], &stale["Compute observed"]),
            (&expected, &expected)
        );
        let good = Summary {
            complete: vec!["Compute".into()],
            ..Summary::new("r2".into())
        };
        status.begin(at(3));
        status.end(at(4), Ok(good));
        let answer = status.show();
        assert_eq!(answer["reasons"], json!([]));
        assert_eq!(answer["state"], "ok");
        assert_eq!(answer["cycles"], 3);
        assert_eq!(answer["stale"], json!({}));
        assert_eq!(answer["last_cycle"]["run"], "r2");
        assert_eq!(answer["types"]["Compute"], json!({"pulled": 0}));
    }

    /// The loss: a pull that hangs while the state is ok and the rows are those of yesterday.
    #[test]
    fn a_cycle_that_stands_still_is_a_reason_with_what_it_waits_for() {
        let progress = Progress::default();
        let status = Status::new("https://core".into(), progress.clone());
        let good = Summary::new("r1".into());
        status.begin(WallTime::from_unix_ms(0));
        status.end(WallTime::from_unix_ms(1), Ok(good));
        status.begin(WallTime::from_unix_ms(2));
        progress.step("asking Core for expected-machine");
        let later = |by: u64| status.show_at(clock::now() + Duration::from_secs(by));
        assert_eq!(later(290)["state"], "ok");
        let answer = later(400);
        assert_eq!(answer["state"], "degraded");
        let reason = answer["reasons"][0].as_str().unwrap();
        assert!(
            reason.contains("asking Core for expected-machine"),
            "{reason}"
        );
        let still = answer["running"]["no_step_for_s"].as_u64().unwrap();
        assert!((399..=400).contains(&still), "{still}");
        status.end(WallTime::from_unix_ms(3), Ok(Summary::new("r2".into())));
        assert_eq!(later(4000)["state"], "ok");
    }
}
