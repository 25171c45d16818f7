//! Sources of the observed side that not every token may read, and not every site has. Each is asked
//! for only when a setting says so; a 403 or 412 is a warning, and what the source would have said
//! stays as it is stored. One that is not complete when the time for all lists is over fails the type.

use super::pages::{Cause, List, Pages, Refused};
use crate::inventory::Kind;
use crate::mirror::core::kinds::names;
use crate::mirror::core::{Device, Pull, Pulled};
use crate::mirror::diagnostics::Diagnostic;
use crate::mirror::entry::IdText;
use serde::Deserialize;
use smol_str::SmolStr;
use std::collections::HashMap;

/// A refusal that is no failure: the warning to give instead.
fn note(kind: Kind, list: &str, refused: &Refused) -> Option<Diagnostic> {
    let code = match refused.cause {
        Cause::Status(403) => "source_not_permitted",
        Cause::Status(412) => "source_not_available",
        _ => return None,
    };
    Some(Diagnostic::new(code, kind, list, refused.why.clone()))
}

/// Adds the DPUs of each host, with one request per host that names any, if they are `wanted`.
/// Otherwise, or where that is refused, nothing is said about the DPUs of a host.
pub(super) fn add_dpus(
    pages: &mut Pages,
    pulled: &mut Pulled<Device>,
    wanted: bool,
) -> Result<(), Refused> {
    let mut dpus = Vec::new();
    let mut ask = wanted;
    for host in &mut pulled.entries {
        let named = host.take_dpus();
        let Some(id) = host.id().map(str::to_owned).filter(|_| ask) else {
            continue;
        };
        if named.is_empty() {
            host.set_dpus(&[]);
            continue;
        }
        let path = format!("machine/{id}/dpu");
        match pages.read_unpaged::<Device>(Kind::Compute, &path) {
            Ok(mut list) if list.complete => {
                for dpu in &mut list.entries {
                    dpu.set_dpu();
                    dpu.came_over_rest();
                }
                host.set_dpus(&list.entries);
                dpus.append(&mut list.entries);
            }
            Ok(list) => pulled.warnings.extend(list.warnings),
            Err(refused) if refused.cause == Cause::OutOfTime => return Err(refused),
            Err(refused) => {
                let report = note(Kind::Compute, "machine/*/dpu", &refused);
                // Who may not ask for one host's DPUs may not ask for any.
                ask = report.is_none();
                pulled.warnings.push(report.unwrap_or_else(|| {
                    let why = format!("{}; its DPU rows stay as they are", refused.why);
                    Diagnostic::new("dpu_list_failed", Kind::Compute, id, why)
                }));
            }
        }
    }
    pulled.entries.append(&mut dpus);
    Ok(())
}

/// One explored endpoint: the part that says whether a machine runs.
#[derive(Deserialize)]
struct Endpoint {
    address: Option<IdText>,
    report: Option<Exploration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Exploration {
    machine_id: Option<IdText>,
    #[serde(default)]
    systems: Option<Vec<System>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct System {
    power_state: Option<String>,
}

/// Adds the power state that Core's site explorer saw last.
pub(super) fn add_endpoints(pages: &mut Pages, pulled: &mut Pulled<Device>) -> Result<(), Refused> {
    let name = "site-explorer/endpoint";
    let list = pages.read(&List {
        kind: Kind::Compute,
        name,
        query: &[("orderBy", "ID_ASC")],
        id: |endpoint: &Endpoint| endpoint.address.as_ref().map(|address| address.0.as_str()),
    });
    let endpoints = match list {
        Ok(list) => list.entries,
        Err(refused) => return not_read(pulled, Kind::Compute, name, refused),
    };
    let states = endpoints.into_iter().filter_map(|endpoint| {
        let report = endpoint.report?;
        let state = report.systems?.into_iter().find_map(|s| s.power_state)?;
        Some((report.machine_id?.0, state))
    });
    set_power_states(pulled, &states.collect());
    Ok(())
}

fn set_power_states(pulled: &mut Pulled<Device>, states: &HashMap<SmolStr, String>) {
    for device in &mut pulled.entries {
        let state = device.id().and_then(|id| states.get(id));
        if let Some(state) = state {
            device.set_power_state(state.clone());
        }
    }
}

fn not_read(
    pulled: &mut Pulled<Device>,
    kind: Kind,
    list: &str,
    refused: Refused,
) -> Result<(), Refused> {
    if refused.cause == Cause::OutOfTime {
        return Err(refused);
    }
    let report = note(kind, list, &refused);
    let failed = || Diagnostic::new("optional_source_failed", kind, list, refused.why);
    pulled.warnings.push(report.unwrap_or_else(failed));
    Ok(())
}

/// One tray as Flow keeps it: what was seen at the site is its runtime id, its power state and its
/// firmware. Serial number and BMC tell which component it is; its position is Flow's own copy of what is
/// expected, so it proves nothing and is not read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Tray {
    id: Option<IdText>,
    component_id: Option<IdText>,
    #[serde(rename = "type")]
    kind: Option<String>,
    serial_number: Option<String>,
    firmware_version: Option<String>,
    power_state: Option<String>,
    #[serde(default)]
    bmcs: Option<Vec<TrayBmc>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TrayBmc {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(alias = "mac")]
    mac_address: Option<String>,
}

/// The trays of a site that has Flow.
pub(super) struct Trays(Result<Pulled<Tray>, Refused>);

impl Trays {
    pub(super) fn read(pages: &mut Pages) -> Self {
        Self(pages.read(&List {
            kind: Kind::Compute,
            name: "tray",
            query: &[],
            id: |tray: &Tray| tray.id.as_ref().map(|id| id.0.as_str()),
        }))
    }

    /// Adds the power states of machines.
    pub(super) fn add_power_states(&self, pulled: &mut Pulled<Device>) -> Result<(), Refused> {
        match &self.0 {
            Ok(trays) => {
                let states = trays.entries.iter().filter_map(|tray| {
                    let id = tray.component_id.as_ref()?;
                    Some((id.0.clone(), tray.power_state.clone()?))
                });
                set_power_states(pulled, &states.collect());
                Ok(())
            }
            Err(refused) => not_read(pulled, Kind::Compute, "tray", refused.clone()),
        }
    }

    /// The observed switches or shelves: trays with a runtime id.
    pub(super) fn take(&self, kind: Kind) -> Pull<Device> {
        let Some(name) = names(kind).tray else {
            return Pull::Absent;
        };
        let trays = match &self.0 {
            Ok(trays) => trays,
            // The machines' list has told why.
            Err(refused) if note(kind, "tray", refused).is_some() => return Pull::Absent,
            Err(refused) => return Pull::Failed(refused.why.clone()),
        };
        let of_kind = |tray: &&Tray| {
            let of = tray.kind.as_deref().unwrap_or_default();
            of.eq_ignore_ascii_case(name)
        };
        let devices = trays.entries.iter().filter(of_kind).filter_map(|tray| {
            let id = tray.component_id.clone().filter(|id| !id.0.is_empty())?;
            let host = tray.bmcs.iter().flatten().find(|bmc| {
                let of = bmc.kind.as_deref().unwrap_or("host");
                of.eq_ignore_ascii_case("host")
            });
            let mut device = Device::over_rest(
                id,
                tray.serial_number.clone(),
                host.and_then(|bmc| bmc.mac_address.clone()),
                tray.firmware_version.clone(),
            );
            if let Some(state) = &tray.power_state {
                device.set_power_state(state.clone());
            }
            Some(device)
        });
        Pull::Done(Pulled {
            entries: devices.collect(),
            complete: trays.complete,
            warnings: Vec::new(),
            no_positions: None,
        })
    }
}
