//! Which directories are watched: those in which the database may stand, and what they stand in.

use super::{Signature, Stat};
use crate::root::{self, Trace};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files that hold a database, one a format. Their identity, size and time make a signature.
pub(super) const DATABASE_FILES: [&str; 3] = ["rpmdb.sqlite", "Packages.db", "Packages"];

/// What sqlite appends to the name of a database for the log beside it.
pub(super) const LOG: &str = "-wal";

/// The directories in which a database may stand, below a root.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    root: PathBuf,
    candidates: Vec<PathBuf>,
}

/// What is to be watched now.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// By real path, with the inode that is there.
    pub(super) directories: BTreeMap<PathBuf, (u64, u64)>,
    /// Names of directories and links on the way to a database: their coming and going matters.
    pub(super) names: BTreeSet<OsString>,
    /// Names of files that hold a database or its log, where a link gives them a name of their own.
    pub(super) files: BTreeSet<OsString>,
}

impl Places {
    /// `candidates` are taken below `root`, absolute ones as well.
    pub(crate) fn new(root: &Path, candidates: &[impl AsRef<Path>]) -> Self {
        Self {
            root: root.to_owned(),
            candidates: candidates.iter().map(|c| c.as_ref().to_owned()).collect(),
        }
    }

    /// What is to be watched now. A scan resolves the same paths in the same way.
    pub(super) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for candidate in &self.candidates {
            let place = root::trace(&self.root, candidate);
            wanted.add_way(&place);
            let Ok(directory) = &place.end else { continue };
            wanted.add(directory);
            for name in DATABASE_FILES {
                let file = root::trace(&self.root, &candidate.join(name));
                if file.links_in.len() == place.links_in.len() {
                    continue;
                }
                // The file itself is a link, also one that leads nowhere yet.
                wanted.add_way(&file);
                if let Some((_, name)) = file.steps.last() {
                    wanted.files.extend([name.clone(), with_log(name)]);
                }
            }
        }
        wanted
    }

    pub(super) fn signature(&self) -> Signature {
        let mut stats = Vec::new();
        let mut push = |path: Option<&Path>| stats.push(path.and_then(Stat::of));
        for candidate in &self.candidates {
            let resolve = |path: &Path| root::resolve(&self.root, path).ok();
            push(resolve(candidate).as_deref());
            for name in DATABASE_FILES {
                let file = resolve(&candidate.join(name));
                push(file.as_deref());
                // The log stands beside the file, not beside a link to it.
                let log = file.map(|file| PathBuf::from(with_log(file.as_os_str())));
                push(log.as_deref());
            }
        }
        Signature(stats)
    }
}

impl Wanted {
    /// The directories in which the last step of a way and the links on it stand.
    fn add_way(&mut self, way: &Trace) {
        for directory in &way.links_in {
            self.add(directory);
        }
        // The last directory on the way is a file where something else took its place.
        let steps = way.steps.iter().rev();
        let mut directories = steps.map(|(directory, _)| directory);
        let _ = directories.find(|directory| self.add(directory));
        self.names
            .extend(way.steps.iter().map(|(_, name)| name.clone()));
        self.names.extend(way.left.iter().cloned());
    }

    /// Takes a directory in; whether it is one.
    fn add(&mut self, directory: &Path) -> bool {
        match fs::metadata(directory) {
            Ok(meta) if meta.is_dir() => {
                let inode = (meta.dev(), meta.ino());
                self.directories.insert(directory.to_owned(), inode);
                true
            }
            _ => false,
        }
    }
}

fn with_log(name: &OsStr) -> OsString {
    let mut log = name.to_owned();
    log.push(LOG);
    log
}
