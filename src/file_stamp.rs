//! Whether a file is another one than it was.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a change of a file, or of the names in a directory, cannot leave as it was, unless it comes
/// within the same tick of the file system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: (u64, u64),
    len: u64,
    changed: (i64, i64),
}

impl FileStamp {
    /// Of the file that `path` leads to; `None`: there is none.
    pub fn of(path: &Path) -> Option<Self> {
        Some(Self::from(&fs::metadata(path).ok()?))
    }
}

impl From<&fs::Metadata> for FileStamp {
    fn from(meta: &fs::Metadata) -> Self {
        Self {
            inode: (meta.dev(), meta.ino()),
            len: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}
