//! What the policy of the pending queue costs, with ten thousand guests: time of each operation.
//!
//! `cargo bench --bench queue_policy`. What the policy brings is asserted in `tests/it/queue_policy.rs`.

#![allow(clippy::print_stdout, reason = "the table is the result")]

use afferent::clock;
use afferent::report::{Epoch, Generation, Report, ReportKey, Trigger, VmId};
use afferent::sense::queue::policy::{QueuePolicy, Rate};
use afferent::sense::queue::queue::{Queue, Selection};
use afferent::sense::queue::slot::{Class, Nack};
use afferent::sense::queue::table::DocumentId;
use std::time::{Duration, Instant};

const GUESTS: u32 = 10_000;
const ROUNDS: u32 = 20;

/// Time that an operation took, and how often it was done.
#[derive(Default)]
struct Cost {
    time: Duration,
    count: u32,
}

impl Cost {
    fn of<T>(&mut self, operation: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = operation();
        self.time += start.elapsed();
        self.count += 1;
        done
    }

    fn print(&self, name: &str) {
        let each = self.time.as_nanos() / u128::from(self.count.max(1));
        println!("{name:<10} {each:>6} ns, {} times", self.count);
    }
}

fn main() {
    let start = clock::now();
    let rate = Rate {
        per_second: 1e6,
        burst: 1e6,
        reserve: 1e6 * Rate::RESERVE,
    };
    let policy = QueuePolicy {
        rate: Some(rate),
        ..QueuePolicy::default()
    };
    let vms: Vec<VmId> = (0..GUESTS)
        .map(|n| format!("vm-{n}").parse().expect("a VM id"))
        .collect();
    let mut queue = Queue::new(policy, start);
    let [mut admit, mut select, mut ack, mut nack] = [(); 4].map(|()| Cost::default());
    for round in 1..=ROUNDS {
        let now = start + Duration::from_secs(3600) * round;
        for (n, vm) in (0..).zip(&vms) {
            let (trigger, class) = match n % 10 {
                0 => (Trigger::Reactive, Class::Reactive),
                _ => (Trigger::Scheduled, Class::Routine),
            };
            admit.of(|| {
                let arrival = queue.admit(vm, document(round), trigger, class, now);
                queue.enqueue(vm, arrival);
            });
        }
        let mut sent = 0_u32;
        while let Selection::Send(vm, _) = select.of(|| queue.select(now)) {
            let report = queue.slot(&vm).expect("it was sent").report;
            sent += 1;
            match sent % 100 {
                0 => nack.of(|| queue.nack(&vm, report, Nack::Refused, now, 0.5)),
                _ => ack.of(|| queue.ack(&vm, report)),
            };
        }
        assert!(
            sent >= GUESTS,
            "{sent} of {GUESTS} were sent in round {round}"
        );
    }
    println!("{GUESTS} guests, {ROUNDS} rounds");
    admit.print("admit");
    select.print("select");
    ack.print("ack");
    nack.print("nack");
}

fn document(generation: u32) -> DocumentId {
    DocumentId {
        key: ReportKey {
            epoch: Epoch::new(1),
            generation: Generation::new(generation).expect("not 0"),
        },
        digest: Report::default().digest(),
        facts: None,
    }
}
