//! Objects of one kind as a list and its watch tell them, and when one is gone. Pure policy.
//!
//! DELETED has three meanings: the object is deleted, its label no longer matches, or the whole kind is being
//! removed. So nothing leaves before a grace time, and where many go at once, nothing before a list confirms it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between the deletion of an object and its leaving.
pub(super) const GRACE: Duration = Duration::from_secs(60);

/// So many may leave without a list that confirms it.
const FEW: usize = 10;

/// `NAMESPACE/NAME`.
pub(super) type ObjectKey = Arc<str>;

/// The objects of one kind.
#[derive(Debug)]
pub(super) struct KeptObjects<T> {
    objects: BTreeMap<ObjectKey, T>,
    /// Those of them that are gone, and only kept.
    gone: BTreeMap<ObjectKey, Gone>,
    /// What the list that is being made named so far.
    listing: Option<BTreeSet<ObjectKey>>,
    /// A list was complete.
    is_listed: bool,
    /// Why the API server cannot be asked.
    pub(super) trouble: Option<String>,
    /// Objects that cannot be read.
    pub(super) unreadable: BTreeMap<ObjectKey, String>,
}

#[derive(Clone, Copy, Debug)]
struct Gone {
    since: Instant,
    /// A list that was made later does not have it either.
    is_confirmed: bool,
}

impl<T> Default for KeptObjects<T> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            gone: BTreeMap::new(),
            listing: None,
            is_listed: false,
            trouble: None,
            unreadable: BTreeMap::new(),
        }
    }
}

impl<T> KeptObjects<T> {
    /// Whether a list was complete since the start.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// An object; whether it is gone, and only kept.
    pub(super) fn get(&self, key: &str) -> Option<(&T, bool)> {
        Some((self.objects.get(key)?, self.gone.contains_key(key)))
    }

    /// Those that are not gone.
    pub(super) fn present(&self) -> impl Iterator<Item = (&ObjectKey, &T)> {
        let objects = self.objects.iter();
        objects.filter(|(key, _)| !self.gone.contains_key(*key))
    }

    /// A list begins.
    pub(super) fn begin_list(&mut self) {
        self.listing = Some(BTreeSet::new());
    }

    /// An object is there.
    pub(super) fn insert(&mut self, key: ObjectKey, object: T) {
        self.unreadable.remove(&key);
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        self.gone.remove(&key);
        self.objects.insert(key, object);
    }

    /// An object is there, and cannot be read: what is known of it stays.
    pub(super) fn note_unreadable(&mut self, key: ObjectKey, error: String) {
        if let Some(listing) = &mut self.listing {
            listing.insert(key.clone());
        }
        self.gone.remove(&key);
        self.unreadable.insert(key, error);
    }

    /// The key of an object, if it is known by it: one text for all who hold it.
    pub(super) fn key(&self, key: &str) -> Option<&ObjectKey> {
        Some(self.objects.get_key_value(key)?.0)
    }

    /// The list is complete. Gives those whose state changed: gone since now.
    pub(super) fn end_list(&mut self, now: Instant) -> Vec<ObjectKey> {
        let listed = self.listing.take().unwrap_or_default();
        self.is_listed = true;
        self.unreadable.retain(|key, _| listed.contains(key));
        let objects = self.objects.keys();
        let missing: Vec<_> = objects.filter(|key| !listed.contains(*key)).collect();
        let mut newly = Vec::new();
        for key in missing {
            match self.gone.get_mut(key) {
                Some(gone) => gone.is_confirmed = true,
                None => newly.push(key.clone()),
            }
        }
        let is_confirmed = newly.len() <= FEW;
        let gone = Gone {
            since: now,
            is_confirmed,
        };
        self.gone
            .extend(newly.iter().map(|key| (key.clone(), gone)));
        newly
    }

    /// DELETED.
    pub(super) fn delete(&mut self, key: &str, now: Instant) {
        self.unreadable.remove(key);
        if let Some((key, _)) = self.objects.get_key_value(key) {
            self.gone.entry(key.clone()).or_insert(Gone {
                since: now,
                is_confirmed: false,
            });
        }
    }

    /// Lets those go whose time has come; gives them, and whether a list must confirm the others first.
    pub(super) fn settle(&mut self, now: Instant) -> (Vec<ObjectKey>, bool) {
        let is_over = |gone: &Gone| now.saturating_duration_since(gone.since) >= GRACE;
        let over = self.gone.iter().filter(|(_, gone)| is_over(gone));
        let over: Vec<_> = over
            .map(|(key, gone)| (key.clone(), gone.is_confirmed))
            .collect();
        let unconfirmed = self.gone.values().filter(|gone| !gone.is_confirmed);
        let needs_list = unconfirmed.count() > FEW;
        let leaving = over
            .iter()
            .filter(|(_, is_confirmed)| *is_confirmed || !needs_list)
            .map(|(key, _)| key.clone())
            .collect::<Vec<_>>();
        for key in &leaving {
            self.objects.remove(key);
            self.gone.remove(key);
        }
        let asks = needs_list && over.len() > leaving.len();
        (leaving, asks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> ObjectKey {
        format!("ns/vm-{n}").into()
    }

    fn list(kept: &mut KeptObjects<usize>, numbers: impl Iterator<Item = usize>, now: Instant) {
        kept.begin_list();
        numbers.for_each(|n| kept.insert(key(n), n));
        kept.end_list(now);
    }

    fn present(kept: &KeptObjects<usize>) -> usize {
        kept.present().count()
    }

    #[test]
    fn a_deleted_object_leaves_after_the_grace_time_and_one_that_returns_stays() {
        let now = crate::clock::now();
        let mut kept = KeptObjects::default();
        list(&mut kept, 0..3, now);
        kept.delete(&key(0), now);
        kept.delete(&key(1), now);
        assert_eq!(kept.get(&key(0)), Some((&0, true)));
        kept.insert(key(1), 11);
        let almost = now + GRACE - Duration::from_millis(1);
        assert_eq!(kept.settle(almost), (Vec::new(), false));
        assert_eq!(kept.settle(now + GRACE), (vec![key(0)], false));
        assert_eq!(kept.get(&key(0)), None);
        assert_eq!(kept.get(&key(1)), Some((&11, false)));
    }

    /// Loss prevented: the CRD is removed for an upgrade, and every guest is forgotten.
    #[test]
    fn many_leave_only_after_a_list_that_confirms_it() {
        let now = crate::clock::now();
        let mut kept = KeptObjects::default();
        list(&mut kept, 0..100, now);
        (0..100).for_each(|n| kept.delete(&key(n), now));
        let later = now + 100 * GRACE;
        assert_eq!(kept.settle(later), (Vec::new(), true));
        // Half of them are there after all.
        list(&mut kept, 0..50, later);
        assert_eq!(present(&kept), 50);
        let (left, asks) = kept.settle(later);
        assert_eq!((left.len(), asks), (50, false));
    }

    /// A list that suddenly has none of them is not its own confirmation.
    #[test]
    fn a_list_without_many_of_them_is_confirmed_by_another() {
        let now = crate::clock::now();
        let mut kept = KeptObjects::default();
        list(&mut kept, 0..100, now);
        list(&mut kept, 0..0, now);
        assert_eq!(kept.settle(now + GRACE), (Vec::new(), true));
        list(&mut kept, 0..0, now + GRACE);
        assert_eq!(kept.settle(now + GRACE).0.len(), 100);
        // Few of them need no second list.
        list(&mut kept, 0..5, now);
        list(&mut kept, 0..2, now);
        let (left, asks) = kept.settle(now + GRACE);
        assert_eq!((left.len(), asks), (3, false));
    }

    #[test]
    fn an_object_that_cannot_be_read_keeps_what_was_known() {
        let now = crate::clock::now();
        let mut kept = KeptObjects::default();
        list(&mut kept, 0..2, now);
        kept.begin_list();
        kept.note_unreadable(key(0), "no number".into());
        kept.end_list(now);
        assert_eq!(kept.get(&key(0)), Some((&0, false)));
        assert_eq!(kept.unreadable.len(), 1);
        kept.insert(key(0), 7);
        assert!(kept.unreadable.is_empty());
        assert_eq!(kept.get(&key(1)), Some((&1, true)));
    }

    /// A list that fails in the middle changes nothing about those that it had not named.
    #[test]
    fn a_list_that_is_not_complete_takes_nobody_away() {
        let now = crate::clock::now();
        let mut kept = KeptObjects::default();
        list(&mut kept, 0..20, now);
        kept.begin_list();
        kept.insert(key(0), 0);
        kept.begin_list();
        assert_eq!(present(&kept), 20);
        assert_eq!(kept.settle(now + GRACE), (Vec::new(), false));
    }
}
