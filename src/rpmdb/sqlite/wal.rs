//! The write-ahead log: which of its frames are committed, and where each page's newest one is.
//!
//! ```text
//! header 32   magic 0x377f0682 (sums over little endian words) or ..83 (big), version,
//!             page size, checkpoint number, salt-1, salt-2, checksum-1, checksum-2
//! frame  24   page number, database size in pages if this frame commits else 0,
//!             salt-1, salt-2, checksum-1, checksum-2; then the page
//! ```
//! A frame counts while its salts are those of the header and the checksum, which runs over all
//! frames so far, holds; of those, the frames up to the last commit. What follows is left over from
//! before the log was restarted, or torn off. <https://sqlite.org/fileformat2.html#walformat>

use super::pager::Overlay;
use crate::rpmdb::error::{Error, Place};
use crate::rpmdb::source::number::{array, be_u32};
use crate::rpmdb::source::{ReadAt, read_up_to};

const HEADER: usize = 32;
const FRAME: usize = 24;
const BLOCK: usize = 256 * 1024;
/// Frames that are kept in memory, 16 bytes each; rpm checkpoints at 10,000.
const MAX_FRAMES: usize = 1_000_000;

/// Committed frames of the log, or `None` when it holds no commit.
///
/// # Errors
/// The log cannot be read, or holds far more than any rpm leaves in one.
pub(super) fn overlay<S: ReadAt>(source: S) -> Result<Option<Overlay<S>>, Error> {
    let mut header = [0; HEADER];
    if read_up_to(&source, &mut header, 0)? < HEADER {
        return Ok(None);
    }
    let Some(log) = Log::of(&header) else {
        // Without a valid header sqlite takes the log for empty, and so does this.
        return Ok(None);
    };
    let (mut pages, page_count) = log.frames(&source)?;
    if page_count == 0 {
        return Ok(None);
    }
    // Newest last: a stable sort keeps that order within a page.
    pages.sort_by_key(|(page, _)| *page);
    pages.reverse();
    pages.dedup_by_key(|(page, _)| *page);
    pages.reverse();
    Ok(Some(Overlay {
        source,
        pages,
        page_count,
        page_size: log.page_size,
    }))
}

struct Log {
    page_size: u32,
    salts: [u8; 8],
    sum: Checksum,
}

impl Log {
    fn of(header: &[u8; HEADER]) -> Option<Self> {
        let big_endian = match be_u32(header, 0)? {
            0x377f_0682 => false,
            0x377f_0683 => true,
            _ => return None,
        };
        let page_size = be_u32(header, 8)?;
        if be_u32(header, 4)? != 3_007_000
            || !(512..=65_536).contains(&page_size)
            || !page_size.is_power_of_two()
        {
            return None;
        }
        let mut sum = Checksum {
            big_endian,
            a: 0,
            b: 0,
        };
        sum.add(header.get(..24)?);
        (sum.stored() == array(header, 24)?).then_some(Self {
            page_size,
            salts: array(header, 16)?,
            sum,
        })
    }

    /// Page number and offset of each committed frame, in order, and the size of the database in
    /// pages after the last commit; 0 when there was none.
    fn frames<S: ReadAt>(&self, source: &S) -> Result<(Vec<(u32, u64)>, u32), Error> {
        let frame = FRAME + self.page_size as usize;
        let mut block = vec![0; (BLOCK / frame).max(1) * frame];
        let mut frames = Vec::new();
        let (mut committed, mut page_count) = (0, 0);
        let mut sum = self.sum;
        let mut offset = HEADER as u64;
        'log: loop {
            let got = read_up_to(source, &mut block, offset)?;
            for bytes in block.get(..got).unwrap_or_default().chunks_exact(frame) {
                let (head, page) = bytes.split_at(FRAME);
                let (Some(number), Some(commit)) = (be_u32(head, 0), be_u32(head, 4)) else {
                    break 'log;
                };
                sum.add(head.get(..8).unwrap_or_default());
                sum.add(page);
                if number == 0
                    || head.get(8..16) != Some(&self.salts[..])
                    || head.get(16..24) != Some(&sum.stored()[..])
                {
                    break 'log;
                }
                if frames.len() == MAX_FRAMES {
                    return Err(Error::damaged(
                        Place::Offset(offset),
                        "the write-ahead log holds more than 1,000,000 frames",
                    ));
                }
                frames.push((number, offset + FRAME as u64));
                offset += frame as u64;
                if commit != 0 {
                    (committed, page_count) = (frames.len(), commit);
                }
            }
            if got < block.len() {
                break;
            }
        }
        frames.truncate(committed);
        Ok((frames, page_count))
    }
}

/// The running checksum, over pairs of 32-bit words.
#[derive(Clone, Copy)]
struct Checksum {
    big_endian: bool,
    a: u32,
    b: u32,
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        // Two loops, each with its own byte order compiled in: this runs over megabytes.
        if self.big_endian {
            self.add_words(bytes, u32::from_be_bytes);
        } else {
            self.add_words(bytes, u32::from_le_bytes);
        }
    }

    fn add_words(&mut self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) {
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            self.a = self.a.wrapping_add(word([a, b, c, d])).wrapping_add(self.b);
            self.b = self.b.wrapping_add(word([e, f, g, h])).wrapping_add(self.a);
        }
    }

    /// As it stands in the file: big endian, whatever the words are.
    fn stored(self) -> [u8; 8] {
        let ([a, b, c, d], [e, f, g, h]) = (self.a.to_be_bytes(), self.b.to_be_bytes());
        [a, b, c, d, e, f, g, h]
    }
}
