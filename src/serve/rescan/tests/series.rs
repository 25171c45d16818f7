//! Tests of series of transactions.

use super::*;

// As zypper does it: one transaction for each package.
#[test]
fn sixty_transactions_in_a_row_have_one_scan_after_the_first_and_one_after_the_last() {
    let mut guest = Guest::after_first_scan(PACE);
    guest.transaction(ms(50));
    let first = guest.now;
    for _ in 1..60 {
        guest.run_for(PACE.debounce - ms(1));
        guest.transaction(ms(50));
    }
    let last = guest.now;
    guest.run_for(ms(1000));
    let scanned = |at| (at, Trigger::Reactive, false);
    assert_eq!(
        guest.scans_since_first(),
        [
            scanned(first),
            scanned(last + (PACE.debounce - ms(1)) * PAUSES)
        ]
    );
}

#[test]
fn short_pauses_do_not_lengthen_the_wait_for_the_end_of_a_series() {
    let mut guest = Guest::after_first_scan(PACE);
    for _ in 0..10 {
        guest.transaction(ms(50));
        guest.run_for(PACE.debounce / PAUSES);
    }
    let last = guest.last_change.unwrap();
    guest.run_for(ms(1000));
    assert_eq!(
        guest.scans_since_first().last(),
        Some(&(last + PACE.debounce, Trigger::Reactive, false))
    );
}

#[test]
fn a_series_with_long_pauses_is_over_after_a_second() {
    let mut guest = Guest::after_first_scan(PACE);
    for pause in [290, 800, 900] {
        guest.transaction(ms(50));
        guest.run_for(ms(pause));
    }
    guest.transaction(ms(50));
    let last = guest.now;
    guest.run_for(ms(5000));
    assert_eq!(
        guest.scans_since_first().last(),
        Some(&(last + LONGEST_PAUSE, Trigger::Reactive, false))
    );
    // What comes later is no part of it.
    guest.transaction(ms(50));
    assert_eq!(guest.scans.last().unwrap().0, guest.now);
}

/// Transactions of a series: how long each takes, and the pause after it in parts of a thousand of the longest one that
/// does not end the series.
fn series() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((1u64..2000, 0u64..1000), 2..80)
}

proptest! {
    // The loss: three reports of one installation, since zypper took a moment longer for one of its packages.
    #[test]
    fn a_series_of_transactions_has_one_scan_after_the_first_and_one_after_the_last(series in series()) {
        let pace = Pace { max_delay: Duration::from_secs(3600), ..PACE };
        let mut guest = Guest::after_first_scan(pace);
        let (mut longest, mut ends) = (ms(0), Vec::new());
        for (n, (time, part)) in series.iter().enumerate() {
            guest.transaction(ms(*time));
            ends.push(guest.now);
            let limit = match n {
                0 => pace.debounce * QUIET_AFTER_SCAN,
                _ => (longest * PAUSES).min(LONGEST_PAUSE).max(pace.debounce),
            };
            let pause = limit * u32::try_from(*part).unwrap() / 1000;
            if n + 1 < series.len() {
                longest = longest.max(pause);
                guest.run_for(pause);
            }
        }
        guest.run_for(ms(2000));
        let scans = guest.scans_since_first();
        prop_assert_eq!(scans.len(), 2, "{:?}", scans);
        prop_assert_eq!(scans[0].0, ends[0]);
        let last = *ends.last().unwrap();
        prop_assert!(scans[1].0 >= last + pace.debounce && scans[1].0 <= last + LONGEST_PAUSE);
    }
}
