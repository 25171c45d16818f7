//! `afferent sense`: flags as typed.

mod reader;

use super::options::{ConfigError, SettingOrigin, Settings, parse, settings};
use super::{deliver, fleet_listen, kube, native};
use crate::report::VmId;
use crate::sense::fleet::FleetLimits;
use crate::sense::mapping::SensorMappingSource;
use crate::sense::reader::ReaderConfig;
use crate::sense::roster::{RosterEntry, RosterSource, file};
use crate::sense::{self, SenseConfig};
use crate::telemetry::{scrape, support};
use crate::transport::AgentName;
use std::path::PathBuf;

settings! {
    /// Every setting of `sense`.
    table pub(super) SETTINGS;

    /// Run on the host: pull reports from guests, and deliver them to Central.
    #[argh(
        subcommand,
        name = "sense",
        example = "afferent sense --vm web-1=vsock:3:818 --deliver file:/var/log/afferent.ndjson"
    )]
    pub(super) struct SenseArgs {
        settings {
            /// a guest: ID=vsock:CID:PORT, ID=unix:PATH or ID=hybrid:PATH:PORT
            vm: many "ID=ADDR";
            /// file of guests (TOML), read again when it changes
            roster: many "FILE";
            /// where to find guests: libvirt, kubevirt, a directory of agents' sockets, or hybrid:DIR:PORT, one of a hypervisor's
            discover: many "libvirt|kubevirt|DIR|hybrid:DIR:PORT";
            /// names the cluster: the ids of its guests begin with it; needed with --discover kubevirt
            kube_cluster: one "NAME";
            /// only guests of this namespace
            kube_namespace: one "NAME";
            /// only guests that run on this node
            kube_node: one "NAME";
            /// how to reach the API server
            kubeconfig: one "FILE" or "the service account of the pod";
            /// how guests of a cluster are reached: through the API server, or by CID from their node
            dial: one "api|node" = "api";
            /// whether KubeVirt speaks TLS to agents, through the API server
            kube_tls: one "true|false|auto" = "auto";
            /// VSOCK port on which agents in a cluster listen
            kube_port: number from "1" to "4294967294" = "818";
            /// where reports go: file:PATH, file:PATH?events=on, http://HOST, https://HOST, nats://HOST?stream=NAME, sbom:DIR or dependency-track+https://HOST; a second sink has a name, as in siem=https://HOST
            deliver: per_sink "[NAME=]SINK";
            /// stream on the server of the one nats:// sink for events: what changed in a guest, or at first all of its packages
            events: one "STREAM";
            /// in place of guests and delivery: read what all sensors deliver to this stream, for questions about the fleet
            reports_from: one "nats://HOST?stream=NAME";
            /// file with the bearer token for Central or the API key of Dependency-Track, read at every delivery, or the secret for NATS, read at every connection
            token_file: per_sink "[NAME=]FILE";
            /// the only authorities to trust for Central (PEM)
            ca_file: per_sink "[NAME=]FILE" or "those of the system";
            /// what becomes of the file of a guest that left, in the directory of sbom:DIR
            sbom_departed: one "keep|remove" = "keep";
            /// our certificate for mutual TLS with guests (PEM)
            tls_cert: one "FILE";
            /// private key of that certificate (PEM)
            tls_key: one "FILE";
            /// authorities whose certificates guests must show (PEM)
            tls_ca: one "FILE";
            /// with id: a guest's certificate names it (DNS name GUEST_ID.afferent), and must be that of the guest that answers
            tls_name_from: one "id";
            /// names this sensor in the documents it delivers
            sensor_id: one "ID" or "this machine's name";
            /// where the queue is kept
            state_dir: one "DIR" = "/var/lib/afferent";
            /// keep the last report of every guest and what changed, for questions about the fleet
            fleet: on_off = "on";
            /// longest a change is kept
            fleet_history: duration from "1h" to "3650d" = "30d";
            /// room for changes, with its unit, MiB or GiB; beyond it the oldest go
            fleet_history_size: one "SIZE" = "256MiB";
            /// where the fleet is answered for over HTTP, with a page: unix:PATH, localhost:PORT or ADDRESS:PORT
            fleet_listen: one "ADDR" or "nowhere";
            /// certificate of that address (PEM), needed where other machines reach it
            fleet_tls_cert: one "FILE";
            /// private key of that certificate (PEM)
            fleet_tls_key: one "FILE";
            /// a name of that server, beside its address and localhost
            fleet_host: many "NAME";
            /// file with the token that programs show there
            fleet_token_file: one "FILE";
            include damaged;
            /// time between two questions to a guest that cannot be waited on
            poll_interval: duration from "1s" to "24h" = "5m";
            /// time after which a full report is asked for, whatever is known
            refresh_interval: duration from "1m" to "168h" = "4h";
            /// whether guests that come together are asked one after the other, 200 a second
            spread: on_off = "on";
            /// mapping of repositories to CPEs (JSON) that guests without it are given, read again every four hours
            repo_cpe: one "FILE|URL";
            /// reports a second that Central takes
            rate: per_sink "[NAME=]NUMBER" or "not limited";
            /// reports that Central takes at once after a pause, where the rate is limited
            burst: per_sink "[NAME=]NUMBER" or "200";
            /// where Prometheus reads metrics: PORT (on 127.0.0.1) or ADDRESS:PORT
            metrics: one "PORT|ADDRESS:PORT";
        }
        flags {
            /// file of settings, and of guests as in a roster (TOML)
            #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
            config: Option<PathBuf>,
        }
    }
}

/// Tables of a configuration file: guests and sinks.
pub(super) const TABLES: &[&str] = &["vm", deliver::TABLE];

pub(super) fn run(args: SenseArgs) -> u8 {
    crate::telemetry::start_log();
    let read = move || {
        let settings = gather(&args, native::variable)?;
        let config = configured(&settings)?;
        support::set_configuration(settings.effective());
        Ok::<_, ConfigError>(config)
    };
    let ran = match read() {
        Ok(SensorConfig::Reader(config)) => sense::reader::run(*config),
        Ok(SensorConfig::Sensor(config)) => {
            let reread = move || match read() {
                Ok(SensorConfig::Sensor(config)) => Ok(*config),
                Ok(SensorConfig::Reader(_)) => {
                    Err("reports_from is new: it counts from the next start".to_owned())
                }
                Err(error) => Err(error.to_string()),
            };
            sense::run(*config, Box::new(reread))
        }
        Err(error) => return super::complain(error.exit_code(), &error.to_string()),
    };
    match ran {
        Ok(()) => super::DONE,
        Err(error) => super::complain(super::FAILED, &error.to_string()),
    }
}

fn gather(
    args: &SenseArgs,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Settings, ConfigError> {
    let file = args.config.as_deref();
    Settings::gather(SETTINGS, args.given(), environment, file, TABLES)
}

/// What a sensor is: one of guests, or one that reads what others deliver.
enum SensorConfig {
    Sensor(Box<SenseConfig>),
    Reader(Box<ReaderConfig>),
}

fn configured(settings: &Settings) -> Result<SensorConfig, ConfigError> {
    Ok(match reader::configure(settings)? {
        Some(reader) => SensorConfig::Reader(Box::new(reader)),
        None => SensorConfig::Sensor(Box::new(configure(settings)?)),
    })
}

/// Whether what was given can be used.
pub(super) fn check(settings: &Settings) -> Result<(), ConfigError> {
    configured(settings).map(drop)
}

/// What was given, as `sense` needs it.
fn configure(settings: &Settings) -> Result<SenseConfig, ConfigError> {
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
    sources.extend(kube::discovered(settings)?);
    if sources == [RosterSource::Fixed(Vec::new())] {
        let error =
            "no guests: give --vm ID=ADDR, --roster FILE, or --discover libvirt, kubevirt or DIR";
        return Err(ConfigError::new(SettingOrigin::Flag, "vm", error));
    }
    let tls = settings.tls("tls_cert", "tls_key", "tls_ca")?;
    let tls_name = settings.optional("tls_name_from", parse::any::<AgentName>)?;
    if tls_name.is_some() && tls.is_none() {
        let (_, origin) = settings.text("tls_name_from");
        let needs = "needs tls-cert, tls-key and tls-ca";
        return Err(ConfigError::new(origin, "tls_name_from", needs));
    }
    let fleet = fleet_limits(settings)?;
    Ok(SenseConfig {
        sources,
        deliver: deliver::sinks(settings, fleet)?,
        kube: kube::api(settings)?,
        kube_tls: kube::tls(settings)?,
        tls,
        tls_name: tls_name.unwrap_or_default(),
        sensor_id: settings
            .optional("sensor_id", sensor_id)?
            .unwrap_or_else(host_name),
        state_dir: settings.path("state_dir")?,
        fleet,
        fleet_listen: fleet_listen::configured(settings)?,
        damaged: settings.damaged()?,
        poll_interval: settings.duration("poll_interval")?,
        refresh_interval: settings.duration("refresh_interval")?,
        spread: settings.on_off("spread")?,
        repo_cpe: settings.optional("repo_cpe", parse::any::<SensorMappingSource>)?,
        metrics: settings.optional("metrics", scrape::address)?,
    })
}

/// How much of the fleet's history is kept; `None` without a fleet store.
fn fleet_limits(settings: &Settings) -> Result<Option<FleetLimits>, ConfigError> {
    let limits = FleetLimits {
        age: settings.duration("fleet_history")?,
        bytes: settings.one("fleet_history_size", size)?,
    };
    Ok(settings.on_off("fleet")?.then_some(limits))
}

/// A number of bytes with its unit.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size from 1MiB to 1024GiB, such as 256MiB");
    let units = [("MiB", 20), ("GiB", 30)];
    let cut = units.iter().find_map(|(unit, shift)| {
        let number = text.strip_suffix(unit)?;
        Some((number, shift))
    });
    let (number, shift) = cut.ok_or_else(wrong)?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number
        .parse()
        .ok()
        .filter(|_| is_number)
        .ok_or_else(wrong)?;
    let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
    match (1 << 20..=1 << 40).contains(&bytes) {
        true => Ok(bytes),
        false => Err(wrong()),
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use argh::FromArgs as _;

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
        let rate = config.deliver[0].rate.unwrap();
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

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        for (text, bytes) in [
            ("1MiB", Some(1 << 20)),
            ("256MiB", Some(256 << 20)),
            ("2GiB", Some(2 << 30)),
            ("1024GiB", Some(1 << 40)),
            ("1025GiB", None),
            ("0MiB", None),
            ("256", None),
            ("256MB", None),
            ("+1MiB", None),
            ("99999999999999999999GiB", None),
            ("18446744073709551615GiB", None),
        ] {
            assert_eq!(size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn the_fleet_store_is_kept_for_a_month_unless_it_is_off() {
        let given = ["--vm", "a=unix:/a", "--deliver", "file:/o"];
        let fleet = |more: &[&str]| configured(&[&given, more].concat()).unwrap().fleet;
        assert_eq!(fleet(&[]), Some(FleetLimits::default()));
        assert_eq!(fleet(&["--fleet", "off"]), None);
    }

    pub(in crate::cli) fn configured(args: &[&str]) -> Result<SenseConfig, ConfigError> {
        let args = SenseArgs::from_args(&["afferent", "sense"], args).unwrap();
        configure(&gather(&args, |_| None)?)
    }
}
