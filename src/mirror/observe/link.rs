//! Which component an observed device is.

use super::{Checked, PresentDevices};
use crate::inventory::{BmcType, Kind, Mac};
use crate::mirror::policy::{Policy, Profile};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Which component each device is: component index by device index.
pub(super) fn link(
    kind: Kind,
    hosts: &[Checked<'_>],
    present: &PresentDevices,
    policy: &Policy,
) -> HashMap<usize, usize> {
    let live: HashMap<Uuid, usize> = present
        .components
        .iter()
        .enumerate()
        .filter(|(_, c)| c.is_live())
        .map(|(i, c)| (c.id, i))
        .collect();
    let mut by_mac: HashMap<Mac, usize> = HashMap::new();
    let mut bmcs_of: HashMap<usize, usize> = HashMap::new();
    for bmc in present.bmcs.iter().filter(|b| b.kind == BmcType::Host) {
        if let Some(component) = live.get(&bmc.component_id) {
            by_mac.insert(bmc.mac, *component);
            *bmcs_of.entry(*component).or_default() += 1;
        }
    }
    if kind != Kind::Compute {
        // With two Host BMCs nobody knows which one is meant.
        by_mac.retain(|_, component| bmcs_of.get(component) == Some(&1));
    }
    let mut by_serial: HashMap<&str, Option<usize>> = HashMap::new();
    if policy.profile == Profile::NaturalKey {
        for (i, component) in present.components.iter().enumerate() {
            if let Some(serial) = component.serial_number.as_deref()
                && component.is_live()
                && !serial.is_empty()
            {
                // One serial number of two manufacturers identifies neither.
                let found = by_serial.entry(serial).or_insert(Some(i));
                if *found != Some(i) {
                    *found = None;
                }
            }
        }
    }
    let mut links = HashMap::new();
    let mut taken = HashSet::new();
    for (n, host) in hosts.iter().enumerate() {
        let serial = host
            .device
            .serial()
            .filter(|_| policy.profile == Profile::NaturalKey);
        let found = match serial {
            Some(serial) => by_serial.get(serial).copied().flatten(),
            None => host.mac.and_then(|mac| by_mac.get(&mac).copied()),
        };
        if let Some(component) = found.filter(|component| taken.insert(*component)) {
            links.insert(n, component);
        }
    }
    if kind == Kind::Compute && policy.profile == Profile::NaturalKey {
        link_by_id(hosts, present, &mut links, &mut taken);
    }
    links
}

/// A machine whose serial number nobody expects, under an id that a component was given: the
/// chassis was changed, which is a difference and not another machine.
fn link_by_id(
    hosts: &[Checked<'_>],
    present: &PresentDevices,
    links: &mut HashMap<usize, usize>,
    taken: &mut HashSet<usize>,
) {
    let components = present.components.iter().enumerate();
    let by_id: HashMap<&str, usize> = components
        .filter(|(_, component)| component.is_live())
        .filter_map(|(i, component)| Some((component.external_id.as_deref()?, i)))
        .collect();
    for (n, host) in hosts.iter().enumerate() {
        let found = host.device.id().and_then(|id| by_id.get(id)).copied();
        if let Some(component) =
            found.filter(|component| !links.contains_key(&n) && taken.insert(*component))
        {
            links.insert(n, component);
        }
    }
}
