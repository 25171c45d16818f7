//! Objects of KubeVirt, with those of their fields that are needed. `managedFields`, a third of their bytes, are
//! passed over while parsing.

use crate::kube::{KubeObject, ObjectMeta};
use serde::Deserialize;

/// A running virtual machine.
#[derive(Debug, Deserialize)]
pub(super) struct VirtualMachineInstance {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: InstanceSpec,
    #[serde(default)]
    pub(super) status: InstanceStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct InstanceSpec {
    pub(super) domain: Domain,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Domain {
    pub(super) devices: Devices,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Devices {
    #[serde(rename = "autoattachVSOCK")]
    pub(super) autoattach_vsock: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct InstanceStatus {
    pub(super) phase: String,
    pub(super) node_name: String,
    #[serde(rename = "VSOCKCID")]
    pub(super) vsock_cid: Option<u32>,
    pub(super) interfaces: Vec<Interface>,
    #[serde(rename = "guestOSInfo")]
    pub(super) guest_os: GuestOs,
    pub(super) conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Interface {
    pub(super) ip_address: String,
    pub(super) ip_addresses: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct GuestOs {
    pub(super) pretty_name: String,
    pub(super) kernel_release: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

/// A virtual machine, running or not.
#[derive(Debug, Deserialize)]
pub(super) struct VirtualMachine {
    pub(super) metadata: ObjectMeta,
}

impl KubeObject for VirtualMachineInstance {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl KubeObject for VirtualMachine {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl VirtualMachineInstance {
    /// UID of the VirtualMachine that it runs for: it stays when the machine starts anew. Its own where there is
    /// none.
    pub(super) fn machine_uid(&self) -> &str {
        let mut owners = self.metadata.owner_references.iter();
        let owner = owners.find(|owner| owner.controller && owner.kind == "VirtualMachine");
        owner.map_or(&self.metadata.uid, |owner| &owner.uid)
    }

    /// Whether its guest is stopped in the middle of what it does.
    pub(super) fn is_paused(&self) -> bool {
        let mut conditions = self.status.conditions.iter();
        conditions.any(|condition| condition.kind == "Paused" && condition.status == "True")
    }
}
