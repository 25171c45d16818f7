//! Which directories are watched: those in which the database may stand, and what they stand in.

use super::{Signature, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Files whose identity, size and time make a signature.
const DATABASE_FILES: [&str; 4] = [
    "rpmdb.sqlite",
    "rpmdb.sqlite-wal",
    "Packages.db",
    "Packages",
];

/// The directories in which a database may stand, below a root.
#[derive(Clone, Debug)]
pub struct Places {
    root: PathBuf,
    candidates: Vec<PathBuf>,
}

impl Places {
    /// `candidates` are relative to `root`.
    pub fn new(root: &Path, candidates: &[impl AsRef<Path>]) -> Self {
        Self {
            root: root.to_owned(),
            candidates: candidates.iter().map(|c| root.join(c.as_ref())).collect(),
        }
    }

    /// Names of the directories on the way to a database.
    pub(super) fn components(&self) -> BTreeSet<OsString> {
        let below_root = self
            .candidates
            .iter()
            .filter_map(|c| c.strip_prefix(&self.root).ok());
        below_root
            .flat_map(|path| path.iter().map(OsString::from))
            .collect()
    }

    /// What is to be watched now, by real path, with the inode that is there.
    pub(super) fn directories(&self) -> BTreeMap<PathBuf, (u64, u64)> {
        let mut directories = BTreeMap::new();
        for candidate in &self.candidates {
            // The place itself and, should it be a symlink, what its target stands in.
            let real = candidate.canonicalize().ok();
            let stands_in = candidate
                .ancestors()
                .skip(1)
                .take_while(|a| a.starts_with(&self.root))
                .find_map(|a| a.canonicalize().ok());
            let target_stands_in = real.as_deref().and_then(Path::parent).map(Path::to_owned);
            // Also of a link that leads nowhere, as while its target is being replaced.
            let targets = link_targets(candidate);
            let targets_stand_in = targets
                .iter()
                .filter_map(|t| t.ancestors().skip(1).find_map(|a| a.canonicalize().ok()));
            for path in [stands_in, target_stands_in, real]
                .into_iter()
                .flatten()
                .chain(targets_stand_in)
            {
                if let Ok(meta) = fs::metadata(&path)
                    && meta.is_dir()
                {
                    directories.insert(path, (meta.dev(), meta.ino()));
                }
            }
        }
        directories
    }

    /// Names of what links lead to instead of [`Places::components`].
    pub(super) fn link_names(&self) -> BTreeSet<OsString> {
        self.candidates
            .iter()
            .flat_map(|candidate| link_targets(candidate))
            .filter_map(|target| target.file_name().map(Into::into))
            .collect()
    }

    pub(super) fn signature(&self) -> Signature {
        let stats = self.candidates.iter().flat_map(|directory| {
            let files = DATABASE_FILES
                .iter()
                .map(|file| Stat::of(&directory.join(file)));
            std::iter::once(Stat::of(directory)).chain(files)
        });
        Signature(stats.collect())
    }
}

/// Where a chain of links leads, step by step, whether or not there is anything.
fn link_targets(candidate: &Path) -> Vec<PathBuf> {
    const MAX_LINKS: usize = 8;
    let mut targets = Vec::new();
    let mut at = candidate.to_owned();
    while targets.len() < MAX_LINKS
        && let (Ok(target), Some(directory)) = (fs::read_link(&at), at.parent())
    {
        at = directory.join(target);
        targets.push(at.clone());
    }
    targets
}
