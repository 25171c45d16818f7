//! DPUs, which are rows of their own beside the Host BMC of their machine.

use super::{Checked, PresentDevices};
use crate::inventory::{Bmc, BmcType, Kind, Mac};
use crate::mirror::change::{Draft, Op};
use crate::mirror::diagnostics::Diagnostic;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// Keeps one DPU row per DPU that a host names; other DPU rows of observed hosts go. None is
/// touched when what is said of them does not fit together.
pub(super) fn write_dpus(
    hosts: &[Checked<'_>],
    dpus: &[Checked<'_>],
    links: &HashMap<usize, usize>,
    present: &PresentDevices,
    draft: &mut Draft,
) -> Result<(), Diagnostic> {
    let refuse = |code: &str, key: &str, why: &str| Diagnostic::new(code, Kind::Compute, key, why);
    let by_id: HashMap<&str, &Checked<'_>> = dpus
        .iter()
        .filter_map(|dpu| Some((dpu.device.id()?, dpu)))
        .collect();
    let by_external: HashMap<&str, Uuid> = present
        .components
        .iter()
        .filter(|c| c.is_live())
        .filter_map(|c| Some((c.external_id.as_deref()?, c.id)))
        .collect();
    let stored: HashMap<Mac, Bmc> = present.bmcs.iter().map(|bmc| (bmc.mac, *bmc)).collect();
    let mut owners: HashSet<Uuid> = HashSet::new();
    let mut wanted: BTreeMap<Mac, Bmc> = BTreeMap::new();
    for (n, host) in hosts.iter().enumerate() {
        let (Some(id), Some(named)) = (host.device.id(), host.device.dpus()) else {
            continue;
        };
        let component = match links.get(&n).and_then(|i| present.components.get(*i)) {
            Some(component) => Some(component.id),
            None => by_external.get(id).copied(),
        };
        // A machine that stands for no component has no rows either.
        let Some(component) = component else { continue };
        for dpu in named {
            let Some(dpu) = by_id.get(dpu) else {
                let why = "a DPU of the host was not observed";
                return Err(refuse("dpu_missing", id, why));
            };
            let key = dpu.device.id().unwrap_or_default();
            let Some(mac) = dpu.mac else {
                let why = "a DPU without a usable BMC address";
                return Err(refuse("dpu_invalid_mac", key, why));
            };
            let bmc = Bmc {
                mac,
                kind: BmcType::Dpu,
                component_id: component,
                ip: dpu.device.bmc_ip().and_then(|ip| ip.parse().ok()),
            };
            if wanted.insert(mac, bmc).is_some() {
                return Err(refuse("dpu_duplicate", key, "a DPU is named twice"));
            }
            if let Some(holder) = stored.get(&mac).filter(|bmc| bmc.kind != BmcType::Dpu) {
                let why = format!("{mac} is a {} BMC, not one of a DPU", holder.kind.name());
                return Err(refuse("dpu_mac_held_by_non_dpu", key, &why));
            }
        }
        owners.insert(component);
    }
    for bmc in &present.bmcs {
        let gone = bmc.kind == BmcType::Dpu && owners.contains(&bmc.component_id);
        if gone && !wanted.contains_key(&bmc.mac) {
            draft.remove(bmc, Op::DpuHardDelete, "no longer observed");
        }
    }
    for (mac, bmc) in wanted {
        match stored.get(&mac) {
            Some(stored) if *stored == bmc => {}
            Some(stored) => draft.put(Some(stored), bmc, &[(Op::DpuUpdate, "observed")]),
            None => draft.put(None, bmc, &[(Op::DpuInsert, "observed")]),
        }
    }
    Ok(())
}
