//! Entries that name one thing twice: what is left, sorted, and what was taken out, which still counts as present.
//! `warn` is given a code, what the entry is called, and why.

use super::WantedRow;
use super::component::WantedComponent;
use super::rack::WantedRack;
use crate::inventory::{Mac, Pair};
use crate::mirror::policy::{Duplicates, Identity, Policy};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Sorts the entries and takes out those that name a rack a second time.
pub fn distinct_racks(
    mut wanted: Vec<WantedRack>,
    duplicates: Duplicates,
    mut warn: impl FnMut(&str, String, String),
) -> (Vec<WantedRack>, Vec<WantedRack>) {
    wanted.sort_unstable();
    let mut kept: Vec<WantedRack> = Vec::with_capacity(wanted.len());
    let mut dropped = Vec::new();
    for entry in wanted {
        let same = |before: &mut WantedRack| {
            before.rack_id == entry.rack_id
                && (before.rack_id.is_some() || before.pair() == entry.pair())
        };
        let Some(before) = kept.pop_if(same) else {
            kept.push(entry);
            continue;
        };
        // One rack twice: the last one where the policy says so, else the first.
        let last = duplicates == Duplicates::Last && before.pair() == entry.pair();
        let (keep, lose) = if last {
            (entry, before)
        } else {
            (before, entry)
        };
        let (code, why) = match &keep.rack_id {
            Some(_) => ("duplicate_rack_id", "another entry has the same rack_id"),
            None => ("duplicate_chassis", "another entry has the same chassis"),
        };
        warn(code, keep.label(), why.to_owned());
        kept.push(keep);
        dropped.push(lose);
    }
    (kept, dropped)
}

/// Sorts the entries in place: a second list of them would be most of what a cycle needs. Their order begins with the
/// pair. Whole entries are compared where the beginnings of their pairs are the same: what is moved and compared
/// otherwise are numbers.
fn sort_by_pair(wanted: &mut [WantedComponent]) {
    let manufacturers: BTreeSet<&str> = wanted
        .iter()
        .filter_map(|entry| entry.manufacturer.as_deref())
        .collect();
    // None comes first.
    let ranks: HashMap<&str, u32> = manufacturers.into_iter().zip(1..).collect();
    let key = |(place, entry): (usize, &WantedComponent)| {
        let manufacturer = entry.manufacturer.as_deref();
        let rank = manufacturer.map_or(0, |text| ranks.get(text).copied().unwrap_or_default());
        let mut beginning = [0; 16];
        let serial = entry.serial.as_deref().unwrap_or_default().as_bytes();
        let length = serial.len().min(beginning.len());
        beginning[..length].copy_from_slice(&serial[..length]);
        (rank, u128::from_be_bytes(beginning), place)
    };
    let mut keys: Vec<(u32, u128, usize)> = wanted.iter().enumerate().map(key).collect();
    keys.sort_unstable_by(|a, b| {
        let same = || wanted.get(a.2).cmp(&wanted.get(b.2));
        (a.0, a.1).cmp(&(b.0, b.1)).then_with(same)
    });
    let mut places: Vec<usize> = keys.into_iter().map(|(_, _, place)| place).collect();
    for first in 0..places.len() {
        // Entries go round in circles: each goes where the one before it was, and the first one is swapped along.
        let mut to = first;
        loop {
            let from = std::mem::replace(&mut places[to], to);
            if from == first {
                break;
            }
            wanted.swap(to, from);
            to = from;
        }
    }
}

/// Sorts the entries and takes out those that cannot have a row of their own. `owner_pair` is the pair of the row
/// that has a Host BMC, `taken_by` the type that took one in this cycle.
pub fn distinct_components<'p>(
    mut wanted: Vec<WantedComponent>,
    policy: &Policy,
    owner_pair: impl Fn(Mac) -> Option<Pair<'p>>,
    taken_by: impl Fn(Mac) -> Option<&'static str>,
    mut warn: impl FnMut(&str, String, String),
) -> (Vec<WantedComponent>, Vec<WantedComponent>) {
    let mut dropped = Vec::new();
    let mut drop = |entry: WantedComponent, code: &str, why: String| {
        warn(code, entry.label(), why);
        dropped.push(entry);
    };
    let same_pair = || "another entry has the same manufacturer and serial number".to_owned();
    let last_wins = policy.duplicates == Duplicates::Last;
    let mut kept: Vec<WantedComponent> = Vec::new();
    if policy.identity == Identity::Pair {
        sort_by_pair(&mut wanted);
        if !last_wins || wanted.windows(2).all(|two| two[0].pair() != two[1].pair()) {
            return (wanted, dropped);
        }
        for entry in wanted {
            let same = |before: &mut WantedComponent| before.pair() == entry.pair();
            if let Some(before) = kept.pop_if(same) {
                drop(before, "duplicate_component", same_pair());
            }
            kept.push(entry);
        }
        return (kept, dropped);
    }
    wanted.sort_unstable_by(|a, b| a.mac.cmp(&b.mac).then_with(|| a.cmp(b)));
    for entry in wanted {
        if let Some(kind) = taken_by(entry.mac) {
            let why = format!("{kind} already has the BMC {}", entry.mac);
            drop(entry, "duplicate_mac_other_type", why);
            continue;
        }
        let Some(before) = kept.pop_if(|before| before.mac == entry.mac) else {
            kept.push(entry);
            continue;
        };
        // The entry with the pair of the row that has the BMC, else one with a whole pair, else the first.
        let owner = owner_pair(entry.mac);
        let rank = |entry: &WantedComponent| match entry.pair() {
            Some(pair) if owner == Some(pair) => 0,
            Some(_) => 1,
            None => 2,
        };
        let is_better = rank(&entry) < rank(&before);
        let (keep, lose) = if is_better {
            (entry, before)
        } else {
            (before, entry)
        };
        let why = format!("another entry has the same BMC {}", keep.mac);
        kept.push(keep);
        drop(lose, "duplicate_mac", why);
    }
    if last_wins {
        let mut seen: HashSet<Box<str>> = HashSet::new();
        let mut unique = Vec::with_capacity(kept.len());
        for entry in kept.into_iter().rev() {
            if entry.pair().is_some_and(|pair| !seen.insert(pair.key())) {
                drop(entry, "duplicate_component", same_pair());
            } else {
                unique.push(entry);
            }
        }
        unique.reverse();
        kept = unique;
    }
    (kept, dropped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::spec::component::{Address, Position};
    use proptest::prelude::*;

    proptest! {
        /// The loss: an order that depends on the response, or differs from that of the plans before.
        #[test]
        fn entries_are_sorted_by_pair_and_then_by_everything_else(
            texts in proptest::collection::vec((0..3usize, 0..6usize, 0..3u8), 0..20)
        ) {
            let manufacturers = [None, Some("A"), Some("A\u{0}")];
            let serials = [None, Some(""), Some("S"), Some("S\u{0}"), Some("sixteen bytes and"), Some("sixteen bytes and more")];
            let entries = texts.into_iter().map(|(manufacturer, serial, mac)| WantedComponent {
                manufacturer: manufacturers[manufacturer].map(Into::into),
                serial: serials[serial].map(Into::into),
                mac: format!("02:00:00:00:00:0{mac}").parse().unwrap(),
                ip: Address::At(None),
                name: None,
                model: None,
                positions: [Position::Unknown; 3],
                rack_id: None,
                description: None,
            });
            let mut entries: Vec<WantedComponent> = entries.collect();
            let mut expected = entries.clone();
            expected.sort();
            sort_by_pair(&mut entries);
            prop_assert_eq!(entries, expected);
        }
    }
}
