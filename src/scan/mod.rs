//! What is installed below a root, read without leaving a trace there.
//!
//! ```text
//! locate      usr/lib/sysimage/rpm, var/lib/rpm, usr/share/rpm -> the database in use   database.rs
//! take        files opened read-only -> one consistent view, or again                    snapshot.rs
//! Cache       headers known from the last scan are not read again                        cache.rs
//! Provenance  histories of dnf -> origin of each package                     provenance.rs, history.rs
//! facts       os-release, entitlement, metadata                              os_release.rs, facts.rs
//!   -> Report, sorted, with its content facts
//! ```
//!
//! Blocking: a scan reads files and may sleep up to [`ScanRequest::retry_for`]. Nothing here opens a file
//! for writing, creates one or takes a lock.

mod cache;
mod database;
mod error;
mod facts;
mod file;
mod history;
mod host;
mod live;
mod lock;
mod os_release;
mod provenance;
mod running;
mod snapshot;

pub use cache::Skipped;
pub use database::{Located, PLACES, locate};
pub use error::ScanError;
pub use host::{guest_id, host_name};
pub use lock::{LOCK_FILE, Lock, probe as probe_lock};
pub use provenance::HistoryState;

use crate::report::{Distribution, Facts, PackageDetails, Report, facts as names, main_arch};
use cache::Cache;
use provenance::Provenance;
use running::DetailsOf;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What to scan, and how long to try.
#[derive(Debug, Clone, Copy)]
pub struct ScanRequest<'a> {
    /// Root of the system to scan.
    pub root: &'a Path,
    /// Directory of the database below `root`, instead of the standard places.
    pub dbpath: Option<&'a Path>,
    /// How long to wait for a moment in which nothing is written.
    pub retry_for: Duration,
    /// What to do while an rpm transaction runs.
    pub on_lock: OnLock,
}

/// What to do while an rpm transaction runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLock {
    /// Wait for its end, up to [`ScanRequest::retry_for`]: a transaction half done is never reported.
    Wait,
    /// Take what is committed so far, and mark the report with the fact `mid_transaction`.
    ScanAnyway,
}

/// How much to trust what is known from the scan before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every header is read, and nothing looked at that only another scan would need.
    Once,
    /// As [`Mode::Once`], with what only a bill of materials shows: [`BesideReport::details`].
    Detailed,
    /// Every header is read.
    Full,
    /// Headers known by number and a cheap check are not read again. A database that was rebuilt
    /// or replaced is noticed and read in full, as is one that was written to without a change
    /// that these would show.
    Incremental,
}

/// The result of a scan.
#[derive(Debug, Clone)]
pub struct Scanned {
    /// Sorted, with its content facts. Shared with the scanner: it is changed in place at the next
    /// scan when nobody else holds it any more.
    pub report: Arc<Report>,
    /// Whether the report differs from the one before; true for the first.
    pub changed: bool,
    /// The main file of the database.
    pub main_file: PathBuf,
    /// Damaged headers that had to be left out; the fact `skipped_headers` counts them.
    pub skipped: Vec<Skipped>,
    /// Every repository that a history says packages were taken from, also packages that are gone;
    /// sorted, each once, without local origins.
    pub history_repositories: Vec<String>,
    /// What became of the histories that origins are read from; a fact about the scan.
    pub provenance: HistoryState,
    /// Why there is no history that would name repositories, where the system keeps none by its kind.
    pub no_history: Option<&'static str>,
    /// What is known beside the report.
    pub beside: BesideReport,
    /// Why the distribution is not known, or a file that names it could not be used.
    pub distribution_trouble: Option<String>,
    /// How it went.
    pub stats: Stats,
}

/// What a scan finds that is no content of the report.
#[derive(Debug, Clone, Default)]
pub struct BesideReport {
    /// Facts about what is installed and, of this machine's own root, about what runs.
    pub facts: Facts,
    /// For each package of the report what only a bill of materials shows; empty unless the mode was
    /// [`Mode::Detailed`].
    pub details: Vec<PackageDetails>,
    /// `ID_LIKE` of os-release.
    pub id_like: Vec<String>,
}

/// How a scan went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Headers in the database, keys and damaged ones included.
    pub headers: usize,
    /// Headers that were read, the rest being known.
    pub parsed: usize,
    /// Public keys among the headers (`gpg-pubkey`), which are no packages.
    pub keys: usize,
    /// Attempts until nothing was written meanwhile.
    pub attempts: u32,
    /// State of rpm's lock; [`Lock::Unknown`] was taken for free.
    pub lock: Lock,
}

/// Scans, and remembers headers from one scan to the next.
#[derive(Debug, Default)]
pub struct Scanner {
    cache: Cache,
    provenance: Provenance,
    last: Arc<Report>,
    scanned: bool,
    progress: Arc<AtomicU64>,
}

impl Scanner {
    /// One that knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that knows nothing yet and goes on counting where another one was.
    pub fn counting(progress: Arc<AtomicU64>) -> Self {
        Self {
            progress,
            ..Self::default()
        }
    }

    /// Counts headers and attempts: it stands still while a scan hangs.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.progress)
    }

    /// Reads what is installed.
    ///
    /// The report of a truly new database, which never held a package, is empty. After an error
    /// the scanner is as usable as before.
    ///
    /// # Errors
    /// See [`ScanError`]; zero packages in a database that is not new are one.
    pub fn scan(&mut self, request: &ScanRequest<'_>, mode: Mode) -> Result<Scanned, ScanError> {
        let live = live::system(request.root);
        let wanted = match (mode, live) {
            (Mode::Detailed, _) => DetailsOf::Everything,
            (_, Some(_)) => DetailsOf::Reboot,
            (_, None) => DetailsOf::Nothing,
        };
        let (cache, progress) = (&self.cache, &*self.progress);
        let (mut delta, located, taken) = snapshot::take(
            request,
            || {
                progress.fetch_add(1, Ordering::Relaxed);
                locate(request.root, request.dbpath)
            },
            |located, stamps, database| {
                cache.compare(located, stamps, database, (mode, wanted), progress)
            },
        )?;
        delta.check(&located, || {
            database::another(request.root, request.dbpath, &located)
        })?;
        self.provenance.refresh(request.root, request.retry_for);
        if mode != Mode::Once
            && let Some(path) = self.provenance.being_written()
        {
            return Err(ScanError::KeepsChanging {
                path: path.to_owned(),
                attempts: taken.attempts,
                waited: request.retry_for,
            });
        }
        let os_release::Found {
            distribution,
            id_like,
            trouble: distribution_trouble,
        } = os_release::read(request.root);
        let mut facts = facts::read(request.root, &distribution);
        facts.insert(names::RPMDB_BACKEND.into(), located.backend.to_string());
        if matches!(taken.lock, Lock::Held { .. }) {
            facts.insert(names::MID_TRANSACTION.into(), "true".into());
        }
        if !delta.skipped.is_empty() {
            let count = delta.skipped.len().to_string();
            facts.insert(names::SKIPPED_HEADERS.into(), count);
        }
        let stats = Stats {
            headers: delta.headers,
            parsed: delta.parsed,
            keys: delta.keys(),
            attempts: taken.attempts,
            lock: taken.lock,
        };
        let skipped = delta.skipped.clone();
        let details = self.cache.take_details(&mut delta);
        let package_db = located.package_db();
        let packages_changed = self.cache.changes(&delta, &self.last.packages);
        if packages_changed {
            let report = Arc::make_mut(&mut self.last);
            self.cache.apply(delta, &mut report.packages);
        } else {
            self.cache.refresh(delta);
        }
        let origins_changed = self.assign_origins();
        let changed = !self.scanned
            || packages_changed
            || origins_changed
            || self.last.facts != facts
            || self.last.package_db != package_db
            || !same_but_arch(&self.last.distribution, &distribution);
        if changed {
            let report = Arc::make_mut(&mut self.last);
            report.repositories = provenance::repositories(&report.packages);
            report.distribution = distribution;
            let archs = report.packages.iter();
            let archs = archs.map(|package| package.arch.as_deref().unwrap_or_default());
            report.distribution.arch = main_arch(archs).to_owned();
            report.facts = facts;
            report.package_db = package_db;
            self.scanned = true;
        }
        let packages = &self.last.packages;
        let installed = self.cache.install_times(packages);
        let facts = running::facts(packages, installed, live);
        Ok(Scanned {
            report: Arc::clone(&self.last),
            changed,
            main_file: located.main_file,
            skipped,
            beside: BesideReport {
                facts,
                details: match mode {
                    Mode::Detailed => self.cache.in_order(&details),
                    Mode::Once | Mode::Full | Mode::Incremental => Vec::new(),
                },
                id_like,
            },
            history_repositories: self.provenance.history_repositories(),
            provenance: self.provenance.state().clone(),
            no_history: self.provenance.why_absent(request.root),
            distribution_trouble,
            stats,
        })
    }
}

impl Scanner {
    /// Gives every package the origin that the histories tell; whether that changed anything.
    fn assign_origins(&mut self) -> bool {
        let provenance = &self.provenance;
        if self
            .last
            .packages
            .iter()
            .all(|p| provenance.is_origin_of(p))
        {
            return false;
        }
        // The order of packages stays: an origin decides only between packages of the same name,
        // version and architecture, and those have the same.
        let report = Arc::make_mut(&mut self.last);
        for package in &mut report.packages {
            package.origin = provenance.origin_of(package);
        }
        true
    }
}

/// The architecture is taken from the packages, not from os-release.
fn same_but_arch(last: &Distribution, new: &Distribution) -> bool {
    *last
        == Distribution {
            arch: last.arch.clone(),
            ..new.clone()
        }
}

/// The process that runs an rpm transaction in this database directory below `root`, if one does; 0 for one of
/// another PID namespace. A lock that may not be asked for counts as free; [`probe_lock`] tells the
/// difference.
///
/// # Errors
/// The lock file can be opened but not asked.
pub fn transaction_running(root: &Path, directory: &Path) -> io::Result<Option<i32>> {
    Ok(match lock::probe(root, directory)? {
        Lock::Held { pid } => Some(pid.unwrap_or(0)),
        Lock::Free | Lock::Unknown => None,
    })
}
