//! The policy of the pending queue in virtual time: two days of ten thousand guests in seconds.
//!
//! `cargo bench --bench queue_policy`. The code that decides is the sensor's own; each row only
//! changes its numbers. Central takes 0.3 reports a second and 200 at once; every guest refreshes
//! every 4 h and changes about monthly; there are two patch waves of 300 guests in ten minutes,
//! 5 guests that change every 20 s, and 50 that Central always refuses.

#![allow(clippy::print_stdout, reason = "the table is the result")]

use afferent::clock;
use afferent::report::{Epoch, Generation, Report, ReportKey, Trigger, VmId};
use afferent::sense::deliver::policy::{Policy, Rate};
use afferent::sense::deliver::queue::{Next, Queue};
use afferent::sense::deliver::slot::{Class, Nack};
use afferent::store::pending_table::Known;
use std::collections::HashMap;
use std::time::{Duration, Instant};

const GUESTS: u32 = 10_000;
const NOISY: u32 = 5;
const REFUSED: u32 = 50;
const LASTS: Duration = Duration::from_secs(48 * 3600);
const REFRESH: f64 = 4.0 * 3600.0;
const MONTH: f64 = 30.0 * 24.0 * 3600.0;
const SLA: Duration = Duration::from_secs(300);
const SEED: u64 = 7;

/// A report that a guest makes, and when.
struct Event {
    at: Duration,
    guest: u32,
    reactive: bool,
}

#[derive(Default)]
struct Result {
    waits: Vec<Duration>,
    never: usize,
    sent: u64,
    sent_noisy: u64,
}

fn main() {
    let events = events();
    let central = Rate {
        per_second: 0.3,
        burst: 200.0,
        reserve: 0.0,
    };
    let unlimited = Policy {
        rate: Some(central),
        priorities: 1_000_000,
        ..Policy::default()
    };
    let rows = [
        ("one FIFO", unlimited.clone(), false),
        (
            "strict: reactive first",
            Policy {
                weight: u32::MAX,
                ..unlimited.clone()
            },
            true,
        ),
        ("weighted 4:1", unlimited.clone(), true),
        (
            "+ budget per guest",
            Policy {
                priorities: 3,
                ..unlimited.clone()
            },
            true,
        ),
        (
            "+ budget + reserve 150",
            Policy {
                priorities: 3,
                rate: Some(Rate {
                    reserve: 150.0,
                    ..central
                }),
                ..unlimited
            },
            true,
        ),
    ];
    println!("{} reports of {GUESTS} guests in 48 h", events.len());
    println!(
        "{:<24} {:>16} {:>11} {:>16} {:>12}",
        "policy", "reactive in SLA", "p99 wait s", "never delivered", "noisy share"
    );
    for (name, policy, classes) in rows {
        let mut result = simulate(&events, policy, classes);
        result.waits.sort();
        let in_time = result.waits.iter().filter(|w| **w <= SLA).count();
        let percent = 100.0 * in_time as f64 / result.waits.len() as f64;
        let p99 = result.waits.get(result.waits.len() * 99 / 100);
        println!(
            "{name:<24} {percent:>14.1} % {:>11} {:>16} {:>10.1} %",
            p99.map_or(0, Duration::as_secs),
            result.never,
            100.0 * result.sent_noisy as f64 / result.sent as f64,
        );
    }
}

/// Everything that happens, in order.
fn events() -> Vec<Event> {
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut events = Vec::new();
    for guest in 0..GUESTS {
        let mut add = |seconds: f64, reactive| {
            events.push(Event {
                at: Duration::from_secs_f64(seconds),
                guest,
                reactive,
            });
        };
        let mut refresh = random.f64() * REFRESH;
        while refresh < LASTS.as_secs_f64() {
            add(refresh, false);
            refresh += REFRESH;
        }
        let mut change = -MONTH * (1.0 - random.f64()).ln();
        while change < LASTS.as_secs_f64() {
            add(change, true);
            change -= MONTH * (1.0 - random.f64()).ln();
        }
        if guest < NOISY {
            let mut change = random.f64() * 20.0;
            while change < LASTS.as_secs_f64() {
                add(change, true);
                change += 20.0;
            }
        }
    }
    for hour in [10.0, 30.0] {
        for guest in random.choose_multiple(NOISY..GUESTS, 300) {
            events.push(Event {
                at: Duration::from_secs_f64(hour * 3600.0 + random.f64() * 600.0),
                guest,
                reactive: true,
            });
        }
    }
    events.sort_by_key(|event| event.at);
    events
}

fn simulate(events: &[Event], policy: Policy, classes: bool) -> Result {
    let start = clock::now();
    let mut queue = Queue::new(policy, start);
    let vms: Vec<VmId> = (0..GUESTS)
        .map(|n| format!("vm-{n}").parse().expect("a VM id"))
        .collect();
    let numbers: HashMap<VmId, u32> = vms.iter().cloned().zip(0..).collect();
    let mut generations = vec![0; vms.len()];
    // The oldest change of each guest that Central does not have.
    let mut changed: HashMap<u32, Instant> = HashMap::new();
    let mut delivered = vec![false; vms.len()];
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut result = Result::default();
    let mut now = start;
    let mut events = events.iter().peekable();
    while now < start + LASTS {
        while let Some(event) = events.next_if(|event| start + event.at <= now) {
            let vm = &vms[event.guest as usize];
            let generation = &mut generations[event.guest as usize];
            *generation += u32::from(event.reactive || *generation == 0);
            if event.reactive {
                changed.entry(event.guest).or_insert(now);
            }
            let (trigger, wanted) = match event.reactive {
                true if classes => (Trigger::Reactive, Class::Reactive),
                true => (Trigger::Reactive, Class::Routine),
                false => (Trigger::Scheduled, Class::Routine),
            };
            let arrival = queue.admit(vm, known(*generation), trigger, wanted, now);
            queue.enqueue(vm, arrival);
        }
        let mut wake = None;
        loop {
            match queue.select(now) {
                Next::Send(vm, report) => {
                    let guest = numbers[&vm];
                    let is_refused = (NOISY..NOISY + REFUSED).contains(&guest);
                    result.sent += 1;
                    result.sent_noisy += u64::from(guest < NOISY);
                    if let Some(since) = changed.remove(&guest)
                        && guest >= NOISY
                    {
                        result.waits.push(now - since);
                    }
                    delivered[guest as usize] = true;
                    if is_refused {
                        queue.nack(&vm, report, Nack::Refused, now, random.f64());
                    } else {
                        queue.ack(&vm, report);
                    }
                }
                Next::At(at) => {
                    wake = Some(at);
                    break;
                }
                Next::Idle => break,
            }
        }
        let event = events.peek().map(|event| start + event.at);
        now = match (event, wake) {
            (Some(event), Some(wake)) => event.min(wake),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => break,
        };
    }
    result.never = delivered.iter().filter(|delivered| !**delivered).count();
    // What still waits when the two days are over counts as late as it is.
    let end = start + LASTS;
    let late = changed.iter().filter(|(guest, _)| **guest >= NOISY);
    let late = late.map(|(_, since)| end.saturating_duration_since(*since));
    result.waits.extend(late.filter(|wait| *wait > SLA));
    result
}

fn known(generation: u32) -> Known {
    Known {
        key: ReportKey {
            epoch: Epoch::new(1),
            generation: Generation::new(generation).expect("not 0"),
        },
        digest: Report::default().digest(),
    }
}
