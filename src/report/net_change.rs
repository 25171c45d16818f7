//! The net change of several changes of one package list, one after the other.
//!
//! What came and went again is no change, in whatever order the changes are added. What is left has the same
//! names as the difference of the first and the last list, since both are given by [`diff::classify`].

use super::PackageView;
use super::diff::{self, ChangeSet, Installed, KEY_PACKAGE};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

/// Changes, added up: how often each package came, less how often it went.
#[derive(Clone, Debug, Default)]
pub struct NetChange<P>(BTreeMap<P, i64>);

impl<P: Ord + Copy> NetChange<P> {
    /// Adds a change.
    pub fn add(&mut self, changes: &ChangeSet<P>) {
        let gone = changes.gone().map(|package| (package, -1));
        for (package, by) in gone.chain(changes.came().map(|package| (package, 1))) {
            *self.0.entry(*package).or_default() += by;
        }
    }

    /// What is gone, and what came; a package is there as often as it is more, or fewer, than before.
    pub fn gone_and_came(&self) -> (Vec<P>, Vec<P>) {
        let (mut gone, mut came) = (Vec::new(), Vec::new());
        for (package, count) in &self.0 {
            let to = match count.cmp(&0) {
                Ordering::Less => &mut gone,
                _ => &mut came,
            };
            let times = usize::try_from(count.unsigned_abs()).unwrap_or_default();
            to.extend(std::iter::repeat_n(*package, times));
        }
        (gone, came)
    }
}

/// Names the changes between packages that are gone and packages that came; `now` is the whole list after them.
pub fn classify<'p>(
    mut gone: Vec<PackageView<'p>>,
    mut came: Vec<PackageView<'p>>,
    now: &[PackageView<'_>],
) -> ChangeSet<PackageView<'p>> {
    gone.sort_by(diff::order);
    came.sort_by(diff::order);
    // Of each name and architecture of which something is gone: how many packages are there that did not come.
    let groups = gone
        .iter()
        .map(|package| ((package.name(), package.arch()), 0_i64));
    let mut stayed: HashMap<(&str, &str), i64> = groups.collect();
    let mut count = |name, arch, by| {
        if let Some(packages) = stayed.get_mut(&(name, arch)) {
            *packages += by;
        }
    };
    for package in &came {
        count(package.name(), package.arch(), -1);
    }
    for package in now.iter().filter(|package| package.name != KEY_PACKAGE) {
        count(package.name(), package.arch(), 1);
    }
    let stays: Vec<(String, String)> = stayed
        .into_iter()
        .filter(|(_, packages)| *packages > 0)
        .map(|((name, arch), _)| (name.to_owned(), arch.to_owned()))
        .collect();
    diff::classify(gone, came, |package| {
        let mut stays = stays.iter();
        stays.any(|(name, arch)| name == package.name() && arch == package.arch())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::diff::tests::{list, package};
    use crate::report::diff::{apply, diff};
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Numbers packages as the change log does: equal ones have one number.
    fn number<'p>(
        known: &mut Vec<PackageView<'p>>,
        packages: ChangeSet<&PackageView<'p>>,
    ) -> ChangeSet<u32> {
        packages.map(|package| {
            let at = known.iter().position(|held| held == package);
            let at = at.unwrap_or_else(|| {
                known.push(package.clone());
                known.len() - 1
            });
            u32::try_from(at).unwrap()
        })
    }

    fn net_of<'p>(lists: &[Vec<PackageView<'p>>]) -> ChangeSet<PackageView<'p>> {
        let (mut known, mut net) = (Vec::new(), NetChange::default());
        for pair in lists.windows(2) {
            net.add(&number(&mut known, diff(&pair[0], &pair[1])));
        }
        let (gone, came) = net.gone_and_came();
        let [gone, came] =
            [gone, came].map(|ids| ids.iter().map(|id| known[*id as usize].clone()).collect());
        classify(gone, came, lists.last().unwrap())
    }

    proptest! {
        #[test]
        fn it_is_the_difference_of_the_first_and_the_last_list(lists in vec(list(), 1..7)) {
            let (first, last) = (&lists[0], lists.last().unwrap());
            let net = net_of(&lists);
            prop_assert_eq!(&net, &diff(first, last).map(Clone::clone));
            let is_package = |package: &&PackageView<'_>| package.name != KEY_PACKAGE;
            let [mut first, mut last] = [first, last].map(|list| list.iter().filter(is_package).cloned().collect::<Vec<_>>());
            first = apply(&net, &first).unwrap();
            first.sort_by(diff::order);
            last.sort_by(diff::order);
            prop_assert_eq!(first, last);
        }
    }

    #[test]
    fn a_kernel_in_place_of_the_only_other_one_is_an_upgrade_in_however_many_steps() {
        let [one, two] = [package("kernel", "1-1"), package("kernel", "2-1")];
        let both = vec![one.clone(), two.clone()];
        let net = net_of(&[vec![one.clone()], both.clone(), vec![two.clone()]]);
        assert_eq!((net.upgraded.len(), net.len()), (1, 1));
        // It went and came back.
        let net = net_of(&[both.clone(), vec![one], both]);
        assert!(net.is_empty());
    }
}
