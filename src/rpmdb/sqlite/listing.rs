//! What rpm's own indexes say of each header: a hundredth of the pages that the headers take.
//!
//! ```text
//! Name         key TEXT   hnum  idx     one row for each header
//! Installtid   key BLOB   hnum  idx     the transaction that added it
//! Sigmd5       key BLOB   hnum  idx     its digest, where it has one
//! ```
//! rpm writes them in the transaction that writes the header (`lib/backend/sqlite.c`). All of it is
//! gone over at every rescan, so nothing is copied or looked for that need not be.

use super::btree::walk;
use super::pager::Encoding;
use super::record::{self, varint};
use super::{MAX_VALUE, SqliteDatabase, Table, bad_record};
use crate::rpmdb::error::Error;
use crate::rpmdb::header::Blob as _;
use crate::rpmdb::source::ReadAt;
use crate::rpmdb::{Listed, MAX_HEADERS, check};
use std::ops::ControlFlow;

impl<S: ReadAt> SqliteDatabase<S> {
    /// The headers, sorted by number; `None` when the indexes are missing or contradict themselves.
    pub(in crate::rpmdb) fn listing(&mut self) -> Result<Option<Vec<Listed>>, Error> {
        let (Some(names), Some(times)) = (
            self.table("Name").cloned(),
            self.table("Installtid").cloned(),
        ) else {
            return Ok(None);
        };
        let mut listing: Vec<Listed> = Vec::new();
        let mut sound = true;
        self.entries(&names, &mut |entry| match entry {
            Some(Entry { key, number }) if key.is_text() && listing.len() < MAX_HEADERS => {
                let name = key.check().unwrap_or(0);
                listing.extend(number.map(|number| Listed {
                    number,
                    name,
                    check: name,
                }));
            }
            _ => sound = false,
        })?;
        listing.sort_unstable_by_key(|listed| listed.number);
        sound &= listing.is_sorted_by(|a, b| a.number < b.number);
        // Not every header has a digest; where it has, the digest tells one version from another.
        let digests = self.table("Sigmd5").cloned();
        for table in std::iter::once(times).chain(digests) {
            let mut next = 0;
            self.entries(&table, &mut |entry| {
                let place = entry.as_ref().and_then(|e| e.number);
                let place = place.and_then(|number| place_of(&listing, number, &mut next));
                let listed = place.and_then(|at| listing.get_mut(at));
                match (listed, entry.and_then(|entry| entry.key.check())) {
                    (Some(listed), Some(key)) => {
                        let both = [listed.check.to_le_bytes(), key.to_le_bytes()];
                        listed.check = check(both.as_flattened());
                    }
                    _ => sound = false,
                }
            })?;
        }
        Ok(sound.then_some(listing))
    }

    /// Calls `visit` with every row of an index; `None` for one that no index of rpm has.
    fn entries(
        &mut self,
        index: &Table,
        visit: &mut dyn FnMut(Option<Entry<'_>>),
    ) -> Result<(), Error> {
        let (Some(key), Some(number)) = (index.column("key"), index.column("hnum")) else {
            visit(None);
            return Ok(());
        };
        let encoding = self.pager.encoding();
        let mut copy = Vec::new();
        walk(&mut self.pager, index.root, &mut |rowid, mut row| {
            let length = row.length();
            let whole = if row.local().len() as u64 == length {
                row.local()
            } else if length <= MAX_VALUE {
                row.copy(0, usize::try_from(length).unwrap_or(0), &mut copy)?;
                &copy
            } else {
                visit(None);
                return Ok(ControlFlow::Continue(()));
            };
            let key = field(whole, key, encoding).ok_or_else(|| bad_record(rowid))?;
            let number = field(whole, number, encoding).ok_or_else(|| bad_record(rowid))?;
            let number = number.integer().and_then(|n| u32::try_from(n).ok());
            visit(Some(Entry { key, number }));
            Ok(ControlFlow::Continue(()))
        })
    }
}

/// Where in the listing a header is. Every index lists them in the same order, but for what is
/// missing in one, so it is mostly the `next` one.
fn place_of(listing: &[Listed], number: u32, next: &mut usize) -> Option<usize> {
    let at = match listing.get(*next) {
        Some(listed) if listed.number == number => *next,
        _ => listing.binary_search_by_key(&number, |l| l.number).ok()?,
    };
    *next = at + 1;
    Some(at)
}

struct Entry<'a> {
    key: Field<'a>,
    number: Option<u32>,
}

/// One column of a row, where it lies.
struct Field<'a> {
    serial: u64,
    bytes: &'a [u8],
    encoding: Encoding,
}

/// The column at `place` of a record; `None` when that is damaged. NULL when it has fewer.
fn field(record: &[u8], place: usize, encoding: Encoding) -> Option<Field<'_>> {
    let (length, _) = varint(record)?;
    let header = record.get(..usize::try_from(length).ok()?)?;
    let (serial, bytes) = match record::columns(header).nth(place) {
        Some(column) => {
            let column = column?;
            let start = usize::try_from(column.offset).ok()?;
            let end = start.checked_add(usize::try_from(column.length).ok()?)?;
            (column.serial, record.get(start..end)?)
        }
        None => (0, [].as_slice()),
    };
    Some(Field {
        serial,
        bytes,
        encoding,
    })
}

impl Field<'_> {
    fn is_text(&self) -> bool {
        self.serial >= 13 && !self.serial.is_multiple_of(2)
    }

    fn integer(&self) -> Option<i64> {
        match self.serial {
            1..=6 | 8 | 9 => record::value(self.serial, self.bytes, self.encoding).integer(),
            _ => None,
        }
    }

    /// A sum over what it holds, text as UTF-8; `None` for what is no key. rpm stores a time as
    /// four bytes; an integer would do as well.
    fn check(&self) -> Option<u64> {
        if self.is_text()
            && (self.encoding != Encoding::Utf8 || str::from_utf8(self.bytes).is_err())
        {
            let value = record::value(self.serial, self.bytes, self.encoding);
            return value.text().map(|text| check(text.as_bytes()));
        }
        match self.serial {
            12.. => Some(check(self.bytes)),
            _ => self.integer().map(i64::cast_unsigned),
        }
    }
}
