//! Pages of a database, with newer versions of them laid over the main file.
//!
//! A page is taken from the overlay (committed frames of the `-wal`, or the originals kept in a hot
//! `-journal`) where it has one, else from the main file. Chains of overflow pages are nearly
//! always written one after the other, so a walk along one reads several pages at a time and checks
//! each pointer in the bytes it already has.

use crate::rpmdb::error::{Error, Place};
use crate::rpmdb::source::number::{be_u16, be_u32};
use crate::rpmdb::source::{ReadAt, read_up_to};

/// Pages that a chain walk fetches at once, at most.
const RUN: u32 = 16;
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

/// Reads pages by number.
#[derive(Debug)]
pub(super) struct Pager<S> {
    main: S,
    overlay: Option<Overlay<S>>,
    header: FileHeader,
    page_count: u32,
    run: Vec<u8>,
    run_first: u32,
    run_pages: u32,
    /// Pages that may still be visited in the current walk; each belongs to one place only, so a
    /// walk that needs more than there are goes in circles.
    budget: u64,
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
        let page_count = match &overlay {
            Some(overlay) => overlay.page_count,
            None => header
                .page_count
                .unwrap_or(u32::try_from(in_file).unwrap_or(u32::MAX)),
        };
        Ok(Self {
            main,
            overlay,
            header,
            page_count,
            run: Vec::new(),
            run_first: 0,
            run_pages: 0,
            budget: 0,
        })
    }

    pub(super) fn encoding(&self) -> Encoding {
        self.header.encoding
    }

    /// Bytes of a page that hold content.
    pub(super) fn usable(&self) -> usize {
        (self.header.page_size - u32::from(self.header.reserved)) as usize
    }

    /// Begins a walk, in which every page may be visited once.
    pub(super) fn begin_walk(&mut self) {
        self.budget = u64::from(self.page_count);
    }

    /// Counts a visit of `page`, which must be a page of this database.
    pub(super) fn visit(&mut self, page: u32) -> Result<(), Error> {
        if page == 0 || page > self.page_count {
            return Err(Error::damaged(
                Place::Page(page),
                "is referred to but does not exist",
            ));
        }
        self.budget = self
            .budget
            .checked_sub(1)
            .ok_or(Error::damaged(Place::Page(page), "is used more than once"))?;
        Ok(())
    }

    /// Replaces `into` by the usable bytes of `page`.
    pub(super) fn read(&self, page: u32, into: &mut Vec<u8>) -> Result<(), Error> {
        into.resize(self.usable(), 0);
        match self.overlay.as_ref().and_then(|o| Some((o, o.find(page)?))) {
            Some((overlay, offset)) => read_all(&overlay.source, into, offset, page),
            None => read_all(&self.main, into, self.offset(page), page),
        }
    }

    /// Usable bytes of `page`, which is followed in its chain by about `ahead` more.
    pub(super) fn chained(&mut self, page: u32, ahead: u32) -> Result<&[u8], Error> {
        let inside = page
            .checked_sub(self.run_first)
            .filter(|n| *n < self.run_pages);
        let index = match inside {
            Some(index) => index,
            None => {
                self.load_run(page, ahead)?;
                0
            }
        };
        let start = index as usize * self.header.page_size as usize;
        self.run
            .get(start..start + self.usable())
            .ok_or(Error::damaged(
                Place::Page(page),
                "lies past the end of the file",
            ))
    }

    fn load_run(&mut self, page: u32, ahead: u32) -> Result<(), Error> {
        self.run_pages = 0;
        let size = self.header.page_size;
        let mut pages = 1 + ahead.min(RUN - 1).min(self.page_count.saturating_sub(page));
        let (source, offset) = match &self.overlay {
            None => (&self.main, self.offset(page)),
            Some(overlay) => match overlay.find(page) {
                Some(offset) => {
                    pages = 1;
                    (&overlay.source, offset)
                }
                None => {
                    // Stop in front of the next page that the overlay replaces.
                    let next = overlay.pages.partition_point(|(p, _)| *p < page);
                    if let Some((replaced, _)) = overlay.pages.get(next) {
                        pages = pages.min(replaced - page);
                    }
                    (&self.main, self.offset(page))
                }
            },
        };
        self.run.resize(pages as usize * size as usize, 0);
        let got = read_up_to(source, &mut self.run, offset)?;
        let whole = u32::try_from(got / size as usize).unwrap_or(0);
        if whole == 0 {
            return Err(Error::damaged(
                Place::Page(page),
                "lies past the end of the file",
            ));
        }
        (self.run_first, self.run_pages) = (page, whole);
        Ok(())
    }

    fn offset(&self, page: u32) -> u64 {
        u64::from(page.saturating_sub(1)) * u64::from(self.header.page_size)
    }
}

fn read_all<S: ReadAt>(source: &S, into: &mut [u8], offset: u64, page: u32) -> Result<(), Error> {
    if read_up_to(source, into, offset)? < into.len() {
        return Err(Error::damaged(
            Place::Page(page),
            "lies past the end of the file",
        ));
    }
    Ok(())
}
