//! From the words of the scenario file to documents, flags and rows.

use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Keeps which symbolic name stands for which id.
#[derive(Default)]
pub struct Translator {
    ids: HashMap<String, String>,
}

impl Translator {
    /// The id of a symbolic name; the same name is the same row.
    pub fn id(&mut self, name: &str) -> String {
        let next = self.ids.len() + 1;
        let id = self.ids.entry(name.to_owned());
        id.or_insert_with(|| format!("5c3e0000-0000-4000-8000-{next:012}"))
            .clone()
    }

    /// The id of a name that is known already.
    pub fn known(&self, name: &str) -> Option<&String> {
        self.ids.get(name)
    }

    /// Says what a new row is called.
    pub fn name(&mut self, name: &str, id: &str) {
        self.ids.insert(name.to_owned(), id.to_owned());
    }

    /// Whether a row has a name already.
    pub fn is_named(&self, id: &str) -> bool {
        self.ids.values().any(|known| known == id)
    }

    /// `flow_before` as a dump.
    pub fn tables(&mut self, before: &Value) -> Value {
        let mut rows = before.as_object().cloned().unwrap_or_default();
        let generated = rows.remove("generate");
        let mut tables = Map::new();
        for (table, list) in rows {
            let list = list.as_array().unwrap();
            let name = if table == "drift" {
                "component_drift"
            } else {
                &table
            };
            let list = list.iter().map(|row| self.row(name, row)).collect();
            tables.insert(name.to_owned(), list);
        }
        if let Some(generated) = generated {
            let count = generated["components"].as_u64().unwrap();
            let components = (0..count).map(|n| {
                json!({"id": self.id(&format!("G{n}")), "type": "Compute", "name": serial(n), "manufacturer": "Foxwell", "serial_number": serial(n)})
            });
            tables.insert("component".into(), components.collect());
            let bmcs = (0..count).map(|n| {
                json!({"mac_address": mac(n), "type": "Host", "component_id": self.id(&format!("G{n}"))})
            });
            tables.insert("bmc".into(), bmcs.collect());
        }
        Value::Object(tables)
    }

    fn row(&mut self, table: &str, row: &Value) -> Value {
        let mut columns = Map::new();
        for (name, value) in row.as_object().unwrap() {
            let symbol = value.as_str().map(|name| self.id_of(table, name));
            let (name, value) = match (name.as_str(), table) {
                ("id", _) => ("id", json!(symbol)),
                ("deleted", _) if value == true => ("deleted_at", json!("2026-01-01T00:00:00Z")),
                ("deleted", _) => continue,
                ("rack_id", "component") => ("rack_id", json!(symbol)),
                ("nvldomain_id", "rack") => ("nvldomain_id", json!(symbol)),
                ("mac", "bmc") => ("mac_address", value.clone()),
                ("ip", "bmc") => ("ip_address", value.clone()),
                ("component", _) => ("component_id", json!(symbol)),
                (name, _) => (name, value.clone()),
            };
            columns.insert(name.to_owned(), value);
        }
        Value::Object(columns)
    }

    fn id_of(&mut self, _table: &str, name: &str) -> String {
        self.id(name)
    }

    /// What happens between two cycles, done to a dump.
    pub fn between(&mut self, between: &Value, mut dump: Value) -> Value {
        for (what, how) in between.as_object().unwrap() {
            for row in dump["component"].as_array_mut().unwrap() {
                match what.as_str() {
                    "set_description_keys" => {
                        let mut description =
                            row["description"].as_object().cloned().unwrap_or_default();
                        description.extend(how.as_object().unwrap().clone());
                        row["description"] = Value::Object(description);
                    }
                    "soft_delete" => {
                        let names = how.as_array().unwrap();
                        let named = |name: &Value| {
                            self.known(name.as_str().unwrap())
                                .is_some_and(|id| row["id"] == *id)
                        };
                        if names.iter().any(named) {
                            row["deleted_at"] = json!("2026-01-01T00:00:00Z");
                        }
                    }
                    other => panic!("unknown: between {other}"),
                }
            }
        }
        dump
    }

    /// What Core says, as a document of the file dialect.
    pub fn document(&mut self, core: &Value) -> Value {
        let mut document = Map::new();
        let lists = [
            ("racks", "expected_racks", ""),
            ("machines", "expected_machines", "chassis_serial_number"),
            ("switches", "expected_switches", "switch_serial_number"),
            (
                "power_shelves",
                "expected_power_shelves",
                "shelf_serial_number",
            ),
        ];
        for (key, value) in core.as_object().unwrap() {
            match key.as_str() {
                "actual" => actual(value, &mut document),
                "topology" => document.extend(value.as_object().unwrap().clone()),
                "generate" => {
                    let count = value["machines"].as_u64().unwrap();
                    let machines = (0..count).map(|n| {
                        json!({"bmc_mac_address": mac(n), "chassis_serial_number": serial(n),
                               "metadata": {"labels": [{"key": "manufacturer", "value": "Foxwell"}]}})
                    });
                    document.insert("expected_machines".into(), machines.collect());
                }
                "args" | "env" | "fault" | "between" => {}
                key => {
                    let list = lists.iter().find(|(name, _, _)| *name == key);
                    let (_, name, serial) = list.unwrap_or_else(|| panic!("unknown: core {key}"));
                    let entries = match value.as_array() {
                        Some(entries) => entries.iter().map(|e| entry(e, serial)).collect(),
                        None => value.clone(),
                    };
                    document.insert((*name).to_owned(), entries);
                }
            }
        }
        Value::Object(document)
    }
}

fn serial(n: u64) -> String {
    format!("GEN-{n}")
}

fn mac(n: u64) -> String {
    let bytes = n.to_be_bytes();
    format!(
        "02:00:5f:{:02x}:{:02x}:{:02x}",
        bytes[5], bytes[6], bytes[7]
    )
}

fn entry(entry: &Value, serial: &str) -> Value {
    let mut columns = Map::new();
    let mut metadata = Map::new();
    let list = entry.get("labels_list").is_some();
    for (key, value) in entry.as_object().unwrap() {
        match key.as_str() {
            "rack_id" => drop(columns.insert("rack_id".into(), json!({"id": value}))),
            "rack_profile_id" => {
                drop(columns.insert("rack_profile_id".into(), json!({"id": value})));
            }
            "bmc_mac" => drop(columns.insert("bmc_mac_address".into(), value.clone())),
            "bmc_ip" => drop(columns.insert("bmc_ip_address".into(), value.clone())),
            "serial" => drop(columns.insert(serial.to_owned(), value.clone())),
            "name" | "description" => drop(metadata.insert(key.clone(), value.clone())),
            "labels" if list => {}
            "labels_list" => drop(metadata.insert("labels".into(), value.clone())),
            "labels" => {
                let labels = value.as_object().unwrap().iter();
                let labels = labels.map(|(key, value)| json!({"key": key, "value": value}));
                metadata.insert("labels".into(), labels.collect());
            }
            other => panic!("unknown: core row {other}"),
        }
    }
    // Credentials come with every entry in reality, and must lead nowhere.
    if !serial.is_empty() {
        columns.insert("bmc_username".into(), json!("root"));
        columns.insert("bmc_password".into(), json!("never-to-be-stored"));
    }
    columns.insert("metadata".into(), Value::Object(metadata));
    Value::Object(columns)
}

fn actual(actual: &Value, document: &mut Map<String, Value>) {
    let part = |name: &str| actual.get(name).cloned();
    for key in actual.as_object().unwrap().keys() {
        let known = [
            "machines",
            "positions",
            "switches",
            "power_shelves",
            "power_states",
            "component_inventory",
        ];
        assert!(known.contains(&key.as_str()), "unknown: actual {key}");
    }
    let inventory = part("component_inventory").unwrap_or_default();
    let complete = |device: &Value| {
        let mut device = device.as_object().unwrap().clone();
        let id = device
            .remove("machine_id")
            .or(device.get("id").cloned())
            .unwrap();
        let id = id.as_str().unwrap().to_owned();
        device.insert("id".into(), json!(id));
        if let Some(found) = inventory.get(&id) {
            // The document has one version per device: none unless the query succeeded.
            device.remove("firmware_version");
            if found["status"] == "SUCCESS" {
                if let Some(version) = found["firmware_versions"].get("bmc") {
                    device.insert("firmware_version".into(), version.clone());
                }
                if let Some(state) = found.get("power_state") {
                    device.insert("power_state".into(), state.clone());
                }
            }
        }
        if let Some(state) = part("power_states").unwrap_or_default().get(&id) {
            device.insert("power_state".into(), state.clone());
        }
        let positions = part("positions").unwrap_or_default();
        let position = positions
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["machine_id"] == id);
        if let Some(position) = position {
            let mut position = position.clone();
            position.as_object_mut().unwrap().remove("machine_id");
            device.insert("position".into(), position);
        }
        Value::Object(device)
    };
    let lists = [
        ("machines", "actual_machines"),
        ("switches", "actual_switches"),
        ("power_shelves", "actual_power_shelves"),
    ];
    for (key, name) in lists {
        if let Some(list) = actual.get(key) {
            let devices = list
                .as_array()
                .map(|list| list.iter().map(complete).collect());
            document.insert(name.into(), devices.unwrap_or_else(|| list.clone()));
        }
    }
    if let Some(failed) = part("positions").filter(Value::is_object) {
        document.insert("actual_positions".into(), failed);
    }
}

/// Flags that a scenario names, as they are called here.
pub fn flags(scenario: &Value) -> Vec<String> {
    let mut flags = Vec::new();
    for (key, value) in scenario
        .get("flags")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let flag = match key.as_str() {
            "name_policy" => "--names",
            "clear_policy" => "--clear",
            other => panic!("unknown: flag {other}"),
        };
        flags.extend([flag.to_owned(), value.as_str().unwrap().to_owned()]);
    }
    let arguments = scenario["core"].get("args").and_then(Value::as_array);
    for argument in arguments.into_iter().flatten() {
        flags.push(match argument.as_str().unwrap() {
            "--max-delete" => "--max-deletes".to_owned(),
            "--max-delete-pct" => "--max-delete-percent".to_owned(),
            other => site_id(other),
        });
    }
    flags
}

/// The UUID of a site that a scenario calls `s-N`; any other text as it is.
pub fn site_id(text: &str) -> String {
    match text.strip_prefix("s-").and_then(|n| n.parse::<u32>().ok()) {
        Some(n) => format!("51fe0000-0000-4000-8000-{n:012}"),
        None => text.to_owned(),
    }
}

/// What the gate is set to, if it is.
pub fn gate(core: &Value) -> Option<String> {
    let environment = core.get("env")?.as_object().unwrap();
    assert_eq!(environment.len(), 1);
    let value = environment
        .get("FLOW_EXPECTED_INVENTORY_SYNC_ENABLED")
        .unwrap();
    value.as_str().map(str::to_owned)
}

/// All orders of so many things.
pub fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(count - 1).into_iter();
    shorter
        .flat_map(|order| {
            (0..=order.len()).map(move |at| {
                let mut longer = order.clone();
                longer.insert(at, count - 1);
                longer
            })
        })
        .collect()
}

/// A dump in which rows are told apart by what is in them, not by ids drawn at random.
pub fn without_new_ids(dump: &Value) -> Value {
    let components = dump["component"].as_array().unwrap();
    let owner = |id: &Value| {
        components
            .iter()
            .find(|c| c["id"] == *id)
            .map(|c| c["name"].clone())
    };
    let mut rows: Vec<String> = components
        .iter()
        .map(|row| {
            let mut row = row.clone();
            row["id"] = Value::Null;
            row.to_string()
        })
        .collect();
    for bmc in dump["bmc"].as_array().unwrap() {
        let mut bmc = bmc.clone();
        bmc["component_id"] = json!(owner(&bmc["component_id"]));
        rows.push(bmc.to_string());
    }
    rows.sort();
    json!(rows)
}
