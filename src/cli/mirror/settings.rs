//! Settings of the mirror: one list, and what they become.

use super::Stop;
use super::args::{ApplyArgs, ExplainArgs, PlanArgs, RunArgs, SETTINGS};
use crate::cli::options::{ConfigError, SettingOrigin, Settings, parse};
use crate::cli::{native, web_listen};
use crate::http::{Client, HttpOptions, check_base};
use crate::mirror::core::{Core, FileCore, MixedCore, Observe, RestCore, RestOptions};
use crate::mirror::policy::{Policy, Profile};
use crate::mirror::retention::AuditBounds;
use crate::mirror::run::Gate;
use crate::mirror::{Store, StoreError, lost, open_and_prune};
use crate::store::Limits;
use crate::telemetry::{scrape, support};
use crate::web::WebListen;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Set, it decides whether `run` mirrors.
const GATE: &str = "AFFERENT_EXPECTED_INVENTORY_SYNC_ENABLED";

/// Gives a command that asks Core its configuration.
macro_rules! configured {
    ($($args:ident)+) => {$(
        impl $args {
            /// From what was typed, the environment and the file.
            pub(super) fn configuration(&self) -> Result<Config, ConfigError> {
                let (given, file) = (self.given(), self.config.as_deref());
                let settings = Settings::gather(SETTINGS, given, native::variable, file, &[])?;
                let config = Config::of(&settings, self.approve_deletes)?;
                support::set_configuration(settings.effective());
                Ok(config)
            }
        }
    )+};
}

configured!(RunArgs PlanArgs ApplyArgs ExplainArgs);

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
    /// Where the inventory is answered for over HTTP, if it is.
    pub(super) listen: Option<WebListen>,
    /// How much of the audit log is kept.
    pub(super) audit: AuditBounds,
    /// The knobs.
    pub(super) policy: Policy,
}

impl Config {
    /// From settings that were gathered.
    pub(super) fn of(
        settings: &Settings,
        approve_deletes: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let http = HttpOptions {
            connect: settings.duration("connect_timeout")?,
            deadline: settings.duration("request_deadline")?,
            ca_file: settings.optional_path("ca_file")?,
            ..HttpOptions::default()
        };
        let text = |text: &str| Ok(text.to_owned()).and_then(not_empty);
        Ok(Self {
            state_dir: settings.path("state_dir")?,
            damaged: settings.damaged()?,
            core: settings.optional("core", text)?,
            org: settings.optional("org", text)?,
            site: settings.optional("site_id", site_id)?,
            token_file: settings.optional_path("token_file")?,
            observed: settings.optional("observed", text)?,
            observe: Observe {
                dpus: settings.on_off("observe_dpus")?,
                trays: settings.on_off("observe_trays")?,
                endpoints: settings.on_off("observe_endpoints")?,
            },
            all_lists: settings.duration("core_deadline")?,
            list_cap: u64::from(settings.number("core_list_cap")?) << 20,
            http,
            metrics: settings.optional("metrics", scrape::address)?,
            interval: settings.duration("interval")?,
            listen: web_listen::configured(settings, "mirror")?,
            audit: AuditBounds {
                max_age: settings.optional_duration("audit_max_age")?,
                max_bytes: settings
                    .optional_number("audit_max_size")?
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
    Ok(Policy {
        profile,
        identity: or(settings, "identity", preset.identity)?,
        empty: or(settings, "empty", preset.empty)?,
        legacy: or(settings, "legacy", preset.legacy)?,
        labels: or(settings, "labels", preset.labels)?,
        names: or(settings, "names", preset.names)?,
        duplicates: or(settings, "duplicates", preset.duplicates)?,
        unknown_position: or(settings, "unknown_position", preset.unknown_position)?,
        clear: or(settings, "clear", preset.clear)?,
        max_deletes: settings.number("max_deletes")?,
        max_delete_percent: settings.number("max_delete_percent")?,
        approve_deletes: None,
        delete_grace: settings.number("delete_grace")?,
    })
}

/// What was set, or what the profile says.
fn or<T: FromStr<Err: ToString>>(
    settings: &Settings,
    key: &str,
    preset: T,
) -> Result<T, ConfigError> {
    let given = settings.optional(key, parse::any)?;
    Ok(given.unwrap_or(preset))
}
