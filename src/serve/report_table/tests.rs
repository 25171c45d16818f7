//! Tests of the tables, and the bytes of every version of their rows.

use super::*;
use crate::report::{Distribution, Generation, Origin, Package, Repository};
use redb::ReadableTable;
use std::fmt::Write;

#[test]
fn a_report_is_there_after_a_restart_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let stored = sample(3, 5000);
    {
        let store = open(&dir);
        assert_eq!(load(&store).unwrap(), (None, None));
        begin_epoch(&store, &identity()).unwrap();
        replace(&store, &sample(2, 1)).unwrap();
        replace(&store, &stored).unwrap();
    }
    assert_eq!(load(&open(&dir)).unwrap(), (Some(identity()), Some(stored)));
}

#[test]
fn a_new_epoch_forgets_the_report_of_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    replace(&store, &sample(1, 3)).unwrap();
    begin_epoch(&store, &identity()).unwrap();
    assert_eq!(load(&store).unwrap(), (Some(identity()), None));
}

#[test]
fn a_damaged_chunk_is_never_read_as_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    replace(&store, &sample(1, 3000)).unwrap();
    store
        .write(|tx| {
            let mut chunks = tx.open_table(BLOBS.chunks)?;
            let mut bytes = chunks.get((NEWEST, 0))?.unwrap().value().to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            chunks.insert((NEWEST, 0), bytes.as_slice())?;
            Ok(())
        })
        .unwrap();
    assert!(load(&store).unwrap_err().is_corrupt());
}

fn open(dir: &tempfile::TempDir) -> Store {
    Store::open(dir.path(), "serve.redb", 1 << 20)
        .unwrap()
        .store
}

fn identity() -> Identity {
    Identity {
        epoch: Epoch::new(77).unwrap(),
        guest_id: Some(GuestId::of_machine("m")),
    }
}

fn sample(generation: u32, packages: usize) -> StoredReport {
    let mut report = Report {
        packages: (0..packages)
            .map(|n| Package {
                name: format!("package-{}", n * 7919 % 100_003),
                ..Package::default()
            })
            .collect(),
        ..Report::default()
    };
    report.normalize();
    StoredReport {
        row: ReportRow {
            key: ReportKey {
                epoch: Epoch::new(77),
                generation: Generation::new(generation).unwrap(),
            },
            digest: report.digest(),
            digest_form: DIGEST_FORM,
            trigger: Trigger::Reactive,
            generated_at: WallTime::from_unix_ms(5),
            scan_facts: Facts::new(),
            mapping: Some(MappingHash::of(b"m")),
        },
        report,
    }
}

/// A row in hex, as a short text to compare with.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |c: u8| u8::try_from(char::from(c).to_digit(16).unwrap()).unwrap();
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs.map(|p| digit(p[0]) << 4 | digit(p[1])).collect()
}

fn digest() -> Digest {
    Digest::try_from(&[7; 32][..]).unwrap()
}

fn key() -> ReportKey {
    ReportKey {
        epoch: Epoch::new(77),
        generation: Generation::new(12).unwrap(),
    }
}

/// What version 0.1 wrote: every later program must go on reading it.
#[test]
fn a_report_of_the_first_version_is_read() {
    let row = [
        1, 1, 1, b'a', 0, 0, 0, 0, 0, 0, 1, 1, b'b', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, b'k', 1,
        b'v',
    ];
    let report = Report {
        packages: vec![Package {
            name: "a".into(),
            origin: Origin::Repository("b".into()),
            ..Package::default()
        }],
        facts: Facts::from([("k".into(), "v".into())]),
        ..Report::default()
    };
    assert_eq!(codec::decode::<Report>(&row).unwrap(), report);
}

/// The second version did not know with which mapping the report was made.
#[test]
fn a_report_row_of_the_second_version_is_read() {
    let row =
        "02014d0c070707070707070707070707070707070707070707070707070707070707070702010101016b0176";
    let read = codec::decode::<ReportRow>(&bytes(row)).unwrap();
    assert_eq!((read.key, read.digest_form, read.mapping), (key(), 2, None));
    assert_eq!(read.scan_facts["k"], "v");
}

/// Whoever adds a field in place finds that this fails: see the head of `store/row.rs`.
#[test]
fn the_bytes_of_the_newest_versions_never_change() {
    let package = Package {
        name: "a".into(),
        vendor: Some("v".into()),
        license: Some("l".into()),
        origin: Origin::Repository("b".into()),
        ..Package::default()
    };
    let report = Report {
        packages: vec![package, Package::default()],
        distribution: Distribution::default(),
        repositories: vec![Repository::default()],
        package_db: "d".into(),
        facts: Facts::new(),
    };
    let row = ReportRow {
        key: key(),
        digest: digest(),
        digest_form: 2,
        trigger: Trigger::Scheduled,
        generated_at: WallTime::from_unix_ms(1),
        scan_facts: Facts::from([("k".into(), "v".into())]),
        mapping: None,
    };
    let written = [
        hex(&codec::encode(&report).unwrap()),
        hex(&codec::encode(&row).unwrap()),
    ];
    let expected = [
        "0202016100000000000001017601016c0201620000000000000000000000000000000000000100000000016400",
        "03014d0c070707070707070707070707070707070707070707070707070707070707070702010101016b017600",
    ];
    assert_eq!(written, expected.map(str::to_owned));
    assert_eq!(
        codec::decode::<Report>(&bytes(expected[0])).unwrap(),
        report
    );
    assert_eq!(
        codec::decode::<ReportRow>(&bytes(expected[1])).unwrap(),
        row
    );
}
