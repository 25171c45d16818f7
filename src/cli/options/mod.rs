//! Settings and where they come from: flag, then environment, then file, then default.
//!
//! Each setting is declared once, in the `settings!` of its command: see `declare.rs`. Flags, help,
//! parsing, `check-config --show`, man pages and completions come from that declaration. A setting
//! `rescan_interval` is the flag `--rescan-interval`, the variable `AFFERENT_RESCAN_INTERVAL`
//! (several values separated by commas) and the TOML key `rescan_interval`.

mod declare;
pub mod parse;
mod show;

pub(super) use declare::settings;

use crate::clock::parse_duration;
use crate::sense::roster::file;
use crate::store::Limits;
use crate::transport::TlsFiles;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One setting of a command.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its key in a TOML file.
    pub key: &'static str,
    /// What a value looks like, for help: `DURATION`, `on|off`.
    pub value: &'static str,
    /// Used when no value is given; `None`: then there is no value.
    pub default: Option<&'static str>,
    /// In words, what holds when no value is given.
    pub otherwise: Option<&'static str>,
    /// Least and greatest value, as they would be typed.
    pub range: Option<(&'static str, &'static str)>,
    /// Whether it may be given several times.
    pub many: bool,
    /// Whether it is given once for each sink: its variable has the value of one.
    pub per_sink: bool,
    /// One sentence without a full stop.
    pub help: &'static str,
}

impl Setting {
    /// Its flag, without dashes in front.
    pub fn flag(&self) -> String {
        self.key.replace('_', "-")
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("AFFERENT_{}", self.key.to_ascii_uppercase())
    }
}

/// Values as they were typed, by the key of their setting.
pub type Flags = Vec<(&'static str, Vec<String>)>;

/// A flag of a command, as argh parsed it.
pub(super) trait Typed {
    /// The values of its setting, none if it was not typed.
    fn values(&self) -> Vec<String>;
}

impl Typed for Option<String> {
    fn values(&self) -> Vec<String> {
        self.iter().cloned().collect()
    }
}

impl Typed for Vec<String> {
    fn values(&self) -> Vec<String> {
        self.clone()
    }
}

impl Typed for bool {
    fn values(&self) -> Vec<String> {
        self.then(|| "on".to_owned()).into_iter().collect()
    }
}

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
            (SettingOrigin::Flag, Some(key)) => write!(f, "--{}: ", key.replace('_', "-"))?,
            (SettingOrigin::Environment(name), _) => write!(f, "{name}: ")?,
            (SettingOrigin::File(path), Some(key)) => {
                write!(f, "{}: {key}: ", path.display())?;
            }
            (SettingOrigin::File(path), None) => write!(f, "{}: ", path.display())?,
            (SettingOrigin::Default, Some(key)) => write!(f, "{}: ", key.replace('_', "-"))?,
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
        flags: Flags,
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
                let values = match setting.many && !setting.per_sink {
                    true => values_of(&text),
                    false => vec![text],
                };
                let origin = SettingOrigin::Environment(setting.variable());
                gathered.given.insert(setting.key, (values, origin));
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
        // A FIFO would wait for whoever writes to it.
        let is_file = std::fs::metadata(path).map(|meta| meta.is_file());
        let text = match is_file {
            Ok(false) => Err(io::Error::other("is no regular file")),
            _ => std::fs::read_to_string(path),
        };
        let text = text.map_err(|error| ConfigError::in_file(path, error.to_string()))?;
        let table: toml::Table = toml::from_str(&text)
            .map_err(|error| ConfigError::in_file(path, file::in_one_line(&text, &error)))?;
        let origin = SettingOrigin::File(path.to_owned());
        for (key, value) in table {
            // A list of tables is for the command to read; a list of strings is the setting.
            if tables.contains(&key.as_str()) && !is_list_of_values(&value) {
                self.tables.insert(key, value);
                continue;
            }
            let Some(setting) = self.settings.iter().find(|s| s.key == key) else {
                let allowed: Vec<_> = self.settings.iter().map(|s| s.key).collect();
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
            self.given.insert(setting.key, (values, origin.clone()));
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
    pub fn text(&self, key: &str) -> (Vec<String>, SettingOrigin) {
        if let Some(given) = self.given.get(key) {
            return given.clone();
        }
        let setting = self.settings.iter().find(|s| s.key == key);
        debug_assert!(setting.is_some(), "{key} is not in the list of settings");
        let default = setting.and_then(|s| s.default);
        (
            default.map(str::to_owned).into_iter().collect(),
            SettingOrigin::Default,
        )
    }

    /// A setting that somebody gave and that is none of `allowed`, and where.
    pub fn given_beside(&self, allowed: &[&str]) -> Option<(&'static str, SettingOrigin)> {
        let mut given = self.given.iter();
        let (key, (_, origin)) = given.find(|(key, _)| !allowed.contains(key))?;
        Some((key, origin.clone()))
    }

    /// All values of a setting.
    pub fn all<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, ConfigError> {
        let (values, origin) = self.text(key);
        values
            .iter()
            .map(|v| parse(v).map_err(|message| ConfigError::new(origin.clone(), key, message)))
            .collect()
    }

    /// The value of a setting that may be left out. The last one counts.
    pub fn optional<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        self.all(key, parse).map(|mut values| values.pop())
    }

    /// The value of a setting that must be there.
    pub fn one<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        self.optional(key, parse)?
            .ok_or_else(|| self.missing(key, "is needed and not given"))
    }

    /// About a setting that nobody gave: it is missing in the file, or where there is none, among
    /// the flags.
    pub fn missing(&self, key: &str, message: impl Into<String>) -> ConfigError {
        let origin = self
            .file
            .clone()
            .map_or(SettingOrigin::Flag, SettingOrigin::File);
        ConfigError::new(origin, key, message)
    }
}

/// Values of the kinds that `settings!` knows, within the range that is declared there.
impl Settings {
    /// What is declared for `key`, read by the parser of its kind.
    fn range<T>(&self, key: &str, all: (T, T), read: impl Fn(&str) -> Option<T>) -> (T, T) {
        let setting = self.settings.iter().find(|s| s.key == key);
        let declared = setting.and_then(|s| s.range);
        let bounds = declared.map(|(from, to)| read(from).zip(read(to)));
        debug_assert!(
            bounds.as_ref().is_none_or(Option::is_some),
            "the range of {key}"
        );
        bounds.flatten().unwrap_or(all)
    }

    fn within_time(&self, key: &str) -> impl Fn(&str) -> Result<Duration, String> + use<> {
        let all = (Duration::ZERO, Duration::MAX);
        let (from, to) = self.range(key, all, |text| parse_duration(text).ok());
        parse::duration(from..=to)
    }

    fn within(&self, key: &str) -> impl Fn(&str) -> Result<u32, String> + use<> {
        let (from, to) = self.range(key, (0, u32::MAX), |text| text.parse().ok());
        parse::number(from..=to)
    }

    /// The value of a setting declared as `duration`.
    pub fn duration(&self, key: &str) -> Result<Duration, ConfigError> {
        self.one(key, self.within_time(key))
    }

    /// The same, of one that may be left out.
    pub fn optional_duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        self.optional(key, self.within_time(key))
    }

    /// The value of a setting declared as `number`.
    pub fn number(&self, key: &str) -> Result<u32, ConfigError> {
        self.one(key, self.within(key))
    }

    /// The same, of one that may be left out.
    pub fn optional_number(&self, key: &str) -> Result<Option<u32>, ConfigError> {
        self.optional(key, self.within(key))
    }

    fn within_decimal(&self, key: &str) -> impl Fn(&str) -> Result<f64, String> + use<> {
        let (from, to) = self.range(key, (0.0, f64::MAX), |text| text.parse().ok());
        parse::decimal(from..=to)
    }

    /// The value of a setting declared as `decimal`.
    pub fn decimal(&self, key: &str) -> Result<f64, ConfigError> {
        self.one(key, self.within_decimal(key))
    }

    /// The same, of one that may be left out.
    pub fn optional_decimal(&self, key: &str) -> Result<Option<f64>, ConfigError> {
        self.optional(key, self.within_decimal(key))
    }

    /// The value of a setting declared as `on_off` or `switch`.
    pub fn on_off(&self, key: &str) -> Result<bool, ConfigError> {
        self.one(key, parse::on_off)
    }

    /// A path that must be there.
    pub fn path(&self, key: &str) -> Result<PathBuf, ConfigError> {
        self.one(key, parse::path)
    }

    /// A path that may be left out.
    pub fn optional_path(&self, key: &str) -> Result<Option<PathBuf>, ConfigError> {
        self.optional(key, parse::path)
    }

    /// What is kept of databases that were moved aside.
    pub fn damaged(&self) -> Result<Limits, ConfigError> {
        Ok(Limits {
            max_age: self.duration("damaged_max_age")?,
            max_count: usize::try_from(self.number("damaged_max_count")?).unwrap_or(usize::MAX),
        })
    }

    /// The three files of mutual TLS: all of them, or none.
    pub fn tls(&self, cert: &str, key: &str, ca: &str) -> Result<Option<TlsFiles>, ConfigError> {
        let file = |key| self.optional_path(key);
        match (file(cert)?, file(key)?, file(ca)?) {
            (Some(cert), Some(key), Some(ca)) => Ok(Some(TlsFiles { cert, key, ca })),
            (None, None, None) => Ok(None),
            _ => {
                let names = [cert, key, ca];
                let given = names.iter().find(|name| !self.text(name).0.is_empty());
                let given = given.copied().unwrap_or(cert);
                let needs = format!("TLS needs {cert}, {key} and {ca} together").replace('_', "-");
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

#[cfg(test)]
mod tests;
