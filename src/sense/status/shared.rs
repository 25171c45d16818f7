//! Guests that have something in common which each should have for itself.

use crate::report::VmId;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Guests by something that each should have for itself: clones share a machine-id. They are served all
/// the same.
#[derive(Default)]
pub(super) struct Shared(BTreeMap<String, Vec<String>>);

impl Shared {
    pub(super) fn add(&mut self, of: String, vm: &VmId) {
        self.0.entry(of).or_default().push(vm.as_str().to_owned());
    }

    /// Those that several guests have, with the guests.
    pub(super) fn json(mut self) -> Value {
        self.0.retain(|_, vms| vms.len() > 1);
        self.0.values_mut().for_each(|vms| vms.sort());
        json!(self.0)
    }
}
