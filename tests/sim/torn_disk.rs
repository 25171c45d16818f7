//! A disk for tests and simulations whose power fails: of what was written since it last said that all is safe, it
//! keeps some, loses some and tears some, in any order.
//!
//! That is all that redb counts on: a sync that returned holds, and no write touches its neighbours.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A write is torn only between two of these.
const SECTOR: usize = 512;

/// Bytes of a page: two images of a disk share those that are the same in both.
const PAGE: usize = 4096;

/// Bytes, in pages that are copied only when they are written to.
#[derive(Clone, Debug, Default)]
struct Image {
    len: usize,
    /// `None`: zeros.
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
}

impl Image {
    fn resize(&mut self, len: usize) {
        self.pages.resize(len.div_ceil(PAGE), None);
        if len < self.len
            && let Some(Some(last)) = self.pages.get_mut(len / PAGE)
        {
            Arc::make_mut(last)[len % PAGE..].fill(0);
        }
        self.len = len;
    }

    /// Reads what is there; says whether all of it was.
    fn read(&self, at: usize, out: &mut [u8]) -> bool {
        if self.len < at + out.len() {
            return false;
        }
        let mut done = 0;
        while done < out.len() {
            let (page, from) = ((at + done) / PAGE, (at + done) % PAGE);
            let len = (PAGE - from).min(out.len() - done);
            let part = &mut out[done..done + len];
            match &self.pages[page] {
                Some(bytes) => part.copy_from_slice(&bytes[from..from + len]),
                None => part.fill(0),
            }
            done += len;
        }
        true
    }

    /// Writes what lies within its length.
    fn write(&mut self, at: usize, data: &[u8]) {
        let data = &data[..data.len().min(self.len.saturating_sub(at))];
        let mut done = 0;
        while done < data.len() {
            let (page, from) = ((at + done) / PAGE, (at + done) % PAGE);
            let len = (PAGE - from).min(data.len() - done);
            let bytes = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(bytes)[from..from + len].copy_from_slice(&data[done..done + len]);
            done += len;
        }
    }
}

/// One disk, in as many hands as there are clones.
#[derive(Clone, Debug)]
pub(crate) struct TornDisk(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// What is safe.
    synced: Image,
    /// What is read.
    seen: Image,
    /// From the one to the other, in order.
    resized: Vec<usize>,
    written: Vec<(usize, Vec<u8>)>,
    /// Changes and syncs until the power fails.
    left: usize,
    /// Syncs so far, and until the power fails.
    syncs: usize,
    syncs_left: usize,
    /// Nothing more can be written.
    is_full: bool,
}

impl TornDisk {
    /// An empty one with power.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            synced: Image::default(),
            seen: Image::default(),
            resized: Vec::new(),
            written: Vec::new(),
            left: usize::MAX,
            syncs: 0,
            syncs_left: usize::MAX,
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

    /// The power fails with the end of so many syncs: at least one.
    pub(crate) fn fail_after_syncs(&self, syncs: usize) {
        self.lock().syncs_left = syncs;
    }

    /// Number of syncs so far.
    pub(crate) fn syncs(&self) -> usize {
        self.lock().syncs
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
            image.resize(len);
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
            image.write(at, &bytes[..len]);
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
            seen: Image::default(),
            resized: before.resized.clone(),
            written: before.written.clone(),
            left: 0,
            syncs: 0,
            syncs_left: usize::MAX,
            is_full: before.is_full,
        })));
        drop(before);
        copy.recover(random);
        copy
    }

    /// Another disk with what is safe on this one.
    pub(crate) fn copy(&self) -> Self {
        let synced = self.lock().synced.clone();
        let copy = Self::new();
        let mut state = copy.lock();
        (state.seen, state.synced) = (synced.clone(), synced);
        drop(state);
        copy
    }

    /// Whether everything that can be read is safe.
    pub(crate) fn is_synced(&self) -> bool {
        let state = self.lock();
        state.written.is_empty() && state.resized.is_empty()
    }

    /// Its length in bytes.
    pub(crate) fn size(&self) -> usize {
        self.lock().seen.len
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
        Ok(self.lock().seen.len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = position(offset);
        match self.lock().seen.read(at, out) {
            true => Ok(()),
            false => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.extend()?;
        state.seen.resize(position(len));
        state.resized.push(position(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.change()?;
        state.synced = state.seen.clone();
        state.written.clear();
        state.resized.clear();
        state.syncs += 1;
        state.syncs_left -= 1;
        if state.syncs_left == 0 {
            state.left = 0;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = position(offset);
        let mut state = self.extend()?;
        if state.seen.len < at + data.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        state.seen.write(at, data);
        state.written.push((at, data.to_vec()));
        Ok(())
    }
}
