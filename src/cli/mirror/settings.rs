//! Settings of the mirror: one list, and what they become.

use super::Stop;
use crate::cli::native;
use crate::cli::options::{
    ConfigError, DAMAGED_MAX_AGE, DAMAGED_MAX_COUNT, Setting, SettingOrigin, Settings, parse,
};
use crate::http::{Client, HttpOptions, check_base};
use crate::mirror::core::{Core, FileCore, MixedCore, Observe, RestCore, RestOptions};
use crate::mirror::policy::{Policy, Profile};
use crate::mirror::retention::AuditBounds;
use crate::mirror::run::Gate;
use crate::mirror::{InventoryError, Snapshot, Store, StoreError, lost, open_and_prune};
use crate::store::Limits;
use crate::telemetry::{scrape, support};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Flags as typed: name and values.
pub(super) type Flags = Vec<(&'static str, Vec<String>)>;

/// Longest bound of the audit log's age, in seconds.
const TEN_YEARS: u64 = 10 * 365 * 86_400;

/// Set, it decides whether `run` mirrors.
const GATE: &str = "AFFERENT_EXPECTED_INVENTORY_SYNC_ENABLED";

const fn setting(
    name: &'static str,
    value: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        value,
        default,
        many: false,
        help,
    }
}

/// Every setting of `afferent mirror`.
pub(in crate::cli) const SETTINGS: &[Setting] = &[
    setting(
        "state-dir",
        "DIR",
        Some("/var/lib/afferent"),
        "directory of mirror.redb",
    ),
    setting("core", "file:PATH|URL", None, "where inventory comes from"),
    setting(
        "org",
        "NAME",
        None,
        "organisation; with it the address speaks REST",
    ),
    setting("site-id", "UUID", None, "the one site whose entries count"),
    setting("token-file", "FILE", None, "file with a bearer token"),
    setting(
        "ca-file",
        "FILE",
        None,
        "PEM file with the only certificate authorities to trust",
    ),
    setting(
        "connect-timeout",
        "DURATION",
        Some("5s"),
        "longest time until there is a connection",
    ),
    setting(
        "request-deadline",
        "DURATION",
        Some("60s"),
        "longest time for one answer, retries included",
    ),
    setting(
        "core-deadline",
        "DURATION",
        Some("10m"),
        "longest time for all lists of a cycle together, over REST",
    ),
    setting(
        "core-list-cap",
        "MIB",
        Some("128"),
        "longest list, in MiB; a document may be eleven times as long",
    ),
    setting(
        "observed",
        "file:PATH|URL",
        None,
        "where observed devices come from, if not from --core",
    ),
    setting(
        "observe-dpus",
        "on|off",
        Some("off"),
        "REST: ask for the DPUs of each host, one request per host",
    ),
    setting(
        "observe-trays",
        "on|off",
        Some("off"),
        "REST: read switches, shelves and power states from Flow's trays",
    ),
    setting(
        "observe-endpoints",
        "on|off",
        Some("off"),
        "REST: read power states from the site explorer",
    ),
    setting("interval", "DURATION", Some("5m"), "time between cycles"),
    setting(
        "metrics",
        "ADDR",
        None,
        "where Prometheus reads metrics; a bare port is one on 127.0.0.1",
    ),
    setting(
        "audit-max-age",
        "DURATION",
        None,
        "longest time that a row of the audit log is kept",
    ),
    setting(
        "audit-max-size",
        "MIB",
        None,
        "most room for the rows of the audit log",
    ),
    setting(
        "profile",
        "natural-key|host-mac",
        Some("natural-key"),
        "presets for all that follow",
    ),
    setting(
        "identity",
        "pair|host-mac",
        None,
        "how a component is recognised",
    ),
    setting(
        "empty",
        "skip|authoritative|guarded",
        None,
        "what a complete but empty response means",
    ),
    setting(
        "legacy",
        "exempt|delete",
        None,
        "live racks that Core never knew",
    ),
    setting(
        "labels",
        "required|optional",
        None,
        "chassis labels of racks",
    ),
    setting("names", "unique|free", None, "rack names"),
    setting("duplicates", "last|both", None, "two entries with one pair"),
    setting(
        "unknown-position",
        "INTEGER",
        None,
        "what an absent position is stored as",
    ),
    setting(
        "clear",
        "clear|preserve",
        None,
        "what an absent description does",
    ),
    setting(
        "max-deletes",
        "NUMBER",
        Some("10"),
        "deletes of one type that are always allowed",
    ),
    setting(
        "max-delete-percent",
        "NUMBER",
        Some("10"),
        "the same in percent of its live rows",
    ),
    setting(
        "delete-grace",
        "NUMBER",
        Some("1"),
        "complete pulls in a row that must lack a row before it is deleted",
    ),
    DAMAGED_MAX_AGE,
    DAMAGED_MAX_COUNT,
];

/// What a command that asks Core needs.
pub(super) struct Config {
    state_dir: PathBuf,
    damaged: Limits,
    core: Option<String>,
    org: Option<String>,
    site: Option<String>,
    token_file: Option<PathBuf>,
    http: HttpOptions,
    observed: Option<String>,
    observe: Observe,
    all_lists: Duration,
    list_cap: u64,
    /// Time between cycles.
    pub(super) interval: Duration,
    /// Where metrics are read.
    pub(super) metrics: Option<SocketAddr>,
    /// How much of the audit log is kept.
    pub(super) audit: AuditBounds,
    /// The knobs.
    pub(super) policy: Policy,
}

impl Config {
    /// From what was typed, the environment and the file.
    pub(super) fn gather(
        flags: Flags,
        file: Option<&Path>,
        approve_deletes: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let environment = |name: &str| native::variable(name);
        let settings = Settings::gather(SETTINGS, flags, environment, file, &[])?;
        let config = Self::of(&settings, approve_deletes)?;
        support::set_configuration(settings.effective());
        Ok(config)
    }

    /// From settings that were gathered.
    pub(super) fn of(
        settings: &Settings,
        approve_deletes: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        let http = HttpOptions {
            connect: settings.one("connect-timeout", parse::duration(seconds(1, 60)))?,
            deadline: settings.one("request-deadline", parse::duration(seconds(1, 600)))?,
            ca_file: settings.optional("ca-file", parse::path)?,
            ..HttpOptions::default()
        };
        let text = |text: &str| Ok(text.to_owned()).and_then(not_empty);
        Ok(Self {
            state_dir: settings.one("state-dir", parse::path)?,
            damaged: settings.damaged()?,
            core: settings.optional("core", text)?,
            org: settings.optional("org", text)?,
            site: settings.optional("site-id", site_id)?,
            token_file: settings.optional("token-file", parse::path)?,
            observed: settings.optional("observed", text)?,
            observe: Observe {
                dpus: settings.one("observe-dpus", parse::on_off)?,
                trays: settings.one("observe-trays", parse::on_off)?,
                endpoints: settings.one("observe-endpoints", parse::on_off)?,
            },
            all_lists: settings.one("core-deadline", parse::duration(seconds(1, 86_400)))?,
            list_cap: u64::from(settings.one("core-list-cap", parse::number(1..=4096))?) << 20,
            http,
            metrics: settings.optional("metrics", scrape::address)?,
            interval: settings.one("interval", parse::duration(seconds(1, 86_400)))?,
            audit: AuditBounds {
                max_age: settings
                    .optional("audit-max-age", parse::duration(seconds(1, TEN_YEARS)))?,
                max_bytes: settings
                    .optional("audit-max-size", parse::number(1..=1 << 20))?
                    .map(|mib| u64::from(mib) << 20),
            },
            policy: Policy {
                approve_deletes,
                ..policy(settings)?
            },
        })
    }

    /// Where the tables are.
    pub(super) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// What is kept of tables that were moved aside.
    pub(super) fn damaged(&self) -> Limits {
        self.damaged
    }

    /// Opens the tables, and removes what was moved aside and is beyond the limits.
    pub(super) fn open_store(&self) -> Result<Store, StoreError> {
        open_and_prune(&self.state_dir, self.damaged)
    }

    /// Where inventory comes from.
    pub(super) fn core(&self) -> Result<Box<dyn Core + Send>, Stop> {
        let Some(core) = &self.core else {
            return Err(wrong("core", "is needed and not given"));
        };
        let expected = match &self.org {
            Some(org) if !core.starts_with("file:") => self.rest(core, org)?,
            _ => self.document("core", core)?,
        };
        let Some(observed) = &self.observed else {
            return Ok(expected);
        };
        if self.observe != Observe::default() {
            let why = "cannot be given with --observe-dpus, --observe-trays or --observe-endpoints";
            return Err(wrong("observed", why));
        }
        let observed = self.document("observed", observed)?;
        Ok(Box::new(MixedCore::new(expected, observed)))
    }

    /// One document with every list, from a file or an address.
    fn document(&self, setting: &str, from: &str) -> Result<Box<dyn Core + Send>, Stop> {
        let site = self.site.clone();
        if let Some(path) = from.strip_prefix("file:") {
            return Ok(Box::new(
                FileCore::at_path(path.into(), site).list_cap(self.list_cap),
            ));
        }
        check_address(setting, from)?;
        if setting == "core" && (self.site.is_some() || self.token_file.is_some()) {
            return Err(wrong("org", "is needed with --site-id and --token-file"));
        }
        let client = Client::new(HttpOptions {
            body_cap: FileCore::document_cap(self.list_cap),
            ..self.http.clone()
        });
        let core = FileCore::at_url(from.to_owned(), client, self.http.deadline);
        Ok(Box::new(core.list_cap(self.list_cap)))
    }

    fn rest(&self, base: &str, org: &str) -> Result<Box<dyn Core + Send>, Stop> {
        check_address("core", base)?;
        check_base(base).map_err(|why| wrong("core", &why))?;
        let options = RestOptions {
            base: base.to_owned(),
            org: org.to_owned(),
            site: self.site.clone(),
            token_file: self.token_file.clone(),
            deadline: self.http.deadline,
            all_lists: self.all_lists,
            list_cap: self.list_cap,
            observe: self.observe,
        };
        let client = Client::new(self.http.clone());
        Ok(Box::new(RestCore::new(options, client)))
    }
}

fn wrong(setting: &str, why: &str) -> Stop {
    Stop::from(ConfigError::new(SettingOrigin::Flag, setting, why))
}

/// An http or https address without a user name.
fn check_address(setting: &str, address: &str) -> Result<(), Stop> {
    let Some((scheme, rest)) = address
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
    else {
        let why = "is neither file:PATH nor an http or https address";
        return Err(wrong(setting, why));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        let why = "holds a user name or password: use --token-file";
        return Err(wrong(setting, why));
    }
    // A path may have any form, and a document may be named by a query.
    check_base(&format!("{scheme}://{host}")).map_err(|why| wrong(setting, &why))?;
    if address.contains('#') {
        return Err(wrong(
            setting,
            "has a fragment (#), which no server is sent",
        ));
    }
    Ok(())
}

/// Core answers other texts with "500 DB error".
fn site_id(text: &str) -> Result<String, String> {
    match text.parse::<uuid::Uuid>() {
        Ok(_) if text.len() == 36 => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no UUID")),
    }
}

fn not_empty(text: String) -> Result<String, String> {
    if text.is_empty() {
        return Err("is empty".into());
    }
    Ok(text)
}

/// What the gate says.
pub(super) fn gate(policy: &Policy) -> Gate {
    Gate::read(std::env::var(GATE).ok().as_deref(), policy.profile)
}

/// What `mirror.redb` in `state_dir` holds, whether the service runs or not.
pub(super) fn look(state_dir: &Path) -> Result<Snapshot, Stop> {
    crate::mirror::look(state_dir).map_err(|error| match error {
        InventoryError::Store(error) => not_opened(&error),
        other => Stop::failed(other),
    })
}

/// Opens `mirror.redb` in `state_dir`.
pub(super) fn open_store(state_dir: &Path) -> Result<Store, Stop> {
    crate::mirror::open(state_dir).map_err(|error| not_opened(&error))
}

/// Says why the store cannot be opened, and what to do about it.
pub(super) fn not_opened(error: &StoreError) -> Stop {
    match lost::remedy(error) {
        Some(remedy) => Stop::failed(format!("{error}; {remedy}")),
        None => Stop::failed(error),
    }
}

/// The profile, and whatever was set beside it.
fn policy(settings: &Settings) -> Result<Policy, ConfigError> {
    let profile = settings.one("profile", parse::any::<Profile>)?;
    let preset = Policy::of(profile);
    let number = |name, most| settings.one(name, parse::number(0..=most));
    Ok(Policy {
        profile,
        identity: settings
            .optional("identity", parse::any)?
            .unwrap_or(preset.identity),
        empty: settings
            .optional("empty", parse::any)?
            .unwrap_or(preset.empty),
        legacy: settings
            .optional("legacy", parse::any)?
            .unwrap_or(preset.legacy),
        labels: settings
            .optional("labels", parse::any)?
            .unwrap_or(preset.labels),
        names: settings
            .optional("names", parse::any)?
            .unwrap_or(preset.names),
        duplicates: settings
            .optional("duplicates", parse::any)?
            .unwrap_or(preset.duplicates),
        unknown_position: settings
            .optional("unknown-position", parse::any)?
            .unwrap_or(preset.unknown_position),
        clear: settings
            .optional("clear", parse::any)?
            .unwrap_or(preset.clear),
        max_deletes: number("max-deletes", u32::MAX)?,
        max_delete_percent: number("max-delete-percent", 100)?,
        approve_deletes: None,
        delete_grace: number("delete-grace", 1_000_000)?,
    })
}
