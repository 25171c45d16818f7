//! Settings and where they come from: flag, then environment, then file, then default.
//!
//! Every command lists its settings once, as [`Setting`]s; parsing, `check-config --show`, man
//! pages, completions and the shipped configuration files all follow that list. A setting
//! `rescan-interval` is the flag `--rescan-interval`, the variable `AFFERENT_RESCAN_INTERVAL`
//! (several values separated by commas) and the TOML key `rescan_interval`.

use crate::sense::roster::file;
use crate::store::Limits;
use crate::transport::TlsFiles;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting of a command.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// As the long flag has it, without dashes in front.
    pub name: &'static str,
    /// What a value looks like, for help: `DURATION`, `on|off`.
    pub value: &'static str,
    /// Used when nobody says anything; `None`: then there is no value.
    pub default: Option<&'static str>,
    /// Whether it may be given several times.
    pub many: bool,
    /// One sentence without a full stop.
    pub help: &'static str,
}

impl Setting {
    /// Its key in a TOML file.
    pub fn key(&self) -> String {
        self.name.replace('-', "_")
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("AFFERENT_{}", self.key().to_ascii_uppercase())
    }
}

/// How long a damaged database that was moved aside is kept.
pub(super) const DAMAGED_MAX_AGE: Setting = Setting {
    name: "damaged-max-age",
    value: "DURATION",
    default: Some("720h"),
    many: false,
    help: "longest a damaged database that was moved aside is kept, 1h to 8760h",
};

/// How many of them are kept.
pub(super) const DAMAGED_MAX_COUNT: Setting = Setting {
    name: "damaged-max-count",
    value: "NUMBER",
    default: Some("5"),
    many: false,
    help: "damaged databases that are kept, the newest, 0 to 100",
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingOrigin {
    /// Typed on the command line.
    Flag,
    /// An environment variable, by name.
    Environment(String),
    /// A file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("command line"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => path.display().fmt(f),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting that cannot be used: says where it stands, which one, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    origin: SettingOrigin,
    key: Option<String>,
    message: String,
}

impl ConfigError {
    /// About `key` as it was given at `origin`.
    pub fn new(origin: SettingOrigin, key: &str, message: impl Into<String>) -> Self {
        Self {
            origin,
            key: Some(key.to_owned()),
            message: message.into(),
        }
    }

    /// About a whole file.
    pub fn in_file(path: &Path, message: impl Into<String>) -> Self {
        Self {
            origin: SettingOrigin::File(path.to_owned()),
            key: None,
            message: message.into(),
        }
    }

    /// 2 (usage) for what was typed, 3 (configuration) for the rest.
    pub fn exit_code(&self) -> u8 {
        match self.origin {
            SettingOrigin::Flag => super::USAGE,
            _ => super::CONFIGURATION,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.key) {
            (SettingOrigin::Flag, Some(key)) => write!(f, "--{key}: ")?,
            (SettingOrigin::Environment(name), _) => write!(f, "{name}: ")?,
            (SettingOrigin::File(path), Some(key)) => {
                write!(f, "{}: {}: ", path.display(), key.replace('-', "_"))?;
            }
            (SettingOrigin::File(path), None) => write!(f, "{}: ", path.display())?,
            (SettingOrigin::Default, Some(key)) => write!(f, "{key}: ")?,
            (_, None) => {}
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// Values as they were given, by setting.
pub struct Settings {
    settings: &'static [Setting],
    given: BTreeMap<&'static str, (Vec<String>, SettingOrigin)>,
    /// Top-level tables of the file that the command reads by itself.
    tables: toml::Table,
    file: Option<PathBuf>,
}

impl Settings {
    /// Gathers `flags` (name and values as typed), the environment, and `file` if there is one.
    ///
    /// `tables` names those keys of the file that are no settings but for the command to read.
    pub fn gather(
        settings: &'static [Setting],
        flags: Vec<(&'static str, Vec<String>)>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<&Path>,
        tables: &[&str],
    ) -> Result<Self, ConfigError> {
        let mut gathered = Self {
            settings,
            given: BTreeMap::new(),
            tables: toml::Table::new(),
            file: file.map(Path::to_owned),
        };
        if let Some(path) = file {
            gathered.read_file(path, tables)?;
        }
        for setting in settings {
            if let Some(text) = environment(&setting.variable()) {
                let values = if setting.many {
                    values_of(&text)
                } else {
                    vec![text]
                };
                let origin = SettingOrigin::Environment(setting.variable());
                gathered.given.insert(setting.name, (values, origin));
            }
        }
        for (name, values) in flags {
            if !values.is_empty() {
                gathered.given.insert(name, (values, SettingOrigin::Flag));
            }
        }
        Ok(gathered)
    }

    fn read_file(&mut self, path: &Path, tables: &[&str]) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::in_file(path, error.to_string()))?;
        let table: toml::Table = toml::from_str(&text)
            .map_err(|error| ConfigError::in_file(path, file::in_one_line(&text, &error)))?;
        let origin = SettingOrigin::File(path.to_owned());
        for (key, value) in table {
            // A list of tables is for the command to read; a list of strings is the setting.
            if tables.contains(&key.as_str()) && !is_list_of_values(&value) {
                self.tables.insert(key, value);
                continue;
            }
            let Some(setting) = self.settings.iter().find(|s| s.key() == key) else {
                let allowed: Vec<String> = self.settings.iter().map(Setting::key).collect();
                return Err(ConfigError::new(
                    origin,
                    &key,
                    format!("no such setting; allowed are {}", allowed.join(", ")),
                ));
            };
            let values = match value {
                toml::Value::Array(items) if setting.many => {
                    items.iter().map(plain).collect::<Option<Vec<_>>>()
                }
                value => plain(&value).map(|v| vec![v]),
            };
            let values = values.ok_or_else(|| {
                let list = if setting.many {
                    " or a list of such"
                } else {
                    ""
                };
                ConfigError::new(
                    origin.clone(),
                    &key,
                    format!("must be {}{list}", setting.value),
                )
            })?;
            self.given.insert(setting.name, (values, origin.clone()));
        }
        Ok(())
    }

    /// The file that was read, if any.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// A table of the file that is no setting.
    pub fn table(&self, key: &str) -> Option<&toml::Value> {
        self.tables.get(key)
    }

    /// Values as text, and where they came from.
    pub fn text(&self, name: &str) -> (Vec<String>, SettingOrigin) {
        if let Some(given) = self.given.get(name) {
            return given.clone();
        }
        let setting = self.settings.iter().find(|s| s.name == name);
        debug_assert!(setting.is_some(), "{name} is not in the list of settings");
        let default = setting.and_then(|s| s.default);
        (
            default.map(str::to_owned).into_iter().collect(),
            SettingOrigin::Default,
        )
    }

    /// All values of a setting.
    pub fn all<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let (values, origin) = self.text(name);
        values
            .iter()
            .map(|v| parse(v).map_err(|message| ConfigError::new(origin.clone(), name, message)))
            .collect()
    }

    /// The value of a setting that may be left out. The last one counts.
    pub fn optional<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.all(name, parse).map(|mut values| values.pop())
    }

    /// The value of a setting that must be there.
    pub fn one<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.optional(name, parse)?
            .ok_or_else(|| self.missing(name, "is needed and not given"))
    }

    /// About a setting that nobody gave: it is missing in the file, or where there is none, among
    /// the flags.
    pub fn missing(&self, name: &str, message: impl Into<String>) -> ConfigError {
        let origin = self
            .file
            .clone()
            .map_or(SettingOrigin::Flag, SettingOrigin::File);
        ConfigError::new(origin, name, message)
    }

    /// Every setting with its values and their origin, for [`crate::telemetry::support`].
    pub fn effective(&self) -> serde_json::Value {
        let settings = self.settings.iter().map(|setting| {
            let (values, origin) = self.text(setting.name);
            json!({"key": setting.key(), "values": values, "from": origin.to_string()})
        });
        settings.collect()
    }

    /// Every setting with its values and their origin, as `check-config` shows them.
    pub fn show(&self) -> String {
        let mut lines = String::new();
        for setting in self.settings {
            let (values, origin) = self.text(setting.name);
            let shown = if values.is_empty() {
                "(none)".into()
            } else {
                values.join(", ")
            };
            lines.push_str(&format!("{:<24} {:<32} {origin}\n", setting.key(), shown));
        }
        lines
    }
}

impl Settings {
    /// What is kept of databases that were moved aside.
    pub fn damaged(&self) -> Result<Limits, ConfigError> {
        let hours = |n: u64| Duration::from_secs(3600 * n);
        let count = self.one("damaged-max-count", parse::number(0..=100))?;
        Ok(Limits {
            max_age: self.one("damaged-max-age", parse::duration(hours(1)..=hours(8760)))?,
            max_count: usize::try_from(count).unwrap_or(usize::MAX),
        })
    }

    /// The three files of mutual TLS: all of them, or none.
    pub fn tls(&self, cert: &str, key: &str, ca: &str) -> Result<Option<TlsFiles>, ConfigError> {
        let file = |name| self.optional(name, parse::path);
        match (file(cert)?, file(key)?, file(ca)?) {
            (Some(cert), Some(key), Some(ca)) => Ok(Some(TlsFiles { cert, key, ca })),
            (None, None, None) => Ok(None),
            _ => {
                let names = [cert, key, ca];
                let given = names.iter().find(|name| !self.text(name).0.is_empty());
                let given = given.copied().unwrap_or(cert);
                let needs = format!("TLS needs {cert}, {key} and {ca} together");
                Err(ConfigError::new(self.text(given).1, given, needs))
            }
        }
    }
}

/// The values of a variable, separated by commas. An option of a value, as in `vsock:818,tls=kubevirt`, stays
/// with it.
fn values_of(text: &str) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|v| !v.is_empty()) {
        match values.last_mut() {
            Some(value) if part.starts_with("tls=") => value.extend([",", part]),
            _ => values.push(part.to_owned()),
        }
    }
    values
}

/// Whether `value` is a list without tables, the empty one included, or a single value.
fn is_list_of_values(value: &toml::Value) -> bool {
    match value {
        toml::Value::Array(items) => items.iter().all(|item| plain(item).is_some()),
        value => plain(value).is_some(),
    }
}

/// A TOML value as it would be typed; tables and lists are none.
fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(on) => Some(if *on { "on" } else { "off" }.to_owned()),
        _ => None,
    }
}

/// Parsers for values that several commands have.
pub mod parse {
    use std::ops::RangeInclusive;
    use std::path::PathBuf;
    use std::str::FromStr;
    use std::time::Duration;

    use crate::cli::native;
    use crate::clock::{parse_duration, show_duration};
    use crate::transport::{DialAddress, ListenAddress};

    /// Anything that reads itself and says why not.
    pub fn any<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
        text.parse().map_err(|error: T::Err| error.to_string())
    }

    /// A whole number within bounds.
    pub fn number(bounds: RangeInclusive<u32>) -> impl Fn(&str) -> Result<u32, String> {
        move |text| {
            let number = text.parse().ok().filter(|n| bounds.contains(n));
            number.ok_or_else(|| {
                format!(
                    "{text:?} is not a whole number from {} to {}",
                    bounds.start(),
                    bounds.end()
                )
            })
        }
    }

    /// A duration within bounds.
    pub fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, String> {
        move |text| {
            let (from, to) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
            match parse_duration(text) {
                Ok(time) if bounds.contains(&time) => Ok(time),
                Ok(_) => Err(format!("{text} is out of range: from {from} to {to}")),
                Err(error) => Err(format!("{error}; allowed is from {from} to {to}")),
            }
        }
    }

    /// `on` or `off`.
    pub fn on_off(text: &str) -> Result<bool, String> {
        match text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(format!("{text:?} is neither on nor off")),
        }
    }

    /// Where a server listens; its path is one of the operating system.
    pub fn listen(text: &str) -> Result<ListenAddress, String> {
        Ok(match any(text)? {
            ListenAddress::Unix(path) => {
                ListenAddress::Unix(native::path(&path.to_string_lossy())?)
            }
            other => other,
        })
    }

    /// Where a server is found; its path is one of the operating system.
    pub fn dial(text: &str) -> Result<DialAddress, String> {
        let native = |path: &std::path::Path| native::path(&path.to_string_lossy());
        Ok(match any(text)? {
            DialAddress::Unix(path) => DialAddress::Unix(native(&path)?),
            DialAddress::Hybrid { path, port } => DialAddress::Hybrid {
                path: native(&path)?,
                port,
            },
            other => other,
        })
    }

    /// A path, any but the empty one.
    pub fn path(text: &str) -> Result<PathBuf, String> {
        if text.is_empty() {
            return Err("an empty path".into());
        }
        native::path(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SETTINGS: &[Setting] = &[
        Setting {
            name: "poll-interval",
            value: "DURATION",
            default: Some("5m"),
            many: false,
            help: "",
        },
        Setting {
            name: "listen",
            value: "ADDR",
            default: Some("vsock:818"),
            many: true,
            help: "",
        },
        Setting {
            name: "repo-cpe",
            value: "FILE",
            default: None,
            many: false,
            help: "",
        },
    ];

    #[test]
    fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
        let file = file("poll_interval = '1m'\nlisten = ['a', 'b']\n");
        let environment = |name: &str| (name == "AFFERENT_POLL_INTERVAL").then(|| "2m".to_owned());
        let gather =
            |flags| Settings::gather(SETTINGS, flags, environment, Some(file.path()), &[]).unwrap();
        assert_eq!(gather(vec![]).text("poll-interval").0, ["2m"]);
        assert_eq!(
            gather(vec![("poll-interval", vec!["3m".into()])])
                .text("poll-interval")
                .0,
            ["3m"]
        );
        assert_eq!(gather(vec![]).text("listen").0, ["a", "b"]);
        let bare = Settings::gather(SETTINGS, vec![], |_| None, None, &[]).unwrap();
        assert_eq!(
            bare.text("poll-interval"),
            (vec!["5m".to_owned()], SettingOrigin::Default)
        );
        assert_eq!(bare.optional("repo-cpe", parse::path).unwrap(), None);
    }

    #[test]
    fn a_variable_keeps_the_mode_of_an_address_with_the_address() {
        let values = values_of("vsock:818,tls=kubevirt, vsock:819,,unix:/s,tls=off");
        let wanted = ["vsock:818,tls=kubevirt", "vsock:819", "unix:/s,tls=off"];
        assert_eq!(values, wanted);
    }

    #[test]
    fn an_unknown_key_names_the_file_the_key_and_what_is_allowed() {
        let file = file("pol_interval = '1m'\n");
        let error = Settings::gather(SETTINGS, vec![], |_| None, Some(file.path()), &[])
            .err()
            .unwrap();
        let text = error.to_string();
        assert!(text.contains(&file.path().display().to_string()), "{text}");
        assert!(
            text.contains("pol_interval: no such setting; allowed are poll_interval, listen"),
            "{text}"
        );
        assert_eq!(error.exit_code(), 3);
    }

    #[test]
    fn a_bad_value_is_a_usage_error_where_it_was_typed_and_a_configuration_error_elsewhere() {
        let bounds = || parse::duration(Duration::from_secs(1)..=Duration::from_secs(60));
        let typed = vec![("poll-interval", vec!["2h".to_owned()])];
        let typed = Settings::gather(SETTINGS, typed, |_| None, None, &[]).unwrap();
        let error = typed.one("poll-interval", bounds()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "--poll-interval: 2h is out of range: from 1s to 1m"
        );
        assert_eq!(error.exit_code(), 2);

        let file = file("poll_interval = '2h'\n");
        let written = Settings::gather(SETTINGS, vec![], |_| None, Some(file.path()), &[]).unwrap();
        assert_eq!(
            written
                .one("poll-interval", bounds())
                .unwrap_err()
                .exit_code(),
            3
        );
    }

    #[test]
    fn a_list_of_tables_is_kept_for_the_command_and_a_list_of_values_is_the_setting() {
        let gather = |text: &str| {
            let file = file(text);
            Settings::gather(SETTINGS, vec![], |_| None, Some(file.path()), &["listen"]).unwrap()
        };
        let tables = gather("[[listen]]\nid = 'a'\n");
        assert!(tables.table("listen").is_some());
        assert_eq!(tables.text("listen").1, SettingOrigin::Default);
        for (text, values) in [
            ("listen = ['a=unix:/a']", vec!["a=unix:/a"]),
            ("listen = 'a'", vec!["a"]),
            ("listen = []", vec![]),
        ] {
            let settings = gather(text);
            assert!(settings.table("listen").is_none(), "{text}");
            assert_eq!(settings.text("listen").0, values, "{text}");
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }
}
