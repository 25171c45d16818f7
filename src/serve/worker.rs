//! What takes a thread of its own: scanning, and keeping what was found.

use super::Config;
use super::keep::{Keeper, Recorded};
use super::repo_cpe::{Rejected, RepoCpe, RepoCpeError};
use super::respond::{Published, UpdatePath};
use crate::clock::{self, WallTime};
use crate::report::{Epoch, Facts, GuestId, Trigger, facts};
use crate::scan::{self, Mode, OnLock, ScanError, Scanner, Skipped};
use crate::store::StoreError;
use crate::store::report_table::ReportRow;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long one scan tries to find a quiet moment before the decision is made anew.
const PATIENCE: Duration = Duration::from_millis(500);

/// How a scan ended.
pub(super) enum Outcome {
    /// It was read, and is on disk if it is new.
    Found(Recorded, Scan),
    /// A transaction began or went on meanwhile.
    Overtaken,
    /// The database could not be read.
    ScanFailed(String),
    /// It could be read but not kept.
    StoreFailed(String),
}

/// What is known of a scan beside its report.
#[derive(Clone, Debug)]
pub struct Scan {
    /// When it began.
    pub at: WallTime,
    /// Facts about it, which are not content.
    pub facts: Facts,
}

/// Scans and keeps, one at a time.
pub(super) struct Worker {
    guest_id: Option<GuestId>,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    scanner: Scanner,
    keeper: Keeper,
    repo_cpe: Option<RepoCpe>,
    /// Damaged headers, and trouble with the history or the mapping, that the log tells of already.
    told: (Vec<Skipped>, Option<String>),
}

impl Worker {
    /// Opens the state directory; gives the report kept there, ready for being served.
    pub(super) fn open(config: &Config) -> Result<(Self, Option<Published>), StoreError> {
        let guest_id = machine_id(&config.root);
        let (keeper, stored) = Keeper::open(&config.state_dir, guest_id.clone(), draw_epoch)?;
        let published = stored.map(|stored| {
            tracing::info!(key = %stored.row.key, "serving the report kept from before");
            let scan = Scan {
                at: stored.row.generated_at,
                facts: stored.row.scan_facts.clone(),
            };
            Published::new(&stored, guest_id.as_ref(), scan, update_path(config))
        });
        let inner = Inner {
            scanner: Scanner::new(),
            keeper,
            repo_cpe: config
                .repo_cpe
                .as_ref()
                .map(|source| RepoCpe::new(source, &config.state_dir)),
            told: Default::default(),
        };
        let worker = Self {
            guest_id,
            inner: Arc::new(Mutex::new(inner)),
        };
        Ok((worker, published))
    }

    pub(super) fn guest_id(&self) -> Option<&GuestId> {
        self.guest_id.as_ref()
    }

    /// What the keeper knows of itself. Waits for a running scan: ask between scans.
    pub(super) fn kept(&self) -> (Epoch, bool, Option<PathBuf>) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let keeper = &inner.keeper;
        let moved_aside = keeper.moved_aside().map(Path::to_owned);
        (keeper.epoch(), keeper.is_durable(), moved_aside)
    }

    /// Begins a new epoch, to be run on a thread of its own; see [`Keeper::renew`].
    pub(super) fn renew(
        &self,
    ) -> impl FnOnce() -> Result<Option<ReportRow>, StoreError> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        move || {
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.keeper.renew(draw_epoch())
        }
    }

    /// The process that runs an rpm transaction now, if one does. Cheap enough for the loop.
    pub(super) fn transaction_running(&self, config: &Config) -> Option<i32> {
        let located = scan::locate(&config.root, config.dbpath.as_deref()).ok()?;
        scan::transaction_running(&config.root, &located.directory)
            .ok()
            .flatten()
    }

    /// A scan, to be run on a thread of its own.
    pub(super) fn scan(
        &self,
        config: &Config,
        trigger: Trigger,
        mid_transaction: bool,
    ) -> impl FnOnce() -> Outcome + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let (root, dbpath) = (config.root.clone(), config.dbpath.clone());
        move || {
            let request = scan::Request {
                root: &root,
                dbpath: dbpath.as_deref(),
                patience: PATIENCE,
                on_lock: if mid_transaction {
                    OnLock::ScanAnyway
                } else {
                    OnLock::Wait
                },
            };
            inner
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .scan(&request, trigger)
        }
    }
}

impl Inner {
    fn scan(&mut self, request: &scan::Request<'_>, trigger: Trigger) -> Outcome {
        // A scheduled scan is a full one: it depends on nothing that an earlier one remembered.
        let mode = match trigger {
            Trigger::Reactive => Mode::Incremental,
            Trigger::Scheduled | Trigger::Unknown => Mode::Full,
        };
        let at = clock::wall_now();
        let scanned = match self.scanner.scan(request, mode) {
            Ok(scanned) => scanned,
            Err(ScanError::TransactionRunning { .. } | ScanError::KeepsChanging { .. }) => {
                return Outcome::Overtaken;
            }
            Err(error) => return Outcome::ScanFailed(error.to_string()),
        };
        for skipped in &scanned.skipped {
            if !self.told.0.contains(skipped) {
                tracing::warn!(?skipped, "a damaged package header was left out");
            }
        }
        self.told.0 = scanned.skipped;
        let mut report = scanned.report;
        let mut trouble = scanned.provenance.trouble().map(str::to_owned);
        let mut provenance = scanned.provenance.fact();
        if let Some(repo_cpe) = &mut self.repo_cpe {
            let report = Arc::make_mut(&mut report);
            match repo_cpe.apply(report, &scanned.history_repositories) {
                Ok(rejected) => tell_rejected(&rejected),
                Err(error) if trouble.is_none() => {
                    provenance = match error {
                        RepoCpeError::Missing { .. } => "mapping_missing",
                        _ => "mapping_unreadable",
                    };
                    trouble = Some(error.to_string());
                }
                Err(_) => {}
            }
        }
        self.tell_trouble(trouble);
        let facts = Facts::from([(facts::PROVENANCE.into(), provenance.into())]);
        let scan = Scan { at, facts };
        match self.keeper.record(&report, trigger, &scan, draw_epoch) {
            Ok(recorded) => Outcome::Found(recorded, scan),
            Err(error) => Outcome::StoreFailed(error.to_string()),
        }
    }
}

impl Inner {
    /// Says in the log when repositories or CPEs begin to be missing, and when they are there again.
    fn tell_trouble(&mut self, trouble: Option<String>) {
        match (&trouble, &self.told.1) {
            (now, before) if now == before => {}
            (Some(trouble), _) => {
                tracing::warn!(
                    trouble,
                    "repositories or their CPEs are missing from the report"
                );
            }
            (None, _) => tracing::info!("repositories and their CPEs are known again"),
        }
        self.told.1 = trouble;
    }
}

/// Who brings the mapping from repositories to CPEs.
pub(super) fn update_path(config: &Config) -> UpdatePath {
    match config.repo_cpe {
        None => UpdatePath::Unspecified,
        Some(_) => UpdatePath::Url,
    }
}

fn tell_rejected(rejected: &[Rejected]) {
    for Rejected { repository, error } in rejected {
        tracing::warn!(repository, %error, "a CPE of the mapping was left out");
    }
}

/// Who this machine is; `None` before its first boot has decided (machine-id(5)).
fn machine_id(root: &Path) -> Option<GuestId> {
    let text = fs::read_to_string(root.join("etc/machine-id")).ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| GuestId::of_machine(id))
}

/// From the system's own randomness: two machines that begin at the same moment must differ.
fn draw_epoch() -> Epoch {
    loop {
        let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
        if let Some(epoch) = Epoch::new(u32::from_be_bytes([a, b, c, d])) {
            return epoch;
        }
    }
}
