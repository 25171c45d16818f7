//! A device as it was observed.

use super::super::page::{IdText, NumberText};
use serde::Deserialize;

/// One observed machine, switch or shelf, in either dialect.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Runtime id.
    #[serde(alias = "machine_id", alias = "machineId")]
    id: Option<IdText>,
    /// `HOST` or `DPU`; a host when it is not said.
    #[serde(rename = "type", alias = "machine_type", alias = "machineType")]
    kind: Option<String>,
    #[serde(
        alias = "serial_number",
        alias = "serialNumber",
        alias = "chassis_serial",
        alias = "chassisSerial",
        alias = "chassis_serial_number",
        alias = "chassisSerialNumber"
    )]
    serial: Option<String>,
    #[serde(alias = "bmcMac", alias = "bmc_mac_address", alias = "bmcMacAddress")]
    bmc_mac: Option<String>,
    #[serde(alias = "bmcIp", alias = "bmc_ip_address", alias = "bmcIpAddress")]
    bmc_ip: Option<String>,
    #[serde(alias = "powerState")]
    power_state: Option<String>,
    #[serde(alias = "firmwareVersion")]
    firmware_version: Option<String>,
    position: Option<DevicePosition>,
    #[serde(alias = "associatedDpuMachineIds")]
    associated_dpu_machine_ids: Option<Vec<IdText>>,
    metadata: Option<Metadata>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(alias = "bmcInfo")]
    bmc_info: Option<BmcInfo>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct BmcInfo {
    mac: Option<String>,
    ip: Option<String>,
    version: Option<String>,
}

/// Where a device was found.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DevicePosition {
    /// Machine it is about, where positions come in a list of their own.
    #[serde(alias = "machineId", alias = "id")]
    pub(super) machine_id: Option<IdText>,
    #[serde(alias = "physicalSlotNumber")]
    physical_slot_number: Option<NumberText>,
    #[serde(alias = "computeTrayIndex")]
    compute_tray_index: Option<NumberText>,
    #[serde(alias = "topologyId")]
    topology_id: Option<NumberText>,
}

fn text(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

impl Device {
    /// Runtime id.
    pub fn id(&self) -> Option<&str> {
        text(self.id.as_ref().map(|id| &id.0))
    }

    /// Whether it is a DPU within a machine.
    pub fn is_dpu(&self) -> bool {
        text(self.kind.as_ref()).is_some_and(|kind| kind.eq_ignore_ascii_case("dpu"))
    }

    /// Serial number of the chassis.
    pub fn serial(&self) -> Option<&str> {
        text(self.serial.as_ref())
    }

    fn bmc_info(&self) -> Option<&BmcInfo> {
        self.metadata.as_ref()?.bmc_info.as_ref()
    }

    /// Address of its BMC, as it was written.
    pub fn bmc_mac(&self) -> Option<&str> {
        let inner = self.bmc_info().and_then(|info| info.mac.as_ref());
        text(self.bmc_mac.as_ref()).or(text(inner))
    }

    /// Where its BMC answers, as it was written.
    pub fn bmc_ip(&self) -> Option<&str> {
        let inner = self.bmc_info().and_then(|info| info.ip.as_ref());
        text(self.bmc_ip.as_ref()).or(text(inner))
    }

    /// Whether it runs.
    pub fn power_state(&self) -> Option<&str> {
        text(self.power_state.as_ref())
    }

    /// Firmware of the BMC.
    pub fn firmware_version(&self) -> Option<&str> {
        let inner = self.bmc_info().and_then(|info| info.version.as_ref());
        text(self.firmware_version.as_ref()).or(text(inner))
    }

    /// Ids of the DPUs in it; `None` when nothing was said about DPUs.
    pub fn dpus(&self) -> Option<impl Iterator<Item = &str>> {
        let dpus = self.associated_dpu_machine_ids.as_ref()?;
        Some(dpus.iter().map(|id| id.0.as_str()))
    }

    /// Whether anything was said about where it is.
    pub fn is_placed(&self) -> bool {
        self.position.is_some()
    }

    /// Slot, tray and host it was found at; what is no integer was not found.
    pub fn positions(&self) -> [Option<i64>; 3] {
        let Some(position) = &self.position else {
            return [None; 3];
        };
        [
            &position.physical_slot_number,
            &position.compute_tray_index,
            &position.topology_id,
        ]
        .map(|number| number.as_ref()?.0.parse().ok())
    }

    /// Says where it was found, unless that is known.
    pub(super) fn set_position(&mut self, position: DevicePosition) {
        self.position.get_or_insert(position);
    }
}
