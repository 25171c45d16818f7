//! File system changes around the RPM database: notify's events to a [`Touch`].
//!
//! ```text
//! places   the directories in which a database may stand, and their parents: `rpmdb --rebuilddb`
//!          replaces the directory itself, and a watch on the old one is blind from then on
//! events   kept:     a write to the database or its -wal, the closing of .rpm.lock,
//!                    a directory or database that appears, moves or goes, an overflow
//!          dropped:  all that a query causes, ours included (-shm, Index.db, opening, attributes)
//! ```
//!
//! The events come on notify's own thread; what they mean together is one [`Touch`] that the
//! service takes when it gets to it, so that thirty thousand events are one wake-up. Where
//! inotify does not work, or does not see, [`Signature`]s compared now and then do.

mod events;
mod places;

pub(crate) use places::Places;
use places::{DATABASE_FILES, LOG, Wanted};

use nix::errno::Errno;
use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{ErrorKind, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tokio::sync::Notify;

/// What changed since the last time somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch(u8);

impl Touch {
    /// The database's content was written.
    pub const DATA: Self = Self(1);
    /// `.rpm.lock` was closed after writing: the last event of every transaction.
    pub const LOCK_CLOSED: Self = Self(2);
    /// A directory or database appeared, moved or went: watches must be set again.
    pub const PLACE: Self = Self(4);

    /// Whether this says at least what `other` says.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it says nothing.
    pub fn is_nothing(self) -> bool {
        self.0 == 0
    }
}

impl std::ops::BitOr for Touch {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[derive(Default)]
struct Pending {
    bits: AtomicU8,
    arrived: Notify,
}

/// Names that matter beside those that rpm gives to its files.
#[derive(Default)]
struct Names {
    /// Of directories and links on the way to a database: their coming and going matters.
    places: BTreeSet<OsString>,
    /// Of databases and logs to which links lead.
    files: BTreeSet<OsString>,
}

/// Watches the [`Places`] of a database.
pub(crate) struct Watch {
    places: Places,
    pending: Arc<Pending>,
    names: Arc<RwLock<Names>>,
    /// `None` as long as the kernel grants none.
    watcher: Option<RecommendedWatcher>,
    /// Directories under watch, each with the inode that was there.
    armed: BTreeMap<PathBuf, (u64, u64)>,
    trouble: Option<String>,
}

/// A path to be watched may lead elsewhere by the time it is: looked at again this often.
const ROUNDS: usize = 4;

impl Watch {
    /// Watches as much as can be watched; [`Watch::trouble`] says what could not.
    pub(crate) fn start(places: Places) -> Self {
        let mut watch = Self {
            places,
            pending: Arc::default(),
            names: Arc::default(),
            watcher: None,
            armed: BTreeMap::new(),
            trouble: None,
        };
        watch.arm();
        watch
    }

    fn watcher(&self) -> notify::Result<RecommendedWatcher> {
        let (sink, names) = (Arc::clone(&self.pending), Arc::clone(&self.names));
        notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let touch = match event {
                Ok(event) => {
                    let names = names.read().unwrap_or_else(PoisonError::into_inner);
                    meaning(&event, &names)
                }
                // Whatever went wrong, something may have been missed.
                Err(_) => Touch::DATA | Touch::PLACE,
            };
            if !touch.is_nothing() {
                sink.bits.fetch_or(touch.0, Ordering::AcqRel);
                sink.arrived.notify_one();
            }
        })
    }

    /// Waits until something is touched, and takes it. Safe to drop and call again.
    pub(crate) async fn touched(&self) -> Touch {
        loop {
            let touch = Touch(self.pending.bits.swap(0, Ordering::AcqRel));
            if !touch.is_nothing() {
                return touch;
            }
            self.pending.arrived.notified().await;
        }
    }

    /// Why changes may go unseen until the next comparison of signatures, if they may.
    pub(crate) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Sets the watches that are wanted now: after [`Touch::PLACE`], and now and then. Gives whether
    /// any was set where there was none, so that what happened before may have been missed.
    ///
    /// All are set anew. The kernel drops a watch without a word when a file system is unmounted,
    /// notify drops one by its path when another directory has it already, and setting one that is
    /// there changes nothing.
    pub(crate) fn arm(&mut self) -> bool {
        let mut set_any = false;
        for _ in 0..ROUNDS {
            let wanted = self.places.wanted();
            set_any |= self.arm_for(&wanted);
            if self.places.wanted() == wanted {
                break;
            }
        }
        set_any
    }

    fn arm_for(&mut self, wanted: &Wanted) -> bool {
        let names = Names {
            places: wanted.names.clone(),
            files: wanted.files.clone(),
        };
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = names;
        let wanted = &wanted.directories;
        self.trouble = None;
        if self.watcher.is_none() {
            match self.watcher() {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(error) => self.trouble = Some(explain(&error)),
            }
        }
        let Some(watcher) = &mut self.watcher else {
            return false;
        };
        self.armed.retain(|path, inode| {
            let keep = wanted.get(path) == Some(inode);
            if !keep {
                // It fails when the directory is gone, which is as good.
                let _ = watcher.unwatch(path);
            }
            keep
        });
        let mut set_any = false;
        for (path, inode) in wanted {
            match watcher.watch(path, RecursiveMode::NonRecursive) {
                Ok(()) => set_any |= self.armed.insert(path.clone(), *inode).is_none(),
                // Gone meanwhile: the next round sees what is there instead.
                Err(error) if matches!(error.kind, ErrorKind::PathNotFound) => {}
                Err(error) => {
                    self.armed.remove(path);
                    self.trouble = Some(explain(&error));
                }
            }
        }
        if self.trouble.is_none() {
            self.trouble = wanted.keys().find_map(|path| events::missing_for(path));
        }
        set_any
    }

    /// The state of all places as stat(2) shows it.
    pub(crate) fn signature(&self) -> Signature {
        self.places.signature()
    }
}

/// Identity, size and time of every database file there is: equal as long as nothing was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signature(Vec<Option<Stat>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stat {
    inode: (u64, u64),
    /// A directory's own time changes with side files that queries make.
    written: Option<(u64, i64, i64)>,
}

impl Stat {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            inode: (meta.dev(), meta.ino()),
            written: meta
                .is_file()
                .then(|| (meta.size(), meta.mtime(), meta.mtime_nsec())),
        })
    }
}

/// What one event means. Names are those of RPM's three database formats and of its lock.
fn meaning(event: &notify::Event, names: &Names) -> Touch {
    let nothing = Touch::default();
    if event.need_rescan() {
        return Touch::DATA | Touch::PLACE;
    }
    let Some(name) = event.paths.first().and_then(|path| path.file_name()) else {
        return nothing;
    };
    let closed_after_writing =
        event.kind == EventKind::Access(AccessKind::Close(AccessMode::Write));
    let modified = matches!(
        event.kind,
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any)
    );
    let placed = matches!(
        event.kind,
        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
    );
    let is_ours = DATABASE_FILES.iter().any(|file| name == *file) || names.files.contains(name);
    // A query opens the log to be written and closes it again.
    let is_log =
        name.as_bytes().ends_with(LOG.as_bytes()) && (is_ours || name == "rpmdb.sqlite-wal");
    match () {
        () if name == ".rpm.lock" && closed_after_writing => Touch::LOCK_CLOSED,
        () if is_log && modified => Touch::DATA,
        () if is_log => nothing,
        () if is_ours && (modified || closed_after_writing) => Touch::DATA,
        () if placed && (is_ours || names.places.contains(name)) => Touch::DATA | Touch::PLACE,
        () => nothing,
    }
}

fn explain(error: &notify::Error) -> String {
    match &error.kind {
        ErrorKind::MaxFilesWatch => {
            "the limit of inotify watches is reached; raise fs.inotify.max_user_watches".into()
        }
        // What inotify_init1(2) says, at once when the limit is reached.
        ErrorKind::Io(error) if error.raw_os_error() == Some(Errno::EMFILE as i32) => {
            "the limit of inotify instances is reached; raise fs.inotify.max_user_instances".into()
        }
        _ => format!("inotify: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn writes_are_seen_and_queries_are_not() {
        let (dir, watch) = watched();
        let db = dir.path().join("var/lib/rpm");
        fs::write(db.join("rpmdb.sqlite-shm"), "x").unwrap();
        fs::read(db.join("rpmdb.sqlite")).unwrap();
        fs::write(db.join("rpmdb.sqlite"), "y").unwrap();
        let touch = touched(&watch).await;
        assert!(touch.has(Touch::DATA) && !touch.has(Touch::LOCK_CLOSED));
        fs::write(db.join(".rpm.lock"), "").unwrap();
        wait_for(&watch, Touch::LOCK_CLOSED).await;
    }

    #[tokio::test]
    async fn a_replaced_directory_is_watched_again() {
        let (dir, mut watch) = watched();
        let lib = dir.path().join("var/lib");
        fs::create_dir(lib.join("rpmrebuilddb.1")).unwrap();
        fs::write(lib.join("rpmrebuilddb.1/rpmdb.sqlite"), "new").unwrap();
        fs::rename(lib.join("rpm"), lib.join("rpmold.1")).unwrap();
        fs::rename(lib.join("rpmrebuilddb.1"), lib.join("rpm")).unwrap();
        wait_for(&watch, Touch::PLACE).await;
        assert!(watch.arm());
        while tokio::time::timeout(Duration::from_millis(50), watch.touched())
            .await
            .is_ok()
        {}
        fs::write(lib.join("rpm/rpmdb.sqlite"), "newer").unwrap();
        wait_for(&watch, Touch::DATA).await;
    }

    #[tokio::test]
    async fn a_directory_that_appears_later_is_watched_then() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("usr/lib")).unwrap();
        let mut watch = Watch::start(Places::new(dir.path(), &["usr/lib/sysimage/rpm"]));
        fs::create_dir_all(dir.path().join("usr/lib/sysimage/rpm")).unwrap();
        wait_for(&watch, Touch::PLACE).await;
        watch.arm();
        fs::write(dir.path().join("usr/lib/sysimage/rpm/Packages.db"), "x").unwrap();
        wait_for(&watch, Touch::DATA).await;
    }

    #[test]
    fn a_signature_shows_writes_and_replacement_but_not_side_files() {
        let (dir, watch) = watched();
        let db = dir.path().join("var/lib/rpm");
        let before = watch.signature();
        fs::write(db.join("rpmdb.sqlite-shm"), "x").unwrap();
        assert_eq!(watch.signature(), before);
        fs::write(db.join("rpmdb.sqlite"), "longer").unwrap();
        let written = watch.signature();
        assert_ne!(written, before);
        fs::rename(&db, dir.path().join("var/lib/old")).unwrap();
        fs::create_dir(&db).unwrap();
        assert_ne!(watch.signature(), written);
    }

    fn watched() -> (tempfile::TempDir, Watch) {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("var/lib/rpm");
        fs::create_dir_all(&db).unwrap();
        fs::write(db.join("rpmdb.sqlite"), "x").unwrap();
        let watch = Watch::start(Places::new(
            dir.path(),
            &["usr/lib/sysimage/rpm", "var/lib/rpm"],
        ));
        assert_eq!(watch.trouble(), None);
        (dir, watch)
    }

    async fn touched(watch: &Watch) -> Touch {
        tokio::time::timeout(Duration::from_secs(10), watch.touched())
            .await
            .expect("an event")
    }

    async fn wait_for(watch: &Watch, wanted: Touch) {
        while !touched(watch).await.has(wanted) {}
    }
}
