//! Berkeley DB hash, the database of RHEL 8 and before: `Packages`, in either byte order.
//!
//! ```text
//! page 0      magic at 12, version 16, page size 20, type 25 = 8, max bucket 72, spares[32] at 96
//! hash page   next 16, entries 20, type 25 = 2 or 13, item offsets (u16) from 26, items from the end
//!             items alternate key, value; first byte 1: inline, 3: off-page (page at 4, length at 8)
//! overflow    next 16, bytes in this page 22, type 25 = 7, data from 26
//! ```
//! Buckets, not pages, are walked: free pages keep what they held, and hash pages lie waiting beyond
//! the last bucket. Keys are header numbers in the writer's byte order; key 0 holds the counter.
//! Only numbers of the page structure have that order, the headers are big endian as always.
//! Layout: Berkeley DB, `src/dbinc/db_page.h`; bucket arithmetic: `src/dbinc/hash.h`.

use super::error::{Error, Place};
use super::header::Blob;
use super::source::{ReadAt, number::array, read_up_to};
use super::{Item, MAX_HEADERS, Visit};

const MAGIC: u32 = 0x0006_1561;
const MAGIC_BTREE: u32 = 0x0005_3162;
const META: u8 = 8;
const HASH_UNSORTED: u8 = 2;
const HASH: u8 = 13;
const OVERFLOW: u8 = 7;
const INLINE: u8 = 1;
const OFF_PAGE: u8 = 3;
const PAGE_HEADER: usize = 26;
/// Fetched of the first overflow page of a header to tell whether it is the known one.
const CHECKED: usize = 256;

/// A Berkeley DB hash database over a byte source.
#[derive(Debug)]
pub struct BdbDatabase<S> {
    source: S,
    order: Order,
    page_size: usize,
    page_count: u32,
    counter: u32,
    entries: Vec<Entry>,
}

/// Byte order of the machine that made the file.
#[derive(Debug, Clone, Copy)]
struct Order {
    big_endian: bool,
}

impl Order {
    fn u16(self, bytes: &[u8], at: usize) -> Option<u16> {
        let bytes = array(bytes, at)?;
        Some(if self.big_endian {
            u16::from_be_bytes(bytes)
        } else {
            u16::from_le_bytes(bytes)
        })
    }

    fn u32(self, bytes: &[u8], at: usize) -> Option<u32> {
        let bytes = array(bytes, at)?;
        Some(if self.big_endian {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        })
    }
}

/// A key and where its value is.
#[derive(Debug, Clone, Copy)]
struct Entry {
    number: u32,
    value: Value,
}

#[derive(Debug, Clone, Copy)]
enum Value {
    /// Within a hash page.
    Inline { offset: u64, length: u64 },
    /// On a chain of overflow pages.
    OffPage { page: u32, length: u64 },
    /// Of a kind that rpm does not write, or outside its page.
    Unusable,
}

impl<S: ReadAt> BdbDatabase<S> {
    /// Reads the metadata page and the list of headers.
    ///
    /// # Errors
    /// Not a Berkeley DB hash database, or a damaged one.
    pub fn open(source: S) -> Result<Self, Error> {
        let damaged = |why| Error::damaged(Place::FileHeader, why);
        let mut meta = [0; 512];
        if read_up_to(&source, &mut meta, 0)? < meta.len() {
            return Err(damaged("is cut off"));
        }
        let magic: [u8; 4] = array(&meta, 12).unwrap_or_default();
        let big_endian = match (u32::from_le_bytes(magic), u32::from_be_bytes(magic)) {
            (MAGIC, _) => false,
            (_, MAGIC) => true,
            (MAGIC_BTREE, _) | (_, MAGIC_BTREE) => {
                return Err(Error::Unsupported(
                    "is a Berkeley DB of another kind than hash",
                ));
            }
            _ => return Err(damaged("is not that of a Berkeley DB hash database")),
        };
        let order = Order { big_endian };
        let word = |at| order.u32(&meta, at).unwrap_or(0);
        if !(7..=10).contains(&word(16)) {
            return Err(Error::Unsupported("is of an unknown Berkeley DB version"));
        }
        // Encryption, and checksums in the pages: rpm uses neither, and they move the data.
        if meta.get(24).is_none_or(|cipher| *cipher != 0)
            || meta.get(26).is_none_or(|flags| flags & 1 != 0)
        {
            return Err(Error::Unsupported(
                "is a Berkeley DB with encryption or page checksums, which rpm does not use",
            ));
        }
        let page_size = word(20);
        if !(512..=65_536).contains(&page_size) || !page_size.is_power_of_two() {
            return Err(damaged("has an impossible page size"));
        }
        if meta.get(25) != Some(&META) {
            return Err(damaged("is not that of a hash database"));
        }
        let pages = source.size() / u64::from(page_size);
        let mut database = Self {
            source,
            order,
            page_size: page_size as usize,
            page_count: u32::try_from(pages).unwrap_or(u32::MAX),
            counter: 0,
            entries: Vec::new(),
        };
        let spares: [u32; 32] = std::array::from_fn(|i| word(96 + 4 * i));
        database.read_buckets(word(72), &spares)?;
        Ok(database)
    }

    /// The highest header number given out so far; 0 in a new database.
    pub fn last_number(&self) -> u64 {
        let highest = self.entries.iter().map(|e| e.number).max().unwrap_or(0);
        u64::from(highest.max(self.counter))
    }

    fn read_buckets(&mut self, max_bucket: u32, spares: &[u32; 32]) -> Result<(), Error> {
        if max_bucket >= self.page_count {
            return Err(Error::damaged(
                Place::FileHeader,
                "claims more buckets than the file has pages",
            ));
        }
        let mut page = vec![0; self.page_size];
        let mut left = self.page_count;
        for bucket in 0..=max_bucket {
            let bits = (u32::BITS - bucket.leading_zeros()) as usize;
            let spare = spares.get(bits).copied().unwrap_or(0);
            let mut next = bucket.wrapping_add(spare);
            while next != 0 {
                left = left
                    .checked_sub(1)
                    .ok_or(Error::damaged(Place::Page(next), "is used more than once"))?;
                next = self.read_hash_page(next, &mut page)?;
            }
        }
        Ok(())
    }

    /// Lists the entries of one page and gives the next of its bucket, 0 after the last.
    fn read_hash_page(&mut self, number: u32, page: &mut [u8]) -> Result<u32, Error> {
        let damaged = |why| Error::damaged(Place::Page(number), why);
        self.read(number, page)?;
        let word = |at| self.order.u32(page, at).unwrap_or(0);
        let items = self.order.u16(page, 20).unwrap_or(0);
        match page.get(25) {
            Some(&(HASH | HASH_UNSORTED)) => {}
            // A bucket that the table grew to hold and nothing was ever put into.
            Some(0) if word(8) == 0 && items == 0 => return Ok(0),
            _ => return Err(damaged("is no hash page")),
        }
        let next = word(16);
        for pair in 0..items / 2 {
            let (Some((_, key)), Some((at, value))) =
                (self.item(page, pair * 2), self.item(page, pair * 2 + 1))
            else {
                return Err(damaged("has an item outside itself"));
            };
            let key = match key {
                [INLINE, key @ ..] if key.len() == 4 => self.order.u32(key, 0),
                _ => None,
            };
            let Some(key) = key else {
                return Err(damaged("has a key that is no header number"));
            };
            if key == 0 {
                self.counter = self.order.u32(value, 1).unwrap_or(0);
                continue;
            }
            if self.entries.len() >= MAX_HEADERS {
                return Err(super::TOO_MANY);
            }
            let offset = u64::from(number) * self.page_size as u64 + at as u64;
            let value = match value {
                [INLINE, inside @ ..] => Value::Inline {
                    offset: offset + 1,
                    length: inside.len() as u64,
                },
                [OFF_PAGE, ..] if value.len() == 12 => Value::OffPage {
                    page: self.order.u32(value, 4).unwrap_or(0),
                    length: u64::from(self.order.u32(value, 8).unwrap_or(0)),
                },
                _ => Value::Unusable,
            };
            self.entries.push(Entry { number: key, value });
        }
        Ok(next)
    }

    /// Offset within the page and bytes of an item; each ends where the one before it begins.
    fn item<'a>(&self, page: &'a [u8], index: u16) -> Option<(usize, &'a [u8])> {
        let offset = |index: u16| {
            let at = PAGE_HEADER + 2 * usize::from(index);
            self.order.u16(page, at).map(usize::from)
        };
        let start = offset(index)?;
        let end = match index.checked_sub(1) {
            Some(before) => offset(before)?,
            None => page.len(),
        };
        Some((start, page.get(start..end)?))
    }

    fn read(&self, number: u32, page: &mut [u8]) -> Result<(), Error> {
        let offset = u64::from(number) * self.page_size as u64;
        if number == 0 || read_up_to(&self.source, page, offset)? < page.len() {
            return Err(Error::damaged(
                Place::Page(number),
                "is referred to but does not exist",
            ));
        }
        Ok(())
    }

    pub(super) fn headers(&mut self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut run = Vec::new();
        let mut chain = Vec::new();
        let mut left = self.page_count;
        for entry in &self.entries {
            chain.clear();
            let mut blob = Chain {
                database: self,
                entry: *entry,
                links: &mut chain,
                left: &mut left,
                run: &mut run,
                run_first: 0,
                run_pages: 0,
            };
            let length = blob.length();
            let (check, result) = match blob.check() {
                Ok(check) => (check, Ok(&mut blob as &mut dyn Blob)),
                Err(error) => (0, Err(error)),
            };
            let item = Item {
                number: entry.number,
                length,
                check,
                blob: result,
            };
            if visit(item).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// A header that lies on a chain of overflow pages, followed only as far as bytes are asked for.
struct Chain<'a, S> {
    database: &'a BdbDatabase<S>,
    entry: Entry,
    /// Pages known so far, each with the offset in the header at which its data ends.
    links: &'a mut Vec<(u32, u64)>,
    /// Pages that headers may still use: each belongs to one of them.
    left: &'a mut u32,
    run: &'a mut Vec<u8>,
    run_first: u32,
    run_pages: u32,
}

/// Pages fetched at once on the way along a chain: they are mostly written one after the other.
const RUN: u64 = 16;

impl<S: ReadAt> Chain<'_, S> {
    /// A check over the first bytes, without reading the rest.
    fn check(&mut self) -> Result<u64, Error> {
        let (offset, most) = match self.entry.value {
            Value::Inline { offset, length } => (offset, length),
            Value::OffPage { page, .. } => {
                (u64::from(page) * self.database.page_size as u64, u64::MAX)
            }
            Value::Unusable => return Err(self.damaged("it is stored in an unknown way")),
        };
        let mut bytes = [0; CHECKED];
        let most = usize::try_from(most).unwrap_or(CHECKED).min(CHECKED);
        let bytes = bytes.get_mut(..most).unwrap_or_default();
        let got = read_up_to(&self.database.source, bytes, offset)?;
        Ok(super::check(bytes.get(..got).unwrap_or_default()))
    }

    fn damaged(&self, why: &'static str) -> Error {
        Error::damaged(Place::Header(self.entry.number), why)
    }

    /// Bytes of an overflow page, from those already fetched where possible.
    fn page(&mut self, number: u32, ahead: u64) -> Result<&[u8], Error> {
        let size = self.database.page_size;
        let inside = number.checked_sub(self.run_first);
        let index = match inside.filter(|index| *index < self.run_pages) {
            Some(index) => index as usize,
            None => {
                let pages = usize::try_from(ahead.clamp(1, RUN)).unwrap_or(1);
                self.run_pages = 0;
                self.run.resize(pages * size, 0);
                let offset = u64::from(number) * size as u64;
                let got = read_up_to(&self.database.source, self.run, offset)?;
                self.run_pages = u32::try_from(got / size).unwrap_or(0);
                self.run_first = number;
                0
            }
        };
        self.run
            .get(index * size..(index + 1) * size)
            .filter(|_| number != 0 && self.run_pages > 0)
            .ok_or(Error::damaged(
                Place::Page(number),
                "is referred to but does not exist",
            ))
    }

    /// Follows the chain by one page. `ahead` is about how many more will be asked for.
    fn extend(&mut self, first: u32, ahead: u64) -> Result<(), Error> {
        let order = self.database.order;
        let (number, start) = match self.links.last() {
            None => (first, 0),
            Some((last, end)) => {
                let (last, end) = (*last, *end);
                let next = order.u32(self.page(last, 1)?, 16).unwrap_or(0);
                (next, end)
            }
        };
        *self.left = self.left.checked_sub(1).ok_or(Error::damaged(
            Place::Page(number),
            "is used more than once",
        ))?;
        let page = self.page(number, ahead)?;
        let bytes = order.u16(page, 22).map_or(0, u64::from);
        let whole = page.get(25) == Some(&OVERFLOW) && order.u32(page, 8) == Some(number);
        if !whole || bytes == 0 || bytes > (page.len() - PAGE_HEADER) as u64 {
            return Err(Error::damaged(
                Place::Page(number),
                "is no overflow page with data",
            ));
        }
        self.links.push((number, start + bytes));
        Ok(())
    }
}

impl<S: ReadAt> Blob for Chain<'_, S> {
    fn length(&self) -> u64 {
        match self.entry.value {
            Value::Inline { length, .. } | Value::OffPage { length, .. } => length,
            Value::Unusable => 0,
        }
    }

    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error> {
        let rest = self.length().checked_sub(offset).filter(|rest| *rest > 0);
        let rest = rest.ok_or(self.damaged("it ends early"))?;
        let rest = usize::try_from(rest).unwrap_or(usize::MAX);
        let first = match self.entry.value {
            Value::OffPage { page, .. } => page,
            Value::Inline { offset: start, .. } => {
                self.run_pages = 0;
                self.run.resize(rest.min(self.database.page_size), 0);
                let got = read_up_to(&self.database.source, self.run, start + offset)?;
                return Ok(self.run.get(..got).unwrap_or_default());
            }
            Value::Unusable => return Err(self.damaged("it is stored in an unknown way")),
        };
        let per_page = (self.database.page_size - PAGE_HEADER) as u64;
        while self.links.last().is_none_or(|(_, end)| *end <= offset) {
            let reached = self.links.last().map_or(0, |(_, end)| *end);
            self.extend(first, (offset - reached) / per_page + 1)?;
        }
        let at = self.links.partition_point(|(_, end)| *end <= offset);
        let start = match at.checked_sub(1) {
            Some(before) => self.links.get(before).map_or(0, |(_, end)| *end),
            None => 0,
        };
        let Some((page, end)) = self.links.get(at).copied() else {
            return Err(self.damaged("it ends early"));
        };
        let within = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let length = usize::try_from(end - start).unwrap_or(0);
        let from = PAGE_HEADER.saturating_add(within);
        let to = (PAGE_HEADER + length).min(from.saturating_add(rest));
        self.page(page, 1)?
            .get(from..to)
            .ok_or(Error::damaged(Place::Page(page), "is too short"))
    }
}
