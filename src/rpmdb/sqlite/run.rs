//! A run: consecutive pages of a file, fetched in one call because a chain is likely to lie in them.
//!
//! ```text
//! chain as sqlite mostly makes it   7 -> 8 -> 9 -> 10 -> 11     one run
//! chain in what others left free    7 -> 8 -> 31 -> 32 -> 12    three, the first longer than needed
//! ```
//! Nothing here decides what is read, only how much with it. A call costs as much as copying two
//! pages, so pages that nobody asks for are cheap while they are few, and a streak of pages that
//! did follow each other is what pays for them.

use crate::rpmdb::source::{ReadAt, read_up_to};
use std::io;

/// Longest run in bytes, unless a page is longer: as much as stays in a core's own cache.
const LONGEST: u32 = 128 * 1024;

/// What is wanted of a chain beyond the page at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ahead {
    /// Pages after this one, up to the last that is wanted.
    pub(super) pages: u32,
    /// Where in the last one the wanted bytes end.
    pub(super) end: usize,
}

/// How many pages of chains lately lay right behind the one that led to them.
///
/// A break halves it, so that over any file the pages fetched in vain are fewer than those that
/// were needed.
#[derive(Debug)]
pub(super) struct Streak(u32);

impl Default for Streak {
    fn default() -> Self {
        Self(16)
    }
}

impl Streak {
    const LONGEST: u32 = 256;

    /// Notes that `page` led to `next`, 0 at the end of a chain.
    pub(super) fn followed(&mut self, page: u32, next: u32) {
        if next == page.wrapping_add(1) {
            self.0 = (self.0 + 1).min(Self::LONGEST);
        } else if next != 0 {
            self.0 /= 2;
        }
    }

    /// Pages to fetch with the one that is needed.
    pub(super) fn pages(&self, page_size: u32) -> u32 {
        self.0.min((LONGEST / page_size).saturating_sub(1))
    }
}

/// The bytes that were fetched last; none at first.
#[derive(Debug)]
pub(super) struct Run {
    page_size: usize,
    usable: usize,
    /// Never shrinks, so that nothing is cleared twice.
    bytes: Vec<u8>,
    length: usize,
    /// Where the first byte is.
    page: u32,
    at: usize,
}

impl Run {
    pub(super) fn new(page_size: usize, usable: usize) -> Self {
        Self {
            page_size,
            usable,
            bytes: Vec::new(),
            length: 0,
            page: 0,
            at: 0,
        }
    }

    /// Fetches `length` bytes from `offset` on, where byte `at` of `page` is; fewer where the
    /// source ends.
    pub(super) fn fetch<S: ReadAt>(
        &mut self,
        (source, offset): (&S, u64),
        (page, at): (u32, usize),
        length: usize,
    ) -> io::Result<()> {
        (self.page, self.at, self.length) = (page, at, 0);
        if self.bytes.len() < length {
            self.bytes.resize(length, 0);
        }
        let room = self.bytes.get_mut(..length).unwrap_or_default();
        self.length = read_up_to(source, room, offset.saturating_add(at as u64))?;
        Ok(())
    }

    /// Bytes of `page` from `at` on, as many as are here; never none.
    pub(super) fn seen(&self, page: u32, at: usize) -> Option<&[u8]> {
        let before = page.checked_sub(self.page)? as usize;
        let start = before.checked_mul(self.page_size)?;
        let end = start.checked_add(self.usable)?.checked_sub(self.at)?;
        let from = start.checked_add(at)?.checked_sub(self.at)?;
        self.bytes
            .get(from..end.min(self.length))
            .filter(|bytes| !bytes.is_empty())
    }
}
