//! Whether a file or directory changed since it was last read.

use crate::clock;
use crate::file_stamp::FileStamp;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A change within this time of another may not show: the clocks of file systems are coarse.
pub(super) const UNSETTLED: Duration = Duration::from_secs(5);

/// The stamp of a file or directory; `None` where it would prove nothing: there is nothing, or it changed
/// so lately that a further change may get the same time.
pub(super) fn settled(path: &Path) -> Option<FileStamp> {
    let meta = fs::metadata(path).ok()?;
    let age = clock::wall_now().since(meta.modified().ok()?.into());
    (age > UNSETTLED).then(|| FileStamp::from(&meta))
}

/// Reads a text file of at most `longest` bytes. What is no regular file is refused: a FIFO would
/// block.
pub(super) fn read_text(path: &Path, longest: u64) -> Result<String, ReadError> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(ReadError::Unfit("is no regular file".into()));
    }
    if meta.len() > longest {
        let said = format!("is longer than {longest} bytes");
        return Err(ReadError::Unfit(said));
    }
    Ok(fs::read_to_string(path)?)
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The system refuses it, or it is not UTF-8.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is not what is read here.
    #[error("{0}")]
    Unfit(String),
}

impl ReadError {
    /// Whether there is no such file any more.
    pub(super) fn is_gone(&self) -> bool {
        self.kind() == std::io::ErrorKind::NotFound
    }

    /// What the system said.
    pub(super) fn kind(&self) -> std::io::ErrorKind {
        match self {
            Self::Io(error) => error.kind(),
            Self::Unfit(_) => std::io::ErrorKind::InvalidData,
        }
    }
}
