//! The machine as the agent observes it: changes of its RPM database, and what is installed.
//!
//! The loop knows the file system only through these two traits, so that a simulation can drive it in
//! virtual time, on one thread.

use super::Config;
use crate::scan::{self, Mode, OnLock, ScanError, Scanned, Scanner};
use crate::watch::{Places, Signature, Touch, Watch};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// How long one scan tries to find a quiet moment before the decision is made anew.
const RETRY_FOR: Duration = Duration::from_millis(500);

/// A future that ends with the next change.
pub type NextTouch<'a> = Pin<Box<dyn Future<Output = Touch> + Send + 'a>>;

/// Tells of changes of the RPM database.
pub trait ChangeSource: Send {
    /// Waits for a change and takes it. Safe to drop and call again.
    fn touched(&mut self) -> NextTouch<'_>;

    /// Sets the watches that are wanted now; whether any was set where there was none, so that a change
    /// before may have been missed.
    fn arm(&mut self) -> bool;

    /// Why changes may go unseen until the next comparison, if they may.
    fn trouble(&self) -> Option<&str>;

    /// Notes the state of the files, to be compared with later.
    fn note_state(&mut self);

    /// Whether the state of the files is another one than was noted.
    fn differs(&self) -> bool;

    /// The process that runs an rpm transaction now, if one does. Cheap enough for the loop.
    fn transaction_running(&self) -> Option<i32>;
}

/// Reads what is installed. It may block: the loop calls it where work that blocks runs.
pub trait PackageSource: Send {
    /// Reads the database.
    ///
    /// # Errors
    /// See [`Scanner::scan`].
    fn scan(&mut self, mode: Mode, on_lock: OnLock) -> Result<Scanned, ScanError>;

    /// Forgets what earlier scans remembered: one of them panicked.
    fn reset(&mut self);

    /// Counts what scans have looked at: it stands still only when a scan hangs, or there is none.
    fn progress(&self) -> Arc<AtomicU64>;
}

/// The files below a root, watched by inotify.
pub(super) struct WatchedRoot {
    root: PathBuf,
    dbpath: Option<PathBuf>,
    watch: Watch,
    noted: Signature,
}

impl WatchedRoot {
    pub(super) fn new(config: &Config) -> Self {
        let places: Vec<_> = match &config.dbpath {
            Some(dbpath) => vec![dbpath.clone()],
            None => scan::PLACES.iter().map(Into::into).collect(),
        };
        let watch = Watch::start(Places::new(&config.root, &places));
        Self {
            root: config.root.clone(),
            dbpath: config.dbpath.clone(),
            noted: watch.signature(),
            watch,
        }
    }
}

impl ChangeSource for WatchedRoot {
    fn touched(&mut self) -> NextTouch<'_> {
        Box::pin(self.watch.touched())
    }

    fn arm(&mut self) -> bool {
        self.watch.arm()
    }

    fn trouble(&self) -> Option<&str> {
        self.watch.trouble()
    }

    fn note_state(&mut self) {
        self.noted = self.watch.signature();
    }

    fn differs(&self) -> bool {
        self.watch.signature() != self.noted
    }

    fn transaction_running(&self) -> Option<i32> {
        let located = scan::locate(&self.root, self.dbpath.as_deref()).ok()?;
        scan::transaction_running(&self.root, &located.directory)
            .ok()
            .flatten()
    }
}

/// The database below a root.
pub(super) struct ScannedRoot {
    root: PathBuf,
    dbpath: Option<PathBuf>,
    scanner: Scanner,
}

impl ScannedRoot {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            root: config.root.clone(),
            dbpath: config.dbpath.clone(),
            scanner: Scanner::new(),
        }
    }
}

impl PackageSource for ScannedRoot {
    fn scan(&mut self, mode: Mode, on_lock: OnLock) -> Result<Scanned, ScanError> {
        let request = scan::ScanRequest {
            root: &self.root,
            dbpath: self.dbpath.as_deref(),
            retry_for: RETRY_FOR,
            on_lock,
        };
        self.scanner.scan(&request, mode)
    }

    fn reset(&mut self) {
        self.scanner = Scanner::counting(self.scanner.progress());
    }

    fn progress(&self) -> Arc<AtomicU64> {
        self.scanner.progress()
    }
}
