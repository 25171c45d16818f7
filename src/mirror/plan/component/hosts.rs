//! Which row has which Host BMCs.

use crate::inventory::{Bmc, BmcType, Mac};
use std::collections::HashMap;
use uuid::Uuid;

/// Host BMCs by row, in order of their addresses: `macs[ends[row - 1]..ends[row]]`.
pub(super) struct Hosts {
    macs: Vec<Mac>,
    ends: Vec<usize>,
}

impl Hosts {
    /// `bmcs` are in order of their addresses.
    pub(super) fn new(bmcs: &[Bmc], row_of_id: &HashMap<Uuid, usize>, rows: usize) -> Self {
        let hosts = bmcs.iter().filter(|bmc| bmc.kind == BmcType::Host);
        let mut by_row: Vec<(usize, Mac)> = hosts
            .filter_map(|bmc| Some((*row_of_id.get(&bmc.component_id)?, bmc.mac)))
            .collect();
        by_row.sort_unstable();
        let mut ends = vec![0; rows];
        for (row, _) in &by_row {
            ends[*row] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let macs = by_row.into_iter().map(|(_, mac)| mac).collect();
        Self { macs, ends }
    }

    /// Those of one row.
    pub(super) fn of(&self, row: usize) -> &[Mac] {
        let begin = row
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or(0);
        let end = self.ends.get(row).copied().unwrap_or(begin);
        self.macs.get(begin..end).unwrap_or_default()
    }
}
