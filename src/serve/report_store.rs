//! The newest report, its key, and whether both are on disk.
//!
//! A report gets its key in the transaction that stores it, and is shown to nobody before that
//! transaction is on disk: what was once served under a key is never served with other content. A
//! state directory that cannot be used at all does not stop the agent: it then serves under an
//! epoch of its own from memory, and goes on trying.

use super::scanned::Scan;
use crate::report::{DIGEST_FORM, Epoch, Generation, GuestId, Report, ReportKey, Trigger};
use crate::store::report_table::{self, Identity, ReportRow, StoredReport};
use crate::store::{Limits, Store, StoreError, StoreOptions};
use std::path::{Path, PathBuf};

/// redb's page cache: one report is read once, at start.
const CACHE_BYTES: usize = 1 << 20;

const FILE: &str = "serve.redb";

/// Which machine this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The one with this id; `None` before its first boot has decided (machine-id(5)).
    Known(Option<GuestId>),
    /// Its id is there and cannot be read: it is taken for the machine that it was.
    Unreadable,
}

/// What a recorded report is.
#[derive(Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Another one than before, kept under a new key.
    New(Box<StoredReport>),
    /// The same content as before: nothing was written.
    Same,
}

/// Keeps the newest report.
pub struct ReportStore {
    state_dir: PathBuf,
    options: StoreOptions,
    store: Option<Store>,
    identity: Identity,
    newest: Option<ReportRow>,
    moved_aside: Option<PathBuf>,
}

impl ReportStore {
    /// Opens the state directory and gives the report kept there, if it is this machine's.
    ///
    /// Fails only where going on would be wrong: another agent has the file, or a newer one wrote
    /// it. `draw` gives random numbers for epochs.
    pub fn open(
        state_dir: &Path,
        damaged: Limits,
        machine: Machine,
        draw: impl FnOnce() -> Epoch,
    ) -> Result<(Self, Option<StoredReport>), StoreError> {
        let is_readable = machine != Machine::Unreadable;
        let options = StoreOptions {
            aside: damaged,
            ..StoreOptions::new(CACHE_BYTES)
        };
        let mut report_store = Self {
            state_dir: state_dir.to_owned(),
            options,
            store: None,
            identity: Identity {
                epoch: draw(),
                guest_id: match machine {
                    Machine::Known(guest_id) => guest_id,
                    Machine::Unreadable => None,
                },
            },
            newest: None,
            moved_aside: None,
        };
        let opened = match Store::open_with(state_dir, FILE, options) {
            Ok(opened) => opened,
            Err(error @ (StoreError::InUse { .. } | StoreError::Newer { .. })) => {
                return Err(error);
            }
            Err(error) => {
                tracing::error!(%error, "reports are kept in memory only until this is mended");
                return Ok((report_store, None));
            }
        };
        report_store.moved_aside = opened.moved_aside;
        match report_store.take_over(&opened.store, is_readable) {
            Ok(loaded) => {
                report_store.newest = loaded.as_ref().map(|stored| stored.row.clone());
                report_store.store = Some(opened.store);
                Ok((report_store, loaded))
            }
            Err(error) => {
                tracing::error!(%error, "reports are kept in memory only until this is mended");
                Ok((report_store, None))
            }
        }
    }

    /// Goes on in the epoch of the store if it is this machine's, or begins one there.
    fn take_over(
        &mut self,
        store: &Store,
        is_readable: bool,
    ) -> Result<Option<StoredReport>, StoreError> {
        match report_table::load(store) {
            Ok((Some(identity), stored))
                if !is_readable || identity.guest_id == self.identity.guest_id =>
            {
                self.identity = identity;
                return Ok(stored);
            }
            Ok((Some(_), _)) => {
                tracing::warn!(
                    "the machine-id is another one: this is a clone, a new epoch begins"
                );
            }
            Ok((None, _)) => {}
            Err(error) if error.is_row() => {
                tracing::error!(%error, "the stored report cannot be read, a new epoch begins");
            }
            Err(error) => self.moved_aside = Some(store.recover(error)?),
        }
        report_table::begin_epoch(store, &self.identity)?;
        Ok(None)
    }

    /// Which counter the keys count in.
    pub fn epoch(&self) -> Epoch {
        self.identity.epoch
    }

    /// Which machine this is, as far as is known.
    pub fn guest_id(&self) -> Option<&GuestId> {
        self.identity.guest_id.as_ref()
    }

    /// Whether reports outlive this process.
    pub fn is_durable(&self) -> bool {
        self.store.is_some()
    }

    /// Where reports are kept, if they are on disk.
    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Where a damaged file was moved to at start, if it was.
    pub fn moved_aside(&self) -> Option<&Path> {
        self.moved_aside.as_deref()
    }

    /// Keeps `report`, which must be normalized, if it is another one than before, or if the one before
    /// has a digest of another form: its generation must not stand for two digests.
    ///
    /// On an error nothing has changed: the key is free, the old report stands.
    pub fn record(
        &mut self,
        report: &Report,
        trigger: Trigger,
        scan: &Scan,
        draw: impl Fn() -> Epoch,
    ) -> Result<Recorded, StoreError> {
        let digest = report.digest();
        let is_same = |row: &ReportRow| row.digest == digest && row.digest_form == DIGEST_FORM;
        let same = self.newest.as_ref().is_some_and(is_same);
        if same && self.is_durable() {
            self.note(scan)?;
            return Ok(Recorded::Same);
        }
        let generation = match &self.newest {
            None => Generation::FIRST,
            Some(row) if is_same(row) => row.key.generation,
            Some(row) => match row.key.generation.next() {
                Some(next) => next,
                None => {
                    self.begin_epoch(draw())?;
                    Generation::FIRST
                }
            },
        };
        let stored = StoredReport {
            row: ReportRow {
                key: ReportKey {
                    epoch: Some(self.identity.epoch),
                    generation,
                },
                digest,
                digest_form: DIGEST_FORM,
                trigger,
                generated_at: scan.at,
                scan_facts: scan.facts.clone(),
                mapping: scan.mapping,
            },
            report: report.clone(),
        };
        let replaced = match &self.store {
            Some(store) => report_table::replace(store, &stored),
            None => self.try_to_store(&stored),
        };
        if let Err(error) = replaced {
            return Err(self.recover(error, draw()));
        }
        self.newest = Some(stored.row.clone());
        Ok(if same {
            Recorded::Same
        } else {
            Recorded::New(Box::new(stored))
        })
    }

    /// After a write that failed: where the store was damaged, the next report is the first of a new
    /// epoch in a new store, since nobody knows any more which keys were given out.
    /// Gives the error, or why that failed.
    pub(super) fn recover(&mut self, error: StoreError, epoch: Epoch) -> StoreError {
        let Some(store) = &self.store else {
            return error;
        };
        let text = error.to_string();
        let recovered = store.recover(error).and_then(|aside| {
            self.moved_aside = Some(aside);
            self.begin_epoch(epoch)
        });
        match recovered {
            Ok(()) => StoreError::Failed {
                path: self.state_dir.join(FILE),
                what: format!("a new epoch begins in a new file, after: {text}"),
            },
            Err(error) => error,
        }
    }

    /// Keeps the facts about a scan that found the newest report again, and its mapping, if they are others.
    fn note(&mut self, scan: &Scan) -> Result<(), StoreError> {
        let (Some(row), Some(store)) = (&self.newest, &self.store) else {
            return Ok(());
        };
        if row.scan_facts != scan.facts || row.mapping != scan.mapping {
            let row = ReportRow {
                scan_facts: scan.facts.clone(),
                mapping: scan.mapping,
                ..row.clone()
            };
            report_table::note(store, &row)?;
            self.newest = Some(row);
        }
        Ok(())
    }

    /// Begins a new epoch whose first report is the newest one: a peer knows a report of the old epoch
    /// that this agent never made, so this machine was put back to an earlier state, and the keys that
    /// it would give out next were given out before. Gives the report's new row, if there is one.
    ///
    /// On an error nothing has changed.
    pub fn renew(&mut self, epoch: Epoch) -> Result<Option<ReportRow>, StoreError> {
        let identity = Identity {
            epoch,
            ..self.identity.clone()
        };
        let renewed = self.newest.clone().map(|row| ReportRow {
            key: ReportKey {
                epoch: Some(epoch),
                generation: Generation::FIRST,
            },
            ..row
        });
        if let Some(store) = &self.store {
            match &renewed {
                Some(row) => report_table::rename(store, &identity, row)?,
                None => report_table::begin_epoch(store, &identity)?,
            }
        }
        self.identity = identity;
        self.newest = renewed.clone();
        Ok(renewed)
    }

    fn begin_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        let identity = Identity {
            epoch,
            ..self.identity.clone()
        };
        if let Some(store) = &self.store {
            report_table::begin_epoch(store, &identity)?;
        }
        self.identity = identity;
        self.newest = None;
        Ok(())
    }

    /// From memory back to disk: what stands there is of an older epoch and makes way. The epoch goes
    /// to disk together with the report: with the epoch alone, an agent that starts then would count
    /// from one again, through keys that were served already.
    fn try_to_store(&mut self, stored: &StoredReport) -> Result<(), StoreError> {
        let begun = Store::open_with(&self.state_dir, FILE, self.options).and_then(|opened| {
            report_table::begin_with(&opened.store, &self.identity, stored)?;
            Ok(opened.store)
        });
        match begun {
            Ok(store) => {
                tracing::info!("the state directory works again, reports are kept on disk");
                self.store = Some(store);
            }
            Err(error @ StoreError::InUse { .. }) => return Err(error),
            // Still in memory: said once at start, and shown by `status`.
            Err(error) => tracing::debug!(%error, "the state directory still cannot be used"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallTime;
    use crate::report::Package;

    #[test]
    fn equal_content_keeps_its_generation_and_other_content_gets_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, loaded) = open(&dir, "m");
        assert_eq!(loaded, None);
        assert_eq!(generation(record(&mut report_store, "a")), Some(1));
        assert_eq!(record(&mut report_store, "a"), Recorded::Same);
        assert_eq!(generation(record(&mut report_store, "b")), Some(2));
        assert_eq!(generation(record(&mut report_store, "a")), Some(3));
    }

    #[test]
    fn a_restart_goes_on_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        record(&mut report_store, "a");
        let epoch = report_store.epoch();
        drop(report_store);
        let (mut report_store, loaded) = open(&dir, "m");
        assert_eq!(report_store.epoch(), epoch);
        assert_eq!(loaded.unwrap().row.key.generation.get(), 1);
        assert_eq!(record(&mut report_store, "a"), Recorded::Same);
        assert_eq!(generation(record(&mut report_store, "b")), Some(2));
    }

    #[test]
    fn a_renewed_epoch_begins_with_the_same_report_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        record(&mut report_store, "a");
        record(&mut report_store, "b");
        let before = report_store.newest.clone().unwrap();
        let row = report_store.renew(epoch()).unwrap().unwrap();
        assert_ne!(row.key.epoch, before.key.epoch);
        assert_eq!((row.key.generation.get(), row.digest), (1, before.digest));
        assert_eq!(record(&mut report_store, "b"), Recorded::Same);
        drop(report_store);
        let (mut report_store, loaded) = open(&dir, "m");
        assert_eq!(loaded.unwrap().row, row);
        assert_eq!(generation(record(&mut report_store, "c")), Some(2));
    }

    /// The loss: a sensor that is told other facts whenever an agent starts.
    #[test]
    fn facts_about_the_newest_scan_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        record(&mut report_store, "a");
        let report = Report {
            packages: vec![Package {
                name: "a".into(),
                ..Package::default()
            }],
            ..Report::default()
        };
        let other = scan(&[("provenance", "ok")]);
        let recorded = report_store.record(&report, Trigger::Scheduled, &other, epoch);
        assert_eq!(recorded.unwrap(), Recorded::Same);
        drop(report_store);
        let (_, loaded) = open(&dir, "m");
        assert_eq!(loaded.unwrap().row.scan_facts, other.facts);
    }

    #[test]
    fn a_digest_of_another_form_takes_the_next_generation_with_the_same_content() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        record(&mut report_store, "a");
        report_store.newest.as_mut().unwrap().digest_form = 1;
        assert_eq!(generation(record(&mut report_store, "a")), Some(2));
        assert_eq!(record(&mut report_store, "a"), Recorded::Same);
    }

    #[test]
    fn a_clone_begins_an_epoch_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "original");
        record(&mut report_store, "a");
        let epoch = report_store.epoch();
        drop(report_store);
        let (mut clone, loaded) = open(&dir, "clone");
        assert_ne!(clone.epoch(), epoch);
        assert_eq!(loaded, None);
        assert_eq!(generation(record(&mut clone, "a")), Some(1));
    }

    // The loss: a report of a machine that nobody knows, and all of it sent again.
    #[test]
    fn a_machine_id_that_cannot_be_read_is_the_one_from_before() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        record(&mut report_store, "a");
        let (epoch_before, guest_id) = (report_store.epoch(), report_store.guest_id().cloned());
        drop(report_store);
        let opened = ReportStore::open(dir.path(), Limits::default(), Machine::Unreadable, epoch);
        let (report_store, loaded) = opened.unwrap();
        assert_eq!(report_store.epoch(), epoch_before);
        assert_eq!(report_store.guest_id(), guest_id.as_ref());
        assert!(loaded.is_some());
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_a_new_epoch_begins() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        record(&mut report_store, "a");
        let epoch = report_store.epoch();
        drop(report_store);
        std::fs::write(dir.path().join(FILE), b"garbage").unwrap();
        let (mut report_store, loaded) = open(&dir, "m");
        assert!(loaded.is_none() && report_store.moved_aside().is_some());
        assert_ne!(report_store.epoch(), epoch);
        assert_eq!(generation(record(&mut report_store, "a")), Some(1));
    }

    // The loss: an agent that reports nothing until somebody restarts it.
    #[test]
    fn a_file_that_is_damaged_while_it_is_used_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        // Longer than what redb keeps in memory.
        let long = |_| Package {
            name: std::iter::repeat_with(fastrand::alphanumeric)
                .take(100)
                .collect(),
            ..Package::default()
        };
        let mut report = Report {
            packages: (0..40_000).map(long).collect(),
            ..Report::default()
        };
        report.normalize();
        let record = |report_store: &mut ReportStore, report: &Report| {
            report_store.record(report, Trigger::Reactive, &scan(&[]), epoch)
        };
        record(&mut report_store, &report).unwrap();
        let before = report_store.epoch();
        let path = dir.path().join(FILE);
        let length = std::fs::metadata(&path).unwrap().len();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let garbage = vec![7; usize::try_from(length).unwrap() - 4096];
        std::os::unix::fs::FileExt::write_all_at(&file, &garbage, 4096).unwrap();
        report.packages.truncate(20_000);
        record(&mut report_store, &report).unwrap_err();
        let recorded = record(&mut report_store, &report).unwrap();
        assert_eq!(generation(recorded), Some(1));
        assert_ne!(report_store.epoch(), before);
        assert!(report_store.moved_aside().is_some());
    }

    #[test]
    fn without_a_state_directory_reports_are_kept_in_memory_until_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let blocked = dir.path().join("state");
        std::fs::write(&blocked, "a file where the directory should be").unwrap();
        let (mut report_store, _) =
            ReportStore::open(&blocked, Limits::default(), Machine::Known(None), epoch).unwrap();
        assert_eq!(generation(record(&mut report_store, "a")), Some(1));
        assert!(!report_store.is_durable());
        let in_memory = report_store.epoch();
        std::fs::remove_file(&blocked).unwrap();
        assert_eq!(record(&mut report_store, "a"), Recorded::Same);
        assert!(report_store.is_durable());
        drop(report_store);
        let (report_store, loaded) =
            ReportStore::open(&blocked, Limits::default(), Machine::Known(None), epoch).unwrap();
        assert_eq!(report_store.epoch(), in_memory);
        assert_eq!(loaded.unwrap().row.key.generation.get(), 1);
    }

    // The loss: a key that comes again with other content, or a wrong byte that is served.
    #[test]
    fn a_flipped_bit_anywhere_gives_the_newest_report_or_a_new_epoch() {
        let dir = tempfile::tempdir().unwrap();
        let (mut report_store, _) = open(&dir, "m");
        for package in ["a", "b", "c", "d"] {
            record(&mut report_store, package);
        }
        let written = report_store.newest.clone().unwrap();
        drop(report_store);
        let whole = std::fs::read(dir.path().join(FILE)).unwrap();
        let scratch = tempfile::tempdir().unwrap();
        // redb's header, all of the byte that says which of its two halves counts, then the rest.
        let which_half = (0..8).map(|bit| (9, bit));
        let header = (0..60).map(|_| (fastrand::usize(..320), fastrand::u8(..8)));
        let used: Vec<usize> = (320..whole.len()).filter(|at| whole[*at] != 0).collect();
        let rest = (0..60).map(|_| (used[fastrand::usize(..used.len())], fastrand::u8(..8)));
        let bits = which_half.chain(header).chain(rest);
        let (mut kept, mut anew) = (0, 0);
        for (at, bit) in bits {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            std::fs::write(scratch.path().join(FILE), damaged).unwrap();
            let Ok((report_store, loaded)) = open_at(scratch.path(), "m") else {
                panic!("bit {bit} of byte {at}: it does not start");
            };
            match loaded {
                Some(loaded) => {
                    assert_eq!(loaded.row, written, "bit {bit} of byte {at}");
                    kept += 1;
                }
                None => {
                    assert_ne!(
                        report_store.epoch(),
                        written.key.epoch.unwrap(),
                        "bit {bit} of byte {at}"
                    );
                    anew += 1;
                }
            }
            drop(report_store);
            for entry in std::fs::read_dir(scratch.path()).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }
        assert!(kept > 0 && anew > 0, "{kept} kept, {anew} begun anew");
    }

    fn open(dir: &tempfile::TempDir, machine: &str) -> (ReportStore, Option<StoredReport>) {
        open_at(dir.path(), machine).unwrap()
    }

    fn open_at(
        dir: &Path,
        machine: &str,
    ) -> Result<(ReportStore, Option<StoredReport>), StoreError> {
        let machine = Machine::Known(Some(GuestId::of_machine(machine)));
        ReportStore::open(dir, Limits::default(), machine, epoch)
    }

    fn epoch() -> Epoch {
        Epoch::new(fastrand::u32(1..)).unwrap()
    }

    fn record(report_store: &mut ReportStore, package: &str) -> Recorded {
        let report = Report {
            packages: vec![Package {
                name: package.into(),
                ..Package::default()
            }],
            ..Report::default()
        };
        report_store
            .record(&report, Trigger::Reactive, &scan(&[]), epoch)
            .unwrap()
    }

    fn scan(facts: &[(&str, &str)]) -> Scan {
        Scan {
            at: WallTime::from_unix_ms(1),
            facts: facts
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            mapping: None,
        }
    }

    fn generation(recorded: Recorded) -> Option<u32> {
        match recorded {
            Recorded::New(stored) => Some(stored.row.key.generation.get()),
            Recorded::Same => None,
        }
    }
}
