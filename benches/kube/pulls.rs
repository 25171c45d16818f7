//! Guests that are asked through the API, and how long a change in one of them takes to the sink.

use super::guests::{Guests, SLOW};
use super::objects::{instance, machine, names};
use super::process::wall_nanos;
use super::sensor::Sensor;
use super::support::kube_api::FakeApi;
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Seats of the API server that a sensor takes at most.
const SEATS: usize = 20;

/// Changes come within this time.
const CHANGING: Duration = Duration::from_secs(180);

/// Guests that change within it, at most half of all.
const CHANGES: usize = 1000;

/// When the report of a guest and generation was in the file, in nanoseconds since 1970.
type Arrivals = Arc<Mutex<HashMap<(u32, u32), u128>>>;

pub fn measure(count: u32, poll: Duration) {
    let api = FakeApi::start();
    let guests = Guests::start(api.dir.path(), 0..count, true);
    guests.tell(&format!("slow 0 {count}"));
    for n in 0..count {
        let (namespace, name) = names(n);
        let agent = format!("agents/{namespace}.{name}.818");
        let socket = api.dir.path().join(format!("guests/g-{n}.sock"));
        std::os::unix::fs::symlink(socket, api.dir.path().join(agent)).unwrap();
        api.put("virtualmachines", machine(n));
        api.put("virtualmachineinstances", instance(n, "10.0.0.7", true));
    }
    println!("{count} guests asked through the API every {poll:?}, each takes {SLOW:?} to answer");
    let began = Instant::now();
    let poll_interval = format!("{}s", poll.as_secs());
    let flags = ["--kube-tls", "false", "--poll-interval", &poll_interval];
    let sensor = Sensor::start(&api, &flags);
    let arrivals = follow(sensor.delivered());
    wait_until(|| arrivals.lock().unwrap().len() == count as usize);
    let took = began.elapsed();
    println!(
        "first report of each       {:>7.1} s, {:.1} pulls a second",
        took.as_secs_f64(),
        f64::from(count) / took.as_secs_f64()
    );
    print_seats(&api, began, took);
    // Until each was polled once, which it is at a random time of its first interval.
    std::thread::sleep(poll);

    let (from, cpu, pulls) = (Instant::now(), sensor.cpu(), pulls_of(&sensor));
    let changed = change_some(&guests, count, from);
    let (took, cpu) = (from.elapsed(), sensor.cpu() - cpu);
    let pulls = pulls_of(&sensor) - pulls;
    println!(
        "pulls a second             {:>7.1}",
        pulls as f64 / took.as_secs_f64()
    );
    print_seats(&api, from, took);
    println!(
        "sensor's CPU               {:>7.2} % of a core, {:.1} ms a pull",
        100.0 * cpu.as_secs_f64() / took.as_secs_f64(),
        1000.0 * cpu.as_secs_f64() / pulls as f64
    );
    println!(
        "sensor's RSS               {:>7.1} MiB",
        sensor.rss_kib() as f64 / 1024.0
    );
    let latencies = || {
        let (changes, arrivals) = (guests.changes(), arrivals.lock().unwrap());
        let times = changes
            .iter()
            .filter_map(|(key, at)| Some(arrivals.get(key)?.saturating_sub(*at)));
        times
            .map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap()))
            .collect::<Vec<_>>()
    };
    wait_until(|| latencies().len() == changed);
    let mut times = latencies();
    times.sort();
    let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64();
    println!(
        "change to sink             {:>7.1} s median, {:.1} s p99, {:.1} s at most, of {changed} changes",
        at(50),
        at(99),
        times.last().unwrap().as_secs_f64()
    );
}

/// Changes random guests at random times, each once; how many.
fn change_some(guests: &Guests, count: u32, from: Instant) -> usize {
    let mut numbers: Vec<u32> = (0..count).collect();
    fastrand::shuffle(&mut numbers);
    numbers.truncate((numbers.len() / 2).clamp(1, CHANGES));
    let mut times: Vec<Duration> = { numbers.iter() }
        .map(|_| CHANGING.mul_f64(fastrand::f64()))
        .collect();
    times.sort();
    for (n, time) in numbers.iter().zip(&times) {
        std::thread::sleep((from + *time).saturating_duration_since(Instant::now()));
        guests.tell(&format!("change {n} {}", n + 1));
    }
    std::thread::sleep((from + CHANGING).saturating_duration_since(Instant::now()));
    numbers.len()
}

fn pulls_of(sensor: &Sensor) -> u64 {
    sensor.sum("afferent_pulls_total{").unwrap()
}

/// What the API server saw from then on.
fn print_seats(api: &FakeApi, from: Instant, took: Duration) {
    let seen = api.seen();
    let most = seen.most_open;
    assert!(
        most <= SEATS,
        "{most} seats at once, {SEATS} are the sensor's"
    );
    let dialed: Vec<Instant> = { seen.dialed.iter() }
        .filter(|at| (from..from + took).contains(*at))
        .copied()
        .collect();
    let within = |n: usize| {
        let end = dialed[n] + Duration::from_secs(1);
        dialed[n..].partition_point(|at| *at < end)
    };
    let busiest = (0..dialed.len()).map(within).max();
    println!(
        "dials a second             {:>7.1}, at most {} in one; most seats at once so far: {most}",
        dialed.len() as f64 / took.as_secs_f64(),
        busiest.unwrap_or(0)
    );
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[derive(Deserialize)]
struct Line {
    vm: Vm,
    meta: Meta,
}

#[derive(Deserialize)]
struct Vm {
    id: String,
}

#[derive(Deserialize)]
struct Meta {
    generation: u32,
}

/// Reads what is appended to the sensor's file, and notes when each line was there.
fn follow(path: PathBuf) -> Arrivals {
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    std::thread::spawn(move || {
        let mut file = loop {
            match File::open(&path) {
                Ok(file) => break file,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let mut text = Vec::new();
        // The sensor's directory ends with the sensor.
        while path.exists() {
            if file.read_to_end(&mut text).unwrap() == 0 {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            let now = wall_nanos();
            let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            for line in text[..end].split(|byte| *byte == b'\n') {
                let line: Line = serde_json::from_slice(line).unwrap();
                let number = line.vm.id.rsplit_once("vm-").unwrap().1.parse();
                let key = (number.unwrap(), line.meta.generation);
                noted.lock().unwrap().entry(key).or_insert(now);
            }
            text.drain(..=end);
        }
    });
    arrivals
}
