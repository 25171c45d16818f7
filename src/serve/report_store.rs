//! The newest report, its key, and whether both are on disk.
//!
//! A report gets its key in the transaction that stores it, and is shown to nobody before that
//! transaction is on disk: what was once served under a key is never served with other content. A
//! state directory that cannot be used at all does not stop the agent: it then serves under an
//! epoch of its own from memory, and goes on trying.

use super::report_table::{self, Identity, ReportRow, StoredReport};
use super::scanned::Scan;
use crate::report::{DIGEST_FORM, Epoch, Generation, GuestId, Report, ReportKey, Trigger};
use crate::store::{Limits, Store, StoreError, StoreOptions};
use std::path::{Path, PathBuf};

/// redb's page cache: one report is read once, at start.
const CACHE_BYTES: usize = 1 << 20;

const FILE: &str = "serve.redb";

/// Gives a random epoch: two machines that begin at the same moment must differ.
pub type DrawEpoch = fn() -> Epoch;

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
        let mut report_store = Self::unopened(state_dir, options, machine, draw);
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

    /// The same on a store that is open already, for simulations: it is no file.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn on_store(
        store: Store,
        machine: Machine,
        draw: impl FnOnce() -> Epoch,
    ) -> Result<(Self, Option<StoredReport>), StoreError> {
        let is_readable = machine != Machine::Unreadable;
        let options = StoreOptions::new(CACHE_BYTES);
        let mut report_store = Self::unopened(Path::new(""), options, machine, draw);
        let loaded = report_store.take_over(&store, is_readable)?;
        report_store.newest = loaded.as_ref().map(|stored| stored.row.clone());
        report_store.store = Some(store);
        Ok((report_store, loaded))
    }

    /// Without a store yet, in a new epoch.
    fn unopened(
        state_dir: &Path,
        options: StoreOptions,
        machine: Machine,
        draw: impl FnOnce() -> Epoch,
    ) -> Self {
        let guest_id = match machine {
            Machine::Known(guest_id) => guest_id,
            Machine::Unreadable => None,
        };
        Self {
            state_dir: state_dir.to_owned(),
            options,
            store: None,
            identity: Identity {
                epoch: draw(),
                guest_id,
            },
            newest: None,
            moved_aside: None,
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
mod tests;
