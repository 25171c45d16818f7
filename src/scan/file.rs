//! Files opened for reading only, and the stamps that tell whether they were written to.

use crate::root;
use crate::rpmdb::ReadAt;
use nix::time::{ClockId, clock_gettime};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// A regular file, opened read-only; as long as it was then.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    size: u64,
}

impl OpenFile {
    /// Opens a file by its real path, without waiting and without creating anything.
    ///
    /// # Errors
    /// See [`root::open_real`].
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = root::open_real(path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            file,
        })
    }

    pub(super) fn stamp(&self) -> io::Result<Stamp> {
        self.file.metadata().map(|m| Stamp::of(&m))
    }

    /// A second descriptor of the same open file.
    pub(super) fn again(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            size: self.size,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl ReadAt for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn size(&self) -> u64 {
        self.size
    }
}

/// What changes when a file is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(super) fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// The same, but for changes of owner, mode and name: a query of rpm makes such.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.same_file(other) && (self.size, self.modified) == (other.size, other.modified)
    }

    /// Whether a write from now on is sure to give another stamp.
    ///
    /// The kernel stamps files with a clock that stands still for 1 to 10 ms at a time
    /// (`CLOCK_REALTIME_COARSE`), so a second write within the same tick would not show. Once that
    /// clock has moved past the time of the last change, which nobody can set, it does. A time far
    /// ahead was given by a clock that was wrong, or is that of a file server: it will not come
    /// again while one scan runs.
    pub(super) fn settled(&self) -> bool {
        const FAR_AHEAD: i64 = 2;
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE).is_ok_and(|now| {
            (now.tv_sec(), now.tv_nsec()) > self.changed
                || self.changed.0 > now.tv_sec().saturating_add(FAR_AHEAD)
        })
    }
}

/// The stamps of a database file and of the one beside it that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamps {
    pub(super) main: Stamp,
    pub(super) side: Option<Stamp>,
}

impl Stamps {
    /// See [`Stamp::same_content`].
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.main.same_content(&other.main)
            && match (&self.side, &other.side) {
                (Some(a), Some(b)) => a.same_content(b),
                (None, None) => true,
                _ => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed_in(seconds: i64) -> Stamp {
        let now = clock_gettime(ClockId::CLOCK_REALTIME_COARSE).unwrap();
        let file = tempfile::tempfile().unwrap();
        Stamp {
            changed: (now.tv_sec() + seconds, 0),
            ..Stamp::of(&file.metadata().unwrap())
        }
    }

    // The loss: no scan at all on a system whose clock was ahead when its packages were installed.
    #[test]
    fn a_file_from_the_future_is_settled_and_one_of_right_now_is_not() {
        assert!(changed_in(-1).settled());
        assert!(!changed_in(2).settled());
        assert!(changed_in(3_600).settled());
    }
}
