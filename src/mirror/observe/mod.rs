//! Drift: what was observed beside what is expected. Pure.
//!
//! | Type | Linked by | Compared | Written, never compared |
//! |---|---|---|---|
//! | Compute | `natural-key`: serial; `host-mac`: Host BMC | positions; serial under `natural-key` | external_id, power_state, firmware_version, status, health, lifecycle_state |
//! | NVSwitch, PowerShelf | serial; the single Host BMC | presence | the same, external_id also cleared |
//!
//! A number that the source cannot carry is never compared.
//!
//! Under `natural-key` a device that does not say its serial is linked by its Host BMC, and a
//! machine that neither finds by the id its component was given. A snapshot that contradicts itself
//! is refused as a whole: nothing is written and old drift rows stay.

mod compare;
mod dpus;
mod link;

use super::change::{Change, Draft, Op};
use super::core::Device;
use super::diagnostics::Diagnostic;
use super::policy::Policy;
use crate::inventory::{Bmc, Component, Drift, Json, Kind, Mac};
use compare::{compare, replace};
use dpus::write_dpus;
use link::link;
use smol_str::SmolStr;
use std::collections::{BTreeMap, HashMap, HashSet};
use uuid::Uuid;

/// The key under which a switch's description keeps where its operating system answers.
const NVOS_IP: &str = "nvos_ip_address";

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
    pub errors: Vec<Diagnostic>,
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
    let dpus = match kind {
        Kind::Compute => write_dpus(&hosts, &dpus, &links, present, &mut draft),
        _ => Ok(()),
    };
    if let Err(error) = dpus {
        // What is said of the hosts holds all the same.
        observation.errors.push(error);
    } else if let Some(why) = no_positions {
        let code = format!("pull_failed:drift:{kind}");
        let why = format!("positions: {why}");
        observation
            .errors
            .push(Diagnostic::new(code, kind, "", why));
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
fn check(kind: Kind, devices: &[Device]) -> Result<Vec<Checked<'_>>, Diagnostic> {
    let refuse = |code: &str, key: &str, why: &str| Diagnostic::new(code, kind, key, why);
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
    // The order of a response decides nothing.
    checked.sort_unstable_by_key(|checked| checked.device.id());
    Ok(checked)
}

/// The object with one member set; the others stay.
fn with_member(stored: Option<&Json>, key: &str, text: &str) -> Json {
    let mut members = stored.map(Json::entries).unwrap_or_default();
    members.insert(key.to_owned(), text.into());
    Json::new(&serde_json::Value::Object(members))
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
            wanted.external_id = device.id().map(SmolStr::from);
            for (column, observed) in [
                (&mut wanted.power_state, device.power_state()),
                (&mut wanted.firmware_version, device.firmware_version()),
                (&mut wanted.status, device.status()),
                (&mut wanted.lifecycle_state, device.lifecycle_state()),
            ] {
                if let Some(observed) = observed {
                    *column = Some(observed.into());
                }
            }
            if let Some(health) = device.health() {
                wanted.health = health;
            }
            if let Some(ip) = device.nvos_ip() {
                wanted.description = Some(with_member(row.description.as_ref(), NVOS_IP, ip));
            }
        } else if stored.is_some_and(|id| given.get(id).is_some_and(|owner| *owner != i))
            || (kind != Kind::Compute && row.is_live())
        {
            // The id belongs to another component now, or to nothing.
            wanted.external_id = None;
        }
        if wanted != *row {
            *draft.edit(row, Op::Observe, why) = wanted;
        }
    }
}
