//! Rows to write, and why: what planning, observing and loading have in common.

use crate::inventory::{Record, Row, RowKey};
use std::collections::BTreeMap;

/// Operations and their names in the audit log.
macro_rules! ops {
    ($($(#[$doc:meta])* $op:ident = $name:literal),+ $(,)?) => {
        /// Why a row is written, as the audit log says it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Op { $($(#[$doc])* $op),+ }

        impl Op {
            /// As the audit log has it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$op => $name),+ }
            }
        }
    };
}

ops! {
    /// A new rack or component.
    Insert = "insert",
    /// Mirrored columns differ.
    Update = "update",
    /// A rack gets another external_id.
    Adopt = "adopt",
    /// A tombstone lives again.
    Resurrect = "resurrect",
    /// A row becomes a tombstone.
    SoftDelete = "soft_delete",
    /// A pair goes to another row.
    PairRelease = "pair_release",
    /// A tombstone makes room for its name.
    TombstoneGc = "tombstone_gc",
    /// A new Host BMC.
    BmcInsert = "bmc_insert",
    /// The BMC answers elsewhere.
    BmcUpdate = "bmc_update",
    /// The component has another BMC now.
    BmcHardDelete = "bmc_hard_delete",
    /// The BMC belongs to another component now.
    BmcEvict = "bmc_evict",
    /// An observed column differs.
    Observe = "observe",
    /// A DPU was observed.
    DpuInsert = "dpu_insert",
    /// A DPU answers elsewhere or sits in another machine.
    DpuUpdate = "dpu_update",
    /// A DPU is no longer observed.
    DpuHardDelete = "dpu_hard_delete",
    /// A difference appeared.
    DriftInsert = "drift_insert",
    /// A difference went away.
    DriftDelete = "drift_delete",
    /// Put there by `load`.
    Load = "load",
    /// Not in the loaded file.
    LoadRemove = "load_remove",
}

/// What happens to one row, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which row.
    pub key: RowKey,
    /// As it is; `None`: it is not there.
    pub before: Option<Row>,
    /// As it will be; `None`: it goes for good.
    pub after: Option<Row>,
    /// What led to it, in order.
    pub ops: Vec<(Op, &'static str)>,
}

/// Collects changes by row.
#[derive(Debug, Default)]
pub struct Draft {
    changes: BTreeMap<RowKey, Change>,
}

impl Draft {
    /// The row as it will be, to be changed. A row that was removed comes back as it was.
    pub fn edit<R: Record>(&mut self, row: &R, op: Op, why: &'static str) -> &mut R {
        let change = self.changes.entry(row.key()).or_insert_with(|| Change {
            key: row.key(),
            before: Some(row.clone().into_row()),
            after: Some(row.clone().into_row()),
            ops: Vec::new(),
        });
        change.ops.push((op, why));
        let after = change.after.get_or_insert_with(|| row.clone().into_row());
        match R::of(after) {
            Some(row) => row,
            None => unreachable!("the key names the table"),
        }
    }

    /// Writes a row as a whole: a new one, or one that changes hands.
    pub fn put<R: Record>(
        &mut self,
        before: Option<&R>,
        after: R,
        ops: impl IntoIterator<Item = (Op, &'static str)>,
    ) {
        let key = after.key();
        let change = self.changes.entry(key).or_insert_with(|| Change {
            key,
            before: before.map(|before| before.clone().into_row()),
            after: None,
            ops: Vec::new(),
        });
        change.after = Some(after.into_row());
        change.ops.extend(ops);
    }

    /// Removes a row for good.
    pub fn remove<R: Record>(&mut self, before: &R, op: Op, why: &'static str) {
        let key = before.key();
        let change = self.changes.entry(key).or_insert_with(|| Change {
            key,
            before: Some(before.clone().into_row()),
            after: None,
            ops: Vec::new(),
        });
        change.after = None;
        change.ops.push((op, why));
    }

    /// The changes by key, without those that change nothing. `now` goes into the times of racks.
    pub fn finish(self, now: &str) -> Vec<Change> {
        let mut changes: Vec<Change> = self
            .changes
            .into_values()
            .filter(|change| change.before != change.after)
            .collect();
        for change in &mut changes {
            if let Some(Row::Rack(rack)) = &mut change.after {
                rack.updated_at = Some(now.to_owned());
                if change.before.is_none() {
                    rack.created_at = Some(now.to_owned());
                }
            }
        }
        changes
    }
}
