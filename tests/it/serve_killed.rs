//! An agent that is killed with SIGKILL at random moments while packages change.

use crate::support::agent::{Answer, Launch};
use crate::support::rpm_root::{RpmRoot, Spec};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// What a peer has seen: which content under which key.
#[derive(Default)]
struct Seen {
    digests: HashMap<(u32, u32), String>,
    newest: (u32, u32),
    pulls: usize,
}

impl Seen {
    /// The losses: a generation that comes again with other content (the sensor would take it for
    /// known), one that goes back (what was promised was not on disk), an epoch that changes though
    /// nothing was lost (every sensor pulls everything again).
    fn see(&mut self, answer: &Answer) {
        if answer.refusal().is_some() {
            assert_eq!(self.pulls, 0, "a report was served before: {answer:?}");
            return;
        }
        self.pulls += 1;
        let key = answer.key();
        let known = self
            .digests
            .entry(key)
            .or_insert_with(|| answer.digest().to_owned());
        assert_eq!(known, answer.digest(), "{key:?} has other content");
        if self.newest.1 > 0 {
            assert_eq!(key.0, self.newest.0, "another epoch");
            assert!(
                key.1 >= self.newest.1,
                "generation {} after {}",
                key.1,
                self.newest.1
            );
        }
        self.newest = key;
    }
}

// The loss: see above; and a store that cannot be opened after a crash.
#[test]
fn an_agent_killed_at_any_moment_goes_on_where_it_was() {
    let kills: usize = std::env::var("AFFERENT_KILLS").map_or(50, |n| n.parse().unwrap());
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let files: Vec<_> = (1..=6)
        .map(|n| {
            root.build(&Spec {
                name: &format!("changing-{n}"),
                files: 20 * n,
                ..Spec::default()
            })
        })
        .collect();
    let launch = Launch::on(root.path())
        .flag("reactive-debounce", "0s")
        .flag("reactive-burst", "10000");
    let stop = AtomicBool::new(false);
    let mut seen = Seen::default();
    let start = Instant::now();
    thread::scope(|scope| {
        // Whatever happens, the packages stop changing: or the test would never end.
        let _stop = Stop(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let n = fastrand::usize(0..files.len());
                let list = root.rpm_qa();
                let name = format!("changing-{}", n + 1);
                if list.contains(&format!("{name}\t")) {
                    root.erase(&[name]);
                } else {
                    root.install(&[&files[n]]);
                }
            }
        });
        for _ in 0..kills {
            let agent = launch.spawn();
            let end = Instant::now() + Duration::from_micros(fastrand::u64(0..250_000));
            while Instant::now() < end {
                if let Ok(answer) = agent.try_get(0, 0) {
                    seen.see(&answer);
                }
            }
            agent.kill();
        }
    });
    let agent = launch.start();
    let answer = agent.wait_for_rpm(&root);
    seen.see(&answer);
    println!(
        "{kills} kills in {:.1?}, {} pulls, {} generations seen, the last is {}",
        start.elapsed(),
        seen.pulls,
        seen.digests.len(),
        seen.newest.1
    );
    assert!(
        seen.digests.len() > 1,
        "nothing changed: nothing was tested"
    );
    // The loss: damage that nobody did, a store that is thrown away.
    let log = agent.log();
    let alarms: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("panicked"))
        .collect();
    assert_eq!(alarms, Vec::<&str>::new());
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

// The loss: an agent that is killed in its first moments, and then begins with a false alarm.
#[test]
fn an_agent_killed_while_it_begins_its_store_is_no_alarm() {
    let root = RpmRoot::new();
    root.add(&Spec::default());
    let mut begun = 0;
    for n in 0..40 {
        let launch = Launch::on(root.path());
        let agent = launch.spawn();
        // From before the first file is made to after the store stands.
        let end = Instant::now() + Duration::from_micros(1_000 * (n % 20));
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        agent.kill();
        begun += usize::from(!launch.database().exists());
        let agent = launch.start();
        agent.wait_for_rpm(&root);
        assert!(!agent.log().contains("ERROR"), "{}", agent.log());
    }
    assert!(begun > 0, "it was never killed early enough");
}
