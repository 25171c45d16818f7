//! A hot rollback journal: the pages as they were before a transaction that was never finished.
//!
//! ```text
//! header 28   magic, records that follow, nonce, database size in pages, sector size, page size;
//!             padded to a sector; more headers may follow after their records
//! record      page number, page, checksum (nonce and every 200th byte)
//! ```
//! SQLite would write them back before anything is read; here they are laid over the file instead.
//! The first record of a page counts, it is the oldest. A record that does not check out was not
//! written through before the crash, so its page was not changed yet: the journal ends there.
//! A transaction over several databases ends its journals with the name of one that lists them all:
//! once that one is gone it was committed, and they no longer count.
//! <https://sqlite.org/fileformat2.html#the_rollback_journal>

use super::pager::Overlay;
use crate::rpmdb::error::{Error, Place};
use crate::rpmdb::source::number::{array, be_u32};
use crate::rpmdb::source::{ReadAt, read_up_to};
use std::io;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const HEADER: usize = 28;
/// Records that are kept in memory, 16 bytes each.
const MAX_RECORDS: usize = 1_000_000;

/// Longest name of a super-journal that is looked at: the longest path.
const MAX_NAME: usize = 4096;

/// Name of the super-journal that a rollback journal ends with.
///
/// # Errors
/// The journal cannot be read.
pub fn super_journal<S: ReadAt>(source: &S) -> io::Result<Option<Vec<u8>>> {
    // Its page number; the name; length u32, sum of its bytes u32, magic.
    let mut tail = [0; 16];
    let Some(end) = source.size().checked_sub(tail.len() as u64) else {
        return Ok(None);
    };
    read_up_to(source, &mut tail, end)?;
    let length = be_u32(&tail, 0).map_or(0, |n| n as usize);
    let Some(start) = end.checked_sub(length as u64) else {
        return Ok(None);
    };
    if array(&tail, 8) != Some(MAGIC) || !(1..=MAX_NAME).contains(&length) {
        return Ok(None);
    }
    let mut name = vec![0; length];
    let got = read_up_to(source, &mut name, start)?;
    let sum = name
        .iter()
        .fold(0, |sum: u32, byte| sum.wrapping_add(u32::from(*byte)));
    let sound = got == length && be_u32(&tail, 4) == Some(sum) && names_super_journal(&name);
    Ok(sound.then_some(name))
}

/// Whether SQLite gives such names: `-mj` and nine hex digits, the third last of them a 9.
fn names_super_journal(name: &[u8]) -> bool {
    let end = name.len().checked_sub(12).and_then(|at| name.get(at..));
    matches!(end, Some([b'-', b'm', b'j', digits @ ..])
        if digits.iter().all(u8::is_ascii_hexdigit) && digits.get(6) == Some(&b'9'))
}

/// Original pages kept in a hot journal; `None` when it holds none, as after a commit that only
/// overwrote its header.
///
/// # Errors
/// The journal cannot be read, or says that there was no database before its transaction.
pub(super) fn overlay<S: ReadAt>(source: S) -> Result<Option<Overlay<S>>, Error> {
    let Some(first) = Header::read(&source, 0)? else {
        return Ok(None);
    };
    if first.page_count == 0 {
        let why = "is of a database whose writer died while it was made: nothing was ever in it";
        return Err(Error::damaged(Place::FileHeader, why));
    }
    let mut pages: Vec<(u32, u64)> = Vec::new();
    let mut record = vec![0; first.page_size as usize + 8];
    let (mut at, mut header) = (0, Some(first));
    'journal: while let Some(part) = header {
        at += u64::from(first.sector);
        let rest = source.size().saturating_sub(at) / record.len() as u64;
        let records = if part.records == u32::MAX {
            rest
        } else {
            u64::from(part.records).min(rest)
        };
        for _ in 0..records {
            if read_up_to(&source, &mut record, at)? < record.len() || pages.len() == MAX_RECORDS {
                break 'journal;
            }
            let Some(page) = part.page_of(&record) else {
                break 'journal;
            };
            pages.push((page, at + 4));
            at += record.len() as u64;
        }
        if records == 0 {
            break;
        }
        at = at.next_multiple_of(u64::from(first.sector));
        header = Header::read(&source, at)?;
    }
    // A stable sort keeps the oldest record of a page in front.
    pages.sort_by_key(|(page, _)| *page);
    pages.dedup_by_key(|(page, _)| *page);
    Ok((!pages.is_empty()).then_some(Overlay {
        source,
        pages,
        page_count: first.page_count,
        page_size: first.page_size,
    }))
}

#[derive(Clone, Copy)]
struct Header {
    records: u32,
    nonce: u32,
    page_count: u32,
    sector: u32,
    page_size: u32,
}

impl Header {
    fn read<S: ReadAt>(source: &S, at: u64) -> Result<Option<Self>, Error> {
        let mut bytes = [0; HEADER];
        if read_up_to(source, &mut bytes, at)? < HEADER || array(&bytes, 0) != Some(MAGIC) {
            return Ok(None);
        }
        let word = |at| be_u32(&bytes, at).unwrap_or(0);
        let header = Self {
            records: word(8),
            nonce: word(12),
            page_count: word(16),
            sector: word(20),
            page_size: word(24),
        };
        let sound = |n: u32| (512..=65_536).contains(&n) && n.is_power_of_two();
        let sector = (32..=65_536).contains(&header.sector) && header.sector.is_power_of_two();
        Ok((sound(header.page_size) && sector).then_some(header))
    }

    /// The page of a record whose checksum holds.
    fn page_of(&self, record: &[u8]) -> Option<u32> {
        let page = be_u32(record, 0).filter(|page| *page > 0)?;
        let data = record.get(4..record.len().checked_sub(4)?)?;
        let mut sum = self.nonce;
        let mut at = data.len().checked_sub(200)?;
        while at > 0 {
            sum = sum.wrapping_add(u32::from(*data.get(at)?));
            at = at.saturating_sub(200);
        }
        (be_u32(record, 4 + data.len()) == Some(sum)).then_some(page)
    }
}
