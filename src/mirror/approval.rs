//! An operator's word that deletes which the guard withheld may happen.
//!
//! It is given to the running service for one type, names how many deletes were withheld, and holds for the
//! next cycle and for exactly the rows that were withheld then: if Core lacks any other row by that time,
//! nothing is deleted, and the cycle says so.

use super::diagnostics::Summary;
use crate::inventory::Kind;
use std::collections::HashSet;
use uuid::Uuid;

/// Deletes that may happen once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Of which type.
    pub kind: Kind,
    /// The rows.
    pub rows: HashSet<Uuid>,
    /// User who gave it, as the kernel knows it.
    pub user: Option<u32>,
}

impl Approval {
    /// Of the `deletes` rows of `kind` that the last cycle withheld.
    ///
    /// # Errors
    /// The last cycle withheld another number of them: the operator saw something else.
    pub fn of(
        kind: &str,
        deletes: &str,
        user: Option<u32>,
        last: Option<&Summary>,
    ) -> Result<Self, String> {
        let known = Kind::ALL.into_iter();
        let kind = known
            .clone()
            .find(|known| known.name().eq_ignore_ascii_case(kind))
            .ok_or_else(|| {
                let names: Vec<&str> = known.map(Kind::name).collect();
                format!("{kind:?} is not one of {}", names.join(", "))
            })?;
        let last = last.ok_or("no cycle has ended yet")?;
        let withheld = last.withheld.iter().filter(|row| row.kind == kind.name());
        let rows: HashSet<Uuid> = withheld.filter_map(|row| row.id.parse().ok()).collect();
        if deletes.parse() != Ok(rows.len()) || rows.is_empty() {
            return Err(format!(
                "the last cycle withheld {} deletes of {kind}, not {deletes}: look again with `afferent status` or `afferent mirror plan`",
                rows.len()
            ));
        }
        Ok(Self { kind, rows, user })
    }

    /// Whether it is about exactly these rows.
    pub fn is_for(&self, kind: Kind, rows: impl ExactSizeIterator<Item = Uuid>) -> bool {
        self.kind == kind
            && rows.len() == self.rows.len()
            && rows.into_iter().all(|id| self.rows.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::diagnostics::Withheld;

    #[test]
    fn it_is_given_for_what_was_seen_and_holds_for_nothing_else() {
        let withheld = |kind: &str, n: u128| Withheld {
            kind: kind.into(),
            id: Uuid::from_u128(n).to_string(),
            key: String::new(),
        };
        let last = Summary {
            withheld: vec![
                withheld("Compute", 1),
                withheld("Compute", 2),
                withheld("rack", 3),
            ],
            ..Summary::default()
        };
        for (kind, deletes) in [
            ("Compute", "3"),
            ("Compute", "x"),
            ("NVSwitch", "0"),
            ("y", "2"),
        ] {
            assert!(
                Approval::of(kind, deletes, None, Some(&last)).is_err(),
                "{kind} {deletes}"
            );
        }
        assert!(Approval::of("Compute", "2", None, None).is_err());
        let approval = Approval::of("compute", "2", Some(7), Some(&last)).unwrap();
        let ids = |ids: &[u128]| ids.iter().map(|n| Uuid::from_u128(*n)).collect::<Vec<_>>();
        assert!(approval.is_for(Kind::Compute, ids(&[2, 1]).into_iter()));
        assert!(!approval.is_for(Kind::Compute, ids(&[1, 3]).into_iter()));
        assert!(!approval.is_for(Kind::Compute, ids(&[1]).into_iter()));
        assert!(!approval.is_for(Kind::Rack, ids(&[1, 2]).into_iter()));
    }
}
