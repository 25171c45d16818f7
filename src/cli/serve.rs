//! `afferent serve`: flags as typed, and the configuration they become.

use super::native;
use super::options::{ConfigError, Settings, parse, settings};
use crate::clock::show_duration;
use crate::serve::repo_cpe::{FetchOptions, Source};
use crate::serve::{Config, Listen, Pace, TlsConfig, TlsMode};
use crate::telemetry::support;
use crate::transport::{AgentName, CommonName, KubevirtOptions, ListenAddress};
use std::path::PathBuf;

settings! {
    /// Every setting of `afferent serve`.
    table pub(super) SETTINGS;

    /// Run in a guest: watch the RPM database, keep a report, and answer sensors.
    #[argh(subcommand, name = "serve", example = "afferent serve --listen vsock:818")]
    pub(super) struct ServeArgs {
        settings {
            /// where to listen: vsock:PORT or unix:PATH, with ,tls=MODE for a mode of its own
            listen: many "ADDR" = "vsock:818";
            /// root of the system to report on
            root: one "DIR" = "/";
            /// directory of the RPM database below the root, if it is in none of the usual places
            dbpath: one "DIR";
            /// where the report is kept
            state_dir: one "DIR" = "/var/lib/afferent";
            /// time between scheduled scans
            rescan_interval: duration from "5m" to "168h" = "4h";
            /// whether changes cause scans
            reactive_scan: on_off = "on";
            /// quiet time after a change before a scan
            reactive_debounce: duration from "0s" to "1m" = "100ms";
            /// longest a change waits for quiet
            reactive_max_delay: duration from "100ms" to "1h" = "30s";
            /// reactive scans that may follow one another at once
            reactive_burst: number from "1" to "10000" = "20";
            /// time in which one more reactive scan is granted
            reactive_refill: duration from "100ms" to "1h" = "10s";
            /// longest an rpm transaction is waited for before it is reported half done
            transaction_timeout: duration from "1s" to "24h" = "30m";
            /// VSOCK context id that may ask (2: the host)
            allow_cid: many "CID" = "2";
            /// longest a peer may take for its request and its answer
            conn_deadline: duration from "5s" to "5m" = "30s";
            /// which CPEs a repository stands for (Red Hat's repository-to-cpe.json): pushed by the sensor, a file or a URL
            repo_cpe: one "sensor|FILE|URL" = "sensor";
            /// file with the bearer token for that URL, read at every fetch
            repo_cpe_token_file: one "FILE";
            /// the only authorities to trust for that URL (PEM)
            repo_cpe_ca_file: one "FILE" or "those of the system";
            /// whether reports are withheld until the sensor has pushed a mapping
            require_mapping: on_off = "off";
            /// how peers prove who they are: off, files or kubevirt
            tls: one "off|files|kubevirt" or "files where tls-cert is given, else off";
            /// certificate of this agent for mutual TLS (PEM, made out to the name afferent)
            tls_cert: one "FILE";
            /// private key of that certificate (PEM)
            tls_key: one "FILE";
            /// authorities whose certificates peers must show (PEM)
            tls_client_ca: one "FILE";
            /// with id: demand that tls-cert is made out to the guest's id too (DNS name GUEST_ID.afferent)
            tls_name_from: one "id";
            /// CABundle service of KubeVirt: vsock:CID:PORT or unix:PATH
            tls_ca_source: one "ADDR" = "vsock:2:1";
            /// longest that service may take
            tls_ca_timeout: duration from "100ms" to "1m" = "10s";
            /// common name of KubeVirt's client, or a prefix and *
            tls_client_cn: one "NAME" = "kubevirt.io:system:client:vsock";
            /// how often files are compared in case events were missed
            safety_poll: duration from "1s" to "1h" = "60s";
            include damaged;
        }
        flags {
            /// file of settings (TOML)
            #[argh(option, arg_name = "FILE", from_str_fn(native::path))]
            config: Option<PathBuf>,
        }
    }
}

pub(super) fn run(args: ServeArgs) -> u8 {
    crate::telemetry::start_log();
    let read = move || {
        let file = args.config.as_deref();
        let settings = Settings::gather(SETTINGS, args.given(), native::variable, file, &[])?;
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
    let files = settings.tls("tls_cert", "tls_key", "tls_client_ca")?;
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
    let ca_timeout = settings.duration("tls_ca_timeout")?;
    let deadline = settings.duration("conn_deadline")?;
    if has(TlsMode::Kubevirt) && ca_timeout >= deadline {
        let deadline = show_duration(deadline);
        let message = format!(
            "must be shorter than conn-deadline ({deadline}), which holds for the whole handshake"
        );
        return wrong("tls_ca_timeout", message);
    }
    let name_from_id = settings.optional("tls_name_from", parse::any::<AgentName>)?;
    let tls = TlsConfig {
        files,
        name_from_id: name_from_id.is_some(),
        kubevirt: KubevirtOptions {
            ca_source: settings.one("tls_ca_source", parse::dial)?,
            ca_timeout,
            client_name: settings.one("tls_client_cn", parse::any::<CommonName>)?,
        },
    };
    Ok((listen, tls))
}

/// The configuration that settings make.
pub(super) fn config(settings: &Settings) -> Result<Config, ConfigError> {
    let (listen, tls) = listen_and_tls(settings)?;
    Ok(Config {
        listen,
        root: settings.path("root")?,
        dbpath: settings.optional_path("dbpath")?,
        state_dir: settings.path("state_dir")?,
        pace: Pace {
            reactive: settings.on_off("reactive_scan")?,
            debounce: settings.duration("reactive_debounce")?,
            max_delay: settings.duration("reactive_max_delay")?,
            burst: settings.number("reactive_burst")?,
            refill: settings.duration("reactive_refill")?,
            transaction_timeout: settings.duration("transaction_timeout")?,
            interval: settings.duration("rescan_interval")?,
        },
        allow_cid: settings.all("allow_cid", parse::any::<u32>)?,
        conn_deadline: settings.duration("conn_deadline")?,
        repo_cpe: settings.one("repo_cpe", mapping)?,
        require_mapping: settings.on_off("require_mapping")?,
        repo_cpe_fetch: FetchOptions {
            token_file: settings.optional_path("repo_cpe_token_file")?,
            ca_file: settings.optional_path("repo_cpe_ca_file")?,
        },
        tls,
        safety_poll: settings.duration("safety_poll")?,
        damaged: settings.damaged()?,
    })
}
