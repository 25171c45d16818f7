//! Kinds that arrive as whole snapshots: what is stored becomes what the snapshot says, omitted parts included.
//! Pure.

use super::change::{Draft, Op};
use super::diagnostics::TypeCounters;
use crate::inventory::Record;
use std::borrow::Cow;

/// Replaces rows by what a complete snapshot makes of them. A borrowed row is stored, an owned one is new; `change`
/// makes it what the snapshot says, which also clears what the snapshot omits. A row that stays as it is is not
/// written; `why` goes into the audit log.
pub(super) fn replace_snapshot<'r, K: Copy, R: Record + 'r>(
    draft: &mut Draft,
    counters: &mut TypeCounters,
    why: &'static str,
    rows: impl IntoIterator<Item = (K, Cow<'r, R>)>,
    change: impl Fn(K, &mut R),
) {
    for (key, row) in rows {
        let mut after = row.clone().into_owned();
        change(key, &mut after);
        let Cow::Borrowed(stored) = row else {
            counters.inserted += 1;
            draft.put(None, after, vec![(Op::Insert, why)]);
            continue;
        };
        if after == *stored {
            continue;
        }
        let op = match (stored.is_live(), after.is_live()) {
            (true, false) => {
                counters.soft_deleted += 1;
                Op::SoftDelete
            }
            (was_live, _) => {
                counters.updated += 1;
                counters.resurrected += u64::from(!was_live);
                if was_live { Op::Observe } else { Op::Resurrect }
            }
        };
        // Another snapshot may have changed other columns of the same row.
        change(key, draft.edit(stored, op, why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Domain;
    use uuid::Uuid;

    /// The loss: a kind that writes in every cycle, or keeps what its snapshot no longer has.
    #[test]
    fn rows_become_what_the_snapshot_says_and_are_written_only_then() {
        let domain = |n: u128| Domain::new(Uuid::from_u128(n), n.to_string(), "then");
        let stored = [domain(1), domain(2), domain(3)];
        let mut dead = domain(4);
        dead.deleted_at = Some("then".into());
        let (mut draft, mut counters) = (Draft::default(), TypeCounters::default());
        let rows = stored.iter().chain([&dead]).enumerate();
        let rows = rows.map(|(n, row)| (n, Cow::Borrowed(row)));
        let rows = rows.chain([(4, Cow::Owned(domain(5)))]);
        replace_snapshot(
            &mut draft,
            &mut counters,
            "a test",
            rows,
            |n, row| match n {
                0 => row.name = Some("one".into()),
                1 => row.bury("now"),
                3 => row.deleted_at = None,
                _ => {}
            },
        );
        let changes = draft.finish("now");
        let ops: Vec<Op> = changes.iter().map(|change| change.ops[0].0).collect();
        assert_eq!(
            ops,
            [Op::Observe, Op::SoftDelete, Op::Resurrect, Op::Insert]
        );
        let expected = TypeCounters {
            inserted: 1,
            updated: 2,
            resurrected: 1,
            soft_deleted: 1,
            ..TypeCounters::default()
        };
        assert_eq!(counters, expected);
    }
}
