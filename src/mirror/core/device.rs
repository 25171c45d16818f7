//! A device as it was observed, in either dialect.

use super::super::entry::quick::ListElement;
use super::super::entry::{IdText, NumberText};
use crate::inventory::Json;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One observed machine, switch or shelf.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// Runtime id.
    #[serde(alias = "machine_id", alias = "machineId")]
    id: Option<IdText>,
    /// Site the device belongs to.
    #[serde(alias = "siteId")]
    site_id: Option<IdText>,
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
    /// REST: absent, `null` (observed without a position), or a position.
    #[serde(alias = "placementInRack", deserialize_with = "present")]
    placement_in_rack: Option<Option<Placement>>,
    #[serde(alias = "associatedDpuMachineIds")]
    associated_dpu_machine_ids: Option<Vec<IdText>>,
    #[serde(alias = "isMissingOnSite")]
    is_missing_on_site: Option<bool>,
    /// Switches of the file dialect have an object here, which is not read.
    status: Option<Value>,
    #[serde(deserialize_with = "present")]
    health: Option<Option<Value>>,
    /// State of its controller, where it is not below `metadata`.
    #[serde(
        alias = "lifecycleState",
        alias = "controller_state",
        alias = "controllerState",
        alias = "operation_status",
        alias = "operationStatus"
    )]
    lifecycle_state: Option<Value>,
    /// Where the operating system of a switch answers.
    #[serde(alias = "nvosIp", alias = "nvos_ip_address", alias = "nvosIpAddress")]
    nvos_ip: Option<String>,
    metadata: Option<Metadata>,
    /// REST: `bmcInfo` of a DPU stands beside its id, not below `metadata`.
    #[serde(alias = "bmcInfo")]
    bmc_info: Option<BmcInfo>,
    /// The source cannot carry a host id, and a position only as `placementInRack`.
    #[serde(skip)]
    is_rest: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(alias = "bmcInfo")]
    bmc_info: Option<BmcInfo>,
    #[serde(alias = "lifecycleState")]
    lifecycle_state: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct BmcInfo {
    mac: Option<String>,
    ip: Option<String>,
    /// Not `version`, which is the revision of the BMC hardware.
    #[serde(alias = "firmwareRevision")]
    firmware_revision: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Placement {
    #[serde(alias = "slotNumber")]
    slot_number: Option<NumberText>,
    #[serde(alias = "trayIndex")]
    tray_index: Option<NumberText>,
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

impl ListElement for Device {}
impl ListElement for DevicePosition {}

/// One number of an observed position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedNumber {
    /// The source cannot carry it: it is never compared.
    NotCarried,
    /// The device was observed without any position.
    Unplaced,
    /// The device was observed at a position that lacks this number.
    Blank,
    /// This number.
    At(i64),
}

/// Tells `null` (`Some(None)`) from an absent member (`None`).
fn present<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

fn text(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

impl Device {
    /// Runtime id.
    pub fn id(&self) -> Option<&str> {
        text(self.id.as_ref().map(|id| id.0.as_str()))
    }

    /// Site the device belongs to.
    pub(super) fn site_id(&self) -> Option<&str> {
        text(self.site_id.as_ref().map(|id| id.0.as_str()))
    }

    /// Whether it is a DPU within a machine.
    pub fn is_dpu(&self) -> bool {
        text(self.kind.as_deref()).is_some_and(|kind| kind.eq_ignore_ascii_case("dpu"))
    }

    /// Whether the site no longer has it, although the list does.
    pub(super) fn is_missing_on_site(&self) -> bool {
        self.is_missing_on_site == Some(true)
    }

    /// Serial number of the chassis.
    pub fn serial(&self) -> Option<&str> {
        text(self.serial.as_deref())
    }

    fn bmc_info(&self) -> Option<&BmcInfo> {
        let inner = self.metadata.as_ref().and_then(|m| m.bmc_info.as_ref());
        inner.or(self.bmc_info.as_ref())
    }

    /// Address of its BMC, as it was written.
    pub fn bmc_mac(&self) -> Option<&str> {
        let inner = self.bmc_info().and_then(|info| info.mac.as_deref());
        text(self.bmc_mac.as_deref()).or(text(inner))
    }

    /// Where its BMC answers, as it was written.
    pub fn bmc_ip(&self) -> Option<&str> {
        let inner = self.bmc_info().and_then(|info| info.ip.as_deref());
        text(self.bmc_ip.as_deref()).or(text(inner))
    }

    /// Whether it runs.
    pub fn power_state(&self) -> Option<&str> {
        text(self.power_state.as_deref())
    }

    /// Firmware of the BMC.
    pub fn firmware_version(&self) -> Option<&str> {
        let inner = self.bmc_info().and_then(|i| i.firmware_revision.as_deref());
        text(self.firmware_version.as_deref()).or(text(inner))
    }

    /// Status, as Core names it.
    pub fn status(&self) -> Option<&str> {
        let status = self.status.as_ref().and_then(Value::as_str);
        status.filter(|status| !status.is_empty())
    }

    /// State of the machine's life cycle: text, or `{"value": text}`.
    pub fn lifecycle_state(&self) -> Option<&str> {
        let inner = self
            .metadata
            .as_ref()
            .and_then(|m| m.lifecycle_state.as_ref());
        let state = inner.or(self.lifecycle_state.as_ref())?;
        let state = state.as_str().or_else(|| state.get("value")?.as_str());
        state.filter(|state| !state.is_empty())
    }

    /// Where the operating system of a switch answers, as it was written.
    pub fn nvos_ip(&self) -> Option<&str> {
        text(self.nvos_ip.as_deref())
    }

    /// Health without what changes although nothing happens: times, and the order of lists.
    /// `None`: nothing was said of it; `Some(None)`: it is not known.
    pub fn health(&self) -> Option<Option<Json>> {
        let mut health = self.health.clone()?;
        if let Some(health) = &mut health {
            make_quiet(health);
        }
        Some(health.as_ref().map(Json::new))
    }

    /// Ids of the DPUs in it; `None` when nothing was said about DPUs.
    pub fn dpus(&self) -> Option<impl Iterator<Item = &str>> {
        let dpus = self.associated_dpu_machine_ids.as_ref()?;
        Some(dpus.iter().map(|id| id.0.as_str()))
    }

    /// Slot, tray and host it was found at; what is no integer was not found.
    pub fn positions(&self) -> [ObservedNumber; 3] {
        let number = |number: &Option<NumberText>| {
            let number = number.as_ref().and_then(|n| n.0.parse().ok());
            number.map_or(ObservedNumber::Blank, ObservedNumber::At)
        };
        let [slot, tray, host] = match (&self.position, &self.placement_in_rack) {
            (Some(position), _) => [
                number(&position.physical_slot_number),
                number(&position.compute_tray_index),
                number(&position.topology_id),
            ],
            (None, Some(Some(placement))) => [
                number(&placement.slot_number),
                number(&placement.tray_index),
                ObservedNumber::NotCarried,
            ],
            (None, None) if self.is_rest => [ObservedNumber::NotCarried; 3],
            (None, Some(None) | None) => [ObservedNumber::Unplaced; 3],
        };
        let host = if self.is_rest {
            ObservedNumber::NotCarried
        } else {
            host
        };
        [slot, tray, host]
    }

    /// Says where it was found, unless that is known.
    pub(super) fn set_position(&mut self, position: DevicePosition) {
        self.position.get_or_insert(position);
    }

    /// Notes that it came over REST, which cannot carry everything. DPUs are named there, but the
    /// list holds none: they were not asked for.
    pub(super) fn came_over_rest(&mut self) {
        self.is_rest = true;
    }

    /// Takes out the ids of the DPUs in it, as if nothing had been said about DPUs.
    pub(super) fn take_dpus(&mut self) -> Vec<IdText> {
        self.associated_dpu_machine_ids.take().unwrap_or_default()
    }

    /// Says which DPUs are in it.
    pub(super) fn set_dpus(&mut self, dpus: &[Self]) {
        let ids = dpus.iter().filter_map(|dpu| dpu.id.clone());
        self.associated_dpu_machine_ids = Some(ids.collect());
    }

    /// One that a list other than that of machines names.
    pub(super) fn over_rest(
        id: IdText,
        serial: Option<String>,
        bmc_mac: Option<String>,
        firmware_version: Option<String>,
    ) -> Self {
        Self {
            id: Some(id),
            serial,
            bmc_mac,
            firmware_version,
            is_rest: true,
            ..Self::default()
        }
    }

    /// Says whether it runs.
    pub(super) fn set_power_state(&mut self, state: String) {
        self.power_state = Some(state);
    }

    /// Notes that it is a DPU: the list it came in holds nothing else.
    pub(super) fn set_dpu(&mut self) {
        self.kind = Some("DPU".into());
    }
}

/// Takes out times, and puts lists of objects in an order of their own.
pub(super) fn make_quiet(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !is_time(member));
            members.values_mut().for_each(make_quiet);
        }
        Value::Array(elements) => {
            elements.iter_mut().for_each(make_quiet);
            if elements.iter().all(Value::is_object) {
                elements.sort_by_cached_key(Value::to_string);
            }
        }
        _ => {}
    }
}

/// An RFC 3339 time, as Go and proto3-JSON write it: `2026-11-26T10:00:00Z`, with or without a
/// fraction, or with an offset.
fn is_time(value: &Value) -> bool {
    let Some(text) = value.as_str() else {
        return false;
    };
    let pattern = "dddd-dd-ddTdd:dd:dd";
    let head = text.get(..pattern.len()).unwrap_or_default();
    let fits = |(c, p): (char, char)| if p == 'd' { c.is_ascii_digit() } else { c == p };
    let tail = text.get(pattern.len()..).unwrap_or_default();
    !head.is_empty()
        && head.chars().zip(pattern.chars()).all(fits)
        && tail
            .chars()
            .all(|c| c.is_ascii_digit() || ".Z+-:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ObservedNumber::{At, Blank, NotCarried, Unplaced};
    use serde_json::json;

    fn device(value: Value) -> Device {
        serde_json::from_value(value).unwrap()
    }

    fn over_rest(value: Value) -> Device {
        let mut device = device(value);
        device.came_over_rest();
        device
    }

    #[test]
    fn a_field_that_the_source_cannot_carry_is_told_from_one_that_is_not_there() {
        for (sent, read) in [
            (json!({}), [NotCarried; 3]),
            (
                json!({"placementInRack": null}),
                [Unplaced, Unplaced, NotCarried],
            ),
            (json!({"placementInRack": {}}), [Blank, Blank, NotCarried]),
            (
                json!({"placementInRack": {"slotNumber": 3, "trayIndex": null}}),
                [At(3), Blank, NotCarried],
            ),
        ] {
            assert_eq!(over_rest(sent.clone()).positions(), read, "{sent}");
        }
        assert_eq!(device(json!({})).positions(), [Unplaced; 3]);
        let position = json!({"position": {"physical_slot_number": "7", "topology_id": "x"}});
        assert_eq!(device(position).positions(), [At(7), Blank, Blank]);
    }

    #[test]
    fn the_revision_of_the_bmc_hardware_is_not_its_firmware() {
        let info = json!({"metadata": {"bmcInfo": {"version": "1", "firmwareRevision": "6.00"}}});
        assert_eq!(device(info).firmware_version(), Some("6.00"));
        let info = json!({"metadata": {"bmcInfo": {"version": "1"}}});
        assert_eq!(device(info).firmware_version(), None);
    }

    #[test]
    fn health_is_the_same_when_only_times_and_the_order_differ() {
        let health = |time: &str, probes: [&str; 2]| {
            let probes = probes.map(|id| json!({"id": id, "target": null, "inAlertSince": time}));
            let health = json!({"source": "aggregate", "observedAt": time, "observed_at": time, "alerts": probes});
            device(json!({"health": health})).health().unwrap().unwrap()
        };
        let first = health("2026-11-26T10:00:00Z", ["A", "B"]);
        assert_eq!(first, health("2026-11-27T01:02:03.5+01:00", ["B", "A"]));
        assert_ne!(first, health("2026-11-26T10:00:00Z", ["A", "C"]));
        let text = first.value().to_string();
        assert!(
            text.contains("aggregate") && !text.contains("2026"),
            "{text}"
        );
        assert_eq!(device(json!({})).health(), None);
        assert_eq!(device(json!({"health": null})).health(), Some(None));
    }

    #[test]
    fn a_life_cycle_state_is_text_or_an_object_with_a_value() {
        for state in [json!("Ready"), json!({"value": "Ready", "time": 5})] {
            let device = device(json!({"metadata": {"lifecycleState": state}}));
            assert_eq!(device.lifecycle_state(), Some("Ready"));
        }
        // A switch of the file dialect: what is not understood costs nothing else.
        let odd =
            device(json!({"id": "s", "status": {"power": 1}, "metadata": {"lifecycleState": 7}}));
        assert_eq!(
            (odd.id(), odd.status(), odd.lifecycle_state()),
            (Some("s"), None, None)
        );
    }
}
