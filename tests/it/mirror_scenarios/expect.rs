//! What a scenario expects, compared with what came out.

use super::Ran;
use super::translate::Translator;
use serde_json::{Map, Value};
use std::time::Duration;

/// One cycle and what it left.
pub struct Step<'a> {
    pub before: &'a Value,
    pub after: &'a Value,
    pub ran: &'a Ran,
    /// How often the scripted list was asked for.
    pub requests: Option<usize>,
    pub elapsed: Duration,
    pub audit: Value,
}

/// Compares, and collects what is wrong.
pub struct Expectations<'a> {
    profile: &'a str,
    /// Before the first cycle.
    start: &'a Value,
    pub wrong: Vec<String>,
}

impl<'a> Expectations<'a> {
    pub fn new(profile: &'a str, start: &'a Value) -> Self {
        Self {
            profile,
            start,
            wrong: Vec::new(),
        }
    }

    fn expect(&mut self, right: bool, what: impl FnOnce() -> String) {
        if !right {
            self.wrong.push(what());
        }
    }

    /// Checks everything that one `expect` says.
    pub fn check(&mut self, expect: &Value, step: &Step<'_>, names: &mut Translator) {
        // Rows first: they say which new row is which.
        let mut all: Vec<(&String, &Value)> = expect.as_object().unwrap().iter().collect();
        all.sort_by_key(|(key, _)| !key.ends_with("rows"));
        for (key, value) in all {
            self.one(key, value, step, names);
        }
    }

    fn one(&mut self, key: &str, value: &Value, step: &Step<'_>, names: &mut Translator) {
        let ran = step.ran;
        match key {
            "note" | "cycles" => {}
            "rows" => self.rows(value, step, names),
            "profile_rows" => self.rows(&value[self.profile], step, names),
            "absent_keys" => self.absent_keys(value, step, names),
            "gone" => self.gone(value, step, names),
            "total" => {
                for (table, count) in value.as_object().unwrap() {
                    let there = step.after[table].as_array().unwrap().len() as u64;
                    self.expect(Some(there) == count.as_u64(), || {
                        format!("{there} rows of {table}, not {count}")
                    });
                }
            }
            "count_where" => {
                for (what, count) in value.as_object().unwrap() {
                    let (column, wanted) = what.split_once('=').unwrap();
                    let (table, column) = column.split_once('.').unwrap();
                    let rows = step.after[table].as_array().unwrap();
                    let there = rows.iter().filter(|row| row[column] == wanted).count() as u64;
                    self.expect(Some(there) == count.as_u64(), || {
                        format!("{there} with {what}")
                    });
                }
            }
            "unchanged" => {
                let same = step.before == step.after;
                self.expect(value == same, || {
                    format!("unchanged is {same}: {}", step.after)
                });
            }
            "bmc_unchanged" => {
                let same = step.before["bmc"] == step.after["bmc"];
                self.expect(same, || "bmc changed".into());
            }
            "drift_untouched" => {
                let same = step.before["component_drift"] == step.after["component_drift"];
                self.expect(same, || "drift changed".into());
            }
            "counts" => self.counts(value, ran),
            "warn" | "error" => {
                let level = if key == "warn" { "warnings" } else { "errors" };
                let codes = ran.codes(level);
                let wanted = value.as_array().unwrap();
                self.expect(!wanted.is_empty() || codes.is_empty(), || {
                    format!("{key} {codes:?}, where there is nothing to say")
                });
                for wanted in wanted {
                    let mut any = wanted.as_str().unwrap().split('|');
                    let found = any.any(|code| codes.iter().any(|c| c == code));
                    self.expect(found, || {
                        format!("no {key} {wanted}, but {codes:?}: {}", ran.stderr)
                    });
                }
            }
            "no_warn" => {
                let codes = ran.codes("warnings");
                for code in value.as_array().unwrap() {
                    let found = codes.iter().any(|c| c == code);
                    self.expect(!found, || format!("warning {code}"));
                }
            }
            "mirror_ran" => {
                let did = &ran.summary["mirror_ran"];
                self.expect(did == value, || format!("mirror_ran is {did}"));
            }
            "exit" => {
                let code = match value.as_str() {
                    Some("converged") => 0,
                    Some("partial") => 1,
                    Some("withheld") => 3,
                    _ => panic!("unknown: exit {value}"),
                };
                self.expect(ran.code == Some(code), || format!("exit {:?}", ran.code));
            }
            "requests" => {
                let asked = step.requests.map(|n| n as u64);
                self.expect(asked == value.as_u64(), || format!("{asked:?} requests"));
            }
            "min_elapsed_ms" => {
                let least = Duration::from_millis(value.as_u64().unwrap());
                self.expect(step.elapsed >= least, || format!("took {:?}", step.elapsed));
            }
            "time_limit_s" => {
                let most = Duration::from_secs(value.as_u64().unwrap());
                self.expect(step.elapsed <= most, || format!("took {:?}", step.elapsed));
            }
            // Whether a header leaves is seen by the servers of mirror_http; here nobody may have
            // been asked a second time.
            "must_not_leak_header" => {
                self.expect(step.requests == Some(1), || {
                    format!("{:?} requests", step.requests)
                });
            }
            "drift_exact" | "drift_contains" => {
                self.drift(value.as_array().unwrap(), key == "drift_exact", step, names);
            }
            "received" => {
                for (kind, count) in value.as_object().unwrap() {
                    let received = &ran.summary["drift"][kind]["received"];
                    self.expect(received == count, || {
                        format!("received {received} of {kind}")
                    });
                }
            }
            "type_ok" => {
                for (kind, ok) in value.as_object().unwrap() {
                    let complete = &ran.summary["drift"][kind]["complete"];
                    self.expect(complete == ok, || format!("{kind} complete: {complete}"));
                }
            }
            "audit" => {
                for op in value.as_array().unwrap() {
                    let found = step
                        .audit
                        .as_array()
                        .unwrap()
                        .iter()
                        .any(|row| row["op"] == *op);
                    self.expect(found, || format!("no audit row {op}"));
                }
            }
            "audit_contains" => {
                for wanted in value.as_array().unwrap() {
                    let rows = step.audit.as_array().unwrap();
                    let found = rows.iter().any(|row| {
                        row["op"] == wanted["op"]
                            && row["row"] == wanted["mac"]
                            && row["old"]["ip_address"] == wanted["old_ip"]
                    });
                    self.expect(found, || format!("no audit row like {wanted}"));
                }
            }
            "audit_fields" => {
                for (name, fields) in value.as_object().unwrap() {
                    let id = names.id(name);
                    let rows = step.audit.as_array().unwrap().iter();
                    let rows = rows.filter(|row| row["row"] == id && row["op"] != "load");
                    let written: Vec<&Value> = rows.map(|row| &row["field"]).collect();
                    let wanted: Vec<&Value> = fields.as_array().unwrap().iter().collect();
                    self.expect(written == wanted, || format!("audited fields {written:?}"));
                }
            }
            "plan_order" => {
                let rows = step.audit.as_array().unwrap().iter();
                let inserted = rows.filter(|row| row["op"] == "insert");
                let mut names: Vec<String> = inserted
                    .map(|row| row["new"]["name"].as_str().unwrap().to_owned())
                    .collect();
                // Rows are written by id, and ids are drawn: only that all are there shows here.
                // The order itself is shown by the plan (mirror_plans).
                names.sort();
                let mut wanted: Vec<String> = value
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|name| name.as_str().unwrap().to_owned())
                    .collect();
                wanted.sort();
                self.expect(names == wanted, || format!("inserted {names:?}"));
            }
            "deletes_suppressed" | "unchanged_deletes" => {
                let dead = |dump: &Value| {
                    let rows = dump["component"].as_array().unwrap();
                    rows.iter()
                        .filter(|row| !row["deleted_at"].is_null())
                        .count()
                };
                self.expect(dead(step.before) == dead(step.after), || {
                    "rows were deleted".into()
                });
            }
            other => panic!("unknown: expect {other}"),
        }
    }

    fn counts(&mut self, counts: &Value, ran: &Ran) {
        for (kind, counters) in counts.as_object().unwrap() {
            for (counter, count) in counters.as_object().unwrap() {
                let counted = &ran.summary["types"][kind][counter];
                self.expect(counted == count, || {
                    format!("{kind}.{counter} is {counted}, not {count}")
                });
            }
        }
    }

    fn rows(&mut self, tables: &Value, step: &Step<'_>, names: &mut Translator) {
        // Those first that others name.
        for table in ["nvldomain", "rack", "component", "bmc"] {
            for wanted in tables
                .get(table)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                self.row(table, wanted.as_object().unwrap(), step, names);
            }
        }
        let known = tables.as_object().unwrap().keys();
        known.for_each(|table| {
            assert!(
                ["nvldomain", "rack", "component", "bmc"].contains(&table.as_str()),
                "{table}"
            );
        });
    }

    fn row(
        &mut self,
        table: &str,
        wanted: &Map<String, Value>,
        step: &Step<'_>,
        names: &mut Translator,
    ) {
        let rows = step.after[table].as_array().unwrap();
        let found = match wanted.get("id").and_then(Value::as_str) {
            Some(name) if name.starts_with("NEW") && names.known(name).is_none() => {
                let start = self.start[table].as_array().unwrap();
                let fresh = rows.iter().find(|row| {
                    start.iter().all(|old| old["id"] != row["id"])
                        && !names.is_named(row["id"].as_str().unwrap())
                        && differences(table, wanted, row, names).is_empty()
                });
                if let Some(row) = fresh {
                    names.name(name, row["id"].as_str().unwrap());
                }
                fresh
            }
            Some(name) => {
                let id = names.id(name);
                rows.iter().find(|row| row["id"] == id)
            }
            None => {
                let mac = wanted["mac"]
                    .as_str()
                    .unwrap()
                    .to_lowercase()
                    .replace('-', ":");
                rows.iter().find(|row| row["mac_address"] == mac)
            }
        };
        let Some(row) = found else {
            let all = Value::from(rows.clone());
            self.wrong.push(format!("no {table} {wanted:?} in {all}"));
            return;
        };
        let differences = differences(table, wanted, row, names);
        self.expect(differences.is_empty(), || {
            format!("{table}: {differences:?} in {row}")
        });
    }

    fn absent_keys(&mut self, absent: &Value, step: &Step<'_>, names: &mut Translator) {
        for (place, keys) in absent.as_object().unwrap() {
            let parts: Vec<&str> = place.split('.').collect();
            let id = names.id(parts[1]);
            let rows = step.after[parts[0]].as_array().unwrap();
            let row = rows.iter().find(|row| row["id"] == id).unwrap();
            for key in keys.as_array().unwrap() {
                let there = row[parts[2]].get(key.as_str().unwrap()).is_some();
                self.expect(!there, || format!("{place} has {key}"));
            }
        }
    }

    fn gone(&mut self, gone: &Value, step: &Step<'_>, names: &mut Translator) {
        for (table, keys) in gone.as_object().unwrap() {
            let column = if table == "bmc" { "mac_address" } else { "id" };
            for key in keys.as_array().unwrap() {
                let name = key.as_str().unwrap();
                let key = if table == "bmc" {
                    name.to_owned()
                } else {
                    names.id(name)
                };
                let there = step.after[table]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|row| row[column] == key);
                self.expect(!there, || format!("{table} {name} is still there"));
            }
        }
    }

    fn drift(&mut self, wanted: &[Value], exact: bool, step: &Step<'_>, names: &mut Translator) {
        let mut rows: Vec<Value> = step.after["component_drift"].as_array().unwrap().clone();
        for drift in wanted {
            let wanted = drift.as_object().unwrap();
            let found = rows.iter().position(|row| {
                wanted.iter().all(|(key, value)| match key.as_str() {
                    "component" => match value.as_str() {
                        Some(name) => row["component_id"] == names.id(name),
                        None => row["component_id"].is_null(),
                    },
                    key => row[key] == *value,
                })
            });
            match found {
                Some(found) => drop(rows.remove(found)),
                None => self.wrong.push(format!("no drift {drift} in {rows:?}")),
            }
        }
        self.expect(!exact || rows.is_empty(), || {
            format!("more drift: {rows:?}")
        });
    }
}

/// Columns of `wanted` that `row` does not have like that.
fn differences(
    table: &str,
    wanted: &Map<String, Value>,
    row: &Value,
    names: &Translator,
) -> Vec<String> {
    let symbol = |value: &Value| {
        let id = value.as_str().and_then(|name| names.known(name));
        id.map_or(Value::Null, |id| Value::from(id.clone()))
    };
    let mut differences = Vec::new();
    for (column, value) in wanted {
        let (stored, value) = match (column.as_str(), table) {
            ("id", _) | ("mac", "bmc") => continue,
            // There are no credentials here, whatever else knows them.
            ("user" | "password", "bmc") => (&row[column.as_str()], Value::Null),
            ("deleted", _) => {
                if row["deleted_at"].is_null() == value.as_bool().unwrap() {
                    differences.push(format!("deleted is not {value}"));
                }
                continue;
            }
            ("component", "bmc") => (&row["component_id"], symbol(value)),
            ("ip", "bmc") => (&row["ip_address"], value.clone()),
            ("rack_id", "component") => (&row["rack_id"], symbol(value)),
            ("nvldomain_id", "rack") => (&row["nvldomain_id"], symbol(value)),
            (column, _) => (&row[column], value.clone()),
        };
        if *stored != value {
            differences.push(format!("{column} is {stored}, not {value}"));
        }
    }
    differences
}
