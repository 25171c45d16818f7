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
/// [`unpack`] tells whether there is one.
pub(super) struct PackedIds<'a> {
    bytes: &'a [u8],
    before: u32,
}

impl<'a> PackedIds<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, before: 0 }
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
    let list: Vec<u32> = PackedIds::new(bytes).collect();
    // There is one encoding of each list.
    (pack(&list) == bytes).then_some(list)
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
            if let Some(list) = unpack(&bytes) {
                prop_assert!(list.is_sorted());
                prop_assert_eq!(pack(&list), bytes);
            }
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
