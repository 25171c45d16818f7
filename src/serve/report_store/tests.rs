//! Tests of the report store: what is kept, under which key, and after which damage.

use super::*;
use crate::clock::WallTime;
use crate::report::Package;

#[test]
fn equal_content_keeps_its_generation_and_other_content_gets_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, loaded) = open(&dir, "m");
    assert_eq!(loaded, None);
    assert_eq!(generation(record(&mut report_store, "a")), Some(1));
    assert_eq!(record(&mut report_store, "a"), Recorded::Same);
    assert_eq!(generation(record(&mut report_store, "b")), Some(2));
    assert_eq!(generation(record(&mut report_store, "a")), Some(3));
}

#[test]
fn a_restart_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    record(&mut report_store, "a");
    let epoch = report_store.epoch();
    drop(report_store);
    let (mut report_store, loaded) = open(&dir, "m");
    assert_eq!(report_store.epoch(), epoch);
    assert_eq!(loaded.unwrap().row.key.generation.get(), 1);
    assert_eq!(record(&mut report_store, "a"), Recorded::Same);
    assert_eq!(generation(record(&mut report_store, "b")), Some(2));
}

#[test]
fn a_renewed_epoch_begins_with_the_same_report_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    record(&mut report_store, "a");
    record(&mut report_store, "b");
    let before = report_store.newest.clone().unwrap();
    let row = report_store.renew(epoch()).unwrap().unwrap();
    assert_ne!(row.key.epoch, before.key.epoch);
    assert_eq!((row.key.generation.get(), row.digest), (1, before.digest));
    assert_eq!(record(&mut report_store, "b"), Recorded::Same);
    drop(report_store);
    let (mut report_store, loaded) = open(&dir, "m");
    assert_eq!(loaded.unwrap().row, row);
    assert_eq!(generation(record(&mut report_store, "c")), Some(2));
}

/// The loss: a sensor that is told other facts whenever an agent starts.
#[test]
fn facts_about_the_newest_scan_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    record(&mut report_store, "a");
    let report = Report {
        packages: vec![Package {
            name: "a".into(),
            ..Package::default()
        }],
        ..Report::default()
    };
    let other = scan(&[("provenance", "ok")]);
    let recorded = report_store.record(&report, Trigger::Scheduled, &other, epoch);
    assert_eq!(recorded.unwrap(), Recorded::Same);
    drop(report_store);
    let (_, loaded) = open(&dir, "m");
    assert_eq!(loaded.unwrap().row.scan_facts, other.facts);
}

#[test]
fn a_digest_of_another_form_takes_the_next_generation_with_the_same_content() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    record(&mut report_store, "a");
    report_store.newest.as_mut().unwrap().digest_form = 1;
    assert_eq!(generation(record(&mut report_store, "a")), Some(2));
    assert_eq!(record(&mut report_store, "a"), Recorded::Same);
}

#[test]
fn a_clone_begins_an_epoch_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "original");
    record(&mut report_store, "a");
    let epoch = report_store.epoch();
    drop(report_store);
    let (mut clone, loaded) = open(&dir, "clone");
    assert_ne!(clone.epoch(), epoch);
    assert_eq!(loaded, None);
    assert_eq!(generation(record(&mut clone, "a")), Some(1));
}

// The loss: a report of a machine that nobody knows, and all of it sent again.
#[test]
fn a_machine_id_that_cannot_be_read_is_the_one_from_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    record(&mut report_store, "a");
    let (epoch_before, guest_id) = (report_store.epoch(), report_store.guest_id().cloned());
    drop(report_store);
    let opened = ReportStore::open(dir.path(), Limits::default(), Machine::Unreadable, epoch);
    let (report_store, loaded) = opened.unwrap();
    assert_eq!(report_store.epoch(), epoch_before);
    assert_eq!(report_store.guest_id(), guest_id.as_ref());
    assert!(loaded.is_some());
}

#[test]
fn a_damaged_file_is_kept_aside_and_a_new_epoch_begins() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    record(&mut report_store, "a");
    let epoch = report_store.epoch();
    drop(report_store);
    std::fs::write(dir.path().join(FILE), b"garbage").unwrap();
    let (mut report_store, loaded) = open(&dir, "m");
    assert!(loaded.is_none() && report_store.moved_aside().is_some());
    assert_ne!(report_store.epoch(), epoch);
    assert_eq!(generation(record(&mut report_store, "a")), Some(1));
}

// The loss: an agent that reports nothing until somebody restarts it.
#[test]
fn a_file_that_is_damaged_while_it_is_used_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    // Longer than what redb keeps in memory.
    let long = |_| Package {
        name: std::iter::repeat_with(fastrand::alphanumeric)
            .take(100)
            .collect(),
        ..Package::default()
    };
    let mut report = Report {
        packages: (0..40_000).map(long).collect(),
        ..Report::default()
    };
    report.normalize();
    let record = |report_store: &mut ReportStore, report: &Report| {
        report_store.record(report, Trigger::Reactive, &scan(&[]), epoch)
    };
    record(&mut report_store, &report).unwrap();
    let before = report_store.epoch();
    let path = dir.path().join(FILE);
    let length = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let garbage = vec![7; usize::try_from(length).unwrap() - 4096];
    std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 4096).unwrap();
    report.packages.truncate(20_000);
    record(&mut report_store, &report).unwrap_err();
    let recorded = record(&mut report_store, &report).unwrap();
    assert_eq!(generation(recorded), Some(1));
    assert_ne!(report_store.epoch(), before);
    assert!(report_store.moved_aside().is_some());
}

#[test]
fn without_a_state_directory_reports_are_kept_in_memory_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let blocked = dir.path().join("state");
    std::fs::write(&blocked, "a file where the directory should be").unwrap();
    let (mut report_store, _) =
        ReportStore::open(&blocked, Limits::default(), Machine::Known(None), epoch).unwrap();
    assert_eq!(generation(record(&mut report_store, "a")), Some(1));
    assert!(!report_store.is_durable());
    let in_memory = report_store.epoch();
    std::fs::remove_file(&blocked).unwrap();
    assert_eq!(record(&mut report_store, "a"), Recorded::Same);
    assert!(report_store.is_durable());
    drop(report_store);
    let (report_store, loaded) =
        ReportStore::open(&blocked, Limits::default(), Machine::Known(None), epoch).unwrap();
    assert_eq!(report_store.epoch(), in_memory);
    assert_eq!(loaded.unwrap().row.key.generation.get(), 1);
}

// The loss: a key that comes again with other content, or a wrong byte that is served.
#[test]
fn a_flipped_bit_anywhere_gives_the_newest_report_or_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let (mut report_store, _) = open(&dir, "m");
    for package in ["a", "b", "c", "d"] {
        record(&mut report_store, package);
    }
    let written = report_store.newest.clone().unwrap();
    drop(report_store);
    let whole = std::fs::read(dir.path().join(FILE)).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    // redb's header, all of the byte that says which of its two halves counts, then the rest.
    let which_half = (0..8).map(|bit| (9, bit));
    let header = (0..60).map(|_| (fastrand::usize(..320), fastrand::u8(..8)));
    let used: Vec<usize> = (320..whole.len()).filter(|at| whole[*at] != 0).collect();
    let rest = (0..60).map(|_| (used[fastrand::usize(..used.len())], fastrand::u8(..8)));
    let bits = which_half.chain(header).chain(rest);
    let (mut kept, mut anew) = (0, 0);
    for (at, bit) in bits {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << bit;
        std::fs::write(scratch.path().join(FILE), damaged).unwrap();
        let Ok((report_store, loaded)) = open_at(scratch.path(), "m") else {
            panic!("bit {bit} of byte {at}: it does not start");
        };
        match loaded {
            Some(loaded) => {
                assert_eq!(loaded.row, written, "bit {bit} of byte {at}");
                kept += 1;
            }
            None => {
                assert_ne!(
                    report_store.epoch(),
                    written.key.epoch.unwrap(),
                    "bit {bit} of byte {at}"
                );
                anew += 1;
            }
        }
        drop(report_store);
        for entry in std::fs::read_dir(scratch.path()).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    assert!(kept > 0 && anew > 0, "{kept} kept, {anew} begun anew");
}

fn open(dir: &tempfile::TempDir, machine: &str) -> (ReportStore, Option<StoredReport>) {
    open_at(dir.path(), machine).unwrap()
}

fn open_at(dir: &Path, machine: &str) -> Result<(ReportStore, Option<StoredReport>), StoreError> {
    let machine = Machine::Known(Some(GuestId::of_machine(machine)));
    ReportStore::open(dir, Limits::default(), machine, epoch)
}

fn epoch() -> Epoch {
    Epoch::new(fastrand::u32(1..)).unwrap()
}

fn record(report_store: &mut ReportStore, package: &str) -> Recorded {
    let report = Report {
        packages: vec![Package {
            name: package.into(),
            ..Package::default()
        }],
        ..Report::default()
    };
    report_store
        .record(&report, Trigger::Reactive, &scan(&[]), epoch)
        .unwrap()
}

fn scan(facts: &[(&str, &str)]) -> Scan {
    Scan {
        at: WallTime::from_unix_ms(1),
        facts: facts
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        mapping: None,
    }
}

fn generation(recorded: Recorded) -> Option<u32> {
    match recorded {
        Recorded::New(stored) => Some(stored.row.key.generation.get()),
        Recorded::Same => None,
    }
}
