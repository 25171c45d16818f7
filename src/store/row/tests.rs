//! The bytes of every version of a row that is no longer, or not only, the first.

use super::super::codec;
use super::*;
use crate::clock::WallTime;
use crate::report::{
    Digest, Distribution, Epoch, Facts, Generation, Origin, Package, ReportKey, Repository, Trigger,
};
use std::fmt::Write;

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

/// A row of a table of the mirror in its first version, ended by columns of other owners.
fn with_others(mut row: Vec<u8>, others: &str) -> Vec<u8> {
    row.extend([1, u8::try_from(others.len()).unwrap()]);
    row.extend(others.as_bytes());
    row
}

const ROW_ID: &str = "6c1a0a3e-0000-4000-8000-000000000001";

/// In the first version `status` and `health` were columns of other owners.
#[test]
fn a_component_of_the_first_version_keeps_its_status_and_health() {
    let others = r#"{"health":{"alerts":[]},"leak_status":"NONE","status":"Ready"}"#;
    let mut row = bytes("0110");
    row.extend(uuid::Uuid::parse_str(ROW_ID).unwrap().as_bytes());
    // Compute; neither name, model nor manufacturer; the serial number; no rack.
    row.extend([1, 0, 0, 0, 1, 1, b'S', 0]);
    // Positions 0; no runtime id, firmware, power state, description nor end.
    row.extend([0; 8]);
    let read = codec::decode::<Component>(&with_others(row, others)).unwrap();
    let columns = serde_json::json!({"id": ROW_ID, "type": "Compute", "serial_number": "S", "status": "Ready",
        "health": {"alerts": []}, "leak_status": "NONE"});
    assert_eq!(read, Component::from_columns(columns).unwrap());
    assert_eq!(read.status.as_deref(), Some("Ready"));
    let again = codec::encode(&read).unwrap();
    assert_eq!(again[0], 2);
    assert_eq!(codec::decode::<Component>(&again).unwrap(), read);
}

/// In the first version the domain of a rack was a column of another owner.
#[test]
fn a_rack_of_the_first_version_keeps_its_domain() {
    let others = r#"{"ingested_at":"t","nvldomain_id":"d-1"}"#;
    let mut row = bytes("0110");
    row.extend(uuid::Uuid::parse_str(ROW_ID).unwrap().as_bytes());
    // The name; neither pair, external_id, description, location nor profile; a status; no times.
    row.extend([1, b'n', 0, 0, 0, 0, 0, 0, 3]);
    row.extend(b"new");
    row.extend([0; 3]);
    let read = codec::decode::<Rack>(&with_others(row, others)).unwrap();
    let columns =
        serde_json::json!({"id": ROW_ID, "name": "n", "nvldomain_id": "d-1", "ingested_at": "t"});
    assert_eq!(read, Rack::from_columns(columns).unwrap());
    assert_eq!(read.nvldomain_id.as_deref(), Some("d-1"));
    assert_eq!(
        codec::decode::<Rack>(&codec::encode(&read).unwrap()).unwrap(),
        read
    );
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

#[test]
fn the_bytes_of_a_mapping_row_never_change() {
    let row = MappingRow {
        hash: "0123456789abcdef".parse().unwrap(),
        received_at: WallTime::from_unix_ms(1),
    };
    assert_eq!(hex(&codec::encode(&row).unwrap()), "01fdefcdab896745230101");
    assert_eq!(hex(&codec::encode(&"ab".to_owned()).unwrap()), "01026162");
}

/// Whoever adds a field in place finds that this fails: see the head of the module above.
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
