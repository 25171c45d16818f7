//! What takes a thread of its own: scanning, and keeping what was found.

use super::Config;
use super::installed::{InstalledList, ReportChanges};
use super::machine::PackageSource;
use super::mapping::{MappingState, UpdatePath};
use super::pushed_mapping::{Pushed, PushedMapping};
use super::repo_cpe::{Content, Rejected, RepoCpe, RepoCpeError, Source};
use super::report_store::{DrawEpoch, Machine, Recorded, ReportStore};
use super::report_table::ReportRow;
use super::respond::Published;
use super::scanned::Scan;
use crate::clock::{WallClock, WallTime};
use crate::report::{Epoch, GuestId, MappingHash, Report, Trigger, facts};
use crate::root::{is_absent, read_text};
use crate::scan::{Mode, OnLock, ScanError, Skipped};
use crate::store::StoreError;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};

/// How a scan ended.
pub(super) enum Outcome {
    /// It was read, and is on disk if it is new; says what is different from the report before, if there
    /// was one.
    Found(Recorded, Scan, Option<ReportChanges>),
    /// A transaction began or went on meanwhile.
    Overtaken,
    /// The database was written to all the time.
    Changing(String),
    /// The database is new and holds no package yet.
    Empty(String),
    /// The database could not be read.
    ScanFailed(String),
    /// It could be read but not kept.
    StoreFailed(String),
}

/// What a worker is given.
pub(super) struct WorkerParts {
    /// What is installed.
    pub(super) packages: Box<dyn PackageSource>,
    /// Which machine this is, and why that is not known where it could be.
    pub(super) machine: (Machine, Option<String>),
    /// Time of day.
    pub(super) wall: WallClock,
    /// New epochs.
    pub(super) draw_epoch: DrawEpoch,
}

/// Scans and keeps, one at a time.
pub(super) struct Worker {
    guest_id: Option<GuestId>,
    /// Why the machine-id is not known, where it is there.
    machine_trouble: Option<String>,
    inner: Arc<Mutex<Inner>>,
}

/// What is known beside reports.
pub(super) struct Kept {
    /// Which counter the keys count in.
    pub(super) epoch: Epoch,
    /// Whether reports outlive the process.
    pub(super) durable: bool,
    /// A damaged database found at start.
    pub(super) moved_aside: Option<PathBuf>,
    /// What makes reports poorer than they could be.
    pub(super) troubles: Vec<String>,
}

struct Inner {
    packages: Box<dyn PackageSource>,
    wall: WallClock,
    draw_epoch: DrawEpoch,
    report_store: ReportStore,
    /// The packages of the newest report.
    installed: Option<InstalledList>,
    repo_cpe: RepoCpe,
    /// Where the mapping is, if it is a file.
    mapping_file: Option<PathBuf>,
    /// What the sensor pushed, if that is what counts.
    pushed: PushedMapping,
    told: Told,
    started_at: WallTime,
}

/// What the log tells of already.
#[derive(Default)]
struct Told {
    /// Damaged headers that were left out.
    skipped: Vec<Skipped>,
    /// What makes reports poorer: the distribution, histories or the mapping.
    troubles: Vec<String>,
    /// Why there is no history, where that cannot be helped.
    no_history: Option<&'static str>,
}

impl Worker {
    /// Opens the state directory; gives the report kept there, ready for being served.
    pub(super) fn open(
        config: &Config,
        parts: WorkerParts,
    ) -> Result<(Self, Option<Published>), StoreError> {
        let WorkerParts {
            packages,
            machine: (machine, machine_trouble),
            wall,
            draw_epoch,
        } = parts;
        let started_at = wall.now();
        if let Some(trouble) = &machine_trouble {
            tracing::warn!(
                trouble,
                "the machine-id is taken for the one from before, if there was one"
            );
        }
        let (report_store, stored) =
            ReportStore::open(&config.state_dir, config.damaged, machine, draw_epoch)?;
        let guest_id = report_store.guest_id().cloned();
        let installed = stored.as_ref();
        let installed = installed.map(|stored| InstalledList::of(&stored.report));
        let published = stored.map(|stored| {
            tracing::info!(key = %stored.row.key, "serving the report kept from before");
            let scan = Scan {
                at: stored.row.generated_at,
                facts: stored.row.scan_facts.clone(),
                mapping: stored.row.mapping,
            };
            let mapping = MappingState {
                path: update_path(config),
                hash: stored.row.mapping,
            };
            Published::new(&stored, guest_id.as_ref(), scan, mapping)
        });
        let pushed = match config.repo_cpe {
            Source::Sensor => PushedMapping::load(report_store.store()),
            Source::File(_) | Source::Url(_) => PushedMapping::default(),
        };
        let inner = Inner {
            packages,
            wall,
            draw_epoch,
            report_store,
            installed,
            repo_cpe: RepoCpe::default(),
            mapping_file: config.repo_cpe.file(&config.state_dir),
            pushed,
            told: Told::default(),
            started_at,
        };
        let worker = Self {
            guest_id,
            machine_trouble,
            inner: Arc::new(Mutex::new(inner)),
        };
        Ok((worker, published))
    }

    pub(super) fn guest_id(&self) -> Option<&GuestId> {
        self.guest_id.as_ref()
    }

    /// What is known beside reports. Waits for a running scan or push: ask between them.
    pub(super) fn kept(&self) -> Kept {
        let inner = locked(&self.inner);
        let report_store = &inner.report_store;
        let machine_trouble = self.machine_trouble.iter();
        Kept {
            epoch: report_store.epoch(),
            durable: report_store.is_durable(),
            moved_aside: report_store.moved_aside().map(Path::to_owned),
            troubles: machine_trouble
                .chain(&inner.told.troubles)
                .cloned()
                .collect(),
        }
    }

    /// The mapping that a sensor pushed, if one did. Waits for a running scan or push: ask between them.
    pub(super) fn pushed_mapping(&self) -> Option<MappingHash> {
        locked(&self.inner).pushed.hash()
    }

    /// Keeps a mapping that a sensor pushed, to be run on a thread of its own.
    pub(super) fn keep_mapping(&self, json: Vec<u8>) -> impl FnOnce() -> Pushed + Send + use<> {
        let inner = Arc::clone(&self.inner);
        move || locked(&inner).keep_mapping(json)
    }

    /// Counts what scans have looked at: it stands still only when a scan hangs, or there is none.
    pub(super) fn progress(&self) -> Arc<AtomicU64> {
        locked(&self.inner).packages.progress()
    }

    /// Begins a new epoch, to be run on a thread of its own; see [`ReportStore::renew`].
    pub(super) fn renew(
        &self,
    ) -> impl FnOnce() -> Result<Option<ReportRow>, StoreError> + Send + use<> {
        let inner = Arc::clone(&self.inner);
        move || {
            let mut inner = locked(&inner);
            let epoch = (inner.draw_epoch)();
            inner.report_store.renew(epoch)
        }
    }

    /// A scan, to be run on a thread of its own.
    pub(super) fn scan(
        &self,
        trigger: Trigger,
        mid_transaction: bool,
    ) -> impl FnOnce() -> Outcome + Send + use<> {
        let inner = Arc::clone(&self.inner);
        let on_lock = match mid_transaction {
            true => OnLock::ScanAnyway,
            false => OnLock::Wait,
        };
        move || locked(&inner).scan(on_lock, trigger)
    }
}

impl Inner {
    fn scan(&mut self, on_lock: OnLock, trigger: Trigger) -> Outcome {
        // A scheduled scan is a full one: it depends on nothing that an earlier one remembered.
        let mode = match trigger {
            Trigger::Reactive => Mode::Incremental,
            Trigger::Scheduled | Trigger::Unknown => Mode::Full,
        };
        let at = self.wall.now();
        let scanned = match self.packages.scan(mode, on_lock) {
            Ok(scanned) => scanned,
            Err(ScanError::TransactionRunning { .. }) => return Outcome::Overtaken,
            Err(error @ ScanError::KeepsChanging { .. }) => {
                return Outcome::Changing(error.to_string());
            }
            Err(error) => return Outcome::ScanFailed(error.to_string()),
        };
        if scanned.report.packages.is_empty() {
            let path = scanned.main_file.display();
            let why = "the rpm database is new and holds no package yet";
            return Outcome::Empty(format!("{path}: {why}"));
        }
        for skipped in &scanned.skipped {
            if !self.told.skipped.contains(skipped) {
                tracing::warn!(?skipped, "a damaged package header was left out");
            }
        }
        self.told.skipped = scanned.skipped;
        self.tell_no_history(scanned.no_history);
        let mut report = scanned.report;
        let mut troubles = Vec::from_iter(scanned.distribution_trouble);
        troubles.extend(scanned.provenance.trouble().map(str::to_owned));
        let mut provenance = scanned.provenance.fact();
        let mut mapping = None;
        if let Some(mapped) = self.map_repositories(&mut report, &scanned.history_repositories) {
            match mapped {
                Ok(hash) => mapping = Some(hash),
                Err(error) => {
                    // The fact has room for one: without a history there is nothing to map.
                    if scanned.provenance.trouble().is_none() {
                        provenance = match error {
                            RepoCpeError::Missing { .. } => "mapping_missing",
                            _ => "mapping_unreadable",
                        };
                    }
                    troubles.push(error.to_string());
                }
            }
        }
        self.tell_troubles(troubles);
        let mut facts = scanned.beside.facts;
        facts.insert(facts::PROVENANCE.into(), provenance.into());
        // Of another root than the machine's own, nobody knows what runs.
        if facts.contains_key(facts::BOOTED_AT) {
            let started_at = self.started_at.to_string();
            facts.insert(facts::AGENT_STARTED_AT.into(), started_at);
        }
        let scan = Scan { at, facts, mapping };
        let recorded = self
            .report_store
            .record(&report, trigger, &scan, self.draw_epoch);
        self.pushed.follow(self.report_store.store());
        match recorded {
            Ok(recorded) => {
                let changes = match &recorded {
                    Recorded::New(stored) => self.note_installed(&stored.report),
                    Recorded::Same => None,
                };
                Outcome::Found(recorded, scan, changes)
            }
            Err(error) => Outcome::StoreFailed(error.to_string()),
        }
    }

    /// Remembers the packages of a new report; gives what is different from the one before.
    fn note_installed(&mut self, report: &Report) -> Option<ReportChanges> {
        let installed = InstalledList::of(report);
        let before = self.installed.replace(installed)?;
        let after = self.installed.as_ref()?;
        Some(before.changes_to(after))
    }

    /// Adds CPEs to the report; gives the mapping that they are from. `None`: there is none, and nobody said
    /// that there should be one.
    fn map_repositories(
        &mut self,
        report: &mut Arc<Report>,
        history: &[String],
    ) -> Option<Result<MappingHash, RepoCpeError>> {
        let Self {
            repo_cpe,
            mapping_file,
            pushed,
            report_store,
            ..
        } = self;
        let read = || pushed.read(report_store.store());
        let content = match (mapping_file, pushed.hash()) {
            (Some(path), _) => Content::File(path),
            (None, Some(hash)) => Content::Pushed(hash, &read),
            (None, None) => return None,
        };
        let applied = repo_cpe.apply(Arc::make_mut(report), history, content);
        Some(applied.map(|(hash, rejected)| {
            tell_rejected(&rejected);
            hash
        }))
    }

    fn keep_mapping(&mut self, json: Vec<u8>) -> Pushed {
        let (row, json) = match self.pushed.check(json, self.wall.now()) {
            Ok(checked) => checked,
            Err(answer) => return answer,
        };
        match self.pushed.keep(self.report_store.store(), row, json) {
            Ok(()) => Pushed::Updated(row.hash),
            Err(error) => {
                let error = self.report_store.recover(error, (self.draw_epoch)());
                self.pushed.follow(self.report_store.store());
                Pushed::Failed(error.to_string())
            }
        }
    }
}

impl Inner {
    /// Says in the log when something begins to be missing from reports, and when it is there again.
    fn tell_troubles(&mut self, troubles: Vec<String>) {
        for trouble in &troubles {
            if !self.told.troubles.contains(trouble) {
                tracing::warn!(
                    trouble,
                    "the report lacks its distribution, repositories or CPEs"
                );
            }
        }
        if troubles.is_empty() && !self.told.troubles.is_empty() {
            tracing::info!("distribution, repositories and CPEs are known again");
        }
        self.told.troubles = troubles;
    }

    fn tell_no_history(&mut self, why: Option<&'static str>) {
        if let Some(why) = why.filter(|_| self.told.no_history != why) {
            tracing::info!(why, "packages are reported without repositories");
        }
        self.told.no_history = why;
    }
}

/// What a scan that panicked left in the scanner is not trusted; the report_store writes in transactions.
fn locked(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(|poisoned| {
        let mut guard = poisoned.into_inner();
        guard.packages.reset();
        inner.clear_poison();
        guard
    })
}

/// Who brings the mapping from repositories to CPEs.
pub(super) fn update_path(config: &Config) -> UpdatePath {
    match config.repo_cpe {
        Source::Sensor => UpdatePath::Sensor,
        Source::File(_) | Source::Url(_) => UpdatePath::Url,
    }
}

fn tell_rejected(rejected: &[Rejected]) {
    for Rejected { repository, error } in rejected {
        tracing::warn!(repository, %error, "a CPE of the mapping was left out");
    }
}

/// Which machine this is, and why that is not known.
pub(super) fn machine(root: &Path) -> (Machine, Option<String>) {
    const FILE: &str = "etc/machine-id";
    let text = match read_text(root, FILE) {
        Ok(text) => text,
        Err(error) if is_absent(&error) => return (Machine::Known(None), None),
        Err(error) => {
            let why = format!("{}: cannot be read: {error}", root.join(FILE).display());
            return (Machine::Unreadable, Some(why));
        }
    };
    let id = text.trim();
    let is_id = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (Machine::Known(is_id.then(|| GuestId::of_machine(id))), None)
}

/// From the system's own randomness: two machines that begin at the same moment must differ.
pub(super) fn draw_epoch() -> Epoch {
    loop {
        let [a, b, c, d, ..] = uuid::Uuid::new_v4().into_bytes();
        if let Some(epoch) = Epoch::new(u32::from_be_bytes([a, b, c, d])) {
            return epoch;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
