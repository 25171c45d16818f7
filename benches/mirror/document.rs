//! The document that a synthetic Core answers with, the same for every bench of the mirror.

use std::fmt::Write as _;

/// The step in which one in a hundred machines has another name.
const CHANGE: usize = 3;

/// Name of machine `n` in a step: one in a hundred changes in the last.
fn name(n: usize, step: usize) -> String {
    if step == CHANGE && n.is_multiple_of(100) {
        format!("renamed-{n}")
    } else {
        format!("node-{n}")
    }
}

fn mac(n: usize) -> String {
    format!(
        "02:00:60:{:02x}:{:02x}:{:02x}",
        n >> 16,
        (n >> 8) & 255,
        n & 255
    )
}

/// What Core says in a step.
pub(crate) fn document((machines, racks): (usize, usize), step: usize) -> String {
    let mut text = String::from("{\"expected_racks\":[");
    for n in 0..racks {
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"rack_id":{{"id":"rack-{n}"}},"metadata":{{"name":"Rack {n}","labels":[{{"key":"chassis.manufacturer","value":"Quanta"}},{{"key":"chassis.serial-number","value":"QR-{n}"}},{{"key":"location.datacenter","value":"OSL1"}}]}}}}"#).unwrap();
    }
    text.push_str("],\"expected_machines\":[");
    for n in 0..machines {
        let comma = if n > 0 { "," } else { "" };
        write!(text, r#"{comma}{{"bmc_mac_address":"{}","bmc_ip_address":"10.{}.{}.{}","chassis_serial_number":"MC-{n}","rack_id":{{"id":"rack-{}"}},"metadata":{{"name":"{}","labels":[{{"key":"manufacturer","value":"Foxwell"}},{{"key":"model","value":"CT-2"}},{{"key":"slot_id","value":"{}"}},{{"key":"tray_idx","value":"{}"}},{{"key":"host_id","value":"0"}}]}}}}"#,
            mac(n), n >> 16, (n >> 8) & 255, n & 255, n % racks, name(n, step), n % 48, n % 4).unwrap();
    }
    text + "]}"
}
