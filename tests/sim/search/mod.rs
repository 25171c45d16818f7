//! Exhaustive search of the smallest core: one or two guests, one or two sinks, a sensor, and every order of steps.
//!
//! ```text
//! a state ── every step that may happen in it ──► states, those that are known left out
//!    │
//!    └── invariants; and everything well for a while: every sink has what is installed
//! ```
//!
//! What runs is the real engine, as in the simulation, from the answer of a guest to that of a sink. A state is
//! reached again by the steps that led to it since the last crash, on the disk which that left. A crash may come
//! between any two steps, and within a step after any sync of the disk.

mod doubles;
mod live;
mod state;

use doubles::Said;
use live::{Bounds, Checkpoint, Counts, Live, Step};
use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

/// What one step leads to.
struct Reached {
    number: u64,
    enabled: Vec<Step>,
    syncs: usize,
    broken: Vec<String>,
    /// What a crash left.
    checkpoint: Option<Checkpoint>,
}

/// A state, by the way to it.
struct Node {
    checkpoint: Rc<Checkpoint>,
    since: Vec<Step>,
    path: Vec<Step>,
    enabled: Vec<Step>,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    states: usize,
    steps: usize,
    longest: usize,
    /// Whether the time was enough for all.
    is_all: bool,
    broken: Option<String>,
}

/// Plays steps from a checkpoint. The power fails in the last one after `cut` syncs, if at all.
fn play(
    bounds: &Bounds,
    from: &Checkpoint,
    steps: &[Step],
    cut: Option<usize>,
    known: &HashSet<u64>,
) -> Reached {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut live = Live::start(bounds, from).await;
        let mut syncs = 0;
        let crashes = cut.is_some() || steps.last() == Some(&Step::Crash);
        for (n, step) in steps.iter().enumerate() {
            let is_last = n + 1 == steps.len();
            if let (Some(cut), true) = (cut, is_last) {
                live.disk.fail_after_syncs(cut);
            }
            if *step != Step::Crash {
                syncs = live.step(*step).await;
            }
        }
        if crashes {
            let (checkpoint, broken) = live.crash();
            let fresh = play_start(bounds, &checkpoint, known).await;
            let broken = broken.into_iter().chain(fresh.broken).collect();
            return Reached {
                broken,
                checkpoint: Some(checkpoint),
                ..fresh
            };
        }
        look(live, syncs, known).await
    })
}

async fn play_start(bounds: &Bounds, from: &Checkpoint, known: &HashSet<u64>) -> Reached {
    look(Live::start(bounds, from).await, 0, known).await
}

/// Checks a state, unless it is known.
async fn look(mut live: Live<'_>, syncs: usize, known: &HashSet<u64>) -> Reached {
    let (number, enabled) = (live.number(), live.enabled());
    live.check();
    if !known.contains(&number) && live.broken.is_empty() {
        live.check_quiet().await;
    }
    Reached {
        number,
        enabled,
        syncs,
        broken: live.end(),
        checkpoint: None,
    }
}

/// Searches all states, as long as there is time; the shortest ways first.
fn search(bounds: &Bounds, time: Duration) -> Found {
    let until = crate::processor_time() + time;
    let mut found = Found::default();
    let mut known = HashSet::new();
    let mut queue = VecDeque::new();
    let start = Rc::new(Checkpoint::new(bounds));
    let mut ways = vec![(start, Vec::new(), Vec::new(), None)];
    loop {
        for (checkpoint, since, path, cut) in std::mem::take(&mut ways) {
            let reached = play(bounds, &checkpoint, &since, cut, &known);
            found.steps += 1;
            if let Some(what) = reached.broken.first() {
                let cut = cut.map(|syncs| format!(", power fails after sync {syncs}"));
                let cut = cut.unwrap_or_default();
                found.broken = Some(format!("{}: {what}\nafter {path:?}{cut}", bounds.name));
                return found;
            }
            // The power may fail between two syncs of the step.
            let may_crash = reached.enabled.contains(&Step::Crash);
            if cut.is_none() && reached.checkpoint.is_none() && may_crash {
                let cuts = 1..reached.syncs;
                ways.extend(
                    cuts.map(|cut| (checkpoint.clone(), since.clone(), path.clone(), Some(cut))),
                );
            }
            if !known.insert(reached.number) {
                continue;
            }
            found.longest = found.longest.max(path.len());
            let node = match reached.checkpoint {
                Some(checkpoint) => (Rc::new(checkpoint), Vec::new()),
                None => (checkpoint, since),
            };
            queue.push_back(Node {
                checkpoint: node.0,
                since: node.1,
                path,
                enabled: reached.enabled,
            });
        }
        if !ways.is_empty() {
            continue;
        }
        let Some(node) = queue.pop_front() else {
            found.is_all = true;
            break;
        };
        if crate::processor_time() > until {
            break;
        }
        for step in node.enabled {
            let with = |steps: &[Step]| [steps, &[step]].concat();
            ways.push((
                node.checkpoint.clone(),
                with(&node.since),
                with(&node.path),
                None,
            ));
        }
    }
    found.states = known.len();
    found
}

/// Every way in which a sink may fail.
const FAILURES: &[Said] = &[
    Said::NoAnswer,
    Said::Refused,
    Said::Failed,
    Said::Absent,
    Said::Busy,
    Said::Forbidden,
];

/// Nothing happens.
const NONE: Counts = Counts {
    contents: 0,
    returns: 0,
    faults: 0,
    crashes: 0,
    full: 0,
    clocks: 0,
};

/// What is searched.
const SEARCHED: &[Bounds] = &[
    Bounds {
        name: "one guest, one sink",
        guests: 1,
        sinks: 1,
        most: Counts {
            contents: 2,
            faults: 1,
            crashes: 1,
            ..NONE
        },
        said: FAILURES,
    },
    Bounds {
        name: "a guest that returns to a snapshot",
        guests: 1,
        sinks: 1,
        most: Counts {
            contents: 3,
            returns: 1,
            crashes: 1,
            ..NONE
        },
        said: &[],
    },
    Bounds {
        name: "a clock that goes back",
        guests: 1,
        sinks: 1,
        most: Counts {
            contents: 2,
            crashes: 2,
            clocks: 1,
            ..NONE
        },
        said: &[],
    },
    Bounds {
        name: "a disk that is full",
        guests: 1,
        sinks: 1,
        most: Counts {
            contents: 2,
            crashes: 1,
            full: 1,
            ..NONE
        },
        said: &[Said::NoAnswer],
    },
    Bounds {
        name: "a sink that fails again and again",
        guests: 1,
        sinks: 1,
        most: Counts {
            contents: 1,
            faults: 4,
            ..NONE
        },
        said: &[Said::Refused, Said::Failed],
    },
    Bounds {
        name: "one guest, two sinks",
        guests: 1,
        sinks: 2,
        most: Counts {
            contents: 2,
            faults: 1,
            ..NONE
        },
        said: &[Said::NoAnswer, Said::Refused],
    },
    Bounds {
        name: "two guests, one sink",
        guests: 2,
        sinks: 1,
        most: Counts {
            contents: 2,
            faults: 1,
            ..NONE
        },
        said: &[Said::Failed, Said::Absent],
    },
];

/// `SIM_SEARCH_SECONDS=600` is the time for all of it, with `SIM_SEARCH_MORE=1` for one more crash and one more
/// failure in each.
#[test]
fn every_order_of_steps_of_the_smallest_core_holds_every_invariant() {
    let time = Duration::from_secs(crate::number("SIM_SEARCH_SECONDS").unwrap_or(35));
    let part = time / u32::try_from(SEARCHED.len()).unwrap();
    let more = u32::try_from(crate::number("SIM_SEARCH_MORE").unwrap_or(0)).unwrap();
    let began_all = crate::processor_time();
    for bounds in SEARCHED {
        let mut bounds = bounds.clone();
        bounds.most.faults += more;
        bounds.most.crashes += more;
        let began = crate::processor_time();
        let Found {
            states,
            steps,
            longest,
            is_all,
            broken,
        } = search(&bounds, part);
        if let Some(broken) = broken {
            let took = crate::processor_time() - began_all;
            println!("search failed after {took:.1?} of a processor");
            panic!("{broken}");
        }
        let took = crate::processor_time() - began;
        let all = if is_all { "all" } else { "the nearest" };
        println!(
            "{}: {all} {states} states, {steps} steps in {took:.1?}, the longest way has {longest}",
            bounds.name
        );
        assert!(states > 30, "{}: {states} states", bounds.name);
    }
}
