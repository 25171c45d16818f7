//! Looking at all guests without holding up the loop, which needs the same lock.

use crate::report::VmId;
use crate::sense::pull::guests::{Guest, GuestTable};
use std::ops::Deref;

/// Guests that are looked at without a pause.
pub(super) const AT_ONCE: usize = 256;

/// Looks at every guest; `lock` is held for [`AT_ONCE`] of them at a time. A guest that leaves or comes meanwhile may be
/// left out.
pub(super) fn each_guest<G: Deref<Target = GuestTable>>(
    lock: impl Fn() -> G,
    mut look: impl FnMut(&GuestTable, &VmId, &Guest),
) {
    // References only: a fraction of a millisecond for ten thousand.
    let vms: Vec<VmId> = lock().guests().map(|(vm, _)| vm.clone()).collect();
    for part in vms.chunks(AT_ONCE) {
        let guests = lock();
        for vm in part {
            if let Some(guest) = guests.guest(vm) {
                look(&guests, vm, guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::pull::schedule::Timing;
    use std::cell::{Cell, RefCell};
    use std::time::Duration;

    /// A lock that is held from here until it is dropped, and counts what is looked at meanwhile.
    struct Held<'a> {
        table: &'a GuestTable,
        looks: &'a Cell<usize>,
        most: &'a Cell<usize>,
    }

    impl Deref for Held<'_> {
        type Target = GuestTable;

        fn deref(&self) -> &GuestTable {
            self.table
        }
    }

    impl Drop for Held<'_> {
        fn drop(&mut self) {
            self.most.set(self.most.get().max(self.looks.replace(0)));
        }
    }

    /// The loss: a loop that waits for the answer to somebody's question about ten thousand guests.
    #[test]
    fn the_lock_is_released_after_every_part_and_each_guest_is_looked_at_once() {
        const GUESTS: usize = 3 * AT_ONCE + 7;
        let hour = Duration::from_secs(3600);
        let names = (0..GUESTS).map(|n| format!("g{n:04}=unix:/g"));
        let entries = names.map(|entry| entry.parse().unwrap()).collect();
        let table = GuestTable::of(Timing::new(hour, hour), entries);
        let (looks, most) = (Cell::new(0), Cell::new(0));
        let lock = || Held {
            table: &table,
            looks: &looks,
            most: &most,
        };
        let seen = RefCell::new(Vec::new());
        each_guest(lock, |_, vm, _| {
            looks.set(looks.get() + 1);
            seen.borrow_mut().push(vm.clone());
        });
        assert_eq!((most.get(), looks.get()), (AT_ONCE, 0));
        let mut seen = seen.into_inner();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), GUESTS);
    }
}
