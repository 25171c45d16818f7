//! Who gets which name where names are unique: decided for all racks together, in memory.

use std::collections::HashSet;

/// One rack that wants a name, in the order of planning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bid<'a> {
    /// The name Core gives it.
    pub(super) wants: &'a str,
    /// The name its row has and keeps if it loses: that of a live row, or of a tombstone that would
    /// live again.
    pub(super) has: Option<&'a str>,
}

/// Whether each bid gets its name. `fixed` are names of racks that take part in nothing.
///
/// A rack that loses keeps its name, which may cost another one the name it had already been
/// given; so the round is repeated until nobody loses any more.
pub(super) fn decide<'a>(bids: &[Bid<'a>], fixed: &HashSet<&'a str>) -> Vec<bool> {
    let mut keepers: HashSet<usize> = HashSet::new();
    loop {
        let mut taken = fixed.clone();
        taken.extend(keepers.iter().filter_map(|i| bids.get(*i)?.has));
        let mut won = vec![false; bids.len()];
        let mut more = false;
        for (i, bid) in bids.iter().enumerate() {
            if keepers.contains(&i) {
                // It may still get the name it has.
                won[i] = bid.has == Some(bid.wants);
                continue;
            }
            won[i] = taken.insert(bid.wants);
            if !won[i] && bid.has.is_some() {
                keepers.insert(i);
                more = true;
            }
        }
        if !more {
            return won;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bid<'a>(wants: &'a str, has: Option<&'a str>) -> Bid<'a> {
        Bid { wants, has }
    }

    #[test]
    fn the_first_in_order_wins_and_a_live_loser_keeps_what_it_has() {
        let bids = [bid("shared", None), bid("shared", Some("old"))];
        assert_eq!(decide(&bids, &HashSet::new()), [true, false]);
    }

    #[test]
    fn two_racks_may_swap_their_names() {
        let bids = [bid("b", Some("a")), bid("a", Some("b"))];
        assert_eq!(decide(&bids, &HashSet::new()), [true, true]);
    }

    #[test]
    fn whoever_keeps_a_name_because_it_lost_keeps_others_off_it() {
        let bids = [bid("b", Some("a")), bid("b", Some("b"))];
        assert_eq!(decide(&bids, &HashSet::new()), [false, true]);
        let fixed = HashSet::from(["c"]);
        let bids = [bid("x", None), bid("c", Some("x"))];
        assert_eq!(decide(&bids, &fixed), [false, false]);
    }

    proptest! {
        /// No two racks may end with one name, and asking again with the result changes nothing.
        #[test]
        fn names_end_unique_and_stable(wants in proptest::collection::vec(0u8..6, 1..8), live in 0usize..8) {
            let names: Vec<String> = (0..16).map(|n| n.to_string()).collect();
            let live = live.min(wants.len());
            let bids: Vec<Bid> = wants.iter().enumerate().map(|(i, w)| bid(
                &names[usize::from(*w)],
                (i < live).then(|| names[i].as_str()),
            )).collect();
            let won = decide(&bids, &HashSet::new());
            let after: Vec<Option<&str>> = bids.iter().zip(&won)
                .map(|(b, won)| if *won { Some(b.wants) } else { b.has }).collect();
            let there: Vec<&str> = after.iter().flatten().copied().collect();
            prop_assert_eq!(there.iter().collect::<HashSet<_>>().len(), there.len());
            let again: Vec<Bid> = bids.iter().zip(&after).map(|(b, has)| bid(b.wants, *has)).collect();
            let won = decide(&again, &HashSet::new());
            let second: Vec<Option<&str>> = again.iter().zip(&won)
                .map(|(b, won)| if *won { Some(b.wants) } else { b.has }).collect();
            prop_assert_eq!(second, after);
        }
    }
}
