//! Objects of KubeVirt, as large as real ones.

use serde_json::{Value, json};

/// Namespace and name of a machine.
pub fn names(n: u32) -> (String, String) {
    (format!("team-{}", n % 40), format!("vm-{n:05}"))
}

/// A VirtualMachine.
pub fn machine(n: u32) -> Value {
    json!({"metadata": meta(n), "spec": {"runStrategy": "Always"}})
}

fn meta(n: u32) -> Value {
    let field = "f:spec\":{\"f:domain\":{\"f:devices\":{\"f:disks\":{},\"f:interfaces\":{}}}},";
    let (namespace, name) = names(n);
    json!({
        "name": name, "namespace": namespace,
        "labels": {"kubevirt.io/nodeName": format!("node-{}", n % 100), "app": "database"},
        "uid": uuid::Uuid::from_u128(u128::from(n) + 1).to_string(),
        "managedFields": [{"manager": "virt-controller", "operation": "Update", "apiVersion": "kubevirt.io/v1",
            "fieldsType": "FieldsV1", "fieldsV1": field.repeat(40)}],
    })
}

/// Its VirtualMachineInstance, with this address and with a VSOCK device or without.
pub fn instance(n: u32, address: &str, has_vsock: bool) -> Value {
    let mut meta = meta(n);
    meta["ownerReferences"] = json!([{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "name": meta["name"], "uid": meta["uid"], "controller": true, "blockOwnerDeletion": true}]);
    meta["uid"] = uuid::Uuid::from_u128((1 << 100) + u128::from(n))
        .to_string()
        .into();
    // What is in an object and not read.
    let volumes: Vec<Value> = (0..20)
        .map(|disk| json!({"name": format!("disk-{disk}"), "persistentVolumeClaim": {"claimName": format!("claim-{n}-{disk}"), "readOnly": false}, "size": "20Gi"}))
        .collect();
    json!({
        "metadata": meta,
        "spec": {"domain": {"devices": {"autoattachVSOCK": has_vsock}}, "volumes": volumes},
        "status": {"phase": "Running", "VSOCKCID": has_vsock.then_some(n + 3), "nodeName": format!("node-{}", n % 100), "volumeStatus": volumes,
            "interfaces": [{"name": "default", "ipAddress": address, "ipAddresses": [address, "fd00:10:244::17"]}],
            "guestOSInfo": {"id": "rhel", "prettyName": "Red Hat Enterprise Linux 9.4 (Plow)", "kernelRelease": "5.14.0-427.13.1.el9_4.x86_64"}},
    })
}
