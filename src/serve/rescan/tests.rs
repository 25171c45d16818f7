//! Tests of the decision when to scan again.

mod series;

use super::*;
use proptest::prelude::*;

const PACE: Pace = Pace {
    reactive: true,
    debounce: Duration::from_millis(100),
    max_delay: Duration::from_secs(30),
    burst: 20,
    refill: Duration::from_secs(10),
    transaction_timeout: Duration::from_secs(30 * 60),
    interval: Duration::from_secs(4 * 3600),
};

#[test]
fn the_end_of_a_transaction_after_quiet_is_scanned_at_once() {
    let mut guest = Guest::after_first_scan(PACE);
    for _ in 0..3 {
        guest.scans.truncate(guest.first);
        guest.transaction(ms(50));
        let end = guest.now;
        guest.run_for(ms(1000));
        assert_eq!(
            guest.scans_since_first(),
            [(end, Trigger::Reactive, false)],
            "once, and no second time"
        );
    }
}

#[test]
fn a_write_without_a_transaction_is_scanned_after_the_debounce_time() {
    let mut guest = Guest::after_first_scan(PACE);
    guest.touch(false);
    guest.run_for(PACE.debounce / 2);
    guest.touch(false);
    let last = guest.now;
    guest.run_for(ms(1000));
    assert_eq!(
        guest.scans_since_first(),
        [(last + PACE.debounce, Trigger::Reactive, false)]
    );
}

// A refused installation closes the lock file of a transaction that goes on.
#[test]
fn a_lock_file_that_somebody_else_closed_is_no_end_of_a_transaction() {
    let mut guest = Guest::after_first_scan(PACE);
    guest.begin();
    guest.run_for(ms(50));
    guest.touch(true);
    guest.run_for(ms(500));
    assert_eq!(guest.scans_since_first(), []);
    guest.end();
    assert_eq!(
        guest.scans_since_first(),
        [(guest.now, Trigger::Reactive, false)]
    );
}

// The loss: half a processor, for as long as somebody writes to the database without a pause.
#[test]
fn looks_at_the_lock_are_bounded_however_many_events_there_are() {
    for lock_closed in [false, true] {
        let mut guest = Guest::after_first_scan(PACE);
        let looks = guest.looks;
        for _ in 0..10_000 {
            guest.touch(lock_closed);
            guest.run_for(ms(1));
        }
        let looks = guest.looks - looks;
        assert!(looks <= 510, "{looks} looks in 10 s");
    }
}

#[test]
fn a_long_transaction_is_waited_for_and_scanned_once() {
    let mut guest = Guest::after_first_scan(PACE);
    guest.transaction(Duration::from_secs(90));
    let end = guest.now;
    guest.run_for(Duration::from_secs(60));
    assert_eq!(guest.scans_since_first(), [(end, Trigger::Reactive, false)]);
}

#[test]
fn a_hung_transaction_is_scanned_as_one_after_its_timeout() {
    let mut guest = Guest::after_first_scan(PACE);
    guest.begin();
    guest.run_for(PACE.transaction_timeout + ms(500));
    let scans = guest.scans_since_first();
    assert_eq!(scans.len(), 1);
    assert!(scans[0].2, "marked as taken in the middle");
    guest.end();
    guest.run_for(ms(500));
    assert!(
        !guest.scans.last().unwrap().2,
        "the state after it is reported too"
    );
}

#[test]
fn back_to_back_transactions_do_not_postpone_a_scan_for_ever() {
    let mut guest = Guest::after_first_scan(PACE);
    let start = guest.now;
    while guest.now < start + Duration::from_secs(70) {
        guest.transaction(ms(60));
        guest.run_for(ms(15));
    }
    let scans = guest.scans_since_first();
    assert!(scans.len() >= 3, "{scans:?}");
    for pair in scans.windows(2) {
        assert!(pair[1].0 <= pair[0].0 + PACE.max_delay + ms(200));
    }
}

#[test]
fn an_idle_guest_looks_at_nothing_between_scheduled_scans() {
    let mut guest = Guest::after_first_scan(PACE);
    let looks = guest.looks;
    guest.run_for(PACE.interval - ms(1000));
    assert_eq!((guest.looks, guest.scans_since_first().len()), (looks, 0));
    guest.run_for(ms(2000));
    assert_eq!(guest.scans.last().unwrap().1, Trigger::Scheduled);
}

#[test]
fn failed_scans_are_repeated_later_and_later_but_within_the_interval() {
    let start = crate::clock::now();
    let mut rescan = Rescan::new(PACE, start);
    let (mut now, mut gaps) = (start, Vec::new());
    for _ in 0..7 {
        let begun = step_to_scan(&mut rescan, &mut now);
        gaps.push(begun.as_secs());
        rescan.ended(now, Ended::ScanFailed);
    }
    assert_eq!(gaps, [0, 120, 240, 480, 960, 1800, 1800]);
}

#[test]
fn a_reactive_scan_that_could_not_be_kept_is_repeated_as_one() {
    let mut guest = Guest::after_first_scan(PACE);
    guest.end_scans_with = Ended::StoreFailed;
    guest.transaction(ms(50));
    guest.run_for(Duration::from_secs(20));
    assert!(guest.scans_since_first().len() > 2);
    assert!(
        guest
            .scans_since_first()
            .iter()
            .all(|s| s.1 == Trigger::Reactive)
    );
}

// The loss: a mapping that came while a scan ran, and that the report has four hours later.
#[test]
fn a_scan_wanted_during_a_scan_begins_after_it() {
    let mut now = crate::clock::now();
    let mut rescan = Rescan::new(PACE, now);
    step_to_scan(&mut rescan, &mut now);
    rescan.request_scan(now);
    assert_eq!(rescan.next(now), Next::WaitForScan);
    rescan.ended(now, Ended::Done);
    assert_eq!(step_to_scan(&mut rescan, &mut now), Duration::ZERO);
    rescan.ended(now, Ended::Done);
    assert_eq!(step_to_scan(&mut rescan, &mut now), PACE.interval);
}

// The loss: a processor that is busy with one guest for as long as something touches its database.
#[test]
fn a_database_that_changes_during_every_scan_is_scanned_ever_more_rarely() {
    let mut now = crate::clock::now();
    let mut rescan = Rescan::new(PACE, now);
    let mut gaps = Vec::new();
    for n in 0..14 {
        gaps.push(step_to_scan(&mut rescan, &mut now).as_millis());
        assert_eq!(rescan.changing(), n);
        rescan.ended(now, Ended::Changing);
    }
    assert_eq!(gaps[..4], [0, 100, 200, 400]);
    assert_eq!(gaps[12..], [60_000, 60_000]);
    // It still changes, and then not any more.
    for _ in 0..50 {
        rescan.touched(now, false);
        match rescan.next(now) {
            Next::LookAtLock => rescan.lock_seen(now, None),
            next => assert!(matches!(next, Next::WaitUntil(at) if at > now)),
        }
        now += ms(500);
    }
    assert_eq!(step_to_scan(&mut rescan, &mut now), CALM - ms(500));
    rescan.ended(now, Ended::Done);
    assert_eq!(rescan.changing(), 0);
    rescan.touched(now, false);
    assert_eq!(step_to_scan(&mut rescan, &mut now), PACE.debounce);
}

#[test]
fn without_reactive_scans_changes_cause_none() {
    let mut guest = Guest::after_first_scan(Pace {
        reactive: false,
        ..PACE
    });
    guest.transaction(ms(50));
    guest.run_for(Duration::from_secs(3600));
    assert_eq!(guest.scans_since_first(), []);
}

#[test]
fn other_knobs_hold_from_now_on() {
    let mut guest = Guest::after_first_scan(PACE);
    let quick = Pace {
        debounce: ms(1),
        interval: Duration::from_secs(300),
        ..PACE
    };
    guest.rescan.set_pace(quick, guest.now);
    guest.touch(false);
    let end = guest.now;
    guest.run_for(ms(1000));
    assert_eq!(
        guest.scans_since_first(),
        [(end + ms(1), Trigger::Reactive, false)]
    );
    guest.rescan.set_pace(
        Pace {
            reactive: false,
            ..quick
        },
        guest.now,
    );
    guest.transaction(ms(50));
    guest.run_for(Duration::from_secs(301));
    assert_eq!(guest.scans.last().unwrap().1, Trigger::Scheduled);
    assert_eq!(guest.scans_since_first().len(), 2);
}

#[derive(Clone, Debug)]
enum Event {
    Idle(u64),
    Transaction(u64),
    TouchWithoutLock,
    Overtake,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0u64..20_000).prop_map(Event::Idle),
        (0u64..200).prop_map(Event::Idle),
        (1u64..5_000).prop_map(Event::Transaction),
        Just(Event::TouchWithoutLock),
        Just(Event::Overtake),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_rules_hold(events in proptest::collection::vec(event(), 1..80), burst in 1u32..5) {
        let pace = Pace { burst, max_delay: ms(2000), refill: Duration::from_secs(3), ..PACE };
        let mut guest = Guest::after_first_scan(pace);
        for event in events {
            match event {
                Event::Idle(time) => guest.run_for(ms(time)),
                Event::Transaction(time) => guest.transaction(ms(time)),
                Event::TouchWithoutLock => guest.touch(false),
                Event::Overtake => guest.overtake_next = true,
            }
        }
        let last_change = guest.last_change;
        guest.run_for(pace.refill + pace.max_delay + ms(500));
        // Every change is followed by a scan that began after it.
        if let Some(change) = last_change {
            prop_assert!(guest.scans.last().unwrap().0 >= change);
        }
        // No scan of a state in the middle of a transaction that has not timed out.
        prop_assert!(guest.scans.iter().all(|scan| !scan.2));
        // Reactive scans keep to the bucket over any stretch of time.
        let reactive: Vec<Instant> = guest.scans.iter().filter(|s| s.1 == Trigger::Reactive && !s.3).map(|s| s.0).collect();
        for (i, first) in reactive.iter().enumerate() {
            for (j, last) in reactive.iter().enumerate().skip(i) {
                let granted = f64::from(burst) + (*last - *first).as_secs_f64() / pace.refill.as_secs_f64();
                prop_assert!((j - i + 1) as f64 <= granted + 1.0);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_burst_has_at_most_one_scan_before_it_is_over(events in proptest::collection::vec(event(), 1..80)) {
        let pace = Pace { burst: 1000, max_delay: Duration::from_secs(3600), ..PACE };
        let mut guest = Guest::after_first_scan(pace);
        for event in events {
            match event {
                Event::Idle(time) => guest.run_for(ms(time)),
                Event::Transaction(time) => guest.transaction(ms(time)),
                Event::TouchWithoutLock => guest.touch(false),
                Event::Overtake => {}
            }
        }
        guest.run_for(ms(500));
        let touches = guest.touches.clone();
        let ends = (1..=touches.len()).filter(|n| touches.get(*n).is_none_or(|next| *next >= touches[n - 1] + pace.debounce));
        let mut begin = 0;
        for end in ends {
            let next = touches.get(end).copied();
            let during = guest.scans[guest.first..].iter().map(|scan| scan.0)
                .filter(|at| *at >= touches[begin] && next.is_none_or(|next| *at < next));
            let (early, late): (Vec<_>, Vec<_>) = during.partition(|at| *at < touches[end - 1] + pace.debounce);
            prop_assert!(early.len() <= 1 && late.len() <= 1, "{early:?} {late:?}");
            begin = end;
        }
    }
}

/// A guest in virtual time: transactions take the lock, scans take 5 ms.
struct Guest {
    rescan: Rescan,
    now: Instant,
    lock: Option<i32>,
    next_pid: i32,
    scans: Vec<(Instant, Trigger, bool, bool)>,
    first: usize,
    looks: usize,
    last_change: Option<Instant>,
    touches: Vec<Instant>,
    overtake_next: bool,
    end_scans_with: Ended,
}

impl Guest {
    fn after_first_scan(pace: Pace) -> Self {
        let now = crate::clock::now();
        let mut guest = Self {
            rescan: Rescan::new(pace, now),
            now,
            lock: None,
            next_pid: 100,
            scans: Vec::new(),
            first: 0,
            looks: 0,
            last_change: None,
            touches: Vec::new(),
            overtake_next: false,
            end_scans_with: Ended::Done,
        };
        guest.run_for(ms(100));
        guest.first = guest.scans.len();
        assert_eq!(guest.first, 1);
        guest
    }

    fn scans_since_first(&self) -> Vec<(Instant, Trigger, bool)> {
        self.scans[self.first..]
            .iter()
            .map(|s| (s.0, s.1, s.2))
            .collect()
    }

    fn begin(&mut self) {
        self.next_pid += 1;
        self.lock = Some(self.next_pid);
        self.touch(false);
    }

    fn end(&mut self) {
        self.lock = None;
        self.touch(true);
    }

    fn transaction(&mut self, time: Duration) {
        self.begin();
        self.run_for(time / 2);
        self.touch(false);
        self.run_for(time / 2);
        self.end();
    }

    fn touch(&mut self, lock_closed: bool) {
        self.last_change = Some(self.now);
        self.touches.push(self.now);
        self.rescan.touched(self.now, lock_closed);
        self.run_for(Duration::ZERO);
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        loop {
            steps += 1;
            assert!(steps < 100_000, "it spins at {:?}", self.rescan);
            match self.rescan.next(self.now) {
                Next::LookAtLock => {
                    self.looks += 1;
                    self.rescan.lock_seen(self.now, self.lock);
                }
                Next::Scan {
                    trigger,
                    mid_transaction,
                } => {
                    let repeated = self.rescan.due <= self.now && trigger == Trigger::Reactive;
                    let locked = self.lock.is_some();
                    assert!(!locked || mid_transaction, "scanned under a lock");
                    if std::mem::take(&mut self.overtake_next) {
                        self.rescan.ended(self.now, Ended::Overtaken);
                        continue;
                    }
                    self.scans
                        .push((self.now, trigger, mid_transaction, repeated));
                    self.rescan.ended(self.now, self.end_scans_with);
                }
                Next::WaitForScan => unreachable!("scans end at once here"),
                Next::WaitUntil(at) if at <= end => {
                    assert!(at > self.now, "a wait that is over");
                    self.now = at;
                }
                Next::WaitUntil(_) => break,
            }
        }
        self.now = end;
    }
}

fn step_to_scan(rescan: &mut Rescan, now: &mut Instant) -> Duration {
    let start = *now;
    loop {
        match rescan.next(*now) {
            Next::LookAtLock => rescan.lock_seen(*now, None),
            Next::WaitUntil(at) => *now = at,
            Next::Scan { .. } => return *now - start,
            Next::WaitForScan => unreachable!(),
        }
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}
