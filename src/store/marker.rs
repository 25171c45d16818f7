//! The mark that a directory held a store whose content cannot be had again.
//!
//! It stands beside the store as `NAME.begun`, is written when the store is opened for the first time,
//! and tells a store that was lost from one that never was.

use super::{StoreError, aside};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const TEXT: &str = "This directory holds a store of afferent. Where the store is missing although this file \
                    is there, it was lost, and no new one is begun in silence.\n";

/// Refuses a store that is gone or empty where there was one.
///
/// # Errors
/// [`StoreError::Lost`]; or the system refused.
pub fn check(path: &Path) -> Result<(), StoreError> {
    let lost = |what| {
        Err(StoreError::Lost {
            path: path.to_owned(),
            what,
        })
    };
    match fs::metadata(path) {
        Ok(there) if there.len() == 0 => lost("is empty"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if beside(path).exists() || aside::any(path) {
                return lost("is missing");
            }
            Ok(())
        }
        Err(source) => Err(StoreError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Notes that there is a store now.
pub(super) fn set(path: &Path) -> Result<(), StoreError> {
    let mark = beside(path);
    if mark.exists() {
        return Ok(());
    }
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&mark)
        .and_then(|mut file| {
            file.write_all(TEXT.as_bytes())?;
            file.sync_all()?;
            fs::File::open(path.parent().unwrap_or(path))?.sync_all()
        });
    written.map_err(|source| StoreError::Io { path: mark, source })
}

fn beside(path: &Path) -> PathBuf {
    let mut mark = path.as_os_str().to_owned();
    mark.push(".begun");
    mark.into()
}
