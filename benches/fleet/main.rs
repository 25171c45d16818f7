//! One real sensor, ten thousand simulated guests in other processes, one Central.
//!
//! `cargo bench --bench fleet`. Guests speak the real protocol over unix sockets and have reports of
//! 600 packages; `FLEET_GUESTS` makes it smaller, `FLEET_KILLS=200` kills the sensor more often, `FLEET_STORE_ONLY=1`
//! leaves all out but what the fleet store costs, `FLEET_SIZES_ONLY=1` all but what long reports cost. What
//! is printed is measured in this run: times at Central's door and in the sensor's log, memory and CPU
//! of the sensor's process from /proc.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the numbers are the result, and what the sensor complains about belongs beside them"
)]
#![allow(clippy::unwrap_used, reason = "a bench that cannot run has no result")]
#![allow(unreachable_pub, reason = "one program")]
#![allow(
    clippy::cast_possible_truncation,
    reason = "numbers of guests are small"
)]

mod central;
mod guests;
#[path = "../support/process.rs"]
mod process;
mod sensor;

use central::Central;
use guests::{Guests, ReportForm};
use sensor::Sensor;
use std::collections::HashMap;
use std::time::{Duration, Instant};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--simulate") {
        return guests::simulate(&args[at + 1..]);
    }
    let count: u32 = std::env::var("FLEET_GUESTS").map_or(10_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let central = Central::start();
    println!("{count} guests, 600 packages each, two simulating processes");

    if std::env::var_os("FLEET_STORE_ONLY").is_some() {
        return store_costs(&central, count);
    }
    if std::env::var_os("FLEET_SIZES_ONLY").is_some() {
        return size_costs(&central, count);
    }
    let guests = Guests::start(dir.path(), 0..count, true);
    let started = Instant::now();
    let mut sensor = Sensor::start(
        dir.path(),
        "state",
        &central.url,
        &["--poll-interval", "5m"],
    );
    central.wait_for(count as usize);
    let cold = started.elapsed();
    line("cold start: every report accepted", cold, &sensor);
    print_cpu(sensor.cpu(), count);

    sensor.settle();
    let (before, from) = (sensor.cpu(), Instant::now());
    std::thread::sleep(Duration::from_secs(30));
    let share = (sensor.cpu() - before).as_secs_f64() / from.elapsed().as_secs_f64();
    println!(
        "idle, every guest in a wait: {:.2} % of one core, RSS {} MiB",
        100.0 * share,
        sensor.rss_mib()
    );

    status(&sensor);
    now_and_then(&guests, &central, &sensor, count);
    changes(&guests, &central, &sensor, count);
    all_at_once(&guests, &central, &sensor, count);
    restart(&guests, &central, &mut sensor, count);
    killed(&guests, &central, &mut sensor, count);
    drop(sensor);
    drop(guests);

    hanging(count, cold);
    polling(&central, count);
    store_costs(&central, count);
    size_costs(&central, count);
}

/// Reports of 517 packages as version 0.1.0 sent them, as this agent does and as StackRox's does, each the better of two
/// runs. StackRox's own scraper needed 2.4 times as much for the last one as for the first.
fn size_costs(central: &Central, count: u32) {
    let count = count.min(2000);
    let forms = [ReportForm::Old, ReportForm::Ours, ReportForm::Roxagent];
    let least = forms.map(|form| {
        let dir = tempfile::tempdir().unwrap();
        let guests = Guests::start_with(dir.path(), 0..count, true, form);
        let runs = ["first", "second"].map(|state| {
            central.forget();
            let sensor = Sensor::start(dir.path(), state, &central.url, &["--fleet", "off"]);
            Cost::of(&sensor, &guests, central, count).changed
        });
        let least = runs.into_iter().min().unwrap();
        println!(
            "sensor's CPU a changed report, socket to sink, {form:?}, {} bytes: {least:?}",
            form.len()
        );
        least
    });
    let ratio = least[2].as_secs_f64() / least[0].as_secs_f64();
    println!("  ratio of the last to the first: {ratio:.2} (StackRox's scraper: 2.4)");
}

/// What a report costs a sensor.
#[derive(Default)]
struct Cost {
    first: Duration,
    changed: Duration,
    rss_mib: u64,
}

impl Cost {
    /// Of a sensor that has just begun: each guest's first report, then a change of each.
    fn of(sensor: &Sensor, guests: &Guests, central: &Central, count: u32) -> Self {
        central.wait_for(count as usize);
        sensor.settle();
        let first = sensor.cpu();
        central.forget();
        guests.tell(&format!("change 0 {count}"));
        central.wait_for(count as usize);
        sensor.settle();
        Self {
            first: first / count,
            changed: (sensor.cpu() - first) / count,
            rss_mib: sensor.rss_mib(),
        }
    }
}

/// The same guests and the same changes with the fleet store and without it, twice each in turn: the better of two is
/// what the program needs, the rest is the machine's.
fn store_costs(central: &Central, count: u32) {
    let dir = tempfile::tempdir().unwrap();
    let guests = Guests::start(dir.path(), 0..count, true);
    let mut costs: HashMap<&str, Vec<Cost>> = HashMap::new();
    for (run, mode) in ["off", "on", "on", "off"].into_iter().enumerate() {
        central.forget();
        let state = format!("store-{run}");
        let sensor = Sensor::start(dir.path(), &state, &central.url, &["--fleet", mode]);
        let cost = Cost::of(&sensor, &guests, central, count);
        costs.entry(mode).or_default().push(cost);
    }
    println!("with --fleet off and on, each the better of two runs:");
    let least = |mode: &str, of: fn(&Cost) -> Duration| costs[mode].iter().map(of).min().unwrap();
    for (what, of) in [
        ("first", (|cost| cost.first) as fn(&Cost) -> Duration),
        ("changed", |cost| cost.changed),
    ] {
        let (off, on) = (least("off", of), least("on", of));
        let more = 100.0 * (on.as_secs_f64() / off.as_secs_f64() - 1.0);
        println!("  sensor's CPU a {what} report: {off:?} and {on:?}, {more:+.1} % (goal: +15 %)");
    }
    let rss = |mode: &str| costs[mode].iter().map(|cost| cost.rss_mib).min().unwrap();
    println!("  RSS {} and {} MiB", rss("off"), rss("on"));
}

/// What a person sees who asks for all of them: whole processes.
fn status(sensor: &Sensor) {
    for (label, format) in [("", &[][..]), (" --json", &["--json"])] {
        let mut times: Vec<(Duration, usize)> = (0..5).map(|_| sensor.status(format)).collect();
        times.sort();
        let (median, bytes) = times[2];
        println!("afferent status{label}: {median:.0?}, {bytes} bytes");
    }
}

/// Twenty guests a second change, and everybody else is in a wait: as on a quiet day.
fn now_and_then(guests: &Guests, central: &Central, sensor: &Sensor, count: u32) {
    const CHANGES: u32 = 300;
    sensor.settle();
    central.forget();
    // The last ones: nobody else measures a change of theirs.
    let changed = count.saturating_sub(CHANGES)..count;
    let (cpu, from) = (sensor.cpu(), Instant::now());
    for (n, guest) in (1..).zip(changed.clone()) {
        guests.tell(&format!("change {guest} {}", guest + 1));
        let next = from + Duration::from_millis(50) * n;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    central.wait_for(changed.len());
    let changes = guests.changes();
    let durable = latencies(&changes, &sensor.durable(), changed.clone());
    print_latencies("20 changes a second: change to durable", &durable);
    let accepted = latencies(&changes, &central.accepted(), changed.clone());
    print_latencies("20 changes a second: change to accepted", &accepted);
    print_cpu(sensor.cpu() - cpu, changed.end - changed.start);
}

/// A tenth of the guests changes within ten seconds, while all others send routine reports.
fn changes(guests: &Guests, central: &Central, sensor: &Sensor, count: u32) {
    central.forget();
    let from = Instant::now();
    let tenth = count / 10;
    for step in 0..100 {
        let reactive = (step * tenth / 100)..((step + 1) * tenth / 100);
        guests.tell(&format!("change {} {}", reactive.start, reactive.end));
        let others = count - tenth;
        let routine = tenth + step * others / 100..tenth + (step + 1) * others / 100;
        guests.tell(&format!("refresh {} {}", routine.start, routine.end));
        let next = from + Duration::from_millis(u64::from(step + 1) * 100);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    central.wait_for(count as usize);
    let changes = guests.changes();
    let durable = latencies(&changes, &sensor.durable(), 0..tenth);
    print_latencies(
        "change to durable in the sensor, amid routine reports",
        &durable,
    );
    let accepted = latencies(&changes, &central.accepted(), 0..tenth);
    print_latencies("change to accepted, amid routine reports", &accepted);
    println!("  RSS {} MiB", sensor.rss_mib());
}

/// Everybody changes at the same moment.
fn all_at_once(guests: &Guests, central: &Central, sensor: &Sensor, count: u32) {
    sensor.settle();
    central.forget();
    let reports = sensor.durable_count();
    let (cpu, from) = (sensor.cpu(), Instant::now());
    guests.tell(&format!("change 0 {count}"));
    while sensor.durable_count() < reports + count as usize {
        std::thread::sleep(Duration::from_millis(20));
    }
    line("all change at once: durable here", from.elapsed(), sensor);
    central.wait_for(count as usize);
    line("all change at once: accepted", from.elapsed(), sensor);
    print_cpu(sensor.cpu() - cpu, count);
}

/// Central is away, everybody changes, the sensor is killed; then both come back.
fn restart(guests: &Guests, central: &Central, sensor: &mut Sensor, count: u32) {
    sensor.settle();
    central.close();
    let reports = sensor.durable_count();
    guests.tell(&format!("change 0 {count}"));
    while sensor.durable_count() < reports + count as usize {
        std::thread::sleep(Duration::from_millis(20));
    }
    sensor.kill();
    central.forget();
    central.open();
    let from = Instant::now();
    sensor.again();
    central.wait_for(1);
    line(
        "restart with everything pending: first delivery",
        from.elapsed(),
        sensor,
    );
    central.wait_for(count as usize);
    let drained = from.elapsed();
    line("the same: all delivered", drained, sensor);
    println!(
        "  {:.0} reports/s",
        f64::from(count) / drained.as_secs_f64()
    );
}

/// The sensor is killed again and again (`FLEET_KILLS`, 20) while guests change and Central flaps:
/// the newest report of every guest arrives, none goes back, and equal keys have equal content.
fn killed(guests: &Guests, central: &Central, sensor: &mut Sensor, count: u32) {
    let kills: u32 = std::env::var("FLEET_KILLS").map_or(20, |n| n.parse().unwrap());
    sensor.settle();
    central.flap(true);
    let from = Instant::now();
    for _ in 0..kills {
        let first = fastrand::u32(..count);
        guests.tell(&format!(
            "change {first} {}",
            count.min(first + count / 50 + 1)
        ));
        // Not to wait for something: the moment of the kill is what varies.
        std::thread::sleep(Duration::from_millis(fastrand::u64(..800)));
        sensor.kill();
        sensor.again();
    }
    central.flap(false);
    // One more change each: what a guest made before it may have been superseded.
    central.forget();
    let before = guests.changes().len();
    guests.tell(&format!("change 0 {count}"));
    while guests.changes().len() < before + count as usize {
        std::thread::sleep(Duration::from_millis(20));
    }
    let newest = || {
        let mut newest = HashMap::new();
        for (guest, generation) in guests.changes().into_keys() {
            let known = newest.entry(guest).or_insert(generation);
            *known = generation.max(*known);
        }
        newest
    };
    loop {
        let accepted = central.accepted();
        let newest = newest();
        let arrived = newest
            .iter()
            .filter(|(g, n)| accepted.contains_key(&(**g, **n)));
        if newest.len() == count as usize && arrived.count() == count as usize {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let (went_back, two_contents) = central.wrongs();
    assert_eq!(
        (went_back, two_contents),
        (0, 0),
        "went back, or two contents"
    );
    line(
        "killed, Central flaps: newest of all accepted",
        from.elapsed(),
        sensor,
    );
    println!("  {kills} kills: nothing lost, nothing went back, equal keys have equal content");
}

/// A tenth of the guests hangs at one stage or another; the others start cold.
fn hanging(count: u32, alone: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let central = Central::start();
    let guests = Guests::start(dir.path(), 0..count, true);
    guests.tell(&format!("hang 0 {}", count / 10));
    let from = Instant::now();
    let sensor = Sensor::start(dir.path(), "state", &central.url, &[]);
    central.wait_for((count - count / 10) as usize);
    let took = from.elapsed();
    line(
        "cold start, a tenth hangs: every other accepted",
        took,
        &sensor,
    );
    let per_guest = took.as_secs_f64() / alone.as_secs_f64() * 10.0 / 9.0;
    println!("  time per answering guest: {per_guest:.2} times that of the cold start above");
}

/// What everybody else does: poll. Once a minute, so that the bench ends; usual are five.
fn polling(central: &Central, count: u32) {
    let dir = tempfile::tempdir().unwrap();
    central.forget();
    let guests = Guests::start(dir.path(), 0..count, false);
    let sensor = Sensor::start(
        dir.path(),
        "state",
        &central.url,
        &["--poll-interval", "60s"],
    );
    central.wait_for(count as usize);
    sensor.settle();
    central.forget();
    let tenth = count / 10;
    guests.tell(&format!("change 0 {tenth}"));
    central.wait_for(tenth as usize);
    let latencies = latencies(&guests.changes(), &central.accepted(), 0..tenth);
    print_latencies(
        "baseline, polling every 60 s: change to accepted",
        &latencies,
    );
}

/// Times from change to acceptance of the newest reports of these guests, sorted.
fn latencies(
    changes: &HashMap<(u32, u32), u128>,
    accepted: &HashMap<(u32, u32), u128>,
    guests: std::ops::Range<u32>,
) -> Vec<Duration> {
    let mut times: Vec<Duration> = accepted
        .iter()
        .filter(|((guest, _), _)| guests.contains(guest))
        .filter_map(|(key, at)| Some((at, changes.get(key)?)))
        .map(|(at, changed)| at.saturating_sub(*changed))
        .map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap()))
        .collect();
    times.sort();
    times
}

fn print_latencies(what: &str, sorted: &[Duration]) {
    let at = |part: usize| sorted.get((sorted.len() * part / 1000).min(sorted.len() - 1));
    println!(
        "{what}: n {}, median {:?}, p99 {:?}, max {:?}",
        sorted.len(),
        at(500).unwrap(),
        at(990).unwrap(),
        sorted.last().unwrap()
    );
}

/// What of the time was the sensor's own: the guests and Central share the processors with it.
fn print_cpu(took: Duration, reports: u32) {
    println!(
        "  sensor's CPU for that: {:.1} s, {:?} a report",
        took.as_secs_f64(),
        took / reports
    );
}

fn line(what: &str, took: Duration, sensor: &Sensor) {
    println!(
        "{what}: {:.2} s, RSS {} MiB",
        took.as_secs_f64(),
        sensor.rss_mib()
    );
}
