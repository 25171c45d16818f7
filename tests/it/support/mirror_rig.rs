//! A mirror that answers for its inventory over HTTP, and cycles every second.

use super::eventually;
use super::mirror::Mirror;
use super::program::{Program, free_port};
use super::web::{TOKEN, Web, write_token};
use serde_json::{Value, json};

/// Racks of a site.
pub const RACKS: usize = 20;

/// Machines in racks whose names all say which version of the document they are from. One is observed in another
/// slot, most are not observed at all, and one device is expected nowhere.
pub fn document(version: usize, machines: usize) -> Value {
    let label = |key: &str, value: &str| json!({"key": key, "value": value});
    let rack = |n: usize| {
        json!({"rack_id": format!("r{n}"), "metadata": {"name": format!("v{version}-r{n}"), "labels": [
            label("chassis.manufacturer", "Q"), label("chassis.serial-number", &format!("RK-{n}"))]}})
    };
    let machine = |n: usize| {
        json!({"bmc_mac_address": format!("02:00:5e:71:{:02x}:{:02x}", n >> 8, n & 255), "chassis_serial_number": format!("MC-{n}"),
               "rack_id": format!("r{}", n % RACKS), "metadata": {"name": format!("v{version}-{n}"), "labels": [
                   label("manufacturer", "Foxwell"), label("slot_id", &(n / RACKS + 1).to_string()), label("tray_idx", "0")]}})
    };
    json!({"expected_racks": (0..RACKS).map(rack).collect::<Vec<_>>(),
           "expected_machines": (0..machines).map(machine).collect::<Vec<_>>(),
           "actual_machines": [
               {"id": "m-0", "chassis_serial": "MC-0", "placementInRack": {"slotNumber": 15, "trayIndex": 0}},
               {"id": "m-1", "chassis_serial": "MC-1", "placementInRack": {"slotNumber": 1, "trayIndex": 0}},
               {"id": "m-x", "chassis_serial": "MC-x"}]})
}

/// A mirror of such a site.
pub struct MirrorRig {
    pub mirror: Mirror,
    pub service: Program,
    pub web: Web,
    pub core: String,
}

impl MirrorRig {
    pub fn new(machines: usize) -> Self {
        let mirror = Mirror::new();
        let core = format!(
            "file:{}",
            mirror.file("core.json", &document(0, machines)).display()
        );
        write_token(&mirror.path("token"), TOKEN);
        let port = free_port();
        let service = start(&mirror, &core, &format!("127.0.0.1:{port}"));
        let rig = Self {
            mirror,
            service,
            web: Web::Tcp(port),
            core,
        };
        eventually("the first cycle", || {
            rig.web.connect().ok()?;
            (rig.data("/v1/status")["cycles"].as_u64()? > 0).then_some(())
        });
        // Rows are counted after the cycle has ended.
        eventually("the rows are counted", || {
            (rig.data("/v1/status")["rows"]["rack"] == json!({"live": RACKS})).then_some(())
        });
        rig
    }

    pub fn data(&self, target: &str) -> Value {
        self.web.data(target)
    }

    /// Puts another document in the place of the one that is read.
    pub fn publish(&self, document: &Value) {
        let next = self.mirror.file("next.json", document);
        std::fs::rename(next, self.mirror.path("core.json")).unwrap();
    }
}

/// A service that cycles every second.
pub fn start(mirror: &Mirror, core: &str, listen: &str) -> Program {
    let state = mirror.state().display().to_string();
    let token = mirror.path("token").display().to_string();
    Program::start(&[
        "mirror",
        "run",
        "--core",
        core,
        "--state-dir",
        &state,
        "--interval",
        "1s",
        "--mirror-listen",
        listen,
        "--mirror-token-file",
        &token,
    ])
}
