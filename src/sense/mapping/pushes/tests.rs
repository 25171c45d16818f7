//! Who is given the mapping, and when.

use super::*;
use crate::clock;
use proptest::prelude::*;

const MOST: usize = 8;

fn hash(n: u8) -> MappingHash {
    MappingHash::of(&[n])
}

fn vm(n: usize) -> VmId {
    format!("vm-{n}").parse().unwrap()
}

fn by_sensor(hash: Option<MappingHash>) -> AgentMapping {
    AgentMapping {
        path: MappingPath::Sensor,
        hash,
    }
}

fn own(hash: MappingHash) -> AgentMapping {
    AgentMapping {
        path: MappingPath::Own,
        hash: Some(hash),
    }
}

const TAKEN_NEW: PushOutcome = PushOutcome::Taken { is_new: true };

fn failed() -> PushOutcome {
    PushOutcome::Failed("no".into())
}

fn sync(pushes: &Pushes, n: usize) -> MappingSync {
    pushes.look(&vm(n)).unwrap().0
}

/// The next push, and when.
fn next_of(pushes: &mut Pushes, mut now: Instant) -> (Instant, VmId) {
    loop {
        match pushes.next(now) {
            NextPush::To(vm) => return (now, vm),
            NextPush::At(at) => now = at,
            NextPush::Idle => unreachable!("somebody lacks it"),
        }
    }
}

/// Loss prevented: a new mapping that all guests are given in the same second, each of which then scans.
#[test]
fn ten_thousand_guests_are_given_a_mapping_at_a_bounded_pace_and_a_few_at_a_time() {
    let start = clock::now();
    let mut pushes = Pushes::new(MOST, start);
    for n in 0..10_000 {
        assert!(!pushes.answered(&vm(n), by_sensor(None), start));
    }
    assert_eq!(
        pushes.next(start),
        NextPush::Idle,
        "there is nothing to give"
    );
    assert_eq!(sync(&pushes, 0), MappingSync::NothingToGive);
    pushes.set_current(hash(1), start);
    let mut now = start;
    let (mut begun, mut in_flight) = (Vec::new(), Vec::new());
    while begun.len() < 10_000 {
        match pushes.next(now) {
            NextPush::To(vm) => {
                begun.push(now - start);
                in_flight.push(vm);
                assert!(in_flight.len() <= MOST);
            }
            NextPush::At(at) => now = at,
            NextPush::Idle => {
                now += Duration::from_millis(30);
                for vm in in_flight.drain(..) {
                    pushes.finished(&vm, hash(1), TAKEN_NEW, now, 0.5);
                }
            }
        }
    }
    for window in begun.windows(61) {
        assert!(
            window[60] - window[0] >= Duration::from_millis(900),
            "{window:?}"
        );
    }
    assert!(
        *begun.last().unwrap() < Duration::from_secs(240),
        "{:?}",
        begun.last()
    );
    assert_eq!(sync(&pushes, 0), MappingSync::Taken);
    pushes.answered(&vm(0), by_sensor(Some(hash(1))), now);
    assert_eq!(sync(&pushes, 0), MappingSync::InSync);
}

/// Loss prevented: a guest that is broken, or waits for the end of a transaction, is sent two megabytes with
/// every answer.
#[test]
fn a_guest_that_does_not_take_it_or_does_not_show_it_is_tried_ever_more_rarely() {
    for (outcome, first, last) in [(failed(), 10, 1800), (TAKEN_NEW, 600, 4 * 3600)] {
        let mut now = clock::now();
        let mut pushes = Pushes::new(MOST, now);
        pushes.set_current(hash(1), now);
        let mut waits = Vec::new();
        pushes.answered(&vm(1), by_sensor(None), now);
        for _ in 0..12 {
            let (at, _) = next_of(&mut pushes, now);
            waits.push((at - now).as_secs());
            now = at;
            pushes.finished(&vm(1), hash(1), outcome.clone(), now, 1.0);
            // It goes on to answer with another one.
            pushes.answered(&vm(1), by_sensor(Some(hash(9))), now);
        }
        assert!(waits[0] == 0 && waits.is_sorted(), "{waits:?}");
        assert_eq!((waits[1], waits[11]), (first, last), "{waits:?}");
        // What shows that it has the mapping makes everything forgotten.
        pushes.answered(&vm(1), by_sensor(Some(hash(1))), now);
        assert_eq!(
            pushes.next(now + Duration::from_secs(86_400)),
            NextPush::Idle
        );
        pushes.answered(&vm(1), by_sensor(None), now);
        assert_eq!(next_of(&mut pushes, now), (now, vm(1)));
    }
}

#[test]
fn agents_with_a_mapping_of_their_own_are_given_none_and_told_of_once() {
    let now = clock::now();
    let mut pushes = Pushes::new(MOST, now);
    assert!(
        !pushes.answered(&vm(1), own(hash(2)), now),
        "nothing to compare it with"
    );
    assert_eq!(pushes.set_current(hash(1), now), 1);
    assert!(
        !pushes.answered(&vm(1), own(hash(2)), now),
        "the same as before"
    );
    assert!(pushes.answered(&vm(1), own(hash(3)), now));
    assert!(!pushes.answered(&vm(2), own(hash(1)), now));
    assert!(!pushes.answered(&vm(3), AgentMapping::default(), now));
    let found = [1, 2, 3].map(|n| sync(&pushes, n));
    assert_eq!(
        found,
        [
            MappingSync::UrlHashMismatch,
            MappingSync::Own,
            MappingSync::Unspecified
        ]
    );
    assert_eq!(pushes.next(now), NextPush::Idle);
    // One that says that a sensor brings it, and then that none does, is left alone for long.
    pushes.answered(&vm(4), by_sensor(None), now);
    assert_eq!(next_of(&mut pushes, now).1, vm(4));
    pushes.finished(&vm(4), hash(1), PushOutcome::NotManaged, now, 0.0);
    assert_eq!(sync(&pushes, 4), MappingSync::NotManaged);
    pushes.answered(&vm(4), by_sensor(None), now);
    let (at, _) = next_of(&mut pushes, now);
    assert_eq!(at - now, Duration::from_secs(1800));
}

#[test]
fn a_mapping_that_comes_during_a_push_is_pushed_after_it() {
    let now = clock::now();
    let mut pushes = Pushes::new(MOST, now);
    pushes.set_current(hash(1), now);
    pushes.answered(&vm(1), by_sensor(None), now);
    assert_eq!(next_of(&mut pushes, now).1, vm(1));
    pushes.set_current(hash(2), now);
    assert_eq!(pushes.next(now), NextPush::Idle, "it is in flight");
    pushes.finished(&vm(1), hash(1), TAKEN_NEW, now, 0.5);
    assert_eq!(next_of(&mut pushes, now).1, vm(1));
    // A guest that left meanwhile frees its place, and is nobody's when it comes back.
    pushes.forget(&vm(1));
    pushes.answered(&vm(1), by_sensor(Some(hash(2))), now);
    pushes.finished(&vm(1), hash(2), failed(), now, 0.5);
    assert_eq!(sync(&pushes, 1), MappingSync::InSync);
    assert_eq!((pushes.in_flight, pushes.next(now)), (0, NextPush::Idle));
}

#[test]
fn a_guest_that_needs_none_any_more_is_not_tried_again_after_a_failure() {
    let now = clock::now();
    let unspecified = AgentMapping {
        path: MappingPath::Unspecified,
        hash: None,
    };
    for answer in [unspecified, by_sensor(Some(hash(1)))] {
        let mut pushes = Pushes::new(MOST, now);
        pushes.set_current(hash(1), now);
        pushes.answered(&vm(1), by_sensor(None), now);
        assert_eq!(next_of(&mut pushes, now).1, vm(1));
        pushes.answered(&vm(1), answer, now);
        pushes.finished(&vm(1), hash(1), failed(), now, 0.5);
        assert_eq!(pushes.next(now), NextPush::Idle);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Mapping(u8),
    Answered(usize, u8, Option<u8>),
    Forget(usize),
    Next,
    Finished(usize, u8),
    Pass(u32),
}

fn op() -> impl Strategy<Value = Op> {
    let guest = 0usize..5;
    prop_oneof![
        1 => (0u8..3).prop_map(Op::Mapping),
        5 => (guest.clone(), 0u8..3, proptest::option::of(0u8..3)).prop_map(|(n, path, hash)| Op::Answered(n, path, hash)),
        1 => guest.prop_map(Op::Forget),
        5 => Just(Op::Next),
        4 => (0usize..3, 0u8..3).prop_map(|(which, outcome)| Op::Finished(which, outcome)),
        2 => (0u32..2000).prop_map(Op::Pass),
    ]
}

proptest! {
    /// Loss prevented: a guest that is never given the mapping, given it twice at once, or given one that it has.
    #[test]
    fn everybody_who_lacks_it_gets_it_and_nobody_else(ops in proptest::collection::vec(op(), 0..120)) {
        let mut now = clock::now();
        let mut pushes = Pushes::new(2, now);
        let mut in_flight: Vec<(VmId, MappingHash)> = Vec::new();
        let mut said: HashMap<VmId, AgentMapping> = HashMap::new();
        // Since it answered last.
        let mut took: HashMap<VmId, MappingHash> = HashMap::new();
        let mut current = None;
        for op in ops {
            match op {
                Op::Mapping(n) => {
                    current = Some(hash(n));
                    pushes.set_current(hash(n), now);
                }
                Op::Answered(n, path, has) => {
                    let path = [MappingPath::Unspecified, MappingPath::Sensor, MappingPath::Own][usize::from(path)];
                    let agent = AgentMapping { path, hash: has.map(hash) };
                    said.insert(vm(n), agent);
                    took.remove(&vm(n));
                    pushes.answered(&vm(n), agent, now);
                }
                Op::Forget(n) => {
                    took.remove(&vm(n));
                    said.remove(&vm(n));
                    pushes.forget(&vm(n));
                }
                Op::Next => {
                    if let NextPush::To(vm) = pushes.next(now) {
                        let hash = current.unwrap();
                        let has_other = took.get(&vm).is_some_and(|took| *took != hash);
                        prop_assert!(said[&vm].lacks(hash) || has_other, "{vm} does not lack it");
                        in_flight.push((vm, current.unwrap()));
                        prop_assert!(in_flight.len() <= 2);
                    }
                }
                Op::Finished(which, outcome) if !in_flight.is_empty() => {
                    let (vm, pushed) = in_flight.remove(which % in_flight.len());
                    let outcome = [TAKEN_NEW, failed(), PushOutcome::NotManaged][usize::from(outcome)].clone();
                    if outcome == TAKEN_NEW {
                        took.insert(vm.clone(), pushed);
                    }
                    pushes.finished(&vm, pushed, outcome, now, 0.7);
                }
                Op::Finished(..) => {}
                Op::Pass(ms) => now += Duration::from_millis(ms.into()),
            }
            prop_assert_eq!(pushes.in_flight, in_flight.len());
            let due = pushes.rows.values().filter(|row| matches!(row.standing, Standing::Due(_)));
            prop_assert_eq!(due.count(), pushes.due.len());
        }
        // Given time, and guests that take it and show it.
        let Some(current) = current else { return Ok(()) };
        for (vm, pushed) in in_flight.drain(..) {
            pushes.finished(&vm, pushed, TAKEN_NEW, now, 0.7);
        }
        for _ in 0..20 {
            now += Duration::from_secs(4 * 3600);
            for (vm, agent) in &said {
                pushes.answered(vm, *agent, now);
            }
            while let NextPush::To(vm) = pushes.next(now) {
                pushes.finished(&vm, current, TAKEN_NEW, now, 0.7);
                said.insert(vm, by_sensor(Some(current)));
            }
        }
        prop_assert!(said.values().all(|agent| !agent.lacks(current)));
    }
}
