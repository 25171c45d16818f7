//! When each guest is asked, and for what.

use super::*;
use crate::clock;
use proptest::prelude::*;

const UNCHANGED_AT_ONCE: PullOutcome = PullOutcome::Unchanged {
    waits: true,
    hasty: true,
};

/// Found with real machines: one that rebooted within a second of its last report was not asked
/// again for five minutes.
#[test]
fn a_wait_that_ends_at_once_is_tried_again_within_a_second_and_ever_later_after_that() {
    let poll = Duration::from_secs(300);
    let timing = Timing::new(poll, Duration::from_secs(4 * 3600));
    let mut schedule = Schedule::new(timing);
    let vm: VmId = "web-1".parse().unwrap();
    let mut now = crate::clock::now();
    schedule.add(vm.clone(), Memory::default(), now, 0.0);
    let mut delays = Vec::new();
    for _ in 0..12 {
        now = now.max(schedule.next_due().unwrap());
        schedule.take_due(now, 0.0).unwrap();
        schedule.finished(&vm, UNCHANGED_AT_ONCE, now, 1.0);
        delays.push(schedule.next_due().unwrap() - now);
    }
    assert!(delays[0] <= Duration::from_secs(1), "{delays:?}");
    assert!(delays.is_sorted(), "{delays:?}");
    assert_eq!(delays[11], poll);
}

// The loss: the first package of a new machine, reported minutes after its installation.
#[test]
fn a_guest_without_packages_is_in_a_wait_for_the_first_one() {
    let now = clock::now();
    let mut schedule = schedule();
    let vm: VmId = "new".parse().unwrap();
    schedule.add(vm.clone(), Memory::default(), now, 0.0);
    let (waits, hasty) = (true, false);
    let mut now = now;
    for turn in 0..20 {
        now = now.max(schedule.next_due().unwrap());
        let (_, ask) = schedule.take_due(now, 0.0).unwrap();
        assert_eq!(matches!(ask, Ask::Wait(_)), turn > 0, "{turn}: {ask:?}");
        schedule.finished(&vm, PullOutcome::NoPackages { waits, hasty }, now, 0.0);
        assert!(schedule.next_due().unwrap() <= now + Duration::from_millis(1001));
    }
    // An agent that answers waits at once is asked ever more rarely, within half a minute.
    let mut delays = Vec::new();
    for _ in 0..10 {
        now = now.max(schedule.next_due().unwrap());
        schedule.take_due(now, 0.0).unwrap();
        schedule.finished(
            &vm,
            PullOutcome::NoPackages { waits, hasty: true },
            now,
            1.0,
        );
        delays.push(schedule.next_due().unwrap() - now);
    }
    assert!(
        delays.is_sorted() && delays[9] == Duration::from_secs(30),
        "{delays:?}"
    );
}

/// Loss prevented: a refused report stays refused for as long as a wait or a poll interval.
#[test]
fn a_full_report_is_asked_for_at_once_whether_the_guest_is_polled_or_in_a_wait() {
    let now = clock::now();
    for waits in [false, true] {
        let mut schedule = schedule();
        let vm: VmId = "a".parse().unwrap();
        schedule.add(vm.clone(), Memory::default(), now, 0.0);
        schedule.take_due(now, 0.0).unwrap();
        schedule.finished(&vm, PullOutcome::Report { waits }, now, 1.0);
        let mut later = now + Duration::from_secs(2);
        if waits {
            let (_, ask) = schedule.take_due(later, 0.0).unwrap();
            assert!(matches!(ask, Ask::Wait(_)));
            later += Duration::from_secs(2);
            schedule.interrupted(&vm, later);
        }
        schedule.want_full_now(&vm, later);
        let (_, ask) = schedule.take_due(later, 0.0).unwrap();
        assert_eq!(ask, Ask::Full, "waits: {waits}");
    }
    // One that fails is left its backoff.
    let mut schedule = schedule();
    let vm: VmId = "a".parse().unwrap();
    schedule.add(vm.clone(), Memory::default(), now, 0.0);
    schedule.take_due(now, 0.0).unwrap();
    schedule.finished(&vm, PullOutcome::Failed, now, 1.0);
    let due = schedule.next_due();
    schedule.want_full_now(&vm, now);
    assert_eq!(schedule.next_due(), due);
}

#[test]
fn a_guest_that_holds_waits_is_always_in_one_after_it_was_met() {
    let mut now = clock::now();
    let mut schedule = schedule();
    schedule.add(vm(1), known_to_wait(), now, 0.5);
    assert_eq!(schedule.take_due(now, 0.5), Some((vm(1), Ask::Get)));
    schedule.finished(&vm(1), unchanged(true), now, 0.5);
    for _ in 0..10 {
        let (_, ask) = schedule.take_due(now, 0.5).unwrap();
        let Ask::Wait(time) = ask else {
            unreachable!("{ask:?}")
        };
        assert!(time <= Duration::from_secs(45) && time > Duration::from_secs(40));
        now += time;
        schedule.finished(&vm(1), unchanged(true), now, 0.5);
    }
}

#[test]
fn a_full_report_is_asked_for_when_its_time_has_come_also_after_a_restart() {
    let now = clock::now();
    for (hours, ask) in [(0, Ask::Get), (3, Ask::Get), (4, Ask::Full), (9, Ask::Full)] {
        let mut schedule = schedule();
        let memory = Memory {
            knows_report: true,
            waits: true,
            full_age: Duration::from_secs(hours * 3600),
        };
        schedule.add(vm(1), memory, now, 0.0);
        assert_eq!(schedule.take_due(now, 0.0), Some((vm(1), ask)), "{hours}");
    }
}

/// Otherwise it would be up to a wait late: half as late again as it may be, for the shortest interval.
#[test]
fn a_guest_that_waits_is_asked_for_a_full_report_when_its_time_has_come() {
    let start = clock::now();
    let refresh = Duration::from_secs(60);
    let mut schedule = Schedule::new(Timing::new(Duration::from_secs(300), refresh));
    schedule.add(vm(1), Memory::default(), start, 0.0);
    let report = PullOutcome::Report { waits: true };
    let (mut now, mut asked) = (start, Vec::new());
    for _ in 0..100 {
        let jitter = fastrand::f64();
        let (_, ask) = schedule.take_due(now, jitter).unwrap();
        asked.push((now - start, ask));
        let outcome = match ask {
            Ask::Wait(time) => {
                now += time;
                unchanged(true)
            }
            Ask::Full | Ask::Get => report,
        };
        schedule.finished(&vm(1), outcome, now, jitter);
        now = now.max(schedule.next_due().unwrap());
    }
    let fulls: Vec<Duration> = asked
        .iter()
        .filter(|(_, ask)| *ask == Ask::Full)
        .map(|(at, _)| *at)
        .collect();
    assert!(fulls.len() > 20, "{fulls:?}");
    for pair in fulls.windows(2) {
        let between = pair[1] - pair[0];
        let late = SHORTEST_WAIT + Duration::from_secs(1);
        assert!(
            between >= refresh.mul_f64(0.9) && between <= refresh + late,
            "{between:?}"
        );
    }
}

/// Otherwise it is asked twice a second for ever, of which once in vain.
#[test]
fn a_guest_that_claims_to_wait_and_cannot_is_polled() {
    let mut now = clock::now();
    let mut schedule = schedule();
    schedule.add(vm(1), known_to_wait(), now, 0.5);
    let mut asked = Vec::new();
    while now < schedule.plans[&vm(1)].full_due {
        let (_, ask) = schedule.take_due(now, 0.5).unwrap();
        asked.push(ask);
        let outcome = match ask {
            Ask::Wait(_) => PullOutcome::NoWaits,
            Ask::Get | Ask::Full => unchanged(true),
        };
        schedule.finished(&vm(1), outcome, now, 0.5);
        now = now.max(schedule.next_due().unwrap());
    }
    let waits = asked.iter().filter(|ask| matches!(ask, Ask::Wait(_)));
    assert_eq!(waits.count(), 1);
    assert!(asked.len() < 60, "{} times in four hours", asked.len());
}

#[test]
fn guests_that_came_together_are_not_polled_together() {
    let now = clock::now();
    let mut schedule = schedule();
    for n in 0..1000 {
        schedule.add(vm(n), Memory::default(), now, 0.5);
    }
    while let Some((vm, _)) = schedule.take_due(now, 0.5) {
        let report = PullOutcome::Report { waits: false };
        schedule.finished(&vm, report, now, fastrand::f64());
    }
    let half = now + Duration::from_secs(150);
    let early = schedule.due.iter().filter(|(at, _)| *at < half).count();
    assert!((300..700).contains(&early), "{early}");
}

proptest! {
    /// Loss prevented: a guest that is never asked again, asked twice at once, or asked without
    /// end.
    #[test]
    fn every_guest_has_exactly_one_turn_and_none_is_asked_without_end(
        steps in proptest::collection::vec((0usize..6, 0u64..100, 0.01..1.0f64), 1..300)
    ) {
        let start = clock::now();
        let mut now = start;
        let mut schedule = schedule();
        for n in 0..5 {
            schedule.add(vm(n), Memory::default(), now, 0.5);
        }
        let mut asked: HashMap<VmId, u32> = HashMap::new();
        for (outcome, millis, jitter) in steps {
            now += Duration::from_millis(millis);
            while let Some((vm, _)) = schedule.take_due(now, jitter) {
                let count = asked.entry(vm.clone()).or_default();
                *count += 1;
                let passed = u32::try_from((now - start).as_secs()).unwrap();
                prop_assert!(*count <= 11 + passed, "asked {count} times in {passed} s");
                prop_assert!(schedule.look(&vm).unwrap().1.is_none());
                let outcome = [
                    PullOutcome::Report { waits: true },
                    unchanged(true),
                    PullOutcome::NoWaits,
                    PullOutcome::Busy,
                    PullOutcome::Contradictory,
                    PullOutcome::Failed,
                ][outcome];
                schedule.finished(&vm, outcome, now, jitter);
                // An answer that comes twice changes nothing.
                let at = schedule.look(&vm);
                schedule.finished(&vm, PullOutcome::Failed, now, jitter);
                prop_assert_eq!(schedule.look(&vm), at);
            }
            prop_assert_eq!(schedule.due.len(), 5);
        }
    }
}

fn schedule() -> Schedule {
    let (poll, refresh) = (Duration::from_secs(300), Duration::from_secs(4 * 3600));
    Schedule::new(Timing::new(poll, refresh))
}

fn known_to_wait() -> Memory {
    Memory {
        knows_report: true,
        waits: true,
        full_age: Duration::ZERO,
    }
}

fn unchanged(waits: bool) -> PullOutcome {
    PullOutcome::Unchanged {
        waits,
        hasty: false,
    }
}

fn vm(n: u16) -> VmId {
    format!("vm-{n}").parse().unwrap()
}
