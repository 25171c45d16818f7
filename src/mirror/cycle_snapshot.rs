//! The commit that questions are answered from: the newest one, and during a cycle the one from before it, so that
//! no answer mixes the types of two cycles.
//!
//! It is held while a cycle runs only: pages of the file that it needs are not used again meanwhile.

use crate::store::{Snapshot, Store, StoreError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Gives commits to read.
pub(super) struct CycleSnapshot {
    store: Arc<Store>,
    held: Mutex<Option<Arc<Snapshot>>>,
}

impl CycleSnapshot {
    /// Of this store, while no cycle runs.
    pub(super) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            held: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Snapshot>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A cycle begins; it ends when what this gives is dropped.
    pub(super) fn hold(&self) -> HeldSnapshot<'_> {
        let snapshot = self.store.snapshot();
        let snapshot = snapshot.inspect_err(|error| tracing::debug!(%error, "no commit to hold"));
        *self.held() = snapshot.ok().map(Arc::new);
        HeldSnapshot(self)
    }

    /// The commit to read.
    ///
    /// # Errors
    /// The store is damaged or gone.
    pub(super) fn get(&self) -> Result<Arc<Snapshot>, StoreError> {
        match &*self.held() {
            Some(snapshot) => Ok(snapshot.clone()),
            None => self.store.snapshot().map(Arc::new),
        }
    }
}

/// The commit from before a cycle, held while the cycle runs.
pub(super) struct HeldSnapshot<'a>(&'a CycleSnapshot);

impl Drop for HeldSnapshot<'_> {
    fn drop(&mut self) {
        *self.0.held() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::{dump, generation};
    use serde_json::json;
    use uuid::Uuid;

    /// The loss: racks of this cycle with machines of the last one in one answer.
    #[test]
    fn what_a_cycle_commits_is_read_once_it_has_ended() {
        let store = Arc::new(Store::in_memory().unwrap());
        let commit = |name: &str| {
            let rack = json!({"rack": [{"id": Uuid::from_u128(1), "name": name}]});
            let now = "2026-01-02T03:04:05Z".to_owned();
            dump::load(&store, rack, "a test".into(), now, &mut Uuid::new_v4).unwrap();
        };
        let snapshot = CycleSnapshot::new(store.clone());
        let name = || {
            let held = snapshot.get().unwrap();
            let tables = dump::dump(&held).unwrap();
            let name = tables["rack"][0]["name"].as_str().map(str::to_owned);
            (generation(&held).unwrap(), name)
        };
        assert_eq!(name(), (0, None));
        commit("a");
        assert_eq!(name(), (1, Some("a".into())));
        let cycle = snapshot.hold();
        commit("b");
        assert_eq!(name(), (1, Some("a".into())));
        drop(cycle);
        assert_eq!(name(), (2, Some("b".into())));
    }
}
