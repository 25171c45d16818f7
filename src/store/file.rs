//! The file under a database: it grows only by room that the disk gives at once.
//!
//! redb grows its file by doubling it. Left to the file system the new part is a hole, whose places get
//! blocks when they are written first, and redb does not know which of its free places have some. On a
//! full disk it then takes those that have none, fails, and does so for ever, though others are free and
//! the content may be nothing at all: even a row that is to be deleted cannot be. Here either the whole
//! file has blocks, or it does not grow: a full disk refuses what is new, and never what makes room.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use std::fs::File;
use std::io;
use std::ops::Bound;

/// A file of which every place has blocks of the disk.
#[derive(Debug)]
pub(super) struct AllocatedFile {
    inner: FileBackend,
    /// The same open file.
    file: File,
}

impl AllocatedFile {
    /// Of a file that is open for reading and writing.
    pub(super) fn new(file: File) -> Result<Self, DatabaseError> {
        // Older versions left holes. Where the disk is full they stay, and the file is as good as it was.
        if let len @ 1.. = file.metadata()?.len() {
            let _ = allocate(&file, len);
        }
        let inner = FileBackend::new(file.try_clone()?)?;
        Ok(Self { inner, file })
    }
}

/// Gives the first `len` bytes of a file blocks, and makes it at least that long.
///
/// Where the file system, or a filter of system calls, cannot have that the file is made longer, holes and all.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    let before = file.metadata()?.len();
    let bytes = i64::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
    loop {
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM) => return file.set_len(len),
            Err(error) => {
                // It may have got a part of what was asked for.
                let _ = file.set_len(before);
                return Err(match error {
                    Errno::ENOSPC => io::Error::new(
                        io::ErrorKind::StorageFull,
                        format!(
                            "no space left to grow it from {} to {} MiB at once",
                            before >> 20,
                            len.div_ceil(1 << 20)
                        ),
                    ),
                    other => other.into(),
                });
            }
        }
    }
}

impl StorageBackend for AllocatedFile {
    fn set_len(&self, len: u64) -> io::Result<()> {
        match len > self.inner.len()? {
            true => allocate(&self.file, len),
            false => self.inner.set_len(len),
        }
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::small_disk::SmallDisk;
    use super::super::{Store, StoreError};
    use super::*;
    use redb::TableDefinition;
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("test");

    /// Loss prevented: a full disk that stays full because of the store itself, which is empty.
    #[test]
    fn a_store_that_fills_its_disk_and_holds_nothing_has_room_again() {
        let Some(disk) = SmallDisk::mount("3m") else {
            return;
        };
        for seed in 0..8 {
            let mut random = fastrand::Rng::with_seed(seed);
            let store = Store::open(disk.path(), "test.redb", 1 << 20)
                .unwrap()
                .store;
            let put = |key: u64, len: usize| {
                let value = vec![7; len];
                let put = store.write(|tx| {
                    tx.open_table(TABLE)?.insert(key, value.as_slice())?;
                    Ok(())
                });
                match put {
                    Ok(()) => true,
                    Err(StoreError::Full { .. }) => false,
                    Err(error) => panic!("{error}"),
                }
            };
            let empty = || store.write(|tx| Ok(tx.open_table(TABLE)?.retain(|_, _| false)?));
            let mut refused = 0;
            for _ in 0..20 {
                let mut puts =
                    std::iter::repeat_with(|| put(random.u64(..24), random.usize(60_000..250_000)));
                refused += puts.by_ref().take(24).filter(|kept| !kept).count();
                empty().or_else(|_| empty()).unwrap();
            }
            assert!(refused > 0, "the disk was never full");
            let kept = put(1, 250_000) || put(1, 250_000);
            assert!(kept, "an empty store has no room on its disk, seed {seed}");
            drop(store);
            fs::remove_file(disk.path().join("test.redb")).unwrap();
        }
    }

    /// Loss prevented: the same, with a file of a version that left holes in it.
    #[test]
    fn a_file_with_holes_has_none_once_it_is_opened() {
        // File systems that compress, or copy on write, count blocks otherwise.
        let Some(disk) = SmallDisk::mount("8m") else {
            return;
        };
        let file = tempfile::tempfile_in(disk.path()).unwrap();
        file.set_len(1 << 20).unwrap();
        let of_disk = || file.metadata().unwrap().blocks() * 512;
        assert!(of_disk() < 1 << 20);
        let opened = AllocatedFile::new(file.try_clone().unwrap()).unwrap();
        assert!(of_disk() >= 1 << 20);
        opened.set_len(3 << 20).unwrap();
        assert!(of_disk() >= 3 << 20);
        assert_eq!(opened.len().unwrap(), 3 << 20);
        opened.set_len(1 << 20).unwrap();
        assert_eq!(opened.len().unwrap(), 1 << 20);
    }

    /// Loss prevented: a file that is longer than its content after it could not grow.
    #[test]
    fn a_file_that_cannot_grow_stays_as_long_as_it_was() {
        let Some(disk) = SmallDisk::mount("3m") else {
            return;
        };
        let file = fs::File::create_new(disk.path().join("x")).unwrap();
        let grown = AllocatedFile::new(file).unwrap();
        grown.set_len(2 << 20).unwrap();
        let error = grown.set_len(4 << 20).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let said = "no space left to grow it from 2 to 4 MiB at once";
        assert_eq!(error.to_string(), said);
        assert_eq!(grown.len().unwrap(), 2 << 20);
    }
}
