//! Pages of a database, with newer versions of them laid over the main file.
//!
//! A page is taken from the overlay (committed frames of the `-wal`, or the originals kept in a hot
//! `-journal`) where it has one, else from the main file.
//!
//! A chain of overflow pages is read in runs: sqlite mostly gives a chain consecutive pages, so the
//! pages behind the one asked for are fetched with it. That is a guess about speed only. What was
//! fetched is kept by page number, and which page comes next is always read from the page itself.

use super::run::{Ahead, Run, Streak};
use crate::rpmdb::error::{Error, Place};
use crate::rpmdb::source::number::{be_u16, be_u32};
use crate::rpmdb::source::{ReadAt, read_up_to};

/// Bytes at the start of an overflow page that point to the next.
pub(super) const CHAIN_POINTER: usize = 4;
const HEADER: usize = 100;

/// Newer (or older) versions of pages, kept in another file.
#[derive(Debug)]
pub(super) struct Overlay<S> {
    pub(super) source: S,
    /// Page number and where its bytes are in `source`, sorted by page, one entry each.
    pub(super) pages: Vec<(u32, u64)>,
    /// Length of the database with the overlay applied, in pages.
    pub(super) page_count: u32,
    pub(super) page_size: u32,
}

impl<S> Overlay<S> {
    fn find(&self, page: u32) -> Option<u64> {
        let at = self.pages.binary_search_by_key(&page, |(p, _)| *p).ok()?;
        self.pages.get(at).map(|(_, offset)| *offset)
    }

    /// How many pages from `page` on are not kept here, `most` at the most.
    fn absent(&self, page: u32, most: u32) -> u32 {
        let next = self.pages.partition_point(|(p, _)| *p < page);
        let free = self.pages.get(next).map_or(most, |(p, _)| p - page);
        free.min(most)
    }
}

/// The 100 bytes at the start of a database, as far as a reader needs them.
/// <https://sqlite.org/fileformat2.html#the_database_header>
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) page_size: u32,
    pub(super) reserved: u8,
    /// As the header says; `None` when an old writer left it stale.
    pub(super) page_count: Option<u32>,
    pub(super) encoding: Encoding,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf8,
    Utf16Le,
    Utf16Be,
}

impl FileHeader {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |why| Error::damaged(Place::FileHeader, why);
        if bytes.is_empty() {
            return Err(damaged("is missing, the file is empty"));
        }
        if bytes.get(..16) != Some(b"SQLite format 3\0") {
            return Err(damaged("is not that of an sqlite database"));
        }
        let short = || damaged("is cut off");
        let page_size = match be_u16(bytes, 16).ok_or_else(short)? {
            1 => 65_536,
            size if size >= 512 && size.is_power_of_two() => u32::from(size),
            _ => return Err(damaged("has an impossible page size")),
        };
        let reserved = *bytes.get(20).ok_or_else(short)?;
        if page_size - u32::from(reserved) < 480 {
            return Err(damaged("leaves no room in a page"));
        }
        if bytes.get(19).is_none_or(|version| *version > 2) {
            return Err(Error::Unsupported(
                "is of a newer sqlite file format than this reader knows",
            ));
        }
        let (changes, valid_for) = (be_u32(bytes, 24), be_u32(bytes, 92));
        let page_count = be_u32(bytes, 28).filter(|n| *n > 0 && changes == valid_for);
        Ok(Self {
            page_size,
            reserved,
            page_count,
            encoding: match be_u32(bytes, 56).ok_or_else(short)? {
                // 0 in a file that nothing was stored in yet.
                0 | 1 => Encoding::Utf8,
                2 => Encoding::Utf16Le,
                3 => Encoding::Utf16Be,
                _ => return Err(damaged("names an unknown text encoding")),
            },
        })
    }
}

/// The main file and what is laid over it.
#[derive(Debug)]
struct Files<S> {
    main: S,
    overlay: Option<Overlay<S>>,
    header: FileHeader,
}

impl<S> Files<S> {
    /// Where the newest version of `page` is.
    fn place(&self, page: u32) -> (&S, u64) {
        match self.overlay.as_ref().and_then(|o| Some((o, o.find(page)?))) {
            Some((overlay, offset)) => (&overlay.source, offset),
            None => {
                let before = u64::from(page.saturating_sub(1));
                (&self.main, before * u64::from(self.header.page_size))
            }
        }
    }

    /// How many pages from `page` on lie in one piece, `most` at the most. In an overlay each
    /// stands alone.
    fn together(&self, page: u32, most: u32) -> u32 {
        match &self.overlay {
            Some(overlay) => overlay.absent(page, most).max(1),
            None => most,
        }
    }
}

/// Reads pages by number.
#[derive(Debug)]
pub(super) struct Pager<S> {
    files: Files<S>,
    page_count: u32,
    /// What was fetched last of a chain of overflow pages.
    run: Run,
    /// How far such chains were consecutive lately.
    streak: Streak,
    /// A bit for each page, set when the current walk came by: every page belongs to one place
    /// only, so one met twice is damage, and no walk is longer than the file.
    visited: Vec<u64>,
}

impl<S: ReadAt> Pager<S> {
    pub(super) fn new(main: S, overlay: Option<Overlay<S>>) -> Result<Self, Error> {
        let mut first = [0; HEADER];
        let got = match overlay.as_ref().and_then(|o| Some((o, o.find(1)?))) {
            Some((overlay, offset)) => read_up_to(&overlay.source, &mut first, offset)?,
            None => read_up_to(&main, &mut first, 0)?,
        };
        let header = FileHeader::parse(first.get(..got).unwrap_or_default())?;
        if overlay
            .as_ref()
            .is_some_and(|o| o.page_size != header.page_size)
        {
            return Err(Error::damaged(
                Place::FileHeader,
                "has another page size than the log beside the file",
            ));
        }
        let in_file = main.size() / u64::from(header.page_size);
        let in_file = u32::try_from(in_file).unwrap_or(u32::MAX);
        // Pages that are claimed but not there are not counted.
        let page_count = match &overlay {
            Some(overlay) => {
                let last = overlay.pages.last().map_or(0, |(page, _)| *page);
                overlay.page_count.min(in_file.max(last))
            }
            None => header.page_count.unwrap_or(in_file).min(in_file),
        };
        let page_size = header.page_size as usize;
        Ok(Self {
            run: Run::new(page_size, page_size - usize::from(header.reserved)),
            files: Files {
                main,
                overlay,
                header,
            },
            page_count,
            streak: Streak::default(),
            visited: Vec::new(),
        })
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.files.header.encoding
    }

    /// Bytes of a page that hold content.
    pub(super) fn usable(&self) -> usize {
        (self.files.header.page_size - u32::from(self.files.header.reserved)) as usize
    }

    /// Begins a walk, in which every page may be visited once.
    pub(super) fn begin_walk(&mut self) {
        self.visited.clear();
    }

    /// Notes a visit of `page`, which must be a page of this database.
    pub(super) fn visit(&mut self, page: u32) -> Result<(), Error> {
        let damaged = |why| Error::damaged(Place::Page(page), why);
        if page == 0 || page > self.page_count {
            return Err(damaged("is referred to but does not exist"));
        }
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        if word >= self.visited.len() {
            self.visited.resize(word + 1, 0);
        }
        match self.visited.get_mut(word) {
            Some(seen) if *seen & bit == 0 => *seen |= bit,
            _ => return Err(damaged("is used more than once")),
        }
        Ok(())
    }

    /// Replaces `into` by the usable bytes of `page`.
    pub(super) fn read(&self, page: u32, into: &mut Vec<u8>) -> Result<(), Error> {
        into.resize(self.usable(), 0);
        let (source, offset) = self.files.place(page);
        if read_up_to(source, into, offset)? < into.len() {
            return Err(past_the_end(page));
        }
        Ok(())
    }

    /// The page that follows `page` in its chain, 0 after the last, when bytes `ahead` of it are
    /// what is wanted in the end.
    pub(super) fn next_in_chain(&mut self, page: u32, ahead: Ahead) -> Result<u32, Error> {
        if self.run.seen(page, 0).is_none() && self.trusted(page, ahead) > 0 {
            self.fetch(page, 0, ahead)?;
        }
        let next = match self.run.seen(page, 0).and_then(|bytes| be_u32(bytes, 0)) {
            Some(next) => next,
            None => self.pointer(page)?,
        };
        self.streak.followed(page, next);
        Ok(next)
    }

    /// Bytes of `page` from `at` on: as many as lie in it, or fewer. With them comes what is wanted
    /// `ahead` of it.
    pub(super) fn part(&mut self, page: u32, at: usize, ahead: Ahead) -> Result<&[u8], Error> {
        if self.run.seen(page, at).is_none() {
            let whole = at <= CHAIN_POINTER || self.trusted(page, ahead) > 0;
            self.fetch(page, if whole { 0 } else { at }, ahead)?;
        }
        self.run.seen(page, at).ok_or(past_the_end(page))
    }

    /// Pages behind `page` that are worth fetching with it.
    fn trusted(&self, page: u32, ahead: Ahead) -> u32 {
        let most = ahead
            .pages
            .min(self.streak.pages(self.files.header.page_size));
        if most == 0 {
            return 0;
        }
        let there = self.page_count.saturating_sub(page).min(most);
        self.files.together(page, there + 1) - 1
    }

    /// Fetches a run that begins at byte `at` of `page`.
    fn fetch(&mut self, page: u32, at: usize, ahead: Ahead) -> Result<(), Error> {
        let more = self.trusted(page, ahead);
        let end = match ahead.pages {
            pages if pages == more => ahead.end.min(self.usable()),
            _ => self.usable(),
        };
        let length = more as usize * self.files.header.page_size as usize + end.max(at + 1) - at;
        self.run.fetch(self.files.place(page), (page, at), length)?;
        Ok(())
    }

    /// The first bytes of an overflow page alone: they cost a third of the whole page.
    fn pointer(&self, page: u32) -> Result<u32, Error> {
        let mut bytes = [0; CHAIN_POINTER];
        let (source, offset) = self.files.place(page);
        if read_up_to(source, &mut bytes, offset)? < bytes.len() {
            return Err(past_the_end(page));
        }
        Ok(u32::from_be_bytes(bytes))
    }
}

fn past_the_end(page: u32) -> Error {
    Error::damaged(Place::Page(page), "lies past the end of the file")
}
