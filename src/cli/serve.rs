//! `afferent serve`: flags as typed, and the configuration they become.

use super::native;
use super::options::{ConfigError, DAMAGED_MAX_AGE, DAMAGED_MAX_COUNT, Setting, Settings, parse};
use crate::clock::{parse_duration, show_duration};
use crate::serve::repo_cpe::{FetchOptions, Source};
use crate::serve::{Config, Listen, Pace, TlsConfig, TlsMode};
use crate::telemetry::support;
use crate::transport::{AgentName, CommonName, KubevirtOptions, ListenAddress};
use argh::FromArgs;
use std::path::PathBuf;
use std::time::Duration;

/// Run in a guest: watch the RPM database, keep a report, and answer sensors.
#[derive(FromArgs, Clone)]
#[argh(
    subcommand,
    name = "serve",
    example = "afferent serve --listen vsock:818"
)]
pub(super) struct ServeArgs {
    /// where to listen: vsock:PORT or unix:PATH, with ,tls=MODE for a mode of its own, may be repeated (default vsock:818)
    #[argh(option, arg_name = "ADDR")]
    listen: Vec<String>,
    /// root of the system to report on (default /)
    #[argh(option, arg_name = "DIR")]
    root: Option<String>,
    /// directory of the RPM database below the root, if it is in none of the usual places
    #[argh(option, arg_name = "DIR")]
    dbpath: Option<String>,
    /// where the report is kept (default /var/lib/afferent)
    #[argh(option, arg_name = "DIR")]
    state_dir: Option<String>,
    /// time between scheduled scans, 5m to 168h (default 4h)
    #[argh(option, arg_name = "DURATION")]
    rescan_interval: Option<String>,
    /// whether changes cause scans, on or off (default on)
    #[argh(option, arg_name = "on|off")]
    reactive_scan: Option<String>,
    /// quiet time after a change before a scan (default 100ms)
    #[argh(option, arg_name = "DURATION")]
    reactive_debounce: Option<String>,
    /// longest a change waits for quiet (default 30s)
    #[argh(option, arg_name = "DURATION")]
    reactive_max_delay: Option<String>,
    /// reactive scans that may follow one another at once (default 20)
    #[argh(option, arg_name = "NUMBER")]
    reactive_burst: Option<String>,
    /// time in which one more reactive scan is granted (default 10s)
    #[argh(option, arg_name = "DURATION")]
    reactive_refill: Option<String>,
    /// longest an rpm transaction is waited for before it is reported half done (default 30m)
    #[argh(option, arg_name = "DURATION")]
    transaction_timeout: Option<String>,
    /// VSOCK context id that may ask, may be repeated (default 2, the host)
    #[argh(option, arg_name = "CID")]
    allow_cid: Vec<String>,
    /// longest a peer may take for its request and its answer, 5s to 5m (default 30s)
    #[argh(option, arg_name = "DURATION")]
    conn_deadline: Option<String>,
    /// which CPEs a repository stands for (Red Hat's repository-to-cpe.json): pushed by the sensor, a file or a URL (default sensor)
    #[argh(option, arg_name = "sensor|FILE|URL")]
    repo_cpe: Option<String>,
    /// file with the bearer token for that URL
    #[argh(option, arg_name = "FILE")]
    repo_cpe_token_file: Option<String>,
    /// the only authorities to trust for that URL (PEM; default: those of the system)
    #[argh(option, arg_name = "FILE")]
    repo_cpe_ca_file: Option<String>,
    /// whether reports are withheld until the sensor has pushed a mapping, on or off (default off)
    #[argh(option, arg_name = "on|off")]
    require_mapping: Option<String>,
    /// how peers prove who they are: off, files or kubevirt (default files where tls-cert is given, else off)
    #[argh(option, arg_name = "off|files|kubevirt")]
    tls: Option<String>,
    /// certificate of this agent for mutual TLS (PEM, made out to the name afferent)
    #[argh(option, arg_name = "FILE")]
    tls_cert: Option<String>,
    /// private key of that certificate (PEM)
    #[argh(option, arg_name = "FILE")]
    tls_key: Option<String>,
    /// authorities whose certificates peers must show (PEM)
    #[argh(option, arg_name = "FILE")]
    tls_client_ca: Option<String>,
    /// id: demand that this certificate is made out to the guest's id too (DNS name GUEST_ID.afferent)
    #[argh(option, arg_name = "id")]
    tls_name_from: Option<String>,
    /// CABundle service of KubeVirt: vsock:CID:PORT or unix:PATH (default vsock:2:1)
    #[argh(option, arg_name = "ADDR")]
    tls_ca_source: Option<String>,
    /// longest that service may take, 100ms to 1m (default 10s)
    #[argh(option, arg_name = "DURATION")]
    tls_ca_timeout: Option<String>,
    /// common name of KubeVirt's client, or a prefix and * (default kubevirt.io:system:client:vsock)
    #[argh(option, arg_name = "NAME")]
    tls_client_cn: Option<String>,
    /// how often files are compared in case events were missed, 1s to 1h (default 60s)
    #[argh(option, arg_name = "DURATION")]
    safety_poll: Option<String>,
    /// longest a damaged database that was moved aside is kept, 1h to 8760h (default 720h)
    #[argh(option, arg_name = "DURATION")]
    damaged_max_age: Option<String>,
    /// damaged databases that are kept, the newest, 0 to 100 (default 5)
    #[argh(option, arg_name = "NUMBER")]
    damaged_max_count: Option<String>,
    /// file of settings (TOML)
    #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
    config: Option<PathBuf>,
}

/// Every setting of `afferent serve`.
pub(super) const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        value: "ADDR",
        default: Some("vsock:818"),
        many: true,
        help: "where to listen: vsock:PORT or unix:PATH, with ,tls=MODE for a mode of its own",
    },
    Setting {
        name: "root",
        value: "DIR",
        default: Some("/"),
        many: false,
        help: "root of the system to report on",
    },
    Setting {
        name: "dbpath",
        value: "DIR",
        default: None,
        many: false,
        help: "directory of the RPM database below the root, if it is in none of the usual places",
    },
    Setting {
        name: "state-dir",
        value: "DIR",
        default: Some("/var/lib/afferent"),
        many: false,
        help: "where the report is kept",
    },
    Setting {
        name: "rescan-interval",
        value: "DURATION",
        default: Some("4h"),
        many: false,
        help: "time between scheduled scans, 5m to 168h",
    },
    Setting {
        name: "reactive-scan",
        value: "on|off",
        default: Some("on"),
        many: false,
        help: "whether changes cause scans",
    },
    Setting {
        name: "reactive-debounce",
        value: "DURATION",
        default: Some("100ms"),
        many: false,
        help: "quiet time after a change before a scan, 0s to 1m",
    },
    Setting {
        name: "reactive-max-delay",
        value: "DURATION",
        default: Some("30s"),
        many: false,
        help: "longest a change waits for quiet, 100ms to 1h",
    },
    Setting {
        name: "reactive-burst",
        value: "NUMBER",
        default: Some("20"),
        many: false,
        help: "reactive scans that may follow one another at once, 1 to 10000",
    },
    Setting {
        name: "reactive-refill",
        value: "DURATION",
        default: Some("10s"),
        many: false,
        help: "time in which one more reactive scan is granted, 100ms to 1h",
    },
    Setting {
        name: "transaction-timeout",
        value: "DURATION",
        default: Some("30m"),
        many: false,
        help: "longest an rpm transaction is waited for before it is reported half done, 1s to 24h",
    },
    Setting {
        name: "allow-cid",
        value: "CID",
        default: Some("2"),
        many: true,
        help: "VSOCK context id that may ask; 2 is the host",
    },
    Setting {
        name: "conn-deadline",
        value: "DURATION",
        default: Some("30s"),
        many: false,
        help: "longest a peer may take for its request and its answer, 5s to 5m",
    },
    Setting {
        name: "repo-cpe",
        value: "sensor|FILE|URL",
        default: Some("sensor"),
        many: false,
        help: "which CPEs a repository stands for (Red Hat's repository-to-cpe.json): pushed by the sensor, a file or a URL",
    },
    Setting {
        name: "repo-cpe-token-file",
        value: "FILE",
        default: None,
        many: false,
        help: "file with the bearer token for that URL, read at every fetch",
    },
    Setting {
        name: "repo-cpe-ca-file",
        value: "FILE",
        default: None,
        many: false,
        help: "the only authorities to trust for that URL (PEM)",
    },
    Setting {
        name: "require-mapping",
        value: "on|off",
        default: Some("off"),
        many: false,
        help: "whether reports are withheld until the sensor has pushed a mapping",
    },
    Setting {
        name: "tls",
        value: "off|files|kubevirt",
        default: None,
        many: false,
        help: "how peers prove who they are; without it files where tls-cert is given, else off",
    },
    Setting {
        name: "tls-cert",
        value: "FILE",
        default: None,
        many: false,
        help: "certificate of this agent for mutual TLS (PEM, made out to the name afferent)",
    },
    Setting {
        name: "tls-key",
        value: "FILE",
        default: None,
        many: false,
        help: "private key of that certificate (PEM)",
    },
    Setting {
        name: "tls-client-ca",
        value: "FILE",
        default: None,
        many: false,
        help: "authorities whose certificates peers must show (PEM)",
    },
    Setting {
        name: "tls-name-from",
        value: "id",
        default: None,
        many: false,
        help: "demand that tls-cert is made out to the guest's id too (DNS name GUEST_ID.afferent)",
    },
    Setting {
        name: "tls-ca-source",
        value: "ADDR",
        default: Some("vsock:2:1"),
        many: false,
        help: "CABundle service of KubeVirt: vsock:CID:PORT or unix:PATH",
    },
    Setting {
        name: "tls-ca-timeout",
        value: "DURATION",
        default: Some("10s"),
        many: false,
        help: "longest that service may take, 100ms to 1m",
    },
    Setting {
        name: "tls-client-cn",
        value: "NAME",
        default: Some("kubevirt.io:system:client:vsock"),
        many: false,
        help: "common name of KubeVirt's client, or a prefix and *",
    },
    Setting {
        name: "safety-poll",
        value: "DURATION",
        default: Some("60s"),
        many: false,
        help: "how often files are compared in case events were missed, 1s to 1h",
    },
    DAMAGED_MAX_AGE,
    DAMAGED_MAX_COUNT,
];

pub(super) fn run(args: ServeArgs) -> u8 {
    crate::telemetry::start_log();
    let read = move || {
        let settings = args.clone().settings()?;
        let config = config(&settings)?;
        support::set_configuration(settings.effective());
        Ok::<_, ConfigError>(config)
    };
    let config = match read() {
        Ok(config) => config,
        Err(error) => return super::complain(error.exit_code(), &error.to_string()),
    };
    let reread = move || read().map_err(|error| error.to_string());
    match crate::serve::run(config, Box::new(reread)) {
        Ok(()) => super::DONE,
        Err(error) => super::complain(super::FAILED, &error.to_string()),
    }
}

impl ServeArgs {
    fn settings(self) -> Result<Settings, ConfigError> {
        let one = |value: Option<String>| value.into_iter().collect();
        let flags = vec![
            ("listen", self.listen),
            ("root", one(self.root)),
            ("dbpath", one(self.dbpath)),
            ("state-dir", one(self.state_dir)),
            ("rescan-interval", one(self.rescan_interval)),
            ("reactive-scan", one(self.reactive_scan)),
            ("reactive-debounce", one(self.reactive_debounce)),
            ("reactive-max-delay", one(self.reactive_max_delay)),
            ("reactive-burst", one(self.reactive_burst)),
            ("reactive-refill", one(self.reactive_refill)),
            ("transaction-timeout", one(self.transaction_timeout)),
            ("allow-cid", self.allow_cid),
            ("conn-deadline", one(self.conn_deadline)),
            ("repo-cpe", one(self.repo_cpe)),
            ("repo-cpe-token-file", one(self.repo_cpe_token_file)),
            ("repo-cpe-ca-file", one(self.repo_cpe_ca_file)),
            ("require-mapping", one(self.require_mapping)),
            ("tls", one(self.tls)),
            ("tls-cert", one(self.tls_cert)),
            ("tls-key", one(self.tls_key)),
            ("tls-client-ca", one(self.tls_client_ca)),
            ("tls-name-from", one(self.tls_name_from)),
            ("tls-ca-source", one(self.tls_ca_source)),
            ("tls-ca-timeout", one(self.tls_ca_timeout)),
            ("tls-client-cn", one(self.tls_client_cn)),
            ("safety-poll", one(self.safety_poll)),
            ("damaged-max-age", one(self.damaged_max_age)),
            ("damaged-max-count", one(self.damaged_max_count)),
        ];
        let environment = |name: &str| native::variable(name);
        Settings::gather(SETTINGS, flags, environment, self.config.as_deref(), &[])
    }
}

/// Where the mapping comes from; its path is one of the operating system.
fn mapping(text: &str) -> Result<Source, String> {
    Ok(match parse::any(text)? {
        Source::File(path) => Source::File(native::path(&path.to_string_lossy())?),
        other @ (Source::Sensor | Source::Url(_)) => other,
    })
}

/// An address, and its mode where it has one of its own.
fn listen(text: &str) -> Result<(ListenAddress, Option<TlsMode>), String> {
    match text.rsplit_once(",tls=") {
        Some((address, mode)) => Ok((parse::listen(address)?, Some(mode.parse()?))),
        None => Ok((parse::listen(text)?, None)),
    }
}

/// Where the agent listens, and what the modes of these addresses need.
fn listen_and_tls(settings: &Settings) -> Result<(Vec<Listen>, TlsConfig), ConfigError> {
    let files = settings.tls("tls-cert", "tls-key", "tls-client-ca")?;
    let mode = settings.optional("tls", parse::any::<TlsMode>)?;
    let mode = mode.unwrap_or(match files {
        Some(_) => TlsMode::Files,
        None => TlsMode::Off,
    });
    let listen = settings.all("listen", listen)?;
    let listen = listen.into_iter().map(|(address, own)| Listen {
        address,
        tls: own.unwrap_or(mode),
    });
    let listen: Vec<Listen> = listen.collect();
    let wrong =
        |name: &str, message: String| Err(ConfigError::new(settings.text(name).1, name, message));
    let has = |mode| listen.iter().any(|listen| listen.tls == mode);
    if has(TlsMode::Files) && files.is_none() {
        let name = if mode == TlsMode::Files {
            "tls"
        } else {
            "listen"
        };
        let needs = "the mode files needs tls-cert, tls-key and tls-client-ca";
        return wrong(name, needs.into());
    }
    let bounds = Duration::from_millis(100)..=Duration::from_secs(60);
    let ca_timeout = settings.one("tls-ca-timeout", parse::duration(bounds))?;
    let deadline = settings.one("conn-deadline", parse_duration)?;
    if has(TlsMode::Kubevirt) && ca_timeout >= deadline {
        let deadline = show_duration(deadline);
        let message = format!(
            "must be shorter than conn-deadline ({deadline}), which holds for the whole handshake"
        );
        return wrong("tls-ca-timeout", message);
    }
    let name_from_id = settings.optional("tls-name-from", parse::any::<AgentName>)?;
    let tls = TlsConfig {
        files,
        name_from_id: name_from_id.is_some(),
        kubevirt: KubevirtOptions {
            ca_source: settings.one("tls-ca-source", parse::dial)?,
            ca_timeout,
            client_name: settings.one("tls-client-cn", parse::any::<CommonName>)?,
        },
    };
    Ok((listen, tls))
}

/// The configuration that settings make.
pub(super) fn config(settings: &Settings) -> Result<Config, ConfigError> {
    let time = |name, from, to| settings.one(name, parse::duration(from..=to));
    let (ms, s, m, h) = (
        Duration::from_millis,
        Duration::from_secs,
        |n: u64| Duration::from_secs(60 * n),
        |n: u64| Duration::from_secs(3600 * n),
    );
    let (listen, tls) = listen_and_tls(settings)?;
    Ok(Config {
        listen,
        root: settings.one("root", parse::path)?,
        dbpath: settings.optional("dbpath", parse::path)?,
        state_dir: settings.one("state-dir", parse::path)?,
        pace: Pace {
            reactive: settings.one("reactive-scan", parse::on_off)?,
            debounce: time("reactive-debounce", ms(0), m(1))?,
            max_delay: time("reactive-max-delay", ms(100), h(1))?,
            burst: settings.one("reactive-burst", parse::number(1..=10_000))?,
            refill: time("reactive-refill", ms(100), h(1))?,
            transaction_timeout: time("transaction-timeout", s(1), h(24))?,
            interval: time("rescan-interval", m(5), h(168))?,
        },
        allow_cid: settings.all("allow-cid", parse::any::<u32>)?,
        conn_deadline: time("conn-deadline", s(5), m(5))?,
        repo_cpe: settings.one("repo-cpe", mapping)?,
        require_mapping: settings.one("require-mapping", parse::on_off)?,
        repo_cpe_fetch: FetchOptions {
            token_file: settings.optional("repo-cpe-token-file", parse::path)?,
            ca_file: settings.optional("repo-cpe-ca-file", parse::path)?,
        },
        tls,
        safety_poll: time("safety-poll", s(1), h(1))?,
        damaged: settings.damaged()?,
    })
}
