//! Tests of what the change log gives to deliveries.

use super::*;
use crate::report::diff::diff;
use crate::report::{Epoch, Report};
use crate::sense::fleet::FleetLimits;
use crate::sense::fleet::fixture::{Rig, envelope, report, second};
use proptest::collection::vec;
use proptest::prelude::*;

const PACKAGES: [&str; 9] = [
    "bash 1-1",
    "bash 2-1",
    "kernel 1-1",
    "kernel 2-1",
    "kernel 3-1",
    "kernel 1:1-1",
    "glibc 1-1",
    "glibc 0~rc-1",
    "gpg-pubkey 1-1",
];

/// A guest that had these reports, one a second, each as the generation that is given.
fn rig(reports: &[(u32, Report)]) -> Rig {
    let mut rig = Rig::new(FleetLimits::default());
    for (at, (generation, report)) in (1..).zip(reports) {
        rig.put(&envelope("a", *generation, at, report));
    }
    rig
}

fn name(generation: u32, report: &Report) -> ReportName {
    let envelope = envelope("a", generation, 1, report);
    (envelope.key, envelope.digest)
}

/// The path from the report that was accepted at this second.
fn path(rig: &Rig, from: (ReportName, u64), to: ReportName) -> Option<ChangePath> {
    let vm = "a".parse().unwrap();
    read(&rig.store, &vm, (from.0, second(from.1)), to).unwrap()
}

fn generations(path: &ChangePath) -> Vec<(u32, u32)> {
    let steps = path.steps().iter();
    steps
        .map(|step| (step.from.0.generation.get(), step.to.0.generation.get()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Also with kernels, of which several are installed, and whatever came and went between.
    #[test]
    fn from_any_report_to_any_later_one_it_is_their_difference(lists in vec(vec(0..PACKAGES.len(), 0..6), 2..7)) {
        let texts = |list: &Vec<usize>| list.iter().map(|n| PACKAGES[*n]).collect::<Vec<_>>();
        let reports: Vec<(u32, Report)> = (1..).zip(lists.iter().map(|list| report(&texts(list)))).collect();
        let rig = rig(&reports);
        for (first, (from, old)) in reports.iter().enumerate() {
            for (to, new) in &reports[first..] {
                let path = path(&rig, (name(*from, old), u64::from(*from)), name(*to, new)).unwrap();
                let (old, new) = (old.view(), new.view());
                let wanted = diff(&old.packages, &new.packages).map(Clone::clone);
                prop_assert_eq!(path.net(&new), wanted);
                let wanted: Vec<_> = (*from..*to).map(|generation| (generation, generation + 1)).collect();
                prop_assert_eq!(generations(&path), wanted);
                for (pair, step) in reports[first..].windows(2).zip(path.steps()) {
                    let [old, new] = [&pair[0].1, &pair[1].1].map(Report::view);
                    let wanted = diff(&old.packages, &new.packages).map(Clone::clone);
                    let mut changes = path.changes(step);
                    // The log has them in the order in which packages were first seen.
                    for list in [&mut changes.added, &mut changes.removed] {
                        list.sort_by(|a, b| (&a.name, a.arch, &a.version).cmp(&(&b.name, b.arch, &b.version)));
                    }
                    prop_assert_eq!(changes, wanted);
                }
            }
        }
    }
}

#[test]
fn a_guest_that_went_back_gives_the_steps_since_the_report_was_accepted() {
    let [one, two, three] = ["bash 1-1", "bash 2-1", "bash 3-1"].map(|text| report(&[text]));
    let lists = [(1, &one), (2, &two), (1, &one), (2, &three), (1, &one)];
    let rig = rig(&lists.map(|(generation, report)| (generation, report.clone())));
    let from = |accepted_at| {
        let path = path(&rig, (name(1, &one), accepted_at), name(1, &one));
        generations(&path.unwrap())
    };
    assert_eq!(from(1), [(1, 2), (2, 1), (1, 2), (2, 1)]);
    assert_eq!(from(4), [(1, 2), (2, 1)]);
    assert_eq!(from(5), []);
    // The clock was set back after it was seen.
    assert_eq!(from(0).len(), 4);
    // The same generation with another content.
    let from_two = path(&rig, (name(2, &two), 2), name(1, &one)).unwrap();
    assert_eq!(generations(&from_two), [(2, 1), (1, 2), (2, 1)]);
    // What is sent has been overtaken.
    let to_two = path(&rig, (name(1, &one), 1), name(2, &two)).unwrap();
    assert_eq!(generations(&to_two), [(1, 2)]);
}

#[test]
fn there_is_none_from_what_the_log_does_not_have() {
    let [one, two] = ["bash 1-1", "bash 2-1"].map(|text| report(&[text]));
    let mut rig = rig(&[(1, one.clone()), (2, two.clone())]);
    let (from, to) = (name(1, &one), name(2, &two));
    assert!(path(&rig, (from, 1), to).is_some());
    assert!(path(&rig, (name(1, &two), 1), to).is_none());
    assert!(path(&rig, (from, 1), name(3, &two)).is_none());
    let other = "b".parse().unwrap();
    let read_other = read(&rig.store, &other, (from, second(1)), to);
    assert!(read_other.unwrap().is_none());
    // Another epoch, and back.
    let epoch = |epoch, at| {
        let mut envelope = envelope("a", 3, at, &one);
        envelope.key.epoch = Epoch::new(epoch);
        envelope
    };
    let (new, back) = (epoch(9, 3), epoch(7, 4));
    rig.put(&new);
    assert!(path(&rig, (to, 2), (new.key, new.digest)).is_none());
    rig.put(&back);
    assert!(path(&rig, (to, 2), (back.key, back.digest)).is_none());
    // Another machine under the same name.
    rig.put(&envelope("a", 4, 5, &two));
    assert!(path(&rig, ((back.key, back.digest), 4), name(4, &two)).is_some());
    let mut machine = envelope("a", 5, 6, &one);
    machine.guest_id = Some(crate::report::GuestId::of_machine("other"));
    rig.put(&machine);
    let mut after = envelope("a", 6, 7, &two);
    after.guest_id = machine.guest_id.clone();
    rig.put(&after);
    assert!(path(&rig, (name(4, &two), 5), name(6, &two)).is_none());
    assert!(path(&rig, (name(5, &one), 6), name(6, &two)).is_some());
}

#[test]
fn it_reaches_back_as_far_as_rows_are_kept_and_no_more_than_its_bound() {
    let reports = ["bash 1-1", "bash 2-1"].map(|text| report(&[text]));
    let of = |generation: u32| &reports[generation as usize % 2];
    let most = u32::try_from(MOST_STEPS).unwrap();
    let all: Vec<_> = (1..=most + 2).map(|n| (n, of(n).clone())).collect();
    let last = name(most + 2, of(most + 2));
    let full = rig(&all);
    assert!(path(&full, (name(1, of(1)), 1), last).is_none());
    let longest = path(&full, (name(2, of(2)), 2), last).unwrap();
    assert_eq!(longest.steps().len(), MOST_STEPS);
    let mut little = Rig::new(FleetLimits {
        bytes: 500,
        ..FleetLimits::default()
    });
    for (at, (generation, report)) in (1..).zip(&all[..9]) {
        little.put(&envelope("a", *generation, at, report));
    }
    let last = name(9, of(9));
    assert!(path(&little, (name(2, of(2)), 2), last).is_none());
    assert!(path(&little, (name(8, of(8)), 8), last).is_some());
    // The row of a report is gone, and the one that leads on from it is the first of the log.
    let kept = u32::try_from(little.fleet.counts().changes).unwrap();
    let first = 9 - kept;
    let generations =
        |n| path(&little, (name(n, of(n)), n.into()), last).map(|it| it.steps().len());
    assert_eq!(generations(first), Some(usize::try_from(kept).unwrap()));
    assert_eq!(generations(first - 1), None);
}
