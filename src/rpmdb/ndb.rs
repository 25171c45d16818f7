//! ndb, the database of SUSE: `Packages.db`, little endian on every machine.
//!
//! ```text
//! header 32   "RpmP", version 0, generation, slot pages of 4096 bytes (this header counted in),
//!             next header number
//! slot   16   "Slot", header number, offset and count in blocks of 16 bytes; offset 0: free
//! blob        "BlbS", header number, generation, length; the header; padding;
//!             adler32, length, "BlbE"
//! ```
//! The generation grows with every header that is written or erased, and every blob keeps the one
//! it was written at. `Index.db` beside it is a cache that nobody needs for a list. The checks are
//! those that rpm makes on reading (`lib/backend/ndb/rpmpkg.c`), which leave the checksum out.

use super::error::{Error, Place};
use super::header::Blob;
use super::source::{ReadAt, number::array, read_up_to};
use super::{Item, Visit};

const BLOCK: u64 = 16;
const SLOT_PAGE: u64 = 4096;
const FILE_HEADER: usize = 32;
const SLOT: usize = 16;
const BLOB_HEAD: usize = 16;
const BLOB_TAIL: usize = 12;
/// Slots that are fetched at once.
const BATCH: usize = 64 * 1024;
/// Fetched from the start of a header: nearly always the whole index and the first strings.
const FIRST_WINDOW: usize = 4096;
/// Fetched around any later byte.
const NEXT_WINDOW: usize = 512;

/// An ndb database over a byte source.
#[derive(Debug)]
pub struct NdbDatabase<S> {
    source: S,
    slots_end: u64,
    next_number: u32,
}

impl<S: ReadAt> NdbDatabase<S> {
    /// Reads the file header.
    ///
    /// # Errors
    /// Not an ndb database, or a damaged one.
    pub fn open(source: S) -> Result<Self, Error> {
        let damaged = |why| Error::damaged(Place::FileHeader, why);
        let mut head = [0; FILE_HEADER];
        if read_up_to(&source, &mut head, 0)? < head.len() {
            return Err(damaged("is cut off"));
        }
        if array(&head, 0) != Some(*b"RpmP") {
            return Err(damaged("is not that of an ndb database"));
        }
        let word = |at| le_u32(&head, at).unwrap_or(0);
        if word(4) != 0 {
            return Err(Error::Unsupported(
                "is of a newer ndb version than this reader knows",
            ));
        }
        let slots_end = u64::from(word(12)) * SLOT_PAGE;
        if slots_end == 0 || slots_end > source.size() {
            return Err(damaged("claims more slot pages than the file has"));
        }
        if !source.size().is_multiple_of(BLOCK) {
            return Err(damaged(
                "stands in a file of a length that is no multiple of 16",
            ));
        }
        Ok(Self {
            slots_end,
            next_number: word(16),
            source,
        })
    }

    /// The highest header number given out so far; 0 in a new database.
    pub fn last_number(&self) -> u64 {
        u64::from(self.next_number.saturating_sub(1))
    }

    pub(super) fn headers(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut batch = vec![0; BATCH];
        let mut window = Vec::new();
        // Blobs do not overlap, so together they are no longer than the space for them.
        let mut left = self.source.size() - self.slots_end;
        let mut at = FILE_HEADER as u64;
        while at < self.slots_end {
            let length = BATCH.min(usize::try_from(self.slots_end - at).unwrap_or(BATCH));
            let batch = batch.get_mut(..length).unwrap_or_default();
            if read_up_to(&self.source, batch, at)? < batch.len() {
                return Err(Error::damaged(Place::Offset(at), "the slots are cut off"));
            }
            for slot in batch.chunks_exact(SLOT) {
                let slot = Slot::parse(slot, at)?;
                at += SLOT as u64;
                let Some(slot) = slot else { continue };
                // One that points outside costs its own header alone, and no time.
                if slot.end() <= self.source.size() {
                    left = left.checked_sub(slot.count * BLOCK).ok_or(Error::damaged(
                        Place::Offset(at),
                        "slots share their blocks",
                    ))?;
                }
                if self.visit(slot, &mut window, visit).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn visit(
        &self,
        slot: Slot,
        window: &mut Vec<u8>,
        visit: &mut Visit<'_>,
    ) -> std::ops::ControlFlow<()> {
        match self.blob(slot, window) {
            Ok((mut blob, generation)) => visit(Item {
                number: slot.number,
                length: blob.length,
                check: u64::from(generation),
                blob: Ok(&mut blob),
            }),
            Err(error) => visit(Item {
                number: slot.number,
                length: 0,
                check: 0,
                blob: Err(error),
            }),
        }
    }

    fn blob<'a>(
        &'a self,
        slot: Slot,
        window: &'a mut Vec<u8>,
    ) -> Result<(Stretch<'a, S>, u32), Error> {
        let damaged = |why| Error::damaged(Place::Header(slot.number), why);
        let start = slot.offset * BLOCK;
        let end = slot.end();
        if start < self.slots_end || end > self.source.size() || slot.count < 2 {
            return Err(damaged("its slot points outside the file"));
        }
        let mut blob = Stretch {
            source: &self.source,
            start,
            length: slot.count * BLOCK,
            window,
            window_at: 0,
        };
        blob.load(0, BLOB_HEAD)?;
        let head = |at| le_u32(blob.window, at);
        if array(blob.window, 0) != Some(*b"BlbS") || head(4) != Some(slot.number) {
            return Err(damaged("its slot points to something else"));
        }
        let (generation, length) = (head(8).unwrap_or(0), u64::from(head(12).unwrap_or(0)));
        if (BLOB_HEAD as u64 + length + BLOB_TAIL as u64).div_ceil(BLOCK) != slot.count {
            return Err(damaged("its length is not that of its slot"));
        }
        let mut tail = [0; BLOB_TAIL];
        let got = read_up_to(&self.source, &mut tail, end - BLOB_TAIL as u64)?;
        let written = le_u32(&tail, 4).map(u64::from) == Some(length);
        if got < tail.len() || array(&tail, 8) != Some(*b"BlbE") || !written {
            return Err(damaged("its end is missing or of another header"));
        }
        // From here on the blob is the header alone.
        (blob.start, blob.length) = (start + BLOB_HEAD as u64, length);
        blob.window.clear();
        Ok((blob, generation))
    }
}

fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// A slot in use.
#[derive(Debug, Clone, Copy)]
struct Slot {
    number: u32,
    /// In blocks.
    offset: u64,
    /// In blocks.
    count: u64,
}

impl Slot {
    /// `None` for a free one; used ones may follow it.
    fn parse(bytes: &[u8], at: u64) -> Result<Option<Self>, Error> {
        if array(bytes, 0) != Some(*b"Slot") {
            return Err(Error::damaged(Place::Offset(at), "is no slot"));
        }
        let word = |at| le_u32(bytes, at).unwrap_or(0);
        let slot = Self {
            number: word(4),
            offset: u64::from(word(8)),
            count: u64::from(word(12)),
        };
        Ok((slot.offset != 0).then_some(slot))
    }

    /// Offset in the file at which its blocks end.
    fn end(&self) -> u64 {
        (self.offset + self.count) * BLOCK
    }
}

/// A header that lies in one stretch of the file, seen through a small window.
struct Stretch<'a, S> {
    source: &'a S,
    start: u64,
    length: u64,
    window: &'a mut Vec<u8>,
    window_at: u64,
}

impl<S: ReadAt> Stretch<'_, S> {
    fn load(&mut self, offset: u64, most: usize) -> Result<(), Error> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.window.resize(most.min(rest), 0);
        self.window_at = offset;
        let got = read_up_to(self.source, self.window, self.start + offset)?;
        self.window.truncate(got);
        Ok(())
    }
}

impl<S: ReadAt> Blob for Stretch<'_, S> {
    fn length(&self) -> u64 {
        self.length
    }

    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error> {
        let inside = |this: &Self| {
            let within = usize::try_from(offset.checked_sub(this.window_at)?).ok()?;
            (within < this.window.len()).then_some(within)
        };
        if inside(self).is_none() {
            let most = if offset == 0 {
                FIRST_WINDOW
            } else {
                NEXT_WINDOW
            };
            self.load(offset, most)?;
        }
        inside(self)
            .and_then(|within| self.window.get(within..))
            .ok_or(Error::damaged(
                Place::Offset(self.start.saturating_add(offset)),
                "lies past the end of the file",
            ))
    }
}
