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

/// A schedule in which the reports of so many guests were refused by the disk, the last time at the given moment.
fn refused_by_the_disk(guests: u16) -> (Schedule, Instant) {
    let mut schedule = schedule();
    let mut now = clock::now();
    for n in 0..guests {
        schedule.add(vm(n), Memory::default(), now, 0.0);
    }
    for _ in 0..12 {
        for _ in 0..guests {
            now = now.max(schedule.next_due().unwrap());
            let (vm, _) = schedule.take_due(now, 0.0).unwrap();
            schedule.finished(&vm, PullOutcome::NotStored, now, 1.0);
        }
    }
    (schedule, now)
}

/// Loss prevented: a disk that has room again, and guests that are not asked for half an hour.
#[test]
fn a_full_disk_is_tried_twice_a_minute_by_few_guests_and_ten_times_a_second_by_many() {
    for (guests, longest) in [(1, 30), (100, 30), (2_000, 200), (5_000, 300)] {
        let (schedule, now) = refused_by_the_disk(guests);
        let longest = Duration::from_secs(longest);
        let last = schedule.due.last().unwrap().0;
        assert!(last - now <= longest, "{guests}: {:?}", last - now);
        let soon = |(at, _): &&(Instant, VmId)| *at <= now + longest / 2;
        let tried = schedule.due.iter().filter(soon).count();
        assert!(tried as u64 <= 10 * longest.as_secs(), "{guests}: {tried}");
    }
}

/// The same, and a storm of reports for which there is no room.
#[test]
fn every_report_that_is_stored_brings_two_guests_forward_whose_reports_were_not() {
    for room in [0, 1, 2, 30, 1_000] {
        let (mut schedule, now) = refused_by_the_disk(1_000);
        let now = now.max(schedule.next_due().unwrap());
        let due = schedule.due.iter().filter(|(at, _)| *at <= now).count();
        let mut asked = 0;
        while let Some((vm, _)) = schedule.take_due(now, 0.0) {
            let outcome = match asked < room {
                true => PullOutcome::Report { waits: false },
                false => PullOutcome::NotStored,
            };
            schedule.finished(&vm, outcome, now, 1.0);
            asked += 1;
        }
        let most = (due + 2 * room).min(1_000);
        assert!(asked <= most, "{asked} asked with room for {room}");
        assert!(room < 1_000 || asked == 1_000, "only {asked} asked");
    }
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
    // Unless somebody asks for it; that it failed is not forgotten.
    schedule.ask_although_it_failed(&vm, now);
    assert_eq!(schedule.take_due(now, 0.0), Some((vm.clone(), Ask::Full)));
    schedule.finished(&vm, PullOutcome::Failed, now, 1.0);
    assert!(schedule.next_due() > due);
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
    for (hours, ask) in [
        (0, Ask::Get),
        (3, Ask::Get),
        (4, Ask::Refresh),
        (9, Ask::Refresh),
    ] {
        let mut schedule = schedule();
        let memory = Memory {
            knows_report: true,
            waits: true,
            full_age: Duration::from_secs(hours * 3600),
            is_restored: true,
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
            Ask::Full | Ask::Refresh | Ask::Get => report,
        };
        schedule.finished(&vm(1), outcome, now, jitter);
        now = now.max(schedule.next_due().unwrap());
    }
    let fulls: Vec<Duration> = asked
        .iter()
        .filter(|(_, ask)| ask.is_full())
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
            Ask::Get | Ask::Full | Ask::Refresh => unchanged(true),
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
    let later = now + Duration::from_secs(5);
    for _ in 0..1000 {
        let (vm, _) = schedule.take_due(later, 0.5).unwrap();
        let report = PullOutcome::Report { waits: false };
        schedule.finished(&vm, report, now, fastrand::f64());
    }
    let half = now + Duration::from_secs(150);
    let early = schedule.due.iter().filter(|(at, _)| *at < half).count();
    assert!((300..700).contains(&early), "{early}");
}

/// Loss prevented: a restart of the sensor hides the changes of ten thousand guests for minutes, or asks all of
/// them in the same second.
#[test]
fn after_a_restart_waits_are_held_again_at_200_a_second() {
    let now = clock::now();
    let mut schedule = schedule();
    let memory = Memory {
        is_restored: true,
        ..known_to_wait()
    };
    for n in 0..10_000 {
        schedule.add(vm(n), memory, now, fastrand::f64());
    }
    let asked: Vec<Duration> = schedule.due.iter().map(|(at, _)| *at - now).collect();
    let last = *asked.last().unwrap();
    assert!(last <= Duration::from_secs(10_000 / 200), "{last:?}");
    for second in 0..50 {
        let second = Duration::from_secs(second)..Duration::from_secs(second + 1);
        let count = asked.iter().filter(|at| second.contains(*at)).count();
        assert!(count <= 220, "{count} in {second:?}");
    }
    // One that comes later, by itself, is asked at once.
    let later = now + Duration::from_secs(60);
    schedule.add(vm(10_000), Memory::default(), later, 0.5);
    assert!(schedule.due.contains(&(later, vm(10_000))));
}

/// Loss prevented: agents that are polled, all asked in the first second of a sensor and in step after that.
#[test]
fn the_first_wave_of_polls_is_spread_over_a_third_of_the_interval_and_20_minutes_at_most() {
    let now = clock::now();
    let minute = Duration::from_secs(60);
    for (poll, wave) in [(15 * minute, 5 * minute), (240 * minute, 20 * minute)] {
        let mut schedule = Schedule::new(Timing::new(poll, 480 * minute));
        let memory = Memory {
            waits: false,
            is_restored: true,
            ..known_to_wait()
        };
        for n in 0..1000 {
            schedule.add(vm(n), memory, now, fastrand::f64());
        }
        let asked = |schedule: &Schedule, share: f64, of: Duration| {
            let until = now + of.mul_f64(share);
            schedule.due.iter().filter(|(at, _)| *at <= until).count()
        };
        assert_eq!(asked(&schedule, 1.0, wave), 1000);
        let half = asked(&schedule, 0.5, wave);
        assert!((300..700).contains(&half), "{half}");
        // Then each at the interval, spread over all of it.
        let end = now + wave;
        while let Some((vm, _)) = schedule.take_due(end, 0.5) {
            schedule.finished(&vm, unchanged(false), end, fastrand::f64());
        }
        let second = asked(&schedule, 1.0, wave + poll.mul_f64(0.5));
        assert!((300..700).contains(&second), "{second}");
        // One of which nothing was known is met like any other.
        schedule.add(vm(1001), Memory::default(), now, 0.9);
        assert!(schedule.due.contains(&(now, vm(1001))));
    }
}

#[test]
fn without_a_spread_everybody_is_asked_at_once_and_polled_at_the_interval() {
    let now = clock::now();
    let mut schedule = schedule();
    schedule.set_timing(schedule.timing.clone().with_spread(false));
    for n in 0..1000 {
        let memory = Memory {
            waits: n % 2 == 0,
            is_restored: true,
            ..known_to_wait()
        };
        schedule.add(vm(n), memory, now, fastrand::f64());
    }
    assert!(schedule.due.iter().all(|(at, _)| *at == now));
    let (vm, _) = schedule.take_due(now, 0.5).unwrap();
    schedule.finished(&vm, unchanged(false), now, 0.0);
    let (_, next) = schedule.look(&vm).unwrap();
    assert_eq!(next, Some(now + Duration::from_secs(300)));
}

/// Loss prevented: content that Central refuses is sent at every poll, or never again.
#[test]
fn a_guest_whose_content_is_refused_is_polled_and_its_refresh_is_due_when_it_was() {
    let start = clock::now();
    let mut schedule = schedule();
    schedule.add(vm(1), Memory::default(), start, 0.5);
    let (mut now, mut asked) = (start, Vec::new());
    while now < start + Duration::from_secs(5 * 3600) {
        let (_, ask) = schedule.take_due(now, 0.5).unwrap();
        asked.push(ask);
        let outcome = match asked.len() {
            1 => PullOutcome::Report { waits: false },
            _ if ask == Ask::Refresh => break,
            _ => PullOutcome::Refused { waits: false },
        };
        schedule.finished(&vm(1), outcome, now, 0.5);
        now = now.max(schedule.next_due().unwrap());
    }
    let (last, polls) = asked.split_last().unwrap();
    assert_eq!(*last, Ask::Refresh);
    assert!(polls[1..].iter().all(|ask| *ask == Ask::Get));
    let late = now - start;
    let hours = Duration::from_secs(3600).mul_f64(3.8);
    assert!(
        late >= hours && late <= hours + Duration::from_secs(300),
        "{late:?}"
    );
    // What was asked for once more is not asked for without end.
    schedule.finished(&vm(1), PullOutcome::Refused { waits: false }, now, 0.5);
    schedule.want_full_now(&vm(1), now);
    now += Duration::from_secs(10);
    assert_eq!(
        schedule.take_due(now, 0.5).map(|(_, ask)| ask.is_full()),
        Some(true)
    );
    schedule.finished(&vm(1), PullOutcome::Refused { waits: false }, now, 0.5);
    assert!(schedule.next_due().unwrap() > now + Duration::from_secs(60));
}

proptest! {
    /// Loss prevented: a guest that is never asked again, asked twice at once, or asked without
    /// end.
    #[test]
    fn every_guest_has_exactly_one_turn_and_none_is_asked_without_end(
        steps in proptest::collection::vec((0usize..7, 0u64..100, 0.01..1.0f64), 1..300)
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
                    PullOutcome::Refused { waits: true },
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
        is_restored: false,
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
