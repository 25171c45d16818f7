//! Questions about the fleet to the running service: its fleet store, and what it knows of guests beside.
//!
//! Answers are made beside the loop: each holds a lock for a moment, or reads a snapshot.

use super::fleet::Fleet;
use super::fleet::query::{AnswerPage, FleetAnswer, FleetQuery, newest_change};
use super::recent::RecentAcceptances;
use crate::store::{Store, StoreError};
use crate::telemetry::metrics::Histogram;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;

/// A service with a fleet store: a sensor with guests of its own, or one that reads what others deliver.
pub(super) trait FleetService: Send + Sync {
    /// The fleet store; `None`: it is off.
    fn fleet(&self) -> Option<&Fleet>;

    /// The state of every guest of the roster, by id; empty without a roster.
    fn states(&self) -> HashMap<String, &'static str>;

    /// How the fleet is.
    fn summary(&self) -> Value;

    /// Time from a change in a guest until a sink accepted it; `None` where nothing is delivered.
    fn latency(&self) -> Option<&Histogram>;

    /// Reports of changes that sinks accepted lately; `None` where nothing is delivered.
    fn accepted(&self) -> Option<&RecentAcceptances>;
}

/// Everything that is asked about.
#[derive(Clone)]
pub(super) struct FleetQuestions {
    pub(super) service: Arc<dyn FleetService>,
    pub(super) store: Arc<Store>,
}

impl FleetQuestions {
    /// The answer, or a part of it.
    pub(super) fn ask(&self, query: &FleetQuery, page: &AnswerPage) -> FleetAnswer {
        if self.service.fleet().is_none() {
            let error =
                "this sensor keeps no fleet store; its setting `fleet` is off, or its log says why";
            return FleetAnswer::failed(error.to_owned());
        }
        let states = match query.shows_states() {
            true => self.service.states(),
            false => HashMap::new(),
        };
        let states_of = |vm: &str| states.get(vm).copied();
        let mut answer = query.ask_page(&self.store, &states_of, page);
        answer.note_roster(states.len());
        if let (FleetAnswer::Changes(answer), Some(accepted)) =
            (&mut answer, self.service.accepted())
        {
            let mut accepted = accepted.by_report();
            for change in &mut answer.changes {
                change.note_accepted(&mut accepted);
            }
        }
        answer
    }

    /// The answer to a question as the control socket has it.
    pub(super) fn ask_word(&self, word: &str) -> FleetAnswer {
        match FleetQuery::from_word(word) {
            Ok(query) => self.ask(&query, &AnswerPage::default()),
            Err(error) => FleetAnswer::failed(format!(
                "the sensor does not know this question ({error}); is it of another version?"
            )),
        }
    }

    /// How the fleet is, with its newest change.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn summary(&self) -> Result<Value, StoreError> {
        let mut summary = self.service.summary();
        let (newest, _) = match self.service.fleet().is_some() {
            true => newest_change(&self.store)?,
            false => (None, None),
        };
        summary["newest_change"] = json!(newest);
        Ok(summary)
    }
}
