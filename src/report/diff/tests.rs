//! Tests of the difference of package lists.

use super::*;
use crate::report::SourcePackage;
use proptest::prelude::*;
use std::borrow::Cow;

#[test]
fn one_version_in_place_of_another_is_an_upgrade_or_a_downgrade() {
    let (old, new) = (
        package("openssl", "1:3.0.7-27.el9"),
        package("openssl", "1:3.0.7-28.el9_4"),
    );
    let [old, new] = [[old], [new]];
    let changes = diff(&old, &new);
    assert_eq!(changes.upgraded, [pair(&old[0], &new[0])]);
    assert_eq!(changes.len(), 1);
    let back = diff(&new, &old);
    assert_eq!(back.downgraded, [pair(&new[0], &old[0])]);
    assert_eq!(changes.inverted(), back);
}

#[test]
fn of_several_versions_each_is_removed_or_added() {
    let kernel = |release: u32| package("kernel", &format!("5.14.0-{release}.el9"));
    for (old, new, added, removed) in [
        (vec![1, 2], vec![2, 3], vec![3], vec![1]),
        (vec![1], vec![1, 2], vec![2], vec![]),
        (vec![1, 2], vec![3], vec![3], vec![1, 2]),
        (vec![1], vec![2, 3], vec![2, 3], vec![1]),
        (vec![1, 1], vec![1], vec![], vec![1]),
    ] {
        let [old, new]: [Vec<_>; 2] = [old, new].map(|list| list.into_iter().map(kernel).collect());
        let changes = diff(&old, &new);
        let versions = |list: &[&PackageView<'_>]| -> Vec<String> {
            list.iter()
                .map(|package| package.version.to_string())
                .collect()
        };
        let wanted = |list: Vec<u32>| -> Vec<String> {
            list.into_iter()
                .map(|release| kernel(release).version.into_owned())
                .collect()
        };
        assert_eq!(versions(&changes.added), wanted(added));
        assert_eq!(versions(&changes.removed), wanted(removed));
        assert_eq!(changes.len(), changes.added.len() + changes.removed.len());
    }
}

#[test]
fn the_same_version_from_another_repository_is_changed_even_among_several() {
    let moved = PackageView {
        repo: Cow::Borrowed("other"),
        ..package("kernel", "1-1")
    };
    let old = [package("kernel", "1-1"), package("kernel", "2-1")];
    let new = [moved, package("kernel", "2-1"), package("kernel", "3-1")];
    let changes = diff(&old, &new);
    assert_eq!(changes.changed, [pair(&old[0], &new[0])]);
    assert_eq!(changes.added, [&new[2]]);
    assert_eq!(changes.len(), 2);
}

#[test]
fn another_architecture_is_another_package() {
    let old = [package("glibc", "2-1")];
    let new = [PackageView {
        arch: "i686",
        ..package("glibc", "3-1")
    }];
    let changes = diff(&old, &new);
    assert_eq!(
        (changes.added.as_slice(), changes.removed.as_slice()),
        (&[&new[0]][..], &[&old[0]][..])
    );
}

#[test]
fn imported_keys_are_no_packages() {
    let new = [package(KEY_PACKAGE, "1-1")];
    assert!(diff(&[], &new).is_empty());
    assert!(diff(&new, &[]).is_empty());
}

#[test]
fn a_change_of_another_list_is_not_applied() {
    let (old, new) = ([package("a", "1-1")], [package("a", "2-1")]);
    let changes = diff(&old, &new).map(Clone::clone);
    let error = apply(&changes, &[package("a", "3-1")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the list does not hold a 1-1, which the change removes"
    );
}

#[test]
fn a_summary_names_the_first_changes_and_counts_the_others() {
    let old = [
        package("a", "1-1"),
        package("b", "1-1"),
        package("d", "1-1"),
    ];
    let new = [
        package("a", "2-1"),
        package("c", "1-1"),
        package("d", "0-1"),
    ];
    let changes = diff(&old, &new);
    assert_eq!(
        changes.summary(10),
        "4 packages changed: a 1-1 -> 2-1, d 1-1 -> 0-1, +c 1-1, -b 1-1"
    );
    assert_eq!(
        changes.summary(1),
        "4 packages changed: a 1-1 -> 2-1, 3 more"
    );
    assert_eq!(diff(&old, &old).summary(3), "0 packages changed");
}

proptest! {
    #[test]
    fn applied_to_the_first_list_it_gives_the_second_and_inverted_the_first(a in list(), b in list()) {
        let changes = diff(&a, &b).map(Clone::clone);
        prop_assert_eq!(canonical(&apply(&changes, &a).unwrap()), canonical(&b));
        prop_assert_eq!(canonical(&apply(&changes.inverted(), &b).unwrap()), canonical(&a));
    }

    #[test]
    fn a_list_does_not_differ_from_itself_in_any_order(mut a in list()) {
        let before = a.clone();
        a.reverse();
        prop_assert!(diff(&before, &a).is_empty());
    }

    /// What `changes` of a document promise: a replacement is the only version before and after.
    #[test]
    fn a_replacement_of_versions_is_the_only_one_of_its_name(a in list(), b in list()) {
        let changes = diff(&a, &b);
        let of = |list: &[PackageView<'_>], package: &PackageView<'_>| {
            list.iter().filter(|p| (&p.name, p.arch) == (&package.name, package.arch)).count()
        };
        for replaced in changes.upgraded.iter().chain(&changes.downgraded) {
            prop_assert_eq!((of(&a, replaced.from), of(&b, replaced.to)), (1, 1));
        }
        for changed in &changes.changed {
            prop_assert_ne!(changed.from, changed.to);
        }
        for removed in &changes.removed {
            let same = |added: &&&PackageView<'_>| {
                (&added.name, added.arch, &added.version) == (&removed.name, removed.arch, &removed.version)
            };
            prop_assert!(changes.added.iter().find(same).is_none());
        }
    }
}

pub(in crate::report) fn package(name: &str, version: &str) -> PackageView<'static> {
    PackageView {
        name: Cow::Owned(name.to_owned()),
        version: Cow::Owned(version.to_owned()),
        arch: "x86_64",
        source: None,
        module: "",
        vendor: "",
        license: "",
        is_recorded: true,
        repo: Cow::Borrowed("base"),
    }
}

fn pair<'v, 'a>(
    from: &'v PackageView<'a>,
    to: &'v PackageView<'a>,
) -> Replacement<&'v PackageView<'a>> {
    Replacement { from, to }
}

/// Without keys, in one order.
fn canonical(list: &[PackageView<'_>]) -> Vec<String> {
    let kept = list.iter().filter(|package| package.name != KEY_PACKAGE);
    let mut list: Vec<String> = kept.map(|package| format!("{package:?}")).collect();
    list.sort();
    list
}

/// Few names, versions and other properties, so that they often meet.
pub(in crate::report) fn list() -> impl Strategy<Value = Vec<PackageView<'static>>> {
    let name = prop_oneof![Just("kernel"), Just("bash"), Just(KEY_PACKAGE)];
    let version = prop_oneof![
        Just("1-1"),
        Just("2-1"),
        Just("1_0-1"),
        Just("1.0-1"),
        Just("1:0-1")
    ];
    let arch = prop_oneof![3 => Just("x86_64"), 1 => Just("i686"), 1 => Just("")];
    let source = SourcePackage {
        name: "s",
        version: "1-1",
    };
    let source = prop_oneof![4 => Just(None), 1 => Just(Some(source))];
    let other = prop_oneof![5 => Just(""), 1 => Just("x")];
    let package =
        (name, version, arch, source, other).prop_map(|(name, version, arch, source, other)| {
            PackageView {
                arch,
                source,
                vendor: other,
                ..package(name, version)
            }
        });
    proptest::collection::vec(package, 0..7)
}
