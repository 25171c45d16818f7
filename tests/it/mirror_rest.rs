//! A site as Core's REST interface shows it, in both of its versions: hosts with DPUs, places in racks,
//! metadata that only comes when it is asked for, and machines that left.

use crate::support::core_server::{Answer, CoreServer, Request, page, status};
use crate::support::mirror::{Mirror, Ran};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const SITE: &str = "5a1e0000-0000-4000-8000-000000000001";
pub(crate) const MACHINES: usize = 251;
pub(crate) const OBSERVED: usize = 20;
/// The observed machine in the wrong slot, and the one whose board was changed.
const MISPLACED: usize = 18;
const OTHER_BOARD: usize = 9;

/// Versions of the interface.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Version {
    /// 1.5.0: expected rows have a firmware version; machines have neither places nor DPU ids.
    V1,
    /// 2.0.0.
    V2,
}

/// What the server does, beside answering.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum May {
    /// Everything.
    All,
    /// Read the lists of a viewer only.
    View,
    /// Everything, at a site without Flow.
    WithoutFlow,
}

fn id(group: u16, n: usize) -> String {
    format!("7d0c0000-{group:04x}-4000-8000-{n:012x}")
}

fn host_mac(n: usize) -> String {
    // As BMCs print it, and not as the rows hold it.
    format!("02-00-5E-10-{:02X}-{:02X}", n >> 8, n & 255)
}

fn expected(list: &str, version: Version) -> Vec<Value> {
    let serial = match list {
        "expected-machine" => "chassisSerialNumber",
        "expected-switch" => "switchSerialNumber",
        _ => "shelfSerialNumber",
    };
    let (group, count) = match list {
        "expected-machine" => (1u16, MACHINES),
        "expected-switch" => (2, 28),
        _ => (3, 28),
    };
    let component = |n: usize| {
        let mut row = json!({
            "id": id(group, n), "siteId": SITE, "name": format!("{list}-{n}"),
            "bmcMacAddress": format!("02:00:5e:{group:x}0:{:02x}:{:02x}", n >> 8, n & 255),
            "bmcIpAddress": format!("10.{group}.{}.{}", n >> 8, n & 255),
            "bmcUsername": "root", "bmcPassword": "never-to-be-stored",
            "rackId": format!("rack-{:02}", n % 15), "manufacturer": "Foxwell", "model": "CT-2",
            "description": null, "labels": {}, "created": "2026-10-01T08:00:00Z", "updated": "2026-11-01T08:00:00Z",
        });
        row[serial] = json!(format!("S{group}-{n}"));
        if list == "expected-machine" {
            row["slotId"] = json!(3 + n % 18);
            row["trayIdx"] = json!(n % 4);
            // Nobody can say over REST which host of a tray it was.
            row["hostId"] = json!(1);
        }
        let more = match version {
            Version::V1 => json!({"firmwareVersion": "1.0"}),
            Version::V2 => {
                json!({"isDpfEnabled": true, "hostLifecycleProfile": null, "nvosMacAddresses": []})
            }
        };
        row.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        row
    };
    (0..count).map(component).collect()
}

fn racks() -> Vec<Value> {
    let rack = |n: usize| {
        json!({"id": id(4, n), "siteId": SITE, "rackId": format!("rack-{n:02}"), "rackProfileId": "NVL72-A",
               "name": format!("Hall2 R{n:02}"), "description": "row seven",
               "labels": {"chassis.manufacturer": "Quanta", "chassis.serial-number": format!("QR-{n}"),
                          "location.datacenter": "OSL1"}})
    };
    (0..15).map(rack).collect()
}

/// Observed machines, as the query asks for them.
fn machines(request: &Request, version: Version, minute: u32) -> Vec<Value> {
    let asked =
        |name: &str, value: &str| request.query.get(name).map(String::as_str) == Some(value);
    // In another order pages of a list that changes overlap.
    if !asked("orderBy", "ID_ASC") {
        return Vec::new();
    }
    let time = format!("2026-11-26T10:{minute:02}:00Z");
    let machine = |n: usize| {
        let mac = if n == OTHER_BOARD {
            "02:00:5e:77:00:09".to_owned()
        } else {
            host_mac(n)
        };
        let slot = if n == MISPLACED { 15 } else { 3 + n % 18 };
        let mut row = json!({
            "id": format!("fm100h{n:04}"), "siteId": SITE, "controllerMachineId": format!("fm100h{n:04}"),
            "controllerMachineType": "host", "vendor": "Foxwell", "serialNumber": format!("S1-{n}"),
            "status": "Ready", "isUsableByTenant": true, "labels": {}, "updated": time,
            "health": {"source": "aggregate-host-health", "observedAt": time, "observed_at": time, "successes": [],
                       "alerts": [{"id": "FanSpeed", "target": null, "inAlertSince": time, "message": "slow", "classifications": []}]},
        });
        if version == Version::V2 {
            row["placementInRack"] = json!({"slotNumber": slot, "trayIndex": n % 4});
            row["associatedDpuMachineIds"] = json!([format!("fm100d{n:04}")]);
        }
        if asked("includeMetadata", "true") {
            row["metadata"] = json!({
                "bmcInfo": {"mac": mac, "ip": format!("10.1.0.{n}"), "version": "1", "firmwareRevision": "6.00"},
                "lifecycleState": {"value": "ready", "time": time}, "dmiData": {}, "gpus": [],
            });
        }
        row
    };
    let mut machines: Vec<Value> = (0..OBSERVED).map(machine).collect();
    if !asked("isMissingOnSite", "false") {
        machines.push(machine(100));
    }
    machines
}

pub(crate) fn answer(request: &Request, version: Version, may: May, minute: u32) -> Answer {
    let path = request.path.split("/nico/").nth(1).unwrap_or_default();
    if request.query.get("siteId").is_none_or(|site| site != SITE) {
        let said = json!({"source": "nico", "message": "Failed to retrieve Site due to DB error", "data": null});
        return Answer::Plain(500, Vec::new(), said.to_string().into_bytes());
    }
    let optional = path.ends_with("/dpu") || matches!(path, "tray" | "site-explorer/endpoint");
    if optional && may == May::View {
        return status(403);
    }
    if path == "tray" && may == May::WithoutFlow {
        return status(412);
    }
    let rows = match path {
        "expected-rack" => racks(),
        "expected-machine" | "expected-switch" | "expected-power-shelf" => expected(path, version),
        "machine" => machines(request, version, minute),
        "tray" => trays(),
        "site-explorer/endpoint" => vec![
            json!({"address": "10.1.0.3", "report": {"endpointType": "Bmc", "machineId": "fm100h0003",
                   "systems": [{"id": "1", "powerState": "Off"}], "chassis": []}}),
            json!({"address": "10.1.0.99", "report": null}),
        ],
        _ => {
            let host = path
                .strip_prefix("machine/")
                .and_then(|p| p.strip_suffix("/dpu"));
            let n: usize = host.unwrap()["fm100h".len()..].parse().unwrap();
            let dpu = json!([{"id": format!("fm100d{n:04}"), "siteId": SITE, "hostMachineId": host, "health": null,
                "bmcInfo": {"mac": format!("02:00:5e:d0:00:{n:02x}"), "ip": format!("10.9.0.{n}")}}]);
            return Answer::Plain(200, Vec::new(), dpu.to_string().into_bytes());
        }
    };
    let size: usize = request.query["pageSize"].parse().unwrap();
    assert!(size <= 100, "Core refuses larger pages");
    let number: usize = request.query["pageNumber"].parse().unwrap();
    let total = rows.len();
    let rows: Vec<Value> = rows
        .into_iter()
        .skip((number - 1) * size)
        .take(size)
        .collect();
    page(&json!(rows), total as u64)
}

fn trays() -> Vec<Value> {
    let tray = |kind: &str, group: u16, n: usize| {
        json!({"id": id(9, n + usize::from(group) * 100), "componentId": format!("{kind}-{n}"), "type": kind,
               "name": "t", "serialNumber": format!("S{group}-{n}"), "firmwareVersion": "9.1", "powerState": "On",
               "position": {"slotId": 1, "trayIdx": 1, "hostId": 1},
               "bmcs": [{"type": "Host", "macAddress": format!("02:00:5e:{group:x}0:00:{n:02x}"), "ipAddress": null}]})
    };
    let mut trays: Vec<Value> = (0..27).map(|n| tray("switch", 2, n)).collect();
    trays.extend((0..28).map(|n| tray("powershelf", 3, n)));
    let mut compute = tray("compute", 1, 5);
    compute["componentId"] = json!("fm100h0005");
    // One that Flow expects and has not seen.
    let mut unseen = tray("compute", 1, 6);
    unseen["componentId"] = json!("");
    trays.extend([compute, unseen]);
    trays
}

struct Site {
    mirror: Mirror,
    core: CoreServer,
}

impl Site {
    fn new(version: Version, may: May) -> Self {
        let core = CoreServer::start(move |request| answer(request, version, may, 0));
        Self {
            mirror: Mirror::new(),
            core,
        }
    }

    fn run(&self, profile: &str, more: &[&str]) -> Ran {
        run(&self.mirror, &self.core, profile, more)
    }

    /// Rows of a table.
    fn rows(&self, table: &str) -> Vec<Value> {
        self.mirror.dump()[table].as_array().unwrap().clone()
    }

    fn machine(&self, n: usize) -> Value {
        let serial = json!(format!("S1-{n}"));
        let mut rows = self.rows("component");
        rows.retain(|row| row["serial_number"] == serial);
        rows.remove(0)
    }
}

pub(crate) fn run(mirror: &Mirror, core: &CoreServer, profile: &str, more: &[&str]) -> Ran {
    let mut arguments = vec!["--org", "o", "--site-id", SITE, "--profile", profile];
    arguments.extend(more);
    mirror.run_from(&core.url, &arguments)
}

/// The loss: a site with DPUs ended every run with 1, nothing was linked, firmware and places were
/// those of something else.
#[test]
fn a_real_site_has_exactly_the_differences_that_are_there() {
    for (profile, missing_in_actual, missing_in_expected) in
        [("natural-key", 231, 0), ("host-mac", 232, 1)]
    {
        let site = Site::new(Version::V2, May::View);
        for _ in 0..2 {
            let ran = site.run(profile, &[]);
            assert_eq!(ran.code, Some(0), "{}", ran.stdout);
            assert_eq!(
                (ran.codes("warnings"), ran.codes("errors")),
                (vec![], vec![])
            );
            let drift = &ran.summary["drift"]["Compute"];
            assert_eq!(
                (&drift["received"], &drift["complete"]),
                (&json!(20), &json!(true))
            );
        }
        assert_eq!(site.rows("component").len(), 251 + 28 + 28);
        let drift = site.rows("component_drift");
        let of = |kind: &str| -> Vec<&Value> {
            drift
                .iter()
                .filter(|row| row["drift_type"] == kind)
                .collect()
        };
        assert_eq!(of("mismatch").len(), 1, "{:?}", of("mismatch"));
        let diffs = json!([{"field_name": "slot_id", "expected_value": "3", "actual_value": "15"}]);
        assert_eq!(of("mismatch")[0]["diffs"], diffs);
        assert_eq!(
            of("missing_in_actual").len(),
            missing_in_actual,
            "{profile}"
        );
        assert_eq!(
            of("missing_in_expected").len(),
            missing_in_expected,
            "{profile}"
        );
        if missing_in_expected == 1 {
            assert_eq!(of("missing_in_expected")[0]["external_id"], "fm100h0009");
            let missing = site.machine(OTHER_BOARD)["id"].clone();
            assert!(
                of("missing_in_actual")
                    .iter()
                    .any(|row| row["component_id"] == missing)
            );
        }
        let observed = site.machine(0);
        for (column, value) in [
            ("external_id", "fm100h0000"),
            ("firmware_version", "6.00"),
            ("status", "Ready"),
            ("lifecycle_state", "ready"),
        ] {
            assert_eq!(observed[column], value, "{column}");
        }
        assert_eq!(observed["health"]["alerts"][0]["id"], "FanSpeed");
        assert_eq!(observed["power_state"], Value::Null);
        site.mirror.check();
    }
}

#[test]
fn the_older_interface_carries_no_places_so_none_is_compared() {
    let site = Site::new(Version::V1, May::All);
    let ran = site.run("host-mac", &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    let rows = site.rows("component_drift");
    assert!(
        rows.iter().all(|row| row["drift_type"] != "mismatch"),
        "{rows:?}"
    );
    assert_eq!(rows.len(), 232 + 1);
    assert_eq!(
        site.machine(1)["firmware_version"],
        "6.00",
        "observed, and not what was expected"
    );
}

/// Health has the time of its last observation in it.
#[test]
fn a_quiet_site_writes_nothing() {
    let minute = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let now = Arc::clone(&minute);
    let core = CoreServer::start(move |request| {
        answer(request, Version::V2, May::View, now.load(Ordering::Relaxed))
    });
    let mirror = Mirror::new();
    assert_eq!(run(&mirror, &core, "natural-key", &[]).code, Some(0));
    let (dump, audit) = (mirror.dump(), mirror.audit());
    minute.store(7, Ordering::Relaxed);
    assert_eq!(run(&mirror, &core, "natural-key", &[]).code, Some(0));
    assert_eq!(mirror.dump(), dump);
    assert_eq!(mirror.audit(), audit);
}

#[test]
fn dpu_rows_stay_unless_dpus_are_asked_for() {
    let site = Site::new(Version::V2, May::All);
    let dpus = |site: &Site| {
        let mut rows = site.rows("bmc");
        rows.retain(|row| row["type"] == "DPU");
        rows
    };
    site.run("natural-key", &[]);
    assert_eq!(dpus(&site), Vec::<Value>::new());
    let ran = site.run("natural-key", &["--observe-dpus"]);
    assert_eq!(
        (ran.code, ran.codes("warnings")),
        (Some(0), vec![]),
        "{}",
        ran.stdout
    );
    let rows = dpus(&site);
    assert_eq!(rows.len(), OBSERVED);
    assert_eq!(rows[3]["ip_address"], "10.9.0.3");
    assert_eq!(rows[3]["component_id"], site.machine(3)["id"]);
    assert_eq!(
        ran.summary["drift"]["Compute"]["received"], 20,
        "a DPU is no machine"
    );
    // Not asked is not gone; refused is not gone either, and is asked once.
    site.run("natural-key", &[]);
    assert_eq!(dpus(&site).len(), OBSERVED);
    let viewer = CoreServer::start(|request| answer(request, Version::V2, May::View, 0));
    let ran = run(&site.mirror, &viewer, "natural-key", &["--observe-dpus"]);
    assert_eq!(
        (ran.code, ran.codes("warnings")),
        (Some(0), vec!["source_not_permitted".to_owned()])
    );
    assert_eq!(viewer.requests_for("dpu").len(), 1);
    assert_eq!(dpus(&site).len(), OBSERVED);
}

#[test]
fn one_host_whose_dpus_cannot_be_read_costs_no_other_row() {
    let fail = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fail);
    let core = CoreServer::start(move |request| {
        if failing.load(Ordering::Relaxed) && request.path.ends_with("fm100h0002/dpu") {
            return status(404);
        }
        answer(request, Version::V2, May::All, 0)
    });
    let mirror = Mirror::new();
    run(&mirror, &core, "natural-key", &["--observe-dpus"]);
    let before = mirror.dump();
    fail.store(true, Ordering::Relaxed);
    let ran = run(&mirror, &core, "natural-key", &["--observe-dpus"]);
    assert_eq!(
        (ran.code, ran.codes("warnings")),
        (Some(0), vec!["dpu_list_failed".to_owned()])
    );
    assert_eq!(mirror.dump(), before);
}

#[test]
fn trays_and_endpoints_add_what_the_list_of_machines_lacks() {
    let site = Site::new(Version::V2, May::All);
    let optional = ["--observe-trays", "--observe-endpoints"];
    let ran = site.run("natural-key", &optional);
    assert_eq!(
        (ran.code, ran.codes("warnings")),
        (Some(0), vec![]),
        "{}",
        ran.stdout
    );
    assert_eq!(site.machine(5)["power_state"], "On", "from the trays");
    assert_eq!(site.machine(3)["power_state"], "Off", "from the endpoints");
    assert_eq!(
        ran.summary["drift"]["NVSwitch"],
        json!({"received": 27, "complete": true, "rows": {"missing_in_actual": 1}})
    );
    assert_eq!(
        ran.summary["drift"]["PowerShelf"],
        json!({"received": 28, "complete": true, "rows": {}})
    );
    let rows = site.rows("component");
    let switch = rows
        .iter()
        .find(|row| row["serial_number"] == "S2-7")
        .unwrap();
    assert_eq!(
        (&switch["external_id"], &switch["firmware_version"]),
        (&json!("switch-7"), &json!("9.1"))
    );
    // Flow's position is what it expects itself: it is no observation.
    let mismatches = site
        .rows("component_drift")
        .iter()
        .filter(|row| row["drift_type"] == "mismatch")
        .count();
    assert_eq!(mismatches, 1);
    for (may, code) in [
        (May::View, "source_not_permitted"),
        (May::WithoutFlow, "source_not_available"),
    ] {
        let other = CoreServer::start(move |request| answer(request, Version::V2, may, 0));
        let before = site.mirror.dump();
        let ran = run(&site.mirror, &other, "natural-key", &optional);
        assert_eq!(ran.code, Some(0), "{}", ran.stdout);
        assert!(
            ran.codes("warnings").contains(&code.to_owned()),
            "{}",
            ran.stdout
        );
        assert_eq!(site.mirror.dump(), before, "{code}");
    }
}

/// Core's REST interface shows neither host ids nor power states, nor switches and shelves.
#[test]
fn expected_over_rest_and_observed_from_a_file_in_one_run() {
    let site = Site::new(Version::V2, May::View);
    let observed = json!({
        "actual_machines": [{"id": "m-4", "type": "HOST", "chassis_serial": "S1-4", "bmc_mac": "02:00:5e:10:00:04",
            "power_state": "On", "position": {"physical_slot_number": 7, "compute_tray_index": 0, "topology_id": 2}}],
        "actual_switches": [{"id": "sw-1", "serial_number": "S2-1", "bmc_mac": "02:00:5e:20:00:01"}],
    });
    let path = site.mirror.file("observed.json", &observed);
    let observed = format!("file:{}", path.display());
    let ran = site.run("natural-key", &["--observed", &observed]);
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(
        site.core.requests_for("machine").is_empty(),
        "Core is not asked for machines"
    );
    let machine = site.machine(4);
    assert_eq!(
        (&machine["external_id"], &machine["power_state"]),
        (&json!("m-4"), &json!("On"))
    );
    let drift = site.rows("component_drift");
    let mismatch: Vec<&Value> = drift
        .iter()
        .filter(|row| row["drift_type"] == "mismatch")
        .collect();
    assert_eq!(mismatch.len(), 1);
    assert_eq!(
        mismatch[0]["diffs"][0]["field_name"], "host_id",
        "a file carries it"
    );
    assert_eq!(ran.summary["drift"]["NVSwitch"]["received"], 1);
    assert!(
        ran.summary["drift"].get("PowerShelf").is_none(),
        "nothing was said of them"
    );
    let source = site.mirror.audit()[0]["source"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        source.contains("org o") && source.contains("observed from file:"),
        "{source}"
    );
    let both = site.run("natural-key", &["--observed", &observed, "--observe-trays"]);
    assert_eq!(both.code, Some(2), "two sources for one thing");
}

/// What the controllers of switches and shelves say, in a document.
#[test]
fn states_health_and_addresses_of_devices_are_written_and_never_compared() {
    let mirror = Mirror::new();
    let document = |state: &str| {
        json!({
            "expected_switches": [{"bmc_mac_address": "02:00:5e:20:00:01", "switch_serial_number": "S2-1",
                "metadata": {"description": "top", "labels": [{"key": "manufacturer", "value": "Foxwell"}]}}],
            "actual_switches": [{"id": "sw-1", "serial_number": "S2-1", "bmc_mac": "02:00:5e:20:00:01", "status": {"odd": 1},
                "controller_state": state, "nvos_ip_address": "10.7.0.1",
                "health": {"source": "agg", "alerts": [], "observedAt": "2026-11-26T10:00:00Z"}}],
        })
    };
    for state in ["initializing", "ready"] {
        let ran = mirror.run(&document(state), &["--profile", "host-mac"]);
        assert_eq!(
            (ran.code, &ran.summary["drift"]["NVSwitch"]["rows"]),
            (Some(0), &json!({}))
        );
        let row = mirror.dump()["component"][0].clone();
        assert_eq!(row["lifecycle_state"], state);
        assert_eq!(row["status"], Value::Null);
        assert_eq!(row["health"], json!({"source": "agg", "alerts": []}));
        let both = json!({"expected_description": "top", "nvos_ip_address": "10.7.0.1"});
        assert_eq!(row["description"], both, "each has a key of its own");
    }
    let audit = mirror.audit();
    let last = audit.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&last["op"], &last["field"]),
        (&json!("observe"), &json!("lifecycle_state"))
    );
}
