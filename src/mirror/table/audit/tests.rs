//! The log: packs, rows of the first version, removals, damage.

use super::*;
use crate::inventory::Row as InventoryRow;
use crate::mirror::table::{Ending, Fault, View};
use crate::store::Store;
use uuid::Uuid;

fn row(n: usize) -> AuditRow {
    AuditRow {
        kind: "Compute".into(),
        table: "component".into(),
        op: "insert".into(),
        row: n.to_string(),
        key: format!("M/{n}"),
        field: None,
        old: None,
        new: Some(format!(r#"{{"id":"{n}","type":"Compute"}}"#)),
        reason: "Core lists it".into(),
    }
}

fn run(n: u128) -> AuditRun {
    AuditRun {
        id: Uuid::from_u128(n),
        time: "t".into(),
        source: "test".into(),
    }
}

fn all(store: &Store, from: u64) -> Vec<(u64, String)> {
    let mut rows = Vec::new();
    let read = |view: &View| {
        view.audit_rows(from, |number, _, row| {
            rows.push((number, row.into_row()?.row));
            Ok(true)
        })
    };
    store.snapshot().unwrap().view(read).unwrap();
    rows
}

fn write(store: &Store, run: &AuditRun, rows: std::ops::Range<usize>) {
    let rows: Vec<AuditRow> = rows.map(row).collect();
    let written = store.inventory(|tables| Ok((tables.audit(run, rows)?, Ending::Commit)));
    written.unwrap();
}

/// Rows as version 0.1 wrote them, which were one by one.
fn of_the_first_version(store: &Store, rows: std::ops::Range<u64>) {
    let written = store.write(|tx| {
        tx.open_table(RUNS)?
            .insert(0, encode(&run(1))?.as_slice())?;
        let mut table = tx.open_table(ROWS)?;
        for n in rows {
            let row = row(usize::try_from(n).unwrap());
            table.insert(n, encode_version(1, &(0_u64, row))?.as_slice())?;
        }
        Ok(())
    });
    written.unwrap();
}

/// Whoever adds a field in place finds that this fails: see `row.rs`.
#[test]
fn the_bytes_of_rows_that_are_not_packed_never_change() {
    let row = AuditRow {
        kind: "k".into(),
        table: "t".into(),
        op: "o".into(),
        row: "r".into(),
        key: String::new(),
        field: None,
        old: None,
        new: Some("n".into()),
        reason: "".into(),
    };
    let chunk = AuditChunk::new(3, &[(0, row.clone().into())]).unwrap();
    // Version, run, distance of the last row, not packed, length; version, count, distance, whole, fields.
    let expected =
        b"\x03\x03\x00\x00\x13\x02\x01\x00\x00\x01k\x01t\x01o\x01r\x00\x00\x00\x01\x01n\x00";
    assert_eq!(encode(&chunk).unwrap(), expected);
    assert_eq!(decode::<AuditChunk<'_>>(expected).unwrap(), chunk);
    // The same of the second version.
    let second = b"\x02\x03\x00\x00\x12\x01\x01\x00\x01k\x01t\x01o\x01r\x00\x00\x00\x01\x01n\x00";
    let second = decode::<AuditChunk<'_>>(second).unwrap();
    assert_eq!(second.run, 3);
    assert_eq!(second.rows().unwrap(), [(0, row)]);
}

/// The loss: a log that says something else of a row that came than of the same row as a text.
#[test]
fn a_row_that_came_reads_as_its_text() {
    let columns = serde_json::json!({"id": "6c1a0a3e-0000-4000-8000-000000000001", "type": "Compute", "slot_id": 7,
        "manufacturer": "M", "serial_number": "S \"1\"", "description": {"a": 1}, "leak_status": "NONE"});
    let component = crate::inventory::Component::from_columns(columns).unwrap();
    let row = InventoryRow::Component(Box::new(component));
    let came = StoredAuditRow::came("Compute", "insert", "Core lists it", &row).unwrap();
    let expected = AuditRow {
        kind: "Compute".into(),
        table: "component".into(),
        op: "insert".into(),
        row: "6c1a0a3e-0000-4000-8000-000000000001".into(),
        key: "M/S \"1\"".into(),
        field: None,
        old: None,
        new: Some(row.text()),
        reason: "Core lists it".into(),
    };
    let chunk = AuditChunk::new(1, &[(0, came), (1, expected.clone().into())]).unwrap();
    let bytes = encode(&chunk).unwrap();
    let read = decode::<AuditChunk<'_>>(&bytes).unwrap();
    assert_eq!(read.rows().unwrap(), [(0, expected.clone()), (1, expected)]);
}

/// The loss: a log that begins anew, or lies, because the program that reads it is newer.
#[test]
fn rows_of_the_first_version_are_read_continued_and_packed() {
    let store = Store::in_memory().unwrap();
    of_the_first_version(&store, 0..1200);
    let expected = |range: std::ops::Range<u64>| -> Vec<(u64, String)> {
        range.map(|n| (n, n.to_string())).collect()
    };
    assert_eq!(all(&store, 0), expected(0..1200));
    write(&store, &run(2), 1200..1800);
    assert_eq!(all(&store, 0), expected(0..1800));
    let heads = |store: &Store| {
        let heads = store.snapshot().unwrap().view(|view| view.audit_heads());
        heads.unwrap()
    };
    let bytes = |store: &Store| heads(store).iter().map(|head| head.bytes).sum::<u64>();
    let before = bytes(&store);
    let packed = store.inventory(|tables| Ok((tables.pack_audit()?, Ending::Commit)));
    assert_eq!(packed.unwrap(), 1197);
    assert_eq!(heads(&store).len(), 5);
    assert!(bytes(&store) * 5 < before, "{} of {before}", bytes(&store));
    for from in [0, 1, 499, 500, 1199, 1200, 1799] {
        assert_eq!(all(&store, from), expected(from..1800));
    }
    let again = store.inventory(|tables| Ok((tables.pack_audit()?, Ending::Discard)));
    assert_eq!(again.unwrap(), 0);
}

#[test]
fn numbers_go_on_growing_after_a_removal() {
    let store = Store::in_memory().unwrap();
    write(&store, &run(1), 0..700);
    let removed = store.inventory(|tables| {
        let keep = |number: u64, _: &AuditRow| number.is_multiple_of(100);
        Ok((tables.remove_audit(u64::MAX, keep)?, Ending::Commit))
    });
    // The last row stays as well.
    assert_eq!(removed.unwrap(), 692);
    let numbers = || all(&store, 0).into_iter().map(|(number, _)| number);
    let left = [0, 100, 200, 300, 400, 500, 600, 699];
    assert_eq!(numbers().collect::<Vec<_>>(), left);
    write(&store, &run(2), 700..702);
    assert_eq!(numbers().skip(8).collect::<Vec<_>>(), [700, 701]);
}

#[test]
fn a_pack_that_is_damaged_is_an_error_and_no_panic() {
    let store = Store::in_memory().unwrap();
    write(&store, &run(1), 0..300);
    let damaged = store.write(|tx| {
        let mut table = tx.open_table(ROWS)?;
        let mut bytes = table.get(0)?.map(|value| value.value().to_vec()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(0xa5);
        table.insert(0, bytes.as_slice())?;
        Ok(())
    });
    damaged.unwrap();
    let read = |view: &View| {
        view.audit_rows(0, |_, _, _| Ok(true))?;
        Ok::<_, Fault>(())
    };
    assert!(store.snapshot().unwrap().view(read).is_err());
}
