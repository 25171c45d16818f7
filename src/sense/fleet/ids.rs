//! Sorted lists of package ids in few bytes: the distance to the id before, seven bits a byte, the lowest
//! first, with the high bit set on all bytes of a distance but its last one.
//!
//! Lists are multisets: a distance of 0 is the same package once more.

/// The bytes of a sorted list.
pub(super) fn pack(ids: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ids.len() + ids.len() / 4);
    let mut before = 0;
    for id in ids {
        let mut distance = id.saturating_sub(before);
        before = *id;
        loop {
            let [low, ..] = distance.to_le_bytes();
            distance >>= 7;
            if distance == 0 {
                bytes.push(low);
                break;
            }
            bytes.push(low | 0x80);
        }
    }
    bytes
}

/// The list in these bytes, without a copy of it. It ends at the first byte that belongs to no list;
/// [`is_list`] tells whether there is one.
#[derive(Clone)]
pub(super) struct PackedIds<'a> {
    bytes: &'a [u8],
    before: u32,
}

impl<'a> PackedIds<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, before: 0 }
    }

    /// The ids from `first` to `last`, both included.
    pub(super) fn within(mut self, first: u32, last: u32) -> impl Iterator<Item = u32> {
        self.skip_below(first);
        self.skip_while(move |id| *id < first)
            .take_while(move |id| *id <= last)
    }

    /// Skips ids below `first`, not always all of them: eight at a time where each takes one byte, as nearly all do.
    fn skip_below(&mut self, first: u32) {
        const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
        const EVEN_BYTES: u64 = 0x00ff_00ff_00ff_00ff;
        // Adds the four numbers of 16 bits up in the highest one. Their sum is at most 8 * 127.
        const SUM: u64 = 0x0001_0001_0001_0001;
        while let Some((eight, rest)) = self.bytes.split_first_chunk() {
            let eight = u64::from_le_bytes(*eight);
            if eight & HIGH_BITS != 0 {
                let mut next = self.clone();
                match next.next() {
                    Some(id) if id < first => *self = next,
                    _ => return,
                }
                continue;
            }
            let pairs = (eight & EVEN_BYTES) + ((eight >> 8) & EVEN_BYTES);
            let [.., low, high] = pairs.wrapping_mul(SUM).to_le_bytes();
            let distance = u32::from(u16::from_le_bytes([low, high]));
            match self.before.checked_add(distance) {
                Some(id) if id < first => (self.before, self.bytes) = (id, rest),
                _ => return,
            }
        }
    }
}

impl Iterator for PackedIds<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (mut distance, mut shift) = (0u32, 0u32);
        loop {
            let (byte, rest) = self.bytes.split_first()?;
            let bits = u32::from(byte & 0x7f);
            if shift > 28 || shift == 28 && bits > 0xf {
                return None;
            }
            self.bytes = rest;
            distance |= bits << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        self.before = self.before.checked_add(distance)?;
        Some(self.before)
    }
}

/// The list in these bytes; `None` when they are none.
pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut list = Vec::with_capacity(bytes.len());
    list.extend(PackedIds::new(bytes));
    is_list(bytes).then_some(list)
}

/// Whether these bytes are a list, in the one encoding that it has.
pub(super) fn is_list(bytes: &[u8]) -> bool {
    let mut ids = PackedIds::new(bytes);
    loop {
        let before = ids.bytes;
        if ids.next().is_none() {
            return before.is_empty();
        }
        let of_this = before.len() - ids.bytes.len();
        // A distance of several bytes does not end in one that adds nothing.
        if of_this > 1 && before.get(of_this - 1) == Some(&0) {
            return false;
        }
    }
}

/// What is only in the first of two sorted lists, and what is only in the second.
pub(super) fn difference(old: &[u32], new: &[u32]) -> (Vec<u32>, Vec<u32>) {
    let (mut gone, mut came) = (Vec::new(), Vec::new());
    let (mut a, mut b) = (old.iter().peekable(), new.iter().peekable());
    loop {
        match (a.peek(), b.peek()) {
            (None, None) => return (gone, came),
            (Some(x), Some(y)) if x == y => drop((a.next(), b.next())),
            (Some(x), Some(y)) if x > y => came.extend(b.next()),
            (Some(_), _) => gone.extend(a.next()),
            (None, Some(_)) => came.extend(b.next()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn neighbours_take_one_byte() {
        let ids: Vec<u32> = (1000..1600).collect();
        assert_eq!(pack(&ids).len(), 601);
    }

    #[test]
    fn bytes_that_are_no_list_are_refused() {
        for bytes in [
            &[0x80][..],
            &[0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0x1f],
            &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x01],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        ] {
            assert_eq!(unpack(bytes), None, "{bytes:x?}");
        }
        assert_eq!(unpack(&[]), Some(vec![]));
        assert_eq!(
            unpack(&[0xff, 0xff, 0xff, 0xff, 0x0f]),
            Some(vec![u32::MAX])
        );
    }

    proptest! {
        #[test]
        fn a_list_comes_back(mut ids in vec(prop_oneof![any::<u32>(), 0u32..300], 0..60)) {
            ids.sort_unstable();
            prop_assert_eq!(unpack(&pack(&ids)), Some(ids));
        }

        #[test]
        fn any_bytes_are_a_list_or_refused(bytes in vec(any::<u8>(), 0..20)) {
            let list: Vec<u32> = PackedIds::new(&bytes).collect();
            // There is one encoding of each list.
            prop_assert_eq!(is_list(&bytes), pack(&list) == bytes);
            prop_assert!(list.is_sorted());
        }

        #[test]
        fn what_lies_within_bounds_is_given_and_nothing_else(
            mut ids in vec(prop_oneof![any::<u32>(), 0u32..3000], 0..200),
            first in prop_oneof![any::<u32>(), 0u32..3000],
            length in prop_oneof![any::<u32>(), 0u32..300],
        ) {
            ids.sort_unstable();
            let last = first.saturating_add(length);
            let packed = pack(&ids);
            let found: Vec<u32> = PackedIds::new(&packed).within(first, last).collect();
            ids.retain(|id| (first..=last).contains(id));
            prop_assert_eq!(found, ids);
        }

        #[test]
        fn the_difference_leads_from_one_list_to_the_other(mut a in vec(0u32..9, 0..9), mut b in vec(0u32..9, 0..9)) {
            a.sort_unstable();
            b.sort_unstable();
            let (gone, came) = difference(&a, &b);
            prop_assert!(gone.iter().all(|id| !came.contains(id)));
            let mut list = a.clone();
            for id in gone {
                list.remove(list.iter().position(|held| *held == id).unwrap());
            }
            list.extend(came);
            list.sort_unstable();
            prop_assert_eq!(list, b);
        }
    }
}
