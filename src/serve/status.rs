//! What `afferent status` shows of an agent.

use super::handshakes::Handshakes;
use super::listen::Acceptors;
use super::mapping::{MappingState, UpdatePath};
use super::respond::Published;
use super::scan_log::ScanLog;
use crate::clock::{self, WallClock, WallTime};
use crate::report::{Epoch, GuestId};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Scans in a row that the database changed during, from which on it is said.
pub(super) const MANY: u32 = 3;

/// The state of an agent, as its loop last left it.
pub(super) struct Status {
    pub(super) wall: WallClock,
    pub(super) started_at: WallTime,
    pub(super) guest_id: Option<GuestId>,
    pub(super) epoch: Epoch,
    /// Whether reports outlive the process.
    pub(super) durable: bool,
    /// A damaged database found at start.
    pub(super) moved_aside: Option<PathBuf>,
    /// What makes reports poorer than they could be.
    pub(super) troubles: Vec<String>,
    /// Why the mapping of repositories to CPEs could not be fetched the last time.
    pub(super) fetch_trouble: Option<String>,
    /// The database is new and holds no package yet.
    pub(super) empty: Option<String>,
    /// Scans in a row during which the database was written to.
    pub(super) changing: u32,
    /// Whether changes cause scans.
    pub(super) reactive: bool,
    /// Why changes may be noticed late.
    pub(super) watch_trouble: Option<String>,
    /// Why the last scan gave nothing, if it did not.
    pub(super) scan_error: Option<String>,
    /// Scans since the start that ended well.
    pub(super) scans: u64,
    /// Those that did not.
    pub(super) failed_scans: u64,
    /// Scans by number.
    pub(super) scan_log: ScanLog,
    /// The process that ran an rpm transaction at the last look.
    pub(super) transaction: Option<i32>,
    /// Which mapping of repositories to CPEs is in use.
    pub(super) mapping: MappingState,
    /// Whether reports are withheld without one.
    pub(super) require_mapping: bool,
    /// Peers that TLS kept out.
    pub(super) handshakes: Arc<Handshakes>,
    /// What lets peers in.
    pub(super) acceptors: Arc<Acceptors>,
}

impl Status {
    /// What is not as it should be.
    fn reasons(&self, published: Option<&Published>) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(error) = &self.scan_error {
            reasons.push(format!("the last scan failed: {error}"));
        } else if let Some(empty) = &self.empty {
            reasons.push(empty.clone());
        } else if published.is_none() {
            reasons.push("the first scan has not ended yet".into());
        }
        if !self.durable {
            reasons.push(
                "the state directory cannot be used: the report is kept in memory only".into(),
            );
        }
        if let Some(trouble) = &self.watch_trouble {
            reasons.push(format!("changes may be noticed late: {trouble}"));
        }
        if self.changing >= MANY {
            let many = self.changing;
            reasons.push(format!(
                "the RPM database was written to during each of the last {many} scans: the report is older than its last change"
            ));
        }
        if self.require_mapping
            && self.mapping.path == UpdatePath::Sensor
            && self.mapping.hash.is_none()
        {
            let why = "no mapping of repositories to CPEs was pushed yet: reports are withheld (--require-mapping on)";
            reasons.push(why.into());
        }
        if let Some(trouble) = self.acceptors.client_ca_trouble() {
            reasons.push(format!(
                "the client CA of KubeVirt cannot be fetched: {trouble}"
            ));
        }
        if let Some(trouble) = &self.fetch_trouble {
            reasons.push(format!(
                "the mapping of repositories to CPEs is as it was, the last fetch failed: {trouble}"
            ));
        }
        reasons.extend(self.troubles.iter().cloned());
        reasons.extend(published.and_then(Published::too_large));
        reasons
    }

    /// One line for `systemctl status`: which report is served and how old it is, or why there is
    /// none.
    pub(super) fn line(&self, published: Option<&Published>) -> String {
        let served = published.map_or_else(
            || "no report yet".to_owned(),
            |published| {
                let age = self.wall.now().since(published.last_scan_at());
                // Whole minutes, once there are some.
                let unit = if age.as_secs() < 120 { 1 } else { 60 };
                let age = Duration::from_secs(age.as_secs() / unit * unit);
                format!(
                    "report {} with {} packages, scanned {} ago",
                    published.key(),
                    published.packages(),
                    clock::show_duration(age)
                )
            },
        );
        match &self.scan_error {
            Some(error) => format!("{served}; the last scan failed: {error}"),
            None => served,
        }
    }

    /// The object that answers a question for the status.
    pub(super) fn show(&self, published: Option<&Arc<Published>>) -> Value {
        let reasons = self.reasons(published.map(Arc::as_ref));
        let now = self.wall.now();
        let report = published.map(|p| {
            json!({
                "epoch": p.key().epoch_or_zero(),
                "generation": p.key().generation.get(),
                "digest": p.digest().to_string(),
                "trigger": p.trigger().as_str(),
                "packages": p.packages(),
                "generated_at": p.generated_at().to_string(),
                "last_scan_at": p.last_scan_at().to_string(),
                "age_seconds": now.since(p.last_scan_at()).as_secs(),
            })
        });
        let watching = match (self.reactive, &self.watch_trouble) {
            (false, _) => "scheduled scans only",
            (true, None) => "inotify",
            (true, Some(_)) => "comparing files",
        };
        json!({
            "service": "serve",
            "version": env!("CARGO_PKG_VERSION"),
            "state": if reasons.is_empty() { "ok" } else { "degraded" },
            "reasons": reasons,
            "started_at": self.started_at.to_string(),
            "guest_id": self.guest_id.as_ref().map(GuestId::as_str),
            "epoch": self.epoch.get(),
            "durable": self.durable,
            "moved_aside": self.moved_aside,
            "watching": watching,
            "scans": self.scans,
            "failed_scans": self.failed_scans,
            "mapping": {
                "from": match self.mapping.path {
                    UpdatePath::Sensor => "sensor",
                    UpdatePath::Url => "file",
                },
                "hash": self.mapping.hash.map(|hash| hash.to_string()),
            },
            "refused_handshakes": self.handshakes.show(),
            "report": report,
        })
    }
}
