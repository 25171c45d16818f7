//! Tests of the guests of a cluster.

use super::super::kept::GRACE;
use super::*;
use crate::clock;
use crate::kube::{KubeError, KubeSource};
use serde_json::{Value, json};
use std::time::Duration;

const VM_UID: &str = "0c9d2b0e-7f4e-4a34-8a3c-9f4c3a5b1c11";
const OTHER_UID: &str = "5d1f6d62-0b7e-4c0f-9d59-0a2f6f0b2222";
const RUN: &str = "11111111-0b7e-4c0f-9d59-0a2f6f0b2222";
const NEXT_RUN: &str = "22222222-0b7e-4c0f-9d59-0a2f6f0b2222";

fn source(dialing: DialRoute) -> KubevirtSource {
    KubevirtSource {
        cluster: "prod".into(),
        namespace: None,
        node: (dialing == DialRoute::Node).then(|| "n1".into()),
        dialing,
        port: 818,
        api: KubeSource::InCluster,
    }
}

/// An instance as KubeVirt writes it, `managedFields` and all.
fn vmi(name: &str, machine: &str, run: &str, cid: u32) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name, "namespace": "shop", "uid": run, "resourceVersion": "7",
            "managedFields": [{"manager": "virt-handler", "fieldsV1": {"f:status": {}}}],
            "ownerReferences": [{"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "name": name,
                "uid": machine, "controller": true, "blockOwnerDeletion": true}],
        },
        "spec": {"domain": {"devices": {"autoattachVSOCK": true}}},
        "status": {
            "phase": "Running", "nodeName": "n1", "VSOCKCID": cid,
            "interfaces": [{"name": "default", "ipAddress": "10.0.0.7", "ipAddresses": ["10.0.0.7", "fd00::7"]}],
            "guestOSInfo": {"id": "rhel", "prettyName": "Red Hat Enterprise Linux 9.4", "kernelRelease": "5.14.0"},
        },
    })
}

fn vm(name: &str, uid: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "uid": uid, "resourceVersion": "5"}})
}

/// A cluster that was told these objects by complete lists.
fn cluster(dialing: DialRoute, instances: &[Value], machines: &[Value]) -> Cluster {
    let mut cluster = Cluster::new(source(dialing));
    list_instances(&mut cluster, instances, clock::now());
    let now = clock::now();
    cluster.take_machine(Told::Begun, now);
    for machine in machines {
        let machine = serde_json::from_value(machine.clone()).unwrap();
        cluster.take_machine(Told::Listed(machine), now);
    }
    cluster.take_machine(Told::Complete, now);
    cluster
}

fn list_instances(cluster: &mut Cluster, instances: &[Value], now: Instant) {
    cluster.take_instance(Told::Begun, now);
    for instance in instances {
        let instance = serde_json::from_value(instance.clone()).unwrap();
        cluster.take_instance(Told::Listed(instance), now);
    }
    cluster.take_instance(Told::Complete, now);
}

fn change(cluster: &mut Cluster, instance: Value) {
    let instance = serde_json::from_value(instance).unwrap();
    cluster.take_instance(Told::Changed(instance), clock::now());
}

fn delete(cluster: &mut Cluster, instance: Value, now: Instant) {
    let instance = serde_json::from_value(instance).unwrap();
    cluster.take_instance(Told::Deleted(instance), now);
}

/// The only guest.
fn guest(cluster: &mut Cluster) -> Arc<RosterEntry> {
    let entries = cluster.read(clock::now()).entries;
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries[0].clone()
}

#[test]
fn a_guest_is_its_virtual_machine_and_has_the_facts_of_its_instance() {
    let mut cluster = cluster(
        DialRoute::Api,
        &[vmi("web", VM_UID, RUN, 7)],
        &[vm("web", VM_UID)],
    );
    let reading = cluster.read(clock::now());
    assert!(reading.is_listed && reading.has_changed && reading.error.is_none());
    let guest = &reading.entries[0];
    assert_eq!(guest.vm.as_str(), "prod:shop:web");
    assert_eq!(guest.domain.unwrap().to_string(), VM_UID);
    assert_eq!(guest.address.to_string(), "kubevirt:shop/web");
    assert_eq!(guest.idle, None);
    let mut facts = crate::report::Facts::new();
    guest.facts.as_ref().unwrap().add_to(&mut facts);
    for (name, value) in [
        ("kubevirt.cid", "7"),
        ("kubevirt.node", "n1"),
        ("kubevirt.phase", "Running"),
        ("kubevirt.addresses", "10.0.0.7,fd00::7"),
        ("kubevirt.guest_os", "Red Hat Enterprise Linux 9.4"),
        ("kubevirt.guest_kernel", "5.14.0"),
    ] {
        assert_eq!(facts[name], value);
    }
    assert!(!cluster.read(clock::now()).has_changed);
}

#[test]
fn a_restart_keeps_the_identity_and_is_another_run_with_another_cid() {
    let mut cluster = cluster(DialRoute::Node, &[vmi("web", VM_UID, RUN, 7)], &[]);
    let before = guest(&mut cluster);
    assert_eq!(before.address.to_string(), "vsock:7:818");
    delete(&mut cluster, vmi("web", VM_UID, RUN, 7), clock::now());
    assert_eq!(guest(&mut cluster).idle, Some(Idle::Gone));
    change(&mut cluster, vmi("web", VM_UID, NEXT_RUN, u32::MAX));
    let after = guest(&mut cluster);
    assert_eq!(after.domain, before.domain);
    assert_eq!(after.address.to_string(), "vsock:4294967295:818");
    assert!(after.idle.is_none() && !after.is_reached_as(&before));
}

#[test]
fn a_migration_changes_a_fact_and_not_how_the_guest_is_reached() {
    let mut cluster = cluster(
        DialRoute::Api,
        &[vmi("web", VM_UID, RUN, 7)],
        &[vm("web", VM_UID)],
    );
    let before = guest(&mut cluster);
    let mut moved = vmi("web", VM_UID, RUN, 7);
    moved["status"]["nodeName"] = "n2".into();
    change(&mut cluster, moved);
    let after = guest(&mut cluster);
    assert!(after.is_reached_as(&before) && after != before);
    assert_eq!(&*after.facts.as_ref().unwrap().node, "n2");
}

#[test]
fn a_recreated_machine_is_another_and_the_last_run_of_the_old_one_is_not_its() {
    let mut cluster = cluster(
        DialRoute::Api,
        &[vmi("web", VM_UID, RUN, 7)],
        &[vm("web", VM_UID)],
    );
    let machine = serde_json::from_value(vm("web", OTHER_UID)).unwrap();
    cluster.take_machine(Told::Changed(machine), clock::now());
    let now = guest(&mut cluster);
    assert_eq!(now.domain.unwrap().to_string(), OTHER_UID);
    assert_eq!(now.idle, Some(Idle::Stopped));
    change(&mut cluster, vmi("web", OTHER_UID, NEXT_RUN, 8));
    assert_eq!(guest(&mut cluster).idle, None);
}

#[test]
fn a_stopped_machine_stays_and_is_not_asked() {
    let running = vmi("web", VM_UID, RUN, 7);
    let mut cluster = cluster(
        DialRoute::Api,
        std::slice::from_ref(&running),
        &[vm("web", VM_UID)],
    );
    let now = clock::now();
    delete(&mut cluster, running, now);
    assert_eq!(guest(&mut cluster).idle, Some(Idle::Stopped));
    let much_later = now + 100 * GRACE;
    assert_eq!(cluster.read(much_later).entries.len(), 1);
    // The machine itself is deleted.
    let machine = serde_json::from_value(vm("web", VM_UID)).unwrap();
    cluster.take_machine(Told::Deleted(machine), much_later);
    assert_eq!(cluster.read(much_later).entries[0].idle, Some(Idle::Gone));
    assert!(cluster.read(much_later + GRACE).entries.is_empty());
}

#[test]
fn what_keeps_a_guest_from_being_asked_is_said_with_what_to_do() {
    let mut no_vsock = vmi("web", VM_UID, RUN, 7);
    no_vsock["spec"] = json!({});
    let mut starting = vmi("web", VM_UID, RUN, 7);
    starting["status"]["phase"] = "Scheduling".into();
    let mut paused = vmi("web", VM_UID, RUN, 7);
    paused["status"]["conditions"] = json!([{"type": "Paused", "status": "True"}]);
    let mut no_cid = vmi("web", VM_UID, RUN, 7);
    no_cid["status"].as_object_mut().unwrap().remove("VSOCKCID");
    for (dialing, instance, said) in [
        (DialRoute::Api, no_vsock, Some("autoattachVSOCK: true")),
        (DialRoute::Api, starting, Some("Scheduling")),
        (DialRoute::Api, paused, Some("paused")),
        (DialRoute::Node, no_cid.clone(), Some("feature gate VSOCK")),
        (DialRoute::Api, no_cid, None),
        (DialRoute::Node, vmi("web", VM_UID, RUN, 2), Some("no CID")),
        (DialRoute::Node, vmi("web", VM_UID, RUN, 3), None),
    ] {
        let mut cluster = cluster(dialing, &[instance], &[]);
        let idle = guest(&mut cluster).idle.as_ref().map(ToString::to_string);
        match said {
            Some(said) => assert!(
                idle.as_ref().is_some_and(|it| it.contains(said)),
                "{idle:?}"
            ),
            None => assert_eq!(idle, None),
        }
    }
}

/// Where each machine has a VSOCK namespace, all have CID 3: dialing it would reach any of them, or none.
#[test]
fn machines_that_share_a_cid_are_not_dialed_from_their_node() {
    let both = [vmi("a", VM_UID, RUN, 3), vmi("b", OTHER_UID, NEXT_RUN, 3)];
    let mut on_node = cluster(DialRoute::Node, &both, &[]);
    let reading = on_node.read(clock::now());
    for guest in &reading.entries {
        assert_eq!(guest.idle, Some(Idle::SharedCid));
    }
    let said = Idle::SharedCid.to_string();
    assert!(said.contains("--dial api"), "{said}");
    let mut through_api = cluster(DialRoute::Api, &both, &[]);
    let reading = through_api.read(clock::now());
    assert!(reading.entries.iter().all(|guest| guest.idle.is_none()));
    // One leaves: the other is alone with its CID.
    delete(&mut on_node, both[0].clone(), clock::now());
    let reading = on_node.read(clock::now());
    assert_eq!(reading.entries[0].idle, Some(Idle::Gone));
    assert_eq!(reading.entries[1].idle, None);
}

#[test]
fn an_id_that_would_be_too_long_has_the_uid_instead_of_names() {
    let name = "n".repeat(63);
    let mut long = vmi(&name, VM_UID, RUN, 7);
    long["metadata"]["namespace"] = "s".repeat(63).into();
    let mut cluster = cluster(DialRoute::Api, &[long], &[]);
    assert_eq!(guest(&mut cluster).vm.as_str(), format!("prod:{VM_UID}"));
}

/// Loss prevented: an API server that is away, or a CRD that is removed for a moment, and all guests forgotten.
#[test]
fn guests_stay_while_the_api_fails_and_until_a_list_confirms_that_many_are_gone() {
    let all: Vec<Value> = (0..40)
        .map(|n| vmi(&format!("vm-{n}"), &Uuid::from_u128(n).to_string(), RUN, 3))
        .collect();
    let mut cluster = cluster(DialRoute::Api, &all, &[]);
    let now = clock::now();
    cluster.take_instance(Told::Trouble(KubeError::Timeout("answer")), now);
    let reading = cluster.read(now + 100 * GRACE);
    assert_eq!(reading.entries.len(), 40);
    let error = reading.error.unwrap();
    assert!(error.starts_with("virtualmachineinstances: "), "{error}");
    for instance in &all {
        delete(&mut cluster, instance.clone(), now);
    }
    let later = now + 100 * GRACE;
    let reading = cluster.read(later);
    assert_eq!(
        (reading.entries.len(), reading.confirm),
        (40, (true, false))
    );
    list_instances(&mut cluster, &all[..30], later);
    cluster.take_instance(Told::Well, later);
    let reading = cluster.read(later + Duration::from_secs(1));
    assert_eq!(
        (reading.entries.len(), reading.confirm),
        (30, (false, false))
    );
    assert_eq!(reading.error, None);
}

#[test]
fn an_object_that_cannot_be_read_is_said_and_keeps_its_guest() {
    let mut cluster = cluster(DialRoute::Api, &[vmi("web", VM_UID, RUN, 7)], &[]);
    let mut odd = vmi("web", "no-uid", RUN, 7);
    change(&mut cluster, odd.clone());
    let reading = cluster.read(clock::now());
    assert_eq!(reading.entries[0].domain.unwrap().to_string(), VM_UID);
    let remark = reading.remarks.first().unwrap();
    assert!(
        remark.starts_with("shop/web cannot be read: its UID"),
        "{remark}"
    );
    odd["status"]["VSOCKCID"] = json!(-1);
    assert!(serde_json::from_value::<VirtualMachineInstance>(odd).is_err());
}

/// Loss prevented: memory that grows with every node, phase and kernel that there ever was.
#[test]
fn a_text_that_no_machine_has_any_more_is_forgotten_with_the_next_list() {
    let mut older = vmi("web", VM_UID, RUN, 7);
    older["status"]["guestOSInfo"]["kernelRelease"] = "4.18.0".into();
    let mut cluster = cluster(DialRoute::Api, &[older], &[vm("web", VM_UID)]);
    assert!(cluster.texts.contains("4.18.0"));
    cluster.read(clock::now());
    let newer = [vmi("web", VM_UID, NEXT_RUN, 8)];
    // The guest made of the object before holds its texts until the roster is read.
    for _ in 0..2 {
        list_instances(&mut cluster, &newer, clock::now());
        cluster.read(clock::now());
    }
    let mut texts: Vec<&str> = cluster.texts.iter().map(|text| &**text).collect();
    texts.sort_unstable();
    let expected = ["5.14.0", "Red Hat Enterprise Linux 9.4", "Running", "n1"];
    assert_eq!(texts, expected);
}

#[test]
fn a_machine_and_its_instance_share_the_text_of_their_name() {
    let cluster = cluster(
        DialRoute::Api,
        &[vmi("web", VM_UID, RUN, 7)],
        &[vm("web", VM_UID)],
    );
    let keys = (
        cluster.instances.key("shop/web").unwrap(),
        cluster.machines.key("shop/web").unwrap(),
    );
    assert!(Arc::ptr_eq(keys.0, keys.1));
}
