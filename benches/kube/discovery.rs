//! Ten thousand virtual machines that nobody asks, listed and watched.

use super::objects::{instance, machine};
use super::sensor::Sensor;
use super::support::kube_api::FakeApi;
use std::time::{Duration, Instant};

/// How long an idle sensor is watched, and one to which changes come.
const WATCHED: Duration = Duration::from_secs(SECONDS as u64);
const SECONDS: u32 = 15;

/// Changes a second: ten thousand machines whose objects change once in 500 s.
const CHANGES: u32 = 20;

pub fn measure(machines: u32) {
    let none = Sensor::start(&FakeApi::start(), &[]);
    none.wait_for(0);
    let without = none.rss_kib();
    drop(none);

    let api = FakeApi::start();
    for n in 0..machines {
        api.put("virtualmachines", machine(n));
        api.put("virtualmachineinstances", instance(n, "10.0.0.7", false));
    }
    let bytes = instance(0, "10.0.0.7", false).to_string().len();
    println!("{machines} virtual machines, {bytes} bytes each as an instance");
    let began = Instant::now();
    let sensor = Sensor::start(&api, &[]);
    sensor.wait_for(machines);
    println!(
        "listed after               {:>7.2} s, with {:.2} s of CPU",
        began.elapsed().as_secs_f64(),
        sensor.cpu().as_secs_f64()
    );
    let idle = sensor.share(|| std::thread::sleep(WATCHED));
    println!(
        "RSS, watching              {:>7.1} MiB more than with no machine ({:.1} MiB)",
        (sensor.rss_kib() as f64 - without as f64) / 1024.0,
        without as f64 / 1024.0
    );
    println!("watched, without a change  {idle:>7.2} % of a core");
    let changing = sensor.share(|| {
        for n in 0..SECONDS * CHANGES {
            api.put(
                "virtualmachineinstances",
                instance(n % machines, &format!("10.1.0.{}", n % 250), false),
            );
            std::thread::sleep(Duration::from_secs(1) / CHANGES);
        }
    });
    println!("watched, {CHANGES} changes a second {changing:>5.2} % of a core");
    println!(
        "RSS, after them            {:>7.1} MiB more than with no machine",
        (sensor.rss_kib() as f64 - without as f64) / 1024.0
    );
}
