//! Drift: what was observed beside what is expected. Pure.
//!
//! | Type | Linked by | Compared | Written, never compared |
//! |---|---|---|---|
//! | Compute | `natural-key`: serial; `host-mac`: Host BMC | positions, serial | external_id, power_state, firmware_version |
//! | NVSwitch, PowerShelf | serial; the single Host BMC | presence | the same, external_id also cleared |
//!
//! Under `natural-key` a device that does not say its serial is linked by its Host BMC. A snapshot
//! that contradicts itself is refused as a whole: nothing is written and old drift rows stay.

use super::core::Device;
use super::plan::{Change, Draft, Op};
use super::policy::{Policy, Profile};
use super::report::Report;
use crate::inventory::{
    Bmc, BmcType, Component, ComponentType, Drift, DriftType, FieldDiff, Kind, Mac, Row,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// What the actual value of a field is when nothing was observed.
const MISSING: &str = "<missing>";

/// What is there, read in the transaction that will write.
pub struct PresentDevices {
    /// All components of the type, by id.
    pub components: Vec<Component>,
    /// All BMCs.
    pub bmcs: Vec<Bmc>,
    /// All drift rows.
    pub drifts: Vec<Drift>,
}

/// What an observation amounts to.
pub struct Observation {
    /// Rows to write.
    pub changes: Vec<Change>,
    /// Devices that count: hosts, switches, shelves.
    pub received: u64,
    /// Whether drift rows are up to date.
    pub complete: bool,
    /// Drift rows of the type, by kind.
    pub rows: BTreeMap<String, u64>,
    /// Why not.
    pub errors: Vec<Report>,
}

/// A device that was checked.
struct Checked<'a> {
    device: &'a Device,
    mac: Option<Mac>,
}

/// Plans what to write. `no_positions` says why positions are not known.
pub fn observe(
    kind: Kind,
    devices: &[Device],
    no_positions: Option<&str>,
    present: &PresentDevices,
    policy: &Policy,
    now: &str,
    new_id: &mut dyn FnMut() -> Uuid,
) -> Observation {
    let mut observation = Observation {
        changes: Vec::new(),
        received: 0,
        complete: false,
        rows: BTreeMap::new(),
        errors: Vec::new(),
    };
    let Some(component_type) = kind.component_type() else {
        return observation;
    };
    let checked = match check(kind, devices) {
        Ok(checked) => checked,
        Err(error) => {
            observation.errors.push(error);
            return observation;
        }
    };
    let (hosts, dpus): (Vec<Checked<'_>>, Vec<Checked<'_>>) =
        checked.into_iter().partition(|c| !c.device.is_dpu());
    observation.received = u64::try_from(hosts.len()).unwrap_or(u64::MAX);
    let links = link(kind, &hosts, present, policy);
    let mut draft = Draft::default();
    write_observed(kind, &hosts, &links, present, &mut draft);
    if kind == Kind::Compute {
        let planned = write_dpus(&hosts, &dpus, &links, present, &mut draft);
        if let Err(error) = planned {
            observation.errors.push(error);
            return observation;
        }
    }
    if let Some(why) = no_positions {
        let code = format!("pull_failed:drift:{kind}");
        let why = format!("positions: {why}");
        observation.errors.push(Report::new(code, kind, "", why));
    } else {
        let drifts = compare(kind, component_type, &hosts, &links, present, policy, now);
        for drift in &drifts {
            *observation
                .rows
                .entry(drift.drift_type.name().to_owned())
                .or_default() += 1;
        }
        replace(component_type, &drifts, present, &mut draft, new_id);
        observation.complete = true;
    }
    observation.changes = draft.finish(now);
    observation
}

/// Refuses a snapshot in which one id or one address stands for two devices.
fn check(kind: Kind, devices: &[Device]) -> Result<Vec<Checked<'_>>, Report> {
    let refuse = |code: &str, key: &str, why: &str| Report::new(code, kind, key, why);
    let rejected = format!("pull_failed:drift:{kind}");
    let mut ids = HashSet::new();
    let mut macs: HashSet<Mac> = HashSet::new();
    let mut checked = Vec::with_capacity(devices.len());
    for device in devices {
        let Some(id) = device.id() else {
            return Err(refuse(&rejected, "", "a device without an id"));
        };
        if !ids.insert(id) {
            return Err(refuse(&rejected, id, "two devices with one id"));
        }
        let mac = match device.bmc_mac().map(str::parse::<Mac>) {
            None => None,
            Some(Ok(mac)) => Some(mac),
            Some(Err(_)) if device.is_dpu() => None,
            Some(Err(error)) => {
                return Err(refuse(
                    &rejected,
                    id,
                    &format!("the BMC address is {error}"),
                ));
            }
        };
        if mac.is_some_and(|mac| !macs.insert(mac)) {
            return Err(refuse(&rejected, id, "two devices with one BMC address"));
        }
        checked.push(Checked { device, mac });
    }
    Ok(checked)
}

/// Which component each device is: component index by device index.
fn link(
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
    links
}

/// Writes what is observed and never compared.
fn write_observed(
    kind: Kind,
    hosts: &[Checked<'_>],
    links: &HashMap<usize, usize>,
    present: &PresentDevices,
    draft: &mut Draft,
) {
    let why = "observed";
    let mut device_of: HashMap<usize, &Device> = HashMap::new();
    let mut given: HashMap<&str, usize> = HashMap::new();
    for (n, host) in hosts.iter().enumerate() {
        if let Some(component) = links.get(&n) {
            device_of.insert(*component, host.device);
            given.extend(host.device.id().map(|id| (id, *component)));
        }
    }
    for (i, row) in present.components.iter().enumerate() {
        let linked = device_of.get(&i);
        let stored = row.external_id.as_deref();
        let mut wanted = row.clone();
        if let Some(device) = linked {
            wanted.external_id = device.id().map(str::to_owned);
            if let Some(state) = device.power_state() {
                wanted.power_state = Some(state.to_owned());
            }
            if let Some(version) = device.firmware_version() {
                wanted.firmware_version = Some(version.to_owned());
            }
        } else if stored.is_some_and(|id| given.get(id).is_some_and(|owner| *owner != i))
            || (kind != Kind::Compute && row.is_live())
        {
            // The id belongs to another component now, or to nothing.
            wanted.external_id = None;
        }
        if wanted != *row {
            *draft.component(row, Op::Observe, why) = wanted;
        }
    }
}

/// Keeps one DPU row per DPU that a host names; other DPU rows of observed hosts go.
fn write_dpus(
    hosts: &[Checked<'_>],
    dpus: &[Checked<'_>],
    links: &HashMap<usize, usize>,
    present: &PresentDevices,
    draft: &mut Draft,
) -> Result<(), Report> {
    let refuse = |code: &str, key: &str, why: &str| Report::new(code, Kind::Compute, key, why);
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
        for dpu in named {
            let Some(dpu) = by_id.get(dpu) else {
                return Err(refuse(
                    "dpu_missing",
                    id,
                    "a DPU of the host was not observed",
                ));
            };
            let key = dpu.device.id().unwrap_or_default();
            let Some(mac) = dpu.mac else {
                return Err(refuse(
                    "dpu_invalid_mac",
                    key,
                    "a DPU without a usable BMC address",
                ));
            };
            let bmc = Bmc {
                mac,
                kind: BmcType::Dpu,
                component_id: component.unwrap_or_default(),
                ip: dpu.device.bmc_ip().and_then(|ip| ip.parse().ok()),
            };
            if wanted.insert(mac, bmc).is_some() {
                return Err(refuse("dpu_duplicate", key, "a DPU is named twice"));
            }
            if component.is_none() {
                wanted.remove(&mac);
            }
        }
        owners.extend(component);
    }
    for bmc in &present.bmcs {
        let gone = bmc.kind == BmcType::Dpu && owners.contains(&bmc.component_id);
        if gone && !wanted.contains_key(&bmc.mac) {
            draft.remove(Row::Bmc(*bmc), Op::DpuHardDelete, "no longer observed");
        }
    }
    for (mac, bmc) in wanted {
        match stored.get(&mac) {
            Some(stored) if *stored == bmc => {}
            // A Host BMC is what Core says it is.
            Some(stored) if stored.kind == BmcType::Host => {}
            Some(stored) => draft.put_bmc(Some(*stored), bmc, Op::DpuUpdate, "observed"),
            None => draft.put_bmc(None, bmc, Op::DpuInsert, "observed"),
        }
    }
    Ok(())
}

/// The drift rows there should be, without ids.
fn compare(
    kind: Kind,
    component_type: ComponentType,
    hosts: &[Checked<'_>],
    links: &HashMap<usize, usize>,
    present: &PresentDevices,
    policy: &Policy,
    now: &str,
) -> Vec<Drift> {
    let drift =
        |drift_type, component: Option<&Component>, external_id: Option<&str>, diffs| Drift {
            id: Uuid::nil(),
            component_id: component.map(|c| c.id),
            external_id: external_id.map(str::to_owned),
            component_type: Some(component_type),
            drift_type,
            diffs,
            checked_at: Some(now.to_owned()),
        };
    let linked: HashSet<usize> = links.values().copied().collect();
    let mut drifts = Vec::new();
    for (i, component) in present.components.iter().enumerate() {
        if component.is_live() && !linked.contains(&i) {
            drifts.push(drift(
                DriftType::MissingInActual,
                Some(component),
                None,
                Vec::new(),
            ));
        }
    }
    for (n, host) in hosts.iter().enumerate() {
        let id = host.device.id();
        let Some(component) = links.get(&n).and_then(|i| present.components.get(*i)) else {
            drifts.push(drift(DriftType::MissingInExpected, None, id, Vec::new()));
            continue;
        };
        if kind != Kind::Compute {
            continue;
        }
        let diffs = differences(component, host.device, policy);
        if !diffs.is_empty() {
            drifts.push(drift(DriftType::Mismatch, Some(component), id, diffs));
        }
    }
    drifts
}

fn differences(component: &Component, device: &Device, policy: &Policy) -> Vec<FieldDiff> {
    let mut diffs = Vec::new();
    let natural = policy.profile == Profile::NaturalKey;
    let fields = ["slot_id", "tray_index", "host_id"];
    let expected = [component.slot_id, component.tray_index, component.host_id];
    for ((field, expected), actual) in fields.into_iter().zip(expected).zip(device.positions()) {
        if expected == policy.unknown_position {
            continue;
        }
        let actual = match actual {
            Some(actual) if actual == expected => continue,
            Some(actual) => actual.to_string(),
            // Where 0 may mean that nobody knows, it proves nothing; nor does a position that was
            // observed in part.
            None if natural && (expected <= 0 || device.is_placed()) => continue,
            None => MISSING.to_owned(),
        };
        diffs.push(FieldDiff {
            field_name: field.to_owned(),
            expected_value: expected.to_string(),
            actual_value: actual,
        });
    }
    let serials = (component.serial_number.as_deref(), device.serial());
    if let (Some(expected), Some(actual)) = serials
        && !expected.is_empty()
        && expected != actual
    {
        diffs.push(FieldDiff {
            field_name: "serial_number".to_owned(),
            expected_value: expected.to_owned(),
            actual_value: actual.to_owned(),
        });
    }
    diffs
}

/// Puts `drifts` in the place of the type's rows. A difference that is there already keeps its
/// row, so that observing the same again writes nothing.
fn replace(
    component_type: ComponentType,
    drifts: &[Drift],
    present: &PresentDevices,
    draft: &mut Draft,
    new_id: &mut dyn FnMut() -> Uuid,
) {
    type Content<'a> = (Option<Uuid>, Option<&'a str>, DriftType, &'a [FieldDiff]);
    fn content(drift: &Drift) -> Content<'_> {
        let external_id = drift.external_id.as_deref();
        (
            drift.component_id,
            external_id,
            drift.drift_type,
            &drift.diffs,
        )
    }
    let type_of: HashMap<Uuid, ComponentType> =
        present.components.iter().map(|c| (c.id, c.kind)).collect();
    let mut kept: HashSet<Content<'_>> = HashSet::new();
    let wanted: HashSet<Content<'_>> = drifts.iter().map(content).collect();
    for stored in &present.drifts {
        // A row without a type belongs to that of its component, or, before there were types,
        // to machines.
        let of = stored.component_type.or_else(|| {
            stored
                .component_id
                .map_or(Some(ComponentType::Compute), |id| type_of.get(&id).copied())
        });
        if of != Some(component_type) {
            continue;
        }
        let same = stored.component_type.is_some() && wanted.contains(&content(stored));
        if !(same && kept.insert(content(stored))) {
            let why = "not observed any more";
            draft.remove(Row::Drift(Box::new(stored.clone())), Op::DriftDelete, why);
        }
    }
    for drift in drifts {
        if kept.insert(content(drift)) {
            let row = Drift {
                id: new_id(),
                ..drift.clone()
            };
            draft.put_drift(row, Op::DriftInsert, "observed");
        }
    }
}
