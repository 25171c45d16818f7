//! What `afferent serve` costs while nothing happens, and how soon after a transaction its report
//! is on disk and served.
//!
//! `cargo bench --bench serve` runs the release binary on a database of 600 packages.
//! Transactions come after quiet, as changes of a machine do; then each is one of a burst, which is scanned when
//! the burst is over.
//! AFFERENT_BENCH_IDLE sets the seconds of idleness (30), AFFERENT_BENCH_TRANSACTIONS the number of
//! transactions (40), AFFERENT_BENCH_PACKAGES the packages (600).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that fails stops; its table is its output"
)]

#[path = "../tests/it/support/mod.rs"]
#[allow(unreachable_pub, reason = "shared with the tests, which use the rest")]
mod support;

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use support::agent::{Agent, Launch, proc_status};
use support::bulk;
use support::rpm_root::Spec;

fn main() {
    let setting = |name: &str, default: u32| {
        std::env::var(format!("AFFERENT_BENCH_{name}"))
            .map_or(default, |value| value.parse().unwrap())
    };
    let packages = setting("PACKAGES", 600);
    let root = bulk::root_with(packages as usize);
    let file = root.build(&Spec {
        name: "changing",
        files: 20,
        ..Spec::default()
    });
    // Storms are held back by default; here every transaction is to be measured.
    let launch = Launch::on(root.path()).flag("reactive-burst", "10000");
    let agent = launch.start();
    let mut known = agent.wait_for_rpm(&root);

    // The thread that scanned ends when it had nothing to do for 10 s: what is counted afterwards is
    // of threads that stay.
    std::thread::sleep(Duration::from_secs(12));
    let time = Duration::from_secs(setting("IDLE", 30).into());
    let before = Usage::of(&agent);
    std::thread::sleep(time);
    let idle = Usage::of(&agent).since(&before);
    println!("{packages} packages, idle for {} s", time.as_secs());
    println!(
        "  CPU          {:.4} %   ({} ticks of 10 ms)   goal: under 0.1 %",
        f64::from(idle.ticks) / time.as_secs_f64(),
        idle.ticks
    );
    println!(
        "  wake-ups     {:.2} a minute",
        idle.wakeups as f64 * 60.0 / time.as_secs_f64()
    );
    println!("  RSS          {}   goal: under 10 MiB", memory(&agent));

    let (mut served, mut queried, mut transactions) = (Vec::new(), Vec::new(), Vec::new());
    let scans = scans(&launch);
    let count = setting("TRANSACTIONS", 40);
    for n in 0..count {
        std::thread::sleep(QUIET);
        let waiting = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let answer = agent.wait_for_other_than(&known, Duration::from_secs(60));
                (answer, Instant::now())
            });
            let begun = Instant::now();
            if n % 2 == 0 {
                root.install(&[&file]);
            } else {
                root.erase(&["changing"]);
            }
            let ended = Instant::now();
            transactions.push(ended - begun);
            let (answer, at) = waiting.join().unwrap();
            served.push(at.saturating_duration_since(ended));
            answer
        });
        assert_ne!(waiting.key(), known.key(), "it came to nothing");
        known = waiting;
        let begun = Instant::now();
        let output = Command::new("rpm")
            .arg("--dbpath")
            .arg(root.dbpath())
            .arg("-qa")
            .output()
            .unwrap();
        assert!(output.status.success());
        queried.push(begun.elapsed());
    }
    println!(
        "{} transactions, {} scans   goal: one a transaction",
        served.len(),
        self::scans(&launch) - scans
    );
    println!("                        median      p99      max");
    row("rpm transaction", &mut transactions);
    row("its end to served", &mut served);
    row("rpm -qa", &mut queried);
    println!("  goal: p50 under 15 ms, p99 under 40 ms");
    println!("  RSS          {}", memory(&agent));
}

/// Longer than what the agent takes for quiet: three times the debounce time after a scan.
const QUIET: Duration = Duration::from_millis(400);

/// Scans so far.
fn scans(launch: &Launch) -> u64 {
    let (status, _) = support::program::status(launch.state_dir(), &[]);
    status["scans"].as_u64().unwrap()
}

fn row(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100);
        times[rank.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
    };
    println!(
        "  {what:<20} {:>6.1} ms {:>6.1} ms {:>6.1} ms",
        at(50),
        at(99),
        at(100)
    );
}

fn memory(agent: &Agent) -> String {
    let mib = |field| agent.proc_status(field) as f64 / 1024.0;
    format!(
        "{:.1} MiB (anonymous {:.1}, files {:.1}), at most {:.1} MiB",
        mib("VmRSS"),
        mib("RssAnon"),
        mib("RssFile"),
        mib("VmHWM")
    )
}

/// What a process has used so far.
struct Usage {
    ticks: u32,
    /// Of each thread that lives.
    wakeups: HashMap<u32, u64>,
}

/// What it used between two times.
struct Used {
    ticks: u32,
    wakeups: u64,
}

impl Usage {
    fn of(agent: &Agent) -> Self {
        let pid = agent.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name may hold anything; what follows the last bracket begins with field 3.
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let number = |n: usize| fields[n - 3].parse::<u32>().unwrap();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let wakeups = tasks
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .map(|task: u32| (task, proc_status(task, "voluntary_ctxt_switches")))
            .collect();
        Self {
            ticks: number(14) + number(15),
            wakeups,
        }
    }

    fn since(&self, before: &Self) -> Used {
        let wakeups = self.wakeups.iter().map(|(task, count)| {
            let earlier = before.wakeups.get(task).copied().unwrap_or_default();
            count - earlier
        });
        Used {
            ticks: self.ticks - before.ticks,
            wakeups: wakeups.sum(),
        }
    }
}
