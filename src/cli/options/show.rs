//! Settings as people and support read them: each with its values and where they came from, those in tables of the
//! file as well.

use super::{SettingOrigin, Settings, plain};
use serde_json::{Value, json};

/// A setting, or one of a table.
struct ShownSetting {
    /// In a table its place: `deliver[2].token_file`.
    key: String,
    values: Vec<String>,
    from: SettingOrigin,
}

impl Settings {
    /// Every setting with its values and their origin, for [`crate::telemetry::support`].
    pub fn effective(&self) -> Value {
        let shown = self.shown().into_iter();
        let shown = shown.map(|setting| {
            let ShownSetting { key, values, from } = setting;
            json!({"key": key, "values": values, "from": from.to_string()})
        });
        shown.collect()
    }

    /// Every setting with its values and their origin, as `check-config` shows them.
    pub fn show(&self) -> String {
        let mut lines = String::new();
        for ShownSetting { key, values, from } in self.shown() {
            let values = match values.is_empty() {
                true => "(none)".into(),
                false => values.join(", "),
            };
            lines.push_str(&format!("{key:<24} {values:<32} {from}\n"));
        }
        lines
    }

    fn shown(&self) -> Vec<ShownSetting> {
        let mut shown = Vec::new();
        for setting in self.settings {
            let (values, from) = self.text(setting.key);
            let of_tables = self.of_tables(setting.key);
            // Sinks that are typed stand in place of those in tables; guests stand beside them.
            let is_replaced = setting.per_sink && self.given.contains_key(setting.key);
            if of_tables.is_empty() || is_replaced || !values.is_empty() {
                let key = setting.key.to_owned();
                shown.push(ShownSetting { key, values, from });
            }
            if !is_replaced {
                shown.extend(of_tables);
            }
        }
        shown
    }

    /// What stands in the tables of this name, which are counted from 1.
    fn of_tables(&self, name: &str) -> Vec<ShownSetting> {
        let (Some(tables), Some(file)) = (self.tables.get(name), &self.file) else {
            return Vec::new();
        };
        let tables = tables.as_array().into_iter().flatten();
        let tables = tables
            .zip(1..)
            .filter_map(|(item, n)| Some((item.as_table()?, n)));
        let rows = tables.flat_map(|(table, n)| {
            table.iter().map(move |(key, value)| ShownSetting {
                key: format!("{name}[{n}].{key}"),
                values: match value {
                    toml::Value::Array(items) => items.iter().filter_map(plain).collect(),
                    value => plain(value).into_iter().collect(),
                },
                from: SettingOrigin::File(file.clone()),
            })
        });
        rows.collect()
    }
}
