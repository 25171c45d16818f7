//! A walk over one table: every row in the order of its number.
//!
//! ```text
//! interior page 0x05   cells: left child u32, varint key; rightmost child in the page header
//! leaf page     0x0d   cells: varint payload length, varint rowid, payload, overflow page u32
//! overflow page        next page u32 (0: last), payload bytes
//! ```
//! <https://sqlite.org/fileformat2.html#b_tree_pages>

use super::pager::{CHAIN_POINTER, Pager};
use super::record::varint;
use super::run::Ahead;
use crate::rpmdb::error::{Error, Place};
use crate::rpmdb::header::Blob;
use crate::rpmdb::source::ReadAt;
use crate::rpmdb::source::number::{be_u16, be_u32};
use std::ops::ControlFlow;

/// Deeper than any tree that sqlite itself accepts (`BTCURSOR_MAX_DEPTH`).
const MAX_DEPTH: usize = 20;
/// Longest payload that sqlite accepts.
const MAX_PAYLOAD: u64 = 0x7fff_ffff;
/// Fetched around a wanted byte in the middle of an overflow page: a string or two.
const WINDOW: usize = 512;
const INTERIOR: u8 = 0x05;
const LEAF: u8 = 0x0d;

/// What a visitor of rows wants next.
pub(super) type Flow = Result<ControlFlow<()>, Error>;

/// Calls `visit` with every row of the table whose root is `root`.
pub(super) fn walk<S: ReadAt>(
    pager: &mut Pager<S>,
    root: u32,
    visit: &mut dyn FnMut(i64, Payload<'_, S>) -> Flow,
) -> Result<(), Error> {
    pager.begin_walk();
    let mut chain = Vec::new();
    let mut path: Vec<Node> = Vec::new();
    let mut spare: Vec<Vec<u8>> = Vec::new();
    let mut next = Some(root);
    loop {
        if let Some(page) = next.take() {
            if path.len() == MAX_DEPTH {
                return Err(Error::damaged(
                    Place::Page(page),
                    "lies too deep in its tree",
                ));
            }
            let node = Node::read(pager, page, spare.pop().unwrap_or_default())?;
            if node.kind == LEAF {
                if node.rows(pager, &mut chain, visit)?.is_break() {
                    return Ok(());
                }
                spare.push(node.bytes);
            } else {
                path.push(node);
            }
        }
        let Some(node) = path.last_mut() else {
            return Ok(());
        };
        match node.next_child()? {
            Some(child) => next = Some(child),
            None => spare.extend(path.pop().map(|node| node.bytes)),
        }
    }
}

/// Calls `visit` with the row of that number; false when there is none.
///
/// Pages are counted as in a walk, so a search may follow others in the same one.
pub(super) fn find<S: ReadAt>(
    pager: &mut Pager<S>,
    root: u32,
    rowid: i64,
    visit: &mut dyn FnMut(Payload<'_, S>) -> Flow,
) -> Result<bool, Error> {
    let (mut page, mut bytes) = (root, Vec::new());
    for _ in 0..MAX_DEPTH {
        let node = Node::read(pager, page, bytes)?;
        if node.kind == LEAF {
            return node.row(pager, rowid, visit);
        }
        page = node.child_of(rowid)?;
        bytes = node.bytes;
    }
    Err(Error::damaged(
        Place::Page(page),
        "lies too deep in its tree",
    ))
}

struct Node {
    page: u32,
    bytes: Vec<u8>,
    /// Where the b-tree header begins: after the file header on page 1.
    at: usize,
    kind: u8,
    cells: u16,
    next: u16,
}

impl Node {
    fn read<S: ReadAt>(pager: &mut Pager<S>, page: u32, mut bytes: Vec<u8>) -> Result<Self, Error> {
        pager.visit(page)?;
        pager.read(page, &mut bytes)?;
        let at = if page == 1 { 100 } else { 0 };
        let kind = bytes.get(at).copied().unwrap_or(0);
        if kind != INTERIOR && kind != LEAF {
            return Err(Error::damaged(Place::Page(page), "is no table page"));
        }
        let cells = be_u16(&bytes, at + 3).unwrap_or(0);
        let pointers = at + if kind == LEAF { 8 } else { 12 };
        if pointers + 2 * usize::from(cells) > bytes.len() {
            return Err(Error::damaged(Place::Page(page), "has too many cells"));
        }
        Ok(Self {
            page,
            bytes,
            at,
            kind,
            cells,
            next: 0,
        })
    }

    fn cell(&self, index: u16) -> Result<usize, Error> {
        let header = if self.kind == LEAF { 8 } else { 12 };
        be_u16(&self.bytes, self.at + header + usize::from(index) * 2)
            .map(usize::from)
            .filter(|cell| *cell < self.bytes.len())
            .ok_or(self.damaged("has a cell outside itself"))
    }

    fn next_child(&mut self) -> Result<Option<u32>, Error> {
        let at = match self.next {
            next if next < self.cells => self.cell(next)?,
            next if next == self.cells => self.at + 8,
            _ => return Ok(None),
        };
        self.next += 1;
        be_u32(&self.bytes, at)
            .map(Some)
            .ok_or(self.damaged("has a cell outside itself"))
    }

    fn rows<S: ReadAt>(
        &self,
        pager: &mut Pager<S>,
        chain: &mut Vec<u32>,
        visit: &mut dyn FnMut(i64, Payload<'_, S>) -> Flow,
    ) -> Flow {
        for index in 0..self.cells {
            let at = self.cell(index)?;
            let cell = self.bytes.get(at..).unwrap_or_default();
            let (rowid, payload) = self.leaf_cell(cell, pager, chain)?;
            if visit(rowid, payload)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The child that holds the rows up to the first key that is not below `rowid`.
    fn child_of(&self, rowid: i64) -> Result<u32, Error> {
        let outside = || self.damaged("has a cell outside itself");
        for index in 0..self.cells {
            let cell = self.bytes.get(self.cell(index)?..).unwrap_or_default();
            let (key, _) = cell.get(4..).and_then(varint).ok_or_else(outside)?;
            if rowid <= key.cast_signed() {
                return be_u32(cell, 0).ok_or_else(outside);
            }
        }
        be_u32(&self.bytes, self.at + 8).ok_or_else(outside)
    }

    fn row<S: ReadAt>(
        &self,
        pager: &mut Pager<S>,
        rowid: i64,
        visit: &mut dyn FnMut(Payload<'_, S>) -> Flow,
    ) -> Result<bool, Error> {
        let mut chain = Vec::new();
        for index in 0..self.cells {
            let cell = self.bytes.get(self.cell(index)?..).unwrap_or_default();
            let (number, payload) = self.leaf_cell(cell, pager, &mut chain)?;
            if number == rowid {
                let _ = visit(payload)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn leaf_cell<'a, S: ReadAt>(
        &self,
        cell: &'a [u8],
        pager: &'a mut Pager<S>,
        chain: &'a mut Vec<u32>,
    ) -> Result<(i64, Payload<'a, S>), Error> {
        let outside = || self.damaged("has a cell outside itself");
        let (length, n) = varint(cell).ok_or_else(outside)?;
        let (rowid, m) = cell.get(n..).and_then(varint).ok_or_else(outside)?;
        if length > MAX_PAYLOAD {
            return Err(self.damaged("has a row of impossible length"));
        }
        let inside = local_length(length, pager.usable());
        let body = cell.get(n + m..).unwrap_or_default();
        let local = body.get(..inside).ok_or_else(outside)?;
        let overflow = if (inside as u64) < length {
            be_u32(body, inside).ok_or_else(outside)?
        } else {
            0
        };
        chain.clear();
        let payload = Payload {
            local,
            length,
            first: overflow,
            announced: 0,
            chain,
            pager,
        };
        Ok((rowid.cast_signed(), payload))
    }

    fn damaged(&self, why: &'static str) -> Error {
        Error::damaged(Place::Page(self.page), why)
    }
}

/// Bytes of a payload that lie in the leaf page itself.
fn local_length(length: u64, usable: usize) -> usize {
    let usable = usable as u64;
    let most = usable - 35;
    let local = if length <= most {
        length
    } else {
        let least = (usable - 12) * 32 / 255 - 23;
        let even = least + (length - least) % (usable - 4);
        if even <= most { even } else { least }
    };
    usize::try_from(local).unwrap_or(usize::MAX)
}

/// The bytes of one row: the first in the leaf page, the rest along a chain of overflow pages that
/// is followed only as far as bytes are asked for.
pub(super) struct Payload<'a, S> {
    local: &'a [u8],
    length: u64,
    /// First overflow page; 0 when there is none.
    first: u32,
    /// Bytes up to here will be asked for.
    announced: u64,
    /// Overflow pages known so far, in order.
    chain: &'a mut Vec<u32>,
    pager: &'a mut Pager<S>,
}

impl<S: ReadAt> Payload<'_, S> {
    /// The bytes in the leaf page; never none unless the row is empty.
    pub(super) fn local(&self) -> &[u8] {
        self.local
    }

    /// Copies `length` bytes from `offset` on into `into`, fewer at the end of the row.
    pub(super) fn copy(
        &mut self,
        offset: u64,
        length: usize,
        into: &mut Vec<u8>,
    ) -> Result<(), Error> {
        into.clear();
        self.announce(offset.saturating_add(length as u64));
        while into.len() < length && offset + (into.len() as u64) < self.length {
            let chunk = self.chunk(offset + into.len() as u64)?;
            let n = chunk.len().min(length - into.len());
            into.extend_from_slice(chunk.get(..n).unwrap_or_default());
        }
        Ok(())
    }
}

impl<S: ReadAt> Blob for Payload<'_, S> {
    fn length(&self) -> u64 {
        self.length
    }

    fn announce(&mut self, end: u64) {
        self.announced = end.min(self.length);
    }

    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error> {
        let inside = self.local.len() as u64;
        if offset < inside {
            let at = usize::try_from(offset).unwrap_or(usize::MAX);
            return Ok(self.local.get(at..).unwrap_or_default());
        }
        let Some(rest) = self.length.checked_sub(offset).filter(|rest| *rest > 0) else {
            return Err(Error::damaged(Place::Offset(offset), "is past the row"));
        };
        let (index, within) = self.in_chain(offset);
        // Without a word about what follows: a string or two, or all of a page at its start.
        let most = self.pager.usable() - within;
        let guess = if within == CHAIN_POINTER {
            most
        } else {
            WINDOW.min(most)
        };
        let end = self.announced.max(offset + guess as u64).min(self.length);
        let (last, end) = self.in_chain(end - 1);
        let wanted = Wanted { last, end: end + 1 };
        let page = self.page(index, wanted)?;
        let bytes = self.pager.part(page, within, wanted.after(index))?;
        let length = bytes.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        Ok(bytes.get(..length).unwrap_or_default())
    }
}

impl<S: ReadAt> Payload<'_, S> {
    /// Which page of the chain a byte is in, and where in it.
    fn in_chain(&self, offset: u64) -> (usize, usize) {
        let per_page = (self.pager.usable() - CHAIN_POINTER) as u64;
        let beyond = offset - self.local.len() as u64;
        let index = usize::try_from(beyond / per_page).unwrap_or(usize::MAX);
        let within = usize::try_from(beyond % per_page).unwrap_or(usize::MAX);
        (index, CHAIN_POINTER + within)
    }

    /// Number of the overflow page at `index` in the chain, following it as far as needed.
    fn page(&mut self, index: usize, wanted: Wanted) -> Result<u32, Error> {
        while self.chain.len() <= index {
            let next = match self.chain.last() {
                Some(last) => {
                    let ahead = wanted.after(self.chain.len() - 1);
                    self.pager.next_in_chain(*last, ahead)?
                }
                None => self.first,
            };
            self.pager.visit(next)?;
            self.chain.push(next);
        }
        Ok(self.chain.get(index).copied().unwrap_or(0))
    }
}

/// The last byte that is wanted of a chain.
#[derive(Clone, Copy)]
struct Wanted {
    /// Which page of the chain it is in.
    last: usize,
    /// Where in that page it ends.
    end: usize,
}

impl Wanted {
    /// As seen from the page at `index`.
    fn after(self, index: usize) -> Ahead {
        Ahead {
            pages: u32::try_from(self.last.saturating_sub(index)).unwrap_or(u32::MAX),
            end: self.end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_divided_as_the_format_says() {
        // Worked by hand from the formulas of the file format page, for 4096 usable bytes.
        assert_eq!(local_length(4061, 4096), 4061);
        assert_eq!(local_length(4062, 4096), 489);
        assert_eq!(local_length(489 + 4092, 4096), 489);
        assert_eq!(local_length(489 + 4092 + 3000, 4096), 3489);
        assert_eq!(local_length(489 + 4092 + 4000, 4096), 489);
    }
}
