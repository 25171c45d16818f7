//! Which entry has which row, pair and BMC: decided before anything is written.

use super::Planner;
use crate::inventory::{BmcType, Mac, Pair};
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::policy::Identity;
use std::collections::HashMap;

impl<'a> Planner<'a> {
    /// All identity claims first, fallbacks second.
    pub(super) fn claim(&mut self) {
        let by_pair = self.input.policy.identity == Identity::Pair;
        if by_pair {
            self.lose_pairs_to_the_owner();
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let found = if by_pair {
                let pair = entry.pair().filter(|_| !self.lost_pair[i]);
                pair.and_then(|pair| self.row_of_pair.get(&pair).copied())
            } else {
                self.row_of_bmc(i)
            };
            if found.is_some_and(|row| self.claims.claim(i, row)) {
                self.rules[i] = if by_pair {
                    "identity: same pair"
                } else {
                    "identity: same Host BMC"
                };
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            if self.claims.row(i).is_some() {
                continue;
            }
            let found = if by_pair {
                // Only entries that lost their pair: their row has none either.
                let row = self.row_of_bmc(i).filter(|_| self.lost_pair[i]);
                row.filter(|row| self.row(*row).is_some_and(|r| r.pair().is_none()))
            } else {
                let pair = entry.pair();
                pair.and_then(|pair| self.row_of_pair.get(&pair).copied())
            };
            if found.is_some_and(|row| self.claims.claim(i, row)) {
                self.rules[i] = if by_pair {
                    "fallback: same Host BMC, the pair belongs to another entry"
                } else {
                    "fallback: same pair, the row's own Host BMC was claimed by nobody"
                };
            }
        }
    }

    /// Where the pair is the identity and both rows are kept: the entry whose BMC the present
    /// owner has keeps the pair, else the first.
    fn lose_pairs_to_the_owner(&mut self) {
        let mut owner: HashMap<Pair<'a>, usize> = HashMap::new();
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair() else { continue };
            let current = self.row_of_pair.get(&pair);
            if current.is_some() && self.row_of_bmc(i).as_ref() == current {
                owner.entry(pair).or_insert(i);
            }
        }
        self.lose_pairs(owner);
    }

    fn lose_pairs(&mut self, mut owner: HashMap<Pair<'a>, usize>) {
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair() else { continue };
            if *owner.entry(pair).or_insert(i) != i {
                self.lost_pair[i] = true;
                self.warn(
                    "duplicate_component",
                    entry.mac.to_string(),
                    format!("another entry keeps the pair {pair}"),
                );
            }
        }
    }

    /// Who has which pair in the end.
    pub(super) fn settle_pairs(&mut self) {
        let by_pair = self.input.policy.identity == Identity::Pair;
        if !by_pair {
            let owner = self
                .entries
                .iter()
                .enumerate()
                .filter_map(|(i, entry)| {
                    let stored = self.row(self.claims.row(i)?)?.pair()?;
                    (entry.pair() == Some(stored)).then_some((stored, i))
                })
                .collect();
            self.lose_pairs(owner);
        }
        for (i, entry) in self.entries.iter().enumerate() {
            let Some(pair) = entry.pair().filter(|_| !self.lost_pair[i]) else {
                continue;
            };
            let stored_here = self.row_of_pair.contains_key(&pair);
            let taken = self.earlier.pair(pair);
            let foreign = || self.input.present.foreign.get(&pair.key());
            let holder = match taken {
                Some(kind) => Some(kind.name()),
                None if by_pair && !stored_here && !self.input.present.foreign.is_empty() => {
                    let live = foreign().filter(|row| row.is_live());
                    live.map(|row| row.kind.name())
                }
                None => None,
            };
            let Some(holder) = holder else { continue };
            let why = format!("{holder} has the pair {pair}");
            self.warn("duplicate_pair_other_type", entry.label(), why);
            if by_pair && self.claims.row(i).is_none() {
                self.out[i] = true;
                self.rules[i] = "skipped: its pair belongs to a component of another type";
            } else if !by_pair {
                self.lost_pair[i] = true;
            }
        }
    }

    /// Who has which BMC in the end, and which entries get none.
    pub(super) fn settle_bmcs(&mut self) {
        let mut owner: HashMap<Mac, usize> = HashMap::with_capacity(self.entries.len());
        for (i, entry) in self.entries.iter().enumerate() {
            let row = self.claims.row(i);
            if row.is_some() && self.row_of_bmc(i) == row && !self.out[i] {
                owner.insert(entry.mac, i);
            }
        }
        for (i, entry) in self.entries.iter().enumerate() {
            if self.out[i] {
                self.no_bmc[i] = true;
                continue;
            }
            let key = || entry.label();
            if let Some(kind) = self.earlier.mac(entry.mac) {
                self.no_bmc[i] = true;
                let why = format!("{} already has the BMC {}", kind.name(), entry.mac);
                self.warn("duplicate_mac_other_type", key(), why);
            } else if *owner.entry(entry.mac).or_insert(i) != i {
                self.no_bmc[i] = true;
                let why = format!("another entry has the same BMC {}", entry.mac);
                self.warn("duplicate_mac", key(), why);
            } else if let Some(bmc) = self.bmc_of[i].filter(|bmc| bmc.kind != BmcType::Host) {
                self.no_bmc[i] = true;
                self.errors.push(Diagnostic::new(
                    "bmc_mac_held_by_non_host",
                    self.input.kind,
                    key(),
                    format!(
                        "{} is a {} BMC; only Host BMCs are touched",
                        entry.mac,
                        bmc.kind.name()
                    ),
                ));
            }
            // Nothing would find its row again next time.
            let nameless = entry.pair().is_none() || self.lost_pair[i];
            if self.no_bmc[i] && nameless && self.claims.row(i).is_none() {
                self.out[i] = true;
                self.rules[i] = "skipped: neither a Host BMC nor a pair would recognise its row";
            }
        }
    }
}
