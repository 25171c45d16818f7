//! Tests of the writer on a disk that refuses.

use super::*;
use crate::report::VmId;
use crate::sense::queue::table::GuestRow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// A disk that can be full, and what was written to it.
#[derive(Default)]
struct Disk {
    is_full: AtomicBool,
    attempts: AtomicUsize,
    written: Mutex<Vec<String>>,
}

impl Disk {
    fn write(&self, changes: Vec<PendingChange>) -> Written {
        self.attempts.fetch_add(1, Relaxed);
        if self.is_full.load(Relaxed) {
            return Written::Refused {
                error: "no space".into(),
                owed: changes,
            };
        }
        let names = changes.iter().map(|change| match change {
            PendingChange::Forget { vm } => vm.as_str().to_owned(),
            _ => "other".to_owned(),
        });
        self.written.lock().unwrap().extend(names);
        Written::Durable
    }

    fn start(self: &Arc<Self>) -> (StoreWriter, JoinHandle<()>) {
        let (jobs, inbox) = mpsc::unbounded_channel();
        let disk = self.clone();
        let writer = Writer {
            write: Arc::new(move |changes| disk.write(changes)),
            blocking: Blocking::Inline,
            on_loss: Box::new(|| ()),
            owed: None,
            last_refusal: Arc::default(),
        };
        let last_refusal = writer.last_refusal.clone();
        (
            StoreWriter { jobs, last_refusal },
            tokio::spawn(writer.run(inbox)),
        )
    }
}

fn forget(n: usize) -> PendingChange {
    let vm: VmId = format!("vm-{n}").parse().unwrap();
    PendingChange::Forget { vm }
}

/// A change that somebody waits for, as for a report.
fn learn() -> PendingChange {
    PendingChange::Learn {
        vm: "a".parse().unwrap(),
        guest: GuestRow::default(),
    }
}

/// Loss prevented: on a full disk every small change writes all that are owed again, 100,000 of them.
#[tokio::test(start_paused = true)]
async fn what_is_owed_is_tried_every_two_seconds_however_many_changes_come() {
    let disk = Arc::new(Disk::default());
    let (writer, task) = disk.start();
    disk.is_full.store(true, Relaxed);
    for n in 0..100 {
        writer.note(forget(n));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let refused = writer.write(learn()).await;
        assert_eq!(refused, Err(WriteError::Refused("no space".into())));
        assert_eq!(writer.trouble().as_deref(), Some("no space"));
    }
    // Ten seconds.
    let attempts = disk.attempts.load(Relaxed);
    assert!((4..=7).contains(&attempts), "{attempts}");
    disk.is_full.store(false, Relaxed);
    tokio::time::sleep(2 * OWED_RETRY).await;
    let written = disk.written.lock().unwrap().clone();
    let small: Vec<_> = written.iter().filter(|name| *name != "other").collect();
    assert_eq!(
        small,
        (0..100)
            .map(|n| format!("vm-{n}"))
            .collect::<Vec<_>>()
            .iter()
            .collect::<Vec<_>>()
    );
    assert_eq!(writer.write(learn()).await, Ok(()));
    assert_eq!(writer.trouble(), None);
    drop(writer);
    task.await.unwrap();
}

/// Loss prevented: an answer of Central that came just before the end of the process.
#[tokio::test(start_paused = true)]
async fn the_end_of_the_writer_waits_for_nothing_and_writes_what_is_owed() {
    let disk = Arc::new(Disk::default());
    let (writer, task) = disk.start();
    disk.is_full.store(true, Relaxed);
    writer.note(forget(1));
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    disk.is_full.store(false, Relaxed);
    writer.note(forget(2));
    drop(writer);
    let started = clock::now();
    task.await.unwrap();
    assert_eq!(*disk.written.lock().unwrap(), ["vm-1", "vm-2"]);
    assert!(clock::now() - started < OWED_RETRY);
}

/// Loss prevented: the sensor goes on without a writer, and nobody notices.
#[tokio::test]
async fn a_panic_of_the_store_ends_the_writer_and_whoever_waits_for_it() {
    let (jobs, inbox) = mpsc::unbounded_channel();
    let writer = Writer {
        write: Arc::new(|_| unreachable!("a fault")),
        blocking: Blocking::Inline,
        on_loss: Box::new(|| ()),
        owed: None,
        last_refusal: Arc::default(),
    };
    let last_refusal = writer.last_refusal.clone();
    let task = tokio::spawn(writer.run(inbox));
    let writer = StoreWriter { jobs, last_refusal };
    assert_eq!(writer.write(learn()).await, Err(WriteError::Stopping));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(writer.write(learn()).await, Err(WriteError::Stopping));
}
