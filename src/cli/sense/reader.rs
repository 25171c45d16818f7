//! `afferent sense --reports-from`: which settings go with it.

use super::{TABLES, fleet_limits};
use crate::cli::fleet_listen;
use crate::cli::options::parse;
use crate::cli::options::{ConfigError, SettingOrigin, Settings};
use crate::sense::reader::{ReaderConfig, ReportsAddress};
use crate::telemetry::scrape;

/// The settings that mean something to a reader.
const ALLOWED: [&str; 15] = [
    "reports_from",
    "token_file",
    "ca_file",
    "state_dir",
    "fleet",
    "fleet_history",
    "fleet_history_size",
    "fleet_listen",
    "fleet_tls_cert",
    "fleet_tls_key",
    "fleet_host",
    "fleet_token_file",
    "damaged_max_age",
    "damaged_max_count",
    "metrics",
];

/// What was given, as a reader needs it; `None`: it is none.
pub(super) fn configure(settings: &Settings) -> Result<Option<ReaderConfig>, ConfigError> {
    let address = settings.optional("reports_from", parse::any::<ReportsAddress>)?;
    let Some(address) = address else {
        return Ok(None);
    };
    let nonsense = |origin, key: &str| {
        let what = "means nothing with reports_from, which reads what other sensors deliver: leave one of them out";
        ConfigError::new(origin, key, what)
    };
    if let Some((key, origin)) = settings.given_beside(&ALLOWED) {
        return Err(nonsense(origin, key));
    }
    if let Some(table) = TABLES.iter().find(|table| settings.table(table).is_some()) {
        let origin = settings
            .file()
            .map(|file| SettingOrigin::File(file.to_owned()));
        return Err(nonsense(origin.unwrap_or(SettingOrigin::Flag), table));
    }
    let Some(fleet) = fleet_limits(settings)? else {
        let (_, origin) = settings.text("fleet");
        let what = "with reports_from the fleet store is all that there is: leave `off` out";
        return Err(ConfigError::new(origin, "fleet", what));
    };
    Ok(Some(ReaderConfig {
        address,
        token_file: settings.optional_path("token_file")?,
        ca_file: settings.optional_path("ca_file")?,
        state_dir: settings.path("state_dir")?,
        fleet,
        fleet_listen: fleet_listen::configured(settings)?,
        damaged: settings.damaged()?,
        metrics: settings.optional("metrics", scrape::address)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::{SETTINGS, SenseArgs, SensorConfig, configured, gather};
    use argh::FromArgs as _;

    fn configured_with(args: &[&str]) -> Result<SensorConfig, String> {
        let given = [&["--reports-from", "nats://c?stream=R"], args].concat();
        let args = SenseArgs::from_args(&["afferent", "sense"], &given).unwrap();
        let settings = gather(&args, |_| None).map_err(|error| error.to_string())?;
        configured(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn a_reader_needs_neither_guests_nor_delivery() {
        let given = ["--state-dir", "/x", "--fleet", "on", "--metrics", "9101"];
        let given = [&given[..], &["--fleet-listen", "localhost:9819"]].concat();
        let Ok(SensorConfig::Reader(config)) = configured_with(&given) else {
            unreachable!("it reads");
        };
        assert_eq!(config.address.to_string(), "nats://c:4222?stream=R");
        assert_eq!(config.state_dir, std::path::Path::new("/x"));
        assert!(config.fleet_listen.is_some());
        // The rules of the listener are the same.
        let open = configured_with(&["--fleet-listen", "0.0.0.0:9819"]);
        assert!(open.err().unwrap_or_default().contains("fleet-tls-cert"));
    }

    /// Loss prevented: guests that nobody reads, because two purposes were put into one command.
    #[test]
    fn every_setting_of_guests_and_delivery_is_refused_with_words() {
        for setting in SETTINGS
            .iter()
            .filter(|it| !super::ALLOWED.contains(&it.key))
        {
            let flag = format!("--{}", setting.flag());
            let value = setting.default.unwrap_or("x");
            let error = configured_with(&[&flag, value]).err().unwrap_or_default();
            assert!(
                error.starts_with(&flag) && error.contains("means nothing"),
                "{flag}: {error}"
            );
        }
        let off = configured_with(&["--fleet", "off"])
            .err()
            .unwrap_or_default();
        assert!(off.contains("leave `off` out"), "{off}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[[vm]]\nid = 'b'\naddress = 'unix:/b'\n").unwrap();
        let path = file.path().display().to_string();
        let error = configured_with(&["--config", &path])
            .err()
            .unwrap_or_default();
        assert!(error.contains("vm: means nothing"), "{error}");
    }
}
