//! Versions of the rows of the mirror: `store/row.rs` says how a row gets another one.

use super::v1;
use crate::inventory::{Bmc, Component, Domain, Drift, Rack, Row};
use crate::store::TxError;
use crate::store::codec::{CodecError, decode, encode_to, first_version, second_version};
use std::collections::HashSet;
use uuid::Uuid;

first_version!(Bmc, Drift, Domain);

second_version!(
    Rack: v1::Rack,
    Component: v1::Component,
);

/// The bytes of a row.
pub(super) fn encode_row(row: &Row) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    encode_row_to(row, &mut bytes)?;
    Ok(bytes)
}

/// The same, in place of what is in `bytes`.
pub(super) fn encode_row_to(row: &Row, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
    match row {
        Row::Rack(row) => encode_to(row.as_ref(), bytes),
        Row::Component(row) => encode_to(row.as_ref(), bytes),
        Row::Bmc(row) => encode_to(row.as_ref(), bytes),
        Row::Drift(row) => encode_to(row.as_ref(), bytes),
        Row::Domain(row) => encode_to(row.as_ref(), bytes),
    }
}

/// The row of a table, named as in a dump, with these bytes.
pub(super) fn decode_row(table: &str, bytes: &[u8]) -> Result<Row, TxError> {
    Ok(match table {
        "rack" => Row::Rack(Box::new(decode(bytes)?)),
        "component" => Row::Component(Box::new(decode(bytes)?)),
        "bmc" => Row::Bmc(Box::new(decode(bytes)?)),
        "component_drift" => Row::Drift(Box::new(decode(bytes)?)),
        "nvldomain" => Row::Domain(Box::new(decode(bytes)?)),
        other => {
            let why = format!("a row of the unknown table {other:?}");
            return Err(TxError::Corrupt(why));
        }
    })
}

/// Whether one of `ids` may be among the bytes of a row, of whatever version: false is certain. Nothing is decoded.
pub(in crate::mirror) fn may_name(row: &[u8], ids: &HashSet<Uuid>) -> bool {
    // An id is its length and its bytes.
    row.windows(17).any(|bytes| match bytes {
        [16, id @ ..] => Uuid::from_slice(id).is_ok_and(|id| ids.contains(&id)),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec;

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
        let mut row = vec![1, 0x10];
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
        let mut row = vec![1, 0x10];
        row.extend(uuid::Uuid::parse_str(ROW_ID).unwrap().as_bytes());
        // The name; neither pair, external_id, description, location nor profile; a status; no times.
        row.extend([1, b'n', 0, 0, 0, 0, 0, 0, 3]);
        row.extend(b"new");
        row.extend([0; 3]);
        let read = codec::decode::<Rack>(&with_others(row, others)).unwrap();
        let columns = serde_json::json!({"id": ROW_ID, "name": "n", "nvldomain_id": "d-1", "ingested_at": "t"});
        assert_eq!(read, Rack::from_columns(columns).unwrap());
        assert_eq!(read.nvldomain_id.as_deref(), Some("d-1"));
        assert_eq!(
            codec::decode::<Rack>(&codec::encode(&read).unwrap()).unwrap(),
            read
        );
    }
}
