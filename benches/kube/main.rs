//! What the guests of a KubeVirt cluster cost the sensor: found by the API, and asked through it.
//!
//! `cargo bench --bench kube`. The API server is that of the tests, in this process; the sensor is the real program.
//!
//! 1. `KUBE_MACHINES`, 10,000, are listed and watched. They run without a VSOCK device, so that nobody is asked and
//!    only the discovery is measured. Objects are as large as real ones, with two fifths of `managedFields`.
//! 2. `KUBE_GUESTS`, 1,000, are asked through the API, each once in `KUBE_POLL`, 60 seconds, while a random part of
//!    them changes. Agents speak the real protocol without TLS, have reports of 600 packages, and take half a second to
//!    answer, ten times what a real one took: so the sensor's 20 seats are what is short. How many it held at once is
//!    asserted.
//!
//! 0 leaves a part out.
//!
//! Measured with 10,000 machines on two busy cores, x86-64 with glibc, without LTO: 14.5 MiB more than with no machine,
//! which is 1.1 times what the sensor has without (13.1 MiB), and 1.5 KB a machine, its entry among the sensor's
//! guests included; listing takes 1.4 s of CPU; then 0.3 % of a core without a change, 0.9 % with 20 changes a
//! second. How long the list takes is as much the API server's time as the sensor's: a debug build of it takes 40 s.
//!
//! Measured with guests that are asked, on the same two cores, which did other work too (load 6 to 8): at most 20 seats
//! at once and 40 dials in a second, each time.
//!
//! | Guests | Asked every | First report of each | Pulls a second | Change to sink: median, p99, worst | CPU | RSS |
//! |---|---|---|---|---|---|---|
//! | 1,000 | 60 s | after 30 s | 18.0 | 28.2, 58.0, 59.7 s | 3.9 % of a core, 2.2 ms a pull | 36.8 MiB |
//! | 10,000 | 300 s | after 298 s | 35.1 | 143.9, 286.5, 300.1 s | 6.0 % of a core, 1.7 ms a pull | 103.4 MiB |

#![allow(clippy::print_stdout, reason = "the numbers are the result")]
#![allow(unreachable_pub, reason = "one program")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a bench that cannot run has no result"
)]

mod discovery;
#[allow(
    dead_code,
    clippy::cast_possible_truncation,
    reason = "shared with other benches"
)]
#[path = "../fleet/guests.rs"]
mod guests;
mod objects;
#[path = "../support/process.rs"]
mod process;
mod pulls;
mod sensor;
#[path = "../../tests/it/support/mod.rs"]
#[allow(
    clippy::print_stderr,
    unused_imports,
    reason = "shared with the tests, which use the rest"
)]
mod support;

use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == "--simulate") {
        return guests::simulate(&args[at + 1..]);
    }
    let machines = setting("KUBE_MACHINES", 10_000);
    if machines > 0 {
        discovery::measure(machines);
    }
    let guests = setting("KUBE_GUESTS", 1000);
    if guests > 0 {
        let poll = setting("KUBE_POLL", 60);
        pulls::measure(guests, Duration::from_secs(poll.into()));
    }
}

fn setting(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap())
}
