//! Settings of the mirror: one list, and what they become.

use super::Stop;
use crate::cli::options::{ConfigError, Origin, Setting, Settings, parse};
use crate::http::{Client, Options};
use crate::mirror::Store;
use crate::mirror::core::{Core, FileCore, RestCore, RestOptions};
use crate::mirror::policy::{Policy, Profile};
use crate::mirror::run::Gate;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Flags as typed: name and values.
pub(super) type Flags = Vec<(&'static str, Vec<String>)>;

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
    setting("site-id", "ID", None, "the one site whose entries count"),
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
    setting("interval", "DURATION", Some("5m"), "time between cycles"),
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
];

/// What a command that asks Core needs.
pub(super) struct Config {
    state_dir: PathBuf,
    core: Option<String>,
    org: Option<String>,
    site: Option<String>,
    token_file: Option<PathBuf>,
    http: Options,
    /// Time between cycles.
    pub(super) interval: Duration,
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
        let environment = |name: &str| std::env::var(name).ok();
        let settings = Settings::gather(SETTINGS, flags, environment, file, &[])?;
        Self::of(&settings, approve_deletes)
    }

    /// From settings that were gathered.
    pub(super) fn of(
        settings: &Settings,
        approve_deletes: Option<u32>,
    ) -> Result<Self, ConfigError> {
        let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
        let http = Options {
            connect: settings.one("connect-timeout", parse::duration(seconds(1, 60)))?,
            deadline: settings.one("request-deadline", parse::duration(seconds(1, 600)))?,
            ca_file: settings.optional("ca-file", parse::path)?,
            ..Options::default()
        };
        let text = |text: &str| Ok(text.to_owned()).and_then(not_empty);
        Ok(Self {
            state_dir: settings.one("state-dir", parse::path)?,
            core: settings.optional("core", text)?,
            org: settings.optional("org", text)?,
            site: settings.optional("site-id", text)?,
            token_file: settings.optional("token-file", parse::path)?,
            http,
            interval: settings.one("interval", parse::duration(seconds(1, 86_400)))?,
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

    /// Opens the tables; a damaged file is moved aside and the next cycle fills a new one.
    pub(super) fn open_store(&self) -> Result<Store, Stop> {
        open_store(&self.state_dir)
    }

    /// Where inventory comes from.
    pub(super) fn core(&self) -> Result<Box<dyn Core + Send>, Stop> {
        let wrong = |why: &str| Stop::from(ConfigError::new(Origin::Flag, "core", why));
        let Some(core) = &self.core else {
            return Err(wrong("is needed and not given"));
        };
        if let Some(path) = core.strip_prefix("file:") {
            return Ok(Box::new(FileCore::at_path(path.into(), self.site.clone())));
        }
        let Some((_, rest)) = core
            .split_once("://")
            .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        else {
            return Err(wrong("is neither file:PATH nor an http or https address"));
        };
        if rest
            .split(['/', '?', '#'])
            .next()
            .unwrap_or_default()
            .contains('@')
        {
            return Err(wrong("holds a user name or password: use --token-file"));
        }
        let client = Client::new(self.http.clone());
        let Some(org) = &self.org else {
            if self.site.is_some() || self.token_file.is_some() {
                return Err(Stop::from(ConfigError::new(
                    Origin::Flag,
                    "org",
                    "is needed with --site-id and --token-file",
                )));
            }
            return Ok(Box::new(FileCore::at_url(
                core.clone(),
                client,
                self.http.deadline,
            )));
        };
        let options = RestOptions {
            base: core.clone(),
            org: org.clone(),
            site: self.site.clone(),
            token_file: self.token_file.clone(),
            deadline: self.http.deadline,
        };
        Ok(Box::new(RestCore::new(options, client)))
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
    crate::mirror::open(state_dir).map_err(Stop::failed)
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
