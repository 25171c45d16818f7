//! A plan: everything that will happen in a run, drawn from its seed before the run begins, so that steps can
//! be left out without the others becoming other ones.

use crate::central::Mode;
use crate::guest::{AgentKind, Behaviour};
use std::time::Duration;

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Number of guests.
    pub(crate) guests: usize,
    /// Number of sensors.
    pub(crate) sensors: usize,
    /// Faults and changes, one after the other.
    pub(crate) steps: usize,
    /// In which they happen.
    pub(crate) time: Duration,
}

/// One change of the world.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// When, after the step before it.
    pub(crate) pause: Duration,
    /// For what the step itself draws, such as which bytes survive a crash.
    pub(crate) seed: u64,
    pub(crate) event: Event,
}

/// How a transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything is installed, and the lock released.
    Commits,
    /// Its process is killed: what was installed so far stays.
    Dies,
    /// It holds its lock for a quarter of an hour, then commits.
    Hangs,
}

/// How a roster becomes unreadable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadRoster {
    /// No bytes.
    Empty,
    /// The first half of it.
    HalfWritten,
    /// A directory in its place.
    Directory,
    /// No UTF-8.
    NoText,
}

/// What happens. Guests and sensors are numbers.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// A package is installed, upgraded or erased.
    Change { guest: usize },
    /// So many guests are upgraded together.
    Wave { guests: usize },
    /// An rpm transaction of several packages.
    Transaction {
        guest: usize,
        packages: u32,
        pause: Duration,
        ending: Ending,
    },
    /// A package changes, and then the mapping with which reports are made.
    Mapping { guest: usize, pause: Duration },
    /// The database is rebuilt: other bytes, same content.
    Rebuild { guest: usize },
    /// The agent's process restarts, and packages change: one that counts anew may come to the same number.
    Restart { guest: usize, changes: u32 },
    /// The machine loses power: connections stay open without an end, unsynced writes are lost.
    Reboot { guest: usize },
    /// A snapshot is taken.
    Snapshot { guest: usize },
    /// The machine returns to its snapshot, and packages change before anybody asks; or a snapshot is taken first,
    /// and as many packages change before as after: the same generations are counted twice.
    Restore {
        guest: usize,
        changes: u32,
        is_fresh: bool,
    },
    /// A guest is replaced by a copy of another.
    Clone {
        guest: usize,
        of: usize,
        keeps_id: bool,
    },
    /// An agent of another generation is installed.
    Install { guest: usize, kind: AgentKind },
    /// The guest's clock jumps.
    GuestClock { guest: usize, ms: i64 },
    /// The guest treats connections otherwise, for some time.
    Behave {
        guest: usize,
        as_if: Behaviour,
        time: Duration,
    },
    /// The guest leaves its roster, or returns to it.
    Listed { guest: usize, is_there: bool },
    /// The guest moves to another sensor.
    Move { guest: usize, to: usize },
    /// A sensor and its machine crash, and start again.
    Crash { sensor: usize },
    /// A sensor's disk is full for some time.
    Disk { sensor: usize, time: Duration },
    /// Guests change while Central is not there, then a sensor's disk is full: longer than Central is away.
    Backlog {
        sensor: usize,
        guests: usize,
        time: Duration,
    },
    /// A sensor's roster is not what it was.
    Roster { sensor: usize, how: BadRoster },
    /// A sensor's clock jumps.
    SensorClock { sensor: usize, ms: i64 },
    /// Central treats everybody otherwise, for some time.
    Central { mode: Mode, time: Duration },
    /// Central refuses a guest's content, or not any more.
    Refuse { guest: usize, is_on: bool },
    /// Central forbids documents of a guest, or not any more.
    Forbid { guest: usize, is_on: bool },
}

/// Draws the plan of a seed.
pub(crate) fn draw(seed: u64, size: Size) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed);
    let most = 2 * u64::try_from(size.time.as_millis()).unwrap() / size.steps as u64;
    (0..size.steps)
        .map(|_| Step {
            pause: Duration::from_millis(random.u64(..most)),
            seed: random.u64(..),
            event: event(&mut random, size),
        })
        .collect()
}

/// Longest time for which a guest or Central behaves badly, in milliseconds.
const LONGEST_FAULT: u64 = 400_000;

fn one_of<T: Copy>(random: &mut fastrand::Rng, all: &[T]) -> T {
    all[random.usize(..all.len())]
}

/// Milliseconds that a clock is off. No clock shows a time before 1970, where agents that count anew after a
/// restart cannot be told from what they were: the kernel refuses such times.
fn skew(random: &mut fastrand::Rng) -> i64 {
    let year = 365 * 86_400_000;
    let all = [0, 10 * year, -50 * year, 3_600_000, -3_600_000, 200_000];
    one_of(random, &all)
}

fn event(random: &mut fastrand::Rng, size: Size) -> Event {
    let guest = random.usize(..size.guests);
    let sensor = random.usize(..size.sensors);
    match random.u32(..200) {
        0..46 => Event::Change { guest },
        46..50 => Event::Wave {
            guests: random.usize(1..=size.guests),
        },
        50..64 => Event::Transaction {
            guest,
            packages: random.u32(1..6),
            pause: Duration::from_millis(random.u64(1..4000)),
            ending: one_of(
                random,
                &[
                    Ending::Commits,
                    Ending::Commits,
                    Ending::Dies,
                    Ending::Hangs,
                ],
            ),
        },
        64..76 => Event::Mapping {
            guest,
            pause: Duration::from_millis(random.u64(..600)),
        },
        76..78 => Event::Rebuild { guest },
        78..86 => Event::Restart {
            guest,
            changes: random.u32(..4),
        },
        86..91 => Event::Reboot { guest },
        91..99 => Event::Snapshot { guest },
        99..112 => Event::Restore {
            guest,
            changes: random.u32(..3),
            is_fresh: random.bool(),
        },
        112..116 => Event::Clone {
            guest,
            of: random.usize(..size.guests),
            keeps_id: random.bool(),
        },
        116..122 => Event::Install {
            guest,
            kind: one_of(
                random,
                &[
                    AgentKind::Current,
                    AgentKind::Pair,
                    AgentKind::Pair,
                    AgentKind::Token,
                ],
            ),
        },
        122..126 => Event::GuestClock {
            guest,
            ms: skew(random),
        },
        126..140 => Event::Behave {
            guest,
            as_if: one_of(
                random,
                &[
                    Behaviour::Absent,
                    Behaviour::Hangs,
                    Behaviour::BreaksOff,
                    Behaviour::Stalls,
                ],
            ),
            time: Duration::from_millis(random.u64(..LONGEST_FAULT)),
        },
        140..144 => Event::Listed {
            guest,
            is_there: random.bool(),
        },
        144..149 => Event::Move { guest, to: sensor },
        149..159 => Event::Crash { sensor },
        159..162 => Event::Disk {
            sensor,
            time: Duration::from_millis(random.u64(..LONGEST_FAULT)),
        },
        162..164 => Event::Backlog {
            sensor,
            guests: random.usize(1..=size.guests),
            time: Duration::from_millis(random.u64(..LONGEST_FAULT)),
        },
        164..168 => Event::Roster {
            sensor,
            how: one_of(
                random,
                &[
                    BadRoster::Empty,
                    BadRoster::HalfWritten,
                    BadRoster::Directory,
                    BadRoster::NoText,
                ],
            ),
        },
        168..172 => Event::SensorClock {
            sensor,
            ms: skew(random),
        },
        172..186 => Event::Central {
            mode: one_of(random, &Mode::ALL),
            time: Duration::from_millis(random.u64(..LONGEST_FAULT)),
        },
        186..194 => Event::Refuse {
            guest,
            is_on: random.bool(),
        },
        _ => Event::Forbid {
            guest,
            is_on: random.bool(),
        },
    }
}

/// Leaves out steps while the run still fails, until none can be left out or the time is over. Gives the numbers
/// of those that are left.
pub(crate) fn shrink(steps: usize, time: Duration, fails: impl Fn(&[usize]) -> bool) -> Vec<usize> {
    let until = std::time::Instant::now() + time;
    let mut kept: Vec<usize> = (0..steps).collect();
    let mut part = kept.len().div_ceil(2).max(1);
    loop {
        let (mut at, mut dropped) = (0, false);
        while at < kept.len() {
            if std::time::Instant::now() > until {
                return kept;
            }
            let mut fewer = kept.clone();
            fewer.drain(at..kept.len().min(at + part));
            if fails(&fewer) {
                (kept, dropped) = (fewer, true);
            } else {
                at += part;
            }
        }
        match (part, dropped) {
            (1, false) => return kept,
            (1, true) => {}
            _ => part = part.div_ceil(2),
        }
    }
}

#[test]
fn shrinking_leaves_the_steps_that_fail_together() {
    let both = |kept: &[usize]| kept.contains(&3) && kept.contains(&41);
    let kept = shrink(60, Duration::from_secs(5), both);
    assert_eq!(kept, [3, 41]);
}
