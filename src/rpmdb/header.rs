//! One package header: the blob that all three formats store, big endian on every machine.
//!
//! ```text
//! il u32 | dl u32 | il index entries of 16 bytes | dl bytes of data
//!                   tag u32, type u32, offset u32 into the data, count u32
//! ```
//!
//! Only the index and the few wanted strings are read: a header may be megabytes long, nearly all
//! of it file lists. Most headers begin with a region entry (tag 61, 62 or 63) that marks what was
//! signed; entries after the region were added at install and replace one of the same tag, so the
//! last entry of a tag wins, and headers without any region need no special case. Limits and types
//! are those of librpm (`lib/header.cc`, `lib/rpmtag.h`), which refuses a header for one bad entry.
//! Of its checks, those that need every byte of the data are left out: the ends of strings nobody
//! wants, and digests.

use super::error::{Error, Place};
use super::source::number::be_u32;
use crate::report::escape::escape;
use crate::report::{ABSENT, Evr, Origin, Package, PackageDetails};
use std::ffi::CStr;

/// The bytes of one header, wherever in the database they lie.
pub trait Blob {
    /// Length in bytes.
    fn length(&self) -> u64;

    /// Says that bytes up to `end` will be asked for, so that they can be fetched together.
    fn announce(&mut self, _end: u64) {}

    /// Bytes from `offset` on, as many as lie together; never none while `offset` is inside.
    ///
    /// # Errors
    /// The database is damaged on the way to these bytes, or cannot be read.
    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error>;
}

impl Blob for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error> {
        usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..))
            .filter(|bytes| !bytes.is_empty())
            .ok_or(Error::damaged(Place::Offset(offset), "past the end"))
    }
}

/// What a header describes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are packages, and each is moved once"
)]
pub enum Described {
    /// An installed package.
    Package(Package),
    /// A public key that rpm keeps as a pseudo package (`gpg-pubkey`); nothing is installed.
    Key,
}

/// Buffers kept between headers, so that reading thousands takes memory once.
#[derive(Debug, Default)]
pub struct Scratch {
    index: Vec<u8>,
    text: Vec<u8>,
}

/// Entries that librpm accepts in an index.
const MAX_ENTRIES: u32 = 65_535;
/// Data bytes that librpm accepts.
const MAX_DATA: u32 = 256 * 1024 * 1024 - 1;
/// Longest wanted string; far beyond any real one, small enough for a report.
const MAX_TEXT: usize = 4096;
const ENTRY: u64 = 16;
/// Few wanted strings are longer.
const USUAL_TEXT: u64 = 128;

const TYPE_INT32: u32 = 4;
const TYPE_STRING: u32 = 6;
const TYPE_STRING_ARRAY: u32 = 8;
const TYPE_I18N: u32 = 9;
/// Bytes of one value of each type; 0 where that depends on the value. NULL, CHAR, INT8, INT16,
/// INT32, INT64, STRING, BIN, STRING_ARRAY, I18NSTRING.
const SIZES: [u32; 10] = [0, 1, 1, 2, 4, 8, 0, 1, 0, 0];

const NAME: usize = 0;
const VERSION: usize = 1;
const RELEASE: usize = 2;
const EPOCH: usize = 3;
const ARCH: usize = 4;
const SOURCERPM: usize = 5;
const MODULARITYLABEL: usize = 6;
const VENDOR: usize = 7;
const LICENSE: usize = 8;
const WANTED: usize = 9;

/// What a caller wants of a header: `N` tags, each with a slot.
trait Wanted<const N: usize> {
    /// The slot of a tag; `None` for one that is not wanted.
    fn slot(tag: u32) -> Option<usize>;

    /// Whether what an entry holds can be what `slot` is for; `None` when it can be left out.
    fn fits(entry: Entry, slot: usize) -> Option<bool>;
}

/// The tags that a report has.
struct Content;

impl Wanted<WANTED> for Content {
    fn slot(tag: u32) -> Option<usize> {
        Some(match tag {
            1000 => NAME,
            1001 => VERSION,
            1002 => RELEASE,
            1003 => EPOCH,
            1011 => VENDOR,
            1014 => LICENSE,
            1022 => ARCH,
            1044 => SOURCERPM,
            5096 => MODULARITYLABEL,
            _ => return None,
        })
    }

    fn fits(entry: Entry, slot: usize) -> Option<bool> {
        match (slot, entry.kind) {
            (EPOCH, TYPE_INT32) => Some(true),
            (EPOCH, _) => Some(false),
            (VENDOR | LICENSE, TYPE_STRING | TYPE_I18N) => Some(true),
            (VENDOR | LICENSE, _) => None,
            (_, TYPE_STRING | TYPE_STRING_ARRAY | TYPE_I18N) => Some(true),
            // A number in packages of the last century.
            (ARCH, 1..TYPE_STRING) => None,
            _ => Some(false),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: u32,
    offset: u32,
    count: u32,
}

impl Entry {
    /// Whether librpm would take it: of a known type, aligned, and inside the data.
    fn is_sound(&self, data: u32) -> bool {
        let size = usize::try_from(self.kind)
            .ok()
            .and_then(|kind| SIZES.get(kind).copied());
        let Some(size) = size else { return false };
        let length = u64::from(self.count) * u64::from(size);
        (1..=data).contains(&self.count)
            && u64::from(self.offset) + length.max(1) <= u64::from(data)
            // Sizes are powers of two, and 0 divides everything here.
            && self.offset & size.saturating_sub(1) == 0
    }
}

/// The tags of [`PackageDetails`], none of which a package needs.
struct Details;

const SUMMARY: usize = 0;
const URL: usize = 1;
const PACKAGER: usize = 2;
const BUILDTIME: usize = 3;
const INSTALLTIME: usize = 4;
const DETAILS: usize = 5;

impl Wanted<DETAILS> for Details {
    fn slot(tag: u32) -> Option<usize> {
        Some(match tag {
            1004 => SUMMARY,
            1006 => BUILDTIME,
            1008 => INSTALLTIME,
            1015 => PACKAGER,
            1020 => URL,
            _ => return None,
        })
    }

    fn fits(entry: Entry, slot: usize) -> Option<bool> {
        match (slot, entry.kind) {
            (BUILDTIME | INSTALLTIME, TYPE_INT32) => Some(true),
            (SUMMARY | URL | PACKAGER, TYPE_STRING | TYPE_I18N) => Some(true),
            _ => None,
        }
    }
}

/// Reads what a report needs of one header.
///
/// # Errors
/// The blob is no header, or a wanted part of it is damaged or cannot be reached. `hnum` only
/// names the header in errors.
pub fn read(blob: &mut dyn Blob, hnum: u32, scratch: &mut Scratch) -> Result<Described, Error> {
    Reader { blob, hnum }.read(scratch)
}

/// Reads the tags that only a bill of materials shows; a damaged one is left out.
///
/// # Errors
/// The blob is no header, or cannot be reached.
pub fn details(
    blob: &mut dyn Blob,
    hnum: u32,
    scratch: &mut Scratch,
) -> Result<PackageDetails, Error> {
    Reader { blob, hnum }.details(scratch)
}

fn owned(text: &[u8]) -> String {
    escape(text).into_owned()
}

struct Reader<'a> {
    blob: &'a mut dyn Blob,
    hnum: u32,
}

impl Reader<'_> {
    fn details(&mut self, scratch: &mut Scratch) -> Result<PackageDetails, Error> {
        let (entries, data, data_at) = self.lengths(scratch)?;
        let wanted: [_; DETAILS] = self.index::<DETAILS, Details>(entries, data, scratch)?;
        let [summary, url, packager, built_at, installed_at] = wanted;
        let mut text = |entry: Option<Entry>| {
            let text = entry.and_then(|e| self.text(e, data_at, data, scratch).unwrap_or(None));
            text.filter(|text| !text.is_empty())
        };
        let (summary, url, packager) = (text(summary), text(url), text(packager));
        let mut number =
            |entry: Option<Entry>| entry.and_then(|e| self.int32(e, data_at, data, scratch).ok());
        Ok(PackageDetails {
            summary,
            url,
            packager,
            built_at: number(built_at),
            installed_at: number(installed_at),
        })
    }

    fn read(&mut self, scratch: &mut Scratch) -> Result<Described, Error> {
        let (entries, data, data_at) = self.lengths(scratch)?;
        let wanted: [_; WANTED] = self.index::<WANTED, Content>(entries, data, scratch)?;
        // Read in the order in which they lie: the way to a byte leads over the ones before it.
        let mut order: [usize; WANTED] = std::array::from_fn(|slot| slot);
        order.sort_by_key(|slot| wanted.get(*slot).copied().flatten().map(|e| e.offset));
        let last = wanted.iter().flatten().map(|entry| entry.offset).max();
        self.blob
            .announce(data_at + u64::from(last.unwrap_or(0)) + USUAL_TEXT);
        let mut texts: [Option<String>; WANTED] = Default::default();
        let mut epoch = 0;
        for slot in order {
            let Some(entry) = wanted.get(slot).copied().flatten() else {
                continue;
            };
            if slot == EPOCH {
                epoch = self.int32(entry, data_at, data, scratch)?;
            } else if matches!(slot, VENDOR | LICENSE) {
                // What only people read costs no package when it is damaged or far too long.
                let text = self.text(entry, data_at, data, scratch);
                if let Some(place) = texts.get_mut(slot) {
                    *place = text.unwrap_or_default();
                }
            } else if let Some(text) = texts.get_mut(slot) {
                *text = self.text(entry, data_at, data, scratch)?;
            }
        }
        let [
            name,
            version,
            release,
            _,
            arch,
            source_rpm,
            modularity_label,
            vendor,
            license,
        ] = texts;
        let name = name
            .filter(|n| !n.is_empty())
            .ok_or_else(|| self.damaged("it has no NAME"))?;
        if name == "gpg-pubkey" {
            return Ok(Described::Key);
        }
        Ok(Described::Package(Package {
            name,
            evr: Evr {
                epoch,
                version: version.unwrap_or_else(|| ABSENT.to_owned()),
                release: release.unwrap_or_else(|| ABSENT.to_owned()),
            },
            arch,
            source_rpm,
            modularity_label,
            vendor,
            license,
            origin: Origin::Unrecorded,
        }))
    }

    /// Entries of the index, bytes of data, and where those begin.
    fn lengths(&mut self, scratch: &mut Scratch) -> Result<(u32, u32, u64), Error> {
        if self.blob.length() < 8 {
            return Err(self.damaged("it is shorter than a header"));
        }
        self.gather(0, 8, &mut scratch.index)?;
        let (Some(entries), Some(data)) = (be_u32(&scratch.index, 0), be_u32(&scratch.index, 4))
        else {
            return Err(self.damaged("it is shorter than a header"));
        };
        if entries == 0 || entries > MAX_ENTRIES || data > MAX_DATA {
            return Err(self.damaged("its counts are out of range"));
        }
        let data_at = 8 + u64::from(entries) * ENTRY;
        if self.blob.length() != data_at + u64::from(data) {
            return Err(self.damaged("its length is not that of its parts"));
        }
        Ok((entries, data, data_at))
    }

    /// The last entry of each wanted tag, once every entry is found sound.
    fn index<const N: usize, W: Wanted<N>>(
        &mut self,
        entries: u32,
        data: u32,
        scratch: &mut Scratch,
    ) -> Result<[Option<Entry>; N], Error> {
        let hnum = self.hnum;
        let damaged = |why| Error::damaged(Place::Header(hnum), why);
        let length = usize::try_from(u64::from(entries) * ENTRY).unwrap_or(usize::MAX);
        let first = self.blob.chunk(8)?;
        // Nearly always the index lies in one piece and need not be copied.
        let index = if let Some(whole) = first.get(..length) {
            whole
        } else {
            self.gather(8, length, &mut scratch.index)?;
            &scratch.index
        };
        let mut wanted = [None; N];
        for entry in index.as_chunks::<16>().0 {
            let word = |at| be_u32(entry, at).unwrap_or(0);
            let tag = word(0);
            let entry = Entry {
                kind: word(4),
                offset: word(8),
                count: word(12),
            };
            if !entry.is_sound(data) {
                return Err(damaged("an entry of its index is out of range"));
            }
            let Some(slot) = W::slot(tag) else { continue };
            match (W::fits(entry, slot), wanted.get_mut(slot)) {
                (Some(true), Some(place)) => *place = Some(entry),
                (Some(false), _) => return Err(damaged("a wanted tag is of another type")),
                (None, _) | (_, None) => {}
            }
        }
        Ok(wanted)
    }

    fn int32(
        &mut self,
        entry: Entry,
        data_at: u64,
        data: u32,
        scratch: &mut Scratch,
    ) -> Result<u32, Error> {
        if entry.offset.checked_add(4).is_none_or(|end| end > data) {
            return Err(self.damaged("a number lies outside its data"));
        }
        self.gather(data_at + u64::from(entry.offset), 4, &mut scratch.text)?;
        be_u32(&scratch.text, 0).ok_or_else(|| self.damaged("a number lies outside its data"))
    }

    /// The first string of an entry, escaped.
    fn text(
        &mut self,
        entry: Entry,
        data_at: u64,
        data: u32,
        scratch: &mut Scratch,
    ) -> Result<Option<String>, Error> {
        // librpm ignores the type of ARCH when it is a legacy number, but not a string that claims
        // to be more than one.
        if entry.kind == TYPE_STRING && entry.count != 1 {
            return Err(self.damaged("a single string claims to be several"));
        }
        let end = data_at + u64::from(data);
        let mut at = data_at + u64::from(entry.offset);
        scratch.text.clear();
        while at < end {
            let chunk = self.blob.chunk(at)?;
            let rest = usize::try_from(end - at).unwrap_or(usize::MAX);
            let chunk = chunk.get(..chunk.len().min(rest)).unwrap_or_default();
            if let Ok(piece) = CStr::from_bytes_until_nul(chunk)
                && scratch.text.len() + piece.count_bytes() <= MAX_TEXT
            {
                let piece = piece.to_bytes();
                if scratch.text.is_empty() {
                    return Ok(Some(owned(piece)));
                }
                scratch.text.extend_from_slice(piece);
                return Ok(Some(owned(&scratch.text)));
            }
            if chunk.is_empty() || scratch.text.len() + chunk.len() > MAX_TEXT {
                break;
            }
            scratch.text.extend_from_slice(chunk);
            at += chunk.len() as u64;
        }
        Err(self.damaged("a string does not end inside its data, or is far too long"))
    }

    /// Copies `length` bytes from `offset` into `into`.
    fn gather(&mut self, offset: u64, length: usize, into: &mut Vec<u8>) -> Result<(), Error> {
        into.clear();
        while into.len() < length {
            let chunk = self.blob.chunk(offset + into.len() as u64)?;
            let n = chunk.len().min(length - into.len());
            match chunk.get(..n) {
                Some(bytes) if n > 0 => into.extend_from_slice(bytes),
                _ => return Err(self.damaged("it ends early")),
            }
        }
        Ok(())
    }

    fn damaged(&self, why: &'static str) -> Error {
        Error::damaged(Place::Header(self.hnum), why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of these entries: tag, type, count, data.
    fn header(entries: &[(u32, u32, u32, &[u8])]) -> Vec<u8> {
        let (mut index, mut data) = (Vec::new(), Vec::new());
        for (tag, kind, count, bytes) in entries {
            let offset = u32::try_from(data.len()).unwrap();
            for word in [*tag, *kind, offset, *count] {
                index.extend_from_slice(&word.to_be_bytes());
            }
            data.extend_from_slice(bytes);
        }
        let lengths = [entries.len(), data.len()].map(|n| u32::try_from(n).unwrap().to_be_bytes());
        [lengths.concat(), index, data].concat()
    }

    fn details_of(entries: &[(u32, u32, u32, &[u8])]) -> Result<PackageDetails, Error> {
        let blob = header(entries);
        details(&mut blob.as_slice(), 7, &mut Scratch::default())
    }

    const TAG_SUMMARY: u32 = 1004;
    const TAG_BUILD_TIME: u32 = 1006;
    const TAG_INSTALL_TIME: u32 = 1008;
    const TAG_PACKAGER: u32 = 1015;
    const TAG_URL: u32 = 1020;

    #[test]
    fn details_are_read_and_the_first_of_several_translations_is_taken() {
        let found = details_of(&[
            (
                TAG_BUILD_TIME,
                TYPE_INT32,
                1,
                &1_600_000_000u32.to_be_bytes(),
            ),
            (
                TAG_INSTALL_TIME,
                TYPE_INT32,
                1,
                &1_700_000_000u32.to_be_bytes(),
            ),
            (TAG_SUMMARY, TYPE_I18N, 2, b"A toolkit\0Ein Werkzeug\0"),
            (TAG_PACKAGER, TYPE_STRING, 1, b"Ops \xff<ops@example.com>\0"),
            (TAG_URL, TYPE_STRING, 1, b"http://www.openssl.org/\0"),
        ]);
        let expected = PackageDetails {
            summary: Some("A toolkit".into()),
            url: Some("http://www.openssl.org/".into()),
            packager: Some("Ops \\xff<ops@example.com>".into()),
            built_at: Some(1_600_000_000),
            installed_at: Some(1_700_000_000),
        };
        assert_eq!(found.unwrap(), expected);
    }

    #[test]
    fn a_detail_that_is_damaged_is_left_out_and_costs_no_other() {
        let long = [vec![b'x'; MAX_TEXT + 1], vec![0]].concat();
        let found = details_of(&[
            (TAG_INSTALL_TIME, TYPE_INT32, 1, &5u32.to_be_bytes()),
            (TAG_SUMMARY, TYPE_I18N, 1, &long),
            (TAG_PACKAGER, TYPE_STRING, 1, b"\0"),
            // Without an end.
            (TAG_URL, TYPE_STRING, 1, b"http://"),
        ]);
        let expected = PackageDetails {
            installed_at: Some(5),
            ..PackageDetails::default()
        };
        assert_eq!(found.unwrap(), expected);
        let none = details_of(&[(1000, TYPE_STRING, 1, b"bash\0")]).unwrap();
        assert_eq!(none, PackageDetails::default());
    }

    #[test]
    fn details_of_what_is_no_header_are_an_error() {
        for mut blob in [&b""[..], b"\0\0\0\0\0\0\0\0", b"\0\0\0\x01\0\0\0\x01"] {
            assert!(details(&mut blob, 7, &mut Scratch::default()).is_err());
        }
        let outside = header(&[(TAG_URL, TYPE_STRING, 1, b"")]);
        assert!(details(&mut outside.as_slice(), 7, &mut Scratch::default()).is_err());
    }
}
