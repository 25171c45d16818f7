//! Questions about the fleet to the running sensor: its fleet store, and what it knows of guests beside.
//!
//! Answers are made beside the loop: each holds a lock for a moment, or reads a snapshot.

use super::fleet::query::{AnswerPage, FleetAnswer, FleetQuery, newest_change};
use super::status::{View, state_of};
use crate::store::{Store, StoreError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

/// Everything that is asked about.
#[derive(Clone)]
pub(super) struct FleetQuestions {
    pub(super) view: Arc<View>,
    pub(super) store: Arc<Store>,
}

impl FleetQuestions {
    /// The answer, or a part of it.
    pub(super) fn ask(&self, query: &FleetQuery, page: &AnswerPage) -> FleetAnswer {
        if self.view.fleet.is_none() {
            let error =
                "this sensor keeps no fleet store; its setting `fleet` is off, or its log says why";
            return FleetAnswer::failed(error.to_owned());
        }
        let states = match query.shows_states() {
            true => self.states(),
            false => HashMap::new(),
        };
        let states_of = |vm: &str| states.get(vm).copied();
        let mut answer = query.ask_page(&self.store, &states_of, page);
        answer.note_roster(states.len());
        answer
    }

    /// How the fleet is, with its newest change.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn summary(&self) -> Result<Value, StoreError> {
        let mut summary = self.view.summary();
        let (newest, _) = match self.view.fleet.is_some() {
            true => newest_change(&self.store)?,
            false => (None, None),
        };
        summary["newest_change"] = json!(newest);
        Ok(summary)
    }

    /// The state of every guest of the roster, by id.
    fn states(&self) -> HashMap<String, &'static str> {
        let guests = self.view.guests.lock();
        let guests = guests.unwrap_or_else(PoisonError::into_inner);
        let states = guests
            .guests()
            .map(|(vm, guest)| (vm.as_str().to_owned(), state_of(&guests, vm, guest)));
        states.collect()
    }
}
