//! What the sensor answers on its control socket: status, dead letters, questions about the fleet, logins to its
//! page, full pulls.
//!
//! Answers are made beside the loop. Each holds a lock for a few guests at a time, or reads a snapshot.

use super::fleet::query::{AnswerPage, FleetAnswer, FleetQuery};
use super::questions::FleetQuestions;
use super::queue::FullPull;
use super::status::StatusAnswer;
use crate::report::VmId;
use crate::web::Doorkeeper;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::PoisonError;
use tokio::sync::mpsc::UnboundedSender;

/// Everything that is asked about.
pub(super) struct ControlRoom {
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
            ["login"] => ControlAnswer::Other(self.login(user)),
            ["fleet", question] => ControlAnswer::Fleet(self.fleet(question)),
            ["rescan"] => ControlAnswer::Other(self.rescan(None)),
            ["rescan", vm] => ControlAnswer::Other(self.rescan(Some(vm))),
            words => ControlAnswer::Status(self.questions.view.answer(words)),
        }
    }

    fn fleet(&self, question: &str) -> FleetAnswer {
        match FleetQuery::from_word(question) {
            Ok(query) => self.questions.ask(&query, &AnswerPage::default()),
            Err(error) => {
                let what = format!(
                    "the sensor does not know this question ({error}); is it of another version?"
                );
                FleetAnswer::failed(what)
            }
        }
    }

    /// An address for the browser of who asks.
    fn login(&self, user: Option<u32>) -> Value {
        let answer = match &self.doorkeeper {
            None => Err("this sensor has no page; its setting `fleet_listen` gives it one"),
            Some(doorkeeper) => doorkeeper.login(user),
        };
        answer.unwrap_or_else(|error| json!({ "error": error, "is_usage": false }))
    }

    /// Asks a guest, or all of them, for a full report now.
    fn rescan(&self, vm: Option<&str>) -> Value {
        let guests = self.questions.view.guests.lock();
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
