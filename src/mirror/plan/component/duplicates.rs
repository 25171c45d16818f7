//! Entries that name one component twice.

use super::{ComponentInput, find_bmc};
use crate::inventory::{BmcType, Mac};
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::plan::Earlier;
use crate::mirror::policy::{Duplicates, Identity};
use crate::mirror::spec::component::WantedComponent;
use std::collections::HashSet;

/// Sorts the entries and takes out those that cannot have a row of their own. What is taken out
/// was still seen.
pub(super) fn without_duplicates(
    mut wanted: Vec<WantedComponent>,
    input: &ComponentInput<'_>,
    earlier: &Earlier,
    warnings: &mut Vec<Diagnostic>,
) -> (Vec<WantedComponent>, Vec<WantedComponent>) {
    let mut kept = Vec::with_capacity(wanted.len());
    let mut dropped = Vec::new();
    let mut drop = |entry: WantedComponent, code: &str, why: String| {
        warnings.push(Diagnostic::new(code, input.kind, entry.label(), why));
        dropped.push(entry);
    };
    let last_wins = input.policy.duplicates == Duplicates::Last;
    if input.policy.identity == Identity::Pair {
        wanted.sort_unstable();
        for entry in wanted {
            if last_wins
                && let Some(before) =
                    kept.pop_if(|e: &mut WantedComponent| e.pair() == entry.pair())
            {
                let why = "another entry has the same manufacturer and serial number";
                drop(before, "duplicate_component", why.into());
            }
            kept.push(entry);
        }
        return (kept, dropped);
    }
    wanted.sort_unstable_by(|a, b| a.mac.cmp(&b.mac).then_with(|| a.cmp(b)));
    let owner_pair = |mac: Mac| {
        let bmc = find_bmc(&input.present.bmcs, mac).filter(|b| b.kind == BmcType::Host)?;
        let rows = &input.present.rows;
        let row = rows
            .binary_search_by_key(&bmc.component_id, |row| row.id)
            .ok()?;
        rows.get(row)?.pair()
    };
    for entry in wanted {
        if let Some(kind) = earlier.mac(entry.mac) {
            let why = format!("{} already has the BMC {}", kind.name(), entry.mac);
            drop(entry, "duplicate_mac_other_type", why);
            continue;
        }
        let Some(before) = kept.pop_if(|e: &mut WantedComponent| e.mac == entry.mac) else {
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
        let (keep, lose) = if rank(&entry) < rank(&before) {
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
                let why = "another entry has the same manufacturer and serial number";
                drop(entry, "duplicate_component", why.into());
            } else {
                unique.push(entry);
            }
        }
        unique.reverse();
        kept = unique;
    }
    (kept, dropped)
}
