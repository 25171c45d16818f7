//! `afferent sense`: flags as typed.

use super::native;
use super::options::{
    ConfigError, DAMAGED_MAX_AGE, DAMAGED_MAX_COUNT, Setting, SettingOrigin, Settings, parse,
};
use crate::report::VmId;
use crate::sense::deliver::sink::{SinkAddress, SinkOptions};
use crate::sense::queue::policy::Rate;
use crate::sense::roster::{RosterEntry, RosterSource, file};
use crate::sense::{self, SenseConfig};
use crate::telemetry::{scrape, support};
use crate::transport::AgentName;
use argh::FromArgs;
use std::path::PathBuf;
use std::time::Duration;

/// Run on the host: pull reports from guests, and deliver them to Central.
#[derive(Clone, FromArgs)]
#[argh(
    subcommand,
    name = "sense",
    example = "afferent sense --vm web-1=vsock:3:818 --deliver file:/var/log/afferent.ndjson"
)]
pub(super) struct SenseArgs {
    /// a guest: ID=vsock:CID:PORT, ID=unix:PATH or ID=hybrid:PATH:PORT, may be repeated
    #[argh(option, arg_name = "ID=ADDR")]
    vm: Vec<String>,
    /// file of guests (TOML), read again when it changes, may be repeated
    #[argh(option, arg_name = "FILE")]
    roster: Vec<String>,
    /// where to find guests: libvirt, a directory of sockets, or hybrid:DIR:PORT, may be repeated
    #[argh(option, arg_name = "libvirt|DIR|hybrid:DIR:PORT")]
    discover: Vec<String>,
    /// where reports go: file:PATH, http://HOST, https://HOST or nats://HOST?stream=NAME
    #[argh(option, arg_name = "SINK")]
    deliver: Option<String>,
    /// file with the bearer token for Central, or the secret for NATS
    #[argh(option, arg_name = "FILE")]
    token_file: Option<String>,
    /// the only authorities to trust for Central (PEM; default: those of the system)
    #[argh(option, arg_name = "FILE")]
    ca_file: Option<String>,
    /// our certificate for mutual TLS with guests (PEM)
    #[argh(option, arg_name = "FILE")]
    tls_cert: Option<String>,
    /// private key of that certificate (PEM)
    #[argh(option, arg_name = "FILE")]
    tls_key: Option<String>,
    /// authorities whose certificates guests must show (PEM)
    #[argh(option, arg_name = "FILE")]
    tls_ca: Option<String>,
    /// id: a guest's certificate names it (DNS name GUEST_ID.afferent), and must be that of the guest that answers
    #[argh(option, arg_name = "id")]
    tls_name_from: Option<String>,
    /// names this sensor in the documents it delivers (default: this machine's name)
    #[argh(option, arg_name = "ID")]
    sensor_id: Option<String>,
    /// where the queue is kept (default /var/lib/afferent)
    #[argh(option, arg_name = "DIR")]
    state_dir: Option<String>,
    /// time between two questions to a guest that cannot be waited on, 1s to 24h (default 5m)
    #[argh(option, arg_name = "DURATION")]
    poll_interval: Option<String>,
    /// time after which a full report is asked for, whatever is known, 1m to 168h (default 4h)
    #[argh(option, arg_name = "DURATION")]
    refresh_interval: Option<String>,
    /// reports a second that Central takes, where it is limited
    #[argh(option, arg_name = "NUMBER")]
    rate: Option<String>,
    /// reports that Central takes at once after a pause (default 200)
    #[argh(option, arg_name = "NUMBER")]
    burst: Option<String>,
    /// where Prometheus reads metrics: PORT (on 127.0.0.1) or ADDRESS:PORT
    #[argh(option, arg_name = "PORT|ADDRESS:PORT")]
    metrics: Option<String>,
    /// longest a damaged database that was moved aside is kept, 1h to 8760h (default 720h)
    #[argh(option, arg_name = "DURATION")]
    damaged_max_age: Option<String>,
    /// damaged databases that are kept, the newest, 0 to 100 (default 5)
    #[argh(option, arg_name = "NUMBER")]
    damaged_max_count: Option<String>,
    /// file of settings, and of guests as in a roster (TOML)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    config: Option<PathBuf>,
}

/// Every setting of `sense`.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "vm",
        value: "ID=ADDR",
        default: None,
        many: true,
        help: "a guest, and where it is reached",
    },
    Setting {
        name: "roster",
        value: "FILE",
        default: None,
        many: true,
        help: "file of guests (TOML), read again when it changes",
    },
    Setting {
        name: "discover",
        value: "libvirt|DIR|hybrid:DIR:PORT",
        default: None,
        many: true,
        help: "where to find guests: libvirt, a directory of agents' sockets, or one of a hypervisor's",
    },
    Setting {
        name: "deliver",
        value: "SINK",
        default: None,
        many: false,
        help: "where reports go: file:PATH, http://HOST, https://HOST or nats://HOST?stream=NAME",
    },
    Setting {
        name: "token-file",
        value: "FILE",
        default: None,
        many: false,
        help: "file with the bearer token for Central, read at every delivery, or the secret for NATS, read at every connection",
    },
    Setting {
        name: "ca-file",
        value: "FILE",
        default: None,
        many: false,
        help: "the only authorities to trust for Central (PEM)",
    },
    Setting {
        name: "tls-cert",
        value: "FILE",
        default: None,
        many: false,
        help: "our certificate for mutual TLS with guests (PEM)",
    },
    Setting {
        name: "tls-key",
        value: "FILE",
        default: None,
        many: false,
        help: "private key of that certificate (PEM)",
    },
    Setting {
        name: "tls-ca",
        value: "FILE",
        default: None,
        many: false,
        help: "authorities whose certificates guests must show (PEM)",
    },
    Setting {
        name: "tls-name-from",
        value: "id",
        default: None,
        many: false,
        help: "a guest's certificate names it (DNS name GUEST_ID.afferent), and must be that of the guest that answers",
    },
    Setting {
        name: "sensor-id",
        value: "ID",
        default: None,
        many: false,
        help: "names this sensor in the documents it delivers; this machine's name if nothing is given",
    },
    Setting {
        name: "state-dir",
        value: "DIR",
        default: Some("/var/lib/afferent"),
        many: false,
        help: "where the queue is kept",
    },
    DAMAGED_MAX_AGE,
    DAMAGED_MAX_COUNT,
    Setting {
        name: "poll-interval",
        value: "DURATION",
        default: Some("5m"),
        many: false,
        help: "time between two questions to a guest that cannot be waited on, 1s to 24h",
    },
    Setting {
        name: "refresh-interval",
        value: "DURATION",
        default: Some("4h"),
        many: false,
        help: "time after which a full report is asked for, whatever is known, 1m to 168h",
    },
    Setting {
        name: "rate",
        value: "NUMBER",
        default: None,
        many: false,
        help: "reports a second that Central takes, where it is limited",
    },
    Setting {
        name: "burst",
        value: "NUMBER",
        default: Some("200"),
        many: false,
        help: "reports that Central takes at once after a pause",
    },
    Setting {
        name: "metrics",
        value: "PORT|ADDRESS:PORT",
        default: None,
        many: false,
        help: "where Prometheus reads metrics; a bare port is one on 127.0.0.1",
    },
];

/// Table of a configuration file that lists guests.
pub(super) const TABLES: &[&str] = &["vm"];

pub(super) fn run(args: SenseArgs) -> u8 {
    crate::telemetry::start_log();
    let read = move || {
        let environment = |name: &str| native::variable(name);
        let settings = gather(args.clone(), environment)?;
        let config = configure(&settings)?;
        support::set_configuration(settings.effective());
        Ok::<_, ConfigError>(config)
    };
    let config = match read() {
        Ok(config) => config,
        Err(error) => return super::complain(error.exit_code(), &error.to_string()),
    };
    let reread = move || read().map_err(|error| error.to_string());
    match sense::run(config, Box::new(reread)) {
        Ok(()) => super::DONE,
        Err(error) => super::complain(super::FAILED, &error.to_string()),
    }
}

fn gather(
    args: SenseArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let one = |value: Option<String>| value.into_iter().collect();
    let flags = vec![
        ("vm", args.vm),
        ("roster", args.roster),
        ("discover", args.discover),
        ("deliver", one(args.deliver)),
        ("token-file", one(args.token_file)),
        ("ca-file", one(args.ca_file)),
        ("tls-cert", one(args.tls_cert)),
        ("tls-key", one(args.tls_key)),
        ("tls-ca", one(args.tls_ca)),
        ("tls-name-from", one(args.tls_name_from)),
        ("sensor-id", one(args.sensor_id)),
        ("state-dir", one(args.state_dir)),
        ("damaged-max-age", one(args.damaged_max_age)),
        ("damaged-max-count", one(args.damaged_max_count)),
        ("poll-interval", one(args.poll_interval)),
        ("refresh-interval", one(args.refresh_interval)),
        ("rate", one(args.rate)),
        ("burst", one(args.burst)),
        ("metrics", one(args.metrics)),
    ];
    Settings::gather(SETTINGS, flags, environment, args.config.as_deref(), TABLES)
}

/// What was given, as `sense` needs it.
pub(super) fn configure(settings: &Settings) -> Result<SenseConfig, ConfigError> {
    let seconds = Duration::from_secs;
    let mut fixed: Vec<RosterEntry> = settings.all("vm", parse::any)?;
    if let Some(table) = settings.table("vm") {
        let path = settings.file().unwrap_or(std::path::Path::new(""));
        fixed.extend(file::from_table(table).map_err(|e| ConfigError::in_file(path, e))?);
    }
    if let Some(vm) = file::named_twice(&fixed) {
        let (_, origin) = settings.text("vm");
        let error = format!(
            "guest {:?} is listed twice: give each guest an id of its own",
            vm.as_str()
        );
        return Err(ConfigError::new(origin, "vm", error));
    }
    let mut sources = vec![RosterSource::Fixed(fixed)];
    sources.extend(
        settings
            .all("roster", parse::path)?
            .into_iter()
            .map(RosterSource::File),
    );
    sources.extend(settings.all("discover", parse::any::<RosterSource>)?);
    if sources == [RosterSource::Fixed(Vec::new())] {
        let error = "no guests: give --vm ID=ADDR, --roster FILE or --discover libvirt";
        return Err(ConfigError::new(SettingOrigin::Flag, "vm", error));
    }
    let burst = settings.one("burst", at_least_one)?;
    let tls = settings.tls("tls-cert", "tls-key", "tls-ca")?;
    let tls_name = settings.optional("tls-name-from", parse::any::<AgentName>)?;
    if tls_name.is_some() && tls.is_none() {
        let (_, origin) = settings.text("tls-name-from");
        let needs = "needs tls-cert, tls-key and tls-ca";
        return Err(ConfigError::new(origin, "tls-name-from", needs));
    }
    Ok(SenseConfig {
        sources,
        deliver: settings.one("deliver", parse::any::<SinkAddress>)?,
        sink: SinkOptions {
            token_file: settings.optional("token-file", parse::path)?,
            ca_file: settings.optional("ca-file", parse::path)?,
        },
        tls,
        tls_name: tls_name.unwrap_or_default(),
        sensor_id: settings
            .optional("sensor-id", sensor_id)?
            .unwrap_or_else(host_name),
        state_dir: settings.one("state-dir", parse::path)?,
        damaged: settings.damaged()?,
        poll_interval: settings.one(
            "poll-interval",
            parse::duration(seconds(1)..=seconds(24 * 3600)),
        )?,
        refresh_interval: settings.one(
            "refresh-interval",
            parse::duration(seconds(60)..=seconds(168 * 3600)),
        )?,
        rate: settings.optional("rate", positive)?.map(|per_second| Rate {
            per_second,
            burst,
            reserve: burst * Rate::RESERVE,
        }),
        metrics: settings.optional("metrics", scrape::address)?,
    })
}

/// The same letters as a guest's id.
fn sensor_id(text: &str) -> Result<String, String> {
    let id: VmId = text.parse().map_err(|_| {
        format!("{text:?} is not an id: 1 to 128 of letters, digits and . _ : @ + -")
    })?;
    Ok(id.to_string())
}

/// This machine's name, as the kernel has it.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match sensor_id(name.trim()) {
        Ok(name) => name,
        Err(_) => "localhost".into(),
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n| (0.001..1e6).contains(n));
    number.ok_or_else(|| format!("{text:?} is not a number between 0.001 and 1000000"))
}

/// Below one report at once there is never any.
fn at_least_one(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n| (1.0..1e6).contains(n));
    number.ok_or_else(|| format!("{text:?} is not a number between 1 and 1000000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guests_come_from_flags_rosters_and_the_configuration_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "deliver = 'file:/out'\nrate = 0.3\n[[vm]]\nid = 'b'\naddress = 'unix:/b'\n",
        )
        .unwrap();
        let path = file.path().display().to_string();
        let args = ["--roster", "/r", "--config", &path];
        let config = configured(&args).unwrap();
        assert_eq!(config.sources.len(), 2);
        assert!(matches!(&config.sources[0], RosterSource::Fixed(e) if e[0].vm.as_str() == "b"));
        let rate = config.rate.unwrap();
        assert_eq!((rate.burst, rate.reserve), (200.0, 150.0));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said() {
        for (args, said) in [
            (&["--deliver", "file:/o"][..], "no guests"),
            (&["--vm", "a=unix:/a"], "deliver: is needed"),
            (&["--vm", "a", "--deliver", "file:/o"], "not ID=ADDR"),
            (
                &[
                    "--vm",
                    "a=unix:/a",
                    "--vm",
                    "a=unix:/b",
                    "--deliver",
                    "file:/o",
                ],
                "guest \"a\" is listed twice",
            ),
            (
                &["--vm", "a=unix:/a", "--deliver", "x"],
                "no place to deliver to",
            ),
            (
                &[
                    "--vm",
                    "a=unix:/a",
                    "--deliver",
                    "file:/o",
                    "--poll-interval",
                    "1ms",
                ],
                "out of range",
            ),
            (
                &[
                    "--vm",
                    "a=unix:/a",
                    "--deliver",
                    "file:/o",
                    "--burst",
                    "0.5",
                ],
                "between 1 and",
            ),
            (
                &["--vm", "a=unix:/a", "--deliver", "file:/o", "--rate", "nan"],
                "not a number",
            ),
        ] {
            let error = configured(args).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn guests_in_the_configuration_file_may_be_strings_as_the_shipped_one_shows() {
        let shipped = include_str!("../../packaging/config/sense.toml");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), shipped.replace("#vm = [", "vm = [")).unwrap();
        let config = configured(&["--config", &file.path().display().to_string()]).unwrap();
        let RosterSource::Fixed(entries) = &config.sources[0] else {
            unreachable!("flags and the configuration file come first")
        };
        let shown = entries.iter().map(|e| format!("{}={}", e.vm, e.address));
        assert_eq!(shown.collect::<Vec<_>>(), ["web-1=vsock:3:818"]);
    }

    fn configured(args: &[&str]) -> Result<SenseConfig, ConfigError> {
        let args = SenseArgs::from_args(&["afferent", "sense"], args).unwrap();
        configure(&gather(args, |_| None)?)
    }
}
