//! Values by package id: a bit an id, and before how many values each 64 ids begin. A lookup is a few instructions,
//! as that of six million ids in a question needs it, and takes a byte and a half for eight ids.

/// Ids in one word.
const WORD: u32 = u64::BITS;

/// Which of 64 ids are there, and how many are before them.
#[derive(Clone, Copy, Default)]
struct IdWord {
    bits: u64,
    before: u32,
}

/// A map whose keys came in ascending order.
pub(super) struct IdMap<T> {
    words: Vec<IdWord>,
    /// Number of the first word.
    base: u32,
    first: u32,
    last: u32,
    values: Vec<T>,
}

impl<T> IdMap<T> {
    /// With no ids.
    pub(super) fn new() -> Self {
        Self {
            words: Vec::new(),
            base: 0,
            first: 0,
            last: 0,
            values: Vec::new(),
        }
    }

    /// Adds a value; its id is higher than all before, else the value is left out.
    pub(super) fn push(&mut self, id: u32, value: T) {
        if self.values.is_empty() {
            (self.base, self.first) = (id / WORD, id);
        } else if id <= self.last {
            return;
        }
        let Ok(before) = u32::try_from(self.values.len()) else {
            return;
        };
        let at = (id / WORD - self.base) as usize;
        if self.words.len() <= at {
            self.words.resize(at + 1, IdWord { bits: 0, before });
        }
        if let Some(word) = self.words.get_mut(at) {
            word.bits |= 1 << (id % WORD);
        }
        self.last = id;
        self.values.push(value);
    }

    /// The lowest and the highest id; `None`: there are none.
    pub(super) fn bounds(&self) -> Option<(u32, u32)> {
        (!self.values.is_empty()).then_some((self.first, self.last))
    }

    /// The value of an id.
    pub(super) fn get(&self, id: u32) -> Option<&T> {
        let at = (id / WORD).checked_sub(self.base)?;
        let word = self.words.get(at as usize)?;
        let bit = 1u64 << (id % WORD);
        if word.bits & bit == 0 {
            return None;
        }
        let lower = (word.bits & (bit - 1)).count_ones();
        self.values.get((word.before + lower) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_id_has_its_value_and_others_have_none(
            model in btree_map(0u32..5000, any::<u8>(), 0..100),
            shift in prop_oneof![Just(0u32), Just(1 << 20)],
        ) {
            let mut map = IdMap::new();
            for (id, value) in &model {
                map.push(id + shift, *value);
            }
            for id in 0..5100 {
                prop_assert_eq!(map.get(id + shift), model.get(&id), "{}", id);
            }
            prop_assert_eq!(map.get(0), model.get(&0).filter(|_| shift == 0));
            prop_assert_eq!(map.get(u32::MAX), None);
            let bounds = model.first_key_value().zip(model.last_key_value());
            prop_assert_eq!(map.bounds(), bounds.map(|((first, _), (last, _))| (first + shift, last + shift)));
        }
    }
}
