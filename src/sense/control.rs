//! What the sensor answers on its control socket: status, dead letters, questions about the fleet, full pulls.
//!
//! Answers are made beside the loop. Each holds a lock for a few guests at a time, or reads a snapshot.

use super::fleet::query::{FleetAnswer, FleetQuery};
use super::queue::FullPull;
use super::status::{StatusAnswer, View, state_of};
use crate::report::VmId;
use crate::store::Store;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Everything that is asked about.
pub(super) struct ControlRoom {
    pub(super) view: Arc<View>,
    pub(super) store: Arc<Store>,
    /// Guests to be asked for a full report now.
    pub(super) full_pulls: UnboundedSender<(VmId, FullPull)>,
}

/// An answer.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum ControlAnswer {
    Status(StatusAnswer),
    Fleet(FleetAnswer),
    Other(Value),
}

impl ControlRoom {
    /// The answer to these words.
    pub(super) fn answer(&self, words: &[&str]) -> ControlAnswer {
        match words {
            ["fleet", question] => ControlAnswer::Fleet(self.fleet(question)),
            ["rescan"] => ControlAnswer::Other(self.rescan(None)),
            ["rescan", vm] => ControlAnswer::Other(self.rescan(Some(vm))),
            words => ControlAnswer::Status(self.view.answer(words)),
        }
    }

    fn fleet(&self, question: &str) -> FleetAnswer {
        if self.view.fleet.is_none() {
            let error =
                "this sensor keeps no fleet store; its setting `fleet` is off, or its log says why";
            return FleetAnswer::failed(error.to_owned());
        }
        let query = match FleetQuery::from_word(question) {
            Ok(query) => query,
            Err(error) => {
                let what = format!(
                    "the sensor does not know this question ({error}); is it of another version?"
                );
                return FleetAnswer::failed(what);
            }
        };
        let states = match query.shows_states() {
            true => self.states(),
            false => HashMap::new(),
        };
        let mut answer = query.ask(&self.store, &|vm| states.get(vm).copied());
        answer.note_roster(states.len());
        answer
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

    /// Asks a guest, or all of them, for a full report now.
    fn rescan(&self, vm: Option<&str>) -> Value {
        let guests = self.view.guests.lock();
        let guests = guests.unwrap_or_else(PoisonError::into_inner);
        let all = guests.guests().map(|(vm, _)| vm);
        let asked: Vec<VmId> = all
            .filter(|guest| vm.is_none_or(|vm| guest.as_str() == vm))
            .cloned()
            .collect();
        drop(guests);
        if let (Some(vm), true) = (vm, asked.is_empty()) {
            return json!({ "error": format!("no guest {vm:?} in the roster; `afferent status` lists those that are") });
        }
        for vm in &asked {
            // Fails only while stopping.
            let _ = self.full_pulls.send((vm.clone(), FullPull::AtOnce));
        }
        json!({ "rescans": asked.len() })
    }
}
