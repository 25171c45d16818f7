//! What an operator approved over the control socket, until a cycle takes it.

use crate::mirror::approval::Approval;
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// What an operator approved, until a cycle takes it.
#[derive(Default)]
pub(super) struct Approved {
    pub(super) approval: Mutex<Option<Approval>>,
    /// Somebody approved something: the next cycle begins now.
    pub(super) given: Notify,
}

impl Approved {
    /// Keeps what was approved, and says what follows.
    pub(super) fn give(&self, approval: Result<Approval, String>) -> Value {
        match approval {
            Err(why) => json!({"error": why}),
            Ok(approval) => {
                let (kind, deletes) = (approval.kind.name(), approval.rows.len());
                tracing::info!(kind, deletes, user = approval.user, "deletes approved");
                let mut kept = self.approval.lock().unwrap_or_else(PoisonError::into_inner);
                *kept = Some(approval);
                self.given.notify_one();
                json!({"approved": deletes, "type": kind})
            }
        }
    }
}
