//! The difference of two package lists: what was added, removed, upgraded, downgraded, or changed
//! otherwise.
//!
//! Both lists are multisets. Packages of one name and architecture are compared by themselves:
//!
//! | Before and after | Called |
//! |---|---|
//! | the same version, but another module, repository, source, vendor or licence | changed |
//! | one version before, another one after, no third | upgraded or downgraded, in rpm's order |
//! | anything else (kernels, of which several are installed) | removed and added |
//!
//! `gpg-pubkey` is left out: an imported key is no installed software.
//! Applied to the first list the difference gives the second one, and inverted it leads back.

use super::{PackageView, evr};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Name of the entries that stand for imported keys.
pub const KEY_PACKAGE: &str = "gpg-pubkey";

/// What the comparison needs to see of a package.
pub trait Installed {
    /// Name without version.
    fn name(&self) -> &str;
    /// Architecture; empty when absent.
    fn arch(&self) -> &str;
    /// `[epoch:]version-release`.
    fn version(&self) -> &str;
}

impl Installed for PackageView<'_> {
    fn name(&self) -> &str {
        &self.name
    }

    fn arch(&self) -> &str {
        self.arch
    }

    fn version(&self) -> &str {
        &self.version
    }
}

impl<P: Installed> Installed for &P {
    fn name(&self) -> &str {
        P::name(self)
    }

    fn arch(&self) -> &str {
        P::arch(self)
    }

    fn version(&self) -> &str {
        P::version(self)
    }
}

/// A package in place of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement<P> {
    /// What was there before.
    pub from: P,
    /// What is there now.
    pub to: P,
}

/// The difference of two package lists, each part sorted by name and architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeSet<P> {
    /// New packages.
    pub added: Vec<P>,
    /// Packages that are gone.
    pub removed: Vec<P>,
    /// A higher version in place of a lower one.
    pub upgraded: Vec<Replacement<P>>,
    /// A lower version in place of a higher one.
    pub downgraded: Vec<Replacement<P>>,
    /// The same version, or one that rpm calls equal, with something else about it.
    pub changed: Vec<Replacement<P>>,
}

impl<P> Default for ChangeSet<P> {
    fn default() -> Self {
        Self {
            added: Vec::new(),
            removed: Vec::new(),
            upgraded: Vec::new(),
            downgraded: Vec::new(),
            changed: Vec::new(),
        }
    }
}

impl<P> ChangeSet<P> {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of changes; a replacement is one.
    pub fn len(&self) -> usize {
        let replaced = self.upgraded.len() + self.downgraded.len() + self.changed.len();
        self.added.len() + self.removed.len() + replaced
    }

    /// The way back.
    pub fn inverted(self) -> Self {
        let swap = |pairs: Vec<Replacement<P>>| {
            let swapped = pairs.into_iter().map(|pair| Replacement {
                from: pair.to,
                to: pair.from,
            });
            swapped.collect()
        };
        Self {
            added: self.removed,
            removed: self.added,
            upgraded: swap(self.downgraded),
            downgraded: swap(self.upgraded),
            changed: swap(self.changed),
        }
    }

    /// The same of something else about each package.
    pub fn map<Q>(self, mut to: impl FnMut(P) -> Q) -> ChangeSet<Q> {
        let mut pairs = |pairs: Vec<Replacement<P>>| {
            let mapped = pairs.into_iter().map(|pair| Replacement {
                from: to(pair.from),
                to: to(pair.to),
            });
            mapped.collect()
        };
        let (upgraded, downgraded) = (pairs(self.upgraded), pairs(self.downgraded));
        let changed = pairs(self.changed);
        ChangeSet {
            added: self.added.into_iter().map(&mut to).collect(),
            removed: self.removed.into_iter().map(&mut to).collect(),
            upgraded,
            downgraded,
            changed,
        }
    }

    fn replacements(&self) -> impl Iterator<Item = &Replacement<P>> {
        let pairs = self.upgraded.iter().chain(&self.downgraded);
        pairs.chain(&self.changed)
    }

    /// Packages that are no longer there as they were.
    pub fn gone(&self) -> impl Iterator<Item = &P> {
        let replaced = self.replacements().map(|pair| &pair.from);
        self.removed.iter().chain(replaced)
    }

    /// Packages that were not there as they are.
    pub fn came(&self) -> impl Iterator<Item = &P> {
        let replaced = self.replacements().map(|pair| &pair.to);
        self.added.iter().chain(replaced)
    }
}

impl<P: Installed> ChangeSet<P> {
    /// One line for a log: the number of changes and at most `most` of them by name, for example
    /// `2 packages changed: openssl 3.0.7-27 -> 3.0.7-28, +vim 9.1-1`. Names are as the guest has
    /// them: whoever prints the line makes it visible text.
    pub fn summary(&self, most: usize) -> String {
        let replaced = self.replacements().map(|pair| {
            let (from, to) = (pair.from.version(), pair.to.version());
            let name = pair.from.name();
            match from == to {
                true => format!("{name} {from} (not its version)"),
                false => format!("{name} {from} -> {to}"),
            }
        });
        let one =
            |sign: char, package: &P| format!("{sign}{} {}", package.name(), package.version());
        let added = self.added.iter().map(|package| one('+', package));
        let removed = self.removed.iter().map(|package| one('-', package));
        let all = self.len();
        let mut names: Vec<String> = replaced.chain(added).chain(removed).take(most).collect();
        if all > names.len() {
            names.push(format!("{} more", all - names.len()));
        }
        let plural = if all == 1 { "" } else { "s" };
        let colon = if names.is_empty() { "" } else { ": " };
        format!("{all} package{plural} changed{colon}{}", names.join(", "))
    }
}

/// The difference between two lists in any order.
pub fn diff<'v, 'a>(
    old: &'v [PackageView<'a>],
    new: &'v [PackageView<'a>],
) -> ChangeSet<&'v PackageView<'a>> {
    let (old, new) = (sorted(old), sorted(new));
    let (mut removed, mut added, mut stayed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut a, mut b) = (old.into_iter().peekable(), new.into_iter().peekable());
    loop {
        let ordering = match (a.peek(), b.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(x), Some(y)) => order(x, y),
        };
        match ordering {
            Ordering::Less => removed.extend(a.next()),
            Ordering::Greater => added.extend(b.next()),
            Ordering::Equal => {
                stayed.extend(a.next().map(|package| (&*package.name, package.arch)));
                b.next();
            }
        }
    }
    // In the order of `order`, which begins with name and architecture.
    let stays = |package: &&PackageView<'a>| {
        stayed
            .binary_search(&(package.name(), package.arch()))
            .is_ok()
    };
    classify(removed, added, stays)
}

/// Names the changes between packages that are gone and packages that came. `stays` says whether
/// another package of the same name and architecture was there before and still is.
pub fn classify<P: Installed + Clone>(
    removed: Vec<P>,
    added: Vec<P>,
    stays: impl Fn(&P) -> bool,
) -> ChangeSet<P> {
    let mut groups: BTreeMap<(String, String), (Vec<P>, Vec<P>)> = BTreeMap::new();
    let key = |package: &P| (package.name().to_owned(), package.arch().to_owned());
    for package in removed {
        groups.entry(key(&package)).or_default().0.push(package);
    }
    for package in added {
        groups.entry(key(&package)).or_default().1.push(package);
    }
    let mut changes = ChangeSet::default();
    for (gone, came) in groups.into_values() {
        classify_group(gone, came, &stays, &mut changes);
    }
    changes
}

/// The same within one name and architecture.
fn classify_group<P: Installed + Clone>(
    gone: Vec<P>,
    mut came: Vec<P>,
    stays: &impl Fn(&P) -> bool,
    changes: &mut ChangeSet<P>,
) {
    let (before, after) = (gone.len(), came.len());
    let mut left = Vec::new();
    for from in gone {
        match came.iter().position(|to| to.version() == from.version()) {
            Some(at) => {
                let to = came.remove(at);
                changes.changed.push(Replacement { from, to });
            }
            None => left.push(from),
        }
    }
    match (left.as_slice(), came.as_slice()) {
        ([from], [to]) if (before, after) == (1, 1) && !stays(from) => {
            let order = evr::compare_versions(from.version(), to.version());
            let pair = Replacement {
                from: from.clone(),
                to: to.clone(),
            };
            match order {
                Ordering::Less => changes.upgraded.push(pair),
                Ordering::Greater => changes.downgraded.push(pair),
                Ordering::Equal => changes.changed.push(pair),
            }
        }
        _ => {
            changes.removed.append(&mut left);
            changes.added.append(&mut came);
        }
    }
}

/// A change set is not one of this list: it removes a package that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the list does not hold {name} {version}, which the change removes")]
pub struct NotInstalled {
    /// Of the package that is missing.
    pub name: String,
    /// Of the package that is missing.
    pub version: String,
}

/// The list after the changes, in no particular order.
///
/// # Errors
/// The changes are those of another list.
pub fn apply<P: Installed + Clone + PartialEq>(
    changes: &ChangeSet<P>,
    list: &[P],
) -> Result<Vec<P>, NotInstalled> {
    let mut list = list.to_vec();
    for gone in changes.gone() {
        let at = list.iter().position(|package| package == gone);
        let at = at.ok_or_else(|| NotInstalled {
            name: gone.name().to_owned(),
            version: gone.version().to_owned(),
        })?;
        list.swap_remove(at);
    }
    list.extend(changes.came().cloned());
    Ok(list)
}

fn sorted<'v, 'a>(list: &'v [PackageView<'a>]) -> Vec<&'v PackageView<'a>> {
    let kept = list.iter().filter(|package| package.name != KEY_PACKAGE);
    let mut list: Vec<_> = kept.collect();
    list.sort_by(|a, b| order(a, b));
    list
}

/// By name and architecture first; equal only where everything is.
pub(super) fn order(a: &PackageView<'_>, b: &PackageView<'_>) -> Ordering {
    let source = |package: &PackageView<'_>| {
        let source = package.source.map(|source| (source.name, source.version));
        source.map(|(name, version)| (name.to_owned(), version.to_owned()))
    };
    (a.name.cmp(&b.name))
        .then_with(|| a.arch.cmp(b.arch))
        .then_with(|| a.version.cmp(&b.version))
        .then_with(|| a.module.cmp(b.module))
        .then_with(|| a.vendor.cmp(b.vendor))
        .then_with(|| a.license.cmp(b.license))
        .then_with(|| a.is_recorded.cmp(&b.is_recorded))
        .then_with(|| a.repo.cmp(&b.repo))
        .then_with(|| source(a).cmp(&source(b)))
}

#[cfg(test)]
pub(super) mod tests;
