//! The package list of the newest report, as far as the difference to the next one needs it: names,
//! architectures and versions, some 100 bytes a package.

use crate::report::Report;
use crate::report::diff::{ChangeSet, Installed, classify};
use std::cmp::Ordering;
use std::collections::BTreeSet;

/// Names of packages in a line of the log.
const IN_LOG: usize = 10;

/// Changes that are told to whoever asked for a scan.
const MOST_LINES: usize = 200;

/// A package, by what it is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InstalledName {
    name: Box<str>,
    arch: Box<str>,
    version: Box<str>,
}

impl Installed for InstalledName {
    fn name(&self) -> &str {
        &self.name
    }

    fn arch(&self) -> &str {
        &self.arch
    }

    fn version(&self) -> &str {
        &self.version
    }
}

/// The packages of a report, sorted.
#[derive(Debug, Default)]
pub(super) struct InstalledList(Vec<InstalledName>);

/// What differs between two reports, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportChanges {
    /// Number of packages that changed. 0: something else about the machine or its packages did.
    pub(super) count: usize,
    /// One line with at most [`IN_LOG`] names.
    pub(super) summary: String,
    /// At most [`MOST_LINES`] changes, one each.
    pub(super) lines: Vec<String>,
}

impl InstalledList {
    pub(super) fn of(report: &Report) -> Self {
        let packages = report.packages.iter().map(|package| InstalledName {
            name: package.name.as_str().into(),
            arch: package.arch.as_deref().unwrap_or_default().into(),
            version: package.evr.to_string().into(),
        });
        let mut packages: Vec<_> = packages.collect();
        packages.sort_unstable();
        Self(packages)
    }

    /// What is different in a later list.
    pub(super) fn changes_to(&self, later: &Self) -> ReportChanges {
        let changes = self.difference(later);
        let place = |package: &InstalledName| match &*package.arch {
            "" => package.name.to_string(),
            arch => format!("{}.{arch}", package.name),
        };
        let replaced = changes.upgraded.iter().chain(&changes.downgraded);
        let replaced = replaced.map(|pair| {
            format!(
                "{} {} -> {}",
                place(pair.from),
                pair.from.version,
                pair.to.version
            )
        });
        let added = changes.added.iter();
        let added = added.map(|package| format!("+{} {}", place(package), package.version));
        let removed = changes.removed.iter();
        let removed = removed.map(|package| format!("-{} {}", place(package), package.version));
        ReportChanges {
            count: changes.len(),
            summary: changes.summary(IN_LOG),
            lines: replaced
                .chain(added)
                .chain(removed)
                .take(MOST_LINES)
                .collect(),
        }
    }

    fn difference<'a>(&'a self, later: &'a Self) -> ChangeSet<&'a InstalledName> {
        let (mut removed, mut added, mut stayed) = (Vec::new(), Vec::new(), BTreeSet::new());
        let (mut old, mut new) = (self.0.iter().peekable(), later.0.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.cmp(new),
            };
            match order {
                Ordering::Less => removed.extend(old.next()),
                Ordering::Greater => added.extend(new.next()),
                Ordering::Equal => {
                    let both = (old.next(), new.next());
                    stayed.extend(both.0.map(|package| (&package.name, &package.arch)));
                }
            }
        }
        classify(removed, added, |package| {
            stayed.contains(&(&package.name, &package.arch))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Evr, Package};

    fn list(packages: &[(&str, &str)]) -> InstalledList {
        let package = |(name, evr): &(&str, &str)| Package {
            name: (*name).into(),
            evr: Evr::parse(evr),
            arch: Some("x86_64".into()),
            ..Package::default()
        };
        InstalledList::of(&Report {
            packages: packages.iter().map(package).collect(),
            ..Report::default()
        })
    }

    #[test]
    fn changes_are_told_by_name_and_a_kernel_beside_others_is_added() {
        let before = list(&[("kernel", "1-1"), ("openssl", "1:3.0.7-27"), ("vim", "9-1")]);
        let after = list(&[
            ("openssl", "1:3.0.7-28"),
            ("kernel", "1-1"),
            ("kernel", "2-1"),
        ]);
        let changes = before.changes_to(&after);
        assert_eq!(
            changes.lines,
            [
                "openssl.x86_64 1:3.0.7-27 -> 1:3.0.7-28",
                "+kernel.x86_64 2-1",
                "-vim.x86_64 9-1"
            ]
        );
        assert_eq!(
            changes.summary,
            "3 packages changed: openssl 1:3.0.7-27 -> 1:3.0.7-28, +kernel 2-1, -vim 9-1"
        );
        assert_eq!(after.changes_to(&after).count, 0);
    }

    #[test]
    fn the_log_names_at_most_ten_packages() {
        let names: Vec<_> = (0..300).map(|n| format!("p{n:03}")).collect();
        let packages: Vec<_> = names.iter().map(|name| (name.as_str(), "1-1")).collect();
        let changes = InstalledList::default().changes_to(&list(&packages));
        assert_eq!((changes.count, changes.lines.len()), (300, MOST_LINES));
        assert!(
            changes.summary.ends_with("+p009 1-1, 290 more"),
            "{}",
            changes.summary
        );
    }
}
