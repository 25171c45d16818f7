//! Sqlite databases, read without SQLite: no lock, no side file, no write, bounded memory.
//!
//! ```text
//! rpmdb.sqlite          pages; page 1 starts with the file header and holds the schema table
//! rpmdb.sqlite-wal      newer versions of pages: committed frames count         wal.rs
//! Pager                 page number -> bytes, from the log or the file          pager.rs
//! walk                  table b-tree, row by row, overflow chains on demand     btree.rs
//! record                columns of a row                                        record.rs
//! schema                names of tables and columns -> root page and position   schema.rs
//! ```
//!
//! Only ordinary tables are read, never an index: those of rpm and dnf need no more. All of it
//! follows <https://sqlite.org/fileformat2.html>.

mod btree;
mod pager;
mod record;
mod schema;
mod wal;

pub use record::Value;
pub use schema::Table;

use super::error::{Error, Place};
use super::header::Blob;
use super::source::ReadAt;
use btree::{Payload, walk};
use pager::Pager;
use std::ops::ControlFlow;

/// Longest record header that is looked at; tables here have a handful of columns.
const MAX_RECORD_HEADER: u64 = 64 * 1024;
/// Longest single value that [`Database::rows`] returns; longer ones come as NULL.
const MAX_VALUE: u64 = 1024 * 1024;

/// A sqlite database over a byte source.
#[derive(Debug)]
pub struct Database<S> {
    pager: Pager<S>,
    tables: Vec<Table>,
}

impl<S: ReadAt> Database<S> {
    /// Reads the file header and the schema, with what is committed in `wal` applied.
    ///
    /// # Errors
    /// Not a sqlite database, or a damaged one.
    pub fn open(main: S, wal: Option<S>) -> Result<Self, Error> {
        let overlay = match wal {
            Some(wal) => wal::overlay(wal)?,
            None => None,
        };
        let mut database = Self {
            pager: Pager::new(main, overlay)?,
            tables: Vec::new(),
        };
        database.tables = schema::read(&mut database)?;
        Ok(database)
    }

    /// The table of that name, upper and lower case alike.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables
            .iter()
            .find(|table| table.name.eq_ignore_ascii_case(name))
    }

    /// Calls `visit` with the row number and the wanted `columns` of every row, in order of row
    /// numbers. A column that the table does not have is [`Value::Null`].
    ///
    /// # Errors
    /// The table is damaged, or `visit` said so.
    pub fn rows(
        &mut self,
        table: &Table,
        columns: &[&str],
        visit: &mut dyn FnMut(i64, &[Value]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let wanted: Vec<Option<usize>> = columns.iter().map(|name| table.column(name)).collect();
        self.rows_at(table.root, table.row_number, &wanted, visit)
    }

    fn rows_at(
        &mut self,
        root: u32,
        row_number: Option<usize>,
        wanted: &[Option<usize>],
        visit: &mut dyn FnMut(i64, &[Value]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let encoding = self.pager.encoding();
        let (mut header, mut bytes) = (Vec::new(), Vec::new());
        let mut values = vec![Value::Null; wanted.len()];
        walk(&mut self.pager, root, &mut |rowid, mut row| {
            values.fill(Value::Null);
            record_header(&mut row, &mut header)?;
            for (index, column) in record::columns(&header).enumerate() {
                let column = column.ok_or(BAD_RECORD)?;
                for (value, _) in values
                    .iter_mut()
                    .zip(wanted)
                    .filter(|(_, want)| **want == Some(index))
                {
                    *value = if row_number == Some(index) && column.serial == 0 {
                        // The row number itself is not stored a second time.
                        Value::Integer(rowid)
                    } else if column.length > MAX_VALUE {
                        Value::Null
                    } else {
                        let length = usize::try_from(column.length).unwrap_or(0);
                        row.copy(column.offset, length, &mut bytes)?;
                        if bytes.len() < length {
                            return Err(BAD_RECORD);
                        }
                        record::value(column.serial, &bytes, encoding)
                    };
                }
            }
            Ok(visit(rowid, &values))
        })
    }

    /// Calls `visit` with the number, the blob and some of the blob's first bytes of every row of
    /// rpm's table `Packages`, in order of numbers.
    pub(super) fn headers(&mut self, visit: &mut super::Visit<'_>) -> Result<(), Error> {
        let table = self.table("Packages").ok_or(Error::NoPackagesTable)?;
        let root = table.root;
        let column = table.column("blob").ok_or(Error::NoPackagesTable)?;
        let mut header = Vec::new();
        walk(&mut self.pager, root, &mut |rowid, mut row| {
            let number = u32::try_from(rowid).unwrap_or(u32::MAX);
            let blob = header_blob(&mut row, column, &mut header);
            Ok(match blob {
                Ok((offset, length)) => {
                    let mut blob = Column {
                        row,
                        offset,
                        length,
                    };
                    visit(super::Item {
                        number,
                        length,
                        check: blob.check(),
                        blob: Ok(&mut blob),
                    })
                }
                Err(error) => visit(super::Item {
                    number,
                    length: 0,
                    check: 0,
                    blob: Err(error),
                }),
            })
        })
    }

    /// The highest number that the table ever gave to a row; `None` when it never held one.
    ///
    /// # Errors
    /// The bookkeeping table is damaged.
    pub fn last_number(&mut self, table: &str) -> Result<Option<u64>, Error> {
        let Some(sequence) = self.table("sqlite_sequence").cloned() else {
            return Ok(None);
        };
        let mut last = None;
        self.rows(&sequence, &["name", "seq"], &mut |_, values| {
            if let [name, seq] = values
                && name.text() == Some(table)
            {
                last = seq.integer().and_then(|n| u64::try_from(n).ok());
            }
            ControlFlow::Continue(())
        })?;
        Ok(last.filter(|n| *n > 0))
    }
}

const BAD_RECORD: Error = Error::Damaged {
    place: Place::FileHeader,
    why: "a row is damaged",
};

fn record_header<S: ReadAt>(row: &mut Payload<'_, S>, into: &mut Vec<u8>) -> Result<(), Error> {
    let (length, _) = record::varint(row.local()).ok_or(BAD_RECORD)?;
    if length > MAX_RECORD_HEADER || length > row.length() {
        return Err(BAD_RECORD);
    }
    row.copy(0, usize::try_from(length).unwrap_or(0), into)
}

fn header_blob<S: ReadAt>(
    row: &mut Payload<'_, S>,
    column: usize,
    header: &mut Vec<u8>,
) -> Result<(u64, u64), Error> {
    record_header(row, header)?;
    let column = record::columns(header)
        .nth(column)
        .flatten()
        .ok_or(BAD_RECORD)?;
    let end = column.offset.checked_add(column.length);
    if !column.is_blob() || end.is_none_or(|end| end > row.length()) {
        return Err(BAD_RECORD);
    }
    Ok((column.offset, column.length))
}

/// The bytes of one column of a row.
struct Column<'a, S> {
    row: Payload<'a, S>,
    offset: u64,
    length: u64,
}

impl<S: ReadAt> Column<'_, S> {
    /// A check over the bytes that lie in the leaf page, which needs no further reading: the
    /// lengths, most of the index, and in most rows the name and version as well.
    fn check(&self) -> u64 {
        super::check(self.row.local())
    }
}

impl<S: ReadAt> Blob for Column<'_, S> {
    fn length(&self) -> u64 {
        self.length
    }

    fn chunk(&mut self, offset: u64) -> Result<&[u8], Error> {
        let rest = self.length.checked_sub(offset).filter(|rest| *rest > 0);
        let rest = rest.ok_or(Error::damaged(Place::Offset(offset), "is past the header"))?;
        let chunk = self.row.chunk(self.offset + offset)?;
        let n = chunk.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        Ok(chunk.get(..n).unwrap_or_default())
    }
}
