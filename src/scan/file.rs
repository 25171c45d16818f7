//! Files opened for reading only, and the stamps that tell whether they were written to.

use crate::rpmdb::ReadAt;
use nix::fcntl::OFlag;
use nix::time::{ClockId, clock_gettime};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// A regular file, opened read-only; as long as it was then.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: File,
    size: u64,
}

impl OpenFile {
    /// Opens without waiting (a FIFO in the place of a file would wait for a writer) and without
    /// creating anything.
    ///
    /// # Errors
    /// It is missing, may not be read, or is no regular file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "is no regular file",
            ));
        }
        Ok(Self {
            size: metadata.len(),
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

    /// The whole content, which must not be longer than `most` bytes.
    pub(super) fn read_whole(self, most: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "is too long"));
        }
        Ok(bytes)
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

    /// Whether a write from now on is sure to give another stamp.
    ///
    /// The kernel stamps files with a clock that stands still for 1 to 10 ms at a time
    /// (`CLOCK_REALTIME_COARSE`), so a second write within the same tick would not show. Once that
    /// clock has moved past the stamp, it does.
    pub(super) fn settled(&self) -> bool {
        clock_gettime(ClockId::CLOCK_REALTIME_COARSE)
            .is_ok_and(|now| (now.tv_sec(), now.tv_nsec()) > self.modified.max(self.changed))
    }
}
