//! What the sensor answers on its control socket: status, dead letters, questions about the fleet, logins to its
//! page, full pulls.
//!
//! Answers are made beside the loop. Each holds a lock for a few guests at a time, or reads a snapshot.

use super::api;
use super::fleet::query::FleetAnswer;
use super::questions::FleetQuestions;
use super::queue::FullPull;
use super::status::{StatusAnswer, View};
use crate::report::VmId;
use crate::web::Doorkeeper;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Everything that is asked about.
pub(super) struct ControlRoom {
    pub(super) view: Arc<View>,
    pub(super) questions: FleetQuestions,
    /// Lets people in, where there is a page.
    pub(super) doorkeeper: Option<Doorkeeper>,
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
    /// The answer to these words of this user.
    pub(super) fn answer(&self, words: &[&str], user: Option<u32>) -> ControlAnswer {
        match words {
            ["login"] => ControlAnswer::Other(api::login(self.doorkeeper.as_ref(), user)),
            ["fleet", question] => ControlAnswer::Fleet(self.questions.ask_word(question)),
            ["rescan"] => ControlAnswer::Other(self.rescan(None)),
            ["rescan", vm] => ControlAnswer::Other(self.rescan(Some(vm))),
            words => ControlAnswer::Status(self.view.answer(words)),
        }
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
            let _ = self.full_pulls.send((vm.clone(), FullPull::OnDemand));
        }
        json!({ "rescans": asked.len() })
    }
}
