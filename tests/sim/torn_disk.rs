//! A disk for tests and simulations whose power fails: of what was written since it last said that all is safe, it
//! keeps some, loses some and tears some, in any order.
//!
//! That is all that redb counts on: a sync that returned holds, and no write touches its neighbours.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A write is torn only between two of these.
const SECTOR: usize = 512;

/// One disk, in as many hands as there are clones.
#[derive(Clone, Debug)]
pub(crate) struct TornDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What is safe.
    synced: Vec<u8>,
    /// What is read.
    seen: Vec<u8>,
    /// From the one to the other, in order.
    resized: Vec<usize>,
    written: Vec<(usize, Vec<u8>)>,
    /// Changes and syncs until the power fails.
    left: usize,
    /// Nothing more can be written.
    is_full: bool,
}

impl TornDisk {
    /// An empty one with power.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            synced: Vec::new(),
            seen: Vec::new(),
            resized: Vec::new(),
            written: Vec::new(),
            left: usize::MAX,
            is_full: false,
        })))
    }

    /// From now on nothing can be written, or it can be again.
    pub(crate) fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// The power fails after so many changes and syncs.
    pub(crate) fn fail_after(&self, operations: usize) {
        self.lock().left = operations;
    }

    /// Whether the power failed.
    pub(crate) fn is_dark(&self) -> bool {
        self.lock().left == 0
    }

    /// The power is back: what was not safe is there, or not, or in part, as `random` says.
    pub(crate) fn recover(&self, random: &mut fastrand::Rng) {
        let mut state = self.lock();
        let State {
            synced: image,
            resized,
            written,
            ..
        } = &mut *state;
        // A file system keeps a journal of lengths: no later one survives an earlier one.
        let survive = random.usize(..=resized.len());
        for len in resized.drain(..).take(survive) {
            image.resize(len, 0);
        }
        // All but one write, or one alone: that is where mistakes are.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][random.usize(..5)];
        let torn = random.f64();
        random.shuffle(written);
        for (at, bytes) in written.drain(..) {
            let len = match () {
                () if random.f64() < kept => bytes.len(),
                () if random.f64() < torn => whole_sectors(at, random.usize(..=bytes.len())),
                () => 0,
            };
            let end = image.len().min(at + len);
            if at < end {
                image[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
        state.seen = state.synced.clone();
        state.left = usize::MAX;
    }

    /// The disk after a crash: what was not safe is there, or not, or in part, as `random` says. Whoever
    /// has the old one writes to it in vain.
    pub(crate) fn after_a_crash(&self, random: &mut fastrand::Rng) -> Self {
        self.fail_after(0);
        let before = self.lock();
        let copy = Self(Arc::new(Mutex::new(State {
            synced: before.synced.clone(),
            seen: Vec::new(),
            resized: before.resized.clone(),
            written: before.written.clone(),
            left: 0,
            is_full: before.is_full,
        })));
        drop(before);
        copy.recover(random);
        copy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, to change something, while there is power.
    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        let left = state.left.checked_sub(1);
        state.left = left.ok_or_else(|| io::Error::other("the power failed"))?;
        Ok(state)
    }

    /// The same, where that needs room.
    fn extend(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.change()?;
        match state.is_full {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(state),
        }
    }
}

/// As much of the first `len` bytes at `at` as ends with a sector.
fn whole_sectors(at: usize, len: usize) -> usize {
    ((at + len) / SECTOR * SECTOR).saturating_sub(at)
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl redb::StorageBackend for TornDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = position(offset);
        let state = self.lock();
        let bytes = state.seen.get(at..at + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.extend()?;
        state.seen.resize(position(len), 0);
        state.resized.push(position(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.change()?;
        let len = state.seen.len();
        let State {
            synced, written, ..
        } = &mut *state;
        synced.resize(len, 0);
        for (at, bytes) in written.drain(..) {
            let end = len.min(at + bytes.len());
            if at < end {
                synced[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
        state.resized.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = position(offset);
        let mut state = self.extend()?;
        let bytes = state.seen.get_mut(at..at + data.len());
        bytes
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        state.written.push((at, data.to_vec()));
        Ok(())
    }
}
