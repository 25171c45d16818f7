//! Rows to write, and why: what planning, observing and loading have in common.

use crate::inventory::{Record, Row, RowKey};
use std::borrow::Cow;
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

/// What led to a change, in order, each with its reason. Most changes have one of few lists.
pub type Ops = Cow<'static, [(Op, &'static str)]>;

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
    pub ops: Ops,
}

/// Collects changes by row.
#[derive(Debug, Default)]
pub struct Draft {
    /// Rows that were edited or removed.
    edited: BTreeMap<RowKey, Change>,
    /// Rows that were put, none of which is among the edited ones, and each of which was put once: there are as many
    /// as entries in a first load.
    put: Vec<Change>,
}

impl Draft {
    /// The row as it will be, to be changed. A row that was removed comes back as it was.
    pub fn edit<R: Record>(&mut self, row: &R, op: Op, why: &'static str) -> &mut R {
        let change = self.edited(row);
        change.ops.to_mut().push((op, why));
        let after = change.after.get_or_insert_with(|| row.clone().into_row());
        match R::of(after) {
            Some(row) => row,
            None => unreachable!("the key names the table"),
        }
    }

    /// Writes a row as a whole, a new one or one that changes hands. Nobody puts it a second time.
    pub fn put<R: Record>(&mut self, before: Option<&R>, after: R, ops: impl Into<Ops>) {
        let (key, ops) = (after.key(), ops.into());
        if let Some(change) = self.edited.get_mut(&key) {
            change.after = Some(after.into_row());
            change.ops.to_mut().extend_from_slice(&ops);
            return;
        }
        self.put.push(Change {
            key,
            before: before.map(|before| before.clone().into_row()),
            after: Some(after.into_row()),
            ops,
        });
    }

    /// Removes a row for good.
    pub fn remove<R: Record>(&mut self, before: &R, op: Op, why: &'static str) {
        let change = self.edited(before);
        change.after = None;
        change.ops.to_mut().push((op, why));
    }

    /// The change of a row, which begins as it is.
    fn edited<R: Record>(&mut self, row: &R) -> &mut Change {
        self.edited.entry(row.key()).or_insert_with(|| Change {
            key: row.key(),
            before: Some(row.clone().into_row()),
            after: Some(row.clone().into_row()),
            ops: Ops::default(),
        })
    }

    /// The changes by key, without those that change nothing. `now` goes into the times of racks.
    pub fn finish(self, now: &str) -> Vec<Change> {
        let mut changes = self.put;
        changes.extend(self.edited.into_values());
        changes.retain(|change| change.before != change.after);
        changes.sort_by_cached_key(|change| change.key);
        debug_assert!(
            changes.is_sorted_by(|a, b| a.key < b.key),
            "one row, put twice"
        );
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
